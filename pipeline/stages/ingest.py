"""Stage `ingest`: event files of any origin to DL1 HDF5, FITS frames to calibrated FITS."""

import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import provenance
from pipeline.config import Config
from pipeline.errors import InputFileError, OutputError, UserError
from pipeline.files import atomic_output, source_name
from pipeline.filetypes import Kind
from pipeline.logs import get_logger
from pipeline.stages.inputs import check_names, failed, is_of_a_stopped_run, kind_of, planned_outputs, write_statuses
from pipeline.workers import in_order

log = get_logger(__name__)

#: Sections of the configuration that decide what is read from each wing's files.
READS_CAMERA = ("ingest.camera",)
READS_SKY = ("ingest.sky",)

_REFUSED: dict[str, str] = {
    "corsika": "holds photon bunches of CORSIKA, not camera images; run sim_telarray on it first",
    "dl2": "is DL2 without camera images; give the DL1 file that it was made from",
    "hdf5": "is HDF5 without camera images in ctapipe's or lstchain's layout; tables of parameters cannot be used",
    "tiles": "is a tile shard already; give it to lightpool manifest",
    "manifest": "is a manifest of tile shards; give it to lightpool train",
    "bundle": "is a trained model; give it to lightpool predict with --bundle",
}


def ingest(
    files: Sequence[str | Path], cfg: Config, out: str | Path, *, force: bool = False, jobs: int = 1
) -> list[dict[str, Any]]:
    """Write NAME.dl1.h5 or NAME.fits for every file, and status.json about all of them.

    The type of a file is read from its content. A file that cannot be used is logged as an error and does not stop the
    others; a truncated one gives its complete events.

    Parameters
    ----------
    files : sequence of path
        simtel (.simtel, .gz, .zst), DL1 (also with DL2 in it), lstchain DL1, FITS, in any mixture.
    cfg : Config
        `ingest` is used.
    out : path
        Directory; made if missing.
    force : bool
        Replace products that exist.
    jobs : int
        Number of processes; products and status are the same for any, except for the times.

    Returns
    -------
    list of dict
        For each file: ``file``, ``status`` ("ok" or "failed"), ``kind``, ``output``, ``reason``, counts and ``notes``.
        status.json has the same by file name.

    Raises
    ------
    UserError
        If two inputs have the same name, an output exists and `force` is false, or a process was killed.
    """
    out = Path(out)
    paths = [Path(path) for path in files]
    kinds: dict[Path, Kind | InputFileError] = {path: kind_of(path) for path in paths}
    frames = [path for path in paths if kinds[path] == "fits"]
    events = [path for path in paths if kinds[path] != "fits"]
    check_names(paths)
    stopped = {target for path in paths if (target := _left_by_a_stopped_run(path, kinds[path], out, cfg)) is not None}
    targets = planned_outputs(frames, out, _suffix("fits"), force=force, leftovers=stopped)
    targets |= planned_outputs(events, out, _suffix("dl1"), force=force, leftovers=stopped)
    plan = ((path, kinds[path], targets[path], force or targets[path] in stopped) for path in paths)
    statuses = list(in_order(partial, (_status_of, cfg), plan, max(1, min(jobs, len(paths)))))
    write_statuses(out, statuses)
    return statuses


def _suffix(kind: Kind | InputFileError) -> str:
    return ".fits" if kind == "fits" else ".dl1.h5"


def _left_by_a_stopped_run(path: Path, kind: Kind | InputFileError, out: Path, cfg: Config) -> Path | None:
    """The product of a file, if an equal run that did not end has left it."""
    target = out / (source_name(path) + _suffix(kind))
    if isinstance(kind, InputFileError) or not target.exists():
        return None
    section = {"simtel": cfg.ingest.camera, "fits": cfg.ingest.sky}.get(kind)
    facts = provenance.stamp(
        "ingest",
        config=None if section is None else section.model_dump(mode="json"),
        input=path.name,
        input_sha256=provenance.sha256_file(path),
    )
    return target if is_of_a_stopped_run(target, facts) else None


def _status_of(cfg: Config, planned: tuple[Path, Kind | InputFileError, Path, bool]) -> dict[str, Any]:
    path, kind, target, force = planned
    status: dict[str, Any] = {"file": str(path), "status": "ok"}
    try:
        return status | _ingest_one(path, kind, target, cfg, force)
    except OutputError:
        raise  # no fault of this input, and the next ones would meet it, too
    except UserError as error:
        return status | failed(path, error)


def _ingest_one(path: Path, kind: Kind | InputFileError, target: Path, cfg: Config, force: bool) -> dict[str, Any]:
    if isinstance(kind, InputFileError):
        raise kind
    if kind not in _INGEST:
        raise InputFileError(f"{path} {_REFUSED[kind]}")
    started = time.monotonic()
    made = _INGEST[kind](path, target, cfg, force)
    wall_time_s = round(time.monotonic() - started, 2)
    log.info("%s: %s", path.name, ", ".join(f"{key} {value}" for key, value in made.items() if key.startswith("n_")))
    return {"kind": kind, "output": str(target), "wall_time_s": wall_time_s} | made


def _simtel(path: Path, target: Path, cfg: Config, force: bool) -> dict[str, Any]:
    from pipeline.camera.simtel import ingest_simtel

    return _said(path, ingest_simtel(path, target, cfg.ingest.camera, force=force))


def _said(path: Path, made: dict[str, Any]) -> dict[str, Any]:
    """Warnings and notes of a file on the screen."""
    for text in made.get("warnings", ()):
        log.warning("%s: %s", path.name, text)
    for text in made["notes"]:
        log.info("%s: %s", path.name, text)
    return made


def _lstchain(path: Path, target: Path, cfg: Config, force: bool) -> dict[str, Any]:
    from pipeline.camera.lstchain import convert

    return _said(path, convert(path, target, force=force))


def _dl1(path: Path, target: Path, cfg: Config, force: bool) -> dict[str, Any]:
    """A file that is already DL1, checked and copied unchanged.

    A copy and no link: a linked file has the time of the original, which is older than the program, and the workflow
    would remake it every time.
    """
    from pipeline.camera.dl1 import DL1File

    with DL1File(path) as file:
        counts = {"n_events": file.n_events, "n_images": file.n_images, "n_telescopes": len(file.telescopes)}
    if file.n_images == 0:
        raise InputFileError(f"{path} holds no images")
    with atomic_output(target, force=force) as temporary:
        shutil.copyfile(path, temporary)
        stamped = provenance.stamp("ingest", input=path.name, input_sha256=provenance.sha256_file(path))
        provenance.write_sidecar(temporary, stamped, **counts)
    return counts | {"notes": []}


def _fits(path: Path, target: Path, cfg: Config, force: bool) -> dict[str, Any]:
    from pipeline.sky.ingest import ingest_frame

    return ingest_frame(path, target, cfg.ingest.sky, force=force)


_INGEST: dict[str, Callable[[Path, Path, Config, bool], dict[str, Any]]] = {
    "simtel": _simtel,
    "lstchain": _lstchain,
    "dl1": _dl1,
    "fits": _fits,
}
