"""Merging an experiment's keys into the defaults, and the message for a key or value that is not accepted."""

import difflib
import reprlib
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

#: Keys whose value replaces the default as a whole, because it is a value and not a section.
_WHOLE = ("kwargs", "uses", "heads", "networks")
_MAX_SHOWN = 80


def merge(default: Any, override: Any) -> Any:
    """Override mappings key by key; a model of another name does not inherit the arguments of the default one."""
    if not (isinstance(default, dict) and isinstance(override, dict)):
        return override
    merged = dict(default)
    for key, value in override.items():
        renamed = key == "model" and isinstance(value, dict) and "name" in value
        whole = renamed or key in _WHOLE or key not in default
        merged[key] = value if whole else merge(default[key], value)
    return merged


def first_problem(error: ValidationError, schema: type[BaseModel]) -> str:
    """The first wrong key or value in one sentence: where it is, the value got and what is accepted."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        keys = list(_accepted_keys(schema, problem["loc"][:-1]))
        near = difflib.get_close_matches(str(problem["loc"][-1]), keys, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"unknown key {where!r}; {hint}accepted: {', '.join(keys)}" if keys else f"unknown key {where!r}"
    message = problem["msg"].removeprefix("Value error, ")
    if isinstance(problem["input"], dict) and problem["type"] == "value_error":
        return f"{where}: {message}"  # of a whole section: its own message says which values
    return f"{where}: {message}, got {_short(problem['input'])}" if where else message


def _short(value: Any) -> str:
    """A value as it was written, or the beginning of it: a wrong value can be of any length."""
    text = reprlib.repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _accepted_keys(schema: type[BaseModel], location: tuple[Any, ...]) -> Iterator[str]:
    """Keys of the section at `location`; numbers and names of networks in it are entries, not keys."""
    model: Any = schema
    for part in location:
        if part not in getattr(model, "model_fields", {}):
            continue
        annotation = model.model_fields[part].annotation
        model = next((kind for kind in kinds_of(annotation) if hasattr(kind, "model_fields")), None)
        if model is None:
            return
    yield from model.model_fields


def kinds_of(annotation: Any) -> Iterator[Any]:
    """The annotation and its parts: ``dict[str, X]`` also gives ``X``."""
    yield annotation
    for part in get_args(annotation):
        yield from kinds_of(part)
