"""What is written to and read from a DL1 file, as plain arrays with units in their names."""

import math
from dataclasses import dataclass, field

import numpy as np

from pipeline.camera.event_types import SHOWER, UNKNOWN
from pipeline.camera.geometry import Camera


@dataclass(frozen=True)
class Subarray:
    """Telescopes on the ground.

    Attributes
    ----------
    telescopes : dict
        Telescope id to its `Camera`.
    positions_m : dict
        Telescope id to (x, y, z) relative to the reference: x to the north, y to the west, z up [m].
    altitude_m, lon_deg, lat_deg : float
        Geodetic reference location (WGS84).
    """

    name: str
    telescopes: dict[int, Camera]
    positions_m: dict[int, tuple[float, float, float]]
    altitude_m: float = 0.0
    lon_deg: float = 0.0
    lat_deg: float = 0.0

    def __post_init__(self) -> None:
        if self.telescopes.keys() != self.positions_m.keys():
            raise ValueError(
                f"telescopes {sorted(self.telescopes)} and positions {sorted(self.positions_m)} have different ids"
            )
        if not self.telescopes:
            raise ValueError("a subarray needs at least one telescope")


@dataclass(frozen=True)
class SimulationRun:
    """How the showers of a run were thrown: what effective areas and weights are computed from."""

    energy_range_min_tev: float
    energy_range_max_tev: float
    spectral_index: float
    n_showers: int
    shower_reuse: int = 1
    max_scatter_range_m: float = 0.0
    min_scatter_range_m: float = 0.0
    max_viewcone_radius_deg: float = 0.0
    min_viewcone_radius_deg: float = 0.0
    max_alt_rad: float = math.nan
    min_alt_rad: float = math.nan
    max_az_rad: float = math.nan
    min_az_rad: float = math.nan
    prod_site_alt_m: float = math.nan
    prod_site_b_total_ut: float = math.nan
    prod_site_b_declination_rad: float = math.nan
    prod_site_b_inclination_rad: float = math.nan
    atmosphere: int = -1
    corsika_wlen_min_nm: float = math.nan
    corsika_wlen_max_nm: float = math.nan
    corsika_bunchsize: float = math.nan
    corsika_version: int = -1
    simtel_version: int = -1
    shower_prog_id: int = -1  # CORSIKA = 1
    detector_prog_id: int = -1  # sim_telarray = 1


@dataclass(frozen=True)
class ShowerDistribution:
    """How many showers were thrown where, whether they triggered or not: the denominator of effective areas.

    Attributes
    ----------
    n_entries : int
        Number of showers, each counted as often as it was used.
    bins_energy_tev, bins_core_dist_m : ndarray, shape (n_energies + 1,), (n_distances + 1,)
        Edges of the bins.
    histogram : ndarray, shape (n_energies, n_distances)
    """

    n_entries: int
    bins_energy_tev: np.ndarray
    bins_core_dist_m: np.ndarray
    histogram: np.ndarray


@dataclass
class EventChunk:
    """Images to write, of cameras with equally many pixels: one row per image; those of one event are adjacent.

    Attributes
    ----------
    event_id, tel_id : ndarray of int, shape (n,)
    image, peak_time : ndarray of float32, shape (n, n_pixels)
        Charge [p.e.] and peak time [ns]; NaN marks a pixel without a measurement.
    image_mask : ndarray of bool, shape (n, n_pixels)
        True for pixels that are kept by the cleaning.
    is_valid : ndarray of bool, shape (n,)
    time_s : ndarray of float64, shape (n,)
        Trigger time since 1970-01-01 TAI [s].
    n_trigger_pixels, event_type : ndarray of int, shape (n,)
        -1 where unknown; ctapipe's ``EventType``, 32 for a shower.
    truth : dict of ndarray, shape (n,)
        For simulations: true_energy_tev, true_alt_deg, true_az_deg, true_core_x_m, true_core_y_m, true_h_first_int_m,
        true_x_max_g_cm2, true_starting_grammage_g_cm2, true_primary_id (0 gamma, 1 electron, 101 proton), true_impact_m
        and shower_id. What is missing is written as NaN, the impact distance is computed.
    true_image : ndarray of int, shape (n, n_pixels), optional
        Photo-electrons of the shower alone; without, -1 is written for "not known" as ctapipe does.
    waveforms : ndarray of float32, shape (n, n_pixels, n_samples), optional
        Calibrated waveforms [p.e. per sample], written as R1.
    is_broken : ndarray of bool, shape (n, n_pixels), optional
        Pixels that gave no signal; R1 marks them.
    parameters, true_parameters : dict of ndarray, shape (n,), optional
        Image parameters in ctapipe's names and units (hillas_length in degrees); missing columns are written as NaN.
    """

    event_id: np.ndarray
    tel_id: np.ndarray
    image: np.ndarray
    peak_time: np.ndarray
    image_mask: np.ndarray | None = None
    is_valid: np.ndarray | None = None
    time_s: np.ndarray | None = None
    n_trigger_pixels: np.ndarray | None = None
    event_type: np.ndarray | None = None
    truth: dict[str, np.ndarray] = field(default_factory=dict)
    true_image: np.ndarray | None = None
    waveforms: np.ndarray | None = None
    is_broken: np.ndarray | None = None
    parameters: dict[str, np.ndarray] | None = None
    true_parameters: dict[str, np.ndarray] | None = None

    def __post_init__(self) -> None:
        n = len(self.event_id)
        defaults = {
            "image_mask": lambda: np.zeros(self.image.shape, bool),
            "is_valid": lambda: np.ones(n, bool),
            "time_s": lambda: np.zeros(n),
            "n_trigger_pixels": lambda: np.full(n, -1),
            "event_type": lambda: np.full(n, SHOWER),
        }
        for name, default in defaults.items():
            if getattr(self, name) is None:
                setattr(self, name, default())
        arrays = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        for group in (self.truth, self.parameters or {}, self.true_parameters or {}):
            arrays |= group
        wrong = {name: len(value) for name, value in arrays.items() if len(value) != n}
        if wrong:
            raise ValueError(f"a chunk of {n} images has columns of other lengths: {wrong}")

    def __len__(self) -> int:
        return len(self.event_id)


