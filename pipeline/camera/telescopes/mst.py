"""The Medium-Sized Telescopes of the Cherenkov Telescope Array Observatory, with either of their cameras."""

import math

import numpy as np

from pipeline.camera.geometry import Camera
from pipeline.camera.telescopes.layouts import (
    MODULE_TURN_RAD,
    Positions,
    hexagon_area,
    seven_pixel_modules,
    twelve_pixel_modules,
)
from pipeline.camera.telescopes.registry import register_telescope
from pipeline.camera.telescopes.sensors import PMT_WAVELENGTH_NM, SUPER_BIALKALI
from pipeline.camera.telescopes.telescope import Telescope, readout_of_camera

_PITCH_M = 0.05
_MIRROR_AREA_M2 = 106.24
_MIRROR_HEIGHT_M = 9.0
# Spot of a modified Davies-Cotton mirror, mean over the field of view: 0.03 deg
_PSF_SIGMA_M = 0.008
_MIRROR_REFLECTIVITY, _WINDOW_TRANSMISSION, _FUNNEL = 0.90, 0.93, 0.95
_SHADOW = 0.909 * 0.92  # masts, camera body of 2.9 m
_EFFICIENCY = SUPER_BIALKALI * _MIRROR_REFLECTIVITY * _WINDOW_TRANSMISSION * _FUNNEL * _SHADOW
# Two gamma showers of 0.2 and 1.3 TeV in CTAO prod5 files that LSTs and MSTs see side by side: at equal impact distance
# the MSTs have 1.0 to 1.2 (mean 1.1) times as many photo-electrons, relative to what is simulated here, as the LSTs,
# whose throughput is 0.7.
_THROUGHPUT = 0.77
_SOURCES = (
    "86 facets of 1.2 m, f = 16 m, 106.24 m2, effective focal length 16.445 m, shadow of the masts: CTAO prod5 files",
    "Quantum efficiency: that of the LST, tubes of one family (R12992): Kobayashi et al. (2021), PoS(ICRC2021) 720",
    "Transit times, night sky (of NectarCam; FlashCam has the same optics and tubes): CTAO prod5 files",
    "Estimates: point spread (errors of the facets in these files, and coma), height of the axis, light guides, body",
    "Throughput: two gamma showers in CTAO prod5 files (NectarCam), relative to the LSTs that see them, too",
)


def _camera(name: str, positions: Positions, pix_rotation_deg: float, **readout: object) -> Camera:
    x_m, y_m = positions
    return Camera(
        name=name,
        pix_x_m=x_m,
        pix_y_m=y_m,
        pix_area_m2=np.full(len(x_m), hexagon_area(0.049)),
        hexagonal=True,
        pix_rotation_deg=pix_rotation_deg,
        focal_length_m=16.0,
        effective_focal_length_m=16.445,
        mirror_area_m2=_MIRROR_AREA_M2,
        n_mirror_tiles=86,
        optics_name="MST",
        reflector_shape="HYBRID",
        **readout,
    )


@register_telescope("MST-NectarCam")
def _nectarcam() -> Telescope:
    readout = {"pulse_time_ns": 0.72, "sample_ns": 1.0, "n_samples": 60}
    rotation_deg = 30.0 + math.degrees(MODULE_TURN_RAD)
    camera = _camera("NectarCam", seven_pixel_modules(9, _PITCH_M), rotation_deg, **readout_of_camera(**readout))
    return Telescope(
        name="MST-NectarCam",
        camera=camera,
        mirror_area_m2=_MIRROR_AREA_M2,
        mirror_height_m=_MIRROR_HEIGHT_M,
        psf_sigma_m=_PSF_SIGMA_M,
        wavelength_nm=PMT_WAVELENGTH_NM,
        efficiency=_EFFICIENCY,
        throughput=_THROUGHPUT,
        **readout,
        time_spread_ns=0.7,
        gain_spread=0.45,
        night_sky_pe_per_ns=0.208,
        electronic_noise_pe=0.07,
        trigger_pe_per_ns=8.0,
        saturation_pe=2700.0,
        window_samples=7,
        window_before_peak=3,
        sources=(
            "265 modules of 7 pixels, 50 mm pitch: Glicenstein et al. (2013), arXiv:1307.4545, and CTAO prod5 files",
            "Pulse (2.45 ns full width at half maximum), 60 samples at 1 GHz: CTAO prod5 files",
            "Noise of 3.6 and signal of 19.56 counts, saturation (low gain of 1.40 counts in 12 bits): the same",
            "Trigger: 21 photo-electrons in 7 pixels at a time; in these files three neighbours above 4.3 each",
            *_SOURCES,
        ),
    )


@register_telescope("MST-FlashCam")
def _flashcam() -> Telescope:
    readout = {"pulse_time_ns": 2.2, "sample_ns": 4.0, "n_samples": 25}
    camera = _camera("FlashCam", twelve_pixel_modules(7, _PITCH_M), 30.0, **readout_of_camera(**readout))
    return Telescope(
        name="MST-FlashCam",
        camera=camera,
        mirror_area_m2=_MIRROR_AREA_M2,
        mirror_height_m=_MIRROR_HEIGHT_M,
        psf_sigma_m=_PSF_SIGMA_M,
        wavelength_nm=PMT_WAVELENGTH_NM,
        efficiency=_EFFICIENCY,
        throughput=_THROUGHPUT,
        **readout,
        time_spread_ns=0.7,
        gain_spread=0.45,
        night_sky_pe_per_ns=0.208,
        electronic_noise_pe=0.065,
        trigger_pe_per_ns=5.0,
        saturation_pe=3000.0,
        window_samples=4,
        window_before_peak=1,
        sources=(
            "147 modules of 12 pixels, 50 mm pitch: Puehlhofer et al. (2015), arXiv:1509.02434, and CTAO prod3b files",
            "25 samples at 250 MHz, noise of 3.0 and signal of 12.0 counts: CTAO prod3b files",
            "Pulse and noise: behind the digital filter on which trigger and charges are based. It takes off the decay "
            "(14.5 ns) of the pulse in these files, whose full width at half maximum falls from 15.6 to 8 ns",
            "Dynamic range of 3000 photo-electrons: Werner et al. (2017), NIM A 876, 31",
            "Trigger: 41 photo-electrons in 7 pixels at a time; in these files 54 in a patch of 9",
            *_SOURCES,
        ),
    )
