"""From sky frames to training tiles: simulated frames and their truth; and what `pairs` shares with it.

Tiles have the channels `sci` and `err`, NaN where a pixel is missing, and DQ bits as masks. Targets: `clean`, shape
(N, 1, H, W), in the unit and with the zero point of `sci`; NaN where it must not be used. Of simulated frames also
`defect_snr` and `defect_bits`, see `pipeline.sky.truth.Truth`, and `stars`, (N, 2, H, W): the flux of the stars whose
centre is in the pixel, and their FWHM [px], 0 elsewhere; for exposure pairs `clean_err`, the partner's uncertainty; for
single frames `clean_err` and `role`, see `pipeline.sky.single_frames`.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import provenance
from pipeline.config import Config, SkyTilesConfig
from pipeline.errors import InputFileError
from pipeline.files import atomic_output, check_free, source_name
from pipeline.sky import cards
from pipeline.sky.dq import DQ, DQ_DTYPE, has
from pipeline.sky.frame_statistics import measure
from pipeline.sky.frames import Frame, read_frame
from pipeline.sky.truth import Truth, read_truth, truth_path
from pipeline.tasks import get_targets, specs_of
from pipeline.tiles.shards import Channel, ShardWriter, TileBatch
from pipeline.tiles.splits import SPLITS, split_of

#: Targets of the sky itself, a plane each; those of tasks come besides.
SKY_TARGETS = ("clean", "defect_snr", "defect_bits")
# What float16 holds, with room to spare: nobody asks by how much a track is brighter than that.
_LARGEST_SNR = 60_000.0


def tile_positions(length: int, size: int, stride: int) -> np.ndarray:
    """First pixels of the tiles along one axis; the last tile ends at the edge, overlapping if it must."""
    if length < size:
        return np.empty(0, int)
    starts = np.arange(0, length - size + 1, stride)
    return starts if starts[-1] + size == length else np.append(starts, length - size)


def tile_frame(path: str | Path, out: str | Path, cfg: Config, force: bool = False) -> dict[str, Any]:
    """Cut a simulated, ingested frame and its truth into one shard. All its tiles are in one split.

    Parameters
    ----------
    path : path
        Ingested frame; its truth is the file that its card LPTRUTH names, or ``NAME.truth.fits``, beside it.
    out : path
        Shard to make.
    cfg : Config
        Sections `tiles.sky` and `tiles.splits`, and the seed of the splits.

    Returns
    -------
    dict
        `n_tiles` and `split`.

    Raises
    ------
    InputFileError
        If the truth is missing or belongs to another frame.
    """
    path, out = Path(path), check_free(out, force=force)
    frame = read_frame(path)
    truth = _truth_of(frame)
    sky = cfg.tiles.sky
    source = source_name(path)
    split = split_of(source, np.zeros(1, int), cfg.tiles.splits, cfg.seed)[0]
    columns = {
        "field": field_number(source),
        "frame": int(frame.header.get("RUN", 0)),
        "level": np.float64(frame.level),
        "noise": np.float64(frame.noise),
    }
    attributes = shard_attributes(frame, sky) | {
        "target": "truth",
        "stars": {name: [round(float(v), 4) for v in values] for name, values in truth.stars.items()},
        "truth": truth.parameters,
    }
    stamped = stamp_of(path, cfg, input_sha256=provenance.sha256_file(path))
    attributes["provenance"] = stamped
    with atomic_output(out, force=force) as temporary:
        with shard_writer(temporary, sky, frame, source, attributes, target="truth") as writer:
            for row in _rows(frame, truth, sky, columns, split):
                writer.append(row)
        provenance.write_sidecar(temporary, stamped)
    return {"n_tiles": writer.n_tiles, "split": _split_name(split)}


def stamp_of(path: Path, cfg: Config, **facts: Any) -> dict[str, Any]:
    """Provenance of the tiles of one frame that is equal for equal runs; `facts` say what else they are made of."""
    config = {"tiles": cfg.tiles.sky.model_dump(mode="json"), "splits": cfg.tiles.splits.model_dump(mode="json")}
    return provenance.stamp("tiles", config=config, seed=cfg.seed, input=path.name, **facts)


def untile(batch: TileBatch) -> dict[str, np.ndarray]:
    """Reassemble the tiles of one frame: `sci`, `err`, `dq`, and the targets of `SKY_TARGETS` that the tiles have.

    Parameters
    ----------
    batch : TileBatch
        All tiles of one frame, with the event columns x0 and y0.

    Returns
    -------
    dict of ndarray, shape (H, W)
        NaN where no tile is; of bits, missing.

    Raises
    ------
    ValueError
        If the tiles are of several frames.
    """
    keys = {(int(f), int(n)) for f, n in zip(batch.events["field"], batch.events["frame"], strict=True)}
    if len(keys) > 1:
        raise ValueError(f"untile takes the tiles of one frame, got those of {len(keys)}")
    x0, y0 = batch.events["x0"].astype(int), batch.events["y0"].astype(int)
    height, width = batch.images.shape[2:]
    shape = (int(y0.max()) + height, int(x0.max()) + width)
    planes = {"sci": batch.images[:, 0], "err": batch.images[:, 1]}
    planes |= {name: batch.targets[name][:, 0] for name in SKY_TARGETS if name in batch.targets}
    whole = {name: np.full(shape, np.nan, np.float32) for name in planes if planes[name].dtype.kind == "f"}
    whole |= {name: np.full(shape, DQ.MISSING, DQ_DTYPE) for name in planes if planes[name].dtype.kind != "f"}
    whole["dq"] = np.full(shape, DQ.MISSING, DQ_DTYPE)
    if batch.masks is not None:
        planes["dq"] = batch.masks
    for number, (x, y) in enumerate(zip(x0, y0, strict=True)):
        for name, tiles in planes.items():
            whole[name][y : y + height, x : x + width] = tiles[number]
    return whole


def _truth_of(frame: Frame) -> Truth:
    named = frame.header.get(cards.TRUTH.keyword)
    candidates = [truth_path(frame.path)] + ([frame.path.parent / named] if named else [])
    truth_file = next((path for path in candidates if path.is_file()), None)
    if truth_file is None:
        raise InputFileError(
            f"{frame.path} has no truth ({candidates[0].name} is not next to it); only simulated frames have one: "
            "for exposures of one drifting field set tiles.sky.target to noise2noise, for single frames to noise2void"
        )
    truth = read_truth(truth_file)
    if truth.clean_e.shape != frame.shape:
        raise InputFileError(f"{truth_file} has the shape {truth.clean_e.shape}, but {frame.path} {frame.shape}")
    if frame.unit != "electron":
        raise InputFileError(f"{frame.path} is in {frame.unit}, its truth in electron; ingest it with its gain")
    return truth


def field_number(source: str) -> int:
    """A number that distinguishes fields, from the source's name alone."""
    return int.from_bytes(hashlib.blake2b(source.encode(), digest_size=8).digest(), "big") >> 1


