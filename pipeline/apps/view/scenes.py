"""The planes of a FITS frame and of its restoration, and what a threshold of defects can be set on."""

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import provenance
from pipeline.bundle.backends import facts_of
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.files import source_name, temporary_folder
from pipeline.logs import get_logger
from pipeline.sky import cards
from pipeline.sky.coordinates import wcs_of
from pipeline.sky.frames import Frame, open_fits, open_frames
from pipeline.sky.frames.hdus import AS_STORED, pixels_of
from pipeline.sky.restore import Restoration
from pipeline.sky.strips import Image, LazyImage, computed

if TYPE_CHECKING:
    from pipeline.bundle.runtime import Predictor
    from pipeline.stages.shelf import Shelf

log = get_logger(__name__)

#: Columns of a network that say how much a pixel looks like a defect, and the range of their threshold.
_SCORES = {
    "defect_score": ("score of the network (logit)", -12.0, 12.0, 0.0),
    "defect_probability": ("probability of the network", 0.0, 1.0, 0.5),
}


@dataclass(frozen=True)
class Score:
    """What the threshold of defects is set on.

    Attributes
    ----------
    plane : ndarray or LazyImage
    label : str
        What it is, for the page.
    low, high, start : float
        Range of the threshold, and its first value.
    """

    plane: Image
    label: str
    low: float
    high: float
    start: float


@dataclass(frozen=True)
class Scene:
    """One science image with all its planes, in the unit of the file.

    Attributes
    ----------
    frame : Frame
        As it came, or as it is in the file if that is all there is.
    planes : dict
        Name -> pixels: `before` and `after` (or `frame` alone), `residual`, `err`.
    dq : ndarray or LazyImage
        Of the restored frame, if there is one.
    score : Score
    wcs : WCS, optional
    """

    frame: Frame
    planes: dict[str, Image]
    dq: Image
    score: Score
    wcs: Any = None

    @property
    def noise(self) -> float:
        """Of the sky, in the unit of the file."""
        return self.frame.noise / self.frame.factor


def read_scenes(
    path: Path, predictor: "Predictor | None", cfg: Config, stack: ExitStack, shelf: "Shelf | None" = None
) -> tuple[list[Scene], list[str]]:
    """The science images of a file with all that is known of them, and what a viewer should be told.

    Parameters
    ----------
    path : path
        The frame as it came, or as `lightpool predict` has written it: then the frame beside it that it was made from
        is read, too.
    predictor : Predictor, optional
        Restores a frame that came so, into a temporary folder.
    cfg : Config
    stack : ExitStack
        Closes files and removes the folder.
    shelf : Shelf, optional
        Has the model for a frame that came so, where no other is given; one that it cannot restore is shown alone.

    Raises
    ------
    UserError
        If the file cannot be read, or is restored already and would be again.
    """
    frames, pixels = _opened(path, cfg, stack)
    if any(cards.LEVEL_BEFORE.keyword in frame.header for frame in frames):
        if predictor is not None:
            raise UserError(f"{path} is restored already; leave --bundle out, or give the frame as it came")
        before = _original_of(path)
        if before is not None:
            originals, raw = _opened(before, cfg, stack)
            return _paired(originals, raw, frames, pixels, [{}] * len(frames)), []
        note = f"the frame that {path.name} was made from is not beside it: there is no picture before"
        return _alone(frames, pixels), [note]
    if predictor is not None:
        return _with_restored(path, frames, pixels, predictor, cfg, stack), []
    if shelf is None:
        return _alone(frames, pixels), []
    try:
        return _with_restored(path, frames, pixels, shelf.for_frames(path)[0], cfg, stack), []
    except UserError as error:
        log.warning("%s; shown as it came", error)
        return _alone(frames, pixels), [f"{error}; shown as it came"]


def _with_restored(
    path: Path,
    frames: Sequence[Frame],
    pixels: Sequence[LazyImage],
    predictor: "Predictor",
    cfg: Config,
    stack: ExitStack,
) -> list[Scene]:
    folder = stack.enter_context(temporary_folder())
    out, scores = _restored(path, frames, predictor, cfg, folder)
    restored, new_pixels = _opened(out, cfg, stack)
    if not any(column.hdu for column in predictor.columns):
        # The mask alone is new: there is nothing to compare.
        return [_scene(f, None, r, own, s) for f, r, own, s in zip(frames, restored, pixels, scores, strict=True)]
    return _paired(frames, pixels, restored, new_pixels, scores)


def _alone(frames: Sequence[Frame], pixels: Sequence[LazyImage]) -> list[Scene]:
    return [_scene(frame, None, frame, own, {}) for frame, own in zip(frames, pixels, strict=True)]


def _opened(path: Path, cfg: Config, stack: ExitStack) -> tuple[list[Frame], list[LazyImage]]:
    """The frames of a file, and the pixels of their science images as the file has them."""
    frames = stack.enter_context(open_frames(path, cfg.ingest.sky))
    hdus = stack.enter_context(open_fits(path, **AS_STORED))
    return frames, [pixels_of(hdus[frame.science_hdu])[0] for frame in frames]


