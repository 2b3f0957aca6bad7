"""Read DL1 with h5py, telescope by telescope and in bounded chunks. No ctapipe, no PyTables.

Accepted: what ctapipe 0.28 reads, data models v4.0.0 to v7.1.0. They differ, as far as images go, in how times are
stored (Modified Julian date up to v6, two integers since) and where the pointing is stored.
"""

import math
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
import hdf5plugin  # noqa: F401  (registers the blosc filter)
import numpy as np

from pipeline.camera.dl1 import schema
from pipeline.camera.dl1.columns import decoded, quantity, text
from pipeline.camera.dl1.coordinates import (
    impact_distance_m,
    offset_deg,
    seconds_of_high_resolution,
    seconds_of_mjd,
)
from pipeline.camera.dl1.instrument import read_subarray
from pipeline.camera.dl1.model import ImageChunk
from pipeline.errors import InputFileError
from pipeline.files import check_regular, source_name

_LEVELS = "CTA PRODUCT DATA LEVELS"
_VERSION = "CTA PRODUCT DATA MODEL VERSION"
_LSTCHAIN_IMAGES = "/dl1/event/telescope/image"
_FAR_ROWS = 32  # rows further apart are read separately: HDF5 decompresses about as many together
_SIMTEL_ARRAY = 1  # detector_prog_id of sim_telarray
_TRUTH_UNITS = {
    "true_energy": "TeV", "true_alt": "deg", "true_az": "deg", "true_core_x": "m", "true_core_y": "m",
    "true_h_first_int": "m", "true_x_max": "g cm-2",
}  # fmt: skip


