"""Descriptions of telescopes and cameras that cannot be right, as damaged and foreign files have them."""

import h5py
import numpy as np
import pytest

from pipeline.camera.dl1 import DL1File, DL1Writer, EventChunk, Subarray, schema
from pipeline.camera.geometry import Camera
from pipeline.errors import InputFileError
from pipeline.stages.info import describe_file

GEOMETRY, READOUT = f"/{schema.CAMERA.strip('/')}/geometry_0", f"/{schema.CAMERA.strip('/')}/readout_0"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two telescopes with one camera of 37 pixels, one image each."""
    q, r = np.meshgrid(np.arange(-3, 4), np.arange(-3, 4))
    inside = abs(q + r) <= 3
    x, y = 0.05 * (q[inside] + 0.5 * r[inside]), 0.05 * np.sqrt(3) / 2 * r[inside]
    camera = Camera("LSTCam", x, y, np.full(37, 0.00217), True, 28.0, sampling_rate_ghz=1.0, n_samples=40)
    path = tmp_path_factory.mktemp("instrument") / "whole.dl1.h5"
    subarray = Subarray("two", {1: camera, 2: camera}, {1: (0.0, 0.0, 0.0), 2: (100.0, 0.0, 0.0)})
    with DL1Writer(path, subarray, obs_id=1, pointing_alt_rad=1.2, pointing_az_rad=3.1) as writer:
        image = np.ones((2, 37), np.float32)
        writer.append(EventChunk(np.array([5, 5]), np.array([1, 2]), image, image))
    return path


def edited(whole, folder, node, change):
    """A copy of the file with other rows in a table; its attributes stay."""
    path = folder / "edited.dl1.h5"
    path.write_bytes(whole.read_bytes())
    with h5py.File(path, "r+") as file:
        rows, attributes = file[node][:], dict(file[node].attrs)
        rows = change(rows)
        del file[node]
        file[node] = rows
        file[node].attrs.update(attributes)
    return path


def put(column, value, place=slice(None)):
    def change(rows):
        rows[column][place] = value
        return rows

    return change


def without(column):
    return lambda rows: np.array(rows[[name for name in rows.dtype.names if name != column]])


@pytest.mark.parametrize(
    ("node", "change", "message"),
    [
        (
            GEOMETRY,
            put("pix_area", 0.0),
            r"camera LSTCam \(geometry_0\) cannot be used: 37 of 37 pixels have no positive",
        ),
        (GEOMETRY, put("pix_area", np.nan, 4), r"camera LSTCam .* 1 of 37 pixels have no positive area: pixel 4"),
        (GEOMETRY, put("pix_x", np.nan, 3), r"camera LSTCam .* 1 of 37 pixels have no finite position: pixel 3"),
        (GEOMETRY, put("pix_x", 1e9, 3), r"camera LSTCam .* pixel 3 at .* is far from all others"),
        (GEOMETRY, lambda rows: rows[:0], r"camera LSTCam .*geometry_0 has 0 rows; 1 to 100000 are possible"),
        (GEOMETRY, lambda rows: rows[:5], r"camera LSTCam .* it has 5 pixels"),
        (GEOMETRY, lambda rows: np.concatenate([rows, rows]), r"camera LSTCam .* pixels \d+ and \d+ are at one place"),
        (GEOMETRY, without("pix_area"), r"camera LSTCam .*geometry_0 has no column pix_area"),
        (GEOMETRY, lambda rows: rows["pix_x"], r"camera LSTCam .*geometry_0 is not a table"),
        (READOUT, lambda rows: rows[:0], r"camera LSTCam .*readout_0 has 0 rows"),
        (schema.OPTICS, put("equivalent_focal_length", np.nan), r"camera LSTCam .* focal length is nan m"),
        (schema.OPTICS, put("equivalent_focal_length", 0.0), r"camera LSTCam .* focal length is 0 m"),
        (schema.OPTICS, put("equivalent_focal_length", 28000.0), r"camera LSTCam .* focal length is 28000 m"),
        (schema.OPTICS, without("effective_focal_length"), r"optics has no column effective_focal_length"),
        (schema.OPTICS, lambda rows: rows[:0], r"tables of telescopes cannot be used: .*optics has 0 rows"),
        (schema.LAYOUT, lambda rows: rows[:0], r"tables of telescopes cannot be used: .*layout has 0 rows"),
        (schema.LAYOUT, put("tel_id", 1), "telescope 1 is in the layout 2 times"),
        (schema.LAYOUT, put("camera_index", -1), r"camera number -1 \(geometry_-1\) cannot be read"),
        (schema.LAYOUT, put("optics_index", -1), "a telescope has optics number -1, of 1"),
        (schema.LAYOUT, put("optics_index", 1, 1), "a telescope has optics number 1, of 1"),
        (schema.LAYOUT, put("pos_x", np.nan, 1), r"telescope 2 is at \(nan, 0, 0\) m"),
        (schema.LAYOUT, put("pos_x", 1e6, 0), r"telescope 1 is at \(1e\+06, 0, 0\) m; telescopes are within 100 km"),
        (schema.LAYOUT, without("pos_z"), r"layout has no column pos_z"),
    ],
)
def test_wrong_tables(whole, tmp_path, node, change, message):
    path = edited(whole, tmp_path, node, change)
    for read in (DL1File, describe_file):
        with pytest.raises(InputFileError, match=message):
            read(path)


@pytest.mark.parametrize(
    ("node", "name", "value", "message"),
    [
        (GEOMETRY, "PIX_TYPE", b"pentagon", "PIX_TYPE is 'pentagon'; accepted: hexagon, hexagonal, circle, square"),
        (GEOMETRY, "CAM_ROT", np.nan, "cam_rotation_deg is nan"),
        (GEOMETRY, "PIX_ROT", b"north", "could not convert string to float"),
        (READOUT, "NCHAN", 0, "its readout has NCHAN = 0; 1 to 8 exist"),
        (READOUT, "NCHAN", 1_000_000_000, "its readout has NCHAN = 1000000000"),
    ],
)
def test_wrong_attributes(whole, tmp_path, node, name, value, message):
    path = edited(whole, tmp_path, node, lambda rows: rows)
    with h5py.File(path, "r+") as file:
        file[node].attrs[name] = value
    with pytest.raises(InputFileError, match=rf"camera LSTCam \(geometry_0\) cannot be used: {message}"):
        DL1File(path)


def test_columns_of_text(whole, tmp_path):
    """The type of a column is checked before its values are."""
    path = edited(whole, tmp_path, GEOMETRY, lambda rows: rows.astype([(n, "S4") for n in rows.dtype.names]))
    with pytest.raises(InputFileError, match=r"camera LSTCam .*geometry_0 has text in pix_x; expected numbers"):
        DL1File(path)


@pytest.mark.parametrize("value", [0.0, np.nan, -1.0])
def test_effective_focal_length_may_be_unknown(whole, tmp_path, value):
    with DL1File(edited(whole, tmp_path, schema.OPTICS, put("effective_focal_length", value))) as file:
        assert np.isnan(file.telescopes[1].effective_focal_length_m)
        assert file.telescopes[1].focal_length_m == 28.0
