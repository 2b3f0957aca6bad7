"""Section `zoo`: a comparison of networks."""

from typing import Any

from pydantic import Field, field_validator, model_validator

from pipeline.config.base import FOLDER_NAME, Section
from pipeline.tasks import get_spec


class ZooEntry(Section):
    """One network of a comparison."""

    name: str = Field(description="Name of the architecture; `lightpool models list` shows all.", examples=["resnet18"])
    label: str = Field(
        "", pattern=rf"^({FOLDER_NAME})?$", description="Name of its row and its folder. Empty: the same as name."
    )
    kwargs: dict[str, Any] = Field(
        default_factory=dict, description="Arguments of the architecture's constructor, passed on unchanged."
    )
    train: dict[str, Any] = Field(
        default_factory=dict,
        description="Keys of a network, except model and epochs, that differ for this entry, such as learning_rate.",
    )

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
    """A comparison of networks, all trained on the same tiles for the same number of epochs; without entries, none.

    For each task of `tasks` an entry is trained as a network with that one head. Its settings are those of the network
    with the name of the task, then those of `train`, then those of the entry.
    """

    tasks: tuple[str, ...] = Field(
        ("energy", "gammaness"),
        description="Camera tasks that the networks are compared on. Each is trained with the settings of the network "
        "that has the task's name.",
    )
    epochs: int = Field(4, ge=1, description="Number of epochs of every training.")
    train: dict[str, Any] = Field(
        default_factory=dict, description="Keys of a network that differ in the comparison, for all entries."
    )
    best: int = Field(
        3, ge=0, description="Number of networks per task, the best in validation, that are trained with more seeds."
    )
    seeds: int = Field(3, ge=1, description="Number of trainings of each of those, including the first.")
    entries: tuple[ZooEntry, ...] = Field((), description="The networks to compare. Empty: no comparison.")

    @field_validator("tasks")
    @classmethod
    def _of_the_camera(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for task in value:
            if get_spec(task).wing != "camera":
                raise ValueError(f"only camera tasks can be compared, and {task} is a sky task")
        return value

    @model_validator(mode="after")
    def _labels_differ(self) -> "ZooConfig":
        labels = [entry.label for entry in self.entries]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"{labels.count(label)} entries are labelled {label!r}; give each a label of its own")
        return self
