"""Pictures of what a prediction says: one event, or one frame, as a PNG file."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UserError
from pipeline.files import atomic_output, check_free
from pipeline.logs import get_logger
from pipeline.text_tables import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.camera.dl1 import DL1File, ImageChunk
    from pipeline.camera.event_predictions import EventPredictions
    from pipeline.camera.event_views import EventView
    from pipeline.camera.predictions import CameraModel, ImagePredictions
    from pipeline.sky.frames import Frame, Strip
    from pipeline.sky.previews import Preview
    from pipeline.sky.restore import Restoration

log = get_logger(__name__)


class Picture:
    """A picture that `pipeline.stages.predict` has drawn of the event or frame that it predicts.

    Parameters
    ----------
    path : path
        PNG file to write.
    force : bool
        Replace it.

    Raises
    ------
    UserError
        If the name does not end in .png, or the file exists.
    """

    def __init__(self, path: Path, *, force: bool = False) -> None:
        if path.suffix.lower() != ".png":
            raise UserError(f"the picture is written as PNG, got --plot {path}; end the name in .png")
        self.path, self._force = check_free(path, force=force), force
        self._previews: list[Preview] = []
        self._images: list[ImageChunk] = []

    def read_event(self, file: "DL1File", event: int, telescope: int | None) -> None:
        """Keep the images of one event, or the one of a telescope."""
        from pipeline.camera.event_views import event_images

        self._images = event_images(file, event, tel_ids=None if telescope is None else [telescope])

    def of_event(
        self,
        name: str,
        models: "Sequence[CameraModel]",
        predictions: "Sequence[ImagePredictions | EventPredictions]",
    ) -> None:
        """Draw the images that were kept, with what the models say of them."""
        from pipeline.camera.event_views import Thresholds, view_of_images
        from pipeline.figures.events import event_picture

        thresholds = Thresholds.of(models)
        assert thresholds is not None  # there is a model
        view = view_of_images(self._images, models, predictions, thresholds=thresholds)
        self._write(event_picture(view, title_of_event(view, name)))

    def watched(self, frame: "Frame", strips: "Iterator[Strip]") -> "Iterator[Strip]":
        """The same strips of a frame's restoration, whose first frame will be drawn."""
        from pipeline.sky.previews import Preview

        if self._previews:
            return strips
        self._previews.append(Preview(frame))
        return self._previews[0].watched(strips)

    def of_frame(self, restoration: "Restoration", name: str, numbers: Mapping[str, float]) -> None:
        """Draw the frame whose strips have passed `watched`."""
        from pipeline.figures.frames import frame_picture

        frame = restoration.frame
        pictures = self._previews[0].pictures()
        if pictures.step == 1:
            restoration.add_lines(0, pictures.dq)
        title = [f"{printable(name)}, HDU {frame.science_hdu}, by {restoration.predictor.card.name}"]
        noise = [f"{numbers[f'noise_{when}']:.4g}" for when in ("before", "after")]
        title.append(
            f"sky {numbers['level_before']:.4g} {frame.unit}, noise {noise[0]}"
            + (f" before, {noise[1]} {frame.unit} after" if noise[0] != noise[1] else f" {frame.unit}")
        )
        title += [f"warning: {text}" for text in restoration.warnings]
        self._write(frame_picture(pictures, title, only_flags=restoration.only_flags))

    def _write(self, figure: "Figure") -> None:
        from pipeline.figures.style import save_figure

        with atomic_output(self.path, force=self._force) as temporary:
            save_figure(figure, temporary)
        log.info("wrote %s", self.path)


def title_of_event(view: "EventView", name: str) -> list[str]:
    """Which event it is, what is predicted, and the truth where it is known."""
    from pipeline.camera.event_views import words_of

    which = f"{printable(name)}, run {view.obs_id}, event {view.event_id}"
    values, reason = view.values, view.reason
    if len(view.images) == 1:
        image = view.images[0]
        which += f", telescope {image.tel_id} ({image.camera.name})"
        values, reason = values or image.values, reason or image.reason
    lines = [which]
    words = words_of(values)
    lines += ["; ".join(part) for part in (words[:2], words[2:]) if part]
    if reason:
        lines.append(reason)
    if len(view.images) == 1:
        known = view.images[0].cleaned.parameters
        lines.append(
            f"size {known['hillas_intensity']:.0f} p.e., length {known['hillas_length']:.3f} deg, width "
            f"{known['hillas_width']:.3f} deg, leakage {known['leakage_intensity_width_1']:.2f}"
        )
    if view.particle:
        lines.append(f"true: {view.particle} of {view.truth['true_energy_tev']:.3g} TeV")
    return lines
