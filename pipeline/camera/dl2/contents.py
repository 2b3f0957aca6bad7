"""What a file of events holds besides pixels, and how its tables belong to events: by their columns, not by names.

Charges and waveforms stay in the source: they are nearly all of its bytes, and nothing that follows predictions needs
them. Image parameters go along, and from them ctapipe-process reconstructs directions.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.camera.keys import KeyIndex, unique_index
from pipeline.errors import InputFileError
from pipeline.hdf5 import hdf5_errors, read_columns
from pipeline.logs import get_logger

log = get_logger(__name__)

TRIGGER = "dl1/event/subarray/trigger"
TEL_TRIGGER = "dl1/event/telescope/trigger"
LAYOUT = "configuration/instrument/subarray/layout"
SHOWER = "simulation/event/subarray/shower"
PARAMETERS = "dl1/event/telescope/parameters"
MUONS = "dl1/event/telescope/muon"
SIMULATED_TELESCOPES = "simulation/event/telescope"
DL2_OF_EVENTS, DL2_OF_TELESCOPES = "dl2/event/subarray", "dl2/event/telescope"

#: Values per pixel and sample.
PIXELS = ("r0", "r1", "dl0/event", "dl1/event/telescope/images", f"{SIMULATED_TELESCOPES}/images")

_MAX_NAMES = 100_000  # of tables and groups: an array of a hundred telescopes has some two thousand
_EVENT = ("obs_id", "event_id")
_TELESCOPE_EVENT = (*_EVENT, "tel_id")


@dataclass
class Contents:
    """Tables of a file.

    Attributes
    ----------
    of_file : list of str
        Paths of what does not belong to single events: configuration, monitoring, statistics.
    of_events : list of str
        Tables with a row per event.
    of_telescopes : dict
        Group -> telescope -> path of the table with a row per image of that telescope.
    """

    of_file: list[str] = field(default_factory=list)
    of_events: list[str] = field(default_factory=list)
    of_telescopes: dict[str, dict[int, str]] = field(default_factory=dict)


def contents_of(file: Any) -> Contents:
    """Sort the tables of an open h5py file, under all of their names.

    Raises
    ------
    InputFileError
        If it has more names than any run needs.
    """
    found = Contents()
    for path, dataset in _datasets(file):
        names = dataset.dtype.names or ()
        group, _, name = path.rpartition("/")
        if path in (TRIGGER, TEL_TRIGGER):
            continue
        if not set(_EVENT) <= set(names):
            found.of_file.append(path)
        elif dataset.dtype.hasobject:
            log.warning("%s: table /%s has values of varying length and is not taken over", file.filename, path)
        elif name.startswith("tel_") and name.removeprefix("tel_").isdigit():
            found.of_telescopes.setdefault(group, {})[int(name.removeprefix("tel_"))] = path
        elif "tel_id" in names:
            log.warning("%s: table /%s is not one of ctapipe's and is not taken over", file.filename, path)
        else:
            found.of_events.append(path)
    true_parameters = f"{SIMULATED_TELESCOPES}/parameters"
    if SIMULATED_TELESCOPES in file and true_parameters not in found.of_telescopes:
        # ctapipe's event reader takes image parameters of simulated files only with those of the true images.
        found.of_telescopes.pop(PARAMETERS, None)
    return found


def _datasets(file: Any) -> Iterator[tuple[str, Any]]:
    addresses = _addresses(file)
    pixels = tuple(f"{group}/" for group in PIXELS)
    of_pixels = {address for path, address in addresses.items() if f"{path}/".startswith(pixels)}
    for path in sorted(addresses):
        # PyTables keeps the index of a table beside it; it would not fit other rows.
        is_index = any(part.startswith("_i_") for part in path.split("/"))
        if not is_index and addresses[path] not in of_pixels:
            yield path, file[path]


def _addresses(file: Any) -> dict[str, int]:
    """Every name of every dataset -> its place in the file: readers follow links, which h5py's visititems does not."""
    import h5py

    found: dict[str, int] = {}
    n_names = 0
    waiting = [("", file, (file,))]
    with hdf5_errors(file.filename):
        while waiting:
            path, group, entered = waiting.pop()
            for name in group:
                n_names += 1
                item = group.get(name)  # None for a link to nothing
                if isinstance(item, h5py.Dataset):
                    found[path + name] = h5py.h5o.get_info(item.id).addr
                elif isinstance(item, h5py.Group) and item not in entered:  # else links make a circle
                    waiting.append((f"{path}{name}/", item, (*entered, item)))
            if n_names > _MAX_NAMES:  # links to groups of links: each of these has a name more
                raise InputFileError(f"{file.filename} has more than {_MAX_NAMES:,} names of tables; remove its links")
    return found


def data_levels(file: Any) -> list[str]:
    """Names of ctapipe's data levels that are in an open h5py file, in the order in which ctapipe lists them."""
    places = {"DL1_PARAMETERS": PARAMETERS, "DL1_MUON": MUONS, "DL2": "dl2"}
    return [level for level, path in places.items() if path in file]


def predictions_of(file: Any) -> dict[str, list[str]]:
    """Prefix of DL2 columns -> groups and tables of an open h5py file that hold its predictions."""
    found: dict[str, list[str]] = {}
    for level in (DL2_OF_TELESCOPES, DL2_OF_EVENTS):
        for kind in file.get(level, ()):
            for prefix in file[f"{level}/{kind}"]:
                found.setdefault(prefix, []).append(f"/{level}/{kind}/{prefix}")
    return found


def telescopes_of(file: Any) -> np.ndarray:
    """Ids of the telescopes of an open h5py file, in the order in which masks list them."""
    return read_columns(file, LAYOUT, {"tel_id": "integer"})["tel_id"]


def keys_of(file: Any, path: str, *, with_telescope: bool = False) -> dict[str, np.ndarray]:
    """Key columns of a table, obs_id and event_id and perhaps tel_id, in the types that it stores.

    Raises
    ------
    InputFileError
        If it lacks one of them, or one does not hold integers.
    """
    return read_columns(file, path, dict.fromkeys(_TELESCOPE_EVENT if with_telescope else _EVENT, "integer"))


def index_of(file: Any, path: str, *, with_telescope: bool = False) -> KeyIndex:
    """Rows of a table by their keys, which are unique in it.

    Raises
    ------
    InputFileError
        If a key stands twice.
    """
    return unique_index(keys_of(file, path, with_telescope=with_telescope), Path(file.filename), f"/{path}")
