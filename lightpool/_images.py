"""Camera images: what is accepted, and what comes back."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightpool._inputs import check_output, is_a, kind_of_object
from pipeline.errors import UserError
from pipeline.logs import get_logger

if TYPE_CHECKING:
    from astropy.table import QTable
    from astropy.units import Quantity
    from ctapipe.containers import ArrayEventContainer
    from ctapipe.instrument import CameraGeometry, SubarrayDescription, TelescopeDescription

    from pipeline.bundle.runtime import Predictor
    from pipeline.camera import predictions
    from pipeline.camera.dl1 import ImageChunk
    from pipeline.camera.geometry import Camera

log = get_logger(__name__)

TAKES = "a simtel, DL1 or lstchain file, (image, peak_time, camera), or a ctapipe ArrayEventContainer with its subarray"
_SHOWN_ROWS = 5


class ImagePredictions:
    """Predictions for camera images, one row per image in the order of the data.

    ``result["reco_energy_tev"]`` is a column as a Quantity, `len` the number of images.

    Attributes
    ----------
    table : QTable
        ``obs_id``, ``event_id``, ``tel_id``, the predicted columns with their units (NaN for images without a value),
        ``valid``, and ``reason``: why the value is missing, else empty. For arrays, ``event_id`` counts
        the rows of the arrays from 0 and ``obs_id`` is 0. ``table.meta`` names the model.
    columns : tuple of str
        Names of the predicted columns.
    quantities : dict
        Predicted column -> Quantity of shape (n,).

    Examples
    --------
    >>> result = lightpool.load("bundles/gammaness").predict("run.dl1.h5", tel_id=1)
    >>> result.columns
    ('gammaness',)
    >>> result
    <ImagePredictions by tiny_gammaness: 12 images, 9 valid>
    obs_id event_id tel_id gammaness valid            reason
    ------ -------- ------ --------- ----- ----------------------------
         7      100      1       nan False nothing left by the cleaning
         7      101      1    0.7674  True
         7      102      1    0.7756  True
         7      103      1    0.7072  True
         7      104      1       nan False nothing left by the cleaning
    ... 7 more in .table
    >>> strongest = result.table[result["gammaness"] > 0.75]
    >>> strongest["event_id"][:2].tolist()
    [101, 102]
    """

    _item = "image"

    def __init__(self, model: "predictions.CameraModel", chunks: "Sequence[predictions.ImagePredictions]") -> None:
        self._model = model
        self._chunks = list(chunks)
        shown = ((head.shown, column) for head in model.heads for column in head.spec.shown)
        self._units = {column.name: column.unit for names, column in shown if column.name in names}

    def __len__(self) -> int:
        return sum(len(chunk) for chunk in self._chunks)

    def __getitem__(self, column: str) -> "Quantity":
        if column not in self._units:
            raise KeyError(f"{self._model.name} predicts no column {column!r}; it predicts {', '.join(self._units)}")
        return self.quantities[column]

    def __repr__(self) -> str:
        n_valid = int(np.count_nonzero(self.table["valid"]))
        n_images = f"{len(self)} {self._item}{'s' * (len(self) != 1)}"
        head = f"<{type(self).__name__} by {self._model.name}: {n_images}, {n_valid} valid>"
        shown = self.table[:_SHOWN_ROWS]
        for name in self.columns:
            shown[name].info.format = ".4g"
        lines = [line.rstrip() for line in shown.pformat(max_lines=-1, max_width=-1)]
        more = len(self) - len(shown)
        return "\n".join([head, *(lines if len(shown) else []), *([f"... {more} more in .table"] if more else [])])

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the predicted columns."""
        return tuple(self._units)

    @cached_property
    def quantities(self) -> "dict[str, Quantity]":
        """Predicted columns, shape (n,); NaN for images without a value."""
        from astropy.units import Quantity

        return {
            name: Quantity(self._joined(lambda chunk, p=head.prefix, n=name: chunk.values[p][n], float), unit)
            for head in self._model.heads
            for name, unit in ((name, self._units[name]) for name in head.shown)
        }

    @cached_property
    def table(self) -> "QTable":
        """Everything, one row per image."""
        from astropy.table import QTable

        from pipeline import __version__

        reasons = [reason for chunk in self._chunks for reason in chunk.joined_reasons()]
        columns: dict[str, Any] = {
            "obs_id": self._joined(lambda chunk: chunk.obs_id, np.int64),
            "event_id": self._joined(lambda chunk: chunk.event_id, np.int64),
            **self._own_columns(),
            **{name: value if self._units[name] else value.value for name, value in self.quantities.items()},
            "valid": np.array([not reason for reason in reasons], bool),
            "reason": np.array(reasons, str),
        }
        card = self._model.predictor.card
        meta = {"model": card.name, "bundle_sha256": card.bundle_sha256, "lightpool_version": __version__}
        return QTable(columns, meta=meta)

    def _own_columns(self) -> dict[str, np.ndarray]:
        return {"tel_id": self._joined(lambda chunk: np.full(len(chunk), chunk.tel_id), np.int64)}

    def _joined(self, values_of: "Callable[[predictions.ImagePredictions], np.ndarray]", dtype: type) -> np.ndarray:
        return np.concatenate([np.empty(0, dtype), *(np.asarray(values_of(chunk), dtype) for chunk in self._chunks)])


