"""One event: its camera images with cleaning, ellipse and source, and where its axis met the ground."""

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.figures import style
from pipeline.figures.cameras import pixel_outlines_deg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure

    from pipeline.camera.event_views import EventView, ImageView
    from pipeline.camera.geometry import Camera

_LINEAR_PE = 5.0  # the colour scale is linear below, logarithmic above
_SMALLEST_TOP_PE = 30.0
_TICKS_PE = (0, 5, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000)
_MAX_IMAGES = 12
_TRUE, _RECO, _CLEANED, _ELLIPSE = "#E69F00", "#CC3311", "white", "#56B4E9"
_GREY = "#888888"


def open_edges_deg(camera: "Camera", mask: np.ndarray) -> np.ndarray:
    """Edges of pixels in `mask` towards pixels that are not in it.

    Returns
    -------
    ndarray, shape (n, 2, 2)
        Both ends of each, as `pixel_outlines_deg` has them.
    """
    pixels = np.flatnonzero(mask)
    outlines = pixel_outlines_deg(camera)[pixels]
    n_corners = outlines.shape[1]
    ends = np.stack([np.roll(outlines, 1, axis=1), outlines], axis=2)
    # The neighbour beyond an edge is about a pitch away from the pixel, along this direction.
    angle = camera.lattice_angle_rad + 2 * np.arange(n_corners) * math.pi / n_corners
    away = camera.pitch_deg * np.column_stack([np.cos(angle), np.sin(angle)])
    centre = np.column_stack([camera.pix_x_deg, camera.pix_y_deg])
    beyond = centre[pixels][:, None] + away
    neighbors = camera.neighbors[pixels]
    distance = np.linalg.norm(beyond[:, :, None] - centre[neighbors][:, None], axis=3)
    inside = (neighbors >= 0) & mask[neighbors]
    return ends[~(inside[:, None] & (distance < 0.6 * camera.pitch_deg)).any(axis=2)]


@style.styled
def event_picture(view: "EventView", title: Sequence[str]) -> "Figure":
    """The images of an event on one colour scale; of several, with a map of the ground.

    Parameters
    ----------
    view : EventView
    title : sequence of str
        Lines.
    """
    images = sorted(view.images, key=lambda image: -_size_pe(image))[:_MAX_IMAGES]
    if len(images) == 1:
        figure = style.new_figure(7.4, 7.5)
        axes = [figure.subplots()]
    else:
        rows, columns = style.panel_grid(len(images) + 1)
        figure = style.new_figure(4.3 * columns + 0.6, 4.2 * rows + 0.9)
        panels = figure.subplots(rows, columns, squeeze=False)
        axes = list(panels.flat[: len(images)])
        ground_map(panels.flat[len(images)], view)
        for panel in panels.flat[len(images) + 1 :]:
            panel.set_visible(False)
    top = max([_SMALLEST_TOP_PE, *(float(np.nanmax(i.charge_pe)) for i in images if np.isfinite(i.charge_pe).any())])
    mesh = None
    for place, image in zip(axes, images, strict=True):
        mesh = camera_image(place, image, top)
        place.set_xlabel("fov lon [deg], along azimuth")
        place.set_ylabel("fov lat [deg], along altitude")
        if len(images) > 1:
            place.set_title(_panel_title(image), fontsize=9)
    if mesh is not None:
        ticks = [tick for tick in _TICKS_PE if tick <= top]
        bar = figure.colorbar(mesh, ax=axes, label="charge [p.e.]", shrink=0.8, aspect=35, pad=0.01)
        bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
        bar.minorticks_off()
    handles = {h.get_label(): h for place in axes for h in place.get_legend_handles_labels()[0]}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=6, fontsize=9)
    n_characters = int(13 * figure.get_figwidth())
    lines = [part for line in title for part in textwrap.wrap(line.replace("$", r"\$"), n_characters)]
    figure.suptitle("\n".join(lines), fontsize=10)
    return figure


def camera_image(axes: "Axes", image: "ImageView", top_pe: float) -> "PolyCollection":
    """Pixels, cleaning, ellipse, and where the source was found and is; the colours are those of the charge."""
    from matplotlib.collections import LineCollection, PolyCollection
    from matplotlib.colors import AsinhNorm

    camera = image.camera
    outlines = pixel_outlines_deg(camera)
    norm = AsinhNorm(linear_width=_LINEAR_PE, vmin=0, vmax=top_pe)
    mesh = PolyCollection(outlines, array=np.ma.masked_invalid(image.charge_pe), norm=norm, cmap="viridis", lw=0.3)
    mesh.set_edgecolor("face")
    mesh.cmap = mesh.get_cmap().with_extremes(bad=_GREY)
    axes.add_collection(mesh)
    edges = open_edges_deg(camera, image.cleaned.mask)
    if len(edges):
        axes.add_collection(LineCollection(edges, colors=_CLEANED, linewidths=0.9, label="_cleaning"))
        _ellipse(axes, image)
    _sources(axes, image)
    if not np.isfinite(image.charge_pe).all():
        axes.plot([], [], marker="h", color=_GREY, linestyle="none", label="no measurement")
    low, high = outlines.min(axis=(0, 1)), outlines.max(axis=(0, 1))
    shown = [source for source in (image.true_source_deg, image.reco_source_deg) if source is not None]
    low, high = np.min([low, *shown], axis=0), np.max([high, *shown], axis=0)
    margin = 0.03 * (high - low)
    axes.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
    axes.set_aspect("equal")
    axes.set_facecolor("0.93")
    axes.grid(False)
    return mesh


