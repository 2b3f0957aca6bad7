"""Which pixels of a frame look like sources."""

import numpy as np

from pipeline.sky.frame_windows import WINDOW_PX, Window
from pipeline.sky.frames.frame import Frame
from pipeline.sky.star_shapes import LIT, REACH, SOURCE_SNR, PointSpread, above_border, peaks, shapes_of, stamps_at
from pipeline.sky.strips import Bits, LazyImage, part_of

_STAMPS_AT_ONCE = 2_000
# A source may be this much narrower than the PSF along its minor axis: noise, and stars between pixels.
_NARROWER = 0.7


def source_pixels(frame: Frame, psf: PointSpread | None) -> LazyImage:
    """Pixels that look like sources, shape (H, W), bool: around peaks that are not sharper than the frame's own PSF.

    Where the frame has too few stars to know its PSF, every peak that lights its neighbours along both axes is a
    source. The mask is in memory, as bits; of the frame, some rows at a time are.
    """
    shape = part_of(frame.sci, frame.exposed).shape
    # Half of what the neighbours of the sharpest star have, one in the centre of its pixel.
    least_lit = LIT if psf is None else min(LIT, float(np.exp(-0.5 / psf.minor_px**2)))
    bits = Bits(frame.shape)
    first_row, columns = frame.exposed[0].start or 0, frame.exposed[1]
    height = shape[0]
    for top in range(0, height, WINDOW_PX):
        # With a margin, so that a source at the edge of a strip is seen, and marked, whole.
        first, last = max(top - 2 * REACH, 0), min(top + WINDOW_PX + 2 * REACH, height)
        window = Window.of(frame, (slice(first, last), slice(None)))
        y, x, lit = peaks(window.snr, SOURCE_SNR)
        y, x = y[lit > least_lit], x[lit > least_lit]
        if psf is not None:
            like_source = _not_sharper(window, y, x, psf)
            y, x = y[like_source], x[like_source]
        marked = np.zeros((last - first, frame.shape[1]), bool)
        _mark(marked[:, columns], y, x, window.snr, psf)
        bits.add(first_row + first, marked)
    return bits.image


def _not_sharper(window: Window, y: np.ndarray, x: np.ndarray, psf: PointSpread) -> np.ndarray:
    """Peaks whose minor axis is not smaller than that of the PSF; those whose shape cannot be measured are faint."""
    parts = []
    for first in range(0, len(y), _STAMPS_AT_ONCE):
        part = slice(first, first + _STAMPS_AT_ONCE)
        minor = shapes_of(above_border(stamps_at(window.snr, y[part], x[part]))).minor_px
        parts.append(~(minor < _NARROWER * psf.minor_px))
    return np.concatenate(parts) if parts else np.zeros(0, bool)


def _mark(mask: np.ndarray, y: np.ndarray, x: np.ndarray, snr: np.ndarray, psf: PointSpread | None) -> None:
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
