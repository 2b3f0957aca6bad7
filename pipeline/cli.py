"""The command line: arguments to configuration to one stage. No science; heavy imports only inside the commands."""

import logging
import os
import shutil
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from pipeline import __version__
from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.config import Config

log = logging.getLogger(__name__)

_PLAIN: dict[str, Any] = {
    "rich_markup_mode": None,  # rich would triple the time of --help
    "context_settings": {"help_option_names": ["-h", "--help"]},
}


class _InOrder(TyperGroup):
    """Lists commands in the order of the work, not groups last."""

    def list_commands(self, ctx: Any) -> list[str]:
        order = ["simulate", "ingest", "tiles", "manifest", "train", "evaluate", "predict", "report", "validate"]
        return sorted(super().list_commands(ctx), key=lambda name: order.index(name) if name in order else len(order))


app = typer.Typer(
    cls=_InOrder,
    help="From telescope images to trained, evaluated and usable CNNs.",
    add_completion=False,
    pretty_exceptions_enable=False,
    **_PLAIN,
)
simulate = typer.Typer(help="Make raw data: shower images or sky frames.", **_PLAIN)
validate = typer.Typer(help="Compare a simulation with what it should be.", **_PLAIN)
models_app = typer.Typer(help="Architectures.", **_PLAIN)
bundles_app = typer.Typer(help="Trained models that ship with lightpool.", **_PLAIN)
app.add_typer(simulate, name="simulate")
app.add_typer(validate, name="validate")
app.add_typer(models_app, name="models")
app.add_typer(bundles_app, name="bundles")

