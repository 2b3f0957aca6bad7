"""What a file is, by its content: names and suffixes may be wrong."""

import bz2
import gzip
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Literal

from pipeline.documents import read_json
from pipeline.errors import InputFileError
from pipeline.files import check_regular, is_directory

Kind = Literal["simtel", "corsika", "dl1", "dl2", "lstchain", "fits", "tiles", "manifest", "bundle", "hdf5"]

ACCEPTED = (
    "simtel (.simtel, .gz, .zst), ctapipe DL1 or DL2 HDF5, lstchain DL1 HDF5, FITS (.fits, .fz, .gz, .bz2), "
    "tile shards, manifests, bundle directories"
)

_HDF5 = b"\x89HDF\r\n\x1a\n"
_FITS = b"SIMPLE  ="
# The marker that starts every top-level eventio object, in either byte order.
_EVENTIO: dict[bytes, Literal["little", "big"]] = {b"\x37\x8a\x1f\xd4": "little", b"\xd4\x1f\x8a\x37": "big"}
_MARKER_WITHIN = 64
# Types of eventio objects written by CORSIKA's IACT package [hessioxxx, io_basic.h]; simtel files start with others.
_CORSIKA_TYPES = range(1200, 1213)
_HEAD_BYTES = 512
#: First bytes of zstd files: of a frame, and of what pzstd puts before each of its frames.
ZSTD = b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18"


def open_zst(path: Path) -> IO[bytes]:
    """Decompressed content of a zstd file, of all its frames."""
    import zstandard

    # The reader closes the file.
    return zstandard.ZstdDecompressor().stream_reader(open(path, "rb"), read_across_frames=True)


def let_eventio_read_frames() -> None:
    """Make eventio read zstd files of several frames, as pzstd writes them.

    By itself it takes an object that continues in the next frame for cut, and does not know pzstd's first bytes.
    """
    import zstandard
    from eventio import base, file_types

    def decompressor() -> SimpleNamespace:  # no subclass: Python's garbage collection crashes on one
        reader = zstandard.ZstdDecompressor().stream_reader
        return SimpleNamespace(stream_reader=partial(reader, read_across_frames=True))

    def is_zstd(path: str | Path) -> bool:
        with open(path, "rb") as stream:
            return stream.read(4) in ZSTD

    base.zstd = file_types.zstd = SimpleNamespace(ZstdDecompressor=decompressor)
    base.is_zstd = file_types.is_zstd = is_zstd


_OPENERS: dict[bytes, Callable[[Path], IO[bytes]]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    **dict.fromkeys(ZSTD, open_zst),
}


def file_kind(path: str | Path) -> Kind:
    """Type of the file `path`, from its first decompressed bytes, and for HDF5 from its contents.

    Raises
    ------
    InputFileError
        If it does not exist, is not a regular file, cannot be read, is empty, or is of an unknown type.
    """
    path = Path(path)
    if is_directory(path):
        if (path / "card.json").is_file():
            return "bundle"
        raise InputFileError(f"{path} is a directory without card.json; a model bundle has one")
    check_regular(path)
    head = _head(path)
    if head.startswith(_HDF5):
        return _hdf5_kind(path)
    if head.startswith(_FITS):
        return "fits"
    # Some producers put bytes before the first marker; a file cut at an object's edge still starts with one.
    for marker, order in _EVENTIO.items():
        place = head[:_MARKER_WITHIN].find(marker)
        if place >= 0:
            kind = int.from_bytes(head[place + 4 : place + 8], order) & 0xFFFF
            return "corsika" if kind in _CORSIKA_TYPES else "simtel"
    if head.lstrip()[:1] == b"{" and _is_manifest(path):
        return "manifest"
    what = "is empty" if not head else f"starts with {head[:8]!r}, which is not a format that lightpool reads"
    raise InputFileError(f"{path} {what}; accepted: {ACCEPTED}")


def is_fits(path: Path) -> bool:
    """Whether a file begins as FITS, packed or not; the rest of it may be missing.

    Raises
    ------
    InputFileError
        If it cannot be read or unpacked.
    """
    return _head(path).startswith(_FITS)


def _head(path: Path) -> bytes:
    try:
        with open(path, "rb") as stream:
            head = stream.read(_HEAD_BYTES)
        for magic, opener in _OPENERS.items():
            if head.startswith(magic):
                with opener(path) as stream:
                    return stream.read(_HEAD_BYTES)
    except OSError as error:
        # gzip and bz2 raise OSError without strerror for damaged data
        raise InputFileError(f"cannot read {path}: {error.strerror or error}") from error
    except (EOFError, zlib.error, ValueError) as error:
        raise InputFileError(f"cannot decompress {path}: {error}") from error
    except Exception as error:  # zstandard has an exception of its own, and is imported only when needed
        if type(error).__name__ != "ZstdError":
            raise
        raise InputFileError(f"cannot decompress {path}: {error}") from error
    return head


def _hdf5_kind(path: Path) -> Kind:
    """Type of an HDF5 file, by what is in it."""
    from pipeline.hdf5 import attribute, open_hdf5

    with open_hdf5(path) as file:
        if "format" in file.attrs and attribute(file, "format", "text") == "lightpool-tiles":
            return "tiles"
        if "dl1/event/telescope/parameters/LST_LSTCam" in file:
            return "lstchain"
        if "configuration/instrument/subarray/layout" not in file or "dl1" not in file:
            return "hdf5"
        # Files of ctapipe hold several levels: with images it is a DL1 file, whatever else is in it.
        return "dl2" if "dl2" in file and "dl1/event/telescope/images" not in file else "dl1"


def _is_manifest(path: Path) -> bool:
    """Whether a file that begins as JSON is a manifest: nothing else that lightpool reads begins so."""
    return read_json(path, "a manifest").get("format") == "lightpool-manifest"
