"""Factors that make the stated uncertainties of a frame's pixels right, and how errors of neighbours go together.

They are fitted to whole validation frames. A stratum (empty sky, faint light, cores of stars, painted pixels) holds
pixels whose errors are of several sizes: with one number from the width of the pulls, most of them are right, and the
few that are worse make up what lies beyond 3. So the factor of a stratum depends on what is known of a pixel: its
stated uncertainty, its own light and the brightest light beside it. The logarithm of the factor is a quadratic in
these, fitted by maximum likelihood of the errors [1]_, which the larger ones decide. What is then left of the tails is
taken by the quantile: a stratum's factors grow until 99.2 % of its pulls are within 3, as long as no width falls below
0.92.

References
----------
.. [1] Levi et al. (2022), "Evaluating and calibrating uncertainty prediction in regression tasks", Sensors 22, 5540
   (one factor for all, by maximum likelihood).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

from pipeline.tasks.interfaces import PixelTraits

#: Sides of the square windows whose sums are compared with their uncertainties [px].
WINDOWS_PX = (3, 5, 9, 17)
_ONE_SIGMA = (0.158655, 0.841345)
_FACTOR_RANGE = (0.05, 10.0)
_CLIP = 5.0  # one error counts as this many sigma at most
_ITERATIONS = 30
_RIDGE = 1e-3
_RANGE = (0.005, 0.995)  # quantiles of the traits: beyond them, the quadratic is not believed
_FEWEST = 500
_AIMED_WIDTH, _LEAST_WIDTH = 0.96, 0.92
_FAR, _MOST_FAR = 3.0, 0.008
_GROWTH = 1.02
_STEPS = 60


#: Pulls are counted in bins of this range; what lies outside is counted in the first and last one.
PULLS = np.linspace(-12, 12, 4801)


class PullSummary(BaseModel):
    """Error over stated uncertainty: median, half of the central 68.3 %, and the share beyond 3."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    n: int
    median: float
    width: float
    beyond_3: float


class StratumFactor(BaseModel):
    """A factor that depends on traits of a pixel.

    Attributes
    ----------
    ranges : tuple of (float, float)
        Of each trait; outside, the factor is that of the edge.
    coefficients : tuple of float
        Of the log of the factor: the constant, the traits scaled to -1 to 1, and their products.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    ranges: tuple[tuple[float, float], ...]
    coefficients: tuple[float, ...]

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        n = len(self.ranges)
        if len(self.coefficients) != 1 + n + n * (n + 1) // 2 or any(low >= high for low, high in self.ranges):
            raise ValueError(f"{n} traits with rising ranges need {1 + n + n * (n + 1) // 2} coefficients")
        return self

    def of(self, traits: Sequence[np.ndarray]) -> np.ndarray:
        """Factors, float32, of the shape of the traits."""
        scaled = [
            np.clip((x - np.float32((high + low) / 2)) * np.float32(2 / (high - low)), -1, 1)
            for x, (low, high) in zip(traits, self.ranges, strict=True)
        ]
        rest = iter(np.float32(value) for value in self.coefficients)
        total = np.full_like(scaled[0], next(rest))
        linear = [next(rest) for _ in scaled]
        # Each trait times all that it is a factor of.
        for number, x in enumerate(scaled):
            inner = np.full_like(x, linear[number])
            for other in scaled[number:]:
                inner += next(rest) * other
            total += inner * x
        return np.clip(np.exp(total), *_FACTOR_RANGE)


class FrameVariance(BaseModel):
    """Factors of a task's uncertainties, by stratum, and what sums of pixels vary by.

    Attributes
    ----------
    factors : mapping
        Name of a stratum -> its factor.
    correlations : mapping
        Side of a square window [px] -> standard deviation of the sum of its errors over the root of the sum of its
        squared uncertainties, on empty sky: 1 for independent errors.
    pulls : mapping
        Stratum by the truth -> pulls on the validation split, with the factors.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    factors: dict[str, StratumFactor]
    correlations: dict[int, float] = {}
    pulls: dict[str, PullSummary] = {}

    def scaled(self, err: np.ndarray, strata: Iterable[str], traits: PixelTraits) -> np.ndarray:
        """Uncertainties times their factors; pixels of no stratum, or one without a factor, stay as they are."""
        err = np.array(err)
        for number, name in enumerate(strata):
            factor = self.factors.get(name)
            if factor is None:
                continue
            here = traits.place == number
            err[here] *= factor.of([values[here] for values in traits.values[: len(factor.ranges)]])
        return err


# ---- fitting ---------------------------------------------------------------------------------------------------------
class Sample(NamedTuple):
    """Pixels of validation frames, shape (n,) each.

    Attributes
    ----------
    pull : ndarray
        Error over stated uncertainty, before any factor.
    place : ndarray of int
        Stratum by what was predicted.
    traits : tuple of ndarray
        See `pipeline.tasks.interfaces.PixelTraits`.
    truth : ndarray of int
        Stratum by the truth.
    weight : ndarray
        Pixels that each stands for.
    """

    pull: np.ndarray
    place: np.ndarray
    traits: tuple[np.ndarray, ...]
    truth: np.ndarray
    weight: np.ndarray


