"""The place of predictions in ctapipe's DL2 layout: groups, columns, types and the attributes that describe them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.camera.dl2.combine import Combiner, PositionMean, TelescopeMean
from pipeline.camera.dl2.directions import DirectionMean
from pipeline.tasks.spec import Column


@dataclass(frozen=True)
class Quantity:
    """A column of a DL2 table.

    Attributes
    ----------
    name : str
        Field of ctapipe's container; the column is ``PREFIX_tel_name`` or ``PREFIX_name``.
    unit : str or None
        Unit as astropy spells it.
    description : str
        Column description.
    """

    name: str
    unit: str | None
    description: str


@dataclass(frozen=True)
class Output:
    """Columns of one group of DL2, under the prefix of the head that predicts them; see `outputs_of`.

    Parameters
    ----------
    prefix : str
    columns : sequence of Column
        Of one group. One of them may say how telescopes are averaged: it decides validity. Without, events have no
        value, and the first column decides.
    of_events : bool
        Whether values are predicted for events, and none for their telescopes.
    """

    prefix: str
    columns: tuple[Column, ...]
    of_events: bool = False

    def __post_init__(self) -> None:
        if not self.prefix.isidentifier():
            raise ValueError(f"{self.prefix!r} cannot be the prefix of a column; letters, digits and _ can")
        if len({column.dl2.group for column in self.columns}) != 1:
            raise ValueError(f"an output has columns of one group of DL2, got {[c.name for c in self.columns]}")
        averaged = [column for column in self.columns if column.dl2.average is not None]
        if len(averaged) > 1:
            raise ValueError(f"an output has one column with an average, got {[c.name for c in averaged]}")

    @property
    def group(self) -> str:
        """Group below ``/dl2/event/telescope`` and ``/dl2/event/subarray``."""
        return self.columns[0].dl2.group

    @property
    def value(self) -> Column:
        """The column that decides validity."""
        return next((column for column in self.columns if column.dl2.average is not None), self.columns[0])

    @property
    def is_averaged(self) -> bool:
        """Whether events have a value, from those of their telescopes."""
        return self.value.dl2.average is not None

    def combiner(self, n_events: int) -> Combiner:
        """What makes the values of events from those of telescopes."""
        if self.value.dl2.average == "direction":
            return DirectionMean(n_events)
        if self.value.dl2.average == "position":
            return PositionMean(n_events)
        uncertainty = next((c.dl2.name for c in self.columns if c is not self.value), None)
        logarithmic = self.value.dl2.average == "log_mean"
        return TelescopeMean(n_events, self.value.dl2.name, uncertainty, logarithmic=logarithmic)

    @property
    def stored(self) -> tuple[Column, ...]:
        """Columns that the tables hold."""
        return tuple(column for column in self.columns if not column.internal)

    @property
    def internal(self) -> tuple[Column, ...]:
        """Columns that only the combiner sees."""
        return tuple(column for column in self.columns if column.internal)

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """Columns of the tables, in the order of `stored`."""
        return tuple(Quantity(c.dl2.name, c.unit or None, c.description) for c in self.stored)


def outputs_of(prefix: str, columns: Sequence[Column], *, of_events: bool = False) -> tuple[Output, ...]:
    """What a head with these columns writes: one output for each group in which it has a place.

    A head of whole events has none in groups that telescopes alone have.
    """
    groups: dict[str, list[Column]] = {}
    for column in columns:
        if column.dl2 is not None:
            groups.setdefault(column.dl2.group, []).append(column)
    outputs = (Output(prefix, tuple(own), of_events) for own in groups.values())
    return tuple(output for output in outputs if output.is_averaged or not of_events)


# ---- rows and their attributes ---------------------------------------------------------------------------------------
_KEY_COLUMNS = {"obs_id": "Observation Block ID", "event_id": "Array Event ID", "tel_id": "Telescope ID"}
#: Key column -> type, as the tables have it that go along: readers that join columns of two types make them float64.
KeyTypes = Mapping[str, np.dtype]
_GOODNESS = Quantity("goodness_of_fit", None, "goodness measure of the algorithm; not given by these models")
_IS_VALID = Quantity("is_valid", None, "true if the prediction is valid")
# Not ctapipe's name "telescopes": its event reader (0.28) hands on that mask as a list of telescopes, and so
# ctapipe-process on such a file fails, or writes telescope 1 where all took part.
_TELESCOPES = Quantity("tels_used", None, "telescopes used for the prediction")


def telescope_rows(
    output: Output,
    types: KeyTypes,
    tel_id: int,
    obs_id: np.ndarray,
    event_id: np.ndarray,
    values: Mapping[str, np.ndarray],
) -> np.ndarray:
    """Rows (n,) of one telescope's table; all values are NaN where the deciding one is not finite.

    Groups that telescopes alone have (disp) do not say what is valid, as in ctapipe: a reader that joins the tables of
    a prefix would find these columns twice.
    """
    prefix = f"{output.prefix}_tel"
    dtype = [(name, types[name]) for name in _KEY_COLUMNS]
    dtype += [(f"{prefix}_{quantity.name}", "f4") for quantity in output.quantities]
    if output.is_averaged:
        dtype += [(f"{prefix}_is_valid", "?"), (f"{prefix}_goodness_of_fit", "f4")]
    rows = np.zeros(len(event_id), dtype)
    rows["obs_id"], rows["event_id"], rows["tel_id"] = obs_id, event_id, tel_id
    valid = np.isfinite(values[output.value.name])
    for column, quantity in zip(output.stored, output.quantities, strict=True):
        rows[f"{prefix}_{quantity.name}"] = np.where(valid, values[column.name], np.nan)
    if output.is_averaged:
        rows[f"{prefix}_is_valid"] = valid
        rows[f"{prefix}_goodness_of_fit"] = np.nan
    return rows


def subarray_dtype(output: Output, types: KeyTypes, n_telescopes: int) -> list[tuple[Any, ...]]:
    """Columns of the table of events, with a mask of `n_telescopes` for those that counted."""
    prefix = output.prefix
    dtype: list[tuple[Any, ...]] = [(name, types[name]) for name in ("obs_id", "event_id")]
    dtype += [(f"{prefix}_{quantity.name}", "f4") for quantity in output.quantities]
    return [
        *dtype,
        (f"{prefix}_is_valid", "?"),
        (f"{prefix}_goodness_of_fit", "f4"),
        (f"{prefix}_{_TELESCOPES.name}", "?", (n_telescopes,)),
    ]


def telescope_attributes(output: Output) -> list[dict[str, str]]:
    """What describes each column of `telescope_rows`, in their order."""
    keys = [{"NAME": name, "DESC": text} for name, text in _KEY_COLUMNS.items()]
    columns = (*output.quantities, *((_IS_VALID, _GOODNESS) if output.is_averaged else ()))
    return keys + [_attributes(quantity, f"{output.prefix}_tel") for quantity in columns]


def subarray_attributes(output: Output) -> list[dict[str, str]]:
    """What describes each column of `subarray_dtype`, in their order."""
    keys = [{"NAME": name, "DESC": _KEY_COLUMNS[name]} for name in ("obs_id", "event_id")]
    columns = (*output.quantities, _IS_VALID, _GOODNESS, _TELESCOPES)
    attributes = keys + [_attributes(quantity, output.prefix) for quantity in columns]
    attributes[-1]["TRANSFORM"] = "tel_list_to_mask"
    return attributes


def _attributes(quantity: Quantity, prefix: str) -> dict[str, str]:
    attributes = {"NAME": quantity.name, "PREFIX": prefix, "DESC": quantity.description}
    if quantity.unit is not None:
        attributes |= {"UNIT": quantity.unit, "TRANSFORM": "quantity"}
    return attributes
