"""Camera events on disk: ctapipe's DL1 HDF5, data model v7.1.0, written with PyTables and read with h5py.

Neither side imports ctapipe, which would add 4 s to every prediction. Two libraries are used on purpose:
h5py writes booleans as integers for PyTables, and ctapipe then selects wrong telescopes; h5py reads three times faster.
"""

from pipeline.camera.dl1.model import EventChunk, ImageChunk, ShowerDistribution, SimulationRun, Subarray
from pipeline.camera.dl1.reader import DL1File
from pipeline.camera.dl1.schema import DATA_MODEL_VERSION
from pipeline.camera.dl1.writer import DL1Writer

__all__ = [
    "DATA_MODEL_VERSION",
    "DL1File",
    "DL1Writer",
    "EventChunk",
    "ImageChunk",
    "ShowerDistribution",
    "SimulationRun",
    "Subarray",
]
