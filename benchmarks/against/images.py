"""What is measured of images, and how they are compared with simulated ones."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.bundle.runtime import Predictor
from pipeline.camera.cleaning import dilate, tailcuts, usable_charges
from pipeline.camera.dl1 import DL1File, ImageChunk
from pipeline.camera.tiling import camera_tile_chunk
from pipeline.config import CameraTilesConfig
from pipeline.directions import offset_deg
from pipeline.inputs.image import ImageRecipe

RECIPE = ImageRecipe.of(CameraTilesConfig())
GAMMA, MUON, PROTON = 0, 2, 101
PARTICLES = {GAMMA: "gamma", MUON: "muon", PROTON: "proton"}
BLOCK = 1000
DARKEST_SHARE = 0.1  # of a camera: with fewer pixels away from the image, noise is that of all pixels
ALIKE = {"size": 1.25, "energy": 1.25, "impact_m": 30.0}  # factors, and a distance
LEAST_REFERENCES = 30


@dataclass
class Images:
    """Images of one kind of camera in one set of files.

    Attributes
    ----------
    name, camera, identity : str
    n_images : int
    rejected : Counter
        Reason -> number of images.
    dark : dict of ndarray, shape (n_images,)
        For every image: `level_pe` and `noise_pe` (median, and half the width of the central 68 %) of the pixels away
        from it, `dead` (share of all pixels).
    events : dict of ndarray, shape (n,)
        Columns of the images that pass the cuts.
    predictions : dict
        Bundle -> columns, shape (n,) each.
    """

    name: str
    camera: str
    identity: str
    n_images: int = 0
    rejected: Counter = field(default_factory=Counter)
    dark: dict[str, np.ndarray] = field(default_factory=dict)
    events: dict[str, np.ndarray] = field(default_factory=dict)
    predictions: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)

    def of_class(self, primary_id: int) -> np.ndarray:
        """Images of a particle, shape (n,); none of observations."""
        return self.events.get("true_primary_id", np.full(len(self.events["event_id"]), -1)) == primary_id


# ---- measuring -------------------------------------------------------------------------------------------------------
def measure(name: str, files: Sequence[Path], bundles: Mapping[str, Sequence[Predictor]]) -> list[Images]:
    """All images of a set, by camera."""
    found: dict[str, Images] = {}
    parts: dict[str, list[tuple[dict, dict, dict]]] = {}
    for path in files:
        with DL1File(path) as file:
            for tel_id in file.tel_ids:
                camera = file.telescopes[tel_id]
                images = found.setdefault(camera.identity, Images(name, camera.name, camera.identity))
                for first in range(0, file.n_images_of(tel_id), BLOCK):
                    rows = np.arange(first, min(first + BLOCK, file.n_images_of(tel_id)))
                    chunk = file.read(tel_id, rows)
                    parts.setdefault(camera.identity, []).append(_of_chunk(chunk, images, bundles))
    for identity, images in found.items():
        dark, events, *predicted = (_joined(columns) for columns in zip(*parts[identity], strict=True))
        images.dark, images.events = dark, events
        for key in (key for key, predictors in bundles.items() if _serve(predictors, identity)):
            prefix = f"{key}/"
            images.predictions[key] = {
                column.removeprefix(prefix): values
                for column, values in predicted[0].items()
                if column.startswith(prefix)
            }
    return [images for images in found.values() if images.n_images]


def _of_chunk(chunk: ImageChunk, images: Images, bundles: Mapping[str, Sequence[Predictor]]) -> tuple[dict, dict, dict]:
    """Dark pixels of all images; columns, and predictions as BUNDLE/COLUMN, of those that pass the cuts."""
    tiles = camera_tile_chunk(chunk, RECIPE)
    images.n_images += len(chunk)
    images.rejected.update(tiles.rejected)
    events = dict(tiles.batch.events)
    events["abs_timing_slope"] = np.abs(events["timing_slope"])
    predicted = {
        f"{key}/{column}": values
        for key, predictors in bundles.items()
        if _serve(predictors, chunk.camera.identity)
        for predictor in predictors
        for column, values in predictor.predict(tiles.batch).items()
    }
    return dark_pixels(chunk), events, predicted


def _serve(predictors: Sequence[Predictor], identity: str) -> bool:
    return all(predictor.serves(identity) for predictor in predictors)


def _joined(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    common = [name for name in parts[0] if all(name in part for part in parts)]
    return {name: np.concatenate([part[name] for part in parts]) for name in common}


def dark_pixels(chunk: ImageChunk) -> dict[str, np.ndarray]:
    """Level and noise of the pixels more than two pixels away from the cleaned image, and the share of dead ones.

    Dead are pixels without a number or with the number 0, and those with the mean of their neighbours, to the rounding
    of float32: what ctapipe writes for unusable pixels.
    """
    camera = chunk.camera
    image = usable_charges(chunk.image)
    mask = tailcuts(image, camera, RECIPE.picture_pe, RECIPE.boundary_pe, RECIPE.min_picture_neighbors)
    far = ~dilate(dilate(mask, camera), camera) & np.isfinite(image)
    few = far.mean(axis=1) < DARKEST_SHARE
    far[few] = np.isfinite(image[few])
    low, level, high = np.nanpercentile(np.where(far, image, np.nan), [16, 50, 84], axis=1)
    exists = (camera.neighbors >= 0) & np.isfinite(image[:, camera.neighbors])
    mean = np.where(exists, image[:, camera.neighbors], 0).sum(axis=2) / np.maximum(exists.sum(axis=2), 1)
    filled = np.abs(image - mean) <= 1e-6 * np.maximum(np.abs(mean), 1)
    dead = np.isnan(image) | (image == 0) | filled
    return {"level_pe": level, "noise_pe": (high - low) / 2, "dead": dead.mean(axis=1)}


# ---- comparing -------------------------------------------------------------------------------------------------------
def ranks(values: np.ndarray, references: Iterator[np.ndarray]) -> np.ndarray:
    """Share of the references of each value that are below it, from 0 to 1; NaN where there are too few."""
    found = np.full(len(values), np.nan)
    for i, reference in enumerate(references):
        if len(reference) >= LEAST_REFERENCES:
            found[i] = np.mean(reference < values[i]) + 0.5 * np.mean(reference == values[i])
    return found


def shape_ranks(images: Images, simulation: Images, primary_id: int, column: str) -> np.ndarray:
    """Ranks of a particle's images among simulated ones of equal size."""
    here, there = images.of_class(primary_id), simulation.of_class(primary_id)
    size, sizes = images.events["hillas_intensity"][here], simulation.events["hillas_intensity"][there]
    values = simulation.events[column][there]
    alike = (values[np.abs(np.log(sizes / s)) < np.log(ALIKE["size"])] for s in size)
    return ranks(images.events[column][here], alike)


