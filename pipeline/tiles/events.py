"""Tiles of whole events: all images that an array took of one shower at once."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import UserError
from pipeline.tiles.event_rows import EVENT_KEYS, MIN_TELESCOPES, event_starts, event_values
from pipeline.tiles.index import ShardRows
from pipeline.tiles.manifest import Manifest
from pipeline.tiles.reader import WHOLE, Part, TileReader, _Run
from pipeline.tiles.shards import CHUNK_TILES, TileBatch

_BLOCK_TILES = 4 * CHUNK_TILES  # so that few chunks are unpacked twice


def starts_of(batch: TileBatch) -> np.ndarray:
    """`event_starts` of a batch."""
    return event_starts({name: batch.events[name] for name in EVENT_KEYS} | {"group": batch.group})


class EventReader(TileReader):
    """The tiles of one split, in whole events of at least `min_telescopes` images.

    Batches of `shuffled` hold `batch_size` events; those of `sequential` end with an event. Classes are equalised event
    by event: all images of one have the same factor.

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
        min_telescopes: int = MIN_TELESCOPES,
    ) -> None:
        self._min_telescopes = min_telescopes
        self.n_events = 0
        super().__init__(manifests, split, where=where, equalise=equalise)

    def _index_columns(self) -> list[str]:
        return [*super()._index_columns(), *EVENT_KEYS]

    def _selected(self, number: int, rows: ShardRows) -> np.ndarray:
        keep = super()._selected(number, rows)
        if not len(keep):
            return keep
        if missing := [name for name in EVENT_KEYS if name not in rows.columns]:
            manifest, place = self._shards[number]
            raise UserError(
                f"{manifest.shard_path(place)} has no event column {missing[0]}: its tiles are not of events; use "
                "tiles of camera images"
            )
        starts = self._starts(rows)
        counts = np.add.reduceat(keep, starts, dtype=np.int64)
        keep &= np.repeat(counts >= self._min_telescopes, np.diff(starts, append=len(keep)))
        self.n_events += int(np.count_nonzero(counts >= self._min_telescopes))
        return keep

    def _selected_items(self, rows: ShardRows, keep: np.ndarray) -> np.ndarray:
        if not len(keep):
            return np.empty(0, np.int64)
        starts = self._starts(rows)
        return starts[np.add.reduceat(keep, starts, dtype=np.int64) > 0]

    def _starts(self, rows: ShardRows) -> np.ndarray:
        return event_starts(rows.columns | {"group": rows.group})

    def _block_ends(self, rows: ShardRows) -> np.ndarray:
        """Blocks end with an event."""
        n = len(rows.columns["split"])
        if not n:
            return np.empty(0, np.int64)
        ends = np.append(self._starts(rows)[1:], n)
        # The first end at or behind each multiple: no block is empty, for an event is far smaller than a block.
        wanted = np.arange(_BLOCK_TILES, n + _BLOCK_TILES, _BLOCK_TILES)
        return np.unique(ends[np.minimum(np.searchsorted(ends, wanted), len(ends) - 1)])

    def _shuffled_rows(self, buffer: TileBatch, rng: np.random.Generator) -> np.ndarray:
        """Events in a random order, their images in that of the telescopes."""
        starts = starts_of(buffer)
        events = np.split(np.arange(len(buffer)), starts[1:])
        return np.concatenate([events[place] for place in rng.permutation(len(events))])

    def _batch_ends(self, buffer: TileBatch, batch_size: int) -> list[int]:
        ends = np.append(starts_of(buffer)[1:], len(buffer))
        return ends[batch_size - 1 :: batch_size].tolist()

    def _rows_of_items(self, batch: TileBatch, first: int, last: int | None) -> slice:
        bounds = np.append(starts_of(batch), len(batch))
        return slice(int(bounds[first]), int(bounds[-1 if last is None else last]))

    def _run_of_batches(self, batch_size: int, part: Part) -> _Run:
        """As `in_batches` joins them: whole blocks until there are enough tiles."""
        ends = []
        n_waiting = 0
        for place, block in enumerate(self._blocks):
            n_waiting += np.count_nonzero(self._keep.part(block.shard, block.tiles))
            if n_waiting >= batch_size:
                ends.append(place + 1)
                n_waiting = 0
        bounds = [0, *ends, *([len(self._blocks)] if n_waiting else [])]
        first, last = (bounds[(part.rank + i) * (len(bounds) - 1) // part.n_ranks] for i in (0, 1))
        return _Run(np.arange(first, last))

    def in_batches(
        self, batch_size: int, columns: Iterable[str] | None = None, part: Part = WHOLE
    ) -> Iterator[TileBatch]:
        """All tiles in whole events, about `batch_size` tiles at once or more."""
        waiting: list[TileBatch] = []
        for block in self._in_order(columns, batch_size, part):
            waiting.append(block)
            if sum(map(len, waiting)) >= batch_size:
                yield TileBatch.concatenate(waiting)
                waiting = []
        if waiting:
            yield TileBatch.concatenate(waiting)

    def n_batches(self, batch_size: int) -> int:
        """Number of batches that `shuffled` yields in each epoch."""
        return max(self.n_events // batch_size, min(self.n_events, 1))

    def _class_columns(self, manifest: Manifest) -> list[str]:
        weighting = manifest.event_weighting
        return [*EVENT_KEYS, *weighting.needs] if weighting else []

    def _class_weights(self, manifest: Manifest, events: Mapping[str, np.ndarray]) -> np.ndarray | float:
        """From whole events, before images of some cameras are left out."""
        if manifest.event_weighting is None:
            return 1.0
        starts = event_starts(events)
        weights = manifest.event_weighting.weights(event_values(events, manifest.event_weighting.needs, starts))
        return np.repeat(weights, np.diff(starts, append=len(events["group"])))

    def _read(self, block: Any, columns: Iterable[str] | None) -> TileBatch:
        return super()._read(block, None if columns is None else {*columns, *EVENT_KEYS})