class EventPredictions(ImagePredictions):
    """Predictions of a model for events of several telescopes, one row per event in the order of their ids.

    As `ImagePredictions`, but for

    Attributes
    ----------
    table : QTable
        In place of ``tel_id``: ``n_telescopes``, the number of images that the value was made of, and ``by_mono``:
        whether that was one, whose value is that of the network for single images.

    Examples
    --------
    >>> result = lightpool.load("bundles/stereo").predict("array.dl1.h5")
    >>> result
    <EventPredictions by tiny_stereo: 12 events, 9 valid>
    obs_id event_id n_telescopes by_mono reco_energy_tev reco_energy_uncert_tev valid                     reason
                                               TeV                TeV
    ------ -------- ------------ ------- --------------- ---------------------- ----- ---------------------------------------------
         7      100            0   False             nan                    nan False no usable image: nothing left by the cleaning
         7      101            2   False           13.48                  6.928  True
         7      102            2   False           16.94                  8.702  True
         7      103            2   False           12.99                  6.676  True
         7      104            0   False             nan                    nan False no usable image: nothing left by the cleaning
    ... 7 more in .table
    """  # noqa: E501

    _item = "event"

    def _own_columns(self) -> dict[str, np.ndarray]:
        used = self._joined(lambda chunk: np.max([mask.sum(axis=1) for mask in chunk.used.values()], axis=0), np.int64)
        return {"n_telescopes": used, "by_mono": self._joined(lambda chunk: chunk.by_mono, bool)}


def predict(
    predictor: "Predictor",
    data: Any,
    out: Path | None,
    overwrite: bool,
    *,
    event_id: int | None,
    tel_id: int | None,
    subarray: "SubarrayDescription | None",
) -> ImagePredictions:
    """`Model.predict` of a model of camera images."""
    from pipeline.camera.event_predictions import predict_event
    from pipeline.camera.predictions import CameraModel, predict_chunk

    model = CameraModel.of(predictor)
    kind = EventPredictions if model.of_events else ImagePredictions
    if isinstance(data, str | Path):
        if subarray is not None:
            raise UserError("subarray is for an event in memory: a file has its own; leave it out")
        return kind(model, _of_file(model, Path(data), out, overwrite, event_id, tel_id))
    if is_a(data, "ctapipe.containers", "ArrayEventContainer"):
        chunks = _of_event(data, subarray, event_id, tel_id)
    elif isinstance(data, tuple | list) and len(data) == 3:
        if model.of_events:
            raise UserError(
                f"{model.name} is a model for events of several telescopes, and (image, peak_time, camera) are images "
                "of one; give a file, or a ctapipe ArrayEventContainer with its subarray"
            )
        if event_id is not None or subarray is not None:
            raise UserError(
                "event_id and subarray are not for arrays: select rows, and give the camera as (.., camera)"
            )
        chunks = iter([_of_arrays(model, *data, tel_id)])
    else:
        raise wrong_data(model.name, data)
    if out is not None:
        raise UserError(
            f"out={out} needs a file as data, because DL2 follows the events of a DL1 file; write result.table instead"
        )
    if model.of_events:
        return EventPredictions(model, [predict_event(list(chunks), [model])[1]])
    return ImagePredictions(model, [predict_chunk(chunk, [model]) for chunk in chunks])


def wrong_data(name: str, data: Any) -> Exception:
    """The error for data that a model of camera images does not take."""
    message = f"{name} is a model for camera images and takes {TAKES}; got {kind_of_object(data)}"
    is_frame = isinstance(data, np.ndarray) or is_a(data, "astropy.nddata", "NDData")
    return UserError(message) if is_frame else TypeError(message)


# ---- files -----------------------------------------------------------------------------------------------------------
def _of_file(
    model: "predictions.CameraModel",
    path: Path,
    out: Path | None,
    overwrite: bool,
    event_id: int | None,
    tel_id: int | None,
) -> "list[predictions.ImagePredictions]":
    from pipeline.config import Config
    from pipeline.stages.prediction_plan import WING, predictable_kind
    from pipeline.stages.products import predict_events

    kind = predictable_kind(path)
    if WING[kind] != "camera":
        raise UserError(f"{path} is a FITS file, and {model.name} is a model for camera images: it takes {TAKES}")
    check_output(out, "camera", path, overwrite)
    chunks: list[predictions.ImagePredictions] = []
    cfg = Config(backend=model.predictor.asked_for)
    status = predict_events(
        path, kind, lambda _: [model], cfg, chunks.append, event=event_id, telescope=tel_id, out=out, force=overwrite
    )
    if model.of_events:
        chunks = chunks[-1:]  # those before are of images
    for text in status.get("warnings", ()):
        log.warning("%s: %s", path.name, text)
    return chunks


