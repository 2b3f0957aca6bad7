"""Night sky and electronics without a shower: noise of pixels, and triggers on noise alone."""

from pathlib import Path

import numpy as np

from pipeline.camera.showers.compilation import compiled
from pipeline.camera.showers.conditions import make_conditions
from pipeline.camera.showers.electronics import (
    extract,
    fill_noise,
    limit_and_calibrate,
    make_electronics,
    noise_trigger_probability,
    sum_neighbors,
)
from pipeline.camera.showers.validation.rows import Reference, Row, compared, mean_and_error
from pipeline.camera.showers.validation.sim_telarray import GAMMA_FILES, dark_pixel_rms
from pipeline.camera.telescopes import Telescope, get_telescope, list_telescopes
from pipeline.config import CameraConditions

NOISE_RMS_PE = (1.2, 1.35)  # LST, neighbour-peak window
LARGEST_TRIGGER_RATE_HZ = 10_000.0  # of one telescope; arrays reject more in coincidence, single ones read out 7 kHz


@compiled
def _noise_charges(electronics, pixels, n_images, n_pixels, seed):
    """Charges of pixels without light, shape (n_images, n_pixels)."""
    np.random.seed(seed)
    n_samples = electronics.noise.shape[1]
    waveforms, sums = np.empty((2, n_pixels, n_samples), np.float32)
    charges, peak_time = np.empty((n_images, n_pixels), np.float32), np.empty(n_pixels, np.float32)
    for image in range(n_images):
        fill_noise(electronics, pixels, waveforms)
        limit_and_calibrate(electronics, pixels, waveforms)
        sum_neighbors(waveforms, electronics.neighbors, sums)
        extract(waveforms, sums, electronics, charges[image], peak_time)
    return charges


def noise_charges(telescope: Telescope, n_images: int, seed: int) -> np.ndarray:
    """Charges [p.e.] that are extracted without light, shape (n_images, n_pixels)."""
    conditions = CameraConditions()
    electronics = make_electronics(telescope, seed, conditions)
    pixels = make_conditions(telescope, conditions, seed)
    return _noise_charges(electronics, pixels, n_images, telescope.camera.n_pixels, seed)


def check_noise(n_windows: int, data: Path | None) -> tuple[list[Row], dict]:
    """Pixel noise of the LST, and the rate of triggers on noise of every type."""
    charges = noise_charges(get_telescope("LST"), max(n_windows // 50, 20), 1)
    by_image = charges.std(axis=1)
    error = float(by_image.std(ddof=1) / np.sqrt(len(by_image)))
    rms_pe = (float(charges.std()), error)
    words = "LST, no light: rms of pixel charges"
    rows = [
        Row(
            "noise_rms", words, "p.e.", *rms_pe, "dark sky and electronics", low=NOISE_RMS_PE[0], high=NOISE_RMS_PE[1]
        )
    ]  # fmt: skip
    if data is not None:
        # Files of three productions, which differ more from each other than their images do
        theirs = [float(np.mean(dark_pixel_rms(data / name, "LST"))) for name in GAMMA_FILES]
        reference = Reference(*mean_and_error(theirs), f"sim_telarray, {len(theirs)} productions")
        rows.append(
            compared("noise_rms_files", f"{words}, as extracted from sim_telarray's", "p.e.", reference, rms_pe)
        )
    for name in list_telescopes():
        telescope = get_telescope(name)
        probability, rate_hz = noise_trigger_probability(telescope, n_windows, 2)
        of_one = 1e9 / (n_windows * telescope.n_samples * telescope.sample_ns)
        n = max(probability * n_windows, 1.0)
        rows.append(
            Row(
                f"noise_trigger_{name}", f"{name}, no light: triggers per second", "Hz", rate_hz, of_one * n**0.5,
                "readout of single telescopes", high=LARGEST_TRIGGER_RATE_HZ,
            )
        )  # fmt: skip
    return rows, {}
