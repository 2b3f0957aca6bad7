"""Stage `evaluate`: performance of a trained model on the test split, compared with its baselines."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import provenance
from pipeline.config import Config, sections_of
from pipeline.errors import UserError
from pipeline.files import atomic_output, check_free
from pipeline.logs import get_logger
from pipeline.tasks import get_judge, get_spec
from pipeline.tiles.cameras import where_served
from pipeline.tiles.manifest import Manifest, load_manifests

if TYPE_CHECKING:
    from pipeline.evaluation.result import Predicts, Result

log = get_logger(__name__)
METRICS_FILE = "metrics.json"

_CUTS = {"size_min_pe", "n_pixels_min", "leakage_max"}  # of the recipe of camera tiles
#: Sections of the configuration that decide an evaluation; frames are predicted in the tiles of `predict`.
READS = ("evaluate", "predict.tile_px", "predict.overlap_px", "backend", "seed")
#: The same where images are generated: they go through the electronics of the configured telescope.
READS_OF_GENERATORS = (*READS, "showers.telescope", "showers.array", "showers.geometry_files", "showers.camera")


def evaluate(
    cfg: Config | None,
    bundle: str | Path,
    manifests: Sequence[str | Path | Manifest],
    out: str | Path,
    force: bool = False,
) -> Path:
    """Evaluate every head of a bundle on the test split of `manifests`.

    Parameters
    ----------
    cfg : Config, optional
        Defaults if not given.
    bundle : path
        Directory of the bundle, or the name of one that ships.
    manifests : sequence of path or Manifest
        Made by `lightpool manifest`; the baselines are trained on their training split and tuned on validation.
    out : path
        Directory to make; in it one directory per head: metrics.json, tables (ECSV), figures (PNG).
    force : bool
        Replace `out`.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    UserError
        If the bundle or a manifest cannot be used, the tiles carry no truth, or the test split is too small.
    """
    from pipeline.bundle.backends import facts_of
    from pipeline.bundle.card import bundle_sha256, load_bundle_card, resolve_bundle
    from pipeline.bundle.generator import ImageGenerator
    from pipeline.bundle.held_out import check_held_out
    from pipeline.bundle.runtime import Predictor

    cfg = cfg or Config()
    loaded = load_manifests(manifests)
    directory = resolve_bundle(bundle)
    if load_bundle_card(directory).generates:
        predictor = ImageGenerator.load(directory, threads=cfg.threads)
    else:
        predictor = Predictor.load(directory, threads=cfg.threads, backend=cfg.backend)
    where_served(loaded, predictor.cameras)  # tiles of other cameras are refused before the long work
    card = predictor.card
    if card.wing == "camera":
        _check_recipe(card.input.recipe or {}, loaded[0])
    check_held_out(card, loaded)
    facts = {
        "network": card.network,
        "model": card.model.name,
        "bundle_sha256": bundle_sha256(directory),
        "backend": facts_of(predictor.backend),
    }
    return evaluate_predictor(cfg, predictor, card.tasks, facts, loaded, out, force=force)


def _check_recipe(recipe: Mapping[str, Any], manifest: Manifest) -> None:
    """Refuse images that were cleaned or cut out in another way than those that the network knows.

    Other cuts choose among the same images, and are warned of.

    Raises
    ------
    UserError
        Naming what differs.
    """
    theirs = manifest.attributes.get("recipe") or {}
    differs = {name: (value, theirs.get(name)) for name, value in recipe.items() if theirs.get(name) != value}
    text = ", ".join(f"{name} {got} (the bundle: {own})" for name, (own, got) in differs.items())
    if differs.keys() - _CUTS:
        raise UserError(f"{manifest.path} holds tiles of other images than the bundle reads: {text}; make them alike")
    if differs:
        log.warning("the images passed other cuts than those of training: %s", text)


def evaluate_predictor(
    cfg: Config,
    predictor: "Predicts",
    tasks: Sequence[str],
    facts: Mapping[str, Any],
    manifests: Sequence[str | Path | Manifest],
    out: str | Path,
    *,
    force: bool = False,
) -> Path:
    """Evaluate anything that predicts `tasks`; `facts` (network, model, bundle_sha256) go into metrics.json."""
    check_free(out, force=force, folder=True)
    started = time.monotonic()
    loaded = load_manifests(manifests)
    reads = READS_OF_GENERATORS if any(get_spec(task).gives == "image" for task in tasks) else READS
    stamped = provenance.stamp("evaluate", config=sections_of(cfg, reads), **facts)
    with atomic_output(out, force=force, folder=True) as temporary:
        temporary.mkdir()
        for task in tasks:
            result = get_judge(task)(predictor, loaded, cfg)
            content = _metrics_json(result, task, facts, loaded) | {"provenance": stamped}
            _write(result, content, temporary / task)
            for name, entry in content["metrics"].items():
                log.info("%s %s: %s [%s, %s]", task, name, entry["value"], entry["low"], entry["high"])
        provenance.write_sidecar(temporary, stamped, wall_s=round(time.monotonic() - started, 1))
    return Path(out)


def _metrics_json(
    result: "Result", task: str, facts: Mapping[str, Any], manifests: Sequence[Manifest]
) -> dict[str, Any]:
    content = dict(result.content)
    data = {
        "manifests": [str(manifest.path) for manifest in manifests],
        "manifests_sha256": [manifest.sha256 for manifest in manifests],
        "split": "test",
    } | content.pop("data")
    return {
        "task": task,
        **facts,
        "data": data,
        **content,
        "bins": [entry.to_json() for entry in result.bins],
        "baseline_settings": dict(result.baseline_settings),
        "figures": [{"file": f.file, "title": f.title, "caption": f.caption} for f in result.figures],
        "tables": [f"{name}.ecsv" for name in result.tables],
    }


def _write(result: "Result", content: Mapping[str, Any], directory: Path) -> None:
    from pipeline.figures.style import save_figure

    directory.mkdir()
    (directory / METRICS_FILE).write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    for name, table in result.tables.items():
        table.write(directory / f"{name}.ecsv", format="ascii.ecsv")
    for entry in result.figures:
        save_figure(entry.figure, directory / entry.file)
