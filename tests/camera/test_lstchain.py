import json

import h5py
import numpy as np
import pytest

from pipeline.camera.dl1 import DL1File
from pipeline.camera.lstchain import convert
from pipeline.config import Config
from pipeline.errors import InputFileError
from pipeline.stages.info import describe_file
from pipeline.stages.ingest import ingest
from pipeline.stages.predict import predict

N_PIXELS, N_EVENTS = 37, 12
_LAYOUT = "configuration/instrument/subarray/layout"
_IMAGES = "dl1/event/telescope/image/LST_LSTCam"
_PARAMETERS = "dl1/event/telescope/parameters/LST_LSTCam"
_RUN, _THROWN = "simulation/run_config", "simulation/thrown_event_distribution"


def table(file, path, units=None, attributes=None, **columns):
    dtype = [(name, np.asarray(values).dtype, np.shape(values)[1:]) for name, values in columns.items()]
    rows = np.zeros(len(next(iter(columns.values()))), dtype)
    for name, values in columns.items():
        rows[name] = values
    dataset = file.create_dataset(path, data=rows)
    for name, unit in (units or {}).items():
        dataset.attrs[f"CTAFIELD_{list(columns).index(name)}_UNIT"] = np.bytes_(unit)
    dataset.attrs.update(attributes or {})


