"""What a frame looks like, in the numbers that decide whether a network has seen its like: PSF, noise, background.

The same function measures training frames, when tiles are made of them, and frames that a network is applied to. It
looks at a sample of a large frame: of 20,000 x 20,000 pixels a hundredth is read. numpy only, because prediction uses
it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.sky.frame_windows import BOX_PX, Window, sampled_windows
from pipeline.sky.frames.frame import Frame
from pipeline.sky.star_shapes import LIT, SOURCE_SNR, PointSpread, peaks, point_spread
from pipeline.sky.strips import part_of

# Pixels of the background are within so many sigma of it.
_BACKGROUND_SIGMA = 4.0
# Noise this many pixels apart counts as independent.
_FAR_PX = 6
# Fewer pixels do not give a correlation to 0.06, or a pattern to 0.1.
_MIN_PIXELS = 1600
# As many are enough: on a frame with 4,500 tracks, four million give correlations that differ by less than 0.01.
_ENOUGH_PIXELS = 500_000
# Share of the brightest pixels that does not count for the dynamic range.
_BRIGHTEST = 1e-4
# Pixels this far from their background are counted: noise alone makes one in two million.
_FAR_SIGMA = 5.0
# Values this near to the median are looked at for their smallest difference.
_STEP_SIGMA = 3.0
# A row whose median is this far above its background is a line: that of noise is within a tenth of a sigma.
_LIT_LINE_SIGMA = 1.5
_MIN_BOXES, _MIN_ROWS = 4, 30
_TO_SIGMA = 1.4826  # from the median absolute deviation


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
    source_density, hit_density : float, optional
        Peaks above five times the noise per 1,000 pixels: those that light their neighbours, and those that do not.
    dynamic_range : float
        log10 of the brightest pixels over the noise.
    noise_over_err : float, optional
        Noise of the background over its stated uncertainty.
    share_above, share_below : float, optional
        Pixels more than five times the noise above and below their background, per 1,000.
    adu_step : float, optional
        Difference between neighbouring values that occur in the background, in units of its noise.
    gradient : float, optional
        Range of the background across the frame (5th to 95th percentile), in units of its noise.
    row_noise, column_noise : float, optional
        Scatter between the means of neighbouring rows, and columns, over that which the noise of their pixels makes.
    lit_lines : float
        Share of the rows, or of the columns, that are bright over most of a typical window: the lines of a spectrum.
    """

    fwhm_px: float | None
    ellipticity: float | None
    noise_correlation_x: float | None
    noise_correlation_y: float | None
    noise_correlation_diagonal: float | None
    colour_pattern: float | None
    source_density: float | None
    hit_density: float | None
    dynamic_range: float
    noise_over_err: float | None
    share_above: float | None
    share_below: float | None
    adu_step: float | None
    gradient: float | None
    row_noise: float | None
    column_noise: float | None
    lit_lines: float


def measure(frame: Frame) -> FrameStatistics:
    """Describe the exposed part of a frame, from a sample of windows.

    Examples
    --------
    >>> from pipeline.sky.frames import read_frame
    >>> statistics = measure(read_frame("frame.fits"))  # doctest: +SKIP
    >>> statistics.fwhm_px  # doctest: +SKIP
    2.71
    """
    return described(frame)[0]


