"""Camera images to tiles, with cleaning, quality cuts and image parameters: one path for training and prediction."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from pipeline.camera.cleaning import dilate, tailcuts, usable_charges, usable_times
from pipeline.camera.dl1 import DL1File, ImageChunk
from pipeline.camera.geometry import Camera
from pipeline.camera.hillas import PARAMETERS, image_parameters
from pipeline.camera.mapping import tile_mapper
from pipeline.config import ALL_CAMERAS
from pipeline.errors import InputFileError, UserError
from pipeline.inputs.image import ImageRecipe
from pipeline.inputs.shower_frame import ShowerFrameRecipe
from pipeline.tasks import get_targets, specs_of
from pipeline.tiles.layout import CAMERA_COLUMN, TileCamera
from pipeline.tiles.raking import UNKNOWN_CLASS
from pipeline.tiles.shards import Channel, TileBatch

CHANNELS = (Channel("charge", "p.e."), Channel("peak_time", "ns"), Channel("mask", ""))
#: Of tiles in the frame of the shower.
SHOWER_CHANNELS = (
    Channel("true_pe", "p.e."), Channel("peak_time", "ns"), Channel("timed", ""), Channel("pixel_256s", ""),
    Channel("pixel_rest", ""),
)  # fmt: skip

#: Why an image of a shower is rejected, in the order of the checks; before these come the reasons of its file
#: (`ImageChunk.left_out`).
REJECTION_REASONS = (
    "marked invalid in the file",
    "no usable charge in more than half of the camera",
    "nothing left by the cleaning",
    "absurd charges in more than a tenth of the image",
    "no usable peak time in more than half of the image",
    "fewer pixels than n_pixels_min",
    "less charge than size_min_pe",
    "more leakage than leakage_max",
)

#: Why an image makes no tile in the frame of its shower, besides these.
WITHOUT_LIGHT = "no light of the shower"

#: Why an image of a simulated file makes no tile: nothing can be learnt from it.
WITHOUT_TRUTH = "no true energy, or an unknown particle"

_MOST_PIXELS = 4096  # that networks which make images compare
_MAX_TILE_PE = 60_000  # float16 ends at 65,504
# Shares of pixels without a usable number from which an image is rejected: of all pixels of the camera, of the cleaned
# pixels and their neighbours (only numbers that no camera measures, for dead pixels are normal), of the cleaned pixels.
_MAX_WITHOUT_CHARGE, _MAX_ABSURD_CHARGE, _MAX_WITHOUT_TIME = 0.5, 0.1, 0.5
_CHUNK_BYTES = 96 << 20  # of float32 tiles and images that one chunk works on
# Columns of the events whose names omit ctapipe's prefix.
_SHORT_NAMES = {"morphology_n_pixels": "n_pixels", "morphology_n_islands": "n_islands"}
#: Image parameter -> event column.
PARAMETER_COLUMNS = {name: _SHORT_NAMES.get(name, name) for name in PARAMETERS}
PARAMETER_TYPE = "f4"
#: Where the telescope pointed and where it stands; NaN where unknown.
POINTING = ("pointing_alt_deg", "pointing_az_deg")
POSITION = ("tel_x_m", "tel_y_m", "tel_z_m")
_TRUTH = (
    "true_energy_tev", "true_alt_deg", "true_az_deg", "true_offset_deg", "true_fov_lon_deg", "true_fov_lat_deg",
    "true_core_x_m", "true_core_y_m", "true_impact_m", "true_h_first_int_m", "true_x_max_g_cm2",
)  # fmt: skip


class CameraTiles(NamedTuple):
    """Tiles of the images that are kept, and why the others are not.

    Attributes
    ----------
    batch : TileBatch
        Kept images in their order; `group` is the shower number within the run.
    rejected : dict
        Reason -> number of images.
    reason : ndarray of str, shape (n,)
        For every image of the chunk; empty where it is kept.
    """

    batch: TileBatch
    rejected: dict[str, int]
    reason: np.ndarray


def camera_tile_chunk(chunk: ImageChunk, recipe: ImageRecipe) -> CameraTiles:
    """Clean, cut and map the images of one telescope.

    Channels of a tile: charge [p.e.], of all pixels; peak time [ns] relative to the charge-weighted mean of the cleaned
    pixels, 0 further than one pixel from them; share of the tile pixel that the cleaning kept. What has no
    measurement (NaN, infinite, beyond what cameras measure) counts as dark and without time; an image of too many such
    pixels is rejected.

    In the frame of the shower: photo-electrons of the shower alone, the same time, the cells in which it is known (of
    cleaned pixels with light of the shower), and the pixel of the cell, counted from 1 (0: outside the camera), as
    multiples of 256 and the rest: half precision holds no larger integers.
    """
    camera = chunk.camera
    image = usable_charges(chunk.image)
    mask = tailcuts(image, camera, recipe.picture_pe, recipe.boundary_pe, recipe.min_picture_neighbors)
    time = usable_times(image, chunk.peak_time, mask, camera)
    parameters = image_parameters(image, time, mask, camera)
    of_image = _reasons(chunk, image, time, mask, parameters, recipe)
    reason = np.where(chunk.left_out == "", of_image, chunk.left_out)
    if chunk.true_image is not None:
        reason[(reason == "") & (chunk.true_image.sum(axis=1) == 0)] = WITHOUT_LIGHT
    keep = reason == ""
    image, mask, time = image[keep], mask[keep], time[keep]
    events = {PARAMETER_COLUMNS[name]: column[keep] for name, column in parameters.items()}
    events |= {name: getattr(chunk, name)[keep] for name in ("obs_id", "event_id", "shower_id")}
    events["tel_id"] = np.full(len(image), chunk.tel_id)
    events |= {name: getattr(chunk, name)[keep] for name in POINTING}
    events |= {name: np.full(len(image), value) for name, value in zip(POSITION, chunk.position_m, strict=True)}
    truth = {name: column[keep] for name, column in chunk.truth.items()}
    events |= truth
    time = _relative_time(image, time, mask)
    if isinstance(recipe, ShowerFrameRecipe):
        tiles = _shower_tiles(chunk, chunk.true_image[keep], time, mask, events, recipe.size_px)
    else:
        tiles = _camera_tiles(camera, image, time, mask, recipe.size_px)
    types = column_types(truth=bool(truth))
    batch = TileBatch(
        images=tiles,
        events={name: events[name].astype(dtype) for name, dtype in types.items()},
        group=events["shower_id"],
    )
    if truth:
        for spec in specs_of("camera"):
            batch.targets |= get_targets(spec.name).of_truth(batch)
    return CameraTiles(batch, dict(Counter(reason[~keep])), reason)


def channels_of(recipe: ImageRecipe) -> tuple[Channel, ...]:
    """Channels of the tiles that a recipe makes."""
    return SHOWER_CHANNELS if isinstance(recipe, ShowerFrameRecipe) else CHANNELS


def _camera_tiles(camera: Camera, image: np.ndarray, time: np.ndarray, mask: np.ndarray, size: int) -> np.ndarray:
    mapper = tile_mapper(camera, size)
    tiles = np.empty((len(image), len(CHANNELS), size, size), np.float16)
    tiles[:, 0] = np.clip(mapper.charge(image), -_MAX_TILE_PE, _MAX_TILE_PE)
    tiles[:, 1] = mapper.average(time, dilate(mask, camera))
    tiles[:, 2] = mapper.average(mask)
    return tiles


def _shower_tiles(
    chunk: ImageChunk,
    true_image: np.ndarray,
    time: np.ndarray,
    mask: np.ndarray,
    events: Mapping[str, np.ndarray],
    size: int,
) -> np.ndarray:
    from pipeline.camera.shower_frame import Orientation, shower_frame

    if chunk.camera.n_pixels > _MOST_PIXELS:
        raise UserError(
            f"{chunk.camera.name} has {chunk.camera.n_pixels} pixels, and images can be generated of cameras with up "
            f"to {_MOST_PIXELS} (tiles.camera.frame: shower)"
        )
    frame = shower_frame(chunk.camera, size)
    pixels = frame.pixels(Orientation.of_events(events))
    timed = mask & np.isfinite(time) & (true_image > 0)
    tiles = np.empty((len(mask), len(SHOWER_CHANNELS), size, size), np.float16)
    tiles[:, 0] = np.minimum(frame.spread(true_image, pixels), _MAX_TILE_PE)
    tiles[:, 1] = frame.values(np.where(timed, time, 0), pixels)
    tiles[:, 2] = frame.values(timed, pixels)
    tiles[:, 3], tiles[:, 4] = np.divmod(pixels + 1, 256)
    return tiles


def shard_columns(*, truth: bool) -> dict[str, str]:
    """Event columns of camera shards and their types."""
    return {CAMERA_COLUMN: "i2"} | column_types(truth=truth)


def column_types(*, truth: bool) -> dict[str, str]:
    """Event columns of tiles of one camera and their types."""
    types = {"obs_id": "i8", "event_id": "i8", "tel_id": "i8", "shower_id": "i8"}
    types |= dict.fromkeys((*POINTING, *POSITION), "f8")
    types |= dict.fromkeys(PARAMETER_COLUMNS.values(), PARAMETER_TYPE)
    return types | (dict.fromkeys(_TRUTH, "f8") | {"true_primary_id": "i8"} if truth else {})


def target_types(tile_shape: tuple[int, int], *, truth: bool) -> dict[str, tuple[tuple[int, ...], str]]:
    """Targets of camera tiles, those of all camera tasks: shape of one and type."""
    stored = [target for spec in specs_of("camera") for target in get_targets(spec.name).stored] if truth else []
    return {target.name: (target.shape(tile_shape), "f4") for target in stored}


def _reasons(
    chunk: ImageChunk,
    image: np.ndarray,
    time: np.ndarray,
    mask: np.ndarray,
    parameters: dict[str, np.ndarray],
    recipe: ImageRecipe,
) -> np.ndarray:
    """Why each image is rejected; `image` and `time` are those that can be used."""
    n_pixels = parameters["morphology_n_pixels"]
    n_timed = np.count_nonzero(mask & np.isfinite(time), axis=1)
    fails = (
        ~chunk.is_valid,
        np.isnan(image).mean(axis=1) > _MAX_WITHOUT_CHARGE,
        n_pixels == 0,
        _absurd_share(chunk, image, mask) > _MAX_ABSURD_CHARGE,
        n_timed < (1 - _MAX_WITHOUT_TIME) * n_pixels,
        *fails_cuts(parameters, recipe),
    )
    return np.select(fails, [np.array(text, dtype=object) for text in REJECTION_REASONS], default="")


def fails_cuts(parameters: Mapping[str, np.ndarray], recipe: ImageRecipe) -> tuple[np.ndarray, ...]:
    """For each of the recipe's cuts, in the order of `REJECTION_REASONS`, the images that fail it, shape (n,)."""
    return (
        parameters["morphology_n_pixels"] < recipe.n_pixels_min,
        ~(parameters["hillas_intensity"] >= recipe.size_min_pe),
        ~(parameters["leakage_intensity_width_1"] <= recipe.leakage_max),
    )


