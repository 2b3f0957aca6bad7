"""One event to look at: its images with cleaning and ellipse, what models say of them, and the truth."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from pipeline.camera.cleaning import tailcuts, usable_charges, usable_times
from pipeline.camera.dl1 import DL1File, ImageChunk
from pipeline.camera.event_predictions import EventPredictions, predict_event
from pipeline.camera.geometry import Camera
from pipeline.camera.hillas import image_parameters
from pipeline.camera.prediction_records import column_names
from pipeline.camera.prediction_tables import QUANTITIES
from pipeline.camera.predictions import CameraModel, ImagePredictions, chosen_images
from pipeline.directions import fov_of_altaz, on_ground, pointing_axes

_PARTICLES = {0: "gamma", 1: "electron", 101: "proton"}


class Thresholds(NamedTuple):
    """Of the two-level cleaning [p.e.]."""

    picture_pe: float
    boundary_pe: float
    min_picture_neighbors: int = 1

    @classmethod
    def of(cls, models: Sequence[CameraModel], camera: Camera | None = None) -> "Thresholds | None":
        """Those of the first model, one for this camera if there is one."""
        fitting = [m for m in models if camera is not None and m.predictor.serves(camera.identity)]
        for model in (*fitting, *models):
            recipe = model.recipe
            return cls(recipe.picture_pe, recipe.boundary_pe, recipe.min_picture_neighbors)
        return None


@dataclass(frozen=True)
class Cleaned:
    """A cleaned image.

    Attributes
    ----------
    mask : ndarray of bool, shape (n_pixels,)
        Pixels that are kept.
    parameters : dict
        `pipeline.camera.hillas.PARAMETERS`; NaN where they cannot be told.
    """

    mask: np.ndarray
    parameters: dict[str, float]


@dataclass(frozen=True)
class ImageView:
    """The image of one telescope.

    Attributes
    ----------
    camera : Camera
    tel_id : int
    charge_pe, peak_time_ns : ndarray, shape (n_pixels,)
        NaN where there is no measurement.
    cleaned : Cleaned
    position_m : tuple of 3 floats
        To the north, to the west, up; NaN where unknown.
    pointing_deg : (float, float)
        Altitude and azimuth; NaN where unknown.
    true_source_deg, reco_source_deg : (float, float), optional
        In the field of view: along azimuth and altitude.
    reco_radius_deg : float
        Around `reco_source_deg`, holds the source with 68 %; NaN where unknown.
    values : dict
        Predictions for this image by name in records.
    reason : str
        Why it has none; empty where it has.
    """

    camera: Camera
    tel_id: int
    charge_pe: np.ndarray
    peak_time_ns: np.ndarray
    cleaned: Cleaned
    position_m: tuple[float, float, float]
    pointing_deg: tuple[float, float]
    true_source_deg: tuple[float, float] | None = None
    reco_source_deg: tuple[float, float] | None = None
    reco_radius_deg: float = np.nan
    values: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""

    @property
    def sky_scale(self) -> float:
        """Factor from the telescope frame to the sky: with coma, images are larger than the focal length says."""
        effective_m = self.camera.effective_focal_length_m
        return 1.0 if np.isnan(effective_m) else self.camera.focal_length_m / effective_m

    def axis_on_ground(self) -> tuple[np.ndarray, np.ndarray] | None:
        """A point [m] of the line on the ground below which the shower went, and its direction; None if unknown."""
        psi = np.radians(self.cleaned.parameters["hillas_psi"])
        if not np.isfinite([psi, *self.position_m, *self.pointing_deg]).all():
            return None
        alt, az = (np.array([angle]) for angle in self.pointing_deg)
        along_lon, along_lat, _ = pointing_axes(alt, az)
        position = np.array([self.position_m])
        ends = on_ground(np.stack([position, position + np.cos(psi) * along_lon + np.sin(psi) * along_lat]), alt, az)
        direction = (ends[1] - ends[0])[0]
        return ends[0, 0], direction / np.hypot(*direction)


@dataclass(frozen=True)
class EventView:
    """An event and its images, by telescope.

    Attributes
    ----------
    obs_id, event_id : int
    images : tuple of ImageView
    truth : dict
        Of simulations, by name as in `ImageChunk.truth`; else empty.
    values : dict
        Predictions for the event by models of several telescopes.
    reason : str
        Why these have none.
    """

    obs_id: int
    event_id: int
    images: tuple[ImageView, ...]
    truth: Mapping[str, float] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""

    @property
    def particle(self) -> str:
        """Name of the true primary; empty where it is not known."""
        code = int(self.truth.get("true_primary_id", -1))
        return "" if code < 0 else _PARTICLES.get(code, f"particle {code}")


def event_view(
    file: DL1File,
    event_id: int,
    models: Sequence[CameraModel] = (),
    *,
    obs_id: int | None = None,
    tel_ids: Collection[int] | None = None,
    thresholds: Thresholds,
) -> EventView:
    """Read an event, clean its images, and apply models to it.

    Parameters
    ----------
    file : DL1File
    event_id : int
    models : sequence of CameraModel
        Of single images and of whole events.
    obs_id : int, optional
        By default the first run with such an event.
    tel_ids : collection of int, optional
        Of all images by default.
    thresholds : Thresholds
        Of the images that are shown. Models clean as they were trained.

    Raises
    ------
    UserError
        If there is no such event.
    """
    chunks = event_images(file, event_id, obs_id=obs_id, tel_ids=tel_ids)
    of_images, of_event = predict_event(chunks, models) if models else ([], None)
    return view_of_images(chunks, models, [*of_images, *([of_event] if of_event else [])], thresholds=thresholds)


def event_images(
    file: DL1File, event_id: int, *, obs_id: int | None = None, tel_ids: Collection[int] | None = None
) -> list[ImageChunk]:
    """The images of an event, one by one; see `event_view`."""
    found = [chunk for chunk in chosen_images(file, tel_ids=tel_ids, event_ids=[event_id], chunk_images=1)]
    run = obs_id if obs_id is not None else int(found[0].obs_id[0])
    return [chunk for chunk in found if int(chunk.obs_id[0]) == run]


def view_of_images(
    chunks: Sequence[ImageChunk],
    models: Sequence[CameraModel],
    predictions: Sequence[ImagePredictions | EventPredictions],
    *,
    thresholds: Thresholds,
) -> EventView:
    """An event whose predictions are known, also beside those for others; see `event_view`.

    Parameters
    ----------
    chunks : sequence of ImageChunk
        What `event_images` gave.
    models : sequence of CameraModel
        Of the predictions.
    predictions : sequence of ImagePredictions and EventPredictions
    thresholds : Thresholds
        Of the images that are shown.
    """
    of_images = {p.tel_id: p for p in predictions if isinstance(p, ImagePredictions)}
    of_events = next((p for p in predictions if isinstance(p, EventPredictions)), None)
    obs_id, event_id = int(chunks[0].obs_id[0]), int(chunks[0].event_id[0])
    images = tuple(_image_view(chunk, of_images.get(chunk.tel_id), models, thresholds) for chunk in chunks)
    values, reason = _of_event(of_events, models, obs_id, event_id)
    truth = {name: float(column[0]) for name, column in chunks[0].truth.items()} if chunks[0].truth else {}
    return EventView(obs_id, event_id, tuple(with_source(i, values) for i in images), truth, values, reason)


def _row(predictions: ImagePredictions | EventPredictions, obs_id: int, event_id: int) -> int | None:
    rows = np.flatnonzero((predictions.obs_id == obs_id) & (predictions.event_id == event_id))
    return int(rows[0]) if len(rows) else None


def clean(charge_pe: np.ndarray, peak_time_ns: np.ndarray, camera: Camera, thresholds: Thresholds) -> Cleaned:
    """Clean one image, and parametrise it.

    Parameters
    ----------
    charge_pe, peak_time_ns : ndarray, shape (n_pixels,)
    """
    image = usable_charges(np.asarray(charge_pe, np.float32)[None])
    mask = tailcuts(image, camera, *thresholds)
    time = usable_times(image, np.asarray(peak_time_ns, np.float32)[None], mask, camera)
    parameters = image_parameters(image, time, mask, camera)
    return Cleaned(mask[0], {name: float(column[0]) for name, column in parameters.items()})


def _image_view(
    chunk: ImageChunk, predictions: ImagePredictions | None, models: Sequence[CameraModel], thresholds: Thresholds
) -> ImageView:
    source = None
    if chunk.truth and np.isfinite(chunk.truth["true_fov_lon_deg"][0]):
        source = float(chunk.truth["true_fov_lon_deg"][0]), float(chunk.truth["true_fov_lat_deg"][0])
    values, reason = {}, ""
    row = None if predictions is None else _row(predictions, int(chunk.obs_id[0]), int(chunk.event_id[0]))
    if predictions is not None and row is not None:
        own = column_names([model for model in models if not model.of_events])
        values = {name: float(predictions.values[p][column][row]) for (p, column), name in own.items()}
        reason = predictions.joined_reasons()[row] if own else ""
    return ImageView(
        camera=chunk.camera,
        tel_id=chunk.tel_id,
        charge_pe=usable_charges(chunk.image)[0],
        peak_time_ns=chunk.peak_time[0],
        cleaned=clean(chunk.image[0], chunk.peak_time[0], chunk.camera, thresholds),
        position_m=chunk.position_m,
        pointing_deg=(float(chunk.pointing_alt_deg[0]), float(chunk.pointing_az_deg[0])),
        true_source_deg=source,
        values=values,
        reason=reason or str(chunk.left_out[0]),
    )


def _of_event(
    predictions: EventPredictions | None, models: Sequence[CameraModel], obs_id: int, event_id: int
) -> tuple[dict[str, float], str]:
    row = None if predictions is None else _row(predictions, obs_id, event_id)
    if predictions is None or row is None:
        return {}, ""
    names = column_names([model for model in models if model.of_events])
    values = {name: float(predictions.values[prefix][column][row]) for (prefix, column), name in names.items()}
    return values, predictions.joined_reasons()[row]


def with_source(image: ImageView, of_event: Mapping[str, float]) -> ImageView:
    """With the source that was predicted: for the event if that was done, else for the image."""
    alt, az = of_event.get("reco_alt_deg", np.nan), of_event.get("reco_az_deg", np.nan)
    if np.isfinite([alt, az, *image.pointing_deg]).all():
        lon, lat = fov_of_altaz(alt, az, *image.pointing_deg)
        radius_deg = of_event.get("reco_ang_distance_uncert_deg", np.nan)
    else:
        lon, lat = (image.values.get(f"reco_fov_{axis}_deg", np.nan) for axis in ("lon", "lat"))
        radius_deg = image.values.get("reco_ang_distance_uncert_deg", np.nan)
    if not np.isfinite([lon, lat]).all():
        return image
    return replace(image, reco_source_deg=(float(lon), float(lat)), reco_radius_deg=float(radius_deg))


def words_of(values: Mapping[str, float]) -> list[str]:
    """What models say, in a few words: energy, gammaness and others, with their uncertainties.

    Examples
    --------
    >>> words_of({"reco_energy_tev": 0.683, "reco_energy_uncert_tev": 0.11, "gammaness": 0.977})
    ['energy 0.68 ± 0.11 TeV', 'gammaness 0.977']
    """
    texts = []
    for quantity in QUANTITIES:
        columns = [values.get(column, np.nan) for column in quantity.columns]
        if np.isfinite(columns[0]):
            name, _, unit = quantity.heading.partition(" [")
            texts.append(f"{name} {quantity.text(*columns)} {unit.rstrip(']')}".rstrip())
    return texts
