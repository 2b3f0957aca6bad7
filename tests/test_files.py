"""Whole outputs or none, and the names that products share."""

import os
import socket
from pathlib import Path

import pytest

from pipeline.errors import InputFileError, UserError
from pipeline.files import (
    atomic_output,
    check_free,
    check_regular,
    is_directory,
    source_name,
    write_text_atomically,
)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/run_1.simtel.zst", "run_1"),
        ("run_1.SIMTEL.GZ", "run_1"),
        ("shower_run_0001.dl1.h5", "shower_run_0001"),
        ("shower_run_0001.tiles.h5", "shower_run_0001"),
        ("frame.fits", "frame"),
        ("frame.fits.fz", "frame"),
        ("c4d_150110_053718_ooi_z_ls9.S11.fits", "c4d_150110_053718_ooi_z_ls9.S11"),
        ("no_suffix", "no_suffix"),
    ],
)
def test_source_name(path, name):
    assert source_name(path) == name


def test_output_appears_when_whole(tmp_path):
    target = tmp_path / "new" / "table.csv"
    with atomic_output(target) as temporary:
        temporary.write_text("1")
        assert not target.exists()
        assert temporary.suffix == target.suffix
        assert temporary.parent == target.parent
    assert target.read_text() == "1"
    assert list(target.parent.iterdir()) == [target]


def test_a_failure_leaves_nothing(tmp_path):
    target = tmp_path / "table.csv"

    def fail():
        with atomic_output(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_failure_keeps_the_old_output(tmp_path):
    target = tmp_path / "table.csv"
    target.write_text("old")

    def fail():
        with atomic_output(target, force=True) as temporary:
            temporary.write_text("half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_directories_are_replaced_whole(tmp_path):
    target = tmp_path / "bundle"
    for content in ("first", "second"):
        with atomic_output(target, force=True) as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
    assert [path.name for path in target.iterdir()] == ["second"]
    assert list(tmp_path.iterdir()) == [target]


def test_existing_output_needs_force(tmp_path):
    target = tmp_path / "table.csv"
    target.write_text("old")
    with pytest.raises(UserError, match=r"table\.csv exists; choose another name or add --force"):
        check_free(target)
    assert check_free(target, force=True) == target


def test_parent_must_be_a_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file is not a directory"):
        check_free(tmp_path / "file" / "sub" / "table.csv")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_parent_must_be_writable(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="no permission to write"):
        check_free(tmp_path / "table.csv")


def test_text_is_written_and_replaced_in_one_step(tmp_path, monkeypatch):
    target = tmp_path / "new" / "status.json"
    assert write_text_atomically(target, "first é") == target
    write_text_atomically(target, "second")
    assert target.read_text() == "second"
    assert list(target.parent.iterdir()) == [target]

    def power_cut(path, text, encoding):
        with open(path, "w") as stream:
            stream.write(text[:2])
        raise RuntimeError("power cut")

    monkeypatch.setattr("pathlib.Path.write_text", power_cut)
    with pytest.raises(RuntimeError, match="power cut"):
        write_text_atomically(target, "third")
    assert target.read_text() == "second"
    assert list(target.parent.iterdir()) == [target]


def test_text_needs_a_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*status.json: .*file is not a directory"):
        write_text_atomically(tmp_path / "file" / "status.json", "")


def _fifo(folder):
    os.mkfifo(folder / "odd")
    return folder / "odd"


def _socket(folder):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(folder / "odd"))  # names of sockets have at most 107 bytes
    return folder / "odd"


def _loop(folder):
    (folder / "odd").symlink_to(folder / "other")
    (folder / "other").symlink_to(folder / "odd")
    return folder / "odd"


def _broken_link(folder):
    (folder / "odd").symlink_to("nowhere")
    return folder / "odd"


def _below_a_file(folder):
    (folder / "file").write_text("")
    return folder / "file" / "odd"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "odd", "odd does not exist"),
        (lambda folder: folder, r"is a directory, not a file"),
        (_fifo, r"odd is a pipe \(FIFO\), not a regular file"),
        (_socket, "odd is a socket, not a regular file"),
        (lambda folder: Path("/dev/zero"), "/dev/zero is a device, not a regular file"),
        (_loop, "odd is a link that leads back to itself"),
        (_broken_link, "odd is a link to nowhere, which does not exist"),
        (_below_a_file, "odd does not exist: a part of its path is not a directory"),
        (lambda folder: folder / ("x" * 300), "its name is longer than the file system allows"),
        (lambda folder: folder / "a\0b", "is not the name of a file"),
    ],
)
def test_only_regular_files_are_opened(tmp_path, monkeypatch, make, message):
    monkeypatch.chdir(tmp_path)
    odd = make(tmp_path)
    with pytest.raises(InputFileError, match=message):
        check_regular(odd)
    assert is_directory(odd) is (odd == tmp_path)


@pytest.mark.parametrize("name", ["x" * 255, "größe.h5", os.fsdecode(b"\xff\xfe.h5"), "a\nb\x1b[31m.h5", "-rf"])
def test_regular_files_may_have_any_name(tmp_path, name):
    (tmp_path / name).write_text("")
    (tmp_path / "link").symlink_to(tmp_path / name)
    assert check_regular(tmp_path / name) == tmp_path / name
    assert check_regular(tmp_path / "link") == tmp_path / "link"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_files_are_named(tmp_path):
    (tmp_path / "table.csv").write_text("")
    (tmp_path / "table.csv").chmod(0)
    with pytest.raises(InputFileError, match=r"table\.csv cannot be read: no permission"):
        check_regular(tmp_path / "table.csv")
