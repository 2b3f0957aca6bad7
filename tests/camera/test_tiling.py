import h5py
import numpy as np
import pytest

from pipeline.camera.cleaning import tailcuts, usable_times
from pipeline.camera.dl1 import DL1File, DL1Writer, EventChunk, ImageChunk, SimulationRun, Subarray
from pipeline.camera.geometry import Camera
from pipeline.camera.mapping import tile_mapper
from pipeline.camera.tiling import (
    REJECTION_REASONS,
    camera_tile_chunk,
    chosen_cameras,
    shard_attributes,
    tile_file,
)
from pipeline.config import CameraTilesConfig, CutsConfig
from pipeline.errors import InputFileError
from pipeline.inputs.image import ImageRecipe


def hexagonal_camera(rings=10, name="LSTCam", focal_length_m=28.0, area=386.0):
    q, r = np.meshgrid(np.arange(-rings, rings + 1), np.arange(-rings, rings + 1))
    inside = abs(q + r) <= rings
    x, y = 0.05 * (q[inside] + 0.5 * r[inside]), 0.05 * np.sqrt(3) / 2 * r[inside]
    return Camera(
        name, x, y, np.full(len(x), 0.00216), True, focal_length_m, mirror_area_m2=area, sampling_rate_ghz=1.0
    )


LST, MST = hexagonal_camera(), hexagonal_camera(8, "NectarCam", 16.0, 106.0)
RECIPE = ImageRecipe.of(CameraTilesConfig(size=24, cuts=CutsConfig(size_min_pe=50, n_pixels_min=4, leakage_max=0.3)))


def ellipses(camera, n, seed=0):
    """Bright images well inside the camera."""
    rng = np.random.default_rng(seed)
    place = rng.uniform(-0.3, 0.3, (n, 2, 1)) * camera.pix_x_deg.max()
    dx, dy = camera.pix_x_deg - place[:, 0], camera.pix_y_deg - place[:, 1]
    image = 60 * np.exp(-0.5 * (dx / (2 * camera.pitch_deg)) ** 2 - 0.5 * (dy / camera.pitch_deg) ** 2)
    image += rng.normal(0, 0.5, image.shape)
    return image.astype(np.float32), (20 + 4 * dx + rng.normal(0, 0.2, image.shape)).astype(np.float32)


