"""What spoils a long exposure: every noise and defect is a class with `sample`, `mean` and `variance`.

    noise        photons, read-out, dark current, converter
    pixels       hot and dead pixels, gaps of the detector
    particles    muons, and electrons from radioactivity
    trails       satellites and aircraft
    saturation   charge that bleeds along a column
    registry     defects by name

`sample(rng, ...)` draws one realisation. `mean(...)` and `variance(...)` are the expectation and the variance of
one of its pixels over realisations, in closed form where one exists; the tests compare samples with moments.
All charges are electrons of the whole exposure; images are indexed ``[y, x]``.

To add a defect, write a module with a class and decorate it with `register_defect`; the configuration's `sky.defects`
then takes its name. Modules are found here and in the folder ``defects`` of a plugin folder (`pipeline.plugins`).
"""

from importlib import import_module

from pipeline.plugins import extend_path, module_names
from pipeline.sky.defects.noise import DarkCurrent, Digitisation, ReadNoise, ShotNoise
from pipeline.sky.defects.particles import Muons, Worms
from pipeline.sky.defects.pixels import DeadPixels, DetectorGap, HotPixels
from pipeline.sky.defects.registry import create_defect, list_defects, register_defect
from pipeline.sky.defects.saturation import bloom
from pipeline.sky.defects.trails import Trails

__all__ = [
    "FAINT_SIGMA",
    "FLAG_SIGMA",
    "DarkCurrent",
    "DeadPixels",
    "DetectorGap",
    "Digitisation",
    "HotPixels",
    "Muons",
    "ReadNoise",
    "ShotNoise",
    "Trails",
    "Worms",
    "bloom",
    "create_defect",
    "list_defects",
    "register_defect",
]

#: Charge (in sigma of the frame's noise) from which a pixel counts as spoiled in the truth mask.
FLAG_SIGMA = 2.0
#: Charge from which a pixel is not sound either: the truth names the defects from here on, and who trains or judges
#: leaves out what lies between this and a threshold of his own.
FAINT_SIGMA = 0.3


extend_path(__path__, "defects")
for _name in module_names(__path__):
    import_module(f"{__name__}.{_name}")
