"""Columns of HDF5 tables converted from a file's units and types to those used here."""

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.errors import InputFileError
from pipeline.hdf5 import attribute

# Units seen in files, as factors to the one that is used here. Files have millimetres where metres are usual.
FACTORS = {
    "m": {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "km": 1e3},
    "m2": {"m**2": 1.0, "m2": 1.0, "cm**2": 1e-4, "cm2": 1e-4, "mm**2": 1e-6, "mm2": 1e-6},
    "TeV": {"TeV": 1.0, "GeV": 1e-3, "MeV": 1e-6},
    "deg": {"deg": 1.0, "rad": 180 / math.pi},
    "rad": {"rad": 1.0, "deg": math.pi / 180},
    "g cm-2": {"g.cm**-2": 1.0, "g cm-2": 1.0, "g / cm2": 1.0, "kg.m**-2": 0.1},
    "ns": {"ns": 1.0, "us": 1e3, "s": 1e9},
}
_KINDS = {"S": "text", "U": "text", "O": "objects", "V": "records", "b": "booleans"}


def decoded(table: h5py.Dataset, name: str, data: np.ndarray) -> np.ndarray:
    """A float column as float32; fixed point is turned back, with its codes for NaN and infinities."""
    values = data[name]
    prefix = f"CTAFIELD_{table.dtype.names.index(name)}_"
    if values.dtype.kind not in "fiu":
        raise InputFileError(f"{table.file.filename}: {table.name} has no numbers in {name}; make the file again")
    if prefix + "TRANSFORM_SCALE" not in table.attrs:
        return values.astype(np.float32, copy=False)
    scale = float(attribute(table, prefix + "TRANSFORM_SCALE", "number"))
    offset = float(attribute(table, prefix + "TRANSFORM_OFFSET", "number", 0))
    if values.dtype.kind == "f" or not math.isfinite(offset) or not (math.isfinite(scale) and scale):
        raise InputFileError(
            f"{table.file.filename}: {table.name} has {name} as {values.dtype}, scaled by {scale} from {offset}: "
            "no fixed point can be that; make the file again"
        )
    limits = np.iinfo(values.dtype)
    unsigned = values.dtype.kind == "u"
    codes = {
        # The defaults are those of ctapipe's FixedPointColumnTransform.
        "NAN_VALUE": (limits.max - 1 if unsigned else limits.min + 1, math.nan),
        "POSINF_VALUE": (limits.max, math.inf),
        "NEGINF_VALUE": (limits.max - 2 if unsigned else limits.min, -math.inf),
    }
    result = ((values.astype(np.float64) - offset) / scale).astype(np.float32)
    for key, (default, meaning) in codes.items():
        result[values == int(attribute(table, prefix + key, "number", default))] = meaning
    return result


def quantity(table: h5py.Dataset, name: str, unit: str, path: Path, *, default: str = "") -> np.ndarray:
    """A column as float64 in `unit`, converted from any accepted unit of the file (`default` where it gives none).

    Raises
    ------
    InputFileError
        If the column is not there, holds no numbers, or is in a unit that is not known.
    """
    dtype = (table.dtype.fields or {}).get(name)
    if dtype is None:
        raise InputFileError(f"{path}: {table.name} has no column {name}")
    if dtype[0].kind not in "fiu":
        raise InputFileError(
            f"{path}: {table.name} has {_KINDS.get(dtype[0].kind, dtype[0])} in {name}; expected numbers"
        )
    written = text(table.attrs.get(f"CTAFIELD_{table.dtype.names.index(name)}_UNIT", "")) or default
    factor = FACTORS[unit].get(written)
    if factor is None:
        accepted = ", ".join(FACTORS[unit])
        raise InputFileError(f"{path}: {table.name} has {name} in {written or 'no unit'!r}; accepted: {accepted}")
    return table[name].astype(np.float64) * factor


def text(value: Any) -> str:
    """A string attribute or cell, which HDF5 may give as bytes or, where it is empty, as nothing."""
    if isinstance(value, h5py.Empty):
        return ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
