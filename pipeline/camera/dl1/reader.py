"""Read DL1 with h5py, telescope by telescope and in bounded chunks. No ctapipe, no PyTables.

Accepted: what ctapipe 0.28 reads, data models v4.0.0 to v7.1.0. They differ, as far as images go, in how times are
stored (Modified Julian date up to v6, two integers since) and where the pointing is stored.

Rows of different tables belong together by their key (`pipeline.camera.keys`), never by their place.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
import numpy as np

from pipeline.camera.dl1 import schema
from pipeline.camera.dl1.columns import decoded, text
from pipeline.camera.dl1.coordinates import impact_distance_m
from pipeline.camera.dl1.events import EventTables, Showers, read_ids, telescope_ids, telescope_table, telescopes_in
from pipeline.camera.dl1.image_keys import ImageKeys, read_rows
from pipeline.camera.dl1.instrument import read_subarray
from pipeline.camera.dl1.model import ImageChunk
from pipeline.camera.dl1.pointings import Pointings
from pipeline.camera.event_types import reasons_of_types, type_name
from pipeline.camera.keys import KeyIndex
from pipeline.config import CameraIngestConfig
from pipeline.directions import fov_of_altaz, geodetic_of_itrs, offset_deg, radec_of_altaz
from pipeline.errors import InputFileError
from pipeline.files import check_regular, source_name
from pipeline.hdf5 import dataset, hdf5_errors, open_file

_LEVELS = "CTA PRODUCT DATA LEVELS"
_VERSION = "CTA PRODUCT DATA MODEL VERSION"
_LSTCHAIN_IMAGES = "/dl1/event/telescope/image"
_MOST_LOST = 0.05  # share of triggers without an image that is not worth a word
_SHOWN = 5  # telescopes in one sentence


class DL1File:
    """Camera images of a DL1 file.

    Parameters
    ----------
    path : path
    event_types : collection of str, optional
        Names of the types of events that are showers (`pipeline.camera.event_types`); images of others are read with a
        reason in `ImageChunk.left_out`. Default: those of `CameraIngestConfig`.

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
        not known. Keys are checked when events or images are first asked for.
    """

    def __init__(self, path: str | Path, event_types: Collection[str] | None = None) -> None:
        self.path = check_regular(path)
        self.source = source_name(self.path)
        self._event_types = frozenset(CameraIngestConfig().event_types if event_types is None else event_types)
        self._file = open_file(self.path)
        try:
            with hdf5_errors(self.path):
                self.data_model_version = self._check_layout()
                self.telescopes, self.positions_m = read_subarray(self._file, self.path)
                self._pointings = Pointings(self._file, self.path)
        except BaseException:
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
        return [tel_id for tel_id in self._tables_of_images if tel_id in self.telescopes]

    @cached_property
    def _tables_of_images(self) -> list[int]:
        return telescopes_in(self._file, schema.IMAGES)

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
        with hdf5_errors(self.path):
            return len(dataset(self._file, schema.TRIGGER, ("obs_id", "event_id")))

    @cached_property
    def obs_ids(self) -> list[int]:
        """Numbers of the runs in the file (several when files were merged)."""
        with hdf5_errors(self.path):
            return np.unique(read_ids(self._file, schema.OBSERVATION_BLOCK, ("obs_id",))["obs_id"]).tolist()

    def pointing_of(self, tel_id: int) -> tuple[float, float] | None:
        """Altitude and azimuth [deg] of a telescope in the first run; None where the file does not give it."""
        with hdf5_errors(self.path):
            return self._pointings.typical(tel_id, self.events.obs_id, self.events.time_s)

    @property
    def pointing(self) -> tuple[float, float] | None:
        """Altitude and azimuth [deg] of the first telescope that has them, in the first run; None if none has."""
        pointings = map(self.pointing_of, self.tel_ids or self.telescopes)
        return next((pointing for pointing in pointings if pointing is not None), None)

    @cached_property
    def site_deg(self) -> tuple[float, float] | None:
        """Longitude and latitude of the array; None for simulations, and where the file does not give them."""
        place_m = [self._file[schema.LAYOUT].attrs.get(f"reference_itrs_{axis}", math.nan) for axis in "xyz"]
        if self.has_truth or not all(isinstance(value, float) and math.isfinite(value) for value in place_m):
            return None
        return geodetic_of_itrs(*place_m)

    def radec_of(
        self, obs_id: np.ndarray, event_id: np.ndarray, alt_deg: np.ndarray, az_deg: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Right ascension and declination [deg] of directions at the times of events; None without a site."""
        if self.site_deg is None:
            return None
        with hdf5_errors(self.path):
            time_s = self.events.time_at(obs_id, event_id)
        return radec_of_altaz(alt_deg, az_deg, np.where(time_s > 0, time_s, math.nan), *self.site_deg)

    @cached_property
    def provenance(self) -> str:
        """The provenance JSON of a file that lightpool wrote, else an empty object."""
        return text(self._file.attrs.get("LIGHTPOOL PROVENANCE", "{}"))

    @cached_property
    def generated_by(self) -> str:
        """The bundle that generated the images, of a file that was not simulated; else empty."""
        return text(self._file.attrs.get(schema.GENERATED_BY, ""))

    @cached_property
    def events(self) -> EventTables:
        """Triggers by key.

        Raises
        ------
        InputFileError
            If an event stands twice in one of the small tables (all but those of images).
        """
        with hdf5_errors(self.path):
            return EventTables(self._file, self.path)

    def event_types(self) -> dict[str, int]:
        """Number of array events of each type, by name."""
        return {type_name(number): count for number, count in self.events.counts_of_types().items()}

    @property
    def n_untriggered(self) -> int:
        """Images that cannot have a trigger, by the numbers of rows alone; `check` finds them all."""
        return sum(max(self.n_images_of(tel_id) - self.events.n_triggers_of(tel_id), 0) for tel_id in self.tel_ids)

    # ---- keys of images ----------------------------------------------------------------------------------------------
    @cached_property
    def _keys(self) -> ImageKeys:
        events = self.events  # first, as the table that the others follow: its duplicates are the ones to name
        showers = self._showers if self.has_truth else None
        return ImageKeys(self._file, self.path, events, showers, self._event_types)

    def check(self, tel_ids: Collection[int] | None = None) -> list[str]:
        """Compare the keys of all images, or of those of some telescopes, with the triggers and the showers.

        To read the ids of an image is to decompress it: about 15 us for each image of 1855 pixels, once.

        Returns
        -------
        list of str
            One sentence for each kind of images that are left out, and one about images that the file has lost.

        Raises
        ------
        InputFileError
            If a key stands twice in a table, an image that needs it has no simulated shower, or more than 5 % of the
            images have no trigger.
        """
        with hdf5_errors(self.path):
            texts = self._keys.warnings([tel_id for tel_id in self.tel_ids if tel_ids is None or tel_id in tel_ids])
        if undescribed := sorted(set(self._tables_of_images) - set(self.telescopes)):
            numbers = ", ".join(map(str, undescribed))
            texts.append(f"images of telescope {numbers} are left out: the file does not describe this telescope")
        return texts + self._lost_images(tel_ids)

    def _lost_images(self, tel_ids: Collection[int] | None) -> list[str]:
        """A sentence about telescopes that have lost many of their images, or all."""
        lost = []
        for tel_id in self.telescopes if self.events.lists_telescopes else ():
            n_triggers, n_images = self.events.n_triggers_of(tel_id), self.n_images_of(tel_id)
            if (tel_ids is None or tel_id in tel_ids) and n_images < (1 - _MOST_LOST) * n_triggers:
                lost.append(f"telescope {tel_id} has {n_images} images for {n_triggers} triggers")
        if not lost:
            return []
        more = f", and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
        return [f"the file has lost images: {', '.join(lost[:_SHOWN])}{more}; make it again if they matter"]

    def index(self, tel_id: int) -> dict[str, np.ndarray]:
        """obs_id, event_id and shower_id of every image of a telescope; their keys are unique.

        ``order`` is the place of the event among the array events of the file.
        """
        with hdf5_errors(self.path):
            images = self._keys.of(tel_id)
            shower_id = self._shower_id(images.obs_id, images.event_id)
        ids = {"obs_id": images.obs_id, "event_id": images.event_id}
        return ids | {"shower_id": shower_id, "order": images.order}

    def telescopes_of(self, event_id: int, tel_ids: Sequence[int]) -> list[int]:
        """Those of the telescopes that have an image of an event."""
        with hdf5_errors(self.path):
            rows = self._keys.rows_of(tel_ids, [event_id])
        return [tel_id for tel_id in tel_ids if len(rows[tel_id])]

    # ---- images ------------------------------------------------------------------------------------------------------
    def chunks(
        self, size: int = 1024, tel_ids: Collection[int] | None = None, event_ids: Collection[int] | None = None
    ) -> Iterator[ImageChunk]:
        """All images, or those of some telescopes and events; `size` images of one telescope at a time.

        Raises
        ------
        InputFileError
            If a telescope is not in the file, a part of it cannot be read, or `check` finds something.
        """
        if tel_ids is not None and (unknown := sorted(set(tel_ids) - set(self.telescopes))):
            raise InputFileError(f"{self.path} has no telescope {unknown[0]}; it has {sorted(self.telescopes)}")
        chosen = [tel_id for tel_id in self.tel_ids if tel_ids is None or tel_id in tel_ids]
        if event_ids is None:
            self.check(chosen)
            rows = {tel_id: np.arange(self.n_images_of(tel_id)) for tel_id in chosen}
        else:
            with hdf5_errors(self.path):
                rows = self._keys.rows_of(chosen, event_ids)
        for tel_id in chosen:
            for start in range(0, len(rows[tel_id]), size):
                yield self.read(tel_id, rows[tel_id][start : start + size])

    def read(self, tel_id: int, rows: np.ndarray, *, true_images: bool = False) -> ImageChunk:
        """The images of a telescope at `rows`, which rise.

        Raises
        ------
        InputFileError
            If they are asked for, and the file does not hold the photo-electrons of the showers alone.
        """
        with hdf5_errors(self.path):
            chunk = self._read(tel_id, rows)
            if true_images:
                chunk.true_image = self._true_images(tel_id, chunk)
            return chunk

    def _true_images(self, tel_id: int, chunk: ImageChunk) -> np.ndarray:
        path = telescope_table(schema.TRUE_IMAGES, tel_id)
        if path not in self._file:
            raise InputFileError(
                f"{self.path} has no true images of telescope {tel_id} (photo-electrons of the showers alone); make it "
                "with ctapipe-process --write-images from a simulated file"
            )
        ids = telescope_ids(self._file, self.path, path, tel_id)
        row, is_known = KeyIndex(ids["obs_id"], ids["event_id"]).find(chunk.obs_id, chunk.event_id)
        table = dataset(self._file, path, ("true_image",))
        order = np.unique(row)
        image = read_rows(table, order)["true_image"][np.searchsorted(order, row)]
        if not is_known.all() or (image < 0).any():  # ctapipe writes -1 for what is not known
            raise InputFileError(
                f"{self.path} has images of telescope {tel_id} whose photo-electrons are not known; make it again from "
                "a simulated file that holds them"
            )
        return image

    def _read(self, tel_id: int, rows: np.ndarray) -> ImageChunk:
        table = self._images(tel_id)
        camera = self.telescopes[tel_id]
        data = read_rows(table, np.asarray(rows))
        obs_id, event_id = self._keys.plain(data)
        image = decoded(table, "image", data)
        if image.shape[1:] != (camera.n_pixels,):
            raise InputFileError(
                f"{self.path}: images of telescope {tel_id} have shape {image.shape[1:]}, its camera {camera.n_pixels} "
                "pixels; one gain-selected charge per pixel is needed"
            )
        triggers = self.events.triggers_of(tel_id, obs_id, event_id)
        of_type = reasons_of_types(triggers.event_type, self._event_types)
        left_out = np.where(triggers.problem == "", of_type, triggers.problem)
        has_time = "peak_time" in data.dtype.names
        time_s = self.events.time_of(triggers)
        pointing = tuple(map(np.degrees, self._pointings.of(tel_id, obs_id, time_s)))
        truth = self._truth_of(tel_id, obs_id, event_id, left_out, *pointing) if self.has_truth else {}
        return ImageChunk(
            camera=camera,
            tel_id=tel_id,
            obs_id=obs_id,
            event_id=event_id,
            shower_id=self._shower_id(obs_id, event_id),
            time_s=time_s,
            image=image,
            peak_time=decoded(table, "peak_time", data) if has_time else np.full_like(image, math.nan),
            is_valid=data["is_valid"].astype(bool) if "is_valid" in data.dtype.names else np.ones(len(data), bool),
            event_type=triggers.event_type,
            is_triggered=triggers.problem == "",
            left_out=left_out,
            pointing_alt_deg=pointing[0],
            pointing_az_deg=pointing[1],
            position_m=self.positions_m[tel_id],
            truth=truth,
        )

    def _images(self, tel_id: int) -> h5py.Dataset:
        return dataset(self._file, telescope_table(schema.IMAGES, tel_id), ("obs_id", "event_id", "tel_id", "image"))

    # ---- truth -------------------------------------------------------------------------------------------------------
    @cached_property
    def _showers(self) -> Showers:
        with hdf5_errors(self.path):
            return Showers(self._file, self.path)

    def _shower_id(self, obs_id: np.ndarray, event_id: np.ndarray) -> np.ndarray:
        return self._showers.shower_id(obs_id, event_id) if self.has_truth else event_id

    def _truth_of(
        self,
        tel_id: int,
        obs_id: np.ndarray,
        event_id: np.ndarray,
        left_out: np.ndarray,
        alt0_deg: np.ndarray,
        az0_deg: np.ndarray,
    ) -> dict[str, np.ndarray]:
        truth = self._showers.truth(obs_id, event_id)
        self._showers.refuse_unknown(tel_id, obs_id, event_id, left_out == "")
        # Computed from the axis, not read: the table of distances is optional, and the shower is not.
        truth["true_impact_m"] = impact_distance_m(truth, self.positions_m[tel_id])
        directions = truth["true_alt_deg"], truth["true_az_deg"], alt0_deg, az0_deg
        truth["true_offset_deg"] = offset_deg(*directions)
        truth["true_fov_lon_deg"], truth["true_fov_lat_deg"] = fov_of_altaz(*directions)
        return truth

    def unknown_pointings(self) -> list[str]:
        """A sentence for each run in which a telescope with images has no pointing."""
        by_run: dict[int, list[int]] = {}
        with hdf5_errors(self.path):
            for tel_id in self.tel_ids:
                alt, _ = self._pointings.of(tel_id, self.events.obs_id, self.events.time_s)
                for run in np.unique(self.events.obs_id[np.isnan(alt)]).tolist():
                    by_run.setdefault(run, []).append(tel_id)
        return [
            f"run {run} gives no pointing, or several, of telescope {', '.join(map(str, tel_ids))}: "
            "angles to the pointing are NaN"
            for run, tel_ids in by_run.items()
        ]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
