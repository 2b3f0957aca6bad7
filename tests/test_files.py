"""Whole outputs or none, and the names that products share."""

import errno
import gzip
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from astropy.io import fits
from matplotlib.figure import Figure
from safetensors.numpy import save_file

from pipeline.errors import InputFileError, OutputError, UserError
from pipeline.files import (
    atomic_output,
    check_free,
    check_regular,
    is_directory,
    reserved,
    source_name,
    temporary_folder,
    write_text_atomically,
)
from pipeline.provenance import write_sidecar


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
        assert temporary.name == target.name
        assert temporary.parent.parent == target.parent  # and so on the same file system
    assert target.read_text() == "1"
    assert list(target.parent.iterdir()) == [target]


def test_a_failure_leaves_nothing(tmp_path):
    target = tmp_path / "new" / "folder" / "table.csv"

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
        with atomic_output(target, force=True, folder=True) as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
            write_sidecar(temporary, {})
    assert [path.name for path in target.iterdir()] == ["second"]
    assert sorted(tmp_path.iterdir()) == [target, tmp_path / "bundle.provenance.json"]


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
    target = tmp_path / "new" / "log.txt"
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
        (
            lambda folder: Path("s3://archive/odd"),
            "^s3://archive/odd is an address, and lightpool reads files; download",
        ),
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


# ---- one writer, and what killed ones left ---------------------------------------------------------------------------
def _write(target, action, **options):
    with atomic_output(target, **options) as temporary:
        action(temporary)


