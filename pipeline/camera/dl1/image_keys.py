"""Keys of the images of a DL1 file, compared with its triggers and showers."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from pipeline.camera.dl1 import schema
from pipeline.camera.dl1.events import EVENT, IMAGE, EventTables, Showers, telescope_ids, telescope_table
from pipeline.camera.event_types import reasons_of_types
from pipeline.camera.keys import described
from pipeline.errors import InputFileError
from pipeline.hdf5 import dataset

_FAR_ROWS = 32  # rows further apart are read separately: HDF5 decompresses about as many together
_MAX_UNTRIGGERED = 0.05  # share of the images; a file that lacks more triggers has lost a part of its tables
_MAX_ID = np.iinfo(np.int64).max


class CheckedImages(NamedTuple):
    """Keys of the images of one telescope.

    Attributes
    ----------
    obs_id, event_id : ndarray, shape (n,)
    order : ndarray of int64, shape (n,)
        Place of the event among the array events; 0 where it has none.
    problems : Counter
        Why images have no trigger -> how many.
    first : str
        The first of them, in words; empty if there is none.
    """

    obs_id: np.ndarray
    event_id: np.ndarray
    order: np.ndarray
    problems: Counter[str]
    first: str


class ImageKeys:
    """Which row of which table of images holds which event.

    Parameters
    ----------
    file : h5py.File
    path : path
        For messages.
    events : EventTables
    showers : Showers, optional
        Of simulated events.
    event_types : collection of str
        Types of events that are showers: their images need a simulated one.
    """

    def __init__(
        self, file: h5py.File, path: Path, events: EventTables, showers: Showers | None, event_types: Collection[str]
    ) -> None:
        self._file, self._path = file, path
        self._events, self._showers, self._event_types = events, showers, event_types
        self._checked: dict[int, CheckedImages] = {}

    def of(self, tel_id: int) -> CheckedImages:
        """Keys of all images of a telescope. To read them once, all its images are decompressed.

        Raises
        ------
        InputFileError
            If a key stands twice, or an image that needs one has no simulated shower.
        """
        if tel_id not in self._checked:
            obs_id, event_id = self._read_all(schema.IMAGES, tel_id)
            if telescope_table(schema.TRUE_IMAGES, tel_id) in self._file:
                self._read_all(schema.TRUE_IMAGES, tel_id)
            triggers = self._events.triggers_of(tel_id, obs_id, event_id)
            if self._showers is not None:
                needed = (triggers.problem == "") & (reasons_of_types(triggers.event_type, self._event_types) == "")
                self._showers.refuse_unknown(tel_id, obs_id, event_id, needed)
            places = np.flatnonzero(triggers.problem != "")
            first = described(IMAGE, (obs_id[places[0]], event_id[places[0]], tel_id)) if len(places) else ""
            problems = Counter(triggers.problem[places].tolist())
            self._checked[tel_id] = CheckedImages(obs_id, event_id, triggers.row, problems, first)
        return self._checked[tel_id]

    def warnings(self, tel_ids: Sequence[int]) -> list[str]:
        """One sentence for each reason for which images of these telescopes have no trigger.

        Raises
        ------
        InputFileError
            If more than 5 % of the images have none.
        """
        checked = [self.of(tel_id) for tel_id in tel_ids]
        problems = sum((part.problems for part in checked), Counter())
        n_images = sum(len(part.event_id) for part in checked)
        if problems.total() > _MAX_UNTRIGGERED * n_images:
            first = next(part.first for part in checked if part.first)
            raise InputFileError(
                f"{self._path}: {problems.total()} of {n_images} images have no trigger (first: {first}: "
                f"{problems.most_common(1)[0][0]}); with more than {_MAX_UNTRIGGERED:.0%} the file counts as "
                "incomplete: make it again, or merge its parts again"
            )
        return [
            f"images left out: {count} of {n_images} ({problem}); DL2 has no place for them, write the file again with "
            "their triggers if they matter"
            for problem, count in problems.most_common()
        ]

    def rows_of(self, tel_ids: Sequence[int], event_ids: Collection[int]) -> dict[int, np.ndarray]:
        """Rows of the images of some events, by telescope."""
        rows = self._listed_rows(tel_ids, event_ids)
        if rows is None:
            self.warnings(tel_ids)
            rows = {tel_id: np.flatnonzero(_is_any(self.of(tel_id).event_id, event_ids)) for tel_id in tel_ids}
        return rows

    def _listed_rows(self, tel_ids: Sequence[int], event_ids: Collection[int]) -> dict[int, np.ndarray] | None:
        """The same as the small tables list them, for an answer without decompressing all images.

        None where only the images can tell: the tables do not agree on their rows, do not list one of the events, or
        what then stands in these rows is not what they say.
        """
        rows: dict[int, np.ndarray] = {}
        is_listed = dict.fromkeys(event_ids, False)
        for tel_id in tel_ids:
            images = dataset(self._file, telescope_table(schema.IMAGES, tel_id), IMAGE)
            ids = self._events.listed_ids(tel_id)
            if ids is None or len(ids["event_id"]) != len(images):
                return None
            rows[tel_id] = np.flatnonzero(_is_any(ids["event_id"], event_ids))
            stored = read_rows(images.fields(list(IMAGE)), rows[tel_id])
            expected = {name: ids[name][rows[tel_id]] for name in EVENT} | {"tel_id": np.full(len(stored), tel_id)}
            if not all(np.array_equal(stored[name], expected[name]) for name in IMAGE):
                return None
            is_listed |= dict.fromkeys(stored["event_id"].tolist(), True)
        return rows if all(is_listed.values()) else None

    def _read_all(self, group: str, tel_id: int) -> tuple[np.ndarray, np.ndarray]:
        return self.plain(telescope_ids(self._file, self._path, telescope_table(group, tel_id), tel_id))

    def plain(self, ids: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """obs_id and event_id in one type for the whole file: int64, or uint64 if its events have ids beyond."""
        for column in (ids["obs_id"], ids["event_id"]):
            if column.dtype.kind == "u" and not self._has_long_ids and len(column) and column.max() > _MAX_ID:
                raise InputFileError(
                    f"{self._path}: an image has the id {column.max()}, which no trigger of the file has; make it again"
                )
        dtype = np.uint64 if self._has_long_ids else np.int64
        return ids["obs_id"].astype(dtype), ids["event_id"].astype(dtype)

    @cached_property
    def _has_long_ids(self) -> bool:
        return any(
            len(column) and int(column.max()) > _MAX_ID for column in (self._events.obs_id, self._events.event_id)
        )


def read_rows(table: h5py.Dataset, rows: np.ndarray) -> np.ndarray:
    """Rows of a table at rising positions, neighbours in one go: HDF5's own selection by index is far slower."""
    pieces = np.split(rows, np.flatnonzero(np.diff(rows) > _FAR_ROWS) + 1) if len(rows) else []
    parts = [_from_first_to_last(table, piece) for piece in pieces]
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else table[:0]


def _from_first_to_last(table: h5py.Dataset, rows: np.ndarray) -> np.ndarray:
    found = table[rows[0] : rows[-1] + 1]
    return found if len(found) == len(rows) else found[rows - rows[0]]


def _is_any(ids: np.ndarray, wanted: Collection[int]) -> np.ndarray:
    """Which ids are among some: compared one by one, because `np.isin` makes floats of mixed integer types."""
    return np.any([ids == value for value in wanted], axis=0) if wanted else np.zeros(len(ids), bool)
