"""Restored frames, and the fluxes of their stars."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.figures import style
from pipeline.figures.comparison import Series

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Cutout:
    """One place of one frame; images of shape (H, W) in the same unit.

    Attributes
    ----------
    title : str
    before, restored : ndarray
    truth : ndarray, optional
        The noise-free frame, or an independent exposure (`truth_label` says which).
    level, noise : float
        Background level and its rms: scale of the display and unit of the residual.
    """

    title: str
    before: np.ndarray
    restored: np.ndarray
    truth: np.ndarray | None
    level: float
    noise: float
    unit: str = "electron"


@style.styled
def cutouts(rows: Sequence[Cutout], *, truth_label: str = "truth", stretch_sigma: float = 50.0) -> "Figure":
    """Before, restored, truth and residual, one row per place.

    The first three share one arcsinh grey scale from -3 to `stretch_sigma` times the background noise; the residual
    (restored - truth) is in units of that noise, linear from -5 (blue) to 5 (red).
    """
    from matplotlib.colors import AsinhNorm

    figure = style.new_figure(9.2, 2.35 * len(rows) + 0.5)
    axes = figure.subplots(len(rows), 4, squeeze=False)
    grey = residual = None
    for line, row in zip(axes, rows, strict=True):
        truth = row.truth if row.truth is not None else np.full_like(row.before, np.nan)
        for place, image in zip(line, (row.before, row.restored, truth), strict=False):
            norm = AsinhNorm(linear_width=2.0, vmin=-3, vmax=stretch_sigma)
            grey = place.imshow((image - row.level) / row.noise, cmap="gray", norm=norm)
        residual = line[3].imshow((row.restored - truth) / row.noise, cmap="RdBu_r", vmin=-5, vmax=5)
        line[0].set_ylabel(f"{row.title}\nnoise {row.noise:.3g} {row.unit}", fontsize=8)
    _bare(axes)
    for place, title in zip(axes[0], ("before", "restored", truth_label, f"restored − {truth_label}"), strict=True):
        place.set_title(title)
    _colorbar(figure, grey, axes[:, :3], "(value − background) / noise", [-3, 0, 3, 10, 50])
    _colorbar(figure, residual, axes[:, 3:], "residual / noise", [-5, 0, 5])
    return figure


def _bare(axes: np.ndarray) -> None:
    """Draw an image without axes; missing pixels are light grey."""
    for place in axes.flat:
        place.set(xticks=[], yticks=[])
        place.grid(False)
        place.set_facecolor("0.85")
        for spine in place.spines.values():
            spine.set_visible(False)


def _colorbar(figure: "Figure", image, axes: np.ndarray, text: str, ticks: Sequence[float]) -> None:
    bar = figure.colorbar(image, ax=list(axes.flat), location="bottom", label=text, aspect=40, fraction=0.03, pad=0.01)
    bar.set_ticks(list(ticks), labels=[f"{tick:g}" for tick in ticks])
    bar.minorticks_off()


@style.styled
def flux_bias(
    magnitude: np.ndarray,
    relative_error: Mapping[str, np.ndarray],
    binned: Series,
    *,
    magnitude_label: str,
    reference: str = "true flux",
) -> "Figure":
    """Relative error of the stars' aperture flux against magnitude: each star, and medians with their intervals.

    Parameters
    ----------
    magnitude : ndarray, shape (n,)
    relative_error : mapping
        Method -> F / F_true - 1, shape (n,).
    binned : Series
        Medians in magnitude bins.
    magnitude_label : str
    reference : str
        What the fluxes are compared with.
    """
    figure = style.new_figure(4.0 * len(relative_error) + 0.6, 3.7)
    axes = figure.subplots(1, len(relative_error), squeeze=False, sharex=True, sharey=True)[0]
    centres = np.array([(low + high) / 2 for low, high in binned.edges])
    # Drawn to where the best method's stars lie, so that its trend can be seen; what lies beyond sits on the border.
    spread = min(np.nanpercentile(np.abs(error), 95) for error in relative_error.values()) if len(magnitude) else 0.1
    limit = max(0.02, 1.5 * spread)
    for place, (method, error) in zip(axes, relative_error.items(), strict=True):
        place.axhline(0, **style.REFERENCE)
        place.axhspan(-0.01, 0.01, color="0.92", zorder=0)
        place.plot(
            magnitude, np.clip(error, -limit, limit), ".", color=style.color(method), markersize=3, alpha=0.35
        )  # fmt: skip
        estimates = binned.methods[method]
        value, low, high = (np.array([getattr(e, part) for e in estimates]) for part in ("value", "low", "high"))
        errors = np.maximum(np.stack([value - low, high - value]), 0)
        place.errorbar(
            centres, value, errors, fmt="o", color="black", markersize=4, linewidth=1.3, label="median, 95 %"
        )
        outside = np.mean(np.abs(error) > limit) if len(error) else 0.0
        place.set(title=style.label(method), xlabel=magnitude_label, ylim=(-limit * 1.03, limit * 1.03))
        place.text(
            0.02, 0.02, f"{outside:.0%} of the stars beyond", transform=place.transAxes, fontsize=8, color="0.35"
        )
    axes[0].set_ylabel(f"flux / {reference} − 1")
    axes[0].legend(loc="upper left")
    return figure


@style.styled
def pull(pulls: np.ndarray, *, width: float, median: float) -> "Figure":
    """Distribution of (restored - truth) / stated error, with the unit Gaussian for comparison.

    Parameters
    ----------
    pulls : ndarray, shape (n,)
        Of pixels without a defect.
    width, median : float
        Half of the central 68.27 % interval, and the median.
    """
    figure = style.new_figure(4.6, 3.5)
    axes = figure.subplots()
    edges = np.linspace(-6, 6, 97)
    density = np.histogram(pulls, edges)[0] / (max(len(pulls), 1) * (edges[1] - edges[0]))
    axes.stairs(density, edges, color=style.color("network"), fill=True, alpha=0.3)
    axes.stairs(density, edges, color=style.color("network"), label=f"median {median:+.2f}, width {width:.2f}")
    grid = np.linspace(-6, 6, 241)
    axes.plot(grid, np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi), label="unit Gaussian", **style.REFERENCE)
    axes.set(
        xlabel="(restored − truth) / stated error", ylabel="share per unit", yscale="log", xlim=(-6, 6), ylim=(1e-5, 2)
    )
    axes.legend(loc="upper right", fontsize=8)
    return figure


@style.styled
def before_and_after(rows: Sequence[Cutout], *, stretch_sigma: float = 50.0) -> "Figure":
    """Before, restored, and the difference, one row per frame; scales as in `cutouts`."""
    from matplotlib.colors import AsinhNorm

    figure = style.new_figure(9.2, 3.05 * len(rows) + 0.5)
    axes = figure.subplots(len(rows), 3, squeeze=False)
    grey = removed = None
    for line, row in zip(axes, rows, strict=True):
        for place, image in zip(line, (row.before, row.restored), strict=False):
            norm = AsinhNorm(linear_width=2.0, vmin=-3, vmax=stretch_sigma)
            grey = place.imshow((image - row.level) / row.noise, cmap="gray", norm=norm)
        removed = line[2].imshow((row.before - row.restored) / row.noise, cmap="RdBu_r", vmin=-5, vmax=5)
        line[0].set_ylabel(f"{row.title}\nnoise {row.noise:.3g} {row.unit}", fontsize=8)
    _bare(axes)
    for place, title in zip(axes[0], ("before", "restored", "taken away"), strict=True):
        place.set_title(title)
    _colorbar(figure, grey, axes[:, :2], "(value − background) / noise", [-3, 0, 3, 10, 50])
    _colorbar(figure, removed, axes[:, 2:], "(before − restored) / noise", [-5, 0, 5])
    return figure
