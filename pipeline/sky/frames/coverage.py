"""Parts of an image that no light fell on, or that are filled up: one number without noise over large parts."""

import numpy as np

# A part is found if it holds a square of this size of one number; noise does not make one, see _by_chance.
_WINDOW = 8
# Distance of the places where such squares are looked for: every part twice as large is found.
_STEP = 8
# Growth of a found part among pixels of the same number, for the steps along edges that are not along an axis.
_GROWTH = 8
_MAX_VALUES = 4
_MORE_THAN_CHANCE = 3.0
# A number far above the sky is a filled-up part only if it covers more than a saturated star.
_PLATEAU_SIGMA, _PLATEAU_SHARE = 5.0, 0.1
# Of an image that is one number nearly everywhere, the rest says nothing: it is no frame, and refused later.
_MAX_SHARE = 0.99


def uncovered(pixels: np.ndarray) -> tuple[np.ndarray | None, list[float]]:
    """Pixels that are no measurements: corners of drizzled images, gaps between chips, outside the field of view.

    A number counts as a fill value where it stands in squares of 8 x 8 pixels without any noise, unless it is so common
    elsewhere that noise would make such squares, or is a plateau far above the sky, which is saturation.

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
    for value in _candidates(pixels):
        same = pixels == value
        corners = _eroded(same)
        if not corners.any() or _by_chance(same, corners):
            continue
        where = _grown(_dilated(corners), same)
        if np.count_nonzero(where) < _PLATEAU_SHARE * where.size and _is_plateau(pixels, same, value):
            continue
        found = where if found is None else found | where
        values.append(value)
    if found is not None and np.count_nonzero(found) > _MAX_SHARE * np.count_nonzero(np.isfinite(pixels)):
        return None, []
    return found, values


def _candidates(pixels: np.ndarray) -> list[float]:
    """The commonest numbers of those that fill a square wherever one looks."""
    height, width = pixels.shape
    if height < _WINDOW or width < _WINDOW:
        return []
    last = _WINDOW - 1
    first = pixels[: height - last : _STEP, : width - last : _STEP]
    alike = np.ones(first.shape, bool)
    for dy, dx in ((0, 1), (1, 0), (last, last), (0, last), (last, 0), (_WINDOW // 2, _WINDOW // 2)):
        alike &= first == pixels[dy : height - last + dy : _STEP, dx : width - last + dx : _STEP]
    values, counts = np.unique(first[alike], return_counts=True)
    return [float(value) for value in values[np.argsort(counts)[::-1][:_MAX_VALUES]]]


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


def _is_plateau(pixels: np.ndarray, same: np.ndarray, value: float) -> bool:
    step = max(1, pixels.size // 1_000_000)
    rest = pixels.ravel()[::step][~same.ravel()[::step]]
    rest = rest[np.isfinite(rest)]
    if rest.size == 0:
        return False
    level = np.median(rest)
    return value > level + _PLATEAU_SIGMA * 1.4826 * np.median(np.abs(rest - level))
