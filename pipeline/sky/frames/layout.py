"""What the headers of a FITS file declare against what the file holds, before anything is allocated.

A damaged or a hostile header may declare 10^12 pixels, a compressed file may unpack to a thousand times its size, and
astropy believes both. Here the structure is read first, in blocks of 2880 bytes; sizes are compared with the file, and
a packed file is unpacked no further than its headers say.
"""

import bz2
import gzip
import math
import os
import re
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from pipeline.errors import InputFileError
from pipeline.files import check_regular

BLOCK, _CARD, _RECORD = 2880, 80, 28800
#: Longest header; those of the largest mosaics have some 200 kB.
_MAX_HEADER_BYTES = 8_000_000
_MAX_HDUS = 2000
_MAX_COLUMNS = 999  # by the standard
# A packed file is unpacked to this size, or to this many times its own if that is more, and not beyond: noise does not
# compress better than some ten times. Whoever has more can unpack it beforehand.
_UNPACKED_BYTES, _UNPACKED_RATIO = 512_000_000, 50
_CHUNK = 1 << 20
_OPENERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open}
_BITPIX = (8, 16, 32, 64, -32, -64)
_COLUMN_BYTES = {"L": 1, "B": 1, "A": 1, "I": 2, "J": 4, "E": 4, "K": 8, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}
_STRUCTURAL = re.compile(
    rb"SIMPLE|XTENSION|BITPIX|NAXIS\d*|PCOUNT|GCOUNT|GROUPS|TFIELDS|TFORM\d+|Z(?:IMAGE|BITPIX|NAXIS\d*|TILE\d+)"
    rb"|CHECKSUM|DATASUM"
)
# A value as the standard has it: text in quotes, a logical, a number, a complex number, nothing.
_VALUE = re.compile(
    rb"\s*(?:'(?:[^']|'')*'|[TF]|[+-]?(?:\d+\.?\d*|\.\d+)(?:[EDed][+-]?\d+)?|\([^)]*\)|)\s*(?:/.*)?", re.DOTALL
)


_UNPRINTABLE = re.compile(rb"[^ -~]")
_CONTINUE = re.compile(rb"CONTINUE(?!  *')")  # one that does not continue a text


@dataclass(frozen=True)
class Part:
    """One HDU of a file.

    Attributes
    ----------
    start : int
        Where its header begins.
    data_start, data_bytes : int
        Where its data begin, and how many there are without the fill of their last block.
    odd_cards : mapping
        Keyword -> text of the values that the standard does not allow (text without quotes, decimal commas, NaN).
    unprintable : bool
        The header has bytes that no header may have.
    sums : mapping
        CHECKSUM and DATASUM, where the header has them.
    kind : str
        Value of XTENSION; empty for the primary HDU.
    """

    start: int
    data_start: int
    data_bytes: int
    odd_cards: Mapping[str, str]
    unprintable: bool
    sums: Mapping[str, str]
    kind: str


@dataclass(frozen=True)
class Layout:
    """The HDUs of a file, and what is odd about it.

    Attributes
    ----------
    parts : tuple of Part
    without_fill : bool
        The last block is not filled up to 2880 bytes; all pixels are there.
    end : int
        Where the last HDU ends, its fill included.
    trailing : bool
        Behind the last HDU stands something that is no HDU.
    """

    parts: tuple[Part, ...]
    without_fill: bool
    end: int
    trailing: bool


@contextmanager
def plain_streams(path: str | Path, n: int = 1) -> Iterator[tuple[Layout, list[BinaryIO]]]:
    """Check a FITS file and open it `n` times, unpacked, with the fill of its last block and nothing behind it.

    What is unpacked or filled up is in a file without a name, which is gone with the process, however that ends.

    Raises
    ------
    InputFileError
        If the file is missing, no FITS, truncated, or declares what it cannot hold.
    """
    path = check_regular(path)
    with ExitStack() as stack:
        file = stack.enter_context(open(path, "rb"))
        head = file.read(8)
        opener = next((opener for magic, opener in _OPENERS.items() if head.startswith(magic)), None)
        if opener is None and not head.startswith(b"SIMPLE"):
            raise InputFileError(
                f"{path} is not a FITS file: it does not begin with SIMPLE and is not compressed by gzip or bzip2"
            )
        if opener is None:
            layout = _layout(_Plain(file, path))
            if not layout.without_fill and not layout.trailing:
                yield layout, [stack.enter_context(open(path, "rb")) for _ in range(n)]
                return
            streams = stack.enter_context(_nameless(path, n))
            _copy(file, streams[0], layout.end, path)
        else:
            streams = stack.enter_context(_nameless(path, n))
            layout = _layout(_Packed(stack.enter_context(opener(path, "rb")), streams[0], path))
        _finish(streams[0], layout.end, path)
        yield layout, streams[1:]


