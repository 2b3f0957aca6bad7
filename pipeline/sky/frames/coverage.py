"""Parts of an image that no light fell on, or that are filled up: one number without noise over large parts."""

from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.sky.strips import Image, LazyImage, computed, count, sample_of, strips

# A part is found if it holds a square of this size of one number; noise does not make one, see _by_chance.
_WINDOW = 8
# Distance of the places where such squares are looked for: every part twice as large is found.
_STEP = 8
# Growth of a found part among pixels of the same number, for the steps along edges that are not along an axis.
_GROWTH = 8
_MAX_VALUES = 4
_MAX_SQUARES = 20_000
_MORE_THAN_CHANCE = 3.0
# A number above the sky is a fill value only if it covers more than a saturated star, and one in the range of the sky
# if it is not one of many small parts.
_SKY_SIGMA, _PLATEAU_SHARE, _SKY_SHARE = 5.0, 0.1, 0.01
_MAX_SKY_VALUES = 2
# Of an image that is one number nearly everywhere, the rest says nothing: it is no frame, and refused later.
_MAX_SHARE = 0.99


def uncovered(pixels: Image) -> tuple[LazyImage | None, list[float]]:
    """Pixels that are no measurements: corners of drizzled images, gaps between chips, outside the field of view.

    A number counts as a fill value where it stands in squares of 8 x 8 pixels without any noise. Exceptions: it is so
    common that coarsely digitised noise makes such squares; it is a plateau far above the sky, which is saturation; or
    it is one of several in the range of the sky, which lossy compression makes.

    Parameters
    ----------
    pixels : ndarray or LazyImage of float32, shape (H, W)
        NaN is no fill value: it is missing anyway.

    Returns
    -------
    where : LazyImage of bool, shape (H, W), or None
        None for none: most images.
    values : list of float
        The fill values.
    """
    values = []
    for value, least in _candidates(pixels):
        if _by_chance(pixels, value):
            continue
        n_filled = count(_filled(pixels, [value]))
        if n_filled and n_filled >= least * pixels.size:
            values.append(value)
    if not values:
        return None, []
    found = _filled(pixels, values)
    if count(found) > _MAX_SHARE * count(computed(np.isfinite, pixels, dtype=bool)):
        return None, []
    return found, values


def _candidates(pixels: Image) -> list[tuple[float, float]]:
    """The commonest numbers that fill squares, and which share of the image each must cover to be believed."""
    if min(pixels.shape) < _WINDOW:
        return []
    values, counts = np.unique(_of_full_squares(pixels), return_counts=True)
    values = values[np.argsort(counts)[::-1]]
    if not values.size:
        return []
    low, high = _range_of_sky(pixels, values)
    in_sky = (values >= low) & (values <= high)
    if np.count_nonzero(in_sky) > _MAX_SKY_VALUES:
        values = values[~in_sky]
    return [
        (float(value), _PLATEAU_SHARE if value > high else _SKY_SHARE if value >= low else 0.0)
        for value in values[:_MAX_VALUES]
    ]


