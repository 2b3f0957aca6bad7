"""Tables of a DL2 file: made with PyTables as ctapipe writes them, or taken over byte for byte with h5py."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.hdf5 import hdf5_errors

_BLOCK_BYTES = 16 << 20
_FAR_ROWS = 64  # rows further apart are read separately: HDF5 decompresses about as many together


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


def take_whole(data: Any, out: Any, path: str) -> None:
    """Copy a dataset as it is; it is read once, since HDF5 copies damaged pieces without a word.

    It is read afterwards: HDF5 2.0 writes beyond its buffers where it copies pieces with a checksum that are in the
    cache of a dataset, and the process is lost.
    """
    from pipeline.output.hdf5 import make_room

    make_room(out, data.id.get_storage_size())
    with hdf5_errors(data.file.filename):
        make_groups(data.file, out, path.rpartition("/")[0])
        data.file.copy(data, out, name=path)
        rows = max(_BLOCK_BYTES // max(data.nbytes // max(len(data), 1), 1), 1) if data.ndim else 1
        for start in range(0, len(data), rows) if data.ndim else ():
            data[start : start + rows]


def take_rows(
    table: Any,
    out: Any,
    path: str,
    rows: np.ndarray,
    *,
    keys: Mapping[str, np.ndarray] | None = None,
    change: Callable[[np.ndarray, slice], None] | None = None,
) -> None:
    """Copy chosen rows of a table in a chosen order, as bytes and with all attributes.

    Neither types nor pickled enums are interpreted, so what ctapipe wrote is what ctapipe reads.

    Parameters
    ----------
    table : h5py.Dataset
    out : h5py.File
    path : str
        Where the copy goes.
    rows : ndarray of int, shape (n,)
        Rows of the table; -1 for one that it does not have: such a row is NaN, -1 or false in all columns but the keys.
    keys : mapping, optional
        Key column -> (n,) values; needed where a row is -1.
    change : callable, optional
        Called with each block of rows, a view by column, and its place in the copy, before it is written.
    """
    import h5py

    stored, shape = table.id.get_type(), (len(rows),)
    creation = table.id.get_create_plist().copy()
    creation.set_obj_track_times(False)
    chunked = creation.get_layout() == h5py.h5d.CHUNKED
    space = h5py.h5s.create_simple(shape, (h5py.h5s.UNLIMITED,) if chunked else shape)
    parent, _, name = path.rpartition("/")
    make_groups(table.file, out, parent)
    copy = h5py.h5d.create(out[parent or "/"].id, name.encode(), stored, space, dcpl=creation)
    copy_attributes(table, h5py.Dataset(copy))
    size = max(_BLOCK_BYTES // stored.get_size(), 1)
    for start in range(0, len(rows), size):
        here = slice(start, min(start + size, len(rows)))
        block = _read(table, rows[here])
        columns = block.view(table.dtype)
        missing = rows[here] < 0
        if missing.any():
            columns[missing] = _nothing(table.dtype)
            for column, values in (keys or {}).items():
                columns[column][missing] = values[here][missing]
        if change is not None:
            change(columns, here)
        memory, disk = _hyperslab(copy, here.start, here.stop)
        copy.write(memory, disk, block, mtype=stored)


def _read(table: Any, rows: np.ndarray) -> np.ndarray:
    """Bytes of rows in any order; those below 0 are left as they are."""
    stored = table.id.get_type()
    block = np.zeros(len(rows), f"V{stored.get_size()}")
    order = np.argsort(rows, kind="stable")
    order = order[np.count_nonzero(rows < 0) :]
    rising = rows[order]
    far = np.diff(rising) > _FAR_ROWS
    # Bounded reads also where many rows that are not wanted stand between those that are.
    far |= np.diff(rising // max(_BLOCK_BYTES // stored.get_size(), 1)) > 0
    for piece in np.split(np.arange(len(rising)), np.flatnonzero(far) + 1) if len(rising) else ():
        first, last = rising[piece[0]], rising[piece[-1]]
        slab = np.empty(last - first + 1, block.dtype)
        memory, disk = _hyperslab(table.id, first, last + 1)
        with hdf5_errors(table.file.filename):
            table.id.read(memory, disk, slab, mtype=stored)
        block[order[piece]] = slab[rising[piece] - first]
    return block


def _nothing(dtype: np.dtype) -> np.ndarray:
    """A row without values: NaN, -1 for signed integers as in ctapipe's containers, 0 or false for all else."""
    row = np.zeros((), dtype)
    for name in dtype.names:
        kind = row[name].dtype.kind
        if kind in "fc":
            row[name] = np.nan
        elif kind == "i":
            row[name] = -1
    return row


def _hyperslab(dataset: Any, start: int, stop: int) -> tuple[Any, Any]:
    import h5py

    disk = dataset.get_space()
    disk.select_hyperslab((int(start),), (int(stop - start),))
    return h5py.h5s.create_simple((int(stop - start),)), disk


def make_groups(source: Any, out: Any, path: str) -> None:
    """Make a group and those above it, with the attributes that they have in the source."""
    name = ""
    for part in path.strip("/").split("/"):
        name = f"{name}/{part}"
        if name not in out:
            group = out.create_group(name)
            if name in source:
                copy_attributes(source[name], group)


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
