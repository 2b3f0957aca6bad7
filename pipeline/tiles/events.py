"""Tiles of whole events: all images that an array took of one shower at once."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import UserError
from pipeline.tiles.manifest import Manifest
from pipeline.tiles.reader import TileReader
from pipeline.tiles.shards import CHUNK_TILES, Shard, TileBatch

#: Event columns that say which event a tile belongs to.
EVENT_KEYS = ("obs_id", "event_id")

_BLOCK_TILES = 4 * CHUNK_TILES  # so that few chunks are unpacked twice


def event_starts(events: Mapping[str, np.ndarray]) -> np.ndarray:
    """Number of the first tile of each event; tiles of an event are adjacent.

    Parameters
    ----------
    events : mapping
        `obs_id`, `event_id` and `group`, shape (N,) each. A shower that is used several times makes several events of
        one group.
    """
    is_first = np.ones(len(events["group"]), bool)
    if len(is_first):
        is_first[1:] = np.any([np.diff(events[name]) != 0 for name in (*EVENT_KEYS, "group")], axis=0)
    return np.flatnonzero(is_first)


def starts_of(batch: TileBatch) -> np.ndarray:
    """`event_starts` of a batch."""
    return event_starts({name: batch.events[name] for name in EVENT_KEYS} | {"group": batch.group})


class EventReader(TileReader):
    """The tiles of one split, in whole events of at least `min_telescopes` images.

    Batches of `shuffled` hold `batch_size` events; those of `sequential` end with an event.

    Parameters
    ----------
    manifests, split, where, equalise
        See `TileReader`.
    min_telescopes : int
        Events with fewer images are left out.

    Attributes
    ----------
    n_events : int

    Raises
    ------
    UserError
        As `TileReader`; or if the tiles are not of a camera.
    """

    _buffer_blocks = 8

    def __init__(
        self,
        manifests: Sequence[str | Path | Manifest],
        split: str,
        *,
        where: Mapping[str, Any] | None = None,
        equalise: bool = True,
        min_telescopes: int = 2,
    ) -> None:
        self._min_telescopes = min_telescopes
        self.n_events = 0
        super().__init__(manifests, split, where=where, equalise=equalise)

    def _selected(self, shard: Shard) -> np.ndarray:
        keep = super()._selected(shard)
        if not shard.n_tiles:
            return keep
        if missing := [name for name in EVENT_KEYS if name not in shard.columns]:
            raise UserError(
                f"{shard.path} has no event column {missing[0]}: its tiles are not of events; use camera tiles"
            )
        starts = self._starts(shard)
        counts = np.add.reduceat(keep, starts)
        keep &= np.repeat(counts >= self._min_telescopes, np.diff(starts, append=shard.n_tiles))
        self.n_events += int(np.count_nonzero(counts >= self._min_telescopes))
        return keep

    def _starts(self, shard: Shard) -> np.ndarray:
        return event_starts(shard.read_columns(EVENT_KEYS) | {"group": shard.group})

    def _block_ends(self, shard: Shard) -> list[int]:
        """Blocks end with an event."""
        if not shard.n_tiles:
            return []
        ends = np.append(self._starts(shard)[1:], shard.n_tiles)
        # The first end at or behind each multiple: no block is empty, for an event is far smaller than a block.
        wanted = np.arange(_BLOCK_TILES, shard.n_tiles + _BLOCK_TILES, _BLOCK_TILES)
        return np.unique(ends[np.minimum(np.searchsorted(ends, wanted), len(ends) - 1)]).tolist()

    def _shuffled_rows(self, buffer: TileBatch, rng: np.random.Generator) -> np.ndarray:
        """Events in a random order, their images in that of the telescopes."""
        starts = starts_of(buffer)
        events = np.split(np.arange(len(buffer)), starts[1:])
        return np.concatenate([events[place] for place in rng.permutation(len(events))])

    def _batch_ends(self, buffer: TileBatch, batch_size: int) -> list[int]:
        ends = np.append(starts_of(buffer)[1:], len(buffer))
        return ends[batch_size - 1 :: batch_size].tolist()

    def n_batches(self, batch_size: int) -> int:
        """Number of batches that `shuffled` yields in each epoch."""
        return max(self.n_events // batch_size, min(self.n_events, 1))

    def _read(self, block: Any, columns: Iterable[str] | None) -> TileBatch:
        return super()._read(block, None if columns is None else {*columns, *EVENT_KEYS})
