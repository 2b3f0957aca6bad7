"""Why a product cannot be written: from the errors of many libraries to a few words."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import UserError
from pipeline.output.whole import NotWholeError

try:
    import resource
except ImportError:  # pragma: no cover (Windows)
    resource = None  # type: ignore[assignment]

#: Only writing ends with one of these.
OF_WRITING = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS))
# HDF5 (`errno = 28`), Python (`[Errno 28]`) and Rust (`(os error 28)`) inside the text of another error.
_ERRNO = re.compile(r"errno = (\d+)|\[Errno (\d+)\]|\(os error (\d+)\)")
_IN_TEXT = {
    "no space left": errno.ENOSPC,
    "not enough space": errno.ENOSPC,
    "quota exceeded": errno.EDQUOT,
    "file too large": errno.EFBIG,
}
#: With less, a disk is full: what was written before the error is still there.
_FULL_BYTES = 256 << 10
# A write that was lost may have been a large one.
_FULL_AFTER_A_LOSS_BYTES = 64 << 20
_LIMIT_MARGIN_BYTES = 4096


def why_not_written(error: BaseException, folder: Path) -> str | None:
    """The reason in words if an error is one of writing into `folder`, else None.

    Parameters
    ----------
    error : exception
        With its causes.
    folder : path
        Where the product is made; what was written is still there.
    """
    for cause in _causes(error):
        number = _number(cause)
        if number in OF_WRITING or (number is not None and _is_within(cause, folder)):
            return os.strerror(number).lower()
    if isinstance(error, UserError) and error.__cause__ is None:
        return None  # said by lightpool itself
    is_lost = isinstance(error, NotWholeError)
    if _reached_limit(folder, is_lost):
        return os.strerror(errno.EFBIG).lower()
    if _is_full(folder, _FULL_AFTER_A_LOSS_BYTES if is_lost else _FULL_BYTES):
        return os.strerror(errno.ENOSPC).lower()
    return str(error) if is_lost else None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    for match in _ERRNO.finditer(str(error)):
        number = int(next(filter(None, match.groups())))
        if number in OF_WRITING or (number == errno.EIO and "write failed" in str(error)):
            return number
    if isinstance(error, OSError | RuntimeError):
        text = str(error).lower()
        return next((number for words, number in _IN_TEXT.items() if words in text), None)
    return None


def _is_within(error: BaseException, folder: Path) -> bool:
    """Whether the system refused something inside the folder of the product, and not an input."""
    names = [getattr(error, "filename", None), getattr(error, "filename2", None)]
    return any(isinstance(name, str) and Path(name).is_relative_to(folder) for name in names)


def _is_full(folder: Path, n_bytes: int) -> bool:
    try:
        return shutil.disk_usage(folder).free < n_bytes
    except OSError:
        return False


def _reached_limit(folder: Path, is_lost: bool) -> bool:
    """Whether a file is as long as a file of this process may be (``ulimit -f``), or one has lost what was beyond."""
    limit = resource.RLIM_INFINITY if resource is None else resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit == resource.RLIM_INFINITY:
        return False
    files = (path for path in folder.rglob("*") if path.is_file())
    return is_lost or any(path.stat().st_size >= limit - _LIMIT_MARGIN_BYTES for path in files)
