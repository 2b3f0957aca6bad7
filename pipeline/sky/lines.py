"""Straight lines across a frame: trails of satellites and aircraft, from a network's logits binned 8 x 8.

Where a trail is faint, or a star hides it, no pixel alone is sure; but a trail is straight, and goes on. As ASTA [1]_
does, a line is fitted to what the network is fairly sure of, extended across the frame, and made as wide as its
profile.

References
----------
.. [1] Stoppa et al. (2024), "Automated detection of satellite trails", A&A 692, A199, sect. 3.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.sky.dq import DQ, flag, has

#: Side of a bin. A trail of 2 px still fills a quarter of the bins that it crosses.
BIN_PX = 8
_SUPPORT = 0.1  # mean probability from which a bin belongs to a line
_LEAST_BINS = 12  # about 100 px: the longest straight tracks of particles are shorter
_LEAST_SHARE = 0.3  # of the line within the frame; a trail that blinks shows for a half
_LEAST_EXTENT = 0.6  # from the first to the last: arcs and jets leave the line, trails rarely end in the frame
_LEAST_STRAIGHT = 0.95  # of what is seen within `_ASIDE` bins: waves and arcs come and go, other trails only cross
_ASIDE = 4
_EDGE_BINS = (3, 6)  # beside an edge, between amplifiers or of a mosaic, the sky is flat on either side
_EDGE_RATIO, _EDGE_EXCESS = 3.0, 0.25
_CONTRAST = 4.0  # of the line against what is beside it: nebulae and galaxies have no edge
_REACH = 1.5  # bins: what belongs to a line
_BESIDE = (4.0, 8.0)  # bins
_MOST_LINES = 20
_LEAST_HALF_WIDTH_PX = 1.0
_ROWS = 256


@dataclass(frozen=True)
class Line:
    """All points (x, y) [px] with ``x cos(angle) + y sin(angle) = offset``, as wide as `width`.

    Attributes
    ----------
    angle_rad, offset_px, width_px : float
    """

    angle_rad: float
    offset_px: float
    width_px: float

    def distance(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Of points from the middle of the line [px]."""
        return np.abs(x * np.cos(self.angle_rad) + y * np.sin(self.angle_rad) - self.offset_px)


class BinnedLogits:
    """Mean and largest probability in bins of `BIN_PX`, gathered from strips of rows.

    Parameters
    ----------
    shape : (int, int)
        Of the plane of logits.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self._bins = tuple(-(-side // BIN_PX) for side in shape)
        self._sums, self.largest, self._light = np.zeros((3, *self._bins), np.float32)

    def add(self, start: int, logits: np.ndarray, light: np.ndarray) -> None:
        """Rows from `start` on, shape (n, W), and their light above the background."""
        width = self._bins[1] * BIN_PX
        probability, filled = np.zeros((2, len(logits), width), np.float32)
        probability[:, : logits.shape[1]] = 0.5 + 0.5 * np.tanh(0.5 * logits)
        filled[:, : logits.shape[1]] = np.where(np.isfinite(light), light, np.float32(0))
        blocks = probability.reshape(len(logits), -1, BIN_PX)
        rows = (start + np.arange(len(logits))) // BIN_PX
        first = np.flatnonzero(np.diff(rows, prepend=-1))
        self._sums[rows[first]] += np.add.reduceat(blocks.sum(axis=2), first)
        self._light[rows[first]] += np.add.reduceat(filled.reshape(blocks.shape).sum(axis=2), first)
        self.largest[rows[first]] = np.maximum(
            self.largest[rows[first]], np.maximum.reduceat(blocks.max(axis=2), first)
        )

    @property
    def mean(self) -> np.ndarray:
        """Mean probability of the bins, also of those that the frame's edge cuts."""
        return self._sums / self._n_pixels

    @property
    def _n_pixels(self) -> np.ndarray:
        rows, columns = (
            np.minimum(BIN_PX, side - BIN_PX * np.arange(n)) for side, n in zip(self.shape, self._bins, strict=True)
        )
        return rows[:, None] * columns

    def lines(self) -> list[Line]:
        """The lines found, the surest first."""
        mean, light = self.mean, self._light / self._n_pixels
        left = mean >= _SUPPORT
        found = []
        for _ in range(_MOST_LINES):
            candidate = _longest(left)
            if candidate is None:
                break
            line = _fitted(candidate, mean, left)
            y, x = _centres(left)
            left &= ~(line.distance(y, x) <= _REACH * BIN_PX)
            if _is_trail(line, mean) and not _is_edge(line, light):
                found.append(_with_width(line, mean, self.largest))
        return found


def flag_lines(dq: np.ndarray, lines: Sequence[Line], bit: int, first_row: int = 0) -> None:
    """Set a bit in all known pixels of some lines; `dq` is changed in place, and begins with row `first_row`."""
    x = np.arange(dq.shape[1], dtype=np.float32)
    for rows in _strips(len(dq)):
        part = dq[rows]
        y = np.arange(rows.start, rows.start + len(part), dtype=np.float32)[:, None] + first_row
        known = ~has(part, DQ.MISSING)
        for line in lines:
            flag(part, (line.distance(y, x) <= max(line.width_px / 2, _LEAST_HALF_WIDTH_PX)) & known, DQ(bit))


def _strips(n_rows: int) -> Iterator[slice]:
    return (slice(top, top + _ROWS) for top in range(0, n_rows, _ROWS))


