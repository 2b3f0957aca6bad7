"""Apply a network to the pixels of a frame: overlapping tiles, feathered, a row of tiles at a time."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from pipeline.inputs.population import Population
from pipeline.sky.dq import DQ, DQ_DTYPE, NO_SOURCE, UNTRUSTED, has
from pipeline.sky.frames import Frame
from pipeline.sky.source_pixels import possible_sources
from pipeline.sky.star_shapes import ELONGATED, PointSpread
from pipeline.sky.strips import LazyImage, part_of, strip_rows_of
from pipeline.tasks.spec import Column
from pipeline.tiles.shards import TileBatch


class FramePredictor(Protocol):
    """What `pipeline.bundle.runtime.Predictor` offers here.

    Attributes
    ----------
    columns : sequence of Column
        Planes that it predicts.
    size_multiple : int
        Height and width of its tiles are multiples of it.
    receptive_field_px : int or None
        Side of the square that one output pixel depends on; None where that is not known.
    population : Population or None
        What its training frames were like; None where that is not known.
    lines : mapping
        Planes of logits whose straight lines are flagged across the whole frame -> DQ bit.
    warnings : sequence of str
        What is to be known of its flags.
    correlations : mapping
        Side of a square window of restored sky [px] -> what its sum varies by, in units of independent errors.
    """

    columns: Sequence[Column]
    size_multiple: int
    receptive_field_px: int | None
    population: Population | None
    lines: Mapping[str, int]
    warnings: Sequence[str]
    correlations: Mapping[int, float]

    def predict(self, batch: TileBatch) -> dict[str, np.ndarray]:
        """Every column, shape (N, H, W)."""

    def flags(
        self,
        planes: Mapping[str, np.ndarray],
        dq: np.ndarray,
        noise: float,
        kept: np.ndarray | None,
        *,
        unless_sure: bool = False,
    ) -> np.ndarray:
        """DQ bits that the result adds, shape (H, W), uint16; pixels in `kept` keep their value.

        With `unless_sure`, those that are defects beyond doubt may be flagged, if that changes no value.
        """


#: Plane of a model that replaces pixels: 1 where it does.
PAINTED = "painted"
# Overlap in receptive fields: three eighths of it on either side are discarded, more than half of the field.
_FIELDS = 1.4


def check_overlap(overlap_px: int, tile_px: int) -> None:
    if not 0 <= overlap_px < tile_px:
        raise ValueError(f"overlap_px {overlap_px} must be at least 0 and below tile_px {tile_px}")


def told_sources(frame: Frame, predictor: FramePredictor, psf: PointSpread | None) -> LazyImage | None:
    """What `restore_rows` is to know of a frame like those of training; None where its stars tell nothing.

    They do where there are enough to know their PSF, and they are round: long ones look like tracks.
    """
    replaces = any(column.name == PAINTED for column in predictor.columns)
    if not replaces or psf is None or psf.ellipticity > ELONGATED:
        return None
    return possible_sources(frame, psf)


def seam_warnings(shape: tuple[int, int], predictor: FramePredictor, tile_px: int, overlap_px: int) -> tuple[str, ...]:
    """One, if pixels of a frame of that shape may depend on where its tiles end."""
    field = predictor.receptive_field_px
    needed = 0 if field is None else round(_FIELDS * field)
    if overlap_px >= needed or all(_Axis(n, tile_px, overlap_px, predictor.size_multiple).is_single for n in shape):
        return ()
    return (
        f"tiles overlap by {overlap_px} px, and the model sees {field} px: where they meet, the result may differ from "
        f"that in one piece; set predict.overlap_px to {needed}",
    )


def restore_rows(
    frame: Frame, predictor: FramePredictor, tile_px: int, overlap_px: int, sources: LazyImage | None = None
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Strips of the exposed part, from its first row on; memory besides the frame is one row of tiles.

    Parameters
    ----------
    frame : Frame
    predictor : FramePredictor
    tile_px, overlap_px : int
    sources : LazyImage of bool, shape (H, W), optional
        Pixels that may belong to sources of the frame; the predictor is told of all others that they do not.

    Yields
    ------
    start : int
        First row of the strip, counted from the exposed part's.
    planes : dict of ndarray, shape (n_rows, W)
        All columns of the predictor. They are written over when the next strip is asked for.
    """
    check_overlap(overlap_px, tile_px)
    multiple = predictor.size_multiple
    height, width = part_of(frame.sci, frame.exposed).shape
    across = _Axis(width, tile_px, overlap_px, multiple)
    down = _Axis(height, tile_px, overlap_px, multiple)
    names = [column.name for column in predictor.columns]
    step = strip_rows_of((height, width))
    row_of_tiles = _RowOfTiles(frame, predictor, names, down.tile, across, sources)
    begun = np.zeros((len(names), 0, width), np.float32)  # rows that the tiles above have a part in
    for number, top in enumerate(down.starts):
        rows = row_of_tiles.computed(top)
        weight = down.weights(number)
        rows = rows[:, : weight.size]
        for place in _parts(weight):
            if not _is_one(weight[place]):
                rows[:, place] *= weight[place, None]
                rows[:, place] += np.float32(0)  # a weight of 0 makes -0, and its sum with nothing is 0
        rows[:, : begun.shape[1]] += begun
        # Rows above the next tile are complete.
        done = (down.starts[number + 1] if number + 1 < len(down.starts) else height) - top
        begun = rows[:, done:].copy()
        for first in range(0, done, step):
            yield top + first, dict(zip(names, rows[:, first : min(first + step, done)], strict=True))