def write_lstchain(path, *, simulated, n=N_EVENTS):
    """The tables of an lstchain file that matter, with a camera of 37 pixels."""
    rng = np.random.default_rng(0)
    q, r = np.meshgrid(np.arange(-3, 4), np.arange(-3, 4))
    inside = abs(q + r) <= 3
    x, y = 0.05 * (q[inside] + 0.5 * r[inside]), 0.05 * np.sqrt(3) / 2 * r[inside]
    image = rng.normal(0, 1, (n, N_PIXELS)).astype("f4")
    image[:, 15:21] += 30
    event_type = np.full(n, 32)
    event_type[3] = 0 if not simulated else 32
    with h5py.File(path, "w") as file:
        metres = dict.fromkeys(("pos_x", "pos_y", "pos_z"), "m")
        table(
            file, _LAYOUT, metres, {"SUBARRAY": b"LST-1"}, tel_id=np.array([1], "i2"), name=[b"LST"], type=[b"LST"],
            pos_x=[-6.3], pos_y=[60.4], pos_z=[12.5], camera_name=[b"LSTCam"], optics_name=[b"LST"], camera_index=[0],
            optics_index=[0], tel_description=[b"LST_LST_LSTCam"],
        )  # fmt: skip
        geometry = {"CAM_ID": b"LSTCam", "PIX_TYPE": b"hexagon", "PIX_ROT": 100.893, "CAM_ROT": 0.0}
        camera = "configuration/instrument/telescope/camera"
        table(
            file, f"{camera}/geometry_0", {"pix_x": "mm", "pix_y": "m", "pix_area": "m**2"}, geometry,
            pix_id=np.arange(N_PIXELS), pix_x=1000 * x, pix_y=y, pix_area=np.full(N_PIXELS, 0.00216),
        )  # fmt: skip
        readout = {
            "CAM_ID": b"LSTCam",
            "NCHAN": 1,
            "NPIXELS": N_PIXELS,
            "NSAMPLES": 40,
            "SAMPFREQ": 1.024,
            "REFWIDTH": 0.5,
        }
        table(
            file, f"{camera}/readout_0", {"reference_pulse_sample_time": "ns"}, readout,
            reference_pulse_shape_channel0=[0.0, 1.0], reference_pulse_sample_time=[0.0, 0.5],
        )  # fmt: skip
        optics = {"mirror_area": "m**2", "equivalent_focal_length": "m", "effective_focal_length": "m"}
        table(
            file, "configuration/instrument/telescope/optics", optics, optics_name=[b"LST"], size_type=[b"LST"],
            reflector_shape=[b"PARABOLIC"], mirror_area=[386.7], n_mirrors=[1], n_mirror_tiles=[198],
            equivalent_focal_length=[28.0], effective_focal_length=[29.3],
        )  # fmt: skip
        ids = {"obs_id": np.full(n, 7), "event_id": 100 * (np.arange(n) // 4 + 1) + np.arange(n) % 4}
        table(
            file, _IMAGES, **ids, image=image, peak_time=rng.uniform(5, 30, (n, N_PIXELS)).astype("f4"),
            image_mask=(image > 10).astype("u1"), is_valid=np.ones(n, "u1"), tel_id=np.ones(n, int),
        )  # fmt: skip
        pointing = {"alt_tel": np.full(n, 1.2), "az_tel": 3.0 + 1e-4 * np.arange(n), "tel_id": np.ones(n, int)}
        times = {"trigger_time": 1.6e9 + np.arange(n), "event_type": event_type}
        truth = {
            "mc_energy": np.full(n, 250.0), "mc_alt": np.full(n, 1.2), "mc_az": np.full(n, 3.0),
            "mc_core_x": np.full(n, 50.0),
            "mc_core_y": np.full(n, -20.0), "mc_h_first_int": np.full(n, 2e4), "mc_x_max": np.full(n, 300.0),
            "mc_type": np.full(n, 101),
        }  # fmt: skip
        units = {"alt_tel": "rad", "az_tel": "rad"} | ({"mc_energy": "GeV", "mc_alt": "rad"} if simulated else {})
        table(file, _PARAMETERS, units, **ids, **pointing, **times, **(truth if simulated else {}))
        if simulated:
            table(
                file, "simulation/run_config", {"energy_range_min": "TeV", "energy_range_max": "TeV"},
                **{name: [value] for name, value in {
                    "energy_range_min": 0.1, "energy_range_max": 5.0, "spectral_index": -2.0, "n_showers": 3,
                    "shower_reuse": 4, "max_scatter_range": 250.0, "min_scatter_range": 0.0, "max_viewcone_radius": 2.0,
                    "min_viewcone_radius": 0.0, "max_alt": 1.2, "min_alt": 1.2, "max_az": 3.0, "min_az": 3.0,
                    "prod_site_alt": 2199.0, "atmosphere": 99, "corsika_version": 7710, "shower_prog_id": 1,
                    "detector_prog_id": 1,
                }.items()},
            )  # fmt: skip
    return path, image


def test_simulated_file(tmp_path):
    path, image = write_lstchain(tmp_path / "mc.h5", simulated=True)
    counts = convert(path, tmp_path / "mc.dl1.h5")
    assert counts == {
        "n_events": 12, "n_images": 12, "n_telescopes": 1, "notes": ["no histogram of thrown showers"],
    }  # fmt: skip
    with DL1File(tmp_path / "mc.dl1.h5") as file:
        chunk = next(file.chunks())
        assert file.obs_ids == [7]
    np.testing.assert_array_equal(chunk.image, image)
    assert chunk.camera.pitch_m == pytest.approx(0.05)  # millimetres on one axis
    assert chunk.truth["true_energy_tev"] == pytest.approx(0.25)  # GeV
    assert chunk.truth["true_alt_deg"] == pytest.approx(np.degrees(1.2))
    assert chunk.truth["true_core_x_m"] == pytest.approx(50)  # no unit in the file: lstchain's
    assert chunk.truth["true_primary_id"].tolist() == [101] * 12
    assert chunk.shower_id.tolist() == np.repeat([1, 2, 3], 4).tolist()
    assert chunk.time_s[0] == pytest.approx(1.6e9 + 37)  # leap seconds between Unix time and TAI


def test_observed_file(tmp_path):
    path, image = write_lstchain(tmp_path / "obs.h5", simulated=False)
    counts = convert(path, tmp_path / "obs.dl1.h5")
    assert counts["n_images"] == 12
    assert counts["notes"] == ["1 images are of no shower: event type flat field"]
    with DL1File(tmp_path / "obs.dl1.h5") as file:
        assert not file.has_truth
        assert file.pointing == pytest.approx(np.degrees((1.2, 3.0 + 5.5e-4)), abs=1e-4)
        chunk = next(file.chunks())
    np.testing.assert_array_equal(chunk.image, image)
    assert chunk.event_type.tolist() == [0 if place == 3 else 32 for place in range(12)]
    assert chunk.left_out.tolist() == ["event type flat field" if place == 3 else "" for place in range(12)]
    with h5py.File(tmp_path / "obs.dl1.h5") as raw:
        drive = raw["/dl0/monitoring/telescope/pointing/tel_001"]
        assert drive["azimuth"] == pytest.approx(3.0 + 1e-4 * np.arange(12))


def test_chunks_do_not_tear_events(tmp_path, monkeypatch):
    path, _ = write_lstchain(tmp_path / "mc.h5", simulated=True)
    convert(path, tmp_path / "whole.dl1.h5")
    monkeypatch.setattr("pipeline.camera.lstchain._CHUNK", 5)
    convert(path, tmp_path / "parts.dl1.h5")
    with DL1File(tmp_path / "whole.dl1.h5") as whole, DL1File(tmp_path / "parts.dl1.h5") as parts:
        np.testing.assert_array_equal(next(whole.chunks()).image, next(parts.chunks()).image)


@pytest.mark.parametrize("simulated", [True, False])
def test_ctapipe_reads_it(tmp_path, simulated):
    from ctapipe.io import EventSource, TableLoader

    path, image = write_lstchain(tmp_path / "in.h5", simulated=simulated)
    convert(path, tmp_path / "out.dl1.h5")
    with TableLoader(tmp_path / "out.dl1.h5") as loader:
        table = loader.read_telescope_events(dl1_images=True)
    assert table["hillas_intensity"][0] == pytest.approx(image[0][image[0] > 10].sum())
    with EventSource(tmp_path / "out.dl1.h5") as source:
        events = list(source)
    assert len(events) == 12
    if not simulated:
        # The drive's position at the time of each event.
        azimuth = events[5].monitoring.tel[1].pointing.azimuth.to_value("rad")
        assert azimuth == pytest.approx(3.0 + 5e-4, abs=1e-7)


def replace(path, name, **columns):
    with h5py.File(path, "r+") as file:
        data, attributes = file[name][:], dict(file[name].attrs)
        for column, value in columns.items():
            if value is None:
                data = np.array(data[[n for n in data.dtype.names if n != column]])
            else:
                data[column] = value
        del file[name]
        file[name] = data
        file[name].attrs.update(attributes)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (_IMAGES, {"image_mask": None}, r"image/LST_LSTCam lacks the column image_mask"),
        (_IMAGES, {"event_id": 5}, "are not of the same events"),
        (_IMAGES, {"obs_id": 8}, "are not of the same events"),
        (_LAYOUT, {"camera_index": -1}, r"camera number -1 \(geometry_-1\) cannot be read"),
        (_PARAMETERS, {"alt_tel": None}, "parameters/LST_LSTCam lacks the column alt_tel"),
        (_LAYOUT, {"tel_id": 3}, "images of telescope 1, which the file does not describe"),
    ],
)
def test_wrong_content(tmp_path, name, change, message):
    path, _ = write_lstchain(tmp_path / "in.h5", simulated=False)
    replace(path, name, **change)
    with pytest.raises(InputFileError, match=message):
        convert(path, tmp_path / "out.dl1.h5")
    assert not (tmp_path / "out.dl1.h5").exists()


