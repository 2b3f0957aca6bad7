"""Parts of an image that no light fell on, or that are filled up: one number without noise over large parts."""

import numpy as np

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


def uncovered(pixels: np.ndarray) -> tuple[np.ndarray | None, list[float]]:
    """Pixels that are no measurements: corners of drizzled images, gaps between chips, outside the field of view.

    A number counts as a fill value where it stands in squares of 8 x 8 pixels without any noise. Exceptions: it is so
    common that coarsely digitised noise makes such squares; it is a plateau far above the sky, which is saturation; or
    it is one of several in the range of the sky, which lossy compression makes.

    Parameters
    ----------
    pixels : ndarray of float32, shape (H, W)
        NaN is no fill value: it is missing anyway.

    Returns
    -------
    where : ndarray of bool, shape (H, W), or None
        None for none: most images.
    values : list of float
        The fill values.
    """
    found: np.ndarray | None = None
    values = []
    for value, least in _candidates(pixels):
        same = pixels == value
        corners = _eroded(same)
        if not corners.any() or _by_chance(same, corners):
            continue
        where = _grown(_dilated(corners), same)
        if np.count_nonzero(where) >= least * where.size:
            found = where if found is None else found | where
            values.append(value)
    if found is not None and np.count_nonzero(found) > _MAX_SHARE * np.count_nonzero(np.isfinite(pixels)):
        return None, []
    return found, values


def _candidates(pixels: np.ndarray) -> list[tuple[float, float]]:
    """The commonest numbers that fill squares, and which share of the image each must cover to be believed."""
    height, width = pixels.shape
    if height < _WINDOW or width < _WINDOW:
        return []
    last = _WINDOW - 1
    first = pixels[: height - last : _STEP, : width - last : _STEP]
    alike = np.ones(first.shape, bool)
    for dy, dx in ((0, 1), (1, 0), (last, last), (0, last), (last, 0), (_WINDOW // 2, _WINDOW // 2)):
        alike &= first == pixels[dy : height - last + dy : _STEP, dx : width - last + dx : _STEP]
    values, counts = np.unique(pixels[_full_squares(pixels, alike)], return_counts=True)
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


def _full_squares(pixels: np.ndarray, alike: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the squares, among those with equal corners, that are one number throughout."""
    rows, columns = (_STEP * places for places in np.nonzero(alike))
    step = max(1, rows.size // _MAX_SQUARES)
    rows, columns = rows[::step], columns[::step]
    inside = np.arange(_WINDOW)
    squares = pixels[rows[:, None, None] + inside[:, None], columns[:, None, None] + inside]
    full = (squares == squares[:, :1, :1]).all(axis=(1, 2))
    return rows[full], columns[full]


def _range_of_sky(pixels: np.ndarray, fills: np.ndarray) -> tuple[float, float]:
    sample = pixels.ravel()[:: max(1, pixels.size // 1_000_000)]
    sample = sample[np.isfinite(sample) & ~np.isin(sample, fills[:_MAX_VALUES])]
    if sample.size == 0:
        return -np.inf, np.inf
    level = np.median(sample)
    width = _SKY_SIGMA * 1.4826 * np.median(np.abs(sample - level))
    return float(level - width), float(level + width)


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


def _by_chance(same: np.ndarray, corners: np.ndarray) -> bool:
    """Whether pixels of this number, strewn at random, would make as many squares: coarsely digitised sky does."""
    expected = np.count_nonzero(same) / same.size
    return np.count_nonzero(corners) < _MORE_THAN_CHANCE * corners.size * expected ** (_WINDOW**2)
