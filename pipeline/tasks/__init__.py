"""What networks are trained for. A task is one folder here, or in the folder `tasks` of a plugin folder:

- `spec.py` with `SPEC`: data (`pipeline.tasks.spec.TaskSpec`)
- `targets.py` with `TARGETS`: from truth to arrays, and how these move with an image
  (`pipeline.tasks.interfaces.Targets`)
- `decode.py` with `DECODER`: from network outputs to physical values (`pipeline.tasks.interfaces.Decoder`)
- `objective.py` with `OBJECTIVE`: loss and validation metrics, torch (`pipeline.training.objective.Objective`)
- `judge.py` with `judge`: test metrics compared with the baselines (`pipeline.evaluation.result.Judge`)

Each is imported on first use, so that specs and decoders stay light.
"""

import difflib
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from pipeline.plugins import extend_path

if TYPE_CHECKING:
    from pipeline.evaluation.result import Judge
    from pipeline.tasks.interfaces import Decoder, Targets
    from pipeline.tasks.spec import TaskSpec
    from pipeline.training.objective import Objective

extend_path(__path__, "tasks")


@cache
def task_names() -> tuple[str, ...]:
    """Names of all tasks, in the order of reports."""
    folders = {spec.parent.name for place in __path__ for spec in Path(place).glob("*/spec.py")}
    return tuple(sorted(folders, key=lambda name: (_part(name, "spec").SPEC.order, name)))


def get_spec(name: str) -> "TaskSpec":
    """Specification of task `name`.

    Raises
    ------
    UserError
        If the task is unknown.
    """
    if name not in task_names():
        near = difflib.get_close_matches(str(name), task_names(), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(f"unknown task {name!r}; {hint}accepted: {', '.join(task_names())}")
    return _part(name, "spec").SPEC


def specs_of(wing: str | None = None) -> "list[TaskSpec]":
    """All tasks of a wing, or of both."""
    return [spec for spec in map(get_spec, task_names()) if wing in (None, spec.wing)]


def get_targets(name: str) -> "Targets":
    """How truth becomes targets of task `name` (numpy only)."""
    get_spec(name)
    return _part(name, "targets").TARGETS


def get_decoder(name: str) -> "Decoder":
    """How the outputs of task `name` are read (numpy only)."""
    get_spec(name)
    return _part(name, "decode").DECODER


def get_objective(name: str) -> "type[Objective]":
    """Loss and validation metrics of task `name` (imports torch)."""
    get_spec(name)
    return _part(name, "objective").OBJECTIVE


def get_judge(name: str) -> "Judge":
    """The test of task `name` (imports its baselines and figures)."""
    get_spec(name)
    return _part(name, "judge").judge


def _part(task: str, part: str) -> Any:
    return import_module(f"pipeline.tasks.{task}.{part}")