def _ellipse(axes: "Axes", image: "ImageView") -> None:
    from matplotlib.patches import Ellipse

    known, scale = image.cleaned.parameters, image.sky_scale
    centre = scale * known["hillas_fov_lon"], scale * known["hillas_fov_lat"]
    if not np.isfinite([*centre, known["hillas_psi"]]).all():
        return
    axes.add_patch(
        Ellipse(
            centre, 2 * scale * known["hillas_length"], 2 * scale * known["hillas_width"], angle=known["hillas_psi"],
            fill=False, color=_ELLIPSE, linewidth=1.6, label="Hillas ellipse (1 rms)",
        )
    )  # fmt: skip
    psi = math.radians(known["hillas_psi"])
    axes.axline(centre, slope=math.tan(psi), color=_ELLIPSE, linewidth=0.7, linestyle=":")


def _sources(axes: "Axes", image: "ImageView") -> None:
    from matplotlib.patches import Circle

    outline: dict[str, Any] = {"markeredgecolor": "black", "markeredgewidth": 0.6, "linestyle": "none"}
    if image.true_source_deg is not None:
        axes.plot(*image.true_source_deg, marker="*", color=_TRUE, markersize=14, label="true source", **outline)
    if image.reco_source_deg is None:
        return
    known, scale = image.cleaned.parameters, image.sky_scale
    centre = scale * known["hillas_fov_lon"], scale * known["hillas_fov_lat"]
    if np.isfinite(centre).all():
        arrow = {"arrowstyle": "->", "color": _RECO, "linewidth": 1.3, "shrinkA": 0, "shrinkB": 3}
        axes.annotate("", image.reco_source_deg, centre, arrowprops=arrow)
    axes.plot(*image.reco_source_deg, marker="P", color=_RECO, markersize=9, label="predicted source", **outline)
    if np.isfinite(image.reco_radius_deg):
        axes.add_patch(
            Circle(
                image.reco_source_deg, image.reco_radius_deg, fill=False, color=_RECO, lw=1.3, label="68 % containment"
            )
        )


def ground_map(axes: "Axes", view: "EventView") -> None:
    """Telescopes, the lines that the images' axes make on the ground, and the core; north is up."""
    placed = [image for image in view.images if np.isfinite(image.position_m).all()]
    if not placed:
        style.no_data(axes, "positions of the telescopes\nare not known")
        return
    axes_of = [image.axis_on_ground() for image in placed]
    # Where the line of sight through a telescope meets the ground: the axes of the images go through it.
    feet_m = [i.position_m[:2] if axis is None else axis[0] for i, axis in zip(placed, axes_of, strict=True)]
    east_m, north_m = np.array([(-y, x) for x, y in feet_m]).T
    points = list(zip(east_m, north_m, strict=True))
    for (x, y), (dx, dy) in filter(None, axes_of):
        axes.axline((-y, x), (-y - dy, x + dx), color=_ELLIPSE, linewidth=0.9, zorder=1)
    size_pe = np.array([_size_pe(image) for image in placed])
    size = 20 + 130 * np.sqrt(size_pe / max(size_pe.max(), 1.0))
    axes.scatter(east_m, north_m, s=size, color="0.3", zorder=3, label="telescopes, by charge")
    for image, place in zip(placed, points, strict=True):
        axes.annotate(str(image.tel_id), place, xytext=(7, 5), textcoords="offset points", fontsize=9, zorder=4)
    for values, prefix, marker, color, label in (
        (view.truth, "true", "*", _TRUE, "true core"),
        (view.values, "reco", "P", _RECO, "predicted core"),
    ):
        core = [values.get(f"{prefix}_core_{axis}_m", math.nan) for axis in "xy"]
        if np.isfinite(core).all():
            points.append((-core[1], core[0]))
            axes.plot(-core[1], core[0], marker, color=color, ms=12, mec="black", mew=0.6, ls="none", label=label)
    middle = np.mean([np.min(points, axis=0), np.max(points, axis=0)], axis=0)
    half = 0.6 * max(float(np.ptp(points, axis=0).max()), 60.0)
    axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half), aspect="equal")
    axes.set(xlabel="east [m]", ylabel="north [m]")
    axes.set_title("ground seen along the pointing, axes of the images", fontsize=9)
    axes.legend(loc="best", fontsize=8, frameon=True)


def _size_pe(image: "ImageView") -> float:
    return float(np.nan_to_num(image.cleaned.parameters["hillas_intensity"]))


def _panel_title(image: "ImageView") -> str:
    from pipeline.camera.event_views import words_of

    words = [text for text in words_of(image.values) if text.startswith(("energy", "gammaness"))]
    size = f"size {_size_pe(image):.0f} p.e."
    below = ", ".join([size, *words]) if not image.reason else f"{size}; {image.reason}"
    return f"telescope {image.tel_id} ({image.camera.name})\n{below}"
