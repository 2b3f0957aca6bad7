"""Telescope types: geometry against known positions of the real camera, and the registry."""

import math

import numpy as np
import pytest

from pipeline.camera.telescopes import (
    get_telescope,
    list_telescopes,
    register_telescope,
    seven_pixel_modules,
)
from pipeline.errors import UserError


@pytest.fixture(scope="module")
def lst():
    return get_telescope("LST")


def test_lst_has_the_positions_of_the_real_camera(lst):
    camera = lst.camera
    assert camera.n_pixels == 1855
    # First, second, third and last pixel of the CTAO prod6 files (LSTN-design), turned to camera rotation 0
    expected = [(0.0, 0.0), (-0.0377967, -0.03273243), (-0.04724547, 0.01636666)]
    got = np.column_stack([camera.pix_x_m, camera.pix_y_m])
    np.testing.assert_allclose(got[:3], expected, atol=1e-5)
    assert camera.pitch_m == pytest.approx(0.05, rel=1e-6)
    assert camera.pix_area_m2[0] == pytest.approx(0.00207933, rel=1e-5)
    assert camera.pix_rotation_deg == pytest.approx(40.893, abs=1e-3)


def test_lst_pixels_have_six_neighbors_but_at_the_border(lst):
    count = (lst.camera.neighbors >= 0).sum(axis=1)
    assert count.max() == 6
    # 265 modules: the border of a hexagon of nine rings of modules
    assert 120 < (count < 6).sum() < 180


def test_modules_do_not_overlap():
    x, y = seven_pixel_modules(2, 1.0)
    assert len(x) == 7 * (19 - 6)
    distance = np.hypot(x[:, None] - x, y[:, None] - y) + 10 * np.eye(len(x))
    assert distance.min() == pytest.approx(1.0)


def test_sphere_has_the_area_of_the_mirror(lst):
    assert math.pi * lst.sphere_radius_m**2 == pytest.approx(lst.mirror_area_m2)
    assert math.degrees(lst.field_of_view_rad) == pytest.approx(2.4, abs=0.05)


def test_every_telescope_names_its_sources():
    for name in list_telescopes():
        telescope = get_telescope(name)
        assert telescope.name == name
        assert telescope.sources
        assert 0 < telescope.throughput <= 1
        assert np.all((telescope.efficiency >= 0) & (telescope.efficiency < 1))


def test_unknown_telescope_lists_the_known():
    with pytest.raises(UserError, match=r"unknown telescope 'lst2'; did you mean 'LST'\? \(accepted: .*LST"):
        get_telescope("lst2")


def test_a_name_is_taken_once():
    with pytest.raises(ValueError, match="'LST' is already registered"):
        register_telescope("LST")(lambda: None)
