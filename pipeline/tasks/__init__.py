"""What networks are trained for: `decode` turns outputs into physical values, `training` knows targets and losses."""

import difflib
from importlib import import_module
from typing import TYPE_CHECKING

from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.tasks.decode import Decoder
    from pipeline.tasks.training import Objective

#: Task -> wing. Each has a module of its name in `decode` (numpy) and in `training` (torch).
TASK_KINDS = {"energy": "camera", "gammaness": "camera", "denoise": "sky"}


def _check(name: str) -> None:
    if name not in TASK_KINDS:
        near = difflib.get_close_matches(name, TASK_KINDS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"unknown task {name!r}{hint} accepted: {', '.join(TASK_KINDS)}")


def get_decoder(name: str) -> "Decoder":
    """How the outputs of task `name` are read (numpy only).

    Raises
    ------
    UserError
        If there is no such task.
    """
    _check(name)
    return import_module(f"pipeline.tasks.decode.{name}").DECODER


def get_training(name: str) -> "type[Objective]":
    """Targets, loss and metrics of task `name` (imports torch).

    Raises
    ------
    UserError
        If there is no such task.
    """
    _check(name)
    return import_module(f"pipeline.tasks.training.{name}").OBJECTIVE
