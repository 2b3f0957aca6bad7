"""Level and noise of a frame's background: SExtractor's mesh [1]_, in plain numpy, because prediction uses it.

References
----------
.. [1] Bertin & Arnouts (1996), A&AS 117, 393, sect. 3.
"""

from collections.abc import Iterator

import numpy as np

_CLIP_SIGMA = 3.0
_CLIP_ITERATIONS = 10
# A box is used if at least a tenth of it is valid, so that frames with wide gaps or many bad columns work too.
_MIN_VALID = 0.1
# Used boxes that a box without enough pixels is filled from.
_NEIGHBOURS = 10


def robust_background(image: np.ndarray, mask: np.ndarray | None = None, box_px: int = 64) -> tuple[float, float]:
    """Median level and rms of the sky.

    The frame is cut into boxes, each is sigma-clipped, the mesh of boxes is median-filtered (3 x 3), and its medians
    are taken: a gradient of the sky does not count as noise, and boxes full of stars do not pull the level. It is what
    photutils' Background2D does.

    Parameters
    ----------
    image : ndarray, shape (H, W)
        NaN is ignored.
    mask : ndarray of bool, shape (H, W), optional
        True excludes a pixel.
    box_px : int
        Side of a box; smaller where the frame is. Boxes at the upper edges are cut by them.

    Returns
    -------
    level, noise : float
        In the unit of `image`; NaN where no pixel is valid.
    """
    rows = [_clipped(boxes) for boxes in _rows_of_boxes(image, mask, box_px)]
    level, noise, n_valid = (np.stack(plane) for plane in zip(*rows, strict=True))
    enough = n_valid >= _MIN_VALID * min(box_px, image.shape[0]) * min(box_px, image.shape[1])
    if not enough.any():
        enough = n_valid > 0
    if not enough.any():
        return float("nan"), float("nan")
    return _median_of_mesh(level, enough), _median_of_mesh(noise, enough)


def _rows_of_boxes(image: np.ndarray, mask: np.ndarray | None, box_px: int) -> Iterator[np.ndarray]:
    """The pixels of each row of boxes, float64, shape (n_boxes, box^2); NaN where excluded or beyond the edge."""
    height, width = (min(box_px, side) for side in image.shape)
    n_columns = -(-image.shape[1] // width)
    for top in range(0, image.shape[0], height):
        part = slice(top, top + height)
        strip = np.full((height, n_columns * width), np.nan)
        valid = np.isfinite(image[part])
        if mask is not None:
            valid &= ~mask[part]
        strip[: valid.shape[0], : valid.shape[1]] = np.where(valid, image[part], np.nan)
        yield strip.reshape(height, n_columns, width).swapaxes(0, 1).reshape(n_columns, -1)


def _clipped(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Median and standard deviation of each row after iterated clipping, and its number of values; NaN without any."""
    ordered = np.sort(boxes, axis=1)  # NaN last: what clipping keeps is a run of each row
    n_valid = np.count_nonzero(np.isfinite(ordered), axis=1)
    level, noise = np.full((2, len(boxes)), np.nan)
    for box in np.flatnonzero(n_valid):
        kept = ordered[box, : n_valid[box]]
        for _ in range(_CLIP_ITERATIONS):
            middle, reach = _median_of_sorted(kept), _CLIP_SIGMA * kept.std()
            inside = kept[np.searchsorted(kept, middle - reach) : np.searchsorted(kept, middle + reach, side="right")]
            if inside.size == kept.size:
                break
            kept = inside
        level[box], noise[box] = _median_of_sorted(kept), kept.std()
    return level, noise, n_valid


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
