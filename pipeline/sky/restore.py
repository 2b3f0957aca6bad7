"""Apply a network to a frame of any size: overlapping tiles, feathered, a row of tiles at a time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.inputs.base import Range
from pipeline.sky import cards
from pipeline.sky.dq import DQ, DQ_DTYPE, UNTRUSTED, has
from pipeline.sky.frame_statistics import FrameStatistics
from pipeline.sky.frames import Frame, FrameProduct
from pipeline.sky.lines import BinnedLogits, flag_lines
from pipeline.sky.mosaic import phases_of
from pipeline.sky.training_range import Choice, Comparison, compare
from pipeline.tasks.spec import Column
from pipeline.tiles.shards import TileBatch

_TILES_PER_CALL = 16


class FramePredictor(Protocol):
    """What `pipeline.bundle.runtime.Predictor` offers here.

    Attributes
    ----------
    columns : sequence of Column
        Planes that it predicts.
    size_multiple : int
        Height and width of its tiles are multiples of it.
    ranges : sequence of Range
        What its training frames covered; empty where that is not known.
    lines : mapping
        Planes of logits whose straight lines are flagged across the whole frame -> DQ bit.
    warnings : sequence of str
        What is to be known of its flags.
    """

    columns: Sequence[Column]
    size_multiple: int
    ranges: Sequence[Range]
    lines: Mapping[str, int]
    warnings: Sequence[str]

    def predict(self, batch: TileBatch) -> dict[str, np.ndarray]:
        """Every column, shape (N, H, W)."""

    def flags(
        self, planes: Mapping[str, np.ndarray], dq: np.ndarray, noise: float, kept: np.ndarray | None
    ) -> np.ndarray:
        """DQ bits that the result adds, shape (H, W), uint16; pixels in `kept` keep their value."""


@dataclass(frozen=True)
class FrameResult:
    """A network's result for a frame, in the frame's unit.

    Attributes
    ----------
    sci, err : ndarray of float32, shape (H, W)
        As they were where the network has no plane for them.
    dq : ndarray of uint16, shape (H, W)
        The frame's bits, and those that the network's tasks add.
    planes : mapping
        Extension name -> further planes, shape (H, W), float32, NaN outside the exposed part; with their unit.
    statistics : FrameStatistics, optional
        What was compared with the ranges of training, where the model names these.
    n_kept : int
        Pixels that look like sources and keep their value, because the frame is outside the range of training.
    warnings : tuple of str
        The frame's, how it differs from those of training, and the predictor's.
    only_flags : bool
        Whether the network has no plane at all to write: `sci` and `err` are as they came.
    """

    sci: np.ndarray
    err: np.ndarray
    dq: np.ndarray
    planes: Mapping[str, tuple[np.ndarray, str]]
    statistics: FrameStatistics | None = None
    n_kept: int = 0
    warnings: tuple[str, ...] = ()
    only_flags: bool = False


def restore_frame(
    frame: Frame,
    predictor: FramePredictor,
    tile_px: int = 512,
    overlap_px: int = 96,
    outside_range: Choice = "keep_sources",
) -> FrameResult:
    """Apply a network to all pixels of a frame; with a denoising task, its defects and holes are replaced.

    Parameters
    ----------
    frame : Frame
        Of any size; the exposed part is restored, an overscan is kept as it is.
    predictor : FramePredictor
    tile_px : int
        Side of the tiles, rounded up to what the model takes; the whole frame is one tile where it is smaller.
    overlap_px : int
        Overlap of neighbouring tiles, rounded up likewise. Three eighths at either side are discarded, across the
        quarter between them the tiles are blended: from 1.4 times the model's receptive field on, no pixel that is
        used has seen a tile's edge.
    outside_range : {"keep_sources", "apply", "refuse"}
        What is done with a frame unlike those of training, see `pipeline.sky.training_range.compare`.

    Raises
    ------
    ValueError
        If `overlap_px` is negative or not smaller than `tile_px`.
    InputFileError
        If the frame is unlike those of training and that is to be refused.

    Notes
    -----
    A mosaic of colours (a raw frame of a colour camera) is taken apart into its four kinds of pixels, each is restored
    as a frame of its own, and they are put together again: no colour is mixed into another.
    """
    compared = compare(frame, predictor.ranges, outside_range)
    if compared.is_mosaic:
        phases = [
            (place, restore_frame(phase, predictor, tile_px, overlap_px, outside_range))
            for place, phase in phases_of(frame)
        ]
        return _interleaved(frame, phases, compared)
    kept = compared.kept
    written = {column.name: column for column in predictor.columns if column.hdu}
    whole = {"SCI": frame.sci.copy(), "ERR": frame.err.copy()}
    for column in written.values():
        whole.setdefault(column.hdu, np.full(frame.shape, np.nan, np.float32))
    dq = frame.dq.copy()
    first = frame.exposed[0].start or 0
    binned = {name: BinnedLogits(frame.sci[frame.exposed].shape) for name in predictor.lines}
    for start, planes in restore_rows(frame, predictor, tile_px, overlap_px):
        n_rows = len(next(iter(planes.values())))
        part = (slice(first + start, first + start + n_rows), frame.exposed[1])
        for name, column in written.items():
            before = whole[column.hdu][part]
            spared = kept is not None and column.hdu in ("SCI", "ERR")
            whole[column.hdu][part] = np.where(kept[part], before, planes[name]) if spared else planes[name]
        dq[part] |= predictor.flags(planes, dq[part], frame.noise, None if kept is None else kept[part])
        for name, plane in binned.items():
            plane.add(start, planes[name])
    for name, plane in binned.items():
        flag_lines(dq[frame.exposed], plane.lines(), predictor.lines[name])
    extra = {column.hdu: column.unit for column in written.values() if column.hdu not in ("SCI", "ERR")}
    return FrameResult(
        whole["SCI"],
        whole["ERR"],
        dq,
        {name: (whole[name], unit) for name, unit in extra.items()},
        statistics=compared.statistics,
        n_kept=0 if kept is None else int(np.count_nonzero(kept)),
        warnings=(*frame.warnings, *compared.warnings, *predictor.warnings),
        only_flags=not written,
    )


def _interleaved(
    frame: Frame, phases: Sequence[tuple[tuple[slice, slice], FrameResult]], compared: Comparison
) -> FrameResult:
    """The results for the kinds of pixels of a mosaic, as one of the whole frame."""
    sci, err, dq = frame.sci.copy(), frame.err.copy(), frame.dq.copy()
    planes = {name: (np.full(frame.shape, np.nan, np.float32), unit) for name, (_, unit) in phases[0][1].planes.items()}
    for place, result in phases:
        sci[place], err[place], dq[place] = result.sci, result.err, result.dq
        for name, (plane, _) in result.planes.items():
            planes[name][0][place] = plane
    of_phases = [text for _, result in phases for text in result.warnings]
    return FrameResult(
        sci,
        err,
        dq,
        planes,
        statistics=compared.statistics,
        n_kept=sum(result.n_kept for _, result in phases),
        warnings=tuple(dict.fromkeys((*frame.warnings, *compared.warnings, *of_phases))),
        only_flags=phases[0][1].only_flags,
    )


def product_of(frame: Frame, result: FrameResult) -> FrameProduct:
    """The result of `restore_frame`, in the unit and with the zero point of its file."""
    if result.only_flags:
        return FrameProduct(frame.science_hdu, None, None, result.dq, warnings=result.warnings)
    before = [
        cards.LEVEL_BEFORE.with_value(frame.level / frame.factor + frame.bias_level),
        cards.NOISE_BEFORE.with_value(frame.noise / frame.factor),
    ]
    factor = np.float32(frame.factor)
    planes = {
        name: (plane / factor, frame.stored_unit) if unit == "sci" else (plane, unit)
        for name, (plane, unit) in result.planes.items()
    }
    return FrameProduct(
        frame.science_hdu,
        frame.to_stored(result.sci),
        result.err / factor,
        result.dq,
        before,
        planes,
        warnings=result.warnings,
    )


def restore_rows(
    frame: Frame, predictor: FramePredictor, tile_px: int, overlap_px: int
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Strips of the exposed part, from its first row on; memory besides the frame is one row of tiles.

    Yields
    ------
    start : int
        First row of the strip, counted from the exposed part's.
    planes : dict of ndarray, shape (n_rows, W)
        All columns of the predictor.
    """
    multiple = predictor.size_multiple
    if not 0 <= overlap_px < tile_px:
        raise ValueError(f"overlap_px {overlap_px} must be at least 0 and below tile_px {tile_px}")
    height, width = frame.sci[frame.exposed].shape
    across = _Axis(width, tile_px, overlap_px, multiple)
    down = _Axis(height, tile_px, overlap_px, multiple)
    names = [column.name for column in predictor.columns]
    sums = np.zeros((len(names), down.tile, width), np.float32)
    for number, top in enumerate(down.starts):
        row = _row_of_tiles(frame, predictor, names, top, down.tile, across)
        weight = down.weights(number)
        sums[:, : weight.size] += row[:, : weight.size] * weight[:, None]
        # Rows above the next tile are complete.
        done = (down.starts[number + 1] if number + 1 < len(down.starts) else height) - top
        yield top, dict(zip(names, sums[:, :done].copy(), strict=True))
        sums = np.concatenate([sums[:, done:], np.zeros((len(names), done, width), np.float32)], axis=1)


