"""The events of a DL1 file: triggers and simulated showers by key, and what is wrong with the keys of its tables."""

import math
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from pipeline.camera.dl1 import schema
from pipeline.camera.dl1.columns import quantity
from pipeline.camera.dl1.coordinates import seconds_of_high_resolution, seconds_of_mjd
from pipeline.camera.event_types import UNKNOWN, combined_types
from pipeline.camera.keys import described, unique_index
from pipeline.errors import InputFileError
from pipeline.hdf5 import dataset, read_columns

EVENT, IMAGE = ("obs_id", "event_id"), ("obs_id", "event_id", "tel_id")
_SIMTEL_ARRAY = 1  # detector_prog_id of sim_telarray
_TRUTH_UNITS = {
    "true_energy": "TeV", "true_alt": "deg", "true_az": "deg", "true_core_x": "m", "true_core_y": "m",
    "true_h_first_int": "m", "true_x_max": "g cm-2",
}  # fmt: skip

#: Why an image has no place among the events of its file.
NO_EVENT = "no array trigger in the file"
NO_TELESCOPE_TRIGGER = "no telescope trigger in the file"
NOT_IN_MASK = "telescope is not among those that triggered the event"


class Triggers(NamedTuple):
    """Triggers of some images of one telescope.

    Attributes
    ----------
    row : ndarray of int64, shape (n,)
        Place of the event among the array events; 0 where it has none.
    problem : ndarray of str, shape (n,)
        Why the image has no trigger; empty where it has.
    event_type : ndarray of int64, shape (n,)
    """

    row: np.ndarray
    problem: np.ndarray
    event_type: np.ndarray


