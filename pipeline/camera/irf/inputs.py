"""DL2 files for responses: which particles they hold, how these were thrown, and whether that is all in the file."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.directions import offset_deg
from pipeline.errors import InputFileError, UserError
from pipeline.hdf5 import open_hdf5, read_columns

#: CORSIKA's numbers of the particles that responses are made of.
PARTICLES = {0: "gamma", 1: "electron", 101: "proton"}

_SHOWER = "simulation/event/subarray/shower"
_RUN = "configuration/simulation/run"
_DISTRIBUTION = "simulation/service/shower_distribution"
_OBSERVATION = "configuration/observation/observation_block"
_DL2 = "dl2/event/subarray"
_PARAMETERS = "dl1/event/telescope/parameters"
#: Group of DL2 and column of each quantity that responses need, without the prefix.
GROUPS = {
    "energy": ("energy", "energy"),
    "gammaness": ("classification", "prediction"),
    "direction": ("geometry", "alt"),
}

_MAX_OFF_CENTRE_DEG = 0.01


@dataclass(frozen=True)
class Prefixes:
    """Whose columns are used for each quantity."""

    energy: str
    gammaness: str
    direction: str

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter({"energy": self.energy, "gammaness": self.gammaness, "direction": self.direction}.items())


@dataclass(frozen=True)
class Thrown:
    """How the showers of a file were thrown; runs of one particle must agree in it.

    Attributes
    ----------
    particle : {"gamma", "proton", "electron"}
    energy_min_tev, energy_max_tev, spectral_index : float
    scatter_radius_m : float
    viewcone_deg : float
        0 for a point source.
    offset_deg : float
        Of a point source from the pointing; 0 for diffuse particles.
    """

    particle: str
    energy_min_tev: float
    energy_max_tev: float
    spectral_index: float
    scatter_radius_m: float
    viewcone_deg: float
    offset_deg: float

    @property
    def kind(self) -> str:
        """Name of a set of events: point_source or diffuse for gammas, else the particle."""
        return self.particle if self.particle != "gamma" else "diffuse" if self.viewcone_deg else "point_source"


@dataclass(frozen=True)
class EventFile:
    """A DL2 file.

    Attributes
    ----------
    path : Path
    thrown : Thrown
    obs_ids : tuple of int
    n_thrown : int
        Number of showers thrown, each use of a shower counted.
    n_events : int
        Those that triggered.
    predicted : frozenset of (str, str)
        Group of DL2 and prefix of the predictions in it.
    has_parameters : bool
        Whether it has image parameters.
    """

    path: Path
    thrown: Thrown
    obs_ids: tuple[int, ...]
    n_thrown: int
    n_events: int
    predicted: frozenset[tuple[str, str]]
    has_parameters: bool


def read_event_file(path: Path, particles: Mapping[int, str]) -> EventFile:
    """What responses need to know of a DL2 file.

    Parameters
    ----------
    path : path
    particles : mapping
        Particle of runs, by their number: a run without a single event does not say it.

    Raises
    ------
    InputFileError
        If it is not simulated DL2, holds several particles or one that is not for responses, if its runs differ, its
        view cone is not around the pointing, or it does not say how many showers were thrown for its events.
    """
    with open_hdf5(path) as file:
        if _RUN not in file or _SHOWER not in file:
            raise InputFileError(f"{path} holds no simulated events; responses are made of simulations only")
        if _DL2 not in file:
            raise InputFileError(f"{path} has no DL2 events; make some of it with `lightpool predict`")
        runs = _run_settings(file)
        obs_ids = tuple(runs.pop("obs_id").tolist())
        primary = read_columns(file, _SHOWER, {"true_shower_primary_id": "integer"})["true_shower_primary_id"]
        particle = _particle(path, np.unique(primary).tolist(), obs_ids, particles)
        n_thrown = _n_thrown(file, obs_ids)
        offset = _offset(file, path, runs)
        for name, values in runs.items():
            if len(np.unique(values)) > 1:
                raise InputFileError(f"{path}: its runs differ in {name}, and ctapipe would take the first for all")
        thrown = Thrown(
            particle=particle,
            energy_min_tev=_six_digits(runs["energy_range_min"][0]),
            energy_max_tev=_six_digits(runs["energy_range_max"][0]),
            spectral_index=_six_digits(runs["spectral_index"][0]),
            scatter_radius_m=_six_digits(runs["max_scatter_range"][0]),
            viewcone_deg=_six_digits(runs["max_viewcone_radius"][0]),
            offset_deg=offset,
        )
        groups = file[_DL2]
        predicted = frozenset((group, prefix) for group in groups for prefix in groups[group])
        return EventFile(path, thrown, obs_ids, n_thrown, len(primary), predicted, _PARAMETERS in file)


def _six_digits(value: float) -> float:
    """Files hold them as float32: 0.1 is 0.10000000149 there."""
    return float(f"{value:.6g}")


def _run_settings(file: Any) -> dict[str, np.ndarray]:
    floats = (
        "energy_range_min", "energy_range_max", "spectral_index", "max_scatter_range", "max_viewcone_radius",
        "min_viewcone_radius", "max_alt", "max_az",
    )  # fmt: skip
    columns = {"obs_id": "integer"} | dict.fromkeys(floats, "number")
    return read_columns(file, _RUN, columns)


def _particle(path: Path, primaries: list[int], obs_ids: Sequence[int], particles: Mapping[int, str]) -> str:
    if len(primaries) > 1:
        raise InputFileError(f"{path} holds several kinds of particles ({primaries}); give a file for each")
    if primaries:
        if primaries[0] not in PARTICLES:
            raise InputFileError(
                f"{path} holds particles number {primaries[0]} of CORSIKA; responses are made of "
                f"{', '.join(f'{name} ({number})' for number, name in PARTICLES.items())}"
            )
        return PARTICLES[primaries[0]]
    known = {particles[run] for run in obs_ids if run in particles}
    if len(known) != 1:
        raise InputFileError(f"{path} has no event, so its particle is not known; leave it out, or simulate more")
    return known.pop()


def _n_thrown(file: Any, obs_ids: Sequence[int]) -> int:
    """Thrown showers as ctapipe counts them, each use of a shower.

    The number is at the end of a simtel file. That in the header also counts showers whose events were cut off, and
    each shower once.
    """
    counted = {"obs_id": np.empty(0, int), "n_entries": np.empty(0, int)}
    if _DISTRIBUTION in file:
        counted = read_columns(file, _DISTRIBUTION, dict.fromkeys(counted, "integer"))
    if missing := sorted(set(obs_ids) - set(counted["obs_id"].tolist())):
        raise InputFileError(
            f"{file.filename} lacks the number of showers thrown (/{_DISTRIBUTION}) for run "
            f"{', '.join(map(str, missing))}: the simulation was cut or read in part, or ctapipe did not write the "
            "number; make the file again from the whole run (ctapipe-process --write-showers)"
        )
    return int(counted["n_entries"].sum())


def _offset(file: Any, path: Path, runs: dict[str, np.ndarray]) -> float:
    """Distance of the source, or of the middle of the view cone, from the pointing [deg]."""
    names = dict.fromkeys(("subarray_pointing_lat", "subarray_pointing_lon"), "number")
    pointing = read_columns(file, _OBSERVATION, names)
    lat, lon = (pointing[name] for name in names)
    alt, az, inner = (runs.pop(name) for name in ("max_alt", "max_az", "min_viewcone_radius"))
    if np.ptp(lat) > _MAX_OFF_CENTRE_DEG or np.any(inner != 0):
        raise InputFileError(f"{path} has several pointings, or a hollow view cone; ctapipe's tools take neither")
    offset = float(np.max(offset_deg(np.degrees(alt), np.degrees(az), lat[0], lon[0])))
    is_diffuse = bool(np.any(runs["max_viewcone_radius"] > 0))
    if is_diffuse and offset > _MAX_OFF_CENTRE_DEG:
        raise InputFileError(
            f"{path}: the view cone is {offset:.2f} deg from the pointing; responses need it around the pointing"
        )
    return 0.0 if is_diffuse else round(offset, 3)  # of directions in float32


# ---- several files ---------------------------------------------------------------------------------------------------
def by_kind(files: Sequence[EventFile]) -> dict[str, list[EventFile]]:
    """Files of each kind of events (`Thrown.kind`).

    Raises
    ------
    UserError
        If files of a kind were thrown in different ways, two hold the same run, or there are no gammas.
    """
    kinds: dict[str, list[EventFile]] = {}
    seen: dict[int, Path] = {}
    for file in files:
        kinds.setdefault(file.thrown.kind, []).append(file)
        for run in file.obs_ids:
            if run in seen:
                raise UserError(f"{seen[run]} and {file.path} both hold run {run}; give each run once")
            seen[run] = file.path
    for of_kind in kinds.values():
        first = of_kind[0]
        for other in of_kind[1:]:
            _check_equal(first, other)
    if not {"point_source", "diffuse"} & kinds.keys():
        raise UserError("there are no gammas among the files; responses need gammas of a point source or diffuse ones")
    return kinds


def _check_equal(first: EventFile, other: EventFile) -> None:
    for name, value in vars(first.thrown).items():
        got = getattr(other.thrown, name)
        if got != value and not (isinstance(value, float) and math.isclose(got, value, rel_tol=1e-6, abs_tol=1e-4)):
            raise UserError(
                f"{first.path} and {other.path} hold {first.thrown.particle}s of different {name} ({value}, {got}); "
                "ctapipe would take the first for all: give files of equal settings"
            )


def check_predicted(file: EventFile, prefixes: Prefixes) -> None:
    """Fail if a file lacks one of the quantities.

    Raises
    ------
    InputFileError
        Naming what it has.
    """
    for quantity, prefix in prefixes:
        group, _ = GROUPS[quantity]
        if (group, prefix) not in file.predicted:
            others = sorted(other for kind, other in file.predicted if kind == group)
            raise InputFileError(
                f"{file.path} has no {quantity} by {prefix}; it has {', '.join(others) or 'none'}: predict it with the "
                "bundles of the section irf"
            )


def quality_criteria(columns: Sequence[str], prefixes: Prefixes, min_telescopes: int) -> list[tuple[str, str]]:
    """Ctapipe's quality criteria for events that have all values, and these from enough telescopes.

    A prefix that stands for several quantities has one column ``is_valid`` in each of their tables, and
    ``TableLoader`` names them ``PREFIX_is_valid_1``, ``_2``: all must be true.

    Parameters
    ----------
    columns : sequence of str
        Of the events as ``TableLoader`` gives them.
    prefixes : Prefixes
    min_telescopes : int
        Number of telescopes that a direction (and any other value that says its telescopes) must come from.
    """
    criteria = []
    for quantity, prefix in prefixes:
        _, value = GROUPS[quantity]
        criteria.append((f"finite {quantity}", f"np.isfinite({prefix}_{value})"))
    for prefix in dict.fromkeys(prefix for _, prefix in prefixes):
        for name in columns:
            if re.fullmatch(rf"{prefix}_is_valid(_\d+)?", name):
                criteria.append((f"valid {name}", name))
            elif re.fullmatch(rf"{prefix}_(telescopes|tels_used)(_\d+)?", name):
                criteria.append((f"telescopes {name}", f"np.count_nonzero({name}, axis=1) >= {min_telescopes}"))
    return criteria
