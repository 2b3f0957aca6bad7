"""Instrument response functions: area, energy dispersion, point spread, background, sensitivity against energy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Bins = Sequence[Mapping[str, Any]]
Entries = Mapping[str, Mapping[str, Bins]]  # method -> kind of gammas -> bins
References = Sequence[Mapping[str, Any]]

_TITLES = {"point_source": "gammas of a point source", "diffuse": "diffuse gammas"}
_TRUE, _RECONSTRUCTED = "true energy [TeV]", "reconstructed energy [TeV]"
_REFERENCE_LINES = ((0, (5, 2)), (0, (1, 1.5)), (0, (4, 1, 1, 1)), "-", (0, (2, 1)))
_REFERENCE_MARKERS = "xd*+1"
_MIN_BACKGROUND = 10
_TICKS_TEV = [factor * 10.0**power for power in range(-2, 3) for factor in (1, 2, 5)]


@dataclass(frozen=True)
class _Series:
    """Bins of one method at one offset, and how they look."""

    label: str
    color: Any
    bins: Bins
    marker: str = style.MARKERS["network"]
    line: Any = "-"


def _series(entries: Entries, kind: str, name: str) -> list[_Series]:
    """Of each offset that has the quantity `name`; of a baseline, the innermost one."""
    found = _offsets(entries["network"][kind], kind, name)
    if len(entries) > 1:
        found = [replace(shown, label=f"network, {shown.label}") for shown in found]
    for method, kinds in entries.items():
        if method != "network" and (inner := _offsets(kinds.get(kind, ()), kind, name)[:1]):
            look = {"color": style.COLORS[method], "marker": style.MARKERS[method], "line": (0, (4, 2))}
            found.append(replace(inner[0], label=f"{method}, {inner[0].label}", **look))
    return found


def _offsets(bins: Bins, kind: str, name: str) -> list[_Series]:
    import matplotlib as mpl

    having = [entry for entry in bins if name in entry]
    offsets = sorted({(entry["offset_low_deg"], entry["offset_high_deg"]) for entry in having})
    found = []
    for i, (near, far) in enumerate(offsets):
        here = [entry for entry in having if (entry["offset_low_deg"], entry["offset_high_deg"]) == (near, far)]
        # A map without orange, which is the forests'.
        color = mpl.colormaps["viridis"](0.85 * i / max(1, len(offsets) - 1))
        if kind == "point_source":
            found.append(_Series(f"at {(near + far) / 2:g}°", style.COLORS["network"], here))
        else:
            found.append(_Series(f"{near:.3g} to {far:.3g}°", color, here))
    return found


def _draw(
    axes: "Axes", entries: Entries, kind: str, name: str, *, scale: float = 1.0, known: str | None = None
) -> None:
    """Values with error bars for each offset and method, slightly apart, so that bars can be told apart.

    Where an entry has fewer than ten in `known`, there is an open marker alone.
    """
    series = _series(entries, kind, name)
    for number, shown in enumerate(series):
        shift = 1 + 0.03 * (number - (len(series) - 1) / 2)
        energy = shift * np.array([np.sqrt(entry["low"] * entry["high"]) for entry in shown.bins])
        value, low, high = (
            scale * np.array([np.nan if entry[name][key] is None else entry[name][key] for entry in shown.bins], float)
            for key in ("value", "low", "high")
        )
        few = np.array([known is not None and entry[known] < _MIN_BACKGROUND for entry in shown.bins])
        bars = np.nan_to_num(np.clip([value - low, high - value], 0, None))
        axes.errorbar(
            energy, np.where(few, np.nan, value), yerr=np.where(few, 0, bars), color=shown.color, label=shown.label,
            marker=shown.marker, linestyle=shown.line, markersize=3.5, linewidth=1.2, elinewidth=0.8, capsize=0,
            zorder=3,
        )  # fmt: skip
        if few.any():
            axes.plot(
                energy[few], value[few], shown.marker, markersize=4.5, markerfacecolor="white",
                markeredgecolor=shown.color, zorder=4,
            )  # fmt: skip


def _draw_references(axes: "Axes", references: References, quantity: str, *, scale: float = 1.0) -> None:
    chosen = [curve for curve in references if curve["quantity"] == quantity]
    for curve, line, marker in zip(chosen, _REFERENCE_LINES, _REFERENCE_MARKERS, strict=False):
        energy, value = np.array(curve["points"]).T
        looks = {"linestyle": line, "linewidth": 1.2} if len(energy) > 1 else {"marker": marker, "linestyle": "none"}
        axes.plot(energy, scale * value, color="0.35", label=curve["name"], zorder=1, **looks)


@dataclass(frozen=True)
class _Quantity:
    """What one row of panels shows: a quantity of the bins, its published curves, and the y axis."""

    name: str
    reference: str
    ylabel: str
    scale: float = 1.0
    known: str | None = None
    limits: tuple[float, float] | None = None  # of a linear axis


def _panels(entries: Entries, references: References, rows: Sequence[_Quantity], xlabel: str) -> "Figure":
    """A column for each kind of gammas, a row for each quantity; legends of offsets and of published curves."""
    heights = [2, 3] if len(rows) > 1 else [1]
    kinds = list(entries["network"])
    figure = style.new_figure(1.2 + 4.2 * len(kinds), 4.0 + 2.4 * (len(rows) - 1))
    grid = figure.subplots(len(rows), len(kinds), squeeze=False, sharex=True, sharey="row", height_ratios=heights)
    for row, quantity in zip(grid, rows, strict=True):
        for axes, kind in zip(row, kinds, strict=True):
            _draw_references(axes, references, quantity.reference, scale=quantity.scale)
            _draw(axes, entries, kind, quantity.name, scale=quantity.scale, known=quantity.known)
        row[0].set_ylabel(quantity.ylabel)
        _set_limits(row, quantity)
    for axes, kind in zip(grid[0], kinds, strict=True):
        axes.set_title(_TITLES[kind])
    for axes in grid[-1]:
        axes.set(xscale="log", xlim=_energy_limits(entries), xlabel=xlabel)
        style.plain_log_axis(axes.xaxis, _TICKS_TEV)
    _legends(figure, grid[-1])
    return figure


def _set_limits(row: Sequence["Axes"], quantity: _Quantity) -> None:
    """The y axis by what the values say: bars of bins with few events may leave it."""
    if quantity.limits is not None:
        low, high = zip(*(axes.get_ylim() for axes in row), strict=True)
        row[0].set_ylim(max(min(low), quantity.limits[0]), min(max(high), quantity.limits[1]))
        return
    lines = [np.asarray(line.get_ydata(), float) for axes in row for line in axes.lines]
    values = np.concatenate(lines) if lines else np.empty(0)
    values = values[np.isfinite(values) & (values > 0)]
    row[0].set_yscale("log")
    if values.size:
        row[0].set_ylim(0.5 * values.min(), 2 * values.max())


def _energy_limits(entries: Entries) -> tuple[float, float]:
    edges = [entry[key] for bins in entries["network"].values() for entry in bins for key in ("low", "high")]
    return 0.85 * min(edges), 1.15 * max(edges)


def _legends(figure: "Figure", row: Sequence["Axes"]) -> None:
    """Below the panels: the offsets under each, and what is published under all."""
    for axes in row:
        handles, labels = axes.get_legend_handles_labels()
        offsets = [(h, text) for h, text in zip(handles, labels, strict=True) if "°" in text]
        axes.legend(*zip(*offsets, strict=True), title="offset", title_fontsize=8, fontsize=8, loc="best")
    handles, labels = row[0].get_legend_handles_labels()
    published = [(h, text) for h, text in zip(handles, labels, strict=True) if "°" not in text]
    if published:
        figure.legend(*zip(*published, strict=True), loc="outside lower center", ncols=len(published), fontsize=8)


@style.styled
def effective_area(entries: Entries, references: References) -> "Figure":
    """Effective area against true energy.

    Parameters
    ----------
    entries : mapping
        Method (network, and perhaps a baseline) -> point_source, diffuse -> bins of
        `pipeline.camera.irf.summary.summarise`.
    references : sequence of mapping
        Published curves: name, quantity, points.
    """
    quantity = _Quantity("effective_area_m2", "effective_area", "effective area [m²]")
    return _panels(entries, references, [quantity], _TRUE)


@style.styled
def energy(entries: Entries, references: References) -> "Figure":
    """Bias and resolution of the energy against true energy; parameters as `effective_area`."""
    rows = (
        _Quantity("energy_bias", "energy_bias", "bias [%]", scale=100, limits=(-40, 60)),
        _Quantity("energy_resolution", "energy_resolution", "resolution, 68 % [%]", scale=100, limits=(0, 80)),
    )
    figure = _panels(entries, references, rows, _TRUE)
    for axes in figure.axes[: len(entries["network"])]:
        axes.axhline(0, **style.REFERENCE)
    return figure


@style.styled
def angular_resolution(entries: Entries, references: References) -> "Figure":
    """Angle that contains 68 % of the gammas against true energy; parameters as `effective_area`."""
    quantity = _Quantity("angular_resolution_deg", "angular_resolution", "angular resolution, 68 % [deg]")
    figure = _panels(entries, references, [quantity], _TRUE)
    style.plain_log_axis(figure.axes[0].yaxis, [0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0])
    return figure


@style.styled
def background(entries: Entries, references: References) -> "Figure":
    """Rate of background against reconstructed energy; parameters as `effective_area`."""
    quantity = _Quantity("background_rate_per_s_deg2", "background_rate", "rate in the bin [s⁻¹ deg⁻²]")
    return _panels(entries, references, [quantity], _RECONSTRUCTED)


@style.styled
def sensitivity(entries: Entries, references: References) -> "Figure":
    """Sensitivity to a point source against reconstructed energy; parameters as `effective_area`."""
    quantity = _Quantity(
        "sensitivity_erg_per_cm2_s", "sensitivity", "E² × flux sensitivity [erg cm⁻² s⁻¹]", known="n_background"
    )
    return _panels(entries, references, [quantity], _RECONSTRUCTED)