def _centres(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the bins [px], as y and x that broadcast."""
    rows, columns = (BIN_PX * np.arange(n) + (BIN_PX - 1) / 2 for n in plane.shape)
    return rows[:, None], columns


def _longest(bins: np.ndarray) -> Line | None:
    """The line through most of the bins, by the Hough transform; None where no line can have enough."""
    from skimage.transform import hough_line

    if np.count_nonzero(bins) < _LEAST_BINS:
        return None
    n_angles = int(np.clip(np.pi / 2 * np.hypot(*bins.shape), 180, 1440))
    votes, angles, offsets = hough_line(bins, np.linspace(-np.pi / 2, np.pi / 2, n_angles, endpoint=False))
    row, column = np.unravel_index(np.argmax(votes), votes.shape)
    if votes[row, column] < _LEAST_BINS / 2:
        return None
    angle = float(angles[column])
    middle = (BIN_PX - 1) / 2 * (np.cos(angle) + np.sin(angle))
    return Line(angle, float(offsets[row]) * BIN_PX + middle, 0.0)


def _fitted(line: Line, mean: np.ndarray, bins: np.ndarray) -> Line:
    """Through the bins near it: the main axis of their weighted positions."""
    y, x = _centres(bins)
    for _ in range(3):
        near = bins & (line.distance(y, x) <= _REACH * BIN_PX)
        if np.count_nonzero(near) < 2:
            return line
        rows, columns = np.nonzero(near)
        points = np.stack([x[columns], y[rows, 0]])
        weights = mean[near].astype(float)
        centre = points @ weights / weights.sum()
        covariance = np.cov(points, aweights=weights)
        normal = np.linalg.eigh(covariance)[1][:, 0]
        line = Line(float(np.arctan2(normal[1], normal[0])), float(normal @ centre), 0.0)
    return line


def _along(line: Line, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Bins that a line crosses, one for each step of a bin along it."""
    cosine, sine = np.cos(line.angle_rad), np.sin(line.angle_rad)
    reach = np.hypot(*shape)
    step = np.arange(-reach, reach)
    offset = (line.offset_px - (BIN_PX - 1) / 2 * (cosine + sine)) / BIN_PX
    columns, rows = (np.rint(offset * a + b * step).astype(int) for a, b in ((cosine, -sine), (sine, cosine)))
    inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    return rows[inside], columns[inside]


def _across(line: Line, plane: np.ndarray, rows: np.ndarray, columns: np.ndarray, step: int) -> np.ndarray:
    """Bins of a plane `step` bins beside those of a line."""
    row, column = (
        np.clip(np.rint(place + step * part).astype(int), 0, side - 1)
        for place, part, side in zip(
            (rows, columns), (np.sin(line.angle_rad), np.cos(line.angle_rad)), plane.shape, strict=True
        )
    )
    return plane[row, column]


def _is_trail(line: Line, mean: np.ndarray) -> bool:
    """Whether a line is long enough, and stands out of what is beside it."""
    rows, columns = _along(line, mean.shape)
    if len(rows) < _LEAST_BINS:
        return False
    bound = [np.clip(rows + dy, 0, mean.shape[0] - 1) for dy in (-1, 0, 1)]
    best = np.max([mean[r, np.clip(columns + dx, 0, mean.shape[1] - 1)] for r in bound for dx in (-1, 0, 1)], axis=0)
    supported = np.flatnonzero(best >= _SUPPORT)
    if len(supported) < max(_LEAST_BINS, _LEAST_SHARE * len(rows)):
        return False
    if supported[-1] - supported[0] < _LEAST_EXTENT * len(rows):
        return False
    across = np.array([_across(line, mean, rows, columns, step) for step in range(-_ASIDE, _ASIDE + 1)]) >= _SUPPORT
    on_line = across[_ASIDE - 1 : _ASIDE + 2].any(axis=0)
    if np.count_nonzero(on_line) < _LEAST_STRAIGHT * np.count_nonzero(across.any(axis=0)):
        return False
    distance = line.distance(*_centres(mean)) / BIN_PX
    on, beside = mean[distance <= 1], mean[(distance >= _BESIDE[0]) & (distance <= _BESIDE[1])]
    return on.mean() > _CONTRAST * beside.mean() if beside.size else True


def _is_edge(line: Line, light: np.ndarray) -> bool:
    """Whether the light changes from one side of a line to the other, and is nowhere more than on the brighter side."""
    rows, columns = _along(line, light.shape)
    near, far = _EDGE_BINS
    left, right, left_far, right_far = (
        float(np.median(_across(line, light, rows, columns, step))) for step in (-near, near, -far, far)
    )
    middle = max(float(np.median(_across(line, light, rows, columns, step))) for step in (-1, 0, 1))
    step, slope = abs(right - left), max(abs(left - left_far), abs(right - right_far))
    return step > _EDGE_RATIO * slope and middle - max(left, right) < _EDGE_EXCESS * step


def _with_width(line: Line, mean: np.ndarray, largest: np.ndarray) -> Line:
    """As wide as a band that is as sure everywhere as at its best pixels, and holds what the line holds in all."""
    rows, columns = _along(line, mean.shape)
    shown = mean[rows, columns] >= _SUPPORT
    near = line.distance(*_centres(mean)) <= 2 * _REACH * BIN_PX
    along = near & (mean >= _SUPPORT)
    area_px2 = float(mean[along].sum()) * BIN_PX**2
    # One step of `_along` is one bin of length.
    length_px = max(np.count_nonzero(shown), 1) * BIN_PX
    peak = float(np.median(largest[rows[shown], columns[shown]])) if shown.any() else 1.0
    return Line(line.angle_rad, line.offset_px, float(area_px2 / length_px / max(peak, _SUPPORT)))