def _split_name(split: int) -> str:
    return next(name for name, value in SPLITS.items() if value == split)


def shard_attributes(frame: Frame, sky: SkyTilesConfig) -> dict[str, Any]:
    """Metadata of a shard: its frame and its tiles."""
    return {
        "recipe": {"version": 1, "size_px": sky.size, "stride_px": sky.stride},
        "unit": frame.unit,
        "frame": {
            "file": frame.path.name,
            "shape": list(frame.shape),
            "level": frame.level,
            "noise": frame.noise,
            "gain_e_per_adu": frame.gain_e_per_adu,
            "read_noise_e": frame.read_noise_e,
            "statistics": asdict(measure(frame)),
        },
    }


def shard_writer(
    path: Path, sky: SkyTilesConfig, frame: Frame, source: str, attributes: Mapping[str, Any], *, target: str
) -> ShardWriter:
    """A writer of tiles of `frame` and what `target` adds to them, a value of `tiles.sky.target`."""
    tile = (1, sky.size, sky.size)
    columns = {name: np.int64 for name in ("field", "frame")} | {name: np.int32 for name in ("x0", "y0")}
    columns |= {name: np.float64 for name in ("level", "noise")}
    targets = {"clean": (tile, np.float32)}
    if target == "noise2void":
        targets |= {"clean_err": (tile, np.float32), "role": (tile, np.uint8)}
    elif target == "noise2noise":
        columns |= {"partner": np.int64, "residual_shift_px": np.float32}
        targets |= {"clean_err": (tile, np.float32)}
    else:
        targets |= {"defect_snr": (tile, np.float16), "defect_bits": (tile, DQ_DTYPE)}
        targets |= {"stars": ((2, *tile[1:]), np.float32)}
        stored = [target for spec in specs_of("sky") for target in get_targets(spec.name).stored]
        targets |= {target.name: (target.shape((sky.size, sky.size)), np.float32) for target in stored}
    return ShardWriter(
        path,
        channels=[Channel("sci", frame.unit), Channel("err", frame.unit)],
        tile_shape=(sky.size, sky.size),
        dtype="float32",
        source=source,
        wing="sky",
        attributes=attributes,
        columns=columns,
        targets=targets,
        masks=True,
    )


