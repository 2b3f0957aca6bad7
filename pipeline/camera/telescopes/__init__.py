"""Telescope types that can be simulated: one `Telescope` per type, with the sources of its numbers.

    telescope    what an entry holds, the registry, and cameras taken from files
    layouts      where pixels sit: rules, no tables
    sensors      efficiency of photo-sensors against wavelength
    night_sky    what a dark sky gives a pixel
    lst, mst, sst, magic, veritas, taiga    the types

To add one, write a module with a function that returns a `Telescope`, decorate it with `register_telescope`, and import
the module here.
"""

from pipeline.camera.telescopes import lst, magic, mst, sst, taiga, veritas  # noqa: F401  (registers the types)
from pipeline.camera.telescopes.layouts import seven_pixel_modules
from pipeline.camera.telescopes.telescope import Telescope, get_telescope, list_telescopes, register_telescope

__all__ = ["Telescope", "get_telescope", "list_telescopes", "register_telescope", "seven_pixel_modules"]
