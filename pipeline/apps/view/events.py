"""The events of a camera file: images with their cleaning at any thresholds, predictions and truth, as JSON."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.apps.view.server import Answer
from pipeline.camera.dl1 import DL1File
from pipeline.camera.dl2.stored import StoredPredictions
from pipeline.camera.event_views import EventView, ImageView, Thresholds, clean, event_view, with_source, words_of
from pipeline.config import CleaningConfig, Config
from pipeline.errors import UserError
from pipeline.files import source_name
from pipeline.filetypes import Kind
from pipeline.logs import get_logger
from pipeline.stages.events import as_dl1
from pipeline.stages.shelf import Shelf

if TYPE_CHECKING:
    from pipeline.camera.geometry import Camera
    from pipeline.camera.predictions import CameraModel

log = get_logger(__name__)

_KEPT_EVENTS = 16
_PARAMETERS = (
    ("size [p.e.]", "hillas_intensity"),
    ("length [deg]", "hillas_length"),
    ("width [deg]", "hillas_width"),
    ("psi [deg]", "hillas_psi"),
    ("distance [deg]", "hillas_r"),
    ("time gradient [ns/deg]", "timing_slope"),
    ("leakage", "leakage_intensity_width_1"),
    ("pixels", "morphology_n_pixels"),
    ("islands", "morphology_n_islands"),
)


class EventSite:
    """A `Site` of the events of a camera file.

    Parameters
    ----------
    path : path
    kind : {"simtel", "dl1", "lstchain"}
    models : sequence of CameraModel
        Applied to each event that is looked at. Without, predictions are those in the file, or in the DL2 file beside
        it that `lightpool predict` would write.
    cfg : Config
    stack : ExitStack
        Closes the files.
    shelf : Shelf, optional
        Models that are applied where there are neither others nor predictions.
    """

    def __init__(
        self,
        path: Path,
        kind: Kind,
        models: "Sequence[CameraModel]",
        cfg: Config,
        stack: ExitStack,
        shelf: Shelf | None = None,
    ) -> None:
        dl1_path = stack.enter_context(as_dl1(path, kind, cfg))
        self._file = stack.enter_context(DL1File(dl1_path, cfg.ingest.camera.event_types))
        if not len(self._file.events.event_id):
            raise UserError(f"{path} holds no events; there is nothing to look at")
        self._stored = None if models else _stored(path, dl1_path, stack)
        if shelf is not None and self._stored is None:
            models = _shipped(shelf, self._file, path)
        self._path, self._models = path, models
        cleaning = CleaningConfig()
        self._thresholds = Thresholds.of(models) or Thresholds(
            cleaning.picture_pe, cleaning.boundary_pe, cleaning.min_picture_neighbors
        )
        self._view = lru_cache(_KEPT_EVENTS)(self._read)

    # ---- answering ---------------------------------------------------------------------------------------------------
    def get(self, path: Sequence[str], query: Mapping[str, str]) -> Answer | None:
        """info.json, event/NUMBER, find?id=, camera/NUMBER/TEL, cleaned/NUMBER/TEL?picture=&boundary=."""
        match list(path):
            case ["info.json"]:
                return Answer.of_json(self.info())
            case ["find"]:
                return Answer.of_json({"number": self.find(query.get("id", ""))})
            case ["event", number]:
                return Answer.of_json(self.event(_number(number)))
            case ["camera", number, tel_id]:
                return Answer.of_json(_camera(self._image(number, tel_id).camera))
            case ["cleaned", number, tel_id]:
                return Answer.of_json(self.cleaned(number, tel_id, query))
        return None

    def post(self, path: Sequence[str], body: bytes) -> Answer | None:
        """Nothing is exported by the server."""
        return None

    def info(self) -> dict[str, Any]:
        """What there is, for the page."""
        events = self._file.events
        source = ", ".join(model.name for model in self._models) or (self._stored.path.name if self._stored else "")
        return {
            "kind": "events",
            "file": self._path.name,
            "n_events": len(events.event_id),
            "first": int(events.event_id.min()),
            "last": int(events.event_id.max()),
            "has_truth": self._file.has_truth,
            "predictions": source,
            "thresholds": self._thresholds._asdict(),
        }

    def find(self, text: str) -> int:
        """Number of the event with an id."""
        wanted = _number(text)
        found = np.flatnonzero(self._file.events.event_id == wanted)
        if not len(found):
            raise UserError(f"there is no event {wanted} in {self._path.name}")
        return int(found[0])

    def event(self, number: int) -> dict[str, Any]:
        """An event with its images."""
        view = self._view(number)
        return {
            "number": number,
            "run": view.obs_id,
            "event": view.event_id,
            "predicted": words_of(view.values),
            "reason": view.reason,
            "truth": _truth(view),
            "core": {"true": _core(view.truth, "true"), "predicted": _core(view.values, "reco")},
            "images": [_image(image) for image in view.images],
        }

    def cleaned(self, number: str, tel_id: str, query: Mapping[str, str]) -> dict[str, Any]:
        """Mask, ellipse and parameters at other thresholds."""
        image = self._image(number, tel_id)
        try:
            picture_pe, boundary_pe = float(query["picture"]), float(query["boundary"])
        except (KeyError, ValueError) as error:
            raise UserError("thresholds are two numbers, picture and boundary [p.e.]") from error
        if not (np.isfinite([picture_pe, boundary_pe]).all() and boundary_pe <= picture_pe):
            text = f"the boundary threshold is {boundary_pe:g} p.e., the picture threshold {picture_pe:g} p.e."
            raise UserError(text)
        thresholds = Thresholds(picture_pe, boundary_pe, self._thresholds.min_picture_neighbors)
        found = clean(image.charge_pe, image.peak_time_ns, image.camera, thresholds)
        return _cleaned(replace(image, cleaned=found))

    # ---- reading -----------------------------------------------------------------------------------------------------
    def _read(self, number: int) -> EventView:
        events = self._file.events
        if number >= len(events.event_id):
            raise UserError(f"there is no event number {number}; there are {len(events.event_id)}")
        obs_id, event_id = int(events.obs_id[number]), int(events.event_id[number])
        try:
            view = event_view(self._file, event_id, self._models, obs_id=obs_id, thresholds=self._thresholds)
        except UserError as error:  # a trigger without an image
            return EventView(obs_id, event_id, (), reason=str(error))
        if not self._stored:
            return view
        values = self._stored.of_event(obs_id, event_id)
        images = [replace(image, values=self._stored.of_image(image.tel_id, obs_id, event_id)) for image in view.images]
        return replace(view, values=values, images=tuple(with_source(image, values) for image in images))

    def _image(self, number: str, tel_id: str) -> ImageView:
        view, wanted = self._view(_number(number)), _number(tel_id)
        for image in view.images:
            if image.tel_id == wanted:
                return image
        raise UserError(f"event {view.event_id} has no image of telescope {wanted}")


def _shipped(shelf: Shelf, file: DL1File, path: Path) -> "list[CameraModel]":
    """Models that ship and serve the file; a file that none serves can be looked at all the same."""
    try:
        return shelf.for_events(file, path)
    except UserError as error:
        log.warning("%s; shown without predictions", error)
        return []


def _stored(path: Path, dl1_path: Path, stack: ExitStack) -> StoredPredictions | None:
    """Predictions in the file itself, or in the DL2 file beside it."""
    for place in (dl1_path, path.with_name(f"{source_name(path)}.dl2.h5")):
        if place.is_file():
            stored = StoredPredictions(place)
            stack.callback(stored.close)
            if stored:
                return stored
    return None


# ---- as JSON ---------------------------------------------------------------------------------------------------------
def _image(image: ImageView) -> dict[str, Any]:
    return {
        "tel_id": image.tel_id,
        "camera": image.camera.name,
        "geometry": image.camera.identity,
        "charge": _list(image.charge_pe, 3),
        "time": _list(image.peak_time_ns, 2),
        "predicted": words_of(image.values),
        "reason": image.reason,
        "true_source": image.true_source_deg,
        "reco_source": image.reco_source_deg,
        "reco_radius": _finite(image.reco_radius_deg),
        "axis": _axis(image),
        "ground": [_finite(-image.position_m[1]), _finite(image.position_m[0])],
        "cleaned": _cleaned(image),
    }


def _cleaned(image: ImageView) -> dict[str, Any]:
    known, scale = image.cleaned.parameters, image.sky_scale
    names = ("hillas_fov_lon", "hillas_fov_lat", "hillas_length", "hillas_width")
    ellipse = [*(scale * known[name] for name in names), known["hillas_psi"]]
    from pipeline.figures.events import open_edges_deg

    return {
        "mask": np.flatnonzero(image.cleaned.mask).tolist(),
        "edges": np.round(open_edges_deg(image.camera, image.cleaned.mask), 5).reshape(-1, 4).tolist(),
        "ellipse": [float(value) for value in ellipse] if np.isfinite(ellipse).all() else None,
        "parameters": [[label, _finite(known[name])] for label, name in _PARAMETERS],
    }


def _camera(camera: "Camera") -> dict[str, Any]:
    from pipeline.figures.cameras import pixel_outlines_deg

    return {"name": camera.name, "outlines": np.round(pixel_outlines_deg(camera), 5).tolist()}


def _truth(view: EventView) -> list[str]:
    if not view.particle:
        return []
    truth = view.truth
    texts = [view.particle, f"energy {truth['true_energy_tev']:.3g} TeV"]
    if np.isfinite(truth["true_alt_deg"]):
        texts.append(f"alt, az {truth['true_alt_deg']:.2f}, {truth['true_az_deg']:.2f} deg")
    if np.isfinite(truth["true_core_x_m"]):
        texts.append(f"core {truth['true_core_x_m']:.0f} m north, {truth['true_core_y_m']:.0f} m west")
    if np.isfinite(truth["true_x_max_g_cm2"]):
        texts.append(f"X_max {truth['true_x_max_g_cm2']:.0f} g/cm2")
    return texts


def _axis(image: ImageView) -> list[float] | None:
    """Point and direction of the image's axis on the ground, to the east and to the north."""
    axis = image.axis_on_ground()
    return None if axis is None else [-axis[0][1], axis[0][0], -axis[1][1], axis[1][0]]


def _core(values: Mapping[str, float], prefix: str) -> list[float] | None:
    """To the east and to the north [m]."""
    north, west = (values.get(f"{prefix}_core_{axis}_m", np.nan) for axis in "xy")
    return [-west, north] if np.isfinite([north, west]).all() else None


def _list(values: np.ndarray, decimals: int) -> list[float | None]:
    rounded = np.round(values.astype(np.float64), decimals)
    return [value if np.isfinite(value) else None for value in rounded.tolist()]


def _finite(value: float) -> float | None:
    return round(float(value), 5) if np.isfinite(value) else None


def _number(text: str | int) -> int:
    if isinstance(text, int):
        return text
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise UserError(f"{text!r} is not the number of an event or a telescope")
    return int(text)
