import h5py
import numpy as np
import pytest

from pipeline.camera.dl1 import DL1File
from pipeline.camera.lstchain import convert
from pipeline.errors import InputFileError

N_PIXELS, N_EVENTS = 37, 12
_LAYOUT = "configuration/instrument/subarray/layout"
_IMAGES = "dl1/event/telescope/image/LST_LSTCam"
_PARAMETERS = "dl1/event/telescope/parameters/LST_LSTCam"


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
    assert counts == {"n_events": 12, "n_images": 12, "n_telescopes": 1, "notes": []}
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
    assert counts["n_images"] == 11
    assert counts["notes"] == ["1 calibration events skipped"]
    with DL1File(tmp_path / "obs.dl1.h5") as file:
        assert not file.has_truth
        assert file.pointing == pytest.approx(np.degrees((1.2, 3.0 + 5.5e-4)), abs=1e-4)
        np.testing.assert_array_equal(next(file.chunks()).image, np.delete(image, 3, axis=0))
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
    assert len(events) == (12 if simulated else 11)
    if not simulated:
        # The drive's position at the time of each event.
        azimuth = events[5].monitoring.tel[1].pointing.azimuth.to_value("rad")
        assert azimuth == pytest.approx(3.0 + 6e-4, abs=1e-7)


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
        (_IMAGES, {"image_mask": None}, r"image/LST_LSTCam has no column image_mask"),
        (_IMAGES, {"event_id": 5}, "are not of the same events"),
        (_IMAGES, {"obs_id": np.arange(N_EVENTS) // 6}, r"holds runs \[0, 1\]"),
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
    with pytest.raises(InputFileError, match="is not a whole lstchain DL1 file"):
        convert(path, tmp_path / "out.dl1.h5")


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
        with h5py.File(tmp_path / "out.dl1.h5") as ours:
            found = ours["/dl1/event/telescope/parameters/tel_001"][:]
        assert found["hillas_intensity"] == pytest.approx(parameters["intensity"], rel=1e-6)
        assert found["hillas_length"] == pytest.approx(parameters["length"], rel=1e-4)
        assert found["hillas_width"] == pytest.approx(parameters["width"], rel=1e-4)
        assert found["leakage_intensity_width_1"] == pytest.approx(parameters["leakage_intensity_width_1"], rel=1e-5)
