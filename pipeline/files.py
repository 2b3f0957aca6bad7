"""Regular files in, complete files or none out: products are made in a folder of their own, and renamed when whole."""

import errno
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import InputFileError, OutputError, UserError
from pipeline.output import ending
from pipeline.output.reasons import why_not_written
from pipeline.output.scratch import Scratch, name_limit, remove
from pipeline.output.scratch import temporary_folder as temporary_folder
from pipeline.output.whole import check_whole, flush, flush_entry

# What a file name may end with, in any number and order, without it being part of the name of the run or frame.
_SUFFIXES = frozenset(
    [
        ".simtel",
        ".zst",
        ".gz",
        ".bz2",
        ".xz",
        ".fz",
        ".fits",
        ".fit",
        ".fts",
        ".h5",
        ".hdf5",
        ".dl0",
        ".dl1",
        ".dl2",
        ".tiles",
    ]
)


def source_name(path: str | Path) -> str:
    """Name of the run or frame in a file: its file name without the suffixes that only tell the format.

    Products of one source share this name (`NAME.dl1.h5`, `NAME.tiles.h5`), and the splits are drawn by it.
    """
    path = Path(path)
    while path.suffix.lower() in _SUFFIXES:
        path = path.with_suffix("")
    return path.name


_ODD_KINDS = {
    stat.S_IFDIR: "is a directory, not a file",
    stat.S_IFIFO: "is a pipe (FIFO), not a regular file; write its content to a file first",
    stat.S_IFSOCK: "is a socket, not a regular file",
    stat.S_IFCHR: "is a device, not a regular file",
    stat.S_IFBLK: "is a device, not a regular file",
}
_WHY_NO_STATUS = {
    errno.ENOENT: "does not exist",
    errno.ENOTDIR: "does not exist: a part of its path is not a directory",
    errno.ELOOP: "is a link that leads back to itself",
    errno.ENAMETOOLONG: "does not exist: its name is longer than the file system allows",
    errno.EACCES: "cannot be read: no permission for its directory",
}


# A path has lost one of the two slashes of an address.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)


def check_regular(path: str | Path) -> Path:
    """Fail if an input is anything but a regular file that may be read. The file is not opened.

    A named pipe would block whoever opens it, and a device may never end. Call this before any input is opened.

    Raises
    ------
    InputFileError
        If `path` is missing, a directory, a pipe, a socket, a device, a loop of links, or may not be read.
    """
    path = Path(path)
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
    except OSError as error:
        if error.errno == errno.ENOENT and path.is_symlink():
            raise InputFileError(f"{path} is a link to {os.readlink(path)}, which does not exist") from error
        if error.errno == errno.ENOENT and (address := _ADDRESS.match(str(path))):
            raise InputFileError(
                f"{address[1]}://{address[2]} is an address, and lightpool reads files; download it first"
            ) from error
        reason = _WHY_NO_STATUS.get(error.errno or 0, f"cannot be read: {error.strerror}")
        raise InputFileError(f"{path} {reason}") from error
    except ValueError as error:  # a null character
        raise InputFileError(f"{path} is not the name of a file: {error}") from error
    if kind != stat.S_IFREG:
        raise InputFileError(f"{path} {_ODD_KINDS.get(kind, 'is not a regular file')}")
    if not os.access(path, os.R_OK):
        raise InputFileError(f"{path} cannot be read: no permission")
    return path


def is_directory(path: str | Path) -> bool:
    """Whether `path` is a directory; false, and no error, for a name that cannot be looked at."""
    return os.path.isdir(path)  # which Path.is_dir does not do for a name that is too long


#: What the name of a product is followed by in its provenance, which stands beside it.
SIDECAR_SUFFIX = ".provenance.json"
_WAIT_S = 30.0
_POLL_S = 0.05
_MAX_VANISHED = 10

#: Products that this process is making: the folder of each.
_scratches: dict[Path, Scratch] = {}


