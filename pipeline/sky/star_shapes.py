"""Peaks of a frame, and the shape that its stars have in common.

Stars are told from cosmic rays by their shape: a star is close to an elliptical Gaussian, which a track is not, and all
stars of a frame are alike. Shapes are moments with a Gaussian weight that adapts to the source [1]_; the common shape
is the place in size and ellipticity where most peaks lie together. numpy only, because prediction uses it.

References
----------
.. [1] Bernstein & Jarvis (2002), AJ 123, 583, sect. 3.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pipeline.sky.frame_windows import Window

# Half the side of the cut-out around a peak [px]: FWHM up to 9 px.
REACH = 10
# Peaks: counted as sources, and bright enough for their shape to be that of the PSF, in units of the noise.
SOURCE_SNR, _SHAPE_SNR, _FAINT_SHAPE_SNR = 5.0, 20.0, 8.0
# Least light of the neighbours on the left and right, above and below, relative to the peak: a hot pixel has none, a
# star of FWHM 1.2 px has 0.35.
LIT = 0.15
#: Ellipticity of stars, 1 - minor / major, above which they look like tracks: nothing like a source is painted over.
ELONGATED = 0.3
# Largest residual from an elliptical Gaussian relative to the source, rms: stars have 0.03 to 0.15, tracks 0.2 to 1.
_MAX_RESIDUAL = 0.25
_MAX_SHAPES = 600
# Stars agree within this in ln(size) and in the two components of the ellipticity.
_SAME_SIZE, _SAME_SHAPE = 0.12, 0.15
# Fewer stars, or a smaller share of the bright peaks, do not make a PSF.
_MIN_STARS, _MIN_SHARE = 5, 0.2
_SIGMA_TO_FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))


# ---- peaks -----------------------------------------------------------------------------------------------------------
def peaks(snr: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Local maxima above a threshold: rows, columns, and how much of the peak its neighbours have along either axis."""
    y, x = np.nonzero(snr[1:-1, 1:-1] > threshold)
    y, x = y + 1, x + 1
    peak, largest = snr[y, x], np.ones(len(y), bool)
    for dy, dx in ((a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0)):
        other = snr[y + dy, x + dx]
        largest &= (peak >= other) if (dy, dx) > (0, 0) else (peak > other)
    y, x, peak = y[largest], x[largest], peak[largest]
    along_x, along_y = snr[y, x - 1] + snr[y, x + 1], snr[y - 1, x] + snr[y + 1, x]
    return y, x, np.minimum(along_x, along_y) / peak


