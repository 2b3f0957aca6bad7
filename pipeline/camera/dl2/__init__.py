"""Predictions in ctapipe's DL2 layout: one HDF5 file per input file, any number of models in it.

ctapipe reads a DL2 file in two ways that must agree: `TableLoader` requires that all tables of a telescope have the
same rows, and `HDF5EventSource` walks all tables in lock-step without looking at their ids. So one decision holds for
the whole file: an image is in it when at least one model is for its camera, an event when at least one of its images
is, and every table that comes from the DL1 file has exactly those rows, found by their keys. Where a model has no
value, because it is for another camera or the image fails its cuts, ``is_valid`` is false and the value NaN.

Tables of predictions are made with PyTables (h5py's booleans are not PyTables' booleans, and ctapipe then selects the
wrong telescopes); tables of the input are copied byte for byte with h5py (PyTables would unpickle ctapipe's enums in
their attributes, and so import ctapipe). Each library has files of its own open, never the same one.
"""

from pipeline.camera.dl2.additions import add_events
from pipeline.camera.dl2.appending import DL2Appender, check_same_events
from pipeline.camera.dl2.layout import Output, outputs_of
from pipeline.camera.dl2.writer import DL2Writer

__all__ = ["DL2Appender", "DL2Writer", "Output", "add_events", "check_same_events", "outputs_of"]
