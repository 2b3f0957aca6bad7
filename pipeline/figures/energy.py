"""How well the energy is reconstructed."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.figures import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@style.styled
def migration(matrices: Mapping[str, np.ndarray], edges_tev: Sequence[float]) -> "Figure":
    """Migration matrices of all methods side by side.

    Parameters
    ----------
    matrices : mapping
        Method -> (k, k) shares: row i, the true bin, sums to 1 (less what lies outside); NaN rows stay blank.
    edges_tev : sequence of float, length k + 1
        Bin edges of both axes [TeV].
    """
    figure = style.new_figure(4.0 * len(matrices) + 0.9, 4.0)
    axes = figure.subplots(1, len(matrices), squeeze=False, sharex=True, sharey=True)[0]
    top = max(0.1, *(np.nanmax(matrix, initial=0) for matrix in matrices.values()))
    mesh = None
    for place, (method, matrix) in zip(axes, matrices.items(), strict=True):
        # The rows are true energies: they belong on the x axis, so that a column of the picture sums to one.
        mesh = place.pcolormesh(edges_tev, edges_tev, matrix.T, cmap="cividis", vmin=0, vmax=top)
        place.plot([edges_tev[0], edges_tev[-1]], [edges_tev[0], edges_tev[-1]], color="white", lw=0.8, alpha=0.5)
        _write_shares(place, matrix, np.asarray(edges_tev), top)
        place.set(xscale="log", yscale="log", title=style.label(method), xlabel="true energy [TeV]")
        place.set_box_aspect(1)
        place.grid(False)
        for axis in (place.xaxis, place.yaxis):
            style.plain_log_axis(axis, list(edges_tev) if len(edges_tev) < 10 else list(edges_tev)[::2])
        place.tick_params(axis="x", rotation=45)
    axes[0].set_ylabel("reconstructed energy [TeV]")
    figure.colorbar(mesh, ax=list(axes), label="share of the true-energy bin", shrink=0.85)
    return figure


def _write_shares(axes, matrix: np.ndarray, edges: np.ndarray, top: float) -> None:
    centres = np.sqrt(edges[1:] * edges[:-1])
    for i, j in np.argwhere(np.nan_to_num(matrix) >= 0.005):
        axes.text(
            centres[i], centres[j], f"{matrix[i, j]:.2f}", ha="center", va="center", fontsize=7,
            color="black" if matrix[i, j] > 0.5 * top else "white",
        )  # fmt: skip


@style.styled
def energy_residuals(true_tev: np.ndarray, reco_tev: Mapping[str, np.ndarray], weights: np.ndarray) -> "Figure":
    """Distribution of log10(E_reco / E_true) of all methods.

    Parameters
    ----------
    true_tev, weights : ndarray, shape (n,)
    reco_tev : mapping
        Method -> ndarray, shape (n,).
    """
    figure = style.new_figure(4.8, 3.6)
    axes = figure.subplots()
    edges = np.linspace(-1, 1, 61)
    for method, reco in reco_tev.items():
        residual = np.log10(reco / true_tev)
        height = np.histogram(residual, edges, weights=weights)[0] / (weights.sum() * (edges[1] - edges[0]))
        outside = abs(1 - height.sum() * (edges[1] - edges[0]))
        text = f"{style.label(method)} ({outside:.1%} outside)"
        axes.stairs(height, edges, color=style.color(method), label=text, linewidth=1.4)
    axes.axvline(0, **style.REFERENCE)
    axes.set(xlabel=r"log$_{10}$(E$_\mathrm{reco}$ / E$_\mathrm{true}$)", ylabel="share per unit", xlim=(-1, 1))
    axes.set_ylim(0, axes.get_ylim()[1] * 1.25)
    axes.legend(loc="upper right", fontsize=8)
    return figure
