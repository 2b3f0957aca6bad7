"""Tables of plain text in aligned columns."""

import shutil
import sys
from collections.abc import Iterable, Sequence

_GAP = "  "
#: A shortened column keeps at least this many characters.
_MIN_SHRUNK = 12


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
        surplus = sum(self._widths) + len(_GAP) * (len(self._widths) - 1) - max_width
        if surplus > 0:
            width = self._widths[column]
            self._widths[column] = max(width - int(surplus), min(width, _MIN_SHRUNK))
            self._shrunk = column

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
    rows = list(rows)
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
