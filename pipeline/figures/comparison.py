"""Methods side by side in bins, with the paired difference below."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.figures import style
from pipeline.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Series:
    """One quantity of several methods, in bins.

    Attributes
    ----------
    edges : sequence of (float, float)
        Limits of each bin.
    methods : mapping
        Method -> one Estimate per bin; NaN where a bin has too few items.
    differences : mapping
        Baseline -> network minus baseline, one Estimate per bin.
    names : sequence of str
        Of the bins, where their limits do not say what they hold.
    """

    edges: Sequence[tuple[float, float]]
    methods: Mapping[str, Sequence[Estimate]]
    differences: Mapping[str, Sequence[Estimate]] = field(default_factory=dict)
    names: Sequence[str] = ()


@style.styled
def in_energy_bins(
    quantities: Sequence[tuple[str, Series]],
    *,
    reference: Mapping[int, float] | None = None,
    published: Mapping[int, Mapping[str, Any] | None] | None = None,
) -> "Figure":
    """Quantities against true energy, one panel each, the paired difference to the baseline below each.

    Parameters
    ----------
    quantities : sequence of (str, Series)
        Axis label and values.
    reference : mapping, optional
        Panel index -> value of a reference line (0 for a bias).
    published : mapping, optional
        Panel index -> a curve of `pipeline.figures.published`; None for none.
    """
    return _in_bins(quantities, "true energy [TeV]", reference or {}, published or {}, logarithmic=True)


@style.styled
def in_offset_bins(quantities: Sequence[tuple[str, Series]]) -> "Figure":
    """Quantities against the true offset from the pointing, laid out as `in_energy_bins`."""
    return _in_bins(quantities, "true offset from the pointing [deg]", {}, {}, logarithmic=False)


@style.styled
def in_multiplicity_bins(quantities: Sequence[tuple[str, Series]]) -> "Figure":
    """Quantities for events of 2, 3, 4 ... telescopes, laid out as `in_energy_bins`."""
    figure = style.new_figure(4.6 * len(quantities), 4.8)
    grid = figure.subplots(2, len(quantities), squeeze=False, sharex=True, height_ratios=(3, 1.2))
    for (upper, lower), (name, series) in zip(grid.T, quantities, strict=True):
        _draw_at_positions(upper, lower, series)
        upper.set_ylabel(name)
        lower.set_xticks(np.arange(len(series.names)), series.names)
        lower.set_xlim(-0.5, len(series.names) - 0.5)
        lower.set_xlabel("telescopes")
    grid[1, 0].set_ylabel("network −\nbaseline")
    _legend_above(figure, list(grid[0]))
    return figure


def _in_bins(
    quantities: Sequence[tuple[str, Series]],
    label: str,
    reference: Mapping[int, float],
    published: Mapping[int, Mapping[str, Any] | None],
    *,
    logarithmic: bool,
) -> "Figure":
    figure = style.new_figure(4.6 * len(quantities), 4.8)
    grid = figure.add_gridspec(2, len(quantities), height_ratios=(3, 1.2))
    panels = []
    for column, (name, series) in enumerate(quantities):
        upper = figure.add_subplot(grid[0, column])
        lower = figure.add_subplot(grid[1, column], sharex=upper)
        panels.append(upper)
        draw_series(upper, series, logarithmic=logarithmic)
        if column in reference:
            upper.axhline(reference[column], **style.REFERENCE)
        _draw_published(upper, published.get(column), (series.edges[0][0], series.edges[-1][1]))
        upper.set_ylabel(name)
        upper.tick_params(labelbottom=False)
        draw_differences(lower, series, logarithmic=logarithmic)
        lower.set_xlabel(label)
        lower.set_xlim(series.edges[0][0], series.edges[-1][1])
        if logarithmic:
            lower.set_xscale("log")
            edges = sorted({edge for pair in series.edges for edge in pair})
            style.plain_log_axis(lower.xaxis, edges if len(edges) < 10 else edges[::2])
        if column == 0:
            lower.set_ylabel("network −\nbaseline")
    _legend_above(figure, panels)
    return figure


def _legend_above(figure: "Figure", panels: Sequence["Axes"]) -> None:
    """One legend for all panels, in as many lines as it needs: methods, which have error bars, before bare lines."""
    from matplotlib.lines import Line2D

    entries: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    entries = dict(sorted(entries.items(), key=lambda entry: isinstance(entry[1], Line2D)))
    n_rows = max(-(-len(entries) // (2 * len(panels))), 1)  # a panel is as wide as two labels
    n_columns = max(-(-len(entries) // n_rows), 1)
    figure.legend(entries.values(), entries.keys(), loc="outside upper center", ncols=n_columns)


def _draw_published(axes: "Axes", curve: Mapping[str, Any] | None, limits: tuple[float, float]) -> None:
    """A published curve between the limits of the bins; single points as crosses."""
    points = np.array([] if curve is None else curve["points"], float).reshape(-1, 2)
    points = points[(points[:, 0] >= limits[0]) & (points[:, 0] <= limits[1])]
    if len(points):
        looks = {"linestyle": (0, (5, 2))} if len(points) > 1 else {"marker": "x", "linestyle": "none"}
        axes.plot(*points.T, color="0.35", linewidth=1.2, zorder=1, label=curve["name"], **looks)


def draw_series(axes: "Axes", series: Series, *, logarithmic: bool = True) -> None:
    """Points with intervals; bars across the bins; methods shifted slightly to keep them distinguishable."""
    n_methods = len(series.methods)
    for k, (method, estimates) in enumerate(series.methods.items()):
        shift = (k - (n_methods - 1) / 2) * 0.16
        x = _between(series, 0.5 + shift, logarithmic=logarithmic)
        _points(axes, x, estimates, method, label=style.label(method))


def draw_differences(axes: "Axes", series: Series, *, logarithmic: bool = True) -> None:
    """Network minus each baseline with its interval, around the line of no difference."""
    axes.axhline(0, **style.REFERENCE)
    n_baselines = len(series.differences)
    for k, (baseline, estimates) in enumerate(series.differences.items()):
        share = 0.5 + (k - (n_baselines - 1) / 2) * 0.16
        _points(axes, _between(series, share, logarithmic=logarithmic), estimates, baseline, label=None)
    axes.locator_params(axis="y", nbins=4)


def _between(series: Series, share: float, *, logarithmic: bool) -> np.ndarray:
    """The place of each bin at this share of the way from its lower edge to its upper one."""
    low, high = np.array(series.edges, float).T
    return low ** (1 - share) * high**share if logarithmic else low + share * (high - low)


def _points(axes: "Axes", x: np.ndarray, estimates: Sequence[Estimate], method: str, label: str | None) -> None:
    value, low, high = (np.array([getattr(e, part) for e in estimates]) for part in ("value", "low", "high"))
    # A percentile interval need not contain the value itself when a bin is small.
    errors = np.maximum(np.stack([value - low, high - value]), 0)
    axes.errorbar(
        x, value, errors, fmt=style.marker(method), color=style.color(method), markersize=4.5, lw=1.2, label=label
    )  # fmt: skip


def _draw_at_positions(upper: "Axes", lower: "Axes", series: Series) -> None:
    """Methods above and differences below, one place for each bin."""
    positions = np.arange(len(series.edges), dtype=float)
    n_methods = len(series.methods)
    for k, (method, estimates) in enumerate(series.methods.items()):
        _points(upper, positions + (k - (n_methods - 1) / 2) * 0.12, estimates, method, label=style.label(method))
    lower.axhline(0, **style.REFERENCE)
    n_baselines = len(series.differences)
    for k, (baseline, estimates) in enumerate(series.differences.items()):
        _points(lower, positions + (k - (n_baselines - 1) / 2) * 0.12, estimates, baseline, label=None)
    lower.locator_params(axis="y", nbins=4)


@style.styled
def by_threshold(name: str, threshold_label: str, series: Series) -> "Figure":
    """A quantity for the items above each of several thresholds: each point includes those to its right."""
    figure = style.new_figure(4.6, 4.8)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.2))
    _draw_at_positions(upper, lower, series)
    lower.set_xticks(np.arange(len(series.edges)), [f"> {low:g}" for low, _ in series.edges])
    lower.set_xlim(-0.5, len(series.edges) - 0.5)
    upper.set_ylabel(name)
    upper.legend(loc="best")
    lower.set_ylabel("network −\nbaseline")
    lower.set_xlabel(threshold_label)
    return figure
