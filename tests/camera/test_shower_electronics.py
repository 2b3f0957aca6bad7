"""The simulated readout: pulses, noise, trigger, charge, and what is not perfect about pixels."""

import dataclasses
import math

import numpy as np
import pytest

from pipeline.camera.showers.cherenkov import RAY
from pipeline.camera.showers.conditions import (
    make_conditions,
    star_pe_per_ns,
    star_shares,
    starlight_pe_per_ns,
)
from pipeline.camera.showers.electronics import (
    N_CHARGES,
    NOISE_ROWS,
    make_electronics,
    noise_peaks,
    noise_trigger_probability,
    read_out,
    sampled_pulses,
    single_charges,
    window_share,
)
from pipeline.camera.showers.optics import horizontal_basis, make_optics, trace
from pipeline.camera.telescopes import get_telescope, list_telescopes
from pipeline.config import CameraConditions, Star
from pipeline.errors import UserError

PERFECT = CameraConditions()
ARRIVAL_NS = 14.0


@pytest.fixture(scope="module")
def telescope():
    return get_telescope("LST")


@pytest.fixture(scope="module")
def electronics(telescope):
    return make_electronics(telescope, seed=5)


@pytest.fixture(scope="module")
def perfect(telescope):
    return make_conditions(telescope, PERFECT, seed=0)


@pytest.fixture
def exposure(telescope, electronics, perfect):
    """A function that exposes the camera and returns (number of trigger pixels, charge, peak time, waveforms)."""
    n_pixels = telescope.camera.n_pixels

    def expose(pixel, time, seed, pixels=perfect, electronics=electronics, **changes):
        waveforms, sums = np.zeros((2, n_pixels, telescope.n_samples), np.float32)
        charge, peak_time = np.zeros((2, n_pixels), np.float32)
        used = electronics._replace(**changes)
        pixel, time = np.asarray(pixel, np.int64), np.asarray(time, float)
        n = read_out(pixel, time, used, pixels, seed, waveforms, sums, charge, peak_time)
        return n, charge, peak_time, waveforms

    return expose


@pytest.fixture
def noise_images(exposure):
    """A function that returns charges of images without light, shape (n, n_pixels)."""

    def images(n, **changes):
        return np.array([exposure([], [], seed, trigger_pe_per_ns=-1e6, **changes)[1] for seed in range(n)], float)

    return images


def shot_noise(telescope, rate, pulses):
    """Variance of a waveform by Campbell's theorem: rate <q^2> integral f^2 dt."""
    integral = (pulses.astype(float) ** 2).sum() * telescope.sample_ns / len(pulses)
    return rate * (1 + telescope.gain_spread**2) * integral


# ---- pulses ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("pulse_time_ns", "sample_ns"), [(0.9, 1.0), (0.7, 0.61), (1.2, 2.0), (6.0, 4.0)])
def test_pulse_has_unit_area_and_known_width(pulse_time_ns, sample_ns):
    pulses = sampled_pulses(pulse_time_ns, sample_ns)
    n_phases = len(pulses)
    assert pulses.sum() * sample_ns / n_phases == pytest.approx(1, rel=1e-6)
    # Interleaved, the phases are the pulse in small steps: t^2 exp(-t) is above half its height for 3.39 tau
    pulse, step = pulses.T.ravel(), sample_ns / n_phases
    assert np.count_nonzero(pulse > pulse.max() / 2) * step == pytest.approx(3.39 * pulse_time_ns, abs=2 * step)
    assert (np.argmax(pulse) + 0.5) * step == pytest.approx(2 * pulse_time_ns, abs=step)


def test_window_share():
    pulses = sampled_pulses(0.9, 1.0)
    assert window_share(pulses, 7, 3, 1.0) == pytest.approx(0.93, abs=0.02)
    assert window_share(pulses, 16, 3, 1.0) == pytest.approx(1.0, abs=0.01)
    # Spread over time, less of it: a flash of 1.5 ns rms against a window of 3 ns before and 4 ns after the peak
    assert window_share(pulses, 7, 3, 1.0, 1e-3) == pytest.approx(window_share(pulses, 7, 3, 1.0), abs=1e-4)
    assert 0.8 < window_share(pulses, 7, 3, 1.0, 1.5) < window_share(pulses, 7, 3, 1.0, 0.7) < 0.936


