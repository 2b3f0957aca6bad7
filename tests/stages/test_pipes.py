"""`lightpool predict - --out -`: a frame through a shell pipe."""

import gzip
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from tiny_bundles import sky_bundle
from toy_events import write_toy_dl1

from pipeline import cli
from pipeline.errors import OutputError
from pipeline.stages import pipes

PIPE = ["predict", "-", "--out", "-"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("pipes")
    sky_bundle(root / "denoise")
    header = fits.Header({"BUNIT": "electron", "GAIN": 1.0, "RDNOISE": 5.0, "OBJECT": "toy"})
    pixels = np.random.default_rng(1).normal(200, 15, (90, 110)).astype(np.float32)
    fits.PrimaryHDU(pixels, header).writeto(root / "frame.fits")
    write_toy_dl1(root / "run.dl1.h5", n_events=2)
    return root


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The system's temporary folder, where no command leaves a folder."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.glob("lightpool-*")) == []


@pytest.fixture
def run(folder, temporary, monkeypatch, capfdbinary):
    """Run a command with some bytes on standard input: exit code, standard output, lines of standard error."""

    def run(argv, given, bundle="denoise"):
        monkeypatch.setattr(sys, "stdin", given if given is None else io.TextIOWrapper(io.BytesIO(given)))
        code = cli.main([*map(str, argv), "--bundle", str(folder / bundle)])
        captured = capfdbinary.readouterr()
        return code, captured.out, captured.err.decode().splitlines()

    return run


@pytest.fixture(scope="module")
def restored(folder):
    """The product of the frame, from file to file."""
    out = folder / "restored.fits"
    argv = ["predict", folder / "frame.fits", "--bundle", folder / "denoise", "--out", out]
    assert cli.main([*map(str, argv)]) == 0
    return out.read_bytes()


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_the_same_bits_as_from_file_to_file(folder, run, restored, pack):
    code, out, err = run(PIPE, pack((folder / "frame.fits").read_bytes()))
    assert code == 0
    assert out == restored
    assert err[-1] == "stdin: predicted 1 of 1 images, written to stdout"


def test_one_side_of_the_pipe(folder, run, restored, tmp_path):
    assert run(["predict", folder / "frame.fits", "--out", "-"], b"")[:2] == (0, restored)
    frame = (folder / "frame.fits").read_bytes()
    assert run(["predict", "-", "--out", tmp_path / "out.fits"], frame)[:2] == (0, b"")
    assert (tmp_path / "out.fits").read_bytes() == restored
    assert json.loads((tmp_path / "out.fits.provenance.json").read_text())["input"] == "stdin"
    code, out, _ = run(["predict", "-", "--json"], frame)
    assert (code, json.loads(out)["file"]) == (0, "stdin")


def test_records_do_not_mix_with_the_frame(folder, run, restored):
    code, out, err = run([*PIPE, "--json"], (folder / "frame.fits").read_bytes())
    assert (code, out) == (0, restored)
    assert json.loads(next(line for line in err if line.startswith("{")))["file"] == "stdin"


class _Terminal(io.TextIOWrapper):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("argv", "given", "message"),
    [
        (PIPE, b"", "standard input is empty; pipe a FITS frame into `predict -`"),
        (PIPE, None, "standard input is closed"),
        (PIPE, b"no frame", "standard input starts with b'no frame', and `predict -` takes FITS frames"),
        (PIPE, gzip.compress(b"SIMPLE  =", mtime=0)[:12], "cannot decompress standard input: "),
        (PIPE, b"SIMPLE  = T".ljust(80) + b"BITPIX  = 8".ljust(80), "stdin"),  # and not the name of a temporary file
        (["predict", "-", "b.fits", "--out", "-"], b"", "- stands for one frame on standard input, got 2 inputs"),
        (["predict", "a.fits", "b.fits", "--out", "-"], b"", "--out - writes one frame, got 2 inputs"),
    ],
)
def test_what_cannot_be_piped(run, argv, given, message):
    code, out, err = run(argv, given)
    assert (code, out) == (2, b"")
    assert len(err) == 1
    assert err[0].startswith("error: ")
    assert message in err[0]
    assert "lightpool-" not in err[0]


def test_camera_files_are_given_by_name(folder, run):
    code, out, err = run(PIPE, (folder / "run.dl1.h5").read_bytes())
    assert (code, out) == (2, b"")
    assert "standard input starts with b'\\x89HDF" in err[0]
    code, out, err = run(["predict", folder / "run.dl1.h5", "--out", "-"], b"")
    assert (code, out) == (2, b"")
    assert "--out - writes FITS, and " in err[0]


def test_terminals_are_refused(folder, temporary, monkeypatch, capsys):
    argv = ["--bundle", str(folder / "denoise")]
    monkeypatch.setattr(sys, "stdin", _Terminal(io.BytesIO()))
    assert cli.main([*PIPE, *argv]) == 2
    assert "standard input is a terminal; pipe a FITS frame" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdout", _Terminal(io.BytesIO()))
    assert cli.main(["predict", str(folder / "frame.fits"), "--out", "-", *argv]) == 2
    assert "standard output is a terminal; pipe what `--out -` writes" in capsys.readouterr().err


def test_no_room_for_standard_input(temporary, monkeypatch):
    class Full(io.BytesIO):
        def read(self, size=-1):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Full()))
    with pytest.raises(OutputError, match=r"cannot keep standard input in .*: no space left on device; name a folder"):
        pipes.piped([Path("-")], None).__enter__()


def test_a_real_pipe_with_a_reader_that_goes_away(folder, temporary):
    """The folder is removed also then."""
    argv = [sys.executable, "-c", "import sys; from pipeline.cli import main; sys.exit(main())", *PIPE]
    with open(folder / "frame.fits", "rb") as frame:
        process = subprocess.Popen(
            [*argv, "--bundle", str(folder / "denoise"), "-q"],
            stdin=frame, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "TMPDIR": str(temporary)},
        )  # fmt: skip
        process.stdout.close()
        assert process.wait() == 141
        assert process.stderr.read() == b""
        process.stderr.close()