WRITER = """
import pathlib, sys, time
from pipeline.files import atomic_output

with atomic_output(pathlib.Path(sys.argv[1]), folder=len(sys.argv) > 2) as temporary:
    if len(sys.argv) > 2:
        temporary.mkdir()
        temporary = temporary / "part"
    temporary.write_text("half")
    temporary.with_name("more.txt").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(checkout):
    """Start a process that is in the middle of writing; kill it at the end."""
    started = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": str(checkout)}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        assert process.stdout.readline() == "writing\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_second_writer_is_refused(tmp_path, writer):
    target = tmp_path / "table.csv"
    first = writer(target)
    with (
        pytest.raises(OutputError, match=rf"another process \({first.pid} on .*\) is writing .*table\.csv; wait for"),
        atomic_output(target, force=True),
    ):
        pass
    with pytest.raises(OutputError, match="another process"), reserved(target):
        pass
    with atomic_output(tmp_path / "other.csv") as temporary:
        temporary.write_text("")


@pytest.mark.parametrize("folder", [False, True])
def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path, writer, folder):
    target = tmp_path / "product"
    killed = writer(target, *(["folder"] if folder else []))
    killed.kill()
    killed.wait()
    assert [path.name for path in tmp_path.iterdir()] == [".product.part"]
    with atomic_output(target, folder=folder) as temporary:
        assert not temporary.exists()
        if folder:
            temporary.mkdir()
        else:
            temporary.write_text("whole")
    assert list(tmp_path.iterdir()) == [target]


def test_what_belongs_to_a_product_comes_with_it(tmp_path):
    target = tmp_path / "table.csv"
    with atomic_output(target) as temporary:
        temporary.write_text("1")
        write_sidecar(temporary, {"stage": "test"})
        assert list(tmp_path.iterdir()) == [temporary.parent]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table.csv", "table.csv.provenance.json"]
    assert json.loads((tmp_path / "table.csv.provenance.json").read_text())["product"] == "table.csv"


def test_a_reserved_product_is_made_in_the_reserved_folder(tmp_path):
    target = tmp_path / "table.csv"
    with reserved(target), atomic_output(target) as temporary:
        temporary.write_text("1")
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(UserError, match=r"table\.csv exists"), reserved(target):
        pass


def test_a_product_inside_another_is_part_of_it(tmp_path):
    def fail(temporary):
        temporary.mkdir()
        write_text_atomically(temporary / "log.txt", "1")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        _write(tmp_path / "new", fail, folder=True)
    assert list(tmp_path.iterdir()) == []


def test_forgetting_to_write_is_a_fault(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing was written"), atomic_output(tmp_path / "table.csv"):
        pass
    assert list(tmp_path.iterdir()) == []


# ---- what must not be replaced, and names that are too long ----------------------------------------------------------
def test_force_replaces_products_only(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="home is a directory with files, and lightpool did not make it"):
        check_free(home, force=True, folder=True)
    with pytest.raises(UserError, match="home: it is a directory; give the name of a file"):
        check_free(home, force=True)
    with pytest.raises(UserError, match=r"thesis\.tex: it is a file, and a directory is to be made"):
        check_free(home / "thesis.tex", force=True, folder=True)
    with pytest.raises(UserError, match="/dev/null: it is a device"):
        check_free("/dev/null", force=True)
    with pytest.raises(UserError, match=r"cannot write .*odd: it is a pipe"):
        check_free(_fifo(tmp_path), force=True)
    assert (home / "thesis.tex").exists()


@pytest.mark.parametrize("name", ["x" * 239, "é" * 119 + "x"])
def test_names_may_be_as_long_as_the_file_system_takes(tmp_path, name):
    target = tmp_path / name
    with atomic_output(target) as temporary:
        temporary.write_text("1")
        write_sidecar(temporary, {})
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(UserError, match=r"its name and \.provenance\.json have 256 bytes, and the .* takes 255"):
        check_free(tmp_path / (name + "x"))


def test_names_of_products_are_utf8(tmp_path):
    with pytest.raises(UserError, match="the name is not UTF-8, which HDF5 needs; choose another name, or rename"):
        check_free(tmp_path / os.fsdecode(b"\xff.h5"))
    assert check_free(tmp_path / "größe.h5") == tmp_path / "größe.h5"


# ---- bytes that did not arrive ---------------------------------------------------------------------------------------
def _hdf5_file(path, n=200_000):
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(n)
        file.create_dataset("y", data=np.arange(n), chunks=(1000,), compression="gzip")


def _fits_file(path):
    fits.HDUList([fits.PrimaryHDU(np.ones((200, 200))), fits.ImageHDU(np.ones((200, 200)))]).writeto(path)


def _safetensors_file(path):
    save_file({"a": np.ones(20_000), "b": np.ones(3)}, path)


def _png_file(path):
    Figure().savefig(path)


def _checkpoint(path):
    torch.save({"a": torch.ones(20_000)}, path)


def _gzip_file(path):
    with gzip.open(path, "wb") as stream:
        stream.write(np.random.default_rng(0).bytes(100_000))


WRITERS = {
    "x.h5": _hdf5_file,
    "x.fits": _fits_file,
    "x.fits.gz": _gzip_file,
    "x.safetensors": _safetensors_file,
    "x.png": _png_file,
    "x.ckpt": _checkpoint,
    "x.json": lambda path: path.write_text(json.dumps(list(range(10_000)))),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_lost_its_end_is_not_renamed(tmp_path, name):
    with atomic_output(tmp_path / name) as temporary:
        WRITERS[name](temporary)
    (tmp_path / name).unlink()

    def lose_a_third(temporary):
        WRITERS[name](temporary)
        os.truncate(temporary, temporary.stat().st_size * 2 // 3)

    with pytest.raises(OutputError, match=rf"cannot write .*{name}: it is not whole after writing"):
        _write(tmp_path / name, lose_a_third)
    assert list(tmp_path.iterdir()) == []


def test_a_hole_in_hdf5_is_seen(tmp_path):
    def lose_a_chunk(temporary):
        _hdf5_file(temporary)
        with h5py.File(temporary) as file:
            chunk = file["y"].id.get_chunk_info(150)
        with open(temporary, "r+b") as stream:
            stream.seek(chunk.byte_offset)
            stream.write(bytes(chunk.size))

    with pytest.raises(OutputError, match=r"cannot write .*x\.h5: it is not whole after writing"):
        _write(tmp_path / "x.h5", lose_a_chunk)


# What libraries say when the disk is full: the number of the error is somewhere, or nowhere.
FULL = [
    (OSError(errno.ENOSPC, "No space left on device"), "no space left on device"),
    (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk quota exceeded"),
    (OSError(errno.EFBIG, "File too large"), "file too large"),
    (OSError(errno.EROFS, "Read-only file system", "x"), "read-only file system"),
    (OSError("[Errno 28] Can't write data (file write failed: errno = 28)"), "no space left on device"),
    (RuntimeError("problems (errno = 28, error message = 'No space left on device', buf = 0x1)"), "no space left"),
    (ValueError("Error while serializing: I/O error: No space left on device (os error 28)"), "no space left"),
    (OSError("Not enough space on disk: requested 1, available 0."), "no space left on device"),
]


@pytest.mark.parametrize(("error", "words"), FULL)
def test_a_full_disk_is_named_whoever_says_so(tmp_path, error, words):
    def fail(temporary):
        temporary.write_text("half")
        raise error

    def blame_the_input(temporary):
        raise InputFileError("in.h5 is damaged") from error

    for write in (fail, blame_the_input):
        with pytest.raises(OutputError, match=rf"cannot write .*x\.h5: {words}"):
            _write(tmp_path / "x.h5", write)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_that_nobody_names(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=0))

    def fail(temporary):
        raise RuntimeError("unexpected pos 576 vs 470")

    with pytest.raises(OutputError, match=r"cannot write .*x\.h5: no space left on device"):
        _write(tmp_path / "x.h5", fail)


def test_errors_of_inputs_stay_what_they_are(tmp_path):
    (tmp_path / "in.h5").write_text("")
    for error in (
        OSError(errno.EIO, "Input/output error", str(tmp_path / "in.h5")),
        PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "in.h5")),
        InputFileError("in.h5 is damaged"),
        TypeError("a fault"),
    ):
        with pytest.raises(type(error)) as caught, atomic_output(tmp_path / "x.h5"):
            raise error
        assert caught.value is error


def test_the_folder_of_a_product_may_refuse(tmp_path):
    def fail(temporary):
        raise PermissionError(errno.EACCES, "Permission denied", str(temporary))

    with pytest.raises(OutputError, match=r"cannot write .*x\.h5: permission denied"):
        _write(tmp_path / "x.h5", fail)


LIMITED = """
import pathlib, resource, sys
sys.path.insert(0, sys.argv[2])
import h5py, numpy as np, tables
from pipeline.errors import OutputError
from pipeline.files import atomic_output

resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
target = pathlib.Path(sys.argv[1])
for library in (h5py.File, tables.open_file):
    try:
        with atomic_output(target) as temporary, library(temporary, "w") as file:
            if library is tables.open_file:
                file.create_earray("/", "x", obj=np.arange(200_000), chunkshape=(10_000,))
            else:
                file["x"] = np.arange(200_000)
    except OutputError as error:
        print(error)
print(list(target.parent.iterdir()))
"""


def test_a_limit_of_file_sizes_reached_in_hdf5(tmp_path, checkout):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "x.h5"), str(checkout)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    line = f"cannot write {tmp_path}/x.h5: file too large"
    assert done.stdout.splitlines() == [line, line, "[]"]
    assert done.returncode == 0, done.stderr


LIMITED_SHARDS = """
import pathlib, resource, sys
sys.path.insert(0, sys.argv[2])
import numpy as np
from pipeline.camera.dl1.repack import repack
from pipeline.errors import OutputError
from pipeline.files import atomic_output
from pipeline.output.hdf5 import make_room, new_hdf5
from pipeline.tiles.layout import Channel
from pipeline.tiles.shards import ShardWriter, TileBatch

target, noise = pathlib.Path(sys.argv[1]), np.random.default_rng(0)

def shard(path):
    facts = dict(channels=[Channel("a", "")], tile_shape=(16, 16), source="s", wing="sky", attributes={})
    with ShardWriter(path, **facts) as writer:
        for start in range(0, 600, 100):
            images = noise.normal(size=(100, 1, 16, 16)).astype("f2")
            writer.append(TileBatch(images=images, events={}, group=np.arange(start, start + 100)))

