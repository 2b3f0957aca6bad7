"""Several methods on the same items: values, baselines and paired differences, with bootstrap intervals."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipeline.statistics import Estimate, bootstrap

NETWORK = "network"
#: Not a baseline (it contains the network), so it gets values but no difference.
COMBINED = "combined"


@dataclass(frozen=True)
class Metric:
    """A figure of merit.

    Attributes
    ----------
    name : str
    better : {"higher", "lower"}
    statistic : callable
        (one method's prediction, weights (k, n)) -> (k,).
    absolute : bool
        The nearer to zero the better (a bias): differences are those of absolute values.
    """

    name: str
    better: Literal["higher", "lower"]
    statistic: Callable[[Any, np.ndarray], np.ndarray]
    absolute: bool = False


@dataclass(frozen=True)
class Comparison:
    """Result of `compare`: method -> metric -> Estimate, and baseline -> metric -> network minus baseline."""

    metrics: Sequence[Metric]
    n: int
    values: Mapping[str, Mapping[str, Estimate]]
    differences: Mapping[str, Mapping[str, Estimate]]

    def estimate(self, method: str, metric: str) -> Estimate:
        """Value of one method."""
        return self.values[method][metric]

    def to_json(self) -> dict[str, Any]:
        """`metrics`, `baselines`, `differences` (and `combined`) in the form of metrics.json."""
        content: dict[str, Any] = {
            "metrics": self._block(NETWORK),
            "baselines": {method: self._block(method) for method in self.differences},
            "differences": {
                baseline: {metric.name: self._difference(baseline, metric) for metric in self.metrics}
                for baseline in self.differences
            },
        }
        if COMBINED in self.values:
            content["combined"] = self._block(COMBINED)
        return content

    def _block(self, method: str) -> dict[str, Any]:
        return {
            metric.name: to_json(self.values[method][metric.name]) | {"n": self.n, "better": metric.better}
            for metric in self.metrics
        }

    def _difference(self, baseline: str, metric: Metric) -> dict[str, Any]:
        entry = to_json(self.differences[baseline][metric.name])
        return entry | {"absolute": True} if metric.absolute else entry


def to_json(estimate: Estimate) -> dict[str, float | None]:
    """An estimate with null where it is not defined: JSON has no NaN."""
    parts = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return {name: float(part) if np.isfinite(part) else None for name, part in parts.items()}


def compare(
    metrics: Sequence[Metric],
    predictions: Mapping[str, Any],
    groups: np.ndarray,
    weights: np.ndarray,
    *,
    n_resamples: int,
    seed: int,
) -> Comparison:
    """Evaluate every metric for every method on the same resamples of the groups.

    Parameters
    ----------
    metrics : sequence of Metric
    predictions : mapping
        Method -> whatever the metrics' statistics take; must hold `NETWORK`.
    groups, weights : ndarray, shape (n,)
    n_resamples, seed : int

    Returns
    -------
    Comparison
    """
    baselines = [method for method in predictions if method not in (NETWORK, COMBINED)]

    def statistic(resampled: np.ndarray) -> np.ndarray:
        values = {
            (method, metric.name): metric.statistic(prediction, resampled)
            for method, prediction in predictions.items()
            for metric in metrics
        }
        differences = [
            _difference(metric, values[NETWORK, metric.name], values[baseline, metric.name])
            for baseline in baselines
            for metric in metrics
        ]
        return np.stack([*values.values(), *differences], axis=-1)

    estimates = iter(bootstrap(statistic, groups, weights, n_resamples=n_resamples, seed=seed))
    return Comparison(
        metrics=metrics,
        n=int(np.count_nonzero(weights)),
        values={method: {metric.name: next(estimates) for metric in metrics} for method in predictions},
        differences={baseline: {metric.name: next(estimates) for metric in metrics} for baseline in baselines},
    )


def _difference(metric: Metric, network: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    return np.abs(network) - np.abs(baseline) if metric.absolute else network - baseline


def merge_json(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Join the JSON forms of comparisons of different items (stars, fields) into one."""
    merged: dict[str, Any] = {}
    for part in parts:
        _join(merged, part)
    return merged


def _join(into: dict[str, Any], part: Mapping[str, Any]) -> None:
    for key, value in part.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _join(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value
