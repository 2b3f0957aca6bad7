"""From photo-electrons to charge and time per pixel: night sky, pulses, saturation, trigger, and extraction.

Waveforms are calibrated: photo-electrons per ns, with the mean night sky subtracted as by an AC-coupled readout. A
single photo-electron at time t0 with charge q gives q f(t - t0), f(t) ~ (t / tau)^2 exp(-t / tau) with unit area.

    waveform = gain * min(signal + night sky + stars + electronic noise, saturation)

- Signal, night sky and stars: independent photo-electrons with charges from a gamma distribution. The night sky is
  brought by a bank of waveforms made once; stars light few pixels and are drawn for every image.
- Electronic noise: Gaussian, independent from sample to sample.
- Saturation: waveforms are cut at the height that a pulse of `Telescope.saturation_pe` has, as an ADC of limited range
  cuts them. What follows it is linear up to there.
- Gain: what a wrong flat-field factor leaves. Calibration multiplies all that was recorded by the factor, so the
  electronic noise of the pixel and the level of saturation change with it. A dead pixel has gain 0: no charge, no
  noise, and no trigger.
- Trigger: on the same waveforms, a pixel and its neighbours summed; not around dead pixels and bright stars.

Not simulated: afterpulses of photomultipliers, rare and large pulses that hardly change images but dominate the
triggers on noise of a real telescope, whose rate is therefore higher than that of `noise_trigger_probability`; optical
cross-talk of silicon sensors beyond what `Telescope.gain_spread` has of it; the second gain channel; rounding to ADC
counts; drifts of the baseline; transit times that differ from pixel to pixel (taken as calibrated); whatever
correlates the noise of pixels.
"""

import math
from typing import NamedTuple

import numpy as np

from pipeline.camera.showers.compilation import compiled
from pipeline.camera.showers.conditions import make_conditions
from pipeline.camera.telescopes import Telescope
from pipeline.config import CameraConditions
from pipeline.errors import UserError

PHASES_PER_NS = 8
PULSE_TAUS = 14.0  # 14^2 exp(-14): 1e-4 of the charge comes later
NOISE_ROWS = 20_011  # a prime: every stride through the rows reaches all of them
N_CHARGES = 4096
PEAK_SHARE = 0.4  # where in the readout window the pulse of the median photo-electron has its peak


class Electronics(NamedTuple):
    """What turns photo-electrons into charges; see `pipeline.camera.telescopes.Telescope`.

    Attributes
    ----------
    neighbors : ndarray, shape (n_pixels, k), int32
        Adjacent pixels, -1 padded.
    pulses : ndarray, shape (n_phases, n), float32
        f(t) at the n samples that follow a photo-electron [1/ns], for every phase between it and the sampling clock.
    charges : ndarray, shape (N_CHARGES,), float32
        Charges of single photo-electrons, all equally probable; mean 1.
    noise : ndarray, shape (NOISE_ROWS, n_samples), float32
        Waveforms without any shower.
    sample_ns, trigger_pe_per_ns, saturation_pe_per_ns : float
    arrival_ns : float
        Where in the readout window the median photo-electron of an image belongs.
    window, before_peak : int
        Charge integration window and its samples before the peak [samples].
    window_share : float
        Share of a flash's charge in that window, mean over the phase between flash and samples.
    """

    neighbors: np.ndarray
    pulses: np.ndarray
    charges: np.ndarray
    noise: np.ndarray
    sample_ns: float
    trigger_pe_per_ns: float
    saturation_pe_per_ns: float
    arrival_ns: float
    window: int
    before_peak: int
    window_share: float


def sampled_pulses(pulse_time_ns: float, sample_ns: float) -> np.ndarray:
    """f(t) of a single photo-electron [1/ns] at the samples after it, shape (n_phases, n), unit area in the mean.

    Row i is for photo-electrons that come (i + 1/2) / n_phases of a sample before the first sample.
    """
    n_phases = math.ceil(PHASES_PER_NS * sample_ns)
    n = math.ceil(PULSE_TAUS * pulse_time_ns / sample_ns)
    t = (np.arange(n) + (np.arange(n_phases)[:, None] + 0.5) / n_phases) * sample_ns / pulse_time_ns
    f = t**2 * np.exp(-t)
    return (f / (f.sum() * sample_ns / n_phases)).astype(np.float32)


