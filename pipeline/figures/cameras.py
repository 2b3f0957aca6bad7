"""What a Cherenkov camera sees: its pixels in their places and shapes, with the charge of a shower in them."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.figures import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.camera.geometry import Camera
    from pipeline.camera.shower_image import ShowerImage

_PANEL_IN, _TITLE_IN, _BAR_IN = 2.15, 0.45, 1.1
_LINEAR_PE = 5.0  # the colour scale is linear below, logarithmic above
_SMALLEST_TOP_PE = 30.0


def pixel_outlines_deg(camera: "Camera") -> np.ndarray:
    """Corners of all pixels on the sky.

    Gaps between pixels are divided among them: the corners are those of the cells around pixel centres.

    Parameters
    ----------
    camera : Camera

    Returns
    -------
    ndarray, shape (n_pixels, 6 or 4, 2)
        Along azimuth and altitude from the pointing [deg], with the effective focal length if it is known.
    """
    n_corners = 6 if camera.hexagonal else 4
    effective_m = camera.effective_focal_length_m
    scale = 1.0 if math.isnan(effective_m) else camera.focal_length_m / effective_m
    # Edges, not corners, are towards the neighbours.
    angle = camera.lattice_angle_rad + (2 * np.arange(n_corners) + 1) * math.pi / n_corners
    radius_deg = camera.pitch_deg / 2 / math.cos(math.pi / n_corners)
    corner = radius_deg * np.column_stack([np.cos(angle), np.sin(angle)])
    centre = np.column_stack([camera.pix_x_deg, camera.pix_y_deg])
    return scale * (centre[:, None] + corner)


@style.styled
def camera_gallery(camera: "Camera", rows: Mapping[str, Sequence["ShowerImage"]], title: str = "") -> "Figure":
    """Images of one camera, a row for each kind of particle, on one colour scale.

    Parameters
    ----------
    camera : Camera
    rows : mapping
        Name of the particle -> images, as `pipeline.camera.gallery.gallery_images` returns them.
    title : str
        Of the figure.
    """
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import AsinhNorm

    n_columns = max(map(len, rows.values()))
    outlines = pixel_outlines_deg(camera)
    low, high = outlines.min(axis=(0, 1)), outlines.max(axis=(0, 1))
    panel_in = _PANEL_IN * (high[1] - low[1]) / (high[0] - low[0]) + _TITLE_IN
    figure = style.new_figure(_PANEL_IN * n_columns, panel_in * len(rows) + _BAR_IN)
    axes = figure.subplots(len(rows), n_columns, squeeze=False)
    top = max([_SMALLEST_TOP_PE] + [float(np.nanmax(image.charge_pe)) for images in rows.values() for image in images])
    norm = AsinhNorm(linear_width=_LINEAR_PE, vmin=0, vmax=top)
    mesh = None
    for line, (particle, images) in zip(axes, rows.items(), strict=True):
        for place, image in zip(line, images, strict=False):
            mesh = PolyCollection(outlines, array=np.asarray(image.charge_pe), norm=norm, cmap="viridis", linewidths=0)
            # Without it, the background shines through between pixels.
            mesh.set_edgecolor("face")
            place.add_collection(mesh)
            place.plot(*image.source_deg, marker="*", color="white", markersize=5, markeredgewidth=0)
            place.set_title(
                f"{image.energy_tev:.2g} TeV at {image.impact_m:.0f} m\n{image.size_pe:.0f} p.e.", fontsize=8
            )
        line[0].set_ylabel(particle)
        for place in line:
            place.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal", xticks=[], yticks=[])
            place.grid(False)
            for spine in place.spines.values():
                spine.set_visible(False)
        for place in line[len(images) :]:
            place.set_visible(False)
    if mesh is not None:
        bar = figure.colorbar(
            mesh, ax=list(axes.flat), location="bottom", aspect=60, fraction=0.03, pad=0.02,
            label=f"charge [p.e.]; each field is {high[0] - low[0]:.1f} deg wide, azimuth to the right",
        )  # fmt: skip
        ticks = [tick for tick in (0, 5, 10, 30, 100, 300, 1000, 3000, 10000) if tick <= top]
        bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
        bar.minorticks_off()
    if title:
        figure.suptitle(title, fontsize=11)
    return figure
