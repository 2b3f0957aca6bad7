import h5py
import numpy as np
import pytest

from pipeline.camera.dl1 import DL1File, DL1Writer, EventChunk, ShowerDistribution, SimulationRun, Subarray
from pipeline.camera.dl1.coordinates import high_resolution_time, seconds_of_high_resolution
from pipeline.camera.geometry import Camera
from pipeline.errors import InputFileError

ALT, AZ = np.radians(70.0), np.radians(180.0)
RUN = SimulationRun(
    0.05, 10.0, -2.0, n_showers=20, shower_reuse=2, max_scatter_range_m=300.0, max_viewcone_radius_deg=2
)


def camera(rings=4, focal_length_m=28.0, name="LSTCam", area=386.0):
    q, r = np.meshgrid(np.arange(-rings, rings + 1), np.arange(-rings, rings + 1))
    inside = abs(q + r) <= rings
    x, y = 0.05 * (q[inside] + 0.5 * r[inside]), 0.05 * np.sqrt(3) / 2 * r[inside]
    return Camera(
        name, x, y, np.full(len(x), 0.00216), True, focal_length_m, mirror_area_m2=area, optics_name=name[:3],
        effective_focal_length_m=1.05 * focal_length_m, n_samples=40, sampling_rate_ghz=1.0, n_mirror_tiles=198,
        reflector_shape="PARABOLIC", reference_pulse=np.array([[0.0, 1.0, 0.5]]), reference_pulse_step_ns=0.5,
    )  # fmt: skip


def subarray(n_tel=1):
    lst = camera()
    telescopes = dict.fromkeys(range(1, n_tel + 1), lst)
    return Subarray("test", telescopes, {t: (80.0 * t, -50.0, 10.0) for t in telescopes}, 2158.0, -17.9, 28.76)


