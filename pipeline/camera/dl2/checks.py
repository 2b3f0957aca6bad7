"""A DL2 file after it was written: do its tables belong together as ctapipe's readers take for granted?"""

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.camera.dl2.contents import LAYOUT, TEL_TRIGGER, TRIGGER, contents_of, keys_of
from pipeline.camera.keys import KeyIndex
from pipeline.hdf5 import open_hdf5


def check_keys(path: str | Path) -> None:
    """Compare the keys of all tables of a DL2 file.

    ctapipe's event reader walks all tables in step without looking at their keys, and its table loader takes slices of
    them by the numbers of triggers. So an event or image out of place is one with another's values.

    Raises
    ------
    RuntimeError
        If a key stands twice, or a table has other keys, or in another order, than the triggers say: a fault of the
        writer.
    """
    with open_hdf5(path) as file:
        tel_ids = file[LAYOUT].fields("tel_id")[:]
        events = list(keys_of(file, TRIGGER).values())
        _require(not len(KeyIndex(*events).duplicated_rows), TRIGGER)
        event, column = np.nonzero(file[TRIGGER].fields("tels_with_trigger")[:])
        _check_triggers(file, events, event, tel_ids[column])
        contents = contents_of(file)
        for table in contents.of_events:
            _check_equal(file, table, events)
        for group in contents.of_telescopes.values():
            for tel_id, table in group.items():
                seen = event[tel_ids[column] == tel_id]
                _check_equal(file, table, [ids[seen] for ids in events])


def _check_triggers(file: Any, events: list[np.ndarray], event: np.ndarray, tel_id: np.ndarray) -> None:
    """Triggers of telescopes, event by event; within one, telescopes may have any order."""
    ids = keys_of(file, TEL_TRIGGER, with_telescope=True)
    expected = [column[event] for column in events]
    same = len(ids["tel_id"]) == len(event) and all(
        np.array_equal(got, wanted) for got, wanted in zip(ids.values(), expected, strict=False)
    )
    order, wanted = np.lexsort((ids["tel_id"], event)) if same else None, np.lexsort((tel_id, event))
    _require(same and np.array_equal(ids["tel_id"][order], tel_id[wanted]), TEL_TRIGGER)


def _check_equal(file: Any, table: str, expected: list[np.ndarray]) -> None:
    got = keys_of(file, table).values()
    _require(all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True)), table)


def _require(fine: bool, table: str) -> None:
    if not fine:
        raise RuntimeError(f"the rows of /{table} are not those of the triggers; nothing was written")
