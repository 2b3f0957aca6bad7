"""`lightpool evaluate`: how good a bundle is on the test split, beside its baselines."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import provenance
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.files import atomic_output, check_free
from pipeline.logs import get_logger
from pipeline.tiles.manifest import Manifest

if TYPE_CHECKING:
    from pipeline.evaluation.result import Predicts, Result

LOG = get_logger(__name__)
METRICS_FILE = "metrics.json"


def evaluate(
    cfg: Config | None, bundle: str | Path, manifests: Sequence[str | Path], out: str | Path, force: bool = False
) -> Path:
    """Judge a bundle on the test split of `manifests`.

    Parameters
    ----------
    cfg : Config, optional
        Defaults where left out.
    bundle : path
        Directory of the bundle, or the name of one that ships.
    manifests : sequence of path
        Made by `lightpool manifest`; the baselines are trained on their training split and tuned on validation.
    out : path
        Directory to make: metrics.json, tables (ECSV), figures (PNG).
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
    from pipeline.bundle.runtime import Predictor, bundle_sha256, resolve_bundle

    cfg = cfg or Config()
    directory = resolve_bundle(bundle)
    predictor = Predictor.load(directory, threads=cfg.threads)
    _check_camera(predictor.cameras, manifests)
    facts = {"model": predictor.card.model.name, "bundle_sha256": bundle_sha256(directory)}
    return evaluate_predictor(cfg, predictor, predictor.task, facts, manifests, out, force=force)


def _check_camera(served: Sequence[str], manifests: Sequence[str | Path]) -> None:
    for path in manifests:
        camera = Manifest.load(path).attributes.get("camera_identity")
        if served and camera and camera not in served:
            raise UserError(
                f"{path} holds images of the camera {camera}, but the bundle serves {', '.join(served)}; evaluate it "
                "on tiles of its own camera"
            )


def evaluate_predictor(
    cfg: Config,
    predictor: "Predicts",
    task: str,
    facts: Mapping[str, Any],
    manifests: Sequence[str | Path],
    out: str | Path,
    *,
    force: bool = False,
) -> Path:
    """Judge anything that predicts `task`; `facts` (model, bundle_sha256) go into metrics.json as they are."""
    check_free(out, force=force)
    started = time.monotonic()
    loaded = [Manifest.load(path) for path in manifests]
    result = _judge(task, predictor, loaded, cfg)
    content = _metrics_json(result, task, facts, loaded, cfg)
    with atomic_output(out, force=force) as temporary:
        temporary.mkdir()
        _write(result, content, temporary)
    provenance.write_sidecar(out, content["provenance"], wall_s=round(time.monotonic() - started, 1))
    for name, entry in content["metrics"].items():
        LOG.info("%s %s: %s [%s, %s]", task, name, entry["value"], entry["low"], entry["high"])
    return Path(out)


def _judge(task: str, predictor: "Predicts", manifests: Sequence[Manifest], cfg: Config) -> "Result":
    if task in ("energy", "gammaness"):
        from pipeline.evaluation.camera import evaluate_camera

        return evaluate_camera(task, predictor, manifests, cfg)
    if task == "denoise":
        from pipeline.evaluation.sky import evaluate_sky

        return evaluate_sky(predictor, manifests, cfg)
    raise UserError(f"cannot evaluate task {task!r}; accepted: energy, gammaness, denoise")


def _metrics_json(
    result: "Result", task: str, facts: Mapping[str, Any], manifests: Sequence[Manifest], cfg: Config
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
        "provenance": provenance.stamp("evaluate", config=cfg.evaluate.model_dump(mode="json"), seed=cfg.seed, **facts),
    }


def _write(result: "Result", content: Mapping[str, Any], directory: Path) -> None:
    from pipeline.figures.style import save_figure

    (directory / METRICS_FILE).write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    for name, table in result.tables.items():
        table.write(directory / f"{name}.ecsv", format="ascii.ecsv")
    for entry in result.figures:
        save_figure(entry.figure, directory / entry.file)