def test_single_charges_have_the_gain_spread():
    charges = single_charges(0.45).astype(float)
    assert charges.shape == (N_CHARGES,)
    assert charges.mean() == pytest.approx(1, rel=1e-6)
    assert charges.std() == pytest.approx(0.45, rel=1e-3)
    # Skewness of a gamma distribution: twice its relative spread
    assert np.mean((charges - 1) ** 3) / charges.std() ** 3 == pytest.approx(0.9, rel=0.01)


@pytest.mark.parametrize("time_ns", [10.0, 10.0 - 1e-12, 10.0 + 1e-12, 9.5])
def test_a_photo_electron_begins_at_its_time(exposure, electronics, time_ns):
    dark = electronics._replace(noise=np.zeros_like(electronics.noise), charges=np.ones(1, np.float32))
    waveform = exposure([7], [time_ns], 1, electronics=dark)[3][7]
    late = np.arange(len(waveform)) - time_ns
    tau = 0.9
    expected = np.where(late > 0, (late / tau) ** 2 * np.exp(-late / tau) / (2 * tau), 0.0)
    # Half a phase of an eighth of a ns, where the pulse is steepest
    np.testing.assert_allclose(waveform, expected, atol=0.018)


def test_light_outside_the_window_is_ignored(exposure):
    time = np.concatenate([np.full(500, -60.0), np.full(500, 80.0)])
    _, charge, _, _ = exposure(np.zeros(1000), time, 1, trigger_pe_per_ns=-1.0)
    assert abs(charge[0]) < 8


# ---- noise -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("factor", [0.0, 1.0, 4.0])
def test_noise_bank_has_zero_mean_and_its_variance(telescope, factor):
    electronics = make_electronics(telescope, 5, CameraConditions(night_sky_factor=factor))
    np.testing.assert_allclose(electronics.noise.mean(axis=0, dtype=float), 0, atol=1e-6)
    shot = shot_noise(telescope, factor * telescope.night_sky_pe_per_ns, electronics.pulses)
    assert electronics.noise.var() == pytest.approx(shot + telescope.electronic_noise_pe**2, rel=0.01)
    # Night sky of one photo-electron at a time is skewed, electronic noise is not
    assert (np.mean(electronics.noise.astype(float) ** 3) > 1e-3) == (factor > 0)


def test_night_sky_alone_has_no_charge_and_no_trigger(telescope, exposure, noise_images):
    for seed in range(10):
        n, charge, _, _ = exposure([], [], seed)
        assert n == 0
        assert not charge.any()
    images = noise_images(100)
    assert images.mean() == pytest.approx(0, abs=5 * 1.4 / math.sqrt(images.size))
    # sim_telarray's LST: 1.2 to 1.35 p.e.
    assert 1.2 < images.std() < 1.4


def test_pixels_of_an_image_are_independent(telescope, exposure):
    """Images draw from one bank: sums over pixels must spread as if each pixel had noise of its own."""
    n, n_pixels = 600, telescope.camera.n_pixels
    window = slice(10, 17)  # a fixed one: where `extract` puts it depends on the neighbours
    noise = np.array([exposure([], [], seed)[3][:, window].sum(axis=1) for seed in range(n)], float)
    noise /= noise.std()
    # No row is in an image twice, hence the finite population; a variance of n is known to sqrt(2 / n)
    assert noise.sum(axis=1).var() / n_pixels == pytest.approx(
        1 - (n_pixels - 1) / (NOISE_ROWS - 1), abs=4 * math.sqrt(2 / n)
    )
    pixel, place = np.nonzero(telescope.camera.neighbors >= 0)
    adjacent = telescope.camera.neighbors[pixel, place]
    # Each pair comes twice
    assert np.mean(noise[:, pixel] * noise[:, adjacent]) == pytest.approx(0, abs=4 / math.sqrt(n * len(pixel) / 2))
    for apart in (1, 2, 3, 1000):
        pairs = noise[:, apart:] * noise[:, :-apart]
        assert pairs.mean() == pytest.approx(0, abs=4 / math.sqrt(pairs.size))
    following = noise[1:] * noise[:-1]
    assert following.mean() == pytest.approx(0, abs=4 / math.sqrt(following.size))


