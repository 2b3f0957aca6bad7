"""What is taken from a pixel is given to those beside it: light that is spread over more of them keeps its sum.

The further it is given, the less noise stays, for noise that reaches further than a mean does is not lowered by it. But
of a source, light that goes further than to the next pixels leaves the aperture that it is measured in. So what is
taken from the sky is given further than what is taken from a source. Whether a pixel belongs to a source is told by the
light around it, and gradually, so that no single pixel's noise decides.
"""

from functools import reduce

import numpy as np

#: Means over so many pixels, one after the other, give away what was taken from the sky: 0.16 of the noise of a pixel
#: stays. The first one alone gives away what was taken from a source: 0.33 stays.
SKY_PX = (3, 5)
SOURCE_PX = SKY_PX[:1]
# Signal-to-noise ratio of the light in 9 x 9 px, above the mean in 27 x 27, from which a pixel belongs to a source;
# `_HALF` above it, half of it does.
_FAINTEST, _HALF = 5.0, 3.0
_WITHIN_PX, _AROUND_PX = (3, 3), (3, 3, 3)  # factors of both sides
_SOURCE_RANGE = (-5.0, 45.0)  # a single pixel, however bright, makes no source
_SKY_RANGE = (-3.0, 3.0)


def given(taken: np.ndarray, of_sources: np.ndarray) -> np.ndarray:
    """What the pixels get of what was taken from all; zero comes from beyond the edges.

    Parameters
    ----------
    taken, of_sources : ndarray, shape (N, H, W), float32
        See `share_of_sources`.

    Returns
    -------
    ndarray, shape (N, H, W)
    """
    near = taken * of_sources
    return _mean(near, SOURCE_PX) + _mean(_mean(taken - near, SKY_PX[:1]), SKY_PX[1:])


def share_of_sources(snr: np.ndarray) -> np.ndarray:
    """How much of a pixel belongs to a source, from 0 (sky) to 1.

    Parameters
    ----------
    snr : ndarray, shape (N, H, W)
        Light above the background in units of the pixel's noise; NaN where it is missing.

    Returns
    -------
    ndarray, shape (N, H, W), float32
    """
    known = np.nan_to_num(snr).astype(np.float32, copy=False)
    within, around = _mean(np.clip(known, *_SOURCE_RANGE), _WITHIN_PX), _mean(np.clip(known, *_SKY_RANGE), _AROUND_PX)
    significance = np.float32(np.prod(_WITHIN_PX)) * (within - around)
    excess = np.maximum(significance - np.float32(_FAINTEST), 0) * np.float32(1 / _HALF)
    return 1 - 1 / (1 + np.square(excess))


def _mean(planes: np.ndarray, factors: tuple[int, ...]) -> np.ndarray:
    """Mean over squares whose odd side is the product of `factors`; zero beyond the edges; (N, H, W).

    The sums of one factor are those of the next one's parts: 9 pixels are added up in 4 steps. A pixel's mean does not
    depend on where it lies, to the last bit.
    """
    side = int(np.prod(factors))
    for axis in (1, 2):
        width = [(side // 2, side // 2) if a == axis else (0, 0) for a in range(3)]
        planes, step = np.pad(planes, width), 1
        for factor in factors:
            n = planes.shape[axis] - (factor - 1) * step
            parts = (planes[(slice(None),) * axis + (slice(k * step, k * step + n),)] for k in range(factor))
            planes, step = reduce(np.add, parts), step * factor
        planes = planes * np.float32(1 / side)
    return planes
