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

import numpy as np

#: Endings of products, in any case.
ENDINGS = tuple(base + packing for base in (".fits", ".fit", ".fts") for packing in ("", ".gz", ".bz2", ".fz"))
# Lossless for floats; RICE is not.
_TILE_COMPRESSION = "GZIP_2"
# How a gzip stream starts, and where its time stands [RFC 1952, sect. 2.3].
_GZIP, _GZIP_TIME = (0x1F, 0x8B), np.arange(4, 8)


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
                    shutil.copyfileobj(plain, packed, 1 << 20)
        if ending == ".fz":
            _clear_times(path)


def _packer(ending: str, stream: BinaryIO) -> BinaryIO:
    if ending == ".bz2":
        return bz2.BZ2File(stream, "wb")
    return gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0)  # no name and time: equal bytes


def _write_tile_compressed(plain: BinaryIO, target: BinaryIO, ours: Collection[int]) -> None:
    """Images of ours compressed as fpack does: that of the primary HDU goes into an extension behind an empty one.

    astropy compresses an image as a whole: this format takes the memory of the planes.
    """
    from astropy.io import fits

    reader = os.fdopen(os.dup(plain.fileno()), "rb")
    with reader, fits.open(reader, disable_image_compression=True) as hdus:
        result = fits.HDUList()
        for number, hdu in enumerate(hdus):
            if number not in ours or hdu.data is None:
                result.append(hdu)
                continue
            if number == 0:
                result.append(fits.PrimaryHDU())
            for keyword in ("CHECKSUM", "DATASUM"):  # of the plain image
                hdu.header.remove(keyword, ignore_missing=True)
            result.append(fits.CompImageHDU(hdu.data, hdu.header, compression_type=_TILE_COMPRESSION, quantize_level=0))
        result.writeto(target, output_verify="ignore")


def _clear_times(path: Path) -> None:
    """Set the time in each gzip stream of a tile to 0, which is "none": equal runs give equal bytes.

    astropy has no argument for it. The first column of a compressed image holds number and place of each tile's bytes
    in the heap behind the table.
    """
    from astropy.io import fits

    with fits.open(path, disable_image_compression=True) as hdus:
        tables = [
            (hdu.fileinfo()["datLoc"], hdu.header) for hdu in hdus if hdu.header.get("ZCMPTYPE") == _TILE_COMPRESSION
        ]
    content = np.memmap(path, np.uint8, mode="r+")
    for start, header in tables:
        width, n_rows = header["NAXIS1"], header["NAXIS2"]
        number = np.dtype(">i8" if header["TFORM1"].startswith("1Q") else ">i4")
        rows = content[start : start + width * n_rows].reshape(n_rows, width)
        places = (
            np.ascontiguousarray(rows[:, number.itemsize : 2 * number.itemsize]).view(number).ravel().astype(np.int64)
        )
        streams = start + header.get("THEAP", width * n_rows) + places
        is_gzip = (content[streams] == _GZIP[0]) & (content[streams + 1] == _GZIP[1])
        content[streams[is_gzip, None] + _GZIP_TIME] = 0
    content.flush()