def test_noise_rarely_triggers_and_does_when_the_threshold_is_low(telescope):
    probability, _ = noise_trigger_probability(telescope, 2000, seed=1)
    assert probability < 5e-3
    low = dataclasses.replace(telescope, trigger_pe_per_ns=0.5 * telescope.trigger_pe_per_ns)
    bright = CameraConditions(night_sky_factor=3)
    (some, some_hz), (more, _) = (noise_trigger_probability(low, 200, 1, sky) for sky in (PERFECT, bright))
    assert probability < some < more <= 1
    assert some_hz == pytest.approx(-math.log(1 - some) / (40 * 1e-9)) if some < 1 else math.isinf(some_hz)


def test_noise_peaks_are_what_the_trigger_sees(telescope, electronics, perfect, exposure):
    peaks = noise_peaks(electronics, perfect, 1, 17)
    assert exposure([], [], 17, trigger_pe_per_ns=peaks[0] * 1.0001)[0] == 0
    assert exposure([], [], 17, trigger_pe_per_ns=peaks[0] * 0.9999)[0] == 1


def test_noise_trigger_needs_windows(telescope):
    with pytest.raises(UserError, match="at least 1 window, got n_windows=0"):
        noise_trigger_probability(telescope, 0, seed=1)


# ---- charge and time -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("n_pe", [20, 100, 1000])
def test_charge_is_unbiased(telescope, exposure, n_pe):
    rng = np.random.default_rng(n_pe)
    lit = np.concatenate([[0], telescope.camera.neighbors[0]])
    means = []
    for seed in range(40):
        pixel = np.repeat(lit, n_pe)
        time = ARRIVAL_NS + rng.random() + 0.7 * rng.standard_normal(len(pixel))
        n, charge, peak_time, _ = exposure(pixel, time, seed)
        assert n > 0
        means.append(float(charge[lit].mean()) / n_pe)
        # pulses peak 2 tau after the photo-electron
        assert peak_time[0] == pytest.approx(ARRIVAL_NS + 0.5 + 2.2 * telescope.pulse_time_ns, abs=1.5)
    error = np.std(means) / math.sqrt(len(means))
    assert np.mean(means) == pytest.approx(1.0, abs=0.01 + 3 * error)


@pytest.mark.parametrize("name", list_telescopes())
def test_every_telescope_measures_a_flash(name):
    telescope = get_telescope(name)
    electronics = make_electronics(telescope, seed=1)
    pixels = make_conditions(telescope, PERFECT, seed=1)
    n_pixels, n_pe, n_phases = telescope.camera.n_pixels, 100, 8
    waveforms, sums = np.zeros((2, n_pixels, telescope.n_samples), np.float32)
    images = np.zeros((n_phases, 2, n_pixels), np.float32)
    rng = np.random.default_rng(1)
    pixel = np.repeat(np.arange(n_pixels), n_pe)
    for phase, (charge, peak_time) in enumerate(images):
        time = telescope.time_spread_ns * rng.standard_normal(len(pixel))
        time += electronics.arrival_ns + (phase + 0.5) / n_phases * telescope.sample_ns
        assert read_out(pixel, time, electronics, pixels, phase, waveforms, sums, charge, peak_time) == n_pixels
    charge, peak_time = images.mean(axis=(0, 2))
    assert charge / n_pe == pytest.approx(1, abs=0.01)
    # In the part of the window that `arrival_ns` promises, with room for the light that comes late
    assert 0.38 < peak_time / (telescope.n_samples * telescope.sample_ns) < 0.52


def test_charge_has_the_spread_of_gain_and_noise(telescope, exposure):
    lit = np.concatenate([[0], telescope.camera.neighbors[0]])
    pixel, time = np.repeat(lit, 400), np.full(400 * len(lit), 15.0)
    charges = np.concatenate([exposure(pixel, time, seed)[1][lit] for seed in range(60)])
    # 400 photo-electrons of independent gain, and night sky and electronics of 1.4 p.e.
    expected = math.hypot(math.sqrt(400) * telescope.gain_spread, 1.4)
    assert charges.std() == pytest.approx(expected, rel=0.15)


def test_same_seed_same_image(telescope, exposure):
    imperfect = CameraConditions(flat_field_rms=0.1, dead_pixel_fraction=0.1, stars=[Star(**ON_AXIS, magnitude=6.0)])
    pixels = make_conditions(telescope, imperfect, 1)
    pixel, time = np.arange(50), np.full(50, 15.0)
    first, again, other = (exposure(pixel, time, seed, pixels, trigger_pe_per_ns=-1.0)[1] for seed in (3, 3, 4))
    assert first.tobytes() == again.tobytes()
    assert not np.array_equal(first, other)