# ---- options that several commands share ----------------------------------------------------------------------------
Files = Annotated[list[Path], typer.Argument(metavar="FILE", show_default=False, help="Input files.")]
ConfigFile = Annotated[Path, typer.Option("--config", metavar="FILE", help="Configuration (YAML).")]
OptionalConfig = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Configuration (YAML); its defaults if left out.")
]
Tiles = Annotated[list[Path], typer.Option("--tiles", metavar="MANIFEST...", help="Manifests of tiles.")]
Force = Annotated[bool, typer.Option("--force", help="Replace outputs that exist.")]
KeepGoing = Annotated[bool, typer.Option("--keep-going", help="Exit 0 although some inputs failed.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Errors only.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say more.")]
Device = Annotated[str | None, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps.")]
Threads = Annotated[int | None, typer.Option(min=1, metavar="N", help="Threads to compute with.")]
Jobs = Annotated[int, typer.Option(min=1, metavar="N", help="Processes; the result is the same for any number.")]
Run = Annotated[int, typer.Option(min=1, metavar="N", help="Number of the run, from 1.")]
Seed = Annotated[int | None, typer.Option(min=0, metavar="N", help="Instead of the configuration's seed.")]


@simulate.command("showers")
def simulate_showers(
    config: ConfigFile,
    out: Annotated[Path, typer.Option(metavar="FILE.h5", help="DL1 file to write.")],
    run: Run,
    seed: Seed = None,
    jobs: Jobs = 1,
    force: Force = False,
    threads: Threads = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """One run of air showers seen by a Cherenkov camera: DL1 HDF5."""
    _start(quiet, verbose, threads)
    cfg = _load(config, threads=threads)
    from pipeline.stages.simulate_showers import simulate_showers as stage

    stage(cfg, run, out, seed=seed, force=force, jobs=jobs)


@simulate.command("sky")
def simulate_sky(
    config: ConfigFile,
    out: Annotated[Path, typer.Option(metavar="FILE.fits", help="Frame to write; FILE.truth.fits goes beside it.")],
    run: Run,
    seed: Seed = None,
    force: Force = False,
    threads: Threads = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """One long-exposure frame, and its truth beside it: FITS."""
    _start(quiet, verbose, threads)
    cfg = _load(config, threads=threads)
    from pipeline.stages.simulate_sky import simulate_sky as stage

    stage(cfg, run, out, seed=seed, force=force)


@app.command()
def ingest(
    files: Files,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Directory for the results and status.json.")],
    config: OptionalConfig = None,
    keep_going: KeepGoing = False,
    force: Force = False,
    threads: Threads = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Raw files to DL1 HDF5 (simtel, lstchain) or calibrated FITS."""
    _start(quiet, verbose, threads)
    cfg = _load(config, threads=threads)
    from pipeline.stages.ingest import ingest as stage

    return _exit_code(stage(files, cfg, out, force=force), keep_going)


@app.command()
def tiles(
    files: Files,
    config: ConfigFile,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Directory for the shards.")],
    keep_going: KeepGoing = False,
    force: Force = False,
    threads: Threads = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Ingested files to training tiles: one shard per input."""
    _start(quiet, verbose, threads)
    cfg = _load(config, threads=threads)
    from pipeline.stages.tiles import make_tiles

    return _exit_code(make_tiles(files, cfg, out, force=force), keep_going)


@app.command()
def manifest(
    shards: Annotated[list[Path], typer.Argument(metavar="SHARD", show_default=False, help="Tile shards.")],
    out: Annotated[Path, typer.Option(metavar="MANIFEST.json", help="Manifest to write.")],
    config: OptionalConfig = None,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Shards to one data set: splits, counts, weights."""
    _start(quiet, verbose)
    cfg = _load(config)
    from pipeline.stages.manifest import make_manifest

    make_manifest(shards, cfg, out, force=force)


@app.command()
def train(
    config: ConfigFile,
    task: Annotated[str, typer.Option(metavar="TASK", help="energy, gammaness or denoise.")],
    tiles: Tiles,
    out: Annotated[Path, typer.Option(metavar="BUNDLE", help="Directory for the trained model.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint of BUNDLE.")] = False,
    device: Device = None,
    threads: Threads = None,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a network: a model bundle."""
    _start(quiet, verbose, threads)
    cfg = _load(config, threads=threads, device=device)
    cfg.train.task(task)  # an unknown task is said before torch is loaded
    from pipeline.stages.train import train as stage

    stage(cfg, task, tiles, out, resume=resume, force=force)


@app.command()
def evaluate(
    bundle: Annotated[str, typer.Option(metavar="BUNDLE", help="Directory, or name of one that ships.")],
    tiles: Tiles,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Directory for metrics.json, tables and figures.")],
    config: OptionalConfig = None,
    device: Device = None,
    threads: Threads = None,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure a bundle on the test split, beside its baselines."""
    _start(quiet, verbose, threads)
    cfg = _load(config, threads=threads, device=device)
    from pipeline.bundle.card import resolve_bundle
    from pipeline.stages.evaluate import evaluate as stage

    stage(cfg, resolve_bundle(bundle), tiles, out, force=force)


@app.command()
def predict(
    files: Files,
    bundle: Annotated[
        list[str], typer.Option(metavar="BUNDLE", help="Directory, or name of one that ships; give it again for more.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="DL2 HDF5 or FITS file; a directory for several inputs.")
    ] = None,
    event: Annotated[int | None, typer.Option(metavar="ID", help="Only this event.")] = None,
    telescope: Annotated[int | None, typer.Option(metavar="ID", help="Only this telescope.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per image on stdout.")] = False,
    config: OptionalConfig = None,
    keep_going: KeepGoing = False,
    jobs: Annotated[int, typer.Option(min=1, metavar="N", help="Files at a time, with --out.")] = 1,
    device: Device = None,
    threads: Threads = None,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Use trained models: DL2 HDF5, FITS, table or JSON."""
    _start(quiet, verbose, threads)
    from pipeline.stages.predict import predict as stage

    cfg = _load(config, threads=threads, device=device)
    statuses = stage(
        cfg, files, bundle, out,
        event=event, telescope=telescope, as_json=as_json, force=force, stream=sys.stdout, jobs=jobs,
    )  # fmt: skip
    return _exit_code(statuses, keep_going)


@app.command()
def report(
    run_dir: Annotated[Path, typer.Argument(metavar="RUNDIR", show_default=False, help="Results of one run.")],
    out: Annotated[Path, typer.Option(metavar="FILE.html", help="Report to write.")],
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """One self-contained HTML page about a run."""
    _start(quiet, verbose)
    from pipeline.stages.report import report as stage

    stage(run_dir, out, force=force)


@validate.command("showers")
def validate_showers(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Directory for the table and the figures.")],
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Reference files of CORSIKA and sim_telarray; published numbers without."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of the showers.")] = False,
    jobs: Annotated[int, typer.Option(min=1, metavar="N", help="Processes.")] = 1,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """The shower simulation beside CORSIKA, sim_telarray and published numbers."""
    _start(quiet, verbose, 1)
    from pipeline.stages.validate_showers import validate_showers as stage

    stage(out, data, quick=quick, jobs=jobs, force=force)


@app.command()
def info(
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False, help="File or bundle directory.")],
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """What is in this file, on one screen."""
    _start(quiet, verbose)
    from pipeline.stages.info import describe_file

    _print(describe_file(file))


@models_app.command("list")
def models_list(quiet: Quiet = False, verbose: Verbose = False) -> None:
    """All architectures, with the size of their reference configuration."""
    _start(quiet, verbose)
    from models import list_models, model_entry

    table = [("name", "family", "parameters", "paper", "")]
    for name in list_models():
        entry = model_entry(name)
        table.append((name, entry.family, f"{entry.num_params:,}", entry.paper, entry.summary))
    if _columns() < 110:  # of the sentences, too little would be left
        _print_table([row[:-1] for row in table], "<<><", may_shrink=0)
    else:
        _print_table(table, "<<><<", may_shrink=4)


@models_app.command("describe")
def models_describe(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="Architecture.")],
    tile: Annotated[int, typer.Option(min=1, metavar="N", help="Width and height of the input [px].")] = 56,
    in_chans: Annotated[int, typer.Option(min=1, metavar="C", help="Channels of the input.")] = 1,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """One architecture, layer by layer: shapes, parameters, operations, receptive field.

    Layers without parameters that keep shape and receptive field, such as activations, are left out.
    """
    _start(quiet, verbose)
    from models import describe

    try:
        description = describe(name, tile=tile, in_chans=in_chans)
    except ValueError as error:  # models know nothing of lightpool's errors; all of these are the user's arguments
        raise UserError(str(error)) from error
    print(f"{name}: {description.num_params:,} parameters, {description.flops / 1e6:,.1f} Mflop for a tile of "
          f"{in_chans} x {tile} x {tile}; smallest tile {description.min_size_px} px")  # fmt: skip
    table = [("layer", "kind", "output", "parameters", "Mflop", "sees [px]", "step [px]")]
    before = None
    for layer in description.layers:
        shape = "x".join(map(str, layer.output_shape))
        reach = "all" if layer.receptive_field_px is None else str(layer.receptive_field_px)
        step = "" if layer.jump_px is None else f"{layer.jump_px:.3g}"
        if layer.num_params or layer.flops or (shape, reach, step) != before:
            row = (layer.name, layer.kind, shape, f"{layer.num_params:,}", f"{layer.flops / 1e6:,.2f}", reach, step)
            table.append(row)
        before = shape, reach, step
    _print_table(table, "<<>>>>>", may_shrink=0)
    for warning in description.warnings:
        log.warning(warning)


def _print_table(rows: Sequence[Sequence[str]], align: str, may_shrink: int) -> None:
    """Rows of cells in columns; on a terminal, the column `may_shrink` gives way so that a row fits in a line.

    Parameters
    ----------
    rows
        The first one holds the headings.
    align
        ``<`` or ``>`` for each column.
    may_shrink
        Number of the column whose texts are cut.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    surplus = sum(widths) + 2 * (len(widths) - 1) - _columns()
    if surplus > 0:
        widths[may_shrink] = max(widths[may_shrink] - int(surplus), min(widths[may_shrink], 12))
    for row in rows:
        cells = (f"{_cut(text, width):{side}{width}}" for text, side, width in zip(row, align, widths, strict=True))
        print("  ".join(cells).rstrip())


def _columns() -> float:
    """Width of the terminal; no bound for what goes to a file or another program."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else float("inf")


def _cut(text: str, width: int) -> str:
    """The beginning of a sentence that is too long, the beginning and the end of a name."""
    if len(text) <= width:
        return text
    end = 0 if " " in text else width // 3
    return f"{text[: width - 1 - end]}…{text[len(text) - end :]}"


@models_app.command("explain")
def models_explain(
    bundle: Annotated[
        str, typer.Argument(metavar="BUNDLE", show_default=False, help="Directory, or name of one that ships.")
    ],
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False, help="Camera file.")],
    event: Annotated[int, typer.Option(metavar="ID", help="Event to explain.")],
    telescope: Annotated[
        int | None, typer.Option(metavar="ID", help="Telescope; the one with the brightest image if left out.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Picture to write.")] = None,
    show: Annotated[
        str,
        typer.Option(
            metavar="WHAT", help="attribution: where the answer came from; features: first filters and feature maps."
        ),
    ] = "attribution",
    config: OptionalConfig = None,
    threads: Threads = None,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """One event: what a trained network's answer came from, as a picture."""
    _start(quiet, verbose, threads)
    cfg = _load(config, threads=threads)
    from pipeline.stages.explain import explain as stage

    stage(cfg, bundle, file, event=event, telescope=telescope, out=out, show=show, force=force)


@models_app.command("compare")
def models_compare(
    run_dir: Annotated[
        Path, typer.Argument(metavar="RUNDIR", show_default=False, help="Results of an experiment with zoo.entries.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE.html", help="Page to write; its tables go to FILE.json.")],
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Networks trained alike, side by side and beside the forest: one HTML page."""
    _start(quiet, verbose, threads=1)
    from pipeline.stages.compare import compare as stage

    stage(run_dir, out, force=force)


@bundles_app.command("list")
def bundles_list(quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Trained models that ship with lightpool."""
    _start(quiet, verbose)
    from pipeline.bundle.card import list_bundles, load_bundle_card

    names = list_bundles()
    if not names:
        print("none ships with this version; train one with `lightpool train`")
    for name in names:
        card = load_bundle_card(name)
        print(f"{name}  {', '.join(card.tasks)}  {card.model.name}  sha256 {card.bundle_sha256[:16]}")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"lightpool {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Print the version and stop.")
    ] = False,
) -> None:
    """Options of lightpool itself."""


# ---- what every command needs ----------------------------------------------------------------------------------------
_LOGGERS = ("", "pipeline", "py.warnings")


class _ToStderr(logging.Handler):
    """Plain sentences for information, the level's name in front of anything else."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        print(f"{level}{self.format(record)}", file=sys.stderr)


@contextmanager
def _logging() -> Iterator[None]:
    """Log to stderr inside the block; who calls `main` from a program gets the logging back as it was."""
    handler = _ToStderr()
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    logging.getLogger().addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        logging.getLogger().removeHandler(handler)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _start(quiet: bool, verbose: bool, threads: int | None = None) -> None:
    """Set how much is said, and hold numerical libraries (not loaded yet) to the threads asked for."""
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("pipeline").setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)
    # Warnings of libraries are for those who ask for more; what users should know, lightpool says itself.
    logging.getLogger("py.warnings").setLevel(logging.WARNING if verbose else logging.ERROR)
    if threads is not None:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
            os.environ[name] = str(threads)


def _load(path: Path | None, *, threads: int | None = None, device: str | None = None) -> "Config":
    """The configuration of `path` (or the default one), with what the command line says differently."""
    from pipeline.config import Config, load_config, parse_config

    cfg = load_config(path) if path is not None else Config()
    spoken = {"threads": threads, "device": device}
    changes = {key: value for key, value in spoken.items() if value is not None}
    return parse_config(cfg.model_dump(mode="json") | changes) if changes else cfg


def _exit_code(statuses: Sequence[dict[str, Any]] | None, keep_going: bool) -> int:
    failed = [status for status in statuses or () if status["status"] == "failed"]
    return 2 if failed and not keep_going else 0


def _print(lines: Sequence[str]) -> None:
    for line in lines:
        print(line)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    0 done, 2 the user can mend it (one line on stderr), 1 a fault of lightpool's (traceback), 130 interrupted,
    141 the reader of stdout went away.
    """
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        with _logging():
            code = _run(_spread(arguments))
        sys.stdout.flush()
        return code
    except UserError as error:
        return _complain(str(error))
    except TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "lightpool"
        return _complain(f"{error.format_message().rstrip('.')}; see '{command} --help'")
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
    # Not the command's own `main`, which has answers of its own to Ctrl-C, closed pipes and errors.
    command = typer.main.get_command(app)
    try:
        with command.make_context("lightpool", arguments) as context:
            return command.invoke(context) or 0
    except typer.Exit as end:
        return end.exit_code


def _complain(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2


#: Options that take several values in a row, as shells expand them: ``--tiles *.json``.
_SEVERAL = ("--tiles",)


def _spread(arguments: Sequence[str]) -> list[str]:
    """Repeat an option before each of its values: ``--tiles a b`` becomes ``--tiles a --tiles b``."""
    spread: list[str] = []
    option = None
    for place, argument in enumerate(arguments):
        if argument.startswith("-"):
            option = argument if argument in _SEVERAL else None
            spread.append(argument)
        elif option is not None and arguments[place - 1] != option:
            spread += [option, argument]
        else:
            spread.append(argument)
    return spread


if __name__ == "__main__":
    sys.exit(main())
