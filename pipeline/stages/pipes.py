"""A frame in a shell pipe: standard input is kept in a file while it is needed, and a file goes to standard output."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from pipeline.errors import InputFileError, OutputError, UserError
from pipeline.files import temporary_folder
from pipeline.filetypes import is_fits
from pipeline.output.reasons import why_not_written
from pipeline.stages.inputs import kind_of

#: What stands for standard input as FILE, and for standard output as --out.
STREAM = Path("-")

# Whether it is FITS is said after the first block: what comes may have no end. bzip2 needs 900 kB to unpack anything.
_BLOCK_BYTES = 4 << 20


@dataclass
class Piped:
    """What `pipeline.stages.predict` works on.

    Attributes
    ----------
    files : list of path
        Inputs; where it was asked for, a copy of standard input.
    out : path, optional
        Where products go; where it was asked for, a file that will go to standard output.
    names : dict
        File that stands for a stream -> what messages call it.
    """

    files: list[Path]
    out: Path | None
    names: dict[Path, str] = field(default_factory=dict)


@contextmanager
def piped(files: Sequence[Path], out: Path | None) -> Iterator[Piped]:
    """Replace ``-`` among inputs and output by files of a temporary folder, which is removed at the end.

    The product, if the block has made it, is written to standard output after the block: nothing of one that failed.

    Parameters
    ----------
    files : sequence of path
    out : path, optional

    Raises
    ------
    UserError
        If a stream is a terminal, is closed, brings no FITS, or cannot be what was asked for.
    OutputError
        If there is no room for standard input in the temporary folder.
    """
    reads, writes = STREAM in files, out == STREAM
    if not reads and not writes:
        yield Piped(list(files), out)
        return
    if reads:
        _check_source(files)
    if writes:
        _check_target(files)
    with temporary_folder() as folder:
        work = Piped(list(files), out)
        if reads:
            work.files = [folder / "stdin"]
            work.names[work.files[0]] = "stdin"
            _keep(sys.stdin.buffer, work.files[0])
        if writes:
            work.out = folder / "stdout.fits"
            work.names[work.out] = "stdout"
        yield work
        if writes and work.out is not None and work.out.exists():
            with open(work.out, "rb") as product:
                shutil.copyfileobj(product, sys.stdout.buffer)
            sys.stdout.buffer.flush()


def _check_source(files: Sequence[Path]) -> None:
    if len(files) > 1:
        raise UserError(f"- stands for one frame on standard input, got {len(files)} inputs; give it alone")
    if sys.stdin is None or sys.stdin.isatty():
        what = "closed" if sys.stdin is None else "a terminal"
        raise UserError(f"standard input is {what}; pipe a FITS frame into `predict -`, or give the name of a file")


def _check_target(files: Sequence[Path]) -> None:
    if len(files) > 1:
        raise UserError(f"--out - writes one frame, got {len(files)} inputs; give --out a directory")
    if sys.stdout is None or sys.stdout.isatty():
        what = "closed" if sys.stdout is None else "a terminal"
        raise UserError(f"standard output is {what}; pipe what `--out -` writes, or give --out the name of a file")
    kind = "fits" if files[0] == STREAM else kind_of(files[0])
    if kind in ("simtel", "dl1", "lstchain"):
        raise UserError(f"--out - writes FITS, and {files[0]} holds camera images; give --out a name that ends in .h5")


def _keep(source: IO[bytes], path: Path) -> None:
    """Write a stream into a file, block by block."""
    try:
        with open(path, "wb") as target:
            block = source.read(_BLOCK_BYTES)
            target.write(block)
            target.flush()
            _check_fits(path, block)
            shutil.copyfileobj(source, target, _BLOCK_BYTES)
    except OSError as error:
        if (reason := why_not_written(error, path.parent)) is None:
            raise InputFileError(f"cannot read standard input: {error.strerror or error}") from error
        raise OutputError(
            f"cannot keep standard input in {path.parent}: {reason}; name a folder with room in TMPDIR"
        ) from error


def _check_fits(path: Path, block: bytes) -> None:
    if not block:
        raise InputFileError("standard input is empty; pipe a FITS frame into `predict -`")
    try:
        if is_fits(path):
            return
    except InputFileError as error:  # what is packed is damaged
        raise InputFileError(str(error).replace(str(path), "standard input")) from error
    raise InputFileError(
        f"standard input starts with {block[:8]!r}, and `predict -` takes FITS frames (plain, .gz, .bz2, .fz); give "
        "the name of any other file"
    )
