"""Compilation with numba, cached on disk in a way that notices edits in any module of this package."""

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba


@cache
def _cache_directory() -> str | None:
    """Where compiled functions are kept: one directory per state of this package's source code.

    Numba looks for edits only in the file of the compiled function itself, while the functions that this one calls
    are compiled into it: after an edit of, say, the pair production formula, the transport loop would continue with the
    old one. Hence the digest of all sources in the directory's name. None if nothing can be written anywhere.
    """
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for source in sorted(package.glob("*.py")):
        digest.update(source.read_bytes())
    candidates = [package / "__pycache__", Path.home() / ".cache" / "lightpool"]
    if numba.config.CACHE_DIR:
        candidates.insert(0, Path(numba.config.CACHE_DIR))
    for base in candidates:
        directory = base / f"numba-{digest.hexdigest()[:12]}"
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(directory, os.W_OK):
            return str(directory)
    return None


def compiled(function: Callable[..., Any]) -> Any:
    """Compile `function` at its first call, or load what an earlier process compiled.

    Several processes may start with a cold cache: numba writes each file under a temporary name and renames it.
    Division by zero gives inf or nan as in numpy, which saves a branch per division in the inner loops.
    """
    return _compiled(function)


def inner(function: Callable[..., Any]) -> Any:
    """`compiled` for functions of the inner loops, which get arrays but make none.

    Numba counts references to the arrays that a function gets, at each call; in a shower, whose functions are called a
    million times per TeV, that took 40 % of the time (measured). A function that makes an array is refused with an
    error. The switch has an underscore: if numba drops it, these functions are compiled as all others.
    """
    try:
        return _compiled(function, _nrt=False)
    except (KeyError, TypeError):
        return _compiled(function)


def _compiled(function: Callable[..., Any], **options: Any) -> Any:
    directory = _cache_directory()
    if directory is None:
        return numba.njit(error_model="numpy", **options)(function)
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = directory
    try:
        return numba.njit(cache=True, error_model="numpy", **options)(function)
    finally:
        numba.config.CACHE_DIR = before
