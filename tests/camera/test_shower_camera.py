"""The simulated camera: where light lands, noise, trigger and charge."""

import math

import numpy as np
import pytest

from pipeline.camera.showers.cherenkov import RAY
from pipeline.camera.showers.electronics import (
    PULSE_STEPS_PER_NS,
    make_electronics,
    pulse_shape,
    read_out,
    window_share,
)
from pipeline.camera.showers.optics import horizontal_basis, make_optics, pixel_map, trace
from pipeline.camera.telescopes import get_telescope

ALT, AZ = math.radians(70), math.radians(180)


@pytest.fixture(scope="module")
def telescope():
    return get_telescope("LST")


@pytest.fixture(scope="module")
def optics(telescope):
    return make_optics(telescope, ALT, AZ)


@pytest.fixture(scope="module")
def electronics(telescope):
    return make_electronics(telescope, seed=5)


@pytest.fixture
def exposure(telescope, electronics):
    """A function that exposes the camera and returns (number of trigger pixels, charge, peak time)."""
    n_pixels = telescope.camera.n_pixels
    waveforms, sums = np.zeros((2, n_pixels, telescope.n_samples), np.float32)

    def expose(pixel, time, seed, threshold=None):
        used = electronics if threshold is None else electronics._replace(trigger_pe_per_ns=threshold)
        charge, peak_time = np.zeros((2, n_pixels), np.float32)
        n = read_out(
            np.asarray(pixel, np.int64), np.asarray(time, float), used, seed, waveforms, sums, charge, peak_time
        )
        return n, charge, peak_time

    return expose


# ---- optics ----------------------------------------------------------------------------------------------------------
def rays_from(alt, az, n=400):
    source, _, _ = horizontal_basis(alt, az)
    rays = np.zeros(n, RAY)
    rays["kx"], rays["ky"], rays["kz"] = (-c for c in source)
    rays["t"] = 5.0
    return rays


def image_centre(telescope, optics, alt, az):
    pixel, _ = trace(rays_from(alt, az), optics, 1)
    assert np.all(pixel >= 0)
    camera = telescope.camera
    return camera.pix_x_m[pixel].mean(), camera.pix_y_m[pixel].mean()


def test_horizontal_basis_is_a_right_frame():
    axis, up, east = (np.array(v) for v in horizontal_basis(0.4, 1.1))
    np.testing.assert_allclose([axis @ up, axis @ east, up @ east], 0, atol=1e-15)
    higher, _, _ = horizontal_basis(0.4 + 1e-6, 1.1)
    np.testing.assert_allclose((np.array(higher) - axis) / 1e-6, up, atol=1e-5)
    farther, _, _ = horizontal_basis(0.4, 1.1 + 1e-6)
    np.testing.assert_allclose((np.array(farther) - axis) / 1e-6 / math.cos(0.4), east, atol=1e-5)
    # from the north: x; from the east: -y, as y points west
    assert horizontal_basis(0.0, math.pi / 2)[0][1] == pytest.approx(-1)


def test_a_source_on_the_axis_is_in_the_centre(telescope, optics):
    x, y = image_centre(telescope, optics, ALT, AZ)
    assert math.hypot(x, y) < 0.01


def test_altitude_is_x_and_azimuth_is_y(telescope, optics):
    step = math.radians(1)
    expected = 29.30565 * math.tan(step)
    x, y = image_centre(telescope, optics, ALT + step, AZ)
    assert (x, y) == (pytest.approx(expected, abs=0.01), pytest.approx(0, abs=0.01))
    x, y = image_centre(telescope, optics, ALT, AZ + step / math.cos(ALT))
    # a great circle, not a parallel: x moves by a few mm
    assert (x, y) == (pytest.approx(0, abs=0.02), pytest.approx(expected, abs=0.01))


def test_light_outside_the_camera_is_lost(optics):
    pixel, _ = trace(rays_from(ALT - math.radians(4), AZ), optics, 1)
    assert np.all(pixel == -1)


def test_point_spread_and_transit_time(telescope, optics):
    pixel, time = trace(rays_from(ALT, AZ, 5000), optics, 3)
    assert time.mean() == pytest.approx(5.0, abs=0.05)
    assert time.std() == pytest.approx(telescope.time_spread_ns, rel=0.05)
    # 10 mm per axis against pixels of 25 mm in-circle radius
    assert np.mean(pixel == 0) == pytest.approx(1 - math.exp(-0.5 * 2.55**2), abs=0.03)


