"""The folder of a run that has not ended: its checkpoints, and what they depend on."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.files import write_text_atomically
from pipeline.provenance import sha256_json
from pipeline.training import CHECKPOINT_FILE

IDENTITY_FILE = "identity.json"


def checkpoint_folder(out: Path) -> Path:
    """Where the checkpoints of a bundle are until it is made."""
    return out.with_name(out.name + ".ckpt")


@contextmanager
def checkpoints_of(out: Path, stamped: Mapping[str, Any], *, resume: bool, force: bool) -> Iterator[Path]:
    """Directory of a run's checkpoints. It is removed when the bundle is written, or when it holds none.

    Parameters
    ----------
    out : path
        The bundle.
    stamped : mapping
        Everything that a checkpoint depends on.
    resume, force : bool
        See `pipeline.stages.train.train`.

    Raises
    ------
    UserError
        If it holds those of another run.
    """
    identity = sha256_json(stamped)
    directory = checkpoint_folder(out)
    checkpoint = directory / CHECKPOINT_FILE
    if not checkpoint.exists() or not _is_resumed(directory, identity, resume=resume, force=force):
        shutil.rmtree(directory, ignore_errors=True)
    try:
        content = {"identity": identity, **stamped}
        write_text_atomically(directory / IDENTITY_FILE, json.dumps(content, indent=1, sort_keys=True) + "\n")
        yield directory
    except BaseException:
        if not checkpoint.exists():
            shutil.rmtree(directory, ignore_errors=True)
        raise
    shutil.rmtree(directory)


def _is_resumed(directory: Path, identity: str, *, resume: bool, force: bool) -> bool:
    """Whether the state of an earlier run is taken over; false where it is to be removed."""
    earlier = _identity_of(directory)
    if earlier == identity:
        return resume or not force
    if not force:
        raise UserError(
            f"{directory} holds an unfinished run of another configuration, data or version "
            f"({str(earlier)[:12]}, this one is {identity[:12]}); add --force to start again, or use another "
            "--out"
        )
    return False


def _identity_of(directory: Path) -> str | None:
    try:
        return json.loads((directory / IDENTITY_FILE).read_text())["identity"]
    except (OSError, ValueError, KeyError):
        return None  # stopped before the first line was written, or a foreign file
