"""How sure a restored pixel is: its stratum, by what was predicted or by the truth, and what tells its error."""

import numpy as np

from pipeline.sky.dq import DEFECTS, DQ, DQ_DTYPE, has
from pipeline.tasks.interfaces import PixelTraits
from pipeline.tiles.shards import TileBatch

#: Strata -> how many of the traits (stated uncertainty, light beside the pixel, its own light) tell the size of its
#: error. On empty sky its own light is noise: it must not choose its own uncertainty.
KINDS = {"sky": 2, "faint": 3, "core": 3, "painted": 3, "missing": 3}
_SKY, _FAINT, _CORE, _PAINTED, _MISSING = range(len(KINDS))
#: Light over the background noise from which a pixel is not empty sky, and from which it is in the core of a star.
FAINT_SNR, CORE_SNR = 0.5, 20.0
_BESIDE_PX = 2
_LEAST_STATED = 1e-3


def traits_of(
    restored: np.ndarray, err: np.ndarray, painted: np.ndarray, missing: np.ndarray, batch: TileBatch
) -> PixelTraits:
    """Stratum and traits of the pixels of tiles, shape (N, H, W) each.

    Saturated pixels that were not painted are in no stratum: they came back as they were.
    """
    level, noise = (np.asarray(batch.events[name], np.float32)[:, None, None] for name in ("level", "noise"))
    signal = (restored - level) / noise
    place = (signal >= FAINT_SNR).astype(np.int8)
    place[signal >= CORE_SNR] = _CORE
    if batch.masks is not None:
        place[has(batch.masks, DQ.SATURATED)] = -1
    place[painted] = _PAINTED
    place[missing] = _MISSING
    own = np.arcsinh(signal)
    stated = np.log(np.maximum(err / noise, np.float32(_LEAST_STATED)))
    return PixelTraits(place, (stated, _brightest_beside(own), own))


def _brightest_beside(planes: np.ndarray) -> np.ndarray:
    """Largest value of 5 x 5 pixels."""
    for axis in (1, 2):
        n = planes.shape[axis]
        widest = planes.copy()
        for step in range(1, _BESIDE_PX + 1):
            here, there = ((slice(None),) * axis + (part,) for part in (slice(step, n), slice(0, n - step)))
            np.maximum(widest[here], planes[there], out=widest[here])
            np.maximum(widest[there], planes[here], out=widest[there])
        planes = widest
    return planes


def errors_of(
    restored: np.ndarray, painted: np.ndarray, missing: np.ndarray, batch: TileBatch
) -> tuple[np.ndarray, np.ndarray]:
    """Restored less true, and the number of each pixel's stratum by the truth; shape (N, H, W)."""
    level, noise = (np.asarray(batch.events[name], np.float32)[:, None, None] for name in ("level", "noise"))
    clean = batch.targets["clean"][:, 0]
    dq = np.zeros(clean.shape, DQ_DTYPE) if batch.masks is None else batch.masks
    return restored - clean, strata_of_truth((clean - level) / noise, painted, missing, dq)


def strata_of_truth(light: np.ndarray, painted: np.ndarray, missing: np.ndarray, dq: np.ndarray) -> np.ndarray:
    """Number among `KINDS` of each pixel; -1 where it is not judged: saturated, or a defect that was not painted.

    Parameters
    ----------
    light : ndarray, shape S
        True light over the background noise, NaN where it is not known.
    painted, missing : ndarray of bool, shape S
        What was replaced.
    dq : ndarray of uint16, shape S
        With the true defects.
    """
    with np.errstate(invalid="ignore"):
        place = (light >= FAINT_SNR).astype(np.int8)
        place[light >= CORE_SNR] = _CORE
    place[has(dq, DEFECTS)] = -1
    place[painted] = _PAINTED
    place[missing] = _MISSING
    place[has(dq, DQ.SATURATED) | ~np.isfinite(light)] = -1
    return place
