"""Parts of a frame in which it is described: a sample of a large one, in units of its noise."""

from typing import NamedTuple

import numpy as np

from pipeline.sky.dq import LOST, UNTRUSTED, has
from pipeline.sky.frames.frame import Frame
from pipeline.sky.strips import part_of

# Large frames: at most this many windows on a grid, of this side [px].
_WINDOWS_PER_SIDE, WINDOW_PX = 5, 400
# The local background is the median of boxes of this side [px].
BOX_PX = 64


class Window(NamedTuple):
    """A part of the exposed frame.

    Attributes
    ----------
    snr : ndarray of float32
        Signal above the local background in units of the frame's noise; 0 where not valid.
    valid : ndarray of bool
    raw : ndarray of float32
        Signal above the frame's level in the same unit.
    """

    snr: np.ndarray
    valid: np.ndarray
    raw: np.ndarray

    @classmethod
    def of(cls, frame: Frame, part: tuple[slice, slice]) -> "Window":
        sci, dq = (part_of(image, frame.exposed)[part] for image in (frame.sci, frame.dq))
        valid = np.isfinite(sci) & ~has(dq, UNTRUSTED | LOST)
        raw = np.where(valid, (sci - np.float32(frame.level)) / np.float32(frame.noise), np.float32(0))
        return cls(np.where(valid, raw - _local_background(raw), np.float32(0)), valid, raw)


def sampled_windows(shape: tuple[int, int]) -> list[tuple[slice, slice]]:
    """Windows of a frame of that shape: all of it, or a grid of some. Their corners are even: they keep a mosaic."""

    def starts(length: int) -> np.ndarray:
        if length <= _WINDOWS_PER_SIDE * WINDOW_PX:
            return np.arange(0, length, WINDOW_PX)
        return np.linspace(0, length - WINDOW_PX, _WINDOWS_PER_SIDE).astype(int) // 2 * 2

    rows, columns = (starts(length) for length in shape)
    return [(slice(int(y), int(y) + WINDOW_PX), slice(int(x), int(x) + WINDOW_PX)) for y in rows for x in columns]


def _local_background(raw: np.ndarray) -> np.ndarray:
    """Median of the box of each pixel."""
    background = np.empty_like(raw)
    for top in range(0, raw.shape[0], BOX_PX):
        for left in range(0, raw.shape[1], BOX_PX):
            box = (slice(top, top + BOX_PX), slice(left, left + BOX_PX))
            background[box] = np.median(raw[box])
    return background
