"""What is kept from epoch to epoch: the record of a training, its best weights and its log."""

import csv
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from pipeline.config import NetworkConfig
from pipeline.errors import UserError
from pipeline.files import atomic_output
from pipeline.logs import get_logger
from pipeline.tasks.spec import Monitor
from pipeline.training.module import TrainingModule

logger = get_logger(__name__)

_DEAD_RELUS_MORE = 0.02  # of the channels; between two epochs some come and go


class Progress(Callback):
    """The record of a training run: a row per epoch, the best weights, and when to stop.

    It is part of the checkpoint, so that a resumed run continues with all three.

    Attributes
    ----------
    rows : list of dict
        `epoch` (from 1), losses, metrics, `dead_relu_fraction`, in the order of the epochs.
    best : dict
        State of the averaged network in its best epoch.
    best_epoch : int
        0 before the first.
    finished : bool
        Whether all epochs are done, or the metric has not improved for the configured number of them.
    cpu_time_s : float
        CPU time of the training steps of these epochs, over all threads, without validation.
    """

    def __init__(self, monitor: Monitor, config: NetworkConfig) -> None:
        self.monitor, self.config = monitor, config
        self.rows: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch = 0
        self.finished = False
        self.cpu_time_s = 0.0
        self._started_s: float | None = None

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "rows": self.rows,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "finished": self.finished,
            "cpu_time_s": self.cpu_time_s + self._running_s,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.rows, self.best = state_dict["rows"], state_dict["best"]
        self.best_epoch, self.finished = state_dict["best_epoch"], state_dict["finished"]
        self.cpu_time_s = state_dict["cpu_time_s"]

    @property
    def best_row(self) -> dict[str, float]:
        """Metrics of the best epoch."""
        return self.rows[self.best_epoch - 1]

    @property
    def _running_s(self) -> float:
        """CPU time that the epoch has taken so far in this process."""
        return 0.0 if self._started_s is None else time.process_time() - self._started_s

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, of an epoch that goes on as well."""
        self._started_s = time.process_time()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started_s = time.process_time()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self.cpu_time_s += self._running_s
        self._started_s = None

    def on_validation_end(self, trainer: Trainer, pl_module: TrainingModule) -> None:
        """Write the epoch's row, keep its weights if they are the best, stop when it is time."""
        monitor, config = self.monitor, self.config
        epoch = trainer.current_epoch + 1
        self.rows.append({"epoch": epoch, **pl_module.epoch_summary()})
        value = self.rows[-1][monitor.metric]
        if not math.isfinite(value):
            raise UserError(
                f"the validation metric {monitor.metric} is {value} after epoch {epoch}; "
                "check that the validation split is neither empty nor of one class only, and that its truth is finite"
            )
        best = self.best_row[monitor.metric] if self.best_epoch else None
        if monitor.improves(value, best):
            self.best_epoch = epoch
            self.best = {
                name: tensor.detach().to("cpu", copy=True) for name, tensor in pl_module.average.state_dict().items()
            }
        stalled = epoch - self.best_epoch >= config.early_stopping_patience
        self.finished = stalled or epoch >= config.epochs
        trainer.should_stop |= stalled


class EpochLog(Callback):
    """One line per epoch in the log and in a CSV file that can be followed while training."""

    def __init__(self, progress: Progress, path: Path) -> None:
        self.progress, self.path = progress, path

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write."""
        row = self.progress.rows[-1]
        values = ", ".join(f"{name} {value:.4g}" for name, value in row.items() if name != "epoch")
        logger.info("epoch %d of %d: %s", row["epoch"], pl_module.config.epochs, values)
        dead = [row["dead_relu_fraction"] for row in self.progress.rows[-2:]]
        if dead[-1] - dead[0] > _DEAD_RELUS_MORE:
            logger.warning(
                "%.0f %% of the ReLU channels are dead, more than an epoch ago; a lower learning rate may help",
                100 * dead[-1],
            )
        write_log(self.progress.rows, self.path)


def write_log(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Write the epochs' rows as CSV, completely or not at all."""
    with atomic_output(path, force=True) as temporary, open(temporary, "w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
