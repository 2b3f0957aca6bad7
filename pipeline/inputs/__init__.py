"""Inputs of networks, one module per kind: raw tiles to named arrays, fitted once, stored in the model's card.

A kind is a module here, or in the folder `inputs` of a plugin folder, with `INPUT`, a subclass of
`pipeline.inputs.base.Input`. numpy only: this is part of every prediction.
"""

from importlib import import_module
from typing import Any

from pipeline.errors import UserError
from pipeline.inputs.base import Input
from pipeline.plugins import extend_path, module_names

__all__ = ["Input", "get_input", "input_kinds", "restore_input"]

extend_path(__path__, "inputs")

_NO_KINDS = ("base", "image_features", "population")


def input_kinds() -> tuple[str, ...]:
    """Names of all kinds of input."""
    return tuple(name for name in module_names(__path__) if name not in _NO_KINDS)


def get_input(kind: str) -> type[Input]:
    """The class of a kind of input.

    Raises
    ------
    UserError
        If the kind is unknown.
    """
    if kind not in input_kinds():
        raise UserError(f"unknown kind of input {kind!r}; accepted: {', '.join(input_kinds())}")
    return import_module(f"pipeline.inputs.{kind}").INPUT


def restore_input(content: Any) -> Input:
    """The fitted input that a card holds."""
    if isinstance(content, Input):
        return content
    if not isinstance(content, dict) or "kind" not in content:
        raise ValueError("Input should be a mapping with the key kind")
    return get_input(content["kind"]).model_validate(content)
