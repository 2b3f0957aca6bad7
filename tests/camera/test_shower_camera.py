"""The simulated optics: where in the camera light lands."""

import math

import numpy as np
import pytest

from pipeline.camera.pixel_map import pixel_map
from pipeline.camera.showers.cherenkov import RAY
from pipeline.camera.showers.optics import horizontal_basis, make_optics, trace
from pipeline.camera.telescopes import get_telescope

ALT, AZ = math.radians(70), math.radians(180)


@pytest.fixture(scope="module")
def telescope():
    return get_telescope("LST")


@pytest.fixture(scope="module")
def optics(telescope):
    return make_optics(telescope, ALT, AZ)


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
