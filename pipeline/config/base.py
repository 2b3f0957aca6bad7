"""What all sections of the configuration share."""

from itertools import pairwise
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from pipeline.config.merge import kinds_of

#: A name that becomes a folder: it cannot be ``.`` or ``..``, or look like a command-line option.
FOLDER_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"

_Number = TypeVar("_Number")


def _ordered(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError("Input should be [low, high], with low not above high")
    return limits


def _increasing(values: tuple[float, ...]) -> tuple[float, ...]:
    if any(high <= low for low, high in pairwise(values)):
        raise ValueError("Input should increase from each number to the next")
    return values


#: Lower and upper limit of a value that is drawn between them.
Range = Annotated[tuple[_Number, _Number], AfterValidator(_ordered)]
#: Values above which something is counted.
Thresholds = Annotated[tuple[_Number, ...], Field(min_length=1), AfterValidator(_increasing)]
#: Edges of adjoining bins.
Edges = Annotated[tuple[_Number, ...], Field(min_length=2), AfterValidator(_increasing)]


def refuse_switch(annotation: Any, value: Any, where: str = "") -> None:
    """Refuse `true` and `false` where numbers belong; pydantic would take them for 1 and 0.

    Parameters
    ----------
    annotation : type
        What the value should be.
    value : Any
    where : str
        Beginning of the message, for a value whose place pydantic does not report.

    Raises
    ------
    ValueError
        If `value`, or an entry of it, is one of them, and `annotation` has numbers and no switch.
    """
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else (value,)
    kinds = set(kinds_of(annotation))
    if bool not in kinds and kinds & {int, float} and any(isinstance(entry, bool) for entry in values):
        raise ValueError(f"{where}Input should be a number; YAML reads yes, no, on and off as true or false")


class Section(BaseModel):
    """A section: immutable; unknown keys, numbers that are not finite, and switches for numbers are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        refuse_switch(cls.model_fields[info.field_name].annotation, value)
        return value
