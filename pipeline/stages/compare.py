"""`lightpool compare`: one page about all networks of an experiment's zoo, compared with the forest."""

import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import provenance
from pipeline.errors import UserError
from pipeline.files import atomic_output, check_free
from pipeline.logs import get_logger
from pipeline.reporting.pictures import Picture, picture
from pipeline.reporting.words import metric_text
from pipeline.reporting.zoo import Cost, Zoo, collect_zoo, forest_of, render_zoo, rows_of
from pipeline.statistics import Estimate
from pipeline.tasks import get_spec

if TYPE_CHECKING:
    from pipeline.bundle.runtime import Predictor

log = get_logger(__name__)

_TIMED_IMAGES = 256
_TIMED_REPEATS = 3


def compare(run_dir: str | Path, out: str | Path, *, force: bool = False) -> Path:
    """Write the comparison of the networks in `run_dir`, as a page and, next to it, as JSON.

    The cost of prediction is measured here, network by network, on one thread. The rest comes from cards and metrics.

    Parameters
    ----------
    run_dir : path
        Folder of a run whose experiment has `zoo.entries` (results/NAME). The page lists what is missing.
    out : path
        HTML file to make; the rows of its tables go to the same name with .json.
    force : bool
        Replace both.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    UserError
        If `run_dir` holds no comparison, `out` is not named as a page, or a product exists and `force` is false.
    """
    out = Path(out)
    if out.suffix not in (".html", ".htm"):  # FILE.json would be the name of both products
        raise UserError(f"the page must be named FILE.html or FILE.htm, got {out}")
    check_free(out, force=force)
    check_free(out.with_suffix(".json"), force=force)
    with atomic_output(out, force=force) as temporary:
        zoo = collect_zoo(run_dir)
        costs = {(task, label): _cost(zoo, task, label) for task, labels in zoo.trainings.items() for label in labels}
        rows = rows_of(zoo, costs)
        pictures = {task: _picture(zoo, task, rows[task]) for task in rows if rows[task]}
        content = {"networks": rows, "forest": {task: forest_of(zoo, task) for task in rows if rows[task]}}
        temporary.with_suffix(".json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
        temporary.write_text(render_zoo(zoo, rows, pictures), encoding="utf-8", errors="backslashreplace")
        provenance.write_sidecar(temporary, provenance.stamp("compare", run=zoo.folder.name))
    log.info("wrote %s", out)
    return out


# ---- what a network costs --------------------------------------------------------------------------------------------
def _cost(zoo: Zoo, task: str, label: str) -> Cost:
    from pipeline.bundle.export import flops_of
    from pipeline.bundle.runtime import Predictor

    predictor = Predictor.load(zoo.bundle(task, label), threads=1)
    return Cost(
        mflop=flops_of(predictor.card) / 1e6,
        predicted_per_cpu_s=round(_predicted_per_cpu_s(predictor), 1),
        trained_per_cpu_s=predictor.card.training.images_per_cpu_s,
    )


def _predicted_per_cpu_s(predictor: "Predictor") -> float:
    """Images per second of CPU time: the best of a few runs, as other work on the machine only adds time."""
    from pipeline.tiles.shards import TileBatch

    section = predictor.card.input
    rng = np.random.default_rng(0)
    shape = (_TIMED_IMAGES, len(section.channels), *section.tile_shape)
    batch = TileBatch(
        images=rng.normal(0, 2, shape).astype(np.float16),
        events={name: np.ones(_TIMED_IMAGES) for name in section.preparation.columns},
        group=np.arange(_TIMED_IMAGES),
    )
    predictor.outputs(batch.select(slice(0, 32)))  # the first call also makes room
    times = []
    for _ in range(_TIMED_REPEATS):
        started = time.process_time()
        predictor.outputs(batch)
        times.append(time.process_time() - started)
    return _TIMED_IMAGES / max(min(times), 1e-9)


# ---- figures ---------------------------------------------------------------------------------------------------------
def _picture(zoo: Zoo, task: str, rows: Sequence[Mapping[str, Any]]) -> Picture:
    from pipeline.figures.style import PIXELS_PER_INCH
    from pipeline.figures.zoo import ZooPoint, zoo_figure

    name = get_spec(task).headline[0]
    text = metric_text(name)
    scale = 100.0 if text.percent else 1.0
    points = [
        ZooPoint(
            label=row["label"],
            value=_estimate(row["metrics"][name], scale),
            others=[scale * value for value in row["by_seed"][name][1:] if value is not None],
            mflop=row["mflop"],
            predicted_per_cpu_s=row["predicted_per_cpu_s"],
        )
        for row in rows
    ]
    forest = _estimate(forest_of(zoo, task)[name], scale)
    label = f"{text.label} [%]" if text.percent else text.label
    stream = io.BytesIO()
    figure = zoo_figure(points, forest, label, rows[0]["metrics"][name]["better"])
    figure.savefig(stream, dpi=PIXELS_PER_INCH, metadata={"Software": None})
    caption = (
        "Left: each network with its 95 % interval over showers; bars are trainings with other seeds. Middle and "
        "right: the same against the cost of a prediction; the three best on the test split are named. The line with "
        "its band is the forest."
    )
    return picture(stream.getvalue(), f"{text.label[0].upper()}{text.label[1:]} of the networks", caption)


def _estimate(entry: Mapping[str, float | None], scale: float) -> Estimate:
    return Estimate(*(np.nan if entry[part] is None else scale * entry[part] for part in ("value", "low", "high")))
