"""The command line: arguments to configuration to one stage. No science; heavy imports only inside the commands."""

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

import typer
from typer.exceptions import TyperException

# Importing a module of commands declares them.
from pipeline.cli import catalogues, data, networks  # noqa: F401
from pipeline.cli.framework import app, logging_to_stderr
from pipeline.errors import UserError
from pipeline.plugins import check_plugins


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
        130 interrupted, 141 the reader of stdout went away.
    """
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        check_plugins()  # before a command imports something of theirs
        with logging_to_stderr():
            code = _run(arguments)
        sys.stdout.flush()
        return code
    except UserError as error:
        return _complain(str(error))
    except TyperException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "lightpool"
        return _complain(f"{error.format_message().rstrip('.')}; see '{path} --help'")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The interpreter flushes stdout once more at exit, which would fail again.
        with suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return 141
    except Exception:
        traceback.print_exc()
        return 1


def _run(arguments: list[str]) -> int:
    # Not the command's own `main`, which handles Ctrl-C, closed pipes and errors in its own way.
    command = typer.main.get_command(app)
    try:
        with command.make_context("lightpool", arguments) as context:
            return command.invoke(context) or 0
    except typer.Exit as end:
        return end.exit_code


def _complain(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2