def chunk(rng, array, first_shower, n_showers, uses=2, parameters=True):
    """Two uses of each shower; every use is seen by all telescopes."""
    tel_ids = list(array.telescopes)
    event_id = np.repeat(
        [100 * shower + use for shower in range(first_shower, first_shower + n_showers) for use in range(uses)],
        len(tel_ids),
    )
    n, n_pixels = len(event_id), array.telescopes[tel_ids[0]].n_pixels
    per_event = lambda low, high: np.repeat(rng.uniform(low, high, n // len(tel_ids)), len(tel_ids))  # noqa: E731
    true_image = rng.poisson(1.0, (n, n_pixels))
    truth = {
        "true_energy_tev": per_event(0.1, 1), "true_alt_deg": per_event(69, 71), "true_az_deg": per_event(179, 181),
        "true_core_x_m": per_event(-200, 200), "true_core_y_m": per_event(-200, 200),
        "true_h_first_int_m": per_event(1e4, 3e4), "true_x_max_g_cm2": per_event(200, 400),
        "true_primary_id": np.full(n, 101), "shower_id": event_id // 100,
    }  # fmt: skip
    image = (true_image + rng.normal(0, 0.3, true_image.shape)).astype(np.float32)
    return EventChunk(
        event_id=event_id,
        tel_id=np.tile(tel_ids, n // len(tel_ids)),
        image=image,
        peak_time=rng.uniform(5, 35, image.shape).astype(np.float32),
        image_mask=image > 2,
        is_valid=rng.uniform(size=n) > 0.1,
        time_s=1.7e9 + np.arange(n) / 8,
        truth=truth,
        true_image=true_image,
        parameters={"hillas_intensity": image.sum(axis=1), "hillas_length": per_event(0.1, 0.3)}
        if parameters
        else None,
    )


def write(path, array, chunks, simulation=RUN, **kwargs):
    with DL1Writer(
        path, array, obs_id=7, pointing_alt_rad=ALT, pointing_az_rad=AZ, simulation=simulation, **kwargs
    ) as writer:
        for part in chunks:
            writer.append(part)
    return path


@pytest.fixture(scope="module")
def stereo(tmp_path_factory):
    rng = np.random.default_rng(0)
    array = subarray(3)
    chunks = [chunk(rng, array, 0, 5), chunk(rng, array, 5, 5)]
    path = write(tmp_path_factory.mktemp("dl1") / "run_1.dl1.h5", array, chunks, provenance={"stage": "test"})
    return path, array, chunks


def rows_of(chunks, name, tel_id):
    return np.concatenate([getattr(part, name)[part.tel_id == tel_id] for part in chunks])


# ---- our reader ------------------------------------------------------------------------------------------------------
def test_round_trip(stereo):
    path, array, chunks = stereo
    with DL1File(path) as file:
        assert (file.source, file.data_model_version, file.obs_ids) == ("run_1", "v7.1.0", [7])
        assert (file.n_images, file.n_events, file.tel_ids) == (60, 20, [1, 2, 3])
        assert file.has_truth
        assert file.pointing == pytest.approx((70, 180), abs=1e-5)
        assert file.telescopes[1] is file.telescopes[3]
        assert file.telescopes[1].identity == array.telescopes[1].identity
        assert file.telescopes[1].reference_pulse.tolist() == [[0.0, 1.0, 0.5]]
        read = list(file.chunks(size=7, tel_ids=[2]))
    assert [len(part) for part in read] == [7, 7, 6]
    for name in ("event_id", "image", "peak_time", "is_valid"):
        np.testing.assert_array_equal(np.concatenate([getattr(p, name) for p in read]), rows_of(chunks, name, 2))
    np.testing.assert_array_equal(np.concatenate([p.shower_id for p in read]), np.repeat(np.arange(10), 2))
    energy = np.concatenate([part.truth["true_energy_tev"][part.tel_id == 2] for part in chunks])
    assert np.concatenate([part.truth["true_energy_tev"] for part in read]) == pytest.approx(energy, rel=1e-12)
    # An array event has one time: that of its first telescope.
    assert np.concatenate([p.time_s for p in read]) == pytest.approx(rows_of(chunks, "time_s", 1), abs=1e-6)


def test_selected_events(stereo):
    path, _, _ = stereo
    with DL1File(path) as file:
        read = list(file.chunks(event_ids=[101, 900], tel_ids=[3]))
        assert [part.event_id.tolist() for part in read] == [[101, 900]]
        with pytest.raises(InputFileError, match=r"has no telescope 9; it has \[1, 2, 3\]"):
            next(file.chunks(tel_ids=[9]))


def test_far_rows_are_read_apart(stereo, monkeypatch):
    with DL1File(stereo[0]) as file:
        monkeypatch.setattr("pipeline.camera.dl1.image_keys._FAR_ROWS", 2)
        read = file.read(1, np.array([0, 1, 3, 18]))
        everything = next(file.chunks(tel_ids=[1]))
    np.testing.assert_array_equal(read.event_id, [0, 1, 101, 900])
    np.testing.assert_array_equal(read.image, everything.image[[0, 1, 3, 18]])


def test_impact_and_offset(stereo):
    path, _, chunks = stereo
    with DL1File(path) as file, h5py.File(path) as raw:
        truth = next(file.chunks(tel_ids=[2])).truth
        stored = raw["/simulation/event/telescope/impact/tel_002"]["true_impact_distance"]
    assert truth["true_impact_m"] == pytest.approx(stored, rel=1e-9)
    assert truth["true_offset_deg"].max() < 1.1
    alt, az = (
        np.concatenate([p.truth[name][p.tel_id == 2] for p in chunks]) for name in ("true_alt_deg", "true_az_deg")
    )
    flat = np.hypot(alt - 70, (az - 180) * np.cos(ALT))
    assert truth["true_offset_deg"] == pytest.approx(flat, rel=0.03, abs=0.002)


def test_observation_has_no_truth(tmp_path):
    array = subarray()
    part = chunk(np.random.default_rng(1), array, 0, 4)
    part.truth, part.true_image = {}, None
    path = write(tmp_path / "obs.dl1.h5", array, [part], simulation=None)
    with DL1File(path) as file:
        read = next(file.chunks())
    assert not file.has_truth
    assert read.truth == {}
    np.testing.assert_array_equal(read.shower_id, read.event_id)


def test_equal_runs_give_equal_bytes(tmp_path):
    array = subarray(2)
    contents = []
    for name in ("a.h5", "b.h5"):
        path = write(tmp_path / name, array, [chunk(np.random.default_rng(2), array, 0, 4)], provenance={"seed": 2})
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]


def test_times_round_trip():
    time_s = np.array([0.0, 1.25, 1.7e9 + 0.1, 1.7e9 + 1 - 1e-7, np.nan, -5.0])
    back = seconds_of_high_resolution(high_resolution_time(time_s))
    assert back == pytest.approx([0, 1.25, 1.7e9 + 0.1, 1.7e9 + 1 - 1e-7, 0, 0], abs=3e-7)


def change(path, tmp_path, edit):
    import hdf5plugin  # noqa: F401

    changed = tmp_path / "changed.dl1.h5"
    changed.write_bytes(path.read_bytes())
    with h5py.File(changed, "r+") as file:
        edit(file)
    return changed


def rewrite(file, path, dtypes=None, drop=(), **columns):
    """Put a table in the place of another, with other types, columns or values; its attributes stay."""
    old, attributes = file[path][:], dict(file[path].attrs)
    names = [name for name in old.dtype.names if name not in drop]
    new = np.zeros(len(old), [(name, (dtypes or {}).get(name, old.dtype[name])) for name in names])
    for name in names:
        new[name] = columns.get(name, old[name] if name not in (dtypes or {}) else 0)
    del file[path]
    file[path] = new
    file[path].attrs.update(attributes)


def test_fixed_point_columns(stereo, tmp_path):
    path, _, chunks = stereo
    values = rows_of(chunks, "image", 1)

    stored = np.rint(values * 10) + 1000
    stored[0, :3] = 65534, 65535, 65533

    def edit(file):
        table = "/dl1/event/telescope/images/tel_001"
        rewrite(file, table, {"image": ("u2", values.shape[1:])}, image=stored)
        position = file[table].dtype.names.index("image")
        file[table].attrs[f"CTAFIELD_{position}_TRANSFORM_SCALE"] = 10
        file[table].attrs[f"CTAFIELD_{position}_TRANSFORM_OFFSET"] = 1000

    with DL1File(change(path, tmp_path, edit)) as file:
        image = next(file.chunks(tel_ids=[1])).image
    np.testing.assert_array_equal(image[0, :3], [np.nan, np.inf, -np.inf])
    assert image[1:] == pytest.approx(values[1:], abs=0.0501)


def test_geometry_in_millimetres(stereo, tmp_path):
    def edit(file):
        table = file["/configuration/instrument/telescope/camera/geometry_0"]
        data = table[:]
        data["pix_x"] *= 1e3
        table[:] = data
        table.attrs["CTAFIELD_1_UNIT"] = "mm"

    with DL1File(change(stereo[0], tmp_path, edit)) as file:
        assert file.telescopes[1].identity == stereo[1].telescopes[1].identity


@pytest.mark.parametrize("version", ["v4.0.0", "v6.0.0"])
def test_older_data_models(stereo, tmp_path, version):
    """Up to v6 times are Modified Julian dates, up to v4 the pointing stands in the monitoring group."""

    def edit(file):
        file.attrs["CTA PRODUCT DATA MODEL VERSION"] = np.bytes_(version)
        rewrite(file, "/dl1/event/subarray/trigger", {"time": "f8"}, time=60000.5)
        if version == "v4.0.0":
            del file["/configuration/telescope/pointing"]
            pointing = np.array([(0.0, AZ, ALT)] * 5, [("time", "f8"), ("azimuth", "f8"), ("altitude", "f8")])
            for tel_id in (1, 2, 3):
                table = file.create_dataset(f"/dl1/monitoring/telescope/pointing/tel_{tel_id:03d}", data=pointing)
                table.attrs.update({"CTAFIELD_1_UNIT": b"rad", "CTAFIELD_2_UNIT": b"rad"})

    with DL1File(change(stereo[0], tmp_path, edit)) as file, DL1File(stereo[0]) as newer:
        old, new = next(file.chunks()), next(newer.chunks())
    assert old.time_s == pytest.approx((60000.5 - 40587) * 86400)
    assert old.truth["true_offset_deg"] == pytest.approx(new.truth["true_offset_deg"], abs=1e-5)
    np.testing.assert_array_equal(old.image, new.image)


def test_showers_of_sim_telarray(stereo, tmp_path):
    """Without our column, sim_telarray's numbering of reused showers is used."""

    def edit(file):
        rewrite(file, "/simulation/event/subarray/shower", drop=["shower_id"])
        run = file["/configuration/simulation/run"]
        data = run[:]
        data["detector_prog_id"] = 1
        run[:] = data

    with DL1File(change(stereo[0], tmp_path, edit)) as file:
        np.testing.assert_array_equal(next(file.chunks()).shower_id, np.repeat(np.arange(10), 2))


# ---- answers to what cannot be read ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda f: f.attrs.__setitem__("CTA PRODUCT DATA MODEL VERSION", b"v9.0.0"),
            "has data model v9.0.0; accepted: v4",
        ),
        (lambda f: f.attrs.__delitem__("CTA PRODUCT DATA MODEL VERSION"), "is HDF5 but not DL1"),
        (lambda f: f.__delitem__("/dl1/event/telescope/images"), "has no camera images of array events"),
        (
            lambda f: f.__delitem__("/configuration/instrument"),
            "is damaged or incomplete: its tables of telescopes cannot be read",
        ),
        (
            lambda f: f["/configuration/instrument/subarray/layout"].attrs.__setitem__("CTAFIELD_3_UNIT", b"inch"),
            "has pos_x in 'inch'; accepted: m, cm, mm, km",
        ),
    ],
)
def test_wrong_content(stereo, tmp_path, edit, message):
    path = change(stereo[0], tmp_path, edit)
    with pytest.raises(InputFileError, match=message):
        DL1File(path)


