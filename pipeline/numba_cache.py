"""numba: where it keeps what it compiled, in installations that may not be written to, and how it starts quickly."""

import os
import stat
import sys
import tempfile
from pathlib import Path

_VARIABLE = "NUMBA_CACHE_DIR"
_BLAS = "scipy.linalg.cython_blas"


def ensure_cache() -> None:
    """Give numba a folder of this user's below the temporary one, if it has no other place to write to.

    Numba writes beside a module or to the user's cache. In a container without a home, or an installation of a group,
    it can do neither, and ends the import of every module with cached functions (also of ctapipe's). Call this before
    the first of them is imported.
    """
    if os.environ.get(_VARIABLE) or _can_write(Path(__file__).parent) or _can_write(_user_cache()):
        return
    folder = Path(tempfile.gettempdir()) / f"lightpool-numba-{os.getuid()}"
    if not _is_private(folder):
        folder = Path(tempfile.mkdtemp(prefix="lightpool-numba-"))
    os.environ[_VARIABLE] = str(folder)
    if "numba" in sys.modules:
        sys.modules["numba"].config.CACHE_DIR = str(folder)


def load_numba() -> None:
    """Import what runs compiled functions, without scipy's linear algebra.

    When numba runs its first function, it looks whether scipy has BLAS, for inner products in `np.correlate` and
    `np.convolve`; importing `scipy.linalg` for that takes as long as importing numba. Functions with products of
    matrices import it themselves when they are compiled. Where it is imported already, nothing is gained or changed.
    """
    if _BLAS in sys.modules:
        return
    sys.modules[_BLAS] = None  # type: ignore[assignment] # its import fails at once
    try:
        import numba.np.arraymath  # noqa: F401
    finally:
        del sys.modules[_BLAS]


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "numba"


def _can_write(folder: Path) -> bool:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK)


def _is_private(folder: Path) -> bool:
    """Make a folder that nobody else can write to: what lies in it is executed."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022