class _Axis:
    """Positions of the tiles along one axis, and how they are blended.

    Tile starts are multiples of the model's stride: only then does a strided network give the same for a shifted frame.
    """

    def __init__(self, length: int, tile_px: int, overlap_px: int, multiple: int) -> None:
        self.length = length
        overlap = min(_round_up(overlap_px, multiple), _round_up(tile_px, multiple) - multiple)
        # Tiles of nearly one size: a last one that overlaps by most of its side would cost as much as the others.
        n_tiles = max(1, round((length - overlap) / (tile_px - overlap)))
        self.tile = _round_up(-(-(length + (n_tiles - 1) * overlap) // n_tiles), multiple)
        last = max(_round_up(length - self.tile, multiple), 0)
        # A frame no larger than the overlap is one tile of that size.
        self.starts = [*range(0, last, max(self.tile - overlap, 1)), last]
        shapes = [self._shape(number, overlap) for number in range(len(self.starts))]
        total = np.zeros(last + self.tile, np.float32)
        for start, shape in zip(self.starts, shapes, strict=True):
            total[start : start + self.tile] += shape
        self.is_single = len(self.starts) == 1
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


class _RowOfTiles:
    """One row of tiles after the other, in the same memory: fresh memory costs more time than what is written there."""

    def __init__(
        self,
        frame: Frame,
        predictor: FramePredictor,
        names: Sequence[str],
        n_rows: int,
        across: _Axis,
        sources: LazyImage | None,
    ) -> None:
        self._frame, self._predictor, self._names, self._across = frame, predictor, names, across
        self._sources = None if sources is None else part_of(sources, frame.exposed)
        self._pixels = np.empty((2, n_rows, across.length), np.float32)
        self._total = np.empty((len(names), n_rows, across.length), np.float32)

    def computed(self, top: int) -> np.ndarray:
        """The tiles from row `top` on, blended along the row: shape (n_columns, n_rows, W)."""
        frame, across, total = self._frame, self._across, self._total
        pixels, masks = self._read(slice(top, top + total.shape[1]))
        shape = (total.shape[1], across.tile)
        total[:] = 0
        # One tile per call: as fast as sixteen, and the maps of a U-Net of width 24 take a sixteenth of the memory.
        for number, start in enumerate(across.starts):
            part = slice(start, start + across.tile)
            batch = TileBatch(
                images=_padded(pixels[:, :, part], shape)[None],
                events={"level": np.full(1, frame.level), "noise": np.full(1, frame.noise)},
                group=np.zeros(1, np.int64),
                masks=_padded(masks[:, part], shape)[None],
            )
            predicted = self._predictor.predict(batch)
            weight = across.weights(number)
            for place in _parts(weight):
                into = slice(start + place.start, start + place.stop)
                for plane, name in zip(total, self._names, strict=True):
                    tile = predicted[name][0, :, place]
                    # Adding to 0 also makes 0 of -0.
                    plane[:, into] += tile if _is_one(weight[place]) else tile * weight[place]
        return total

    def _read(self, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """Pixels and uncertainties (2, n_rows, W), NaN where not trusted, and what the network is told of the masks."""
        sci, err, dq = (
            part_of(image, self._frame.exposed) for image in (self._frame.sci, self._frame.err, self._frame.dq)
        )
        first, last, _ = rows.indices(sci.shape[0])
        pixels = self._pixels[:, : last - first]
        masks = np.empty(pixels.shape[1:], DQ_DTYPE)
        # Some rows at a time: what is computed on the way takes more memory than what stays.
        step = strip_rows_of(sci.shape)
        for top in range(first, last, step):
            part = slice(top, min(top + step, last))
            here = slice(part.start - first, part.stop - first)
            bits = dq[part]
            pixels[0, here], pixels[1, here] = sci[part], err[part]
            masks[here] = bits & DQ_DTYPE(DQ.SATURATED)
            if (known_bad := has(bits, UNTRUSTED)).any():
                pixels[0, here][known_bad] = np.nan
                masks[here][known_bad] = DQ.MISSING
            if self._sources is not None:
                masks[here][~self._sources[part]] |= NO_SOURCE
        return pixels, masks


def _parts(weight: np.ndarray) -> list[slice]:
    """The middle of a tile, where no other has a part, and what is on both sides of it."""
    inner = np.flatnonzero(weight == 1)
    if not inner.size or _is_one(weight):
        return [slice(0, weight.size)]
    first, last = int(inner[0]), int(inner[-1]) + 1
    return [
        place for place in (slice(0, first), slice(first, last), slice(last, weight.size)) if place.start < place.stop
    ]


def _is_one(weight: np.ndarray) -> bool:
    return bool((weight == 1).all())


def _padded(tile: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Fill a tile (..., H, W) that ends outside the frame by mirroring it: the model sees sky there, not an edge."""
    missing = [(0, want - have) for want, have in zip(shape, tile.shape[-2:], strict=True)]
    if not any(after for _, after in missing):
        return tile
    return np.pad(tile, [(0, 0)] * (tile.ndim - 2) + missing, mode="symmetric")