# ---- dead pixels and gains -------------------------------------------------------------------------------------------
def flat_light(telescope, n_pe):
    """Every pixel lit with n photo-electrons at the same time."""
    pixel = np.repeat(np.arange(telescope.camera.n_pixels), n_pe)
    return pixel, np.full(len(pixel), 15.0)


def test_perfect_pixels(perfect):
    assert np.all(perfect.gain == 1)
    assert np.all(perfect.star_pe_per_ns == 0)
    assert np.all(perfect.in_trigger)


def test_dead_pixels_give_nothing(telescope, exposure):
    pixels = make_conditions(telescope, CameraConditions(dead_pixel_fraction=0.02), 3)
    dead = pixels.gain == 0
    assert dead.sum() == round(0.02 * telescope.camera.n_pixels) == 37
    n, charge, peak_time, waveforms = exposure(*flat_light(telescope, 200), 1, pixels)
    assert n > 0
    assert not waveforms[dead].any()
    assert not charge[dead].any()
    assert charge[~dead].min() > 100
    # No charge has no time either: where the neighbours have their peak
    np.testing.assert_allclose(peak_time[dead], 17, atol=1)
    assert n == np.count_nonzero(~dead)
    # Light in dead pixels alone triggers nothing
    lit = np.repeat(np.flatnonzero(dead), 1000)
    assert exposure(lit, np.full(len(lit), 15.0), 1, pixels)[0] == 0


def test_flat_field_spread_is_recovered_from_flat_light(telescope, exposure):
    pixels = make_conditions(telescope, CameraConditions(flat_field_rms=0.08), 4)
    assert pixels.gain.mean(dtype=float) == pytest.approx(1, abs=1e-6)
    n_pe, n_images = 400, 20
    light = flat_light(telescope, n_pe)
    mean = np.mean([exposure(*light, seed, pixels)[1] for seed in range(n_images)], axis=0)
    relative = mean / mean.mean()
    # Photo-electrons and their charges, averaged over images; the spread of n_pixels values is known to 1.6 %
    statistics = telescope.gain_spread / math.sqrt(n_pe * n_images)
    assert relative.std() == pytest.approx(math.hypot(0.08, statistics), rel=0.06)
    np.testing.assert_allclose(relative, pixels.gain, atol=6 * statistics)


def test_gain_scales_noise_with_signal(telescope, perfect, noise_images):
    half = perfect._replace(gain=np.full_like(perfect.gain, 0.5))
    np.testing.assert_allclose(noise_images(3, pixels=half), 0.5 * noise_images(3), atol=1e-5)