def test_pixel_map_finds_every_pixel(telescope):
    table, edge, cell = pixel_map(telescope.camera)
    found, count = np.unique(table[table >= 0], return_counts=True)
    assert len(found) == telescope.camera.n_pixels
    area = count * cell**2
    # inner pixels: a full hexagon of the pitch
    np.testing.assert_allclose(area[:100], math.sqrt(3) / 2 * 0.05**2, rtol=0.1)
    i, j = ((np.array([telescope.camera.pix_x_m, telescope.camera.pix_y_m]) + edge) // cell).astype(int)
    np.testing.assert_array_equal(table[i, j], np.arange(telescope.camera.n_pixels))


# ---- electronics -----------------------------------------------------------------------------------------------------
def test_pulse_has_unit_area_and_known_width():
    pulse = pulse_shape(0.9)
    assert pulse.sum() / PULSE_STEPS_PER_NS == pytest.approx(1)
    above = np.count_nonzero(pulse > pulse.max() / 2) / PULSE_STEPS_PER_NS
    assert above == pytest.approx(3.39 * 0.9, abs=0.2)
    assert window_share(pulse, 7, 3, 1.0) == pytest.approx(0.93, abs=0.02)
    assert window_share(pulse, 16, 3, 1.0) == pytest.approx(1.0, abs=0.01)


def test_noise_bank_has_zero_mean_and_its_variance(telescope, electronics):
    noise = electronics.noise
    assert noise.mean() == pytest.approx(0, abs=2e-3)
    # Campbell's theorem: rate <q^2> integral f^2 dt, plus electronics
    shot = telescope.night_sky_pe_per_ns * (1 + telescope.gain_spread**2)
    shot *= np.sum(electronics.pulse**2) / PULSE_STEPS_PER_NS
    assert noise.var() == pytest.approx(shot + telescope.electronic_noise_pe**2, rel=0.02)


def test_night_sky_alone_has_no_charge_and_no_trigger(telescope, exposure):
    images = []
    for seed in range(100):
        n, charge, _ = exposure([], [], seed)
        assert n == 0
        assert not charge.any()
        n, charge, _ = exposure([], [], seed, threshold=-1.0)
        assert n == telescope.camera.n_pixels
        images.append(charge)
    assert np.mean(images) == pytest.approx(0, abs=0.02)
    # sim_telarray's LST: 1.2 to 1.35 p.e.
    assert 1.2 < np.std(images) < 1.45


def test_night_sky_trigger_rate_is_negligible(telescope, exposure):
    """The threshold lies above anything in 200 windows of 40 ns, with the sharp fall of the tail to spare."""
    threshold = telescope.trigger_pe_per_ns
    assert not any(exposure([], [], seed, threshold=0.75 * threshold)[0] for seed in range(200))


@pytest.mark.parametrize("n_pe", [20, 100, 1000])
def test_charge_is_unbiased(telescope, exposure, n_pe):
    rng = np.random.default_rng(n_pe)
    lit = np.concatenate([[0], telescope.camera.neighbors[0]])
    means = []
    for seed in range(40):
        pixel = np.repeat(lit, n_pe)
        time = 14 + rng.random() + 0.7 * rng.standard_normal(len(pixel))
        n, charge, peak_time = exposure(pixel, time, seed)
        assert n > 0
        means.append(float(charge[lit].mean()) / n_pe)
        # pulses peak 2 tau after the photo-electron
        assert peak_time[0] == pytest.approx(14.5 + 2.2 * telescope.pulse_time_ns, abs=1.5)
    error = np.std(means) / math.sqrt(len(means))
    assert np.mean(means) == pytest.approx(1.0, abs=0.01 + 3 * error)


def test_charge_has_the_spread_of_gain_and_noise(telescope, exposure):
    lit = np.concatenate([[0], telescope.camera.neighbors[0]])
    pixel, time = np.repeat(lit, 400), np.full(400 * len(lit), 15.0)
    charges = np.concatenate([exposure(pixel, time, seed)[1][lit] for seed in range(60)])
    # 400 photo-electrons of independent gain, and night sky and electronics of 1.4 p.e.
    expected = math.hypot(math.sqrt(400) * telescope.gain_spread, 1.4)
    assert charges.std() == pytest.approx(expected, rel=0.15)


def test_same_seed_same_image(exposure):
    pixel, time = np.arange(50), np.full(50, 15.0)
    first, again, other = (exposure(pixel, time, seed, threshold=-1.0)[1] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_late_and_early_light_is_ignored(exposure):
    time = np.concatenate([np.full(500, -60.0), np.full(500, 80.0)])
    _, charge, _ = exposure(np.zeros(1000), time, 1, threshold=-1.0)
    assert abs(charge[0]) < 8
