"""Figures of merit of frames that were judged without a truth, with intervals, tables and figures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from pipeline import statistics
from pipeline.config import EvaluateConfig
from pipeline.evaluation.comparison import NETWORK, Comparison, Metric, compare, merge_json
from pipeline.evaluation.result import Bin, CaptionedFigure, Result, bins_table, compare_in_bins, series_of
from pipeline.figures.without_truth import injected_stars, scatter
from pipeline.tasks.denoise.scores import NOISY
from pipeline.tasks.denoise.without_truth import INJECTED_SNR, LAGS, Checked, scatter_over_exposures

if TYPE_CHECKING:
    from astropy.table import Table

_FEWEST_STARS = 10
# Photon noise of fainter stars hides what a restoration does to them.
_BRIGHT_SNR = 50.0


def _mean_of(name: str) -> Metric:
    """Of the frames where it is defined; a bias or a correlation, the nearer to zero the better."""

    def statistic(prediction: Mapping[str, np.ndarray], weights: np.ndarray) -> np.ndarray:
        values = prediction[name]
        defined = np.isfinite(values)
        total = weights @ defined
        return (weights @ np.where(defined, values, 0)) / np.where(total > 0, total, np.nan)

    return Metric(name, "lower", statistic, absolute=True)


def _error(name: str, total: str, count: str) -> Metric:
    """Mean squared error of the pixels of all frames; negative values are possible, for it is a difference."""

    def statistic(prediction: Mapping[str, np.ndarray], weights: np.ndarray) -> np.ndarray:
        n_pixels = weights @ prediction[count]
        return (weights @ prediction[total]) / np.where(n_pixels > 0, n_pixels, np.nan)

    return Metric(name, "lower", statistic)


ERRORS = (_error("umse_sigma2", "error", "n_error"), _error("umse_sky_sigma2", "sky_error", "n_sky_error"))
RESIDUAL = (
    Metric("residual_width", "higher", _mean_of("residual_width").statistic),
    *(_mean_of(f"residual_correlation_{lag}") for lag in LAGS),
    _mean_of("residual_on_sources"),
)
RESPONSE = Metric("injected_bias", "lower", statistics.median, absolute=True)
SCATTER = Metric("star_scatter_mag", "lower", statistics.median)


def evaluate_unaided(checked: Sequence[Checked], cfg: EvaluateConfig, *, seed: int) -> Result:
    """Join frames that were judged without a truth into figures of merit, with intervals over frames or stars."""

    def compared(metrics: Sequence[Metric], columns: Mapping[str, object], groups: np.ndarray) -> Comparison:
        return compare(metrics, columns, groups, np.ones(len(groups)), n_resamples=cfg.bootstrap, seed=seed)

    frames = _columns_of_frames(checked)
    groups = np.arange(len(checked))
    with_exposures = bool(frames[NETWORK]["n_error"].sum() > 0)
    parts = [compared((*ERRORS, *RESIDUAL) if with_exposures else RESIDUAL, frames, groups).to_json()]
    bins: list[Bin] = []
    figures: list[CaptionedFigure] = []
    columns = {name: np.concatenate([one.injected[name] for one in checked]) for name in checked[0].injected}
    snr = columns.pop("snr")
    frame_of = np.repeat(groups, [len(one.injected["snr"]) for one in checked])
    if len(snr) >= _FEWEST_STARS:
        parts.append(compared((RESPONSE,), columns, frame_of).to_json())
        bins = _bins("injected_snr", snr, columns, frame_of, RESPONSE, compared)
        figures.append(_response_figure(bins))
    stars = scatter_over_exposures(list(checked))
    if stars:
        brightness = stars.pop("snr")
        numbers = np.arange(len(brightness))
        bright = brightness > _BRIGHT_SNR
        if bright.sum() >= _FEWEST_STARS:
            kept = {method: values[bright] for method, values in stars.items()}
            parts.append(compared((SCATTER,), kept, numbers[bright]).to_json())
        more = _bins("star_snr", brightness, stars, numbers, SCATTER, compared)
        figures.append(_scatter_figure(brightness, stars))
        bins += more
    return Result(content=merge_json(parts), bins=bins, tables=_tables(checked, bins), figures=figures)


def joined(one: Result, other: Result) -> Result:
    """Two results for the same frames as one."""
    tables = {**one.tables, **other.tables}
    bins = [*one.bins, *other.bins]
    return replace(
        one,
        content=merge_json([one.content, other.content]),
        bins=bins,
        tables=tables | {"bins": bins_table(bins)},
        figures=[*one.figures, *other.figures],
    )


def _columns_of_frames(checked: Sequence[Checked]) -> dict[str, dict[str, np.ndarray]]:
    methods = checked[0].per_method
    return {
        method: {name: np.array([one.per_method[method][name] for one in checked]) for name in methods[method]}
        for method in methods
    }


def _bins(
    by: str,
    values: np.ndarray,
    columns: Mapping[str, np.ndarray],
    groups: np.ndarray,
    metric: Metric,
    compared: Callable[[Sequence[Metric], Mapping[str, np.ndarray], np.ndarray], Comparison],
) -> list[Bin]:
    """Of stars of like signal-to-noise ratio, as they are added."""
    edges = (*(0.7 * snr for snr in INJECTED_SNR), np.inf)
    selections = [(low, high, (values >= low) & (values < high)) for low, high in pairwise(edges)]

    def compare_selected(inside: np.ndarray) -> Comparison | None:
        if inside.sum() < _FEWEST_STARS:
            return None
        return compared((metric,), {name: column[inside] for name, column in columns.items()}, groups[inside])

    return compare_in_bins(by, selections, compare_selected)


def _response_figure(bins: Sequence[Bin]) -> CaptionedFigure:
    return CaptionedFigure(
        "injected_stars.png",
        "Stars laid over the frames",
        "What became of the light of stars that were added to the recorded frames, with their photon noise, before "
        "they were restored: medians with 95 % intervals over frames. The grey band is ±0.5 %.",
        injected_stars(INJECTED_SNR, series_of(bins, RESPONSE.name)),
    )


def _scatter_figure(snr: np.ndarray, stars: Mapping[str, np.ndarray]) -> CaptionedFigure:
    return CaptionedFigure(
        "star_scatter.png",
        "Stars from exposure to exposure",
        "Scatter of each star's magnitude over the exposures of its field, in the same apertures on the frames as "
        "recorded and as restored. Points below the diagonal are stars that became steadier.",
        scatter(snr, stars[NOISY], stars[NETWORK]),
    )


def _tables(checked: Sequence[Checked], bins: Sequence[Bin]) -> "dict[str, Table]":
    from astropy.table import Table

    rows = [
        {"frame": one.name, "method": method, **numbers}
        for one in checked
        for method, numbers in one.per_method.items()
    ]
    return {"bins": bins_table(bins), "without_truth": Table(rows=rows)}