def size_ranks(images: Images, simulation: Images, primary_id: int) -> np.ndarray:
    """Ranks of the sizes of a particle's images among simulated ones of equal energy and impact distance."""
    here, there = images.of_class(primary_id), simulation.of_class(primary_id)
    energies, impacts = (simulation.events[name][there] for name in ("true_energy_tev", "true_impact_m"))
    sizes = simulation.events["hillas_intensity"][there]
    own = zip(*(images.events[name][here] for name in ("true_energy_tev", "true_impact_m")), strict=True)
    alike = (
        sizes[(np.abs(np.log(energies / e)) < np.log(ALIKE["energy"])) & (np.abs(impacts - r) < ALIKE["impact_m"])]
        for e, r in own
    )
    return ranks(images.events["hillas_intensity"][here], alike)


def pooled(name: str, sets: Sequence[Images], identity: str) -> Images | None:
    """The images of one camera in several sets, where these have truth."""
    parts = [images for images in sets if images.identity == identity and "true_energy_tev" in images.events]
    if len(parts) < 2:
        return None
    keys = set.intersection(*(set(images.predictions) for images in parts))
    return Images(
        name,
        parts[0].camera,
        identity,
        sum(images.n_images for images in parts),
        events=_joined([images.events for images in parts]),
        predictions={key: _joined([images.predictions[key] for images in parts]) for key in keys},
    )


def energy_errors(images: Images, key: str) -> np.ndarray:
    """Predicted over true energy, less 1."""
    return images.predictions[key]["reco_energy_tev"] / images.events["true_energy_tev"] - 1


def direction_errors(images: Images, key: str) -> np.ndarray:
    """Angle between predicted and true direction in the field of view [deg]."""
    predicted = images.predictions[key]
    return offset_deg(
        predicted["reco_fov_lat_deg"], predicted["reco_fov_lon_deg"],
        images.events["true_fov_lat_deg"], images.events["true_fov_lon_deg"],
    )  # fmt: skip
