"""Which pixels of a frame look like sources, and which may belong to one."""

from collections.abc import Callable

import numpy as np

from pipeline.sky.frame_windows import WINDOW_PX, Window
from pipeline.sky.frames.frame import Frame
from pipeline.sky.star_shapes import LIT, REACH, SOURCE_SNR, PointSpread, above_border, peaks, shapes_of, stamps_at
from pipeline.sky.strips import Bits, LazyImage, part_of

_STAMPS_AT_ONCE = 2_000
# A source may be this much narrower than the PSF along its minor axis: noise, and stars between pixels.
_NARROWER = 0.7
# Windows overlap by so many rows: a source at the edge of one is seen, and marked, whole.
_MARGIN_PX = 2 * REACH
# Light over the noise that joins a pixel to a source beside it: with less, a track that crosses a source would be one.
_JOINED_SNR = 300.0
# The same at the edge of the frame and of holes, and where light is smooth.
_CUT_SNR = 3.0
# Light is smooth where the middle one of 5 x 5 pixels is that far above the noise: tracks are narrower.
_SMOOTH_SNR = 2.0
# Pixels so far below the background hide what is beside them.
_HOLE_SNR = -10.0


def source_pixels(frame: Frame, psf: PointSpread | None) -> LazyImage:
    """Pixels that look like sources, shape (H, W), bool: around peaks that are not sharper than the frame's own PSF.

    Where the frame has too few stars to know its PSF, every peak that lights its neighbours along both axes is a
    source. The mask is in memory, as bits; of the frame, some rows at a time are.
    """
    return _marked(frame, psf, joined=False)


def possible_sources(frame: Frame, psf: PointSpread) -> LazyImage:
    """Pixels that may belong to a source, shape (H, W), bool: a larger mask than that of `source_pixels`.

    Also the pixels beside a source; what is joined to one by smooth light, as the ends of a galaxy seen edge-on, or by
    bright light, as the charge that a saturated star bleeds; and what is joined by any light to the edge of the frame
    or of a hole, where nobody sees how it goes on: a star that is cut. What is left is sky, and what is too sharp for
    a source.
    """
    return _marked(frame, psf, joined=True)


def _marked(frame: Frame, psf: PointSpread | None, *, joined: bool) -> LazyImage:
    height = part_of(frame.sci, frame.exposed).shape[0]
    # Half of what the neighbours of the sharpest star have, one in the centre of its pixel.
    least_lit = LIT if psf is None else min(LIT, float(np.exp(-0.5 / psf.minor_px**2)))
    bits = Bits(frame.shape)
    first_row, columns = frame.exposed[0].start or 0, frame.exposed[1]
    for top in range(0, height, WINDOW_PX):
        first, last = max(top - _MARGIN_PX, 0), min(top + WINDOW_PX + _MARGIN_PX, height)
        window = Window.of(frame, (slice(first, last), slice(None)))
        y, x, lit = peaks(window.snr, SOURCE_SNR)
        y, x = y[lit > least_lit], x[lit > least_lit]
        if psf is not None:
            like_source = _not_sharper(window, y, x, psf)
            y, x = y[like_source], x[like_source]
        marked = np.zeros((last - first, frame.shape[1]), bool)
        own = marked[:, columns]
        _mark(own, y, x, window.snr, psf)
        if joined:
            _join(own, window, is_first=first == 0, is_last=last == height)
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


def _join(mask: np.ndarray, window: Window, *, is_first: bool, is_last: bool) -> None:
    """Add to the mask (changed in place) what is beside it, and what light joins to it or to an edge."""
    mask[:] = _beside(mask)
    edge = _beside(~window.valid | (window.snr < _HOLE_SNR))
    edge[:, [0, -1]] = True
    edge[: 1 if is_first else 0] = True
    edge[-1 if is_last else len(edge) :] = True
    _grow(mask, edge, window.snr > _CUT_SNR)
    _grow(mask, _beside(mask), window.snr > _CUT_SNR, lambda y, x: _middle_of_25(window.snr, y, x) > _SMOOTH_SNR)
    begun = _beside(mask)
    begun[[0, -1]] = True  # the frame goes on there, and the source may lie in the next window
    _grow(mask, begun, window.snr > _JOINED_SNR)


def _grow(
    mask: np.ndarray,
    begun: np.ndarray,
    joining: np.ndarray,
    joins: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> None:
    """Add to the mask (changed in place) the regions of `joining` that touch `begun`, as far as `joins` says so.

    It grows from its new pixels alone, so that its steps cost nothing where there is nothing to add.
    """
    joining = joining & ~mask
    y, x = np.nonzero(begun & joining)
    height, width = mask.shape
    while y.size:
        joining[y, x] = False
        if joins is not None:
            chosen = joins(y, x)
            y, x = y[chosen], x[chosen]
        mask[y, x] = True
        near = [
            (np.clip(y + dy, 0, height - 1), np.clip(x + dx, 0, width - 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)
        ]
        y, x = (np.concatenate(parts) for parts in zip(*near, strict=True))
        new = joining[y, x]
        y, x = np.divmod(np.unique(y[new] * width + x[new]), width)


def _middle_of_25(plane: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Median of 5 x 5 pixels around places; the edge is repeated beyond it."""
    reach = np.arange(-2, 3)
    rows = np.clip(y[:, None, None] + reach[:, None], 0, plane.shape[0] - 1)
    columns = np.clip(x[:, None, None] + reach, 0, plane.shape[1] - 1)
    return np.median(plane[rows, columns].reshape(len(y), 25), axis=1)


def _beside(mask: np.ndarray) -> np.ndarray:
    """The mask and its eight neighbours."""
    for axis in (0, 1):
        wider = mask.copy()
        here, there = ((slice(None),) * axis + (part,) for part in (slice(1, None), slice(None, -1)))
        wider[here] |= mask[there]
        wider[there] |= mask[here]
        mask = wider
    return mask
