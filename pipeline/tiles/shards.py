"""One HDF5 shard of training tiles per input run or field.

Layout: `images` (N, C, H, W), `targets/NAME` (N, ...), `events/COLUMN` (N,), `weights` (N,), `split` (N,),
`groups` (n_groups + 1,) offsets of the runs of tiles that belong together, and optionally `masks` (N, H, W).
Tiles are stored and read in chunks of 64: h5py's single-tile and fancy indexing decompress a whole chunk for
each tile.
"""

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import hdf5plugin
import numpy as np

from pipeline.errors import InputFileError
from pipeline.hdf5 import hdf5_errors, open_file
from pipeline.output.hdf5 import new_hdf5
from pipeline.tiles.layout import (
    CHUNK_TILES,
    FORMAT_NAME,
    FORMAT_VERSION,
    MASK_DTYPE,
    Channel,
    ShardHead,
    TileCamera,
    check_arrays,
    read_head,
)

_COLUMN_CHUNK = 4096
_COMPRESSION = hdf5plugin.Bitshuffle()  # lz4 after bit transposition; lossless


@dataclass
class TileBatch:
    """Some tiles, with everything that is known of each.

    Attributes
    ----------
    images : ndarray, shape (N, C, H, W)
    events : dict of ndarray, shape (N,)
        Event columns; names carry their unit.
    targets : dict of ndarray, shape (N, ...)
    weights : ndarray of float32, shape (N,)
        How much each tile counts; as a reader gives them, with the manifest's class equalisation if requested.
    base_weights : ndarray of float32, shape (N,)
        The same without equalisation.
    split : ndarray of uint8, shape (N,)
        Values of `pipeline.tiles.SPLITS`.
    group : ndarray of int64, shape (N,)
        Tiles with equal numbers (one shower, one field) are contiguous.
    masks : ndarray of uint16, shape (N, H, W), optional
        Bit flags per tile pixel.
    """

    images: np.ndarray
    events: dict[str, np.ndarray]
    group: np.ndarray
    targets: dict[str, np.ndarray] = field(default_factory=dict)
    weights: np.ndarray | None = None
    base_weights: np.ndarray | None = None
    split: np.ndarray | None = None
    masks: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.images)
        if self.weights is None:
            self.weights = np.ones(n, np.float32)
        if self.base_weights is None:
            self.base_weights = self.weights
        if self.split is None:
            self.split = np.zeros(n, np.uint8)
        lengths = {name: len(array) for name, array in self._arrays()}
        wrong = {name: length for name, length in lengths.items() if length != n}
        if wrong:
            raise ValueError(f"a batch of {n} images has columns of other lengths: {wrong}")

    def _arrays(self) -> Iterable[tuple[str, np.ndarray]]:
        yield from (
            ("weights", self.weights),
            ("base_weights", self.base_weights),
            ("split", self.split),
            ("group", self.group),
        )
        yield from self.events.items()
        yield from self.targets.items()
        if self.masks is not None:
            yield "masks", self.masks

    def __len__(self) -> int:
        return len(self.images)

    def select(self, index: np.ndarray | slice) -> "TileBatch":
        """The tiles at `index` (a slice, integers or booleans), in that order."""
        return TileBatch(
            images=self.images[index],
            events={name: column[index] for name, column in self.events.items()},
            group=self.group[index],
            targets={name: target[index] for name, target in self.targets.items()},
            weights=self.weights[index],
            base_weights=self.base_weights[index],
            split=self.split[index],
            masks=None if self.masks is None else self.masks[index],
        )

    def rows(self, rows: slice) -> "TileBatch":
        """Those rows of the pixels of each tile, without targets."""
        masks = None if self.masks is None else self.masks[:, rows]
        return replace(self, images=self.images[:, :, rows], masks=masks, targets={})

    @classmethod
    def concatenate(cls, batches: Sequence["TileBatch"]) -> "TileBatch":
        """One batch of several with the same columns."""
        first = batches[0]
        if len(batches) == 1:
            return first
        return cls(
            images=np.concatenate([b.images for b in batches]),
            events={name: np.concatenate([b.events[name] for b in batches]) for name in first.events},
            group=np.concatenate([b.group for b in batches]),
            targets={name: np.concatenate([b.targets[name] for b in batches]) for name in first.targets},
            weights=np.concatenate([b.weights for b in batches]),
            base_weights=np.concatenate([b.base_weights for b in batches]),
            split=np.concatenate([b.split for b in batches]),
            masks=None if first.masks is None else np.concatenate([b.masks for b in batches]),
        )


