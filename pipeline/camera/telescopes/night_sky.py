"""What a dark night sky gives a pixel, and the light of stars."""

import math

import numpy as np

from pipeline.camera.geometry import Camera

# Sky brightness at La Palma at high galactic and ecliptic latitude, zenith, sunspot minimum, in U, B, V, R and I
# [mag / arcsec^2]: Benn & Ellison (1998), New Astron. Rev. 42, 503.
_BRIGHTNESS_MAG = np.array([22.0, 22.7, 21.9, 21.0, 20.0])
# Effective wavelengths [nm] and flux of magnitude 0 [Jy] of these bands: Bessell (1979), PASP 91, 589.
_BAND_NM = np.array([365.0, 440.0, 550.0, 640.0, 790.0])
_ZERO_JY = np.array([1810.0, 4260.0, 3640.0, 3080.0, 2550.0])
_PHOTONS_PER_JY = 1.509e7  # per second, m^2 and relative width of the band: 1e-26 / h
_ARCSEC2_SR = (math.pi / 180 / 3600) ** 2


def photons(magnitudes: np.ndarray, wavelength_nm: np.ndarray) -> np.ndarray:
    """Photons per second, m^2 and nm, at the given wavelengths, of a source with these U, B, V, R and I magnitudes.

    Linear between the bands, constant below 365 nm and above 790 nm.
    """
    return np.interp(wavelength_nm, _BAND_NM, _ZERO_JY * 10 ** (-0.4 * magnitudes) * _PHOTONS_PER_JY / _BAND_NM)


def star_photons(magnitude: float, wavelength_nm: np.ndarray) -> np.ndarray:
    """Photons per second, m^2 and nm of a white star (type A0), which has the same magnitude in all bands."""
    return photons(np.full(len(_BAND_NM), magnitude), wavelength_nm)


def dark_sky_photons(wavelength_nm: np.ndarray) -> np.ndarray:
    """Photons of the dark sky per second, m^2, sr and nm at the given wavelengths.

    The lines of the airglow are spread over their bands, as the efficiency of a sensor is smooth on that scale.
    """
    return photons(_BRIGHTNESS_MAG, wavelength_nm) / _ARCSEC2_SR


def dark_sky_pe_per_ns(
    camera: Camera, mirror_area_m2: float, wavelength_nm: np.ndarray, efficiency: np.ndarray
) -> float:
    """Photo-electrons per ns that a dark sky gives a pixel.

    Parameters
    ----------
    camera : Camera
        Solid angle of a pixel: its mean area over the square of the focal length.
    mirror_area_m2 : float
    wavelength_nm, efficiency : ndarray, shape (n,)
        Probability that a photon on the mirror becomes a photo-electron, everything included.
    """
    nm = np.arange(wavelength_nm[0], wavelength_nm[-1] + 1)
    detected = float(np.trapezoid(dark_sky_photons(nm) * np.interp(nm, wavelength_nm, efficiency), nm))
    solid_angle_sr = float(camera.pix_area_m2.mean()) / camera.focal_length_m**2
    return 1e-9 * detected * mirror_area_m2 * solid_angle_sr