def window_share(
    pulses: np.ndarray, window: int, before_peak: int, sample_ns: float, time_spread_ns: float = 0.0
) -> float:
    """Share of the charge of a flash in the integration window around its highest sample, mean over sampling phases.

    The flash is short, with pulses that `time_spread_ns` (rms) of transit time widens.
    """
    n_phases = len(pulses)
    step_ns = sample_ns / n_phases
    n = math.ceil(4 * time_spread_ns / step_ns)
    spread = np.exp(-0.5 * (np.arange(-n, n + 1) * step_ns / max(time_spread_ns, step_ns / 10)) ** 2)
    flash = np.convolve(pulses.T.ravel(), spread / spread.sum())
    shares = []
    for phase in range(n_phases):
        samples = flash[phase::n_phases]
        first = int(np.argmax(samples)) - before_peak
        shares.append(samples[max(first, 0) : first + window].sum() * sample_ns)
    return float(np.mean(shares))


def single_charges(gain_spread: float) -> np.ndarray:
    """Charges of single photo-electrons, shape (N_CHARGES,): quantiles of a gamma distribution with mean 1.

    Drawing one of them is ten times as fast as drawing from the distribution.
    """
    from scipy.special import gammaincinv

    shape = 1 / gain_spread**2
    charges = gammaincinv(shape, (np.arange(N_CHARGES) + 0.5) / N_CHARGES)
    return (charges / charges.mean()).astype(np.float32)


@compiled
def add_pulse(waveform, time_ns, electronics):
    """Add one photo-electron to a waveform, in place."""
    pulses, charges = electronics.pulses, electronics.charges
    n_phases, n_after = pulses.shape
    time = time_ns / electronics.sample_ns
    if -n_after < time < len(waveform):
        # The first sample after it; before that nothing arrives
        first = math.ceil(time)
        phase = min(int((first - time) * n_phases), n_phases - 1)
        charge = charges[int(len(charges) * np.random.random())]
        for k in range(max(-first, 0), min(n_after, len(waveform) - first)):
            waveform[first + k] += charge * pulses[phase, k]


@compiled
def add_steady_light(waveform, rate, electronics):
    """Add photo-electrons that arrive at `rate` [1/ns] to a waveform, and subtract their mean; in place."""
    # Those of one pulse length before the window reach into it
    before = electronics.pulses.shape[1] * electronics.sample_ns
    span = before + len(waveform) * electronics.sample_ns
    for s in range(len(waveform)):
        waveform[s] -= np.float32(rate)
    for _ in range(np.random.poisson(rate * span)):
        add_pulse(waveform, span * np.random.random() - before, electronics)


@compiled
def noise_waveforms(n_rows, n_samples, rate, noise_rms, electronics, seed):
    """Waveforms of night sky and electronics alone: float32, shape (n_rows, n_samples).

    Each sample has mean 0 over the rows: what chance leaves of it would be alike in all pixels of all images.
    """
    np.random.seed(seed)
    out = np.empty((n_rows, n_samples), np.float32)
    for row in range(n_rows):
        for s in range(n_samples):
            out[row, s] = noise_rms * np.random.normal()
        add_steady_light(out[row], rate, electronics)
    for s in range(n_samples):
        out[:, s] -= np.float32(out[:, s].mean())
    return out


def make_electronics(telescope: Telescope, seed: int, conditions: CameraConditions | None = None) -> Electronics:
    """Electronics of a telescope, with a bank of noise waveforms (0.1 s, 3 MB) that images draw their noise from.

    Fresh noise for every pixel of every image would take twenty times as long as all the rest of the camera. An image
    takes rows of the bank with a stride of its own: this gives 4e8 different images of noise, and no row is in one
    twice. Pixels correlate by -1 / (NOISE_ROWS - 1) = -5e-5, and no more in 3000 images (adjacent ones: 0 +- 2.5e-4).
    The highest sums of a pixel and its neighbours, in 20,000 images of one bank, have the quantiles that 150 banks
    have together, to 1 % up to the 99.9 % one. (Charges of adjacent pixels correlate by 6 %, but because of
    `extract`: each helps to choose the other's window.)

    Parameters
    ----------
    telescope : Telescope
    seed : int
        Seeds the bank.
    conditions : CameraConditions, optional
        Of these, the night sky's factor and whether readout saturates; what differs between pixels is in
        `pipeline.camera.showers.conditions.make_conditions`.
    """
    conditions = conditions or CameraConditions()
    sample_ns = telescope.sample_ns
    pulses = sampled_pulses(telescope.pulse_time_ns, sample_ns)
    without_noise = Electronics(
        neighbors=telescope.camera.neighbors,
        pulses=pulses,
        charges=single_charges(telescope.gain_spread),
        noise=np.zeros((0, telescope.n_samples), np.float32),
        sample_ns=sample_ns,
        trigger_pe_per_ns=telescope.trigger_pe_per_ns,
        saturation_pe_per_ns=telescope.saturation_pe * float(pulses.max()) if conditions.saturation else math.inf,
        arrival_ns=PEAK_SHARE * telescope.n_samples * sample_ns - 2 * telescope.pulse_time_ns,
        window=telescope.window_samples,
        before_peak=telescope.window_before_peak,
        window_share=window_share(
            pulses, telescope.window_samples, telescope.window_before_peak, sample_ns, telescope.time_spread_ns
        ),
    )
    rate = conditions.night_sky_factor * telescope.night_sky_pe_per_ns
    return without_noise._replace(
        noise=noise_waveforms(NOISE_ROWS, telescope.n_samples, rate, telescope.electronic_noise_pe, without_noise, seed)
    )


