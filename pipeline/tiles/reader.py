"""Stream the tiles of one split out of any number of shards, in order or shuffled; memory is bounded by a buffer."""

import resource
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.errors import UserError
from pipeline.tiles.blocks import Block, Blocks, Selection, blocks_of
from pipeline.tiles.cameras import KnownCamera, known_cameras
from pipeline.tiles.index import ShardRows
from pipeline.tiles.layout import CAMERA_COLUMN, TileCamera
from pipeline.tiles.manifest import Manifest, check_alike, check_no_copies, load_manifests
from pipeline.tiles.shards import CHUNK_TILES, Channel, Shard, TileBatch
from pipeline.tiles.splits import SPLITS
from pipeline.tiles.weighting import needs_of, weights_of

# Batches come from all shards in turn: as many stay open as the system's limit on open files allows for two readers.
_LIMIT = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
# Each takes 1.5 MB; to open one again takes a quarter of the time that its block of tiles does.
_MAX_OPEN = 128
_OPEN_SHARDS = _MAX_OPEN if _LIMIT == resource.RLIM_INFINITY else max(16, min(_MAX_OPEN, _LIMIT // 4))


class Part(NamedTuple):
    """The share of one rank, of several that read the same tiles together."""

    rank: int = 0
    n_ranks: int = 1


WHOLE = Part()


class _Run(NamedTuple):
    """Blocks in the order in which they are read, by their places; some items are left out at both ends.

    Attributes
    ----------
    places : ndarray of int
    first : int
        Item (tile, or event) of the first block that is the first one of the run.
    last : int, optional
        Item of the last block before which the run ends; by default its end.
    """

    places: np.ndarray
    first: int = 0
    last: int | None = None


class TileReader:
    """The tiles of one split.

    It opens a shard when it first reads tiles of it; then it also notices if this is not the shard that the manifest
    was made of.

    Parameters
    ----------
    manifests : sequence of path or Manifest
    split : {"train", "validation", "test", "all"}
    where : mapping, optional
        Event column -> value or values that a tile must have to be read: `{"true_primary_id": 0}` reads gammas only.
    equalise : bool
        Whether `weights` include the manifest's class equalisation (`base_weights` never do). Switch it off where
        only one class is used (the energy of gammas): the factors would bend its spectrum towards the other class.

    Attributes
    ----------
    block_items : ndarray of int, shape (n_blocks,)
        Number of selected items (tiles, or events) of each block that is read.
    cameras : tuple of KnownCamera
        Those that `where` chooses (`pipeline.tiles.cameras`), as the event column `camera` counts them; empty for the
        sky.

    Raises
    ------
    UserError
        If the split's name is unknown or the manifests do not hold tiles of one kind.
    """

    _buffer_blocks = 16

    def __init__(
        self,
        manifests: Sequence[str | Path | Manifest],
        split: str,
        *,
        where: Mapping[str, Any] | None = None,
        equalise: bool = True,
    ) -> None:
        if split not in (*SPLITS, "all"):
            raise UserError(f"unknown split {split!r}; accepted: {', '.join(SPLITS)}, all")
        if not manifests:
            raise UserError("no manifest was given; make one with `lightpool manifest`")
        self.manifests = load_manifests(manifests)
        self.split_name = split
        self._where = {name: np.unique(value) for name, value in (where or {}).items()}
        self._equalise = equalise
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._shards: list[tuple[Manifest, int]] = []
        check_alike(self.manifests)
        check_no_copies(self.manifests)
        for manifest in self.manifests:
            self._shards += [(manifest, number) for number in range(len(manifest.shards))]
        self._index()

    def _index(self) -> None:
        """Selected tiles, from the indices of the manifests alone: no shard is opened."""
        self._keep = Selection()
        self._n_tiles: list[int] = []
        self._first_group: list[int] = []
        self._sources = [manifest.shards[place].source for manifest, place in self._shards]
        self._cameras_of: list[tuple[TileCamera, ...]] = []
        blocks: list[np.ndarray] = []
        cameras: list[tuple[TileCamera, ...]] = []
        n_groups = 0
        self.n_groups = self.n_tiles = 0
        for manifest in self.manifests:
            with manifest.index() as index:
                cameras += index.distinct_cameras()
                for rows in index.shards(self._index_columns()):
                    number = len(self._keep)
                    keep = self._selected(number, rows)
                    self._keep.append(keep)
                    self._n_tiles.append(len(keep))
                    self._first_group.append(n_groups)
                    self._cameras_of.append(rows.cameras)
                    n_groups += len(rows.group_sizes)
                    self.n_tiles += int(np.count_nonzero(keep))
                    self.n_groups += len(np.unique(rows.group[keep]))
                    blocks.append(blocks_of(number, self._block_ends(rows), self._selected_items(rows, keep)))
        found = np.concatenate(blocks) if blocks else np.empty((0, 4), np.int64)
        self._blocks = Blocks(found[:, :3])
        self.block_items: np.ndarray = found[:, 3]
        chosen = self._where.get(CAMERA_COLUMN)
        self.cameras: tuple[KnownCamera, ...] = tuple(
            camera for place, camera in enumerate(known_cameras(cameras)) if chosen is None or place in chosen
        )

    def _index_columns(self) -> list[str]:
        """Columns of the index that `_selected` and `_block_ends` read."""
        return list(self._where)

    def _selected(self, number: int, rows: ShardRows) -> np.ndarray:
        """Which tiles of shard `number` are read, shape (N,), bool."""
        split = rows.columns["split"]
        keep = np.ones(len(split), bool)
        if self.split_name != "all":
            keep &= split == SPLITS[self.split_name]
        if len(keep):
            for name, values in self._where.items():
                column = rows.columns[name] if name in rows.columns else self._column(number, name)
                keep &= np.isin(column, values)
        return keep

    def _column(self, number: int, name: str) -> np.ndarray:
        """A column that is not in the index."""
        return self._shard(number).read_columns([name])[name]

    def _block_ends(self, rows: ShardRows) -> np.ndarray:
        """Where the blocks that are read at once end: with the chunks of the file."""
        n = len(rows.columns["split"])
        return np.append(np.arange(CHUNK_TILES, n, CHUNK_TILES), n) if n else np.empty(0, np.int64)

    def _selected_items(self, rows: ShardRows, keep: np.ndarray) -> np.ndarray:
        """First tile of each item (tile, or event) that is read, rising."""
        return np.flatnonzero(keep)

    def __len__(self) -> int:
        return self.n_tiles

    @property
    def wing(self) -> str:
        """Camera or sky."""
        return self.manifests[0].wing

    @property
    def channels(self) -> list[Channel]:
        """Image channels with their units."""
        return self.manifests[0].channels

    @property
    def tile_shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.manifests[0].tile_shape

    @property
    def attributes(self) -> dict[str, Any]:
        """Facts that all shards share (identities of the cameras, tile preparation, unit)."""
        return self.manifests[0].attributes

    @property
    def columns(self) -> list[str]:
        """Event columns of the first shard that has tiles."""
        for number, n in enumerate(self._n_tiles):
            if n:
                return self._shard(number).columns
        return []

    @property
    def targets(self) -> list[str]:
        """Targets of the first shard that has tiles."""
        for number, n in enumerate(self._n_tiles):
            if n:
                return self._shard(number).targets
        return []

    def sequential(self, columns: Iterable[str] | None = None) -> Iterator[TileBatch]:
        """All tiles in the order of the shards, by blocks of up to 64."""
        for block in self._blocks:
            yield self._read(block, columns)

    def _in_order(self, columns: Iterable[str] | None, batch_size: int, part: Part) -> Iterator[TileBatch]:
        """The same of one rank, whose tiles are whole batches of `in_batches`: an n-th of them, one after the other."""
        if part.n_ranks == 1:
            return self.sequential(columns)
        return self._read_run(self._run_of_batches(batch_size, part), columns)

    def _run_of_batches(self, batch_size: int, part: Part) -> _Run:
        first, last = (self.first_batch(batch_size, Part(part.rank + i, part.n_ranks)) * batch_size for i in (0, 1))
        return self._run(np.arange(len(self._blocks)), first, min(last, self.n_tiles))

    def first_batch(self, batch_size: int, part: Part) -> int:
        """Number of the first batch of a rank, among those of `in_batches`."""
        return part.rank * -(-self.n_tiles // batch_size) // part.n_ranks

    def in_batches(
        self, batch_size: int, columns: Iterable[str] | None = None, part: Part = WHOLE
    ) -> Iterator[TileBatch]:
        """All tiles in the order of the shards, in batches of `batch_size` (the last one is smaller).

        Blocks of a shard hold few tiles of one split. Several ranks share the batches, which stay the same.
        """
        waiting: list[TileBatch] = []
        n_waiting = 0
        for block in self._in_order(columns, batch_size, part):
            waiting.append(block)
            n_waiting += len(block)
            if n_waiting < batch_size:
                continue
            joined = TileBatch.concatenate(waiting)
            n_whole = n_waiting // batch_size * batch_size
            for start in range(0, n_whole, batch_size):
                yield joined.select(slice(start, start + batch_size))
            waiting, n_waiting = [joined.select(slice(n_whole, None))], n_waiting - n_whole
        if n_waiting:
            yield TileBatch.concatenate(waiting)

    def shuffled(
        self,
        seed: int,
        epoch: int,
        batch_size: int,
        *,
        columns: Iterable[str] | None = None,
        buffer_blocks: int | None = None,
        part: Part = WHOLE,
    ) -> Iterator[TileBatch]:
        """Batches of exactly `batch_size` tiles in an order that depends on (seed, epoch) alone.

        Blocks are permuted over all shards; within a buffer of blocks the tiles are shuffled. The last, partial batch
        is dropped (another permutation drops other tiles next epoch), unless it is the only one.

        Of n ranks, each reads an n-th of the permuted blocks, so that all have equally many batches, and none of them
        a tile of another. A block at the border of two shares is read by both, and each takes its own tiles.

        Parameters
        ----------
        seed, epoch : int
        batch_size : int
        columns : iterable of str, optional
            Event columns to read; all by default.
        buffer_blocks : int, optional
            How many blocks are in memory at once.
        part : Part
            Which rank reads; `batch_size` is that of one rank.
        """
        rng = np.random.default_rng([seed, epoch])
        order = rng.permutation(len(self._blocks))
        run = _Run(order)
        if part.n_ranks > 1:
            size = int(self.block_items.sum()) // part.n_ranks
            run = self._run(order, part.rank * size, (part.rank + 1) * size)
            rng = np.random.default_rng([seed, epoch, part.rank + 1])
        blocks = self._read_run(run, None if columns is None else list(columns))
        left: TileBatch | None = None
        emitted = False
        while read := list(islice(blocks, buffer_blocks or self._buffer_blocks)):
            buffer = TileBatch.concatenate(read)
            read.clear()  # not in memory twice
            buffer = buffer.select(self._shuffled_rows(buffer, rng))
            if left is not None and len(left):
                buffer = TileBatch.concatenate([left, buffer])
            ends = self._batch_ends(buffer, batch_size)
            for start, stop in pairwise([0, *ends]):
                emitted = True
                yield buffer.select(slice(start, stop))
            left = buffer.select(slice(ends[-1] if ends else 0, None))
        if left is not None and len(left) and not emitted:
            yield left

    def _run(self, order: np.ndarray, first: int, last: int) -> _Run:
        """Items `first` to before `last` of the blocks in this order."""
        items = self.block_items[order]
        ends = np.cumsum(items)
        if first >= last:
            return _Run(order[:0])
        begin, end = np.searchsorted(ends, first, side="right"), np.searchsorted(ends, last)
        starts = ends - items
        return _Run(order[begin : end + 1], int(first - starts[begin]), int(last - starts[end]))

    def _read_run(self, run: _Run, columns: Iterable[str] | None) -> Iterator[TileBatch]:
        for number, place in enumerate(run.places):
            batch = self._read(self._blocks[place], columns)
            first = run.first if number == 0 else 0
            last = run.last if number == len(run.places) - 1 else None
            whole = first == 0 and last is None
            yield batch if whole else batch.select(self._rows_of_items(batch, first, last))

    def _rows_of_items(self, batch: TileBatch, first: int, last: int | None) -> slice:
        """Rows of some items of a block."""
        return slice(first, last)

    def _shuffled_rows(self, buffer: TileBatch, rng: np.random.Generator) -> np.ndarray:
        """An order of the tiles of a buffer."""
        return rng.permutation(len(buffer))

    def _batch_ends(self, buffer: TileBatch, batch_size: int) -> list[int]:
        """Where whole batches of `batch_size` items end."""
        return list(range(batch_size, len(buffer) + 1, batch_size))

    def n_batches(self, batch_size: int) -> int:
        """Number of batches that `shuffled` yields in each epoch; the same of `batch_size` on one rank or on all."""
        return max(self.n_tiles // batch_size, min(self.n_tiles, 1))

    def events(self, columns: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """Event columns of all tiles in the order of `sequential`, without reading an image.

        `weights`, `split`, `group` and `source_index` (which of `sources`) come along.
        """
        names = self.columns if columns is None else list(columns)
        parts: dict[str, list[np.ndarray]] = {
            name: [] for name in (*names, "weights", "split", "group", "source_index")
        }
        for number, keep in enumerate(self._keep):
            if not keep.any():
                continue
            shard, manifest = self._shard(number), self._shards[number][0]
            extra = self._class_columns(manifest) if self._equalise else []
            found = shard.read_columns({*names, "weights", "split", *extra}) | {"group": shard.group}
            if self._equalise:
                found["weights"] = found["weights"] * self._class_weights(manifest, found)
            found["group"] = shard.group + self._first_group[number]
            found["source_index"] = np.full(shard.n_tiles, number)
            self._renumber(found)
            for name, column in parts.items():
                column.append(found[name][keep])
        return {name: np.concatenate(column) if column else np.empty(0) for name, column in parts.items()}

    def groups(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Of each shard: its place in `sources`, the numbers of its selected groups, and the first tile of each."""
        number = 0
        for manifest in self.manifests:
            with manifest.index() as index:
                for rows in index.shards(self._index_columns()):
                    tiles = np.flatnonzero(self._selected(number, rows))
                    group, first = np.unique(rows.group[tiles], return_index=True)
                    yield number, group, tiles[first]
                    number += 1

    def image(self, shard: int, tile: int) -> np.ndarray:
        """The image of a tile of a shard, as it is stored, shape (C, H, W)."""
        return self._shard(shard).tiles(tile, tile + 1, ()).images[0]

    @property
    def sources(self) -> list[str]:
        """Source name of each shard."""
        return self._sources

    def shard_attributes(self) -> list[dict[str, Any]]:
        """Attributes of each shard, in the order of `sources`."""
        return [self._shard(number).attributes for number in range(len(self._shards))]

    def shard_cameras(self) -> list[tuple[TileCamera, ...]]:
        """Those of `cameras` as each shard has them, in the order of `sources`."""
        chosen = {camera.identity for camera in self.cameras}
        return [tuple(camera for camera in cameras if camera.identity in chosen) for cameras in self._cameras_of]

    def _class_columns(self, manifest: Manifest) -> list[str]:
        """Event columns that `_class_weights` reads, besides `group`."""
        return needs_of(manifest.weightings)

    def _class_weights(self, manifest: Manifest, events: Mapping[str, np.ndarray]) -> np.ndarray | float:
        """Factors that equalise the classes; `events` holds all tiles of a shard or of a block."""
        return weights_of(manifest.weightings, events) if manifest.weightings else 1.0

    def _renumber(self, events: dict[str, np.ndarray]) -> None:
        """Count the column `camera` in `cameras`, where these are not all; other cameras get 0."""
        if CAMERA_COLUMN in events and CAMERA_COLUMN in self._where:
            places = self._where[CAMERA_COLUMN]
            number = np.searchsorted(places, events[CAMERA_COLUMN]).astype(events[CAMERA_COLUMN].dtype)
            events[CAMERA_COLUMN] = np.minimum(number, len(places) - 1)

    def _read(self, block: "Block", columns: Iterable[str] | None) -> TileBatch:
        number = block.shard
        shard, manifest = self._shard(number), self._shards[number][0]
        wanted = shard.columns if columns is None else list(columns)
        extra = self._class_columns(manifest) if self._equalise else []
        batch = shard.tiles(block.start, block.stop, {*wanted, *extra})
        batch.base_weights = batch.weights
        if self._equalise:
            factors = self._class_weights(manifest, batch.events | {"group": batch.group})
            batch.weights = (batch.weights * factors).astype(np.float32)
        batch.events = {name: batch.events[name] for name in wanted}
        self._renumber(batch.events)
        batch.group = batch.group + self._first_group[number]
        keep = self._keep.part(number, block.tiles)
        return batch if keep.all() else batch.select(keep)

    def _shard(self, number: int) -> Shard:
        """One open file per shard, the most recent ones kept; each worker process has its own reader."""
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        if len(self._open) >= _OPEN_SHARDS:
            self._open.popitem(last=False)[1].close()
        manifest, place = self._shards[number]
        self._open[number] = manifest.open_shard(place)
        return self._open[number]

    def close(self) -> None:
        """Close all shards."""
        while self._open:
            self._open.popitem()[1].close()
