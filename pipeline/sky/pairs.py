"""From exposures of one drifting field to pairs of training tiles that differ in noise only (Noise2Noise)."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline import provenance
from pipeline.config import Config
from pipeline.errors import InputFileError, TooFewEventsError
from pipeline.files import atomic_output, check_free, source_name
from pipeline.logs import get_logger
from pipeline.sky.dq import DQ, UNUSABLE, flag, has
from pipeline.sky.frames import Frame, read_frame
from pipeline.sky.registration import (
    Placement,
    identity_placement,
    place,
    star_catalogue,
    static_hot_pixels,
)
from pipeline.sky.tiling import (
    field_number,
    known_pixels,
    shard_attributes,
    shard_writer,
    stamp_of,
    tile_batch,
    tile_corners,
)
from pipeline.tiles.shards import TileBatch
from pipeline.tiles.splits import split_of

log = get_logger(__name__)

FEWEST_FRAMES = 3
# Largest change of the stars' second moments within a pair, relative to their mean: 12 % of the width along one axis.
_MAX_SHAPE_CHANGE = 0.25
# Largest ratio of the fluxes of a pair (clouds take light unevenly), and uncertainty of its zero point [mag].
_MAX_FLUX_RATIO, _MAX_ZERO_POINT_ERR_MAG = 1.3, 0.02
#: Frames that are in memory at once while their common hot pixels are sought.
_HOT_PIXEL_FRAMES = 25
_CACHE_BYTES = 512 << 20


class TilePair(NamedTuple):
    """A tile at (x0, y0) and the whole-pixel shift to its partner in frame number `partner`.

    `residual_px` is the difference between the true drift and the shift.
    """

    x0: int
    y0: int
    partner: int
    shift_x: int
    shift_y: int
    residual_px: float


def tile_pairs(paths: Sequence[str | Path], out_dir: str | Path, cfg: Config, force: bool = False) -> list[Path]:
    """Cut exposures of one drifting field into pairs of tiles that differ in noise only (Noise2Noise).

    Seeing and zero point of each pair of frames are checked, and a pair is used in both directions. Each frame has one
    shard, ``NAME.tiles.h5``, and belongs to one split (by hash of its name); its partners are
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
        If there are fewer than three frames, no split has two, or no two of them match.
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
            f"no two of the {len(paths)} frames of one split have the same seeing and zero point and are shifted by "
            f"whole pixels to within {cfg.tiles.sky.pair_max_residual_shift_px} px; give more frames, or raise "
            "tiles.sky.pair_max_residual_shift_px"
        )
    return outs


