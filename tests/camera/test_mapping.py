import numpy as np
import pytest

from pipeline.camera.geometry import Camera
from pipeline.camera.mapping import TileMapper, tile_mapper


def hexagonal_camera(rings=20, angle_deg=40.9, focal_length_m=28.0):
    q, r = np.meshgrid(np.arange(-rings, rings + 1), np.arange(-rings, rings + 1))
    inside = abs(q + r) <= rings
    x, y = 0.05 * (q[inside] + 0.5 * r[inside]), 0.05 * np.sqrt(3) / 2 * r[inside]
    angle = np.radians(angle_deg)
    x, y = np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y
    return Camera("Hex", x, y, np.full(len(x), np.sqrt(3) / 2 * 0.05**2), True, focal_length_m, mirror_area_m2=386.0)


def square_camera(modules=4, pixels=8, gap=0.3):
    """Square modules with gaps between them, as the small telescopes have."""
    n = modules * pixels
    axis = 0.006 * (np.arange(n) + gap * (np.arange(n) // pixels))
    axis -= axis.mean()
    x, y = (a.ravel() for a in np.meshgrid(axis, axis))
    return Camera("Square", x, y, np.full(n * n, 0.006**2), False, 2.28, mirror_area_m2=13.0)


CAMERAS = {"hexagonal": hexagonal_camera(), "square": square_camera(), "large": square_camera(8, 12, 0.0)}


@pytest.mark.parametrize("name", CAMERAS)
@pytest.mark.parametrize("size", [16, 41, 56, 128])
def test_charge_of_every_pixel_is_conserved(name, size):
    camera = CAMERAS[name]
    mapper = TileMapper(camera, size)
    image = np.random.default_rng(0).normal(2, 5, (4, camera.n_pixels)).astype(np.float32)
    tiles = mapper.charge(image)
    assert tiles.shape == (4, size, size)
    assert tiles.dtype == np.float32
    assert tiles.sum(axis=(1, 2)) == pytest.approx(image.sum(axis=1), rel=1e-5)
    corners = np.argsort(camera.pix_x_deg)[[0, -1, camera.n_pixels // 2]]
    single = np.zeros((3, camera.n_pixels), np.float32)
    single[[0, 1, 2], corners] = 100
    assert mapper.charge(single).sum(axis=(1, 2)) == pytest.approx([100, 100, 100], rel=1e-5)


@pytest.mark.parametrize("name", CAMERAS)
@pytest.mark.parametrize("size", [40, 100])
def test_positions_are_kept(name, size):
    """The centroid of a smooth image and of its tile are the same point of the sky; row 0 is the lowest."""
    camera = CAMERAS[name]
    mapper = TileMapper(camera, size)
    place = np.array([0.3, -0.4]) * camera.pix_x_deg.max()
    sigma = 3 * camera.pitch_deg
    image = np.exp(-0.5 * ((camera.pix_x_deg - place[0]) ** 2 + (camera.pix_y_deg - place[1]) ** 2) / sigma**2)
    tile = mapper.charge(image[None])[0]
    axis = (np.arange(size) + 0.5) * mapper.pixel_deg - mapper.half_width_deg
    found = np.array([(tile.sum(axis=0) * axis).sum(), (tile.sum(axis=1) * axis).sum()]) / tile.sum()
    expected = np.array([(image * camera.pix_x_deg).sum(), (image * camera.pix_y_deg).sum()]) / image.sum()
    np.testing.assert_allclose(found, expected, atol=0.05 * camera.pitch_deg)


@pytest.mark.parametrize("name", ["hexagonal", "large"])
def test_a_flat_image_stays_flat(name):
    camera = CAMERAS[name]
    tile = TileMapper(camera, 50).charge(np.ones((1, camera.n_pixels), np.float32))[0]
    middle = tile[18:32, 18:32]
    assert middle.mean() == pytest.approx((TileMapper(camera, 50).pixel_deg ** 2 / camera.pix_area_deg2[0]), rel=0.01)
    assert middle.std() < 0.12 * middle.mean()


@pytest.mark.parametrize("name", ["hexagonal", "large"])
@pytest.mark.parametrize("size", [33, 150])
def test_linear_functions_are_kept(name, size):
    """What interpolation is linear for: a slope over the camera is the same slope over the tile."""
    camera = CAMERAS[name]
    mapper = TileMapper(camera, size)
    values = 2 * camera.pix_x_deg - 3 * camera.pix_y_deg
    axis = (np.arange(size) + 0.5) * mapper.pixel_deg - mapper.half_width_deg
    expected = 2 * axis[None, :] - 3 * axis[:, None]
    inner = slice(size // 3, 2 * size // 3)
    found = mapper.average(values[None])[0]
    np.testing.assert_allclose(found[inner, inner], expected[inner, inner], atol=1e-2 * camera.pitch_deg)


def test_averages():
    camera = CAMERAS["hexagonal"]
    mapper = TileMapper(camera, 56)
    values = np.full((1, camera.n_pixels), 7.0, np.float32)
    average = mapper.average(values)[0]
    assert np.unique(average.round(4)).tolist() == [0, 7]
    assert average[28, 28] == pytest.approx(7)
    values[0, ::2] = np.nan
    assert np.unique(mapper.average(values)[0].round(4)).tolist() == [0, 7]
    keep = np.zeros(values.shape, bool)
    keep[0, 1] = True
    assert 0 < np.count_nonzero(mapper.average(values, keep)) < 20
    mask = mapper.average(keep.astype(np.float32))
    assert mask.max() <= 1
    assert mask.min() >= 0


def test_nan_counts_as_no_charge():
    camera = CAMERAS["hexagonal"]
    image = np.ones((1, camera.n_pixels), np.float32)
    image[0, 100] = np.nan
    assert TileMapper(camera, 56).charge(image).sum() == pytest.approx(camera.n_pixels - 1, rel=1e-5)


def test_order_of_pixels_does_not_matter():
    camera = CAMERAS["hexagonal"]
    order = np.random.default_rng(1).permutation(camera.n_pixels)
    other = Camera("Other", camera.pix_x_m[order], camera.pix_y_m[order], camera.pix_area_m2, True, 28.0)
    image = np.random.default_rng(2).normal(size=(2, camera.n_pixels)).astype(np.float32)
    ours, theirs = TileMapper(camera, 56).charge(image), TileMapper(other, 56).charge(image[:, order])
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


def test_cache_goes_by_geometry():
    camera = hexagonal_camera()
    assert tile_mapper(camera, 56) is tile_mapper(hexagonal_camera(), 56)
    assert tile_mapper(camera, 56) is not tile_mapper(camera, 57)
    assert tile_mapper(camera, 56) is not tile_mapper(hexagonal_camera(focal_length_m=16.0), 56)
    for size in range(16, 40):
        tile_mapper(square_camera(2, 4), size)
    assert tile_mapper(camera, 56).size == 56


def test_wrong_arguments():
    with pytest.raises(ValueError, match="tile size 8 is too small"):
        TileMapper(CAMERAS["square"], 8)
    with pytest.raises(ValueError, match=r"expected \(n, 1024\)"):
        TileMapper(CAMERAS["square"], 32).charge(np.zeros((1, 3)))