def _original_of(product: Path) -> Path | None:
    """The frame that a product was made from, if it is beside it still."""
    try:
        made = json.loads(provenance.sidecar_of(product).read_text(encoding="utf-8"))
        path = product.parent / Path(str(made["input"])).name
        is_same = path.is_file() and provenance.sha256_file(path) == made["input_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return path if is_same else None


def _paired(
    originals: Sequence[Frame],
    raw: Sequence[LazyImage],
    restored: Sequence[Frame],
    pixels: Sequence[LazyImage],
    scores: Sequence[Mapping[str, np.ndarray]],
) -> list[Scene]:
    return [_scene(*images) for images in zip(originals, raw, restored, pixels, scores, strict=True)]


def _scene(
    frame: Frame, raw: LazyImage | None, restored: Frame, pixels: LazyImage, scores: Mapping[str, np.ndarray]
) -> Scene:
    factor = np.float32(restored.factor)
    err = computed(lambda values: values / factor, restored.err, dtype=np.float32)
    if raw is None:
        planes: dict[str, Image] = {"frame": pixels}
    else:
        planes = {"before": raw, "after": pixels, "residual": computed(np.subtract, raw, pixels, dtype=np.float32)}
    planes["err"] = err
    score = _score(frame, planes, scores)
    return Scene(frame, planes, restored.dq, score, wcs_of(frame.header, celestial=True))


def _score(frame: Frame, planes: Mapping[str, Image], scores: Mapping[str, np.ndarray]) -> Score:
    """That of the network, or how much was changed, or how bright a pixel is."""
    for name, plane in scores.items():
        return Score(plane, *_SCORES[name])
    noise = np.float32(frame.noise / frame.factor or 1.0)  # frames of one value have none
    if "residual" in planes:
        changed = computed(lambda values: np.abs(values) / noise, planes["residual"], dtype=np.float32)
        return Score(changed, "no score in this file: |before - after| / noise", 0.0, 20.0, 5.0)
    level = np.float32(frame.level / frame.factor + frame.bias_level)
    bright = computed(lambda values: (values - level) / noise, planes["frame"], dtype=np.float32)
    return Score(bright, "no model: (value - sky) / noise", 0.0, 50.0, 10.0)


class _Recording:
    """A predictor that also gives the planes of scores away, which no product keeps."""

    def __init__(self, predictor: "Predictor", take: Callable[[Mapping[str, np.ndarray]], None]) -> None:
        self._predictor, self._take = predictor, take

    def __getattr__(self, name: str) -> Any:
        return getattr(self._predictor, name)

    def flags(self, planes: Mapping[str, np.ndarray], *others: Any, **options: Any) -> np.ndarray:
        """As the predictor has it."""
        self._take(planes)
        return self._predictor.flags(planes, *others, **options)


def _restored(
    path: Path, frames: Sequence[Frame], predictor: "Predictor", cfg: Config, folder: Path
) -> tuple[Path, list[dict[str, np.ndarray]]]:
    """The product of a model, in a folder, and for each frame the score of its pixels where the model has one."""
    from pipeline.stages.products import write_frames

    started = time.monotonic()
    how = cfg.predict.tile_px, cfg.predict.overlap_px, cfg.predict.outside_range, cfg.predict.bayer
    restorations, scores = [], []
    for frame in frames:
        kept: dict[str, np.ndarray] = {}
        restoration = Restoration.of(frame, _Recording(predictor, _keeping(frame, kept, folder)), *how)
        # The colours of a mosaic are restored one after the other.
        scores.append({} if restoration.phases else kept)
        restorations.append(Restoration.of(frame, predictor, *how) if restoration.phases else restoration)
    out = folder / f"{source_name(path)}.fits"
    log.info("%s: applying %s", path.name, predictor.card.name)
    products = [restoration.product() for restoration in restorations]
    write_frames(path, out, products, predictor.card, facts_of(predictor.backend), cfg, started=started)
    for restoration in restorations:
        for text in restoration.warnings:
            log.warning("%s: %s", path.name, text)
    return out, scores


def _keeping(frame: Frame, kept: dict[str, np.ndarray], folder: Path) -> Callable[[Mapping[str, np.ndarray]], None]:
    """A function that puts the score of the next rows into a file of the folder."""
    rows, columns = frame.exposed
    first, left = rows.start or 0, columns.start or 0
    top = [first]

    def take(planes: Mapping[str, np.ndarray]) -> None:
        name = next((name for name in _SCORES if name in planes), None)
        if name is None:
            return
        if name not in kept:
            with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
                kept[name] = np.memmap(file.name, np.float32, "w+", shape=frame.shape)
            kept[name][:] = np.nan
        part = planes[name]
        kept[name][top[0] : top[0] + len(part), left : left + part.shape[1]] = part
        top[0] += len(part)

    return take