def test_unreadable_files(stereo, tmp_path):
    with pytest.raises(InputFileError, match="does not exist"):
        DL1File(tmp_path / "missing.h5")
    with pytest.raises(InputFileError, match="is a directory"):
        DL1File(tmp_path)
    bad = tmp_path / "bad.h5"
    bad.write_bytes(b"")
    with pytest.raises(InputFileError, match="is empty"):
        DL1File(bad)
    bad.write_text("not HDF5 at all")
    with pytest.raises(InputFileError, match="is not an HDF5 file"):
        DL1File(bad)
    bad.write_bytes(stereo[0].read_bytes()[:-1000])
    with pytest.raises(InputFileError, match="is cut short"):
        DL1File(bad)


def test_damaged_images(stereo, tmp_path):
    content = bytearray(stereo[0].read_bytes())
    with h5py.File(stereo[0]) as file:
        place = file["/dl1/event/telescope/images/tel_002"].id.get_chunk_info(0)
    middle = place.byte_offset + place.size // 2
    content[middle : middle + 64] = bytes(64)
    bad = tmp_path / "bad.h5"
    bad.write_bytes(content)
    with DL1File(bad) as file:
        next(file.chunks(tel_ids=[1]))
        with pytest.raises(InputFileError, match="is damaged: a part of its data cannot be read"):
            next(file.chunks(tel_ids=[2]))


