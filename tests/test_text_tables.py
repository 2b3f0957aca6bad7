"""Aligned columns, whole tables and streams of rows."""

import io

import pytest

from pipeline.records import record_sink
from pipeline.text_tables import Columns, format_table, printable

ROWS = [("name", "n"), ("a_rather_long_name", "5"), ("b", "12345")]


def test_columns_are_aligned():
    assert format_table(ROWS, "<>") == [
        "name                    n",
        "a_rather_long_name      5",
        "b                   12345",
    ]
    assert format_table([("a", ""), ("bb", "text")], "<<", indent="  ") == ["  a", "  bb  text"]
    assert format_table([], "<") == []


def test_one_column_gives_way():
    assert format_table(ROWS, "<>", max_width=22) == [
        "name                 n",
        "a_rather_…_name      5",
        "b                12345",
    ]
    # At least twelve characters are kept, and the indent counts.
    assert [len(line) for line in format_table(ROWS, "<>", max_width=5)] == [19, 19, 19]
    assert max(map(len, format_table(ROWS, "<>", max_width=24, indent="  "))) == 24


def test_sentences_lose_their_end_and_names_their_middle():
    (line,) = format_table([("a sentence that is too long",)], "<", max_width=12)
    assert line == "a sentence …"
    (line,) = format_table([("features.conv1.0.weight",)], "<", max_width=12)
    assert line == "feature…ight"


def test_rows_must_have_the_same_number_of_cells():
    with pytest.raises(ValueError, match="zip"):
        Columns("<<", [("a", "b"), ("c",)])


def test_a_wide_text_sticks_out_of_a_line_and_more_cells_follow():
    columns = Columns(">>", [("id", "n"), ("10", "5")])
    assert columns.line(("3", "5", "and a reason")) == " 3  5  and a reason"
    assert columns.line(("123456", "5")) == "123456  5"


def test_any_number_of_records_streams_through():
    stream = io.StringIO()
    sink = record_sink(stream, as_json=False)
    for number in range(450):
        sink.write({"event_id": number, "valid": number != 3} | ({"reason": "too faint"} if number == 3 else {}))
    assert len(stream.getvalue().splitlines()) == 401  # two blocks of rows and the headings
    sink.end_of_file()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 451
    assert lines[0] == "event_id  valid  reason"
    assert lines[4] == "       3     no  too faint"
    assert lines[-1] == "     449    yes"


def test_new_columns_start_with_new_headings():
    stream = io.StringIO()
    sink = record_sink(stream, as_json=False)
    for record in ({"event_id": 1, "energy_tev": 0.123456789}, {"event_id": 2, "gammaness": None}):
        sink.write(record)
        sink.end_of_file()
    assert stream.getvalue().splitlines() == [
        "event_id  energy_tev", "       1     0.12346", "event_id  gammaness", "       2          -",
    ]  # fmt: skip


def test_records_are_paragraphs_in_a_narrow_terminal(monkeypatch):
    monkeypatch.setattr("pipeline.records.terminal_columns", lambda: 30)
    stream = io.StringIO()
    sink = record_sink(stream, as_json=False)
    sink.say("run.h5")
    sink.write({"event": "12", "energy [TeV]": "0.56 ± 0.10", "gammaness": "0.912", "leakage": "-"})
    sink.write({"event": "13", "energy [TeV]": "-", "gammaness": "-", "leakage": "-", "reason": "too faint"})
    sink.end_of_file()
    assert stream.getvalue().splitlines() == [
        "run.h5", "event 12; energy [TeV] 0.56 ±", "  0.10; gammaness 0.912", "event 13; too faint",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("größe 1\u00a0pc, 星", "größe 1\u00a0pc, 星"),
        ("red\x1b[31m", r"red\x1b[31m"),
        ("two\nlines\r\ttab", r"two\nlines\r\ttab"),
        ("bell\x07 del\x7f csi\x9b", r"bell\x07 del\x7f csi\x9b"),
        ("fits.\u202estif", r"fits.\u202estif"),  # turns the direction of writing
        ("zero\u200bwidth", r"zero\u200bwidth"),
        ("line\u2028", r"line\u2028"),
        ("\udcff\udcfe.h5", r"\xff\xfe.h5"),
    ],
)
def test_what_does_not_print_is_written_out(text, shown):
    assert printable(text) == shown
    assert format_table([(text, "x")], "<<") == [f"{shown}  x"]


def test_ends_of_lines_may_be_kept():
    assert printable("a\n\tb\x1b", keep="\n\t") == "a\n\tb\\x1b"


def test_records_show_no_control_characters():
    stream = io.StringIO()
    sink = record_sink(stream, as_json=False)
    sink.write({"file": "a\x1b[2Jb", "n\x07": 1, "reason": "no\x1bpe"})
    sink.end_of_file()
    assert stream.getvalue() == "     file  n\\x07  reason\na\\x1b[2Jb      1  no\\x1bpe\n"
