"""The same work in one process or in several: results in order, few at a time."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from pipeline.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 3  # items per process that are in work or wait to be taken: enough to keep all busy

_worker: Callable[[Any], Any] | None = None  # of this process, once it has made one


def in_order(
    make_worker: Callable[..., Callable[[Item], Result]], arguments: tuple[Any, ...], items: Iterable[Item], jobs: int
) -> Iterator[Result]:
    """What a worker makes of each item, in the order of the items.

    Memory is bounded: at most `AHEAD` results per process wait.

    Parameters
    ----------
    make_worker, arguments
        ``make_worker(*arguments)`` is the worker, a function of an item; each process makes its own. All of these can
        be pickled.
    items : iterable
    jobs : int
        Number of processes; with 1 all is done in this one.

    Raises
    ------
    UserError
        If a process was ended from outside.
    Exception
        What a worker raised.
    """
    if jobs == 1:
        yield from map(make_worker(*arguments), items)
        return
    # Spawned, not forked: this process has an HDF5 file open and may have threads of numerical libraries.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_start)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(_work, make_worker, arguments, item))
            if len(waiting) == AHEAD * jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise UserError(
            f"one of {jobs} processes was ended from outside, perhaps for want of memory; try a smaller --jobs"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start() -> None:
    # Ctrl-C is for the parent, which ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A killed parent cannot say goodbye, and this process would wait for work forever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(make_worker: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...], item: Any) -> Any:
    global _worker
    if _worker is None:
        _worker = make_worker(*arguments)
    return _worker(item)
