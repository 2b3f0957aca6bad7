"""Stage `predict`: trained models on whole files or single images. No torch; ctapipe only to read simtel."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pipeline.bundle.backends import facts_of
from pipeline.bundle.runtime import Predictor
from pipeline.config import Config
from pipeline.errors import OutputError, UserError
from pipeline.files import reserved
from pipeline.logs import get_logger
from pipeline.records import RecordSink, record_sink
from pipeline.stages import products
from pipeline.stages.inputs import names_file, write_statuses
from pipeline.stages.prediction_plan import Job, Settings, appending, plan
from pipeline.stages.shelf import Models
from pipeline.text_tables import terminal_columns
from pipeline.workers import in_order

if TYPE_CHECKING:
    from pipeline.camera.dl1 import DL1File
    from pipeline.camera.event_predictions import EventPredictions
    from pipeline.camera.predictions import CameraModel, ImagePredictions
    from pipeline.sky.frames import Strip
    from pipeline.sky.summary import Summary
    from pipeline.stages.pictures import Picture

log = get_logger(__name__)

#: Sections of the configuration that decide predictions from each wing's files.
READS_CAMERA, READS_SKY = products.READS_CAMERA, products.READS_SKY


def predict(
    cfg: Config,
    files: Sequence[Path],
    bundles: Sequence[str | Path] = (),
    out: Path | None = None,
    *,
    event: int | None = None,
    telescope: int | None = None,
    as_json: bool = False,
    force: bool = False,
    stream: TextIO | None = None,
    jobs: int = 1,
    picture: "Picture | None" = None,
    names: Mapping[Path, str] | None = None,
    append: Path | None = None,
) -> list[dict[str, Any]]:
    """Apply every bundle to every file of its kind.

    Parameters
    ----------
    cfg : Config
        `threads`, `backend`, `ingest` and `predict` are used.
    files : sequence of path
        simtel, DL1 (also with DL2 in it) and FITS, in any mixture.
    bundles : sequence of str or path
        Directories, or names of bundles that ship. By default, those that ship and serve a file, see
        `pipeline.stages.shelf`.
    out : path, optional
        A file for one input (DL2 HDF5 or FITS), else a directory: NAME.dl2.h5, NAME.fits and status.json.
    event, telescope : int, optional
        Only images of this event and telescope (camera files).
    as_json : bool
        Write one JSON object per image to `stream`; without, and without `out`, a table.
    force : bool
        Replace outputs that exist.
    stream : text stream, optional
        Where records go; nothing is written without.
    jobs : int
        Files processed in parallel, each in its own process with `cfg.threads` threads; only where
        no records are written.
    picture : Picture, optional
        Draws the one event or frame that is predicted (`pipeline.stages.pictures`).
    names : mapping, optional
        What messages call a file, instead of its path (`pipeline.stages.pipes`).
    append : path, optional
        A DL2 file of the events of one file, which the predictions are added to.

    Returns
    -------
    list of dict
        One per file: ``file``, ``status`` ("ok" or "failed"), ``reason``, ``kind``, ``output``, counts. A file that
        cannot be used is logged as an error and does not stop the others.

    Raises
    ------
    UserError
        Before any work: a bundle that is not there, an output that exists.
    """
    if cfg.device not in ("auto", "cpu"):
        log.warning("predict does not use the device %s: what computes it is the backend", cfg.device)
    settings = Settings(cfg, tuple(bundles), event, telescope, force)
    models = settings.load_models()
    todo = plan(files, out, settings, models) if append is None else [appending(files, append, out, settings)]
    if picture is not None:
        _check_one(todo, event)
    has_output = out is not None or append is not None
    sink = record_sink(stream if as_json or not has_output else None, as_json=as_json)
    if min(jobs, len(todo)) > 1 and not sink.wanted:
        done = _side_by_side(todo, settings, min(jobs, len(todo)))
    else:
        done = (_predict_one(job, settings, models, sink, picture) for job in todo)
    statuses = []
    for status in done:
        status = _renamed(status, names or {})
        _log_status(status)
        statuses.append(status)
    if out is not None and not names_file(out):
        write_statuses(out, statuses)
    return statuses


def _renamed(status: dict[str, Any], names: Mapping[Path, str]) -> dict[str, Any]:
    for path, name in names.items():
        status = {k: text.replace(str(path), name) if isinstance(text, str) else text for k, text in status.items()}
    return status


def _log_status(status: Mapping[str, Any]) -> None:
    if status["status"] == "failed":
        log.error("%s", status["reason"])
    elif "output" in status:
        name, out = Path(status["file"]).name, status["output"]
        left_out = ", ".join(f"{count} left out: {reason}" for reason, count in status["left_out"].items())
        reasons = f" ({left_out})" if left_out else ""
        done = []
        if "n_events" in status:
            done.append(
                f"{status['n_valid_events']} of {status['n_events']} events "
                f"({status['n_by_mono']} with one usable image, by the network for single images)"
            )
        if status["n_valid"] or not done:  # networks of events say nothing of single images
            done.insert(0, f"{status['n_valid']} of {status['n_images']} images")
        log.info("%s: predicted %s%s, written to %s", name, ", ".join(done), reasons, out)
    for text in status.get("warnings", ()):
        log.warning("%s: %s", Path(status["file"]).name, text)


def _check_one(todo: "Sequence[Job]", event: int | None) -> None:
    """Refuse to draw more than one thing."""
    if len(todo) > 1:
        raise UserError(f"--plot draws one event or one frame, got {len(todo)} files; give one")
    if todo[0].wing == "camera" and event is None:
        raise UserError("--plot draws one event; choose it with --event ID, and --telescope ID for a single image")


def _predict_one(
    job: "Job", settings: "Settings", models: "Models", sink: RecordSink, picture: "Picture | None" = None
) -> dict[str, Any]:
    """One file and its status."""
    status: dict[str, Any] = {"file": str(job.path), "status": "ok", "kind": job.kind}
    try:
        if job.problem is not None:
            raise job.problem
        work = _predict_frame if job.wing == "sky" else _predict_events
        return status | work(job, settings, models, sink, picture)
    except OutputError:
        raise  # no fault of this input, and the next ones would meet it, too
    except UserError as error:
        return status | {"status": "failed", "reason": str(error)}


def _side_by_side(todo: "Sequence[Job]", settings: "Settings", n_processes: int) -> Iterator[dict[str, Any]]:
    """Statuses in the order of the files."""
    return in_order(_worker, (settings,), todo, n_processes)


def _worker(settings: "Settings") -> Callable[["Job"], dict[str, Any]]:
    """Predict files one by one; a process loads the models once."""
    models, nowhere = settings.load_models(), record_sink(None, as_json=False)
    return lambda job: _predict_one(job, settings, models, nowhere)


# ---- camera ----------------------------------------------------------------------------------------------------------
def _predict_events(
    job: Job, settings: Settings, models: Models, sink: RecordSink, picture: "Picture | None"
) -> dict[str, Any]:
    if not models.camera and models.shelf is None:
        raise UserError(f"{job.path} holds camera images, but none of the bundles takes these: {models.named()}")

    from pipeline.camera.prediction_records import records_of
    from pipeline.camera.prediction_tables import rows_of

    opened: list[DL1File] = []
    chosen: list[CameraModel] = []
    drawn: list[ImagePredictions | EventPredictions] = []

    def choose(file: "DL1File") -> "list[CameraModel]":
        opened.append(file)
        chosen.extend(models.for_events(file, job.path, settings.event, settings.telescope))
        if picture is not None and settings.event is not None:
            picture.read_event(file, settings.event, settings.telescope)
        return chosen

    def write_records(predictions: "ImagePredictions | EventPredictions") -> None:
        if picture is not None:
            drawn.append(predictions)
        if sink.for_people:
            records = rows_of(predictions, chosen, opened[0])
        else:
            records = records_of(job.path.name, predictions, chosen) if sink.wanted else ()
        for record in records:
            sink.write(record)

    sink.say(job.path.name)
    result = products.predict_events(
        job.path,
        job.kind,
        choose,
        settings.cfg,
        write_records,
        event=settings.event,
        telescope=settings.telescope,
        out=job.out,
        force=job.replaces,
        append=job.appends,
    )
    if picture is not None:
        picture.of_event(job.path.name, chosen, drawn)
    sink.end_of_file()
    return result


# ---- sky -------------------------------------------------------------------------------------------------------------
def _predict_frame(
    job: Job, settings: Settings, models: Models, sink: RecordSink, picture: "Picture | None"
) -> dict[str, Any]:
    if not models.sky and models.shelf is None:
        raise UserError(f"{job.path} is a FITS frame, but none of the bundles takes these: {models.named()}")
    if len(models.sky) > 1 and job.out is not None:
        names = ", ".join(predictor.card.name for predictor in models.sky)
        raise UserError(f"only one bundle can be applied to a frame, got {names}; apply them one by one")
    if settings.selects:
        raise UserError(f"{job.path} is a FITS frame; --event and --telescope select camera images only")
    with reserved(job.out, force=job.replaces) if job.out is not None else nullcontext():
        return _restore_frames(job, settings, models.for_frames(job.path), sink, picture)


def _restore_frames(
    job: Job, settings: Settings, models: Sequence[Predictor], sink: RecordSink, picture: "Picture | None"
) -> dict[str, Any]:
    from pipeline.sky.frames import open_frames
    from pipeline.sky.restore import Restoration
    from pipeline.sky.summary import Summary, record_of
    from pipeline.sky.summary_lines import summary_lines

    started = time.monotonic()
    cfg = settings.cfg
    how = cfg.predict.tile_px, cfg.predict.overlap_px, cfg.predict.outside_range, cfg.predict.bayer
    with open_frames(job.path, cfg.ingest.sky) as frames:
        for note in dict.fromkeys(note for frame in frames for note in frame.notes):
            log.debug("%s: %s", job.path.name, note)
        restorations = [Restoration.of(frame, model, *how) for model in models for frame in frames]
        for model in models:
            if model.population is None:
                log.info("%s does not say what its training frames were like: none is compared", model.card.name)
        is_watched = sink.wanted or picture is not None
        summaries = [Summary(restoration) if is_watched else None for restoration in restorations]
        watches = [_watched(summary, picture) for summary in summaries]
        if job.out is not None:
            new_frames = [r.product(watched) for r, watched in zip(restorations, watches, strict=True)]
            card, backend = models[0].card, facts_of(models[0].backend)
            products.write_frames(
                job.path, job.out, new_frames, card, backend, cfg, started=started, force=job.replaces
            )
        for restoration, summary, watched in zip(restorations, summaries, watches, strict=True):
            if summary is None or watched is None:
                continue
            if job.out is None:
                for _ in watched():
                    pass
            if sink.for_people:
                for line in (job.path.name, *summary_lines(restoration, summary, terminal_columns())):
                    sink.say(line)
            elif sink.wanted:
                sink.write(record_of(job.path.name, restoration, summary))
        if picture is not None and summaries[0] is not None:
            picture.of_frame(restorations[0], job.path.name, summaries[0].numbers())
            if len(restorations) > 1:
                log.info("%s: the first of %d results is drawn", job.path.name, len(restorations))
    sink.end_of_file()
    status: dict[str, Any] = {"n_images": len(frames), "n_valid": len(frames), "left_out": {}}
    if warnings := dict.fromkeys(text for restoration in restorations for text in restoration.warnings):
        status["warnings"] = list(warnings)
    if job.out is not None:
        status["output"] = str(job.out)
    return status


def _watched(summary: "Summary | None", picture: "Picture | None") -> "Callable[[], Iterator[Strip]] | None":
    """Strips of a restoration that are looked at on their way; None if nobody does."""
    if summary is None:
        return None
    if picture is None:
        return summary.watched
    return lambda: picture.watched(summary.frame, summary.watched())
