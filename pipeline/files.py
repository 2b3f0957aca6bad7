"""Complete files or none: outputs are written under a temporary name and renamed when complete."""

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import InputFileError, UserError

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
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def check_free(path: str | Path, *, force: bool = False) -> Path:
    """Fail before the long work if an output exists.

    Raises
    ------
    UserError
        If `path` exists and `force` is false, or if its parent is not a directory that can be written.
    """
    path = Path(path)
    if path.exists() and not force:
        raise UserError(f"{path} exists; choose another name or add --force to replace it")
    parent = path.parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise UserError(f"cannot write {path}: {parent} is not a directory")
    if not os.access(parent, os.W_OK):
        raise UserError(f"cannot write {path}: no permission to write in {parent}")
    return path


def _temporary(path: Path) -> Path:
    # The suffix is kept: writers choose a format or a compression by it.
    return path.with_name(f".{path.name.split('.')[0]}.{os.getpid()}.part{''.join(path.suffixes)}")


@contextmanager
def atomic_output(path: str | Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary path next to `path`; rename it to `path` if the block succeeds, else remove it.

    Works for a file and for a directory: whichever the block makes under the temporary name.
    An existing `path` is replaced only with `force`, and only once the new one is complete.

    Raises
    ------
    UserError
        If `path` exists and `force` is false.
    """
    path = check_free(path, force=force)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        yield temporary
        if path.is_dir():
            # A directory cannot be replaced in one step: the old one is renamed first, and removed last.
            aside = temporary.with_name(temporary.name + ".old")
            path.rename(aside)
            temporary.rename(path)
            shutil.rmtree(aside)
        else:
            temporary.replace(path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


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
    with atomic_output(path, force=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
