"""Weighted figures of merit and their bootstrap intervals, over groups and in pairs.

Images of one shower, or stars of one field, are not independent: what is resampled is the group, with
replacement, and every quantity that is compared is computed on the same resample, so that the interval of a
difference is that of the pair [1]_.

A resample is just another weight per item (its weight times how often its group was drawn). So every
statistic here takes weights of shape (..., n) and returns shape (...): one call evaluates a whole block of
resamples, and what does not depend on the weights (a sort) is done once.

References
----------
.. [1] Efron, B. & Tibshirani, R. (1993), An Introduction to the Bootstrap, Chapman & Hall, ch. 8 and 13.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

# Weights of one block of resamples: 2^16 float64 are 512 KiB, which a processor's cache holds.
_BLOCK_ELEMENTS = 1 << 16


@dataclass(frozen=True)
class Estimate:
    """A value with the limits of its interval; NaN where it is not defined."""

    value: float
    low: float
    high: float


# ---- classification --------------------------------------------------------------------------------------
def _passing(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Background and signal weight at or above each distinct score, highest first: two arrays (..., n_distinct)."""
    scores, labels, weights = np.asarray(scores), np.asarray(labels, bool), np.asarray(weights, float)
    order = np.argsort(-scores, kind="stable")
    # Items of equal score pass a threshold together: only the last of each run is a point of the curve.
    ends = np.flatnonzero(np.r_[np.diff(scores[order]) != 0, True])
    ranked = weights[..., order]
    background, signal = (np.cumsum(ranked * chosen, axis=-1) for chosen in (~labels[order], labels[order]))
    if len(ends) < len(order):
        background, signal = background[..., ends], signal[..., ends]
    return background, signal


def roc_curve(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Background and signal efficiency as the threshold falls.

    Parameters
    ----------
    scores : ndarray, shape (n,)
        The higher, the more signal-like. Equal scores pass a threshold together.
    labels : ndarray, shape (n,)
        True for signal.
    weights : ndarray, shape (..., n)

    Returns
    -------
    background_efficiency, signal_efficiency : ndarray, shape (..., n_distinct + 1)
        From (0, 0) to (1, 1); NaN where a class has no weight.
    """
    curves = []
    for passing in _passing(scores, labels, weights):
        curve = np.zeros((*passing.shape[:-1], passing.shape[-1] + 1))
        with np.errstate(invalid="ignore", divide="ignore"):
            np.divide(passing, passing[..., -1:], out=curve[..., 1:])
        curves.append(curve)
    background, signal = curves
    return background, signal


def auc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve: the chance that signal outranks background, ties counting half [1]_.

    Parameters
    ----------
    scores, labels : ndarray, shape (n,)
    weights : ndarray, shape (..., n)

    Returns
    -------
    ndarray, shape (...)
        NaN where a class has no weight.

    References
    ----------
    .. [1] Fawcett, T. (2006), Pattern Recognition Letters 27, 861, sect. 7.
    """
    background, signal = roc_curve(scores, labels, weights)
    return (np.diff(background) * (signal[..., 1:] + signal[..., :-1])).sum(-1) / 2


def background_at_efficiency(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray, efficiency: float = 0.8
) -> np.ndarray:
    """Fraction of the background that is kept with `efficiency` of the signal (linear between thresholds).

    Parameters
    ----------
    scores, labels : ndarray, shape (n,)
    weights : ndarray, shape (..., n)
    efficiency : float
        Between 0 and 1.

    Returns
    -------
    ndarray, shape (...)
    """
    background, signal = roc_curve(scores, labels, weights)
    # The first threshold that reaches the efficiency; rounding may leave the last cumulative sum below 1.
    last = np.argmax(signal >= efficiency * (1 - 1e-12), axis=-1)[..., None]
    first = np.maximum(last - 1, 0)

    def at(curve: np.ndarray, index: np.ndarray) -> np.ndarray:
        return np.take_along_axis(curve, index, axis=-1)[..., 0]

    rise = at(signal, last) - at(signal, first)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(rise > 0, (efficiency - at(signal, first)) / rise, 1.0)
    return at(background, first) + np.clip(share, 0, 1) * (at(background, last) - at(background, first))


# ---- residuals -------------------------------------------------------------------------------------------
def quantile(values: np.ndarray, fraction: float, weights: np.ndarray) -> np.ndarray:
    """The smallest value below or at which `fraction` of the weight lies (numpy's method "inverted_cdf").

    Parameters
    ----------
    values : ndarray, shape (n,)
    fraction : float
        Between 0 and 1.
    weights : ndarray, shape (..., n)

    Returns
    -------
    ndarray, shape (...)
        NaN where the weights sum to zero.
    """
    values, weights = np.asarray(values, float), np.asarray(weights, float)
    if not values.size:
        return np.full(weights.shape[:-1], np.nan)
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[..., order], axis=-1)
    reached = total >= fraction * total[..., -1:] * (1 - 1e-12)
    # A fraction of 0 selects the first item with non-zero weight.
    found = np.argmax(reached & (total > 0), axis=-1)
    return np.where(total[..., -1] > 0, values[order][found], np.nan)


