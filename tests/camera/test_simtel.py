"""Ingest of sim_telarray files; all tests need real ones."""

import gzip
import json
import struct

import h5py
import numpy as np
import pytest
import zstandard

from pipeline.camera.dl1 import DL1File, schema
from pipeline.camera.simtel import ingest_simtel
from pipeline.config import CameraIngestConfig
from pipeline.errors import InputFileError, OutputError

CFG = CameraIngestConfig()
SMALL = "st_v036b_gamma_run7_za40_South_lsts_700.simtel.zst"


@pytest.fixture(scope="module")
def small(data_dir, tmp_path_factory):
    """A small file: 4 events of 4 LSTs, with its decompressed content."""
    path = data_dir / "camera" / "simtel" / SMALL
    out = tmp_path_factory.mktemp("simtel") / "small.dl1.h5"
    counts = ingest_simtel(path, out, CFG)
    with open(path, "rb") as stream:
        content = zstandard.ZstdDecompressor().stream_reader(stream).read()
    return path, out, counts, content


def test_counts_truth_and_showers(small):
    _, out, counts, _ = small
    assert counts == {"n_events": 4, "n_images": 13, "n_telescopes": 4, "notes": []}
    with DL1File(out) as file:
        assert file.n_images == 13
        assert {camera.identity for camera in file.telescopes.values()} == {"hexagon-1855-6.14arcmin-41deg-r24"}
        chunk = next(file.chunks(tel_ids=[1]))
    assert chunk.event_id.tolist() == [1000, 1500, 1700, 1900]
    assert chunk.shower_id.tolist() == [10, 15, 17, 19]
    assert chunk.truth["true_energy_tev"] == pytest.approx(0.1)
    assert chunk.truth["true_offset_deg"] == pytest.approx(0, abs=1e-3)
    assert np.isfinite(chunk.image).all()
    assert out.with_name(out.name + ".provenance.json").exists()


def test_impact_is_ctapipe_s(small):
    with DL1File(small[1]) as file, h5py.File(small[1]) as raw:
        for chunk in file.chunks():
            stored = raw[f"{schema.TRUE_IMPACT}/tel_{chunk.tel_id:03d}"]["true_impact_distance"]
            assert chunk.truth["true_impact_m"] == pytest.approx(stored, rel=1e-9)


@pytest.mark.parametrize(
    ("path", "columns"),
    [
        (schema.TRIGGER, schema.trigger_columns(4)),
        (schema.TEL_TRIGGER, schema.TEL_TRIGGER_COLUMNS),
        (schema.IMAGES + "/tel_001", schema.image_columns(1855)),
        (schema.PARAMETERS + "/tel_001", schema.PARAMETER_COLUMNS),
        (schema.SHOWER, schema.SHOWER_COLUMNS[:-1]),  # without the column that is ours
        (schema.TRUE_IMAGES + "/tel_001", schema.true_image_columns(1855)),
        (schema.TRUE_IMPACT + "/tel_001", schema.IMPACT_COLUMNS),
        (schema.TRUE_PARAMETERS + "/tel_001", schema.TRUE_PARAMETER_COLUMNS),
        (schema.FIXED_POINTING + "/tel_001", schema.POINTING_COLUMNS),
        (schema.SCHEDULING_BLOCK, schema.SCHEDULING_COLUMNS),
        (schema.OBSERVATION_BLOCK, schema.OBSERVATION_COLUMNS),
        (schema.SIMULATION_RUN, schema.SIMULATION_RUN_COLUMNS),
        (schema.CAMERA + "/geometry_0", schema.GEOMETRY_COLUMNS),
        (schema.CAMERA + "/readout_0", schema.readout_columns(2)),
    ],
)
def test_schema_is_what_ctapipe_writes(small, path, columns):
    """Names, order, types, units, enumerations: our schema against a file of ctapipe's own writer."""
    with h5py.File(small[1]) as file:
        table = file[path]
        assert list(table.dtype.names) == [column.name for column in columns]
        ours = schema.row_dtype(columns)
        for position, column in enumerate(columns):
            theirs = table.dtype[column.name]
            # h5py shows the booleans of PyTables as bytes.
            base = np.dtype(ours[column.name].base.str.replace("|b1", "|u1"))
            assert theirs.base == base, column.name
            assert theirs.shape == ours[column.name].shape, column.name
            attributes = schema.column_attributes(columns)
            for key in ("UNIT", "ENUM", "TRANSFORM", "TIME_FORMAT", "TIME_SCALE", "NAME"):
                name = f"CTAFIELD_{position}_{key}"
                if name in table.attrs:
                    expected = attributes[name]
                    assert table.attrs[name] == (expected if isinstance(expected, bytes) else expected.encode()), name