# ---- arrays and events -----------------------------------------------------------------------------------------------
def _of_arrays(
    model: "predictions.CameraModel", image: Any, peak_time: Any, described: Any, tel_id: int | None
) -> "ImageChunk":
    from pipeline.camera.array_events import image_chunk

    camera = _camera(described, tel_id)
    if not model.predictor.serves(camera.identity):
        served = ", ".join(f"{known.name} ({known.identity})" for known in model.predictor.card.cameras)
        raise UserError(f"{model.name} does not serve the camera {camera.name} ({camera.identity}); it serves {served}")
    chunk = image_chunk(camera, 0 if tel_id is None else tel_id, image, peak_time)
    chunk.event_id[:] = np.arange(len(chunk))
    return chunk


def _of_event(
    event: "ArrayEventContainer", subarray: "SubarrayDescription | None", event_id: int | None, tel_id: int | None
) -> "Iterator[ImageChunk]":
    """The images of an event, telescope by telescope."""
    from pipeline.camera.array_events import camera_of_telescope, images_of_event, telescopes_with_images

    if subarray is None:
        raise UserError("an event needs its subarray: predict(event, subarray=source.subarray)")
    own = int(event.index.event_id)
    if event_id not in (None, own):
        raise UserError(f"the event has event_id {own}, not {event_id}; leave event_id out")
    with_image = telescopes_with_images(event)
    if not with_image:
        raise UserError(
            f"event {own} has no DL1 images; calibrate it first: ctapipe.calib.CameraCalibrator(subarray)(event)"
        )
    if tel_id is not None and tel_id not in with_image:
        seen_by = ", ".join(map(str, with_image))
        raise UserError(f"event {own} has no image of telescope {tel_id}; it has those of {seen_by}")
    chosen = with_image if tel_id is None else [tel_id]
    cameras = {number: camera_of_telescope(subarray.tel[number]) for number in chosen}
    return images_of_event(event, subarray, cameras, chosen)


# ---- cameras ---------------------------------------------------------------------------------------------------------
def _camera(described: Any, tel_id: int | None) -> "Camera":
    """The camera of a description of any accepted kind."""
    from pipeline.camera.array_events import camera_of_telescope
    from pipeline.camera.geometry import Camera

    if is_a(described, "ctapipe.instrument", "SubarrayDescription"):
        described = _telescope_of(described, tel_id)
    if is_a(described, "ctapipe.instrument", "TelescopeDescription"):
        return camera_of_telescope(described)
    if is_a(described, "ctapipe.instrument", "CameraGeometry"):
        return _of_geometry(described)
    if isinstance(described, Camera):
        return described
    raise TypeError(
        "the camera of (image, peak_time, camera) must be a ctapipe SubarrayDescription, TelescopeDescription or "
        f"CameraGeometry; got {kind_of_object(described)}"
    )


def _telescope_of(subarray: "SubarrayDescription", tel_id: int | None) -> "TelescopeDescription":
    telescopes = subarray.tel
    known = ", ".join(map(str, telescopes))
    if tel_id is None and len(set(telescopes.values())) == 1:
        return next(iter(telescopes.values()))
    if tel_id is None:
        raise UserError(f"the subarray has several kinds of telescope; choose one with tel_id, of {known}")
    if tel_id not in telescopes:
        raise UserError(f"the subarray has no telescope {tel_id}; it has {known}")
    return telescopes[tel_id]


# As for the cameras of `array_events`: what is made once for a camera is kept for the next images.
@lru_cache(maxsize=32)
def _of_geometry(geometry: "CameraGeometry") -> "Camera":
    from pipeline.camera.geometry import Camera

    focal_length = getattr(geometry.frame, "focal_length", None)
    if not (geometry.pix_x.unit.is_equivalent("m") and focal_length is not None and focal_length.to_value("m") > 0):
        raise UserError(
            f"the geometry of {geometry.name} needs pixels in metres and a frame with the equivalent focal length; "
            "give the TelescopeDescription or the SubarrayDescription in its place"
        )
    return Camera(
        name=geometry.name,
        pix_x_m=geometry.pix_x.to_value("m"),
        pix_y_m=geometry.pix_y.to_value("m"),
        pix_area_m2=geometry.pix_area.to_value("m2"),
        hexagonal=geometry.pix_type.value != "square",
        focal_length_m=focal_length.to_value("m"),
        pix_rotation_deg=geometry.pix_rotation.to_value("deg"),
        cam_rotation_deg=geometry.cam_rotation.to_value("deg"),
    )
