"""From photo-electrons to charge and time per pixel: night sky, pulses, trigger, and extraction.

Waveforms are in photo-electrons per ns, with the mean night sky subtracted. A single photo-electron at time t0 with
charge q gives q f(t - t0), f(t) ~ (t / tau)^2 exp(-t / tau) with unit area.
"""

import math
from typing import NamedTuple

import numpy as np

from pipeline.camera.showers.compilation import compiled
from pipeline.camera.telescopes import Telescope

PULSE_STEPS_PER_NS = 8
PULSE_NS = 16.0  # (13.3)^2 exp(-13.3): 1e-4 of the charge comes later
NOISE_ROWS = 20_011  # a prime: every stride through the rows reaches all of them
ARRIVAL_NS = 14.0  # where the readout window puts the median photo-electron


class Electronics(NamedTuple):
    """What turns photo-electrons into charges; see `pipeline.camera.telescopes.Telescope`.

    Attributes
    ----------
    neighbors : ndarray, shape (n_pixels, k), int32
        Adjacent pixels, -1 padded.
    pulse : ndarray
        f(t) in steps of 1 / `PULSE_STEPS_PER_NS`.
    noise : ndarray, shape (NOISE_ROWS, n_samples), float32
        Waveforms without any shower.
    gain_shape : float
        Shape of the gamma distribution of single charges (mean 1).
    sample_ns, trigger_pe_per_ns : float
    window, before_peak : int
        Charge integration window and its samples before the peak [samples].
    window_share : float
        Share of a pulse's charge in that window, mean over the phase between pulse and samples.
    """

    neighbors: np.ndarray
    pulse: np.ndarray
    noise: np.ndarray
    gain_shape: float
    sample_ns: float
    trigger_pe_per_ns: float
    window: int
    before_peak: int
    window_share: float


def pulse_shape(pulse_time_ns: float) -> np.ndarray:
    """f(t) of a single photo-electron [1/ns], unit area, in steps of 1 / `PULSE_STEPS_PER_NS` ns."""
    t = np.arange(0, PULSE_NS, 1 / PULSE_STEPS_PER_NS) / pulse_time_ns
    f = t**2 * np.exp(-t)
    return f / (f.sum() / PULSE_STEPS_PER_NS)


def window_share(pulse: np.ndarray, window: int, before_peak: int, sample_ns: float) -> float:
    """Share of a pulse's charge in the integration window around its highest sample, mean over sampling phases."""
    step = round(PULSE_STEPS_PER_NS * sample_ns)
    shares = []
    for phase in range(step):
        samples = pulse[phase::step]
        first = int(np.argmax(samples)) - before_peak
        shares.append(samples[max(first, 0) : first + window].sum() * sample_ns)
    return float(np.mean(shares))


@compiled
def add_pulse(waveform, time_ns, charge, pulse, sample_ns):
    """Add one photo-electron to a waveform, in place."""
    # The first sample after it; before that nothing arrives
    first = max(math.ceil(time_ns / sample_ns), 0)
    last = min(int((time_ns + len(pulse) / PULSE_STEPS_PER_NS) / sample_ns), len(waveform) - 1)
    for s in range(first, last + 1):
        i = int((s * sample_ns - time_ns) * PULSE_STEPS_PER_NS + 0.5)
        if i < len(pulse):
            waveform[s] += charge * pulse[i]


@compiled
def noise_waveforms(n_rows, n_samples, rate, gain_shape, noise_rms, pulse, sample_ns, seed):
    """Waveforms of night sky and electronics alone: float32, shape (n_rows, n_samples), mean 0.

    Night-sky photo-electrons arrive at `rate` [1/ns], from one pulse length before the window on.
    """
    np.random.seed(seed)
    before = len(pulse) / PULSE_STEPS_PER_NS
    span = before + n_samples * sample_ns
    out = np.empty((n_rows, n_samples), np.float32)
    for row in range(n_rows):
        for s in range(n_samples):
            out[row, s] = noise_rms * np.random.normal() - rate
        for _ in range(np.random.poisson(rate * span)):
            time = np.random.random() * span - before
            add_pulse(out[row], time, np.random.gamma(gain_shape, 1 / gain_shape), pulse, sample_ns)
    return out