def test_wrong_chunks(tmp_path):
    array = subarray(2)
    part = chunk(np.random.default_rng(0), array, 0, 2)
    order = np.array([0, 2, 1, 3, 4, 5, 6, 7])
    torn = EventChunk(part.event_id[order], part.tel_id, part.image, part.peak_time)
    alien = EventChunk(part.event_id, part.tel_id + 5, part.image, part.peak_time)
    small = EventChunk(part.event_id, part.tel_id, part.image[:, 1:], part.peak_time[:, 1:])
    for wrong, message in (
        (torn, "must be adjacent"),
        (alien, r"\[6, 7\] are not in the"),
        (small, "have 60 pixels"),
    ):
        with pytest.raises(ValueError, match=message):
            write(tmp_path / "x.h5", array, [wrong])
    halves = [
        EventChunk(part.event_id[s], part.tel_id[s], part.image[s], part.peak_time[s]) for s in (slice(3), slice(3, 8))
    ]
    with pytest.raises(ValueError, match="must be adjacent"):
        write(tmp_path / "x.h5", array, halves)
    with pytest.raises(ValueError, match="columns of other lengths"):
        EventChunk(part.event_id[1:], part.tel_id, part.image, part.peak_time)


# ---- several cameras, waveforms, what was thrown ---------------------------------------------------------------------
def mixed_array():
    large, small = camera(), camera(rings=3, focal_length_m=16.0, name="MSTCam", area=100.0)
    telescopes = {1: large, 2: small, 3: large}
    return Subarray("mixed", telescopes, {t: (50.0 * t, 0.0, 10.0) for t in telescopes})


