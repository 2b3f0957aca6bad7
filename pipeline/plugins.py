"""Folders of your own tasks, inputs, networks, telescopes and defects, found beside those of lightpool.

The environment variable ``LIGHTPOOL_PLUGINS`` names any number of folders, separated as in ``PATH``. Each mirrors the
packages that it adds to: ``FOLDER/tasks/NAME/``, ``FOLDER/inputs/NAME.py``, ``FOLDER/models/NAME.py``,
``FOLDER/telescopes/NAME.py``, ``FOLDER/defects/NAME.py``. What stands there is imported as a module of that package,
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

    Raises
    ------
    UserError
        If a plugin folder is none, or a module there has the name of another one.
    """
    for folder in plugin_folders():
        place = str((folder / package).resolve())
        if Path(place).is_dir() and place not in package_path:
            package_path.append(place)
    check_names(package_path, package)


def module_names(package_path: Iterable[str]) -> list[str]:
    """Names of the modules and packages in the folders of a package, sorted; without private ones."""
    return sorted({m.name for m in pkgutil.iter_modules(list(package_path)) if not m.name.startswith("_")})


def check_names(package_path: Iterable[str], package: str) -> None:
    """Refuse a module of a plugin folder that has the name of another one: the first would silently hide it.

    Raises
    ------
    UserError
        Naming both files.
    """
    places: dict[str, Path] = {}
    for place in map(Path, package_path):
        for path in sorted((*place.glob("*.py"), *(spec.parent for spec in place.glob("*/spec.py")))):
            if path.stem.startswith("_"):
                continue
            if path.stem in places:
                raise UserError(
                    f"{path} has the name of {places[path.stem]}, which hides it; rename it ({package} of {VARIABLE})"
                )
            places[path.stem] = path


def check_plugins() -> None:
    """Look at all plugin folders before anything is imported from them.

    Raises
    ------
    UserError
        If one is no directory, or a module has the name of one of lightpool's own or of another plugin.
    """
    here = Path(__file__).parent
    own = {
        "tasks": here / "tasks",
        "inputs": here / "inputs",
        "models": here.parent / "models",
        "telescopes": here / "camera" / "telescopes",
        "defects": here / "sky" / "defects",
    }
    folders = plugin_folders()
    for package, place in own.items() if folders else ():
        check_names([str(place), *(str(folder / package) for folder in folders)], package)


def plugin_files() -> list[Path]:
    """All Python files of the plugin folders, sorted: what a result may depend on beside lightpool's own source."""
    return sorted(path for folder in plugin_folders() for path in folder.rglob("*.py"))
