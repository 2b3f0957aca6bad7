"""Images in the frame of their shower: what goes in comes out, and the core is to the right."""

import numpy as np
import pytest

from pipeline.camera.dl1.coordinates import impact_distance_m
from pipeline.camera.generated import truth_of
from pipeline.camera.shower_frame import SOURCE_AT, Orientation, shower_frame
from pipeline.camera.telescopes import get_telescope
from pipeline.directions import core_direction_rad, fov_of_altaz
from pipeline.errors import UserError
from pipeline.inputs.shower_frame import CONDITIONS, conditions
from pipeline.tiles.shards import TileBatch

SIZE = 64


@pytest.fixture(scope="module", params=["LST", "SST-CHEC"])
def camera(request):
    """Hexagons, and squares with gaps between modules."""
    return get_telescope(request.param).camera


def orientations(n: int, rng: np.random.Generator, reach_deg: float = 0.5) -> Orientation:
    lon, lat = rng.uniform(-reach_deg, reach_deg, (2, n))
    return Orientation(lon, lat, rng.uniform(-np.pi, np.pi, n), rng.choice([-1.0, 1.0], n))


def test_amounts_come_back_photo_electron_by_photo_electron(camera, rng):
    frame = shower_frame(camera, SIZE)
    pixels = frame.pixels(orientations(5, rng))
    reached = np.zeros((5, camera.n_pixels), bool)
    for row, cells in enumerate(pixels):
        reached[row, np.unique(cells[cells >= 0])] = True
    image = rng.poisson(2.0, reached.shape) * reached
    cells = frame.spread(image, pixels)
    np.testing.assert_allclose(frame.gather(cells, pixels), image, atol=1e-4)
    assert (cells[pixels < 0] == 0).all()


def test_every_pixel_within_the_tile_has_a_cell(camera, rng):
    """A cell is half as wide as the distance between pixels, so none falls between two centres."""
    frame = shower_frame(camera, SIZE)
    orientation = orientations(20, rng)
    pixels = frame.pixels(orientation)
    for k, cells in enumerate(pixels):
        cosine, sine = np.cos(orientation.core_direction_rad[k]), np.sin(orientation.core_direction_rad[k])
        x, y = camera.pix_x_deg - orientation.source_lon_deg[k], camera.pix_y_deg - orientation.source_lat_deg[k]
        along, across = cosine * x + sine * y, orientation.side[k] * (cosine * y - sine * x)
        margin = 2 * frame.cell_deg
        inside = (along > margin - SOURCE_AT * SIZE * frame.cell_deg) & (
            along < (1 - SOURCE_AT) * SIZE * frame.cell_deg - margin
        )
        inside &= np.abs(across) < SIZE / 2 * frame.cell_deg - margin
        assert np.isin(np.flatnonzero(inside), cells).all()


def test_cells_lie_where_their_pixels_are(camera, rng):
    """The centre of a cell, turned back into the camera, is within its pixel."""
    frame = shower_frame(camera, SIZE)
    orientation = orientations(3, rng)
    pixels = frame.pixels(orientation)
    row, column = np.mgrid[:SIZE, :SIZE]
    along = (column + 0.5 - SOURCE_AT * SIZE) * frame.cell_deg
    for k in range(3):
        across = orientation.side[k] * (row + 0.5 - SIZE / 2) * frame.cell_deg
        cosine, sine = np.cos(orientation.core_direction_rad[k]), np.sin(orientation.core_direction_rad[k])
        lon = orientation.source_lon_deg[k] + cosine * along - sine * across
        lat = orientation.source_lat_deg[k] + sine * along + cosine * across
        own = pixels[k] >= 0
        distance = np.hypot(lon[own] - camera.pix_x_deg[pixels[k][own]], lat[own] - camera.pix_y_deg[pixels[k][own]])
        assert distance.max() < 0.75 * camera.pitch_deg


def test_values_are_not_shared_out(camera, rng):
    frame = shower_frame(camera, SIZE)
    pixels = frame.pixels(orientations(2, rng))
    values = rng.normal(size=(2, camera.n_pixels))
    cells = frame.values(values, pixels)
    own = pixels[1] >= 0
    np.testing.assert_allclose(cells[1][own], values[1][pixels[1][own]], rtol=1e-6)
    assert (cells[pixels < 0] == 0).all()


def test_centre_and_orientation_are_inverse(rng):
    first = orientations(50, rng)
    along, across = first.centre
    second = Orientation.of_centre(along, across, first.core_direction_rad, first.side)
    np.testing.assert_allclose(second.source_lon_deg, first.source_lon_deg, atol=1e-12)
    np.testing.assert_allclose(second.source_lat_deg, first.source_lat_deg, atol=1e-12)


