"""Quantiles of columns that are larger than memory, exact, in two passes.

The first pass counts the values by the leading bits of their numbers, which rise with the value: in steps of
2^-12 of it. The second keeps the values of those few steps that a quantile falls into.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

#: Rows in parts: each call gives them once more, as columns of equal length.
Sample = Callable[[], Iterator[Mapping[str, np.ndarray]]]

_SHIFT = np.uint64(40)  # 64 bits less sign, exponent and 12 bits of the fraction


def quantile_edges(sample: Sample, bins: Mapping[str, int]) -> dict[str, list[float]]:
    """Edges of bins with equal numbers of rows, as `numpy.quantile` gives them.

    Parameters
    ----------
    sample : callable
        Rows in parts; finite.
    bins : mapping
        Column -> number of bins. Edges that coincide are merged.

    Returns
    -------
    dict
        Column -> edges, at least two, rising.
    """
    steps = {name: _Counts() for name in bins}
    for part in sample():
        for name, counts in steps.items():
            counts.add(_step(np.asarray(part[name], np.float64)))
    wanted = {name: _ranks(steps[name].n, n_bins) for name, n_bins in bins.items()}
    near = {name: steps[name].at(np.concatenate([low, high])) for name, (low, high, _) in wanted.items()}
    values = {name: _Counts() for name in bins}
    for part in sample():
        for name, kept in values.items():
            column = np.asarray(part[name], np.float64)
            kept.add(column[np.isin(_step(column), near[name])])
    return {name: _edges(steps[name], values[name], near[name], *wanted[name]) for name in bins}


class _Counts:
    """How often each value occurs; those that are equal take room once."""

    def __init__(self) -> None:
        self.values = np.empty(0)
        self.counts = np.empty(0, np.int64)

    def add(self, values: np.ndarray) -> None:
        new, n = np.unique(values, return_counts=True)
        self.values = self.values.astype(new.dtype)
        self.values, place = np.unique(np.concatenate([self.values, new]), return_inverse=True)
        counts = np.zeros(len(self.values), np.int64)
        np.add.at(counts, place, np.concatenate([self.counts, n]))
        self.counts = counts

    @property
    def n(self) -> int:
        return int(self.counts.sum())

    def at(self, ranks: np.ndarray) -> np.ndarray:
        """Values at places of the sorted sample, counted from 0."""
        return self.values[np.searchsorted(np.cumsum(self.counts), ranks, side="right")]


def _step(values: np.ndarray) -> np.ndarray:
    """Leading bits of numbers, as whole numbers that rise with the value."""
    bits = (values + 0.0).view(np.uint64)  # -0 becomes 0
    top = np.uint64(1 << 63)
    return np.where(bits & top, ~bits, bits | top) >> _SHIFT


def _ranks(n: int, n_bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each edge the two places that it lies between, and how far."""
    place = np.linspace(0, 1, n_bins + 1) * (n - 1)
    low = np.floor(place).astype(np.int64)
    return low, np.minimum(low + 1, n - 1), place - low


def _edges(
    steps: _Counts, values: _Counts, near: np.ndarray, low: np.ndarray, high: np.ndarray, part: np.ndarray
) -> list[float]:
    # Of the sorted sample only the wanted steps are kept; ranks are counted in these.
    skipped = np.where(np.isin(steps.values, near), 0, steps.counts)
    before = np.concatenate([[0], np.cumsum(skipped)])

    def value(rank: np.ndarray) -> np.ndarray:
        step = np.searchsorted(np.cumsum(steps.counts), rank, side="right")
        return values.at(rank - before[step])

    a, b = value(low), value(high)
    # As numpy interpolates, so that edges are the same numbers.
    edges = np.unique(np.where(part >= 0.5, b - (b - a) * (1 - part), a + (b - a) * part))
    if len(edges) < 2:
        edges = np.array([edges[0], np.nextafter(edges[0], np.inf)])
    return [float(edge) for edge in edges]