class _Field:
    """Frames of one field, placed relative to their middle one; at most a cache of them is in memory."""

    def __init__(self, paths: Sequence[Path], cfg: Config) -> None:
        if len(paths) < FEWEST_FRAMES:
            raise TooFewEventsError(
                f"noise2noise needs at least three exposures of one field, got {len(paths)}: of two, nothing tells in "
                "which one a difference is; for single frames set tiles.sky.target to noise2void"
            )
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
        self.corners: list[np.ndarray] = []
        self.placements = self._place_all()
        self.pairs = self._pair_all()

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
            ys, xs = tile_corners(frame, self.sky)
            self.corners.append(np.array([(x, y) for y in ys for x in xs], int).reshape(-1, 2))
            placement = identity_placement(frame, stars) if number == middle else place(frame, reference, stars)
            if placement is None:
                log.warning("%s cannot be registered and is rejected: too few stars in common", path.name)
            placements.append(placement)
        return placements

    def _pair_all(self) -> list[list[TilePair]]:
        """Tile pairs of each frame, sorted by place; a pair of frames is used in both directions, or not at all.

        What one exposure has in its noise and the other has not (a skewed distribution, a wider PSF) would otherwise
        be learned as a difference between input and target. Frames with the most similar stars are paired first, until
        the tiles of a frame have `pairs_per_frame` partners on average.
        """
        n_frames = len(self.paths)
        chosen: list[list[TilePair]] = [[] for _ in range(n_frames)]
        wanted = [self.sky.pairs_per_frame * len(corner) for corner in self.corners]
        unlike: Counter[str] = Counter()
        candidates = []
        for one, other in combinations(range(n_frames), 2):
            placements = self.placements[one], self.placements[other]
            if None in placements or self.splits[one] != self.splits[other]:
                continue
            if reason := difference(*placements):
                unlike[reason] += 1
                continue
            candidates.append((float(np.linalg.norm(placements[0].shape_px2 - placements[1].shape_px2)), one, other))
        for _, one, other in sorted(candidates):
            if len(chosen[one]) >= wanted[one] or len(chosen[other]) >= wanted[other]:
                continue
            there, back = self._fitting(one, other), self._fitting(other, one)
            if there and back:
                chosen[one] += there
                chosen[other] += back
        for reason, times in unlike.items():
            log.info("%d pairs of frames are left out: %s", times, reason)
        return [sorted(pairs, key=lambda pair: (pair.y0, pair.x0)) for pairs in chosen]

    def _fitting(self, number: int, other: int) -> list[TilePair]:
        """Tiles of a frame whose drift to another is near whole pixels."""
        corner, size = self.corners[number], self.sky.size
        centre = corner + (size - 1) / 2
        shift = self.placements[other].from_reference(self.placements[number].to_reference(centre)) - centre
        whole = np.rint(shift).astype(int)
        residual = np.abs(shift - whole).max(axis=1)
        there = corner + whole
        fits = (residual <= self.sky.pair_max_residual_shift_px) & (there >= 0).all(axis=1)
        fits &= (there <= np.array(self.shape[::-1]) - size).all(axis=1)
        rows = zip(corner[fits].tolist(), whole[fits].tolist(), residual[fits].tolist(), strict=True)
        return [TilePair(x, y, other, shift_x, shift_y, left) for (x, y), (shift_x, shift_y), left in rows]

    def write(self, number: int, out: Path, force: bool) -> int:
        """Write the shard of one frame; an empty one where nothing fits. Returns the number of tiles."""
        frame, pairs = self.frame(number), self.pairs[number]
        stamped = stamp_of(self.paths[number], self.cfg, field=[path.name for path in self.paths])
        attributes = shard_attributes(frame, self.sky) | {
            "target": "noise2noise",
            "registration": self._registration(number),
            "provenance": stamped,
        }
        with atomic_output(out, force=force) as temporary:
            with shard_writer(
                temporary, self.sky, frame, self.sources[number], attributes, target="noise2noise"
            ) as writer:
                for row in _by_row(pairs):
                    writer.append(self._pair_batch(number, row))
            provenance.write_sidecar(temporary, stamped)
        return writer.n_tiles

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
                "flux_scale_err": placement.flux_scale_err,
                "rms_px": placement.rms_px,
                "n_stars": placement.n_stars,
            }
        return facts

    def _pair_batch(self, number: int, pairs: Sequence[TilePair]) -> TileBatch:
        frame, size = self.frame(number), self.sky.size
        sci, err = known_pixels(frame)
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
        return tile_batch(
            images=np.array(images),
            masks=np.array(masks),
            targets={"clean": np.array(clean), "clean_err": np.array(clean_err)},
            events={
                "field": np.int64(field_number(self.sources[len(self.paths) // 2])),
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


def difference(one: Placement, other: Placement) -> str:
    """Why two exposures must not be each other's targets; empty if they may."""
    size_px2 = (one.shape_px2[:2].sum() + other.shape_px2[:2].sum()) / 4
    if not size_px2 > 0:
        return "too few stars to compare the seeing"
    if np.abs(one.shape_px2 - other.shape_px2).max() > _MAX_SHAPE_CHANGE * size_px2:
        return "other seeing or guiding"
    ratio = other.flux_scale / one.flux_scale
    if not 1 / _MAX_FLUX_RATIO <= ratio <= _MAX_FLUX_RATIO:
        return "another zero point (clouds)"
    if 1.0857 * np.hypot(one.flux_scale_err, other.flux_scale_err) > _MAX_ZERO_POINT_ERR_MAG:
        return "an uncertain zero point"
    return ""


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


def _by_row(pairs: Sequence[TilePair]) -> Iterator[list[TilePair]]:
    """Split the pairs of a frame into its rows of tiles."""
    row: list[TilePair] = []
    for pair in pairs:
        if row and pair.y0 != row[-1].y0:
            yield row
            row = []
        row.append(pair)
    if row:
        yield row
