"""Tile-compressed FITS images [1]_, written strip by strip: astropy alone compresses an image as a whole.

References
----------
.. [1] FITS standard 4.0, sect. 10.
"""

import io
import math
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from pipeline.sky.frames.layout import BLOCK
from pipeline.sky.strips import STRIP_PX

if TYPE_CHECKING:
    from astropy.io import fits

# Lossless for floats; RICE is not.
_ALGORITHM = "GZIP_2"
# How a gzip stream starts, and where its time stands [RFC 1952, sect. 2.3].
_GZIP, _GZIP_TIME = (0x1F, 0x8B), np.arange(4, 8)
_LARGEST_OFFSET = 2**31 - 1
# Of the plain image; and the offset of unsigned numbers, which astropy adds again.
_NOT_TAKEN_OVER = ("CHECKSUM", "DATASUM", "BZERO", "BSCALE")


def write_compressed(hdu: "fits.ImageHDU", target: BinaryIO) -> None:
    """Append an image HDU, opened without scaling, as fpack does: losslessly, one tile for each row.

    Equal images give equal bytes: the time in each gzip stream, for which astropy has no argument, is set to 0.
    """
    header = hdu.header.copy()
    for keyword in _NOT_TAKEN_OVER:
        header.remove(keyword, ignore_missing=True)
    axis = next((place for place, length in enumerate(hdu.shape) if length > 1), 0)
    step = max(1, STRIP_PX // math.prod(hdu.shape[axis + 1 :]))
    first, lengths = None, []
    with tempfile.TemporaryFile(dir=Path(target.name).parent) as heap:
        for top in range(0, hdu.shape[axis], step):
            strip = hdu.section[(*[slice(None)] * axis, slice(top, top + step))]
            table, sizes, streams = _compressed(_unsigned(strip, hdu.header), header)
            heap.write(streams)
            lengths.append(sizes)
            first = table if first is None else first
        _write_table(first, hdu.shape, np.concatenate(lengths), heap.tell(), target)
        heap.seek(0)
        shutil.copyfileobj(heap, target, 1 << 20)
        target.write(bytes(-target.tell() % BLOCK))


def _unsigned(stored: np.ndarray, header: "fits.Header") -> np.ndarray:
    """Numbers that are stored about their middle, as they are meant."""
    top = 1 << 8 * stored.dtype.itemsize - 1
    if stored.dtype.kind != "i" or header.get("BZERO") != top:
        return stored
    native = f"u{stored.dtype.itemsize}"
    return stored.astype(native) ^ np.array(top, native)


def _compressed(strip: np.ndarray, header: "fits.Header") -> tuple["fits.Header", np.ndarray, bytes]:
    """Header of the table that astropy makes of a strip, lengths of its gzip streams, and these."""
    from astropy.io import fits

    buffer = io.BytesIO()
    image = fits.CompImageHDU(strip, header.copy(), compression_type=_ALGORITHM, quantize_level=0)
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(buffer, output_verify="ignore")
    buffer.seek(BLOCK)
    table = fits.Header.fromfile(buffer)
    start, n_rows = buffer.tell(), table["NAXIS2"]
    number = np.dtype(">i8" if table["TFORM1"].startswith("1Q") else ">i4")
    descriptors = np.frombuffer(buffer.getbuffer(), number, 2 * n_rows, start).reshape(n_rows, 2).astype(np.int64)
    start += table["NAXIS1"] * n_rows
    streams = np.frombuffer(buffer.getbuffer(), np.uint8, table["PCOUNT"], start).copy()
    places = descriptors[:, 1]
    is_gzip = (streams[places] == _GZIP[0]) & (streams[places + 1] == _GZIP[1])
    streams[places[is_gzip, None] + _GZIP_TIME] = 0
    return table, descriptors[:, 0], streams.tobytes()


def _write_table(
    header: "fits.Header", shape: tuple[int, ...], lengths: np.ndarray, n_bytes: int, target: BinaryIO
) -> None:
    """Header and rows: how long the stream of each tile is, and where it begins in what follows."""
    wide = n_bytes > _LARGEST_OFFSET
    number = np.dtype(">i8" if wide else ">i4")
    header["NAXIS1"], header["NAXIS2"], header["PCOUNT"] = 2 * number.itemsize, len(lengths), n_bytes
    for place, length in enumerate(reversed(shape), start=1):
        header[f"ZNAXIS{place}"] = length
    header["TFORM1"] = f"1{'Q' if wide else 'P'}B({lengths.max()})"
    target.write(header.tostring().encode("ascii"))
    target.write(np.stack([lengths, np.cumsum(lengths) - lengths], axis=1).astype(number).tobytes())