def test_equal_runs_give_equal_bytes(small, tmp_path):
    path, out, _, _ = small
    again = tmp_path / "again.dl1.h5"
    ingest_simtel(path, again, CFG)
    assert again.read_bytes() == out.read_bytes()


def test_ctapipe_reads_the_repacked_file(small):
    from ctapipe.io import EventSource, TableLoader

    with EventSource(small[1]) as source:
        events = [(int(event.index.event_id), sorted(event.dl1.tel)) for event in source]
    assert events == [(1000, [1, 2, 4]), (1500, [1, 4]), (1700, [1, 2, 3, 4]), (1900, [1, 2, 3, 4])]
    with TableLoader(small[1]) as loader:
        assert len(loader.read_telescope_events(dl1_images=True)) == 13
        assert loader.read_shower_distribution()["n_entries"][0] == 20


def test_what_was_whole_is_kept(small, tmp_path):
    """A file that ends in the middle of its third event."""
    content = small[3]
    path = tmp_path / "cut.simtel"
    path.write_bytes(content[: int(0.6 * len(content))])
    counts = ingest_simtel(path, tmp_path / "cut.dl1.h5", CFG)
    assert counts["n_events"] == 2
    assert counts["notes"] == []
    (warning,) = counts["warnings"]
    assert warning == "ends in the middle, after event 2; only what comes before was read"
    assert json.loads((tmp_path / "cut.dl1.h5.provenance.json").read_text())["warnings"] == [warning]
    with DL1File(tmp_path / "cut.dl1.h5") as file, DL1File(small[1]) as whole:
        assert json.loads(file.provenance)["warnings"] == [warning]
        assert file.n_images == 5
        np.testing.assert_array_equal(next(file.chunks()).image, next(whole.chunks()).image[:2])


@pytest.mark.parametrize("n_events", [2, 4])
def test_a_file_cut_between_two_objects(small, tmp_path, n_events):
    """Nothing in it is damaged, but it lacks the histograms, and with them the number of thrown showers."""
    (tmp_path / "cut.simtel").write_bytes(small[3][: ends_of_events(small[0])[n_events - 1]])
    counts = ingest_simtel(tmp_path / "cut.simtel", tmp_path / "cut.dl1.h5", CFG)
    assert counts["n_events"] == n_events
    assert counts["warnings"] == [
        f"ends without the histograms that close a run; events after event {n_events} may be missing"
    ]
    with h5py.File(tmp_path / "cut.dl1.h5") as file:
        assert schema.SHOWER_DISTRIBUTION not in file


def ends_of_events(path):
    from eventio import EventIOFile

    with EventIOFile(path) as file:
        return [item.header.content_address + item.header.content_size for item in file if item.header.type == 2010]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
@pytest.mark.parametrize("is_closed", [True, False])
def test_several_runs_in_one_file(small, tmp_path, pack, is_closed):
    """As `cat` joins them; ctapipe stops at the histograms of the first, and takes what follows without them for it."""
    first = small[3] if is_closed else small[3][: ends_of_events(small[0])[-1]]
    (tmp_path / "two.simtel").write_bytes(pack(first) + pack(small[3]))
    with pytest.raises(InputFileError, match=r"two\.simtel holds several runs; give each run as a file of its own"):
        ingest_simtel(tmp_path / "two.simtel", tmp_path / "out.dl1.h5", CFG)
    assert [entry.name for entry in tmp_path.iterdir()] == ["two.simtel"]


