"""The small columns of all tiles of a manifest, in one file beside it: `X.json` has `X.index.h5`.

Which tiles belong to a split, to a class or to a camera, where events begin and what equalises the classes is known
from these columns alone. Without them every reader of every process would open every shard for that (9 ms each); with
them it opens those that it reads tiles of, when it reads them. A manifest holds the digest of its index; an index that
is missing or another one is made again from the shards, in memory.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import hdf5plugin
import numpy as np

from pipeline.errors import InputFileError
from pipeline.hdf5 import hdf5_errors, open_file
from pipeline.tiles.event_rows import EVENT_KEYS
from pipeline.tiles.layout import CAMERA_COLUMN, TileCamera
from pipeline.tiles.shards import Shard

FORMAT_NAME = "lightpool-index"
FORMAT_VERSION = 1
#: What tells images apart; indexed where shards have it.
IMAGE_KEYS = (*EVENT_KEYS, "tel_id")
_KEYS = (CAMERA_COLUMN, *IMAGE_KEYS)
_CHUNK_ROWS = 1 << 16
_PART_ROWS = 1 << 19  # tiles that are in memory at once


def index_of(manifest: str | Path) -> Path:
    """Where the index of a manifest stands."""
    return Path(manifest).with_suffix(".index.h5")


@dataclass(frozen=True)
class ShardRows:
    """The indexed columns of one shard.

    Attributes
    ----------
    columns : dict of ndarray, shape (N,)
        Those that the shard has, and `split`.
    group_sizes : ndarray of int, shape (n_groups,)
    cameras : tuple of TileCamera
    """

    columns: dict[str, np.ndarray]
    group_sizes: np.ndarray
    cameras: tuple[TileCamera, ...] = ()

    @property
    def group(self) -> np.ndarray:
        """Group number of each tile, shape (N,), counted from 0 within the shard."""
        return np.repeat(np.arange(len(self.group_sizes)), self.group_sizes)

    @classmethod
    def of(cls, shard: Shard, names: Sequence[str]) -> Self:
        """Read them from a shard; `names` beside the keys of images."""
        wanted = [name for name in dict.fromkeys((*_KEYS, *names)) if name in shard.columns]
        return cls(shard.read_columns(wanted) | {"split": shard.split}, np.diff(shard.group_offsets), shard.cameras)


class IndexWriter:
    """Write an index shard by shard; memory is bounded by one shard and a buffer.

    Parameters
    ----------
    file : h5py.File
        Empty, and open for writing.
    names : sequence of str
        Columns beside the keys of images.
    """

    def __init__(self, file: h5py.File, names: Sequence[str]) -> None:
        self._file = file
        self._names = tuple(dict.fromkeys((*_KEYS, *names)))
        file.attrs["format"], file.attrs["format_version"] = FORMAT_NAME, FORMAT_VERSION
        file.attrs["columns"] = json.dumps(self._names)
        self._buffers: dict[str, list[np.ndarray]] = {}
        self._n_waiting = 0
        self._n_tiles: list[int] = []
        self._n_groups: list[int] = []
        self._has: dict[str, list[bool]] = {name: [] for name in self._names}
        self._cameras: dict[tuple[TileCamera, ...], int] = {}
        self._cameras_of: list[int] = []

    def add(self, rows: ShardRows) -> None:
        """Append the columns of a shard; those that it lacks are filled with zeros, and noted."""
        n = len(rows.columns["split"])
        for name in self._names:
            column = rows.columns.get(name)
            self._has[name].append(column is not None)
            # One type for all shards of all files: readers of numbers, not of their types, need no more.
            kind = np.float64 if column is not None and column.dtype.kind == "f" else np.int64
            self._wait(name, np.zeros(n, kind) if column is None else column.astype(kind))
        self._wait("split", rows.columns["split"].astype(np.uint8))
        self._wait("group_sizes", rows.group_sizes.astype(np.int64))
        self._n_tiles.append(n)
        self._n_groups.append(len(rows.group_sizes))
        self._cameras_of.append(self._cameras.setdefault(rows.cameras, len(self._cameras)))
        self._n_waiting += n
        if self._n_waiting >= _PART_ROWS:
            self._flush()

    def _wait(self, name: str, column: np.ndarray) -> None:
        self._buffers.setdefault(name, []).append(column)

    def _flush(self) -> None:
        for name, parts in self._buffers.items():
            # Whole numbers where all shards have them so; a shard that has fractions makes all of them fractions.
            kinds = {part.dtype.kind for part, has in zip(parts, self._recent(name, len(parts)), strict=True) if has}
            joined = np.concatenate([part.astype(np.float64) for part in parts] if "f" in kinds else parts)
            if name not in self._file:
                self._create(name, joined.dtype)
            target = self._file[name]
            if joined.dtype.kind == "f" and target.dtype.kind != "f":
                target = self._promoted(name)
            target.resize(len(target) + len(joined), axis=0)
            target[len(target) - len(joined) :] = joined
        self._buffers, self._n_waiting = {}, 0

    def _recent(self, name: str, n: int) -> list[bool]:
        return self._has[name][-n:] if name in self._has else [True] * n

    def _create(self, name: str, dtype: Any) -> h5py.Dataset:
        return self._file.create_dataset(
            name, shape=(0,), maxshape=(None,), chunks=(_CHUNK_ROWS,), dtype=dtype, fletcher32=True,
            **hdf5plugin.Bitshuffle(),
        )  # fmt: skip

    def _promoted(self, name: str) -> h5py.Dataset:
        """The same column with fractions: the first shards lacked it, or had whole numbers."""
        before = self._file[name][:]
        del self._file[name]
        made = self._create(name, np.float64)
        made.resize(len(before), axis=0)
        made[:] = before
        return made

    def close(self) -> None:
        """Write what is left, and what is known of each shard. The file stays open."""
        self._flush()
        facts = {"n_tiles": self._n_tiles, "n_groups": self._n_groups, "cameras_of": self._cameras_of}
        facts |= {f"has_{name}": has for name, has in self._has.items()}
        for name, values in facts.items():
            self._file.create_dataset(f"shards/{name}", data=np.array(values, np.int64), **hdf5plugin.Bitshuffle())
        cameras = [[camera.model_dump() for camera in cameras] for cameras in self._cameras]
        self._file.create_dataset("shards/cameras", data=json.dumps(cameras))


class TileIndex:
    """Read an index.

    Attributes
    ----------
    n_tiles, n_groups : ndarray of int, shape (n_shards,)

    Raises
    ------
    InputFileError
        If the file is damaged or not an index.
    """

    def __init__(self, file: h5py.File) -> None:
        self._file = file
        with hdf5_errors(file.filename):
            if file.attrs.get("format") != FORMAT_NAME or file.attrs.get("format_version") != FORMAT_VERSION:
                raise InputFileError(f"{file.filename} is not an index of tiles; remake it with `lightpool manifest`")
            self.names: tuple[str, ...] = tuple(json.loads(file.attrs["columns"]))
            self.n_tiles: np.ndarray = file["shards/n_tiles"][:]
            self.n_groups: np.ndarray = file["shards/n_groups"][:]
            self._has = {name: file[f"shards/has_{name}"][:].astype(bool) for name in self.names}
            self._cameras_of = file["shards/cameras_of"][:]
            cameras = json.loads(file["shards/cameras"][()])
        self._cameras = [tuple(TileCamera(**camera) for camera in cameras) for cameras in cameras]
        self._first_tile = np.concatenate([[0], np.cumsum(self.n_tiles)])
        self._first_group = np.concatenate([[0], np.cumsum(self.n_groups)])

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open an index file; close it with `close`."""
        return cls(open_file(path))

    @classmethod
    def in_memory(cls, shards: Iterator[Shard], names: Sequence[str] = ()) -> Self:
        """Make the index of shards that have none; each is closed."""
        file = h5py.File("index in memory", "w", driver="core", backing_store=False)
        writer = IndexWriter(file, names)
        for shard in shards:
            with shard:
                writer.add(ShardRows.of(shard, names))
        writer.close()
        return cls(file)

    def cameras(self, number: int) -> tuple[TileCamera, ...]:
        """The cameras that tiles of a shard may be of."""
        return self._cameras[self._cameras_of[number]]

    def distinct_cameras(self) -> list[tuple[TileCamera, ...]]:
        """The lists of cameras that shards have, each once."""
        return self._cameras

    def has(self, name: str) -> np.ndarray:
        """Which shards have a column, shape (n_shards,), bool."""
        return self._has[name] if name in self._has else np.zeros(len(self.n_tiles), bool)

    def shards(self, names: Sequence[str] | None = None, chosen: np.ndarray | None = None) -> Iterator[ShardRows]:
        """The columns of one shard after another, in the order of the manifest.

        Parameters
        ----------
        names : sequence of str, optional
            All by default.
        chosen : ndarray of bool, shape (n_shards,), optional
            Leave the other shards out.
        """
        wanted = [name for name in (self.names if names is None else names) if name in self._has]
        keep = np.ones(len(self.n_tiles), bool) if chosen is None else chosen
        for first, stop in self._runs():
            if not keep[first:stop].any():
                continue
            tiles = slice(self._first_tile[first], self._first_tile[stop])
            groups = slice(self._first_group[first], self._first_group[stop])
            with hdf5_errors(self._file.filename):
                columns = {name: self._file[name][tiles] for name in (*wanted, "split")}
                sizes = self._file["group_sizes"][groups]
            for number in range(first, stop):
                if keep[number]:
                    yield self._of_one(number, columns, sizes, int(tiles.start), int(groups.start))

    def _of_one(
        self, number: int, columns: Mapping[str, np.ndarray], sizes: np.ndarray, tile: int, group: int
    ) -> ShardRows:
        own = slice(self._first_tile[number] - tile, self._first_tile[number + 1] - tile)
        groups = slice(self._first_group[number] - group, self._first_group[number + 1] - group)
        return ShardRows(
            {name: column[own] for name, column in columns.items() if name == "split" or self._has[name][number]},
            sizes[groups],
            self.cameras(number),
        )

    def _runs(self) -> Iterator[tuple[int, int]]:
        """Shards that are read at once: first, and behind the last."""
        first = 0
        while first < len(self.n_tiles):
            stop = int(np.searchsorted(self._first_tile, self._first_tile[first] + _PART_ROWS, side="right")) - 1
            stop = max(stop, first + 1)
            yield first, stop
            first = stop

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
