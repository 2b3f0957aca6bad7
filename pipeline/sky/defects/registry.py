"""Defects by name, as the configuration's `sky.defects` lists them."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import numpy as np

from pipeline.errors import UserError


class Defect(Protocol):
    """What a registered class offers; its constructor's arguments are the `kwargs` of the configuration."""

    def sample(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        """Charge to add to a frame [electron], shape (H, W); all randomness comes from `rng`.

        It is charge as the pixels hold it: what is light brings its own photon noise.
        """


_Class = TypeVar("_Class", bound=type)
_CLASSES: dict[str, type] = {}


def register_defect(name: str) -> Callable[[_Class], _Class]:
    """Decorator: make a class of defects available under `name`.

    Raises
    ------
    UserError
        If another class has the name.
    """

    def register(cls: _Class) -> _Class:
        if name in _CLASSES:
            modules = f"{_CLASSES[name].__module__} and {cls.__module__}"
            raise UserError(f"two modules register a defect named {name!r}: {modules}; rename one of them")
        _CLASSES[name] = cls
        return cls

    return register


def list_defects() -> list[str]:
    """Names of the registered defects."""
    return sorted(_CLASSES)


def create_defect(name: str, kwargs: Mapping[str, Any]) -> Defect:
    """The defect called `name`, with the arguments of its class.

    Raises
    ------
    UserError
        If no defect has this name (the message lists the nearest), or it does not accept the arguments.
    """
    accepted = ", ".join(list_defects())
    if name not in _CLASSES:
        near = difflib.get_close_matches(name, list_defects(), n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise UserError(f"unknown defect {name!r} in sky.defects{hint} (accepted: {accepted})")
    try:
        inspect.signature(_CLASSES[name]).bind(**kwargs)
    except TypeError as error:
        takes = ", ".join(inspect.signature(_CLASSES[name]).parameters)
        raise UserError(f"kwargs of the defect {name!r} in sky.defects: {error}; it takes {takes}") from error
    return _CLASSES[name](**kwargs)
