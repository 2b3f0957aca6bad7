"""What the judges of regressions share: methods compared on the gammas of the test split, overall and in bins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline import statistics
from pipeline.config import EvaluateConfig
from pipeline.errors import TooFewEventsError
from pipeline.evaluation.comparison import Comparison, Metric, compare
from pipeline.evaluation.result import Bin, compare_by_multiplicity, compare_in_bins

#: Fewer images than this say nothing about a bin.
FEWEST_IMAGES = 25

#: What a metric's statistic is given: one array of shape (n, ...), or several by name.
Prediction = np.ndarray | Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Compared:
    """Methods compared on all gammas, and in bins.

    Attributes
    ----------
    overall : Comparison
    by_energy, by_offset : sequence of Bin
        True energy, true offset from the pointing.
    by_multiplicity : sequence of Bin
        Number of telescopes; empty for images.
    """

    overall: Comparison
    by_energy: Sequence[Bin]
    by_offset: Sequence[Bin]
    by_multiplicity: Sequence[Bin] = ()

    @property
    def bins(self) -> list[Bin]:
        """All bins, as metrics.json and the table list them."""
        return [*self.by_energy, *self.by_offset, *self.by_multiplicity]


@dataclass(frozen=True)
class Gammas:
    """The gammas of the test split.

    Attributes
    ----------
    true_energy_tev, true_offset_deg : ndarray, shape (n,)
        The offset may be NaN (an unknown pointing): such images are in no bin of it.
    weights, groups : ndarray, shape (n,)
        Items of one group (shower) are resampled together.
    n_telescopes : ndarray of int, shape (n,), optional
        Of events that several telescopes saw; None if the items are images.
    """

    true_energy_tev: np.ndarray
    true_offset_deg: np.ndarray
    weights: np.ndarray
    groups: np.ndarray
    n_telescopes: np.ndarray | None = None

    @property
    def items(self) -> str:
        """What is counted, for captions."""
        return "images" if self.n_telescopes is None else "events"

    @classmethod
    def of(cls, events: Mapping[str, np.ndarray]) -> "Gammas":
        """From the event columns of a `CameraSample`."""
        energy = events["true_energy_tev"]
        offset = events.get("true_offset_deg", np.full(len(energy), np.nan))
        return cls(energy, offset, events["weights"], events["group"], events.get("n_telescopes"))

    def compare(
        self, metrics: Sequence[Metric], predictions: Mapping[str, Prediction], cfg: EvaluateConfig, *, seed: int
    ) -> Compared:
        """Compare methods.

        Parameters
        ----------
        metrics : sequence of Metric
            Their statistics take what `predictions` holds, of the selected images.
        predictions : mapping
            Method -> its prediction or error for all images.
        cfg : EvaluateConfig
        seed : int

        Raises
        ------
        TooFewEventsError
            If fewer than 25 gammas have weight.
        """
        n_counted = int(np.count_nonzero(self.weights))
        if n_counted < FEWEST_IMAGES:
            raise TooFewEventsError(
                f"the test split has {n_counted} gammas with weight; at least {FEWEST_IMAGES} are needed: simulate "
                "more runs or loosen tiles.camera.cuts"
            )

        def compare_selected(keep: np.ndarray) -> Comparison | None:
            if np.count_nonzero(self.weights[keep]) < FEWEST_IMAGES:
                return None
            return compare(
                metrics,
                {method: _selected(prediction, keep) for method, prediction in predictions.items()},
                self.groups[keep],
                self.weights[keep],
                n_resamples=cfg.bootstrap,
                seed=seed,
            )

        overall = compare_selected(np.ones(len(self.weights), bool))
        assert overall is not None
        by_energy, by_offset = (
            compare_in_bins(name, statistics.bins_of(values, edges), compare_selected)
            for name, values, edges in (
                ("true_energy_tev", self.true_energy_tev, cfg.energy_edges_tev),
                ("true_offset_deg", self.true_offset_deg, cfg.offset_edges_deg),
            )
        )
        return Compared(overall, by_energy, by_offset, compare_by_multiplicity(self.n_telescopes, compare_selected))

    def calibration(self, pulls: np.ndarray, cfg: EvaluateConfig) -> dict[str, Any]:
        """Whether a stated uncertainty is right: the pulls should have the median 0 and the width 1.

        Parameters
        ----------
        pulls : ndarray, shape (n,) or (n, k)
            Error over stated uncertainty, along k axes; NaN where none is stated.
        cfg : EvaluateConfig

        Returns
        -------
        dict
            `pull_median` and `pull_width` (half the width of the 68 % about the median), and the same
            `by_true_energy_tev`; empty if nothing is stated.
        """
        pulls = pulls.reshape(len(self.weights), -1)
        stated = np.isfinite(pulls).all(axis=1) & (self.weights > 0)
        overall = self._pull(pulls, stated)
        if not overall:
            return {}
        selections = statistics.bins_of(self.true_energy_tev, cfg.energy_edges_tev)
        by_energy = [{"low": low, "high": high} | self._pull(pulls, keep & stated) for low, high, keep in selections]
        return overall | {"by_true_energy_tev": by_energy}

    def _pull(self, pulls: np.ndarray, keep: np.ndarray) -> dict[str, float]:
        if np.count_nonzero(keep) < FEWEST_IMAGES:
            return {}
        weights = np.repeat(self.weights[keep], pulls.shape[1])
        quantiles = (float(statistics.quantile(pulls[keep].ravel(), q, weights)) for q in (0.158655, 0.5, 0.841345))
        low, middle, high = quantiles
        return {"pull_median": middle, "pull_width": (high - low) / 2}


def _selected(prediction: Prediction, keep: np.ndarray) -> Prediction:
    if isinstance(prediction, Mapping):
        return {name: values[keep] for name, values in prediction.items()}
    return prediction[keep]
