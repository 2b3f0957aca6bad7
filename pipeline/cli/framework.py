"""Declaration of commands, their common options, configuration and logging."""

import inspect
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer
from typer.core import TyperGroup

from pipeline import __version__, logs
from pipeline.text_tables import printable

if TYPE_CHECKING:
    from pipeline.config import Config

_SHIPPED = Path(__file__).resolve().parent.parent / "data" / "bundles"


def models_that_ship(incomplete: str) -> list[str]:
    """Names that begin so, for completion: `pipeline.bundle.card` would take a second to import."""
    return sorted(path.parent.name for path in _SHIPPED.glob("*/card.json") if path.parent.name.startswith(incomplete))


# ---- options that several commands share ----------------------------------------------------------------------------
Files = Annotated[list[Path], typer.Argument(metavar="FILE", show_default=False, help="Input files.")]
Manifests = Annotated[
    list[Path],
    typer.Argument(metavar="MANIFEST", show_default=False, help="Data sets made by `lightpool manifest`."),
]
RunDir = Annotated[
    Path, typer.Argument(metavar="RUNDIR", show_default=False, help="Directory with the results of a run.")
]
Bundle = Annotated[
    str,
    typer.Option(
        metavar="BUNDLE",
        help="Directory of a trained model, or the name of one that ships.",
        autocompletion=models_that_ship,
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite existing outputs.")]
KeepGoing = Annotated[bool, typer.Option("--keep-going", help="Exit with 0 even if some inputs failed.")]
ShardsOutside = Annotated[
    bool, typer.Option("--shards-outside", help="Accept shards outside the folder of their manifest.")
]
Jobs = Annotated[int, typer.Option(min=1, metavar="N", help="Parallel processes; the result does not depend on it.")]
Run = Annotated[int, typer.Option(min=1, metavar="N", help="Number of the run, starting at 1.")]
Seed = Annotated[int | None, typer.Option(min=0, metavar="N", help="Random seed; replaces that of the configuration.")]


def _option(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


# ---- options that `command` adds -------------------------------------------------------------------------------------
_CONFIG = {
    "required": _option(
        "config", Annotated[Path, typer.Option("--config", metavar="FILE", help="Configuration (YAML).")]
    ),
    "optional": _option(
        "config",
        Annotated[
            Path | None,
            typer.Option("--config", metavar="FILE", help="Configuration (YAML); default values without it."),
        ],
        None,
    ),
}
# Each replaces the configuration's value of the same name.
_SETTINGS = {
    "device": _option(
        "device", Annotated[str | None, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps.")], None
    ),
    "threads": _option(
        "threads", Annotated[int | None, typer.Option(min=1, metavar="N", help="Threads per process.")], None
    ),
    "backend": _option(
        "backend",
        Annotated[
            str | None,
            typer.Option(metavar="NAME", help="What computes networks: auto, onnxruntime, openvino (sky) or cuda."),
        ],
        None,
    ),
}
_LOGGING = (
    _option("quiet", Annotated[bool, typer.Option("-q", "--quiet", help="Log errors only.")], False),
    _option("verbose", Annotated[bool, typer.Option("-v", "--verbose", help="Log more detail.")], False),
)

# ---- declaring commands ----------------------------------------------------------------------------------------------
_PLAIN: dict[str, Any] = {
    "rich_markup_mode": None,  # rich would triple the time of --help
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
_Function = TypeVar("_Function", bound=Callable[..., int | None])


def group(description: str, parent: typer.Typer | None = None, name: str | None = None, **options: Any) -> typer.Typer:
    """A command that has commands of its own, below `parent` where one is given."""
    made = typer.Typer(help=description, **_PLAIN, **options)
    if parent is not None:
        parent.add_typer(made, name=name)
    return made


class _InOrder(TyperGroup):
    """Lists the commands in the order of the work."""

    _ORDER = (
        "simulate", "ingest", "tiles", "manifest", "train", "evaluate", "irf", "predict", "view", "stack", "explain",
        "report", "compare", "validate", "models", "bundles", "info", "doctor",
        "completion",
    )  # fmt: skip

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=self._ORDER.index)


app = group(
    "From telescope images to trained, evaluated and usable CNNs.",
    cls=_InOrder,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"lightpool {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of lightpool itself."""


def command(
    parent: typer.Typer,
    name: str,
    *,
    example: str,
    config: Literal["required", "optional"] | None = None,
    settings: Sequence[Literal["device", "threads", "backend"]] = (),
    threads: int | None = None,
) -> Callable[[_Function], _Function]:
    """Declare a function as the command `name` of `parent`, with the options that it shares with the others.

    The function has the arguments and options of its own as parameters, its docstring is the help, and it returns the
    exit code (or None for 0). Added are ``--quiet`` and ``--verbose``, and the options below.

    Parameters
    ----------
    parent : typer.Typer
        Where the command belongs.
    name : str
        As the user types it.
    example : str
        A whole command line, printed below the help.
    config : {"required", "optional"}, optional
        Add ``--config``; the function gets the `Config` as its first argument.
    settings : sequence of {"device", "threads", "backend"}
        Add these options, which replace values of the configuration. They need `config`.
    threads : int, optional
        Threads of numerical libraries, for a command without the option.
    """

    def declare(function: _Function) -> _Function:
        own = list(inspect.signature(function).parameters.values())[1 if config is not None else 0 :]
        added = [_CONFIG[config]] if config is not None else []
        added += [_SETTINGS[setting] for setting in settings]

        def run(*, quiet: bool, verbose: bool, **values: Any) -> int | None:
            chosen = {setting: values.pop(setting) for setting in settings}
            set_verbosity(quiet=quiet, verbose=verbose)
            limit_threads(chosen.get("threads") or threads)
            if config is None:
                return function(**values)
            return function(load_configuration(values.pop("config"), **chosen), **values)

        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
        parameters += [*added, *_LOGGING]
        # typer reads the options from the signature and the annotations.
        run.__signature__ = inspect.Signature(parameters)
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        run.__doc__ = function.__doc__
        # \b keeps the example in one line, ready to be copied.
        parent.command(name, epilog=f"\b\nExample: {example}")(run)
        return function

    return declare


def exit_code(statuses: Sequence[dict[str, Any]] | None, *, keep_going: bool) -> int:
    """2 if an input failed, unless the user chose to keep going."""
    failed = any(status["status"] == "failed" for status in statuses or ())
    return 2 if failed and not keep_going else 0


# ---- configuration ---------------------------------------------------------------------------------------------------
def load_configuration(path: Path | None, **settings: Any) -> "Config":
    """The configuration in `path` (or the default one), with the values that the command line replaces.

    Raises
    ------
    UserError
        If the file or one of the values is not accepted.
    """
    from pipeline.config import Config, load_config, parse_config

    cfg = load_config(path) if path is not None else Config()
    changes = {key: value for key, value in settings.items() if value is not None}
    return parse_config(cfg.model_dump(mode="json") | changes) if changes else cfg


def limit_threads(n_threads: int | None) -> None:
    """Limit numerical libraries, which are not loaded yet, to this number of threads."""
    if n_threads is not None:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
            os.environ[name] = str(n_threads)


# ---- logging ---------------------------------------------------------------------------------------------------------
_LOGGERS = ("", logs.ROOT)


class _ToStderr(logging.Handler):
    """Information as plain sentences; the level in front of anything else."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        lines = [level + record.getMessage()]
        if record.exc_info:
            lines += "".join(traceback.format_exception(*record.exc_info)).splitlines()
        for line in lines:
            print(printable(line), file=sys.stderr)


@contextmanager
def logging_to_stderr() -> Iterator[None]:
    """Log to stderr inside the block; afterwards logging is as it was, for programs that call `main`."""
    handler = _ToStderr()
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    logging.getLogger().addHandler(handler)
    try:
        with logs.warnings_as_messages():
            yield
    finally:
        logging.getLogger().removeHandler(handler)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def set_verbosity(*, quiet: bool, verbose: bool) -> None:
    """Set how much is logged."""
    logging.getLogger().setLevel(logging.WARNING)
    level = logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO
    logging.getLogger(logs.ROOT).setLevel(level)
    # Libraries are heard with --verbose only: lightpool logs what a user needs to know.
    logs.quieten_libraries(not verbose)
