"""Trained models applied to one file: predictions for its images, written as DL2 or FITS.

`pipeline.stages.predict` applies this to many files, `lightpool` to one.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import provenance
from pipeline.bundle.backends import facts_of
from pipeline.config import Config, sections_of
from pipeline.errors import UserError
from pipeline.files import atomic_output
from pipeline.filetypes import Kind
from pipeline.stages.events import as_dl1

if TYPE_CHECKING:
    from astropy.io import fits

    from pipeline.bundle.card import Card
    from pipeline.camera.dl1 import DL1File
    from pipeline.camera.event_predictions import EventPredictions
    from pipeline.camera.predictions import CameraModel, ImagePredictions
    from pipeline.sky.frames import Product

#: Sections of the configuration that decide predictions from each wing's files.
READS_CAMERA = ("predict.batch_size", "ingest.camera", "backend")
READS_SKY = (
    "backend",
    "predict.tile_px",
    "predict.overlap_px",
    "predict.outside_range",
    "predict.bayer",
    "predict.only",
    "predict.fpr",
    "ingest.sky",
)


# ---- camera ----------------------------------------------------------------------------------------------------------
def predict_events(
    path: Path,
    kind: Kind,
    choose: "Callable[[DL1File], Sequence[CameraModel]]",
    cfg: Config,
    take: "Callable[[ImagePredictions | EventPredictions], None]",
    *,
    event: int | None = None,
    telescope: int | None = None,
    out: Path | None = None,
    force: bool = False,
    append: bool = False,
) -> dict[str, Any]:
    """Apply models to the images of one file.

    Parameters
    ----------
    path : path
    kind : {"simtel", "dl1", "lstchain"}
        What the file is.
    choose : callable
        Gives the models for the file, which is open.
    cfg : Config
        `ingest.camera` and `predict` are used.
    take : callable
        Called with the predictions of each chunk, in the order of the file, and with those for events at the end.
    event, telescope : int, optional
        Only images of these.
    out : path, optional
        DL2 file to write.
    force : bool
        Replace `out`.
    append : bool
        `out` is a DL2 file of the same events, which the predictions are added to.

    Returns
    -------
    dict
        ``n_images``, ``n_valid``, ``left_out`` (reason -> number of images, or of events for models of these),
        ``n_unlike`` where models say what their images of training were like (how many are unlike them),
        ``warnings`` if there are any and, if written, ``output``; with a model of whole events also ``n_events``,
        ``n_valid_events`` and ``n_by_mono``, the events that the network for single images answered.

    Raises
    ------
    UserError
        If the file cannot be used, the event or telescope is not in it, or `out` exists.
    """
    from pipeline.camera.dl1 import DL1File
    from pipeline.camera.event_predictions import EventPredictions, predict_file
    from pipeline.camera.likeness import FileLikeness

    started = time.monotonic()
    counts = {"n_images": 0, "n_valid": 0}
    likeness = FileLikeness()
    left_out: Counter[str] = Counter()
    with ExitStack() as stack:
        dl1_path = stack.enter_context(as_dl1(path, kind, cfg))
        file = stack.enter_context(DL1File(dl1_path, cfg.ingest.camera.event_types))
        models = choose(file)
        stamped = _provenance_of(file)
        warnings = _warnings_of(stamped)
        if event is None:
            warnings += file.check(None if telescope is None else [telescope])
        product = None
        if out is not None:
            if append:
                warnings += _check_same_events(out, dl1_path)
            facts = _facts_of(stamped) | {"warnings": warnings}
            product = stack.enter_context(
                _dl2_product(path, dl1_path, models, cfg, out, facts, started, force=force, append=append)
            )
        chunks = predict_file(
            file,
            models,
            tel_ids=None if telescope is None else [telescope],
            event_ids=None if event is None else [event],
            chunk_images=cfg.predict.batch_size,
        )
        for predictions in chunks:
            if isinstance(predictions, EventPredictions):
                counts |= _event_counts(predictions)
            else:
                counts["n_images"] += len(predictions)
                counts["n_valid"] += int(predictions.any_valid.sum())
                likeness.add(predictions.likeness)
            left_out.update(predictions.left_out())
            if product is not None:
                product.add(predictions)
            take(predictions)
        warnings += likeness.warnings()
        if likeness.n_images:
            counts["n_unlike"] = likeness.n_unlike
        if product is not None:
            product.count(counts, left_out, warnings)
    result: dict[str, Any] = {**counts, "left_out": dict(sorted(left_out.items()))}
    if warnings:
        result["warnings"] = warnings
    if product is not None:
        result["output"] = str(out)
    return result


def _check_same_events(out: Path, dl1_path: Path) -> list[str]:
    from pipeline.camera.dl2 import check_same_events

    return check_same_events(out, dl1_path)


def _event_counts(predictions: "EventPredictions") -> dict[str, int]:
    valid = predictions.any_valid
    return {
        "n_events": len(predictions),
        "n_valid_events": int(valid.sum()),
        "n_by_mono": int(predictions.by_mono.sum()),
    }


def _provenance_of(file: "DL1File") -> Mapping[str, Any]:
    """What the events' own provenance says; empty for a file that lightpool did not make."""
    try:
        found = json.loads(file.provenance)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _warnings_of(stamped: Mapping[str, Any]) -> list[str]:
    """What it warns of: a file that was cut when it was converted, for example."""
    found = stamped.get("warnings", [])
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []


