"""FITS under the endings that its users give it: plain, packed by gzip or bzip2, or tile-compressed."""

import bz2
import gzip
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pipeline.sky.frames.hdus import AS_STORED
from pipeline.sky.frames.tile_compression import write_compressed

#: Endings of products, in any case.
ENDINGS = tuple(base + packing for base in (".fits", ".fit", ".fts") for packing in ("", ".gz", ".bz2", ".fz"))
_CHUNK_BYTES = 1 << 20


@contextmanager
def product_stream(path: Path, name: str, ours: Collection[int]) -> Iterator[BinaryIO]:
    """A file to write plain FITS into, which then becomes one of the format that the ending of a name stands for.

    Parameters
    ----------
    path : path
        The file to make.
    name : str
        What it will be called.
    ours : collection of int
        HDUs that are new or changed; only these are compressed in a .fz file, the others stay as they are.
    """
    ending = Path(name).suffix.lower()
    if ending not in (".gz", ".bz2", ".fz"):
        with open(path, "w+b") as stream:
            yield stream
        return
    with tempfile.TemporaryFile(dir=path.parent) as plain:
        yield plain
        plain.flush()
        plain.seek(0)
        with open(path, "wb") as stream:
            if ending == ".fz":
                _write_tile_compressed(plain, stream, ours)
            else:
                with _packer(ending, stream) as packed:
                    shutil.copyfileobj(plain, packed, _CHUNK_BYTES)


def _packer(ending: str, stream: BinaryIO) -> BinaryIO:
    if ending == ".bz2":
        return bz2.BZ2File(stream, "wb")
    return gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0)  # no name and time: equal bytes


def _write_tile_compressed(plain: BinaryIO, target: BinaryIO, ours: Collection[int]) -> None:
    """Images of ours compressed as fpack does: that of the primary HDU goes into an extension behind an empty one."""
    from astropy.io import fits

    reader = os.fdopen(os.dup(plain.fileno()), "rb")
    with reader, fits.open(reader, **AS_STORED, disable_image_compression=True) as hdus:
        for number, hdu in enumerate(hdus):
            if number in ours and hdu.shape:
                if number == 0:
                    target.write(fits.PrimaryHDU().header.tostring().encode("ascii"))
                write_compressed(hdu, target)
                continue
            place = hdu.fileinfo()
            copy_bytes(reader, place["hdrLoc"], place["datLoc"] + place["datSpan"], target)


def copy_bytes(source: BinaryIO, start: int, end: int, target: BinaryIO) -> None:
    """Append a part of one file to another."""
    for place in range(start, end, _CHUNK_BYTES):
        source.seek(place)
        target.write(source.read(min(_CHUNK_BYTES, end - place)))
