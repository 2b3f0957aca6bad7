"""A number that binds header cards to the pixels that they describe."""

import zlib

import numpy as np

from pipeline.sky.strips import Image

_ROWS_PX = 1 << 20


def fingerprint(pixels: Image) -> str:
    """CRC-32 of an image's shape and values, as eight hexadecimal digits.

    Equal values give equal fingerprints, whatever the byte order, compression or number of bits that they are stored
    with: they are taken as float32, all kinds of missing values as one, and -0 as 0. Unlike FITS' DATASUM, it depends
    on the order of the pixels, so that a frame that was flipped is another one.

    Parameters
    ----------
    pixels : ndarray or LazyImage, shape (H, W)
    """
    crc = zlib.crc32(np.array(pixels.shape, "<i8"))
    rows = max(1, _ROWS_PX // max(1, pixels.shape[1]))
    for top in range(0, pixels.shape[0], rows):
        strip = pixels[top : top + rows].astype("<f4")
        strip += np.float32(0)
        strip[~np.isfinite(strip)] = np.nan
        crc = zlib.crc32(strip, crc)
    return f"{crc:08x}"
