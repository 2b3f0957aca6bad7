"""Sky frames to training tiles: against the truth (simulated frames), or against other exposures of one field.

Tiles have the channels `sci` and `err`, NaN where a pixel is missing, and DQ bits as masks. Targets: `clean`, shape
(N, 1, H, W), in the unit and with the zero point of `sci`; NaN where it must not be used. For exposure pairs also
`clean_err`, the partner's uncertainty.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import provenance
from pipeline.config import Config, SkyTilesConfig
from pipeline.errors import InputFileError, TooFewEventsError
from pipeline.files import atomic_output, check_free, source_name
from pipeline.sky import cards
from pipeline.sky.dq import DQ, DQ_DTYPE, UNUSABLE, flag, has
from pipeline.sky.frames import Frame, read_frame
from pipeline.sky.registration import (
    Placement,
    identity_placement,
    place,
    star_catalogue,
    static_hot_pixels,
)
from pipeline.sky.truth import Truth, read_truth, truth_path
from pipeline.tiles.shards import Channel, ShardWriter, TileBatch
from pipeline.tiles.splits import SPLITS, split_of

log = logging.getLogger(__name__)

#: Frames that are in memory at once while their common hot pixels are sought.
_HOT_PIXEL_FRAMES = 25
_CACHE_BYTES = 512 << 20


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
        If there is no truth, or it is not of this frame.
    """
    path, out = Path(path), check_free(out, force=force)
    frame = read_frame(path)
    truth = _truth_of(frame)
    sky = cfg.tiles.sky
    source = source_name(path)
    split = split_of(source, np.zeros(1, int), cfg.tiles.splits, cfg.seed)[0]
    columns = {
        "field": _field_number(source),
        "frame": int(frame.header.get("RUN", 0)),
        "level": np.float64(frame.level),
        "noise": np.float64(frame.noise),
    }
    attributes = _attributes(frame, sky) | {
        "target": "truth",
        "stars": {name: [round(float(v), 4) for v in values] for name, values in truth.stars.items()},
        "truth": truth.parameters,
    }
    stamped = provenance.stamp(
        "tiles",
        config={"tiles": sky.model_dump(mode="json"), "splits": cfg.tiles.splits.model_dump(mode="json")},
        seed=cfg.seed,
        input=path.name,
        input_sha256=provenance.sha256_file(path),
    )
    attributes["provenance"] = stamped
    with (
        atomic_output(out, force=force) as temporary,
        _writer(temporary, sky, frame, source, attributes, partner=False) as writer,
    ):
        for row in _rows(frame, truth, sky, columns, split):
            writer.append(row)
        n_tiles = writer.n_tiles
    provenance.write_sidecar(out, stamped)
    return {"n_tiles": n_tiles, "split": _split_name(split)}


def untile(batch: TileBatch) -> dict[str, np.ndarray]:
    """Put the tiles of one frame together again: `sci`, `err`, `dq`, and `clean` where there is a target.

    Parameters
    ----------
    batch : TileBatch
        All tiles of one frame, with the event columns x0 and y0.

    Returns
    -------
    dict of ndarray, shape (H, W)
        NaN (`dq`: missing) where no tile is.

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
    if "clean" in batch.targets:
        planes["clean"] = batch.targets["clean"][:, 0]
    whole = {name: np.full(shape, np.nan, np.float32) for name in planes}
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
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise InputFileError(
            f"{frame.path} has no truth ({candidates[0].name} is not beside it); only simulated frames have one: "
            "for exposures of one drifting field set tiles.sky.target to noise2noise"
        )
    truth = read_truth(found)
    if truth.clean_e.shape != frame.shape:
        raise InputFileError(f"{found} has the shape {truth.clean_e.shape}, but {frame.path} {frame.shape}")
    if frame.unit != "electron":
        raise InputFileError(f"{frame.path} is in {frame.unit}, its truth in electron; ingest it with its gain")
    return truth


def _field_number(source: str) -> int:
    """A number that tells fields apart, from the source's name alone."""
    return int.from_bytes(hashlib.blake2b(source.encode(), digest_size=8).digest(), "big") >> 1


def _split_name(split: int) -> str:
    return next(name for name, value in SPLITS.items() if value == split)


