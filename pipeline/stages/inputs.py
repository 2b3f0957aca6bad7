"""What stages with several inputs share: where products go, and how a bad input is reported."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import InputFileError, UserError
from pipeline.files import check_free, is_directory, source_name, unfinished
from pipeline.filetypes import Kind, file_kind
from pipeline.logs import get_logger
from pipeline.provenance import sha256_json

log = get_logger(__name__)


# Endings of files: a name that has one of them, at its end or before a packing, is never a directory to be made.
_DATA_SUFFIXES = frozenset(
    (
        *(".fits", ".fit", ".fts", ".fz", ".h5", ".hdf5", ".hdf", ".gz", ".bz2", ".xz", ".zip", ".zst"),
        *(".csv", ".json", ".parquet", ".txt", ".xisf", ".tif", ".tiff", ".png", ".jpg"),
    )
)


def names_file(out: Path) -> bool:
    """Whether --out names a file, not a directory: by its ending where there is neither yet."""
    if os.path.exists(out):
        return not is_directory(out)
    return any(suffix.lower() in _DATA_SUFFIXES for suffix in out.suffixes[-2:])


def check_names(paths: Sequence[Path]) -> None:
    """Fail before any work when the products of two inputs would have the same name.

    Raises
    ------
    UserError
        Naming one of them.
    """
    names = Counter(source_name(path) for path in paths)
    for path in paths:
        if names[source_name(path)] > 1:
            raise UserError(
                f"{names[source_name(path)]} inputs are named {source_name(path)!r}, {path} is one of them; their "
                "products would have the same name: rename them or use one output folder for each"
            )


def planned_outputs(paths: Sequence[Path], out: Path, suffix: str) -> dict[Path, Path]:
    """Where the product of each input goes.

    Raises
    ------
    UserError
        Before any work, if `out` is or names a file, or two products would have the same name.
    """
    if names_file(out):
        raise UserError(f"--out {out} names a file, and the products go into a directory; give another path")
    check_names(paths)
    return {path: out / (source_name(path) + suffix) for path in paths}


@contextmanager
def one_command(
    stage: str, out: Path, targets: Mapping[Path, Path], config: Mapping[str, Any], *, force: bool
) -> Iterator[Callable[[Path], bool]]:
    """The work of a stage on several inputs; a stopped one is started again by the same command.

    Parameters
    ----------
    stage : str
    out : path
        Directory of the products.
    targets : mapping
        Input -> product.
    config : mapping
        What decides the products.
    force : bool
        Replace products that exist.

    Yields
    ------
    callable
        Whether a product may be replaced: with `force`, or where the same command made it before it was stopped.

    Raises
    ------
    UserError
        Before any work, if a product exists that may not be replaced, or the same command is running.
    """
    identity = sha256_json({"stage": stage, "inputs": sorted(map(os.path.abspath, targets)), "config": config})
    with unfinished(out, identity, targets.values()) as own:
        for target in targets.values():
            check_free(target, force=force or target in own)
        yield lambda target: force or target in own


def kind_of(path: Path) -> Kind | InputFileError:
    """Type of an input, or why it has none: a bad one does not stop the others."""
    try:
        return file_kind(path)
    except InputFileError as error:
        return error


def failed(path: Path, error: UserError) -> dict[str, Any]:
    """Status of an input that cannot be used; the log names it."""
    log.error("%s", error)
    return {"status": "failed", "reason": str(error)}