def known_pixels(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """`sci` and `err` with NaN where the frame has no data."""
    missing = has(frame.dq, DQ.MISSING)
    return np.where(missing, np.nan, frame.sci), np.where(missing, np.nan, frame.err)


def tile_corners(frame: Frame, sky: SkyTilesConfig) -> tuple[np.ndarray, np.ndarray]:
    """First rows and columns of the tiles, within the exposed part."""
    rows, columns = frame.exposed
    first_row, first_column = rows.start or 0, columns.start or 0
    height, width = frame.sci[frame.exposed].shape
    return (
        tile_positions(height, sky.size, sky.stride) + first_row,
        tile_positions(width, sky.size, sky.stride) + first_column,
    )


def _rows(
    frame: Frame, truth: Truth, sky: SkyTilesConfig, columns: Mapping[str, Any], split: int
) -> Iterator[TileBatch]:
    """One batch per row of tiles."""
    sci, err = known_pixels(frame)
    dq = frame.dq | truth.dq
    snr = np.clip(truth.defect_snr, -_LARGEST_SNR, _LARGEST_SNR).astype(np.float16)
    stars = _star_planes(truth)
    ys, xs = tile_corners(frame, sky)
    for y in ys:
        parts = [(slice(y, y + sky.size), slice(x, x + sky.size)) for x in xs]
        if parts:
            batch = tile_batch(
                images=np.stack([[sci[p], err[p]] for p in parts]),
                masks=np.stack([dq[p] for p in parts]),
                targets={
                    "clean": np.stack([[truth.clean_e[p]] for p in parts]),
                    "defect_snr": np.stack([[snr[p]] for p in parts]),
                    "defect_bits": np.stack([[truth.defect_bits[p]] for p in parts]),
                    "stars": np.stack([stars[:, *p] for p in parts]),
                },
                events=dict(columns) | {"x0": xs.astype(np.int32), "y0": np.int32(y)},
                split=split,
            )
            for spec in specs_of("sky"):
                batch.targets |= get_targets(spec.name).of_truth(batch)
            yield batch


def _star_planes(truth: Truth) -> np.ndarray:
    """Flux and FWHM of the stars whose centre is in each pixel, shape (2, H, W), float32; 0 where there is none."""
    planes = np.zeros((2, *truth.clean_e.shape), np.float32)
    column, row = (np.rint(truth.stars[name]).astype(int) for name in ("x", "y"))
    inside = (column >= 0) & (column < planes.shape[2]) & (row >= 0) & (row < planes.shape[1])
    place = row[inside], column[inside]
    np.add.at(planes[0], place, truth.stars["flux_e"][inside])
    planes[1][place] = truth.parameters.get("PSFFWHM", 0.0)
    return planes


def tile_batch(
    images: np.ndarray,
    masks: np.ndarray,
    targets: dict[str, np.ndarray],
    events: Mapping[str, Any],
    split: int,
) -> TileBatch:
    """Tiles of one frame: scalar event values are those of all."""
    n = len(images)
    return TileBatch(
        images=images.astype(np.float32),
        events={name: np.broadcast_to(value, (n,)) for name, value in events.items()},
        group=np.zeros(n, np.int64),
        targets={n: t.astype(np.float32) if t.dtype == np.float64 else t for n, t in targets.items()},
        split=np.full(n, split, np.uint8),
        masks=masks,
    )
