"""Models from Python: every kind of data gives what the command line gives, and wrong data is refused in one line."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance, StdDevUncertainty, UnknownUncertainty, VarianceUncertainty
from astropy.table import QTable
from astropy.utils.masked import Masked
from public_files import write_public_files
from toy_events import FIRST_EVENT, toy_camera

import lightpool
import pipeline
from pipeline.camera.array_events import image_chunk
from pipeline.camera.dl1 import DL1File
from pipeline.config import Config
from pipeline.stages.predict import predict


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_public_files(tmp_path_factory.mktemp("api"))


@pytest.fixture(scope="module")
def energy(folder):
    return lightpool.load(folder / "bundles" / "energy", threads=1)


@pytest.fixture(scope="module")
def denoise(folder):
    return lightpool.load(folder / "bundles" / "denoise", threads=1)


@pytest.fixture(scope="module")
def images(folder):
    """Images of telescope 1: ImageChunk."""
    with DL1File(folder / "run.dl1.h5") as file:
        (chunk,) = file.chunks(100, tel_ids=[1])
    return chunk


@pytest.fixture(scope="module")
def frame(folder):
    """The image of frame.fits as CCDData."""
    return CCDData.read(folder / "frame.fits")


# ---- the package -----------------------------------------------------------------------------------------------------
def test_import_is_light():
    code = (
        "import lightpool, sys; "
        "print([m for m in ('torch', 'ctapipe', 'astropy', 'onnxruntime', 'pydantic', 'models') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_one_version(checkout):
    assert lightpool.__version__ == pipeline.__version__
    assert f"version: {lightpool.__version__}" in (checkout / "CITATION.cff").read_text().splitlines()


def test_what_is_not_promised_is_private(checkout):
    assert all(hasattr(lightpool, name) for name in lightpool.__all__)
    assert all(path.name.startswith("_") for path in (checkout / "lightpool").glob("*.py"))
    assert issubclass(lightpool.UserError, ValueError)


def test_models_that_ship(monkeypatch, folder):
    monkeypatch.setattr("pipeline.bundle.card.bundles_directory", lambda: folder / "bundles")
    assert lightpool.list_models() == ["denoise", "energy", "gammaness", "stereo"]
    assert lightpool.load("gammaness").tasks == ("gammaness",)


def test_what_cannot_be_loaded():
    with pytest.raises(lightpool.UserError, match="there is no bundle 'nowhere'"):
        lightpool.load("nowhere")
    with pytest.raises(lightpool.UserError, match="threads is 0; it must be at least 1"):
        lightpool.load("nowhere", threads=0)


def test_a_model_says_what_it_is(energy, denoise):
    assert repr(energy) == ("<lightpool model tiny_energy: energy, network by_hand, camera Toy, trained on 0 images>")
    assert "FITS frames" in repr(denoise)
    assert (energy.name, energy.tasks, energy.card.wing) == ("tiny_energy", ("energy",), "camera")


# ---- camera images ---------------------------------------------------------------------------------------------------
def test_a_file_gives_what_the_command_line_writes(folder, energy, tmp_path):
    result = energy.predict(folder / "run.dl1.h5", out=tmp_path / "ours.dl2.h5")
    assert len(result) == 24
    predict(Config(), [folder / "run.dl1.h5"], [folder / "bundles" / "energy"], tmp_path / "theirs.dl2.h5")
    assert (tmp_path / "ours.dl2.h5").read_bytes() == (tmp_path / "theirs.dl2.h5").read_bytes()
    assert json.loads((tmp_path / "ours.dl2.h5.provenance.json").read_text())["n_valid"] == 9


def test_table_and_columns(folder, energy):
    result = energy.predict(str(folder / "run.dl1.h5"))
    table = result.table
    assert isinstance(table, QTable)
    assert table.colnames == [
        "obs_id", "event_id", "tel_id", "reco_energy_tev", "reco_energy_uncert_tev", "valid", "reason",
    ]  # fmt: skip
    assert result.columns == ("reco_energy_tev", "reco_energy_uncert_tev")
    assert result["reco_energy_tev"].unit == table["reco_energy_tev"].unit == u.TeV
    np.testing.assert_array_equal(np.isfinite(result["reco_energy_tev"]), table["valid"])
    assert set(table["reason"][table["tel_id"] == 2]) == {
        f"tiny_energy does not serve the camera Other ({toy_camera('Other', 0.06).identity})"
    }
    assert table.meta["bundle_sha256"] == energy.card.bundle_sha256
    with pytest.raises(KeyError, match="predicts no column 'gammaness'; it predicts reco_energy_tev, reco"):
        result["gammaness"]


def test_pure_numbers_have_no_unit(folder):
    result = lightpool.load(folder / "bundles" / "gammaness").predict(folder / "run.dl1.h5", tel_id=1)
    assert result["gammaness"].unit == u.dimensionless_unscaled
    assert not isinstance(result.table["gammaness"], u.Quantity)


def test_one_event(folder, energy):
    result = energy.predict(folder / "run.dl1.h5", event_id=FIRST_EVENT + 1, tel_id=1)
    assert result.table["event_id"].tolist() == [FIRST_EVENT + 1]
    with pytest.raises(lightpool.UserError, match="has no event 5; its event ids go from 100 to 111"):
        energy.predict(folder / "run.dl1.h5", event_id=5)


def test_a_table_is_written_and_read(folder, energy, tmp_path):
    table = energy.predict(folder / "run.dl1.h5").table
    table.write(tmp_path / "table.ecsv")
    read = QTable.read(tmp_path / "table.ecsv")
    np.testing.assert_array_equal(read["reco_energy_tev"], table["reco_energy_tev"])


def test_arrays_give_what_their_file_gives(folder, energy, images):
    from_file = energy.predict(folder / "run.dl1.h5", tel_id=1).table
    result = energy.predict((images.image, images.peak_time, images.camera)).table
    np.testing.assert_array_equal(result["reco_energy_tev"], from_file["reco_energy_tev"])
    assert result["reason"].tolist() == from_file["reason"].tolist()
    assert result["event_id"].tolist() == list(range(12))


def test_masked_pixels_are_unknown(energy, images):
    """Every third one: values of these are lost."""
    mask = np.zeros(images.image.shape, bool)
    mask[:, ::3] = True
    unknown = np.where(mask, np.nan, images.image)
    expected = energy.predict((unknown, images.peak_time, images.camera)).table
    plain = energy.predict((images.image, images.peak_time, images.camera)).table
    assert expected["reco_energy_tev"].value.tolist() != plain["reco_energy_tev"].value.tolist()
    for masked in (np.ma.MaskedArray(images.image, mask), Masked(images.image, mask)):
        for image in (masked, list(masked)):
            table = energy.predict((image, images.peak_time, images.camera)).table
            np.testing.assert_array_equal(table["reco_energy_tev"], expected["reco_energy_tev"])
            assert table["reason"].tolist() == expected["reason"].tolist()


@pytest.mark.parametrize("unit", ["", "percent", "p.e."])
def test_units_of_images_are_converted(images, unit):
    expected = image_chunk(images.camera, 1, images.image, images.peak_time)
    unit = u.def_unit("p.e.") if unit == "p.e." else u.Unit(unit)
    image = images.image * (100 if unit == u.percent else 1) * unit
    mask = np.arange(256) == 3
    chunk = image_chunk(images.camera, 1, image, Masked((images.peak_time * u.ns).to(u.us), mask))
    np.testing.assert_allclose(chunk.image, expected.image, rtol=1e-6)
    np.testing.assert_allclose(chunk.peak_time[:, ~mask], expected.peak_time[:, ~mask], rtol=1e-6)
    assert np.isnan(chunk.peak_time[:, mask]).all()
    assert (chunk.image.dtype, chunk.peak_time.dtype) == (np.float32, np.float32)


@pytest.mark.parametrize(("model", "name"), [("energy", "run.dl1.h5"), ("denoise", "frame.fits")])
def test_the_input_is_never_replaced(folder, tmp_path, model, name):
    source, link = tmp_path / name, tmp_path / f"link_{name}"
    shutil.copy(folder / name, source)
    link.symlink_to(source)
    before, model = source.read_bytes(), lightpool.load(folder / "bundles" / model, threads=1)
    for data, out in ((source, source), (source, link), (link, source)):
        with pytest.raises(lightpool.UserError, match=f"{out.name} is an input, which stays as it is"):
            model.predict(data, out, overwrite=True)
    if name == "frame.fits":
        with pytest.raises(lightpool.UserError, match=r"frame.fits is an input, which stays as it is"):
            model.predict(source).write(source, overwrite=True)
    assert source.read_bytes() == before


def test_one_image_needs_no_batch_axis(energy):
    result = energy.predict((np.zeros(256), np.zeros(256), toy_camera()))
    assert result.table["reason"].tolist() == ["nothing left by the cleaning"]
    assert repr(result).startswith("<ImagePredictions by tiny_energy: 1 image, 0 valid>")


def test_an_event_of_ctapipe_that_is_no_shower(folder, energy):
    from ctapipe.containers import EventType
    from ctapipe.io import EventSource

    with EventSource(folder / "run.dl1.h5", focal_length_choice="EQUIVALENT") as source:
        event = next(iter(source))
        event.trigger.event_type = EventType.FLATFIELD
        table = energy.predict(event, subarray=source.subarray).table
        assert set(table["reason"]) == {"event type flat field"}
        assert not table["valid"].any()
        event.trigger.event_type = EventType.SUBARRAY
        event.trigger.tel[1].event_type = EventType.PEDESTAL
        (reason,) = energy.predict(event, subarray=source.subarray, tel_id=1).table["reason"]
    assert reason == "event type pedestal"


def test_no_images_give_an_empty_table(energy):
    result = energy.predict((np.zeros((0, 256)), np.zeros((0, 256)), toy_camera()))
    assert len(result.table) == 0
    assert repr(result) == "<ImagePredictions by tiny_energy: 0 images, 0 valid>"


def test_descriptions_of_ctapipe(folder, energy, images):
    instrument = pytest.importorskip("ctapipe.instrument")
    subarray = instrument.SubarrayDescription.read(folder / "run.dl1.h5", focal_length_choice="EQUIVALENT")
    expected = energy.predict((images.image, images.peak_time, images.camera))["reco_energy_tev"]
    telescope = subarray.tel[1]
    for camera in (telescope, telescope.camera.geometry):
        result = energy.predict((images.image, images.peak_time, camera))
        np.testing.assert_array_equal(result["reco_energy_tev"], expected)
    result = energy.predict((images.image, images.peak_time, subarray), tel_id=1)
    np.testing.assert_array_equal(result["reco_energy_tev"], expected)
    assert set(result.table["tel_id"]) == {1}
    with pytest.raises(lightpool.UserError, match="several kinds of telescope; choose one with tel_id, of 1, 2"):
        energy.predict((images.image, images.peak_time, subarray))
    with pytest.raises(lightpool.UserError, match="no telescope 9; it has 1, 2"):
        energy.predict((images.image, images.peak_time, subarray), tel_id=9)
    on_the_sky = telescope.camera.geometry.transform_to(_telescope_frame())
    with pytest.raises(lightpool.UserError, match="needs pixels in metres and a frame with the equivalent focal"):
        energy.predict((images.image, images.peak_time, on_the_sky))


def _telescope_frame():
    from ctapipe.coordinates import TelescopeFrame

    return TelescopeFrame()


def test_an_event_of_ctapipe(folder, energy):
    ctapipe_io = pytest.importorskip("ctapipe.io")
    expected = energy.predict(folder / "run.dl1.h5").table
    rows = []
    with ctapipe_io.EventSource(folder / "run.dl1.h5", focal_length_choice="EQUIVALENT") as source:
        for event in source:
            rows.append(energy.predict(event, subarray=source.subarray).table)
        subarray = source.subarray
    for row in rows:
        for image in row:
            same = (expected["event_id"] == image["event_id"]) & (expected["tel_id"] == image["tel_id"])
            np.testing.assert_array_equal(image["reco_energy_tev"], expected["reco_energy_tev"][same][0])
            assert image["reason"] == expected["reason"][same][0]
    assert sum(map(len, rows)) == len(expected)
    assert energy.predict(event, subarray=subarray, tel_id=2).table["tel_id"].tolist() == [2]
    with pytest.raises(lightpool.UserError, match="an event needs its subarray"):
        energy.predict(event)
    with pytest.raises(lightpool.UserError, match="event 111 has no image of telescope 7; it has those of 1, 2"):
        energy.predict(event, subarray=subarray, tel_id=7)
    with pytest.raises(lightpool.UserError, match="the event has event_id 111, not 3; leave event_id out"):
        energy.predict(event, subarray=subarray, event_id=3)
    event.dl1.tel.clear()
    with pytest.raises(lightpool.UserError, match="event 111 has no DL1 images; calibrate it first"):
        energy.predict(event, subarray=subarray)


@pytest.mark.parametrize(
    ("data", "kwargs", "error", "message"),
    [
        ("frame.fits", {}, lightpool.UserError, "is a FITS file, and tiny_energy is a model for camera images: it tak"),
        (np.zeros((4, 4)), {}, lightpool.UserError, r"takes a simtel, DL1 .* got numpy ndarray of shape \(4, 4\)"),
        (CCDData(np.zeros((4, 4)), unit="adu"), {}, lightpool.UserError, "got astropy CCDData of shape"),
        (5, {}, TypeError, "tiny_energy is a model for camera images and takes a simtel, .* got int"),
        ((np.zeros(4), np.zeros(4)), {}, TypeError, "got tuple of 2"),
        ((np.zeros(4), np.zeros(4), "LSTCam"), {}, TypeError, "must be a ctapipe SubarrayDescription, .* got str"),
        ((np.zeros((2, 9)), np.zeros((2, 9)), toy_camera()), {}, lightpool.UserError, r"must both be \(n, 256\)"),
        ((["x"], [1.0], toy_camera()), {}, lightpool.UserError, "image is not an array of numbers"),
        ((np.zeros(256) * 1j, np.zeros(256), toy_camera()), {}, lightpool.UserError, "elements of type complex128"),
        (
            (np.zeros(256) * u.mV, np.zeros(256), toy_camera()),
            {},
            lightpool.UserError,
            "image is in mV, which cannot be converted to p.e.",
        ),
        (
            (np.zeros(256), np.zeros(256) * u.m, toy_camera()),
            {},
            lightpool.UserError,
            "peak_time is in m, which cannot be converted to ns",
        ),
        (
            (np.zeros(256), np.zeros(256), toy_camera("Wide", 0.06)),
            {},
            lightpool.UserError,
            r"does not serve the camera Wide \(square.*\); it serves Toy \(square",
        ),
        (
            (np.zeros(256), np.zeros(256), toy_camera()),
            {"out": "x.dl2.h5"},
            lightpool.UserError,
            "needs a file as data, .* write result.table instead",
        ),
        (
            (np.zeros(256), np.zeros(256), toy_camera()),
            {"event_id": 1},
            lightpool.UserError,
            "event_id and subarray are not for arrays",
        ),
        ("run.dl1.h5", {"subarray": 1}, lightpool.UserError, "subarray is for an event in memory"),
        ("run.dl1.h5", {"read_noise_e": 3.0}, lightpool.UserError, "read_noise_e is for frames, and tiny_energy is"),
        ("run.dl1.h5", {"out": "x.fits"}, lightpool.UserError, "cannot be written as x.fits; end the name in .h5"),
        ("run.dl1.h5", {"out": "array.dl1.h5"}, lightpool.UserError, "array.dl1.h5 exists; .* set overwrite=True"),
        ("nowhere.h5", {}, lightpool.UserError, "nowhere.h5 does not exist"),
    ],
)
def test_what_a_model_of_camera_images_refuses(folder, energy, monkeypatch, data, kwargs, error, message):
    monkeypatch.chdir(folder)
    with pytest.raises(error, match=message) as caught:
        energy.predict(data, **kwargs)
    assert "\n" not in str(caught.value)


# ---- frames ----------------------------------------------------------------------------------------------------------
def test_a_frame_gives_what_the_command_line_writes(folder, denoise, tmp_path):
    result = denoise.predict(folder / "frame.fits", out=tmp_path / "ours.fits")
    predict(Config(), [folder / "frame.fits"], [folder / "bundles" / "denoise"], tmp_path / "theirs.fits")
    assert (tmp_path / "ours.fits").read_bytes() == (tmp_path / "theirs.fits").read_bytes()
    np.testing.assert_array_equal(result.data.value, fits.getdata(tmp_path / "ours.fits", "SCI"))
    np.testing.assert_array_equal(result.uncertainty.value, fits.getdata(tmp_path / "ours.fits", "ERR"))
    np.testing.assert_array_equal(result.dq, fits.getdata(tmp_path / "ours.fits", "DQ"))
    assert (result.data.unit, result.dq.dtype, result.planes) == (u.electron, np.uint16, {})
    assert result.header["OBJECT"] == "toy"
    assert "the pixels are electrons already" in result.notes


def test_images_in_memory_give_what_their_file_gives(folder, denoise, frame):
    expected = denoise.predict(folder / "frame.fits")
    for image in (frame, frame.data * u.electron):
        result = denoise.predict(image)
        assert result.data.unit == u.electron
        np.testing.assert_array_equal(result.data, expected.data)
        np.testing.assert_array_equal(result.uncertainty, expected.uncertainty)


def test_an_array_is_in_adu_and_comes_back_as_an_array(denoise, frame):
    bare = denoise.predict(frame.data, gain_e_per_adu=2.0, read_noise_e=4.0)
    assert type(bare.data) is type(bare.uncertainty) is np.ndarray
    with_unit = denoise.predict(frame.data * u.adu, gain_e_per_adu=2.0, read_noise_e=4.0)
    assert with_unit.data.unit == u.adu
    np.testing.assert_array_equal(bare.data, with_unit.data.value)
    assert "gain 2 electron/adu from the configuration" in bare.notes
    np.testing.assert_allclose(bare.data, frame.data, rtol=1e-5)  # the tiny model believes every pixel
    assert denoise.predict(frame.data * u.count).data.unit == u.count


def test_warnings_about_an_image_in_memory(denoise, frame, tmp_path, caplog):
    result = denoise.predict(frame.data / 60_000, gain_e_per_adu=2.0, out=tmp_path / "out.fits")
    (text,) = result.warnings
    assert "the gain 2 of the configuration is doubtful, because it would make the noise" in text
    assert caplog.messages == [f"an image: {text}"]
    assert fits.getheader(tmp_path / "out.fits")["LPNWARN"] == 1
    assert denoise.predict(frame).warnings == ()


def test_integers_and_views_are_images_too(denoise, frame):
    whole = frame.data.round().astype(np.uint16)
    before = whole.copy()
    result = denoise.predict(whole[::-1, 3:])
    np.testing.assert_allclose(result.data, before[::-1, 3:], rtol=1e-5)
    np.testing.assert_array_equal(whole, before)


@pytest.mark.parametrize("kind", [StdDevUncertainty, VarianceUncertainty, InverseVariance])
def test_uncertainty_of_ccddata_is_used(denoise, frame, kind):
    sigma = np.linspace(10, 30, frame.data.size, dtype=np.float32).reshape(frame.shape)
    uncertainty = StdDevUncertainty(sigma, unit="electron").represent_as(kind)
    result = denoise.predict(CCDData(frame.data, unit="electron", uncertainty=uncertainty))
    np.testing.assert_allclose(result.uncertainty.value, sigma / 2, rtol=1e-5)  # the tiny model halves it
    assert any("uncertainty from the" in note for note in result.notes)


def test_masked_pixels_are_restored(denoise, frame):
    mask = np.zeros(frame.shape, bool)
    mask[10, 20] = True
    bad = frame.data.copy()
    bad[10, 20] = 1e5
    for image in (CCDData(bad, unit="electron", mask=mask), np.ma.MaskedArray(bad, mask)):
        result = denoise.predict(image)
        assert int(result.dq[10, 20]) == 1 + 64
        assert np.abs(np.asarray(result.data)[10, 20] - 200) < 60


def test_saturation(denoise, frame):
    result = denoise.predict(frame.data, saturation=float(frame.data.max()))
    assert np.count_nonzero(result.dq & 4) == 1


def test_header_of_ccddata_is_used(denoise, frame):
    result = denoise.predict(
        CCDData(frame.data, unit="adu", meta={"GAIN": 1.7, "RDNOISE": 6.0, "a long name": 1, "list": []})
    )
    assert "gain 1.7 electron/adu from GAIN" in result.notes


def test_to_ccddata(folder, denoise, frame):
    data = frame.data.copy()
    data[5, 6] = np.nan
    for source in (CCDData(data, unit="electron", wcs=frame.wcs, meta={"OBJECT": "toy"}), folder / "frame.fits"):
        ccd = denoise.predict(source).to_ccddata()
        assert (ccd.unit, ccd.header["OBJECT"]) == (u.electron, "toy")
        assert isinstance(ccd.uncertainty, StdDevUncertainty)
        np.testing.assert_allclose(ccd.wcs.wcs.crval, [10, 20])
        assert bool(ccd.mask[5, 6]) == (source is not folder / "frame.fits" and isinstance(source, CCDData))
    assert denoise.predict(frame.data).to_ccddata().unit == u.adu
    assert denoise.predict(frame.data).to_ccddata().wcs is None


def test_ccddata_of_a_file_of_integers_is_written(denoise, frame, tmp_path):
    header = fits.Header({"BLANK": 0, "BUNIT": "adu"})
    fits.PrimaryHDU(frame.data.astype(np.uint16), header).writeto(tmp_path / "raw.fits")
    ccd = denoise.predict(tmp_path / "raw.fits").to_ccddata()
    ccd.write(tmp_path / "new.fits")
    np.testing.assert_array_equal(CCDData.read(tmp_path / "new.fits").data, ccd.data)


def test_an_image_in_memory_is_written(denoise, frame, tmp_path):
    result = denoise.predict(frame)
    assert result.write(tmp_path / "new.fits") == tmp_path / "new.fits"
    with fits.open(tmp_path / "new.fits") as hdus:
        assert [hdu.name for hdu in hdus] == ["SCI", "ERR", "DQ"]
        assert (hdus[0].header["BUNIT"], hdus[0].header["OBJECT"]) == ("electron", "toy")
        np.testing.assert_array_equal(hdus["SCI"].data, result.data.value)
    with pytest.raises(lightpool.UserError, match="exists; choose another name or set overwrite=True"):
        result.write(tmp_path / "new.fits")
    result.write(tmp_path / "new.fits", overwrite=True)
    assert json.loads((tmp_path / "new.fits.provenance.json").read_text())["input"] == "image in memory"


def test_a_file_of_several_images(denoise, frame, tmp_path):
    header = fits.Header({"BUNIT": "electron"})
    chips = [fits.ImageHDU(frame.data + 10 * n, header, name="SCI", ver=n) for n in (1, 2)]
    fits.HDUList([fits.PrimaryHDU(), *chips]).writeto(tmp_path / "chips.fits")
    result = denoise.predict(tmp_path / "chips.fits", out=tmp_path / "out.fits")
    assert repr(result) == "<FramePredictions by tiny_denoise: 2 science images, in HDUs 1, 2>"
    with pytest.raises(lightpool.UserError, match=r"has 2 science images; take one: result\[0\] to result\[1\]"):
        result.data  # noqa: B018
    first, second = result
    np.testing.assert_allclose(second.data - first.data, 10 * u.electron, atol=1e-3)
    np.testing.assert_array_equal(fits.getdata(tmp_path / "out.fits", ("SCI", 2)), result[1].data.value)


@pytest.mark.parametrize(
    ("data", "kwargs", "error", "message"),
    [
        (
            "run.dl1.h5",
            {},
            lightpool.UserError,
            "holds camera images, and tiny_denoise is a model for frames: it takes",
        ),
        ((np.zeros(4), np.zeros(4), None), {}, lightpool.UserError, "takes a FITS file, a CCDData, .* got tuple of 3"),
        (None, {}, TypeError, "tiny_denoise is a model for frames and takes a FITS file, .* got NoneType"),
        (np.zeros((2, 4, 4)), {}, lightpool.UserError, r"of shape \(H, W\); got float64 of \(2, 4, 4\)"),
        (np.zeros((4, 4), bool), {}, lightpool.UserError, r"an image of numbers, of shape \(H, W\); got bool of"),
        (np.ones((64, 64)), {}, lightpool.UserError, "the image: most pixels have the value 1, so its noise cannot"),
        (np.full((9, 9), np.nan), {}, lightpool.UserError, "the image has no valid pixel"),
        (
            CCDData(np.zeros((4, 4)), unit="adu", uncertainty=UnknownUncertainty(np.ones((4, 4)))),
            {},
            lightpool.UserError,
            "of the kind 'unknown'; accepted: std, var, ivar",
        ),
        ("frame.fits", {"event_id": 3}, lightpool.UserError, "event_id is for camera images, and tiny_denoise is"),
        ("frame.fits", {"gain_e_per_adu": -1}, lightpool.UserError, "ingest.sky.gain_e_per_adu"),
        ("frame.fits", {"out": "x.h5"}, lightpool.UserError, "cannot be written as x.h5; end the name in .fits"),
        ("frame.fits", {"out": "old.fits"}, lightpool.UserError, "old.fits exists; .* set overwrite=True"),
    ],
)
def test_what_a_model_of_frames_refuses(folder, denoise, monkeypatch, data, kwargs, error, message):
    monkeypatch.chdir(folder)
    (folder / "old.fits").touch()
    with pytest.raises(error, match=message) as caught:
        denoise.predict(data, **kwargs)
    assert "\n" not in str(caught.value)