def fit_factors(sample: Sample, strata: Mapping[str, int]) -> dict[str, StratumFactor]:
    """Factors by stratum; a stratum with fewer than 500 pixels has none.

    Parameters
    ----------
    sample : Sample
    strata : mapping
        Name -> how many of the traits its factor may use. The number of a stratum is its position.
    """
    found, scales = {}, np.ones(len(strata))
    pulls = sample.pull.astype(float)
    for number, (name, n_traits) in enumerate(strata.items()):
        here = sample.place == number
        if np.count_nonzero(here) < _FEWEST:
            continue
        traits = [trait[here] for trait in sample.traits[:n_traits]]
        found[name] = _most_likely(traits, sample.pull[here], sample.weight[here])
        pulls[here] /= found[name].of(traits)
        scales[number] = quantiles_of(pulls[here], sample.weight[here]).width / _AIMED_WIDTH
    fitted = np.array([name in found for name in strata])
    scales = _grown(pulls, sample, np.maximum(scales, 1e-3), fitted)
    for number, name in enumerate(strata):
        if name in found:
            first, *others = found[name].coefficients
            constant = float(f"{first + np.log(scales[number]):.5g}")
            found[name] = found[name].model_copy(update={"coefficients": (constant, *others)})
    return found


def _most_likely(traits: Sequence[np.ndarray], pulls: np.ndarray, weights: np.ndarray) -> StratumFactor:
    """The quadratic whose factors are the most likely sigma of the pulls, larger ones than 5 sigma clipped."""
    ranges = []
    for values in traits:
        low, high = (float(f"{edge:.4g}") for edge in np.quantile(values, _RANGE))
        ranges.append((low, high) if high > low else (low - 0.5, high + 0.5))
    scaled = [
        np.clip((x - (high + low) / 2) * 2 / (high - low), -1, 1) for x, (low, high) in zip(traits, ranges, strict=True)
    ]
    products = [scaled[i] * scaled[j] for i in range(len(scaled)) for j in range(i, len(scaled))]
    terms = np.column_stack([np.ones(len(pulls)), *scaled, *products])
    share = weights / weights.sum()
    log_pulls = np.log(np.abs(pulls) + 1e-3)
    curvature = 2 * (terms.T @ (terms * share[:, None])) + _RIDGE * np.eye(terms.shape[1])
    coefficients = np.zeros(terms.shape[1])
    coefficients[0] = np.log(max(quantiles_of(pulls, weights).width, 1e-3))
    for _ in range(_ITERATIONS):
        squared = np.square(np.minimum(np.exp(log_pulls - terms @ coefficients), _CLIP))
        coefficients += np.linalg.solve(curvature, terms.T @ (share * (squared - 1)) - _RIDGE * coefficients)
    return StratumFactor(ranges=tuple(ranges), coefficients=tuple(float(f"{c:.5g}") for c in coefficients))


def _grown(pulls: np.ndarray, sample: Sample, scales: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """Scales, raised where a stratum of the truth has too many pulls beyond 3, and none gets too narrow."""
    free = fitted.copy()
    summaries = _by_truth(pulls / scales[sample.place], sample)
    for _ in range(_STEPS):
        chosen = _guilty(np.abs(pulls / scales[sample.place]) > _FAR, sample, summaries, free)
        if chosen is None:
            break
        tried = scales.copy()
        tried[chosen] *= _GROWTH
        trial = _by_truth(pulls / tried[sample.place], sample)
        if min(entry.width for entry in trial.values()) < _LEAST_WIDTH:
            free[chosen] = False
        else:
            scales, summaries = tried, trial
    return scales


def _guilty(far: np.ndarray, sample: Sample, summaries: Mapping[int, PullSummary], free: np.ndarray) -> int | None:
    """The stratum, among those that may grow, that most of what is too far in a stratum of the truth is in."""
    for number in sorted(summaries, key=lambda number: -summaries[number].beyond_3):
        here = far & (sample.truth == number)
        parts = np.bincount(sample.place[here], sample.weight[here], minlength=len(free))
        if summaries[number].beyond_3 > _MOST_FAR and (parts * free).max() > 0.1 * parts.sum():
            return int((parts * free).argmax())
    return None


def _by_truth(pulls: np.ndarray, sample: Sample) -> dict[int, PullSummary]:
    numbers = [n for n in np.unique(sample.truth) if n >= 0 and np.count_nonzero(sample.truth == n) >= _FEWEST]
    return {int(n): quantiles_of(pulls[sample.truth == n], sample.weight[sample.truth == n]) for n in numbers}


def quantiles_of(pulls: np.ndarray, weights: np.ndarray | None = None) -> PullSummary:
    """Median, width and share beyond 3 of pulls that may stand for several pixels each."""
    weights = np.ones(len(pulls)) if weights is None else weights
    order = np.argsort(pulls)
    place = np.cumsum(weights[order]) - 0.5 * weights[order]
    low, middle, high = np.interp(np.array([_ONE_SIGMA[0], 0.5, _ONE_SIGMA[1]]) * weights.sum(), place, pulls[order])
    beyond = float(weights[np.abs(pulls) > _FAR].sum() / weights.sum())
    n = round(float(weights.sum()))
    return PullSummary(n=n, median=float(middle), width=float(high - low) / 2, beyond_3=beyond)


def counted(pulls: np.ndarray, place: np.ndarray, n_strata: int) -> np.ndarray:
    """Pulls of each stratum in the bins of `PULLS`, shape (n_strata, n_bins); those of frames can be added."""
    clipped = np.clip(pulls, PULLS[0], PULLS[-1])
    return np.stack([np.histogram(clipped[place == number], PULLS)[0] for number in range(n_strata)])


def summaries(counts: np.ndarray, strata: Iterable[str]) -> dict[str, PullSummary]:
    """Stratum -> its pulls, to four digits, from `counted`; without those that have no pixel."""
    centres = 0.5 * (PULLS[1:] + PULLS[:-1])
    found = {name: quantiles_of(centres, row) for name, row in zip(strata, counts, strict=True) if row.any()}
    rounded = {
        name: {key: float(f"{value:.4g}") for key, value in entry if key != "n"} for name, entry in found.items()
    }
    return {name: PullSummary(n=found[name].n, **values) for name, values in rounded.items()}
