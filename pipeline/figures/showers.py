"""The shower simulation compared with its references; curves are those of `validation.json`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.figures import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OURS, REFERENCE = "#0072B2", "0.2"
PARTICLES = {"gamma": "#CC79A7", "proton": "#4D4D4D"}
Curves = Mapping[str, Any]


def _points(axes, x, y, error, label: str, **look: Any) -> None:
    axes.errorbar(x, y, error, label=label, fmt="o", markersize=4, linestyle="none", linewidth=1, **look)


def _band(axes, x, y, error, label: str, color: str) -> None:
    x, y, error = (np.asarray(values, float) for values in (x, y, error))
    axes.fill_between(x, y - error, y + error, color=color, alpha=0.3, linewidth=0)
    axes.plot(x, y, color=color, label=label)


def _medians(axes, ours: Curves, theirs: Curves | None, name: str, color: str, reference_color: str) -> None:
    """Medians with their errors and the middle half of the images here, and prod3b's medians if available."""
    axes.fill_between(ours["x"], ours["lower"], ours["upper"], color=color, alpha=0.2, linewidth=0)
    axes.errorbar(ours["x"], ours["median"], ours["error"], color=color, label=f"{name}this simulation")
    if theirs:
        look = {"color": reference_color, "markerfacecolor": "white"}
        _points(axes, theirs["x"], theirs["median"], theirs["error"], f"{name}prod3b", **look)


@style.styled
def profile(curves: Curves) -> "Figure":
    """Electrons above 20 MeV against depth, for gammas of two energies."""
    figure = style.new_figure(5.4, 3.8)
    axes = figure.subplots()
    for energy, color in (("100", OURS), ("50", "#009E73")):
        ours = curves[f"ours_{energy}"]
        name = f"{energy} GeV, this simulation"
        _band(axes, ours["level_g_cm2"], ours["particles"], ours["error"], name, color)
        if reference := curves.get(f"reference_{energy}"):
            _points(
                axes, reference["level_g_cm2"], reference["particles"], reference["error"],
                f"{energy} GeV, {reference['model']}", color=color if energy == "50" else REFERENCE,
            )  # fmt: skip
    axes.set(xlabel="vertical depth [g cm$^{-2}$]", ylabel="electrons above 20 MeV", xlim=(0, 700), ylim=(0, None))
    axes.legend()
    return figure


@style.styled
def light_pool(curves: Curves) -> "Figure":
    """Photon density against impact: mean and spread of showers here, single telescopes of CORSIKA."""
    figure = style.new_figure(3.6 * len(curves) + 0.6, 3.8)
    for axes, curve in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.values(), strict=True):
        density, spread = np.array(curve["density"]), np.array(curve["spread"])
        axes.fill_between(curve["impact_m"], density - spread, density + spread, color=OURS, alpha=0.15, linewidth=0)
        _band(axes, curve["impact_m"], density, curve["error"], "this simulation", OURS)
        if places := curve.get("places"):
            axes.plot(
                places["impact_m"], places["reference"], "o", color=REFERENCE, markersize=3.5, alpha=0.8,
                label="CORSIKA, single telescopes",
            )  # fmt: skip
        low, high = curve["wavelength_nm"]
        axes.set(xlabel="impact [m]", ylabel=f"photons {low:g}-{high:g} nm per m$^2$ and 100 GeV", title=curve["words"])
        axes.set(xlim=(0, 400), ylim=(0, 1.35 * axes.get_ylim()[1]))
        axes.legend(loc="upper right")
    return figure


@style.styled
def proton_light(curves: Curves) -> "Figure":
    """Light per energy of protons against energy."""
    figure = style.new_figure(5.4, 3.8)
    axes = figure.subplots()
    axes.plot(
        curves["single_energy_gev"], curves["single_reference"], ".", color="0.75", markersize=3,
        label="CORSIKA, single showers",
    )  # fmt: skip
    energy = np.array(curves["energy_gev"])
    _points(axes, energy, curves["reference"], curves["reference_error"], "CORSIKA, mean", color=REFERENCE)
    _points(axes, 1.04 * energy, curves["ours"], curves["ours_error"], "this simulation, same energies", color=OURS)
    axes.set(
        xlabel="energy [GeV]", ylabel="photons 240-700 nm per GeV", xscale="log", ylim=(0, 8e4), title="protons, 20°"
    )
    style.plain_log_axis(axes.xaxis)
    axes.legend()
    return figure


