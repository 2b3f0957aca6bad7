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
from pipeline.cli.signals import ending_by_signals
from pipeline.errors import Terminated, UserError
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
        check_plugins()  # before a command imports something of theirs
        with logging_to_stderr(), ending_by_signals():
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
    except Terminated as end:
        print("terminated", file=sys.stderr)
        return int(end.code or 0)
    except BrokenPipeError:
        _drop_stdout()
        return 141
    except OSError as error:
        if error.errno not in OF_WRITING:
            return _show_fault()
        # Products are written by `pipeline.files`, which names them.
        _drop_stdout()
        return _complain(f"cannot write {error.filename or 'the output'}: {error.strerror.lower()}")
    except Exception:
        return _show_fault()


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


def _show_fault() -> int:
    for line in traceback.format_exc().splitlines():
        print(printable(line), file=sys.stderr)
    return 1


def _drop_stdout() -> None:
    """What is still to be written goes nowhere: the interpreter flushes stdout at exit, which would fail again."""
    with suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
