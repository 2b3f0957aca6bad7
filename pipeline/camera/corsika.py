"""Photon files of CORSIKA with its IACT package: the reference that the shower simulation is compared with.

Read through eventio, one shower at a time; the uses of a shower (CSCAT: the array thrown several times) belong to it,
they are not showers of their own.

References
----------
.. [1] Heck et al. (1998), CORSIKA, FZKA 6019, and its user's guide: run and event headers, longitudinal tables.
.. [2] Bernlöhr (2008), Astropart. Phys. 30, 149: the IACT package and its photon bunches.
"""

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import InputFileError
from pipeline.files import check_regular
from pipeline.filetypes import let_eventio_read_frames

if TYPE_CHECKING:
    from eventio import IACTFile

CM_PER_M = 100.0
GAMMA, PROTON = 1, 14  # CORSIKA's particle codes
LOW_ENERGY_MODELS = {1: "GHEISHA", 2: "UrQMD", 3: "FLUKA"}
HIGH_ENERGY_MODELS = {0: "HDPM", 1: "VENUS", 2: "SIBYLL", 3: "QGSJET", 4: "DPMJET", 5: "NEXUS", 6: "EPOS"}

#: Photon bunches: place on the telescope's horizontal plane relative to its centre, direction of flight, time, height
#: of emission above sea level, photons in the bunch, and wavelength (0: not chosen yet; some versions write it
#: negative).
BUNCH = np.dtype(
    [("x_m", "f4"), ("y_m", "f4"), ("ux", "f4"), ("uy", "f4"), ("time_ns", "f4"), ("height_m", "f4"),
     ("photons", "f4"), ("wavelength_nm", "f4")]
)  # fmt: skip
_BUNCH_SCALE = {"x": 1 / CM_PER_M, "y": 1 / CM_PER_M, "zem": 1 / CM_PER_M}


@dataclass(frozen=True)
class Run:
    """What holds for all showers of a file.

    Attributes
    ----------
    observation_height_m : float
    wavelength_nm : tuple of 2 floats
        Photons are made between these, with no absorption.
    telescopes_m : ndarray, shape (n_telescopes, 3)
        Centres of the telescopes' spheres (x north, y west, z up), relative to the array's centre at ground.
    radius_m : ndarray, shape (n_telescopes,)
        Radii of the spheres.
    low_energy_model, high_energy_model : str
        Hadronic interactions of low and high energies.
    """

    observation_height_m: float
    wavelength_nm: tuple[float, float]
    telescopes_m: np.ndarray
    radius_m: np.ndarray
    low_energy_model: str
    high_energy_model: str


@dataclass(frozen=True)
class Longitudinal:
    """Development of a shower with vertical depth.

    Attributes
    ----------
    level_g_cm2 : ndarray, shape (n,)
        Levels at which particles are counted: every `step_g_cm2` from 0.
    gammas, positrons, electrons, muons, hadrons, charged : ndarray, shape (n,)
        Particles above CORSIKA's cuts that cross each level.
    photons : ndarray, shape (n,)
        Cherenkov photons that were emitted between the level before and each level.
    """

    step_g_cm2: float
    level_g_cm2: np.ndarray
    gammas: np.ndarray
    positrons: np.ndarray
    electrons: np.ndarray
    muons: np.ndarray
    hadrons: np.ndarray
    charged: np.ndarray
    photons: np.ndarray


@dataclass(frozen=True)
class Use:
    """One place of the array relative to a shower.

    Attributes
    ----------
    telescopes_m : ndarray, shape (n_telescopes, 3)
        Centres of the spheres relative to the core at ground; axes as the shower's direction.
    bunches : tuple of ndarray of `BUNCH`
        Photons that meet each telescope. Their directions are relative to the array's axes, which differ from the
        shower's by `Shower.array_rotation_rad`.
    """

    telescopes_m: np.ndarray
    bunches: tuple[np.ndarray, ...]

    @property
    def photons(self) -> np.ndarray:
        """Photons on each telescope, shape (n_telescopes,)."""
        return np.array([float(bunches["photons"].sum(dtype=np.float64)) for bunches in self.bunches])


@dataclass(frozen=True)
class Shower:
    """One shower.

    Attributes
    ----------
    number, primary : int
        Event number; particle code (`GAMMA`, `PROTON`).
    energy_gev : float
        Total energy of the primary.
    direction : tuple of 3 floats
        Of flight: x magnetic north, y west, z up.
    field_t : tuple of 3 floats
        Geomagnetic field in the same axes.
    array_rotation_rad : float
        From the axes above to the array's: azimuth of magnetic north in those of the array, with its sign turned.
    first_interaction_m : float
        Height above sea level; NaN if there was none.
    longitudinal : Longitudinal or None
        If the file has it.
    uses : tuple of Use
    """

    number: int
    primary: int
    energy_gev: float
    direction: tuple[float, float, float]
    field_t: tuple[float, float, float]
    array_rotation_rad: float
    first_interaction_m: float
    longitudinal: Longitudinal | None
    uses: tuple[Use, ...]

    @property
    def zenith_rad(self) -> float:
        """Zenith angle of the origin."""
        return math.acos(-self.direction[2])

    def impact_m(self, use: Use) -> np.ndarray:
        """Distances of the telescopes from the shower axis [m], shape (n_telescopes,)."""
        return np.linalg.norm(np.cross(use.telescopes_m, np.array(self.direction)), axis=1)


