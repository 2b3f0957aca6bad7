"""Figures of generated camera images beside simulated ones."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.figures import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIMULATED = {"color": "0.75", "label": "simulated"}


@style.styled
def distributions(
    names: Sequence[str],
    simulated: Mapping[str, Sequence[np.ndarray]],
    generated: Mapping[str, Mapping[str, Sequence[np.ndarray]]],
    n_bins: int = 40,
) -> "Figure":
    """Distributions of several quantities, a row for each selection.

    Parameters
    ----------
    names : sequence of str
        Labels of the quantities.
    simulated : mapping
        Name of the selection -> values of each quantity.
    generated : mapping
        Method -> the same.
    """
    figure = style.new_figure(2.5 * len(names), 2.1 * len(simulated) + 0.5)
    grid = figure.subplots(len(simulated), len(names), squeeze=False)
    for line, (selection, values) in zip(grid, simulated.items(), strict=True):
        for number, (axes, reference) in enumerate(zip(line, values, strict=True)):
            low, high = np.quantile(reference, [0.002, 0.998]) if len(reference) else (0, 1)
            edges = np.linspace(low, high if high > low else low + 1, n_bins + 1)
            axes.stairs(_density(reference, edges), edges, fill=True, **_SIMULATED)
            for method, of_method in generated.items():
                height = _density(of_method[selection][number], edges)
                axes.stairs(height, edges, color=style.color(method), label=style.label(method), linewidth=1.3)
            axes.set_yticks([])
        line[0].set_ylabel(selection)
    for axes, name in zip(grid[-1], names, strict=True):
        axes.set_xlabel(name)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(handles))
    return figure


@style.styled
def neighbours(distances: Mapping[str, np.ndarray]) -> "Figure":
    """Distances to the most alike training image, of generated and of simulated images.

    Parameters
    ----------
    distances : mapping
        Method, or "simulation" -> distances to the most alike training and test image, shape (2, n).
    """
    figure = style.new_figure(4.8, 3.4)
    axes = figure.subplots()
    edges = np.linspace(0, np.quantile(np.concatenate([values[0] for values in distances.values()]), 0.99), 41)
    for method, values in distances.items():
        simulated = method == "simulation"
        name = "simulated, of the test split" if simulated else style.label(method)
        axes.stairs(
            _density(values[0], edges), edges, fill=simulated, color="0.75" if simulated else style.color(method),
            label=f"{name} ({np.mean(values[0] < values[1]):.0%} nearer to training)",
        )  # fmt: skip
    axes.set(xlabel="distance to the most alike training image [√p.e.]", ylabel="share per bin")
    axes.set_ylim(top=1.35 * axes.get_ylim()[1])  # for the legend
    axes.legend(loc="upper right")
    return figure


def _density(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.histogram(values, edges)[0] / max(len(values), 1)
