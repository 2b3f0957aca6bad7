"""How well the direction is reconstructed."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.figures import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LARGEST_DEG = 3.0


@style.styled
def containment_curves(
    errors_deg: Mapping[str, Sequence[np.ndarray]], weights: np.ndarray, *, items: str = "images"
) -> "Figure":
    """Share of the images or events within an angle of the true direction.

    Parameters
    ----------
    errors_deg : mapping
        Method -> angles to the true direction and, of images, the same if the end was known, shape (n,) each.
    weights : ndarray, shape (n,)
    items : str
        What is counted.
    """
    figure = style.new_figure(5.2, 3.8)
    axes = figure.subplots()
    for method, angles in errors_deg.items():
        for values, line in zip(angles, ("-", "--"), strict=False):
            order = np.argsort(values)
            share = np.cumsum(weights[order]) / weights.sum()
            label = style.label(method) if line == "-" else f"{style.label(method)}, right end"
            axes.plot(values[order], share, line, color=style.color(method), label=label, linewidth=1.4)
    axes.axhline(0.68, **style.REFERENCE)
    axes.annotate("68 %", (0.012, 0.69), color="0.35", fontsize=8)
    axes.set(
        xscale="log", xlim=(0.01, _LARGEST_DEG), ylim=(0, 1.02), xlabel="angle to the true direction [deg]",
        ylabel=f"share of the {items} within",
    )  # fmt: skip
    style.plain_log_axis(axes.xaxis)
    axes.legend(loc="lower right", fontsize=8)
    return figure
