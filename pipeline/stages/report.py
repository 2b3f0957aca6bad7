"""`lightpool report`: one self-contained page about a run, with no external resources."""

from pathlib import Path

from pipeline import provenance
from pipeline.files import atomic_output, check_free
from pipeline.logs import get_logger
from pipeline.reporting.collect import collect
from pipeline.reporting.page import render

LOG = get_logger(__name__)


def report(run_dir: str | Path, out: str | Path, force: bool = False) -> Path:
    """Write the report of a run.

    Parameters
    ----------
    run_dir : path
        Folder of the run (results/NAME); the page lists missing parts.
    out : path
        HTML file to make. Figures and style are inside it; it needs no network and no script.
    force : bool
        Replace `out`.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    UserError
        If `run_dir` is not the folder of a run, or `out` exists and `force` is false.
    """
    out = check_free(out, force=force)
    with atomic_output(out, force=force) as temporary:
        run = collect(run_dir)
        temporary.write_text(render(run), encoding="utf-8", errors="backslashreplace")
        provenance.write_sidecar(temporary, provenance.stamp("report", run=run.folder.name))
    LOG.info("wrote %s", out)
    return out
