"""The Small-Sized Telescope of the Cherenkov Telescope Array Observatory: dual mirror, camera of the CHEC type."""

import numpy as np

from pipeline.camera.geometry import Camera
from pipeline.camera.telescopes.layouts import hexagon_area, square_modules
from pipeline.camera.telescopes.night_sky import dark_sky_pe_per_ns
from pipeline.camera.telescopes.registry import register_telescope
from pipeline.camera.telescopes.sensors import SILICON, SIPM_WAVELENGTH_NM
from pipeline.camera.telescopes.telescope import DEFAULT_THROUGHPUT, Telescope, readout_of_camera

_PITCH_M, _MODULE_STEP_M, _SENSOR_M = 0.0064, 0.0533, 0.006
_N_FACETS = 18
# Two reflections. Shadow: secondary mirror of 1.8 m but for the central facet that is not there, then the masts.
_MIRROR_REFLECTIVITY = 0.87 * 0.87
_FACET_M2 = hexagon_area(0.849)
_SHADOW = (1 - (np.pi * 0.9**2 - _FACET_M2) / (_N_FACETS * _FACET_M2)) * 0.91
# Quartz window with a coating that keeps the red part of the night sky out
_WINDOW = np.array([0.40, 0.75, 0.88, 0.92, 0.93, 0.94, 0.94, 0.94, 0.93, 0.75, 0.15] + [0.05] * 6)

_SOURCES = (
    "32 modules of 8 x 8 pixels of 6 mm on a focal surface of 1 m radius: Zorn et al. (2018), NIM A 904, 44",
    "Steps between pixels and modules, projected on a plane: those of CHEC-S and of CTAO prod3b files, to 0.4 mm",
    "f = 2.15 m, effective focal length 2.15191 m, secondary mirror of 1.8 m: CTAO prod6 model (SSTS-design)",
    "18 facets of 0.849 m, point spread (80 % within 7 mm): Giro et al. (2017), A&A 608, A86",
    "Photo-sensor: Otte et al. (2017), NIM A 846, 106; 10 % optical cross-talk in the spread of charges",
    "Shadow of the masts, pulse (8 ns full width at half maximum), noise of 2, signal of 8 counts: CTAO prod3b files",
    "128 samples at 1 GHz: Zorn et al. (2018)",
    "Night sky: computed from the sky of Benn & Ellison (1998), New Astron. Rev. 42, 503",
    "Estimates: reflectivity, window, height of the axis, transit times, saturation (2 V at 4 mV per photo-electron)",
    "Trigger: 17 photo-electrons in 5 pixels at a time; in CTAO prod3b files two groups of 4 above 8.6 each",
    "Throughput: not calibrated, the default",
)


@register_telescope("SST-CHEC")
def _sst() -> Telescope:
    x_m, y_m = square_modules((4, 6, 6, 6, 6, 4), 8, _PITCH_M, _MODULE_STEP_M)
    mirror_area_m2 = _N_FACETS * _FACET_M2
    readout = {"pulse_time_ns": 2.3, "sample_ns": 1.0, "n_samples": 128}
    camera = Camera(
        name="CHEC",
        pix_x_m=x_m,
        pix_y_m=y_m,
        pix_area_m2=np.full(len(x_m), _PITCH_M**2),
        hexagonal=False,
        focal_length_m=2.15,
        effective_focal_length_m=2.15191,
        mirror_area_m2=mirror_area_m2,
        n_mirrors=2,
        n_mirror_tiles=_N_FACETS + 1,
        optics_name="SST",
        reflector_shape="SCHWARZSCHILD_COUDER",
        **readout_of_camera(**readout),
    )
    fill_factor = (_SENSOR_M / _PITCH_M) ** 2
    efficiency = SILICON * fill_factor * _WINDOW * _MIRROR_REFLECTIVITY * _SHADOW
    return Telescope(
        name="SST-CHEC",
        camera=camera,
        mirror_area_m2=mirror_area_m2,
        mirror_height_m=4.0,
        psf_sigma_m=0.002,
        wavelength_nm=SIPM_WAVELENGTH_NM,
        efficiency=efficiency,
        **readout,
        time_spread_ns=0.3,
        gain_spread=0.35,
        night_sky_pe_per_ns=dark_sky_pe_per_ns(
            camera, mirror_area_m2, SIPM_WAVELENGTH_NM, efficiency * DEFAULT_THROUGHPUT
        ),
        electronic_noise_pe=0.03,
        trigger_pe_per_ns=2.0,
        saturation_pe=500.0,
        window_samples=12,
        window_before_peak=4,
        sources=_SOURCES,
    )