def check_free(path: str | Path, *, force: bool = False, folder: bool = False) -> Path:
    """Fail before the long work if an output exists or cannot be made.

    Parameters
    ----------
    path : path
        Of the product.
    force : bool
        Whether it may replace another.
    folder : bool
        Whether the product is a folder.

    Raises
    ------
    UserError
        If `path` exists and `force` is false, is of another kind than the product, or is a folder that lightpool did
        not make; if its name is too long, or its parent is not a directory that can be written.
    """
    path = Path(path)
    try:
        kind = stat.S_IFMT(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        kind = 0
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot write {path}: {_in_words(error)}") from error
    if not str(path).isascii() and not _is_utf8(path):
        raise UserError(
            f"cannot write {path}: the name is not UTF-8, which HDF5 needs; choose another name, or rename the input "
            "that it comes from"
        )
    if kind:
        _check_replaceable(path, kind, force=force, folder=folder)
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise UserError(f"cannot write {path}: {parent} is not a directory")
    if not os.access(parent, os.W_OK):
        raise UserError(f"cannot write {path}: no permission to write in {parent}")
    n_bytes, limit = len(os.fsencode(path.name + SIDECAR_SUFFIX)), name_limit(parent)
    if n_bytes > limit:
        raise UserError(
            f"cannot write {path}: its name and {SIDECAR_SUFFIX} have {n_bytes} bytes, and the file system takes "
            f"{limit}; use a shorter name"
        )
    return path


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _in_words(error: Exception) -> str:
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)


def _check_replaceable(path: Path, kind: int, *, force: bool, folder: bool) -> None:
    """Whether what is at `path` may make room for a product: nothing else than an earlier product."""
    if kind == stat.S_IFLNK:
        with suppress(OSError):
            kind = stat.S_IFMT(path.stat().st_mode)
    if kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
        raise UserError(f"cannot write {path}: it {_ODD_KINDS.get(kind, 'is not a regular file')}")
    if kind == stat.S_IFDIR and not folder:
        raise UserError(f"cannot write {path}: it is a directory; give the name of a file")
    if not force:
        raise UserError(f"{path} exists; choose another name or add --force to replace it")
    if kind == stat.S_IFDIR and not _is_ours(path):
        raise UserError(
            f"{path} is a directory with files, and lightpool did not make it (there is no {path.name}"
            f"{SIDECAR_SUFFIX} beside it); choose another name, or remove it yourself"
        )
    if folder and kind == stat.S_IFREG:
        raise UserError(f"cannot write {path}: it is a file, and a directory is to be made; choose another name")


def _is_ours(folder: Path) -> bool:
    """Whether a directory is empty or a product: --force must not remove somebody's home."""
    return folder.with_name(folder.name + SIDECAR_SUFFIX).exists() or not any(folder.iterdir())


@contextmanager
def reserved(path: str | Path, *, force: bool = False, folder: bool = False) -> Iterator[Path]:
    """Keep other processes from making `path` during the block, and check that it can be made.

    For work that takes long before it writes: within the block `atomic_output` makes the product.

    Raises
    ------
    UserError
        As `check_free`, or if another process is making `path`.
    """
    path = check_free(path, force=force, folder=folder)
    with _scratch(path, wait_s=0.0):
        check_free(path, force=force, folder=folder)
        yield path