def _facts_of(stamped: Mapping[str, Any]) -> dict[str, Any]:
    """How the images were cleaned for the image parameters, which go along: known of those that lightpool simulated."""
    config = stamped.get("config")
    cleaning = config.get("tiles.camera.cleaning") if isinstance(config, dict) else None
    return {} if cleaning is None else {"cleaning": cleaning}


class _DL2Product:
    """Predictions of one file on their way into DL2."""

    def __init__(self, writer: Any, stamp: dict[str, Any]) -> None:
        self._writer, self.stamp = writer, stamp

    def add(self, predictions: "ImagePredictions | EventPredictions") -> None:
        """Every image of a served camera whose trigger is in the file: events of DL2 are triggered ones."""
        from pipeline.camera.event_predictions import EventPredictions

        if isinstance(predictions, EventPredictions):
            self._writer.append_events(
                predictions.obs_id, predictions.event_id, predictions.tel_ids, predictions.used, predictions.values
            )
        elif predictions.served:
            rows = predictions.is_triggered
            self._writer.append(
                predictions.tel_id,
                predictions.obs_id[rows],
                predictions.event_id[rows],
                predictions.size_pe[rows],
                {p: {name: v[rows] for name, v in columns.items()} for p, columns in predictions.values.items()},
            )

    def count(self, counts: Mapping[str, int], left_out: Mapping[str, int], warnings: Sequence[str]) -> None:
        if warnings:
            self.stamp["warnings"] = list(warnings)
        self.stamp |= {**counts, "left_out": dict(sorted(left_out.items()))}
        self._writer.provenance = self.stamp


@contextmanager
def _dl2_product(
    path: Path,
    dl1_path: Path,
    models: "Sequence[CameraModel]",
    cfg: Config,
    out: Path,
    facts: Mapping[str, Any],
    started: float,
    *,
    force: bool,
    append: bool,
) -> Iterator[_DL2Product]:
    from pipeline.camera.dl2 import DL2Appender, DL2Writer, outputs_of

    heads = [(head, model.of_events) for model in models for head in model.heads]
    outputs = [o for head, of_events in heads for o in outputs_of(head.prefix, head.spec.columns, of_events=of_events)]
    if not outputs:
        names = ", ".join(head.spec.name for head, _ in heads)
        raise UserError(f"DL2 has no place for {names}; predict without --out, with --json for all values")
    stamp = provenance.stamp(
        "predict",
        config=sections_of(cfg, READS_CAMERA),
        **facts,
        input=path.name,
        input_sha256=provenance.sha256_file(path),
        bundles={model.name: model.predictor.card.bundle_sha256 for model in models},
        backends={model.name: facts_of(model.predictor.backend) for model in models},
    )
    writer_type, source = (DL2Appender, out) if append else (DL2Writer, dl1_path)
    with atomic_output(out, force=force or append) as temporary:
        earlier = {"added_to": provenance.record_of(out)} if append else {}
        with writer_type(temporary, source, outputs, provenance=stamp) as writer:
            product = _DL2Product(writer, stamp)
            yield product
        wall_time_s = round(time.monotonic() - started, 3)
        provenance.write_sidecar(temporary, product.stamp, wall_time_s=wall_time_s, **earlier)


# ---- sky -------------------------------------------------------------------------------------------------------------
def write_frames(
    source: "Path | fits.HDUList",
    out: Path,
    products: "Sequence[Product]",
    card: "Card",
    backend: Mapping[str, str],
    cfg: Config,
    *,
    started: float,
    force: bool = False,
) -> None:
    """Write the restored frames of one file as FITS, and the provenance next to it.

    Parameters
    ----------
    source : path or HDUList
        What the frames were read from.
    out : path
    products : sequence of Product
        Their pixels may be computed while they are written.
    card : Card
        Of the model.
    backend : mapping
        What computed it, `pipeline.bundle.backends.facts_of`.
    cfg : Config
        As the frames were read and restored.
    started : float
        `time.monotonic` at the beginning of the work.
    force : bool
        Replace `out`.

    Raises
    ------
    UserError
        If `out` exists.
    """
    from pipeline.sky.frames import write_products

    history = [
        f"lightpool {provenance.stamp('predict')['version']}: {', '.join(card.tasks)} by {card.name}",
        f"bundle sha256 {card.bundle_sha256}",
        f"tiles of {cfg.predict.tile_px} px, overlap {cfg.predict.overlap_px} px",
        "computed by {name} {version} in {precision}".format(**backend),
    ]
    warnings = [text for product in products for text in product.warnings]
    facts: dict[str, Any] = {"input": "image in memory"}
    if isinstance(source, Path):
        facts = {"input": source.name, "input_sha256": provenance.sha256_file(source)}
    stamp = provenance.stamp(
        "predict",
        config=sections_of(cfg, READS_SKY),
        warnings=warnings,
        **facts,
        bundles={card.name: card.bundle_sha256},
        backends={card.name: dict(backend)},
    )
    with atomic_output(out, force=force) as temporary:
        write_products(source, temporary, products, history)
        provenance.write_sidecar(temporary, stamp, wall_time_s=round(time.monotonic() - started, 3))
