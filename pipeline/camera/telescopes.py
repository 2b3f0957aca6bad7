"""Telescope types that can be simulated: one `Telescope` per type, with the sources of its numbers.

To add one, write a function that returns a `Telescope` and decorate it with `register_telescope`.
"""

import difflib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from pipeline.camera.geometry import Camera
from pipeline.errors import UserError


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
        Single photo-electron pulse (t / tau)^2 exp(-t / tau).
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
    throughput: float
    pulse_time_ns: float = 0.9
    time_spread_ns: float = 0.7
    gain_spread: float = 0.45
    night_sky_pe_per_ns: float = 0.25
    electronic_noise_pe: float = 0.10
    n_samples: int = 40
    sample_ns: float = 1.0
    trigger_pe_per_ns: float = 9.0
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


_BUILDERS: dict[str, Callable[[], Telescope]] = {}


def register_telescope(name: str) -> Callable[[Callable[[], Telescope]], Callable[[], Telescope]]:
    """Decorator: make the telescope that a function builds available under `name`."""

    def register(builder: Callable[[], Telescope]) -> Callable[[], Telescope]:
        if name in _BUILDERS:
            raise ValueError(f"a telescope named {name!r} is already registered")
        _BUILDERS[name] = cache(builder)
        return builder

    return register


def list_telescopes() -> list[str]:
    """Names of all telescope types."""
    return sorted(_BUILDERS)


def get_telescope(name: str) -> Telescope:
    """The telescope type called `name`.

    Raises
    ------
    UserError
        If there is none; the message lists the nearest, or all.
    """
    if name not in _BUILDERS:
        near = difflib.get_close_matches(name.upper(), list_telescopes(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"unknown telescope {name!r}{hint} (accepted: {', '.join(list_telescopes())})")
    return _BUILDERS[name]()


# The six directions of a triangular lattice in axial coordinates (a, b), in the order in which rings are walked.
_DIRECTIONS = ((0, 1), (1, 0), (1, -1), (0, -1), (-1, 0), (-1, 1))


def _ring(k: int) -> Iterator[tuple[int, int]]:
    """Cells of the k-th hexagon around the origin, from (-k, 0) onwards."""
    a, b = -k, 0
    if k == 0:
        yield a, b
    for da, db in _DIRECTIONS:
        for _ in range(k):
            yield a, b
            a, b = a + da, b + db


def seven_pixel_modules(module_rings: int, pitch_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres of a camera made of modules of seven hexagonal pixels [m].

    The modules fill a hexagon of `module_rings` rings without its six corners, with rows of modules along the axes of
    the camera; pixels are numbered in a spiral from the centre, as in the files of the real cameras.

    Parameters
    ----------
    module_rings : int
        Rings of modules around the central one.
    pitch_m : float
        Distance between neighbouring pixels.

    Returns
    -------
    x_m, y_m : ndarray, shape (n_pixels,)
        Camera frame.
    """
    modules = [cell for k in range(module_rings + 1) for cell in _ring(k)]
    corners = {(module_rings * da, module_rings * db) for da, db in _DIRECTIONS}
    flower = ((0, 0), *_DIRECTIONS)
    # Module (m, n) sits at m (2, 1) + n (-1, 3) on the lattice of pixels: lattice vectors of length sqrt(7).
    pixels = {(2 * m - n + da, m + 3 * n + db) for m, n in modules if (m, n) not in corners for da, db in flower}
    spiral = [cell for k in range(3 * module_rings + 2) for cell in _ring(k) if cell in pixels]
    a, b = np.transpose(spiral)
    # Axis a at 30 deg and axis b at 90 deg, then turned by the angle between the two lattices, atan(sqrt(3) / 9).
    x, y = pitch_m * a * math.sqrt(3) / 2, pitch_m * (b + a / 2)
    turn = math.atan(math.sqrt(3) / 9)
    return x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)


def hexagon_area(pitch_m: float) -> float:
    """Area of a hexagon of flat-to-flat width `pitch_m` [m^2]."""
    return math.sqrt(3) / 2 * pitch_m**2


# Quantum efficiency of the super-bialkali photomultipliers at the wavelengths of `_WAVELENGTH_NM`.
_WAVELENGTH_NM = np.array([260, 280, 300, 320, 340, 360, 380, 400, 420, 450, 500, 550, 600, 650, 700], float)
_QUANTUM_EFFICIENCY = np.array(
    [0.0, 0.02, 0.18, 0.29, 0.36, 0.38, 0.39, 0.39, 0.38, 0.345, 0.25, 0.15, 0.08, 0.035, 0.015]
)
_MIRROR_REFLECTIVITY, _WINDOW_TRANSMISSION, _FUNNEL_AND_SHADOW = 0.90, 0.93, 0.90


@register_telescope("LST")
def _lst() -> Telescope:
    """The Large-Sized Telescope of the Cherenkov Telescope Array Observatory."""
    pitch_m = 0.05
    x_m, y_m = seven_pixel_modules(9, pitch_m)
    pulse_step_ns = 0.1
    pulse_time_ns = 0.9  # full width at half maximum 3 ns
    time = np.arange(0, 16, pulse_step_ns) / pulse_time_ns
    camera = Camera(
        name="LSTCam",
        pix_x_m=x_m,
        pix_y_m=y_m,
        pix_area_m2=np.full(len(x_m), hexagon_area(0.049)),
        hexagonal=True,
        pix_rotation_deg=30.0 + math.degrees(math.atan(math.sqrt(3) / 9)),
        focal_length_m=28.0,
        effective_focal_length_m=29.30565,
        mirror_area_m2=386.73,
        n_mirror_tiles=198,
        optics_name="LST",
        reflector_shape="PARABOLIC",
        n_samples=40,
        sampling_rate_ghz=1.0,
        reference_pulse=(time**2 * np.exp(-time))[None],
        reference_pulse_step_ns=pulse_step_ns,
    )
    return Telescope(
        name="LST",
        camera=camera,
        mirror_area_m2=386.73,
        mirror_height_m=16.0,
        psf_sigma_m=0.010,
        wavelength_nm=_WAVELENGTH_NM,
        efficiency=_QUANTUM_EFFICIENCY * _MIRROR_REFLECTIVITY * _WINDOW_TRANSMISSION * _FUNNEL_AND_SHADOW,
        # Muon rings that sim_telarray makes with new LST mirrors have as many photo-electrons as a throughput of 1.0
        # gives here (10 to 450 GeV, medians); its productions take 0.8 of that for aged mirrors. Its gamma images
        # between 75 GeV and 1.3 TeV, compared at equal depth of maximum, ask for 0.6 to 0.8.
        throughput=0.7,
        pulse_time_ns=pulse_time_ns,
        sources=(
            "Camera: 265 modules of 7 pixels, 50 mm pitch, 49 mm flat to flat: CTA-LST Project (2023), ApJ 956, 80",
            "Optics: f = 28 m, 198 facets: the same. 386.73 m2, effective focal length 29.30565 m: CTAO prod5 files",
            "Quantum efficiency, single photo-electron spectrum: Kobayashi et al. (2021), PoS(ICRC2021) 720",
            "Night sky: dark sky of La Palma, Benn & Ellison (1998), New Astron. Rev. 42, 503",
        ),
    )
