"""One look for all figures, and how they are saved."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's palette: distinguishable for colour-blind readers (Wong 2011, Nature Methods 8, 441). A method keeps its
# colour and marker through all figures.
COLORS = {
    "network": "#0072B2",
    "forest": "#D55E00",
    "combined": "#009E73",
    "hillas": "#E69F00",
    "mono": "#56B4E9",
    "noisy": "#7F7F7F",
    "astroscrappy_median": "#D55E00",
    "nearest": "#D55E00",
    "again": "#009E73",
    "gamma": "#CC79A7",
    "hadron": "#4D4D4D",
}
MARKERS = {
    "network": "o", "forest": "s", "combined": "D", "hillas": "^", "mono": "v", "noisy": "x",
    "astroscrappy_median": "s", "nearest": "s", "again": "D",
}  # fmt: skip
LABELS = {
    "network": "network",
    "forest": "forest on Hillas parameters",
    "combined": "mean of network and forest",
    "hillas": "crossing of the image axes",
    "mono": "network for single telescopes",
    "noisy": "as recorded",
    "astroscrappy_median": "astroscrappy + median",
    "nearest": "nearest training image",
    "again": "simulated, recorded once more",
}
REFERENCE = {"color": "0.35", "linewidth": 0.9, "linestyle": (0, (4, 3)), "zorder": 1}
PIXELS_PER_INCH = 160

_RC = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "0.9",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "lines.linewidth": 1.6,
    "errorbar.capsize": 2.5,
    "image.origin": "lower",
    "image.interpolation": "nearest",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "white",
}


def styled(function: Callable[..., "Figure"]) -> Callable[..., "Figure"]:
    """Draw the figure that `function` returns in the common look, whatever the user's own settings are."""

    @wraps(function)
    def draw(*args: Any, **kwargs: Any) -> "Figure":
        import matplotlib as mpl

        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(_RC)
            return function(*args, **kwargs)

    return draw


def new_figure(width_in: float, height_in: float) -> "Figure":
    """A figure without pyplot: it needs no display and no closing."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_in, height_in))


def save_figure(figure: "Figure", path: str | Path) -> Path:
    """Write a PNG; equal figures give equal bytes (no date, no version inside)."""
    path = Path(path)
    figure.savefig(path, dpi=PIXELS_PER_INCH, metadata={"Software": None})
    return path


def color(method: str) -> str:
    """Colour of a method; grey for one that has none of its own."""
    return COLORS.get(method, "0.4")


def label(method: str) -> str:
    """Label of the method."""
    return LABELS.get(method, method.replace("_", " "))


def marker(method: str) -> str:
    """Marker of a method."""
    return MARKERS.get(method, "^")


def plain_log_axis(axis: Any, ticks: list[float] | None = None) -> None:
    """Label a logarithmic axis with plain numbers (0.1, 1, 10) rather than powers."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

    if ticks is not None:
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def no_data(axes: "Axes", reason: str) -> None:
    """Write in an empty panel why it is empty."""
    axes.text(0.5, 0.5, reason, ha="center", va="center", transform=axes.transAxes, color="0.4", fontsize=9)
    axes.grid(False)


def panel_grid(n_panels: int) -> tuple[int, int]:
    """Rows and columns for `n_panels` small panels."""
    columns = n_panels if n_panels <= 3 else (4 if n_panels in (4, 7, 8) else 3)
    return -(-n_panels // columns), columns


def trim_panels(axes: Any, n_panels: int) -> None:
    """Hide the panels of a grid that are not used, and label the x axis of the lowest one left in each column."""
    rows, columns = axes.shape
    for place in axes.flat[n_panels:]:
        place.set_visible(False)
    for column in range(columns):
        lowest = max(row for row in range(rows) if row * columns + column < n_panels)
        axes[lowest, column].tick_params(labelbottom=True)