@compiled
def fill_noise(electronics, pixels, waveforms):
    """Noise of all pixels into `waveforms`, shape (n_pixels, n_samples), and the light of stars; in place."""
    n_pixels, n_samples = waveforms.shape
    noise = electronics.noise
    row, stride = np.random.randint(0, len(noise)), np.random.randint(1, len(noise))
    for i in range(n_pixels):
        for s in range(n_samples):
            waveforms[i, s] = noise[row, s]
        row = (row + stride) % len(noise)
    for i in range(n_pixels):
        if pixels.star_pe_per_ns[i] > 0 and pixels.gain[i] > 0:
            add_steady_light(waveforms[i], pixels.star_pe_per_ns[i], electronics)


@compiled
def limit_and_calibrate(electronics, pixels, waveforms):
    """Saturation and gain of all pixels; in place."""
    n_pixels, n_samples = waveforms.shape
    limit = np.float32(electronics.saturation_pe_per_ns)
    for i in range(n_pixels):
        gain = pixels.gain[i]
        for s in range(n_samples):
            value = waveforms[i, s]
            waveforms[i, s] = gain * (value if value < limit else limit)


@compiled
def sum_neighbors(waveforms, neighbors, sums):
    """Sum of the waveforms of a pixel's neighbours, without the pixel itself; into `sums`, in place."""
    n_pixels, n_samples = waveforms.shape
    for i in range(n_pixels):
        sums[i] = 0.0
        # Two at a time: half the loads and stores of `sums`
        for k in range(0, neighbors.shape[1], 2):
            j, other = neighbors[i, k], neighbors[i, k + 1]
            if other >= 0:
                for s in range(n_samples):
                    sums[i, s] += waveforms[j, s] + waveforms[other, s]
            elif j >= 0:
                for s in range(n_samples):
                    sums[i, s] += waveforms[j, s]


@compiled
def trigger_pixels(waveforms, sums, threshold, in_trigger):
    """Number of pixels whose own waveform and that of its neighbours together exceed the threshold at any time."""
    n_pixels, n_samples = waveforms.shape
    limit = np.float32(threshold)
    n = 0
    for i in range(n_pixels):
        # Counting has no branch and no order, unlike a search for the highest, so that it compiles to vector code
        n_above = 0
        for s in range(n_samples):
            n_above += waveforms[i, s] + sums[i, s] > limit
        n += n_above > 0 and in_trigger[i]
    return n


@compiled
def extract(waveforms, sums, electronics, charge, peak_time):
    """Charge [p.e.] and time [ns] of each pixel, in a window around the peak of its neighbours' sum; in place.

    The pixel itself does not affect the window, so that its noise is not searched for an upward fluctuation
    and pixels without light have charge 0 in the mean (ctapipe's NeighborPeakWindowSum). The time is the mean of the
    samples in the window weighted with their positive charge.
    """
    n_pixels, n_samples = waveforms.shape
    first_peak = electronics.before_peak
    last_peak = n_samples - electronics.window + electronics.before_peak
    for i in range(n_pixels):
        peak, highest = first_peak, sums[i, first_peak]
        for s in range(first_peak + 1, last_peak + 1):
            if sums[i, s] > highest:
                peak, highest = s, sums[i, s]
        total, weight, moment = 0.0, 0.0, 0.0
        for s in range(peak - electronics.before_peak, peak - electronics.before_peak + electronics.window):
            value = waveforms[i, s]
            total += value
            positive = max(value, np.float32(0))
            weight += positive
            moment += positive * s
        charge[i] = total * electronics.sample_ns / electronics.window_share
        peak_time[i] = (moment / weight if weight > 0 else float(peak)) * electronics.sample_ns


