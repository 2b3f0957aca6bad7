"""What a frame looks like, in the numbers that decide whether a network has seen its like: PSF, noise, colour pattern.

The same function measures training frames, when tiles are made of them, and frames that a network is applied to. It
looks at a sample of a large frame. numpy only, because prediction uses it.

Stars are told from cosmic rays by their shape: a star is close to an elliptical Gaussian, which a track is not, and all
stars of a frame are alike. Shapes are moments with a Gaussian weight that adapts to the source [1]_; the common shape
is the place in size and ellipticity where most peaks lie together.

References
----------
.. [1] Bernstein & Jarvis (2002), AJ 123, 583, sect. 3.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.sky.dq import LOST, UNTRUSTED, has
from pipeline.sky.frames.frame import Frame
from pipeline.sky.strips import Bits, LazyImage, part_of

# Large frames: at most this many windows on a grid, of this side [px].
_WINDOWS_PER_SIDE, _WINDOW_PX = 5, 400
# The local background is the median of boxes of this side [px].
_BOX_PX = 64
# Half the side of the cut-out around a peak [px]: FWHM up to 9 px.
_REACH = 10
# Peaks: counted as sources, and bright enough for their shape to be that of the PSF, in units of the noise.
_SOURCE_SNR, _SHAPE_SNR, _FAINT_SHAPE_SNR = 5.0, 20.0, 8.0
# Least light of the neighbours on the left and right, above and below, relative to the peak: a hot pixel has none, a
# star of FWHM 1.2 px has 0.35.
_LIT = 0.15
# Largest residual from an elliptical Gaussian relative to the source, rms: stars have 0.03 to 0.15, tracks 0.2 to 1.
_MAX_RESIDUAL = 0.25
_MAX_SHAPES = 600
# Stars agree within this in ln(size) and in the two components of the ellipticity.
_SAME_SIZE, _SAME_SHAPE = 0.12, 0.15
# Fewer stars, or a smaller share of the bright peaks, do not make a PSF.
_MIN_STARS, _MIN_SHARE = 5, 0.2
_SIGMA_TO_FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))
# Pixels of the background are within so many sigma of it.
_BACKGROUND_SIGMA = 4.0
# Noise this many pixels apart counts as independent.
_FAR_PX = 6
# Fewer pixels do not give a correlation to 0.06, or a pattern to 0.1.
_MIN_PIXELS = 1600
# Share of the brightest pixels that does not count for the dynamic range.
_BRIGHTEST = 1e-4


@dataclass(frozen=True)
class FrameStatistics:
    """Numbers that describe a frame; None where they cannot be measured.

    Attributes
    ----------
    fwhm_px : float, optional
        Full width at half maximum of the Gaussian that fits the stars best, the pixel included; geometric mean of the
        two axes.
    ellipticity : float, optional
        1 - minor / major axis of the stars.
    noise_correlation_x, noise_correlation_y, noise_correlation_diagonal : float, optional
        Of the background in neighbouring pixels.
    colour_pattern : float, optional
        Largest difference of the background between the four pixels of a 2 x 2 mosaic, in units of its noise.
    source_density : float
        Sources above five times the noise per 1,000 pixels.
    dynamic_range : float
        log10 of the brightest pixels over the noise.
    """

    fwhm_px: float | None
    ellipticity: float | None
    noise_correlation_x: float | None
    noise_correlation_y: float | None
    noise_correlation_diagonal: float | None
    colour_pattern: float | None
    source_density: float
    dynamic_range: float


def measure(frame: Frame) -> FrameStatistics:
    """Describe the exposed part of a frame, from a sample of windows.

    Examples
    --------
    >>> from pipeline.sky.frames import read_frame
    >>> statistics = measure(read_frame("frame.fits"))  # doctest: +SKIP
    >>> statistics.fwhm_px  # doctest: +SKIP
    2.71
    """
    windows = [_Window.of(frame, part) for part in _sampled(part_of(frame.sci, frame.exposed).shape)]
    psf = _point_spread(windows)
    n_pixels = sum(np.count_nonzero(window.valid) for window in windows)
    n_sources = sum(int(np.count_nonzero(_peaks(window.snr, _SOURCE_SNR)[2] > _LIT)) for window in windows)
    along_x, along_y, diagonal = (_correlation(windows, step) for step in ((0, 1), (1, 0), (1, 1)))
    return FrameStatistics(
        fwhm_px=psf and _rounded(psf.fwhm_px),
        ellipticity=psf and _rounded(psf.ellipticity),
        noise_correlation_x=along_x,
        noise_correlation_y=along_y,
        noise_correlation_diagonal=diagonal,
        colour_pattern=_colour_pattern(windows),
        source_density=_rounded(1000 * n_sources / max(n_pixels, 1)),
        dynamic_range=_dynamic_range(windows),
    )


def source_pixels(frame: Frame) -> LazyImage:
    """Pixels that look like sources, shape (H, W), bool: around peaks that are not sharper than the frame's own PSF.

    The PSF is that of the frame's stars. Where there are too few, every peak that lights its neighbours along both axes
    is a source. The mask is in memory, as bits; of the frame, some rows at a time are.
    """
    shape = part_of(frame.sci, frame.exposed).shape
    psf = _point_spread([_Window.of(frame, part) for part in _sampled(shape)])
    # Half of what the neighbours of the sharpest star have, one in the centre of its pixel.
    least_lit = _LIT if psf is None else min(_LIT, float(np.exp(-0.5 / psf.minor_px**2)))
    bits = Bits(frame.shape)
    first_row, columns = frame.exposed[0].start or 0, frame.exposed[1]
    height = shape[0]
    for top in range(0, height, _WINDOW_PX):
        # With a margin, so that a source at the edge of a strip is seen, and marked, whole.
        first, last = max(top - 2 * _REACH, 0), min(top + _WINDOW_PX + 2 * _REACH, height)
        window = _Window.of(frame, (slice(first, last), slice(None)))
        y, x, lit = _peaks(window.snr, _SOURCE_SNR)
        like_source = lit > least_lit
        if psf is not None:
            like_source &= _not_sharper(window, y, x, psf)
        marked = np.zeros((last - first, frame.shape[1]), bool)
        _mark(marked[:, columns], y[like_source], x[like_source], window.snr, psf)
        bits.add(first_row + first, marked)
    return bits.image


class _Window(NamedTuple):
    """A part of the exposed frame.

    Attributes
    ----------
    snr : ndarray of float32
        Signal above the local background in units of the frame's noise; 0 where not valid.
    valid : ndarray of bool
    raw : ndarray of float32
        Signal above the frame's level in the same unit.
    """

    snr: np.ndarray
    valid: np.ndarray
    raw: np.ndarray

    @classmethod
    def of(cls, frame: Frame, part: tuple[slice, slice]) -> "_Window":
        sci, dq = (part_of(image, frame.exposed)[part] for image in (frame.sci, frame.dq))
        valid = np.isfinite(sci) & ~has(dq, UNTRUSTED | LOST)
        raw = np.where(valid, (sci - np.float32(frame.level)) / np.float32(frame.noise), np.float32(0))
        return cls(np.where(valid, raw - _local_background(raw), np.float32(0)), valid, raw)


def _sampled(shape: tuple[int, int]) -> list[tuple[slice, slice]]:
    """Windows of a frame of that shape: all of it, or a grid of some. Their corners are even: they keep a mosaic."""

    def starts(length: int) -> np.ndarray:
        if length <= _WINDOWS_PER_SIDE * _WINDOW_PX:
            return np.arange(0, length, _WINDOW_PX)
        return np.linspace(0, length - _WINDOW_PX, _WINDOWS_PER_SIDE).astype(int) // 2 * 2

    rows, columns = (starts(length) for length in shape)
    return [(slice(int(y), int(y) + _WINDOW_PX), slice(int(x), int(x) + _WINDOW_PX)) for y in rows for x in columns]


def _local_background(raw: np.ndarray) -> np.ndarray:
    """Median of the box of each pixel."""
    background = np.empty_like(raw)
    for top in range(0, raw.shape[0], _BOX_PX):
        for left in range(0, raw.shape[1], _BOX_PX):
            box = (slice(top, top + _BOX_PX), slice(left, left + _BOX_PX))
            background[box] = np.median(raw[box])
    return background


# ---- peaks -----------------------------------------------------------------------------------------------------------
def _peaks(snr: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


def _stamps(plane: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Cut-outs around places, shape (N, S, S); beyond the edge, 0."""
    reach = np.arange(-_REACH, _REACH + 1)
    padded = np.pad(plane, _REACH)
    return padded[(y + _REACH)[:, None, None] + reach[:, None], (x + _REACH)[:, None, None] + reach]