def test_files_that_are_not_whole(tmp_path):
    path, _ = write_lstchain(tmp_path / "in.h5", simulated=False)
    with h5py.File(path, "r+") as file:
        del file["configuration/instrument/telescope/camera/geometry_0"]
    with pytest.raises(InputFileError, match=r"incomplete: camera number 0 \(geometry_0\) cannot be read"):
        convert(path, tmp_path / "out.dl1.h5")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputFileError, match="is cut short"):
        convert(path, tmp_path / "out.dl1.h5")


def test_parameters_without_images(tmp_path):
    path, _ = write_lstchain(tmp_path / "in.h5", simulated=True)
    with h5py.File(path, "r+") as file:
        del file[_IMAGES]
    with pytest.raises(InputFileError, match="holds image parameters without the images; make it again with r0_to_dl1"):
        convert(path, tmp_path / "out.dl1.h5")
    lines = describe_file(path)
    assert any("it holds image parameters without the images" in line for line in lines)
    assert any(line.split()[:2] == ["images", "0"] for line in lines)


# ---- merged files ----------------------------------------------------------------------------------------------------
def merged(folder, *changes):
    """Simulated files joined as lstchain does it, by appending tables; each with other columns of its parameters."""
    parts = []
    for number, change in enumerate(changes):
        path, _ = write_lstchain(folder / f"part{number}.h5", simulated=True)
        with h5py.File(path, "r+") as file:
            edges = {"bins_energy": [[0.1, 1.0, 10.0]], "bins_core_dist": [[0.0, 100.0, 200.0, 300.0]]}
            histogram = np.full((1, 2, 3), number + 1.0, np.float32)
            table(file, _THROWN, num_entries=[10 + number], histogram=histogram, **edges)
        replace(path, _PARAMETERS, **change)
        replace(path, _IMAGES, **{name: value for name, value in change.items() if name in ("obs_id", "event_id")})
        replace(path, _RUN, n_showers=100 + number)
        parts.append(path)
    whole = folder / "merged.h5"
    whole.write_bytes(parts[0].read_bytes())
    for node in (_IMAGES, _PARAMETERS, _RUN, _THROWN):
        rows = []
        for path in parts:
            with h5py.File(path) as file:
                rows.append(file[node][:])
        with h5py.File(whole, "r+") as file:
            attributes = dict(file[node].attrs)
            del file[node]
            file[node] = np.concatenate(rows)
            file[node].attrs.update(attributes)
    return whole