def read_ids(file: h5py.File, table: str, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Columns of a key, in the integer types of the file."""
    return read_columns(file, table, dict.fromkeys(names, "integer"))


def telescope_table(group: str, tel_id: int) -> str:
    """Path of the table of one telescope in a group."""
    return f"{group}/tel_{tel_id:03d}"


def telescopes_in(file: h5py.File, group: str) -> list[int]:
    """Telescopes that have a table in a group, in rising order."""
    numbers = (name.removeprefix("tel_") for name in file.get(group, ()) if name.startswith("tel_"))
    return sorted(int(number) for number in numbers if number.isdecimal())


def telescope_ids(file: h5py.File, path: Path, table: str, tel_id: int) -> dict[str, np.ndarray]:
    """Keys of the table of one telescope.

    Raises
    ------
    InputFileError
        If a key stands twice, or is of another telescope, naming the first such key.
    """
    ids = read_ids(file, table, IMAGE)
    unique_index(ids, path, table)
    if (wrong := np.flatnonzero(ids["tel_id"] != tel_id)).size:
        key = described(IMAGE, [int(ids[name][wrong[0]]) for name in IMAGE])
        raise InputFileError(f"{path}: {table} has a row of another telescope ({key}); make the file again")
    return ids


class EventTables:
    """Triggers of a file. Making this checks the keys of all its tables but those of images.

    Parameters
    ----------
    file : h5py.File
    path : path
        For messages.

    Raises
    ------
    InputFileError
        If an event stands twice in a table, naming both.
    """

    def __init__(self, file: h5py.File, path: Path) -> None:
        self._file, self._path = file, path
        ids = read_ids(file, schema.TRIGGER, EVENT)
        self.obs_id, self.event_id = ids["obs_id"], ids["event_id"]
        self._index = unique_index(ids, path, schema.TRIGGER)
        self._types = self._types_in(schema.TRIGGER)
        self._telescope_ids = read_ids(file, schema.TEL_TRIGGER, IMAGE) if schema.TEL_TRIGGER in file else None
        self._telescope_index = (
            unique_index(self._telescope_ids, path, schema.TEL_TRIGGER) if self._telescope_ids is not None else None
        )
        self._telescope_types = self._types_in(schema.TEL_TRIGGER) if self._telescope_ids is not None else None
        self._column_of, self._mask = self._read_mask()
        for group in (schema.PARAMETERS, schema.TRUE_IMPACT, schema.TRUE_PARAMETERS):
            for tel_id in telescopes_in(file, group):
                telescope_ids(file, path, telescope_table(group, tel_id), tel_id)

    def _types_in(self, table: str) -> np.ndarray:
        rows = dataset(self._file, table, EVENT)
        if "event_type" not in rows.dtype.names:
            return np.full(len(rows), UNKNOWN)
        return read_columns(self._file, table, {"event_type": "integer"})["event_type"].astype(np.int64)

    def _read_mask(self) -> tuple[dict[int, int], np.ndarray | None]:
        """Column of each telescope in ``tels_with_trigger``, and this mask."""
        tel_ids = read_columns(self._file, schema.LAYOUT, {"tel_id": "integer"})["tel_id"].tolist()
        if "tels_with_trigger" not in dataset(self._file, schema.TRIGGER, EVENT).dtype.names:
            return {}, None
        mask = read_columns(self._file, schema.TRIGGER, {"tels_with_trigger": "bool"})["tels_with_trigger"].astype(bool)
        if mask.shape[1:] != (len(tel_ids),):
            raise InputFileError(
                f"{self._path}: tels_with_trigger has {mask.shape[1:]} columns, but the array has {len(tel_ids)} "
                "telescopes; make the file again"
            )
        return {int(tel_id): column for column, tel_id in enumerate(tel_ids)}, mask

    # ---- what belongs to an image ------------------------------------------------------------------------------------
    def triggers_of(self, tel_id: int, obs_id: np.ndarray, event_id: np.ndarray) -> Triggers:
        """The triggers of some images of a telescope."""
        row, has_event = self._index.find(obs_id, event_id)
        problem = np.where(has_event, "", NO_EVENT).astype(object)
        array_type = np.full(len(event_id), UNKNOWN)
        array_type[has_event] = self._types[row[has_event]]
        own_type = np.full(len(event_id), UNKNOWN)
        if self._telescope_index is not None:
            own, has_own = self._telescope_index.find(obs_id, event_id, np.full(len(event_id), tel_id))
            own_type[has_own] = self._telescope_types[own[has_own]]
            problem[(problem == "") & ~has_own] = NO_TELESCOPE_TRIGGER
        if self._mask is not None and tel_id in self._column_of:
            marked = np.zeros(len(event_id), bool)
            marked[has_event] = self._mask[row[has_event], self._column_of[tel_id]]
            problem[(problem == "") & ~marked] = NOT_IN_MASK
        return Triggers(row, problem, combined_types(array_type, own_type))

    @property
    def lists_telescopes(self) -> bool:
        """Whether the file says which telescopes triggered an event."""
        return self._telescope_ids is not None or self._mask is not None

    def n_triggers_of(self, tel_id: int) -> int:
        """Number of events that a telescope triggered, as the table or the mask has it that has fewer."""
        counts = [len(self.event_id)]
        if self._telescope_ids is not None:
            counts.append(int(np.count_nonzero(self._telescope_ids["tel_id"] == tel_id)))
        if self._mask is not None and tel_id in self._column_of:
            counts.append(int(self._mask[:, self._column_of[tel_id]].sum()))
        return min(counts)

    def listed_ids(self, tel_id: int) -> dict[str, np.ndarray] | None:
        """obs_id and event_id of the images of a telescope as other tables list them, in the order of these tables.

        None where there is no such table, or they do not agree: then only the images themselves can tell.
        """
        if self._telescope_ids is None:
            return None
        here = self._telescope_ids["tel_id"] == tel_id
        ids = {name: self._telescope_ids[name][here] for name in EVENT}
        parameters = telescope_table(schema.PARAMETERS, tel_id)
        if parameters in self._file:
            listed = read_ids(self._file, parameters, EVENT)
            if not all(np.array_equal(ids[name], listed[name]) for name in EVENT):
                return None
        return ids

    @cached_property
    def time_s(self) -> np.ndarray:
        """Times of the array events, seconds since 1970-01-01 TAI."""
        return read_times(dataset(self._file, schema.TRIGGER, ("time",)))

    def time_of(self, triggers: Triggers) -> np.ndarray:
        """Times of images; NaN without an event."""
        has_event = triggers.problem != NO_EVENT
        time_s = np.full(len(has_event), math.nan)
        time_s[has_event] = self.time_s[triggers.row[has_event]]
        return time_s

    def time_at(self, obs_id: np.ndarray, event_id: np.ndarray) -> np.ndarray:
        """Times of events, seconds since 1970-01-01 TAI; NaN of those that are not in the file."""
        row, has_event = self._index.find(obs_id, event_id)
        return np.where(has_event, self.time_s[row], math.nan)

    def counts_of_types(self) -> dict[int, int]:
        """Number of array events of each type."""
        values, counts = np.unique(self._types, return_counts=True)
        return dict(zip(values.tolist(), counts.tolist(), strict=True))


def read_times(table: h5py.Dataset) -> np.ndarray:
    """Column ``time`` in seconds since 1970-01-01 TAI, of any data model."""
    if "time" not in (table.dtype.names or ()) or table.dtype["time"].base.kind not in "iuf":
        raise InputFileError(f"{table.file.filename}: {table.name} has no times; make the file again")
    time = table["time"]
    return seconds_of_high_resolution(time) if time.ndim == 2 else seconds_of_mjd(time)


def _is_of_simtel(file: h5py.File) -> bool:
    """Whether sim_telarray made all runs of a file."""
    programs = read_columns(file, schema.SIMULATION_RUN, {"detector_prog_id": "integer"})["detector_prog_id"]
    return bool((programs == _SIMTEL_ARRAY).all())


class Showers:
    """The simulated showers of a file by their event."""

    def __init__(self, file: h5py.File, path: Path) -> None:
        self._path = path
        table = dataset(file, schema.SHOWER, (*EVENT, "true_shower_primary_id"))
        ids = read_ids(file, schema.SHOWER, EVENT)
        self._index = unique_index(ids, path, schema.SHOWER)
        self._columns = {
            schema.TRUTH_COLUMNS[name]: quantity(table, name, unit, path) for name, unit in _TRUTH_UNITS.items()
        }
        particles = read_columns(file, schema.SHOWER, {"true_shower_primary_id": "integer"})
        self._primary_id = particles["true_shower_primary_id"].astype(np.int64)
        self._shower_id = ids["event_id"]
        if "shower_id" in table.dtype.names:
            self._shower_id = read_columns(file, schema.SHOWER, {"shower_id": "integer"})["shower_id"]
        elif schema.SIMULATION_RUN in file and _is_of_simtel(file):
            self._shower_id = ids["event_id"] // schema.SIMTEL_USES

    def shower_id(self, obs_id: np.ndarray, event_id: np.ndarray) -> np.ndarray:
        """Number of the shower of each event; that of the event where no shower is known."""
        row, is_known = self._index.find(obs_id, event_id)
        result = event_id.copy()
        result[is_known] = self._shower_id[row[is_known]]
        return result

    def truth(self, obs_id: np.ndarray, event_id: np.ndarray) -> dict[str, np.ndarray]:
        """Truth of each event; NaN, and -1 as the particle, where no shower is known."""
        row, is_known = self._index.find(obs_id, event_id)
        truth = {}
        for name, column in self._columns.items():
            truth[name] = np.full(len(row), math.nan)
            truth[name][is_known] = column[row[is_known]]
        truth["true_primary_id"] = np.full(len(row), -1)
        truth["true_primary_id"][is_known] = self._primary_id[row[is_known]]
        return truth

    def refuse_unknown(self, tel_id: int, obs_id: np.ndarray, event_id: np.ndarray, needed: np.ndarray) -> None:
        """Refuse images that need a shower and have none: the file is of simulated events.

        Raises
        ------
        InputFileError
            Naming the first.
        """
        lacks = needed & ~self._index.find(obs_id, event_id)[1]
        if lacks.any():
            first = int(np.argmax(lacks))
            raise InputFileError(
                f"{self._path}: {described(IMAGE, (obs_id[first], event_id[first], tel_id))} has an image but no "
                f"simulated shower ({np.count_nonzero(lacks)} such images of this telescope); the file is incomplete, "
                "make it again"
            )
