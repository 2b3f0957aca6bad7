"""Noise of real cameras, added to images before they become tiles: night sky, gains, dead pixels.

Networks that were trained on images of one night and one perfect camera meet others when they are used, and depend on
noise more than image parameters do [1]_. If its strength differs from image to image in training, they learn to do
without what it destroys. This works on charges and peak times, so on images of any origin;
`pipeline.camera.showers.electronics` simulates the same on waveforms, for all images of a run alike.

References
----------
.. [1] Parsons, Mitchell & Ohm (2022), arXiv:2203.05315.
"""

import dataclasses
import zlib

import numpy as np

from pipeline.camera.dl1 import ImageChunk
from pipeline.camera.geometry import Camera
from pipeline.config import NoiseConfig

_PURPOSE = zlib.crc32(b"camera noise")  # tells these random numbers from others with the same seed
_UNSIGNED = (1 << 64) - 1  # ids may be negative, seeds may not


def add_noise(chunk: ImageChunk, noise: NoiseConfig, seed: int, chosen: np.ndarray) -> ImageChunk:
    """Images of one telescope with noise of their own.

    In the order of a photo-electron's way:

    - Night sky: every pixel gets a Poisson number of photo-electrons less their mean, as behind an AC-coupled readout.
      Pixels that get more than they had take a time from anywhere in the readout. The number that stands for a sky is
      that in the integration window; the spread of single charges makes real fluctuations (1 + F^2) times as large.
    - Gain: a factor for each pixel, normal about 1, not below 0.
    - Dead pixels: charge and time are the mean of the neighbours' that live, 0 if there are none, as in all files that
      ctapipe calibrates (``NeighborAverage``, for pixels that a camera marks as unusable).

    Mean of the sky, width of the gains and share of dead pixels are drawn for each image, uniformly from 0 to their
    maximum.

    Parameters
    ----------
    chunk : ImageChunk
        Left as it is. Pixels without a measurement (NaN) stay so.
    noise : NoiseConfig
    seed : int
        With run, event and telescope it decides all that is drawn for an image, whatever is read with it.
    chosen : ndarray of bool, shape (n,)
        Images that get noise; the others are returned as they are.

    Returns
    -------
    ImageChunk
        float32 images and times.
    """
    image, time = (np.array(array, np.float32) for array in (chunk.image, chunk.peak_time))
    dead = np.zeros(image.shape, bool)
    for i in np.flatnonzero(chosen).tolist():
        key = (int(identifier) & _UNSIGNED for identifier in (chunk.obs_id[i], chunk.event_id[i], chunk.tel_id))
        rng = np.random.default_rng([seed, _PURPOSE, *key])
        sky_pe, gain_spread, dead_fraction = rng.random(3) * (
            noise.night_sky_max_pe, noise.gain_spread_max, noise.dead_fraction_max,
        )  # fmt: skip
        _add_sky(image[i], time[i], sky_pe, chunk.camera.readout_ns, rng)
        image[i] *= np.maximum(1 + gain_spread * rng.standard_normal(image.shape[1]), 0)
        dead[i] = rng.random(image.shape[1]) < dead_fraction
    fill_dead(image, time, dead, chunk.camera)
    return dataclasses.replace(chunk, image=image, peak_time=time)


def _add_sky(image: np.ndarray, time: np.ndarray, mean_pe: float, readout_ns: float, rng: np.random.Generator) -> None:
    """Add the light of the night sky to the charges and times of one image, shape (n_pixels,), in place."""
    added_pe = rng.poisson(mean_pe, image.shape)
    time_ns = rng.random(image.shape, np.float32) * np.float32(readout_ns)
    np.copyto(time, time_ns, where=(added_pe > np.maximum(image, 0)) & np.isfinite(time))
    image += (added_pe - mean_pe).astype(np.float32)


def fill_dead(image: np.ndarray, time: np.ndarray, dead: np.ndarray, camera: Camera) -> None:
    """Replace dead pixels by the mean of their living neighbours, in place, as ctapipe's ``NeighborAverage`` does.

    Parameters
    ----------
    image, time : ndarray of float32, shape (n, n_pixels)
        Charge [p.e.] and peak time [ns]. Neighbours without a number count as dead.
    dead : ndarray of bool, shape (n, n_pixels)
    camera : Camera
    """
    row, pixel = np.nonzero(dead)
    neighbors = camera.neighbors[pixel]
    alive = (neighbors >= 0) & ~dead[row[:, None], neighbors]
    for values in (image, time):
        around = values[row[:, None], neighbors]
        use = alive & np.isfinite(around)
        total = np.where(use, around, 0).sum(axis=1, dtype=np.float64)
        values[row, pixel] = total / np.maximum(use.sum(axis=1), 1)
