"""A frame compared with those that a network was trained on; and what is done where it is not like them.

A network has learnt what a defect looks like beside stars of a certain sharpness. It takes sharper ones for cosmic
rays: of 40 stars with a FWHM of 1.6 px, 38 were defects to a model that was trained from 2 px on.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from pipeline.errors import InputFileError
from pipeline.inputs.base import Range
from pipeline.inputs.frame import outside
from pipeline.sky.dq import UNTRUSTED, has
from pipeline.sky.frame_statistics import FrameStatistics, measure, source_pixels
from pipeline.sky.frames import Frame
from pipeline.sky.strips import LazyImage, computed, count

Choice = Literal["keep_sources", "apply", "refuse"]


@dataclass(frozen=True)
class Comparison:
    """A frame beside those of training.

    Attributes
    ----------
    statistics : FrameStatistics, optional
        Of the frame; None where the ranges of training are not known.
    kept : LazyImage of bool, shape (H, W), optional
        Pixels that look like sources and must keep their value; None for a frame like those of training.
    n_kept : int
        How many they are.
    warnings : tuple of str
        One at most, which names every quantity outside its range.
    is_mosaic : bool
        Whether neighbouring pixels are of different colours: each colour is then a frame of its own.
    """

    statistics: FrameStatistics | None = None
    kept: LazyImage | None = None
    n_kept: int = 0
    warnings: tuple[str, ...] = ()
    is_mosaic: bool = False


def compare(frame: Frame, ranges: Sequence[Range], choice: Choice, *, may_be_mosaic: bool = True) -> Comparison:
    """Measure a frame and compare it with the ranges of a model's training.

    Without ranges, nothing is measured. In a frame outside them, pixels that look like sources are to be kept
    (`keep_sources`), or not (`apply`). A mosaic of colours that only its background tells is to be taken apart,
    unless it is forced (`apply`).

    Raises
    ------
    InputFileError
        If the frame is outside the ranges and `choice` is `refuse`.
    """
    if not ranges:
        return Comparison()
    statistics = measure(frame)
    found = outside(asdict(statistics), ranges)
    texts = list(found.values())
    if not texts:
        return Comparison(statistics)
    text = f"unlike the frames that the model was trained on: {', '.join(texts)}"
    if choice == "refuse":
        raise InputFileError(f"{frame.path}: {text}; see predict.outside_range")
    if choice == "apply":
        return Comparison(statistics, warnings=(f"{text}; its result is applied everywhere, check stars and defects",))
    if "colour_pattern" in found and may_be_mosaic:
        text = f"{text}; each of its four kinds of pixels is taken for a frame of its own"
        return Comparison(statistics, warnings=(text,), is_mosaic=True)
    kept = computed(_trusted, source_pixels(frame), frame.sci, frame.dq, dtype=bool)
    n_kept = count(kept)
    return Comparison(statistics, kept, n_kept, (f"{text}; {n_kept} pixels that look like sources keep their values",))


def _trusted(sources: np.ndarray, sci: np.ndarray, dq: np.ndarray) -> np.ndarray:
    return sources & np.isfinite(sci) & ~has(dq, UNTRUSTED)


def mosaic_taken_apart(source: str) -> Comparison:
    """Of a frame that is said to be a mosaic: its kinds of pixels are compared, each on its own."""
    return Comparison(
        warnings=(f"colour mosaic ({source}): each of its four kinds of pixels is restored as a frame of its own",),
        is_mosaic=True,
    )
