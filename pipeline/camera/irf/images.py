"""The images of DL2 files as tiles would describe them, from the image parameters that went along.

Forests that learn from tiles are right only for images that were cleaned, measured and cut as these. So a file must say
how its images were cleaned, which files of simulated showers do, and `lightpool predict` passes on.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.camera.dl1 import schema
from pipeline.camera.dl1.columns import text
from pipeline.camera.dl1.events import EventTables, telescope_table
from pipeline.camera.dl1.instrument import read_subarray
from pipeline.camera.dl1.pointings import Pointings
from pipeline.camera.geometry import Camera
from pipeline.camera.keys import KeyIndex
from pipeline.camera.mapping import tile_mapper
from pipeline.camera.stereo.forests import StereoImages, stereo_images
from pipeline.camera.tiling import PARAMETER_COLUMNS, PARAMETER_TYPE, POINTING, POSITION, fails_cuts
from pipeline.errors import InputFileError
from pipeline.hdf5 import open_hdf5, read_columns
from pipeline.inputs.image import ImageRecipe

_NO_IMAGES = {
    name: np.empty(0, kind)
    for names, kind in (
        (("event", "tel_id"), int), (PARAMETER_COLUMNS.values(), PARAMETER_TYPE), (POINTING, float), (POSITION, float),
        (("camera",), str), (("radius_deg",), float),
    )
    for name in names
}  # fmt: skip
_CLEANING = ("picture_pe", "boundary_pe", "min_picture_neighbors")


@dataclass(frozen=True)
class EventImages:
    """Events of a DL2 file, and the images of those that have at least two.

    Attributes
    ----------
    obs_id, event_id : ndarray, shape (n_events,)
        Of all events, in the order of the triggers.
    images : StereoImages
        Those that pass the cuts of tiles.
    """

    obs_id: np.ndarray
    event_id: np.ndarray
    images: StereoImages


def check_images(path: Path, recipe: ImageRecipe, cameras: Collection[str]) -> None:
    """Compare a DL2 file with the tiles that forests learn from.

    Parameters
    ----------
    path : path
    recipe : ImageRecipe
        How the tiles were made.
    cameras : collection of str
        Identities of their cameras.

    Raises
    ------
    InputFileError
        If it has no image parameters, does not say how they were made, they were made from another cleaning, or none of
        its telescopes has such a camera.
    """
    with open_hdf5(path) as file:
        if schema.PARAMETERS not in file:
            raise InputFileError(
                f"{path} has no image parameters, which the forests need; predict files of `lightpool simulate showers`"
            )
        cleaning = _cleaning_of(file)
        wanted = {name: getattr(recipe, name) for name in _CLEANING}
        if cleaning is None:
            raise InputFileError(
                f"{path} does not say how its images were cleaned, so its image parameters may not be those of the "
                "tiles; give files that `lightpool predict` of this version made of simulated showers"
            )
        if cleaning != wanted:
            raise InputFileError(
                f"{path}: its images were cleaned with {_in_words(cleaning)}, those of the tiles with "
                f"{_in_words(wanted)}; forests need both alike: simulate and predict again, or make the tiles again, "
                "with one tiles.camera.cleaning"
            )
        telescopes, _ = read_subarray(file, path)
        found = {camera.identity for camera in telescopes.values()}
        if not found & set(cameras):
            raise InputFileError(
                f"{path} has images of the camera {', '.join(sorted(found))}, but the tiles are of "
                f"{', '.join(sorted(cameras))}; give tiles of the same camera"
            )


def _cleaning_of(file: Any) -> dict[str, Any] | None:
    """What `lightpool predict` noted of the events that it was given."""
    try:
        stamped = json.loads(text(file.attrs.get("LIGHTPOOL PROVENANCE", "{}")))
        return dict(stamped["cleaning"])
    except (ValueError, TypeError, KeyError):
        return None


def _in_words(cleaning: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in cleaning.items())


def read_images(path: Path, recipe: ImageRecipe, cameras: Collection[str]) -> EventImages:
    """Read what forests need to know of a file that `check_images` accepts.

    Parameters
    ----------
    path, recipe, cameras
        See `check_images`.
    """
    parts = [_NO_IMAGES]
    with open_hdf5(path) as file:
        telescopes, positions_m = read_subarray(file, path)
        events, pointings = EventTables(file, path), Pointings(file, path)
        index = KeyIndex(events.obs_id, events.event_id)
        for tel_id, camera in sorted(telescopes.items()):
            table = telescope_table(schema.PARAMETERS, tel_id)
            if camera.identity not in cameras or table not in file:
                continue
            part = _images_of_telescope(file, table, recipe)
            part["event"], _ = index.find(part["obs_id"], part["event_id"])
            pointing = pointings.of(tel_id, part["obs_id"], events.time_s[part["event"]])
            for name, angle in zip(POINTING, pointing, strict=True):
                part[name] = np.degrees(angle)
            n = len(part["event"])
            part |= {name: np.full(n, value) for name, value in zip(POSITION, positions_m[tel_id], strict=True)}
            part |= {"tel_id": np.full(n, tel_id), "camera": np.full(n, camera.identity)}
            part["radius_deg"] = np.full(n, _radius_deg(camera, recipe))
            parts.append(part)
    columns = {name: np.concatenate([part[name] for part in parts]) for name in _NO_IMAGES}
    several = np.bincount(columns["event"], minlength=len(index))[columns["event"]] > 1
    columns = {name: column[several] for name, column in columns.items()}
    event, camera, radius_deg = (columns.pop(name) for name in ("event", "camera", "radius_deg"))
    images = stereo_images(columns, event, len(index), camera, radius_deg)
    return EventImages(events.obs_id, events.event_id, images)


def _images_of_telescope(file: Any, table: str, recipe: ImageRecipe) -> dict[str, np.ndarray]:
    """Keys and event columns of a telescope's images that pass the cuts."""
    ids = read_columns(file, table, dict.fromkeys(("obs_id", "event_id"), "integer"))
    parameters = read_columns(file, table, dict.fromkeys(PARAMETER_COLUMNS, "number"))
    keep = parameters["morphology_n_pixels"] > 0
    keep &= ~np.any(fails_cuts(parameters, recipe), axis=0)
    columns = {PARAMETER_COLUMNS[name]: column.astype(PARAMETER_TYPE) for name, column in parameters.items()}
    return {name: column[keep] for name, column in (ids | columns).items()}


def _radius_deg(camera: Camera, recipe: ImageRecipe) -> float:
    return recipe.size_px / 2 * tile_mapper(camera, recipe.size_px).pixel_deg
