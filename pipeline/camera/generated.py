"""From generated maps to camera images: photo-electrons, and our own electronics, night sky and trigger on top.

A generator says where the light of a shower is and when it comes. What a camera makes of that is physics that needs no
learning: each photo-electron is drawn, gets its time, and goes through the same readout as those of simulated showers.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from pipeline.camera.cleaning import tailcuts
from pipeline.camera.geometry import Camera
from pipeline.camera.hillas import image_parameters
from pipeline.camera.shower_frame import Orientation, shower_frame
from pipeline.camera.showers.conditions import make_conditions
from pipeline.camera.showers.electronics import make_electronics, read_out
from pipeline.camera.showers.primaries import Purpose, random_key
from pipeline.camera.telescopes import Telescope
from pipeline.config import CameraConditions, CleaningConfig
from pipeline.directions import altaz_of_fov, pointing_axes
from pipeline.inputs.shower_frame import CONDITIONS, Maps

#: Arrival times of the photo-electrons of one pixel about their mean [ns]: median of our simulated LST images,
#: transit times included (gammas 0.96, protons 1.21 in pixels with 4 photo-electrons or more).
TIME_SPREAD_NS = 1.0


class Light(NamedTuple):
    """Photo-electrons of showers in the pixels of a camera.

    Attributes
    ----------
    n_pe : ndarray of int, shape (n, n_pixels)
    time_ns : ndarray of float, shape (n, n_pixels)
        Their mean arrival time, in pixels that have any.
    """

    n_pe: np.ndarray
    time_ns: np.ndarray


class Recorded(NamedTuple):
    """What a camera made of some light; images that did not trigger are left out.

    Attributes
    ----------
    kept : ndarray of int, shape (k,)
        Which of the images triggered.
    image, peak_time : ndarray of float32, shape (k, n_pixels)
        [p.e.], [ns].
    image_mask : ndarray of bool, shape (k, n_pixels)
        Of the cleaning.
    parameters : mapping
        Image parameters, shape (k,).
    n_trigger_pixels : ndarray of int, shape (k,)
    """

    kept: np.ndarray
    image: np.ndarray
    peak_time: np.ndarray
    image_mask: np.ndarray
    parameters: Mapping[str, np.ndarray]
    n_trigger_pixels: np.ndarray


def light_of_maps(
    camera: Camera, maps: Maps, orientation: Orientation, size_pe: np.ndarray, rng: np.random.Generator
) -> Light:
    """Draw the photo-electrons of maps in the frame of their shower: `size_pe` of them inside the camera.

    Parameters
    ----------
    camera : Camera
    maps : Maps
        Of n images.
    orientation : Orientation
        How each shower lies in the camera.
    size_pe : ndarray, shape (n,)
    rng : numpy.random.Generator
    """
    share, spreads = maps.share, maps.spreads
    frame = shower_frame(camera, share.shape[-1])
    pixels = frame.pixels(orientation)
    unscaled = frame.gather(share, pixels)
    moment = frame.gather(share * maps.time_ns, pixels)
    total = unscaled.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        time = np.where(unscaled > 0, moment / unscaled, 0.0)
        expected = np.where(total > 0, unscaled / total, 1.0 / camera.n_pixels)
    if spreads is not None:
        with np.errstate(invalid="ignore", divide="ignore"):
            log_concentration = frame.gather(share * np.log(spreads.concentration), pixels) / unscaled
        concentration = np.where(unscaled > 0, np.exp(log_concentration), 1.0)
        drawn = rng.standard_gamma(concentration * expected) / concentration
        total = drawn.sum(axis=1, keepdims=True)
        expected = np.where(total > 0, drawn / np.where(total > 0, total, 1.0), expected)
    n_pe = rng.multinomial(np.round(size_pe).astype(np.int64), expected)
    if spreads is None:
        return Light(n_pe, time)
    variance = spreads.pixel_ns[:, None] ** 2 + spreads.electron_ns[:, None] ** 2 / np.maximum(n_pe, 1)
    return Light(n_pe, time + np.sqrt(variance) * rng.standard_normal(time.shape))


class CameraReadout:
    """A telescope's electronics in one state, ready to record generated light.

    Parameters
    ----------
    telescope : Telescope
    conditions : CameraConditions
        Night sky, dead pixels, gains, stars.
    run, seed : int
        Noise and imperfections depend on them, as those of simulated runs.
    cleaning : CleaningConfig
        Of the image masks.
    """

    def __init__(
        self, telescope: Telescope, conditions: CameraConditions, run: int, seed: int, cleaning: CleaningConfig
    ) -> None:
        def word(purpose: Purpose) -> int:
            return int(random_key(seed, run, purpose, 0).generate_state(1)[0])

        self.telescope, self._cleaning = telescope, cleaning
        self._electronics = make_electronics(telescope, word(Purpose.NOISE), conditions)
        self._pixels = make_conditions(telescope, conditions, word(Purpose.PIXELS))
        shape = telescope.camera.n_pixels, telescope.n_samples
        self._waveforms, self._sums = np.zeros(shape, np.float32), np.zeros(shape, np.float32)

    def record(self, light: Light, rng: np.random.Generator) -> Recorded:
        """Images of what triggers, cleaned and with their parameters."""
        camera, levels = self.telescope.camera, self._cleaning
        charge, peak_time = np.zeros((2, *light.n_pe.shape), np.float32)
        n_trigger = np.array([self._exposed(*images, rng) for images in zip(*light, charge, peak_time, strict=True)])
        kept = np.flatnonzero(n_trigger) if len(n_trigger) else np.empty(0, np.int64)
        charge, peak_time = charge[kept], peak_time[kept]
        mask = tailcuts(charge, camera, levels.picture_pe, levels.boundary_pe, levels.min_picture_neighbors)
        parameters = image_parameters(charge, peak_time, mask, camera)
        return Recorded(kept, charge, peak_time, mask, parameters, n_trigger[kept])

    def _exposed(
        self, n_pe: np.ndarray, mean_ns: np.ndarray, charge: np.ndarray, peak_time: np.ndarray, rng: np.random.Generator
    ) -> int:
        """Number of trigger pixels of one image; charge and time are filled if there are any."""
        pixel = np.repeat(np.arange(len(n_pe)), n_pe)
        if not len(pixel):
            return 0
        about_mean = rng.standard_normal(len(pixel))
        about_mean -= (np.bincount(pixel, about_mean, len(n_pe)) / np.maximum(n_pe, 1))[pixel]
        time = mean_ns[pixel] + TIME_SPREAD_NS * about_mean
        # The readout window follows the light; its phase against the clock is random.
        time += self._electronics.arrival_ns + rng.random() * self._electronics.sample_ns - np.median(time)
        seed = int(rng.integers(1 << 32))
        return read_out(
            pixel, time, self._electronics, self._pixels, seed, self._waveforms, self._sums, charge, peak_time
        )


def drawn_orientation(conditions: np.ndarray, rng: np.random.Generator) -> Orientation:
    """Showers from everywhere: directions to the core and sides are drawn, the camera's centre is a condition."""
    along, across = (conditions[:, CONDITIONS.index(f"centre_{axis}_deg")] for axis in ("along", "across"))
    n = len(conditions)
    return Orientation.of_centre(along, across, rng.uniform(-math.pi, math.pi, n), rng.choice([-1.0, 1.0], n))