def chunks_by_camera(rng, array):
    """Events 100 to 103 seen by telescope 1 (even numbers), 2 (all) and 3 (the last), one chunk for each camera."""
    seen = {array.telescopes[1]: ([100, 102, 103], [1, 1, 3]), array.telescopes[2]: ([100, 101, 102, 103], [2] * 4)}
    for cam, (event_id, tel_id) in seen.items():
        n = len(event_id)
        image = rng.normal(size=(n, cam.n_pixels)).astype(np.float32)
        yield EventChunk(
            event_id=np.array(event_id),
            tel_id=np.array(tel_id),
            image=image,
            peak_time=image,
            time_s=np.array(event_id) + 0.001 * np.array(tel_id),
            truth={"true_energy_tev": np.array(event_id) / 100},
            waveforms=rng.normal(size=(n, cam.n_pixels, 5)).astype(np.float32),
            is_broken=np.arange(cam.n_pixels)[None] == np.array(tel_id)[:, None],
        )


def test_cameras_of_different_size_have_chunks_of_their_own(tmp_path):
    from ctapipe.io import EventSource

    array = mixed_array()
    large, small = chunks_by_camera(np.random.default_rng(0), array)
    path = tmp_path / "mixed.dl1.h5"
    with DL1Writer(path, array, obs_id=7, pointing_alt_rad=ALT, pointing_az_rad=AZ, simulation=RUN) as writer:
        writer.append(large, small)
        assert (writer.n_events, writer.n_images) == (4, 7)
    with DL1File(path) as file:
        assert [(chunk.tel_id, chunk.event_id.tolist()) for chunk in file.chunks()] == [
            (1, [100, 102]), (2, [100, 101, 102, 103]), (3, [103]),
        ]  # fmt: skip
        np.testing.assert_array_equal(next(file.chunks(tel_ids=[2])).image, small.image)
    with h5py.File(path) as file:
        assert file.attrs["CTA PRODUCT DATA LEVELS"] in ("DL1_IMAGES,R1", b"DL1_IMAGES,R1")
    expected = {100: [1, 2], 101: [2], 102: [1, 2], 103: [2, 3]}
    with EventSource(path) as source:
        for event in source:
            assert sorted(event.r1.tel) == expected[event.index.event_id]
            assert event.simulation.shower.energy.to_value("TeV") == event.index.event_id / 100
            for tel_id, r1 in event.r1.tel.items():
                chunk = small if tel_id == 2 else large
                row = np.flatnonzero((chunk.event_id == event.index.event_id) & (chunk.tel_id == tel_id))
                np.testing.assert_array_equal(r1.waveform, chunk.waveforms[row])
                assert np.flatnonzero(r1.pixel_status == 0).tolist() == [tel_id]
                assert r1.event_time.unix_tai == pytest.approx(event.index.event_id + 0.001 * tel_id, abs=1e-9)


def test_events_of_several_chunks_rise(tmp_path):
    array = mixed_array()
    large, small = chunks_by_camera(np.random.default_rng(0), array)
    large.event_id = large.event_id[::-1]
    with (
        DL1Writer(tmp_path / "x.h5", array, obs_id=7, pointing_alt_rad=ALT, pointing_az_rad=AZ) as writer,
        pytest.raises(ValueError, match="must be adjacent in a chunk, and event ids rise"),
    ):
        writer.append(large, small)