def read_showers(path: str | Path) -> Iterator[tuple[Run, Shower]]:
    """The showers of a file one after the other, each with the run that it belongs to.

    Parameters
    ----------
    path : path
        CORSIKA IACT file, also compressed with zstd or gzip.

    Raises
    ------
    InputFileError
        If the file does not exist, is of another format, or ends in the middle of a shower.
    """
    path = check_regular(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # eventio warns about files that end early; our message follows below
        try:
            yield from _showers(path)
        except (OSError, ValueError, KeyError, EOFError, StopIteration, RuntimeError, AttributeError) as error:
            # eventio raises all kinds of errors on foreign bytes
            reason = str(error) or "it ends early"
            raise InputFileError(f"{path} cannot be read as a CORSIKA IACT photon file ({reason})") from error


def _showers(path: Path) -> Iterator[tuple[Run, Shower]]:
    from eventio import IACTFile

    let_eventio_read_frames()
    with IACTFile(str(path)) as file:
        run, waiting = None, []
        for event in file:
            if run is None:
                run = _run(file, event.header)
            if waiting and int(event.header["event_number"]) != int(waiting[0].header["event_number"]):
                yield run, _shower(waiting, run)
                waiting = []
            waiting.append(event)
        if waiting:
            yield run, _shower(waiting, run)


def _run(file: "IACTFile", header: np.void) -> Run:
    telescopes = np.array([[position[name] for name in "xyzr"] for position in file.telescope_positions], float)
    return Run(
        observation_height_m=float(header["observation_height"][0]) / CM_PER_M,
        wavelength_nm=(float(header["cherenkov_wavelength_min"]), float(header["cherenkov_wavelength_max"])),
        telescopes_m=telescopes[:, :3] / CM_PER_M,
        radius_m=telescopes[:, 3] / CM_PER_M,
        low_energy_model=LOW_ENERGY_MODELS.get(int(header["low_energy_hadron_model"]), "unknown"),
        high_energy_model=HIGH_ENERGY_MODELS.get(int(header["high_energy_hadron_model"]), "unknown"),
    )


def _shower(events: list[Any], run: Run) -> Shower:
    header = events[0].header
    momentum = np.array([header["momentum_x"], header["momentum_y"], -header["momentum_minus_z"]], float)
    direction = momentum / np.linalg.norm(momentum)
    # Written with a minus sign where the clock starts at the top of the atmosphere (TSTART)
    first = abs(float(header["first_interaction_height"])) / CM_PER_M
    return Shower(
        number=int(header["event_number"]),
        primary=int(header["particle_id"]),
        energy_gev=float(header["total_energy"]),
        direction=tuple(direction.tolist()),
        field_t=(1e-6 * float(header["earth_magnetic_field_x"]), 0.0, -1e-6 * float(header["earth_magnetic_field_z"])),
        array_rotation_rad=float(header["angle_array_x_magnetic_north"]),
        first_interaction_m=first if first > 0 else math.nan,
        longitudinal=_longitudinal(events[0].longitudinal),
        uses=tuple(_use(event, run) for event in events),
    )


def _longitudinal(table: dict[str, Any] | None) -> Longitudinal | None:
    if table is None:
        return None
    gammas, positrons, electrons, mu_plus, mu_minus, hadrons, charged, _, photons = np.asarray(table["data"], float)
    step = float(table["thickstep"])
    return Longitudinal(
        step_g_cm2=step,
        level_g_cm2=step * np.arange(len(gammas)),
        gammas=gammas,
        positrons=positrons,
        electrons=electrons,
        muons=mu_plus + mu_minus,
        hadrons=hadrons,
        charged=charged,
        photons=photons,
    )


def _use(event: Any, run: Run) -> Use:
    rotation = float(event.header["angle_array_x_magnetic_north"])
    cos, sin = math.cos(rotation), math.sin(rotation)
    x, y, z = run.telescopes_m.T
    x, y = x - float(event.impact_x) / CM_PER_M, y - float(event.impact_y) / CM_PER_M
    telescopes = np.column_stack([cos * x - sin * y, sin * x + cos * y, z])
    return Use(telescopes, tuple(_bunches(event.photon_bunches.get(i)) for i in range(len(x))))


def _bunches(table: np.ndarray | None) -> np.ndarray:
    out = np.zeros(0 if table is None else len(table), BUNCH)
    if table is not None:
        for ours, theirs in zip(BUNCH.names, table.dtype.names, strict=True):
            out[ours] = table[theirs] * np.float32(_BUNCH_SCALE.get(theirs, 1.0))
    return out
