"""Loggers: everything in the package `pipeline` logs as `lightpool`, the name that users know."""

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: The top logger of the project: its level is the level of lightpool.
ROOT = "lightpool"


def get_logger(module_name: str) -> logging.Logger:
    """The logger of a module, named after the distribution and not after the import package.

    Parameters
    ----------
    module_name : str
        ``__name__`` of the module. ``pipeline.stages.train`` logs as ``lightpool.stages.train``; a name outside the
        package stays as it is.
    """
    package, dot, rest = module_name.partition(".")
    if package != "pipeline":
        return logging.getLogger(module_name)
    with _making:
        usual = logging.getLoggerClass()
        logging.setLoggerClass(_Logger)
        try:
            return logging.getLogger(f"{ROOT}{dot}{rest}")
        finally:
            logging.setLoggerClass(usual)


class _Logger(logging.Logger):
    """A logger that stays enabled where all others are switched off."""

    def isEnabledFor(self, level: int) -> bool:
        """Whether its own level, or that of a logger above it, lets a message through."""
        return not self.disabled and level >= self.getEffectiveLevel()


_making = threading.Lock()


def libraries_are_quiet() -> bool:
    """Whether the messages of other libraries are switched off."""
    return logging.root.manager.disable >= logging.CRITICAL


def quieten_libraries(quiet: bool) -> None:
    """Switch off what other libraries log and warn of, or let it through.

    For all of them at once, also for those that come with handlers of their own and are imported later.
    """
    logging.disable(logging.CRITICAL if quiet else logging.NOTSET)


def log_warnings() -> None:
    """Log what Python warns of, and errors that it cannot raise, in the rest of this process."""
    logging.captureWarnings(True)
    sys.unraisablehook = _log_unraisable


def _log_unraisable(error: "sys.UnraisableHookArgs") -> None:
    """An error in the removal of an object: often one that a signal has left half made."""
    exception = error.exc_value or error.exc_type
    logging.getLogger("py.warnings").warning("%s in %r: %s", error.err_msg or "error ignored", error.object, exception)


@contextmanager
def warnings_as_messages() -> Iterator[None]:
    """Log what Python warns of in the block, and errors that it cannot raise; afterwards all is as it was."""
    disabled, usual = logging.root.manager.disable, sys.unraisablehook
    log_warnings()
    try:
        yield
    finally:
        sys.unraisablehook = usual
        logging.captureWarnings(False)
        logging.disable(disabled)
