"""Energy of gammas: bias, resolution and migration, overall and per true energy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import statistics
from pipeline.camera.baselines import FOREST
from pipeline.config import Config, EvaluateConfig
from pipeline.evaluation.comparison import NETWORK, Metric
from pipeline.evaluation.gammas import Compared, Gammas
from pipeline.evaluation.result import CaptionedFigure, Predicts, Result, bins_table, series_of
from pipeline.evaluation.showers import camera_sample
from pipeline.evaluation.wording import by_multiplicity, minus_baselines, source_of
from pipeline.figures import comparison, energy
from pipeline.figures.published import published_curve
from pipeline.tasks.energy.baseline import ESTIMANDS, LOG10_ENERGY
from pipeline.tasks.energy.decode import DECODER
from pipeline.tasks.energy.spec import SPEC

if TYPE_CHECKING:
    from astropy.table import Table


@dataclass(frozen=True)
class EnergySample:
    """The gammas of the test split as the methods see them.

    Attributes
    ----------
    true_tev : ndarray, shape (n,)
    reco_tev : mapping
        Method -> reconstructed energy, shape (n,).
    pulls : ndarray, shape (n, 1)
        Error of the network's log10(E) over its stated uncertainty; NaN where it states none.
    gammas : Gammas
    """

    true_tev: np.ndarray
    reco_tev: Mapping[str, np.ndarray]
    pulls: np.ndarray
    gammas: Gammas

    @property
    def log10_residual(self) -> dict[str, np.ndarray]:
        """Method -> log10(E_reco / E_true), shape (n,)."""
        return {method: np.log10(reco / self.true_tev) for method, reco in self.reco_tev.items()}


_QUANTITIES = (
    (r"bias: median of E$_\mathrm{reco}$/E$_\mathrm{true}$ − 1", "energy_bias"),
    ("resolution: 68 % containment", "energy_resolution"),
)
#: Statistics of log10(E_reco / E_true).
METRICS = (
    Metric(
        "energy_resolution",
        "lower",
        lambda residual, weights: statistics.containment(10.0**residual - 1.0, weights, 0.68),
    ),
    Metric(
        "energy_bias",
        "lower",
        lambda residual, weights: statistics.median(10.0**residual - 1.0, weights),
        absolute=True,
    ),
    Metric("log10_energy_rms", "lower", statistics.rms),
)


def judge(predictor: Predicts, manifests: Sequence[Any], cfg: Config) -> Result:
    """Compare network and baselines on the gammas of the test split.

    Raises
    ------
    UserError
        If the tiles carry no truth, or a split has too few images or events.
    """
    items = camera_sample(SPEC, ESTIMANDS, predictor, manifests, cfg)
    log10_energy = items.methods(LOG10_ENERGY, lambda columns: np.log10(columns["reco_energy_tev"]))
    reco_tev = {method: 10.0**values for method, values in log10_energy.items()}
    events = items.events
    pulls = DECODER.pulls(items.predicted, events)
    sample = EnergySample(events["true_energy_tev"], reco_tev, pulls, Gammas.of(events))
    columns = {f"reco_energy_tev_{method}": values for method, values in reco_tev.items()}
    columns["reco_energy_uncert_tev_network"] = items.predicted["reco_energy_uncert_tev"]
    return items.complete(
        evaluate_energy(sample, cfg.evaluate, seed=cfg.seed), columns, units=dict.fromkeys(columns, "TeV")
    )


def evaluate_energy(sample: EnergySample, cfg: EvaluateConfig, *, seed: int) -> Result:
    """Compare the methods on the test split.

    Raises
    ------
    TooFewEventsError
        If the test split has fewer than 25 gammas with weight.
    """
    compared = sample.gammas.compare(METRICS, sample.log10_residual, cfg, seed=seed)
    matrices = {
        method: statistics.migration_matrix(sample.true_tev, reco, sample.gammas.weights, cfg.energy_edges_tev)[0]
        for method, reco in sample.reco_tev.items()
        if method in (NETWORK, FOREST)
    }
    return Result(
        content=compared.overall.to_json() | {"calibration": sample.gammas.calibration(sample.pulls, cfg)},
        bins=compared.bins,
        tables={"bins": bins_table(compared.bins), "migration": _migration_table(matrices, cfg)},
        figures=_figures(sample, compared, matrices, cfg),
    )


def _figures(
    sample: EnergySample, compared: Compared, matrices: Mapping[str, np.ndarray], cfg: EvaluateConfig
) -> list[CaptionedFigure]:
    items = sample.gammas.items
    published = published_curve(cfg.reference, "energy_resolution")
    figures = [
        CaptionedFigure(
            "energy_performance.png",
            "Energy bias and resolution against true energy",
            f"Left: median of E_reco/E_true − 1 (0 is best). Right: the relative error that 68 % of the {items} stay "
            f"within, bias included (lower is better). 95 % intervals over showers. Below: {minus_baselines(items)} "
            "(of the bias, the absolute value); below zero the network is better. At both ends of the range every "
            f"method is biased towards the energies that it was trained on.{source_of(published)}",
            comparison.in_energy_bins(
                [(text, series_of(compared.by_energy, name)) for text, name in _QUANTITIES],
                reference={0: 0.0},
                published={1: published},
            ),
        ),
        CaptionedFigure(
            "energy_by_offset.png",
            "Energy bias and resolution against the offset of the source from the pointing",
            "As above, for all energies together.",
            comparison.in_offset_bins([(text, series_of(compared.by_offset, name)) for text, name in _QUANTITIES]),
        ),
        CaptionedFigure(
            "energy_migration.png",
            "Migration matrix",
            f"How the {items} of each true energy (a column of the picture) spread over the reconstructed energies. "
            "A perfect method would fill the diagonal alone.",
            energy.migration(matrices, cfg.energy_edges_tev),
        ),
        CaptionedFigure(
            "energy_residuals.png",
            "Distribution of the energy error",
            "All test gammas. Narrow and centred on zero is good; its rms is log10_energy_rms.",
            energy.energy_residuals(sample.true_tev, sample.reco_tev, sample.gammas.weights),
        ),
    ]
    return figures + by_multiplicity("energy", "Energy bias and resolution", compared.by_multiplicity, _QUANTITIES)


def _migration_table(matrices: Mapping[str, np.ndarray], cfg: EvaluateConfig) -> "Table":
    from astropy.table import Table

    edges = np.asarray(cfg.energy_edges_tev)
    i, j = (index.ravel() for index in np.indices((len(edges) - 1, len(edges) - 1)))
    table = Table(
        {
            "true_low_tev": edges[i],
            "true_high_tev": edges[i + 1],
            "reco_low_tev": edges[j],
            "reco_high_tev": edges[j + 1],
        }
    )
    for method, matrix in matrices.items():
        table[f"share_{method}"] = matrix[i, j]
    return table
