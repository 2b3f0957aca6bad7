"""Loggers: everything in the package `pipeline` logs as `lightpool`, the name that users know."""

import logging

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
    return logging.getLogger(f"{ROOT}{dot}{rest}" if package == "pipeline" else module_name)
