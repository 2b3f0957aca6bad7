"""Which threshold of a score flags which share of the good pixels: measured on the validation split, kept in the card.

The rate depends on where a pixel lies (empty sky, sources, cores of stars), so there is a threshold for each such
stratum. A rate is only told if enough good pixels were seen for it: of n pixels without a single false alarm, one knows
that the rate is below 3 / n, with 95 % confidence.
"""

from collections.abc import Mapping
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

#: Rates that are measured, from the highest down.
RATES = tuple(factor * 10.0**power for power in (-2, -3, -4, -5, -6) for factor in (1, 0.5, 0.2))
#: Scores are counted in bins of this range; what lies outside is counted in the first and last one.
SCORES = np.linspace(-30, 30, 6001)
_ROUNDING = 1 - 1e-9
_EXPECTED = 3.0  # false alarms among the good pixels at the lowest rate that is told


class Stratum(BaseModel):
    """The false alarms of one stratum.

    Attributes
    ----------
    n_good : int
        Good pixels of the validation split.
    thresholds : tuple of float
        For the first of `RATES`: the score that no larger share of them exceeds. Empty where too few were seen.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    n_good: int
    thresholds: tuple[float, ...]

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if len(self.thresholds) > len(RATES) or any(np.diff(self.thresholds) < 0):
            raise ValueError(f"thresholds of falling rates do not rise: {self.thresholds}")
        return self

    @property
    def lowest(self) -> float:
        """The lowest rate that is told; infinite for none."""
        return RATES[len(self.thresholds) - 1] if self.thresholds else np.inf

    def threshold(self, rate: float) -> float:
        """The score for a rate from `lowest` to the highest of `RATES`; between two of them by its logarithm."""
        n = len(self.thresholds)
        return float(np.interp(-np.log(rate), -np.log(RATES[:n]), self.thresholds))


class FalseAlarms(BaseModel):
    """Name of a stratum -> its false alarms."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strata: dict[str, Stratum]

    @classmethod
    def fit(cls, counts: Mapping[str, np.ndarray]) -> Self:
        """From the good pixels of each stratum, counted in the bins of `SCORES`."""
        strata = {}
        for name, histogram in counts.items():
            n_good = int(histogram.sum())
            # Good pixels above the lower edge of each bin, and above the last edge.
            above = np.append(np.cumsum(histogram[::-1])[::-1], 0)
            told = [rate for rate in RATES if rate * n_good >= _EXPECTED]
            edges = [SCORES[np.argmax(above <= rate * n_good)] for rate in told]
            strata[name] = Stratum(n_good=n_good, thresholds=tuple(float(f"{edge:.2f}") for edge in edges))
        return cls(strata=strata)

    def thresholds(self, rates: Mapping[str, float]) -> tuple[dict[str, float], dict[str, float]]:
        """Threshold of each stratum, and those whose rate cannot be told, with the lowest that can.

        Where none can, the threshold is the strictest of the others.
        """
        found, untold = {}, {}
        for name, rate in rates.items():
            stratum = self.strata.get(name, Stratum(n_good=0, thresholds=()))
            if not _ROUNDING * stratum.lowest <= rate <= RATES[0] / _ROUNDING:
                untold[name] = stratum.lowest
            if stratum.thresholds:
                found[name] = stratum.threshold(float(np.clip(rate, stratum.lowest, RATES[0])))
        strictest = max(found.values(), default=0.0)
        return {name: found.get(name, strictest) for name in rates}, untold
