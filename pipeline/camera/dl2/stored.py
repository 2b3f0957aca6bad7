"""Predictions that stand in a DL2 file, by event: what a model said once, without the model."""

from functools import cache
from pathlib import Path

import numpy as np

from pipeline.camera.dl2.contents import DL2_OF_EVENTS, DL2_OF_TELESCOPES, index_of, predictions_of
from pipeline.camera.keys import KeyIndex
from pipeline.hdf5 import hdf5_errors, open_file
from pipeline.tasks import specs_of


class StoredPredictions:
    """Predictions of the first model of each kind in a DL2 file, with the names of `lightpool predict`.

    Parameters
    ----------
    path : path
        ctapipe's HDF5.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_file(path)
        self._index: dict[str, KeyIndex] = {}
        with hdf5_errors(path):
            groups = [group for found in predictions_of(self._file).values() for group in found]
        self._of_events = _first_of_kind(groups, DL2_OF_EVENTS)
        self._of_telescopes = _first_of_kind(groups, DL2_OF_TELESCOPES)

    def __bool__(self) -> bool:
        return bool(self._of_events or self._of_telescopes)

    def of_event(self, obs_id: int, event_id: int) -> dict[str, float]:
        """Values for an event; empty where it has none."""
        return self._values(self._of_events, "", obs_id, event_id)

    def of_image(self, tel_id: int, obs_id: int, event_id: int) -> dict[str, float]:
        """Values for the image of a telescope."""
        tables = {kind: f"{group}/tel_{tel_id:03d}" for kind, group in self._of_telescopes.items()}
        return self._values(tables, "_tel", obs_id, event_id)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _values(self, tables: dict[str, str], infix: str, obs_id: int, event_id: int) -> dict[str, float]:
        values: dict[str, float] = {}
        for kind, table in tables.items():
            if table not in self._file:
                continue
            with hdf5_errors(self.path):
                if table not in self._index:
                    self._index[table] = index_of(self._file, table.lstrip("/"))
                row, found = self._index[table].find(np.array([obs_id]), np.array([event_id]))
                if not found[0]:
                    continue
                stored = self._file[table][int(row[0])]
            prefix = table.split("/")[5]
            for field, name in _names()[kind].items():
                column = f"{prefix}{infix}_{field}"
                if column in (stored.dtype.names or ()):
                    values[name] = float(stored[column])
        return values


def _first_of_kind(groups: list[str], level: str) -> dict[str, str]:
    """Kind of prediction -> the first group with it, of a level."""
    found: dict[str, str] = {}
    for group in groups:
        if group.startswith(f"/{level}/"):
            found.setdefault(group.split("/")[4], group)
    return {kind: group for kind, group in found.items() if kind in _names()}


@cache
def _names() -> dict[str, dict[str, str]]:
    """Group of DL2 -> field of ctapipe's container -> column of ours."""
    names: dict[str, dict[str, str]] = {}
    for spec in specs_of("camera"):
        for column in spec.columns:
            if column.dl2 is not None and not column.internal:
                names.setdefault(column.dl2.group, {})[column.dl2.name] = column.name
    return names
