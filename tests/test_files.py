"""Whole outputs or none, and the names that products share."""

import os

import pytest

from pipeline.errors import UserError
from pipeline.files import atomic_output, check_free, source_name, write_text_atomically


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
