"""Level and noise of a frame's background, in plain numpy, because prediction uses it.

`robust_background` is SExtractor's mesh [1]_; `box_noise` measures the noise of single pixels, to check what a header
or an uncertainty plane says.

References
----------
.. [1] Bertin & Arnouts (1996), A&AS 117, 393, sect. 3.
"""

import math
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from pipeline.sky.strips import Image, computed, count, distinct

_CLIP_SIGMA = 3.0
_CLIP_ITERATIONS = 10
# Of running sums in float64, as good as nothing is left of what is smaller by this than what was clipped.
_LOST_DIGITS = 1e-9
# A box is used if at least a tenth of it is valid, so that frames with wide gaps or many bad columns work too.
_MIN_VALID = 0.1
# Used boxes that a box without enough pixels is filled from.
_NEIGHBOURS = 10


def robust_background(image: Image, mask: Image | None = None, box_px: int = 64) -> tuple[float, float]:
    """Median level and rms of the sky.

    The frame is cut into boxes, each is sigma-clipped, the mesh of boxes is median-filtered (3 x 3), and its medians
    are taken: a gradient of the sky does not count as noise, and boxes full of stars do not pull the level. It is what
    photutils' Background2D does.

    Parameters
    ----------
    image : ndarray or LazyImage, shape (H, W)
        NaN is ignored.
    mask : ndarray or LazyImage of bool, shape (H, W), optional
        True excludes a pixel.
    box_px : int
        Side of a box; smaller where the frame is. Boxes at the upper edges are cut by them.

    Returns
    -------
    level, noise : float
        In the unit of `image`; NaN where no pixel is valid.
    """
    background = Background(image.shape, box_px)
    for top in range(0, image.shape[0], background.box_height):
        rows = slice(top, top + background.box_height)
        background.add(image[rows], None if mask is None else mask[rows])
    return background.result()


