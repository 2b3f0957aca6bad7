"""Tables of plain text in aligned columns."""

import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence

_GAP = "  "
#: A shortened column keeps at least this many characters.
_MIN_SHRUNK = 12


def printable(text: str, keep: str = "") -> str:
    r"""A text as it may go to a terminal: what does not print is written out, such as ``\x1b`` for an escape.

    Names of files, values of headers and messages of libraries may hold characters that move the cursor, colour or
    delete what stands on the screen, or turn the direction of writing.

    Parameters
    ----------
    text : str
        Bytes of a name that are not UTF-8 are written out, too.
    keep : str
        Characters to leave as they are, such as the ends of lines.
    """
    if text.isprintable():
        return text
    return "".join(character if _prints(character) or character in keep else _escaped(character) for character in text)


def _prints(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python reads a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


class Columns:
    """Alignment and widths of the columns of a table.

    Parameters
    ----------
    align : str
        ``<`` or ``>`` for each column.
    rows : iterable of sequence of str
        The rows, or the first ones, that the widths have to fit.
    """

    def __init__(self, align: str, rows: Iterable[Sequence[str]]) -> None:
        self._align = align
        self._widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        self._shrunk: int | None = None

    def shrink(self, column: int, max_width: float) -> None:
        """Make one column narrower, so that a line has at most `max_width` characters; its texts are cut."""
        surplus = self.width - max_width
        if surplus > 0:
            width = self._widths[column]
            self._widths[column] = max(width - int(surplus), min(width, _MIN_SHRUNK))
            self._shrunk = column

    @property
    def width(self) -> int:
        """Characters of a line that fits."""
        return sum(self._widths) + len(_GAP) * (len(self._widths) - 1)

    def line(self, cells: Sequence[str]) -> str:
        """One row. A text wider than its column sticks out; cells after the last column follow as they are."""
        padded = [
            f"{_cut(text, width) if number == self._shrunk else text:{side}{width}}"
            for number, (text, side, width) in enumerate(zip(cells, self._align, self._widths, strict=False))
        ]
        return _GAP.join([*padded, *cells[len(padded) :]]).rstrip()


def format_table(
    rows: Iterable[Sequence[str]], align: str, *, indent: str = "", max_width: float = float("inf"), shrink: int = 0
) -> list[str]:
    """Lines of a table.

    Parameters
    ----------
    rows : iterable of sequence of str
        All rows; the first one may hold headings.
    align : str
        ``<`` or ``>`` for each column.
    indent : str
        Stands before each line.
    max_width : float
        Characters per line; infinite for what goes to a file or another program.
    shrink : int
        Number of the column whose texts are cut where the table is wider than `max_width`.
    """
    rows = [[printable(text) for text in row] for row in rows]
    if not rows:
        return []
    columns = Columns(align, rows)
    columns.shrink(shrink, max_width - len(indent))
    return [indent + columns.line(row) for row in rows]


def terminal_columns() -> float:
    """Width of the terminal; infinite where stdout is a file or another program."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else float("inf")


def _cut(text: str, width: int) -> str:
    """The beginning of a sentence that is too long; the beginning and the end of a name."""
    if len(text) <= width:
        return text
    end = 0 if " " in text else width // 3
    return f"{text[: width - 1 - end]}…{text[len(text) - end :]}"
