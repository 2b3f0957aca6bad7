"""One value per event from those of its telescopes."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np


class Combiner(Protocol):
    """Takes one telescope after the other; fields have the names of ctapipe's containers."""

    def add(self, event: np.ndarray, values: Mapping[str, np.ndarray], weight: np.ndarray) -> np.ndarray:
        """Add one telescope's images: at most one per event.

        Parameters
        ----------
        event : ndarray of int, shape (n,)
            Place of each image's event.
        values : mapping
            Field -> (n,) values.
        weight : ndarray, shape (n,)

        Returns
        -------
        ndarray of bool, shape (n,)
            Which of them counted: finite, weight above 0.
        """
        ...

    def result(self) -> dict[str, np.ndarray]:
        """Field -> (n_events,) values; NaN where no telescope counted."""
        ...


class TelescopeMean:
    """Weighted mean over the telescopes of each event, as ctapipe's `StereoMeanCombiner` (weights "intensity").

    Energies are averaged as logarithms (its ``log_target``). The uncertainty is that of the mean when telescopes err
    independently, so for one telescope it is that telescope's; ctapipe gives the telescopes' scatter, which is
    undefined there.

    Parameters
    ----------
    n_events : int
        Number of events.
    value, uncertainty : str
        Fields.
    logarithmic : bool
        Average logarithms.
    """

    def __init__(self, n_events: int, value: str, uncertainty: str | None = None, *, logarithmic: bool = False) -> None:
        self._names, self.logarithmic = (value, uncertainty), logarithmic
        self._weight = np.zeros(n_events)
        self._value = np.zeros(n_events)
        self._variance = np.zeros(n_events)

    def add(self, event: np.ndarray, values: Mapping[str, np.ndarray], weight: np.ndarray) -> np.ndarray:
        """Add one telescope's images; see `Combiner`."""
        of_value, of_uncertainty = self._names
        value, weight = np.asarray(values[of_value], np.float64), np.asarray(weight, np.float64)
        valid = np.isfinite(value) & (weight > 0)
        if self.logarithmic:
            valid &= value > 0
        event, value, weight = event[valid], value[valid], weight[valid]
        self._weight[event] += weight
        self._value[event] += weight * (np.log(value) if self.logarithmic else value)
        if of_uncertainty is not None:
            sigma = np.asarray(values[of_uncertainty], np.float64)[valid]
            self._variance[event] += (weight * (sigma / value if self.logarithmic else sigma)) ** 2
        return valid

    def result(self) -> dict[str, np.ndarray]:
        """Mean and its uncertainty; see `Combiner`."""
        empty = self._weight == 0
        weight = np.where(empty, 1.0, self._weight)
        mean, sigma = self._value / weight, np.sqrt(self._variance) / weight
        if self.logarithmic:
            mean = np.exp(mean)
            sigma = sigma * mean
        mean[empty] = sigma[empty] = np.nan
        return {name: column for name, column in zip(self._names, (mean, sigma), strict=True) if name is not None}


class PositionMean:
    """Weighted mean of the cores that the telescopes of each event give; see `TelescopeMean`.

    Parameters
    ----------
    n_events : int
        Number of events.
    """

    def __init__(self, n_events: int) -> None:
        self._means = [TelescopeMean(n_events, f"core_{axis}", f"core_uncert_{axis}") for axis in "xy"]

    def add(self, event: np.ndarray, values: Mapping[str, np.ndarray], weight: np.ndarray) -> np.ndarray:
        """Add one telescope's images; see `Combiner`. Reads `core_x`, `core_y` and their uncertainties [m]."""
        weight = np.where(np.isfinite(values["core_x"]) & np.isfinite(values["core_y"]), weight, 0.0)
        return np.all([mean.add(event, values, weight) for mean in self._means], axis=0)

    def result(self) -> dict[str, np.ndarray]:
        """`core_x`, `core_y` and their uncertainties [m]; see `Combiner`."""
        return self._means[0].result() | self._means[1].result()