class Background:
    """The same for an image that comes in strips, from its first row on."""

    def __init__(self, shape: tuple[int, int], box_px: int = 64) -> None:
        self.box_height, self._width = (min(box_px, side) for side in shape)
        self._n_rows, self._n_columns = shape
        self._least = _MIN_VALID * self.box_height * self._width
        self._waiting: np.ndarray | None = None
        self._measured: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, rows: np.ndarray, mask: np.ndarray | None = None) -> None:
        """The next rows, shape (n_rows, W), and which of their pixels are excluded."""
        valid = np.isfinite(rows)
        if mask is not None:
            valid &= ~mask
        self._n_rows -= len(rows)
        waiting = np.where(valid, rows, _nan_like(rows))
        if self._waiting is not None:
            waiting = np.concatenate([self._waiting, waiting])
        while len(waiting) >= self.box_height or (len(waiting) and self._n_rows == 0):
            self._measured.append(_clipped(self._boxes(waiting[: self.box_height])))
            waiting = waiting[self.box_height :]
        self._waiting = waiting.copy() if len(waiting) else None

    def _boxes(self, rows: np.ndarray) -> np.ndarray:
        """The pixels of a row of boxes, shape (n_boxes, box^2); NaN where excluded or beyond the edge."""
        n_boxes = -(-self._n_columns // self._width)
        strip = np.full((self.box_height, n_boxes * self._width), np.nan, rows.dtype)
        strip[: rows.shape[0], : rows.shape[1]] = rows
        return strip.reshape(self.box_height, n_boxes, self._width).swapaxes(0, 1).reshape(n_boxes, -1)

    def result(self) -> tuple[float, float]:
        """Level and noise, once all rows have been added."""
        level, noise, n_valid = (np.stack(plane) for plane in zip(*self._measured, strict=True))
        enough = n_valid >= self._least
        if not enough.any():
            enough = n_valid > 0
        if not enough.any():
            return float("nan"), float("nan")
        return _median_of_mesh(level, enough), _median_of_mesh(noise, enough)


def _nan_like(pixels: np.ndarray) -> np.floating:
    """NaN in the precision of the pixels: float32 is sorted in half of the time."""
    return np.float32(np.nan) if pixels.dtype == np.float32 else np.float64(np.nan)


def _clipped(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Median and standard deviation of each row after iterated clipping, and its number of values; NaN without any."""
    ordered = np.sort(boxes, axis=1).astype(
        np.float64, copy=False
    )  # NaN last: what clipping keeps is a run of each row
    n_valid = ordered.shape[1] - np.count_nonzero(np.isnan(ordered), axis=1)
    level, noise = np.full((2, len(boxes)), np.nan)
    for box in np.flatnonzero(n_valid):
        kept = _clipped_run(ordered[box, : n_valid[box]])
        level[box], noise[box] = _median_of_sorted(kept), kept.std()
    return level, noise, n_valid


def _clipped_run(kept: np.ndarray) -> np.ndarray:
    """What iterated clipping keeps of values in order; the deviations come from running sums."""
    sums, squares = _running_sums(kept)
    low, high = 0, kept.size
    for _ in range(_CLIP_ITERATIONS):
        n = high - low
        mean = (sums[high] - sums[low]) / n
        reach = _CLIP_SIGMA * math.sqrt(max((squares[high] - squares[low]) / n - mean * mean, 0.0))
        middle = 0.5 * (kept[low + (n - 1) // 2] + kept[low + n // 2])
        run = kept[low:high]
        first, last = run.searchsorted(middle - reach), run.searchsorted(middle + reach, side="right")
        if last - first == n:
            break
        low, high = low + first, low + last
        if squares[high] - squares[low] < _LOST_DIGITS * squares[-1]:  # beside a row of -1e9, those of the sky are lost
            kept, low, high = kept[low:high], 0, high - low
            sums, squares = _running_sums(kept)
    return kept[low:high]


def _running_sums(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the offsets from the median of values in order, and of their squares."""
    offsets = values - _median_of_sorted(values)
    sums, squares = (np.concatenate([[0.0], np.cumsum(values)]) for values in (offsets, offsets * offsets))
    return sums, squares


def _median_of_sorted(values: np.ndarray) -> float:
    return 0.5 * (values[(values.size - 1) // 2] + values[values.size // 2])


def _median_of_mesh(mesh: np.ndarray, enough: np.ndarray) -> float:
    """Median of the mesh after a median filter over 3 x 3 boxes."""
    padded = np.pad(_filled(mesh, enough), 1, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).reshape(mesh.size, -1)
    return float(np.median(np.nanmedian(windows, axis=1)))


def _filled(mesh: np.ndarray, enough: np.ndarray) -> np.ndarray:
    """Boxes without enough pixels take the mean of the nearest used ones, weighted by 1 / distance.

    Without them the median would shift: where a gap covers one side of a frame, to the sky of the other side.
    """
    filled = mesh.copy()
    rows, columns = np.nonzero(enough)
    for row, column in zip(*np.nonzero(~enough), strict=True):
        distance = np.hypot(rows - row, columns - column)
        nearest = np.argsort(distance, kind="stable")[:_NEIGHBOURS]
        weight = 1 / distance[nearest]
        filled[row, column] = weight @ mesh[rows[nearest], columns[nearest]] / weight.sum()
    return filled


# ---- noise of single pixels ------------------------------------------------------------------------------------------
# Boxes looked at, spread over the frame; a quarter of a million pixels would already give the noise to 1 %.
_MAX_BOXES = 400
_MIN_DIFFERENCES = 50
_FAINT_SHARE, _MIN_FAINT = 0.1, 100
# Share of the pixels that lies on either side of the commonest value of a coarsely quantised frame.
_MIN_BESIDE = 1e-4
_BLOCK_PX = 8


@dataclass(frozen=True)
class BoxNoise:
    """Level and noise of boxes all over a frame, measured in three ways; arrays of shape (n_boxes,).

    Attributes
    ----------
    boxes : list of (slice, slice)
        Where they are.
    level : ndarray
        Median.
    pixel : ndarray
        From differences of near pixels: the noise of single pixels without stars, gradients and colour patterns, but
        too small where the noise of neighbours is correlated.
    spread : ndarray
        Rms after clipping: with all structure within the box.
    coarse : ndarray
        Rms of means of 8 x 8 pixels, times 8: equal to `pixel` for white noise, larger for correlated noise (resampled
        frames), whose single pixels scatter less than their uncertainty says. At least `spread`.
    whole_numbers : bool
        Whether all values are whole numbers.
    """

    boxes: list[tuple[slice, slice]]
    level: np.ndarray
    pixel: np.ndarray
    spread: np.ndarray
    coarse: np.ndarray
    whole_numbers: bool

    def __len__(self) -> int:
        return len(self.boxes)

    def scaled(self, zero: float, factor: float) -> "BoxNoise":
        """Of ``(image - zero) * factor``."""
        return replace(
            self,
            level=(self.level - zero) * factor,
            pixel=self.pixel * factor,
            spread=self.spread * factor,
            coarse=self.coarse * factor,
        )

    def medians_of(self, plane: Image) -> np.ndarray:
        """Median of another plane of the frame in each box."""
        return np.array([np.nanmedian(plane[box]) for box in self.boxes])


def box_noise(image: Image, mask: Image | None = None, box_px: int = 64) -> BoxNoise:
    """Noise of single pixels, in up to 400 boxes.

    Parameters
    ----------
    image : ndarray or LazyImage, shape (H, W)
        NaN is ignored.
    mask : ndarray or LazyImage of bool, shape (H, W), optional
        True excludes a pixel.
    box_px : int
        Side of a box; smaller where the frame is.

    Returns
    -------
    BoxNoise
        Boxes with too few valid pixels, or with one value only, are left out.
    """
    height, width = (min(box_px, side) for side in image.shape)
    corners = [
        (top, left)
        for top in range(0, image.shape[0] - height + 1, height)
        for left in range(0, image.shape[1] - width + 1, width)
    ]
    chosen = np.unique(np.linspace(0, len(corners) - 1, min(len(corners), _MAX_BOXES)).round().astype(int))
    boxes, measured, whole = [], [], True
    for top, left in (corners[number] for number in chosen):
        box = (slice(top, top + height), slice(left, left + width))
        pixels = image[box].astype(np.float64)
        if mask is not None:
            pixels[mask[box]] = np.nan
        values = _noise_of_box(pixels)
        if values is not None:
            boxes.append(box)
            measured.append(values)
            whole = whole and not np.nanmax(np.abs(pixels - np.rint(pixels)))
    columns = np.array(measured).reshape(-1, 4).T
    return BoxNoise(boxes, *columns, whole_numbers=whole)


def _noise_of_box(pixels: np.ndarray) -> tuple[float, float, float, float] | None:
    """Level, pixel, spread and coarse; None where they cannot be measured."""
    (level,), (spread,), _ = _clipped(pixels.reshape(1, -1))
    if not spread > 0:
        return None
    # Lag 2: pixels of one colour of a Bayer mosaic.
    by_lag = [noise for plane in (pixels, pixels.T) for lag in (1, 2) if (noise := _near_noise(plane, lag)) is not None]
    if not by_lag:
        return None
    with np.errstate(invalid="ignore"):
        sky = np.where(np.abs(pixels - level) < _CLIP_SIGMA * spread, pixels, np.nan)
    return level, min(by_lag), spread, max(spread, _coarse_noise(sky))


def _near_noise(plane: np.ndarray, lag: int) -> float | None:
    """Noise from a pixel minus the mean of two near ones, between the stars: where that mean is among the lowest tenth.

    In a field with a star on every 20 pixels, it is that of the sky to 15 %.
    """
    near = 0.5 * (plane[: -2 * lag] + plane[2 * lag :])
    difference = plane[lag:-lag] - near
    known = np.isfinite(difference)
    if np.count_nonzero(known) < _MIN_DIFFERENCES:
        return None
    share = min(max(_FAINT_SHARE, _MIN_FAINT / np.count_nonzero(known)), 0.5)
    faint = known & (near <= _quantile(near[known], share))
    # Variance of the lowest values of a normal distribution; the mean of two has half that of a pixel.
    limit = NormalDist().inv_cdf(share)
    ratio = NormalDist().pdf(limit) / share
    return _robust_rms(difference[faint]) / np.sqrt(1 + 0.5 * (1 - limit * ratio - ratio**2))


def _second_difference(plane: np.ndarray) -> np.ndarray:
    """A row minus the mean of those before and after it: free of gradients, with 1.5 times the variance."""
    return plane[1:-1] - 0.5 * (plane[:-2] + plane[2:])


def _coarse_noise(sky: np.ndarray) -> float:
    """Noise of block means, in terms of one pixel; 0 where a box holds too few blocks."""
    rows, columns = (side // _BLOCK_PX for side in sky.shape)
    if min(rows, columns) < 4:
        return 0.0
    blocks = sky[: rows * _BLOCK_PX, : columns * _BLOCK_PX].reshape(rows, _BLOCK_PX, columns, _BLOCK_PX)
    count = np.isfinite(blocks).sum(axis=(1, 3))
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(count > _BLOCK_PX**2 / 2, np.nansum(blocks, axis=(1, 3)) / count, np.nan)
    spreads = [_robust_rms(_second_difference(plane)) for plane in (means, means.T)]
    return float(np.nan_to_num(min(spreads))) * _BLOCK_PX / np.sqrt(1.5)


def _quantile(values: np.ndarray, share: float) -> float:
    """As `numpy.quantile`, which checks for longer than it computes."""
    place = (values.size - 1) * share
    below = int(place)
    low, high = np.partition(values, (below, below + 1))[below : below + 2]
    weight = place - below
    return high - (high - low) * (1 - weight) if weight >= 0.5 else low + (high - low) * weight


def _robust_rms(values: np.ndarray) -> float:
    """Rms about the median, after clipping that begins with the median absolute deviation; NaN without values."""
    values = values[np.isfinite(values)]
    if not values.size:
        return float("nan")
    distance = np.abs(values - _median_of_sorted(np.sort(values)))
    # Most pixels of a coarsely quantised frame have one value: their median deviation is 0.
    width = 1.4826 * float(_median_of_sorted(np.sort(distance))) or _rms(distance)
    for _ in range(3):
        width = _rms(distance[distance <= _CLIP_SIGMA * width])
    return width


def _rms(values: np.ndarray) -> float:
    return math.sqrt(np.add.reduce(values * values) / values.size)


def quantised_noise(image: Image, level: float) -> float:
    """Noise of a frame most of whose pixels have the value `level`: of an image, not of a mask.

    Digital steps wider than the noise leave few pixels beside the commonest value, but some on both sides of it. A mask
    or a map of weights has values on one side.

    Returns
    -------
    float
        Rms of the pixels within three steps, at least that of the rounding (step / sqrt(12)); 0 for anything else.
    """
    n_valid = count(computed(np.isfinite, image, dtype=bool))
    values, counts = distinct(image, lambda strip: strip[np.isfinite(strip)])
    above, below = values > level, values < level
    if min(counts[above].sum(), counts[below].sum()) < _MIN_BESIDE * n_valid:
        return 0.0
    step = float(min(values[above].min() - level, level - values[below].max()))
    distance = values.astype(np.float64) - level
    near = np.abs(distance) <= 3 * step
    variance = float(counts[near] @ distance[near] ** 2) / counts[near].sum()
    return max(float(np.sqrt(variance)), step / np.sqrt(12))
