"""Where predictions stand in ctapipe's DL2 layout: groups, columns, types and the attributes that describe them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Quantity:
    """Where a predicted quantity stands in ctapipe's DL2 layout.

    Attributes
    ----------
    group : str
        Group below ``/dl2/event/telescope`` and ``/dl2/event/subarray``.
    name : str
        Field of ctapipe's container; the column is ``PREFIX_tel_name`` or ``PREFIX_name``.
    unit : str or None
        Unit as astropy spells it.
    description : str
        Column description.
    """

    group: str
    name: str
    unit: str | None
    description: str


#: Column of a decoder -> its place. The classification group is not called ``particle_type`` as ctapipe's own constant
#: says: `HDF5EventSource` of ctapipe 0.28 drops a group of that name.
QUANTITIES = {
    "reco_energy_tev": Quantity("energy", "energy", "TeV", "reconstructed energy"),
    "reco_energy_uncert_tev": Quantity("energy", "energy_uncert", "TeV", "reconstructed energy uncertainty"),
    "gammaness": Quantity("classification", "prediction", None, "gammaness: 1 is a gamma ray, 0 a hadron"),
}

#: The quantity of each group that decides whether a prediction is valid, and is averaged over telescopes.
VALUE = {"energy": "energy", "classification": "prediction"}


@dataclass(frozen=True)
class Output:
    """One model's predictions in one group: the columns of the decoder that it fills, under a prefix of its own."""

    prefix: str
    columns: tuple[str, ...]
    quantities: tuple[Quantity, ...] = field(init=False)

    def __post_init__(self) -> None:
        unknown = [column for column in self.columns if column not in QUANTITIES]
        if unknown:
            raise ValueError(f"no place in DL2 for {unknown}; known: {', '.join(QUANTITIES)}")
        if not self.prefix.isidentifier():
            raise ValueError(f"{self.prefix!r} cannot be the prefix of a column; letters, digits and _ can")
        quantities = tuple(QUANTITIES[column] for column in self.columns)
        if len({quantity.group for quantity in quantities}) != 1:
            raise ValueError(f"columns of one output belong to one group, got {self.columns}")
        object.__setattr__(self, "quantities", quantities)

    @property
    def group(self) -> str:
        """Group of ctapipe's layout."""
        return self.quantities[0].group

    @property
    def value(self) -> str:
        """The decoder's column that decides validity."""
        return next(c for c, q in zip(self.columns, self.quantities, strict=True) if q.name == VALUE[q.group])


# ---- rows and their attributes ---------------------------------------------------------------------------------------
_KEY_COLUMNS = {
    "obs_id": ("i4", "Observation Block ID"),
    "event_id": ("i8", "Array Event ID"),
    "tel_id": ("i2", "Telescope ID"),
}
_GOODNESS = Quantity("", "goodness_of_fit", None, "goodness measure of the algorithm; not given by these models")
_IS_VALID = Quantity("", "is_valid", None, "true if the prediction is valid")
_TELESCOPES = Quantity("", "telescopes", None, "telescopes used for the prediction")


def telescope_rows(
    output: Output, tel_id: int, obs_id: np.ndarray, event_id: np.ndarray, values: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Rows (n,) of one telescope's table; all values are NaN where the deciding one is not finite."""
    prefix = f"{output.prefix}_tel"
    dtype = [(name, code) for name, (code, _) in _KEY_COLUMNS.items()]
    dtype += [(f"{prefix}_{quantity.name}", "f4") for quantity in output.quantities]
    dtype += [(f"{prefix}_is_valid", "?"), (f"{prefix}_goodness_of_fit", "f4")]
    rows = np.zeros(len(event_id), dtype)
    rows["obs_id"], rows["event_id"], rows["tel_id"] = obs_id, event_id, tel_id
    valid = np.isfinite(values[output.value])
    for column, quantity in zip(output.columns, output.quantities, strict=True):
        rows[f"{prefix}_{quantity.name}"] = np.where(valid, values[column], np.nan)
    rows[f"{prefix}_is_valid"] = valid
    rows[f"{prefix}_goodness_of_fit"] = np.nan
    return rows


def subarray_dtype(output: Output, n_telescopes: int) -> list[tuple[Any, ...]]:
    """Columns of the table of events, with a mask of `n_telescopes` for those that counted."""
    prefix = output.prefix
    dtype: list[tuple[Any, ...]] = [(name, _KEY_COLUMNS[name][0]) for name in ("obs_id", "event_id")]
    dtype += [(f"{prefix}_{quantity.name}", "f4") for quantity in output.quantities]
    return [
        *dtype,
        (f"{prefix}_is_valid", "?"),
        (f"{prefix}_goodness_of_fit", "f4"),
        (f"{prefix}_telescopes", "?", (n_telescopes,)),
    ]


def telescope_attributes(output: Output) -> list[dict[str, str]]:
    """What describes each column of `telescope_rows`, in their order."""
    keys = [{"NAME": name, "DESC": text} for name, (_, text) in _KEY_COLUMNS.items()]
    return keys + [_attributes(q, f"{output.prefix}_tel") for q in (*output.quantities, _IS_VALID, _GOODNESS)]


def subarray_attributes(output: Output) -> list[dict[str, str]]:
    """What describes each column of `subarray_dtype`, in their order."""
    keys = [{"NAME": name, "DESC": _KEY_COLUMNS[name][1]} for name in ("obs_id", "event_id")]
    columns = (*output.quantities, _IS_VALID, _GOODNESS, _TELESCOPES)
    attributes = keys + [_attributes(quantity, output.prefix) for quantity in columns]
    attributes[-1]["TRANSFORM"] = "tel_list_to_mask"
    return attributes


def _attributes(quantity: Quantity, prefix: str) -> dict[str, str]:
    attributes = {"NAME": quantity.name, "PREFIX": prefix, "DESC": quantity.description}
    if quantity.unit is not None:
        attributes |= {"UNIT": quantity.unit, "TRANSFORM": "quantity"}
    return attributes
