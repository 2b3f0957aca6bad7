"""HDF5 files that others made: opened once checked, and whatever is wrong inside them ends in one line.

What h5py raises for a damaged file is any of eight exceptions, from the library of HDF5 and from its own conversions;
and some files are read without complaint that should not be: a link leads to a file elsewhere, or a table of a few
bytes declares rows that no memory holds. Readers open with `open_hdf5` (or `open_file`, where they keep the file open,
and `hdf5_errors` around what they read), and take what they need with `dataset`, `read_columns` and `attribute`.
"""

import math
import os
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import h5py
import hdf5plugin  # noqa: F401  (registers the filters of compressed tables)
import numpy as np

from pipeline.errors import InputFileError, UserError
from pipeline.files import check_regular

#: What a column or an attribute may hold: whole numbers, numbers, truth values (as PyTables writes them, too), text.
Values = Literal["integer", "number", "bool", "text"]
_DTYPE_KINDS: Mapping[str, str] = {"integer": "iu", "number": "iuf", "bool": "biu", "text": "SUO"}

# Nothing that is compressed without loss in this field shrinks a thousandfold; constant columns do, but they are small.
_MAX_COMPRESSION = 1000
_ALWAYS_ALLOWED_BYTES = 64 << 20
_MAX_CHUNK_BYTES = 512 << 20
_MAX_LINKS = 1_000_000
_FROM_FILES = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError, IndexError)


