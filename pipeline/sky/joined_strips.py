"""Strips of a product set aside or cut anew on their way into a file."""

import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.sky.dq import DQ_DTYPE
from pipeline.sky.frames import Strip


class PackedMasks:
    """Masks of strips: nearly all bits are 0, so they take a small part of their size."""

    def __init__(self) -> None:
        self._packed: list[tuple[int, tuple[int, ...], bytes]] = []

    def append(self, top: int, dq: np.ndarray) -> None:
        """Rows from `top` on."""
        if top == 0:  # computed anew
            self._packed.clear()
        self._packed.append((top, dq.shape, zlib.compress(np.ascontiguousarray(dq), 1)))

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        for top, shape, packed in self._packed:
            yield top, np.frombuffer(bytearray(zlib.decompress(packed)), DQ_DTYPE).reshape(shape)


class Rows:
    """Strips of any height, taken in others."""

    def __init__(self, strips: Iterator[Strip]) -> None:
        self._strips, self._waiting = strips, [next(strips)]

    def take(self, n_rows: int) -> Strip:
        """The next rows."""
        while sum(len(strip.sci) for strip in self._waiting) < n_rows:
            self._waiting.append(next(self._strips))
        joined = _joined(self._waiting)
        self._waiting = [_rows_of(joined, slice(n_rows, None))]
        return _rows_of(joined, slice(n_rows))


def _joined(strips: Sequence[Strip]) -> Strip:
    if len(strips) == 1:
        return strips[0]
    planes = {name: np.concatenate([strip.planes[name] for strip in strips]) for name in strips[0].planes}
    sci, err, dq = (np.concatenate([strip[place] for strip in strips]) for place in (1, 2, 3))
    return Strip(strips[0].top, sci, err, dq, planes)


def _rows_of(strip: Strip, rows: slice) -> Strip:
    planes = {name: plane[rows] for name, plane in strip.planes.items()}
    return Strip(strip.top + (rows.start or 0), strip.sci[rows], strip.err[rows], strip.dq[rows], planes)
