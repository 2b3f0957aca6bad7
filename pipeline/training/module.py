"""The training loop's own parts: what happens in a step, and what is kept from epoch to epoch."""

import copy
import csv
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pipeline.logs import get_logger
from pipeline.config import TaskConfig
from pipeline.errors import UserError
from pipeline.preparation import Preparation
from pipeline.tasks.training import Objective
from pipeline.tasks.training.data import DROPOUT, TrainingBatches, ValidationBatches, keyed_seed
from pipeline.tiles.reader import TileReader

logger = get_logger(__name__)

#: What the loss of an auxiliary output counts beside that of the main one: Szegedy et al. (2015), arXiv:1409.4842,
#: sect. 5.
AUXILIARY_WEIGHT = 0.3

_DEAD_RELUS_MORE = 0.02  # of the channels; between two epochs some come and go


class TrainingModule(LightningModule):
    """One network, its optimiser and its running average.

    What is validated and exported is the exponential moving average of the weights over the steps [1]_: it follows the
    optimiser at a distance, without its noise.

    Parameters
    ----------
    network : nn.Module
    objective : Objective
    preparation : Preparation
    train, validation : TileReader
    seed : int
    frozen : sequence of nn.Module
        Parts of the network that stay as they are: their parameters want no gradient already, and they remain in
        evaluation mode, so that batch normalisation keeps its statistics, too.

    References
    ----------
    .. [1] Tarvainen & Valpola (2017), "Mean teachers", arXiv:1703.01780, sect. 2; warm-up of the decay as in
       TensorFlow's ExponentialMovingAverage.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        preparation: Preparation,
        train: TileReader,
        validation: TileReader,
        *,
        seed: int,
        frozen: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        self._frozen = tuple(frozen)  # a tuple: not registered a second time
        self.network = network.to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.objective, self.preparation = objective, preparation
        self.train_tiles, self.validation_tiles = train, validation
        self.seed = seed
        self.config: TaskConfig = objective.config
        self._train_loss = RunningMean()
        self._validation_loss = RunningMean()
        self.train()

    def train(self, mode: bool = True) -> "TrainingModule":
        """Switch everything but the frozen parts to training mode."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    # ---- data --------------------------------------------------------------------------------------------------------
    def train_dataloader(self) -> DataLoader:
        """Batches of the epoch that begins (asked for anew each epoch)."""
        batches = TrainingBatches(
            self.train_tiles,
            self.objective,
            self.preparation,
            seed=self.seed,
            epoch=self.current_epoch,
            batch_size=self.config.batch_size,
        )
        return DataLoader(batches, batch_size=None)

    def val_dataloader(self) -> DataLoader:
        """The validation tiles."""
        batches = ValidationBatches(
            self.validation_tiles, self.objective, self.preparation, batch_size=self.config.batch_size
        )
        return DataLoader(batches, batch_size=None)

    # ---- steps -------------------------------------------------------------------------------------------------------
    def outputs(self, network: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Main and auxiliary outputs of a network in float32, whatever precision computed them.

        Auxiliary ones are there in training only, and only of networks built with them: those give a pair.
        """
        images = batch["images"].contiguous(memory_format=torch.channels_last)
        found = network(images, batch.get("scalars"))
        main, auxiliary = found if isinstance(found, tuple) else (found, ())
        return main.float(), tuple(output.float() for output in auxiliary)

    def on_train_epoch_start(self) -> None:
        """Forget the last epoch's loss."""
        self._train_loss = RunningMean()

    def on_train_batch_start(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Key torch's own random numbers (dropout) by the step, so that a resumed run draws the same."""
        torch.manual_seed(keyed_seed(self.seed, DROPOUT, self.current_epoch, batch_idx))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Loss of one batch; stops where it is no number."""
        outputs, auxiliary = self.outputs(self.network, batch)
        loss = self.objective.loss(outputs, batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise UserError(
                f"the loss became {value} in epoch {self.current_epoch + 1}, step {batch_idx + 1}: training has "
                f"diverged; lower train.{self.objective.task}.learning_rate (now {self.config.learning_rate:g}) or "
                f"gradient_clip (now {self.config.gradient_clip:g})"
            )
        self._train_loss.add(value, len(batch["images"]))
        self.log("loss", value, prog_bar=True)
        for output in auxiliary:  # not in the log, whose training loss stands beside that of validation
            loss = loss + AUXILIARY_WEIGHT * self.objective.loss(output, batch)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Let the average follow; early on it follows closely."""
        decay = min(self.config.average_decay, self.global_step / (self.global_step + 10))
        with torch.no_grad():
            current = self.network.state_dict()
            for name, averaged in self.average.state_dict().items():
                if averaged.is_floating_point():
                    averaged.lerp_(current[name], 1 - decay)
                else:
                    averaged.copy_(current[name])

    def on_validation_epoch_start(self) -> None:
        """Fresh sums, and a look at the ReLUs."""
        self._validation_loss = RunningMean()
        self._metrics = self.objective.metrics()
        self._relus = ReluWatch(self.average)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Loss and metrics of the averaged network."""
        outputs, _ = self.outputs(self.average, batch)
        self._validation_loss.add(float(self.objective.loss(outputs, batch)), len(batch["images"]))
        self._metrics.add(outputs, batch)

    def epoch_summary(self) -> dict[str, float]:
        """What the log says of the epoch just validated."""
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        losses = {"train_loss": self._train_loss.value, "loss": self._validation_loss.value}
        dead = {"dead_relu_fraction": self._relus.close()}
        return {"learning_rate": rate, **losses, **self._metrics.compute(), **dead}

    # ---- optimiser ---------------------------------------------------------------------------------------------------
    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW or SGD, with a linear warm-up and a half cosine down to a hundredth, by step."""
        config = self.config
        trained = [p for p in self.network.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
            # Biases and normalisation scales are not decayed: they are not what overfits.
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        if config.optimizer == "sgd":
            # Here the decay is part of the gradient, as in the papers that train with it; AdamW keeps it apart.
            optimizer = torch.optim.SGD(
                groups, lr=config.learning_rate, momentum=config.momentum, nesterov=config.nesterov
            )
        else:
            optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)
        total = self.config.epochs * self.train_tiles.n_batches(self.config.batch_size)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: rate_factor(step, total, self.config.warmup_fraction)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class RunningMean:
    """Weighted mean of numbers that come one by one."""

    def __init__(self) -> None:
        self._total = 0.0
        self._n = 0

    def add(self, value: float, n: int) -> None:
        """Take in a value that stands for `n` items."""
        self._total += value * n
        self._n += n

    @property
    def value(self) -> float:
        """The mean; NaN of nothing."""
        return self._total / self._n if self._n else math.nan


def rate_factor(step: int, total: int, warmup_fraction: float, floor: float = 0.01) -> float:
    """Learning rate at `step` of `total`, relative to its peak."""
    warmup = max(1, round(warmup_fraction * total))
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


class Progress(Callback):
    """The record of a training run: a row per epoch, the best weights, and when to stop.

    It is part of the checkpoint, so that a resumed run goes on with all three.

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
        What the training steps of these epochs took of the processor, over all threads; validation not counted.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.rows: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch = 0
        self.finished = False
        self.cpu_time_s = 0.0
        self._started_s = 0.0

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "rows": self.rows,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "finished": self.finished,
            "cpu_time_s": self.cpu_time_s,
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

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started_s = time.process_time()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self.cpu_time_s += time.process_time() - self._started_s

    def on_validation_end(self, trainer: Trainer, pl_module: TrainingModule) -> None:
        """Write the epoch's row, keep its weights if they are the best, stop when it is time."""
        monitor, config = self.objective.monitor, self.objective.config
        epoch = trainer.current_epoch + 1
        self.rows.append({"epoch": epoch, **pl_module.epoch_summary()})
        value = self.rows[-1][monitor.metric]
        if not math.isfinite(value):
            raise UserError(
                f"the validation metric {monitor.metric} of {self.objective.task} is {value} after epoch {epoch}; "
                "check that the validation split is neither empty nor of one kind, and that its truth is finite"
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
        told = ", ".join(f"{name} {value:.4g}" for name, value in row.items() if name != "epoch")
        logger.info("epoch %d of %d: %s", row["epoch"], pl_module.config.epochs, told)
        dead = [row["dead_relu_fraction"] for row in self.progress.rows[-2:]]
        if dead[-1] - dead[0] > _DEAD_RELUS_MORE:
            logger.warning(
                "%.0f %% of the ReLU channels are dead, more than an epoch ago; a lower learning rate may help",
                100 * dead[-1],
            )
        write_log(self.progress.rows, self.path)


def write_log(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Write the epochs' rows as CSV, whole or not at all."""
    temporary = path.with_name(f".{path.name}.part")
    with open(temporary, "w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, path)


class Checkpoint(Callback):
    """After each epoch the whole state of the run, written beside the last one and renamed when whole."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save."""
        temporary = self.path.with_name(f".{self.path.name}.part")
        trainer.save_checkpoint(temporary)
        os.replace(temporary, self.path)


class ReluWatch:
    """Which ReLU channels of a network ever pass anything on.

    A channel that is zero for every tile passes no gradient and costs its time for nothing. Leaky ReLUs cannot die and
    are not counted.
    """

    def __init__(self, network: nn.Module) -> None:
        self._alive: dict[tuple[str, int], Tensor] = {}
        self._calls: dict[str, int] = {}
        self._hooks = [network.register_forward_pre_hook(lambda *_: self._calls.clear())]
        for name, layer in network.named_modules():
            if isinstance(layer, nn.ReLU):
                self._hooks.append(layer.register_forward_hook(self._note(name)))

    def _note(self, name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            # A ReLU module may be used at several places of a network: each call counts for itself.
            self._calls[name] = self._calls.get(name, 0) + 1
            key = (name, self._calls[name])
            alive = output.detach().transpose(0, 1).flatten(1).amax(1) > 0
            self._alive[key] = self._alive[key] | alive if key in self._alive else alive

        return hook

    def close(self) -> float:
        """Stop watching; share of channels that never passed anything, NaN for a network without ReLUs."""
        for hook in self._hooks:
            hook.remove()
        if not self._alive:
            return math.nan
        return float((~torch.cat(list(self._alive.values()))).double().mean())
