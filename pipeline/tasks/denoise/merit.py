"""Scores of restored sky frames to figures of merit with intervals, tables and figures."""

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline import statistics
from pipeline.bundle.variance import summaries
from pipeline.config import EvaluateConfig
from pipeline.evaluation.comparison import NETWORK, Comparison, Metric, compare, merge_json
from pipeline.evaluation.result import Bin, CaptionedFigure, Result, bins_table, compare_in_bins, series_of
from pipeline.figures import denoise
from pipeline.tasks.denoise.confidence import KINDS
from pipeline.tasks.denoise.scores import SHOWN_SNR, Score

FALSE_ALARM_RATE = 0.0005

#: Stars that count for the flux metrics: their own photon noise is then below 5 %.
STAR_SNR = 20.0
# Detected on the very frame that is compared: a star that noise made brighter is preferred. At this signal-to-noise
# ratio the effect is below 0.1 %.
PAIR_STAR_SNR = 40.0
FEWEST_STARS = 10

_UNIT_SUFFIX = {"electron": "e", "adu": "adu"}


# ---- all fields ------------------------------------------------------------------------------------------------------
def _mean(name: str) -> Metric:
    return Metric(name, "higher", lambda prediction, weights: statistics.mean(prediction[name], weights))


def _root_mean_square(name: str, sum_of_squares: str, count: str) -> Metric:
    """Pooled over the pixels of all fields."""

    def statistic(prediction: Mapping[str, np.ndarray], weights: np.ndarray) -> np.ndarray:
        n_pixels = weights @ prediction[count]
        return np.sqrt((weights @ prediction[sum_of_squares]) / np.where(n_pixels > 0, n_pixels, np.nan))

    return Metric(name, "lower", statistic)


FLUX_BIAS = Metric("flux_bias", "lower", statistics.median, absolute=True)
FLUX_SCATTER = Metric("flux_scatter", "lower", statistics.containment)


def evaluate_against_truth(scores: Sequence[Score], cfg: EvaluateConfig, *, seed: int) -> Result:
    """Join the fields of the test split into figures of merit with intervals over fields.

    Parameters
    ----------
    scores : sequence of Score
        From `frame_scores.score_against_truth`.
    cfg : EvaluateConfig
    seed : int
    """
    suffix = _UNIT_SUFFIX.get(scores[0].unit, "sci")
    metrics = (
        _mean("psnr_db"),
        _mean("psnr_clean_pixels_db"),
        _mean("ssim"),
        _root_mean_square(f"defect_rmse_{suffix}", "defect_sse", "n_defect"),
        _root_mean_square("sky_rms_sigma", "empty_sse", "n_empty"),
    )
    fields = _compare_fields(metrics, scores, cfg, seed)
    detection = compare(
        (Metric(f"tpr_at_fpr_{FALSE_ALARM_RATE:g}", "higher", _detection_rate),),
        {NETWORK: (_stacked(scores, "defect_counts"), _stacked(scores, "good_counts"))},
        np.arange(len(scores)),
        np.ones(len(scores)),
        n_resamples=cfg.bootstrap,
        seed=seed,
    )
    stars = _Stars(scores)
    parts = [fields.to_json(), detection.to_json()]
    bins: list[Bin] = []
    figures = [_cutout_figure(scores, "truth")]
    if stars.enough(STAR_SNR):
        parts += [stars.compare((FLUX_BIAS,), stars.bright(STAR_SNR) & stars.clear, cfg, seed).to_json()]
        parts += [stars.compare((FLUX_SCATTER,), stars.bright(STAR_SNR), cfg, seed).to_json()]
        bins = stars.bins(stars.clear, cfg, seed)
        figures.append(_flux_figure(stars, bins, stars.clear, "true flux", "magnitude"))
    pulls = np.concatenate([score.pulls for score in scores])
    low, middle, high = np.quantile(pulls, [0.158655, 0.5, 0.841345])
    figures.append(_pull_figure(pulls, float(middle), float(high - low) / 2))
    content = merge_json(parts)
    by_stratum = summaries(sum(score.pull_counts for score in scores), KINDS)
    content["calibration"] = {
        "pull_median": float(middle),
        "pull_width": float(high - low) / 2,
        "strata": {name: entry.model_dump() for name, entry in by_stratum.items()},
    }
    return Result(content=content, bins=bins, tables=_tables(scores, stars, bins), figures=figures)


def evaluate_against_exposures(scores: Sequence[Score], cfg: EvaluateConfig, *, seed: int) -> Result:
    """The same without a truth: scores from `frame_scores.score_against_exposures`."""
    suffix = _UNIT_SUFFIX.get(scores[0].unit, "sci")
    metrics = (
        _root_mean_square(f"n2n_rms_{suffix}", "pair_sse", "n_pair"),
        _root_mean_square(f"n2n_sky_rms_{suffix}", "pair_sky_sse", "n_pair_sky"),
    )
    fields = _compare_fields(metrics, scores, cfg, seed)
    stars = _Stars(scores)
    parts = [fields.to_json()]
    bins: list[Bin] = []
    figures = [_cutout_figure(scores, "other exposure")]
    if stars.enough(PAIR_STAR_SNR):
        parts += [stars.compare((FLUX_BIAS, FLUX_SCATTER), stars.bright(PAIR_STAR_SNR), cfg, seed).to_json()]
        bins = stars.bins(stars.bright(PAIR_STAR_SNR), cfg, seed)
        label = "instrumental magnitude, −2.5 log10 of the flux"
        figures.append(_flux_figure(stars, bins, stars.bright(SHOWN_SNR), "flux as recorded", label))
    return Result(content=merge_json(parts), bins=bins, tables=_tables(scores, stars, bins), figures=figures)


