"""What is not perfect about the pixels of one camera: dead ones, gains that calibration has left, and stars.

A star brings as many photo-electrons as its light meets on the mirror and the telescope detects,

    rate = A  integral dlambda  phi(lambda)  D(lambda),

with its photons phi per area, time and wavelength, and the efficiency D that Cherenkov light has, too. It is spread
over pixels as the mirror spreads it. Stars are white (type A0): the same magnitude in all bands. A star like the Sun
with the same magnitude in B gives a photomultiplier 5 % more, a red one (B - V = 1.2) 25 %. In an LST a star of
magnitude 9.7 is as bright as the dark sky in a pixel.

Neglected: the atmosphere's extinction (0.2 mag at the zenith), the wider point spread off axis, the motion of stars
through the camera of an alt-azimuth mount, and the high voltage that a telescope lowers in pixels with a star.
"""

import math
from typing import NamedTuple

import numpy as np

from pipeline.camera.pixel_map import pixel_map
from pipeline.camera.telescopes import Telescope
from pipeline.camera.telescopes.night_sky import star_photons
from pipeline.config import CameraConditions, Star
from pipeline.errors import UserError

LEAST_SHARE = 0.01  # starlight below this share of the dark sky in a pixel changes nothing one could see
QUIET_SIGMAS = 7.0  # below this, noise with the long tail of shot noise triggers at more than some 100 Hz
MOST_PE_PER_NS = 1e4  # 0.06 A of anode current at a gain of 40,000: no camera is on where such a star is


class PixelConditions(NamedTuple):
    """State of the pixels of one camera.

    Attributes
    ----------
    gain : ndarray, shape (n_pixels,), float32
        What the calibrated waveform is to be multiplied with; mean 1; 0: dead.
    star_pe_per_ns : ndarray, shape (n_pixels,), float64
        Light of stars, in addition to the night sky.
    in_trigger : ndarray, shape (n_pixels,), bool
        Whether the sum of the pixel and its neighbours may trigger.
    """

    gain: np.ndarray
    star_pe_per_ns: np.ndarray
    in_trigger: np.ndarray


def make_conditions(telescope: Telescope, conditions: CameraConditions, seed: int) -> PixelConditions:
    """Draw the state of a telescope's pixels.

    Parameters
    ----------
    telescope : Telescope
    conditions : CameraConditions
        Dead pixels are drawn without replacement, their number is the rounded share of all. Gains are log-normal, so
        never negative, and have mean 1 over all pixels. Dead pixels do not trigger, nor do those near a star that
        would do so all the time: rate control takes them out of the trigger of a real telescope, too.
    seed : int
        Seeds dead pixels and gains, each independent of the number of the other.

    Returns
    -------
    PixelConditions

    Raises
    ------
    UserError
        If no pixel is left alive, or a star is too bright for any camera.
    """
    n_pixels = telescope.camera.n_pixels
    for_gains, for_dead = np.random.SeedSequence(seed).spawn(2)
    n_dead = round(conditions.dead_pixel_fraction * n_pixels)
    if n_dead == n_pixels:
        raise UserError(
            f"dead_pixel_fraction {conditions.dead_pixel_fraction} leaves no pixel of {telescope.name} alive; "
            f"at least one of {n_pixels} is needed"
        )
    spread = math.sqrt(math.log1p(conditions.flat_field_rms**2))
    gain = np.exp(spread * np.random.default_rng(for_gains).standard_normal(n_pixels))
    gain /= gain.mean()
    gain[np.random.default_rng(for_dead).permutation(n_pixels)[:n_dead]] = 0.0
    star = star_pe_per_ns(telescope, conditions.stars)
    in_trigger = (gain > 0) & ~_triggers_on_stars(telescope, conditions.night_sky_factor, star)
    return PixelConditions(gain.astype(np.float32), star, in_trigger)


