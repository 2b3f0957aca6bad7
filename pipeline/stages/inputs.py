"""What stages with several inputs share: where products go, and how a bad input is reported."""

import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import provenance
from pipeline.errors import InputFileError, UserError
from pipeline.files import check_free, is_directory, source_name, write_text_atomically
from pipeline.filetypes import Kind, file_kind
from pipeline.logs import get_logger

log = get_logger(__name__)


# Endings of files: a name that has one of them, at its end or before a packing, is never a directory to be made.
_DATA_SUFFIXES = frozenset(
    (
        *(".fits", ".fit", ".fts", ".fz", ".h5", ".hdf5", ".hdf", ".gz", ".bz2", ".xz", ".zip", ".zst"),
        *(".csv", ".json", ".parquet", ".txt", ".xisf", ".tif", ".tiff", ".png", ".jpg"),
    )
)


# Of files that may hold events or frames; sidecars, pictures and tables lie beside them.
_INPUT_SUFFIXES = frozenset((".fits", ".fit", ".fts", ".fz", ".gz", ".bz2", ".h5", ".hdf5", ".hdf", ".zst", ".simtel"))


def with_directories(paths: Sequence[Path]) -> list[Path]:
    """The paths, where a directory stands for the files of events or frames in it, in the order of their names.

    Raises
    ------
    UserError
        If there is none in a directory.
    """
    found: list[Path] = []
    for path in paths:
        if not is_directory(path) or (path / "card.json").exists():
            found.append(path)
            continue
        inside = [file for file in sorted(path.iterdir()) if file.suffix.lower() in _INPUT_SUFFIXES and file.is_file()]
        inside = [file for file in inside if not file.name.startswith(".")]
        if not inside:
            raise UserError(f"the directory {path} has no file ending in {', '.join(sorted(_INPUT_SUFFIXES))}")
        found += inside
    return found


def names_file(out: Path) -> bool:
    """Whether --out names a file, not a directory: by its ending where there is neither yet."""
    if os.path.exists(out):
        return not is_directory(out)
    return any(suffix.lower() in _DATA_SUFFIXES for suffix in out.suffixes[-2:])


def check_no_input(targets: Iterable[Path], paths: Sequence[Path]) -> None:
    """Fail before any work when a product would take the place of an input, whatever may be replaced.

    Raises
    ------
    UserError
        Naming it.
    """
    inputs = {os.path.realpath(path) for path in paths}
    for target in targets:
        if os.path.realpath(target) in inputs:
            raise UserError(f"{target} is an input, which stays as it is; write to another place")


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


def is_of_a_stopped_run(product: Path, facts: Mapping[str, Any]) -> bool:
    """Whether a product is of a run that was stopped before it could write status.json, and may be made again.

    Its folder's status.json does not know it, and it was made from the same input with the same settings: it would be
    the same again.

    Parameters
    ----------
    product : path
    facts : mapping
        What `provenance.stamp` says of it if it is made now.
    """
    if not product.exists():
        return False
    try:
        statuses = json.loads((product.parent / "status.json").read_text(encoding="utf-8"))
        known = {Path(str(status.get("output"))).name for status in statuses.values()}
    except (OSError, ValueError, AttributeError, RecursionError):
        known = set()
    return product.name not in known and provenance.is_made_by(product, facts)


def planned_outputs(
    paths: Sequence[Path], out: Path, suffix: str, *, force: bool, leftovers: Collection[Path] = ()
) -> dict[Path, Path]:
    """Where the product of each input goes; `leftovers` are products that may be replaced.

    Raises
    ------
    UserError
        Before any work, if `out` is or names a file, two products would have the same name, or one is an input or
        exists.
    """
    if names_file(out):
        raise UserError(f"--out {out} names a file, and the products go into a directory; give another path")
    check_names(paths)
    targets = {path: out / (source_name(path) + suffix) for path in paths}
    check_no_input(targets.values(), paths)
    return {path: check_free(target, force=force or target in leftovers) for path, target in targets.items()}


def kind_of(path: Path) -> Kind | InputFileError:
    """Type of an input, or why it has none: a bad one does not stop the others."""
    try:
        return file_kind(path)
    except InputFileError as error:
        return error


def write_statuses(folder: Path, statuses: Sequence[Mapping[str, Any]]) -> None:
    """Write what became of each input, by file name, into status.json of the folder with the products."""
    content = {Path(status["file"]).name: status for status in statuses}
    write_text_atomically(folder / "status.json", json.dumps(content, indent=2, sort_keys=True, default=str) + "\n")


def failed(path: Path, error: UserError) -> dict[str, Any]:
    """Status of an input that cannot be used; the log names it."""
    log.error("%s", error)
    return {"status": "failed", "reason": str(error)}
