"""What a task is, as data: inputs, predicted columns, metrics and names. No astronomy, no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field


class HeadOptions(BaseModel):
    """Options of one head of a network; a task adds its own in a subclass."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    weight: float = Field(1.0, gt=0, description="Weight of this head's loss in the sum over the heads of the network.")

    def outputs(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Which of the task's network outputs a head with these options has."""
        return names

    @property
    def vectors(self) -> tuple[int, ...]:
        """Numbers of the head's outputs that begin a vector (x, y), which turns with the image."""
        return ()

    @classmethod
    def defaults(cls, kind: str) -> dict[str, Any]:
        """Options whose default depends on the kind of input of the network."""
        return {}


class UncertaintyOptions(HeadOptions):
    """Options of a head whose last output is an uncertainty."""

    uncertainty: bool = Field(True, description="Whether the uncertainty of each value is also predicted.")

    def outputs(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Without an uncertainty, all but the last."""
        return names if self.uncertainty else names[:-1]


class DL2Place(NamedTuple):
    """Where a column stands in ctapipe's DL2 layout.

    Attributes
    ----------
    group : str
        Below ``/dl2/event/telescope`` and ``/dl2/event/subarray``: energy, classification, geometry ...
    name : str
        Field of ctapipe's container.
    average : {"mean", "log_mean", "direction", "position"}, optional
        How the telescopes of an event are combined, for the column that decides whether the values of its group are
        valid; None for the others. In a group without, events have no value.
    """

    group: str
    name: str
    average: Literal["mean", "log_mean", "direction", "position"] | None = None


@dataclass(frozen=True)
class Column:
    """One quantity that a task predicts.

    Attributes
    ----------
    name : str
    unit : str
        As astropy spells it; empty for a pure number; ``sci`` for the unit of the frame.
    description : str
    dl2 : DL2Place, optional
        Its place in DL2 files (camera).
    hdu : str, optional
        The HDU that it is written to (sky): SCI, ERR, or an extension of its own. None: it is not written.
    internal : bool
        Only the mean over the telescopes of an event needs it: it is not written or shown.
    """

    name: str
    unit: str
    description: str
    dl2: DL2Place | None = None
    hdu: str | None = None
    internal: bool = False


class Monitor(NamedTuple):
    """The validation metric that chooses the best epoch, and which way is better."""

    metric: str
    better: Literal["higher", "lower"]

    def improves(self, value: float, best: float | None) -> bool:
        """Whether `value` is better than `best` (anything is better than None)."""
        if best is None:
            return True
        return value > best if self.better == "higher" else value < best


@dataclass(frozen=True)
class MetricText:
    """Label of a metric, and its meaning in one sentence."""

    label: str
    meaning: str
    percent: bool = False


@dataclass(frozen=True)
class TaskSpec:
    """Everything of a task that is data.

    Attributes
    ----------
    name : str
        Name of its folder in `pipeline/tasks`.
    wing : {"camera", "sky"}
    title : str
        Heading in reports.
    input : str
        Kind of input (`pipeline.inputs`) of a network that names none; any other kind of the same wing is accepted.
    gives : {"vector", "map", "image"}
        What its head needs of a network: numbers per image, numbers per pixel, or images that it makes.
    outputs : tuple of str
        Names of the network's outputs, in their order.
    transform : str
        In one sentence, what these outputs are; for the model card.
    quantity : str
        What the first output is, as the label of an axis.
    columns : tuple of Column
        What the decoder makes of the outputs; the first decides whether a prediction is valid.
    monitor : Monitor
    headline : tuple of str
        Test metrics of a report's summary, in this order. The first ranks networks in a comparison.
    metrics, methods : mapping
        Names of metrics and of baselines in words.
    where : mapping
        Event column -> value of the tiles that count for this task; empty: all of them.
    equalise : bool
        Whether tiles are weighted to equalise the classes.
    needs : tuple of str
        Event columns with the truth that training and judging need.
    targets : tuple of str
        Targets of the tiles that training needs.
    options : type of HeadOptions
    order : int
        Place in reports.
    """

    name: str
    wing: Literal["camera", "sky"]
    title: str
    input: str
    outputs: tuple[str, ...]
    transform: str
    quantity: str
    columns: tuple[Column, ...]
    monitor: Monitor
    headline: tuple[str, ...]
    metrics: Mapping[str, MetricText]
    gives: Literal["vector", "map", "image"] = "vector"
    methods: Mapping[str, str] = field(default_factory=dict)
    where: Mapping[str, int] = field(default_factory=dict)
    equalise: bool = False
    needs: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    options: type[HeadOptions] = HeadOptions
    order: int = 100

    @property
    def shown(self) -> tuple[Column, ...]:
        """Columns for users: all but the internal ones."""
        return tuple(column for column in self.columns if not column.internal)
