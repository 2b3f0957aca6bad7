"""Telescope types that can be simulated: one `Telescope` per type, with the sources of its numbers.

    telescope    what an entry holds
    registry     the types by name
    lookup       a type with its own camera, or with that of a file (from_file)
    layouts      where pixels sit: rules, no tables
    sensors      efficiency of photo-sensors against wavelength
    night_sky    what a dark sky gives a pixel
    all others   the types

To add one, write a module with a function that returns a `Telescope` and decorate it with `register_telescope`. Modules
are found here and in the folder ``telescopes`` of a plugin folder (`pipeline.plugins`).
"""

from importlib import import_module

from pipeline.camera.telescopes.lookup import get_telescope
from pipeline.camera.telescopes.registry import list_telescopes, register_telescope
from pipeline.camera.telescopes.telescope import Telescope
from pipeline.plugins import extend_path, module_names

__all__ = ["Telescope", "get_telescope", "list_telescopes", "register_telescope"]


extend_path(__path__, "telescopes")
for _name in module_names(__path__):
    import_module(f"{__name__}.{_name}")
