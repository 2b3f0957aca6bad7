"""Records (dicts of plain values) to a text stream, one by one: JSON lines or an aligned table."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TextIO

from pipeline.text_tables import Columns, printable


class RecordSink(Protocol):
    """Destination of records. If `wanted` is false, records need not be made."""

    wanted: bool

    def write(self, record: Mapping[str, Any]) -> None:
        """Take one record; it may be buffered."""

    def end_of_file(self) -> None:
        """Write the buffered records."""


def record_sink(stream: TextIO | None, *, as_json: bool) -> RecordSink:
    """JSON lines or a table on `stream`; nothing if `stream` is None."""
    if stream is None:
        return _Nowhere()
    return _JsonLines(stream) if as_json else _Table(stream)


class _Nowhere:
    wanted = False

    def write(self, record: Mapping[str, Any]) -> None:
        """Discard it."""

    def end_of_file(self) -> None:
        """Nothing is buffered."""


class _JsonLines:
    wanted = True

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, record: Mapping[str, Any]) -> None:
        self._stream.write(json.dumps(record, allow_nan=False) + "\n")

    def end_of_file(self) -> None:
        self._stream.flush()


class _Table:
    """Aligned columns; the first rows fix the widths, so that any number of rows can stream through."""

    wanted = True
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

    def end_of_file(self) -> None:
        self._flush()
        self._stream.flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        # The reason comes last and outside the columns, because it may be of any length; warnings were logged.
        keys = dict.fromkeys(key for record in self._waiting for key in record)
        names = [name for name in keys if name not in ("reason", "warnings")]
        rows = [[_cell(record.get(name)) for name in names] for record in self._waiting]
        if names != self._names:
            self._names = names
            self._columns = Columns(">" * len(names), [[printable(name) for name in names], *rows])
            titles = [printable(name) for name in names]
            self._line([*titles, "reason"] if any("reason" in record for record in self._waiting) else titles)
        for row, record in zip(rows, self._waiting, strict=True):
            self._line([*row, printable(str(record["reason"]))] if "reason" in record else row)
        self._waiting = []

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
