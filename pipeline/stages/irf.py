"""`lightpool irf`: cuts, instrument response functions in the GADF format, and sensitivity, by ctapipe's tools."""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import provenance
from pipeline.camera.baselines import FOREST
from pipeline.camera.irf import fits_files, forest, inputs, tools
from pipeline.camera.irf.forest import EventForests, ForestTiles, forest_tiles
from pipeline.camera.irf.inputs import EventFile
from pipeline.camera.irf.models import Models, load_models, with_directions
from pipeline.camera.irf.responses import BENCHMARKS, CUTS, IRF, NAMES, POINT_LIKE, EventSet, Responses, make_responses
from pipeline.config import Config, IrfShowers, sections_of
from pipeline.errors import TooFewEventsError
from pipeline.evaluation.comparison import NETWORK
from pipeline.figures.published import published_curves
from pipeline.files import atomic_output, check_free, temporary_folder
from pipeline.logs import get_logger
from pipeline.sky import cards
from pipeline.stages.inputs import check_names

log = get_logger(__name__)

#: Sections of the configuration that decide responses from given events.
READS = (
    "irf", "showers", "evaluate.bootstrap", "evaluate.forest_trees", "evaluate.max_baseline_images", "seed",
)  # fmt: skip

SUMMARY = "irf.json"


def irf(
    cfg: Config,
    out: str | Path,
    files: Sequence[str | Path],
    *,
    bundles: str | Path | None = None,
    tiles: Sequence[str | Path] = (),
    jobs: int = 1,
    force: bool = False,
) -> Path:
    """Make instrument response functions.

    Parameters
    ----------
    cfg : Config
        Section `irf`.
    out : path
        Directory: irf.json, figures, and for each kind of gammas (point_source, diffuse) a folder with cuts.fits,
        irf.fits, irf_point_like.fits, benchmarks.fits and ctapipe.yaml, and a folder forest with the same of the
        baseline.
    files : sequence of path
        DL2 files of all runs, predicted with the bundles of the section.
    bundles : path, optional
        Folder with the bundles of the experiment's networks; default results/NAME/bundles.
    tiles : sequence of path, optional
        Manifests of camera tiles that the baseline is trained on, if the section wants one; default
        results/NAME/tiles/camera.manifest.json.
    jobs : int
        Number of processes; only directions of ctapipe use several.
    force : bool
        Replace `out`.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    UserError
        If `out` exists, a bundle is missing, a file or the tiles cannot be used, or there are too few events.
    """
    out = check_free(out, force=force, folder=True)
    paths = [Path(path) for path in files]
    check_names(paths)
    models = load_models(cfg, bundles_folder(cfg, bundles))
    learnt_from = forest_tiles(cfg, tiles)
    began = time.monotonic()
    with atomic_output(out, force=force, folder=True) as temporary, temporary_folder() as work:
        made = _responses(cfg, paths, models, learnt_from, temporary, work, jobs)
        stamped = provenance.stamp(
            "irf",
            config=sections_of(cfg, READS),
            warnings=made.warnings,
            inputs={path.name: provenance.sha256_file(path) for path in paths},
            bundles=models.sha256,
            manifests=[] if learnt_from is None else [manifest.sha256 for manifest in learnt_from.manifests],
        )
        _finish(temporary, cfg, models, made, stamped)
        provenance.write_sidecar(temporary, stamped, wall_time_s=round(time.monotonic() - began, 1))
    for text in made.warnings:
        log.warning("%s: %s", out.name, text)
    log.info("wrote %s: %s", out, "; ".join(f"{part.kind}: {', '.join(part.tables)}" for part in made.of[NETWORK]))
    return out


def bundles_folder(cfg: Config, folder: str | Path | None) -> Path:
    """Where the bundles of the experiment's networks are: where the workflow puts them, if not said."""
    return Path("results", cfg.name, "bundles") if folder is None else Path(folder)