class ShardWriter:
    """Write a shard chunk by chunk; memory is bounded by one appended batch.

    Parameters
    ----------
    path : path
        File to make (a temporary name of `pipeline.files.atomic_output`).
    channels : sequence of Channel
    tile_shape : (int, int)
        (H, W).
    dtype : str
        float16 for camera images, float32 for sky frames (float16 ends at 65,504).
    source : str
        Name of the run or field: with the group it decides the split.
    wing : {"camera", "sky"}
    attributes : mapping
        JSON-able facts of the whole shard: recipe, provenance ...; of the camera, `cameras`, a list of `TileCamera`s
        in the order of their identities, in which the event column `camera` counts.
    columns, targets : mapping, optional
        Event columns (name -> dtype) and targets (name -> (shape without N, dtype)), declared when a shard may stay
        empty; otherwise taken from the first batch.
    masks : bool
        Whether tiles come with masks.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        channels: Sequence[Channel],
        tile_shape: tuple[int, int],
        dtype: str = "float16",
        source: str,
        wing: str,
        attributes: Mapping[str, Any],
        columns: Mapping[str, Any] | None = None,
        targets: Mapping[str, tuple[tuple[int, ...], Any]] | None = None,
        masks: bool = False,
    ) -> None:
        self._datasets: dict[str, h5py.Dataset] = {}
        self._tile_shape = tuple(tile_shape)
        self._offsets: list[int] = [0]
        self._last_group: int | None = None
        self._seen_groups: set[int] = set()
        self.n_tiles = 0
        with contextlib.ExitStack() as stack:
            self._file = stack.enter_context(new_hdf5(path))
            attrs = self._file.attrs
            attrs["format"], attrs["format_version"] = FORMAT_NAME, FORMAT_VERSION
            attrs["source"], attrs["wing"] = source, wing
            attrs["channel_names"] = [channel.name for channel in channels]
            attrs["channel_units"] = [channel.unit for channel in channels]
            attrs["attributes"] = json.dumps(dict(attributes), sort_keys=True, default=str)
            self._create("images", (len(channels), *self._tile_shape), dtype, CHUNK_TILES)
            self._create("weights", (), np.float32, _COLUMN_CHUNK)
            self._create("split", (), np.uint8, _COLUMN_CHUNK)
            if masks:
                self._create("masks", self._tile_shape, MASK_DTYPE, CHUNK_TILES)
            self._file.create_group("events")
            self._file.create_group("targets")
            for name, column_dtype in (columns or {}).items():
                self._create(f"events/{name}", (), column_dtype, _COLUMN_CHUNK)
            for name, (shape, target_dtype) in (targets or {}).items():
                self._create(f"targets/{name}", tuple(shape), target_dtype, CHUNK_TILES)
            self._open = stack.pop_all()

    def _create(self, name: str, shape: tuple[int, ...], dtype: Any, chunk: int) -> None:
        self._datasets[name] = self._file.create_dataset(
            name,
            shape=(0, *shape),
            maxshape=(None, *shape),
            chunks=(chunk, *shape),
            dtype=dtype,
            fletcher32=True,  # of the compressed chunk: a bit that flips on a disk is an error, not another image
            **_COMPRESSION,
        )

    def append(self, batch: TileBatch) -> None:
        """Add tiles. A group may continue from the previous batch, but may not reappear later.

        Raises
        ------
        ValueError
            If columns or targets differ from the first batch's, the tile shape differs, masks have more than sixteen
            bits, or a group reappears.
        """
        if len(batch) == 0:
            return
        if batch.images.shape[2:] != self._tile_shape:
            raise ValueError(f"tiles of shape {batch.images.shape[2:]} do not fit a shard of {self._tile_shape}")
        if self.n_tiles == 0:
            self._declare(batch)
        self._check_names("events", batch.events)
        self._check_names("targets", batch.targets)
        if ("masks" in self._file) != (batch.masks is not None):
            raise ValueError("masks must come with every batch or with none, as declared")
        if batch.masks is not None and not np.can_cast(batch.masks.dtype, MASK_DTYPE):
            raise ValueError(f"masks of {batch.masks.dtype} could lose bits; give them as {np.dtype(MASK_DTYPE)}")
        self._note_groups(batch.group)
        extended = {"images": batch.images, "weights": batch.weights, "split": batch.split}
        extended |= {f"events/{name}": column for name, column in batch.events.items()}
        extended |= {f"targets/{name}": target for name, target in batch.targets.items()}
        if batch.masks is not None:
            extended["masks"] = batch.masks
        end = self.n_tiles + len(batch)
        for name, array in extended.items():
            dataset = self._datasets[name]
            dataset.resize(end, axis=0)
            dataset[self.n_tiles : end] = array
        self.n_tiles = end

    def _declare(self, batch: TileBatch) -> None:
        for name, column in batch.events.items():
            if name not in self._file["events"]:
                self._create(f"events/{name}", (), column.dtype, _COLUMN_CHUNK)
        for name, target in batch.targets.items():
            if name not in self._file["targets"]:
                self._create(f"targets/{name}", target.shape[1:], target.dtype, CHUNK_TILES)

    def _check_names(self, where: str, arrays: Mapping[str, np.ndarray]) -> None:
        known = set(self._file[where])
        if set(arrays) != known:
            differing = sorted(known.symmetric_difference(arrays))
            raise ValueError(f"{where} differ between the batches of a shard: {', '.join(differing)}")

    def _note_groups(self, group: np.ndarray) -> None:
        starts = np.flatnonzero(np.diff(group, prepend=group[0] - 1))
        for start in starts.tolist():
            identifier = int(group[start])
            if identifier == self._last_group:
                continue
            if identifier in self._seen_groups:
                raise ValueError(f"group {identifier} reappears after another: tiles of a group must be contiguous")
            self._seen_groups.add(identifier)
            self._last_group = identifier
            if self.n_tiles + start > 0:
                self._offsets.append(self.n_tiles + start)

    def add_warnings(self, warnings: Sequence[str]) -> None:
        """Add to the warnings of the provenance what became known while the tiles were made."""
        attributes = json.loads(self._file.attrs["attributes"])
        stamped = attributes["provenance"]
        stamped["warnings"] = [*stamped.get("warnings", ()), *warnings]
        self._file.attrs["attributes"] = json.dumps(attributes, sort_keys=True)

    def close(self) -> None:
        """Write the group offsets and close the file."""
        if not self._file:
            return
        offsets = [*self._offsets, self.n_tiles] if self.n_tiles else [0]
        with self._open:
            # Held, as the others: the errors of a dataset that nobody holds are lost.
            self._datasets["groups"] = self._file.create_dataset("groups", data=np.array(offsets, dtype=np.int64))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._open.__exit__(kind, error, trace)


class Shard:
    """Read a shard.

    Parameters
    ----------
    path : path
    looked_through : bool
        The file is known to be whole: this process opened it before, and it has not changed. It is not checked again,
        which costs several times as much as to open it.

    Raises
    ------
    InputFileError
        If the file is missing, is not a shard, is of another format version, or is damaged.
    """

    def __init__(self, path: str | Path, *, looked_through: bool = False) -> None:
        self.path = Path(path)
        # Tiles are read by whole chunks: caches of these, in each of many open files, would only cost memory.
        if looked_through:
            with hdf5_errors(self.path):
                self._file = h5py.File(self.path, "r", rdcc_nbytes=1 << 20)
            return
        self._file = open_file(self.path, rdcc_nbytes=1 << 20)
        try:
            with hdf5_errors(self.path):
                check_arrays(self._file, self._head)
        except BaseException:
            self._file.close()
            raise

    # What follows is read when it is asked for: a reader of tiles that opens a shard again needs little of it.
    @cached_property
    def _head(self) -> ShardHead:
        with hdf5_errors(self.path):
            return read_head(self._file)

    @cached_property
    def group_offsets(self) -> np.ndarray:
        """First tile of each group, and the number of tiles; shape (n_groups + 1,)."""
        with hdf5_errors(self.path):
            return self._file["groups"][:].astype(np.int64)

    @cached_property
    def split(self) -> np.ndarray:
        """Split of each tile, shape (N,)."""
        with hdf5_errors(self.path):
            return self._file["split"][:].astype(np.uint8)

    @property
    def source(self) -> str:
        """Name of the run or field."""
        return self._head.source

    @property
    def wing(self) -> str:
        """Camera or sky."""
        return self._head.wing

    @property
    def attributes(self) -> dict[str, Any]:
        """Facts of the whole shard: recipe, provenance ..."""
        return self._head.attributes

    @property
    def cameras(self) -> tuple[TileCamera, ...]:
        """The cameras that its tiles may be of; empty for the sky."""
        return self._head.cameras

    @property
    def channels(self) -> list[Channel]:
        """Image channels with their units."""
        return self._head.channels

    @cached_property
    def n_tiles(self) -> int:
        """Number of tiles."""
        return len(self._file["images"])

    @cached_property
    def tile_shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self._file["images"].shape[2:]

    @cached_property
    def columns(self) -> list[str]:
        """Names of the event columns."""
        return sorted(self._file["events"])

    @cached_property
    def targets(self) -> list[str]:
        """Names of the targets."""
        return sorted(self._file["targets"])

    @property
    def n_groups(self) -> int:
        """Number of showers or fields."""
        return max(len(self.group_offsets) - 1, 0)

    @property
    def group(self) -> np.ndarray:
        """Group number of each tile, shape (N,), counted from 0 within the shard."""
        return np.repeat(np.arange(self.n_groups), np.diff(self.group_offsets))

    def tiles(self, start: int, stop: int, columns: Iterable[str] | None = None) -> TileBatch:
        """Tiles from `start` to before `stop`, with `columns` of the events (all by default).

        Parts that begin and end with chunks of 64 cost the least: every chunk that is touched is unpacked.

        Raises
        ------
        ValueError
            If there are no such tiles.
        """
        if not 0 <= start < stop <= self.n_tiles:
            raise ValueError(f"tiles {start} to {stop} are outside 0 to {self.n_tiles} of {self.path}")
        part = slice(start, stop)
        names = self.columns if columns is None else list(columns)
        tiles = np.arange(part.start, part.stop)
        with hdf5_errors(self.path):
            return TileBatch(
                images=self._file["images"][part],
                events={name: self._file["events"][name][part] for name in names},
                group=np.searchsorted(self.group_offsets, tiles, side="right") - 1,
                targets={name: self._file["targets"][name][part] for name in self.targets},
                weights=self._file["weights"][part],
                split=self.split[part],
                masks=self._file["masks"][part] if "masks" in self._file else None,
            )

    def read_columns(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Whole event columns, `weights` or `split` by name, shape (N,) each; no images are read."""
        found = {}
        for name in names:
            place = self._file if name in ("weights", "split") else self._file["events"]
            if name not in place:
                raise InputFileError(f"{self.path} has no column {name!r}; it has {', '.join(self.columns)}")
            with hdf5_errors(self.path):
                found[name] = place[name][:]
        return found

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