@pytest.mark.parametrize("lengths", [b"", b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"])
def test_zstd_of_several_frames(small, tmp_path, lengths):
    """As pzstd writes it, with a frame of lengths before each, or `cat`: objects continue in the next frame."""
    content, path = small[3], tmp_path / "frames.simtel.zst"
    frames = [
        lengths + zstandard.compress(content[start : start + 500_000], 1) for start in range(0, len(content), 500_000)
    ]
    path.write_bytes(b"".join(frames))
    counts = ingest_simtel(path, tmp_path / "whole.dl1.h5", CFG)
    assert counts == small[2]
    path.write_bytes(b"".join(frames[:5]))
    counts = ingest_simtel(path, tmp_path / "cut.dl1.h5", CFG)
    assert counts["warnings"] == ["ends in the middle, after event 3; only what comes before was read"]


def test_what_is_damaged_is_left_out(small, tmp_path):
    content = bytearray(small[3])
    start = int(0.6 * len(content))
    content[start : start + 5120] = bytes(range(256)) * 20
    path = tmp_path / "damaged.simtel"
    path.write_bytes(content)
    counts = ingest_simtel(path, tmp_path / "damaged.dl1.h5", CFG)
    assert counts["n_events"] == 2
    assert "ends or is damaged after event 2" in counts["warnings"][0]


@pytest.mark.parametrize(
    ("share", "message"), [(0.05, "ends before the first event"), (0.4, "holds no triggered event .ends in the middle")]
)
def test_nothing_whole(small, tmp_path, share, message):
    path = tmp_path / "cut.simtel"
    path.write_bytes(small[3][: int(share * len(small[3]))])
    with pytest.raises(InputFileError, match=message):
        ingest_simtel(path, tmp_path / "cut.dl1.h5", CFG)
    assert [entry.name for entry in tmp_path.iterdir()] == ["cut.simtel"]


@pytest.mark.parametrize("step", ["calibrate", "write"])
def test_an_event_that_cannot_be_written(small, tmp_path, monkeypatch, step):
    """Whatever ctapipe makes of damaged numbers: the events before are kept, and no part of this one."""
    from ctapipe.calib import CameraCalibrator
    from ctapipe.io import DataWriter

    kind = CameraCalibrator if step == "calibrate" else DataWriter
    whole = kind.__call__

    def fail_at_third(self, event, *args):
        if step == "write":
            whole(self, event, *args)
        if event.index.event_id == 1700:
            raise ValueError("operands could not be broadcast")
        return whole(self, event, *args) if step == "calibrate" else None

    monkeypatch.setattr(kind, "__call__", fail_at_third)
    counts = ingest_simtel(small[0], tmp_path / "out.dl1.h5", CFG)
    assert (counts["n_events"], counts["n_images"]) == (2, 5)
    (warning,) = counts["warnings"]
    assert warning.startswith("is damaged after event 2 (ValueError: operands could not be broadcast)")
    with DL1File(tmp_path / "out.dl1.h5") as file:
        assert (file.n_events, file.n_images) == (2, 5)


def test_a_full_disk_is_no_damage_of_the_input(small, tmp_path, monkeypatch):
    from ctapipe.io import DataWriter

    def full(self, event):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(DataWriter, "__call__", full)
    with pytest.raises(OutputError, match=r"cannot write .*no space left on device"):
        ingest_simtel(small[0], tmp_path / "out.dl1.h5", CFG)
    assert list(tmp_path.iterdir()) == []


def test_a_camera_that_cannot_be_one(small, tmp_path):
    content = small[3].replace(struct.pack("<f", 28.0), struct.pack("<f", 28000.0))
    (tmp_path / "odd.simtel").write_bytes(content)
    with pytest.raises(InputFileError, match=r"camera LSTS-design of telescope 1 cannot be used: .* is 28000 m"):
        ingest_simtel(tmp_path / "odd.simtel", tmp_path / "out.dl1.h5", CFG)


def test_a_wrong_checksum_puts_every_event_in_doubt(small, tmp_path):
    packed = bytearray(gzip.compress(small[3], 1))
    packed[-8] ^= 1
    (tmp_path / "odd.simtel.gz").write_bytes(packed)
    counts = ingest_simtel(tmp_path / "odd.simtel.gz", tmp_path / "out.dl1.h5", CFG)
    (warning,) = counts["warnings"]
    assert counts["n_events"] == 4
    assert warning.startswith("its compressed data are damaged (BadGzipFile: CRC check failed")
    assert warning.endswith("numbers in any of its 4 events may be wrong; copy it again")


def test_selection_by_configuration(data_dir, tmp_path):
    path = data_dir / "camera" / "simtel" / SMALL
    cfg = CameraIngestConfig(allowed_telescopes=(1, 4), max_events=2)
    counts = ingest_simtel(path, tmp_path / "out.dl1.h5", cfg)
    assert (counts["n_events"], counts["n_images"], counts["n_telescopes"]) == (2, 4, 2)
    assert "warnings" not in counts
    with h5py.File(tmp_path / "out.dl1.h5") as file:  # the number of thrown showers is that of all events
        assert schema.SHOWER_DISTRIBUTION not in file


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pe_test_camorganv2.simtel.gz", "ends before the first event: the file is cut short"),
        ("st_v032_proton_run201_za20_North_600.simtel.zst", "holds no triggered event"),
    ],
)
def test_bad_files(data_dir, tmp_path, name, message):
    with pytest.raises(InputFileError, match=message):
        ingest_simtel(data_dir / "camera" / "bad" / name, tmp_path / "out.dl1.h5", CFG)
    assert list(tmp_path.iterdir()) == []


