"""One value per event from those of its telescopes."""

import numpy as np


class TelescopeMean:
    """Weighted mean over the telescopes of each event, as ctapipe's `StereoMeanCombiner` (weights "intensity").

    Energies are averaged as logarithms (its ``log_target``). The uncertainty is that of the mean when telescopes err
    independently, so for one telescope it is that telescope's; ctapipe gives the telescopes' scatter, which is
    undefined there.

    Parameters
    ----------
    n_events : int
        Number of events.
    logarithmic : bool
        Average logarithms.
    """

    def __init__(self, n_events: int, *, logarithmic: bool) -> None:
        self.logarithmic = logarithmic
        self._weight = np.zeros(n_events)
        self._value = np.zeros(n_events)
        self._variance = np.zeros(n_events)

    def add(
        self, event: np.ndarray, value: np.ndarray, weight: np.ndarray, uncertainty: np.ndarray | None = None
    ) -> np.ndarray:
        """Add one telescope's images: at most one per event. Returns which of them counted: finite, weight above 0."""
        value, weight = np.asarray(value, np.float64), np.asarray(weight, np.float64)
        valid = np.isfinite(value) & (weight > 0)
        if self.logarithmic:
            valid &= value > 0
        event, value, weight = event[valid], value[valid], weight[valid]
        self._weight[event] += weight
        self._value[event] += weight * (np.log(value) if self.logarithmic else value)
        if uncertainty is not None:
            sigma = np.asarray(uncertainty, np.float64)[valid]
            self._variance[event] += (weight * (sigma / value if self.logarithmic else sigma)) ** 2
        return valid

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and its uncertainty, each of shape (n_events,); NaN where no telescope counted."""
        empty = self._weight == 0
        weight = np.where(empty, 1.0, self._weight)
        mean, sigma = self._value / weight, np.sqrt(self._variance) / weight
        if self.logarithmic:
            mean = np.exp(mean)
            sigma = sigma * mean
        mean[empty] = sigma[empty] = np.nan
        return mean, sigma