def _compare_fields(metrics: Sequence[Metric], scores: Sequence[Score], cfg: EvaluateConfig, seed: int) -> Comparison:
    names = list(scores[0].per_method[NETWORK])
    predictions = {
        method: {name: np.array([score.per_method[method][name] for score in scores]) for name in names}
        for method in scores[0].per_method
    }
    n = len(scores)
    return compare(metrics, predictions, np.arange(n), np.ones(n), n_resamples=cfg.bootstrap, seed=seed)


def _stacked(scores: Sequence[Score], name: str) -> np.ndarray:
    return np.stack([getattr(score, name) for score in scores])


def _detection_rate(counts: tuple[np.ndarray, np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Share of defect pixels above the threshold that `FALSE_ALARM_RATE` of the good pixels pass."""
    # Cumulated from the highest probability down: one step of the ROC curve per bin.
    detections, alarms = (np.cumsum((weights @ part)[:, ::-1], axis=1) for part in counts)
    with np.errstate(invalid="ignore", divide="ignore"):
        rates, false_rates = detections / detections[:, -1:], alarms / alarms[:, -1:]
    return np.array([np.interp(FALSE_ALARM_RATE, f, r) for f, r in zip(false_rates, rates, strict=True)])


class _Stars:
    """The stars of all fields."""

    def __init__(self, scores: Sequence[Score]) -> None:
        names = list(scores[0].stars)
        columns = {name: np.concatenate([score.stars[name] for score in scores]) for name in names}
        self.magnitude, self.snr = columns.pop("magnitude"), columns.pop("snr")
        self.clear = columns.pop("clear").astype(bool)
        self.errors = columns
        self.group = np.repeat(np.arange(len(scores)), [len(score.stars["snr"]) for score in scores])

    def bright(self, snr: float) -> np.ndarray:
        """Stars above a signal-to-noise ratio."""
        return self.snr > snr

    def enough(self, snr: float) -> bool:
        """Whether there is anything to say about fluxes."""
        return int((self.bright(snr) & self.clear).sum()) >= FEWEST_STARS

    def compare(self, metrics: Sequence[Metric], keep: np.ndarray, cfg: EvaluateConfig, seed: int) -> Comparison:
        """Flux metrics of the stars in `keep`, over fields."""
        predictions = {method: error[keep] for method, error in self.errors.items()}
        n = int(keep.sum())
        return compare(metrics, predictions, self.group[keep], np.ones(n), n_resamples=cfg.bootstrap, seed=seed)

    def bins(self, keep: np.ndarray, cfg: EvaluateConfig, seed: int) -> list[Bin]:
        """Flux bias in whole magnitudes."""
        shown = self.magnitude[keep]
        edges = np.arange(np.floor(shown.min()), np.ceil(shown.max()) + 1)
        edges = edges if len(edges) > 1 else np.array([edges[0], edges[0] + 1])
        selections = [(low, high, inside & keep) for low, high, inside in statistics.bins_of(self.magnitude, edges)]

        def compare_selected(inside: np.ndarray) -> Comparison | None:
            return self.compare((FLUX_BIAS,), inside, cfg, seed) if inside.sum() >= FEWEST_STARS else None

        return compare_in_bins("magnitude", selections, compare_selected)


# ---- figures and tables ----------------------------------------------------------------------------------------------
def _cutout_figure(scores: Sequence[Score], reference: str) -> CaptionedFigure:
    spread = np.unique(np.linspace(0, len(scores) - 1, 4).astype(int))
    text = (
        "Places with defects in test frames: as recorded, restored, "
        + ("truth" if reference == "truth" else "another exposure of the same place (with noise of its own)")
        + ", and what is left between the last two in units of the background noise. Grey: missing data. "
    )
    text += (
        "A good restoration leaves no star and no track in the last column."
        if reference == "truth"
        else "The last column should be noise alone: that of the other exposure."
    )
    figure = denoise.cutouts([scores[i].cutout for i in spread], truth_label=reference)
    return CaptionedFigure("cutouts.png", "Before and after", text, figure)


def _flux_figure(
    stars: _Stars, bins: Sequence[Bin], keep: np.ndarray, reference: str, magnitude_label: str
) -> CaptionedFigure:
    figure = denoise.flux_bias(
        stars.magnitude[keep],
        {method: error[keep] for method, error in stars.errors.items()},
        series_of(bins, "flux_bias"),
        magnitude_label=magnitude_label,
        reference=reference,
    )
    return CaptionedFigure(
        "flux_bias.png",
        "Flux of the stars",
        f"Relative error of each star's aperture flux against the {reference}, in the same aperture; black: medians "
        "per magnitude with 95 % intervals over fields. The grey band is ±1 %. A method that eats light lies below "
        "zero; a trend with magnitude would bend a light curve.",
        figure,
    )


def _pull_figure(pulls: np.ndarray, median: float, width: float) -> CaptionedFigure:
    return CaptionedFigure(
        "pull.png",
        "Stated errors",
        "Error of restored good pixels divided by the uncertainty that the network states (its ERR plane). Where it "
        "follows the dashed unit Gaussian, the stated uncertainty can be used.",
        denoise.pull(pulls, width=width, median=median),
    )


def _tables(scores: Sequence[Score], stars: _Stars, bins: Sequence[Bin]):
    from astropy.table import Table

    rows = [
        {"field": score.name, "method": method, **numbers}
        for score in scores
        for method, numbers in score.per_method.items()
    ]
    names = np.array([score.name for score in scores])
    errors = {f"flux_error_{method}": error for method, error in stars.errors.items()}
    return {
        "bins": bins_table(bins),
        "fields": Table(rows=rows),
        "stars": Table(
            {"field": names[stars.group], "magnitude": stars.magnitude, "snr": stars.snr, "clear": stars.clear} | errors
        ),
    }
