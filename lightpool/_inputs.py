"""Recognise the input of `Model.predict` without importing the libraries that it may come from."""

import sys
from pathlib import Path
from typing import Any

from pipeline.errors import UserError


def is_a(value: Any, module: str, name: str) -> bool:
    """Whether `value` is of the class `name` of `module`: without its module, nobody can have made one."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, getattr(loaded, name))


def kind_of_object(value: Any) -> str:
    """Name in a message for something that is not accepted."""
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__.partition('.')[0]} {kind.__name__}"
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):
        return f"{name} of shape {shape}"
    return f"{name} of {len(value)}" if isinstance(value, tuple | list) else name


def check_output(out: Path | None, wing: str, source: Path | str, overwrite: bool) -> None:
    """Fail early if the product cannot be written.

    Raises
    ------
    UserError
        If the name does not end as such a product does, is that of the source, or is taken.
    """
    from pipeline.files import check_free
    from pipeline.stages.inputs import check_no_input
    from pipeline.stages.prediction_plan import check_ending

    if out is None:
        return
    check_ending(out, wing, Path(source).name)
    if isinstance(source, Path):
        check_no_input([out], [source])
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists; choose another name or set overwrite=True to replace it")
    check_free(out, force=overwrite)
