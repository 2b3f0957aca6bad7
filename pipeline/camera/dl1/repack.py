"""Copy an HDF5 file so that equal content gives equal bytes."""

from collections.abc import Mapping
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  (registers the blosc filter)
import numpy as np

from pipeline.output.hdf5 import new_hdf5


def repack(source: str | Path, target: str | Path, root_attributes: Mapping[str, str | None]) -> None:
    """Copy `source` to `target` without the times of creation that PyTables writes into the headers of its tables.

    Data go over as they are compressed; types and attributes are copied at the lowest level, so that PyTables finds its
    booleans and strings unchanged.

    Parameters
    ----------
    root_attributes : mapping
        Attributes of the root group to replace, or to leave out where the value is None.
    """
    with h5py.File(source, "r") as old, new_hdf5(target) as new:

        def copy(name: str, node: h5py.Group | h5py.Dataset) -> None:
            if isinstance(node, h5py.Dataset):
                _copy_dataset(node, new, name)
            else:
                new.create_group(name)
            _copy_attributes(node, new[name])

        old.visititems(copy)
        _copy_attributes(old, new, skip=root_attributes)
        for key, value in root_attributes.items():
            if value is not None:
                new.attrs[key] = np.bytes_(value.encode())


def _copy_dataset(old: h5py.Dataset, target: h5py.File, name: str) -> None:
    properties = old.id.get_create_plist()
    properties.set_obj_track_times(False)
    new = h5py.h5d.create(target.id, name.encode(), old.id.get_type(), old.id.get_space(), properties)
    if old.chunks is None:
        data = np.empty(old.shape, old.dtype)
        old.id.read(h5py.h5s.ALL, h5py.h5s.ALL, data)
        new.write(h5py.h5s.ALL, h5py.h5s.ALL, data)
        return
    for number in range(old.id.get_num_chunks()):
        place = old.id.get_chunk_info(number).chunk_offset
        mask, data = old.id.read_direct_chunk(place)
        new.write_direct_chunk(place, data, mask)


def _copy_attributes(
    old: h5py.Group | h5py.Dataset, new: h5py.Group | h5py.Dataset, skip: Mapping[str, str | None] | None = None
) -> None:
    for name in old.attrs:
        if skip and name in skip:
            continue
        source = h5py.h5a.open(old.id, name.encode())
        stored_type, space = source.get_type(), source.get_space()
        copy = h5py.h5a.create(new.id, name.encode(), stored_type, space)
        if space.get_simple_extent_type() == h5py.h5s.NULL:
            continue
        data = np.empty(source.shape, source.dtype)
        source.read(data, mtype=stored_type)
        copy.write(data, mtype=stored_type)
