"""`lightpool validate showers`: the shower simulation compared with CORSIKA, sim_telarray and published numbers."""

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import provenance
from pipeline.errors import UserError
from pipeline.files import atomic_output, check_free, is_directory
from pipeline.logs import get_logger

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.camera.showers.validation.checks import Outcome

log = get_logger(__name__)


def validate_showers(
    out: str | Path, data: str | Path | None = None, quick: bool = False, jobs: int = 1, force: bool = False
) -> Path:
    """Compare the simulation with its references; write a table and figures.

    Parameters
    ----------
    out : path
        Directory for validation.json (rows, curves of the figures), validation.ecsv and validation.md (rows), and PNG
        figures.
    data : path, optional
        Folder with the reference files (``camera/corsika``, ``camera/simtel``, ``camera/tables``); without it only
        what has a published number is compared.
    quick : bool
        A tenth of the showers: one minute instead of several.
    jobs : int
        Number of processes; the results are the same for any, except for the times.
    force : bool
        Replace an existing directory.

    Returns
    -------
    path
        `out`.

    Raises
    ------
    UserError
        If `out` exists and `force` is false, or a reference file is missing.
    """
    out = check_free(out, force=force, folder=True)
    data = None if data is None else Path(data)
    if data is not None and not is_directory(data):
        raise UserError(f"{data} is not a directory; --data takes the folder of the reference files")
    # Numba, matplotlib and scikit-learn are imported from here on.
    from pipeline.camera.showers.validation import checks

    there = [] if data is None else [name for name in checks.DATA_FILES if (data / name).is_file()]
    inputs = {name: provenance.sha256_file(data / name) for name in there}
    stamped = provenance.stamp("validate showers", quick=quick, inputs=inputs)
    began = time.perf_counter()
    with atomic_output(out, force=force, folder=True) as temporary:
        outcomes = checks.run_checks(data, quick, jobs)
        rows = [row.to_json() for outcome in outcomes for row in outcome.rows]
        verdicts = Counter(row["verdict"] for row in rows)
        counts = {verdict: verdicts[verdict] for verdict in ("agrees", "bounded", "differs")}
        facts = {"with_data": data is not None, "quick": quick, "counts": counts}
        temporary.mkdir()
        _write(outcomes, rows, facts, temporary)
        provenance.write_sidecar(temporary, stamped, wall_s=round(time.perf_counter() - began, 1))
    for row in rows:
        if row["verdict"] == "differs":
            log.warning("%s: %s differs from its reference", row["name"], row["quantity"])
    log.info(
        "wrote %s: %d rows agree with their reference, %d differ within an explained bound, %d differ",
        out, counts["agrees"], counts["bounded"], counts["differs"],
    )  # fmt: skip
    return out


def _write(outcomes: Sequence["Outcome"], rows: list[dict[str, Any]], facts: Mapping[str, Any], folder: Path) -> None:
    """Rows as JSON, Markdown and ECSV, and the figures."""
    from pipeline.camera.showers.validation.rows import markdown

    curves: dict[str, Any] = {}
    for outcome in outcomes:
        curves |= outcome.curves
    content = {
        **facts,
        "rows": rows,
        "figures": _draw(curves, folder),
        "curves": curves,
        "cpu_s": {outcome.name: round(outcome.cpu_s, 1) for outcome in outcomes},
    }
    (folder / "validation.json").write_text(json.dumps(content, indent=1, allow_nan=True) + "\n")
    (folder / "validation.md").write_text(markdown(rows), encoding="utf-8")
    _write_table(rows, folder / "validation.ecsv")


def _write_table(rows: list[dict[str, Any]], path: Path) -> None:
    import math

    from astropy.table import Table

    columns = {
        name: [math.nan if row[name] is None else row[name] for row in rows]
        for name in (
            "name", "quantity", "unit", "reference", "reference_error", "value", "error", "difference_percent",
            "difference_sigma", "limit", "verdict", "passed", "source",
        )
    }  # fmt: skip
    Table(columns).write(path, format="ascii.ecsv")


def _draw(curves: Mapping[str, Any], folder: Path) -> list[dict[str, str]]:
    """Figures of what was compared: their file, title and caption."""
    from pipeline.figures import showers
    from pipeline.figures.style import save_figure

    drawings: tuple[tuple[str, Callable[[Any], Figure], str, str], ...] = (
        ("profile", showers.profile, "Electrons along the shower",
         "Mean number of electrons above 20 MeV in gamma showers from 40°, with the error of the mean."),
        ("pool", showers.light_pool, "Light pool",
         "Photons per area against the distance from the shower axis, without absorption: mean here, and in lighter "
         "shade the spread from shower to shower. Points are single telescopes of CORSIKA's showers, which are few."),
        ("protons", showers.proton_light, "Light of protons",
         "Photons per energy, for CORSIKA's 200 showers and for the same energies and directions here. The errors of "
         "CORSIKA's means are the spread of the simulated showers over the root of the number of showers."),
        ("telescopes", showers.telescopes, "Light in single telescopes",
         "True photo-electrons of sim_telarray's gammas over those of like showers here, after one constant for each "
         "type of telescope. Bars are the spread from shower to shower, shared by all telescopes of one."),
        ("muons", showers.muon_rings, "Muon rings",
         "Radius and light of muon rings in a Large-Sized Telescope."),
        ("size", showers.size_energy, "Size and energy",
         "Photo-electrons of gammas in a Large-Sized Telescope, and the fitted power of the energy."),
        ("hillas", showers.hillas_against_size, "Shape of images",
         "Medians with their errors; the bands are the middle half of the images here. prod3b detects more of the "
         "light and has other optics and cleaning."),
        ("gradient", showers.time_gradient, "Time gradient",
         "Along the image's axis, away from the source: medians with their errors, and the middle half of the images. "
         "For the comparison with prod3b, images here are weighted to its energy spectrum."),
        ("time", showers.time_per_shower, "Time per shower",
         "CPU time of one core per shower that is seen by twelve telescopes."),
    )  # fmt: skip
    made = []
    for name, draw, title, caption in drawings:
        if curves.get(name):
            save_figure(draw(curves[name]), folder / f"{name}.png")
            made.append({"file": f"{name}.png", "title": title, "caption": caption})
    return made
