"""What `lightpool info` says about every kind of file, and how it answers what it does not know."""

import gzip
import json
import shutil
import struct

import h5py
import numpy as np
import pytest
import zstandard
from astropy.io import fits
from synthetic_tiles import camera_batch, write_tiles
from tiny_bundles import camera_bundle
from toy_events import toy_camera, write_toy_dl1

from pipeline.config import parse_config
from pipeline.errors import InputFileError
from pipeline.filetypes import file_kind
from pipeline.stages.info import describe_file
from pipeline.stages.predict import predict


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("info")
    camera_bundle(root / "energy", "energy", toy_camera().identity)
    write_toy_dl1(root / "run.dl1.h5")
    predict(parse_config({"threads": 1}), [root / "run.dl1.h5"], [root / "energy"], root / "run.dl2.h5")
    header = fits.Header({"OBJECT": "M 13", "BUNIT": "adu"})
    hdus = fits.HDUList([fits.PrimaryHDU(np.zeros((20, 30), np.float32), header), fits.ImageHDU(name="EMPTY")])
    hdus.writeto(root / "frame.fits")
    (root / "frame.fits.gz").write_bytes(gzip.compress((root / "frame.fits").read_bytes()))
    (root / "simtel.gz").write_bytes(gzip.compress(_eventio(70) + _eventio(2020)))
    (root / "corsika.dat").write_bytes(_eventio(1200))
    return root


def _eventio(kind):
    """An empty top-level eventio object."""
    words = (0xD41F8A37, kind, 0, 0)
    return b"".join(word.to_bytes(4, "little") for word in words)


def _text(path):
    lines = describe_file(path)
    assert len(lines) < 45  # one screen
    return "\n".join(lines)


def test_dl1(folder):
    text = _text(folder / "run.dl1.h5")
    assert "ctapipe DL1, data model v7.1.0" in text
    assert "1: Toy, 256 pixels" in text
    assert "24 of 12 events" in text


def test_dl2(folder):
    text = _text(folder / "run.dl2.h5")
    assert "tiny_energy: 12 images of telescopes 1, 9 valid" in text
    assert "tiny_energy: 12 events, telescopes combined" in text


@pytest.mark.parametrize("name", ["frame.fits", "frame.fits.gz"])
def test_frames(folder, name):
    text = _text(folder / name)
    assert "HDU 0  " in text
    assert "image 20 x 30 adu" in text
    assert "M 13" in text
    assert text.endswith("science image  HDU 0")


def test_frame_without_an_image(tmp_path):
    fits.PrimaryHDU().writeto(tmp_path / "bare.fits")
    assert "none: " in _text(tmp_path / "bare.fits")


def test_tiles_and_manifest(tmp_path):
    manifest = write_tiles(tmp_path, camera_batch(40), "camera")
    shard = tmp_path / manifest.shards[0].path
    assert "tile shard (camera)" in _text(shard)
    assert "40 of 24 x 24 px" in _text(shard)
    assert "camera    TestCam (hexagon-1855-test), 40 tiles, pixels of 0.08 deg" in _text(shard)
    assert "manifest of tiles (camera)" in _text(manifest.path)
    assert "camera      hexagon-1855-test" in _text(manifest.path)


def test_tiles_of_several_cameras_are_counted(tmp_path):
    batch = camera_batch(40)
    batch.events["camera"] = np.repeat(np.int16([0, 1]), [30, 10])
    manifest = write_tiles(tmp_path, batch, cameras=[(f"hexagon-{n}", n.upper(), "MST") for n in "abc"])
    text = _text(tmp_path / manifest.shards[0].path)
    assert "A (hexagon-a), 30 tiles" in text
    assert "B (hexagon-b), 10 tiles" in text
    assert "C (hexagon-c), 0 tiles" in text


def test_bundle(folder):
    text = _text(folder / "energy")
    assert "model bundle tiny_energy" in text
    words = " ".join(text.split())
    assert "network energy: by_hand, 0 parameters" in words
    assert "energy reco_energy_tev [TeV], reco_energy_uncert_tev [TeV]" in words
    assert "made by hand" in text


def test_simtel_and_corsika(folder):
    assert "0 triggered of 0 from 1 showers" in _text(folder / "simtel.gz")
    assert "CORSIKA photon bunches" in _text(folder / "corsika.dat")


def test_unknown_hdf5_is_listed(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["table/column"] = np.zeros(3)
    assert "table/column  (3,) float64" in _text(tmp_path / "other.h5")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"plain text", "starts with b'plain te', which is not a format that lightpool reads; accepted: simtel"),
        (b"\x1f\x8b\x08\x00garbage of a gzip file", "cannot decompress|cannot read"),
        (b"\x28\xb5\x2f\xfd\x00 not zstd", "cannot decompress"),
        (b"\x89HDF\r\n\x1a\n and no more", "as HDF5"),
        (json.dumps({"a": 1}).encode(), "not a format that lightpool reads"),
    ],
)
def test_what_is_not_known(tmp_path, content, message):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=message):
        describe_file(path)


