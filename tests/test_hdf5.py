"""HDF5 files of others: every kind of damage is one `InputFileError`, and nothing outside the file is read."""

import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from pipeline.errors import InputFileError
from pipeline.hdf5 import attribute, dataset, hdf5_errors, open_file, open_hdf5, read_columns

TABLE = np.array([(1, 2.5, b"x"), (2, 3.5, b"y")], dtype=[("event_id", "i8"), ("energy", "f4"), ("name", "S4")])


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "some.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("group/table", data=TABLE, chunks=(2,), compression="gzip")
        file["group/flat"] = np.arange(1000)
        file.attrs["format"] = "mine"
        file.attrs["version"] = np.int64(2)
    return path


def _refused(path, match):
    with pytest.raises(InputFileError, match=match), open_hdf5(path) as file:
        file["group/table"][:]


def test_a_good_file_is_read_as_it_is(path):
    with open_hdf5(path) as file:
        assert attribute(file, "format", "text") == "mine"
        assert attribute(file, "version", "integer") == 2
        assert attribute(file, "nothing", "text", "default") == "default"
        assert dataset(file, "group/flat", ndim=1, values="integer")[3] == 3
        columns = read_columns(file["group"], "table", {"energy": "number", "event_id": "integer", "name": "text"})
    assert columns["energy"].tolist() == [2.5, 3.5]
    assert columns["energy"].dtype == np.float32
    assert columns["event_id"].tolist() == [1, 2]
    assert columns["name"].tolist() == [b"x", b"y"]


def test_what_is_no_regular_file_is_refused_before_it_is_opened(tmp_path):
    _refused(tmp_path / "none.h5", "none.h5 does not exist")
    _refused(tmp_path, "is a directory")
    (tmp_path / "empty.h5").touch()
    _refused(tmp_path / "empty.h5", "is empty")
    os.mkfifo(tmp_path / "pipe.h5")
    _refused(tmp_path / "pipe.h5", "is a pipe")
    _refused("/dev/zero", "is a device")
    (tmp_path / "loop.h5").symlink_to(tmp_path / "loop.h5")
    _refused(tmp_path / "loop.h5", "leads back to itself")


def test_a_cut_file_and_one_that_is_no_hdf5_are_named_so(path, tmp_path):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    _refused(path, "is cut short")
    path.write_bytes(b"SIMPLE  =" * 100)
    _refused(path, "is not an HDF5 file")


def test_a_file_that_is_being_written_is_named_so(tmp_path):
    path = tmp_path / "open.h5"
    code = (
        "import h5py, sys\n"
        "file = h5py.File(sys.argv[1], 'w', libver='latest'); file['x'] = 1; file.flush()\n"
        "print('open', flush=True); sys.stdin.read()"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert writer.stdout.readline() == "open\n"
        _refused(path, "is being written by another process")
        writer.kill()
        writer.wait()
        _refused(path, "was not closed by the program that wrote it")
    finally:
        writer.kill()
        writer.communicate()


def test_a_block_of_zeros_anywhere_is_one_error_or_no_difference(path):
    whole = path.read_bytes()
    answers = set()
    for start in range(0, len(whole), 64):
        path.write_bytes(whole[:start] + bytes(64) + whole[start + 64 :])
        try:
            with open_hdf5(path) as file:
                read_columns(file, "group/table", {"event_id": "integer", "energy": "number"})
                dataset(file, "group/flat", values="integer")[:]
            answers.add("read")
        except InputFileError as error:
            answers.add("two lines" if "\n" in str(error) else "refused")
    assert answers == {"read", "refused"}


def test_parts_that_are_missing_or_of_another_kind_are_named(path):
    with open_hdf5(path) as file:
        with pytest.raises(InputFileError, match="lacks /group/nothing"):
            dataset(file["group"], "nothing")
        with pytest.raises(InputFileError, match="/group is not a table"):
            dataset(file, "group")
        with pytest.raises(InputFileError, match="lacks the column mass"):
            read_columns(file, "group/table", {"mass": "number"})
        with pytest.raises(InputFileError, match="/group/table has energy as float32; needed: integer"):
            read_columns(file, "group/table", {"energy": "integer"})
        with pytest.raises(InputFileError, match=r"/group/flat has shape \(1000,\); 2 dimensions"):
            dataset(file, "group/flat", ndim=2)
        with pytest.raises(InputFileError, match="elements of type int64; needed: text"):
            dataset(file, "group/flat", values="text")
        with pytest.raises(InputFileError, match="lacks the attribute 'nothing'"):
            attribute(file, "nothing", "text")
        with pytest.raises(InputFileError, match="'format' of / is 'mine'; needed: integer"):
            attribute(file, "format", "integer")
    with pytest.raises(InputFileError, match="lacks a part that is needed"), open_hdf5(path) as file:
        file["group/nothing"]


def test_errors_of_other_code_keep_their_traceback(path):
    with pytest.raises(KeyError, match="mine"), open_hdf5(path):
        {}["mine"]
    with pytest.raises(ValueError, match="broadcast"), hdf5_errors(path):
        np.zeros(3) + np.zeros(4)


def test_nothing_outside_the_file_is_read(path, tmp_path):
    secret = tmp_path / "elsewhere" / "secret.h5"
    secret.parent.mkdir()
    with h5py.File(secret, "w") as file:
        file["data"] = np.arange(5)
    raw = tmp_path / "raw.bin"
    raw.write_bytes(bytes(40))
    layout = h5py.VirtualLayout(shape=(5,), dtype="i8")
    layout[:] = h5py.VirtualSource(str(secret), "data", shape=(5,))
    kinds = {
        "link": lambda file: file.__setitem__("group/other", h5py.ExternalLink(str(secret), "/data")),
        "external": lambda file: file.create_dataset("other", (5,), "i8", external=[(str(raw), 0, 40)]),
        "virtual": lambda file: file.create_virtual_dataset("other", layout),
    }
    whole = path.read_bytes()
    for name, change in kinds.items():
        path.write_bytes(whole)
        with h5py.File(path, "a") as file:
            change(file)
        _refused(path, "group/other is a link to another file" if name == "link" else "/other has its data in another")
    path.write_bytes(whole)
    with h5py.File(path, "a") as file:
        file["group/inside"] = h5py.SoftLink("/group/table")
        file["group/circle"] = h5py.SoftLink("/group/circle")
    with open_hdf5(path) as file:
        assert len(file["group/inside"]) == 2


def test_declared_sizes_are_checked_before_anything_is_allocated(path):
    whole = path.read_bytes()
    for shape, options, match in (
        ((10**12,), {}, "which its .* bytes cannot hold"),
        ((10**12,), {"chunks": (1000,)}, "only 0 of its 1,000,000,000 pieces were written"),
        ((10**9,), {"chunks": (10**9 // 2,)}, "chunks of more than 512 MB"),
    ):
        path.write_bytes(whole)
        with h5py.File(path, "a") as file:
            file.create_dataset("huge", shape, "f8", **options)
        _refused(path, match)


def test_a_file_kept_open_is_read_inside_the_same_guard(path):
    file = open_file(path, rdcc_nbytes=1 << 20)
    with pytest.raises(InputFileError, match="lacks a part"), hdf5_errors(path):
        file["nothing"]
    file.close()
