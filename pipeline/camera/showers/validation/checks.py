"""Which comparisons are made, on how many showers, and what they leave: rows, and curves for the figures."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.camera.showers.validation.gammas import check_gammas
from pipeline.camera.showers.validation.images import TABLE_FILE, check_images
from pipeline.camera.showers.validation.light import GAMMA_FILES
from pipeline.camera.showers.validation.noise import check_noise
from pipeline.camera.showers.validation.pool import VERTICAL_FILE, check_pool
from pipeline.camera.showers.validation.protons import PROTON_FILE, check_protons
from pipeline.camera.showers.validation.rows import Row
from pipeline.camera.showers.validation.sim_telarray import GAMMA_FILES as TELESCOPE_FILES
from pipeline.camera.showers.validation.sim_telarray import MUON_FILE, check_muons, check_telescopes
from pipeline.camera.showers.validation.steps import check_steps, check_time
from pipeline.errors import UserError
from pipeline.logs import get_logger
from pipeline.workers import in_order

log = get_logger(__name__)

DATA_FILES = (*GAMMA_FILES.values(), VERTICAL_FILE, PROTON_FILE, *TELESCOPE_FILES, MUON_FILE, TABLE_FILE)


class Check(NamedTuple):
    """A comparison: the function that makes it, and its number of showers (or repeats, windows) in full and quick."""

    function: Callable[[int, Path | None], tuple[list[Row], dict]]
    full: int
    quick: int


# The longest first: several processes then end at nearly the same time.
CHECKS = {
    "images": Check(check_images, 3000, 350),
    "protons": Check(check_protons, 200, 10),
    "telescopes": Check(check_telescopes, 120, 20),
    "gammas": Check(check_gammas, 1000, 60),
    "steps": Check(check_steps, 2000, 400),
    "pool": Check(check_pool, 200, 30),
    "time": Check(check_time, 40, 4),
    "noise": Check(check_noise, 8000, 400),
    "muons": Check(check_muons, 8, 2),
}
# In the order of the table that readers see
ORDER = ("gammas", "pool", "protons", "steps", "telescopes", "muons", "images", "noise", "time")


@dataclass(frozen=True)
class Outcome:
    """The result of a check, and its duration."""

    name: str
    rows: list[Row]
    curves: dict[str, Any]
    cpu_s: float


class Checker:
    """Makes single checks; one for each process."""

    def __init__(self, data: Path | None, quick: bool) -> None:
        self._data, self._quick = data, quick

    def __call__(self, name: str) -> Outcome:
        """Make the check called `name`."""
        check = CHECKS[name]
        began = time.process_time()
        rows, curves = check.function(check.quick if self._quick else check.full, self._data)
        return Outcome(name, rows, _plain(curves), time.process_time() - began)


def _plain(value: Any) -> Any:
    """Curves with lists in the place of arrays."""
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def run_checks(data: Path | None, quick: bool = False, jobs: int = 1) -> list[Outcome]:
    """Make all checks.

    Parameters
    ----------
    data : Path or None
        Folder with `DATA_FILES`; without it only what has a published number is compared.
    quick : bool
        A tenth of the showers.
    jobs : int
        Number of processes; the results are the same for any, except for times.

    Raises
    ------
    UserError
        If a file is missing.
    """
    if data is not None:
        missing = [name for name in DATA_FILES if not (data / name).is_file()]
        if missing:
            raise UserError(
                f"{data} lacks {missing[0]}" + (f" and {len(missing) - 1} more files" if missing[1:] else "")
                + " that the simulation is compared with; omit --data to compare with published numbers alone"
            )  # fmt: skip
    outcomes = {}
    for outcome in in_order(Checker, (data, quick), CHECKS, jobs):
        log.info("%s: %d rows, %.0f s of CPU time", outcome.name, len(outcome.rows), outcome.cpu_s)
        outcomes[outcome.name] = outcome
    return [outcomes[name] for name in ORDER]