def described(frame: Frame) -> tuple[FrameStatistics, PointSpread | None]:
    """What `measure` gives, and the shape of the stars; None where too few are seen."""
    parts = sampled_windows(part_of(frame.sci, frame.exposed).shape)
    windows = [Window.of(frame, part) for part in parts]
    psf = point_spread(windows)
    lit = [peaks(window.snr, SOURCE_SNR)[2] > LIT for window in windows]
    along_x, along_y, diagonal = (_correlation(windows, step) for step in ((0, 1), (1, 0), (1, 1)))
    statistics = FrameStatistics(
        fwhm_px=psf and _rounded(psf.fwhm_px),
        ellipticity=psf and _rounded(psf.ellipticity),
        noise_correlation_x=along_x,
        noise_correlation_y=along_y,
        noise_correlation_diagonal=diagonal,
        colour_pattern=_colour_pattern(windows),
        source_density=_per_1000(lit, windows),
        hit_density=_per_1000([~is_lit for is_lit in lit], windows),
        dynamic_range=_dynamic_range(windows),
        noise_over_err=_noise_over_err(frame, parts, windows),
        share_above=_per_1000([window.snr > _FAR_SIGMA for window in windows], windows),
        share_below=_per_1000([window.snr < -_FAR_SIGMA for window in windows], windows),
        adu_step=_step(windows[len(windows) // 2]) if windows else None,
        gradient=_gradient(windows),
        row_noise=_line_noise(windows, np.asarray),
        column_noise=_line_noise(windows, np.transpose),
        lit_lines=max(_lit_lines(windows, turned) for turned in (np.asarray, np.transpose)),
    )
    return statistics, psf


def _per_1000(where: Sequence[np.ndarray], windows: Sequence[Window]) -> float | None:
    n_pixels = sum(np.count_nonzero(window.valid) for window in windows)
    if n_pixels < _MIN_PIXELS:  # one hit in a cut-out of 10 x 10 pixels is no density
        return None
    return _rounded(1000 * sum(np.count_nonzero(part) for part in where) / n_pixels)


def _background(window: Window) -> np.ndarray:
    """Pixels without a source, shape (H, W), bool."""
    return window.valid & (np.abs(window.snr) < _BACKGROUND_SIGMA)


# ---- noise -----------------------------------------------------------------------------------------------------------
def _correlation(windows: Sequence[Window], step: tuple[int, int]) -> float | None:
    """Correlation of the noise of neighbours: from differences of pixels near each other and further apart."""
    windows = windows[:: max(1, sum(window.valid.size for window in windows) // _ENOUGH_PIXELS)]
    near, far = (_variance_of_difference(windows, (step[0] * k, step[1] * k)) for k in (1, _FAR_PX))
    return _rounded(max(1 - near / far, -1.0)) if far > 0 else None


def _variance_of_difference(windows: Sequence[Window], step: tuple[int, int]) -> float:
    parts = []
    for window in windows:
        height, width = window.snr.shape
        one = (slice(step[0], height), slice(step[1], width))
        other = (slice(0, height - step[0]), slice(0, width - step[1]))
        usable = _background(window)
        both = usable[one] & usable[other]
        # Not of what is above the local background, which has steps; the mean of the differences takes a gradient out.
        difference = (window.raw[one] - window.raw[other])[both]
        parts.append(difference - difference.mean() if difference.size else difference)
    difference = np.concatenate(parts)
    if difference.size < _MIN_PIXELS:
        return 0.0
    spread = _TO_SIGMA * np.median(np.abs(difference))
    kept = difference[np.abs(difference) <= 3 * spread]
    return float(kept.var())


def _noise_over_err(frame: Frame, parts: Sequence[tuple[slice, slice]], windows: Sequence[Window]) -> float | None:
    err = part_of(frame.err, frame.exposed)
    stated = np.concatenate([err[part][_background(window)] for part, window in zip(parts, windows, strict=True)])
    typical = float(np.median(stated)) if stated.size else 0.0
    return _rounded(frame.noise / typical) if typical > 0 and np.isfinite(typical) else None


def _line_noise(windows: Sequence[Window], turned: Callable[[np.ndarray], np.ndarray]) -> float | None:
    """Scatter between the means of neighbouring rows of the turned windows, over the expected one."""
    parts = []
    for window in windows:
        usable, snr = turned(_background(window)), turned(window.snr)
        n_pixels = np.count_nonzero(usable, axis=1)
        known = n_pixels > usable.shape[1] // 2
        if np.count_nonzero(known) < _MIN_ROWS:
            continue
        means = np.where(usable, snr, 0).sum(axis=1, dtype=np.float64)[known] / n_pixels[known]
        expected = snr[usable].std() * np.sqrt(1 / n_pixels[known][1:] + 1 / n_pixels[known][:-1])
        parts.append(np.diff(means) / np.maximum(expected, 1e-9))
    if not parts:
        return None
    return _rounded(_TO_SIGMA * float(np.median(np.abs(np.concatenate(parts)))))


def _lit_lines(windows: Sequence[Window], turned: Callable[[np.ndarray], np.ndarray]) -> float:
    """Share of the rows of the turned windows whose median is bright, median over the windows."""
    shares = []
    for window in windows:
        valid, snr = turned(window.valid), turned(window.snr)
        known = valid.mean(axis=1) > 0.5
        if known.any():
            shares.append(np.mean(np.median(snr[known], axis=1) > _LIT_LINE_SIGMA))
    return _rounded(float(np.median(shares))) if shares else 0.0


def _step(window: Window) -> float | None:
    """Smallest difference between the values of a window, in units of the noise; tiny where they are not digital."""
    values = window.raw[window.valid]
    if values.size < _MIN_PIXELS:
        return None
    near = np.unique(values[np.abs(values - np.median(values)) < _STEP_SIGMA])
    return _rounded(float(near[-1] - near[0]) / (near.size - 1)) if near.size > 1 else None


# ---- background and sources ------------------------------------------------------------------------------------------
def _colour_pattern(windows: Sequence[Window]) -> float | None:
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


def _gradient(windows: Sequence[Window]) -> float | None:
    """From the medians of the boxes."""
    medians = []
    for window in windows:
        background = window.raw - window.snr
        for top in range(0, background.shape[0], BOX_PX):
            for left in range(0, background.shape[1], BOX_PX):
                box = (slice(top, top + BOX_PX), slice(left, left + BOX_PX))
                medians.extend(background[box][window.valid[box]][:1].tolist())
    if len(medians) < _MIN_BOXES:
        return None
    low, high = np.quantile(medians, [0.05, 0.95])
    return _rounded(float(high - low))


def _dynamic_range(windows: Sequence[Window]) -> float:
    values = np.concatenate([window.snr[window.valid] for window in windows])
    return _rounded(np.log10(max(float(np.quantile(values, 1 - _BRIGHTEST)), 1.0))) if values.size else 0.0


def _rounded(value: float) -> float:
    """To four digits: more mean nothing, and equal frames give equal text."""
    return float(f"{value:.4g}")