def stamps_at(plane: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Cut-outs around places, shape (N, S, S); beyond the edge, 0."""
    reach = np.arange(-REACH, REACH + 1)
    padded = np.pad(plane, REACH)
    return padded[(y + REACH)[:, None, None] + reach[:, None], (x + REACH)[:, None, None] + reach]


class Shapes(NamedTuple):
    """Gaussians that fit sources best, shape (N,) each; NaN where none does.

    Attributes
    ----------
    variance : tuple of ndarray
        xx, yy and xy [px^2].
    centre : ndarray, shape (2, N)
        x and y from the middle of the cut-out [px].
    """

    variance: tuple[np.ndarray, np.ndarray, np.ndarray]
    centre: np.ndarray

    @property
    def sigma_px(self) -> np.ndarray:
        """Geometric mean of the axes."""
        xx, yy, xy = self.variance
        with np.errstate(invalid="ignore"):
            return np.power(xx * yy - xy**2, 0.25)

    @property
    def elongation(self) -> tuple[np.ndarray, np.ndarray]:
        """(xx - yy) / (xx + yy) and 2 xy / (xx + yy): both 0 for a round source."""
        xx, yy, xy = self.variance
        return (xx - yy) / (xx + yy), 2 * xy / (xx + yy)

    @property
    def minor_px(self) -> np.ndarray:
        """Sigma along the minor axis."""
        xx, yy, _ = self.variance
        e1, e2 = self.elongation
        return np.sqrt(np.maximum((xx + yy) / 2 * (1 - np.hypot(e1, e2)), 0))


def above_border(stamps: np.ndarray) -> np.ndarray:
    """Cut-outs less the median of their border."""
    border = np.ones(stamps.shape[1:], bool)
    border[2:-2, 2:-2] = False
    return stamps - np.median(stamps[:, border], axis=1)[:, None, None]


def shapes_of(stamps: np.ndarray) -> Shapes:
    """Shapes of sources in cut-outs, from which the background has been taken."""
    grid = np.arange(-REACH, REACH + 1, dtype=np.float32)
    centre = np.zeros((2, len(stamps)))
    weight_px = np.full(len(stamps), 1.5)
    with np.errstate(all="ignore"):  # what diverges becomes NaN
        for _ in range(8):
            total, x, y, xx, yy, xy = _weighted_moments(stamps, grid, centre, weight_px)
            total = np.where(total > 0, total, np.nan)
            x, y = x / total, y / total
            xx, yy, xy = xx / total - x**2, yy / total - y**2, xy / total - x * y
            variance = _without_weight(xx, yy, xy, weight_px)
            centre = np.clip(np.nan_to_num(centre + 2 * np.stack([x, y])), -1.5, 1.5)
            shapes = Shapes(variance, centre)
            sigma = shapes.sigma_px
            # A weight narrower than the pixel grid resolves would alias.
            weight_px = np.clip(np.where(np.isfinite(sigma), sigma, 1.3 * weight_px), 1.2, REACH / 2.2)
    return shapes


def _weighted_moments(
    stamps: np.ndarray, grid: np.ndarray, centre: np.ndarray, weight_px: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Sums of the stamps times a round Gaussian, and times x, y, x^2, y^2 and x y; shape (N,) each.

    The Gaussian is a product of one along each axis: sums along the rows first take a tenth of the time.
    """
    along_x, along_y = (_powers_under(grid - place[:, None], weight_px) for place in centre)
    sums = along_y.swapaxes(1, 2) @ (stamps @ along_x)  # [power of y, power of x]
    return sums[:, 0, 0], sums[:, 0, 1], sums[:, 1, 0], sums[:, 0, 2], sums[:, 2, 0], sums[:, 1, 1]


def _powers_under(distance: np.ndarray, weight_px: np.ndarray) -> np.ndarray:
    """Powers 0, 1 and 2 of distances (N, S) under a Gaussian, shape (N, S, 3)."""
    weight = np.exp(-(distance**2) / (2 * weight_px**2)[:, None])
    return np.stack([weight, weight * distance, weight * distance**2], axis=2)


def _without_weight(xx: np.ndarray, yy: np.ndarray, xy: np.ndarray, weight_px: np.ndarray) -> tuple[np.ndarray, ...]:
    """Moments of a Gaussian from those of its product with a round one, whose inverse variances add."""
    determinant = xx * yy - xy**2
    a, b, c = yy / determinant - weight_px**-2, xx / determinant - weight_px**-2, -xy / determinant
    inverse = a * b - c**2
    inverse = np.where((inverse > 0) & (a > 0), inverse, np.nan)
    return b / inverse, a / inverse, -c / inverse


def residuals_of(stamps: np.ndarray, shapes: Shapes) -> np.ndarray:
    """What the Gaussian leaves of each source, rms relative to it, less what noise alone would leave; shape (N,).

    Within 3 sigma; the Gaussian is averaged over 3 x 3 points of each pixel.
    """
    grid = np.arange(-REACH, REACH + 1, dtype=np.float32)
    xx, yy, xy = (component[:, None, None] for component in shapes.variance)
    dx, dy = (grid - centre[:, None] for centre in shapes.centre)
    dx, dy = dx[:, None, :], dy[:, :, None]
    # The moments are those of the source as the pixels see it: less the variance of a pixel, its own.
    own_xx, own_yy = np.maximum(xx - 1 / 12, 0.01), np.maximum(yy - 1 / 12, 0.01)
    determinant = np.maximum(own_xx * own_yy - xy**2, 1e-3)
    model = np.zeros_like(stamps)
    for shift_y in (-1 / 3, 0.0, 1 / 3):
        for shift_x in (-1 / 3, 0.0, 1 / 3):
            x, y = dx + shift_x, dy + shift_y
            model += np.exp(-(own_yy * x**2 - 2 * xy * x * y + own_xx * y**2) / (2 * determinant)) / 9
    near = (yy * dx**2 - 2 * xy * dx * dy + xx * dy**2 < 9 * (xx * yy - xy**2)) | (dx**2 + dy**2 < 2.5**2)
    power = (model**2).sum(axis=(1, 2))
    height = (model * stamps).sum(axis=(1, 2)) / power
    left = np.square((stamps - height[:, None, None] * model) * near).sum(axis=(1, 2)) - near.sum(axis=(1, 2))
    return np.sqrt(np.maximum(left, 0) / power) / np.abs(height)


# ---- the point-spread function ---------------------------------------------------------------------------------------
class PointSpread(NamedTuple):
    sigma_px: float
    elongation: tuple[float, float]

    @property
    def fwhm_px(self) -> float:
        return self.sigma_px * _SIGMA_TO_FWHM

    @property
    def ellipticity(self) -> float:
        size = float(np.hypot(*self.elongation))
        return 1 - float(np.sqrt((1 - size) / (1 + size)))

    @property
    def minor_px(self) -> float:
        """Sigma along the minor axis."""
        return self.sigma_px * float(np.sqrt(1 - self.ellipticity))


def point_spread(windows: Sequence[Window]) -> PointSpread | None:
    """The shape that the stars of a frame have in common; fainter ones count where there are too few bright ones."""
    return _common_shape(windows, _SHAPE_SNR) or _common_shape(windows, _FAINT_SHAPE_SNR)


def _common_shape(windows: Sequence[Window], threshold: float) -> PointSpread | None:
    stamps = np.concatenate([_bright_stamps(window, threshold) for window in windows])
    if len(stamps) > _MAX_SHAPES:
        stamps = stamps[np.argsort(-stamps[:, REACH, REACH], kind="stable")[:_MAX_SHAPES]]
    if len(stamps) < _MIN_STARS:
        return None
    stamps = above_border(stamps)
    shapes = shapes_of(stamps)
    with np.errstate(all="ignore"):  # what has no shape is NaN
        residuals = residuals_of(stamps, shapes)
        places = np.stack([np.log(shapes.sigma_px), *shapes.elongation], axis=1)
    places = places[np.isfinite(places).all(axis=1) & (residuals < _MAX_RESIDUAL)]
    if len(places) < _MIN_STARS:
        return None
    scaled = places / [_SAME_SIZE, _SAME_SHAPE, _SAME_SHAPE]
    near = np.square(scaled[:, None] - scaled[None]).sum(axis=2) < 1
    star = near[near.sum(axis=1).argmax()]
    for _ in range(3):
        star = np.square(scaled - np.median(scaled[star], axis=0)).sum(axis=1) < 2
        if not star.any():
            return None
    n_stars = np.count_nonzero(star)
    if n_stars < max(_MIN_STARS, _MIN_SHARE * len(places)):
        return None
    size, e1, e2 = np.median(places[star], axis=0)
    return PointSpread(float(np.exp(size)), (float(e1), float(e2)))


def _bright_stamps(window: Window, threshold: float) -> np.ndarray:
    """Cut-outs of bright peaks that are the brightest within 3 px and have only valid pixels within 5 px."""
    y, x, lit = peaks(window.snr, threshold)
    height, width = window.snr.shape
    inside = (lit > LIT) & (np.minimum(y, x) >= REACH) & (y < height - REACH) & (x < width - REACH)
    y, x = y[inside], x[inside]
    stamps = stamps_at(window.snr, y, x)
    near = slice(REACH - 3, REACH + 4)
    alone = stamps[:, near, near].max(axis=(1, 2), initial=-np.inf) <= stamps[:, REACH, REACH]
    core = slice(REACH - 5, REACH + 6)
    return stamps[alone & stamps_at(window.valid, y, x)[:, core, core].all(axis=(1, 2))]
