"""What a shard holds, and the checks that each one passes when it is opened: a damaged shard ends in one line."""

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NoReturn

import h5py
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pipeline.errors import InputFileError
from pipeline.hdf5 import attribute, dataset
from pipeline.tiles.splits import SPLITS

FORMAT_NAME = "lightpool-tiles"
FORMAT_VERSION = 3
CHUNK_TILES = 64
#: Event column of camera shards: place of the tile's camera in the attribute `cameras`.
CAMERA_COLUMN = "camera"
#: Flags per tile pixel: sixteen bits.
MASK_DTYPE = np.uint16


@dataclass(frozen=True)
class Channel:
    """Name and unit of one image channel."""

    name: str
    unit: str


class TileCamera(BaseModel):
    """A camera that tiles of a shard may be of.

    Attributes
    ----------
    identity : str
        What tells it from other cameras, whatever their names.
    name, type : str
        As its file calls it, and LST, MST or SST by its mirror area.
    focal_length_m : float
        Equivalent focal length.
    tile_pixel_deg : float
        Side of a tile pixel.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    identity: str = Field(min_length=1)
    name: str
    type: str
    focal_length_m: float = Field(gt=0)
    tile_pixel_deg: float = Field(gt=0)


_CAMERAS = TypeAdapter(Annotated[tuple[TileCamera, ...], Field(min_length=1)])


@dataclass(frozen=True)
class ShardHead:
    """The facts of a whole shard, from its attributes; `cameras` is empty for the sky."""

    source: str
    wing: Literal["camera", "sky"]
    channels: list[Channel]
    attributes: dict[str, Any]
    cameras: tuple[TileCamera, ...]


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
    cameras = _cameras(file, attributes) if wing == "camera" else ()
    return ShardHead(attribute(file, "source", "text"), wing, channels, attributes, cameras)


def _cameras(file: h5py.File, attributes: dict[str, Any]) -> tuple[TileCamera, ...]:
    """The list that the event column `camera` counts in."""
    try:
        cameras = _CAMERAS.validate_python(attributes.get("cameras"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, ("cameras", *first["loc"])))
        _refuse(file, f"its attribute {where}: {first['msg']}")
    identities = [camera.identity for camera in cameras]
    if identities != sorted(set(identities)):
        _refuse(file, f"its cameras are not in the order of their identities: {', '.join(identities)}")
    return cameras


def _texts(file: h5py.File, name: str) -> list[str]:
    """An attribute that is a list of texts."""
    values = file.attrs.get(name)
    if not isinstance(values, np.ndarray) or not all(isinstance(value, str) for value in values.ravel().tolist()):
        _refuse(file, f"its attribute {name} is not a list of names")
    return values.ravel().tolist()


def check_arrays(file: h5py.File, head: ShardHead) -> None:
    """Refuse a shard whose arrays do not belong together; images, targets and masks are not read.

    Raises
    ------
    InputFileError
        If an array is missing, or has another length, shape or type than the layout says; if the split or the camera
        of a tile is unknown, a weight is negative or not finite, or the groups do not cover the tiles.
    """
    images = dataset(file, "images", ndim=4, values="number")
    n, in_file, *tile_shape = images.shape
    if images.dtype.kind != "f" or in_file != len(head.channels) or not all(tile_shape):
        _refuse(
            file, f"its images are {images.dtype} of shape {images.shape}, with {len(head.channels)} channels named"
        )
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
    if head.cameras and n:
        camera = dataset(file, f"events/{CAMERA_COLUMN}", ndim=1, values="integer")[:]
        if camera.min() < 0 or camera.max() >= len(head.cameras):
            _refuse(
                file, f"its cameras are numbered {camera.min()} to {camera.max()}, and it names {len(head.cameras)}"
            )
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