def _attributes(frame: Frame, sky: SkyTilesConfig) -> dict[str, Any]:
    return {
        "tile": sky.size,
        "stride": sky.stride,
        "unit": frame.unit,
        "frame": {
            "file": frame.path.name,
            "shape": list(frame.shape),
            "level": frame.level,
            "noise": frame.noise,
            "gain_e_per_adu": frame.gain_e_per_adu,
            "read_noise_e": frame.read_noise_e,
        },
    }


def _writer(
    path: Path, sky: SkyTilesConfig, frame: Frame, source: str, attributes: Mapping[str, Any], *, partner: bool
) -> ShardWriter:
    tile = (1, sky.size, sky.size)
    columns = {name: np.int64 for name in ("field", "frame")} | {name: np.int32 for name in ("x0", "y0")}
    columns |= {name: np.float64 for name in ("level", "noise")}
    targets = {"clean": (tile, np.float32)}
    if partner:
        columns |= {"partner": np.int64, "residual_shift_px": np.float32}
        targets |= {"clean_err": (tile, np.float32)}
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


def _known_pixels(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """`sci` and `err` with NaN where the frame says that there is nothing."""
    missing = has(frame.dq, DQ.MISSING)
    return np.where(missing, np.nan, frame.sci), np.where(missing, np.nan, frame.err)


def _grid(frame: Frame, sky: SkyTilesConfig) -> tuple[np.ndarray, np.ndarray]:
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
    sci, err = _known_pixels(frame)
    dq = frame.dq | truth.dq
    ys, xs = _grid(frame, sky)
    for y in ys:
        parts = [(slice(y, y + sky.size), slice(x, x + sky.size)) for x in xs]
        if parts:
            yield _batch(
                images=np.stack([[sci[p], err[p]] for p in parts]),
                masks=np.stack([dq[p] for p in parts]),
                targets={"clean": np.stack([[truth.clean_e[p]] for p in parts])},
                events=dict(columns) | {"x0": xs.astype(np.int32), "y0": np.int32(y)},
                split=split,
            )


def _batch(
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
        targets={name: target.astype(np.float32) for name, target in targets.items()},
        split=np.full(n, split, np.uint8),
        masks=masks,
    )


# ---- exposures of one field ------------------------------------------------------------------------------------------
def tile_pairs(paths: Sequence[str | Path], out_dir: str | Path, cfg: Config, force: bool = False) -> list[Path]:
    """Cut exposures of one drifting field into pairs of tiles that differ in noise only (Noise2Noise).

    Each frame has one shard, ``NAME.tiles.h5``, and belongs to one split (by hash of its name); its partners are
    frames of the same split, so that no frame is seen in training and in testing. A tile's partner is cut at the
    whole-pixel drift where the true one is within `pair_max_residual_shift_px` of it, scaled to the frame's star
    fluxes and brought to its background. The detector's static hot pixels are found first: they are flagged in the
    masks, and the partner's are NaN in the target.

    Parameters
    ----------
    paths : sequence of path
        Ingested frames of one detector and field.
    out_dir : path
    cfg : Config
        Sections `tiles.sky` and `tiles.splits`, and the seed of the splits.

    Returns
    -------
    list of path
        The shards, in the order of `paths`.

    Raises
    ------
    TooFewEventsError
        If there are not two frames of one split, or no two that fit.
    InputFileError
        If the frames are of different shapes or units.
    """
    paths = [Path(path) for path in paths]
    outs = [check_free(Path(out_dir) / f"{source_name(path)}.tiles.h5", force=force) for path in paths]
    field = _Field(paths, cfg)
    n_tiles = 0
    for number, out in enumerate(outs):
        n_tiles += field.write(number, out, force)
    if n_tiles == 0:
        raise TooFewEventsError(
            f"no two of the {len(paths)} frames are shifted by whole pixels within "
            f"{cfg.tiles.sky.pair_max_residual_shift_px} px and in one split; give more frames, or raise "
            "tiles.sky.pair_max_residual_shift_px"
        )
    return outs


class _Field:
    """Frames of one field, placed relative to their middle one; at most a cache of them is in memory."""

    def __init__(self, paths: Sequence[Path], cfg: Config) -> None:
        if len(paths) < 2:
            raise TooFewEventsError(f"noise2noise needs at least two exposures of one field, got {len(paths)}")
        self.paths, self.cfg, self.sky = list(paths), cfg, cfg.tiles.sky
        self.sources = [source_name(path) for path in paths]
        self.splits = [int(split_of(name, np.zeros(1, int), cfg.tiles.splits, cfg.seed)[0]) for name in self.sources]
        first = read_frame(paths[0])
        self.shape, self.unit = first.shape, first.unit
        frame_bytes = 10 * first.sci.size  # sci, err and dq
        self.frame = lru_cache(maxsize=max(2, int(_CACHE_BYTES // frame_bytes)))(self._read)
        self.hot = np.zeros(self.shape, bool)
        self.hot = self._find_hot()
        self.frame.cache_clear()  # what was read before does not have the hot pixels flagged
        self.placements = self._place_all()

    def _read(self, number: int) -> Frame:
        frame = read_frame(self.paths[number])
        if frame.shape != self.shape or frame.unit != self.unit:
            raise InputFileError(
                f"{frame.path} has the shape {frame.shape} in {frame.unit}, but {self.paths[0].name} {self.shape} in "
                f"{self.unit}; give frames of one field and one detector"
            )
        dq = frame.dq.copy()
        flag(dq, self.hot, DQ.HOT)
        return replace(frame, dq=dq)

    def _find_hot(self) -> np.ndarray:
        chosen = np.unique(np.linspace(0, len(self.paths) - 1, min(_HOT_PIXEL_FRAMES, len(self.paths))).astype(int))
        hot = static_hot_pixels([self.frame(int(number)) for number in chosen])
        log.info("%d static hot pixels in the detector's frame", np.count_nonzero(hot))
        return hot

    def _place_all(self) -> list[Placement | None]:
        middle = len(self.paths) // 2
        reference = self.frame(middle)
        stars = star_catalogue(reference)
        placements: list[Placement | None] = []
        for number, path in enumerate(self.paths):
            frame = self.frame(number)
            placement = identity_placement(frame, stars) if number == middle else place(frame, reference, stars)
            if placement is None:
                log.warning("%s cannot be registered and is left out: too few stars in common", path.name)
            placements.append(placement)
        return placements

    def partners(self, number: int) -> list[tuple[int, int, int, int, int, float]]:
        """Tile pairs of one frame: (x0, y0, partner, shift_x, shift_y, residual_px), sorted by place.

        Of all frames of the split that fit a tile, the `pairs_per_frame` with the most similar stars are taken: a
        partner with other seeing would teach the network to change the seeing.
        """
        own = self.placements[number]
        if own is None:
            return []
        others = [
            n
            for n, placement in enumerate(self.placements)
            if n != number and placement is not None and self.splits[n] == self.splits[number]
        ]
        others.sort(key=lambda n: float(np.linalg.norm(self.placements[n].shape_px2 - own.shape_px2)))
        ys, xs = _grid(self.frame(number), self.sky)
        size = self.sky.size
        corner = np.array([(x, y) for y in ys for x in xs], int).reshape(-1, 2)
        centre = corner + (size - 1) / 2
        shifts = {n: self.placements[n].from_reference(own.to_reference(centre)) - centre for n in others}
        found = []
        for tile, (x, y) in enumerate(corner):
            fitting = []
            for n in others:
                whole = np.rint(shifts[n][tile]).astype(int)
                residual = float(np.abs(shifts[n][tile] - whole).max())
                there = (x + whole[0], y + whole[1])
                inside = 0 <= there[0] <= self.shape[1] - size and 0 <= there[1] <= self.shape[0] - size
                if inside and residual <= self.sky.pair_max_residual_shift_px:
                    fitting.append((int(x), int(y), n, int(whole[0]), int(whole[1]), residual))
            found += fitting[: self.sky.pairs_per_frame]
        return found

    def write(self, number: int, out: Path, force: bool) -> int:
        """Write the shard of one frame; an empty one where nothing fits. Returns the number of tiles."""
        frame, pairs = self.frame(number), self.partners(number)
        stamped = provenance.stamp(
            "tiles",
            config={"tiles": self.sky.model_dump(mode="json"), "splits": self.cfg.tiles.splits.model_dump(mode="json")},
            seed=self.cfg.seed,
            input=self.paths[number].name,
            field=[path.name for path in self.paths],
        )
        attributes = _attributes(frame, self.sky) | {
            "target": "noise2noise",
            "registration": self._registration(number),
            "provenance": stamped,
        }
        with (
            atomic_output(out, force=force) as temporary,
            _writer(temporary, self.sky, frame, self.sources[number], attributes, partner=True) as writer,
        ):
            for row in _by_row(pairs):
                writer.append(self._pair_batch(number, row))
            n_tiles = writer.n_tiles
        provenance.write_sidecar(out, stamped)
        return n_tiles

    def _registration(self, number: int) -> dict[str, Any]:
        placement = self.placements[number]
        facts: dict[str, Any] = {
            "reference": self.paths[len(self.paths) // 2].name,
            "static_hot_pixels": int(np.count_nonzero(self.hot)),
            "placed": placement is not None,
        }
        if placement is not None:
            facts |= {
                "matrix": placement.matrix.round(7).tolist(),
                "offset_px": placement.offset.round(4).tolist(),
                "flux_scale": placement.flux_scale,
                "rms_px": placement.rms_px,
                "n_stars": placement.n_stars,
            }
        return facts

    def _pair_batch(self, number: int, pairs: Sequence[tuple[int, int, int, int, int, float]]) -> TileBatch:
        frame, size = self.frame(number), self.sky.size
        sci, err = _known_pixels(frame)
        images, masks, clean, clean_err = [], [], [], []
        for x, y, partner, shift_x, shift_y, _ in pairs:
            here = (slice(y, y + size), slice(x, x + size))
            there = (slice(y + shift_y, y + shift_y + size), slice(x + shift_x, x + shift_x + size))
            images.append([sci[here], err[here]])
            masks.append(frame.dq[here])
            target, target_err = self._matched(number, partner, here, there)
            clean.append([target])
            clean_err.append([target_err])
        x0, y0, partner, _, _, residual = (np.array(values) for values in zip(*pairs, strict=True))
        return _batch(
            images=np.array(images),
            masks=np.array(masks),
            targets={"clean": np.array(clean), "clean_err": np.array(clean_err)},
            events={
                "field": np.int64(_field_number(self.sources[len(self.paths) // 2])),
                "frame": np.int64(number),
                "partner": partner.astype(np.int64),
                "x0": x0.astype(np.int32),
                "y0": y0.astype(np.int32),
                "level": np.float64(frame.level),
                "noise": np.float64(frame.noise),
                "residual_shift_px": residual.astype(np.float32),
            },
            split=self.splits[number],
        )

    def _matched(
        self, number: int, partner: int, here: tuple[slice, slice], there: tuple[slice, slice]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The partner's tile at the frame's flux scale and background, NaN where it must not be used; and its error."""
        frame, other = self.frame(number), self.frame(partner)
        scale = np.float32(self.placements[partner].flux_scale / self.placements[number].flux_scale)
        target, target_err = other.sci[there] * scale, other.err[there] * scale
        target = np.where(has(other.dq[there], UNUSABLE), np.nan, target)
        usable = np.isfinite(target) & ~has(frame.dq[here], UNUSABLE)
        target = target + _offset((frame.sci[here] - target)[usable])
        return target, np.where(np.isfinite(target), target_err, np.nan)


def _offset(difference: np.ndarray) -> np.float32:
    """Sigma-clipped mean: frames are whole numbers, and a median of them would be one too."""
    values = difference.astype(np.float64)
    for _ in range(5):
        if values.size == 0:
            return np.float32(0)
        middle, spread = np.median(values), np.std(values)
        kept = values[np.abs(values - middle) <= 3 * spread]
        if kept.size in (0, values.size):
            break
        values = kept
    return np.float32(values.mean())


def _by_row(pairs: Sequence[tuple[int, int, int, int, int, float]]) -> Iterator[list]:
    """Split the pairs of a frame into its rows of tiles."""
    row: list = []
    for pair in pairs:
        if row and pair[1] != row[-1][1]:
            yield row
            row = []
        row.append(pair)
    if row:
        yield row