def test_what_is_not_there(tmp_path):
    with pytest.raises(InputFileError, match="does not exist"):
        file_kind(tmp_path / "nowhere")
    with pytest.raises(InputFileError, match=r"directory without card\.json"):
        file_kind(tmp_path)


def test_real_files(data_dir):
    kinds = {path: file_kind(path) for path in sorted((data_dir / "camera" / "simtel").iterdir())}
    assert set(kinds.values()) == {"simtel"}
    for path in [*kinds, *(data_dir / "camera" / "bad").iterdir()]:
        assert "triggered" in _text(path)
    for path in (data_dir / "camera" / "dl1").iterdir():
        assert "lstchain DL1" in _text(path)
    assert "up to where it is damaged" in _text(data_dir / "camera" / "bad" / "pe_test_camorganv2.simtel.gz")


def test_a_cut_simtel_file_is_named_so(data_dir, tmp_path):
    whole = (data_dir / "camera" / "simtel" / "st_v036b_gamma_run7_za40_South_lsts_700.simtel.zst").read_bytes()
    plain = zstandard.ZstdDecompressor().stream_reader(whole).read()
    for content in (whole, plain, gzip.compress(plain, 1)):
        path = tmp_path / "run.simtel"
        path.write_bytes(content)
        assert "4 triggered of 20 from 20 showers, 0 calibration\n" in _text(path) + "\n"
        for share in (0.3, 0.9, 0.999):
            path.write_bytes(content[: int(share * len(content))])
            assert "0 calibration up to where it is damaged (the file is cut)" in _text(path)


def test_a_run_without_end_and_several_runs_are_named_so(data_dir, tmp_path):
    whole = (data_dir / "camera" / "simtel" / "st_v036b_gamma_run7_za40_South_lsts_700.simtel.zst").read_bytes()
    path = tmp_path / "run.simtel.zst"
    path.write_bytes(whole + whole)
    assert "7, 7 (several runs in one file: ingest and predict refuse it)" in _text(path)
    assert "no histograms" not in _text(path)
    muons = data_dir / "camera" / "simtel" / "cx_lst_muons.simtel.zst"
    assert "0 calibration; no histograms close the run, so events may be missing" in _text(muons)


def test_a_simtel_file_of_several_frames(data_dir, tmp_path):
    whole = (data_dir / "camera" / "simtel" / "st_v036b_gamma_run7_za40_South_lsts_700.simtel.zst").read_bytes()
    plain = zstandard.ZstdDecompressor().stream_reader(whole).read()
    path = tmp_path / "run.simtel.zst"
    path.write_bytes(b"".join(pzstd_frame(part) for part in (plain[:3], plain[3:100], plain[100:])))
    assert "4 triggered of 20 from 20 showers, 0 calibration\n" in _text(path) + "\n"


def pzstd_frame(content):
    """A frame as pzstd writes it, after one that says its length."""
    packed = zstandard.ZstdCompressor(level=1).compress(content)
    return b"\x50\x2a\x4d\x18" + struct.pack("<II", 4, len(packed)) + packed


def test_damaged_weights_of_a_bundle_are_named(folder, tmp_path):
    copy = shutil.copytree(folder / "energy", tmp_path / "energy")
    with open(copy / "model.onnx", "ab") as stream:
        stream.write(b"x")
    assert "damaged" not in _text(folder / "energy")
    assert "are not those that its card was written for" in _text(copy)
    (copy / "gone").symlink_to("nowhere")
    (copy / "model.onnx").unlink()
    assert "it has no model.onnx" in _text(copy)


def test_a_manifest_is_described_wherever_its_shards_are(tmp_path):
    manifest = write_tiles(tmp_path, camera_batch(40), "camera")
    content = json.loads(manifest.path.read_text())
    content["shards"][0]["path"] = str(tmp_path / content["shards"][0]["path"])
    content["provenance"]["warnings"] = {"no": "list"}
    manifest.path.write_text(json.dumps(content))
    assert "manifest of tiles (camera)" in _text(manifest.path)


def test_a_damaged_provenance_does_not_hide_the_rest(folder, tmp_path):
    path = tmp_path / "run.dl1.h5"
    shutil.copy(folder / "run.dl1.h5", path)
    with h5py.File(path, "a") as file:
        file.attrs["LIGHTPOOL PROVENANCE"] = "[1"
    assert "unknown: its provenance is damaged" in _text(path)
