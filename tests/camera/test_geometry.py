import numpy as np
import pytest
from ctapipe_cameras import to_ctapipe

from pipeline.camera.geometry import Camera


def hexagonal_positions(rings, pitch_m, angle_deg=0.0):
    """Centres of a hexagon-shaped camera: 1 + 3 n (n + 1) pixels."""
    q, r = np.meshgrid(np.arange(-rings, rings + 1), np.arange(-rings, rings + 1))
    inside = abs(q + r) <= rings
    x = pitch_m * (q[inside] + 0.5 * r[inside])
    y = pitch_m * np.sqrt(3) / 2 * r[inside]
    angle = np.radians(angle_deg)
    return np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y


def hexagonal_camera(rings=5, pitch_m=0.05, angle_deg=0.0, focal_length_m=28.0, name="Test", **kwargs):
    x, y = hexagonal_positions(rings, pitch_m, angle_deg)
    area = np.full(len(x), np.sqrt(3) / 2 * pitch_m**2)
    return Camera(name, x, y, area, True, focal_length_m, mirror_area_m2=386.0, **kwargs)


def square_camera(n=8, pitch_m=0.006, focal_length_m=2.28):
    x, y = (axis.ravel() for axis in np.meshgrid(pitch_m * (np.arange(n) - n / 2), pitch_m * (np.arange(n) - n / 2)))
    return Camera("Square", x, y, np.full(n * n, pitch_m**2), False, focal_length_m, mirror_area_m2=13.0)


def test_pitch_and_degrees():
    camera = hexagonal_camera()
    assert camera.n_pixels == 91
    assert camera.pitch_m == pytest.approx(0.05, rel=1e-12)
    assert camera.pix_x_deg == pytest.approx(np.degrees(camera.pix_y_m / 28.0))
    assert camera.pix_width_deg == pytest.approx(camera.pitch_deg)


def test_neighbors_and_borders():
    camera = hexagonal_camera()
    count = (camera.neighbors >= 0).sum(axis=1)
    assert np.bincount(count).tolist() == [0, 0, 0, 6, 24, 0, 61]  # corners, edges, inner pixels
    assert camera.border_mask(1).sum() == 30
    assert camera.border_mask(2).sum() == 54
    square = square_camera()
    assert square.neighbors.shape == (64, 4)
    assert square.border_mask().sum() == 28


def test_identity_ignores_name_order_and_micrometres():
    camera = hexagonal_camera(angle_deg=40.893)
    order = np.random.default_rng(0).permutation(camera.n_pixels)
    shifted = Camera(
        "Other", camera.pix_x_m[order] + 7e-6, camera.pix_y_m[order] - 3e-6, camera.pix_area_m2, True, 28.0
    )
    assert shifted.identity == camera.identity


@pytest.mark.parametrize(
    "other",
    [
        hexagonal_camera(angle_deg=40.893, focal_length_m=16.0),
        hexagonal_camera(angle_deg=10.0),
        hexagonal_camera(rings=6, angle_deg=40.893),
        hexagonal_camera(angle_deg=40.893, pitch_m=0.049),
        square_camera(),
    ],
)
def test_identity_tells_cameras_apart(other):
    camera = hexagonal_camera(angle_deg=40.893)
    assert other.identity != camera.identity


def test_camera_rotation_is_undone():
    x, y = hexagonal_positions(5, 0.05, 25.0)
    turned = Camera("Turned", x, y, np.ones(len(x)), True, 28.0, cam_rotation_deg=25.0)
    plain = hexagonal_camera()
    assert turned.pix_x_deg == pytest.approx(plain.pix_x_deg, abs=1e-12)
    assert turned.identity == plain.identity


def test_wrong_arguments():
    with pytest.raises(ValueError, match="pix_y_m has shape"):
        Camera("Bad", np.zeros(3), np.zeros(2), np.zeros(3), True, 28.0)
    with pytest.raises(ValueError, match="focal_length_m is 0"):
        Camera("Bad", np.zeros(3), np.zeros(3), np.zeros(3), True, 0)


@pytest.mark.parametrize("camera", [hexagonal_camera(angle_deg=17.0, cam_rotation_deg=5.0), square_camera()])
def test_equal_to_ctapipe(camera):
    from ctapipe.coordinates import TelescopeFrame

    geometry = to_ctapipe(camera).camera.geometry
    sky = geometry.transform_to(TelescopeFrame())
    assert camera.pix_x_deg == pytest.approx(sky.pix_x.to_value("deg"), abs=1e-12)
    assert camera.pix_y_deg == pytest.approx(sky.pix_y.to_value("deg"), abs=1e-12)
    assert camera.pix_area_deg2 == pytest.approx(sky.pix_area.to_value("deg2"), rel=1e-3)
    for width in (1, 2, 3):
        np.testing.assert_array_equal(camera.border_mask(width), geometry.get_border_pixel_mask(width))
    for row, expected in zip(camera.neighbors, geometry.neighbors, strict=True):
        assert sorted(row[row >= 0]) == sorted(expected)
