"""CHECKSUM and DATASUM of a FITS file, where it has them, against its bytes [1]_.

References
----------
.. [1] FITS standard 4.0, sect. 4.4.2.7 and appendix J: the sum of all 32-bit words, ones' complement; over a whole HDU,
   the card CHECKSUM makes it -0.
"""

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from pipeline.sky.frames.layout import BLOCK, Part
from pipeline.sky.remarks import Remarks

if TYPE_CHECKING:
    from astropy.io import fits

_CHUNK_BYTES = 1000 * BLOCK
_MINUS_ZERO = 0xFFFFFFFF
# Signs between the digits and the letters, and between capital and small ones.
_NO_LETTERS = frozenset((*range(0x3A, 0x41), *range(0x5B, 0x61)))


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
        data = sum_of(stream, part.data_start, data_end)
        if stated.isdecimal() and int(stated) % _MINUS_ZERO != data % _MINUS_ZERO:
            wrong_data.append(number)
        elif whole and _fold(data + sum_of(stream, part.start, part.data_start)) != _MINUS_ZERO:
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


def sum_of(stream: BinaryIO, start: int, end: int) -> int:
    """Ones' complement sum of the 32-bit words of the bytes from `start` to `end`."""
    total = 0
    for place in range(start, end, _CHUNK_BYTES):
        chunk = os.pread(stream.fileno(), min(_CHUNK_BYTES, end - place), place)
        total += int(np.frombuffer(chunk[: len(chunk) // 4 * 4], ">u4").sum(dtype=np.uint64))
    return _fold(total)


def add_sums(header: "fits.Header", data_sum: int, comment: str) -> None:
    """Give a header the sum of its data, and the one of all its HDU [1]_; its own cards do not change afterwards."""
    header.set("DATASUM", str(data_sum), comment)
    header.set("CHECKSUM", "0" * 16, comment, before="DATASUM")
    words = np.frombuffer(header.tostring().encode("ascii"), ">u4")
    header["CHECKSUM"] = _encoded(_MINUS_ZERO - _fold(int(words.sum(dtype=np.uint64)) + data_sum))


def _encoded(value: int) -> str:
    """A sum as 16 letters and digits: each byte is the sum of four of them, less that of as many zeros."""
    columns = [_four_characters(byte) for byte in value.to_bytes(4, "big")]
    text = "".join(chr(columns[byte][letter]) for letter in range(4) for byte in range(4))
    return text[-1] + text[:-1]


def _four_characters(byte: int) -> list[int]:
    characters = [byte // 4 + ord("0")] * 4
    characters[0] += byte % 4
    while any(character in _NO_LETTERS for character in characters):
        for first in (0, 2):
            if characters[first] in _NO_LETTERS or characters[first + 1] in _NO_LETTERS:
                characters[first] += 1
                characters[first + 1] -= 1
    return characters


def _fold(total: int) -> int:
    while total >> 32:
        total = (total & _MINUS_ZERO) + (total >> 32)
    return total
