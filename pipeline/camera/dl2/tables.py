"""Tables of a DL2 file: made with PyTables as ctapipe writes them, or cut from the DL1 file byte for byte with h5py."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np


def create_table(file: Any, group: str, name: str, rows: np.ndarray, attributes: Sequence[Mapping[str, str]]) -> Any:
    """Make a table as ctapipe writes it: column attributes are ``CTAFIELD_<position>_<KEY>`` of the table."""
    table = file.create_table(
        group, name, description=np.dtype(rows.dtype), createparents=True, expectedrows=10_000, track_times=False
    )
    for position, entries in enumerate(attributes):
        for key, value in entries.items():
            table.attrs[f"CTAFIELD_{position}_{key}"] = value
    table.append(rows)
    return table


class Cursor:
    """Walk a table that lists events in the order of the trigger table, some events missing."""

    def __init__(self, read_ids: Callable[[int, int], tuple[np.ndarray, np.ndarray]], n_rows: int) -> None:
        self._read_ids, self._n_rows, self._next = read_ids, n_rows, 0

    @property
    def at_end(self) -> bool:
        return self._next == self._n_rows

    def take(self, positions: Mapping[tuple[int, int], int], n_at_most: int) -> tuple[int, np.ndarray]:
        """The next rows that belong to the events `positions`: the first row, and the place of each in the block."""
        first = self._next
        stop = min(first + n_at_most, self._n_rows)
        if stop == first:
            return first, np.empty(0, np.intp)
        obs_id, event_id = self._read_ids(first, stop)
        index = np.fromiter(
            (positions.get(key, -1) for key in zip(obs_id.tolist(), event_id.tolist(), strict=True)), np.intp
        )
        stop_here = (index < 0) | (np.diff(index, prepend=0) < 0)
        if stop_here.any():
            index = index[: np.argmax(stop_here)]
        self._next = first + len(index)
        return first, index


class FilteredTable:
    """A table of the source and its copy that keeps chosen rows, moved as bytes and with all attributes.

    Neither types nor pickled enums are interpreted, so what ctapipe wrote is what ctapipe reads.
    """

    def __init__(self, source: Any, path: str, out: Any) -> None:
        import h5py

        self._table = source[path]
        space = h5py.h5s.create_simple((0,), (h5py.h5s.UNLIMITED,))
        creation = self._table.id.get_create_plist().copy()
        creation.set_obj_track_times(False)
        parent = out.require_group(path.rpartition("/")[0])
        name = path.rpartition("/")[2].encode()
        self._copy = h5py.h5d.create(parent.id, name, self._table.id.get_type(), space, dcpl=creation)
        copy_attributes(self._table, h5py.Dataset(self._copy))
        self._type = self._table.id.get_type()
        self.n_rows = len(self._table)
        self.cursor = Cursor(self._ids, self.n_rows)
        self._rows = np.empty(0, f"V{self._type.get_size()}")

    def _ids(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        ids = self._table.fields(["obs_id", "event_id"])[start:stop]
        return ids["obs_id"], ids["event_id"]

    def block(self, start: int, stop: int) -> tuple[dict[tuple[int, int], int], np.ndarray, np.ndarray]:
        """Read rows by position: (obs_id, event_id) -> place in the block, and the two ids."""
        stop = min(stop, self.n_rows)
        obs_id, event_id = self._ids(start, stop)
        self._read(start, stop)
        keys = zip(obs_id.tolist(), event_id.tolist(), strict=True)
        return {key: place for place, key in enumerate(keys)}, obs_id, event_id

    def follow(
        self,
        positions: Mapping[tuple[int, int], int],
        n_at_most: int,
        keep: Callable[["FilteredTable", np.ndarray], np.ndarray],
    ) -> None:
        """Read the rows of a block of events and write those for which `keep(self, event index)` is true."""
        first, index = self.cursor.take(positions, n_at_most)
        self._read(first, first + len(index))
        if len(index):
            self.write(np.asarray(keep(self, index), bool))

    def _read(self, start: int, stop: int) -> None:
        self._start, self._stop = start, stop
        self._rows = np.empty(stop - start, f"V{self._type.get_size()}")
        if stop > start:
            memory, disk = _hyperslab(self._table.id, start, stop)
            self._table.id.read(memory, disk, self._rows, mtype=self._type)

    def column(self, name: str) -> np.ndarray:
        """One column of the rows just read."""
        return self._table.fields(name)[self._start : self._stop]

    def member(self, name: str) -> np.ndarray:
        """Bytes (n, size) of a column of the rows just read; a view."""
        place = self._type.get_member_index(name.encode())
        offset = self._type.get_member_offset(place)
        size = self._type.get_member_type(place).get_size()
        return self._rows.view(np.uint8).reshape(len(self._rows), -1)[:, offset : offset + size]

    def replace(self, name: str, values: np.ndarray) -> None:
        """Overwrite a column of one-byte elements in the rows just read."""
        self.member(name)[:] = values

    def write(self, keep: np.ndarray) -> None:
        """Append the rows just read that `keep` selects."""
        rows = np.ascontiguousarray(self._rows[keep])
        start = self._copy.shape[0]
        if len(rows):
            self._copy.set_extent((start + len(rows),))
            memory, disk = _hyperslab(self._copy, start, start + len(rows))
            self._copy.write(memory, disk, rows, mtype=self._type)


def _hyperslab(dataset: Any, start: int, stop: int) -> tuple[Any, Any]:
    import h5py

    disk = dataset.get_space()
    disk.select_hyperslab((start,), (stop - start,))
    return h5py.h5s.create_simple((stop - start,)), disk


def copy_attributes(source: Any, target: Any) -> None:
    """Copy all attributes as bytes (their values may be pickled objects, which must not be run)."""
    import h5py

    for name in _attribute_names(source):
        attribute = h5py.h5a.open(source.id, name)
        stored_type, space = attribute.get_type(), attribute.get_space()
        if h5py.h5a.exists(target.id, name):
            h5py.h5a.delete(target.id, name)
        copy = h5py.h5a.create(target.id, name, stored_type, space)
        if isinstance(stored_type, h5py.h5t.TypeStringID) and stored_type.is_variable_str():
            value = np.empty(space.get_simple_extent_dims() or (), h5py.special_dtype(vlen=bytes))
            attribute.read(value)
            copy.write(value)
        elif space.get_simple_extent_type() != h5py.h5s.NULL:
            value = np.empty(space.get_simple_extent_dims() or (), f"V{stored_type.get_size()}")
            attribute.read(value, mtype=stored_type)
            copy.write(value, mtype=stored_type)


def _attribute_names(node: Any) -> Iterator[bytes]:
    import h5py

    for place in range(h5py.h5a.get_num_attrs(node.id)):
        yield h5py.h5a.open(node.id, index=place).name
