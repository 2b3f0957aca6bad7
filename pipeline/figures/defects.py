"""Masks of defects."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from pipeline.figures import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RATES = (1e-5, 1e-2)


@style.styled
def roc(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], *, marked: float) -> "Figure":
    """Share of the defects found against the rate of false alarms.

    Parameters
    ----------
    curves : mapping
        Method -> false-alarm rate and share found, rising.
    marked : float
        A rate to mark.
    """
    figure = style.new_figure(4.6, 3.6)
    axes = figure.subplots()
    for method, (false, found) in curves.items():
        axes.plot(np.maximum(false, 1e-12), found, color=style.color(method), label=style.label(method))
    axes.axvline(marked, color="0.5", linewidth=0.8, linestyle=":")
    axes.set(xscale="log", xlim=_RATES, ylim=(0, 1), xlabel="false-alarm rate", ylabel="share of defect pixels found")
    axes.legend(loc="lower right")
    return figure