def make_electronics(telescope: Telescope, seed: int) -> Electronics:
    """Electronics of a telescope, with a bank of noise waveforms (0.1 s, 3 MB) that images draw their noise from.

    Fresh noise for every pixel of every image would take twenty times as long as all the rest of the camera. An image
    takes rows of the bank in an order of its own.
    """
    pulse = pulse_shape(telescope.pulse_time_ns)
    gain_shape = 1 / telescope.gain_spread**2
    return Electronics(
        neighbors=telescope.camera.neighbors,
        pulse=pulse,
        noise=noise_waveforms(
            NOISE_ROWS,
            telescope.n_samples,
            telescope.night_sky_pe_per_ns,
            gain_shape,
            telescope.electronic_noise_pe,
            pulse,
            telescope.sample_ns,
            seed,
        ),
        gain_shape=gain_shape,
        sample_ns=telescope.sample_ns,
        trigger_pe_per_ns=telescope.trigger_pe_per_ns,
        window=telescope.window_samples,
        before_peak=telescope.window_before_peak,
        window_share=window_share(pulse, telescope.window_samples, telescope.window_before_peak, telescope.sample_ns),
    )


@compiled
def fill_waveforms(pixel, time_ns, electronics, waveforms):
    """Noise and signal of all pixels into `waveforms`, shape (n_pixels, n_samples); in place."""
    n_pixels = waveforms.shape[0]
    n_rows = electronics.noise.shape[0]
    row, stride = np.random.randint(0, n_rows), np.random.randint(1, n_rows)
    for i in range(n_pixels):
        waveforms[i] = electronics.noise[row]
        row = (row + stride) % n_rows
    shape = electronics.gain_shape
    for j in range(len(pixel)):
        if pixel[j] >= 0:
            charge = np.random.gamma(shape, 1 / shape)
            add_pulse(waveforms[pixel[j]], time_ns[j], charge, electronics.pulse, electronics.sample_ns)


@compiled
def sum_neighbors(waveforms, neighbors, sums):
    """Sum of the waveforms of a pixel's neighbours, the pixel itself left out; into `sums`, in place."""
    n_pixels, n_samples = waveforms.shape
    for i in range(n_pixels):
        sums[i] = 0.0
        for k in range(neighbors.shape[1]):
            j = neighbors[i, k]
            if j >= 0:
                for s in range(n_samples):
                    sums[i, s] += waveforms[j, s]


@compiled
def trigger_pixels(waveforms, sums, threshold):
    """Number of pixels whose own waveform and that of its neighbours together exceed the threshold at any time."""
    n_pixels, n_samples = waveforms.shape
    n = 0
    for i in range(n_pixels):
        highest = np.float32(-1e9)
        for s in range(n_samples):
            highest = max(highest, waveforms[i, s] + sums[i, s])
        n += highest > threshold
    return n


@compiled
def extract(waveforms, sums, electronics, charge, peak_time):
    """Charge [p.e.] and time [ns] of each pixel, in a window around the peak of its neighbours' sum; in place.

    The pixel itself has no say in where the window lies, so that its noise is not searched for an upward fluctuation
    and pixels without light have charge 0 in the mean (ctapipe's NeighborPeakWindowSum). The time is the mean of the
    samples in the window weighted with their positive charge.
    """
    n_pixels, n_samples = waveforms.shape
    first_peak = electronics.before_peak
    last_peak = n_samples - electronics.window + electronics.before_peak
    for i in range(n_pixels):
        peak = first_peak
        for s in range(first_peak, last_peak + 1):
            if sums[i, s] > sums[i, peak]:
                peak = s
        total, weight, moment = 0.0, 0.0, 0.0
        for s in range(peak - electronics.before_peak, peak - electronics.before_peak + electronics.window):
            value = waveforms[i, s]
            total += value
            if value > 0:
                weight += value
                moment += value * s
        charge[i] = total * electronics.sample_ns / electronics.window_share
        peak_time[i] = (moment / weight if weight > 0 else float(peak)) * electronics.sample_ns


@compiled
def read_out(pixel, time_ns, electronics, seed, waveforms, sums, charge, peak_time):
    """Expose the camera to photo-electrons; charge and time are filled if it triggers.

    Parameters
    ----------
    pixel, time_ns : ndarray, shape (n,)
        Pixel (-1: none) and arrival time in the readout window of each photo-electron.
    electronics : Electronics
    seed : int
        Seeds noise and gains of this image.
    waveforms, sums : ndarray, shape (n_pixels, n_samples), float32
        Room to work in.
    charge, peak_time : ndarray, shape (n_pixels,), float32
        Filled in place [p.e.], [ns].

    Returns
    -------
    int
        Number of pixels above the trigger threshold; 0 means no trigger.
    """
    np.random.seed(seed)
    fill_waveforms(pixel, time_ns, electronics, waveforms)
    sum_neighbors(waveforms, electronics.neighbors, sums)
    n_trigger = trigger_pixels(waveforms, sums, electronics.trigger_pe_per_ns)
    if n_trigger > 0:
        extract(waveforms, sums, electronics, charge, peak_time)
    return n_trigger