@dataclass
class ImageChunk:
    """Images of one telescope as they were read.

    Attributes
    ----------
    camera : Camera
    tel_id : int
    obs_id, event_id, shower_id : ndarray of int64, shape (n,)
        The shower is the event where the file does not distinguish reused showers. uint64 for files with ids beyond
        2^63 - 1.
    time_s : ndarray of float64, shape (n,)
        Trigger time since 1970-01-01 TAI [s]; NaN where the file has none.
    image, peak_time : ndarray of float32, shape (n, n_pixels)
        [p.e.] and [ns], NaN as stored.
    is_valid : ndarray of bool, shape (n,)
    event_type : ndarray of int64, shape (n,)
        ctapipe's ``EventType`` (`pipeline.camera.event_types`).
    is_triggered : ndarray of bool, shape (n,)
        False for images whose trigger is not in the file.
    left_out : ndarray of str, shape (n,)
        Why an image is counted but not used: it has no trigger, or is of no shower; empty for the others.
    pointing_alt_deg, pointing_az_deg : ndarray of float64, shape (n,)
        Where the telescope pointed; NaN where that is unknown.
    position_m : (float, float, float)
        Where the telescope stands: to the north, to the west, up [m]; NaN where that is unknown.
    truth : dict of ndarray of float64, shape (n,)
        Empty for observations; else true_energy_tev, true_alt_deg, true_az_deg, true_offset_deg, true_fov_lon_deg and
        true_fov_lat_deg (from the pointing), true_core_x_m, true_core_y_m, true_impact_m, true_h_first_int_m,
        true_x_max_g_cm2 and, int64, true_primary_id. Those from the pointing are NaN where it is unknown; all are for
        images that are left out and have no shower.
    true_image : ndarray of int, shape (n, n_pixels), optional
        Photo-electrons of the shower alone, where they were asked for.
    """

    camera: Camera
    tel_id: int
    obs_id: np.ndarray
    event_id: np.ndarray
    shower_id: np.ndarray
    time_s: np.ndarray
    image: np.ndarray
    peak_time: np.ndarray
    is_valid: np.ndarray
    event_type: np.ndarray | None = None
    is_triggered: np.ndarray | None = None
    left_out: np.ndarray | None = None
    pointing_alt_deg: np.ndarray | None = None
    pointing_az_deg: np.ndarray | None = None
    position_m: tuple[float, float, float] = (math.nan, math.nan, math.nan)
    truth: dict[str, np.ndarray] = field(default_factory=dict)
    true_image: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.event_id)
        if self.pointing_alt_deg is None or self.pointing_az_deg is None:
            self.pointing_alt_deg, self.pointing_az_deg = np.full(n, math.nan), np.full(n, math.nan)
        if self.event_type is None:
            self.event_type = np.full(n, UNKNOWN)
        if self.is_triggered is None:
            self.is_triggered = np.ones(n, bool)
        if self.left_out is None:
            self.left_out = np.full(n, "", object)

    def __len__(self) -> int:
        return len(self.event_id)
