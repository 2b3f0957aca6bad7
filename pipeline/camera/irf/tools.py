"""ctapipe's command-line tools, run in this process; their failures end in one line."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

from pipeline.errors import UserError

_CLASSES = {
    "process": "ProcessorTool",
    "merge": "MergeTool",
    "optimize-event-selection": "EventSelectionOptimizer",
    "compute-irf": "IrfTool",
}
_FOCAL_LENGTH = "focal_length_choice=EQUIVALENT"
_NAN_INSIDE = "internal NaN bins"


class NoOptimum(UserError):
    """ctapipe could not optimise cuts: energy bins between good ones have no sensitivity."""


def run(name: str, arguments: Sequence[object], folder: Path) -> None:
    """Run the tool ``ctapipe-NAME``.

    Parameters
    ----------
    name : str
    arguments : sequence
        Its command line; paths are made absolute.
    folder : path
        Where it runs: it leaves a log of its provenance there.

    Raises
    ------
    NoOptimum
        If the cuts have no optimum.
    RuntimeError
        If it fails for another reason: everything that a user may get wrong is checked before.
    """
    from ctapipe.core import run_tool

    tool = getattr(import_module(f"ctapipe.tools.{name.replace('-', '_')}"), _CLASSES[name])()
    line = [str(item.absolute()) if isinstance(item, Path) else str(item) for item in arguments]
    with _quietly():
        try:
            run_tool(tool, [*line, "--quiet"], cwd=folder, raises=True)
        except Exception as error:
            if _NAN_INSIDE in str(error) or (name == "optimize-event-selection" and isinstance(error, IndexError)):
                raise NoOptimum(str(error)) from error
            raise RuntimeError(f"ctapipe-{name} failed: {error}") from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep the tools' progress bars and warnings off the screen, and our log handlers where they are."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def add_directions(source: Path, out: Path, folder: Path) -> None:
    """Add directions by ctapipe's HillasReconstructor, from the image parameters in a DL1 or DL2 file.

    Parameters
    ----------
    source, out : path
        `out` is `source` with the additional table, and with its predictions.
    folder : path
        For what the tool leaves behind.
    """
    options = ["--write-showers", "--no-write-images", f"--HDF5EventSource.{_FOCAL_LENGTH}"]
    run("process", ["-i", source, "-o", out, *options], folder)


def merge(sources: Sequence[Path], out: Path, folder: Path) -> Path:
    """One file with the events of several runs, without tables of single telescopes; a single one is used as it is."""
    if len(sources) == 1:
        return sources[0]
    left_out = ("--no-telescope-events", "--no-true-images", "--no-dl1-images", "--no-monitoring")
    run("merge", [*sources, "-o", out, *left_out], folder)
    return out
