"""Frames of the sky, put together from their tiles, and what a network makes of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.sky.frame_windows import Window, sampled_windows
from pipeline.sky.frames import Frame
from pipeline.sky.star_shapes import point_spread
from pipeline.sky.tile_rows import FramePredictor, restore_rows, told_sources
from pipeline.tiles.reader import TileReader
from pipeline.tiles.shards import TileBatch


def tiles_of_frames(reader: TileReader) -> Iterator[tuple[str, TileBatch, dict[str, Any]]]:
    """Name, tiles and shard attributes of each frame of a split, in the order of the shards."""
    index = reader.events(["frame"])
    shard_of = dict(zip(index["group"].tolist(), index["source_index"].tolist(), strict=True))
    attributes = reader.shard_attributes()
    parts: list[TileBatch] = []

    def joined() -> tuple[str, TileBatch, dict[str, Any]]:
        number = shard_of[int(parts[0].group[0])]
        return reader.sources[number], TileBatch.concatenate(parts), attributes[number]

    for batch in reader.sequential():
        starts = np.flatnonzero(np.diff(batch.group, prepend=batch.group[0])).tolist()
        for low, high in zip([0, *starts], [*starts, len(batch)], strict=True):
            part = batch.select(slice(low, high))
            if parts and part.group[0] != parts[-1].group[0]:
                yield joined()
                parts = []
            parts.append(part)
    if parts:
        yield joined()


def predicted_planes(
    sci: np.ndarray,
    err: np.ndarray,
    known: np.ndarray,
    level: float,
    noise: float,
    predictor: FramePredictor,
    tile_px: int = 512,
    overlap_px: int = 176,
) -> dict[str, np.ndarray]:
    """All columns of a network for a frame like those of training, shape (H, W); `known` are its DQ bits."""
    frame = Frame(
        path=Path("frame"),
        science_hdu=0,
        sci=sci,
        err=err,
        dq=known,
        unit="",
        stored_unit="",
        level=level,
        noise=noise,
    )
    whole = {column.name: np.empty(sci.shape, np.float32) for column in predictor.columns}
    psf = point_spread([Window.of(frame, part) for part in sampled_windows(sci.shape)])
    sources = told_sources(frame, predictor, psf)
    for top, planes in restore_rows(frame, predictor, tile_px, overlap_px, sources):
        for name, plane in planes.items():
            whole[name][top : top + len(plane)] = plane
    return whole
