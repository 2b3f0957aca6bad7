"""Records (dicts of plain values) to a text stream, one by one: JSON lines or an aligned table."""

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TextIO

from pipeline.text_tables import Columns, printable, terminal_columns

_NARROWEST = 20  # columns of a terminal that lines are broken for


class RecordSink(Protocol):
    """Destination of records. If `wanted` is false, records need not be made.

    Attributes
    ----------
    wanted : bool
    for_people : bool
        Whether a table is written, of what a person wants to see, and not JSON for programs.
    """

    wanted: bool
    for_people: bool

    def write(self, record: Mapping[str, Any]) -> None:
        """Take one record; it may be buffered."""

    def say(self, text: str) -> None:
        """Write a line of its own, after all records so far; nothing among records for programs."""

    def end_of_file(self) -> None:
        """Write the buffered records."""


def record_sink(stream: TextIO | None, *, as_json: bool) -> RecordSink:
    """JSON lines or a table on `stream`; nothing if `stream` is None."""
    if stream is None:
        return _Nowhere()
    return _JsonLines(stream) if as_json else _Table(stream)


class _Nowhere:
    wanted, for_people = False, False

    def write(self, record: Mapping[str, Any]) -> None:
        """Discard it."""

    def say(self, text: str) -> None:
        """Discard it."""

    def end_of_file(self) -> None:
        """Nothing is buffered."""


class _JsonLines:
    wanted, for_people = True, False

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, record: Mapping[str, Any]) -> None:
        self._stream.write(json.dumps(record, allow_nan=False) + "\n")

    def say(self, text: str) -> None:
        """Nothing: programs read records."""

    def end_of_file(self) -> None:
        self._stream.flush()


class _Table:
    """Aligned columns; the first rows fix the widths, so that any number of rows can stream through.

    In a terminal that is too narrow for the columns, each record is a paragraph of its own.
    """

    wanted, for_people = True, True
    _SETTLE_ROWS = 200

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._waiting: list[Mapping[str, Any]] = []
        self._names: list[str] = []
        self._columns = Columns("", [])

    def write(self, record: Mapping[str, Any]) -> None:
        self._waiting.append(record)
        if len(self._waiting) >= self._SETTLE_ROWS:
            self._flush()

    def say(self, text: str) -> None:
        self._flush()
        self._names = []
        self._stream.write(printable(text) + "\n")

    def end_of_file(self) -> None:
        self._flush()
        self._names = []
        self._stream.flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        # The reason comes last and outside the columns, because it may be of any length; warnings were logged.
        keys = dict.fromkeys(key for record in self._waiting for key in record)
        names = [name for name in keys if name not in ("reason", "warnings")]
        rows = [[_cell(record.get(name)) for name in names] for record in self._waiting]
        width = terminal_columns()
        if Columns(">" * len(names), [names, *rows]).width > width:
            self._paragraphs(names, rows, int(width))
            return
        if names != self._names:
            self._names = names
            self._columns = Columns(">" * len(names), [[printable(name) for name in names], *rows])
            titles = [printable(name) for name in names]
            self._line([*titles, "reason"] if any("reason" in record for record in self._waiting) else titles)
        for row, record in zip(rows, self._waiting, strict=True):
            self._line([*row, printable(str(record["reason"]))] if "reason" in record else row)
        self._waiting = []

    def _paragraphs(self, names: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> None:
        for row, record in zip(rows, self._waiting, strict=True):
            cells = [f"{printable(name)} {cell}" for name, cell in zip(names, row, strict=True) if cell != "-"]
            text = "; ".join([*cells, *([printable(str(record["reason"]))] if "reason" in record else [])])
            self._stream.write(textwrap.fill(text, max(width, _NARROWEST), subsequent_indent="  ") + "\n")
        self._waiting, self._names = [], []

    def _line(self, cells: Sequence[str]) -> None:
        self._stream.write(self._columns.line(cells) + "\n")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.5g}" if isinstance(value, float) else printable(str(value))


def number(value: float) -> float | None:
    """Seven digits, which is what float32 holds; JSON has no NaN."""
    value = float(value)
    return float(f"{value:.7g}") if math.isfinite(value) else None
