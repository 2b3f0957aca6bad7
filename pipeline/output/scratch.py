"""The folder in which a product is made: one writer at a time, and what a killed one left is removed by the next.

``.NAME.part/`` stands beside the product, so that the finished product is renamed and not copied. It holds the product
under its own name, what belongs to it, and ``.lock``, which the writer keeps locked. The kernel releases the lock when
the process ends, however it ends: a folder whose lock is free belongs to nobody.
"""

import contextlib
import errno
import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import OutputError

try:
    import fcntl
except ImportError:  # pragma: no cover (Windows)
    fcntl = None  # type: ignore[assignment]

_LOCK, _ASIDE = ".lock", ".replaced"  # no names of products
_SUFFIX = ".part"
_NAME_BYTES = 255
# File systems without locks, such as NFS without its lock service, Lustre mounted without flock.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


def name_limit(folder: Path) -> int:
    """Longest name of a file in `folder`, in bytes."""
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (OSError, ValueError, AttributeError):
        return _NAME_BYTES


def scratch_of(product: Path) -> Path:
    """Where `product` is made."""
    name = os.fsencode(product.name)
    if len(name) + 1 + len(_SUFFIX) > name_limit(product.parent):
        # The beginning tells a person which product it is, the digest tells products of the same beginning apart.
        name = name[:100] + b"." + hashlib.sha256(name).hexdigest()[:16].encode()
    return product.with_name(f".{os.fsdecode(name)}{_SUFFIX}")


class Scratch:
    """The folder of one product, which this process alone may use until `release`.

    Attributes
    ----------
    folder : path
    path : path
        Where the product is made; it has the product's own name.

    Raises
    ------
    OutputError
        If another process is making the same product.
    OSError
        If the folder cannot be made.
    """

    def __init__(self, product: Path, folder: Path | None = None) -> None:
        self.folder = folder or scratch_of(product)
        self.path = self.folder / product.name
        self._lock = self._locked(product)
        self._remove_leftovers()

    @property
    def aside(self) -> Path:
        """Where a directory that is replaced waits until it can be removed."""
        return self.folder / _ASIDE

    def made(self) -> list[Path]:
        """What stands in the folder now."""
        return [entry for entry in self.folder.iterdir() if entry.name != _LOCK]

    def _locked(self, product: Path) -> int:
        while True:
            self.folder.mkdir(exist_ok=True)
            try:
                lock = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
            except FileNotFoundError:  # whoever held it removed the folder just now
                continue
            try:
                is_ours = self._take(lock)
            except BaseException:
                os.close(lock)
                raise
            if not is_ours:
                owner = _owner(lock)
                os.close(lock)
                raise OutputError(
                    f"another process{owner} is writing {product}; wait for it, or choose another name"
                    + (f". If there is none, remove {self.folder}" if fcntl is None else "")
                )
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), os.stat(self.folder / _LOCK)):
                    _sign(lock)
                    return lock
            os.close(lock)  # locked too late: its owner had removed it

    def _take(self, lock: int) -> bool:
        if fcntl is None:
            return True
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return not _is_alive_here(lock)
        return True

    def _remove_leftovers(self) -> None:
        for entry in self.made():
            remove(entry)

    def release(self) -> None:
        """Remove the folder with all that is in it, and let others make the product."""
        try:
            self._remove_leftovers()
            (self.folder / _LOCK).unlink(missing_ok=True)
        finally:
            os.close(self._lock)
        with contextlib.suppress(OSError):  # the next writer may be in it already
            self.folder.rmdir()


@contextlib.contextmanager
def temporary_folder(prefix: str = "lightpool-") -> Iterator[Path]:
    """A folder for the block, below the system's temporary one; those of killed processes are removed first."""
    parent = Path(tempfile.gettempdir())
    for leftover in parent.glob(f"{prefix}*/work{_SUFFIX}"):
        _remove_if_free(leftover.parent)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    scratch = Scratch(folder / "work", folder / f"work{_SUFFIX}")
    try:
        yield scratch.folder
    finally:
        scratch.release()
        folder.rmdir()


def _remove_if_free(folder: Path) -> None:
    with contextlib.suppress(OSError, OutputError):  # it is in use, of another user, or removed just now
        Scratch(folder / "work", folder / f"work{_SUFFIX}").release()
        folder.rmdir()


def remove(path: Path) -> None:
    """Remove a file, or a folder with its content."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sign(lock: int) -> None:
    """Say who holds the lock; on a full disk nobody does."""
    with contextlib.suppress(OSError):
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()} {platform.node()}\n".encode(), 0)


def _owner(lock: int) -> str:
    words = os.pread(lock, 200, 0).decode(errors="replace").split()
    return f" ({words[0]} on {words[1]})" if len(words) == 2 else ""


def _is_alive_here(lock: int) -> bool:
    """Without locks, whether the process whose number stands in the file is there, as far as this host can tell."""
    words = os.pread(lock, 200, 0).decode(errors="replace").split()
    if len(words) != 2 or not words[0].isdigit():
        return False
    if words[1] != platform.node():
        return True
    try:
        os.kill(int(words[0]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
