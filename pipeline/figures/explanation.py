"""Attribution of a network's output for one image, and its feature maps."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.figures.style import new_figure, no_data, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ATTRIBUTION_MAP = "RdBu_r"
_MOST_SCALARS = 16
_CLIPPED = 99.8  # percentile of the attributions at which the colour scale ends: one pixel must not dominate it


@dataclass(frozen=True)
class ChannelPicture:
    """One channel of a tile, in its physical unit, and the attribution to it."""

    name: str
    unit: str
    tile: np.ndarray
    attribution: np.ndarray


@styled
def explanation(
    title: str,
    channels: Sequence[ChannelPicture],
    *,
    half_width_deg: float,
    quantity: str,
    location: np.ndarray | None,
    location_layer: str,
    scalars: Sequence[tuple[str, float]] = (),
) -> "Figure":
    """Each channel of a tile with its attribution next to it; at the right, where the features lie, and the scalars.

    Parameters
    ----------
    title : str
        Prediction and truth.
    channels : sequence of ChannelPicture
        The first one is the charge: it is drawn under `location`.
    half_width_deg : float
        The tile reaches from minus to plus this angle.
    quantity : str
        What attributions are shares of (with its unit).
    location : ndarray, shape (H, W), or None
        Grad-CAM, signed.
    location_layer : str
    scalars : sequence of (str, float)
        Attributions to the scalars.
    """
    figure = new_figure(12.0, 2.9 * len(channels) + 0.9)
    figure.suptitle(title, fontsize=11)
    at_left, at_right = figure.subfigures(1, 2, width_ratios=(2.05, 1))
    panels = at_left.subplots(len(channels), 2, squeeze=False)
    extent = (-half_width_deg, half_width_deg) * 2
    everything = np.abs(np.concatenate([channel.attribution.ravel() for channel in channels]))
    limit = float(np.percentile(everything, _CLIPPED)) or float(everything.max()) or 1.0
    for (left, right), channel in zip(panels, channels, strict=True):
        _tile(left, channel, extent)
        shown = right.imshow(channel.attribution, extent=extent, cmap=_ATTRIBUTION_MAP, vmin=-limit, vmax=limit)
        right.set_title(f"its part in {quantity}: {channel.attribution.sum():+.2g}".replace("-", "−"), fontsize=9)
        _finish(right, channel is channels[-1])
        at_left.colorbar(shown, ax=right, shrink=0.85, extend="both")
    _finish(panels[-1, 0], True)
    above, below = at_right.subfigures(2, 1, height_ratios=(1, 1.3))
    upper, lower = above.subplots(), below.subplots()
    if location is None:
        no_data(upper, "no layer's maps are fine enough\nto localise features")
        upper.set_axis_off()
    else:
        _located(upper, channels[0], location, location_layer, extent)
    _bars(lower, scalars, quantity)
    return figure


def _tile(axes: "Axes", channel: ChannelPicture, extent: tuple[float, ...]) -> None:
    from matplotlib.colors import AsinhNorm

    tile, ticks = channel.tile, None
    if tile.min() < 0 and channel.name == "peak_time":
        limit = max(float(np.abs(tile).max()), 1.0)
        style = {"cmap": "PuOr", "vmin": -limit, "vmax": limit}
    elif tile.max() > 20:  # four decades of charge
        style = {"cmap": "magma", "norm": AsinhNorm(3.0, vmin=min(0.0, float(tile.min())), vmax=float(tile.max()))}
        ticks = [tick for tick in (0, 3, 10, 30, 100, 300, 1000, 3000, 10_000) if tick <= tile.max()]
    else:
        style = {"cmap": "magma"}
    shown = axes.imshow(tile, extent=extent, **style)
    unit = f" [{channel.unit}]" if channel.unit else ""
    axes.set_title(f"{channel.name.replace('_', ' ')}{unit}")
    axes.set_ylabel("fov lat [deg]")
    _finish(axes, False)
    bar = axes.figure.colorbar(shown, ax=axes, shrink=0.85, ticks=ticks)
    if ticks is not None:
        bar.ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        bar.ax.minorticks_off()


def _located(axes: "Axes", charge: ChannelPicture, location: np.ndarray, layer: str, extent: tuple[float, ...]) -> None:
    limit = float(np.abs(location).max()) or 1.0
    shown = axes.imshow(location, extent=extent, cmap=_ATTRIBUTION_MAP, vmin=-limit, vmax=limit)
    levels = [level for level in (5.0, 20.0, 100.0) if charge.tile.max() > level]
    if levels:
        axes.contour(charge.tile, levels=levels, extent=extent, colors="k", linewidths=0.8)
    axes.set_title(f"Grad-CAM of {layer}")
    axes.figure.colorbar(shown, ax=axes, shrink=0.7)
    _finish(axes, True)


def _finish(axes: "Axes", labelled: bool) -> None:
    axes.grid(False)
    axes.locator_params(nbins=5)
    if labelled:
        axes.set_xlabel("fov lon [deg]")


def _bars(axes: "Axes", scalars: Sequence[tuple[str, float]], quantity: str) -> None:
    if not scalars:
        no_data(axes, "this network takes no scalars")
        axes.set_axis_off()
        return
    ranked = sorted(scalars, key=lambda entry: abs(entry[1]))[-_MOST_SCALARS:]
    values = [value for _, value in ranked]
    axes.barh([name for name, _ in ranked], values, color=["#B2182B" if value > 0 else "#2166AC" for value in values])
    axes.axvline(0, color="0.35", linewidth=0.9)
    axes.set_xlabel(textwrap.fill(f"part in {quantity}", 32))
    axes.tick_params(axis="y", labelsize=7.5)
    axes.set_title(f"scalars: {sum(value for _, value in scalars):+.3g}".replace("-", "−"))


@dataclass(frozen=True)
class LevelPicture:
    """Some maps of one layer: name, how many it has, which ones, and the maps."""

    layer: str
    n_maps: int
    indices: Sequence[int]
    maps: np.ndarray


@styled
def feature_maps(
    title: str, channels: Sequence[str], filters: np.ndarray | None, levels: Sequence[LevelPicture]
) -> "Figure":
    """First filters, and the maps that each level of a network makes of an image, strongest first.

    Parameters
    ----------
    title : str
    channels : sequence of str
        Names of the input's channels.
    filters : ndarray, shape (k, C, h, w), or None
        Those of the maps of the first level, in its order.
    levels : sequence of LevelPicture
    """
    n_columns = max([len(level.maps) for level in levels], default=1)
    n_filter_rows = len(channels) if filters is not None else 0
    n_rows = n_filter_rows + len(levels)
    figure = new_figure(1.15 * n_columns + 1.4, 1.15 * n_rows + 0.6)
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(n_rows, n_columns, squeeze=False)
    for place in axes.flat:
        place.set_axis_off()
    if filters is not None:
        limit = float(np.abs(filters).max()) or 1.0
        for row, channel in enumerate(channels):
            for column, kernel in enumerate(filters[:, row]):
                axes[row, column].imshow(kernel, cmap=_ATTRIBUTION_MAP, vmin=-limit, vmax=limit)
            _row_label(axes[row, 0], f"filters for\n{channel.replace('_', ' ')}")
    for row, level in enumerate(levels, start=n_filter_rows):
        for column, plane in enumerate(level.maps):
            signed = plane.min() < 0
            limit = float(np.abs(plane).max()) or 1.0
            scale = {"cmap": _ATTRIBUTION_MAP, "vmin": -limit} if signed else {"cmap": "magma", "vmin": 0.0}
            axes[row, column].imshow(plane, vmax=limit, **scale)
            axes[row, column].set_title(f"{level.indices[column]}: {limit:.2g}", fontsize=7, pad=2)
        height, width = level.maps.shape[1:]
        _row_label(axes[row, 0], f"{level.layer}\n{level.n_maps} maps of\n{height} x {width}")
    return figure


def _row_label(axes: "Axes", text: str) -> None:
    axes.text(-0.12, 0.5, text, transform=axes.transAxes, ha="right", va="center", fontsize=8)
