"""Learning curves of a training run."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.figures.style import COLORS, REFERENCE, new_figure, no_data, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NOT_METRICS = ("epoch", "learning_rate", "train_loss", "loss", "dead_relu_fraction")


@styled
def learning_curves(rows: Sequence[Mapping[str, float]], best_epoch: int, metric: str) -> "Figure":
    """Losses, a validation metric, and learning rate, against the epoch; the best epoch is marked.

    Parameters
    ----------
    rows : sequence of mapping
        One per epoch: `epoch`, `train_loss`, `loss` (validation), `learning_rate` and the validation metrics.
    best_epoch : int
        The epoch whose weights were kept (dashed).
    metric : str
        Name of the monitored metric; where it is the loss itself, the first other metric is drawn.
    """
    figure = new_figure(9.0, 2.9)
    left, middle, right = figure.subplots(1, 3)
    epochs = [row["epoch"] for row in rows]
    left.plot(epochs, [row["train_loss"] for row in rows], color="0.5", marker=".", label="training")
    left.plot(epochs, [row["loss"] for row in rows], color=COLORS["network"], marker=".", label="validation")
    left.set(ylabel="loss", title="Loss")
    left.legend()
    others = [name for name in (rows[0] if rows else {}) if name not in _NOT_METRICS]
    shown = metric if metric in others else next(iter(others), None)
    if shown is None:
        no_data(middle, "no metric was recorded")
    else:
        middle.plot(epochs, [row[shown] for row in rows], color=COLORS["network"], marker=".")
        middle.set(ylabel=shown, title="Validation")
    right.plot(epochs, [row["learning_rate"] for row in rows], color="0.3", marker=".")
    right.set(ylabel="learning rate", title="Learning rate", ylim=(0, None))
    for axes in (left, middle, right):
        _finish(axes, best_epoch)
    return figure


def _finish(axes: "Axes", best_epoch: int) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.axvline(best_epoch, **REFERENCE)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
