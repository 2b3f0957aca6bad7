"""Runs of the workflow that are alive: Snakemake's lock of a killed one stands in the way of all that follow."""

import contextlib
import os
import shutil
from pathlib import Path

try:
    import fcntl
except ImportError:  # pragma: no cover (Windows)
    fcntl = None  # type: ignore[assignment]

#: Held open as long as the process lives.
_held: list[int] = []


def release_stale_lock(directory: str | Path = ".snakemake") -> bool:
    """Remove Snakemake's lock if no run of the workflow is alive in this directory; count this process as one.

    Each run holds a lock that the kernel releases when the process ends, however it ends; Snakemake's own is a file
    that a killed run leaves behind.

    Parameters
    ----------
    directory : path
        Where Snakemake keeps its state.

    Returns
    -------
    bool
        Whether a lock was removed. Without locks in the file system (see `pipeline.output.scratch`) nothing is: then
        `make unlock` does it.
    """
    if fcntl is None:
        return False
    directory = Path(directory)
    directory.mkdir(exist_ok=True)
    lock = os.open(directory / "lightpool.runs", os.O_RDWR | os.O_CREAT, 0o666)
    _held.append(lock)
    stale = directory / "locks"
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        was_locked = stale.is_dir() and any(stale.iterdir())
        if was_locked:
            shutil.rmtree(stale)
            stale.mkdir()
        fcntl.flock(lock, fcntl.LOCK_SH)
    except OSError:  # another run is alive, which counts itself; or there are no locks
        was_locked = False
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return was_locked