@contextmanager
def atomic_output(
    path: str | Path, *, force: bool = False, folder: bool = False, wait_s: float = 0.0
) -> Iterator[Path]:
    """Yield a temporary path; rename what the block made there to `path` if it succeeds, else remove it.

    The temporary path is in a folder of its own, beside `path` and on its file system. What the block leaves next to
    the temporary path, such as the sidecar of the product, goes along: it is renamed first and `path` last, so that a
    product that exists has all that belongs to it. Before that, everything is flushed to the disk and opened again:
    some libraries do not notice that a disk is full.

    Only one process makes `path` at a time. What a killed process left of it is removed.

    Parameters
    ----------
    path : path
        Of the product: a file, or with `folder` a directory that the block makes.
    force : bool
        Replace an existing `path`, once the new one is complete.
    folder : bool
        Whether the product is a directory.
    wait_s : float
        How long to wait for another process that makes `path`.

    Raises
    ------
    UserError
        If `path` exists and `force` is false, or cannot be made (see `check_free`).
    OutputError
        If another process is making it, or it cannot be written: disk full, quota, no permission.
    """
    path = Path(path)
    if _is_part_of_another(path):
        yield path
        return
    path = check_free(path, force=force, folder=folder)
    with _scratch(path, wait_s) as scratch:
        check_free(path, force=force, folder=folder)
        try:
            yield scratch.path
        except Exception as error:
            reason = why_not_written(error, scratch.folder)
            if reason is None or isinstance(error, OutputError):
                raise
            raise OutputError(f"cannot write {path}: {reason}") from error
        _commit(scratch, path)


def _is_part_of_another(path: Path) -> bool:
    """Whether `path` is inside the folder of a product that this process is making: that one is renamed as a whole."""
    return any(path.absolute().is_relative_to(scratch.folder) for scratch in _scratches.values())


@contextmanager
def _scratch(path: Path, wait_s: float) -> Iterator[Scratch]:
    """The folder in which `path` is made; the one that is reserved, if it is."""
    path = path.absolute()
    if path in _scratches:
        yield _scratches[path]
        return
    new_parents = [parent for parent in path.parents if not parent.exists()]
    scratch = _new_scratch(path, time.monotonic() + wait_s)
    _scratches[path] = scratch
    try:
        yield scratch
    finally:
        del _scratches[path]
        scratch.release()
        for parent in new_parents:
            with suppress(OSError):  # the product, or another one, is in it
                parent.rmdir()


def _new_scratch(path: Path, deadline: float) -> Scratch:
    n_vanished = 0
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return Scratch(path)
        except OutputError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_S)
        except OSError as error:
            # Another process that failed in the same new folder may just have removed it.
            n_vanished += isinstance(error, FileNotFoundError)
            if not 0 < n_vanished < _MAX_VANISHED:
                raise OutputError(f"cannot write {path}: {_in_words(error)}") from error


def _commit(scratch: Scratch, path: Path) -> None:
    """Make sure that all is there, then rename; the product comes last."""
    if (end := ending.asked()) is not None:
        raise end  # it was lost on its way here
    made = sorted(scratch.made(), key=lambda entry: entry == scratch.path)
    if scratch.path not in made:
        raise FileNotFoundError(f"nothing was written to {scratch.path}")
    try:
        for entry in made:
            flush(entry)
            check_whole(entry)
        for entry in made:
            _replace(entry, path.with_name(entry.name), scratch)
        flush_entry(path.parent)
    except OSError as error:
        reason = why_not_written(error, scratch.folder) or _in_words(error)
        raise OutputError(f"cannot write {path}: {reason}") from error


def _replace(new: Path, path: Path, scratch: Scratch) -> None:
    if path.is_dir() and not path.is_symlink():
        # A directory cannot be replaced in one step: the old one is renamed first, and removed last.
        path.rename(scratch.aside)
        new.rename(path)
        remove(scratch.aside)
    else:
        new.replace(path)


def write_text_atomically(path: str | Path, text: str) -> Path:
    """Write a small text file (UTF-8), or replace the one that is there, in one step; parents are created.

    For files that are rewritten often or belong to another product: status files, sidecars, logs of a training. A
    product of its own is made with `atomic_output`, which asks for ``force``.

    Raises
    ------
    UserError
        If the parent is not a directory that can be written.
    """
    path = Path(path)
    with atomic_output(path, force=True, wait_s=_WAIT_S) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