# ---- opening ---------------------------------------------------------------------------------------------------------
@contextmanager
def open_hdf5(path: str | Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading; inside the block, every error of HDF5 is an `InputFileError`.

    Raises
    ------
    InputFileError
        If the file is not a regular one, is not HDF5, is cut, damaged, or being written, if a part of it lies in
        another file, if it declares more data than it can hold, or if a part that is read in the block is missing or
        cannot be read.
    """
    with hdf5_errors(path), open_file(path) as file:
        yield file


def open_file(path: str | Path, **options: Any) -> h5py.File:
    """Open an HDF5 file for reading and check it; the caller closes it, and reads it inside `hdf5_errors`.

    Parameters
    ----------
    path : path
    **options
        Of `h5py.File`, such as the size of the cache.

    Raises
    ------
    InputFileError
        As `open_hdf5`.
    """
    path = check_regular(path)
    if not path.stat().st_size:
        raise InputFileError(f"{path} is empty")
    try:
        file = h5py.File(path, "r", **options)
    except _FROM_FILES as error:
        raise InputFileError(f"{path} {_why_unreadable(path, error)}") from error
    try:
        with hdf5_errors(path):
            _check_nodes(file, path)
    except BaseException:
        file.close()
        raise
    return file


@contextmanager
def hdf5_errors(path: str | Path) -> Iterator[None]:
    """Turn what h5py raises inside the block into an `InputFileError` that names the file `path`.

    Errors of other code stay as they are: they are bugs, and keep their traceback.
    """
    try:
        yield
    except UserError:
        raise
    except _FROM_FILES as error:
        if not _raised_by_h5py(error):
            raise
        reason = _first_line(error)
        if "doesn't exist" in reason or "can't locate attribute" in reason or "component not found" in reason:
            raise InputFileError(f"{path} lacks a part that is needed ({reason}); make it again") from error
        raise InputFileError(
            f"{path} is damaged: a part of its data cannot be read ({reason}); copy it again or make it again"
        ) from error


def _raised_by_h5py(error: BaseException) -> bool:
    """Whether the last frame before that of any library but h5py is h5py's, and not ours."""
    modules = [str(frame.f_globals.get("__name__", "")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    for name in reversed(modules):
        package = name.partition(".")[0]
        if package == "h5py":
            return True
        if package in ("pipeline", "lightpool", "models"):
            return False
    return False


def _why_unreadable(path: Path, error: BaseException) -> str:
    reason = _first_line(error)
    if "truncated file" in reason:
        return "is cut short (HDF5 says: truncated file); copy or make it again"
    if "unable to lock file" in reason:
        return "is being written by another process; wait until that has ended"
    if "already open for write" in reason:
        return "was not closed by the program that wrote it; make it again, or repair it with `h5clear -s`"
    if isinstance(error, PermissionError):
        return "cannot be read: no permission"
    if "file signature not found" in reason:
        return "is not an HDF5 file, or its beginning is damaged"
    return f"is damaged: it cannot be read as HDF5 ({reason}); copy it again or make it again"


def _first_line(error: BaseException) -> str:
    text = str(error.args[-1]) if error.args else ""  # the last one: an OSError has its number first
    return text.splitlines()[0] if text else type(error).__name__


# ---- what a file may hold --------------------------------------------------------------------------------------------
def _check_nodes(file: h5py.File, path: Path) -> None:
    """Refuse what leaves the file, and datasets that are larger than its bytes can be. No data are read."""
    hard = []
    for raw_name, kind in _links(file):
        try:
            name = raw_name.decode()
        except UnicodeDecodeError as error:
            raise InputFileError(f"{path} is damaged: a node is named {raw_name!r:.80}, which is no text") from error
        if kind == h5py.h5l.TYPE_HARD:
            hard.append(name)
        elif kind != h5py.h5l.TYPE_SOFT:
            raise InputFileError(f"{path}: {name} is a link to another file; {_COPY_IT}")
    n_bytes = os.path.getsize(path)
    total = 0
    for name in hard:
        item = file[name]
        if isinstance(item, h5py.Dataset):
            total += _checked_size(item, path, n_bytes)
    if total > max(_ALWAYS_ALLOWED_BYTES, _MAX_COMPRESSION * n_bytes):
        raise InputFileError(
            f"{path} declares {total / 1e9:.3g} GB of data, which its {n_bytes:,} bytes cannot hold; it is damaged"
        )


_COPY_IT = "lightpool reads files that are complete in themselves: copy the data into one file"


def _links(file: h5py.File) -> list[tuple[bytes, int]]:
    """Name and type of every link in the file; groups are entered once, also where links make a circle."""
    links: list[tuple[bytes, int]] = []

    def note(name: bytes, info: Any) -> bool | None:
        links.append((name, info.type))
        return True if len(links) > _MAX_LINKS else None

    if file.id.links.visit(note, info=True):
        raise InputFileError(f"{file.filename} has more than {_MAX_LINKS:,} nodes; give a file of one run")
    return links


def _checked_size(item: h5py.Dataset, path: Path, n_bytes: int) -> int:
    """Bytes of a dataset when it is read whole."""
    where = f"{path}: {item.name}"
    if item.is_virtual or item.external:
        raise InputFileError(f"{where} has its data in another file; {_COPY_IT}")
    if item.shape is None:
        return 0
    itemsize = item.id.get_type().get_size()  # not of numpy's type, which some of HDF5's do not have
    size = math.prod(item.shape) * itemsize
    if item.chunks is None:
        start = item.id.get_offset()
        if start is not None and start + size > n_bytes:
            raise InputFileError(f"{where} declares more data than the file holds ({size:,} bytes); it is damaged")
        return size
    if math.prod(item.chunks) * itemsize > _MAX_CHUNK_BYTES:
        raise InputFileError(f"{where} has chunks of more than {_MAX_CHUNK_BYTES >> 20} MB; it is damaged")
    expected = math.prod(-(-n // chunk) for n, chunk in zip(item.shape, item.chunks, strict=True))
    is_index = "/_i_" in item.name  # PyTables' own, of a column; its last pieces are written late
    if expected and (stored := item.id.get_num_chunks()) < expected and not is_index:
        raise InputFileError(
            f"{where} is incomplete: only {stored:,} of its {expected:,} pieces were written; make the file again"
        )
    return size


# ---- taking parts of a file ------------------------------------------------------------------------------------------
def dataset(
    group: h5py.Group, name: str, columns: Iterable[str] = (), *, ndim: int | None = None, values: Values | None = None
) -> h5py.Dataset:
    """The dataset `name`, which has these columns, dimensions and type.

    Parameters
    ----------
    group : h5py.Group or File
    name : str
    columns : iterable of str
        Columns that a table must have.
    ndim : int, optional
    values : {"integer", "number", "bool", "text"}, optional
        What the elements of an array without columns are.

    Raises
    ------
    InputFileError
        If it is missing, is a group, or lacks a column.
    """
    path = group.file.filename
    with hdf5_errors(path):
        item = group.get(name)
        where = f"{group.name.rstrip('/')}/{name}"
        if item is None:
            raise InputFileError(f"{path} lacks {where}; make it again")
        if not isinstance(item, h5py.Dataset) or item.shape is None:
            raise InputFileError(f"{path}: {where} is not a table of numbers; make the file again")
        missing = [column for column in columns if column not in (item.dtype.names or ())]
        if missing:
            raise InputFileError(f"{path}: {where} lacks the column {missing[0]}; make the file again")
        if (columns := tuple(columns)) and item.ndim != 1:
            raise InputFileError(f"{path}: {where} is a table of shape {item.shape}, not a list of rows")
        if ndim is not None and item.ndim != ndim:
            raise InputFileError(f"{path}: {where} has shape {item.shape}; {ndim} dimensions are needed")
        if values is not None and item.dtype.kind not in _DTYPE_KINDS[values]:
            raise InputFileError(f"{path}: {where} has elements of type {item.dtype}; needed: {values}")
        return item


def read_columns(group: h5py.Group, name: str, columns: Mapping[str, Values]) -> dict[str, np.ndarray]:
    """Whole columns of the table `name`, by name.

    Parameters
    ----------
    group : h5py.Group or File
    name : str
        Of the table.
    columns : mapping
        Column -> what its values must be: "integer", "number", "bool" (booleans, and small integers as PyTables
        writes them) or "text". The types of the file are kept.

    Raises
    ------
    InputFileError
        If the table or a column is missing, is of another type, or cannot be read.
    """
    table = dataset(group, name, columns)
    for column, values in columns.items():
        kind = table.dtype[column].base.kind
        if kind not in _DTYPE_KINDS[values]:
            raise InputFileError(
                f"{table.file.filename}: {table.name} has {column} as {table.dtype[column].base}; needed: {values}"
            )
    with hdf5_errors(table.file.filename):
        rows = table.fields(list(columns))[:]
    return {column: rows[column] for column in columns}


def attribute(node: h5py.Group | h5py.Dataset, name: str, values: Values, default: Any = None) -> Any:
    """A scalar attribute as int, float, bool or str; `default` where it is missing and a default is given.

    Raises
    ------
    InputFileError
        If it is missing without a default, or is of another type.
    """
    path = node.file.filename
    with hdf5_errors(path):
        if name not in node.attrs:
            if default is None:
                raise InputFileError(f"{path}: {node.name} lacks the attribute {name!r}; make the file again")
            return default
        value = node.attrs[name]
    found = "" if isinstance(value, h5py.Empty) else value.item() if isinstance(value, np.generic) else value
    if isinstance(found, bytes):
        found = found.decode("utf-8", "replace")
    accepted = {"integer": int, "number": (int, float), "bool": (bool, int), "text": str}[values]
    if not isinstance(found, accepted) or (isinstance(found, bool) and values in ("integer", "number")):
        raise InputFileError(f"{path}: the attribute {name!r} of {node.name} is {found!r:.40}; needed: {values}")
    return found