class DL1File:
    """Camera images of a DL1 file.

    Parameters
    ----------
    path : path

    Attributes
    ----------
    source : str
        File name without known suffixes: what the split of its showers is decided by.
    data_model_version : str
    telescopes : dict
        Telescope id to its `Camera`; telescopes of one type share the object.
    positions_m : dict
        Telescope id to (x, y, z): north, west, up [m].

    Raises
    ------
    InputFileError
        If the file is missing, not HDF5, cut short, of lstchain's layout, without images, or of a data model that is
        not known.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = check_regular(path)
        self.source = source_name(self.path)
        try:
            self._file = h5py.File(self.path, "r")
        except OSError as error:
            raise InputFileError(f"{self.path} {_why_unreadable(self.path, error)}") from error
        try:
            self.data_model_version = self._check_layout()
            self.telescopes, self.positions_m = read_subarray(self._file, self.path)
        except (KeyError, OSError) as error:
            self._file.close()
            raise InputFileError(f"{self.path} is damaged or incomplete DL1: {error}; make it again") from error
        except InputFileError:
            self._file.close()
            raise

    # ---- what is in the file -----------------------------------------------------------------------------------------
    def _check_layout(self) -> str:
        attributes = self._file.attrs
        if _VERSION not in attributes:
            if _LSTCHAIN_IMAGES in self._file:
                raise InputFileError(
                    f"{self.path} is lstchain's DL1, not ctapipe's; convert it first: lightpool ingest {self.path.name}"
                )
            raise InputFileError(
                f"{self.path} is HDF5 but not DL1 (no {_VERSION!r}); give a file made by ctapipe >= 0.17"
            )
        version = text(attributes[_VERSION])
        if version not in schema.READABLE_VERSIONS:
            raise InputFileError(
                f"{self.path} has data model {version}; accepted: {', '.join(schema.READABLE_VERSIONS)}. "
                "Make it again with ctapipe 0.28"
            )
        if schema.IMAGES not in self._file or schema.TRIGGER not in self._file:
            levels = text(attributes.get(_LEVELS, "none"))
            raise InputFileError(
                f"{self.path} has no camera images of array events (data levels: {levels}); make it with "
                "ctapipe-process --write-images"
            )
        return version

    @property
    def has_truth(self) -> bool:
        """Whether the events are simulated and their showers known."""
        return schema.SHOWER in self._file

    @cached_property
    def tel_ids(self) -> list[int]:
        """Telescopes that have images, in rising order."""
        names = (name for name in self._file[schema.IMAGES] if name.startswith("tel_"))
        return sorted(
            tel_id for tel_id in (int(name.removeprefix("tel_")) for name in names) if tel_id in self.telescopes
        )

    @cached_property
    def n_images(self) -> int:
        """Number of images of all telescopes."""
        return sum(self.n_images_of(tel_id) for tel_id in self.tel_ids)

    def n_images_of(self, tel_id: int) -> int:
        """Number of images of one telescope."""
        return len(self._images(tel_id)) if tel_id in self.tel_ids else 0

    @cached_property
    def n_events(self) -> int:
        """Number of array events."""
        return len(self._file[schema.TRIGGER])

    @cached_property
    def obs_ids(self) -> list[int]:
        """Numbers of the runs in the file (several when files were merged)."""
        return np.unique(self._file[schema.OBSERVATION_BLOCK]["obs_id"]).astype(np.int64).tolist()

    @property
    def pointing(self) -> tuple[float, float] | None:
        """Altitude and azimuth [deg] of the first telescope in the first run; None where the file does not give it."""
        for tel_id in self.tel_ids or list(self.telescopes):
            for alt_rad, az_rad in self._pointings(tel_id).values():
                return math.degrees(alt_rad), math.degrees(az_rad)
        return None

    @cached_property
    def provenance(self) -> str:
        """The provenance JSON of a file that lightpool wrote, else an empty object."""
        return text(self._file.attrs.get("LIGHTPOOL PROVENANCE", "{}"))

    # ---- images ------------------------------------------------------------------------------------------------------
    def chunks(
        self, size: int = 1024, tel_ids: Collection[int] | None = None, event_ids: Collection[int] | None = None
    ) -> Iterator[ImageChunk]:
        """All images, or those of some telescopes and events; `size` images of one telescope at a time.

        Raises
        ------
        InputFileError
            If a telescope is not in the file, or a part of it cannot be read.
        """
        if tel_ids is not None and (unknown := sorted(set(tel_ids) - set(self.telescopes))):
            raise InputFileError(f"{self.path} has no telescope {unknown[0]}; it has {sorted(self.telescopes)}")
        for tel_id in self.tel_ids:
            if tel_ids is not None and tel_id not in tel_ids:
                continue
            rows = np.arange(self.n_images_of(tel_id))
            if event_ids is not None:
                rows = rows[np.isin(self.index(tel_id)["event_id"], list(event_ids))]
            for start in range(0, len(rows), size):
                yield self.read(tel_id, rows[start : start + size])

    def index(self, tel_id: int) -> dict[str, np.ndarray]:
        """obs_id, event_id and shower_id of every image of a telescope, int64, without reading the images.

        ``order`` is the place of the event among the array events of the file.
        """
        obs_id, event_id = self._image_ids(tel_id)
        order, is_known = self._trigger_index.find(obs_id, event_id)
        if not is_known.all():
            raise InputFileError(
                f"{self.path}: event {event_id[~is_known][0]} has an image but is not among the triggers"
            )
        shower_id = self._shower_id(obs_id, event_id)
        return {"obs_id": obs_id, "event_id": event_id, "shower_id": shower_id, "order": order}

    def _image_ids(self, tel_id: int) -> tuple[np.ndarray, np.ndarray]:
        """obs_id and event_id of every image of a telescope.

        The image table has them, but to read them there every image has to be decompressed. The table of triggers
        has the same rows in the same order, unless images are missing: a sample of rows is checked.
        """
        table = self._images(tel_id)
        n = len(table)
        try:
            if schema.TEL_TRIGGER in self._file:
                run, event, telescope = self._telescope_triggers
                here = telescope == tel_id
                sample = np.unique(np.linspace(0, n - 1, min(n, 8)).astype(int))
                ids = [tuple(table[row][["obs_id", "event_id"]].tolist()) for row in sample.tolist()]
                if np.count_nonzero(here) == n and ids == list(
                    zip(run[here][sample].tolist(), event[here][sample].tolist(), strict=True)
                ):
                    return run[here], event[here]
            ids = table.fields(["obs_id", "event_id"])[:]
        except OSError as error:
            raise self._damaged(error) from error
        return ids["obs_id"].astype(np.int64), ids["event_id"].astype(np.int64)

    @cached_property
    def _telescope_triggers(self) -> tuple[np.ndarray, ...]:
        ids = self._file[schema.TEL_TRIGGER].fields(["obs_id", "event_id", "tel_id"])[:]
        return tuple(ids[name].astype(np.int64) for name in ("obs_id", "event_id", "tel_id"))

    def read(self, tel_id: int, rows: np.ndarray) -> ImageChunk:
        """The images of a telescope at `rows`, which rise."""
        table = self._images(tel_id)
        camera = self.telescopes[tel_id]
        try:
            data = _read_rows(table, np.asarray(rows))
        except OSError as error:
            raise self._damaged(error) from error
        obs_id, event_id = data["obs_id"].astype(np.int64), data["event_id"].astype(np.int64)
        image = decoded(table, "image", data)
        if image.shape[1:] != (camera.n_pixels,):
            raise InputFileError(
                f"{self.path}: images of telescope {tel_id} have shape {image.shape[1:]}, its camera {camera.n_pixels} "
                "pixels; one gain-selected charge per pixel is needed"
            )
        has_time = "peak_time" in data.dtype.names
        return ImageChunk(
            camera=camera,
            tel_id=tel_id,
            obs_id=obs_id,
            event_id=event_id,
            shower_id=self._shower_id(obs_id, event_id),
            time_s=self._times(obs_id, event_id),
            image=image,
            peak_time=decoded(table, "peak_time", data) if has_time else np.full_like(image, math.nan),
            is_valid=data["is_valid"].astype(bool) if "is_valid" in data.dtype.names else np.ones(len(data), bool),
            truth=self._truth_of(tel_id, obs_id, event_id) if self.has_truth else {},
        )

    def _images(self, tel_id: int) -> h5py.Dataset:
        return self._file[f"{schema.IMAGES}/tel_{tel_id:03d}"]

    def _damaged(self, error: OSError) -> InputFileError:
        return InputFileError(f"{self.path} is damaged: a part of its data cannot be read ({_first_line(error)})")

    # ---- what belongs to an event ------------------------------------------------------------------------------------
    @cached_property
    def _trigger_index(self) -> "_EventIndex":
        table = self._file[schema.TRIGGER]
        return _EventIndex(table["obs_id"], table["event_id"])

    @cached_property
    def _trigger_time_s(self) -> np.ndarray:
        time = self._file[schema.TRIGGER]["time"]
        return seconds_of_high_resolution(time) if time.ndim == 2 else seconds_of_mjd(time)

    def _times(self, obs_id: np.ndarray, event_id: np.ndarray) -> np.ndarray:
        row, is_known = self._trigger_index.find(obs_id, event_id)
        return np.where(is_known, self._trigger_time_s[row], math.nan) if len(self._trigger_time_s) else np.zeros(0)

    @cached_property
    def _showers(self) -> "tuple[_EventIndex, dict[str, np.ndarray]]":
        table = self._file[schema.SHOWER]
        columns = {
            schema.TRUTH_COLUMNS[name]: quantity(table, name, unit, self.path) for name, unit in _TRUTH_UNITS.items()
        }
        columns["true_primary_id"] = table["true_shower_primary_id"].astype(np.int64)
        event_id = table["event_id"].astype(np.int64)
        if "shower_id" in table.dtype.names:
            columns["shower_id"] = table["shower_id"].astype(np.int64)
        elif (
            schema.SIMULATION_RUN in self._file
            and (self._file[schema.SIMULATION_RUN]["detector_prog_id"] == _SIMTEL_ARRAY).all()
        ):
            columns["shower_id"] = event_id // schema.SIMTEL_USES
        else:
            columns["shower_id"] = event_id
        return _EventIndex(table["obs_id"], event_id), columns

    def _shower_id(self, obs_id: np.ndarray, event_id: np.ndarray) -> np.ndarray:
        if not self.has_truth:
            return event_id
        index, columns = self._showers
        row, is_known = index.find(obs_id, event_id)
        return np.where(is_known, columns["shower_id"][row], event_id) if len(columns["shower_id"]) else event_id

    def _truth_of(self, tel_id: int, obs_id: np.ndarray, event_id: np.ndarray) -> dict[str, np.ndarray]:
        index, columns = self._showers
        row, is_known = index.find(obs_id, event_id)
        if not is_known.all():
            raise InputFileError(f"{self.path}: event {event_id[~is_known][0]} has an image but no simulated shower")
        truth = {name: column[row] for name, column in columns.items() if name != "shower_id"}
        # Computed from the axis, not read: the table of distances is optional, and the shower is not.
        truth["true_impact_m"] = impact_distance_m(truth, self.positions_m[tel_id])
        pointings = self._pointings(tel_id)
        unknown = (math.nan, math.nan)
        alt_az = np.array([pointings.get(run, unknown) for run in obs_id.tolist()]).reshape(-1, 2)
        alt0_deg, az0_deg = np.degrees(alt_az).T
        truth["true_offset_deg"] = offset_deg(truth["true_alt_deg"], truth["true_az_deg"], alt0_deg, az0_deg)
        return truth

    def _pointings(self, tel_id: int) -> dict[int, tuple[float, float]]:
        """Altitude and azimuth [rad] of a telescope per run."""
        path = f"{schema.FIXED_POINTING}/tel_{tel_id:03d}"
        if path in self._file:
            table = self._file[path]
            alt = quantity(table, "telescope_pointing_altitude", "rad", self.path)
            az = quantity(table, "telescope_pointing_azimuth", "rad", self.path)
            runs = table["obs_id"].astype(np.int64).tolist()
            return dict(zip(runs, zip(alt.tolist(), az.tolist(), strict=True), strict=True))
        path = f"{schema.LEGACY_POINTING}/tel_{tel_id:03d}"
        if path in self._file and len(table := self._file[path]):
            # Pointing over time: of simulated runs, the only ones where it is needed, it is constant.
            alt = float(np.median(quantity(table, "altitude", "rad", self.path)))
            az = float(np.median(quantity(table, "azimuth", "rad", self.path)))
            return dict.fromkeys(self.obs_ids, (alt, az))
        return {}

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _read_rows(table: h5py.Dataset, rows: np.ndarray) -> np.ndarray:
    """Rows of a table at rising positions, neighbours in one go: HDF5's own selection by index is far slower."""
    pieces = np.split(rows, np.flatnonzero(np.diff(rows) > _FAR_ROWS) + 1) if len(rows) else []
    parts = [table[piece[0] : piece[-1] + 1][piece - piece[0]] for piece in pieces]
    return np.concatenate(parts) if parts else table[:0]


