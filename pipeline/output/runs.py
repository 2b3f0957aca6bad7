"""Runs of the workflow that are alive: Snakemake's lock of a killed one stands in the way of all that follow."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.errors import UserError

try:
    import fcntl
except ImportError:  # pragma: no cover (Windows)
    fcntl = None  # type: ignore[assignment]

#: Held open as long as the process lives.
_held: list[int] = []


def jobs_of_slurm(directory: str | Path = ".") -> list[str]:
    """Numbers of the user's Slurm jobs whose working directory this is; none where there is no Slurm."""
    if shutil.which("squeue") is None:
        return []
    try:
        asked = subprocess.run(["squeue", "--me", "-h", "-o", "%A %Z"], capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return []
    here = os.path.realpath(directory)
    jobs = [line.split(maxsplit=1) for line in asked.stdout.splitlines() if " " in line]
    return [number for number, folder in jobs if os.path.realpath(folder) == here]


def release_stale_lock(directory: str | Path = ".snakemake", jobs: Callable[[], Sequence[str]] = jobs_of_slurm) -> bool:
    """Remove Snakemake's lock if no run of the workflow is alive in this directory; count this process as one.

    Each run holds a lock that the kernel releases when the process ends, however it ends; Snakemake's own is a file
    that a killed run leaves behind.

    Parameters
    ----------
    directory : path
        Where Snakemake keeps its state.
    jobs : callable
        Numbers of the jobs in a cluster that a killed run may have left.

    Returns
    -------
    bool
        Whether a lock was removed. Without locks in the file system (see `pipeline.output.scratch`) nothing is: then
        `make unlock` does it.

    Raises
    ------
    UserError
        If a run was killed and its jobs still work here: they would meet those of the next run.
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
        if was_locked and (left := jobs()):
            raise UserError(
                f"a run was killed here, and {len(left)} of its jobs are still in the queue; wait until they have "
                f"ended (squeue --me), or cancel them: scancel {' '.join(left)}. Then run again: what they made is kept"
            )
        if was_locked:
            shutil.rmtree(stale)
            stale.mkdir()
        fcntl.flock(lock, fcntl.LOCK_SH)
    except OSError:  # another run is alive, which counts itself; or there are no locks
        was_locked = False
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return was_locked