def truths(path):
    """obs_id -> true energies and offsets of its images."""
    found = {}
    with DL1File(path) as file:
        for chunk in file.chunks():
            for run in np.unique(chunk.obs_id).tolist():
                here = chunk.obs_id == run
                found[run] = [
                    sorted(set(chunk.truth[name][here].round(3).tolist()))
                    for name in ("true_energy_tev", "true_offset_deg", "true_primary_id")
                ]
    return found


def thrown(path):
    with h5py.File(path) as file:
        rows = file["/simulation/service/shower_distribution"][:]
        runs = file["/configuration/simulation/run"][:]
    return dict(zip(rows["obs_id"].tolist(), rows["n_entries"].tolist(), strict=True)), dict(
        zip(runs["obs_id"].tolist(), runs["n_showers"].tolist(), strict=True)
    )


def test_merged_runs_keep_their_own_settings(tmp_path):
    from ctapipe.io import EventSource, TableLoader

    # The second run points 30 deg to the side, and its showers come from there.
    path = merged(tmp_path, {}, {"obs_id": 8, "mc_energy": 900.0, "az_tel": 3.0 + np.pi / 6, "mc_az": 3.0 + np.pi / 6})
    counts = convert(path, tmp_path / "out.dl1.h5")
    assert (counts["n_events"], counts["n_images"], counts["notes"]) == (24, 24, [])
    assert "warnings" not in counts
    found = truths(tmp_path / "out.dl1.h5")
    assert found[8] == [[0.9], [0.0], [101]]
    assert found[7][0] == [0.25]
    assert max(found[7][1]) < 0.02
    assert thrown(tmp_path / "out.dl1.h5") == ({7: 10, 8: 11}, {7: 100, 8: 101})
    with EventSource(tmp_path / "out.dl1.h5", focal_length_choice="EQUIVALENT") as source:
        assert [block.obs_id for block in source.observation_blocks.values()] == [7, 8]
        assert len(list(source)) == 24
    with TableLoader(tmp_path / "out.dl1.h5") as loader:
        assert loader.read_shower_distribution()["n_entries"].tolist() == [10, 11]
        assert len(loader.read_telescope_events(simulated=True)) == 24


def test_simulations_of_one_run_number(tmp_path):
    """Gammas and protons with the same ids: each image keeps its own shower."""
    path = merged(tmp_path, {}, {"mc_energy": 9000.0, "mc_type": 0}, {"obs_id": 12})
    counts = convert(path, tmp_path / "out.dl1.h5")
    text = "2 simulations are merged under the run number 7; all but the first are written as run 13"
    assert counts["warnings"] == [text]
    assert counts["n_events"] == 36
    found = truths(tmp_path / "out.dl1.h5")
    assert {run: (energy, kind) for run, (energy, _, kind) in found.items()} == {
        7: ([0.25], [101]), 12: ([0.25], [101]), 13: ([9.0], [0]),
    }  # fmt: skip
    # Without run numbers in its table the settings are in the order of the file.
    assert thrown(tmp_path / "out.dl1.h5") == ({7: 10, 12: 12, 13: 11}, {7: 100, 12: 102, 13: 101})
    with DL1File(tmp_path / "out.dl1.h5") as file:
        assert json.loads(file.provenance)["warnings"] == [text]
    sidecar = json.loads((tmp_path / "out.dl1.h5.provenance.json").read_text())
    assert sidecar["warnings"] == [text]