def test_thrown_showers(tmp_path):
    from ctapipe.io import EventSource, HDF5Merger

    thrown = ShowerDistribution(40, np.geomspace(0.1, 10, 5), np.linspace(0, 300, 4), np.full((4, 3), 3.0))
    with DL1Writer(
        tmp_path / "a.h5", subarray(), obs_id=7, pointing_alt_rad=ALT, pointing_az_rad=AZ, simulation=RUN
    ) as writer:
        writer.append(chunk(np.random.default_rng(2), subarray(), 0, 4))
        writer.write_shower_distribution(thrown)
    with HDF5Merger(tmp_path / "b.h5") as merger:
        merger(tmp_path / "a.h5")
    for name in ("a.h5", "b.h5"):
        with EventSource(tmp_path / name) as source:
            read = source.simulated_shower_distributions[7]
        assert read.n_entries == 40
        assert read.bins_core_dist[-1].to_value("m") == pytest.approx(300)
        np.testing.assert_allclose(read.bins_energy.to_value("TeV"), thrown.bins_energy_tev)
        np.testing.assert_array_equal(read.histogram, thrown.histogram)


# ---- ctapipe reads what we write -------------------------------------------------------------------------------------
def test_table_loader(stereo):
    from ctapipe.io import TableLoader

    path, array, chunks = stereo
    with TableLoader(path) as loader:
        assert loader.subarray.tel[1].camera.geometry.n_pixels == 61
        assert loader.subarray.tel[1].optics.effective_focal_length.to_value("m") == pytest.approx(29.4)
        assert loader.subarray.reference_location.geodetic.lat.deg == pytest.approx(28.76)
        np.testing.assert_allclose(loader.subarray.positions[2].to_value("m"), array.positions_m[2])
        events = loader.read_telescope_events_by_id(
            dl1_images=True, true_images=True, simulated=True, observation_info=True
        )
        stereo_events = loader.read_subarray_events()
        run = loader.read_simulation_configuration()
    for tel_id, table in events.items():
        np.testing.assert_array_equal(table["image"], rows_of(chunks, "image", tel_id))
        np.testing.assert_array_equal(table["image_mask"], rows_of(chunks, "image_mask", tel_id))
        np.testing.assert_array_equal(table["true_image"], rows_of(chunks, "true_image", tel_id))
        assert table["hillas_length"].unit == "deg"
        assert table["true_energy"].unit == "TeV"
        assert np.isnan(table["hillas_width"]).all()
    assert stereo_events["tels_with_trigger"].shape == (20, 3)
    assert stereo_events["tels_with_trigger"].dtype == bool
    assert stereo_events["tels_with_trigger"].all()
    assert stereo_events["time"].unix_tai[2] == pytest.approx(1.7e9 + 6 / 8, abs=1e-6)
    assert run["n_showers"][0] == 20
    assert run["max_scatter_range"].quantity[0].to_value("m") == 300


def test_event_source(stereo):
    from ctapipe.io import EventSource

    path, _, chunks = stereo
    with EventSource(path) as source:
        assert source.is_simulation
        assert source.simulation_config[7].spectral_index == -2
        for i, event in enumerate(source):
            assert event.index.event_id == chunks[i // 10].event_id[3 * (i % 10)]
            assert event.trigger.event_type.name == "SUBARRAY"
            for j, (tel_id, camera_event) in enumerate(event.dl1.tel.items()):
                row = 3 * (i % 10) + j
                np.testing.assert_array_equal(camera_event.image, chunks[i // 10].image[row])
                np.testing.assert_array_equal(event.simulation.tel[tel_id].true_image, chunks[i // 10].true_image[row])
                assert event.monitoring.tel[tel_id].pointing.altitude.to_value("rad") == pytest.approx(ALT)
            energy = event.simulation.shower.energy.to_value("TeV")
            assert energy == pytest.approx(chunks[i // 10].truth["true_energy_tev"][3 * (i % 10)])
        assert i == 19


def test_ctapipe_merges(stereo, tmp_path):
    from ctapipe.io import HDF5Merger

    with HDF5Merger(tmp_path / "merged.dl1.h5") as merger:
        merger(stereo[0])
    with DL1File(tmp_path / "merged.dl1.h5") as file:
        assert file.n_images == 60
        np.testing.assert_array_equal(next(file.chunks()).shower_id, np.repeat(np.arange(10), 2))
