"""Whether all bytes of a product are on the disk: libraries that write files may lose an error on the way.

HDF5 reports a write that failed when it empties its caches at the end, where PyTables does not look; quotas and network
file systems report it when a file is flushed or closed.
"""

import errno
import gzip
import json
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

_BLOCK_BYTES = 16 << 20
_PNG_END = b"IEND\xae\x42\x60\x82"


def flush(path: Path) -> None:
    """Have the system write a file, or a folder with all that is in it, to the disk.

    Raises
    ------
    OSError
        If it cannot.
    """
    for entry in _with_content(path):
        flush_entry(entry)


def flush_entry(path: Path) -> None:
    """The same for one file or the list of names in one folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # file systems that cannot flush a folder
            raise
    finally:
        os.close(handle)


class NotWholeError(OSError):
    """A file that was written without an error is not whole."""


def check_whole(path: Path) -> None:
    """Open a new file, or all files of a new folder, and see that they end where their content says.

    Raises
    ------
    NotWholeError
        If a library cannot read what was written, with its reason.
    """
    for entry in _with_content(path):
        check = _CHECKS.get(entry.suffix.lower())
        if check is None or entry.is_dir():
            continue
        try:
            check(entry)
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise NotWholeError(f"it is not whole after writing ({reason})") from error


def _with_content(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(path.rglob("*"))
    yield path


def _hdf5(path: Path) -> None:
    """Read everything: HDF5 compares the file's length when it opens it, filters check each chunk."""
    import h5py
    import hdf5plugin  # noqa: F401 (registers the filters of PyTables)

    def read(_name: str, node: h5py.Group | h5py.Dataset) -> None:
        if not isinstance(node, h5py.Dataset) or node.shape is None:
            return
        if node.ndim == 0:
            node[()]
            return
        n_rows = max(1, _BLOCK_BYTES * len(node) // max(node.nbytes, 1))
        for start in range(0, len(node), n_rows):
            node[start : start + n_rows]

    # A file whose closing failed may still be open, and locked, in the library that wrote it.
    with h5py.File(path, "r", locking=False) as file:
        file.visititems(read)


def _fits(path: Path) -> None:
    from astropy.io import fits

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # astropy warns of a missing end, which is compared below
        with fits.open(path) as hdus:
            end = max(info["datLoc"] + info["datSpan"] for info in (hdu.fileinfo() for hdu in hdus))
    if path.stat().st_size < end:
        raise ValueError(f"{path.stat().st_size} of {end} bytes are there")


def _gzip(path: Path) -> None:
    with gzip.open(path) as stream:
        while stream.read(_BLOCK_BYTES):
            pass


def _json(path: Path) -> None:
    json.loads(path.read_text(encoding="utf-8"))


def _png(path: Path) -> None:
    with open(path, "rb") as stream:
        stream.seek(max(path.stat().st_size - len(_PNG_END), 0))
        if stream.read() != _PNG_END:
            raise ValueError("the end of the picture is missing")


def _zip(path: Path) -> None:
    zipfile.ZipFile(path).close()


def _safetensors(path: Path) -> None:
    size = path.stat().st_size
    with open(path, "rb") as stream:
        n_header = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(n_header))
    end = (
        8
        + n_header
        + max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    )
    if size != end:
        raise ValueError(f"{size} of {end} bytes are there")


_CHECKS: dict[str, Callable[[Path], None]] = {
    **dict.fromkeys((".h5", ".hdf5", ".hdf"), _hdf5),
    **dict.fromkeys((".fits", ".fit", ".fts", ".fz"), _fits),
    **dict.fromkeys((".ckpt", ".npz"), _zip),
    ".gz": _gzip,
    ".json": _json,
    ".png": _png,
    ".safetensors": _safetensors,
}
