"""What happens in a training step, and which optimiser takes it."""

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from pipeline.bundle.export import apply_network
from pipeline.config import NetworkConfig
from pipeline.errors import UserError
from pipeline.tiles.reader import TileReader
from pipeline.training.data import DROPOUT, Batch, Feed, TrainingBatches, ValidationBatches, keyed_seed, rank_key
from pipeline.training.ranks import ALONE, Ranks
from pipeline.training.relus import ReluWatch
from pipeline.training.running_mean import RunningMean

#: Weight of the loss of an auxiliary output relative to that of the main one: Szegedy et al. (2015), arXiv:1409.4842,
#: sect. 5.
AUXILIARY_WEIGHT = 0.3

_Pair = tuple[list[Tensor], list[Tensor]]

# Steps between two checks that the loss is finite: each check waits for the device.
_STEPS_UNCHECKED = 50


class TrainingModule(LightningModule):
    """One network, its optimiser and its running average.

    What is validated and exported is the exponential moving average of the weights over the steps [1]_: it follows the
    optimiser at a distance, without its noise.

    Parameters
    ----------
    network : nn.Module
    feed : Feed
        From tiles to batches; its heads define the losses.
    config : NetworkConfig
    train, validation : TileReader
    frozen : sequence of nn.Module
        Parts of the network that are not trained: their parameters have no gradient, and they remain in
        evaluation mode, so that batch normalisation keeps its statistics, too.
    name : str
        Of the network, for messages.
    ranks : Ranks
        This process among those that train together. Each takes its share of a batch, and the gradient is that of the
        whole batch; normalisations use the share alone.

    Attributes
    ----------
    after_step : callable
        Called with the number of the batch once its step is complete, the running average included.

    References
    ----------
    .. [1] Tarvainen & Valpola (2017), "Mean teachers", arXiv:1703.01780, sect. 2; warm-up of the decay as in
       TensorFlow's ExponentialMovingAverage.
    """

    def __init__(
        self,
        network: nn.Module,
        feed: Feed,
        config: NetworkConfig,
        train: TileReader,
        validation: TileReader,
        *,
        frozen: Sequence[nn.Module] = (),
        name: str = "",
        ranks: Ranks = ALONE,
    ) -> None:
        super().__init__()
        self.ranks = ranks
        self.after_step: Callable[[int], None] = lambda batch_idx: None
        self._frozen = tuple(frozen)  # a tuple: not registered a second time
        self.network = network.to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        if config.compile:
            self.network.compile()
        self.feed, self.heads, self.config, self._name = feed, feed.heads, config, name
        self.train_tiles, self.validation_tiles = train, validation
        self._train_loss, self._validation_loss = (RunningMean() for _ in range(2))
        self._unchecked: list[Tensor] = []
        self._followed: tuple[_Pair, _Pair] | None = None
        self.train()

    def train(self, mode: bool = True) -> "TrainingModule":
        """Switch everything but the frozen parts to training mode."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    # ---- data --------------------------------------------------------------------------------------------------------
    def train_dataloader(self) -> DataLoader:
        """Batches of the epoch that begins, or goes on (called again each epoch)."""
        batches = TrainingBatches(
            self.train_tiles,
            self.feed,
            epoch=self.current_epoch,
            batch_size=self.config.batch_size,
            part=self.ranks.part,
            first_step=self.global_step - self.current_epoch * self.n_steps,
        )
        return DataLoader(batches, batch_size=None)

    @property
    def n_steps(self) -> int:
        """Steps of an epoch."""
        return self.train_tiles.n_batches(self.config.batch_size)

    def val_dataloader(self) -> DataLoader:
        """The validation tiles."""
        size, part = self.config.batch_size, self.ranks.part
        batches = ValidationBatches(self.validation_tiles, self.feed, batch_size=size, part=part)
        return DataLoader(batches, batch_size=None)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Move the images of a batch that has arrived on a GPU."""
        return self.feed.on_device(batch)

    # ---- steps -------------------------------------------------------------------------------------------------------
    def outputs(self, network: nn.Module, batch: Batch) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Main and auxiliary outputs of a network in float32, whatever precision computed them.

        Auxiliary ones are there in training only, and only of networks built with them: those give a pair.
        """
        inputs = dict(batch["inputs"])
        inputs["images"] = inputs["images"].contiguous(memory_format=torch.channels_last)
        result = apply_network(network, inputs)
        main, auxiliary = result if isinstance(result, tuple) else (result, ())
        return main.float(), tuple(output.float() for output in auxiliary)

    def on_train_start(self) -> None:
        """Tell the losses how far a resumed training is, which may be within an epoch."""
        self._followed = None  # tensors have moved to the device
        self.heads.set_progress(self.current_epoch / self.config.epochs)

    def on_train_epoch_start(self) -> None:
        """Forget the last epoch's loss, and tell the losses how far the training is."""
        self._train_loss.reset()
        self.heads.set_progress(self.current_epoch / self.config.epochs)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Key torch's own random numbers (dropout) by the step, so that a resumed run draws the same."""
        key = (self.current_epoch, batch_idx, *rank_key(self.ranks.part))
        torch.manual_seed(keyed_seed(self.feed.seed, DROPOUT, *key))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch. It stays on the device; every so many steps it is checked."""
        outputs, auxiliary = self.outputs(self.network, batch)
        shares = self._shares(batch)
        loss = self.heads.loss(outputs, batch["heads"], shares)
        self._train_loss.update(loss.detach(), len(outputs))
        self._unchecked.append(loss.detach())
        if len(self._unchecked) == _STEPS_UNCHECKED:
            self._check_losses(batch_idx)
        self.log("loss", loss.detach(), prog_bar=True, batch_size=len(outputs))
        for output in auxiliary:  # not logged: the logged training loss is comparable with that of validation
            loss = loss + AUXILIARY_WEIGHT * self.heads.loss(output, batch["heads"], shares)
        return loss

    def _shares(self, batch: Batch) -> dict[str, Tensor] | None:
        """How much the loss of each head counts on this rank, where the ranks have unlike numbers of tiles for it.

        The gradient is the mean over the ranks. It is that of the whole batch if each loss, a mean over n tiles, counts
        by n over the mean n of the ranks.
        """
        if not self.ranks.together or not any(head.selects for head in self.heads.heads):
            return None
        tasks = [head.task for head in self.heads.heads]
        counts = torch.tensor([len(batch["heads"][task]["weights"]) for task in tasks], dtype=torch.float32)
        counts = counts.to(self.device, non_blocking=True)
        total = counts.clone()
        torch.distributed.all_reduce(total)
        shares = counts * self.ranks.n_ranks / total.clamp(min=1)
        return dict(zip(tasks, shares, strict=True))

    def _check_losses(self, last_step: int) -> None:
        losses = torch.stack(self._unchecked).tolist()
        self._unchecked.clear()
        first = last_step - len(losses) + 1
        for step, value in enumerate(losses, start=first):
            if not math.isfinite(value):
                raise UserError(
                    f"the loss became {value} in epoch {self.current_epoch + 1}, step {step + 1}: training has "
                    f"diverged; lower networks.{self._name}.learning_rate (now {self.config.learning_rate:g}) or "
                    f"gradient_clip (now {self.config.gradient_clip:g})"
                )

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Update the running average; early on it follows the weights closely.

        torch's own update of a moving average, all tensors in one call. Its `AveragedModel` is not used: it keeps the
        number of updates on the device and reads it at every step.
        """
        decay = min(self.config.average_decay, self.global_step / (self.global_step + 10))
        if self._followed is None:
            self._followed = _pairs(self.average, self.network)
        (averaged, current), (counters, counted) = self._followed
        get_ema_multi_avg_fn(decay)(averaged, current, None)
        if counters:
            torch._foreach_copy_(counters, counted)
        self.after_step(batch_idx)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the sums of the epoch's loss, of each rank, after a look at the last losses."""
        if self._unchecked:
            self._check_losses(self.trainer.fit_loop.epoch_loop.batch_idx)
        own = (float(self._train_loss.total), float(self._train_loss.n_tiles))
        checkpoint["train_loss"] = self.ranks.of_all(own)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Inverse of `on_save_checkpoint`."""
        self._train_loss.set(*checkpoint["train_loss"][self.ranks.rank])

    def on_validation_epoch_start(self) -> None:
        """Reset the sums, and start to watch the ReLUs; the loss is that of the beginning, the same in all epochs."""
        self.heads.set_progress(0.0)
        if self._unchecked:
            self._check_losses(self.n_steps - 1)
        if self.ranks.together:  # the first one has the statistics of the normalisations that count
            for buffer in self.average.buffers():
                torch.distributed.broadcast(buffer, 0)
        self._validation_loss.reset()
        self._metrics = self.heads.metrics()
        self._relus = ReluWatch(self.average)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Loss and metrics of the averaged network."""
        outputs, _ = self.outputs(self.average, batch)
        self._validation_loss.update(self.heads.loss(outputs, batch["heads"]), len(outputs))
        self._metrics.update(outputs, batch["heads"])

    def epoch_summary(self) -> dict[str, float]:
        """Log the epoch that was just validated."""
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        dead = {"dead_relu_fraction": self._relus.close(self.ranks.of_all)}
        with warnings.catch_warnings():
            # Where several ranks share few tiles, some have none: theirs come from the others.
            warnings.filterwarnings("ignore", message="The ``compute`` method of metric .* was called before")
            means = {"train_loss": self._train_loss, "loss": self._validation_loss}
            losses = {name: float(self.ranks.gather(mean).compute()) for name, mean in means.items()}
            return {"learning_rate": rate, **losses, **self._metrics.compute(self.ranks), **dead}

    # ---- optimiser ---------------------------------------------------------------------------------------------------
    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm by torch: lightning does not do it for fused optimisers, which may scale gradients."""
        if gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), gradient_clip_val)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW or SGD, with a linear warm-up and a half cosine down to a hundredth, by step.

        Fused: one call for all tensors takes a sixth of the time of one per tensor, which is 6 % of a small network's
        step.
        """
        config = self.config
        trained = [p for p in self.network.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
            # Biases and normalisation scales are not decayed: they do not overfit.
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        if config.optimizer == "sgd":
            # Here the decay is part of the gradient, as in the papers that train with it; AdamW keeps it apart.
            optimizer = torch.optim.SGD(
                groups, lr=config.learning_rate, momentum=config.momentum, nesterov=config.nesterov, fused=True
            )
        else:
            optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
        total = self.config.epochs * self.n_steps
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: rate_factor(step, total, self.config.warmup_fraction)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _pairs(average: nn.Module, network: nn.Module) -> tuple[_Pair, _Pair]:
    """Tensors of a running average and of what it follows, as both change in place: those averaged, and counters."""
    current, averaged = network.state_dict(), average.state_dict()
    floating = [name for name, tensor in averaged.items() if tensor.is_floating_point()]
    others = [name for name in averaged if name not in floating]
    return tuple(([averaged[n] for n in names], [current[n] for n in names]) for names in (floating, others))


def rate_factor(step: int, total: int, warmup_fraction: float, floor: float = 0.01) -> float:
    """Learning rate at `step` of `total`, relative to its peak."""
    warmup = max(1, round(warmup_fraction * total))
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
