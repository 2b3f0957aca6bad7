"""Many networks compared with one baseline."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from pipeline.figures import style
from pipeline.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_NAMED = 3


@dataclass(frozen=True)
class ZooPoint:
    """One network: its metric (first training), that of further trainings, and its cost."""

    label: str
    value: Estimate
    others: Sequence[float]
    mflop: float
    predicted_per_cpu_s: float


@style.styled
def zoo_figure(
    points: Sequence[ZooPoint], forest: Estimate, metric: str, better: Literal["higher", "lower"]
) -> "Figure":
    """A metric of each network, the best above; and the same against operations and against speed.

    Parameters
    ----------
    points : sequence of ZooPoint
        The best first.
    forest : Estimate
        Drawn as a band through all panels.
    metric : str
        Axis label.
    better : {"higher", "lower"}
    """
    from matplotlib.ticker import LogLocator

    figure = style.new_figure(11.0, max(3.6, 0.26 * len(points) + 1.2))
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.3, 1, 1))
    places = np.arange(len(points))[::-1]
    _band(left.axvspan, left.axvline, forest)
    _errors(left, points, places, horizontal=True)
    for place, point in zip(places, points, strict=True):
        left.plot(point.others, [place] * len(point.others), "|", color="0.2", markersize=9)
    left.set_yticks(places, [point.label for point in points])
    left.set_ylim(-0.7, len(points) - 0.3)
    left.set_xlabel(f"{metric} ({better} is better)")
    for axes, cost, name in (
        (middle, [point.mflop for point in points], "Mflop per image"),
        (right, [point.predicted_per_cpu_s for point in points], "predicted images per CPU s"),
    ):
        _band(axes.axhspan, axes.axhline, forest)
        _errors(axes, points, np.array(cost), horizontal=False)
        axes.set_xscale("log")
        style.plain_log_axis(axes.xaxis)
        wide = max(cost) > 16 * min(cost)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3) if wide else (1, 2, 5)))
        axes.set_xlabel(name)
        axes.set_ylabel(metric)
        for place, point in enumerate(points[:_NAMED]):
            # The best outermost, the next to the left, the third inwards: they are often neighbours.
            outwards = (1, 0, -1)[place] * (1 if better == "higher" else -1)
            axes.annotate(
                point.label, (cost[place], point.value.value), xytext=(-5 if place == 1 else 5, 7 * outwards),
                textcoords="offset points", ha="right" if place == 1 else "left", va="center", fontsize=7.5,
            )  # fmt: skip
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


def _band(span, line, forest: Estimate) -> None:
    color = style.color("forest")
    if np.isfinite(forest.low) and np.isfinite(forest.high):
        span(forest.low, forest.high, color=color, alpha=0.15, linewidth=0)
    line(forest.value, color=color, linewidth=1.2, label=style.label("forest"))


def _errors(axes: "Axes", points: Sequence[ZooPoint], places: np.ndarray, *, horizontal: bool) -> None:
    value, low, high = (np.array([getattr(p.value, part) for p in points]) for part in ("value", "low", "high"))
    errors = np.maximum(np.stack([value - low, high - value]), 0)
    looks = {"fmt": "o", "color": style.color("network"), "markersize": 4.5, "lw": 1.2}
    if horizontal:
        axes.errorbar(value, places, xerr=errors, label="network, 95 % interval (bars: other seeds)", **looks)
    else:
        axes.errorbar(places, value, yerr=errors, **looks)