@dataclass
class _Made:
    """Responses of all kinds of gammas by method, each in a folder of its own.

    Attributes
    ----------
    of : dict
        Method -> responses.
    settings : dict
        How the forests were chosen; empty without.
    warnings : list of str
    """

    of: dict[str, list[Responses]] = field(default_factory=lambda: {NETWORK: []})
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def add(self, method: str, kind: str, folder: Path, make: Callable[[Path], Responses]) -> None:
        """What `make` gives. The networks' responses are kept if there are too few events for the baseline's."""
        try:
            part = make(folder)
        except TooFewEventsError as error:
            if method == NETWORK:
                raise
            shutil.rmtree(folder, ignore_errors=True)
            self.warnings.append(f"the {method} has no responses to {NAMES[kind]}: {error}")
            return
        self.of.setdefault(method, []).append(part)
        self.warnings += part.warnings if method == NETWORK else [f"of the {method}: {text}" for text in part.warnings]


def _responses(
    cfg: Config,
    paths: Sequence[Path],
    models: Models,
    tiles: ForestTiles | None,
    folder: Path,
    work: Path,
    jobs: int,
) -> _Made:
    particles = {run: cfg.irf.showers(cfg.showers).class_of_run(run).particle for run in cfg.irf.runs}
    files = [inputs.read_event_file(path, particles) for path in paths]
    kinds = inputs.by_kind(files)
    made = _Made(warnings=_warnings_of_runs(cfg, files))
    methods = {NETWORK: models.prefixes}
    if tiles is not None:
        forest.check_events(files, tiles)
    copies = dict(zip(paths, with_directions(files, models, work, jobs), strict=True))
    if tiles is not None:
        forests = EventForests.train(tiles, cfg)
        made.settings, methods[FOREST] = forests.settings, forest.PREFIXES
        copies = forests.complete(files, copies, work)
    sets = {kind: _event_set(kind, of_kind, copies, methods, work) for kind, of_kind in kinds.items()}
    background = {kind: sets[kind] for kind in ("proton", "electron") if kind in sets and "proton" in sets}
    folder.mkdir()
    for kind in ("point_source", "diffuse"):
        for method, prefixes in methods.items() if kind in sets else ():
            make = partial(
                make_responses, cfg.irf, sets[kind], background, prefixes,
                n_resamples=cfg.evaluate.bootstrap, seed=cfg.seed,
            )  # fmt: skip
            made.add(method, kind, _folder_of(folder, kind, method), make)
    made.warnings = list(dict.fromkeys(made.warnings))
    return made


def _folder_of(folder: Path, kind: str, method: str) -> Path:
    """Where the files of one kind of gammas are; those of a baseline are below the networks'."""
    return folder / kind if method == NETWORK else folder / kind / method


def _event_set(
    kind: str,
    files: Sequence[EventFile],
    copies: Mapping[Path, Path],
    methods: Mapping[str, inputs.Prefixes],
    work: Path,
) -> EventSet:
    complete = [
        inputs.read_event_file(copies[file.path], dict.fromkeys(file.obs_ids, file.thrown.particle)) for file in files
    ]
    for file in complete:
        for prefixes in methods.values():
            inputs.check_predicted(file, prefixes)
    path = tools.merge([file.path for file in complete], work / f"{kind}.dl2.h5", work)
    n_thrown, n_events = sum(file.n_thrown for file in complete), sum(file.n_events for file in complete)
    return EventSet(path, complete[0].thrown, n_thrown, n_events)


def _warnings_of_runs(cfg: Config, files: Sequence[EventFile]) -> list[str]:
    """Runs that networks may have been trained on."""
    runs = sorted(run for file in files for run in file.obs_ids if IrfShowers.first_run > run <= cfg.showers.n_runs)
    if not runs:
        return []
    return [
        f"the events are of runs {', '.join(map(str, runs))}, which have numbers of the section showers: if networks "
        "were trained on them, these responses are too good; use the runs of the section irf"
    ]


