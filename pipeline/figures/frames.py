"""One frame: before, after, mask and what was taken away; whole, and where most was changed."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.figures import style
from pipeline.sky.coordinates import wcs_of
from pipeline.sky.dq import DESCRIPTIONS, DQ, has

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipeline.sky.previews import Pictures

#: A colour for each bit, as told apart by colour-blind readers (Tol's bright and muted schemes).
BIT_COLORS: Mapping[DQ, str] = {
    DQ.BAD: "#AA3377",
    DQ.HOT: "#CC3311",
    DQ.SATURATED: "#EECC66",
    DQ.COSMIC_RAY: "#4477AA",
    DQ.TRAIL: "#228833",
    DQ.MISSING: "#999999",
    DQ.RESTORED: "#66CCEE",
    DQ.LOW_CONFIDENCE: "#BBAADD",
    DQ.BLEED: "#EE7733",
    DQ.GHOST: "#882255",
}
# What a pixel is drawn as that has several bits: causes before results, rare ones before common ones.
_ORDER = (
    DQ.LOW_CONFIDENCE, DQ.RESTORED, DQ.MISSING, DQ.BAD, DQ.SATURATED, DQ.BLEED, DQ.GHOST, DQ.TRAIL, DQ.HOT,
    DQ.COSMIC_RAY,
)  # fmt: skip
_ZOOM_PX = 160
_RESIDUAL_SIGMA = 5.0
_BAR_COLOR = "#FFDD33"


@style.styled
def frame_picture(pictures: "Pictures", title: Sequence[str], *, only_flags: bool = False) -> "Figure":
    """Before, after, mask and residual of a frame, and of the part of it that was changed most.

    Before and after share one grey scale, of zscale's limits; the residual is in units of the noise of the sky. With a
    WCS there is a grid of coordinates.

    Parameters
    ----------
    pictures : Pictures
    title : sequence of str
        Lines.
    only_flags : bool
        Whether only the mask is new: then it is shown beside the frame, without the rest.
    """
    names = ("frame", "mask") if only_flags else ("before", "after", "mask", "residual")
    height, width = pictures.before.shape
    wcs = wcs_of(pictures.frame.header, celestial=True)
    zoomed = _zoom(pictures)
    panel_in = 4.6
    n_rows = len(names) // 2
    panel_height_in = min(max(panel_in * height / width, 1.6), 9.0) + 0.35
    zoom_in = 9.6 / len(names) + 0.3 if zoomed else 0.0
    figure = style.new_figure(10.4, n_rows * panel_height_in + zoom_in + 1.5)
    upper, *lower = figure.subfigures(2, 1, height_ratios=(n_rows * panel_height_in, zoom_in)) if zoomed else [figure]
    projection = {"projection": wcs} if wcs is not None else {}
    places = [upper.add_subplot(n_rows, 2, number + 1, **projection) for number in range(len(names))]
    limits = zscale_limits(pictures.before)
    for name, axes in zip(names, places, strict=True):
        _panel(axes, name, pictures, limits)
        axes.set_title(_TITLES[name])
        _coordinates(axes, wcs)
    _scale_bar(places[0], pictures, wcs)
    if zoomed:
        for axes, name in zip(lower[0].subplots(1, len(names), squeeze=False)[0], names, strict=True):
            _panel(axes, name, pictures, limits)
            (top, bottom), (left, right) = zoomed
            axes.set(xlim=(left - 0.5, right - 0.5), ylim=(top - 0.5, bottom - 0.5))
            axes.tick_params(labelsize=7)
            axes.grid(False)
        lower[0].suptitle(f"where most was flagged, columns {left} to {right}, rows {top} to {bottom}", fontsize=9)
        _frame_of_zoom(places[0], zoomed)
    handles = _legend(pictures.dq)
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8)
    lines = [part for line in title for part in textwrap.wrap(line.replace("$", r"\$"), 110)]
    figure.suptitle("\n".join(lines), fontsize=11)
    return figure


_TITLES = {
    "frame": "frame",
    "before": "before",
    "after": "after",
    "mask": "mask",
    "residual": f"before − after, from −{_RESIDUAL_SIGMA:g} (blue) to {_RESIDUAL_SIGMA:g} times the noise (red)",
}


def zscale_limits(image: np.ndarray) -> tuple[float, float]:
    """Limits of the grey scale as IRAF's and DS9's zscale has them; those of the values where that finds none."""
    from astropy.visualization import ZScaleInterval

    known = image[np.isfinite(image)]
    if not known.size:
        return 0.0, 1.0
    low, high = ZScaleInterval().get_limits(known)
    return (float(low), float(high)) if high > low else (float(known.min()), float(known.max()) + 1e-6)


def bit_layers(dq: np.ndarray) -> np.ndarray:
    """Colour of each pixel by its bits, float, shape (H, W, 4); transparent without any."""
    from matplotlib.colors import to_rgba

    layers = np.zeros((*dq.shape, 4), np.float32)
    for bit in _ORDER:
        layers[has(dq, bit)] = to_rgba(BIT_COLORS[bit])
    return layers


def _panel(axes: "Axes", name: str, pictures: "Pictures", limits: tuple[float, float]) -> None:
    height, width = pictures.before.shape
    step = pictures.step
    extent = (-0.5, width * step - 0.5, -0.5, height * step - 0.5)
    grey = {"cmap": "gray", "vmin": limits[0], "vmax": limits[1], "extent": extent}
    if name == "residual":
        noise = pictures.frame.noise / step
        residual = (pictures.before - pictures.after) / noise
        axes.imshow(residual, cmap="RdBu_r", vmin=-_RESIDUAL_SIGMA, vmax=_RESIDUAL_SIGMA, extent=extent)
    else:
        image = pictures.after if name == "after" else pictures.before
        axes.imshow(image, alpha=0.5 if name == "mask" else 1.0, **grey)
    if name == "mask":
        axes.imshow(bit_layers(pictures.dq), extent=extent)
    axes.set_facecolor("0.85")


def _coordinates(axes: "Axes", wcs: Any) -> None:
    if wcs is None:
        axes.grid(False)
        axes.tick_params(labelsize=7)
        return
    axes.coords.grid(color="#55AAFF", alpha=0.45, linewidth=0.6)
    for coordinate, name in zip(axes.coords, ("RA", "Dec"), strict=True):
        is_equatorial = "RA" in wcs.wcs.ctype[0] or "RA" in wcs.wcs.ctype[1]
        coordinate.set_ticklabel(size=7)
        if is_equatorial:
            coordinate.set_auto_axislabel(False)
            coordinate.set_axislabel(name, fontsize=8)


def _scale_bar(axes: "Axes", pictures: "Pictures", wcs: Any) -> None:
    """A bar of a round length, about a fifth of the width."""
    width_px = pictures.before.shape[1] * pictures.step
    unit_px, unit = 1.0, "px"
    if wcs is not None:
        from astropy.wcs.utils import proj_plane_pixel_scales

        pixel_arcsec = 3600 * float(np.mean(proj_plane_pixel_scales(wcs.celestial)))
        in_arcmin = width_px * pixel_arcsec > 600
        unit_px, unit = (60 if in_arcmin else 1) / pixel_arcsec, "arcmin" if in_arcmin else "arcsec"
    length = _round(width_px / unit_px / 5)
    x, y = 0.06 * width_px, 0.06 * pictures.before.shape[0] * pictures.step
    # The line is in pixels in any projection.
    axes.plot([x, x + length * unit_px], [y, y], color=_BAR_COLOR, linewidth=2.5)
    axes.text(
        x + length * unit_px / 2, 1.4 * y, f"{length:g} {unit}", color=_BAR_COLOR, ha="center", va="bottom", fontsize=8
    )
    axes.set(xlim=(-0.5, width_px - 0.5), ylim=(-0.5, pictures.before.shape[0] * pictures.step - 0.5))


def _round(length: float) -> float:
    """The next smaller of 1, 2, 5, 10 ..."""
    decade = 10.0 ** math.floor(math.log10(length))
    return max(factor for factor in (1, 2, 5) if factor * decade <= length) * decade


def _zoom(pictures: "Pictures") -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Rows and columns of the part where most was flagged; None if the frame is small, binned or without flags."""
    height, width = pictures.dq.shape
    if pictures.step > 1 or min(height, width) < 1.5 * _ZOOM_PX:
        return None
    # Hits and what was replaced, rather than an edge of the chip that is bad as a whole.
    flagged = has(pictures.dq, DQ.COSMIC_RAY | DQ.HOT | DQ.TRAIL | DQ.RESTORED)
    if not flagged.any():
        flagged = has(pictures.dq, ~(DQ.MISSING | DQ.SATURATED | DQ.LOW_CONFIDENCE))
    if not flagged.any():
        return None
    sums = np.zeros((height + 1, width + 1))
    sums[1:, 1:] = flagged.cumsum(0).cumsum(1)
    ys = np.arange(0, height - _ZOOM_PX + 1, _ZOOM_PX // 4)
    xs = np.arange(0, width - _ZOOM_PX + 1, _ZOOM_PX // 4)
    y, x = ys[:, None], xs[None]
    counts = sums[y + _ZOOM_PX, x + _ZOOM_PX] - sums[y, x + _ZOOM_PX] - sums[y + _ZOOM_PX, x] + sums[y, x]
    row, column = np.unravel_index(counts.argmax(), counts.shape)
    return (int(ys[row]), int(ys[row]) + _ZOOM_PX), (int(xs[column]), int(xs[column]) + _ZOOM_PX)


def _frame_of_zoom(axes: "Axes", zoomed: tuple[tuple[int, int], tuple[int, int]]) -> None:
    from matplotlib.patches import Rectangle

    (top, bottom), (left, right) = zoomed
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, color=_BAR_COLOR, linewidth=1.0))


def _legend(dq: np.ndarray) -> list[Any]:
    from matplotlib.patches import Patch

    counts = {bit: int(np.count_nonzero(has(dq, bit))) for bit in reversed(_ORDER)}
    return [
        Patch(facecolor=BIT_COLORS[bit], edgecolor="0.4", linewidth=0.5, label=f"{DESCRIPTIONS[bit]}: {n:,} px")
        for bit, n in counts.items()
        if n
    ]