def _of_full_squares(pixels: Image) -> np.ndarray:
    """The number of each square that is one number throughout, among some of those whose corners are equal."""
    parts = [_squares(pixels[rows]) for rows in _rows_of_squares(pixels)]
    values, full = (np.concatenate(plane) for plane in zip(*parts, strict=True))
    step = max(1, values.size // _MAX_SQUARES)
    return values[::step][full[::step]]


def _rows_of_squares(pixels: Image) -> Iterator[slice]:
    """Strips of whole squares."""
    step = -(-next(strips(pixels)).stop // _WINDOW) * _WINDOW
    last = pixels.shape[0] // _WINDOW * _WINDOW
    return (slice(top, min(top + step, last)) for top in range(0, last, step))


def _squares(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squares of 8 x 8 pixels with equal corners and middle: their number, and whether all of each is that number."""
    n_down, n_across = (length // _WINDOW for length in rows.shape)
    last, squares = _WINDOW - 1, (slice(None, n_down * _WINDOW, _STEP), slice(None, n_across * _WINDOW, _STEP))
    first = rows[squares]
    alike = np.ones(first.shape, bool)
    for dy, dx in ((0, 1), (1, 0), (last, last), (0, last), (last, 0), (_WINDOW // 2, _WINDOW // 2)):
        alike &= first == rows[dy : n_down * _WINDOW : _STEP, dx : n_across * _WINDOW : _STEP]
    y, x = (_STEP * places for places in np.nonzero(alike))
    inside = np.arange(_WINDOW)
    pixels = rows[y[:, None, None] + inside[:, None], x[:, None, None] + inside]
    return pixels[:, 0, 0], (pixels == pixels[:, :1, :1]).all(axis=(1, 2))


def _range_of_sky(pixels: Image, fills: np.ndarray) -> tuple[float, float]:
    sample = sample_of(pixels)
    sample = sample[np.isfinite(sample) & ~np.isin(sample, fills[:_MAX_VALUES])]
    if sample.size == 0:
        return -np.inf, np.inf
    level = np.median(sample)
    width = _SKY_SIGMA * 1.4826 * np.median(np.abs(sample - level))
    return float(level - width), float(level + width)


def _filled(pixels: Image, values: Sequence[float]) -> LazyImage:
    """Parts that are filled with one of these numbers."""

    def filled(pixels: np.ndarray) -> np.ndarray:
        where = np.zeros(pixels.shape, bool)
        if min(pixels.shape) < _WINDOW:
            return where
        for value in values:
            same = pixels == value
            corners = _eroded(same)
            if corners.any():
                where |= _grown(_dilated(corners), same)
        return where

    # A pixel is reached by growth from a square, whose pixels decide whether it is one.
    return computed(filled, pixels, dtype=bool, halo=_GROWTH + _WINDOW - 1)


def _eroded(same: np.ndarray) -> np.ndarray:
    """Upper left corners of squares that are full."""
    height, width = (length - _WINDOW + 1 for length in same.shape)
    rows = np.logical_and.reduce([same[k : k + height] for k in range(_WINDOW)])
    return np.logical_and.reduce([rows[:, k : k + width] for k in range(_WINDOW)])


def _dilated(corners: np.ndarray) -> np.ndarray:
    """All pixels of the squares with these corners."""
    height, width = (length + _WINDOW - 1 for length in corners.shape)
    rows = np.zeros((height, corners.shape[1]), bool)
    for k in range(_WINDOW):
        rows[k : k + corners.shape[0]] |= corners
    where = np.zeros((height, width), bool)
    for k in range(_WINDOW):
        where[:, k : k + corners.shape[1]] |= rows
    return where


def _grown(where: np.ndarray, same: np.ndarray) -> np.ndarray:
    """Into the steps of oblique edges."""
    for _ in range(_GROWTH):
        grown = where.copy()
        grown[1:] |= where[:-1]
        grown[:-1] |= where[1:]
        grown[:, 1:] |= where[:, :-1]
        grown[:, :-1] |= where[:, 1:]
        where = grown & same
    return where


def _by_chance(pixels: Image, value: float) -> bool:
    """Whether pixels of this number, strewn at random, would make as many squares: coarsely digitised sky does.

    Also if there is no square.
    """
    n_same = n_corners = 0
    for rows in strips(pixels):
        same = pixels[rows.start : rows.stop + _WINDOW - 1] == value
        n_same += np.count_nonzero(same[: rows.stop - rows.start])
        if len(same) >= _WINDOW:
            n_corners += np.count_nonzero(_eroded(same))
    n_places = (pixels.shape[0] - _WINDOW + 1) * (pixels.shape[1] - _WINDOW + 1)
    expected = n_same / pixels.size
    return n_corners == 0 or n_corners < _MORE_THAN_CHANCE * n_places * expected ** (_WINDOW**2)
