"""When the state of a run is saved, and how a run ends that is asked to."""

import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from pipeline.errors import Terminated
from pipeline.files import atomic_output
from pipeline.logs import get_logger
from pipeline.training.module import TrainingModule
from pipeline.training.ranks import Ranks

logger = get_logger(__name__)

# Batch systems send the first before they kill, and the second some time before the limit of a job if asked to.
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
# Signals within this time are one request.
_REPEATED_S = 5.0
# Several ranks have to agree on the step after which they save or end. Each agreement waits for the device.
_STEPS_UNTIL_AGREED = 10


class Checkpoint(Callback):
    """The whole state of a run, written under a temporary name by the first rank and renamed when complete.

    It is saved after each epoch, within an epoch when `minutes` have passed since it was last saved, and when a signal
    asks the process to end: the run then stops behind the step that it is at. Several ranks agree on that step.

    Parameters
    ----------
    path : path
        Of the checkpoint.
    minutes : float
    ranks : Ranks
    """

    def __init__(self, path: Path, minutes: float, ranks: Ranks) -> None:
        self.path, self.ranks = path, ranks
        self._interval_s = 60 * minutes
        self._saved_s = time.monotonic()
        self._asked, self._asked_s = 0, 0.0
        self._usual: dict[int, Any] = {}

    # ---- signals -----------------------------------------------------------------------------------------------------
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the signals, from lightning as well: its own handler waits for other ranks, which may not come."""
        assert isinstance(pl_module, TrainingModule)
        pl_module.after_step = lambda batch_idx: self._after_step(trainer, pl_module, batch_idx)
        self._saved_s = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            self._usual = {number: signal.signal(number, self._note) for number in _SIGNALS}

    def _note(self, number: int, frame: FrameType | None) -> None:
        """Remember the first signal; SIGTERM once more, some time later, ends the process as usual.

        Slurm sends a signal to all processes of a step, and torchrun passes on the one that it gets: a rank gets two.
        """
        if not self._asked:
            self._asked, self._asked_s = number, time.monotonic()
        elif number == signal.SIGTERM and time.monotonic() - self._asked_s >= _REPEATED_S:
            signal.signal(number, self._usual.get(number) or signal.SIG_DFL)
            signal.raise_signal(number)

    def _end(self, number: int, where: str) -> None:
        logger.warning(
            "stopped by %s after %s; the state is in %s: run the same command again to resume",
            signal.Signals(number).name, where, self.path.parent,
        )  # fmt: skip
        raise Terminated(128 + number)

    # ---- saving ------------------------------------------------------------------------------------------------------
    def _after_step(self, trainer: Trainer, module: TrainingModule, batch_idx: int) -> None:
        step = batch_idx + 1
        if step == module.n_steps:
            return  # the epoch's validation comes next, then it is saved
        if self.ranks.together and step % _STEPS_UNTIL_AGREED:
            return
        due = time.monotonic() - self._saved_s >= self._interval_s
        asked, due = self.ranks.largest([self._asked, due], module.device)
        if asked or due:
            self._save(trainer)
        if asked:
            self._end(asked, f"step {step} of {module.n_steps} in epoch {module.current_epoch + 1}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save."""
        self._save(trainer)
        (asked,) = self.ranks.largest([self._asked], pl_module.device)
        if asked:
            self._end(asked, f"epoch {pl_module.current_epoch}")

    def _save(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            with atomic_output(self.path, force=True) as temporary:
                trainer.save_checkpoint(temporary)
        else:
            trainer.save_checkpoint(self.path)  # which writes nothing, and waits for the first rank
        self._saved_s = time.monotonic()
