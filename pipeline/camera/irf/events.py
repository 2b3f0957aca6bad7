"""The events that responses are made of, as ctapipe's tools read, weight and cut them."""

import operator
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

_CHUNK_EVENTS = 100_000
_SPECTRA = {"gamma": "CRAB_HEGRA", "proton": "IRFDOC_PROTON_SPECTRUM", "electron": "IRFDOC_ELECTRON_SPECTRUM"}


@dataclass(frozen=True)
class Events:
    """Events that fulfil the quality criteria.

    Attributes
    ----------
    true_energy_tev, reco_energy_tev : ndarray, shape (n,)
    theta_deg : ndarray, shape (n,)
        Between true and reconstructed direction.
    true_offset_deg, reco_offset_deg : ndarray, shape (n,)
        From the pointing.
    weight : ndarray, shape (n,)
        Events per simulated one in the observation time.
    shower : ndarray of int, shape (n,)
        Number of the shower: the uses of one shower are not independent.
    passes_gammaness, passes_direction : ndarray of bool, shape (n,)
        Cuts; `passes_direction` does not imply the other.
    n_thrown : int
        Showers thrown, as ctapipe counts them.
    """

    true_energy_tev: np.ndarray
    reco_energy_tev: np.ndarray
    theta_deg: np.ndarray
    true_offset_deg: np.ndarray
    reco_offset_deg: np.ndarray
    weight: np.ndarray
    shower: np.ndarray
    n_thrown: int
    passes_gammaness: np.ndarray = field(default_factory=lambda: np.empty(0, bool))
    passes_direction: np.ndarray = field(default_factory=lambda: np.empty(0, bool))

    def __len__(self) -> int:
        return len(self.true_energy_tev)


def columns_of(path: Path) -> list[str]:
    """Names of the columns of a file's events, as ``TableLoader`` gives them to the tools."""
    from ctapipe.io import TableLoader

    with TableLoader(path, focal_length_choice="EQUIVALENT") as loader:
        return list(loader.read_subarray_events(start=0, stop=1, dl2=True, simulated=True).colnames)


def read_events(
    path: Path,
    particle: str,
    configuration: Mapping[str, Any],
    observation_h: float,
    offset_edges_deg: np.ndarray,
    cuts: Path | None = None,
) -> Events:
    """Events of one particle, with weights for ctapipe's target spectrum.

    Parameters
    ----------
    path : path
    particle : {"gamma", "proton", "electron"}
    configuration : mapping
        Of ctapipe's tools.
    observation_h : float
    offset_edges_deg : ndarray
        Bins over which a source's flux is spread in the weights of diffuse gammas.
    cuts : path, optional
        File of optimised cuts; without, the two masks are empty.
    """
    import astropy.units as u
    from ctapipe.io import DL2EventLoader
    from ctapipe.irf import Spectra
    from traitlets.config import Config as TraitsConfig

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loader = DL2EventLoader(path, Spectra[_SPECTRA[particle]], config=TraitsConfig(dict(configuration)))
        table, _, meta = loader.load_preselected_events(_CHUNK_EVENTS, observation_h * u.h)
        table = loader.make_event_weights(table, meta["spectrum"], f"{particle}s", offset_edges_deg * u.deg)
    identity = np.column_stack([np.asarray(table[name]) for name in ("obs_id", "true_energy", "true_alt", "true_az")])
    shower = np.unique(identity, axis=0, return_inverse=True)[1].reshape(-1) if len(table) else np.empty(0, int)
    masks = {} if cuts is None else _masks(table, cuts)
    return Events(
        true_energy_tev=table["true_energy"].to_value("TeV"),
        reco_energy_tev=table["reco_energy"].to_value("TeV"),
        theta_deg=table["theta"].to_value("deg"),
        true_offset_deg=table["true_source_fov_offset"].to_value("deg"),
        reco_offset_deg=table["reco_source_fov_offset"].to_value("deg"),
        weight=np.asarray(table["weight"]),
        shower=shower,
        n_thrown=int(meta["sim_info"].n_showers),
        **masks,
    )


def _masks(table: Any, cuts: Path) -> dict[str, np.ndarray]:
    from ctapipe.irf import OptimizationResult
    from pyirf.cuts import evaluate_binned_cut

    found = OptimizationResult.read(cuts)
    passed = {
        "passes_gammaness": ("gh_score", found.gh_cuts, operator.ge),
        "passes_direction": ("theta", found.spatial_selection_table, operator.le),
    }
    return {
        name: np.asarray(evaluate_binned_cut(table[column], table["reco_energy"], limits, comparison))
        for name, (column, limits, comparison) in passed.items()
    }
