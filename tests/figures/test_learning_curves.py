"""The figure of a training run."""

import numpy as np
import pytest

from pipeline.figures.style import save_figure
from pipeline.figures.training import learning_curves

ROWS = [
    {"epoch": n, "learning_rate": 1e-3 / n, "train_loss": 1 / n, "loss": 1.1 / n, "auc": 1 - 0.2 / n}
    for n in range(1, 6)
]


def test_it_draws_what_was_recorded(tmp_path):
    figure = learning_curves(ROWS, best_epoch=4, metric="auc")
    left, middle, right = figure.axes
    np.testing.assert_allclose(left.lines[0].get_ydata(), [row["train_loss"] for row in ROWS])
    np.testing.assert_allclose(middle.lines[0].get_ydata(), [row["auc"] for row in ROWS])
    assert middle.get_ylabel() == "auc"
    assert right.get_ylabel() == "learning rate"
    assert save_figure(figure, tmp_path / "curves.png").stat().st_size > 5000


@pytest.mark.parametrize("metric", ["loss", "auc"])
def test_a_run_of_one_epoch(metric):
    learning_curves(ROWS[:1], best_epoch=1, metric=metric)


def test_a_run_without_metrics():
    bare = [{name: row[name] for name in ("epoch", "learning_rate", "train_loss", "loss")} for row in ROWS]
    figure = learning_curves(bare, best_epoch=1, metric="loss")
    assert [text.get_text() for text in figure.axes[1].texts] == ["no metric was recorded"]
