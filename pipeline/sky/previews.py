"""A frame before and after, small enough to look at: kept while the strips of a restoration pass by."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.sky.dq import DQ_DTYPE
from pipeline.sky.frames import Frame, Strip

#: Frames of at most so many pixels are kept whole; of larger ones, means of square blocks.
WHOLE_PX = 16_000_000
# The longer side of what is kept of a larger frame [px].
_SIDE_PX = 2000


@dataclass(frozen=True)
class Pictures:
    """A frame before and after.

    Attributes
    ----------
    frame : Frame
    step : int
        Side [px] of the blocks that pixels of the pictures are means of.
    before, after : ndarray of float32, shape (ceil(H / step), ceil(W / step))
        In the frame's unit.
    dq : ndarray of uint16, of the same shape
        All bits of the block.
    """

    frame: Frame
    step: int
    before: np.ndarray
    after: np.ndarray
    dq: np.ndarray


class Preview:
    """Collects `Pictures`."""

    def __init__(self, frame: Frame) -> None:
        height, width = frame.shape
        self._frame = frame
        self._step = 1 if height * width <= WHOLE_PX else -(-max(height, width) // _SIDE_PX)
        shape = -(-height // self._step), -(-width // self._step)
        self._images, self._dq = np.empty((2, *shape), np.float32), np.zeros(shape, DQ_DTYPE)
        of_blocks = (2, *shape) if self._step > 1 else (2, 0, 0)
        self._sums, self._counts = np.zeros(of_blocks), np.zeros(of_blocks, np.int32)

    def watched(self, strips: Iterator[Strip]) -> Iterator[Strip]:
        """The same strips."""
        for strip in strips:
            rows = slice(strip.top, strip.top + len(strip.sci))
            before = np.asarray(self._frame.sci[rows])
            if self._step == 1:
                self._images[0, rows], self._images[1, rows], self._dq[rows] = before, strip.sci, strip.dq
            else:
                for number, image in enumerate((before, strip.sci)):
                    add_blocks(self._sums[number], self._counts[number], image, strip.top, self._step)
                add_bits(self._dq, strip.dq, strip.top, self._step)
            yield strip

    def pictures(self) -> Pictures:
        """What was kept, once all strips have passed."""
        if self._step > 1:
            with np.errstate(invalid="ignore"):
                self._images[...] = self._sums / np.where(self._counts, self._counts, np.nan)
        return Pictures(self._frame, self._step, *self._images, self._dq)


def add_blocks(sums: np.ndarray, counts: np.ndarray, rows: np.ndarray, top: int, step: int) -> None:
    """Add the finite pixels of some rows of an image, the first of them number `top`, to their blocks (in place)."""
    known = np.isfinite(rows)
    values = np.where(known, rows, 0).astype(np.float64)
    first = np.arange(0, rows.shape[1], step)
    line = (top + np.arange(len(rows))) // step
    np.add.at(sums, line, np.add.reduceat(values, first, axis=1))
    np.add.at(counts, line, np.add.reduceat(known, first, axis=1, dtype=np.int32))


def add_bits(bits: np.ndarray, rows: np.ndarray, top: int, step: int) -> None:
    """Set in each block all bits of its pixels (in place)."""
    first = np.arange(0, rows.shape[1], step)
    line = (top + np.arange(len(rows))) // step
    np.bitwise_or.at(bits, line, np.bitwise_or.reduceat(rows, first, axis=1))
