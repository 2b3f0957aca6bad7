"""Instrument response functions: area, energy dispersion, point spread, background, sensitivity against energy."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Entries = Mapping[str, Sequence[Mapping[str, Any]]]
References = Sequence[Mapping[str, Any]]

_POINT_SOURCE = "#0072B2"
_REFERENCE_LINES = ((0, (5, 2)), (0, (1, 1.5)), (0, (4, 1, 1, 1)))
_MIN_BACKGROUND = 10
_TICKS_TEV = [factor * 10.0**power for power in range(-2, 3) for factor in (1, 2, 5)]


def _series(entries: Entries, name: str) -> Iterator[tuple[str, Any, list[Mapping[str, Any]]]]:
    """Label, colour and bins of each kind of gammas and offset that has the quantity `name`."""
    import matplotlib as mpl

    for kind, bins in entries.items():
        having = [entry for entry in bins if name in entry]
        offsets = sorted({(entry["offset_low_deg"], entry["offset_high_deg"]) for entry in having})
        for i, (near, far) in enumerate(offsets):
            here = [entry for entry in having if (entry["offset_low_deg"], entry["offset_high_deg"]) == (near, far)]
            if kind == "point_source":
                yield f"point source at {(near + far) / 2:g}°", _POINT_SOURCE, here
            else:
                shade = mpl.colormaps["inferno"](0.2 + 0.6 * i / max(1, len(offsets) - 1))
                yield f"diffuse, {near:g} to {far:g}°", shade, here


def _draw(axes: "Axes", entries: Entries, name: str, *, scale: float = 1.0, is_open: str | None = None) -> None:
    """One line with error bars for each kind of gammas and offset; slightly apart, so that bars can be told apart."""
    series = list(_series(entries, name))
    for number, (label, color, bins) in enumerate(series):
        shift = 1 + 0.02 * (number - (len(series) - 1) / 2)
        energy = shift * np.array([np.sqrt(entry["low"] * entry["high"]) for entry in bins])
        value, low, high = (
            scale * np.array([np.nan if entry[name][key] is None else entry[name][key] for entry in bins], float)
            for key in ("value", "low", "high")
        )
        bars = np.nan_to_num(np.clip([value - low, high - value], 0, None))
        is_point = color == _POINT_SOURCE
        axes.errorbar(
            energy, value, yerr=bars, color=color, label=label, marker="o" if is_point else None, markersize=4.5,
            linewidth=1.6 if is_point else 1.1, elinewidth=0.9, capsize=0, zorder=3 if is_point else 2,
        )  # fmt: skip
        if is_open is not None:
            few = np.array([entry[is_open] < _MIN_BACKGROUND for entry in bins])
            axes.plot(
                energy[few], value[few], "o", markersize=5.5, markerfacecolor="white", markeredgecolor=color, zorder=4
            )


def _draw_references(axes: "Axes", references: References, quantity: str, *, scale: float = 1.0) -> None:
    chosen = [curve for curve in references if curve["quantity"] == quantity]
    for curve, line in zip(chosen, _REFERENCE_LINES * len(chosen), strict=False):
        energy, value = np.array(curve["points"]).T
        if len(energy) == 1:
            axes.plot(energy, scale * value, "*", color="0.35", markersize=9, label=curve["name"], zorder=1)
        else:
            axes.plot(energy, scale * value, color="0.35", linewidth=1.2, linestyle=line, label=curve["name"], zorder=1)


def _limits(entries: Entries) -> tuple[float, float]:
    edges = [entry[key] for bins in entries.values() for entry in bins for key in ("low", "high")]
    return 0.85 * min(edges), 1.15 * max(edges)


def _finish(axes: "Axes", entries: Entries, xlabel: str, ylabel: str) -> None:
    axes.set(xscale="log", xlim=_limits(entries), xlabel=xlabel, ylabel=ylabel)
    style.plain_log_axis(axes.xaxis, _TICKS_TEV)


def _single(
    entries: Entries, references: References, quantity: str, name: str, **options: Any
) -> "tuple[Figure, Axes]":
    figure = style.new_figure(6.4, 4.4)
    axes = figure.subplots()
    _draw_references(axes, references, quantity)
    _draw(axes, entries, name, **options)
    return figure, axes


@style.styled
def effective_area(entries: Entries, references: References) -> "Figure":
    """Effective area against true energy.

    Parameters
    ----------
    entries : mapping
        point_source, diffuse -> bins of `pipeline.camera.irf.summary.summarise`.
    references : sequence of mapping
        Published curves: name, quantity, points.
    """
    figure, axes = _single(entries, references, "effective_area", "effective_area_m2")
    _finish(axes, entries, "true energy [TeV]", "effective area [m²]")
    axes.set_yscale("log")
    _legend(axes, "lower right")
    return figure


@style.styled
def energy(entries: Entries, references: References) -> "Figure":
    """Bias and resolution of the energy against true energy; parameters as `effective_area`."""
    figure = style.new_figure(6.4, 6.4)
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(1, 2))
    _draw(upper, entries, "energy_bias", scale=100)
    upper.axhline(0, **style.REFERENCE)
    upper.set(ylabel="bias [%]", ylim=_clipped(upper, -40, 60))
    _draw_references(lower, references, "energy_resolution", scale=100)
    _draw(lower, entries, "energy_resolution", scale=100)
    _finish(lower, entries, "true energy [TeV]", "resolution, 68 % [%]")
    lower.set_ylim(0, _clipped(lower, 0, 80)[1])
    _legend(lower, "upper right")
    return figure


@style.styled
def angular_resolution(entries: Entries, references: References) -> "Figure":
    """Angle that contains 68 % of the gammas against true energy; parameters as `effective_area`."""
    figure, axes = _single(entries, references, "angular_resolution", "angular_resolution_deg")
    _finish(axes, entries, "true energy [TeV]", "angular resolution, 68 % [deg]")
    axes.set_yscale("log")
    style.plain_log_axis(axes.yaxis, [0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0])
    _legend(axes, "upper right")
    return figure


@style.styled
def background(entries: Entries, references: References) -> "Figure":
    """Rate of background against reconstructed energy; parameters as `effective_area`."""
    figure, axes = _single(entries, references, "background_rate", "background_rate_per_s_deg2")
    _finish(axes, entries, "reconstructed energy [TeV]", "background rate in the bin [s⁻¹ deg⁻²]")
    axes.set_yscale("log", nonpositive="mask")
    _legend(axes, "upper right")
    return figure


@style.styled
def sensitivity(entries: Entries, references: References) -> "Figure":
    """Sensitivity to a point source against reconstructed energy; parameters as `effective_area`."""
    figure, axes = _single(entries, references, "sensitivity", "sensitivity_erg_per_cm2_s", is_open="n_background")
    _finish(axes, entries, "reconstructed energy [TeV]", "E² × flux sensitivity [erg cm⁻² s⁻¹]")
    axes.set_yscale("log")
    _legend(axes, "upper right")
    return figure


def _clipped(axes: "Axes", low: float, high: float) -> tuple[float, float]:
    """The limits of the y axis, within others: bins of few events must not flatten the rest."""
    bottom, top = axes.get_ylim()
    return max(bottom, low), min(top, high)


def _legend(axes: "Axes", place: str) -> None:
    axes.legend(loc=place, fontsize=8)
