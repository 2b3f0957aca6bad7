"""Make batches in a thread, while the training thread computes."""

import contextlib
import queue
import threading
from collections.abc import Generator, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

_POLL_S = 0.2  # how soon the thread notices that nobody wants its batches any more


class _End:
    """Last entry of the queue: the batches are over, or an error ended them."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def prefetched(items: Generator[T, None, None], ahead: int = 3) -> Iterator[T]:
    """The same items in the same order, up to `ahead` of them made in advance.

    The thread starts with the first item that is asked for, and ends with the last one or when the iterator is closed.
    An error in it is raised where the item is missing.
    """
    made: queue.Queue[Any] = queue.Queue(ahead)
    closed = threading.Event()

    def put(item: Any) -> bool:
        while not closed.is_set():
            try:
                made.put(item, timeout=_POLL_S)
            except queue.Full:
                continue
            return True
        return False

    def make() -> None:
        error = None
        try:
            with contextlib.closing(items):
                for item in items:
                    if not put(item):
                        break
        except BaseException as caught:  # it belongs to the other thread
            error = caught
        put(_End(error))

    thread = threading.Thread(target=make, name="batches", daemon=True)
    thread.start()
    try:
        while not isinstance(item := made.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        closed.set()
        thread.join()
