"""FITS under the endings that its users give it: plain, packed by gzip or bzip2, or tile-compressed."""

import bz2
import gzip
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from astropy.io import fits

#: Endings of products, in any case.
ENDINGS = tuple(base + packing for base in (".fits", ".fit", ".fts") for packing in ("", ".gz", ".bz2", ".fz"))
# Lossless for floats; RICE is not.
_TILE_COMPRESSION = "GZIP_2"
# How a gzip stream starts, and where its time stands [RFC 1952, sect. 2.3].
_GZIP, _GZIP_TIME = (0x1F, 0x8B), np.arange(4, 8)


def write_hdus(hdus: "fits.HDUList", path: Path, name: str, ours: Collection[int], checksums: Collection[int]) -> None:
    """Write HDUs in the format that the ending of a name stands for.

    Parameters
    ----------
    hdus : HDUList
    path : path
        The file to make.
    name : str
        What it will be called.
    ours : collection of int
        HDUs that are new or changed; only these are compressed in a .fz file, the others stay as they are.
    checksums : collection of int
        HDUs that get a new CHECKSUM and DATASUM, unless they are compressed.
    """
    ending = Path(name).suffix.lower()
    for number in checksums:
        if ending != ".fz" or number not in ours:
            hdus[number].add_checksum(when="updated by lightpool")  # and not the time: equal runs give equal bytes
    if ending == ".fz":
        hdus = _tile_compressed(hdus, ours)
    if ending not in (".gz", ".bz2"):
        with open(path, "wb") as stream:
            hdus.writeto(stream, output_verify="ignore")
        if ending == ".fz":
            _clear_times(path)
        return
    with tempfile.TemporaryFile(dir=path.parent) as plain:
        hdus.writeto(_Unnamed(plain), output_verify="ignore")
        plain.seek(0)
        with open(path, "wb") as stream, _packer(ending, stream) as packed:
            shutil.copyfileobj(plain, packed, 1 << 20)


class _Unnamed:
    """A file that astropy takes for a stream: it would look at the suffix of a name."""

    def __init__(self, file: BinaryIO) -> None:
        self.write, self.flush, self.tell = file.write, file.flush, file.tell


def _packer(ending: str, stream: BinaryIO) -> BinaryIO:
    if ending == ".bz2":
        return bz2.BZ2File(stream, "wb")
    return gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0)  # no name and time: equal bytes


def _tile_compressed(hdus: "fits.HDUList", ours: Collection[int]) -> "fits.HDUList":
    """Images of ours compressed as fpack does: that of the primary HDU goes into an extension behind an empty one."""
    from astropy.io import fits

    result = fits.HDUList()
    for number, hdu in enumerate(hdus):
        if number not in ours or hdu.data is None:
            result.append(hdu)
            continue
        if number == 0:
            result.append(fits.PrimaryHDU())
        result.append(fits.CompImageHDU(hdu.data, hdu.header, compression_type=_TILE_COMPRESSION, quantize_level=0))
    return result


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
