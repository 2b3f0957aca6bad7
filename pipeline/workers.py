"""The same work in one process or in several: results in order, few at a time."""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection
from queue import SimpleQueue
from types import FrameType
from typing import Any, TypeVar

from pipeline.errors import Terminated, UserError
from pipeline.logs import ROOT, libraries_are_quiet, log_warnings, quieten_libraries
from pipeline.output import ending

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 3  # items per process in progress or finished and not yet used: enough to keep all processes busy

_TERMINATED = 143
_CLEAN_UP_S = 10.0  # that a process has to remove what is half made when its parent was killed

# State of a worker process: its worker, whether it is busy, and whether it shall stop.
_worker: Callable[[Any], Any] | None = None
_working = _stopping = False
_records: SimpleQueue[logging.LogRecord] = SimpleQueue()  # log records since its last result


def in_order(
    make_worker: Callable[..., Callable[[Item], Result]], arguments: tuple[Any, ...], items: Iterable[Item], jobs: int
) -> Iterator[Result]:
    """Results of a worker for each item, in the order of the items.

    Memory is bounded: at most `AHEAD` results per process wait. However the work ends, by Ctrl-C, an error, or because
    no more results are taken, the processes end with it: their current item is stopped by `KeyboardInterrupt`, so
    that it can remove its temporary files. Their log records are logged here, together with the result.

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
        If a process was killed.
    Exception
        Any error of a worker.
    """
    if jobs == 1:
        yield from map(make_worker(*arguments), items)
        return
    # Spawned, not forked: this process has an HDF5 file open and may have threads of numerical libraries.
    context = multiprocessing.get_context("spawn")
    levels = logging.getLogger(ROOT).getEffectiveLevel(), libraries_are_quiet()
    # Its other end closes when this process stops the workers, or ends itself.
    lifeline, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_start, initargs=(lifeline, *levels))
    waiting: deque[Future[tuple[Result, list[logging.LogRecord]]]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(_work, make_worker, arguments, item))
            if len(waiting) == AHEAD * jobs:
                yield _logged(*waiting.popleft().result())
        while waiting:
            yield _logged(*waiting.popleft().result())
    except BrokenProcessPool as error:
        raise UserError(
            f"one of {jobs} processes was killed, perhaps for lack of memory; try a smaller --jobs"
        ) from error
    finally:
        held.close()
        pool.shutdown(cancel_futures=True)
        lifeline.close()


def _logged(result: Result, records: Iterable[logging.LogRecord]) -> Result:
    for record in records:
        logging.getLogger(record.name).handle(record)
    return result


def _start(lifeline: Connection, level: int, quiet: bool) -> None:
    log_warnings()
    quieten_libraries(quiet)
    logger = logging.getLogger(ROOT)
    logger.setLevel(level)
    logger.addHandler(QueueHandler(_records))  # which makes records that can be pickled
    logger.propagate = False
    # Ctrl-C reaches every process of a terminal: it is for the parent, which ends the others.
    signal.signal(signal.SIGINT, _break_off)
    signal.signal(signal.SIGTERM, _terminate)
    threading.Thread(target=_end_with_parent, args=(lifeline,), daemon=True).start()


def _break_off(_signal: int, _frame: FrameType | None) -> None:
    if _stopping and _working and (end := ending.ask(KeyboardInterrupt())):
        raise end


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    if not _working:
        os._exit(_TERMINATED)
    if end := ending.ask(Terminated(_TERMINATED)):
        raise end


def _end_with_parent(lifeline: Connection) -> None:
    global _stopping
    lifeline.poll(None)  # returns when the other end is closed
    _stopping = True
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    # A killed parent cannot stop this process, which would wait for work forever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        deadline = time.monotonic() + _CLEAN_UP_S
        while _working and time.monotonic() < deadline:
            time.sleep(0.05)
        os._exit(1)


def _work(
    make_worker: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...], item: Any
) -> tuple[Any, list[logging.LogRecord]]:
    global _worker, _working
    _working = True
    try:
        if _stopping:
            raise KeyboardInterrupt
        if _worker is None:
            _worker = make_worker(*arguments)
        result = _worker(item)
        return result, [_records.get() for _ in range(_records.qsize())]
    except BaseException:
        if isinstance(ending.asked(), Terminated):  # what was half made is removed; the pool would wait for more work
            os._exit(_TERMINATED)
        raise
    finally:
        _working = False