def image_chunk(image, time, camera=LST, **changes):
    n = len(image)
    ids = np.arange(n)
    truth = {
        name: np.full(n, value)
        for name, value in {
            "true_energy_tev": 0.1, "true_alt_deg": 70.0, "true_az_deg": 180.0, "true_offset_deg": 0.5,
            "true_fov_lon_deg": 0.3, "true_fov_lat_deg": -0.4,
            "true_core_x_m": 0.0, "true_core_y_m": 0.0, "true_impact_m": 100.0, "true_h_first_int_m": 2e4,
            "true_x_max_g_cm2": 300.0,
        }.items()
    }  # fmt: skip
    truth["true_primary_id"] = np.where(ids % 2, 101, 0)
    arrays = {"obs_id": np.ones(n, int), "event_id": ids, "shower_id": ids // 2, "time_s": np.zeros(n)}
    values = arrays | {"image": image, "peak_time": time, "is_valid": np.ones(n, bool), "truth": truth} | changes
    return ImageChunk(camera=camera, tel_id=3, **values)


def test_channels_columns_and_targets():
    image, time = ellipses(LST, 6)
    batch, rejected, reason = camera_tile_chunk(image_chunk(image, time), RECIPE)
    assert rejected == {}
    assert (reason == "").all()
    assert batch.images.shape == (6, 3, 24, 24)
    assert batch.images.dtype == np.float16
    charge, peak_time, mask = batch.images.astype(np.float32).transpose(1, 0, 2, 3)
    assert charge.sum(axis=(1, 2)) == pytest.approx(image.sum(axis=1), rel=2e-3)
    assert 0 <= mask.min() <= mask.max() <= 1
    assert (mask.max(axis=(1, 2)) == 1).all()
    assert (peak_time[mask == 1] != 0).any()
    assert abs(peak_time).max() < 5
    assert (peak_time[:, 0] == 0).all()  # far from the shower
    assert (charge * mask * peak_time).sum(axis=(1, 2)) / (charge * mask).sum(axis=(1, 2)) == pytest.approx(0, abs=0.05)
    assert batch.events["tel_id"].tolist() == [3] * 6
    assert batch.events["n_islands"].tolist() == [1] * 6
    assert batch.events["hillas_intensity"].dtype == np.float32
    assert batch.events["true_energy_tev"].dtype == np.float64
    assert batch.targets["energy"].ravel() == pytest.approx(-1)
    assert batch.targets["gammaness"].ravel().tolist() == [1, 0, 1, 0, 1, 0]
    assert batch.group.tolist() == [0, 0, 1, 1, 2, 2]


def test_ids_of_telescopes_beyond_ctapipes_stay():
    chunk = image_chunk(*ellipses(LST, 2))
    chunk.tel_id = 40_001
    assert camera_tile_chunk(chunk, RECIPE).batch.events["tel_id"].tolist() == [40_001] * 2


def test_every_reason_to_reject():
    image, time = ellipses(LST, 9)
    image[1, : LST.n_pixels // 2 + 1] = np.nan
    image[2] = 0
    brightest = np.argsort(image[3])[::-1]
    image[3, brightest[1:25:2]] = 1e9
    time[4, np.argsort(image[4])[-40:]] = np.nan
    image[5, np.argsort(image[5])[:-2]] = 0
    image[6] *= 0.15
    border = LST.border_mask()
    image[7] = np.where(border, 40, 0)
    is_valid = np.arange(9) > 0
    batch, rejected, reason = camera_tile_chunk(
        image_chunk(image, time, is_valid=is_valid),
        RECIPE.model_copy(update={"size_min_pe": 300.0, "n_pixels_min": 5, "leakage_max": 0.2}),
    )
    assert reason.tolist() == [*REJECTION_REASONS, ""]
    assert rejected == dict.fromkeys(REJECTION_REASONS, 1)
    assert batch.events["event_id"].tolist() == [8]


def tiles_of(image, time):
    batch, _, reason = camera_tile_chunk(image_chunk(image, time), RECIPE)
    assert (reason == "").all()
    return batch


@pytest.mark.parametrize("time_ns", [200.0, 1e5, -1e5, 1e9, np.inf, -np.inf, np.finfo(np.float32).max])
def test_a_pixel_with_an_absurd_time_has_none(time_ns):
    """Tiles and parameters are the same bits as without any time of the pixel."""
    image, time = ellipses(LST, 20)
    rows, third = np.arange(20), np.argsort(image, axis=1)[:, -3]
    without = time.copy()
    without[rows, third] = np.nan
    time[rows, third] = time_ns
    found, expected = tiles_of(image, time), tiles_of(image, without)
    np.testing.assert_array_equal(found.images, expected.images)
    for name, column in expected.events.items():
        np.testing.assert_array_equal(found.events[name], column, err_msg=name)


@pytest.mark.parametrize("charge_pe", [1e9, -1e9, 1.01e6, -101.0, np.inf, -np.inf, np.finfo(np.float32).max])
def test_a_pixel_with_an_absurd_charge_is_dark(charge_pe):
    image, time = ellipses(LST, 20)
    rows, third = np.arange(20), np.argsort(image, axis=1)[:, -3]
    without = image.copy()
    without[rows, third] = np.nan
    image[rows, third] = charge_pe
    found, expected = tiles_of(image, time), tiles_of(without, time)
    np.testing.assert_array_equal(found.images, expected.images)
    assert np.isfinite(found.images).all()
    for name, column in expected.events.items():
        np.testing.assert_array_equal(found.events[name], column, err_msg=name)


def test_times_of_the_readout_are_all_used():
    """What is within one readout of the image's time is a measurement, also 1000 ns after the start of a clock."""
    image, time = ellipses(LST, 3)
    mask = tailcuts(image, LST, 6, 3, 1)
    late = time + np.float32(1000)
    np.testing.assert_array_equal(usable_times(image, late, mask, LST), late)
    window_ns = LST.readout_ns + 10
    assert window_ns == 138  # the default: this camera does not say how long its readout is
    pixel = int(np.argsort(image[0])[-3])
    for shift_ns, usable in ((window_ns - 6, True), (window_ns + 6, False)):
        moved = time.copy()
        moved[0, pixel] += shift_ns
        assert np.isfinite(usable_times(image, moved, mask, LST)[0, pixel]) == usable


def test_half_of_the_charge_at_another_time():
    """Two groups of times that cannot be of one image: there is no time that is right."""
    image, time = ellipses(LST, 1)
    time[:, LST.pix_x_deg > LST.pix_x_deg[image[0].argmax()]] += 1e4
    counts = camera_tile_chunk(image_chunk(image, time), RECIPE).rejected
    assert counts in ({}, {"no usable peak time in more than half of the image": 1})
    time[:] = 1e8 + time
    assert camera_tile_chunk(image_chunk(image, time), RECIPE).rejected == {
        "no usable peak time in more than half of the image": 1
    }


def test_nan_and_infinite_pixels_are_dark():
    image, time = ellipses(LST, 2)
    image[0, 5], image[1, 7] = np.nan, np.inf
    time[:, ::3] = np.nan
    chunk = image_chunk(image, time, truth={})
    batch, _, _ = camera_tile_chunk(chunk, RECIPE)
    assert len(batch) == 2
    assert np.isfinite(batch.images).all()
    assert batch.images[1, 0].astype(float).sum() == pytest.approx(np.delete(image[1], 7).sum(), rel=3e-3)
    assert all(np.isfinite(batch.events[name]).all() for name in ("hillas_intensity", "timing_slope"))
    assert batch.targets == {}


def test_bright_pixels_fit_float16():
    image, time = ellipses(LST, 1)
    batch, _, _ = camera_tile_chunk(image_chunk(1e4 * np.maximum(image, 0), time), RECIPE)
    assert np.isfinite(batch.images).all()
    assert batch.events["hillas_intensity"][0] > 1e6


# ---- whole files -----------------------------------------------------------------------------------------------------
def write_file(path, telescopes, events, showers=None):
    """`events`: for each event the telescopes that saw it."""
    positions = {tel_id: (50.0 * tel_id, 0.0, 0.0) for tel_id in telescopes}
    run = SimulationRun(0.1, 1.0, -2.0, n_showers=10)
    showers = range(len(events)) if showers is None else showers
    with DL1Writer(
        path, Subarray("s", telescopes, positions), obs_id=1, pointing_alt_rad=1.2, pointing_az_rad=3.1, simulation=run
    ) as writer:
        for number, (tel_ids, shower) in enumerate(zip(events, showers, strict=True)):
            chunks = []
            for camera in {id(telescopes[t]): telescopes[t] for t in tel_ids}.values():
                same = [t for t in tel_ids if telescopes[t] is camera]
                image, time = ellipses(camera, len(same), seed=number)
                truth = {
                    "true_energy_tev": 0.2, "true_primary_id": 0, "true_alt_deg": 70.0, "true_az_deg": 180.0,
                    "true_core_x_m": 0.0, "true_core_y_m": 0.0, "shower_id": shower,
                }  # fmt: skip
                truth = {name: np.full(len(same), value) for name, value in truth.items()}
                chunks.append(EventChunk(np.full(len(same), number), np.array(same), image, time, truth=truth))
            writer.append(*chunks)
    return path


def collect(path, wanted=None):
    with DL1File(path) as file:
        parts = list(tile_file(file, RECIPE, chosen_cameras(file, wanted)))
    batches = [batch for batch, _ in parts]
    names = ("event_id", "tel_id", "shower_id", "camera")
    return {name: np.concatenate([b.events[name] for b in batches]) for name in names} | {
        "group": np.concatenate([b.group for b in batches]),
        "images": np.concatenate([b.images for b in batches]),
        "sizes": [len(b) for b in batches],
    }


def test_images_of_a_shower_stand_together(tmp_path):
    telescopes = dict.fromkeys((1, 2, 3), LST)
    events = [[1, 2, 3], [2], [1, 3], [1, 2, 3], [3]]
    found = collect(write_file(tmp_path / "run.h5", telescopes, events, showers=[7, 5, 7, 5, 9]))
    names = ("shower_id", "event_id", "tel_id")
    assert list(zip(*(found[name].tolist() for name in names), strict=True)) == [
        (7, 0, 1), (7, 0, 2), (7, 0, 3), (7, 2, 1), (7, 2, 3), (5, 1, 2), (5, 3, 1), (5, 3, 2), (5, 3, 3), (9, 4, 3),
    ]  # fmt: skip
    assert found["group"].tolist() == [0] * 5 + [1] * 4 + [2]


def test_blocks_end_with_a_shower(tmp_path, monkeypatch):
    path = write_file(
        tmp_path / "run.h5", dict.fromkeys((1, 2), LST), [[1, 2], [1], [1, 2], [2], [1, 2]], [0, 0, 0, 1, 2]
    )
    together = collect(path)
    monkeypatch.setattr("pipeline.camera.tiling._chunk_images", lambda *_: 2)
    found = collect(path)
    assert found.pop("sizes") == [5, 1, 2]
    together.pop("sizes")
    for name, column in found.items():
        np.testing.assert_array_equal(column, together[name])


def test_choice_of_the_camera(tmp_path):
    path = write_file(tmp_path / "run.h5", {1: LST, 5: MST, 6: MST}, [[1], [5, 6], [5]])
    assert set(collect(path)["tel_id"]) == {5, 6}
    for wanted in ("LST", "LSTCam", LST.identity):
        assert set(collect(path, wanted)["tel_id"]) == {1}
    with (
        DL1File(path) as file,
        pytest.raises(
            InputFileError,
            match=r"has no camera 'CHEC'; it has .*LSTCam.*NectarCam.*: set .* to one of them, or to all",
        ),
    ):
        chosen_cameras(file, "CHEC")


MIXED = {1: LST, 2: LST, 5: MST, 6: MST}
MIXED_EVENTS = [[1, 5, 6], [5], [1, 2], [1, 2, 5, 6], [6]]


def test_images_of_an_event_stand_together_across_cameras(tmp_path):
    path = write_file(tmp_path / "run.h5", MIXED, MIXED_EVENTS, showers=[7, 5, 7, 5, 9])
    with DL1File(path) as file:
        identities = chosen_cameras(file, "all")
        assert identities == sorted([LST.identity, MST.identity])
    found = collect(path, "all")
    names = ("shower_id", "event_id", "tel_id")
    assert list(zip(*(found[name].tolist() for name in names), strict=True)) == [
        (7, 0, 1), (7, 0, 5), (7, 0, 6), (7, 2, 1), (7, 2, 2), (5, 1, 5), (5, 3, 1), (5, 3, 2), (5, 3, 5), (5, 3, 6),
        (9, 4, 6),
    ]  # fmt: skip
    lst, mst = (identities.index(camera.identity) for camera in (LST, MST))
    assert found["camera"].tolist() == [lst, mst, mst, lst, lst, mst, lst, lst, mst, mst, mst]
    assert found["camera"].dtype == np.int16
    assert found["group"].tolist() == [0] * 5 + [1] * 5 + [2]


@pytest.mark.parametrize("wanted", ["LST", "MST"])
def test_one_camera_has_the_tiles_that_it_has_among_all(tmp_path, wanted):
    path = write_file(tmp_path / "run.h5", MIXED, MIXED_EVENTS, showers=[7, 5, 7, 5, 9])
    alone, together = collect(path, wanted), collect(path, "all")
    own = np.isin(together["tel_id"], (1, 2) if wanted == "LST" else (5, 6))
    assert set(alone["camera"].tolist()) == {0}
    for name in ("event_id", "tel_id", "shower_id", "images"):
        np.testing.assert_array_equal(alone[name], together[name][own], err_msg=name)


def test_blocks_of_several_cameras_are_bounded_and_end_with_a_shower(tmp_path, monkeypatch):
    path = write_file(tmp_path / "run.h5", MIXED, MIXED_EVENTS, showers=[0, 0, 1, 2, 3])
    whole = collect(path, "all")
    asked = []
    monkeypatch.setattr("pipeline.camera.tiling._chunk_images", lambda *sizes: asked.append(sizes) or 3)
    read, reading = [], DL1File.read
    monkeypatch.setattr(DL1File, "read", lambda file, tel, rows: read.append(len(rows)) or reading(file, tel, rows))
    found = collect(path, "all")
    assert asked == [(max(LST.n_pixels, MST.n_pixels), 24)]
    # Showers of 4, 2, 4 and 1 images: one that is larger than a block is a block of its own.
    assert found.pop("sizes") == [4, 2, 4, 1]
    assert max(read) <= 3
    whole.pop("sizes")
    for name, column in found.items():
        np.testing.assert_array_equal(column, whole[name], err_msg=name)


def test_all_cameras_are_those_of_the_array(tmp_path):
    """Also one without an image: shards of all runs are alike."""
    path = write_file(tmp_path / "run.h5", {1: LST, 5: MST}, [[1], [1]])
    with DL1File(path) as file:
        identities = chosen_cameras(file, "all")
        attributes = shard_attributes(file, RECIPE, identities)
        assert chosen_cameras(file, None) == [LST.identity]
    entries = {entry["identity"]: entry for entry in attributes["cameras"]}
    assert list(entries) == identities == sorted([LST.identity, MST.identity])
    for camera, kind in ((LST, "LST"), (MST, "MST")):
        assert entries[camera.identity] == {
            "identity": camera.identity, "name": camera.name, "type": kind, "focal_length_m": camera.focal_length_m,
            "tile_pixel_deg": pytest.approx(tile_mapper(camera, 24).pixel_deg),
        }  # fmt: skip
    assert collect(path, "all")["camera"].tolist() == [identities.index(LST.identity)] * 2


def test_an_image_without_an_event(tmp_path):
    path = write_file(tmp_path / "run.h5", {1: LST}, [[1], [1], [1]])
    with h5py.File(path, "r+") as file:
        table = file["/dl1/event/subarray/trigger"]
        rows = table[:]
        rows["event_id"][1] = 77
        table[:] = rows
    with pytest.raises(
        InputFileError,
        match=r"1 of 3 images have no trigger \(first: run 1, event 1, telescope 1: no array",
    ):
        collect(path)