def test_warnings_reach_the_screen_and_every_product(tmp_path, caplog):
    """Ingest and predict say once what was assumed, in the log, the status, the product and its sidecar."""
    path = merged(tmp_path, {}, {"mc_energy": 9000.0})
    text = "2 simulations are merged under the run number 7; all but the first are written as run 8"
    (status,) = ingest([path], Config(), tmp_path / "ingested")
    assert status["warnings"] == [text]
    assert caplog.text.count(f"merged.h5: {text}") == 1
    caplog.clear()
    with DL1File(tmp_path / "ingested" / "merged.dl1.h5") as file:
        identity = file.telescopes[1].identity
    from tiny_bundles import camera_bundle  # scripts import `write_lstchain` from here, without the path of helpers

    bundle = camera_bundle(tmp_path / "bundle", "energy", identity)
    for source in (path, tmp_path / "ingested" / "merged.dl1.h5"):
        out = tmp_path / source.stem / "out.dl2.h5"
        (status,) = predict(Config(), [source], [bundle], out)
        assert status["warnings"] == [text]
        assert caplog.text.count(f"{source.name}: {text}") == 1
        assert json.loads(out.with_name("out.dl2.h5.provenance.json").read_text())["warnings"] == [text]
        caplog.clear()


def test_pointings_of_one_run_number(tmp_path):
    """Two simulations with other events, one number and two directions are two runs."""
    other = {"event_id": 5000 + np.arange(N_EVENTS), "az_tel": 0.0, "mc_az": 2 * np.pi}
    counts = convert(merged(tmp_path, {}, other), tmp_path / "out.dl1.h5")
    assert "2 simulations are merged under the run number 7" in counts["warnings"][0]
    found = truths(tmp_path / "out.dl1.h5")
    assert found[8][1] == [0.0]
    assert max(found[7][1]) < 0.02


