"""The Large-Sized Telescope of the Cherenkov Telescope Array Observatory."""

import math

import numpy as np

from pipeline.camera.geometry import Camera
from pipeline.camera.telescopes.layouts import MODULE_TURN_RAD, hexagon_area, seven_pixel_modules
from pipeline.camera.telescopes.registry import register_telescope
from pipeline.camera.telescopes.sensors import PMT_WAVELENGTH_NM, SUPER_BIALKALI
from pipeline.camera.telescopes.telescope import Telescope

_MIRROR_REFLECTIVITY, _WINDOW_TRANSMISSION, _FUNNEL_AND_SHADOW = 0.90, 0.93, 0.90


@register_telescope("LST")
def _lst() -> Telescope:
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
        pix_rotation_deg=30.0 + math.degrees(MODULE_TURN_RAD),
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
        wavelength_nm=PMT_WAVELENGTH_NM,
        efficiency=SUPER_BIALKALI * _MIRROR_REFLECTIVITY * _WINDOW_TRANSMISSION * _FUNNEL_AND_SHADOW,
        # Muon rings that sim_telarray makes with new LST mirrors have as many photo-electrons as a throughput of 1.0
        # gives here (10 to 450 GeV, medians); its productions take 0.8 of that for aged mirrors. Its gamma images
        # between 75 GeV and 1.3 TeV, compared at equal depth of maximum, give 0.6 to 0.8.
        throughput=0.7,
        pulse_time_ns=pulse_time_ns,
        night_sky_pe_per_ns=0.24,
        electronic_noise_pe=0.075,
        saturation_pe=3000.0,
        sources=(
            "Camera: 265 modules of 7 pixels, 50 mm pitch, 49 mm flat to flat: CTA-LST Project (2023), ApJ 956, 80",
            "Optics: f = 28 m, 198 facets: the same. 386.73 m2, effective focal length 29.30565 m: CTAO prod5 files",
            "Quantum efficiency, single photo-electron spectrum: Kobayashi et al. (2021), PoS(ICRC2021) 720",
            "Night sky of 0.234 to 0.245 per ns, noise of 6.7 counts of 0.010 to 0.014: CTAO prod5 and prod6 files",
            "Saturation: low gain of 1.28 counts per photo-electron in 12 bits: configuration in CTAO prod5 files",
        ),
    )