class _Shapes(NamedTuple):
    """Gaussians that fit sources best, shape (N,) each; NaN where none does.

    Attributes
    ----------
    variance : tuple of ndarray
        xx, yy and xy [px^2].
    residual : ndarray
        rms of what the Gaussian leaves, relative to it, less what noise alone would leave.
    """

    variance: tuple[np.ndarray, np.ndarray, np.ndarray]
    residual: np.ndarray

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


def _shapes(stamps: np.ndarray) -> _Shapes:
    """Shapes of sources in cut-outs, each less the median of its border."""
    border = np.ones(stamps.shape[1:], bool)
    border[2:-2, 2:-2] = False
    stamps = stamps - np.median(stamps[:, border], axis=1)[:, None, None]
    grid = np.arange(-_REACH, _REACH + 1, dtype=np.float32)
    centre = np.zeros((2, len(stamps)))
    weight_px = np.full(len(stamps), 1.5)
    with np.errstate(all="ignore"):  # what diverges becomes NaN
        for _ in range(8):
            dx = grid[None, None, :] - centre[0][:, None, None]
            dy = grid[None, :, None] - centre[1][:, None, None]
            weighted = stamps * np.exp(-(dx**2 + dy**2) / (2 * weight_px**2)[:, None, None])
            total = weighted.sum(axis=(1, 2))
            total = np.where(total > 0, total, np.nan)
            x, y = (weighted * dx).sum(axis=(1, 2)) / total, (weighted * dy).sum(axis=(1, 2)) / total
            xx = (weighted * dx**2).sum(axis=(1, 2)) / total - x**2
            yy = (weighted * dy**2).sum(axis=(1, 2)) / total - y**2
            xy = (weighted * dx * dy).sum(axis=(1, 2)) / total - x * y
            variance = _without_weight(xx, yy, xy, weight_px)
            shapes = _Shapes(variance, np.empty(0))
            centre = np.clip(np.nan_to_num(centre + 2 * np.stack([x, y])), -1.5, 1.5)
            sigma = shapes.sigma_px
            # A weight narrower than the pixel grid resolves would alias.
            weight_px = np.clip(np.where(np.isfinite(sigma), sigma, 1.3 * weight_px), 1.2, _REACH / 2.2)
        return _Shapes(variance, _residual(stamps, variance, centre, grid))


