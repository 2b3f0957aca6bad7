"""Trained models from Python, for notebooks and other programs. No torch, as on the command line.

from pipeline.apps import load_bundle

bundle = load_bundle("results/demo/bundles/energy")
for record in bundle.predict_file("run.dl1.h5", event_id=12):
print(record["tel_id"], record["reco_energy_tev"])
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.bundle.card import Card
from pipeline.bundle.runtime import Predictor
from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.camera.geometry import Camera
    from pipeline.sky.frames import Frame


def load_bundle(name_or_path: str | Path, threads: int = 2) -> "Bundle":
    """Open a trained model: a directory, or the name of one that ships with lightpool.

    Raises
    ------
    UserError
        If there is no such bundle, or it is not whole.
    """
    return Bundle(Predictor.load(name_or_path, threads=threads))


class Bundle:
    """A trained model.

    Attributes
    ----------
    card : Card
        Everything that is known of it: task, input, training, validation, limits.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    @property
    def card(self) -> Card:
        """Everything that is known of the model."""
        return self._predictor.card

    def __repr__(self) -> str:
        return f"<lightpool bundle {self.card.name}: {self.card.task}, {self.card.model.name}>"

    # ---- camera ------------------------------------------------------------------------------------------------------
    def predict_file(
        self, path: str | Path, *, event_id: int | None = None, tel_id: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Predictions for the images of a DL1 file, one by one, as `lightpool predict --json` gives them.

        Raises
        ------
        UserError
            If the model is not for camera images, or the event or telescope is not in the file.
        """
        from pipeline.camera.dl1 import DL1File
        from pipeline.camera.predictions import CameraModel, predict_images
        from pipeline.stages.predict import image_records

        self._check("camera")
        models = [CameraModel.of(self._predictor)]
        with DL1File(path) as file:
            tel_ids = None if tel_id is None else [tel_id]
            event_ids = None if event_id is None else [event_id]
            for predictions in predict_images(file, models, tel_ids=tel_ids, event_ids=event_ids):
                yield from image_records(Path(path).name, predictions, models)

    def predict_images(self, image: np.ndarray, peak_time: np.ndarray, camera: "Camera") -> dict[str, np.ndarray]:
        """Predictions for images in memory.

        Parameters
        ----------
        image, peak_time : ndarray, shape (n, n_pixels)
            Charge [p.e.] and peak time [ns], pixels in the order of `camera`; NaN where there is no measurement.
        camera : Camera
            From `pipeline.camera.dl1.DL1File(path).telescopes`, or made by hand.

        Returns
        -------
        dict of ndarray, shape (n,)
            By column, NaN where there is no value; and ``reason``, which says why, empty where there is one.
        """
        from pipeline.camera.dl1 import ImageChunk
        from pipeline.camera.predictions import CameraModel, predict_chunk

        self._check("camera")
        image, peak_time = np.atleast_2d(image), np.atleast_2d(peak_time)
        if image.shape != peak_time.shape or image.shape[1] != camera.n_pixels:
            raise ValueError(
                f"image {image.shape} and peak_time {peak_time.shape} must both be (n, {camera.n_pixels}), "
                f"for {camera.name} has {camera.n_pixels} pixels"
            )
        number = np.arange(len(image))
        chunk = ImageChunk(
            camera=camera,
            tel_id=1,
            obs_id=np.zeros_like(number),
            event_id=number,
            shower_id=number,
            time_s=np.full(len(image), np.nan),
            image=image.astype(np.float32),
            peak_time=peak_time.astype(np.float32),
            is_valid=np.ones(len(image), bool),
        )
        model = CameraModel.of(self._predictor)
        predictions = predict_chunk(chunk, [model])
        return predictions.values[model.prefix] | {"reason": predictions.reasons[model.prefix]}

    # ---- sky ---------------------------------------------------------------------------------------------------------
    def restore(
        self, frame: "str | Path | Frame", *, tile_px: int = 512, overlap_px: int = 96
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Denoise a frame and paint over its defects.

        Parameters
        ----------
        frame : path or Frame
            A FITS file, or what `pipeline.sky.frames.read_frame` made of one.
        tile_px, overlap_px : int
            As for `pipeline.sky.restore.restore_frame`.

        Returns
        -------
        restored, err, dq : ndarray, shape (H, W)
            In the unit of the frame as it was read (electrons where a gain is known); `dq` holds the bits of
            `pipeline.sky.dq.DQ`.
        """
        from pipeline.sky.frames import Frame, read_frame
        from pipeline.sky.restore import restore_frame

        self._check("sky")
        frame = frame if isinstance(frame, Frame) else read_frame(frame)
        return restore_frame(frame, self._predictor, tile_px, overlap_px)

    def _check(self, kind: str) -> None:
        if self.card.kind != kind:
            words = {"camera": "camera images", "sky": "FITS frames"}
            raise UserError(f"{self.card.name} is a model for {words[self.card.kind]}, not for {words[kind]}")