def _absurd_share(chunk: ImageChunk, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Share of absurd charges in and next to the cleaned pixels, shape (n,)."""
    share = np.zeros(len(image))
    absurd = np.isnan(image) & ~np.isnan(chunk.image)
    some = np.flatnonzero(absurd.any(axis=1))
    if len(some):
        near = dilate(mask[some], chunk.camera)
        share[some] = (absurd[some] & near).sum(axis=1) / np.maximum(near.sum(axis=1), 1)
    return share


def _relative_time(image: np.ndarray, time: np.ndarray, mask: np.ndarray) -> np.ndarray:
    weight = np.where(mask & np.isfinite(time), image, 0.0)
    total = weight.sum(axis=1, keepdims=True)
    mean = (weight * np.nan_to_num(time)).sum(axis=1, keepdims=True) / np.where(total > 0, total, 1.0)
    return time - mean


# ---- whole files -----------------------------------------------------------------------------------------------------
def chosen_cameras(file: DL1File, wanted: str | None) -> list[str]:
    """Identities of the cameras that tiles are made of, in rising order.

    Parameters
    ----------
    file : DL1File
    wanted : str, optional
        A name, type or identity; ``all`` for those of all telescopes, with and without images: shards of runs of one
        array are alike. By default the camera with the most images.

    Raises
    ------
    InputFileError
        If the file does not have this camera.
    """
    if wanted == ALL_CAMERAS:
        return sorted({camera.identity for camera in file.telescopes.values()})
    images: dict[str, int] = {}
    names: dict[str, set[str]] = {}
    for tel_id, camera in file.telescopes.items():
        images[camera.identity] = images.get(camera.identity, 0) + file.n_images_of(tel_id)
        names.setdefault(camera.identity, set()).update((camera.name, camera.size_type, camera.identity))
    fitting = [identity for identity in images if wanted is None or wanted in names[identity]]
    if not fitting:
        available = "; ".join(", ".join(sorted(words)) for words in names.values())
        raise InputFileError(
            f"{file.path} has no camera {wanted!r}; it has {available}: set tiles.camera.camera to one of them, or to "
            f"{ALL_CAMERAS}"
        )
    return [max(fitting, key=lambda identity: images[identity])]


def tile_file(
    file: DL1File,
    recipe: ImageRecipe,
    identities: Sequence[str],
    alter: Callable[[ImageChunk], ImageChunk] | None = None,
) -> Iterator[tuple[TileBatch, dict[str, int]]]:
    """Tiles of all images of some cameras, batch by batch; the images of one shower, and of one event, are adjacent.

    Parameters
    ----------
    file : DL1File
    recipe : ImageRecipe
    identities : sequence of str
        Of the cameras; the column `camera` counts in this order.
    alter : callable, optional
        What is done to the images before they are cleaned; it must not depend on which are read together.

    Yields
    ------
    batch : TileBatch
        `group` counts the showers of the file from 0.
    rejected : dict
        Reason -> number of rejected images.
    """
    place = {identity: number for number, identity in enumerate(identities)}
    camera_of = {t: place[identity] for t in file.tel_ids if (identity := file.telescopes[t].identity) in place}
    if not camera_of:
        return
    tel_ids = list(camera_of)
    file.check(tel_ids)
    rows = _rows_by_shower(file, tel_ids)
    read = partial(file.read, true_images=True) if isinstance(recipe, ShowerFrameRecipe) else file.read
    size = _chunk_images(max(file.telescopes[tel_id].n_pixels for tel_id in tel_ids), recipe.size_px)
    for start, stop in _blocks(rows["group"], size):
        parts, rejected = [], {}
        for tel_id in tel_ids:
            here = np.flatnonzero(rows["tel_id"][start:stop] == tel_id) + start
            # Reading needs rising rows, whatever the order of the showers.
            here = here[np.argsort(rows["row"][here], kind="stable")]
            for first in range(0, len(here), size):
                part = here[first : first + size]
                chunk = read(tel_id, rows["row"][part])
                tiles = camera_tile_chunk(alter(chunk) if alter else chunk, recipe)
                tiles.batch.group = rows["group"][part][tiles.reason == ""]
                tiles.batch.events[CAMERA_COLUMN] = np.full(len(tiles.batch), camera_of[tel_id], np.int16)
                parts.append((tiles.batch, part[tiles.reason == ""]))
                for text, count in tiles.rejected.items():
                    rejected[text] = rejected.get(text, 0) + count
        order = np.argsort(np.concatenate([place for _, place in parts]), kind="stable")
        batch = TileBatch.concatenate([batch for batch, _ in parts]).select(order)
        known = _has_truth(batch)
        if n_unknown := int(np.count_nonzero(~known)):
            batch, rejected[WITHOUT_TRUTH] = batch.select(known), n_unknown
        yield batch, rejected


def _has_truth(batch: TileBatch) -> np.ndarray:
    """Tiles of observations, and those of simulations whose energy and particle are known."""
    if "true_energy_tev" not in batch.events:
        return np.ones(len(batch), bool)
    energy_tev = batch.events["true_energy_tev"]
    return (energy_tev > 0) & np.isfinite(energy_tev) & (batch.events["true_primary_id"] != UNKNOWN_CLASS)


def _rows_by_shower(file: DL1File, tel_ids: list[int]) -> dict[str, np.ndarray]:
    """tel_id, row and group of all images; showers in the order of their first event, telescopes within an event."""
    columns: dict[str, list[np.ndarray]] = {"tel_id": [], "row": [], "obs_id": [], "shower_id": [], "order": []}
    for tel_id in tel_ids:
        index = file.index(tel_id)
        if index["event_id"].dtype == np.uint64:
            raise InputFileError(f"{file.path} has ids beyond 2^63 - 1, which tiles cannot hold; renumber its events")
        n = len(index["order"])
        for name, column in (index | {"tel_id": np.full(n, tel_id), "row": np.arange(n)}).items():
            columns.get(name, []).append(column)
    table = {name: np.concatenate(parts) for name, parts in columns.items()}
    pairs = np.column_stack([table["obs_id"], table["shower_id"]])
    _, shower = np.unique(pairs, axis=0, return_inverse=True)
    shower = shower.ravel()
    first_event = np.full(shower.max(initial=-1) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first_event, shower, table["order"])
    rank = np.argsort(np.argsort(first_event, kind="stable"), kind="stable")
    table["group"] = rank[shower]
    sorting = np.lexsort((table["tel_id"], table["order"], table["group"]))
    return {name: table[name][sorting] for name in ("tel_id", "row", "group")}


def _blocks(group: np.ndarray, size: int) -> Iterator[tuple[int, int]]:
    """Cut sorted group numbers into blocks of about `size` that end with a group."""
    ends = np.append(np.flatnonzero(np.diff(group)) + 1, len(group)) if len(group) else np.zeros(0, int)
    start = 0
    while start < len(group):
        # The last end within reach, or the next one after it where a single group is larger.
        stop = int(
            ends[max(np.searchsorted(ends, start + size, side="right") - 1, np.searchsorted(ends, start, "right"))]
        )
        yield start, stop
        start = stop


def _chunk_images(n_pixels: int, tile_size: int) -> int:
    bytes_per_image = 4 * (3 * n_pixels + 4 * tile_size**2)
    return int(np.clip(_CHUNK_BYTES // bytes_per_image, 16, 1024))


def _pixel_deg(camera: Camera, recipe: ImageRecipe) -> float:
    if isinstance(recipe, ShowerFrameRecipe):
        from pipeline.camera.shower_frame import shower_frame

        return shower_frame(camera, recipe.size_px).cell_deg
    return tile_mapper(camera, recipe.size_px).pixel_deg


def shard_attributes(file: DL1File, recipe: ImageRecipe, identities: Sequence[str]) -> dict[str, Any]:
    """How the tiles of a shard were made; `recipe` is all that prediction needs to make them alike."""
    cameras = {camera.identity: camera for camera in reversed(file.telescopes.values())}
    return {
        "cameras": [
            TileCamera(
                identity=identity,
                name=cameras[identity].name,
                type=cameras[identity].size_type,
                focal_length_m=cameras[identity].focal_length_m,
                tile_pixel_deg=_pixel_deg(cameras[identity], recipe),
            ).model_dump(mode="json")
            for identity in identities
        ],
        "recipe": recipe.model_dump(mode="json"),
        "pointing_deg": file.pointing,
        "data_model": file.data_model_version,
    }