def _without_weight(xx: np.ndarray, yy: np.ndarray, xy: np.ndarray, weight_px: np.ndarray) -> tuple[np.ndarray, ...]:
    """Moments of a Gaussian from those of its product with a round one, whose inverse variances add."""
    determinant = xx * yy - xy**2
    a, b, c = yy / determinant - weight_px**-2, xx / determinant - weight_px**-2, -xy / determinant
    inverse = a * b - c**2
    inverse = np.where((inverse > 0) & (a > 0), inverse, np.nan)
    return b / inverse, a / inverse, -c / inverse


def _residual(stamps: np.ndarray, variance: tuple[np.ndarray, ...], centre: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """What the Gaussian, averaged over 3 x 3 points of each pixel, leaves of the source within 3 sigma."""
    xx, yy, xy = (component[:, None, None] for component in variance)
    dx, dy = grid[None, None, :] - centre[0][:, None, None], grid[None, :, None] - centre[1][:, None, None]
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
class _PointSpread(NamedTuple):
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


def _point_spread(windows: list[_Window]) -> _PointSpread | None:
    """The shape that the stars of a frame have in common; fainter ones count where there are too few bright ones."""
    return _common_shape(windows, _SHAPE_SNR) or _common_shape(windows, _FAINT_SHAPE_SNR)


def _common_shape(windows: list[_Window], threshold: float) -> _PointSpread | None:
    stamps = np.concatenate([_bright_stamps(window, threshold) for window in windows])
    if len(stamps) > _MAX_SHAPES:
        stamps = stamps[np.argsort(-stamps[:, _REACH, _REACH], kind="stable")[:_MAX_SHAPES]]
    if len(stamps) < _MIN_STARS:
        return None
    shapes = _shapes(stamps)
    with np.errstate(invalid="ignore", divide="ignore"):
        places = np.stack([np.log(shapes.sigma_px), *shapes.elongation], axis=1)
    places = places[np.isfinite(places).all(axis=1) & (shapes.residual < _MAX_RESIDUAL)]
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
    return _PointSpread(float(np.exp(size)), (float(e1), float(e2)))


def _bright_stamps(window: _Window, threshold: float) -> np.ndarray:
    """Cut-outs of bright peaks that are the brightest within 3 px and have only valid pixels within 5 px."""
    y, x, lit = _peaks(window.snr, threshold)
    height, width = window.snr.shape
    inside = (lit > _LIT) & (np.minimum(y, x) >= _REACH) & (y < height - _REACH) & (x < width - _REACH)
    y, x = y[inside], x[inside]
    stamps = _stamps(window.snr, y, x)
    near = slice(_REACH - 3, _REACH + 4)
    alone = stamps[:, near, near].max(axis=(1, 2), initial=-np.inf) <= stamps[:, _REACH, _REACH]
    core = slice(_REACH - 5, _REACH + 6)
    return stamps[alone & _stamps(window.valid, y, x)[:, core, core].all(axis=(1, 2))]


# ---- sources -------------------------------------------------------------------------------------------------------
_STAMPS_AT_ONCE = 20_000
# A source may be this much narrower than the PSF along its minor axis: noise, and stars between pixels.
_NARROWER = 0.7


def _not_sharper(window: _Window, y: np.ndarray, x: np.ndarray, psf: _PointSpread) -> np.ndarray:
    """Peaks whose minor axis is not smaller than that of the PSF; those whose shape cannot be measured are faint."""
    parts = []
    for first in range(0, len(y), _STAMPS_AT_ONCE):
        part = slice(first, first + _STAMPS_AT_ONCE)
        minor = _shapes(_stamps(window.snr, y[part], x[part])).minor_px
        parts.append(~(minor < _NARROWER * psf.minor_px))
    return np.concatenate(parts) if parts else np.zeros(0, bool)


def _mark(mask: np.ndarray, y: np.ndarray, x: np.ndarray, snr: np.ndarray, psf: _PointSpread | None) -> None:
    """Mark around each source the disc in which a Gaussian of the PSF is above the noise, and one pixel more."""
    fwhm = psf.fwhm_px if psf is not None else 2.0
    radius = 1 + fwhm * np.sqrt(np.log(np.maximum(snr[y, x], 1)) / (4 * np.log(2)))
    radius = np.minimum(np.ceil(radius), 4 * np.ceil(fwhm)).astype(int)
    height, width = mask.shape
    for size in np.unique(radius):
        here = radius == size
        for dy in range(-size, size + 1):
            reach = int(np.sqrt(size**2 - dy**2))
            for dx in range(-reach, reach + 1):
                mask[np.clip(y[here] + dy, 0, height - 1), np.clip(x[here] + dx, 0, width - 1)] = True


# ---- the background --------------------------------------------------------------------------------------------------
def _correlation(windows: list[_Window], step: tuple[int, int]) -> float | None:
    """Correlation of the noise of neighbours: from differences of pixels near each other and further apart."""
    near, far = (_variance_of_difference(windows, (step[0] * k, step[1] * k)) for k in (1, _FAR_PX))
    return _rounded(max(1 - near / far, -1.0)) if far > 0 else None


def _variance_of_difference(windows: list[_Window], step: tuple[int, int]) -> float:
    parts = []
    for window in windows:
        height, width = window.snr.shape
        one = (slice(step[0], height), slice(step[1], width))
        other = (slice(0, height - step[0]), slice(0, width - step[1]))
        usable = window.valid & (np.abs(window.snr) < _BACKGROUND_SIGMA)
        both = usable[one] & usable[other]
        # Not of what is above the local background, which has steps; the mean of the differences takes a gradient out.
        difference = (window.raw[one] - window.raw[other])[both]
        parts.append(difference - difference.mean() if difference.size else difference)
    difference = np.concatenate(parts)
    if difference.size < _MIN_PIXELS:
        return 0.0
    spread = 1.4826 * np.median(np.abs(difference))
    kept = difference[np.abs(difference) <= 3 * spread]
    return float(kept.var())


def _colour_pattern(windows: list[_Window]) -> float | None:
    """Largest difference of the mean background between the pixels of a 2 x 2 mosaic, in units of the noise."""
    means = []
    for row in (0, 1):
        for column in (0, 1):
            phase = (slice(row, None, 2), slice(column, None, 2))
            values = np.concatenate([window.snr[phase][window.valid[phase]] for window in windows])
            if values.size < _MIN_PIXELS / 4:
                return None
            kept = values[np.abs(values - np.median(values)) < _BACKGROUND_SIGMA]
            means.append(float(kept.mean()))
    return _rounded(max(means) - min(means))


def _dynamic_range(windows: list[_Window]) -> float:
    values = np.concatenate([window.snr[window.valid] for window in windows])
    return _rounded(np.log10(max(float(np.quantile(values, 1 - _BRIGHTEST)), 1.0))) if values.size else 0.0


def _rounded(value: float) -> float:
    """To four digits: more mean nothing, and equal frames give equal text."""
    return float(f"{value:.4g}")