class _EventIndex:
    """Rows of (obs_id, event_id) pairs by binary search: an event id alone may come back in another run."""

    def __init__(self, obs_id: np.ndarray, event_id: np.ndarray) -> None:
        self._runs = np.unique(obs_id.astype(np.int64))
        self._order = np.lexsort((event_id, obs_id))
        self._run = np.searchsorted(self._runs, obs_id.astype(np.int64))[self._order]
        self._event = event_id.astype(np.int64)[self._order]
        self._starts = np.searchsorted(self._run, np.arange(len(self._runs) + 1))

    def find(self, obs_id: np.ndarray, event_id: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row of each pair, and whether it exists (0 and False where it does not)."""
        row, is_known = np.zeros(len(event_id), np.int64), np.zeros(len(event_id), bool)
        for number, run in enumerate(self._runs.tolist()):
            here = np.flatnonzero(obs_id == run)
            start, stop = self._starts[number], self._starts[number + 1]
            place = np.minimum(start + np.searchsorted(self._event[start:stop], event_id[here]), stop - 1)
            row[here] = self._order[place]
            is_known[here] = self._event[place] == event_id[here]
        return row, is_known


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _why_unreadable(path: Path, error: OSError) -> str:
    if path.stat().st_size == 0:
        return "is empty"
    if "truncated" in str(error):
        return "is cut short (HDF5 says: truncated file); copy or make it again"
    if not h5py.is_hdf5(path):
        return "is not an HDF5 file; give a DL1 file, or run lightpool ingest on it first"
    return f"cannot be read as HDF5 ({_first_line(error)})"
