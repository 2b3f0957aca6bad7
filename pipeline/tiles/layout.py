"""What a shard holds, and the checks that each one passes when it is opened: a damaged shard ends in one line."""

import json
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import h5py
import numpy as np

from pipeline.errors import InputFileError
from pipeline.hdf5 import attribute, dataset
from pipeline.tiles.splits import SPLITS

FORMAT_NAME = "lightpool-tiles"
FORMAT_VERSION = 2
CHUNK_TILES = 64
#: Flags per tile pixel: sixteen bits.
MASK_DTYPE = np.uint16


@dataclass(frozen=True)
class Channel:
    """Name and unit of one image channel."""

    name: str
    unit: str


@dataclass(frozen=True)
class ShardHead:
    """The facts of a whole shard, from its attributes."""

    source: str
    wing: Literal["camera", "sky"]
    channels: list[Channel]
    attributes: dict[str, Any]


def read_head(file: h5py.File) -> ShardHead:
    """Format, version and facts of a shard.

    Raises
    ------
    InputFileError
        If the file is not a shard, is of another version, or its attributes are missing or of another type.
    """
    if "format" not in file.attrs or attribute(file, "format", "text") != FORMAT_NAME:
        raise InputFileError(f"{file.filename} is not a tile shard; give a file made by `lightpool tiles`")
    version = attribute(file, "format_version", "integer")
    if version != FORMAT_VERSION:
        advice = "remake it with `lightpool tiles`" if version < FORMAT_VERSION else "update lightpool"
        raise InputFileError(
            f"{file.filename} has shard format version {version}; this lightpool reads version {FORMAT_VERSION}: "
            f"{advice}"
        )
    wing = attribute(file, "wing", "text")
    if wing not in ("camera", "sky"):
        _refuse(file, f"its wing is {wing!r:.40}, neither camera nor sky")
    try:
        attributes = json.loads(attribute(file, "attributes", "text"))
    except (ValueError, RecursionError):
        attributes = None
    if not isinstance(attributes, dict):
        _refuse(file, "its attributes are not JSON")
    names, units = (_texts(file, key) for key in ("channel_names", "channel_units"))
    if not names or len(names) != len(units):
        _refuse(file, f"it names {len(names)} channels and {len(units)} units")
    channels = [Channel(name, unit) for name, unit in zip(names, units, strict=True)]
    return ShardHead(attribute(file, "source", "text"), wing, channels, attributes)


def _texts(file: h5py.File, name: str) -> list[str]:
    """An attribute that is a list of texts."""
    values = file.attrs.get(name)
    if not isinstance(values, np.ndarray) or not all(isinstance(value, str) for value in values.ravel().tolist()):
        _refuse(file, f"its attribute {name} is not a list of names")
    return values.ravel().tolist()


def check_arrays(file: h5py.File, n_channels: int) -> None:
    """Refuse a shard whose arrays do not belong together; images, targets and masks are not read.

    Raises
    ------
    InputFileError
        If an array is missing, or has another length, shape or type than the layout says; if the split of a tile is
        unknown, a weight is negative or not finite, or the groups do not cover the tiles.
    """
    images = dataset(file, "images", ndim=4, values="number")
    n, in_file, *tile_shape = images.shape
    if images.dtype.kind != "f" or in_file != n_channels or not all(tile_shape):
        _refuse(file, f"its images are {images.dtype} of shape {images.shape}, with {n_channels} channels named")
    own = {"weights": dataset(file, "weights", ndim=1, values="number"), "split": dataset(file, "split", ndim=1)}
    own |= {f"events/{name}": dataset(file, f"events/{name}", ndim=1) for name in _names(file, "events")}
    own |= {f"targets/{name}": dataset(file, f"targets/{name}") for name in _names(file, "targets")}
    if "masks" in file:
        own["masks"] = dataset(file, "masks", ndim=3)
        if own["masks"].dtype != MASK_DTYPE or own["masks"].shape[1:] != images.shape[2:]:
            _refuse(file, f"its masks are {own['masks'].dtype} of shape {own['masks'].shape}")
    for name, array in own.items():
        if array.shape[:1] != (n,) or array.dtype.kind not in "biuf":
            _refuse(file, f"it has {n} images, but {name} is {array.dtype} of shape {array.shape}")
    if not np.isin(own["split"][:], list(SPLITS.values())).all():
        _refuse(file, f"its splits are not all among {', '.join(map(str, SPLITS.values()))}")
    weights = own["weights"][:]
    if not (np.isfinite(weights) & (weights >= 0)).all():
        _refuse(file, "some of its weights are negative or not finite")
    groups = dataset(file, "groups", ndim=1, values="integer")
    offsets = groups[:] if len(groups) <= n + 1 else np.empty(0)
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != n or not (offsets[1:] > offsets[:-1]).all():
        _refuse(file, "its groups do not cover its tiles")


def _names(file: h5py.File, group: str) -> list[str]:
    if not isinstance(file.get(group), h5py.Group):
        _refuse(file, f"it has no group {group}")
    return list(file[group])


def _refuse(file: h5py.File, problem: str) -> NoReturn:
    raise InputFileError(f"{file.filename} is a damaged shard: {problem}; remake it with `lightpool tiles`")
