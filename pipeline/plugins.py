"""Folders of your own tasks, inputs, networks, telescopes and defects, in addition to those of lightpool.

The environment variable ``LIGHTPOOL_PLUGINS`` names any number of folders, separated as in ``PATH``. Each mirrors the
packages that it adds to: ``FOLDER/tasks/NAME/``, ``FOLDER/inputs/NAME.py``, ``FOLDER/models/NAME.py``,
``FOLDER/telescopes/NAME.py``, ``FOLDER/defects/NAME.py``. A file there is imported as a module of that package,
so that no file of lightpool has to be edited. A variable and not a key of the configuration, for commands without a
configuration (`predict`, `report`) need it as well, and so does every job of a workflow.
"""

import os
import pkgutil
from collections.abc import Iterable, MutableSequence
from pathlib import Path

from pipeline.errors import UserError

VARIABLE = "LIGHTPOOL_PLUGINS"


def plugin_folders() -> list[Path]:
    """The folders that ``LIGHTPOOL_PLUGINS`` names.

    Raises
    ------
    UserError
        If one of them is not a directory.
    """
    folders = [Path(entry) for entry in os.environ.get(VARIABLE, "").split(os.pathsep) if entry]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{VARIABLE} names {folder}, which is not a directory; correct the variable or unset it")
    return folders


def extend_path(package_path: MutableSequence[str], package: str) -> None:
    """Let a package also find the modules in the sub-folders called `package` of the plugin folders.

    Parameters
    ----------
    package_path : list of str
        The package's `__path__`.
    package : str
        Name of the sub-folder: tasks, inputs, telescopes, defects.
    """
    for folder in plugin_folders():
        place = str((folder / package).resolve())
        if Path(place).is_dir() and place not in package_path:
            package_path.append(place)


def module_names(package_path: Iterable[str]) -> list[str]:
    """Names of the modules and packages in the folders of a package, sorted; except private ones."""
    names = {module.name for module in pkgutil.iter_modules(list(package_path))}
    return sorted(name for name in names if not name.startswith("_"))


def plugin_files() -> list[Path]:
    """All Python files of the plugin folders, sorted: results may depend on them as on lightpool's own source."""
    return sorted(path for folder in plugin_folders() for path in folder.rglob("*.py"))
