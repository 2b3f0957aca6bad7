"""Energy of gammas: bias, resolution and migration, overall and per true energy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import statistics
from pipeline.camera.baselines import Estimand
from pipeline.config import Config, EvaluateConfig
from pipeline.errors import TooFewEventsError
from pipeline.evaluation.comparison import NETWORK, Comparison, Metric, compare
from pipeline.evaluation.images import FOREST, image_sample
from pipeline.evaluation.result import (
    Bin,
    CaptionedFigure,
    Predicts,
    Result,
    bins_table,
    compare_in_bins,
    series_of,
)
from pipeline.figures import comparison, energy
from pipeline.tasks.energy.spec import SPEC

if TYPE_CHECKING:
    from astropy.table import Table

FEWEST_IMAGES = 25
_ESTIMANDS = {
    "log10_energy": Estimand(lambda events: np.log10(events["true_energy_tev"]), columns=("true_energy_tev",))
}


@dataclass(frozen=True)
class EnergySample:
    """The gammas of the test split as the methods see them.

    Attributes
    ----------
    true_tev : ndarray, shape (n,)
    reco_tev : mapping
        Method -> reconstructed energy, shape (n,).
    uncert_tev : ndarray, shape (n,)
        Uncertainty that the network states; NaN where it states none.
    weights, groups : ndarray, shape (n,)
    """

    true_tev: np.ndarray
    reco_tev: Mapping[str, np.ndarray]
    uncert_tev: np.ndarray
    weights: np.ndarray
    groups: np.ndarray

    @property
    def log10_residual(self) -> dict[str, np.ndarray]:
        """Method -> log10(E_reco / E_true), shape (n,)."""
        return {method: np.log10(reco / self.true_tev) for method, reco in self.reco_tev.items()}


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
    """Compare network and forest on the gammas of the test split.

    Raises
    ------
    UserError
        If the tiles carry no truth, or a split has too few images.
    """
    images = image_sample(SPEC, _ESTIMANDS, predictor, manifests, cfg)
    log10_energy = images.methods("log10_energy", np.log10(images.predicted["reco_energy_tev"]))
    reco_tev = {method: 10.0**values for method, values in log10_energy.items()}
    uncert_tev = images.predicted["reco_energy_uncert_tev"]
    events = images.events
    sample = EnergySample(events["true_energy_tev"], reco_tev, uncert_tev, events["weights"], events["group"])
    columns = {f"reco_energy_tev_{method}": values for method, values in reco_tev.items()}
    columns["reco_energy_uncert_tev_network"] = uncert_tev
    return images.complete(
        evaluate_energy(sample, cfg.evaluate, seed=cfg.seed), columns, units=dict.fromkeys(columns, "TeV")
    )


def evaluate_energy(sample: EnergySample, cfg: EvaluateConfig, *, seed: int) -> Result:
    """Compare the methods on the test split.

    Raises
    ------
    TooFewEventsError
        If the test split has fewer than 25 gammas with weight.
    """
    n_counted = int(np.count_nonzero(sample.weights))
    if n_counted < FEWEST_IMAGES:
        raise TooFewEventsError(
            f"the test split has {n_counted} gammas with weight; at least {FEWEST_IMAGES} are needed: simulate more "
            "runs or loosen tiles.camera.cuts"
        )
    residual = sample.log10_residual

    def compare_selected(keep: np.ndarray) -> Comparison | None:
        if np.count_nonzero(sample.weights[keep]) < FEWEST_IMAGES:
            return None
        return compare(
            METRICS,
            {method: values[keep] for method, values in residual.items()},
            sample.groups[keep],
            sample.weights[keep],
            n_resamples=cfg.bootstrap,
            seed=seed,
        )

    overall = compare_selected(np.ones(len(sample.true_tev), bool))
    assert overall is not None
    bins = compare_in_bins(
        "true_energy_tev", statistics.bins_of(sample.true_tev, cfg.energy_edges_tev), compare_selected
    )
    matrices = {
        method: statistics.migration_matrix(sample.true_tev, reco, sample.weights, cfg.energy_edges_tev)[0]
        for method, reco in sample.reco_tev.items()
        if method in (NETWORK, FOREST)
    }
    return Result(
        content=overall.to_json() | {"calibration": _calibration(sample)},
        bins=bins,
        tables={"bins": bins_table(bins), "migration": _migration_table(matrices, cfg)},
        figures=_figures(sample, bins, matrices, cfg),
    )


def _figures(
    sample: EnergySample, bins: Sequence[Bin], matrices: Mapping[str, np.ndarray], cfg: EvaluateConfig
) -> list[CaptionedFigure]:
    return [
        CaptionedFigure(
            "energy_performance.png",
            "Energy bias and resolution against true energy",
            "Left: median of E_reco/E_true − 1 (0 is best). Right: the relative error that 68 % of the images stay "
            "within, bias included (lower is better). 95 % intervals over showers. Below: network minus forest on "
            "the same images, resampled in pairs (of the bias, the absolute value); below zero the network is "
            "better. At both ends of the range every method is biased towards the energies that it was trained on.",
            comparison.in_energy_bins(
                [
                    (r"bias: median of E$_\mathrm{reco}$/E$_\mathrm{true}$ − 1", series_of(bins, "energy_bias")),
                    ("resolution: 68 % containment", series_of(bins, "energy_resolution")),
                ],
                reference={0: 0.0},
            ),
        ),
        CaptionedFigure(
            "energy_migration.png",
            "Migration matrix",
            "How the images of each true energy (a column of the picture) spread over the reconstructed energies. "
            "A perfect method would fill the diagonal alone.",
            energy.migration(matrices, cfg.energy_edges_tev),
        ),
        CaptionedFigure(
            "energy_residuals.png",
            "Distribution of the energy error",
            "All test gammas. Narrow and centred on zero is good; its rms is log10_energy_rms.",
            energy.energy_residuals(sample.true_tev, sample.reco_tev, sample.weights),
        ),
    ]


def _calibration(sample: EnergySample) -> dict[str, float]:
    """Whether the stated uncertainty is right: the pull's median should be 0, its width 1."""
    stated = np.isfinite(sample.uncert_tev) & (sample.uncert_tev > 0) & (sample.weights > 0)
    if not stated.any():
        return {}
    reco, weights = sample.reco_tev[NETWORK][stated], sample.weights[stated]
    sigma_log10 = sample.uncert_tev[stated] / (reco * np.log(10.0))
    pull = np.log10(reco / sample.true_tev[stated]) / sigma_log10
    low, middle, high = (float(statistics.quantile(pull, q, weights)) for q in (0.158655, 0.5, 0.841345))
    return {"pull_median": middle, "pull_width": (high - low) / 2}


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