@compiled
def read_out(pixel, time_ns, electronics, pixels, seed, waveforms, sums, charge, peak_time):
    """Expose the camera to photo-electrons; charge and time are filled if it triggers.

    Parameters
    ----------
    pixel, time_ns : ndarray, shape (n,)
        Pixel (-1: none) and arrival time in the readout window of each photo-electron.
    electronics : Electronics
    pixels : PixelConditions
    seed : int
        Seeds noise and charges of this image.
    waveforms, sums : ndarray, shape (n_pixels, n_samples), float32
        Filled in place [p.e./ns]: the calibrated waveforms of the pixels, and the sum over the neighbours of each.
    charge, peak_time : ndarray, shape (n_pixels,), float32
        Filled in place [p.e.], [ns].

    Returns
    -------
    int
        Number of pixels above the trigger threshold; 0 means no trigger.
    """
    np.random.seed(seed)
    fill_noise(electronics, pixels, waveforms)
    for j in range(len(pixel)):
        if pixel[j] >= 0:
            add_pulse(waveforms[pixel[j]], time_ns[j], electronics)
    limit_and_calibrate(electronics, pixels, waveforms)
    sum_neighbors(waveforms, electronics.neighbors, sums)
    n_trigger = trigger_pixels(waveforms, sums, electronics.trigger_pe_per_ns, pixels.in_trigger)
    if n_trigger > 0:
        extract(waveforms, sums, electronics, charge, peak_time)
    return n_trigger


@compiled
def noise_peaks(electronics, pixels, n_windows, seed):
    """Highest sum of a pixel and its neighbours in each of `n_windows` without a shower [p.e./ns], shape (n_windows,).

    What a threshold lets through of noise is the share of these above it.
    """
    np.random.seed(seed)
    n_pixels, n_samples = len(electronics.neighbors), electronics.noise.shape[1]
    waveforms, sums = np.empty((2, n_pixels, n_samples), np.float32)
    highest, peaks = np.empty(n_samples, np.float32), np.empty(n_windows, np.float32)
    for window in range(n_windows):
        fill_noise(electronics, pixels, waveforms)
        limit_and_calibrate(electronics, pixels, waveforms)
        sum_neighbors(waveforms, electronics.neighbors, sums)
        highest[:] = -np.inf
        for i in range(n_pixels):
            # Sample by sample, which needs no order among them: see `trigger_pixels`
            if pixels.in_trigger[i]:
                for s in range(n_samples):
                    value = waveforms[i, s] + sums[i, s]
                    highest[s] = value if value > highest[s] else highest[s]
        peaks[window] = highest.max()
    return peaks


def noise_trigger_probability(
    telescope: Telescope, n_windows: int, seed: int, conditions: CameraConditions | None = None
) -> tuple[float, float]:
    """How often a telescope triggers on noise alone.

    Parameters
    ----------
    telescope : Telescope
    n_windows : int
        Readout windows to simulate (LST: 4000 per second).
    seed : int
    conditions : CameraConditions, optional

    Returns
    -------
    probability : float
        Share of the windows with a trigger. If n windows have none, it is below 3 / n at 95 % confidence.
    rate_hz : float
        Rate of Poisson-distributed triggers which that probability means.

    Raises
    ------
    UserError
        If `n_windows` is below 1.
    """
    if n_windows < 1:
        raise UserError(f"the rate of noise triggers needs at least 1 window, got n_windows={n_windows}")
    conditions = conditions or CameraConditions()
    bank, state, windows = (int(word) for word in np.random.SeedSequence(seed).generate_state(3))
    electronics = make_electronics(telescope, bank, conditions)
    pixels = make_conditions(telescope, conditions, state)
    probability = float(np.mean(noise_peaks(electronics, pixels, n_windows, windows) > telescope.trigger_pe_per_ns))
    rate_per_ns = (
        -math.log1p(-probability) / (telescope.n_samples * telescope.sample_ns) if probability < 1 else math.inf
    )
    return probability, 1e9 * rate_per_ns
