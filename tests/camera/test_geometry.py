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
    turned = Camera("Turned", x, y, np.full(len(x), 0.00217), True, 28.0, cam_rotation_deg=25.0)
    plain = hexagonal_camera()
    assert turned.pix_x_deg == pytest.approx(plain.pix_x_deg, abs=1e-12)
    assert turned.identity == plain.identity


def changed(name, place, value):
    """The arguments of a good camera, with one number replaced."""
    x, y = hexagonal_positions(5, 0.05)
    arguments = {"pix_x_m": x, "pix_y_m": y, "pix_area_m2": np.full(len(x), 0.00217), "focal_length_m": 28.0}
    if place is None:
        return arguments | {name: value}
    arguments[name] = arguments[name].copy()
    arguments[name][place] = value
    return arguments


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("pix_y_m", None, np.zeros(2), r"pix_y_m has shape \(2,\); expected \(91,\)"),
        ("pix_x_m", 3, np.nan, "1 of 91 pixels have no finite position: pixel 3 is at .nan"),
        ("pix_y_m", 3, np.inf, "1 of 91 pixels have no finite position"),
        ("pix_area_m2", slice(None), 0.0, "91 of 91 pixels have no positive area: pixel 0 is at .* and has 0 m2"),
        ("pix_area_m2", 90, np.nan, "1 of 91 pixels have no positive area: pixel 90"),
        ("pix_area_m2", slice(4), -1.0, "4 of 91 pixels have no positive area"),
        ("pix_area_m2", slice(None), 2170.0, "9.12e.05 times the area that is free for each: are areas in m2"),
        ("focal_length_m", None, 0.0, "its equivalent focal length is 0 m; 0.1 to 100 m exist"),
        ("focal_length_m", None, np.nan, "its equivalent focal length is nan m"),
        ("focal_length_m", None, 28000.0, "its equivalent focal length is 28000 m"),
        ("cam_rotation_deg", None, np.nan, "cam_rotation_deg is nan"),
        ("pix_rotation_deg", None, np.inf, "pix_rotation_deg is inf"),
        ("pix_x_m", 7, 1e6, "pixel 7 at .* m is far from all others, half of which are within"),
        ("pix_x_m", slice(None), 0.0, "nearly a line"),
    ],
)
def test_numbers_that_no_camera_has(name, place, value, message):
    with pytest.raises(ValueError, match=message):
        Camera("Bad", hexagonal=True, **changed(name, place, value))


@pytest.mark.parametrize(("factor", "fault"), [(1000.0, "its radius is 250 m"), (1e-3, "0.00599 arcmin apart")])
def test_millimetres_for_metres(factor, fault):
    x, y = hexagonal_positions(5, 0.05)
    with pytest.raises(ValueError, match=f"{fault}.*no camera has: are positions and focal length in metres"):
        Camera("Bad", factor * x, factor * y, np.full(len(x), 0.00217), True, 28.0)


def test_a_pixel_twice():
    arguments = changed("focal_length_m", None, 28.0)
    for shift_m in (0.0, 1e-4, -4e-3):
        arguments["pix_x_m"][17] = arguments["pix_x_m"][60] + shift_m
        arguments["pix_y_m"][17] = arguments["pix_y_m"][60] + shift_m
        with pytest.raises(ValueError, match="pixels 17 and 60 are at one place"):
            Camera("Bad", hexagonal=True, **arguments)


@pytest.mark.parametrize("n", [0, 1, 6, 100_001])
def test_number_of_pixels(n):
    with pytest.raises(ValueError, match=f"it has {n} pixels; a camera has 7 to 100000"):
        Camera("Bad", np.arange(n), np.arange(n), np.ones(n), True, 28.0)


def test_what_may_be_unknown():
    camera = hexagonal_camera(effective_focal_length_m=0.0, sampling_rate_ghz=-1.0, n_samples=-3)
    assert np.isnan([camera.effective_focal_length_m, camera.sampling_rate_ghz]).all()
    assert camera.n_samples == 0
    assert camera.readout_ns == 128.0
    assert hexagonal_camera(sampling_rate_ghz=2.0, n_samples=60).readout_ns == 30.0
    assert hexagonal_camera(sampling_rate_ghz=1e-9, n_samples=60).readout_ns == 128.0


def test_areas_that_are_wrong_change_no_neighbour():
    """Some files have areas that are far too small, and the search for neighbours starts from them."""
    good = hexagonal_camera()
    for factor in (1e-3, 3.0):
        other = Camera("Odd", good.pix_x_m, good.pix_y_m, factor * good.pix_area_m2, True, 28.0)
        np.testing.assert_array_equal(other.neighbors, good.neighbors)
        assert other.identity == good.identity


def test_a_pixel_far_from_the_others_has_no_neighbours():
    x, y = hexagonal_positions(30, 0.05)
    x[0], y[0] = 3.0, 0.0
    camera = Camera("Odd", x, y, np.full(len(x), 0.00217), True, 28.0)
    assert (camera.neighbors[0] == -1).all()
    assert camera.pitch_m == pytest.approx(0.05, rel=1e-9)


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
