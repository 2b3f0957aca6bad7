"""What a network for events of several telescopes is given: where images lie and telescopes stand."""

import json

import numpy as np
import pytest
import torch
from stereo_tiles import POINTING, TELESCOPES_M, images_of_axis, stereo_batch, write_stereo_tiles
from synthetic_tiles import array_batch, write_tiles

from pipeline.directions import fov_of_altaz
from pipeline.errors import TooFewEventsError, UserError
from pipeline.inputs import restore_input
from pipeline.inputs.image import ImageInput
from pipeline.inputs.shower import N_PLACES, ShowerInput, events_of, members_of, places_of
from pipeline.tiles import TileBatch
from pipeline.tiles.events import EventReader
from pipeline.training.augmentation import Motion, _move_columns

SOURCE = (70.6, 1.0)  # altitude, azimuth: .6 deg above the pointing, .7 deg beside it
CORE_M = (40.0, -90.0)


def batch_of(*events: dict[str, np.ndarray], **columns) -> TileBatch:
    """Whole events; each is a mapping of its images' columns."""
    counts = [len(images["hillas_psi"]) for images in events]
    joined = {name: np.concatenate([images[name] for images in events]) for name in events[0]}
    number = np.repeat(np.arange(len(events)), counts)
    ids = {"obs_id": np.full(len(number), 7), "event_id": 10 + number}
    return TileBatch(
        images=np.zeros((len(number), 3, 8, 8), np.float16), events=joined | ids | columns, group=number,
        weights=np.arange(1.0, 1 + len(number), dtype=np.float32),
    )  # fmt: skip


def event(*telescopes: int, **columns) -> dict[str, np.ndarray]:
    """A shower without errors as these telescopes see it."""
    return images_of_axis(*SOURCE, CORE_M, TELESCOPES_M[list(telescopes)], **columns)


def parts(places: np.ndarray) -> dict[str, np.ndarray]:
    """By their names."""
    names = ("centre", "centre_off_axis", "to_source", "telescope", "telescope_off_axis", "to_core", "end", "double")
    found = {name: places[:, 2 * i : 2 * i + 2] for i, name in enumerate(names)}
    numbers = ("source_distance", "core_distance", "height", "crossing", "outward")
    return found | {name: places[:, 16 + i] for i, name in enumerate(numbers)}


def test_axes_without_errors_meet_in_source_and_core():
    """Each telescope's own vectors lead to the same two points, which are the truth."""
    batch = batch_of(event(0, 1, 2, 3))
    of = parts(places_of(batch))
    lon_lat = np.stack([batch.events["hillas_fov_lon"], batch.events["hillas_fov_lat"]], axis=1)
    source = lon_lat + of["to_source"]
    np.testing.assert_allclose(source, np.tile(source[0], (4, 1)), atol=1e-5)
    truth = np.concatenate(fov_of_altaz(*np.array([SOURCE]).T, *np.array([POINTING]).T))
    np.testing.assert_allclose(source[0], truth, atol=0.01)  # drawn to the centre a little
    np.testing.assert_allclose(of["source_distance"], np.linalg.norm(of["to_source"], axis=1), rtol=1e-6)
    unit = of["to_source"] / of["source_distance"][:, None]
    np.testing.assert_allclose(of["end"], unit, atol=0.02)  # the axis, at the end of the source
    centre = lon_lat / np.linalg.norm(lon_lat, axis=1, keepdims=True)
    np.testing.assert_allclose(of["outward"], (unit * centre).sum(axis=1), atol=0.02)
    # Distance of the maximum: 9 km above the ground, along the axis.
    np.testing.assert_allclose(10 * of["height"], 9 / np.sin(np.radians(70.6)), rtol=0.02)


def test_core_of_a_vertical_pointing_is_on_the_ground():
    """There, the plane of the telescopes is the ground: fov_lon is to the east (-y), fov_lat to the south (-x)."""
    images = images_of_axis(89.4, 120.0, CORE_M, TELESCOPES_M[:4] * [1, 1, 0], pointing=(89.999999, 0.0))
    of = parts(places_of(batch_of(images)))
    position = TELESCOPES_M[:4, :2]
    found = position + 100 * np.stack([-of["to_core"][:, 1], -of["to_core"][:, 0]], axis=1)
    np.testing.assert_allclose(found, np.tile(CORE_M, (4, 1)), atol=1.0)