def _triggers_on_stars(telescope: Telescope, night_sky_factor: float, star: np.ndarray) -> np.ndarray:
    """Pixels whose sum with the neighbours has starlight, and noise within `QUIET_SIGMAS` of the trigger threshold."""
    neighbors = telescope.camera.neighbors
    exists = neighbors >= 0
    starlight = star + np.where(exists, star[neighbors], 0.0).sum(axis=1)
    n_summed = 1 + exists.sum(axis=1)
    rate = starlight + n_summed * night_sky_factor * telescope.night_sky_pe_per_ns
    # Campbell's theorem: rate <q^2> integral f^2 dt, which is 3 / (16 tau) for f = t^2 exp(-t / tau) / (2 tau^3)
    variance = rate * (1 + telescope.gain_spread**2) * 3 / (16 * telescope.pulse_time_ns)
    variance += n_summed * telescope.electronic_noise_pe**2
    return (starlight > 0) & (QUIET_SIGMAS**2 * variance > telescope.trigger_pe_per_ns**2)


def starlight_pe_per_ns(telescope: Telescope, magnitude: float) -> float:
    """Photo-electrons per ns that the whole camera gets from a white star."""
    wavelength_nm = np.arange(telescope.wavelength_nm[0], telescope.wavelength_nm[-1] + 1)
    efficiency = telescope.throughput * np.interp(wavelength_nm, telescope.wavelength_nm, telescope.efficiency)
    per_s_m2 = float(np.trapezoid(star_photons(magnitude, wavelength_nm) * efficiency, wavelength_nm))
    return 1e-9 * telescope.mirror_area_m2 * per_s_m2


def star_pe_per_ns(telescope: Telescope, stars: tuple[Star, ...]) -> np.ndarray:
    """Photo-electrons that stars add per pixel and ns, shape (n_pixels,); zero where the dark sky drowns them.

    Raises
    ------
    UserError
        If a star gives more than `MOST_PE_PER_NS` in a pixel.
    """
    rate = np.zeros(telescope.camera.n_pixels)
    for star in stars:
        light = starlight_pe_per_ns(telescope, star.magnitude) * star_shares(telescope, star)
        if light.max() > MOST_PE_PER_NS:
            raise UserError(
                f"a star of magnitude {star.magnitude:g} gives {light.max():.0f} photo-electrons per ns in a pixel of "
                f"{telescope.name}, at most {MOST_PE_PER_NS:.0f} can be simulated; leave it out or move it out of the "
                "field of view"
            )
        rate += light
    rate[rate < LEAST_SHARE * telescope.night_sky_pe_per_ns] = 0.0
    return rate


def star_shares(telescope: Telescope, star: Star) -> np.ndarray:
    """Share of a star's light that each pixel collects, shape (n_pixels,): 0 for a star outside the field of view.

    The light takes the way of `pipeline.camera.showers.optics.trace`: a tangential projection with the effective focal
    length, the camera's rotation, and a Gaussian point spread.
    """
    from scipy.special import ndtr

    camera = telescope.camera
    lon, lat = math.radians(star.fov_lon_deg), math.radians(star.fov_lat_deg)
    forwards = math.cos(lon) * math.cos(lat)
    if forwards <= 0:
        return np.zeros(camera.n_pixels)
    up = camera.effective_focal_length_m * math.sin(lat) / forwards
    east = camera.effective_focal_length_m * math.tan(lon)
    turn = math.radians(camera.cam_rotation_deg)
    x = up * math.cos(turn) - east * math.sin(turn)
    y = up * math.sin(turn) + east * math.cos(turn)
    table, edge, cell = pixel_map(camera)
    edges = -edge + cell * np.arange(len(table) + 1)
    in_x, in_y = (np.diff(ndtr((edges - centre) / telescope.psf_sigma_m)) for centre in (x, y))
    inside = table >= 0
    return np.bincount(table[inside], weights=np.outer(in_x, in_y)[inside], minlength=camera.n_pixels)
