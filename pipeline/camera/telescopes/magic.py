"""The MAGIC telescopes at La Palma, after the upgrade of 2012: both are alike."""

import math

import numpy as np

from pipeline.camera.geometry import Camera
from pipeline.camera.telescopes.layouts import MODULE_TURN_RAD, hexagon_area, hexagonal_disc
from pipeline.camera.telescopes.night_sky import dark_sky_pe_per_ns
from pipeline.camera.telescopes.registry import register_telescope
from pipeline.camera.telescopes.sensors import PMT_WAVELENGTH_NM, SUPER_BIALKALI
from pipeline.camera.telescopes.telescope import DEFAULT_THROUGHPUT, Telescope, readout_of_camera

_PITCH_M = 0.03
_QUANTUM_EFFICIENCY = SUPER_BIALKALI * 0.33 / SUPER_BIALKALI.max()
_MIRROR_REFLECTIVITY, _WINDOW_TRANSMISSION, _FUNNEL, _SHADOW = 0.85, 0.92, 0.93, 0.95

_SOURCES = (
    "1039 pixels of 30 mm, quantum efficiency of 32 to 34 %: Borla Tridon et al. (2009), arXiv:0906.5448",
    "Round field of 3.5 deg, 236 m2, f = 17 m, 964 facets (MAGIC-I): Aleksic et al. (2016), Astropart. Phys. 72, 61",
    "Focal lengths of 16.97 m and, with coma, 1.0713 times 17 m; orientation of the camera: ctapipe_io_magic",
    "DRS4 readout, 50 samples at 1.64 GHz: Ahnen et al. (2017), Astropart. Phys. 94, 29",
    "Pulse (2.5 ns full width at half maximum), extraction from 3 to 4 ns: Sitarek et al. (2013), NIM A 723, 109",
    "Night sky: computed from the sky of Benn & Ellison (1998), New Astron. Rev. 42, 503",
    "Estimates: reflectivity, window, light guides, shadow, height, point spread, transit times, noise, saturation",
    "Trigger: 19 photo-electrons in 7 pixels at a time, for three neighbours above 4 to 5: Aleksic et al. (2016)",
    "Throughput: not calibrated, the default",
)


@register_telescope("MAGIC")
def _magic() -> Telescope:
    rotation_deg = 60.0 + math.degrees(MODULE_TURN_RAD)
    x_m, y_m = hexagonal_disc(1039, _PITCH_M, rotation_deg)
    mirror_area_m2 = 236.0
    readout = {"pulse_time_ns": 0.74, "sample_ns": 1 / 1.64, "n_samples": 50}
    camera = Camera(
        name="MAGICCam",
        pix_x_m=x_m,
        pix_y_m=y_m,
        pix_area_m2=np.full(len(x_m), hexagon_area(_PITCH_M)),
        hexagonal=True,
        pix_rotation_deg=rotation_deg,
        focal_length_m=16.97,
        effective_focal_length_m=17 * 1.0713,
        mirror_area_m2=mirror_area_m2,
        n_mirror_tiles=964,
        optics_name="MAGIC",
        reflector_shape="PARABOLIC",
        **readout_of_camera(**readout),
    )
    efficiency = _QUANTUM_EFFICIENCY * _MIRROR_REFLECTIVITY * _WINDOW_TRANSMISSION * _FUNNEL * _SHADOW
    return Telescope(
        name="MAGIC",
        camera=camera,
        mirror_area_m2=mirror_area_m2,
        mirror_height_m=9.0,
        psf_sigma_m=0.010,
        wavelength_nm=PMT_WAVELENGTH_NM,
        efficiency=efficiency,
        **readout,
        time_spread_ns=0.5,
        gain_spread=0.45,
        night_sky_pe_per_ns=dark_sky_pe_per_ns(
            camera, mirror_area_m2, PMT_WAVELENGTH_NM, efficiency * DEFAULT_THROUGHPUT
        ),
        electronic_noise_pe=0.10,
        trigger_pe_per_ns=7.0,
        saturation_pe=1000.0,
        window_samples=6,
        window_before_peak=2,
        sources=_SOURCES,
    )
