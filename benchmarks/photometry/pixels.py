"""Measures of pixels: which defects are found, how large the errors are, and whether the stated ones hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from photometry.methods import Method
from photometry.scenes import Scene

FALSE_RATES = (1e-4, 5e-4, 1e-3, 5e-3)
#: Signal over noise of the truth: bins of the rms outside defects.
SNR_EDGES = (-np.inf, 1.0, 3.0, 10.0, 20.0, 50.0, np.inf)
SNR_NAMES = ("below 1", "1 to 3", "3 to 10", "10 to 20", "20 to 50", "above 50")
#: More charge than this, in units of the noise, and a pixel does not count as good.
TOUCHED = 0.3
_BENCH, _OWN = 3.0, 2.0
#: Charge from which a pixel is a defect, in units of the noise, by count.
LEAST = {"bench": _BENCH, "own": _OWN}
_CORE_SNR, _FAINT_SNR, _EMPTY_SNR = 20.0, 2.0, 0.5
LAGS = (1, 2, 3)


@dataclass(frozen=True)
class Count:
    """Which pixels count as defects.

    Attributes
    ----------
    defect, good : ndarray of bool, shape (H, W)
        What is in neither is ignored.
    """

    defect: np.ndarray
    good: np.ndarray

    @classmethod
    def bench(cls, excess: np.ndarray) -> "Count":
        """As in the comparison: charge above 3 sigma; .3 to 3 sigma is ignored."""
        return cls(excess > _BENCH, excess <= TOUCHED)

    @classmethod
    def own(cls, excess: np.ndarray) -> "Count":
        """As in training: charge above 2 sigma, and nothing is ignored."""
        return cls(excess > _OWN, excess <= _OWN)


def found_at(score: np.ndarray, count: Count, rates: Sequence[float] = FALSE_RATES) -> dict[float, tuple[float, float]]:
    """Share of the defects above the score that a share of the good pixels passes, and that score, by false rate."""
    good = np.sort(score[count.good])[::-1]
    thresholds = {rate: float(good[min(int(rate * good.size), good.size - 1)]) for rate in rates}
    return {rate: (float((score[count.defect] > limit).mean()), limit) for rate, limit in thresholds.items()}


def rates_of(mask: np.ndarray, count: Count) -> tuple[float, float]:
    """Share of the defects and of the good pixels in a mask."""
    return float(mask[count.defect].mean()), float(mask[count.good].mean())


# ---- parts of a frame ------------------------------------------------------------------------------------------------
def strata(scene: Scene, painted: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Pixels by what is in them, each in one at most: painted, galaxy, core, faint, sky. The rest are bright wings."""
    star, galaxy = scene.star_light / scene.noise, scene.galaxy_light / scene.noise
    good = scene.excess <= TOUCHED
    free = good if painted is None else good & ~painted
    of_galaxy = free & (galaxy > _FAINT_SNR) & (galaxy > star)
    parts = {
        "sky": free & (star + galaxy < _EMPTY_SNR),
        "faint": free & ~of_galaxy & (star + galaxy >= _EMPTY_SNR) & (star + galaxy < _CORE_SNR),
        "core": free & ~of_galaxy & (star >= _CORE_SNR),
        "galaxy": of_galaxy,
    }
    return parts if painted is None else parts | {"painted": painted}


def core_pixels(scene: Scene) -> np.ndarray:
    """Where the stars' light is more than 20 sigma."""
    return scene.star_light > _CORE_SNR * scene.noise


# ---- errors ----------------------------------------------------------------------------------------------------------
def rms_by_snr(image: np.ndarray, scene: Scene) -> list[float]:
    """Root mean square of the error over the noise, outside defects, in bins of the true signal; NaN if empty."""
    good = scene.excess <= TOUCHED
    snr = ((scene.star_light + scene.galaxy_light) / scene.noise)[good]
    squared = np.square(((image - scene.clean) / scene.noise)[good])
    place = np.digitize(snr, SNR_EDGES[1:-1])
    n = np.bincount(place, minlength=len(SNR_EDGES) - 1)
    total = np.bincount(place, squared, minlength=len(SNR_EDGES) - 1)
    with np.errstate(invalid="ignore"):
        return np.sqrt(total / n).tolist()


def rms_on_tracks(image: np.ndarray, scene: Scene) -> float:
    """Root mean square of the error [e-] on pixels with more than 3 sigma of a cosmic ray."""
    hit = scene.charge["cosmic ray"] > _BENCH * scene.noise
    return float(np.sqrt(np.mean(np.square((image - scene.clean)[hit]))))


def sky_noise(image: np.ndarray, scene: Scene) -> float:
    """Standard deviation of the error in empty sky, in units of the true noise."""
    sky = strata(scene)["sky"]
    return float(np.std(((image - scene.clean) / scene.noise)[sky]))


def pulls(method: Method, scene: Scene) -> dict[str, dict[str, float]]:
    """Median and width of error / stated error, and the share beyond 3, by stratum."""
    pull = (method.sci - scene.clean) / method.err
    return {name: pull_statistics(pull[part]) for name, part in strata(scene, method.mask).items()}


def pull_statistics(pull: np.ndarray) -> dict[str, float]:
    """Median, width (half of the central 68.3 %) and share beyond 3."""
    if not pull.size:
        return {"n": 0, "median": np.nan, "width": np.nan, "beyond_3": np.nan}
    low, middle, high = np.quantile(pull, [0.158655, 0.5, 0.841345])
    beyond = float(np.mean(np.abs(pull) > 3))
    return {"n": pull.size, "median": float(middle), "width": float(high - low) / 2, "beyond_3": beyond}


def residual_correlation(removed: np.ndarray, usable: np.ndarray) -> list[float]:
    """Correlation of what was removed (before - after, in units of the noise) at lags of 1 to 3 px, either axis.

    Noise alone is not correlated. Shape (3,); pixels outside `usable` are left out.
    """
    if not usable.any():
        return [np.nan] * len(LAGS)
    centred = np.where(usable, removed - removed[usable].mean(), 0.0)
    found = []
    for lag in LAGS:
        products = variances = 0.0
        for one, other in (
            ((slice(lag, None),), (slice(None, -lag),)),
            ((..., slice(lag, None)), (..., slice(None, -lag))),
        ):
            both = usable[one] & usable[other]
            products += float((centred[one] * centred[other])[both].sum())
            variances += 0.5 * float((np.square(centred[one]) + np.square(centred[other]))[both].sum())
        found.append(products / variances if variances else np.nan)
    return found


def seam(tiled: Method, whole: Method, noise: float) -> Mapping[str, float]:
    """Largest difference between two ways to cut a frame into tiles, and its 99.99 % quantile, over the noise."""
    difference = np.abs(tiled.sci.astype(float) - whole.sci) / noise
    return {"largest": float(difference.max()), "q9999": float(np.quantile(difference, 0.9999))}
