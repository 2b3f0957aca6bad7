"""What the simulation knows of a telescope type."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.camera.geometry import Camera

# What the parts of a telescope that an entry does not list let pass, mirrors and windows that are not new among them:
# calibrated for the LST, and taken for the other types as long as nothing better is known.
DEFAULT_THROUGHPUT = 0.7
_PULSE_STEPS = 9  # of the reference pulse, per pulse time
_PULSE_TIMES = 18  # its length: what comes later is 1e-5 of its charge


@dataclass(frozen=True, eq=False)
class Telescope:
    """Optics, light detection and readout of a telescope type, as the simulation needs them.

    Attributes
    ----------
    name : str
        Name in configurations.
    camera : Camera
        Pixels; `camera.effective_focal_length_m` is the plate scale of the images.
    mirror_area_m2 : float
        Reflecting area, camera shadow included.
    mirror_height_m : float
        Height of the mirror's centre above ground.
    psf_sigma_m : float
        Spread of a point source in the focal plane, Gaussian per axis.
    wavelength_nm, efficiency : ndarray
        Probability that a photon on the mirror becomes a photo-electron, without `throughput`.
    throughput : float
        The one calibrated constant: what all the rest of the chain lets pass.
    pulse_time_ns : float
        Single photo-electron pulse (t / tau)^2 exp(-t / tau); its full width at half maximum is 3.39 tau.
    time_spread_ns : float
        Transit time spread of the photo-sensor, rms.
    gain_spread : float
        Rms of a single photo-electron's charge, relative.
    night_sky_pe_per_ns : float
        Night-sky background per pixel.
    electronic_noise_pe : float
        Rms per sample, in photo-electrons per ns.
    n_samples, sample_ns : int, float
        Readout window.
    trigger_pe_per_ns : float
        Threshold of the sum over a pixel and its neighbours.
    saturation_pe : float
        Charge of the pulse at whose peak the readout of a pixel clips.
    window_samples, window_before_peak : int
        Charge integration window, and how many of its samples come before the peak.
    sources : tuple of str
        Where the numbers come from.
    """

    name: str
    camera: Camera
    mirror_area_m2: float
    mirror_height_m: float
    psf_sigma_m: float
    wavelength_nm: np.ndarray
    efficiency: np.ndarray
    throughput: float = DEFAULT_THROUGHPUT
    pulse_time_ns: float = 0.9
    time_spread_ns: float = 0.7
    gain_spread: float = 0.45
    night_sky_pe_per_ns: float = 0.25
    electronic_noise_pe: float = 0.10
    n_samples: int = 40
    sample_ns: float = 1.0
    trigger_pe_per_ns: float = 9.0
    saturation_pe: float = 3000.0
    window_samples: int = 7
    window_before_peak: int = 3
    sources: tuple[str, ...] = field(default=())

    @property
    def sphere_radius_m(self) -> float:
        """Radius of the sphere whose cross section is the mirror's area."""
        return math.sqrt(self.mirror_area_m2 / math.pi)

    @property
    def field_of_view_rad(self) -> float:
        """Angle from the axis to the edge of the outermost pixel."""
        camera = self.camera
        edge_m = np.hypot(camera.pix_x_m, camera.pix_y_m).max() + camera.pitch_m
        return math.atan(edge_m / camera.effective_focal_length_m)


def readout_of_camera(pulse_time_ns: float, sample_ns: float, n_samples: int) -> dict[str, Any]:
    """The fields of a `Camera` that describe the readout, from those of a `Telescope`."""
    step_ns = pulse_time_ns / _PULSE_STEPS
    time = np.arange(_PULSE_STEPS * _PULSE_TIMES) * step_ns / pulse_time_ns
    return {
        "n_samples": n_samples,
        "sampling_rate_ghz": 1 / sample_ns,
        "reference_pulse": (time**2 * np.exp(-time))[None],
        "reference_pulse_step_ns": step_ns,
    }


def davies_cotton_focal_length(focal_length_m: float, diameter_m: float) -> float:
    """Effective focal length, coma included, of a Davies-Cotton mirror [m].

    A facet at (rho, phi) on the sphere of radius f images a source at the small angle delta, seen along phi = 0, to
    f delta (1 + (rho cos(phi) / f)^2 / 2): it is as far from the focus as all others, but sees the focal plane
    askew. The mean over a disc of diameter D is f delta (1 + D^2 / (32 f^2)).
    """
    return focal_length_m * (1 + diameter_m**2 / (32 * focal_length_m**2))
