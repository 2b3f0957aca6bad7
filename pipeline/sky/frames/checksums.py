"""CHECKSUM and DATASUM of a FITS file, where it has them, against its bytes [1]_.

References
----------
.. [1] FITS standard 4.0, sect. 4.4.2.7 and appendix J: the sum of all 32-bit words, ones' complement; over a whole HDU,
   the card CHECKSUM makes it -0.
"""

import os
from collections.abc import Iterable, Sequence
from typing import BinaryIO

import numpy as np

from pipeline.sky.frames.layout import BLOCK, Part
from pipeline.sky.remarks import Remarks

_CHUNK_BYTES = 1000 * BLOCK
_MINUS_ZERO = 0xFFFFFFFF


def remark_on_sums(stream: BinaryIO, parts: Sequence[Part], remarks: Remarks) -> None:
    """Warn of HDUs whose sums are not those of their bytes; the position of `stream`, unpacked FITS, is kept.

    A sum that differs is no proof of damage: there are programs that change a file and leave its sums. It costs
    0.04 s of CPU time for an image of 8,000 x 8,000 pixels.
    """
    wrong_data, wrong_header = [], []
    for number, part in enumerate(parts):
        stated = part.sums.get("DATASUM", "")
        whole = part.sums.get("CHECKSUM", "").strip("0")  # by the standard, zeros stand for a sum that was not computed
        if not (stated.isdecimal() or whole):
            continue
        data_end = part.data_start + -(-part.data_bytes // BLOCK) * BLOCK
        data = _sum(stream, part.data_start, data_end)
        if stated.isdecimal() and int(stated) % _MINUS_ZERO != data % _MINUS_ZERO:
            wrong_data.append(number)
        elif whole and _fold(data + _sum(stream, part.start, part.data_start)) != _MINUS_ZERO:
            wrong_header.append(number)
    if wrong_data:
        remarks.warn(
            f"the DATASUM of {_named(wrong_data)} is not that of the data: the file is damaged, or a program changed "
            "the data and left the sum; fetch it again, or make the sum anew"
        )
    if wrong_header:
        remarks.warn(
            f"the CHECKSUM of {_named(wrong_header)} does not fit: the header is damaged, or a program changed it and "
            "left the sum; check gain, read noise and saturation"
        )


def _named(numbers: Iterable[int]) -> str:
    return "HDU " + ", ".join(map(str, numbers))


def _sum(stream: BinaryIO, start: int, end: int) -> int:
    """Ones' complement sum of the 32-bit words of the bytes from `start` to `end`."""
    total = 0
    for place in range(start, end, _CHUNK_BYTES):
        chunk = os.pread(stream.fileno(), min(_CHUNK_BYTES, end - place), place)
        total += int(np.frombuffer(chunk[: len(chunk) // 4 * 4], ">u4").sum(dtype=np.uint64))
    return _fold(total)


def _fold(total: int) -> int:
    while total >> 32:
        total = (total & _MINUS_ZERO) + (total >> 32)
    return total
