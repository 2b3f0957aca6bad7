"""The epochs of a training: lightning's trainer with the parts that make a run repeatable and resumable."""

import contextlib
import logging
import math
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile

import torch

from pipeline.config import NetworkConfig
from pipeline.errors import InputFileError, Terminated
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
    checkpoint_minutes: float = math.inf,
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
    checkpoint_minutes : float
        After how long the state is saved within an epoch.

    Returns
    -------
    Progress
        The rows of all epochs and the weights of the best.
    """
    with _quiet_lightning():
        from lightning.pytorch import Trainer

        from pipeline.training.callbacks import EpochLog, Progress
        from pipeline.training.checkpoints import Checkpoint

        ranks = module.ranks
        progress = Progress(monitor, config)
        last = checkpoints / CHECKPOINT_FILE
        if last.exists():
            _check_whole(last)
            state = torch.load(last, map_location="cpu", weights_only=True)
            progress.load_state_dict(state["callbacks"][progress.state_key])
            steps = state["global_step"] - len(progress.rows) * module.n_steps
            within = f" and {steps} steps of {module.n_steps}" if steps else ""
            logger.info("resuming after epoch %d of %d%s", len(progress.rows), config.epochs, within)
        if not progress.finished:
            talking = [EpochLog(progress, checkpoints / LOG_FILE), *_progress_bar()] if ranks.rank == 0 else []
            trainer = Trainer(
                **_processors(device, module),
                precision="bf16-mixed" if precision == "bfloat16" else "32-true",
                max_epochs=config.epochs,
                gradient_clip_val=config.gradient_clip,
                callbacks=[progress, *talking, Checkpoint(last, checkpoint_minutes, ranks)],
                enable_progress_bar=sys.stderr.isatty() and ranks.rank == 0,
                default_root_dir=checkpoints,
                reload_dataloaders_every_n_epochs=1,
                num_sanity_val_steps=0,
                logger=False,
                enable_checkpointing=False,
                enable_model_summary=False,
                use_distributed_sampler=False,
            )
            # Before each step, lightning lets all ranks wait for the first one, to hear whether it got a signal. Our
            # ranks agree on that now and then.
            trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None
            with torch.random.fork_rng(devices=[]), _interruptible():
                trainer.fit(module, ckpt_path=last if last.exists() else None, weights_only=True)
    return progress


def _check_whole(checkpoint: Path) -> None:
    """Refuse a checkpoint that is cut or damaged: torch does not look at the checksums in it.

    Raises
    ------
    InputFileError
        Naming the option that starts again.
    """
    try:
        with ZipFile(checkpoint) as file:
            damaged = file.testzip()
    except (BadZipFile, OSError, EOFError) as error:
        damaged = str(error)
    if damaged:
        raise InputFileError(f"the checkpoint {checkpoint} is damaged ({damaged}); start again with --force")


def _processors(device: str, module: "TrainingModule") -> dict[str, Any]:
    """Arguments of the trainer: where it computes, and with which other ranks."""
    kind, _, number = device.partition(":")
    ranks = module.ranks
    if not ranks.together:
        return {"accelerator": kind, "devices": [int(number)] if number else 1}
    from lightning.pytorch.strategies import DDPStrategy

    # A batch without images of one kind of camera leaves the encoder of these without gradient.
    unused = module.feed.input.takes == "telescopes" and len(module.feed.input.cameras) > 1
    return {
        "accelerator": kind,
        "devices": ranks.n_local,
        "num_nodes": ranks.n_nodes,
        # Buffers, the statistics of normalisations, are not sent around before each step, nor before each batch of the
        # validation, of which ranks have unlike numbers: those of the first rank are taken when they are needed.
        "strategy": DDPStrategy(find_unused_parameters=unused, broadcast_buffers=False),
    }


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
