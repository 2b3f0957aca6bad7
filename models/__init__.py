"""Network definitions: torch only, one file per family, never importing `pipeline`.

Every module of this package is imported, and so is every ``FOLDER/models/NAME.py`` of the folders that the environment
variable ``LIGHTPOOL_PLUGINS`` names (separated as in ``PATH``), as ``models.NAME``: importing a family registers its
entries. Names that start with an underscore are skipped. `pipeline.plugins` does the same for tasks and telescopes.
"""

import importlib
import os
import pkgutil
from pathlib import Path

from models.describe import LayerRow, ModelDescription, describe
from models.heads import Head
from models.registry import ModelEntry, create_model, list_models, model_entry, register_model
from models.tile_model import FeatureInfo, TileModel

__all__ = [
    "FeatureInfo",
    "Head",
    "LayerRow",
    "ModelDescription",
    "ModelEntry",
    "TileModel",
    "create_model",
    "describe",
    "list_models",
    "model_entry",
    "register_model",
]


def _import_families(package_path: list[str]) -> None:
    """Import all families, those of lightpool first; `package_path` grows by the folders of plugins.

    Raises
    ------
    ValueError
        If the variable names something that is not a directory, or if two modules share a name, which would hide one.
    """
    for folder in filter(None, os.environ.get("LIGHTPOOL_PLUGINS", "").split(os.pathsep)):
        if not Path(folder).is_dir():
            raise ValueError(
                f"LIGHTPOOL_PLUGINS names {folder}, which is not a directory; correct the variable or unset it"
            )
        place = str((Path(folder) / "models").resolve())
        if Path(place).is_dir() and place not in package_path:
            package_path.append(place)
    places: dict[str, str] = {}
    for place in package_path:
        for module in pkgutil.iter_modules([place]):
            if module.name in places:
                first = places[module.name]
                raise ValueError(
                    f"models.{module.name} is both in {first} and in {place}; rename the file in the latter"
                )
            places[module.name] = place
    for name in places:
        if not name.startswith("_"):
            importlib.import_module(f"models.{name}")


_import_families(__path__)
