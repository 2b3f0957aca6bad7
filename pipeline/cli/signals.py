"""Signals that ask the program to end."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pipeline.errors import Terminated

_ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def ending_by_signals() -> Iterator[None]:
    """Raise `Terminated` inside the block when the process is asked to end, so that it removes what is half made.

    Without, SIGTERM (batch systems, `kill`, Snakemake) and SIGHUP (a closed terminal) end the process at once. A signal
    that is ignored, as by `nohup`, stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    chosen = [number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL]
    is_ending = False

    def end(number: int, _frame: FrameType | None) -> None:
        nonlocal is_ending
        if not is_ending:  # a second one does not break off the removal of what is half made
            is_ending = True
            raise Terminated(128 + number)

    for number in chosen:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in chosen:
            signal.signal(number, signal.SIG_DFL)