def test_conditions_come_from_their_seed(telescope):
    imperfect = CameraConditions(dead_pixel_fraction=0.1, flat_field_rms=0.1)
    first, again, other = (make_conditions(telescope, imperfect, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.gain, again.gain)
    assert not np.array_equal(first.gain, other.gain)
    # More dead pixels: the same gains in those that live, and the same dead ones among the more
    more = make_conditions(telescope, imperfect.model_copy(update={"dead_pixel_fraction": 0.2}), 1)
    both = more.gain > 0
    np.testing.assert_array_equal(more.gain[both], first.gain[both])
    assert np.all(more.gain[first.gain == 0] == 0)


def test_a_camera_of_dead_pixels_is_refused(telescope):
    with pytest.raises(UserError, match=r"dead_pixel_fraction 0.9999 leaves no pixel of LST alive"):
        make_conditions(telescope, CameraConditions(dead_pixel_fraction=0.9999), 1)


# ---- saturation ------------------------------------------------------------------------------------------------------
def test_charge_saturates(telescope, exposure):
    limited = make_electronics(dataclasses.replace(telescope, saturation_pe=500.0), 5)
    unlimited = make_electronics(
        dataclasses.replace(telescope, saturation_pe=500.0), 5, CameraConditions(saturation=False)
    )
    lit = np.concatenate([[0], telescope.camera.neighbors[0]])

    def charges(n_pe, electronics):
        pixel = np.repeat(lit, n_pe)
        _, charge, _, waveforms = exposure(pixel, np.full(len(pixel), 15.3), 1, electronics=electronics)
        return charge[lit].mean(), waveforms.max()

    # Linear below; at the limit the highest sample stays, and the charge grows by the flanks of the pulse only
    below, _ = charges(350, limited)
    assert below == pytest.approx(charges(350, unlimited)[0], rel=1e-4)
    level = 500 * limited.pulses.max()
    assert level == pytest.approx(500 * 4 * math.exp(-2) / (2 * telescope.pulse_time_ns), rel=0.01)
    ten_times, highest = charges(5000, limited)
    assert highest == pytest.approx(level, rel=1e-6)
    assert 500 < ten_times < level * telescope.window_samples * telescope.sample_ns / limited.window_share
    assert charges(5000, unlimited)[0] == pytest.approx(5000, rel=0.05)


def test_saturation_follows_the_gain(telescope, perfect, exposure):
    limited = make_electronics(dataclasses.replace(telescope, saturation_pe=500.0), 5)
    half = perfect._replace(gain=np.full_like(perfect.gain, 0.5))
    *_, waveforms = exposure(np.zeros(5000), np.full(5000, 15.0), 1, half, electronics=limited)
    assert waveforms.max() == pytest.approx(0.5 * limited.saturation_pe_per_ns, rel=1e-6)


# ---- stars -----------------------------------------------------------------------------------------------------------
ON_AXIS = {"fov_lon_deg": 0.0, "fov_lat_deg": 0.0}


def magnitude_of(telescope, rate):
    """Magnitude of the star that gives the camera this rate [p.e./ns]."""
    return 2.5 * math.log10(starlight_pe_per_ns(telescope, 0.0) / rate)


def test_starlight_of_a_perfect_telescope(telescope):
    """Magnitude 0 gives 1000 photons per s, cm^2 and angstrom at 550 nm, as optical astronomers know by heart."""
    band = np.array([545.0, 555.0])
    perfect = dataclasses.replace(
        telescope, wavelength_nm=band, efficiency=np.ones(2), throughput=1.0, mirror_area_m2=1.0
    )
    per_cm2_angstrom = starlight_pe_per_ns(perfect, 0.0) * 1e9 / 1e4 / 100
    assert per_cm2_angstrom == pytest.approx(1000, rel=0.02)
    assert starlight_pe_per_ns(perfect, 5.0) == pytest.approx(0.01 * starlight_pe_per_ns(perfect, 0.0))


def test_starlight_fits_the_night_sky(telescope):
    """A pixel of dark sky, 22.7 mag/arcsec^2 in B, must give what a star of that magnitude gives but for its colour."""
    # A hexagon of 49 mm at 29.31 m: 345 arcsec across, 1.03e5 arcsec^2
    area_arcsec2 = math.sqrt(3) / 2 * (206265 * 0.049 / 29.30565) ** 2
    star = starlight_pe_per_ns(telescope, 22.7 - 2.5 * math.log10(area_arcsec2))
    # The sky is 0.8 mag brighter in V, 1.7 in R: 1.6 times the photo-electrons
    assert telescope.night_sky_pe_per_ns / star == pytest.approx(1.6, abs=0.15)


def test_starlight_falls_on_its_pixels(telescope):
    dark = telescope.night_sky_pe_per_ns
    star = Star(**ON_AXIS, magnitude=magnitude_of(telescope, dark))
    rate = star_pe_per_ns(telescope, (star,))
    # 10 mm of point spread against pixels of 25 mm: most of the light is in one, and what is below 1 % is left out
    assert rate[0] == pytest.approx(star_shares(telescope, star)[0] * dark)
    assert 0.95 < rate.sum() / dark <= 1
    assert np.all((rate == 0) | (rate > 0.01 * dark))
    assert star_pe_per_ns(telescope, (star, star))[0] == pytest.approx(2 * rate[0])


@pytest.mark.parametrize("cam_rotation_deg", [0.0, 37.0])
@pytest.mark.parametrize(("lon_deg", "lat_deg"), [(0.0, 0.0), (1.5, 0.0), (0.0, 1.5), (-0.83, 1.21)])
def test_star_lights_the_pixels_that_its_rays_reach(telescope, cam_rotation_deg, lon_deg, lat_deg):
    camera = dataclasses.replace(telescope.camera, cam_rotation_deg=cam_rotation_deg)
    turned = dataclasses.replace(telescope, camera=camera)
    alt, az = math.radians(70), math.radians(180)
    axis, up, east = (np.array(v) for v in horizontal_basis(alt, az))
    lon, lat = math.radians(lon_deg), math.radians(lat_deg)
    source = math.cos(lat) * (math.cos(lon) * axis + math.sin(lon) * east) + math.sin(lat) * up
    rays = np.zeros(20_000, RAY)
    rays["kx"], rays["ky"], rays["kz"] = (-c for c in source)
    pixel, _ = trace(rays, make_optics(turned, alt, az), 1)
    traced = np.bincount(pixel, minlength=camera.n_pixels) / len(rays)
    shares = star_shares(turned, Star(fov_lon_deg=lon_deg, fov_lat_deg=lat_deg, magnitude=5))
    assert shares.sum() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(shares, traced, atol=5 * 0.5 / math.sqrt(len(rays)))
    # In the telescope frame of the image parameters it is where it should be, but for the two focal lengths: the
    # effective one places light, the equivalent one turns metres into degrees.
    scale = camera.effective_focal_length_m / camera.focal_length_m
    where = shares @ camera.pix_x_deg, shares @ camera.pix_y_deg
    np.testing.assert_allclose(where, [scale * lon_deg, scale * lat_deg], atol=0.02)


@pytest.mark.parametrize(("lon_deg", "lat_deg"), [(5.0, 0.0), (0.0, -60.0), (180.0, 0.0), (0.0, 120.0)])
def test_stars_outside_the_field_of_view_give_nothing(telescope, lon_deg, lat_deg):
    assert not star_pe_per_ns(telescope, (Star(fov_lon_deg=lon_deg, fov_lat_deg=lat_deg, magnitude=0.0),)).any()


def test_star_raises_noise_and_not_charge(telescope, electronics, noise_images):
    magnitude = magnitude_of(telescope, 40 * telescope.night_sky_pe_per_ns)
    pixels = make_conditions(telescope, CameraConditions(stars=[Star(**ON_AXIS, magnitude=magnitude)]), 1)
    rate = pixels.star_pe_per_ns[0]
    n = 800
    images = noise_images(n, pixels=pixels)
    lit, others = images[:, 0], images[:, 100:]
    # Shot noise grows as the rate, electronic noise stays: 14 % of a sample's variance, less of a charge's, as pulses
    # correlate the samples of a window and electronic noise does not
    dark = telescope.night_sky_pe_per_ns
    white = (
        telescope.electronic_noise_pe**2
        * telescope.window_samples
        * (telescope.sample_ns / electronics.window_share) ** 2
    )
    expected = math.sqrt((others.var() - white) * (1 + rate / dark) + white)
    assert expected > 5
    assert lit.std() == pytest.approx(expected, rel=4 / math.sqrt(2 * n))
    assert lit.mean() == pytest.approx(0, abs=4 * expected / math.sqrt(n))
    assert others.std() == pytest.approx(noise_images(20).std(), rel=0.02)


def test_bright_star_is_taken_out_of_the_trigger(telescope, electronics):
    around = np.append(telescope.camera.neighbors[0], 0)
    for magnitude, expected in ((7.0, []), (4.0, sorted(around))):
        pixels = make_conditions(telescope, CameraConditions(stars=[Star(**ON_AXIS, magnitude=magnitude)]), 1)
        assert np.flatnonzero(~pixels.in_trigger).tolist() == expected
        assert np.all(noise_peaks(electronics, pixels, 200, 1) < telescope.trigger_pe_per_ns)
    left_in = pixels._replace(in_trigger=np.ones_like(pixels.in_trigger))
    assert np.mean(noise_peaks(electronics, left_in, 200, 1) > telescope.trigger_pe_per_ns) > 0.1


def test_star_in_a_dead_pixel_is_dark(telescope, perfect, exposure):
    star = star_pe_per_ns(telescope, (Star(**ON_AXIS, magnitude=5.0),))
    gain = perfect.gain.copy()
    gain[0] = 0
    *_, waveforms = exposure([], [], 1, perfect._replace(gain=gain, star_pe_per_ns=star))
    assert not waveforms[0].any()
    assert waveforms[1].any()


def test_too_bright_a_star_is_refused(telescope):
    with pytest.raises(UserError, match=r"a star of magnitude -4.5 gives \d+ photo-electrons per ns in a pixel of LST"):
        make_conditions(telescope, CameraConditions(stars=[Star(**ON_AXIS, magnitude=-4.5)]), 1)
