"""What can be seen of restored frames without a truth."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.figures import style
from pipeline.figures.comparison import Series

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@style.styled
def injected_stars(snr: Sequence[float], binned: Series) -> "Figure":
    """Response to added stars less 1, by their signal-to-noise ratio.

    Parameters
    ----------
    snr : sequence of float
        Of the stars of each bin.
    binned : Series
        Medians of response - 1.
    """
    figure = style.new_figure(5.2, 3.6)
    axes = figure.subplots()
    axes.axhline(0, **style.REFERENCE)
    axes.axhspan(-0.005, 0.005, color="0.9", zorder=0)
    largest = 0.01
    for place, (method, estimates) in enumerate(binned.methods.items()):
        value, low, high = (np.array([getattr(e, part) for e in estimates]) for part in ("value", "low", "high"))
        errors = np.maximum(np.stack([value - low, high - value]), 0)
        axes.errorbar(
            np.array(snr) * 1.04**place, value, errors, fmt="o-", color=style.color(method), label=style.label(method)
        )
        if place == 0:
            largest = max(largest, 1.3 * float(np.nanmax(np.abs([low, high]), initial=0)))
    axes.set(xscale="log", ylim=(-largest, largest), xlabel="signal-to-noise ratio", ylabel="response − 1")
    style.plain_log_axis(axes.xaxis, list(snr))
    axes.legend(loc="best")
    return figure


@style.styled
def scatter(snr: np.ndarray, before_mag: np.ndarray, after_mag: np.ndarray) -> "Figure":
    """Scatter of stars over exposures, restored against recorded.

    Parameters
    ----------
    snr : ndarray, shape (n,)
        Of the stars, for their colour.
    before_mag, after_mag : ndarray, shape (n,)
    """
    figure = style.new_figure(4.6, 3.9)
    axes = figure.subplots()
    points = axes.scatter(before_mag, after_mag, c=np.log10(snr), s=8, cmap="viridis")
    both = np.concatenate([before_mag, after_mag])
    ends = [0.8 * float(np.nanmin(both)), 1.25 * float(np.nanmax(both))]
    axes.plot(ends, ends, **style.REFERENCE)
    axes.set(xscale="log", yscale="log", xlabel="as recorded [mag]", ylabel="restored [mag]", xlim=ends, ylim=ends)
    figure.colorbar(points, ax=axes, label="log10 signal-to-noise ratio")
    return figure
