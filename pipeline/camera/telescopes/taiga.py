"""The imaging telescopes of the TAIGA experiment in the Tunka valley (TAIGA-IACT)."""

import math

import numpy as np

from pipeline.camera.geometry import Camera
from pipeline.camera.telescopes.layouts import hexagon_area, hexagonal_disc
from pipeline.camera.telescopes.night_sky import dark_sky_pe_per_ns
from pipeline.camera.telescopes.registry import register_telescope
from pipeline.camera.telescopes.sensors import BIALKALI, PMT_WAVELENGTH_NM
from pipeline.camera.telescopes.telescope import (
    DEFAULT_THROUGHPUT,
    Telescope,
    davies_cotton_focal_length,
    readout_of_camera,
)

_PITCH_M = 0.03
_N_FACETS, _FACET_RADIUS_M = 34, 0.30
_MIRROR_REFLECTIVITY, _WINDOW_TRANSMISSION, _FUNNEL, _SHADOW = 0.85, 0.92, 0.85, 0.95

_SOURCES = (
    "Davies-Cotton, 34 facets of 60 cm within 4.3 m, f = 4.75 m: Borodin et al. (2021), PoS(ICRC2021) 742",
    "560 photomultipliers XP1911 behind light guides, 0.36 deg each, 9.6 deg: Kuzmichev et al. (2018), PAN 81, 497",
    "Layout: 559 pixels make a round field of 9.4 deg; the cameras have 547 to 595, and an orientation of their own",
    "Point spread of 0.07 deg, dynamic range of 3000 photo-electrons: Kuzmichev et al. (2018)",
    "Readout: estimate of what MAROC3 chips, which hold one value per pixel, give: a pulse of 15 ns full width at half "
    "maximum, charges within 80 ns, noise of 3 photo-electrons per pixel",
    "Night sky: computed from the sky over La Palma, Benn & Ellison (1998), New Astron. Rev. 42, 503",
    "Effective focal length: computed (`davies_cotton_focal_length`)",
    "Estimates: quantum efficiency, reflectivity, window, light guides, shadow, height, times, spread of charges",
    "Trigger: estimate, 33 photo-electrons in 7 pixels at a time, for two neighbours above 10",
    "Throughput: not calibrated, the default",
)


@register_telescope("TAIGA-IACT")
def _taiga() -> Telescope:
    x_m, y_m = hexagonal_disc(559, _PITCH_M)
    mirror_area_m2 = _N_FACETS * math.pi * _FACET_RADIUS_M**2
    readout = {"pulse_time_ns": 4.5, "sample_ns": 4.0, "n_samples": 50}
    camera = Camera(
        name="TAIGA-IACT",
        pix_x_m=x_m,
        pix_y_m=y_m,
        pix_area_m2=np.full(len(x_m), hexagon_area(_PITCH_M)),
        hexagonal=True,
        focal_length_m=4.75,
        effective_focal_length_m=davies_cotton_focal_length(4.75, diameter_m=4.3),
        mirror_area_m2=mirror_area_m2,
        n_mirror_tiles=_N_FACETS,
        optics_name="TAIGA-IACT",
        reflector_shape="DAVIES_COTTON",
        **readout_of_camera(**readout),
    )
    efficiency = BIALKALI * _MIRROR_REFLECTIVITY * _WINDOW_TRANSMISSION * _FUNNEL * _SHADOW
    return Telescope(
        name="TAIGA-IACT",
        camera=camera,
        mirror_area_m2=mirror_area_m2,
        mirror_height_m=4.0,
        psf_sigma_m=0.004,
        wavelength_nm=PMT_WAVELENGTH_NM,
        efficiency=efficiency,
        **readout,
        time_spread_ns=1.0,
        gain_spread=0.5,
        night_sky_pe_per_ns=dark_sky_pe_per_ns(
            camera, mirror_area_m2, PMT_WAVELENGTH_NM, efficiency * DEFAULT_THROUGHPUT
        ),
        electronic_noise_pe=0.06,
        trigger_pe_per_ns=2.0,
        saturation_pe=3000.0,
        window_samples=20,
        window_before_peak=5,
        sources=_SOURCES,
    )
