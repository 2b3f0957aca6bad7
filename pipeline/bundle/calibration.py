"""Factors that make stated uncertainties right: fitted to the validation split, kept in the card, used to predict.

A network learns its uncertainty from the images that it is trained on, and states too small ones for those that it has
learned by heart. So the pulls (error over stated uncertainty) are measured on images that it was not trained on, in
bins of image size, the one measure of quality that every image has [1]_.

References
----------
.. [1] Levi et al. (2022), "Evaluating and calibrating uncertainty prediction in regression tasks", Sensors 22, 5540
   (one factor for all); here one per bin of size.
"""

from collections.abc import Mapping
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

_MAX_BINS = 8
_FEWEST_IMAGES = 100
_FACTOR_RANGE = (0.2, 5.0)
_ONE_SIGMA = (0.158655, 0.841345)


class Calibration(BaseModel):
    """Uncertainties are multiplied by `factors`, by bin of an event column.

    Attributes
    ----------
    column : str
    edges : tuple of float, length n - 1
        Inner edges of the bins, rising; the outermost bins are open.
    factors : tuple of float, length n
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    column: str
    edges: tuple[float, ...]
    factors: tuple[float, ...]

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        if len(self.factors) != len(self.edges) + 1 or any(factor <= 0 for factor in self.factors):
            raise ValueError(f"{len(self.edges)} edges need {len(self.edges) + 1} factors above 0, got {self.factors}")
        if any(np.diff(self.edges) <= 0):
            raise ValueError(f"the edges do not rise: {self.edges}")
        return self

    @classmethod
    def fit(cls, pulls: np.ndarray, column: str, values: np.ndarray) -> Self | None:
        """Half the width that holds 68 % of the pulls, in bins of equally many images.

        Parameters
        ----------
        pulls : ndarray, shape (n, k)
            Error over stated uncertainty, along k axes; rows that are not finite are left out.
        column : str
            Name of an event column.
        values : ndarray, shape (n,)
            Of that column.

        Returns
        -------
        Calibration or None
            None if fewer than 100 images have a pull.
        """
        known = np.isfinite(pulls).all(axis=1) & np.isfinite(values)
        pulls, values = pulls[known], values[known]
        n_bins = min(_MAX_BINS, len(pulls) // _FEWEST_IMAGES)
        if n_bins == 0:
            return None
        quantiles = np.quantile(values, np.arange(1, n_bins) / n_bins)
        edges = np.unique([float(f"{edge:.4g}") for edge in quantiles])
        place = np.searchsorted(edges, values, side="right")
        factors = []
        for number in range(len(edges) + 1):
            low, high = np.quantile(pulls[place == number], _ONE_SIGMA) if np.any(place == number) else (-1.0, 1.0)
            factors.append(float(f"{np.clip((high - low) / 2, *_FACTOR_RANGE):.4g}"))
        return cls(column=column, edges=tuple(edges.tolist()), factors=tuple(factors))

    def of(self, events: Mapping[str, np.ndarray]) -> np.ndarray:
        """Factor of each image, shape (N,)."""
        values = np.asarray(events[self.column], np.float64)
        return np.asarray(self.factors)[np.searchsorted(self.edges, values, side="right")]
