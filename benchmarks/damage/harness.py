"""Run a command of lightpool in a forked child, within limits of time and memory, and judge how it ended."""

import contextlib
import json
import os
import re
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import cli

CPU_SECONDS = 10.0
WALL_SECONDS = 90.0  # of a command that waits; a busy machine makes any command wait
MEMORY_BYTES = 2 << 30
_POLL_S = 0.01


@dataclass(frozen=True)
class Ending:
    """How one command ended: `outcome` for the table, `detail` for the list of what must not be."""

    outcome: str
    detail: str = ""
    value: Any = None


def run(command: list[str], folder: Path) -> Ending:
    """One command, in a child of this process: what is imported here is not imported again."""
    stdout, stderr = folder / "stdout", folder / "stderr"
    pid = os.fork()
    if pid == 0:
        _child(command, stdout, stderr)
    started = time.monotonic()
    ended_by_us = ""
    while True:
        done, status, _ = os.wait4(pid, os.WNOHANG)
        if done:
            break
        if _cpu_s(pid) > CPU_SECONDS or time.monotonic() - started > WALL_SECONDS:
            ended_by_us = "hang"
        elif _memory(pid) > MEMORY_BYTES:
            ended_by_us = "memory"
        if ended_by_us:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return Ending(ended_by_us, command[0])
        time.sleep(_POLL_S)
    return _judge(command, status, stdout, stderr, folder)


def _child(command: list[str], stdout: Path, stderr: Path) -> None:
    code = 70
    try:
        for number, path in ((1, stdout), (2, stderr)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        code = cli.main(command)
    finally:
        os._exit(code)


def _cpu_s(pid: int) -> float:
    """CPU time of a process so far [s]."""
    with contextlib.suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _memory(pid: int) -> int:
    """Peak resident memory of a process [bytes]."""
    with contextlib.suppress(OSError, TypeError):  # of a process that has ended, nothing is there
        text = Path(f"/proc/{pid}/status").read_text()
        return int(re.search(r"VmHWM:\s*(\d+)", text)[1]) << 10
    return 0


def _judge(command: list[str], status: int, stdout: Path, stderr: Path, folder: Path) -> Ending:
    if os.WIFSIGNALED(status):
        return Ending("signal", f"{command[0]}: {signal.Signals(os.WTERMSIG(status)).name}")
    code, lines = os.WEXITSTATUS(status), stderr.read_text(errors="replace").splitlines()
    if code == 1 or any(line.startswith("Traceback") for line in lines):
        place = [line.strip() for line in lines if "/pipeline/" in line or "/models/" in line]
        where = re.sub(r'File ".*?/(pipeline|models)/', r"\1/", place[-1]) if place else ""
        return Ending("traceback", f"{command[0]}: {lines[-1][:120] if lines else ''} [{where}]")
    errors = [line for line in lines if line.startswith("error:")]
    strays = [line for line in lines if "Warning:" in line or line.startswith("WARNING")]  # of libraries
    if code == 2:
        left = [path.name for path in (folder / "OUT").rglob("*") if ".part" in path.name]
        if left:
            return Ending("files left", f"{command[0]}: {left[0]}")
        if len(errors) != 1 or strays or lines[-1] != errors[0]:
            return Ending("not one line", f"{command[0]}: {' | '.join(lines)[:300]}")
        return Ending("refused", errors[0])
    if code == 0:
        if errors or strays:
            return Ending("not one line", f"{command[0]}: {' | '.join(lines)[:300]}")
        warned = [line for line in lines if line.startswith("warning:")]
        return Ending("done", "\n".join(warned), _value(command, stdout, folder / "OUT"))
    return Ending("other exit", f"{command[0]}: exit {code}: {' | '.join(lines)[:200]}")


# ---- values ----------------------------------------------------------------------------------------------------------
def _value(command: list[str], stdout: Path, out: Path) -> Any:
    """What the command made, as far as it must not differ silently."""
    if command[0] == "info":
        return None  # a description of the damaged file itself
    if command[0] == "report":
        return None  # a page with a line about each damaged part
    if "--json" in command:
        return {"lines": [json.loads(line) for line in stdout.read_text().splitlines()]}
    values: dict[str, Any] = {}
    for path in sorted(out.rglob("*")):
        if path.suffix == ".h5":
            values |= _hdf5(path)
        elif path.suffix == ".fits":
            values |= _fits(path)
        elif path.name in ("metrics.json", "m.json"):
            content = json.loads(path.read_text())
            values |= {f"{path.name} {key}": content.get(key) for key in ("metrics", "counts", "weightings")}
    return values


def _hdf5(path: Path) -> dict[str, Any]:
    import h5py

    """All arrays of a shard or DL1; of DL2 the predictions: what was carried along is as damaged as it was."""
    arrays: dict[str, Any] = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: arrays.__setitem__(name, item[()]) if isinstance(item, h5py.Dataset) else None
        )
    predictions = {name: array for name, array in arrays.items() if name.startswith("dl2/")}
    return predictions or arrays


def _fits(path: Path) -> dict[str, Any]:
    from astropy.io import fits

    with fits.open(path) as hdus:
        return {f"{number} {hdu.name}": np.array(hdu.data) for number, hdu in enumerate(hdus) if hdu.data is not None}


def same(one: Any, two: Any) -> bool:
    """Whether two results are the same numbers."""
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, np.ndarray) and isinstance(two, np.ndarray):
        return one.shape == two.shape and one.dtype == two.dtype and one.tobytes() == two.tobytes()
    return repr(one) == repr(two)


def empty(folder: Path) -> Path:
    """A fresh folder for one run."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "OUT").mkdir(parents=True)
    return folder