# ---- products --------------------------------------------------------------------------------------------------------
def _finish(folder: Path, cfg: Config, models: Models, made: _Made, stamped: Mapping[str, Any]) -> None:
    """Provenance in the FITS files, the summary, and the figures."""
    for method, parts in made.of.items():
        history = _history(method, models, stamped)
        for part in parts:
            for name in (CUTS, IRF, POINT_LIKE, BENCHMARKS):
                fits_files.finish(_folder_of(folder, part.kind, method) / name, history)
    references = published_curves()
    figures = _draw(made, references, cfg.irf.observation_h, folder)
    content: dict[str, Any] = {
        "sources": {"energy": cfg.irf.energy, "gammaness": cfg.irf.gammaness, "direction": cfg.irf.direction},
        "observation_h": cfg.irf.observation_h,
        "optimiser": cfg.irf.optimiser,
        "kinds": {part.kind: _content(part) for part in made.of[NETWORK]},
        "baselines": {
            method: {"kinds": {part.kind: _content(part) for part in parts}, "settings": made.settings}
            for method, parts in made.of.items()
            if method != NETWORK
        },
        "figures": figures,
        "references": [{key: curve[key] for key in ("name", "quantity", "source")} for curve in references],
        "warnings": made.warnings,
    }
    (folder / SUMMARY).write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def _history(method: str, models: Models, stamped: Mapping[str, Any]) -> list[tuple[str, object, str]]:
    """Cards of the FITS files of one method."""
    warnings = list(stamped.get("warnings", ()))
    made_by = [f"bundle {name} sha256 {digest}" for name, digest in models.sha256.items()]
    if method != NETWORK:
        made_by = [f"values of the events by the baseline {method}"]
    return [
        ("HISTORY", f"lightpool {stamped['version']}: ctapipe's tools, configuration in ctapipe.yaml", ""),
        *(("HISTORY", line, "") for line in made_by),
        *(("HISTORY", line, "") for text in warnings for line in cards.warning_lines(text)),
        cards.N_WARNINGS.with_value(len(warnings)),
    ]


def _content(part: Responses) -> dict[str, Any]:
    return {
        "tables": part.tables,
        "is_checked_by_ogadf_schema": part.is_checked,
        "counts": part.counts,
        "offset_edges_deg": [round(float(edge), 6) for edge in part.bins.offset_edges_deg],
        "bins": part.entries,
    }


def _draw(
    made: _Made, references: Sequence[Mapping[str, Any]], observation_h: float, folder: Path
) -> list[dict[str, str]]:
    """Figures of what was made: their file, title and caption."""
    from pipeline.figures import irf as figures
    from pipeline.figures.style import save_figure

    entries = {method: {part.kind: part.entries for part in parts} for method, parts in made.of.items()}
    drawings = [
        ("effective_area", figures.effective_area, "Effective area", "After the cut in gammaness, without one in "
         "direction."),
        ("energy", figures.energy, "Energy dispersion", "Bias (median) and resolution (68 % containment of "
         "|E_reco/E_true − 1|) of the gammas after all cuts."),
        ("angular_resolution", figures.angular_resolution, "Point spread", "Angle that contains 68 % of the gammas "
         "after the cut in gammaness."),
    ]  # fmt: skip
    if any(entry["by"] == "sensitivity" for part in made.of[NETWORK] for entry in part.entries):
        drawings += [
            ("background", figures.background, "Background", "Rate after the cut in gammaness, in bins of a fifth of "
             "a decade unless configured otherwise."),
            ("sensitivity", figures.sensitivity, "Sensitivity", f"Flux of a point source that is detected in "
             f"{observation_h:g} h: 5 standard deviations, 10 gammas, 5 % of the background; five times as much "
             "off-source as on-source region. Open markers: fewer than 10 background events."),
        ]  # fmt: skip
    forests = " Dashed: the forests on Hillas parameters; of diffuse gammas, the innermost offsets."
    common = (
        f"{forests if len(entries) > 1 else ''}"
        " Bars are 95 % intervals, from whole showers. Lines in grey are published values; irf.json has their sources."
    )
    done = []
    for name, draw, title, caption in drawings:
        save_figure(draw(entries, references), folder / f"{name}.png")
        done.append({"file": f"{name}.png", "title": title, "caption": caption + common})
    return done