def test_reference_is_where_axes_meet_and_the_mean_of_parallel_ones():
    images = event(0, 1, 2, 3)
    crossing = events_of(batch_of(images))
    truth = np.concatenate(fov_of_altaz(*np.array([SOURCE]).T, *np.array([POINTING]).T))
    np.testing.assert_allclose(
        [crossing.events[f"reference_fov_{axis}"][0] for axis in ("lon", "lat")], truth, atol=0.03
    )
    parallel = events_of(batch_of(images | {"hillas_psi": np.full(4, 30.0)}))
    normal = np.array([-0.5, np.sqrt(0.75)])  # along the axes nothing is known but where images lie
    off = [
        parallel.events[f"reference_fov_{axis}"][0] - parallel.events[f"hillas_fov_{axis}"][0]
        for axis in ("lon", "lat")
    ]
    assert abs(off @ np.array([normal[1], -normal[0]])) < 1e-9
    assert parts(places_of(batch_of(images | {"hillas_psi": np.full(4, 30.0)})))["crossing"].max() < 1e-6


def test_round_images_have_no_axis():
    """Their centre of gravity is all that is known; no number is missing."""
    batch = batch_of(event(0, 1, hillas_psi=np.full(2, np.nan), hillas_width=np.full(2, np.nan)))
    places = places_of(batch)
    assert np.isfinite(places).all()
    np.testing.assert_array_equal(parts(places)["double"], 0)
    found = events_of(batch).events
    np.testing.assert_allclose(found["reference_fov_lon"], found["hillas_fov_lon"], atol=1e-3)


@pytest.mark.parametrize(
    "flips", [(x, y, swap) for x in (False, True) for y in (False, True) for swap in (False, True)]
)
def test_places_move_with_the_images(flips, rng):
    """Moving what is given to the network is the same as giving it a moved event."""
    images = event(0, 1, 3, hillas_psi=rng.uniform(-90, 90, 3)) | {
        "pointing_alt_deg": np.full(3, 90.0), "pointing_az_deg": np.zeros(3),
    }  # fmt: skip
    before = places_of(batch_of(images))
    motion = Motion(torch.tensor([flips]).expand(3, 3), torch.zeros(3), torch.ones(3), torch.zeros(3, 2, dtype=int))
    moved = _move_columns(torch.from_numpy(before), motion, ShowerInput.moving["places"]).numpy()

    def move(x, y):
        x, y = -x if flips[0] else x, -y if flips[1] else y
        return (y, x) if flips[2] else (x, y)

    lon, lat = move(images["hillas_fov_lon"], images["hillas_fov_lat"])
    axis = move(np.cos(np.radians(images["hillas_psi"])), np.sin(np.radians(images["hillas_psi"])))
    # At the zenith, with azimuth 0, fov_lon is -y of the ground and fov_lat is -x.
    east, south = move(-images["tel_y_m"], -images["tel_x_m"])
    other = images | {
        "hillas_fov_lon": lon, "hillas_fov_lat": lat, "hillas_psi": np.degrees(np.arctan2(axis[1], axis[0])),
        "tel_x_m": -south, "tel_y_m": -east,
    }  # fmt: skip
    np.testing.assert_allclose(places_of(batch_of(other)), moved, atol=2e-5)


def test_one_row_per_event():
    batch = batch_of(event(0, 1), event(2, 3, 4), true_energy_tev=np.array([1.0, 1, 3, 3, 3]))
    batch.events["hillas_intensity"] = np.array([100.0, 300, 50, 50, 100])
    found = events_of(batch)
    np.testing.assert_array_equal(found.events["event_id"], [10, 11])
    np.testing.assert_array_equal(found.events["n_telescopes"], [2, 3])
    np.testing.assert_array_equal(found.events["hillas_intensity"], [400, 200])
    np.testing.assert_array_equal(found.events["true_energy_tev"], [1, 3])
    expected = TELESCOPES_M[[0, 1]].T @ [0.25, 0.75], TELESCOPES_M[[2, 3, 4]].T @ [0.25, 0.25, 0.5]
    for axis, values in zip("xyz", np.transpose(expected), strict=True):
        np.testing.assert_allclose(found.events[f"tel_{axis}_m"], values)
    np.testing.assert_array_equal(found.weights, [1.5, 4.0])
    np.testing.assert_array_equal(members_of(batch), [[0, 1, -1], [2, 3, 4]])


def test_no_event():
    batch = batch_of(event(0, 1)).select(slice(0, 0))
    assert len(events_of(batch)) == 0
    assert places_of(batch).shape == (0, N_PLACES)