def test_garbled_metadata(data_dir, tmp_path):
    name = "st_v034_proton_run1_za20_North_602.simtel.zst"
    counts = ingest_simtel(data_dir / "camera" / "bad" / name, tmp_path / "out.dl1.h5", CFG)
    assert (counts["n_events"], counts["n_images"]) == (5, 13)
    assert counts["notes"] == ["the name of the atmosphere is garbled; its profile was dropped"]


@pytest.mark.parametrize(
    ("name", "n_events", "n_images"),
    [
        ("cx_lst_muons.simtel.zst", 30, 30),
        ("pe_40k_pixels.simtel.zst", 2, 2),
        ("pe_calib_events.simtel.gz", 0, 0),
        ("pe_camsettings_v6.simtel.zst", 1, 9),
        ("pe_gamma_merged.simtel.gz", 0, 0),
        ("pe_history_meta_75.simtel.zst", 1, 15),
        ("st_v035_proton_run1_za20_North_700.simtel.zst", 3, 15),
        (SMALL, 4, 13),
        ("sth_proton_run202_za20_North_600_a.simtel.zst", 4, 15),
    ],
)
def test_every_file(data_dir, tmp_path, name, n_events, n_images):
    """Each gives its events, or is answered plainly."""
    path, out = data_dir / "camera" / "simtel" / name, tmp_path / "out.dl1.h5"
    if n_events == 0:
        with pytest.raises(InputFileError, match="holds no triggered event"):
            ingest_simtel(path, out, CFG)
        return
    counts = ingest_simtel(path, out, CFG)
    assert (counts["n_events"], counts["n_images"]) == (n_events, n_images)
    # All others end with their histograms.
    unclosed = ["ends without the histograms that close a run; events after event 30 may be missing"]
    assert counts.get("warnings", []) == (unclosed if name.startswith("cx_lst_muons") else [])
    with DL1File(out) as file:
        assert sum(len(chunk) for chunk in file.chunks()) == n_images
