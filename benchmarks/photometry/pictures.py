"""Before, after and mask of a frame, whole and around the place where most is lost."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from photometry.methods import Method
from pipeline.sky.frames import Frame

_ZOOM_PX = 96
_MOST_PX = 900  # of a whole frame: larger ones are thinned out


def draw(
    out: Path, title: str, frame: Frame, after: Method, stars: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
) -> Path:
    """Two rows of before, after, and the mask in red on the frame before; stars are circled, flagged ones in red.

    Parameters
    ----------
    stars : (x, y, flux kept), optional
        Measured stars; the second row shows the surroundings of the one that lost most.
    """
    x, y, kept = stars if stars is not None else (np.empty(0), np.empty(0), np.empty(0))
    part = _around(frame, after, x, y, kept)
    figure = Figure(figsize=(13, 9), layout="constrained", dpi=90)
    axes = figure.subplots(2, 3)
    whole = slice(None), slice(None)
    step = max(1, -(-max(frame.shape) // _MOST_PX))
    for line, (rows, columns), thin, size in zip(axes, (whole, part), (step, 1), (4, 10), strict=True):
        before = frame.sci[rows, columns]
        low, norm = _scale(before)
        mask = after.mask[rows, columns]
        if thin > 1:  # a mask of single pixels must not vanish
            height, width = (side - side % thin for side in mask.shape)
            mask = mask[:height, :width].reshape(height // thin, thin, width // thin, thin).any(axis=(1, 3))
            before = before[:height:thin, :width:thin]
        shown = before, after.sci[rows, columns][: before.shape[0] * thin : thin, : before.shape[1] * thin : thin]
        for place, image in zip(line, (*shown, before), strict=False):
            place.imshow(np.nan_to_num(image, nan=low), cmap="gray", norm=norm, origin="lower")
            place.set(xticks=[], yticks=[])
        line[2].imshow(np.where(mask, 1.0, np.nan), cmap="autumn", vmin=0, vmax=2, origin="lower", interpolation="none")
        _circles(line[:2], (x - (columns.start or 0)) / thin, (y - (rows.start or 0)) / thin, kept, before.shape, size)
    for place, text in zip(axes[0], ("before", "after", "mask"), strict=True):
        place.set_title(text)
    rows, columns = part
    axes[1, 0].set_xlabel(f"rows from {rows.start}, columns from {columns.start}")
    figure.suptitle(title)
    figure.savefig(out)
    return out


def _scale(image: np.ndarray):
    from astropy.visualization import AsinhStretch, ImageNormalize, ZScaleInterval

    finite = image[np.isfinite(image)]
    low, high = ZScaleInterval().get_limits(finite) if finite.size > 100 else (finite.min(), finite.max())
    high = low + 4 * (high - low)
    return low, ImageNormalize(vmin=low, vmax=max(high, low + 1e-6), stretch=AsinhStretch(0.2), clip=True)


def _around(frame: Frame, after: Method, x: np.ndarray, y: np.ndarray, kept: np.ndarray) -> tuple[slice, slice]:
    """A window around the star that lost most, else where the mask is densest."""
    if kept.size:
        worst = int(np.argmin(kept))
        centre = y[worst], x[worst]
    else:
        from scipy.ndimage import uniform_filter

        density = uniform_filter(after.mask.astype(np.float32), min(_ZOOM_PX, *frame.shape))
        centre = np.unravel_index(int(density.argmax()), density.shape)
    starts = [int(np.clip(c - _ZOOM_PX / 2, 0, max(s - _ZOOM_PX, 0))) for c, s in zip(centre, frame.shape, strict=True)]
    return slice(starts[0], starts[0] + _ZOOM_PX), slice(starts[1], starts[1] + _ZOOM_PX)


def _circles(places, x: np.ndarray, y: np.ndarray, kept: np.ndarray, shape: tuple[int, int], size: int) -> None:
    inside = (x >= 0) & (x < shape[1]) & (y >= 0) & (y < shape[0])
    for column, row, share in zip(x[inside], y[inside], kept[inside], strict=True):
        color = "red" if share < 0.95 else "deepskyblue"
        for place in places:
            place.plot(column, row, "o", mfc="none", mec=color, ms=size, mew=0.7)
