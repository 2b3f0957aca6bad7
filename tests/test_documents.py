"""JSON and YAML of others: each kind of damage is one `InputFileError`, within a second."""

import string
import time

import pytest

from pipeline.documents import read_json, read_yaml
from pipeline.errors import InputFileError


def _bomb(levels):
    """A billion laughs: every level is ten of the one before."""
    lines = ["a: &a [" + ", ".join(["x"] * 10) + "]"]
    for before, name in zip(string.ascii_lowercase, string.ascii_lowercase[1 : levels + 1], strict=False):
        lines.append(f"{name}: &{name} [" + ", ".join([f"*{before}"] * 10) + "]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"{", "is not a card: it is not valid JSON"),
        (b"[1]", "is not a card: it holds list, not an object"),
        (b"\xff{}", r"is not valid JSON: it is not UTF-8 text \(byte 0\)"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' is given twice"),
        (b'{"a": NaN}', "NaN is not a number of JSON"),
        (b'{"a": -Infinity}', "-Infinity is not a number of JSON"),
        (b'{"a": 1e999}', "1e999 is too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "5000 digits"),
        (b'{"a": "\\ud800"}', "surrogates not allowed"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a":' * 100_000, "nested too deep"),
        (b'{"a": "' + b"x" * (65 << 20) + b'"}', "is too large for a card"),
    ],
    ids=lambda value: str(value[:20]),
)
def test_what_is_no_json_object_is_one_line(tmp_path, content, match):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=match) as caught:
        read_json(path, "a card")
    assert "\n" not in str(caught.value)


def test_json_is_read_as_it_is(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": [1, 2.5, null, "\\u00e9"], "b": {}}')
    assert read_json(path) == {"a": [1, 2.5, None, "é"], "b": {}}


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty"),
        (b"# nothing\n", "is empty: it holds no value"),
        (b"- 1\n", "must hold a mapping of sections, not list"),
        (b"\tseed: 1", r"is not valid YAML: .*'\\t'"),
        (b"\xff\xfe", "is not valid YAML: it is not UTF-8 text"),
        (b"a: \x00", "special characters are not allowed"),
        (b"seed: 1\nname: x\nseed: 2\n", "the key 'seed' is given twice"),
        (b"a: &a [*a]", "an alias stands for a value that it is part of"),
        (_bomb(9).encode(), "more than 100,000 values once its aliases are filled in"),
        (b"a: !!python/object:os.system x", "could not determine a constructor"),
        (b"a: 2024-13-45", "month must be in"),
        (b"a: !!int ''", "is not valid YAML"),
        (b"a: " + b"9" * 5000, "5000 digits"),
        (b"[" * 100_000, "nested too deep"),
        (b"a: 1\n" * 100_000, "is too large for a configuration"),
        (b"a: 1\n---\nb: 2\n", "expected a single document"),
    ],
    ids=lambda value: str(value[:20]),
)
def test_what_is_no_yaml_mapping_is_one_line(tmp_path, content, match):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    started = time.process_time()
    with pytest.raises(InputFileError, match=match) as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)
    assert time.process_time() - started < 5


def test_yaml_with_aliases_and_merged_keys_is_read_as_it_is(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: [*a, *a]\n")
    same = {"x": 1, "y": 2}
    assert read_yaml(path) == {"a": same, "b": {"x": 1, "y": 3}, "c": [same, same]}