@style.styled
def size_energy(curves: Curves) -> "Figure":
    """Size of gamma images against energy."""
    figure = style.new_figure(5.0, 3.8)
    axes = figure.subplots()
    energy, size = np.array(curves["energy_tev"]), np.array(curves["size_pe"])
    axes.plot(energy, size, ".", color=OURS, alpha=0.25, markersize=2, label="images of an LST within 250 m")
    bright = energy > 0.1
    middle = np.exp(np.mean(np.log(size[bright])) - curves["power"] * np.mean(np.log(energy[bright])))
    line = np.array([0.1, energy.max()])
    axes.plot(line, middle * line ** curves["power"], color=REFERENCE, label=f"power {curves['power']:.3f}")
    axes.set(xlabel="energy [TeV]", ylabel="true photo-electrons", xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        style.plain_log_axis(axis)
    axes.legend()
    return figure


@style.styled
def hillas_against_size(curves: Curves) -> "Figure":
    """Width and length against size: median and middle half here, medians of prod3b."""
    figure = style.new_figure(8.6, 3.8)
    for axes, column in zip(figure.subplots(1, 2), ("width", "length"), strict=True):
        for particle, color in PARTICLES.items():
            ours, theirs = (curves.get(f"{name}_{particle}_{column}") for name in ("ours", "prod3b"))
            _medians(axes, ours, theirs, f"{particle}, ", color, color)
        axes.set(xlabel="size [p.e.]", ylabel=f"{column} [deg]", xscale="log", ylim=(0, None))
        style.plain_log_axis(axes.xaxis)
        axes.legend(fontsize=8)
    return figure


@style.styled
def muon_rings(curves: Curves) -> "Figure":
    """Radius of muon rings against energy, and their light against impact."""
    figure = style.new_figure(8.6, 3.6)
    left, right = figure.subplots(1, 2)
    left.plot(curves["energy_gev"], curves["ours_deg"], "o", color=OURS, markersize=4, label="this simulation")
    fast = np.array(curves["energy_gev"]) > 20
    impact = np.array(curves["impact_m"])
    right.plot(
        impact[fast],
        np.array(curves["ours_pe"])[fast],
        "o",
        color=OURS,
        markersize=4,
        label="this simulation, > 20 GeV",
    )
    if "reference_deg" in curves:
        look = {"color": REFERENCE, "markersize": 5, "markerfacecolor": "none"}
        left.plot(curves["energy_gev"], curves["reference_deg"], "s", label="sim_telarray, same muons", **look)
        right.plot(
            impact[fast], np.array(curves["reference_pe"])[fast] * curves["constant"], "s",
            label=f"sim_telarray, x {curves['constant']:.2f}", **look,
        )  # fmt: skip
    left.set(xlabel="energy [GeV]", ylabel="ring radius [deg]", xscale="log", ylim=(0.6, 1.4))
    style.plain_log_axis(left.xaxis)
    right.set(xlabel="impact [m]", ylabel="photo-electrons", ylim=(0, None))
    left.legend(loc="lower right")
    right.legend(loc="lower left")
    return figure


@style.styled
def time_gradient(curves: Curves) -> "Figure":
    """Time gradient of gamma images against impact."""
    figure = style.new_figure(5.0, 3.6)
    axes = figure.subplots()
    _medians(axes, curves["ours"], curves.get("prod3b"), "", OURS, REFERENCE)
    axes.axhline(0, **style.REFERENCE)
    axes.set(xlabel="impact [m]", ylabel="time gradient away from the source [ns/deg]")
    axes.legend()
    return figure


@style.styled
def telescopes(curves: Curves) -> "Figure":
    """Photo-electrons of single telescopes against impact, sim_telarray over this simulation."""
    figure = style.new_figure(6.2, 3.6)
    axes = figure.subplots()
    colors = iter(("#0072B2", "#D55E00", "#009E73", "#CC79A7"))
    for kind, constant in curves["constants"].items():
        color = next(colors)
        images = [image for image in curves["images"] if image["kind"] == kind]
        for energy, marker in zip(sorted({image["energy_gev"] for image in images}), "o^sD", strict=False):
            chosen = [image for image in images if image["energy_gev"] == energy]
            ratio = np.array([image["reference"] / image["ours"] for image in chosen]) / constant
            error = ratio * np.array([image["spread"] / image["ours"] for image in chosen])
            axes.errorbar(
                [image["impact_m"] for image in chosen], ratio, error, fmt=marker, color=color, markersize=4,
                linewidth=0.7, label=f"{kind}, {energy / 1e3:.2g} TeV",
            )  # fmt: skip
    axes.axhline(1, **style.REFERENCE)
    axes.axhspan(0.8, 1.2, color="0.93", zorder=0)
    axes.set(xlabel="impact [m]", ylabel="sim_telarray / this simulation", ylim=(0, 2.5))
    axes.legend(fontsize=8, ncols=2)
    return figure


@style.styled
def time_per_shower(curves: Curves) -> "Figure":
    """CPU time per shower against energy."""
    figure = style.new_figure(5.0, 3.6)
    axes = figure.subplots()
    for particle, color in PARTICLES.items():
        energy = np.array(curves[particle]["energy_gev"]) / 1e3
        axes.plot(energy, 1e3 * np.array(curves[particle]["cpu_s"]), "o-", color=color, markersize=4, label=particle)
    energy = np.array(curves["gamma"]["energy_gev"]) / 1e3
    linear = 1e3 * curves["gamma"]["cpu_s"][2] * energy / energy[2]
    axes.plot(energy, linear, label="proportional to energy", **style.REFERENCE)
    axes.set(xlabel="energy [TeV]", ylabel="CPU time per shower [ms]", xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        style.plain_log_axis(axis)
    axes.legend()
    return figure
