"""Where frames of one drifting field lie relative to each other, and which of their pixels are always hot.

No frame is ever interpolated: partners for Noise2Noise are found where the drift happens to be near whole pixels, so
that the noise of each stays its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.logs import get_logger
from pipeline.sky.dq import DETECTOR, has
from pipeline.sky.frames import Frame
from pipeline.sky.photometry import detect_stars

log = get_logger(__name__)

_MATCH_RADIUS_PX = 3.0
_MIN_MATCHES = 6
_STARS_PER_FRAME = 400
# Stars, brightest first, and the half-size of their windows, that measure the shape of a frame's PSF.
_SHAPE_STARS = 60
_SHAPE_REACH_PX = 4
# A pixel this many sigma above its neighbours in this share of the frames is taken as hot in all of them.
_HOT_SIGMA = 3.0
_HOT_SHARE = 0.6
# The four pixels next to a hot one have less than this part of its excess (of two hot ones side by side, a quarter);
# next to the peak of a star of 2 px FWHM they have half of it.
_HOT_NEIGHBOURS = 0.4
_FOUR_NEIGHBOURS = np.array([[0, 0.25, 0], [0.25, 0, 0.25], [0, 0.25, 0]])


@dataclass(frozen=True)
class Placement:
    """Similarity transform from a frame's pixels to the reference's: ``p_ref = matrix @ p + offset``, p = (x, y).

    Attributes
    ----------
    matrix : ndarray, shape (2, 2)
        Rotation and scale.
    offset : ndarray, shape (2,)
    flux_scale : float
        Flux of a star in the reference over its flux in this frame.
    flux_scale_err : float
        Its relative uncertainty, from the scatter of the stars.
    shape_px2 : ndarray, shape (3,)
        Median second moments of the stars: xx, yy, xy; seeing and trailing change them from frame to frame.
    rms_px : float
        Scatter of the matched stars.
    n_stars : int
        Matched stars.
    """

    matrix: np.ndarray
    offset: np.ndarray
    flux_scale: float
    shape_px2: np.ndarray
    rms_px: float
    n_stars: int
    flux_scale_err: float = 0.0

    def to_reference(self, points: np.ndarray) -> np.ndarray:
        """Map points, shape (n, 2) as (x, y)."""
        return points @ self.matrix.T + self.offset

    def from_reference(self, points: np.ndarray) -> np.ndarray:
        """Inverse of `to_reference`."""
        return (points - self.offset) @ np.linalg.inv(self.matrix).T


def static_hot_pixels(frames: Sequence[Frame]) -> np.ndarray:
    """Pixels that are hot in the detector's frame, shape (H, W), bool.

    What does not drift with the field belongs to the detector: a pixel is hot where it exceeds the median of its
    neighbours by `_HOT_SIGMA` of the frame's noise in most of the frames. It must also be isolated: where the field
    hardly drifts, stars stay too, but their neighbours share their light.

    Parameters
    ----------
    frames : sequence of Frame
        Of one detector; about ten or more, drifted by more than a star's width.
    """
    from scipy.ndimage import convolve, median_filter

    excess = []
    for frame in frames:
        sci = np.nan_to_num(frame.sci - frame.level)
        excess.append((sci - median_filter(sci, 5)) / np.float32(frame.noise))
    static = np.quantile(excess, 1 - _HOT_SHARE, axis=0, method="lower")
    neighbours = convolve(static, _FOUR_NEIGHBOURS)
    return (static > _HOT_SIGMA) & (neighbours < _HOT_NEIGHBOURS * static)


def star_catalogue(frame: Frame, fwhm_px: float = 3.0) -> dict[str, np.ndarray]:
    """Bright stars of a frame, bad pixels excluded."""
    bad = has(frame.dq, DETECTOR)
    return detect_stars(
        frame.sci, frame.level, frame.noise, fwhm_px, threshold_sigma=15.0, mask=bad, brightest=_STARS_PER_FRAME
    )


def place(frame: Frame, reference: Frame, reference_stars: dict[str, np.ndarray]) -> Placement | None:
    """Find `frame` relative to `reference`: phase correlation first, then a fit to matched stars.

    Returns
    -------
    Placement or None
        None where fewer than `_MIN_MATCHES` stars can be matched (clouds, another field).
    """
    from scipy.spatial import cKDTree

    stars = star_catalogue(frame)
    if min(stars["x"].size, reference_stars["x"].size) < _MIN_MATCHES:
        return None
    points = np.column_stack([stars["x"], stars["y"]])
    targets = np.column_stack([reference_stars["x"], reference_stars["y"]])
    tree = cKDTree(targets)
    matrix, offset = np.eye(2), _coarse_shift(frame, reference)
    keep = partner = np.empty(0, int)
    # Field rotation moves the corners by more than the matching radius only after the centre is found: two rounds.
    for radius in (_MATCH_RADIUS_PX, _MATCH_RADIUS_PX, _MATCH_RADIUS_PX / 2):
        distance, nearest = tree.query(points @ matrix.T + offset, distance_upper_bound=radius)
        keep = np.flatnonzero(np.isfinite(distance))
        if keep.size < _MIN_MATCHES:
            return None
        partner = nearest[keep]
        keep, partner, matrix, offset = _fit_clipped(points, targets, keep, partner)
    residual = points[keep] @ matrix.T + offset - targets[partner]
    ratio = reference_stars["flux"][partner] / stars["flux"][keep]
    flux_scale = float(np.median(ratio))
    # Of a median: 1.2533 times that of a mean; 1.4826 makes a standard deviation of a median deviation.
    scatter = 1.4826 * float(np.median(np.abs(ratio / flux_scale - 1)))
    return Placement(
        matrix=matrix,
        offset=offset,
        flux_scale=flux_scale,
        shape_px2=star_shape(frame, stars),
        rms_px=float(np.sqrt(np.mean(np.sum(residual**2, axis=1)))),
        n_stars=int(keep.size),
        flux_scale_err=1.2533 * scatter / float(np.sqrt(keep.size)),
    )


def identity_placement(frame: Frame, stars: dict[str, np.ndarray]) -> Placement:
    """Of the reference itself, with its star catalogue."""
    return Placement(np.eye(2), np.zeros(2), 1.0, star_shape(frame, stars), 0.0, stars["x"].size)


def star_shape(frame: Frame, stars: dict[str, np.ndarray]) -> np.ndarray:
    """Median second moments (xx, yy, xy) [px^2] of the brightest unsaturated stars, shape (3,)."""
    reach = _SHAPE_REACH_PX
    offset = np.arange(-reach, reach + 1)
    moments = []
    for x, y in zip(stars["x"], stars["y"], strict=True):
        column, row = round(x), round(y)
        window = (slice(row - reach, row + reach + 1), slice(column - reach, column + reach + 1))
        light = frame.sci[window] - frame.level
        if light.shape != (offset.size, offset.size) or frame.dq[window].any():
            continue
        light = np.maximum(light, 0)
        dx, dy = offset[None, :] + column - x, offset[:, None] + row - y
        moments.append([np.sum(light * product) / light.sum() for product in (dx * dx, dy * dy, dx * dy)])
        if len(moments) == _SHAPE_STARS:
            break
    return np.median(moments, axis=0) if moments else np.zeros(3)


def _coarse_shift(frame: Frame, reference: Frame) -> np.ndarray:
    """Offset (x, y) to whole pixels by phase correlation of the stars."""
    from skimage.registration import phase_cross_correlation

    rows_columns = phase_cross_correlation(_star_image(reference), _star_image(frame), normalization=None)[0]
    return np.asarray(rows_columns[::-1], dtype=float)


def _star_image(frame: Frame) -> np.ndarray:
    """The signal above the noise, compressed: neither sky gradients nor one bright star dominate the correlation."""
    signal = np.nan_to_num((frame.sci - frame.level) / frame.noise)
    signal[has(frame.dq, DETECTOR)] = 0
    return np.arcsinh(np.maximum(signal - 4, 0))


def _fit_clipped(
    points: np.ndarray, targets: np.ndarray, keep: np.ndarray, partner: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Similarity fit with 3-sigma clipping of wrong matches."""
    matrix, offset = _similarity(points[keep], targets[partner])
    for _ in range(5):
        residual = np.linalg.norm(points[keep] @ matrix.T + offset - targets[partner], axis=1)
        good = residual <= max(3 * 1.4826 * float(np.median(residual)), 0.05)
        if good.all() or good.sum() < _MIN_MATCHES:
            break
        keep, partner = keep[good], partner[good]
        matrix, offset = _similarity(points[keep], targets[partner])
    return keep, partner, matrix, offset


def _similarity(points: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares rotation, scale and offset: with complex numbers, target = a point + b."""
    z, w = points @ (1, 1j), targets @ (1, 1j)
    centred = z - z.mean()
    a = np.vdot(centred, w - w.mean()) / np.vdot(centred, centred)
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag], [a.imag, a.real]]), np.array([b.real, b.imag])
