"""Further predictions for the events of a DL2 file that is there."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.camera.dl2 import contents
from pipeline.camera.dl2.layout import Output, subarray_attributes, subarray_dtype
from pipeline.camera.dl2.tables import create_table
from pipeline.hdf5 import open_hdf5


def add_events(
    path: str | Path, output: Output, values: Mapping[str, np.ndarray], used: Mapping[int, np.ndarray]
) -> None:
    """Add a table of predictions for all events; those of other methods stay as they are.

    Parameters
    ----------
    path : path
        The file, which is changed.
    output : Output
        Under a prefix that its group does not have yet.
    values : mapping
        Field of ctapipe's container -> (n_events,) values in the order of the triggers; NaN where there is none, and
        for fields that are missing here.
    used : mapping
        Telescope -> (n_events,) bool: whether its image counted.
    """
    import tables

    with open_hdf5(path) as file:
        keys = contents.keys_of(file, contents.TRIGGER)
        tel_ids = contents.telescopes_of(file)
    types = {name: column.dtype for name, column in keys.items()}
    rows = np.zeros(len(keys["event_id"]), subarray_dtype(output, types, len(tel_ids)))
    for name, column in keys.items():
        rows[name] = column
    for name in (*(quantity.name for quantity in output.quantities), "goodness_of_fit"):
        rows[f"{output.prefix}_{name}"] = values.get(name, np.nan)
    rows[f"{output.prefix}_is_valid"] = np.isfinite(values[output.value.dl2.name])
    for column, tel_id in enumerate(tel_ids.tolist()):
        if tel_id in used:
            rows[f"{output.prefix}_tels_used"][:, column] = used[tel_id]
    group = f"/{contents.DL2_OF_EVENTS}/{output.group}"
    with tables.open_file(str(path), "a") as file:
        create_table(file, group, output.prefix, rows, subarray_attributes(output))