def truth_of(
    conditions: np.ndarray,
    orientation: Orientation,
    primary_id: int,
    pointing_deg: tuple[float, float],
    position_m: tuple[float, float, float],
) -> dict[str, np.ndarray]:
    """Truth of generated showers as a DL1 file has it: energy, direction, core, primary.

    The core is where an axis from the source, at the impact distance and in the direction that the image shows, meets
    the ground. What the generator does not know (first interaction, depth of the maximum) is left out.

    Parameters
    ----------
    conditions : ndarray, shape (n, 5)
    orientation : Orientation
    primary_id : int
    pointing_deg : (float, float)
        Altitude and azimuth.
    position_m : (float, float, float)
        The telescope's mirror: north, west, up.
    """
    n = len(conditions)
    alt0, az0 = (np.full(n, angle) for angle in pointing_deg)
    alt, az = altaz_of_fov(orientation.source_lon_deg, orientation.source_lat_deg, alt0, az0)
    along_lon, along_lat, towards = pointing_axes(alt0, az0)
    _, _, axis = pointing_axes(alt, az)
    # The shortest way from the mirror to the axis: square to it, and in the field of view towards the core
    cosine, sine = np.cos(orientation.core_direction_rad)[:, None], np.sin(orientation.core_direction_rad)[:, None]
    to_axis = cosine * along_lon + sine * along_lat
    to_axis -= (to_axis * axis).sum(axis=1, keepdims=True) / (towards * axis).sum(axis=1, keepdims=True) * towards
    to_axis *= (conditions[:, CONDITIONS.index("impact_m")] / np.linalg.norm(to_axis, axis=1))[:, None]
    on_axis = np.asarray(position_m) + to_axis
    core = on_axis - on_axis[:, 2:] / axis[:, 2:] * axis
    return {
        "true_energy_tev": 10 ** conditions[:, CONDITIONS.index("log10_energy_tev")],
        "true_alt_deg": alt,
        "true_az_deg": az,
        "true_primary_id": np.full(n, primary_id),
        "true_core_x_m": core[:, 0],
        "true_core_y_m": core[:, 1],
        "true_impact_m": conditions[:, CONDITIONS.index("impact_m")],
    }