def test_a_file_merged_with_itself(tmp_path):
    with pytest.raises(InputFileError, match="run 7, event 100, telescope 1 stands more than once"):
        convert(merged(tmp_path, {}, {}), tmp_path / "out.dl1.h5")
    path, _ = write_lstchain(tmp_path / "observed.h5", simulated=False)
    for name in (_IMAGES, _PARAMETERS):
        replace(path, name, event_id=np.arange(N_EVENTS) // 2)
    with pytest.raises(InputFileError, match="run 7, event 0, telescope 1 stands more than once"):
        convert(path, tmp_path / "out.dl1.h5")


def test_large_numbers_are_kept(tmp_path):
    path, _ = write_lstchain(tmp_path / "in.h5", simulated=False)
    event_id = 2**40 + np.arange(N_EVENTS)
    replace(path, _IMAGES, obs_id=2**33 + 1, event_id=event_id)
    replace(path, _PARAMETERS, obs_id=2**33 + 1, event_id=event_id)
    convert(path, tmp_path / "out.dl1.h5")
    with DL1File(tmp_path / "out.dl1.h5") as file:
        assert file.obs_ids == [2**33 + 1]
        chunk = next(file.chunks())
    assert chunk.obs_id.tolist() == [2**33 + 1] * 12
    assert chunk.event_id.tolist() == event_id.tolist()


# ---- pointings and times ---------------------------------------------------------------------------------------------
def test_pointing_across_north(tmp_path):
    path, _ = write_lstchain(tmp_path / "in.h5", simulated=False)
    replace(path, _PARAMETERS, az_tel=np.linspace(-0.002, 0.003, N_EVENTS) % (2 * np.pi))
    assert "warnings" not in convert(path, tmp_path / "out.dl1.h5")
    with DL1File(tmp_path / "out.dl1.h5") as file:
        assert file.pointing == pytest.approx((np.degrees(1.2), np.degrees(0.0005)), abs=1e-4)


def test_missing_pointings(tmp_path):
    path, _ = write_lstchain(tmp_path / "in.h5", simulated=False)
    alt_rad = np.full(N_EVENTS, 1.2)
    alt_rad[[4, 5]] = np.nan, 70.0  # degrees in a column of radians are no altitude
    replace(path, _PARAMETERS, alt_tel=alt_rad)
    text = "2 of 12 images have no pointing (alt_tel, az_tel); that of their run's other images is used"
    assert convert(path, tmp_path / "out.dl1.h5")["warnings"] == [text]
    with DL1File(tmp_path / "out.dl1.h5") as file:
        assert file.pointing == pytest.approx(np.degrees((1.2, 3.0 + 5.5e-4)), abs=1e-2)
    with h5py.File(tmp_path / "out.dl1.h5") as raw:
        assert np.isfinite(raw["/dl0/monitoring/telescope/pointing/tel_001"]["azimuth"]).all()


def test_missing_times(tmp_path):
    from ctapipe.io import EventSource

    path, _ = write_lstchain(tmp_path / "in.h5", simulated=False)
    time_s = 1.6e9 + np.arange(N_EVENTS)
    time_s[6:8] = np.nan, 1e30
    replace(path, _PARAMETERS, trigger_time=time_s)
    text = "2 of 12 images have no trigger_time; 1970-01-01 is written as theirs"
    assert convert(path, tmp_path / "out.dl1.h5")["warnings"] == [text]
    with EventSource(tmp_path / "out.dl1.h5", focal_length_choice="EQUIVALENT") as source:
        assert len(list(source)) == 12
        (block,) = source.observation_blocks.values()
        assert block.actual_start_time.unix == pytest.approx(1.6e9, abs=1)  # not 1970


def test_settings_that_are_no_numbers(tmp_path):
    path, _ = write_lstchain(tmp_path / "in.h5", simulated=True)
    with h5py.File(path, "r+") as file:
        rows = file[_RUN][:]
        del file[_RUN]
        dtype = [(name, "S8" if name == "n_showers" else rows.dtype[name]) for name in rows.dtype.names]
        text = np.zeros(len(rows), dtype)
        for name in rows.dtype.names:
            text[name] = b"many" if name == "n_showers" else rows[name]
        file[_RUN] = text
    with pytest.raises(InputFileError, match="is damaged, or no lstchain DL1: invalid literal for int"):
        convert(path, tmp_path / "out.dl1.h5")


def test_truth_without_the_settings_of_the_simulation(tmp_path):
    path, _ = write_lstchain(tmp_path / "in.h5", simulated=True)
    with h5py.File(path, "r+") as file:
        del file[_RUN]
    counts = convert(path, tmp_path / "out.dl1.h5")
    assert "how its showers were thrown is not known" in counts["warnings"][0]
    assert truths(tmp_path / "out.dl1.h5")[7][0] == [0.25]


@pytest.mark.parametrize(("name", "simulated"), [("lstchain_gamma.h5", True), ("lstchain_lst1_observed.h5", False)])
def test_real_files(data_dir, tmp_path, name, simulated):
    path = data_dir / "camera" / "dl1" / name
    assert convert(path, tmp_path / "out.dl1.h5")["n_images"] == 25
    with DL1File(tmp_path / "out.dl1.h5") as file, h5py.File(path) as raw:
        chunk = next(file.chunks())
        parameters = raw[_PARAMETERS][:]
    assert chunk.camera.identity == "hexagon-1855-6.14arcmin-41deg-r24"
    assert bool(chunk.truth) == simulated
    if simulated:
        assert chunk.truth["true_energy_tev"] == pytest.approx(parameters["mc_energy"])
        assert thrown(tmp_path / "out.dl1.h5") == ({2401: 100}, {2401: 10})
        with h5py.File(tmp_path / "out.dl1.h5") as ours:
            found = ours["/dl1/event/telescope/parameters/tel_001"][:]
        assert found["hillas_intensity"] == pytest.approx(parameters["intensity"], rel=1e-6)
        assert found["hillas_length"] == pytest.approx(parameters["length"], rel=1e-4)
        assert found["hillas_width"] == pytest.approx(parameters["width"], rel=1e-4)
        assert found["leakage_intensity_width_1"] == pytest.approx(parameters["leakage_intensity_width_1"], rel=1e-5)


def test_a_type_of_minus_one_is_unknown_and_used(tmp_path):
    from ctapipe.io import EventSource

    path, _ = write_lstchain(tmp_path / "in.h5", simulated=False)
    replace(path, _PARAMETERS, event_type=-1)
    convert(path, tmp_path / "out.dl1.h5")
    with DL1File(tmp_path / "out.dl1.h5") as file:
        assert file.event_types() == {"unknown": 12}
        assert set(next(file.chunks()).left_out.tolist()) == {""}
    with EventSource(tmp_path / "out.dl1.h5", focal_length_choice="EQUIVALENT") as source:
        assert {event.trigger.event_type.name for event in source} == {"UNKNOWN"}
