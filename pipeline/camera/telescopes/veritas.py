"""The VERITAS telescopes at Mount Hopkins, Arizona, with the photomultipliers of 2012."""

import numpy as np

from pipeline.camera.geometry import Camera
from pipeline.camera.telescopes.layouts import hexagon_area, hexagonal_disc
from pipeline.camera.telescopes.registry import register_telescope
from pipeline.camera.telescopes.sensors import PMT_WAVELENGTH_NM, VERITAS_PMT
from pipeline.camera.telescopes.telescope import Telescope, davies_cotton_focal_length, readout_of_camera

_PITCH_M = 0.0314
_MIRROR_REFLECTIVITY, _FUNNEL, _SHADOW = 0.82, 0.765, 0.90

_SOURCES = (
    "Davies-Cotton of 12 m, f = 12 m, 350 facets, 110 m2: Holder et al. (2006), Astropart. Phys. 25, 391",
    "499 pixels, 31.4 mm apart, field of 3.5 deg: the same",
    "Point spread (80 % within 0.05 deg of the centre): McCann et al. (2010), Astropart. Phys. 32, 325",
    "Photomultipliers R10560: Otte et al. (2011), arXiv:1110.4702",
    "Light guides, pulse (peak of 0.21 / ns), spread of charges, 16 samples at 500 MHz: VTS-SimPipe, configuration V6",
    "Saturation: low gain of 0.24 counts per photo-electron in 8 bits: the same",
    "Night sky: estimate, between what the dark sky of La Palma would give (0.12) and the value in VTS-SimPipe (0.3)",
    "Effective focal length: computed (`davies_cotton_focal_length`)",
    "Estimates: reflectivity, shadow, height of the axis, transit times, noise",
    "Trigger: 24 photo-electrons in 7 pixels at a time, for three neighbours above 3.3 (45 mV): VTS-SimPipe",
    "Throughput: not calibrated, the default",
)


@register_telescope("VERITAS")
def _veritas() -> Telescope:
    # Axis towards -x: the second pixel is at +x, as in the files of the real camera
    x_m, y_m = hexagonal_disc(499, _PITCH_M, 180.0)
    mirror_area_m2 = 110.0
    readout = {"pulse_time_ns": 1.29, "sample_ns": 2.0, "n_samples": 16}
    camera = Camera(
        name="VERITAS",
        pix_x_m=x_m,
        pix_y_m=y_m,
        pix_area_m2=np.full(len(x_m), hexagon_area(_PITCH_M)),
        hexagonal=True,
        focal_length_m=12.0,
        effective_focal_length_m=davies_cotton_focal_length(12.0, diameter_m=12.0),
        mirror_area_m2=mirror_area_m2,
        n_mirror_tiles=350,
        optics_name="VERITAS",
        reflector_shape="DAVIES_COTTON",
        **readout_of_camera(**readout),
    )
    efficiency = VERITAS_PMT * _MIRROR_REFLECTIVITY * _FUNNEL * _SHADOW
    return Telescope(
        name="VERITAS",
        camera=camera,
        mirror_area_m2=mirror_area_m2,
        mirror_height_m=7.0,
        psf_sigma_m=0.006,
        wavelength_nm=PMT_WAVELENGTH_NM,
        efficiency=efficiency,
        **readout,
        time_spread_ns=0.7,
        gain_spread=0.43,
        night_sky_pe_per_ns=0.2,
        electronic_noise_pe=0.05,
        trigger_pe_per_ns=5.0,
        saturation_pe=1000.0,
        window_samples=6,
        window_before_peak=2,
        sources=_SOURCES,
    )