def median(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted median; see `quantile`."""
    return quantile(values, 0.5, weights)


def containment(residuals: np.ndarray, weights: np.ndarray, fraction: float = 0.68) -> np.ndarray:
    """The half-width around zero that contains `fraction` of the residuals: bias and tails count.

    Parameters
    ----------
    residuals : ndarray, shape (n,)
    weights : ndarray, shape (..., n)

    Returns
    -------
    ndarray, shape (...)
    """
    return quantile(np.abs(residuals), fraction, weights)


def mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean of (n,) values over the last axis of (..., n) weights; NaN where these sum to zero."""
    weights = np.asarray(weights, float)
    total = weights.sum(-1)
    return (weights @ np.asarray(values, float)) / np.where(total > 0, total, np.nan)


def rms(residuals: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted root mean square around zero (a bias counts)."""
    return np.sqrt(mean(np.square(np.asarray(residuals, float)), weights))


def kolmogorov_smirnov(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Largest difference of two cumulative distributions of paired items, shape (...).

    Parameters
    ----------
    first, second : ndarray, shape (n,)
        NaN does not count.
    weights : ndarray, shape (..., n)
    """
    values = np.concatenate([first, second])
    known = np.isfinite(values)
    order = np.argsort(values[known], kind="stable")
    # Equal values step together.
    ends = np.flatnonzero(np.r_[np.diff(values[known][order]) != 0, True])
    difference = 0.0
    for sign, of_first in ((1, True), (-1, False)):
        own = np.concatenate([weights * of_first, weights * (not of_first)], axis=-1)[..., known][..., order]
        total = np.cumsum(own, axis=-1)
        with np.errstate(invalid="ignore", divide="ignore"):
            difference = difference + sign * total[..., ends] / total[..., -1:]
    return np.abs(difference).max(axis=-1)


# ---- bootstrap -------------------------------------------------------------------------------------------
def bootstrap_weights(groups: np.ndarray, n_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield blocks of resampled group multiplicities, spread to the items.

    Parameters
    ----------
    groups : ndarray, shape (n,)
        Any hashable label per item; items with equal labels are drawn together.
    n_resamples : int
    seed : int

    Yields
    ------
    ndarray, shape (k, n), float64
        How often each item's group was drawn in each of the next k resamples.
    """
    _, index = np.unique(groups, return_inverse=True)
    n_groups = int(index.max()) + 1
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK_ELEMENTS // max(len(index), n_groups))
    for start in range(0, n_resamples, block):
        size = min(block, n_resamples - start)
        # One draw after the other, so that the block size does not change the numbers.
        drawn = np.stack([np.bincount(rng.integers(n_groups, size=n_groups), minlength=n_groups) for _ in range(size)])
        yield drawn[:, index].astype(float)


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray],
    groups: np.ndarray,
    weights: np.ndarray,
    *,
    n_resamples: int = 500,
    seed: int = 0,
    level: float = 0.95,
) -> list[Estimate]:
    """Values of several statistics and their percentile intervals, all from the same resamples of the groups.

    Parameters
    ----------
    statistic : callable
        Takes weights (k, n), returns (k, m): m quantities for each of k weightings. Whatever is compared in
        pairs belongs into one call (network, baseline, and their difference).
    groups : ndarray, shape (n,)
        Items with equal labels are resampled together.
    weights : ndarray, shape (n,)
    n_resamples, seed : int
    level : float
        Coverage of the interval.

    Returns
    -------
    list of Estimate, length m
        Resamples in which a quantity is undefined (a class without items) do not count for its interval.
    """
    weights = np.asarray(weights, float)
    values = statistic(weights[None])[0]
    resampled = np.concatenate([statistic(weights * drawn) for drawn in bootstrap_weights(groups, n_resamples, seed)])
    tail = (1 - level) / 2
    estimates = []
    for value, sample in zip(values, resampled.T, strict=True):
        defined = sample[np.isfinite(sample)]
        low, high = np.quantile(defined, [tail, 1 - tail]) if defined.size and np.isfinite(value) else (np.nan, np.nan)
        estimates.append(Estimate(float(value), float(low), float(high)))
    return estimates


# ---- binning ---------------------------------------------------------------------------------------------
def bins_of(values: np.ndarray, edges: Sequence[float]) -> list[tuple[float, float, np.ndarray]]:
    """Half-open bins [low, high), the last one closed: a list of (low, high, selection (n,) bool)."""
    values = np.asarray(values)
    result = []
    for i, (low, high) in enumerate(pairwise(edges)):
        below = values <= high if i == len(edges) - 2 else values < high
        result.append((float(low), float(high), (values >= low) & below))
    return result


def migration_matrix(
    true: np.ndarray, reco: np.ndarray, weights: np.ndarray, edges: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """How the items of each true bin spread over the reconstructed bins.

    Parameters
    ----------
    true, reco, weights : ndarray, shape (n,)
    edges : sequence of float, length k + 1
        The same for both axes.

    Returns
    -------
    matrix : ndarray, shape (k, k)
        [i, j] = share of true bin i that is reconstructed in bin j; rows of bins without weight are NaN. A
        row sums to less than 1 where items are reconstructed outside `edges`.
    inside : ndarray, shape (k,)
        The sum of each row.
    """
    counts, _, _ = np.histogram2d(true, reco, bins=(edges, edges), weights=weights)
    totals, _ = np.histogram(true, bins=edges, weights=weights)
    matrix = counts / np.where(totals > 0, totals, np.nan)[:, None]
    return matrix, matrix.sum(1)