def copied(path):
    with new_hdf5(path, rdcc_nbytes=0) as new, new_hdf5(target.with_name("source.h5")) as old:
        data = old.create_dataset("x", data=noise.normal(size=(500, 200)), chunks=(10, 200), compression="gzip")
        make_room(new, data.id.get_storage_size())
        old.copy(data, new)

def repacked(path):
    source = target.with_name("source.h5")
    with new_hdf5(source) as file:
        file.create_dataset("x", data=noise.normal(size=(500, 20)), chunks=(10, 20), compression="gzip")
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    repack(source, path, {})

for write in (shard, copied, repacked):
    for kilobytes in (1, 5, 20, 80, 200, 2000):
        limit = kilobytes << 10
        now = resource.RLIM_INFINITY if write is repacked else limit  # which needs a whole source
        resource.setrlimit(resource.RLIMIT_FSIZE, (now, resource.RLIM_INFINITY))
        try:
            with atomic_output(target, force=True) as temporary:
                write(temporary)
            print("whole")
        except OutputError as error:
            print(str(error).replace(str(target), "x.h5"))
"""


def test_a_limit_reached_in_our_own_writers_ends_in_one_line(tmp_path, checkout):
    """HDF5 would die of it at the end of the process."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED_SHARDS, str(tmp_path / "x.h5"), str(checkout)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines == 3 * [*(5 * ["cannot write x.h5: file too large"]), "whole"]
    assert not list(tmp_path.glob(".*"))


# ---- folders for temporary files, and runs of the workflow -----------------------------------------------------------
TEMPORARY = """
import sys, time
from pipeline.files import temporary_folder

with temporary_folder() as folder:
    (folder / "big.h5").write_text("half")
    print(folder.parent, flush=True)
    time.sleep(60)
"""


def test_temporary_folders_of_killed_processes_are_removed(tmp_path, checkout, monkeypatch):
    def start():
        process = subprocess.Popen(
            [sys.executable, "-c", TEMPORARY],
            env=os.environ | {"PYTHONPATH": str(checkout), "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        return process, Path(process.stdout.readline().strip())

    killed, leftover = start()
    killed.kill()
    killed.communicate()
    assert leftover.is_dir()
    alive, in_use = start()
    assert not leftover.exists()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with temporary_folder() as folder:
        assert folder.is_dir()
    alive.kill()
    alive.communicate()
    assert list(tmp_path.iterdir()) == [in_use]


RUN = """
import sys
from pipeline.output.runs import release_stale_lock

print(release_stale_lock(sys.argv[1]), flush=True)
sys.stdin.read()
"""


def test_the_lock_of_a_killed_workflow_is_removed_if_none_is_alive(tmp_path, checkout):
    state = tmp_path / ".snakemake"

    def start():
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(state)],
            env=os.environ | {"PYTHONPATH": str(checkout)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        return process, process.stdout.readline().strip()

    first, removed = start()
    assert removed == "False"
    (state / "locks").mkdir()
    (state / "locks" / "0.input.lock").write_text("")
    second, removed = start()
    assert removed == "False"
    assert (state / "locks" / "0.input.lock").exists()
    for process in (first, second):
        process.kill()
        process.communicate()
    third, removed = start()
    assert removed == "True"
    assert list((state / "locks").iterdir()) == []
    third.kill()
    third.communicate()
