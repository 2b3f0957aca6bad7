"""The library of hadronic final states that ships with lightpool.

Sampled beforehand with chromo [1]_: UrQMD 3.4 [2]_ [3]_ up to 80 GeV, Sibyll 2.3d [4]_ from there, protons, pions and
kaons on nitrogen. `make_interaction_library.py` made the file.

References
----------
.. [1] Dembinski, Fedynitch & Prosekin (2023), chromo: an event generator frontend, PoS(ICRC2023) 189.
.. [2] Bass et al. (1998), Prog. Part. Nucl. Phys. 41, 255.
.. [3] Bleicher et al. (1999), J. Phys. G 25, 1859.
.. [4] Riehn et al. (2020), Phys. Rev. D 102, 063002.
"""

import zipfile
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.errors import InputFileError

FORMAT = "lightpool-interactions-1"


class Library(NamedTuple):
    """Final states of hadronic interactions; all nodes have equally many events.

    Attributes
    ----------
    energy_gev, log_energy : ndarray, shape (n_nodes,)
        Laboratory energies of the projectile, and their natural logarithm. Where two models meet, each has a node.
    cross_section_mb : ndarray, shape (3, n_nodes)
        Production cross sections of protons, pions and kaons on air.
    first_event : ndarray, shape (3, n_nodes)
        Index of a node's first event.
    n_events : int
        Events per node.
    first_particle : ndarray, shape (3 * n_nodes * n_events + 1,)
        Where each event begins among the particles.
    kind, px, py, pz : ndarray, shape (n_particles,)
        Stack code and momentum [GeV] of each forward secondary; z is the direction of the projectile.
    """

    energy_gev: np.ndarray
    log_energy: np.ndarray
    cross_section_mb: np.ndarray
    first_event: np.ndarray
    n_events: int
    first_particle: np.ndarray
    kind: np.ndarray
    px: np.ndarray
    py: np.ndarray
    pz: np.ndarray


def load_library(path: str | Path | None = None) -> Library:
    """Read a library; the one that ships if `path` is None.

    Raises
    ------
    InputFileError
        If the file is not such a library.
    """
    return _shipped() if path is None else _read(Path(path))


@cache
def _shipped() -> Library:
    return _read(Path(str(files("pipeline") / "data" / "interactions.npz")))


def _read(path: Path) -> Library:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            if str(content["format"]) != FORMAT:
                raise KeyError("format")
            arrays = dict(content)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputFileError(
            f"{path} is not an interaction library ({FORMAT}); make one with make_interaction_library.py"
        ) from error
    energy = arrays["energy_gev"].astype(np.float64)
    n_nodes = len(energy)
    n_particles = arrays["n_particles"].astype(np.int64)
    n_events = len(n_particles) // (3 * n_nodes)
    return Library(
        energy_gev=energy,
        log_energy=np.log(energy),
        cross_section_mb=arrays["cross_section_mb"].astype(np.float64),
        first_event=np.arange(3 * n_nodes).reshape(3, n_nodes) * n_events,
        n_events=n_events,
        first_particle=np.concatenate([[0], np.cumsum(n_particles)]),
        kind=arrays["kind"],
        px=arrays["px"].astype(np.float32),
        py=arrays["py"].astype(np.float32),
        pz=arrays["pz"],
    )
