"""Signals that ask the program to end."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pipeline.errors import Terminated
from pipeline.output import ending

_ENDING = {
    getattr(signal, name): usual
    for name, usual in (
        ("SIGINT", signal.default_int_handler),
        ("SIGTERM", signal.SIG_DFL),
        ("SIGHUP", signal.SIG_DFL),
    )
    if hasattr(signal, name)
}


@contextmanager
def ending_by_signals() -> Iterator[None]:
    """Raise `Terminated` inside the block when the process is asked to end, so that it removes what is half made.

    Without, SIGTERM (batch systems, `kill`, Snakemake) and SIGHUP (a closed terminal) end the process at once. Ctrl-C
    stays `KeyboardInterrupt`. A signal that is ignored, as by `nohup`, stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    chosen = [number for number, usual in _ENDING.items() if signal.getsignal(number) is usual]
    for number in chosen:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in chosen:
            signal.signal(number, _ENDING[number])


def _end(number: int, _frame: FrameType | None) -> None:
    end = ending.ask(KeyboardInterrupt() if number == signal.SIGINT else Terminated(128 + number))
    if end is not None:
        raise end
    if number == signal.SIGINT:  # once more: the user does not want to wait for the removal of what is half made
        raise KeyboardInterrupt
