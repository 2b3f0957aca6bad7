"""Section `zoo`: a comparison of networks."""

from typing import Any

from pydantic import Field, field_validator, model_validator

from pipeline.config.base import FOLDER_NAME, Section
from pipeline.tasks import get_spec


class ZooEntry(Section):
    """One network of a comparison.

    `label` names its row and its folder; by default the model's name. `train` sets keys of the network's section that
    differ for this entry (a network without normalisation needs another learning rate).
    """

    name: str
    label: str = Field("", pattern=rf"^({FOLDER_NAME})?$")
    kwargs: dict[str, Any] = Field(default_factory=dict)
    train: dict[str, Any] = Field(default_factory=dict)

    @field_validator("train")
    @classmethod
    def _comparable(cls, value: dict[str, Any]) -> dict[str, Any]:
        if "epochs" in value:
            raise ValueError("epochs are the same for all entries, zoo.epochs; leave them out")
        if "model" in value:
            raise ValueError("model is the entry's own name and kwargs; leave it out")
        return value

    @model_validator(mode="before")
    @classmethod
    def _labelled(cls, value: Any) -> Any:
        if isinstance(value, dict) and not value.get("label"):
            return value | {"label": value.get("name", "")}
        return value


class ZooConfig(Section):
    """A comparison of networks, all trained on the same tiles for the same time. Without entries there is none.

    For each task of `tasks` an entry is trained as a network with that one head: with the settings of the network
    named as the task, those of `train`, and those of the entry.
    """

    tasks: tuple[str, ...] = ("energy", "gammaness")
    epochs: int = Field(4, ge=1)
    train: dict[str, Any] = Field(default_factory=dict)
    best: int = Field(3, ge=0, description="networks of each task, by validation, that are trained with further seeds")
    seeds: int = Field(3, ge=1, description="trainings of each of those, the first one included")
    entries: tuple[ZooEntry, ...] = ()

    @field_validator("tasks")
    @classmethod
    def _of_the_camera(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for task in value:
            if get_spec(task).wing != "camera":
                raise ValueError(f"networks are compared on camera tasks, and {task} is a task of the sky")
        return value

    @model_validator(mode="after")
    def _labels_differ(self) -> "ZooConfig":
        labels = [entry.label for entry in self.entries]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"{labels.count(label)} entries are labelled {label!r}; give each a label of its own")
        return self
