"""Separation of gammas and hadrons: ROC, area under it, background kept; overall, per energy and per size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline import statistics
from pipeline.camera.baselines import FOREST
from pipeline.config import Config, EvaluateConfig
from pipeline.errors import TooFewEventsError
from pipeline.evaluation.comparison import NETWORK, Comparison, Metric, compare
from pipeline.evaluation.result import (
    Bin,
    CaptionedFigure,
    Predicts,
    Result,
    bins_table,
    compare_by_multiplicity,
    compare_in_bins,
    series_of,
)
from pipeline.evaluation.showers import camera_sample
from pipeline.evaluation.wording import by_multiplicity, minus_baselines
from pipeline.figures import classification, comparison
from pipeline.tasks.gammaness.baseline import ESTIMANDS, GAMMANESS
from pipeline.tasks.gammaness.spec import SPEC
from pipeline.tasks.gammaness.targets import GAMMA

#: Fewer than this many of a class say nothing about a bin.
FEWEST_OF_A_CLASS = 25
_QUANTITIES = (("area under the ROC curve", "auc"), ("hadrons kept at 80 % of the gammas", "background_at_80"))
_ROC_GRID = np.concatenate([[0.0], np.geomspace(1e-3, 1.0, 150)])


@dataclass(frozen=True)
class GammanessSample:
    """The test split as the methods see it.

    Attributes
    ----------
    is_gamma : ndarray of bool, shape (n,)
    scores : mapping
        Method -> gammaness, shape (n,).
    weights : ndarray, shape (n,)
        Make energy, offset and size alike between the classes.
    groups : ndarray, shape (n,)
        Shower of each image.
    true_energy_tev, true_offset_deg, size_pe : ndarray, shape (n,)
        The offset from the pointing may be NaN: such images are in no bin of it. Of events, the sizes of all images
        together.
    n_telescopes : ndarray of int, shape (n,), optional
        Of events that several telescopes saw; None for images.
    """

    is_gamma: np.ndarray
    scores: Mapping[str, np.ndarray]
    weights: np.ndarray
    groups: np.ndarray
    true_energy_tev: np.ndarray
    true_offset_deg: np.ndarray
    size_pe: np.ndarray
    n_telescopes: np.ndarray | None = None

    @property
    def items(self) -> str:
        """What is counted, for captions."""
        return "images" if self.n_telescopes is None else "events"

    def select(self, keep: np.ndarray) -> "GammanessSample":
        """The items where `keep` is true."""
        return GammanessSample(
            self.is_gamma[keep],
            {method: score[keep] for method, score in self.scores.items()},
            self.weights[keep],
            self.groups[keep],
            self.true_energy_tev[keep],
            self.true_offset_deg[keep],
            self.size_pe[keep],
            None if self.n_telescopes is None else self.n_telescopes[keep],
        )

    @property
    def too_small(self) -> bool:
        """Whether a class has too few images with weight."""
        counted = self.is_gamma[self.weights > 0]
        return min(int(counted.sum()), int((~counted).sum())) < FEWEST_OF_A_CLASS


def metrics_of(is_gamma: np.ndarray) -> tuple[Metric, ...]:
    """Figures of merit of a sample with these labels."""
    return (
        Metric("auc", "higher", lambda score, weights: statistics.auc(score, is_gamma, weights)),
        Metric(
            "background_at_80",
            "lower",
            lambda score, weights: statistics.background_at_efficiency(score, is_gamma, weights, 0.8),
        ),
    )


def judge(predictor: Predicts, manifests: Sequence[Any], cfg: Config) -> Result:
    """Compare network and baselines on the test split.

    Raises
    ------
    UserError
        If the tiles carry no truth, or a split has too few images or events.
    """
    items = camera_sample(SPEC, ESTIMANDS, predictor, manifests, cfg)
    scores, events = items.methods(GAMMANESS, lambda columns: columns["gammaness"]), items.events
    sample = GammanessSample(
        is_gamma=events["true_primary_id"] == GAMMA,
        scores=scores,
        weights=events["weights"],
        groups=events["group"],
        true_energy_tev=events["true_energy_tev"],
        true_offset_deg=events.get("true_offset_deg", np.full(len(events["weights"]), np.nan)),
        size_pe=events["hillas_intensity"],
        n_telescopes=events.get("n_telescopes"),
    )
    columns = {f"gammaness_{method}": values for method, values in scores.items()}
    return items.complete(evaluate_gammaness(sample, cfg.evaluate, seed=cfg.seed), columns, units={})


def evaluate_gammaness(sample: GammanessSample, cfg: EvaluateConfig, *, seed: int) -> Result:
    """Compare the methods on the test split.

    Raises
    ------
    TooFewEventsError
        If a class has fewer than 25 images with weight.
    """
    if sample.too_small:
        counted = sample.is_gamma[sample.weights > 0]
        raise TooFewEventsError(
            f"the test split has {int(counted.sum())} gammas and {int((~counted).sum())} hadrons with weight; "
            f"at least {FEWEST_OF_A_CLASS} of each are needed: simulate more runs or loosen tiles.camera.cuts"
        )

    def compare_selected(keep: np.ndarray) -> Comparison | None:
        part = sample.select(keep)
        return None if part.too_small else _compare(part, cfg, seed)

    energy_bins = compare_in_bins(
        "true_energy_tev", statistics.bins_of(sample.true_energy_tev, cfg.energy_edges_tev), compare_selected
    )
    offset_bins = compare_in_bins(
        "true_offset_deg", statistics.bins_of(sample.true_offset_deg, cfg.offset_edges_deg), compare_selected
    )
    size_bins = compare_in_bins(
        "hillas_intensity_pe", [(cut, np.inf, sample.size_pe > cut) for cut in cfg.size_cuts_pe], compare_selected
    )
    overall = _compare(sample, cfg, seed)
    multiplicity_bins = compare_by_multiplicity(sample.n_telescopes, compare_selected)
    bins = [*energy_bins, *offset_bins, *size_bins, *multiplicity_bins]
    figures = [
        *_figures_overall(sample, overall, cfg, seed),
        *_figures_by_energy(sample, energy_bins, cfg, seed),
        _figure_by_offset(offset_bins),
        *_figures_by_size(sample, size_bins, cfg, seed),
        *by_multiplicity("auc", "Area under the ROC curve and background", multiplicity_bins, _QUANTITIES),
    ]
    return Result(content=overall.to_json(), bins=bins, tables={"bins": bins_table(bins)}, figures=figures)


def _compare(sample: GammanessSample, cfg: EvaluateConfig, seed: int) -> Comparison:
    return compare(
        metrics_of(sample.is_gamma),
        sample.scores,
        sample.groups,
        sample.weights,
        n_resamples=cfg.bootstrap,
        seed=seed,
    )


# ---- figures ----------------------------------------------------------------------------------------------
def _figures_overall(
    sample: GammanessSample, overall: Comparison, cfg: EvaluateConfig, seed: int
) -> list[CaptionedFigure]:
    everything = [(f"all {sample.items}", overall, np.ones(len(sample.is_gamma), bool))]
    return [
        CaptionedFigure(
            "roc.png",
            "ROC curve",
            "Share of the gammas kept against share of the hadrons kept as the cut on gammaness is loosened; the "
            "nearer to the upper left corner the better, the dashed diagonal is guessing. Bands: 95 % of the "
            "resampled showers.",
            classification.roc([(t, _curves(sample.select(k), c, cfg, seed, band=True)) for t, c, k in everything]),
        ),
        CaptionedFigure(
            "gammaness.png",
            "Distribution of gammaness",
            "Gammas belong at 1, hadrons at 0; what overlaps cannot be told apart. Filled with statistical error bars: "
            "the network; dashed: the forest. Each class has area 1.",
            classification.gammaness_distributions(
                [(t, _distributions(sample.select(k), c)) for t, c, k in everything]
            ),
        ),
    ]


def _figures_by_energy(
    sample: GammanessSample, bins: list[Bin], cfg: EvaluateConfig, seed: int
) -> list[CaptionedFigure]:
    selections = statistics.bins_of(sample.true_energy_tev, cfg.energy_edges_tev)
    by_energy = [
        (f"{b.low:g} to {b.high:g} TeV", b.comparison, keep) for b, (_, _, keep) in zip(bins, selections, strict=True)
    ]
    return [
        CaptionedFigure(
            "roc_by_energy.png",
            "ROC curves in bands of true energy",
            "Gammas and hadrons of the same true energy. A hadron gives less light than a gamma of its energy: what an "
            "observer can select is the size of the images, further below.",
            classification.roc([(t, _curves(sample.select(k), c, cfg, seed)) for t, c, k in by_energy]),
        ),
        CaptionedFigure(
            "gammaness_by_energy.png",
            "Distribution of gammaness in bands of true energy",
            "As above, per band: separation improves with the light in the image.",
            classification.gammaness_distributions([(t, _distributions(sample.select(k), c)) for t, c, k in by_energy]),
        ),
        CaptionedFigure(
            "auc_by_energy.png",
            "Area under the ROC curve and background against true energy",
            "Above: area under the ROC curve (higher is better) and share of hadrons kept with 80 % of the gammas "
            f"(lower is better), with 95 % intervals over showers. Below: {minus_baselines(sample.items)}; an interval "
            "that leaves out zero is a real difference.",
            comparison.in_energy_bins(
                [(text, series_of(bins, name)) for text, name in _QUANTITIES],
            ),
        ),
    ]


def _figure_by_offset(bins: list[Bin]) -> CaptionedFigure:
    return CaptionedFigure(
        "auc_by_offset.png",
        "Area under the ROC curve and background against the offset from the pointing",
        "As against energy, for all energies together; of hadrons, the offset is that of their own direction.",
        comparison.in_offset_bins([(text, series_of(bins, name)) for text, name in _QUANTITIES]),
    )


def _figures_by_size(sample: GammanessSample, bins: list[Bin], cfg: EvaluateConfig, seed: int) -> list[CaptionedFigure]:
    panels = [(f"size > {b.low:g} p.e.", b.comparison, sample.size_pe > b.low) for b in bins]
    items = sample.items
    size = "image size [p.e.]" if items == "images" else "size of all images of the event [p.e.]"
    return [
        CaptionedFigure(
            "auc_by_size.png",
            f"Area under the ROC curve for {items} above a size",
            f"The selection that an observer can make. Each point holds all {items} brighter than the threshold, so "
            "that the points are not independent.",
            comparison.by_threshold("area under the ROC curve", size, series_of(bins, "auc")),
        ),
        CaptionedFigure(
            "roc_by_size.png",
            f"ROC curves for {items} above a size",
            "The same selections as curves.",
            classification.roc([(t, _curves(sample.select(k), c, cfg, seed)) for t, c, k in panels]),
        ),
    ]


def _curves(
    sample: GammanessSample, compared: Comparison | None, cfg: EvaluateConfig, seed: int, *, band: bool = False
) -> dict[str, classification.RocCurve]:
    if compared is None:
        return {}
    curves = {}
    for method, score in sample.scores.items():
        area = compared.estimate(method, "auc")
        background, signal = statistics.roc_curve(score, sample.is_gamma, sample.weights)
        if not band:
            curves[method] = classification.RocCurve(background, signal, area)
            continue
        # The curve of each resample at common background efficiencies.
        estimates = statistics.bootstrap(
            lambda weights, score=score: _signal_at(score, sample.is_gamma, weights),
            sample.groups,
            sample.weights,
            n_resamples=min(cfg.bootstrap, 200),
            seed=seed,
        )
        curves[method] = classification.RocCurve(
            _ROC_GRID,
            np.array([e.value for e in estimates]),
            area,
            np.array([e.low for e in estimates]),
            np.array([e.high for e in estimates]),
        )
    return curves


def _signal_at(score: np.ndarray, is_gamma: np.ndarray, weights: np.ndarray) -> np.ndarray:
    backgrounds, signals = statistics.roc_curve(score, is_gamma, weights)
    return np.stack([np.interp(_ROC_GRID, b, s) for b, s in zip(backgrounds, signals, strict=True)])


def _distributions(sample: GammanessSample, compared: Comparison | None) -> dict[str, classification.GammanessSample]:
    if compared is None:
        return {}
    gamma = sample.is_gamma
    return {
        method: classification.GammanessSample(
            score[gamma], sample.weights[gamma], score[~gamma], sample.weights[~gamma]
        )
        for method, score in sample.scores.items()
        if method in (NETWORK, FOREST)
    }
