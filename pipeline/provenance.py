"""Provenance of every product.

Two parts, kept apart: `stamp` holds what is equal for equal runs and goes into the product itself; `write_sidecar`
holds what varies (time, host, commit) and goes into `PRODUCT.provenance.json` next to it, so that equal runs give
equal bytes.
"""

import datetime
import getpass
import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.files import SIDECAR_SUFFIX, write_text_atomically
from pipeline.plugins import plugin_files

_CHUNK_BYTES = 1 << 20


def sha256_file(path: str | Path) -> str:
    """Hex digest of one file, read in chunks."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """Hex digest of a JSON-like value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def stamp(
    stage: str, *, config: Mapping[str, Any] | None = None, warnings: Iterable[str] = (), **facts: Any
) -> dict[str, Any]:
    """Facts that are equal for equal runs, as they go into a product and its sidecar.

    Parameters
    ----------
    stage : str
        Name of the stage.
    config : mapping, optional
        What decided the product; its digest is added.
    warnings : iterable of str
        What a reader of the product must know because it changes the meaning of its numbers. One sentence each, without
        the name of the file, so that the report can count equal ones.
    **facts
        Inputs, run ...
    """
    result: dict[str, Any] = {"software": "lightpool", "version": __version__, "stage": stage}
    if config is not None:
        result["config"] = dict(config)
        result["config_sha256"] = sha256_json(config)
    if files := plugin_files():
        result["plugins"] = {path.name: sha256_file(path) for path in files}
    if texts := list(dict.fromkeys(warnings)):
        result["warnings"] = texts
    return result | facts


def sidecar_of(product: str | Path) -> Path:
    """Where the provenance of a product stands."""
    product = Path(product)
    return product.with_name(product.name + SIDECAR_SUFFIX)


def is_made_by(product: str | Path, stamped: Mapping[str, Any]) -> bool:
    """Whether a product has a sidecar with all that `stamped` says: made again, it would be the same."""
    record = record_of(product)
    wanted = json.loads(json.dumps(stamped, default=str))
    return all(key in record and record[key] == wanted[key] for key in wanted)


def record_of(product: str | Path) -> dict[str, Any]:
    """What the sidecar of a product says; nothing if there is none, or it cannot be read."""
    try:
        record = json.loads(sidecar_of(product).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """Installed versions of the named distributions, without importing them; missing ones are omitted."""
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


@cache
def _commit() -> str | None:
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def write_sidecar(product: str | Path, stamped: Mapping[str, Any], **facts: Any) -> Path:
    """Write `PRODUCT.provenance.json`: the stamp and what varies between equal runs.

    Parameters
    ----------
    product : path
        The finished product; a directory is allowed.
    stamped : mapping
        What `stamp` returned for it.
    **facts
        Further varying facts (wall time, peak memory ...).
    """
    product = Path(product)
    target = sidecar_of(product)
    record = dict(stamped) | {
        "product": product.name,
        "made_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "user": _user(),
        "commit": _commit(),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": package_versions(
            (
                "numpy",
                "astropy",
                "ctapipe",
                "h5py",
                "tables",
                "torch",
                "lightning",
                "onnxruntime",
                "scikit-learn",
            )
        ),
    }
    record |= facts
    return write_text_atomically(target, json.dumps(record, indent=2, sort_keys=True, default=str) + "\n")


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a passwd entry for this id
        return None
