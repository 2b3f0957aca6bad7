"""JSON and YAML files that others made: whatever is wrong with them ends in one line, within a second and few MB."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

from pipeline.errors import InputFileError
from pipeline.files import check_regular

_MAX_JSON_BYTES = 64 << 20  # a manifest of 100,000 shards has 20 MB
_MAX_YAML_BYTES = 256 << 10  # the default configuration has 20 kB; YAML is read at some 50 kB/s
_MAX_YAML_NODES = 100_000  # an alias counts as what it stands for


def read_json(path: str | Path, what: str = "a JSON file") -> dict[str, Any]:
    """The JSON object in a file.

    Parameters
    ----------
    path : path
    what : str
        What the file should be, for the messages: "a manifest".

    Raises
    ------
    InputFileError
        If the file is not a regular one, is empty, too large, not UTF-8, or not JSON; if a key is given twice, a number
        is not finite or has thousands of digits, or the content is not an object.
    """
    text = _text(path, what, "JSON", _MAX_JSON_BYTES)
    try:
        content = json.loads(text, object_pairs_hook=_unique, parse_float=_finite, parse_constant=_refuse_constant)
        if "\\u" in text:
            json.dumps(content, ensure_ascii=False).encode()  # half a character, as \\ud800, could not be written again
    except RecursionError as error:
        raise InputFileError(f"{path} is not {what}: it is nested too deep") from error
    except ValueError as error:  # also of JSON itself, which says line and column
        raise InputFileError(f"{path} is not {what}: it is not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputFileError(f"{path} is not {what}: it holds {type(content).__name__}, not an object with keys")
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError(f"the key {_first_twice([key for key, _ in pairs])!r} is given twice")
    return content


def _first_twice(keys: list[Any]) -> Any:
    return next((key for key, number in Counter(keys).items() if number > 1), None)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits} is too large")
    return number


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


def read_yaml(path: str | Path, what: str = "a configuration") -> dict[str, Any]:
    """The mapping in a YAML file.

    Parameters
    ----------
    path : path
    what : str
        What the file should be, for the messages.

    Raises
    ------
    InputFileError
        If the file is not a regular one, is empty, too large, not UTF-8, or not YAML; if a key is given twice, aliases
        stand for more than 100,000 values, or the content is not a mapping.
    """
    import yaml

    text = _text(path, what, "YAML", _MAX_YAML_BYTES)
    try:
        loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
            _check_nodes(root)
            content = None if root is None else loader.construct_document(root)
        finally:
            loader.dispose()
    except RecursionError as error:
        raise InputFileError(f"{path} is not {what}: it is nested too deep") from error
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError) as error:  # a wrong `!!int` or date
        raise InputFileError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if content is None:
        raise InputFileError(f"{path} is empty: it holds no value; give {what}")
    if not isinstance(content, dict):
        raise InputFileError(f"{path} must hold a mapping of sections, not {type(content).__name__}; give {what}")
    return content


def _check_nodes(root: Any) -> None:
    """Refuse keys that are given twice, and aliases that stand for themselves or for too much.

    PyYAML keeps the last value of a key, and an alias is one object however often it stands there; whoever copies the
    content later makes ten objects of each, at every level.
    """
    import yaml

    n_nodes: dict[int, int] = {}  # of a node and all below it
    open_nodes: set[int] = set()

    def count(node: Any) -> int:
        if id(node) in n_nodes:
            return n_nodes[id(node)]
        if id(node) in open_nodes:
            raise ValueError("an alias stands for a value that it is part of")
        open_nodes.add(id(node))
        below: list[Any] = []
        if isinstance(node, yaml.MappingNode):
            keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if twice := _first_twice(keys):
                raise ValueError(f"the key {twice[1]!r} is given twice (line {node.start_mark.line + 1} and below)")
            below = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            below = node.value
        n_nodes[id(node)] = 1 + sum(map(count, below))
        open_nodes.remove(id(node))
        if n_nodes[id(node)] > _MAX_YAML_NODES:
            raise ValueError(f"it holds more than {_MAX_YAML_NODES:,} values once its aliases are filled in")
        return n_nodes[id(node)]

    if root is not None:
        count(root)


def _text(path: str | Path, what: str, language: str, max_bytes: int) -> str:
    path = check_regular(path)
    try:
        with open(path, "rb") as stream:
            content = stream.read(max_bytes + 1)
    except OSError as error:
        raise InputFileError(f"cannot read {path}: {error.strerror}") from error
    if not content.strip():
        raise InputFileError(f"{path} is empty; give {what}")
    if len(content) > max_bytes:
        raise InputFileError(f"{path} is too large for {what}: it has more than {max_bytes >> 10:,} kB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputFileError(f"{path} is not valid {language}: it is not UTF-8 text (byte {error.start})") from error