def test_cameras_are_prepared_by_their_own_input(rng):
    """Charges of two cameras in units of their own scales."""
    given = ShowerInput(cameras={"a": ImageInput(), "b": ImageInput(charge_scale_pe=30.0)}, max_telescopes=4)
    batch = batch_of(event(0, 1, 2), camera=np.array([1, 0, 1], np.int16))
    batch.images[:, 0] = 60.0
    arrays = given.arrays(batch)
    np.testing.assert_allclose(
        arrays["images"][:, 0, 0, 0],
        np.arcsinh(60 / np.array([30.0, given.cameras["a"].charge_scale_pe, 30.0])),
        rtol=1e-6,
    )
    np.testing.assert_array_equal(arrays["camera"], [1, 0, 1])
    assert arrays["camera"].dtype == np.int64


# ---- fitting to tiles ------------------------------------------------------------------------------------------------
def manifest(folder, rng, **columns):
    batch = stereo_batch(12, rng)
    batch.events |= {name: np.full(len(batch), value) for name, value in columns.items()}
    return write_stereo_tiles(folder, batch)


def test_unknown_position(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(ShowerInput, "raw_channels", ("charge",))
    reader = EventReader([manifest(tmp_path, rng, tel_z_m=np.nan)], "train")
    with pytest.raises(UserError, match=r"pointing or position of the telescope are unknown for (\d+) of \1 training"):
        ShowerInput.fit(reader)


def test_tiles_without_image_axes(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(ShowerInput, "raw_channels", ("charge",))
    batch = stereo_batch(12, rng)
    del batch.events["hillas_psi"]
    reader = EventReader([write_stereo_tiles(tmp_path, batch)], "train")
    with pytest.raises(UserError, match="the tiles have no event column hillas_psi; remake them with"):
        ShowerInput.fit(reader)


def test_most_telescopes_of_an_event_are_known(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(ShowerInput, "raw_channels", ("charge",))
    monkeypatch.setattr(ImageInput, "raw_channels", ("charge",))
    reader = EventReader([manifest(tmp_path, rng)], "train")
    given = ShowerInput.fit(reader)
    _, counts = np.unique(reader.events(["event_id"])["event_id"], return_counts=True)
    assert given.max_telescopes == counts.max() >= 3
    assert set(given.cameras) == {"hexagon-1855-test"}


# ---- arrays of several cameras ---------------------------------------------------------------------------------------
SCALARS = ("log10_hillas_intensity",)
CAMERAS = (("hexagon-a", "NectarCam", "MST"), ("hexagon-b", "LSTCam", "LST"))


def of_two_cameras(n_events=100):
    """The second camera's images have a hundred times the charge."""
    batch = array_batch(n_events, (1, 0, 0))
    batch.events["hillas_intensity"][batch.events["camera"] == 1] *= 100
    return batch


def test_the_images_of_each_camera_are_standardised_by_themselves(tmp_path):
    reader = EventReader([write_tiles(tmp_path, of_two_cameras(), cameras=CAMERAS)], "train")
    fitted = ShowerInput.fit(reader, SCALARS)
    assert list(fitted.cameras) == ["hexagon-a", "hexagon-b"]
    assert fitted.max_telescopes == 3
    means = [given.scalar_statistics[0].mean for given in fitted.cameras.values()]
    assert means[1] - means[0] == pytest.approx(2, abs=0.2)
    batch = next(reader.in_batches(10_000, fitted.columns))
    arrays = fitted.arrays(batch)
    np.testing.assert_array_equal(arrays["camera"], np.tile([1, 0, 0], len(arrays["members"])))
    assert arrays["camera"].dtype == np.int64
    for number, given in enumerate(fitted.cameras.values()):
        own = batch.select(arrays["camera"] == number)
        assert np.abs(arrays["scalars"][arrays["camera"] == number].mean()) < 1e-5
        for name, values in given.arrays(own).items():
            np.testing.assert_array_equal(arrays[name][arrays["camera"] == number], values)
    assert restore_input(json.loads(fitted.model_dump_json())) == fitted


def test_events_of_one_camera_need_no_number(tmp_path):
    manifest = write_tiles(tmp_path, of_two_cameras(), cameras=CAMERAS)
    fitted = ShowerInput.fit(EventReader([manifest], "train", where={"camera": 0}), SCALARS)
    assert list(fitted.cameras) == ["hexagon-a"]
    assert fitted.max_telescopes == 2
    assert "camera" not in fitted.columns


def test_a_camera_without_an_image_cannot_be_fitted(tmp_path):
    manifest = write_tiles(tmp_path, array_batch(40, (0, 0)), cameras=CAMERAS)
    message = r"no event with an image of the camera LSTCam \(hexagon-b\); add runs, or choose one of the others"
    with pytest.raises(TooFewEventsError, match=message):
        ShowerInput.fit(EventReader([manifest], "train"), SCALARS)
