"""Stage `tiles`: ingested event files and frames to training tiles, one shard per input."""

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import provenance
from pipeline.config import Config, sections_of
from pipeline.errors import InputFileError, OutputError, UserError
from pipeline.files import atomic_output, source_name
from pipeline.filetypes import file_kind
from pipeline.logs import get_logger
from pipeline.stages.inputs import failed, is_of_a_stopped_run, kind_of, planned_outputs, write_statuses

if TYPE_CHECKING:
    from pipeline.camera.dl1 import DL1File, ImageChunk

log = get_logger(__name__)

#: Sections of the configuration that decide the tiles of each wing.
READS_CAMERA = ("ingest.camera.event_types", "tiles.camera", "tiles.splits", "seed")
READS_SKY = ("tiles.sky", "tiles.splits", "seed")


def make_tiles(
    files: Sequence[str | Path], cfg: Config, out: str | Path, *, force: bool = False, keep_going: bool = False
) -> list[dict[str, Any]]:
    """Write NAME.tiles.h5 for every file; an input without any accepted image gives a valid, empty shard.

    A file that cannot be used is logged as an error and does not stop the others. Of several files, status.json says
    what became of each; runs on one file may share a folder, and write none.

    Parameters
    ----------
    files : sequence of path
        DL1 HDF5 (camera) and calibrated FITS (sky). With ``tiles.sky.target: noise2noise`` the frames are paired with
        each other.
    cfg : Config
    out : path
        Directory; made if missing.
    force : bool
        Replace shards that exist.
    keep_going : bool
        Whether failures are accepted: then status.json is written for one file, too.

    Returns
    -------
    list of dict
        For each file: ``file``, ``status`` ("ok" or "failed"), ``kind``, ``output``, ``reason`` and counts.
        status.json has the same by file name.

    Raises
    ------
    UserError
        If two inputs have the same name, or an output exists and `force` is false.
    """
    out = Path(out)
    paths = [Path(path) for path in files]
    stopped = _left_by_a_stopped_run({path: out / f"{source_name(path)}.tiles.h5" for path in paths}, cfg)
    targets = planned_outputs(paths, out, ".tiles.h5", force=force, leftovers=stopped)
    statuses: dict[Path, dict[str, Any]] = {}
    frames = []
    for path in paths:
        try:
            kind = file_kind(path)
            if kind == "fits":
                frames.append(path)
            elif kind in ("dl1", "dl2"):
                made = tile_events(path, targets[path], cfg, force=force or targets[path] in stopped)
                statuses[path] = {"kind": "camera"} | made
            else:
                raise InputFileError(
                    f"{path} is {kind}, not DL1 or a calibrated frame; run lightpool ingest on it first"
                )
        except OutputError:
            raise  # no fault of this input, and the next ones would meet it, too
        except UserError as error:
            statuses[path] = failed(path, error)
    statuses |= _tile_frames(frames, targets, out, cfg, force=force or bool(stopped))
    done = [{"file": str(path), "status": "ok"} | statuses[path] for path in paths]
    if keep_going or len(paths) > 1:
        write_statuses(out, done)
    return done


def _left_by_a_stopped_run(targets: Mapping[Path, Path], cfg: Config) -> set[Path]:
    """Shards of an equal run on several files that did not come to its end: one is missing, or none was spoken of."""
    there = {path: target for path, target in targets.items() if os.path.exists(target)}
    if not there or len(targets) == 1:  # one shard is whole, if it is there, and has no status.json
        return set()
    is_of_it = provenance.is_made_by if len(there) < len(targets) else is_of_a_stopped_run
    kinds = {path: kind for path in targets if not isinstance(kind := kind_of(path), InputFileError)}
    frames = [path for path, kind in kinds.items() if kind == "fits"]
    return {target for path, target in there.items() if path in kinds and is_of_it(target, _facts(path, frames, cfg))}


def _facts(path: Path, frames: Sequence[Path], cfg: Config) -> dict[str, Any]:
    """What the provenance of a shard says if it is made now."""
    if path not in frames:
        config = sections_of(cfg, READS_CAMERA)
        return provenance.stamp("tiles", config=config, input=path.name, input_sha256=provenance.sha256_file(path))
    from pipeline.sky.tiling import stamp_of

    if cfg.tiles.sky.target == "noise2noise":
        return stamp_of(path, cfg, field=[frame.name for frame in frames])
    return stamp_of(path, cfg, input_sha256=provenance.sha256_file(path))


