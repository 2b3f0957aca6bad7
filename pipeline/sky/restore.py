"""Restore a frame of any size with a denoising model: overlapping tiles, feathered, a row of tiles at a time."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from pipeline.sky import cards
from pipeline.sky.dq import DQ, DQ_DTYPE, UNTRUSTED, flag, has
from pipeline.sky.frames import Frame, FrameProduct
from pipeline.tiles.shards import TileBatch

#: Defect probability from which a pixel counts as restored.
DEFECT_THRESHOLD = 0.5
_TILES_PER_CALL = 16


class Denoiser(Protocol):
    """What `pipeline.bundle.runtime.Predictor` offers here."""

    def predict(self, batch: TileBatch) -> dict[str, np.ndarray]:
        """`restored`, `restored_err`, `defect_probability`, each (N, H, W)."""


def restore_frame(
    frame: Frame, predictor: Denoiser, tile_px: int = 512, overlap_px: int = 96
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Denoise a frame and paint over its defects and holes.

    Parameters
    ----------
    frame : Frame
        Of any size; the exposed part is restored, an overscan stays as it is.
    predictor : Predictor
        A denoising bundle.
    tile_px : int
        Side of the tiles, rounded up to the model's stride; the whole frame is one tile where it is smaller.
    overlap_px : int
        Overlap of neighbouring tiles, rounded up to the model's stride. Three eighths at either side are discarded,
        across the quarter between them the tiles are blended: from 1.4 times the model's receptive field on, no
        pixel that is used has seen a tile's edge.

    Returns
    -------
    restored, err : ndarray, shape (H, W), float32
        In `frame.unit`.
    dq : ndarray, shape (H, W), uint16
        The frame's bits; 64 added where a defect or hole was painted over, 128 where the result is less certain than
        the background noise although it was painted, or where the pixel is saturated.

    Raises
    ------
    ValueError
        If `overlap_px` is negative or not smaller than `tile_px`.
    """
    restored, err, dq = frame.sci.copy(), frame.err.copy(), frame.dq.copy()
    first = frame.exposed[0].start or 0
    for start, planes in restore_rows(frame, predictor, tile_px, overlap_px):
        rows = slice(first + start, first + start + len(planes["restored"]))
        part = (rows, frame.exposed[1])
        restored[part], err[part] = planes["restored"], planes["restored_err"]
        dq[part] |= _flags(frame, part, planes)
    return restored, err, dq


def product_of(frame: Frame, restored: np.ndarray, err: np.ndarray, dq: np.ndarray) -> FrameProduct:
    """What `restore_frame` gave, in the unit and with the zero point of its file."""
    before = [
        cards.LEVEL_BEFORE.with_value(frame.level / frame.factor + frame.bias_level),
        cards.NOISE_BEFORE.with_value(frame.noise / frame.factor),
    ]
    stored_err = err / np.float32(frame.factor)
    return FrameProduct(frame.science_hdu, frame.to_stored(restored), stored_err, dq, before)


def restore_rows(
    frame: Frame, predictor: Denoiser, tile_px: int, overlap_px: int
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Restored strips of the exposed part, from its first row on; memory beside the frame is one row of tiles.

    Yields
    ------
    start : int
        First row of the strip, counted from the exposed part's.
    planes : dict of ndarray, shape (n_rows, W)
        `restored`, `restored_err`, `defect_probability`.
    """
    stride = _stride(predictor)
    if not 0 <= overlap_px < tile_px:
        raise ValueError(f"overlap_px {overlap_px} must be at least 0 and below tile_px {tile_px}")
    height, width = frame.sci[frame.exposed].shape
    across = _Axis(width, tile_px, overlap_px, stride)
    down = _Axis(height, tile_px, overlap_px, stride)
    sums = np.zeros((3, down.tile, width), np.float32)
    for number, top in enumerate(down.starts):
        row = _restored_row(frame, predictor, top, down.tile, across)
        weight = down.weights(number)
        sums[:, : weight.size] += row[:, : weight.size] * weight[:, None]
        # Rows above the next tile are complete.
        done = (down.starts[number + 1] if number + 1 < len(down.starts) else height) - top
        yield top, dict(zip(("restored", "restored_err", "defect_probability"), sums[:, :done].copy(), strict=True))
        sums = np.concatenate([sums[:, done:], np.zeros((3, done, width), np.float32)], axis=1)


class _Axis:
    """Where tiles lie along one axis, and how they are blended.

    Tile starts are multiples of the model's stride: only then does a strided network give the same for a shifted frame.
    """

    def __init__(self, length: int, tile_px: int, overlap_px: int, stride: int) -> None:
        self.length = length
        self.tile = min(_round_up(tile_px, stride), _round_up(length, stride))
        overlap = max(min(_round_up(overlap_px, stride), self.tile - stride), 0)
        last = max(_round_up(length - self.tile, stride), 0)
        self.starts = [*range(0, last, self.tile - overlap), last]
        shapes = [self._shape(number, overlap) for number in range(len(self.starts))]
        total = np.zeros(last + self.tile, np.float32)
        for start, shape in zip(self.starts, shapes, strict=True):
            total[start : start + self.tile] += shape
        self._weights = [
            shape / total[start : start + self.tile] for start, shape in zip(self.starts, shapes, strict=True)
        ]

    def _shape(self, number: int, overlap: int) -> np.ndarray:
        """Blending weight before the tiles' are made to sum to 1 (the last tile overlaps by more than asked for)."""
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


def _stride(predictor: Denoiser) -> int:
    card = getattr(predictor, "card", None)
    return (card.input.stride or 1) if card is not None else 1


def _restored_row(frame: Frame, predictor: Denoiser, top: int, tile_rows: int, across: _Axis) -> np.ndarray:
    """One row of tiles, blended: shape (3, tile_rows, W)."""
    section = frame.exposed
    rows = slice(top, top + tile_rows)
    sci, err, dq = (plane[section][rows] for plane in (frame.sci, frame.err, frame.dq))
    known_bad = has(dq, UNTRUSTED)
    sci = np.where(known_bad, np.float32(np.nan), sci)
    masks = np.where(known_bad, DQ_DTYPE(DQ.MISSING), dq & DQ_DTYPE(DQ.SATURATED))
    total = np.zeros((3, tile_rows, across.length), np.float32)
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
        planes = np.stack([predicted[name] for name in ("restored", "restored_err", "defect_probability")])
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


def _flags(frame: Frame, part: tuple[slice, slice], planes: dict[str, np.ndarray]) -> np.ndarray:
    dq = frame.dq[part]
    saturated, known_bad = has(dq, DQ.SATURATED), has(dq, UNTRUSTED)
    painted = (known_bad | (planes["defect_probability"] >= DEFECT_THRESHOLD)) & ~(saturated & ~known_bad)
    uncertain = saturated | (painted & (planes["restored_err"] > frame.noise))
    flags = np.zeros(dq.shape, DQ_DTYPE)
    flag(flags, painted, DQ.RESTORED)
    flag(flags, uncertain, DQ.LOW_CONFIDENCE)
    return flags