def memory_limit() -> int:
    """Bytes that this process may use: the machine's memory, or its limit (`ulimit -v`) if that is less."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    try:
        import resource
    except ImportError:  # not on Windows
        return limits[0]
    limits.append(resource.getrlimit(resource.RLIMIT_AS)[0])
    return min(limit for limit in limits if limit > 0)


# ---- where the bytes come from ---------------------------------------------------------------------------------------
class _Plain:
    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self.path = file, path
        self._size = os.fstat(file.fileno()).st_size

    def read(self, start: int, n: int) -> bytes:
        """Up to `n` bytes from `start` on."""
        self._file.seek(start)
        return self._file.read(n)

    def reach(self, end: int) -> int:
        """How many bytes there are up to `end`."""
        return min(end, self._size)


class _Packed:
    """Unpacks into a file, as far as it is asked for."""

    def __init__(self, packed: IO[bytes], target: BinaryIO, path: Path) -> None:
        self._packed, self._target, self.path = packed, target, path
        self._size = 0
        self._limit = _unpacked_limit(path.stat().st_size)

    def read(self, start: int, n: int) -> bytes:
        self.reach(start + n)
        self._target.seek(start)
        return self._target.read(n)

    def reach(self, end: int) -> int:
        if end > self._limit:
            raise _too_large(self.path, end, self._limit, "gunzip, bunzip2")
        self._target.seek(self._size)
        while self._size < end:
            try:
                chunk = self._packed.read(min(end - self._size, _CHUNK))
            except (OSError, EOFError, zlib.error, ValueError) as error:
                raise InputFileError(
                    f"{self.path} is truncated or damaged; fetch it again ({' '.join(str(error).split())})"
                ) from error
            if not chunk:
                break
            _write(self._target, chunk, self.path)
            self._size += len(chunk)
        return min(end, self._size)


def _unpacked_limit(packed_bytes: int) -> int:
    return max(_UNPACKED_BYTES, _UNPACKED_RATIO * packed_bytes)


def _too_large(path: Path, n_bytes: int, limit: int, command: str) -> InputFileError:
    return InputFileError(
        f"{path} unpacks to {n_bytes / 1e6:,.0f} MB or more, and of its size no more than {limit / 1e6:,.0f} MB are "
        f"unpacked on the way; unpack it first ({command})"
    )


@contextmanager
def _nameless(path: Path, n: int) -> Iterator[list[BinaryIO]]:
    """A temporary file opened for writing and `n` times for reading, and unlinked at once."""
    with ExitStack() as stack:
        try:
            number, name = tempfile.mkstemp(suffix=".fits")
            try:
                streams = [stack.enter_context(os.fdopen(number, "w+b"))]
                streams += [stack.enter_context(open(name, "rb")) for _ in range(n)]
            finally:
                os.unlink(name)
        except OSError as error:
            raise InputFileError(f"{path} cannot be unpacked into {tempfile.gettempdir()}: {error.strerror}") from error
        yield streams


def _copy(source: BinaryIO, target: BinaryIO, end: int, path: Path) -> None:
    source.seek(0)
    while chunk := source.read(min(_CHUNK, end - source.tell())):
        _write(target, chunk, path)


def _finish(target: BinaryIO, end: int, path: Path) -> None:
    """Cut a file where its last HDU ends, and fill its last block."""
    target.seek(min(end, target.seek(0, os.SEEK_END)))
    target.truncate()
    _write(target, b"\0" * (end - target.tell()), path)
    target.flush()


def _write(target: BinaryIO, chunk: bytes, path: Path) -> None:
    try:
        target.write(chunk)
    except OSError as error:
        raise InputFileError(
            f"{path} cannot be unpacked into {tempfile.gettempdir()}: {error.strerror}; set TMPDIR to a larger disk"
        ) from error


# ---- headers ---------------------------------------------------------------------------------------------------------
def _layout(source: "_Plain | _Packed") -> Layout:
    parts: list[Part] = []
    position = 0
    without_fill = False
    while True:
        start = source.read(position, 8)
        if parts and start != b"XTENSION":
            break
        if len(parts) == _MAX_HDUS:
            raise InputFileError(f"{source.path} has more than {_MAX_HDUS} HDUs; split it")
        cards, odd, unprintable, data_start = _header(source, position, len(parts))
        data_bytes = _declared_bytes(cards, source.path, len(parts))
        end = data_start + data_bytes
        there = source.reach(end)
        if there < end:
            raise InputFileError(
                f"{source.path} is truncated or damaged: HDU {len(parts)} needs {data_bytes:,} bytes of data, and "
                f"{max(there - data_start, 0):,} are there; fetch it again"
            )
        n_columns = _integer(cards, "TFIELDS", source.path, len(parts), 0)
        if not 0 <= n_columns <= _MAX_COLUMNS:
            raise _damaged(source.path, len(parts), f"TFIELDS = {n_columns}; allowed: 0 to {_MAX_COLUMNS}")
        if _yes(cards.get("ZIMAGE")):
            _check_tiles(cards, source.path, len(parts))
        sums = {name: cards[name] for name in ("CHECKSUM", "DATASUM") if name in cards}
        parts.append(Part(position, data_start, data_bytes, odd, unprintable, sums, cards.get("XTENSION", "")))
        position = data_start + -(-data_bytes // BLOCK) * BLOCK
        if source.reach(position) < position:
            without_fill = True
            break
    return Layout(tuple(parts), without_fill, position, _goes_on(source, position))


def _goes_on(source: "_Plain | _Packed", end: int) -> bool:
    """Whether more than fill stands behind the last HDU: tapes had records of ten blocks."""
    rest = source.read(end, _RECORD)
    return len(rest) == _RECORD or bool(rest.strip(b"\0 "))


def _header(source: "_Plain | _Packed", start: int, number: int) -> tuple[dict[str, str], dict[str, str], bool, int]:
    """Structural cards of the header at `start`, its odd cards, whether any byte is odd, and where its data begin."""
    structural: dict[str, str] = {}
    odd: dict[str, str] = {}
    unprintable = False
    for position in range(start, start + _MAX_HEADER_BYTES, BLOCK):
        block = source.read(position, BLOCK)
        if len(block) < BLOCK:
            raise InputFileError(f"{source.path} is truncated: the header of HDU {number} has no end; fetch it again")
        for place in range(0, BLOCK, _CARD):
            card = block[place : place + _CARD]
            if card.rstrip() == b"END":
                return structural, odd, unprintable, position + BLOCK
            _take(card, structural, odd)
            unprintable |= _UNPRINTABLE.search(card) is not None or _CONTINUE.match(card) is not None
    raise InputFileError(
        f"{source.path} is damaged: the header of HDU {number} has no END within {_MAX_HEADER_BYTES / 1e6:.0f} MB"
    )


def _take(card: bytes, structural: dict[str, str], odd: dict[str, str]) -> None:
    if card[8:10] == b"= ":
        keyword, value = card[:8].rstrip(), card[10:]
    elif card.startswith(b"HIERARCH ") and b"=" in card:
        keyword, value = card[9:].split(b"=", 1)
        keyword = keyword.strip()
    else:
        return
    if not _VALUE.fullmatch(value):
        text = value.split(b" /")[0] if b" /" in value else value
        odd.setdefault(keyword.decode("ascii", "replace"), _printable(text))
    if _STRUCTURAL.fullmatch(keyword):
        # The first card counts, as it does for astropy.
        structural.setdefault(keyword.decode("ascii"), _printable(value.split(b"/")[0]).strip("' "))


def _printable(text: bytes) -> str:
    return re.sub(r"[^ -~]", "?", text.decode("ascii", "replace")).strip()


def _yes(value: str | None) -> bool:
    return value == "T"


def _declared_bytes(cards: Mapping[str, str], path: Path, number: int) -> int:
    """Size of the data, by the rule of the FITS standard 4.0, eq. 1 and 2, and sect. 6.1 for random groups."""
    if number == 0 and not _yes(cards.get("SIMPLE")):
        raise InputFileError(f"{path} says that it is not standard FITS (SIMPLE = {cards.get('SIMPLE')})")
    bits = _integer(cards, "BITPIX", path, number)
    if bits not in _BITPIX:
        raise _damaged(path, number, f"BITPIX = {bits}; allowed: {', '.join(map(str, _BITPIX))}")
    axes = _axes(cards, "NAXIS", path, number)
    if not axes:
        return 0
    if number == 0 and axes[0] == 0 and _yes(cards.get("GROUPS")):
        axes = axes[1:]
    n_parameters = _integer(cards, "PCOUNT", path, number, 0)
    n_groups = _integer(cards, "GCOUNT", path, number, 1)
    if n_parameters < 0 or n_groups < 0:
        raise _damaged(path, number, f"PCOUNT = {n_parameters}, GCOUNT = {n_groups}; both are 0 or more")
    return abs(bits) // 8 * n_groups * (n_parameters + math.prod(axes))


def _axes(cards: Mapping[str, str], keyword: str, path: Path, number: int) -> list[int]:
    n_axes = _integer(cards, keyword, path, number)
    if not 0 <= n_axes <= 999:
        raise _damaged(path, number, f"{keyword} = {n_axes}; allowed: 0 to 999")
    axes = [_integer(cards, f"{keyword}{axis}", path, number) for axis in range(1, n_axes + 1)]
    if any(length < 0 for length in axes):
        raise _damaged(path, number, f"axes of {axes} pixels")
    return axes


def _check_tiles(cards: Mapping[str, str], path: Path, number: int) -> None:
    """A tile-compressed image has one row of its table for each tile, and rows as wide as its columns [1]_.

    References
    ----------
    .. [1] FITS standard 4.0, sect. 10.1 and 7.3.1.
    """
    axes = _axes(cards, "ZNAXIS", path, number)
    tiles = [_integer(cards, f"ZTILE{n}", path, number, axes[0] if n == 1 else 1) for n in range(1, len(axes) + 1)]
    if not axes or min(axes) < 1 or min(tiles) < 1:
        raise _damaged(path, number, f"a compressed image of {axes} pixels in tiles of {tiles}")
    n_tiles = math.prod(-(-length // tile) for length, tile in zip(axes, tiles, strict=True))
    width, n_rows = (_integer(cards, f"NAXIS{axis}", path, number) for axis in (1, 2))
    if n_tiles != n_rows:
        raise _damaged(
            path, number, f"{axes} pixels in tiles of {tiles} are {n_tiles} tiles, and the file has {n_rows}"
        )
    if _integer(cards, "ZBITPIX", path, number) not in _BITPIX:
        raise _damaged(path, number, f"ZBITPIX = {cards['ZBITPIX']}; allowed: {', '.join(map(str, _BITPIX))}")
    unpacked = math.prod(axes) * abs(int(cards["ZBITPIX"])) // 8
    limit = _unpacked_limit(_integer(cards, "PCOUNT", path, number, 0))
    if unpacked > limit:
        raise _too_large(path, unpacked, limit, "funpack")
    formats = [cards.get(f"TFORM{n}", "") for n in range(1, _integer(cards, "TFIELDS", path, number) + 1)]
    if sum(map(_width, formats)) != width:
        raise _damaged(path, number, f"columns of {', '.join(formats[:8])} do not fill rows of {width} bytes")


def _width(column_format: str) -> int:
    """Bytes of one row of a column; -1 for what is no format."""
    match = re.match(r"(\d*)([LXBIJKAEDCMPQ])", column_format)
    if match is None:
        return -1
    repeat = int(match[1] or 1)
    return -(-repeat // 8) if match[2] == "X" else repeat * _COLUMN_BYTES[match[2]]


def _integer(cards: Mapping[str, str], keyword: str, path: Path, number: int, default: int | None = None) -> int:
    text = cards.get(keyword)
    if text is None and default is not None:
        return default
    if text is None or not re.fullmatch(r"[+-]?\d{1,19}", text):
        raise _damaged(path, number, f"{keyword} = {text if text is not None else 'missing'}, not a whole number")
    return int(text)


def _damaged(path: Path, number: int, what: str) -> InputFileError:
    return InputFileError(f"{path} is damaged: the header of HDU {number} has {what}; fetch it again")