def tile_events(path: Path, out: Path, cfg: Config, *, force: bool = False) -> dict[str, Any]:
    """Tiles of one DL1 file: counts of accepted and rejected images, by reason."""
    from pipeline.camera.dl1 import DL1File
    from pipeline.camera.tiling import (
        WITHOUT_TRUTH,
        channels_of,
        chosen_cameras,
        shard_attributes,
        shard_columns,
        target_types,
        tile_file,
    )
    from pipeline.inputs.shower_frame import recipe_of
    from pipeline.tiles.shards import ShardWriter

    started = time.monotonic()
    recipe = recipe_of(cfg.tiles.camera)
    rejected: Counter[str] = Counter()
    with DL1File(path, cfg.ingest.camera.event_types) as file:
        warnings = file.check() + (file.unknown_pointings() if file.has_truth else [])
        cameras = chosen_cameras(file, cfg.tiles.camera.camera)
        other = sum(file.n_images_of(t) for t in file.tel_ids if file.telescopes[t].identity not in cameras)
        stamped = provenance.stamp(
            "tiles",
            config=sections_of(cfg, READS_CAMERA),
            warnings=warnings,
            input=path.name,
            input_sha256=provenance.sha256_file(path),
        )
        with atomic_output(out, force=force) as temporary:
            with ShardWriter(
                temporary,
                channels=channels_of(recipe),
                tile_shape=(recipe.size_px, recipe.size_px),
                source=file.source,
                wing="camera",
                attributes=shard_attributes(file, recipe, cameras) | _noise_attribute(cfg) | {"provenance": stamped},
                columns=shard_columns(truth=file.has_truth),
                targets=target_types((recipe.size_px, recipe.size_px), truth=file.has_truth),
            ) as writer:
                for batch, left_out in tile_file(file, recipe, cameras, _noise(file, cfg)):
                    batch.split = _splits(file.source, file.obs_ids, batch.events, cfg)
                    writer.append(batch)
                    rejected.update(left_out)
                n_images, n_tiles = file.n_images, writer.n_tiles
                if n_lost := rejected.get(WITHOUT_TRUTH):
                    left_out_too = [f"{n_lost} of {n_images} images are left out: {WITHOUT_TRUTH}"]
                    writer.add_warnings(left_out_too)
                    warnings += left_out_too
            if other:
                rejected["other camera"] = other
            if n_images != n_tiles + rejected.total():
                raise RuntimeError(f"{path}: {n_images} images, but {n_tiles} tiles and {rejected.total()} rejected")
            counts = {"n_images": n_images, "n_tiles": n_tiles, "rejected": dict(rejected)}
            if warnings:
                counts["warnings"] = warnings
            provenance.write_sidecar(temporary, stamped, **counts, wall_time_s=round(time.monotonic() - started, 2))
    for text in warnings:
        log.warning("%s: %s", path.name, text)
    log.info("%s: %d of %d images on tiles (%s)", path.name, n_tiles, n_images, _listed(rejected))
    return {"output": str(out), "cameras": cameras} | counts


def _noise_attribute(cfg: Config) -> dict[str, Any]:
    """What a shard says of the noise in its images; nothing if there is none."""
    noise = cfg.tiles.camera.noise
    return {"noise": noise.model_dump(mode="json")} if noise else {}


def _noise(file: "DL1File", cfg: Config) -> "Callable[[ImageChunk], ImageChunk] | None":
    """What adds noise to the images of the splits that get it; None if there is none."""
    noise = cfg.tiles.camera.noise
    if noise is None:
        return None
    from pipeline.camera.noise import add_noise
    from pipeline.tiles import SPLITS

    noisy = [SPLITS[name] for name in noise.splits]

    def alter(chunk: "ImageChunk") -> "ImageChunk":
        split = _splits(file.source, file.obs_ids, {"obs_id": chunk.obs_id, "shower_id": chunk.shower_id}, cfg)
        return add_noise(chunk, noise, cfg.seed, np.isin(split, noisy))

    return alter


def _splits(source: str, obs_ids: Sequence[int], events: dict[str, np.ndarray], cfg: Config) -> np.ndarray:
    """Split of each tile by its shower; in a merged file the run belongs to the name of the source."""
    from pipeline.tiles.splits import split_of

    split = np.zeros(len(events["shower_id"]), np.uint8)
    for obs_id in np.unique(events["obs_id"]).tolist():
        name = source if len(obs_ids) == 1 else f"{source}:{obs_id}"
        here = events["obs_id"] == obs_id
        split[here] = split_of(name, events["shower_id"][here], cfg.tiles.splits, cfg.seed)
    return split


def _listed(rejected: Counter[str]) -> str:
    return ", ".join(f"{count} rejected: {reason}" for reason, count in rejected.most_common()) or "none rejected"


def _tile_frames(
    frames: Sequence[Path], targets: dict[Path, Path], out: Path, cfg: Config, *, force: bool
) -> dict[Path, dict[str, Any]]:
    """Tiles of calibrated frames, one by one, or together if they are each other's targets."""
    if not frames:
        return {}
    from pipeline.sky.pairs import tile_pairs
    from pipeline.sky.single_frames import tile_single_frame
    from pipeline.sky.tiling import tile_frame

    if cfg.tiles.sky.target == "noise2noise":
        try:
            made = tile_pairs(frames, out, cfg, force=force)
        except OutputError:
            raise  # no fault of this input, and the next ones would meet it, too
        except UserError as error:
            return {path: {"kind": "sky"} | failed(path, error) for path in frames}
        return {path: {"kind": "sky", "output": str(shard)} for path, shard in zip(frames, made, strict=True)}
    statuses: dict[Path, dict[str, Any]] = {}
    make = tile_single_frame if cfg.tiles.sky.target == "noise2void" else tile_frame
    for path in frames:
        status = {"kind": "sky", "output": str(targets[path])}
        try:
            statuses[path] = status | make(path, targets[path], cfg, force=force)
        except OutputError:
            raise  # no fault of this input, and the next ones would meet it, too
        except UserError as error:
            statuses[path] = {"kind": "sky"} | failed(path, error)
    return statuses
