"""What ctapipe's tools are told: their configuration, from ours."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.camera.irf.inputs import Prefixes, Thrown
from pipeline.config import IrfConfig, offset_range_deg
from pipeline.errors import UserError

_PSF_DEG, _PSF_BINS = 3, 300


@dataclass(frozen=True)
class Bins:
    """Ranges and numbers of the bins of all responses of one kind of gammas.

    Attributes
    ----------
    energy_min_tev, energy_max_tev : float
        Of true and reconstructed energies.
    true_per_decade, reco_per_decade : int
    offset_edges_deg : ndarray, shape (n_offsets + 1,)
    """

    energy_min_tev: float
    energy_max_tev: float
    true_per_decade: int
    reco_per_decade: int
    offset_edges_deg: np.ndarray

    @property
    def true_edges_tev(self) -> np.ndarray:
        """As ctapipe makes them: at least so many per decade, between exact ends."""
        return _edges(self.energy_min_tev, self.energy_max_tev, self.true_per_decade)

    @property
    def reco_edges_tev(self) -> np.ndarray:
        """The same for reconstructed energy; the bins of sensitivity are others, of exact width."""
        return _edges(self.energy_min_tev, self.energy_max_tev, self.reco_per_decade)


def _edges(low: float, high: float, per_decade: int) -> np.ndarray:
    ends = np.log10(low), np.log10(high)
    return np.logspace(*ends, int(np.ceil((ends[1] - ends[0]) * per_decade)) + 1)


def bins_of(cfg: IrfConfig, gammas: Thrown, background: Sequence[Thrown]) -> Bins:
    """The bins for these gammas.

    Raises
    ------
    UserError
        If they reach beyond what was thrown.
    """
    low, high = cfg.energy_min_tev or gammas.energy_min_tev, cfg.energy_max_tev or gammas.energy_max_tev
    if low < gammas.energy_min_tev or high > gammas.energy_max_tev or low >= high:
        raise UserError(
            f"irf: energy bins from {low:g} to {high:g} TeV, but gammas were thrown from {gammas.energy_min_tev:g} to "
            f"{gammas.energy_max_tev:g} TeV; choose energy_min_tev and energy_max_tev within"
        )
    largest = offset_range_deg(gammas.viewcone_deg, gammas.offset_deg)
    for other in background:
        if other.viewcone_deg < largest:
            raise UserError(
                f"{other.particle}s were thrown within {other.viewcone_deg:g} deg of the pointing, and the offset bins "
                f"end at {largest:g} deg, where there would be too few; simulate them with at least that viewcone_deg"
            )
    n_offsets = cfg.offset_bins if gammas.viewcone_deg else 1
    edges = np.linspace(0, largest, n_offsets + 1)
    return Bins(low, high, cfg.true_bins_per_decade, cfg.reco_bins_per_decade, edges)


def ctapipe_configuration(
    cfg: IrfConfig, prefixes: Prefixes, criteria: Sequence[tuple[str, str]], bins: Bins, *, optimise: bool
) -> dict[str, Any]:
    """Configuration of ``ctapipe-optimize-event-selection`` and ``ctapipe-compute-irf`` (0.28).

    Parameters
    ----------
    cfg : IrfConfig
    prefixes : Prefixes
    criteria : sequence of (str, str)
        Quality criteria: name and expression.
    bins : Bins
    optimise : bool
        Optimise the cuts for sensitivity; else keep a share of the gammas.
    """
    low, high = f"{bins.energy_min_tev!r} TeV", f"{bins.energy_max_tev!r} TeV"
    largest = f"{float(bins.offset_edges_deg[-1])!r} deg"
    time = f"{cfg.observation_h!r} h"
    algorithm = "PointSourceSensitivityOptimizer" if optimise else "PercentileCuts"
    return {
        "TableLoader": {"focal_length_choice": "EQUIVALENT"},
        "DL2EventPreprocessor": {
            "energy_reconstructor": prefixes.energy,
            "geometry_reconstructor": prefixes.direction,
            "gammaness_classifier": prefixes.gammaness,
        },
        "DL2EventQualityQuery": {"quality_criteria": [list(criterion) for criterion in criteria]},
        "DefaultTrueEnergyBins": {
            "true_energy_min": low,
            "true_energy_max": high,
            "true_energy_n_bins_per_decade": bins.true_per_decade,
        },
        "DefaultRecoEnergyBins": {
            "reco_energy_min": low,
            "reco_energy_max": high,
            "reco_energy_n_bins_per_decade": bins.reco_per_decade,
        },
        "DefaultFoVOffsetBins": {
            "fov_offset_min": "0 deg",
            "fov_offset_max": largest,
            "fov_offset_n_bins": len(bins.offset_edges_deg) - 1,
        },
        "EventSelectionOptimizer": {"optimization_algorithm": algorithm, "obs_time": time},
        "PointSourceSensitivityOptimizer": {
            "min_background_fov_offset": "0 deg",
            "max_background_fov_offset": largest,
        },
        # The table is normalised to what lies in it: at ctapipe's 1 deg, tails are cut and containment is too good.
        "PSF3DMaker": {"source_offset_max": f"{_PSF_DEG} deg", "source_offset_n_bins": _PSF_BINS},
        "GhPercentileCutCalculator": {"target_percentile": cfg.gamma_percent},
        "ThetaPercentileCutCalculator": {"target_percentile": cfg.containment_percent},
        "IrfTool": {"obs_time": time},
    }


def write_configuration(path: Path, configuration: dict[str, Any]) -> None:
    """Write a configuration of ctapipe's tools as YAML, for ``--config``."""
    import yaml

    path.write_text(yaml.safe_dump(configuration, sort_keys=False), encoding="utf-8")
