"""Separation of gammas and hadrons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.figures import style
from pipeline.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class RocCurve:
    """One method's ROC curve.

    Attributes
    ----------
    background, signal : ndarray, shape (k,)
        Efficiencies, from (0, 0) to (1, 1).
    low, high : ndarray, shape (k,), optional
        Limits of the signal efficiency at each background efficiency.
    auc : Estimate
    """

    background: np.ndarray
    signal: np.ndarray
    auc: Estimate
    low: np.ndarray | None = None
    high: np.ndarray | None = None


@dataclass(frozen=True)
class GammanessSample:
    """Gammaness of one method's gammas and hadrons, with weights; each array of shape (n,)."""

    gammas: np.ndarray
    gamma_weights: np.ndarray
    hadrons: np.ndarray
    hadron_weights: np.ndarray


@style.styled
def roc(panels: Sequence[tuple[str, Mapping[str, RocCurve]]]) -> "Figure":
    """ROC curves of all methods, one panel per selection of images.

    Parameters
    ----------
    panels : sequence of (str, mapping)
        Title and method -> RocCurve; an empty mapping if the selection has too few images.
    """
    rows, columns = style.panel_grid(len(panels))
    size = 4.6 if len(panels) == 1 else 3.3
    figure = style.new_figure(size * columns, size * rows)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for place, (title, curves) in zip(axes.flat, panels, strict=False):
        _roc_panel(place, title, curves)
    style.trim_panels(axes, len(panels))
    figure.supxlabel("hadrons kept", fontsize=10)
    for place in axes[:, 0]:
        place.set_ylabel("gammas kept")
    return figure


def _roc_panel(axes: "Axes", title: str, curves: Mapping[str, RocCurve]) -> None:
    axes.set_title(title)
    axes.set_aspect("equal")
    axes.set(xlim=(0, 1), ylim=(0, 1.005))
    if not curves:
        style.no_data(axes, "too few images")
        return
    axes.plot([0, 1], [0, 1], **style.REFERENCE)
    for method, curve in curves.items():
        text = f"{style.label(method)}\nAUC {curve.auc.value:.3f} [{curve.auc.low:.3f}, {curve.auc.high:.3f}]"
        axes.plot(curve.background, curve.signal, color=style.color(method), label=text)
        if curve.low is not None and curve.high is not None:
            axes.fill_between(
                curve.background, curve.low, curve.high, color=style.color(method), alpha=0.2, linewidth=0
            )
    axes.legend(loc="lower right", fontsize=7.5, handlelength=1.2)


@style.styled
def gammaness_distributions(panels: Sequence[tuple[str, Mapping[str, GammanessSample]]], n_bins: int = 25) -> "Figure":
    """Distributions of gammaness for gammas and hadrons: the network's filled, baselines as lines.

    Parameters
    ----------
    panels : sequence of (str, mapping)
        Title and method -> GammanessSample.
    n_bins : int
    """
    rows, columns = style.panel_grid(len(panels))
    figure = style.new_figure(3.5 * columns + (1.0 if len(panels) == 1 else 0), 2.9 * rows + 0.6)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True)
    edges = np.linspace(0, 1, n_bins + 1)
    for place, (title, samples) in zip(axes.flat, panels, strict=False):
        place.set_title(title)
        place.set(xlim=(0, 1))
        if not samples:
            style.no_data(place, "too few images")
        for method, sample in samples.items():
            _density(place, edges, sample.gammas, sample.gamma_weights, method, "gamma")
            _density(place, edges, sample.hadrons, sample.hadron_weights, method, "hadron")
        place.set_ylim(bottom=0)
    style.trim_panels(axes, len(panels))
    figure.supxlabel("gammaness (1 = gamma)", fontsize=10)
    for place in axes[:, 0]:
        place.set_ylabel("share of the class per unit")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper center", ncols=2)
    return figure


def _density(axes: "Axes", edges: np.ndarray, values: np.ndarray, weights: np.ndarray, method: str, kind: str) -> None:
    total = weights.sum() * (edges[1] - edges[0])
    height = np.histogram(values, edges, weights=weights)[0] / total
    text = f"{kind}s, {style.label(method)}"
    if method != "network":
        axes.stairs(height, edges, color=style.color(kind), linestyle=(0, (3, 1.5)), linewidth=1.1, label=text)
        return
    sigma = np.sqrt(np.histogram(values, edges, weights=np.square(weights))[0]) / total
    axes.stairs(height, edges, color=style.color(kind), fill=True, alpha=0.28)
    axes.stairs(height, edges, color=style.color(kind), label=text)
    axes.errorbar(
        (edges[1:] + edges[:-1]) / 2, height, sigma, fmt="none", color=style.color(kind), linewidth=0.9, capsize=0
    )
