"""Completion in the shell: what typer makes of the commands. Nothing heavy is imported while somebody types."""

import os
from typing import Annotated, Literal

import typer

from pipeline.cli.framework import app, command

_PROGRAM = "lightpool"
#: Set by the script of the shell when it asks what may follow.
_VARIABLE = "_LIGHTPOOL_COMPLETE"


@command(app, "completion", example="lightpool completion bash")
def completion(
    shell: Annotated[
        Literal["bash", "zsh", "fish"], typer.Argument(metavar="SHELL", show_default=False, help="bash, zsh or fish.")
    ],
) -> None:
    """Print a script for completion in the shell.

    With it, the TAB key completes commands, options and names of models. docs/commands.md says where it goes.
    """
    from typer.completion import get_completion_script

    print(get_completion_script(prog_name=_PROGRAM, complete_var=_VARIABLE, shell=shell))


def answer_shell() -> int | None:
    """Print what may follow, if the script of a shell asks: its exit code, else None."""
    asked = os.environ.get(_VARIABLE)
    if not asked:
        return None
    from typer.completion import completion_init, shell_complete

    completion_init()
    return shell_complete(typer.main.get_command(app), {}, _PROGRAM, _VARIABLE, asked)