class _Axis:
    """Positions of the tiles along one axis, and how they are blended.

    Tile starts are multiples of the model's stride: only then does a strided network give the same for a shifted frame.
    """

    def __init__(self, length: int, tile_px: int, overlap_px: int, multiple: int) -> None:
        self.length = length
        self.tile = min(_round_up(tile_px, multiple), _round_up(length, multiple))
        overlap = max(min(_round_up(overlap_px, multiple), self.tile - multiple), 0)
        last = max(_round_up(length - self.tile, multiple), 0)
        self.starts = [*range(0, last, self.tile - overlap), last]
        shapes = [self._shape(number, overlap) for number in range(len(self.starts))]
        total = np.zeros(last + self.tile, np.float32)
        for start, shape in zip(self.starts, shapes, strict=True):
            total[start : start + self.tile] += shape
        self._weights = [
            shape / total[start : start + self.tile] for start, shape in zip(self.starts, shapes, strict=True)
        ]

    def _shape(self, number: int, overlap: int) -> np.ndarray:
        """Blending weight before the tiles' are made to sum to 1 (the last tile overlaps by more than requested)."""
        shape = np.ones(self.tile, np.float32)
        if number > 0:
            shape[:overlap] *= _ramp(overlap)
        if number < len(self.starts) - 1:
            shape[self.tile - overlap :] *= _ramp(overlap)[::-1]
        return shape

    def weights(self, number: int) -> np.ndarray:
        """Weight of each pixel of tile `number` that is inside the frame; they sum to 1 over the tiles."""
        return self._weights[number][: self.length - self.starts[number]]


