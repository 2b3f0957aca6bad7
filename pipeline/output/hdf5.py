"""New HDF5 files on disks that may be full.

When a write fails, HDF5 keeps what it could not write and tries again when the file is closed; it fails again, and the
process dies with a segmentation fault at the next clean-up, or when it ends (HDF5 1.14 and 2.0). So the room for the
last writes is made before they happen, and the caches of a file that has failed are emptied to nowhere.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

# The headers and the index of chunks, which stay in memory until the end: 40 bytes for a chunk, which has thousands.
_LAST_WRITES_BYTES, _PART_OF_INDEX = 256 << 10, 16
_NO_PREALLOCATION = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ENODEV)


@contextlib.contextmanager
def new_hdf5(path: str | Path, copy_of: Path | None = None, **options: Any) -> Iterator[h5py.File]:
    """Make an HDF5 file with h5py; an error of writing is raised in the block, or at its end.

    Keep datasets that are written in pieces: h5py hides the errors of one that is closed because nobody holds it.

    Parameters
    ----------
    path : path
        File to make (a temporary name of `pipeline.files.atomic_output`).
    copy_of : path, optional
        A file that the new one has the content and the permissions of, to begin with.
    **options
        Of `h5py.File`. With ``rdcc_nbytes=0`` each write goes to the disk at once.

    Raises
    ------
    OSError, RuntimeError
        If not all could be written.
    """
    if copy_of is not None:
        shutil.copyfile(copy_of, path)
    file = h5py.File(path, "w" if copy_of is None else "r+", **options)
    try:
        yield file
        make_room(file)
        file.flush()
    except BaseException:
        _forget(file)
        with contextlib.suppress(Exception):
            file.close()
        raise
    n_bytes = file.id.get_filesize()
    file.close()
    os.truncate(path, n_bytes)
    if copy_of is not None:
        shutil.copymode(copy_of, path)


def make_room(file: h5py.File, n_bytes: int = 0) -> None:
    """Have the system allocate what follows the end of a new file: here it may refuse without harm.

    Needed before what HDF5 does not survive when it fails: the last writes, and copies of whole datasets.

    Parameters
    ----------
    file : h5py.File
    n_bytes : int
        To be written next, beside headers.

    Raises
    ------
    OSError
        If the disk is full, or a quota or a limit reached.
    """
    if not hasattr(os, "posix_fallocate"):  # pragma: no cover (macOS)
        return
    end = file.id.get_filesize()
    try:
        os.posix_fallocate(file.id.get_vfd_handle(), end, n_bytes + _LAST_WRITES_BYTES + end // _PART_OF_INDEX)
    except OSError as error:
        if error.errno not in _NO_PREALLOCATION:
            raise


def _forget(file: h5py.File) -> None:
    """Let everything that is still to be written go nowhere; the file is of no use any more."""
    if not file:
        return
    nowhere = os.open("/dev/zero", os.O_RDWR)
    os.dup2(nowhere, file.id.get_vfd_handle(), inheritable=False)
    os.close(nowhere)
