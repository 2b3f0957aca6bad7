"""The epochs of a training: lightning's trainer with the parts that make a run repeatable and resumable."""

import contextlib
import logging
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pipeline.config import NetworkConfig
from pipeline.errors import Terminated
from pipeline.logs import get_logger
from pipeline.tasks.spec import Monitor
from pipeline.training import CHECKPOINT_FILE

if TYPE_CHECKING:
    from lightning.pytorch import Callback

    from pipeline.training.callbacks import Progress
    from pipeline.training.module import TrainingModule

logger = get_logger(__name__)

LOG_FILE = "train_log.csv"


def fit(
    module: "TrainingModule",
    config: NetworkConfig,
    monitor: Monitor,
    checkpoints: Path,
    *,
    device: str,
    precision: str,
) -> "Progress":
    """Run the remaining epochs.

    Parameters
    ----------
    module : TrainingModule
        With the initial weights; those of the last checkpoint replace them.
    config : NetworkConfig
    monitor : Monitor
        Chooses the best epoch.
    checkpoints : path
        Directory of the run's checkpoint and log; a checkpoint in it is resumed.
    device : str
        As torch writes it.
    precision : {"float32", "bfloat16"}

    Returns
    -------
    Progress
        The rows of all epochs and the weights of the best.
    """
    with _quiet_lightning():
        from lightning.pytorch import Trainer

        from pipeline.training.callbacks import Checkpoint, EpochLog, Progress

        progress = Progress(monitor, config)
        last = checkpoints / CHECKPOINT_FILE
        if last.exists():
            state = torch.load(last, map_location="cpu", weights_only=True)
            progress.load_state_dict(state["callbacks"][progress.state_key])
            logger.info("resuming after epoch %d of %d", len(progress.rows), config.epochs)
        if not progress.finished:
            trainer = Trainer(
                accelerator=device.partition(":")[0],
                devices=[int(device.partition(":")[2])] if ":" in device else 1,
                precision="bf16-mixed" if precision == "bfloat16" else "32-true",
                max_epochs=config.epochs,
                gradient_clip_val=config.gradient_clip,
                callbacks=[progress, EpochLog(progress, checkpoints / LOG_FILE), *_progress_bar(), Checkpoint(last)],
                enable_progress_bar=sys.stderr.isatty(),
                default_root_dir=checkpoints,
                reload_dataloaders_every_n_epochs=1,
                num_sanity_val_steps=0,
                logger=False,
                enable_checkpointing=False,
                enable_model_summary=False,
            )
            with torch.random.fork_rng(devices=[]), _interruptible():
                trainer.fit(module, ckpt_path=last if last.exists() else None, weights_only=True)
    return progress


def _progress_bar() -> list["Callback"]:
    """A bar on a terminal, on stderr; nothing elsewhere."""
    if not sys.stderr.isatty():
        return []
    from lightning.pytorch.callbacks import RichProgressBar

    return [RichProgressBar(console_kwargs={"stderr": True})]


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C through, which lightning turns into the end of the program."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as end:
        if isinstance(end, Terminated):
            raise
        signal.signal(signal.SIGINT, handler)  # which lightning switched off
        raise KeyboardInterrupt from end


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Silence lightning's banner and hints on data loaders; lightpool logs what matters."""
    import lightning.pytorch  # its import sets the levels of its loggers  # noqa: F401

    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [entry.level for entry in loggers]
    for entry in loggers:
        entry.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            yield
    finally:
        for entry, level in zip(loggers, levels, strict=True):
            entry.setLevel(level)