def events(n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        "true_fov_lon_deg": rng.uniform(-2, 2, n), "true_fov_lat_deg": rng.uniform(-2, 2, n),
        "true_core_x_m": rng.uniform(-200, 200, n), "true_core_y_m": rng.uniform(-200, 200, n),
        "true_alt_deg": rng.uniform(69, 71, n), "true_az_deg": rng.uniform(176, 184, n),
        "tel_x_m": np.full(n, 20.0), "tel_y_m": np.full(n, -30.0), "tel_z_m": np.full(n, 15.0),
        "pointing_alt_deg": np.full(n, 70.0), "pointing_az_deg": np.full(n, 180.0),
        "true_energy_tev": rng.uniform(0.1, 1, n), "true_impact_m": rng.uniform(10, 200, n),
    }  # fmt: skip


def test_the_camera_is_never_below_the_axis(rng):
    found = Orientation.of_events(events(100, rng))
    assert (found.centre[1] >= 0).all()
    assert set(found.side) == {-1.0, 1.0}


def test_unknown_pointing_is_refused(rng):
    unknown = events(3, rng) | {"pointing_alt_deg": np.array([70.0, np.nan, 70.0])}
    with pytest.raises(UserError, match="does not say where its telescopes stand and point"):
        Orientation.of_events(unknown)


def test_core_to_the_south_of_a_telescope_that_looks_south_is_above():
    """Who looks south at 70 deg sees the axis of a vertical shower in the south above the pointing's foot."""
    one = {name: np.array([value]) for name, value in {
        "true_core_x_m": -100.0, "true_core_y_m": 0.0, "tel_x_m": 0.0, "tel_y_m": 0.0, "tel_z_m": 0.0,
        "pointing_alt_deg": 70.0, "pointing_az_deg": 180.0, "true_alt_deg": 70.0, "true_az_deg": 180.0,
    }.items()}  # fmt: skip
    assert core_direction_rad(one)[0] == pytest.approx(-np.pi / 2)
    east = one | {"true_core_x_m": np.array([0.0]), "true_core_y_m": np.array([-100.0])}
    assert np.abs(core_direction_rad(east)[0]) == pytest.approx(np.pi)  # azimuth grows from south to west


def test_truth_of_generated_showers_has_their_conditions(rng):
    """Impact distance, direction to the core and source: what a file says is what was asked for."""
    n, position_m, pointing = 200, (20.0, -30.0, 15.0), (70.0, 180.0)
    wanted = np.column_stack(
        [rng.uniform(-1, 1, n), rng.uniform(5, 300, n), rng.uniform(-2, 2, n), rng.uniform(0, 2, n), np.full(n, 2.0)]
    )
    orientation = Orientation.of_centre(wanted[:, 2], wanted[:, 3], rng.uniform(-3, 3, n), rng.choice([-1.0, 1.0], n))
    truth = truth_of(wanted, orientation, 0, pointing, position_m)
    found_m = impact_distance_m(truth, position_m)
    np.testing.assert_allclose(found_m, wanted[:, CONDITIONS.index("impact_m")], rtol=1e-9)
    lon, lat = fov_of_altaz(truth["true_alt_deg"], truth["true_az_deg"], *(np.full(n, angle) for angle in pointing))
    np.testing.assert_allclose([lon, lat], orientation[:2], atol=1e-9)
    seen = {
        "true_core_x_m": truth["true_core_x_m"], "true_core_y_m": truth["true_core_y_m"],
        "true_alt_deg": truth["true_alt_deg"], "true_az_deg": truth["true_az_deg"],
        **{f"tel_{axis}_m": np.full(n, place) for axis, place in zip("xyz", position_m, strict=True)},
        "pointing_alt_deg": np.full(n, pointing[0]), "pointing_az_deg": np.full(n, pointing[1]),
    }  # fmt: skip
    turned = core_direction_rad(seen) - orientation.core_direction_rad
    np.testing.assert_allclose(np.abs(np.exp(1j * turned) - 1), 0, atol=1e-9)


def test_conditions_are_those_of_the_orientation(rng):
    columns = events(20, rng)
    batch = TileBatch(images=np.ones((20, 4, 8, 8), np.float16), events=columns, group=np.arange(20))
    found = conditions(batch)
    along, across = Orientation.of_events(columns).centre
    np.testing.assert_allclose(found[:, 2:4], np.column_stack([along, across]), atol=1e-12)
    np.testing.assert_allclose(found[:, 4], np.log10(64))
