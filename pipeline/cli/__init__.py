"""The command line: arguments to configuration to one stage. No science; heavy imports only inside the commands."""

import atexit
import gc
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

import typer
from typer.exceptions import TyperException

# Importing a module of commands declares them.
from pipeline.cli import catalogues, data, networks  # noqa: F401
from pipeline.cli.completion import answer_shell
from pipeline.cli.framework import app, logging_to_stderr
from pipeline.cli.signals import ending_by_signals
from pipeline.errors import Terminated, UserError
from pipeline.output import ending
from pipeline.output.reasons import OF_WRITING
from pipeline.plugins import check_plugins
from pipeline.text_tables import printable


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        Without the name of the program; by default the arguments of this process.

    Returns
    -------
    int
        Exit code: 0 done, 2 the user can fix it (one line on stderr), 1 a fault of lightpool (traceback),
        130 interrupted, 141 the reader of stdout went away, 143 terminated (129 by its terminal).
    """
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        if argv is None:
            # The system frees what is in use at the end: to search it for garbage first takes a third of a second.
            atexit.register(gc.freeze)
            if (code := answer_shell()) is not None:
                return code
        check_plugins()  # before a command imports something of theirs
        with logging_to_stderr(), ending_by_signals():
            code = _run(arguments)
            sys.stdout.flush()
        return code
    except BaseException as error:
        # The exception of a signal may have become another one on its way.
        return _report(ending.reached() or error)


def _report(error: BaseException) -> int:
    """Say how a command ended; the exit code."""
    match error:
        case UserError():
            return _complain(str(error))
        case TyperException():
            context = getattr(error, "ctx", None)
            path = context.command_path if context is not None else "lightpool"
            return _complain(f"{error.format_message().rstrip('.')}; see '{path} --help'")
        case KeyboardInterrupt():
            print("interrupted", file=sys.stderr)
            return 130
        case Terminated():
            print("terminated", file=sys.stderr)
            return int(error.code or 0)
        case BrokenPipeError():
            _drop_stdout()
            return 141
        case OSError() if error.errno in OF_WRITING:
            # Products are written by `pipeline.files`, which names them.
            _drop_stdout()
            return _complain(f"cannot write {error.filename or 'the output'}: {error.strerror.lower()}")
        case Exception():
            for line in "".join(traceback.format_exception(error)).splitlines():
                print(printable(line), file=sys.stderr)
            return 1
        case _:
            raise error


def _run(arguments: list[str]) -> int:
    # Not the command's own `main`, which handles Ctrl-C, closed pipes and errors in its own way.
    command = typer.main.get_command(app)
    try:
        with command.make_context("lightpool", arguments) as context:
            return command.invoke(context) or 0
    except typer.Exit as end:
        return end.exit_code


def _complain(message: str) -> int:
    print(f"error: {printable(' '.join(message.split()))}", file=sys.stderr)
    return 2


def _drop_stdout() -> None:
    """What is still to be written goes nowhere: the interpreter flushes stdout at exit, which would fail again."""
    with suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