def _ramp(overlap: int) -> np.ndarray:
    """From 0 to 1 across an overlap: flat in the outer three eighths at either side, half a cosine between them."""
    position = (np.arange(overlap) + 0.5) / max(overlap, 1)
    return (0.5 - 0.5 * np.cos(np.pi * np.clip(4 * position - 1.5, 0, 1))).astype(np.float32)


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


def _row_of_tiles(
    frame: Frame, predictor: FramePredictor, names: Sequence[str], top: int, tile_rows: int, across: _Axis
) -> np.ndarray:
    """One row of tiles, blended: shape (n_columns, tile_rows, W)."""
    section = frame.exposed
    rows = slice(top, top + tile_rows)
    sci, err, dq = (plane[section][rows] for plane in (frame.sci, frame.err, frame.dq))
    known_bad = has(dq, UNTRUSTED)
    sci = np.where(known_bad, np.float32(np.nan), sci)
    masks = np.where(known_bad, DQ_DTYPE(DQ.MISSING), dq & DQ_DTYPE(DQ.SATURATED))
    total = np.zeros((len(names), tile_rows, across.length), np.float32)
    for first in range(0, len(across.starts), _TILES_PER_CALL):
        numbers = range(first, min(first + _TILES_PER_CALL, len(across.starts)))
        parts = [slice(across.starts[n], across.starts[n] + across.tile) for n in numbers]
        shape = (tile_rows, across.tile)
        batch = TileBatch(
            images=np.stack([[_padded(sci[:, p], shape), _padded(err[:, p], shape)] for p in parts]),
            events={
                "level": np.full(len(parts), frame.level),
                "noise": np.full(len(parts), frame.noise),
            },
            group=np.zeros(len(parts), np.int64),
            masks=np.stack([_padded(masks[:, p], shape) for p in parts]),
        )
        predicted = predictor.predict(batch)
        planes = np.stack([predicted[name] for name in names])
        for place, number in enumerate(numbers):
            weight = across.weights(number)
            start = across.starts[number]
            total[:, :, start : start + weight.size] += planes[:, place, :, : weight.size] * weight
    return total


def _padded(tile: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Fill a tile that ends outside the frame by mirroring it: the model sees sky there, not an edge."""
    missing = [(0, want - have) for want, have in zip(shape, tile.shape, strict=True)]
    if not any(after for _, after in missing):
        return tile
    return np.pad(tile, missing, mode="symmetric")
