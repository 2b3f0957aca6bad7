"""lstchain's DL1 to ctapipe's: other tables for the same images.

lstchain (0.9 and later) has one table of images and one of parameters for all telescopes of a type, simulation truth
among the parameters, and times as Unix seconds. Telescopes and cameras are described as in ctapipe, so they come from
the file. Hillas parameters are recomputed from lstchain's own cleaning mask: its units (metres here, degrees there)
have changed between versions. A merged file keeps its runs, each with its own settings and pointing.
"""

import math
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline import provenance
from pipeline.camera.cleaning import usable_charges, usable_times
from pipeline.camera.dl1 import DL1Writer, EventChunk, ShowerDistribution, SimulationRun, Subarray, schema
from pipeline.camera.dl1.columns import quantity, text
from pipeline.camera.dl1.coordinates import circular_median_rad, finite_median
from pipeline.camera.dl1.instrument import read_subarray
from pipeline.camera.event_types import SHOWER, UNKNOWN, reasons_of_types
from pipeline.camera.geometry import Camera
from pipeline.camera.hillas import image_parameters
from pipeline.camera.merged_runs import Run, split_runs
from pipeline.config import CameraIngestConfig
from pipeline.errors import InputFileError, UserError
from pipeline.files import atomic_output, check_free
from pipeline.hdf5 import dataset, hdf5_errors, open_hdf5, read_columns

#: Tables of lstchain's layout.
IMAGES = "dl1/event/telescope/image/LST_LSTCam"
PARAMETERS = "dl1/event/telescope/parameters/LST_LSTCam"
_RUN = "simulation/run_config"
_THROWN = "simulation/thrown_event_distribution"
_CHUNK = 512
_MAX_UNIX_S = 4.1e9  # the year 2100; later ones are no times
_FAR_ROWS = 32  # rows further apart are read separately
# What numbers and text of a damaged file make numpy raise; what HDF5 raises is taken care of where the file is opened.
_FAULTS = (ValueError, TypeError, KeyError, IndexError, OverflowError, AttributeError, MemoryError)
_ID_COLUMNS = ("obs_id", "event_id", "tel_id")
# Column, unit wanted, and the unit where the file gives none.
_TRUTH = {
    "true_energy_tev": ("mc_energy", "TeV", "TeV"),
    "true_alt_deg": ("mc_alt", "deg", "rad"),
    "true_az_deg": ("mc_az", "deg", "rad"),
    "true_core_x_m": ("mc_core_x", "m", "m"),
    "true_core_y_m": ("mc_core_y", "m", "m"),
    "true_h_first_int_m": ("mc_h_first_int", "m", "m"),
    "true_x_max_g_cm2": ("mc_x_max", "g cm-2", "g.cm**-2"),
}

#: Why a file of parameters alone is of no use here.
WITHOUT_IMAGES = "image parameters without the images; make it again with r0_to_dl1, which keeps images by default"


def convert(path: str | Path, out: str | Path, force: bool = False) -> dict[str, Any]:
    """Write the images of an lstchain DL1 file as ctapipe DL1 v7.1.0.

    All events keep their type, so that flat fields and pedestals are counted and left out later. The values that
    lstchain gave to unusable pixels are kept.

    Returns
    -------
    dict
        ``n_events``, ``n_images``, ``n_telescopes`` and ``notes``; ``warnings``, if there are any.

    Raises
    ------
    InputFileError
        If the file is damaged, has no images, is not lstchain's layout, or holds an image twice.
    """
    path, out = Path(path), check_free(out, force=force)
    with open_hdf5(path) as file:
        source = _read(file, path)
        stamped = provenance.stamp(
            "ingest", input=path.name, input_sha256=provenance.sha256_file(path), warnings=source.warnings
        )
        with atomic_output(out, force=force) as temporary:
            counts = source.write(temporary, stamped)
            facts = {name: value for name, value in counts.items() if name != "warnings"}
            provenance.write_sidecar(temporary, stamped, **facts)
    if source.warnings:
        counts["warnings"] = source.warnings
    return counts


def _read(file: h5py.File, path: Path) -> "_Source":
    """All of a file but its images."""
    try:
        return _Source(file, path)
    except UserError:
        raise
    except _FAULTS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputFileError(f"{path} is damaged, or no lstchain DL1: {reason}; copy or make it again") from error


class _Source:
    """An opened lstchain file; what is wrong with it is known before anything is written."""

    def __init__(self, file: h5py.File, path: Path) -> None:
        self._path = path
        self._file = file
        self.warnings: list[str] = []
        self.notes: list[str] = []
        if IMAGES not in file:
            raise InputFileError(f"{path} holds {WITHOUT_IMAGES}")
        self._images = dataset(file, IMAGES, (*_ID_COLUMNS, "image", "peak_time", "image_mask"))
        self._parameters = dataset(file, PARAMETERS, ("event_id", "tel_id", "alt_tel", "az_tel"))
        self._telescopes, self._positions_m = read_subarray(file, path)
        self._ids = self._read_ids()
        self._check_images()
        types = self._integers("event_type", SHOWER)
        self._event_type = np.where(types == -1, UNKNOWN, types)  # -1 is not among the types of ctapipe
        self._time_s = self._times()
        self._alt_rad, self._az_rad = self._pointings()
        self._truth = self._read_truth()
        self._runs = self._split()
        if not self._simulated and (n_unknown := int(np.count_nonzero(self._time_s == 0))):
            self.warnings.append(
                f"{n_unknown} of {len(self._time_s)} images have no trigger_time; 1970-01-01 is written as theirs"
            )
        self._subarray = self._read_subarray()
        self._settings = self._read_settings() if self._simulated else {}
        self._thrown = self._read_thrown() if self._simulated else {}

    # ---- what is in the file -----------------------------------------------------------------------------------------
    def _read_ids(self) -> dict[str, np.ndarray]:
        ids = read_columns(self._file, IMAGES, dict.fromkeys(_ID_COLUMNS, "integer"))
        if not len(ids["obs_id"]):
            raise InputFileError(f"{self._path} holds no images")
        names = [name for name in _ID_COLUMNS if self._has(name)]
        others = read_columns(self._file, PARAMETERS, dict.fromkeys(names, "integer"))
        if any(not np.array_equal(ids[name], other) for name, other in others.items()):
            raise InputFileError(f"{self._path}: its images and its parameters are not of the same events")
        if max(int(column.max()) for column in ids.values()) > np.iinfo(np.int64).max:
            raise InputFileError(f"{self._path}: a run or event number is beyond 2^63")
        return {name: column.astype(np.int64) for name, column in ids.items()}

    def _check_images(self) -> None:
        fields = self._images.dtype
        for tel_id in np.unique(self._ids["tel_id"]).tolist():
            if tel_id not in self._telescopes:
                raise InputFileError(
                    f"{self._path}: images of telescope {tel_id}, which the file does not describe; "
                    f"it describes {sorted(self._telescopes)}"
                )
            n_pixels = self._telescopes[tel_id].n_pixels
            for name in ("image", "peak_time", "image_mask"):
                if fields[name].shape != (n_pixels,) or fields[name].base.kind not in "fiub":
                    raise InputFileError(
                        f"{self._path}: {name} of telescope {tel_id} is {fields[name]}; expected {n_pixels} numbers, "
                        "one per pixel of its camera"
                    )

    def _has(self, name: str) -> bool:
        return name in self._parameters.dtype.names

    def _column(self, name: str, unit: str, default: str) -> np.ndarray:
        return quantity(self._parameters, name, unit, self._path, default=default)

    def _integers(self, name: str, default: int) -> np.ndarray:
        if not self._has(name):
            return np.full(len(self._parameters), default)
        return read_columns(self._file, PARAMETERS, {name: "integer"})[name].astype(np.int64)

    def _times(self) -> np.ndarray:
        """Seconds since 1970 TAI, 0 where unknown; lstchain's are Unix seconds, which omit leap seconds."""
        from astropy.time import Time

        if not self._has("trigger_time"):
            return np.zeros(len(self._parameters))
        unix_s = read_columns(self._file, PARAMETERS, {"trigger_time": "number"})["trigger_time"].astype(np.float64)
        known = np.isfinite(unix_s) & (np.abs(unix_s) < _MAX_UNIX_S)
        unix_s[~known] = 0.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # leap seconds of future years are not known yet
            leap_s = np.round(Time(unix_s, format="unix").unix_tai - unix_s)
        return unix_s + np.where(known, leap_s, 0.0)

    def _pointings(self) -> tuple[np.ndarray, np.ndarray]:
        """Altitude and azimuth [rad] of every image; NaN for both where one of them is missing or impossible."""
        alt_rad, az_rad = self._column("alt_tel", "rad", "rad"), self._column("az_tel", "rad", "rad")
        known = (np.abs(alt_rad) <= np.pi / 2 + 1e-6) & (np.abs(az_rad) <= 4 * np.pi)
        if n_unknown := int(np.count_nonzero(~known)):
            self.warnings.append(
                f"{n_unknown} of {len(known)} images have no pointing (alt_tel, az_tel); "
                + ("that of their run's other images is used" if known.any() else "no direction can be computed")
            )
        return np.where(known, alt_rad, np.nan), np.where(known, az_rad, np.nan)

    @property
    def _simulated(self) -> bool:
        return bool(self._truth)

    def _read_truth(self) -> dict[str, np.ndarray]:
        """Columns of `EventChunk.truth`, one value per image; empty for observations."""
        if not self._has("mc_energy"):
            return {}
        truth = {
            name: self._column(column, unit, default)
            for name, (column, unit, default) in _TRUTH.items()
            if self._has(column)
        }
        if self._has("mc_type"):
            truth["true_primary_id"] = self._integers("mc_type", -1)
        return truth | {"shower_id": self._ids["event_id"] // schema.SIMTEL_USES}

    def _split(self) -> list[Run]:
        shower = (
            np.column_stack([column.astype(np.float64) for column in self._truth.values()]) if self._truth else None
        )
        cos = np.cos(self._alt_rad)
        direction = np.column_stack([cos * np.cos(self._az_rad), cos * np.sin(self._az_rad), np.sin(self._alt_rad)])
        runs = split_runs(self._ids, self._path, IMAGES, shower, direction)
        for number in sorted({run.file_obs_id for run in runs if run.place}):
            new = [str(run.obs_id) for run in runs if run.file_obs_id == number and run.place]
            self.warnings.append(
                f"{len(new) + 1} simulations are merged under the run number {number}; all but the first are written "
                f"as run {', '.join(new)}"
            )
        return runs

    # ---- the product -------------------------------------------------------------------------------------------------
    def write(self, target: Path, stamped: Mapping[str, Any]) -> dict[str, Any]:
        """Write all images with the types of their events; the counts of `convert`."""
        first, *others = self._runs
        largest = max(run.obs_id for run in self._runs)
        with DL1Writer(
            target,
            self._subarray,
            **self._start_of(first),
            provenance=stamped,
            obs_id_type="i4" if largest <= np.iinfo(np.int32).max else "i8",
        ) as writer:
            self._write_run(writer, first)
            for run in others:
                writer.start_run(**self._start_of(run))
                self._write_run(writer, run)
            if not self._simulated:
                for tel_id in np.unique(self._ids["tel_id"]).tolist():
                    self._write_pointing(writer, tel_id)
            counts = {"n_events": writer.n_events, "n_images": writer.n_images}
        reasons = Counter(reasons_of_types(self._event_type, CameraIngestConfig().event_types).tolist())
        notes = [f"{count} images are of no shower: {reason}" for reason, count in sorted(reasons.items()) if reason]
        return counts | {"n_telescopes": len(self._telescopes), "notes": [*notes, *self.notes]}

    def _start_of(self, run: Run) -> dict[str, Any]:
        """Arguments that begin a run of the writer."""
        return {
            "obs_id": run.obs_id,
            "pointing_alt_rad": finite_median(self._alt_rad[run.rows]),
            "pointing_az_rad": circular_median_rad(self._az_rad[run.rows]),
            "simulation": self._settings[run.obs_id] if self._simulated else None,
        }

    def _write_run(self, writer: DL1Writer, run: Run) -> None:
        for part in self._parts(run.rows):
            writer.append(self._chunk(part))
        if run.obs_id in self._thrown:
            writer.write_shower_distribution(self._thrown[run.obs_id])

    def _parts(self, rows: np.ndarray) -> list[np.ndarray]:
        """Rows in parts that do not tear events."""
        ends = np.append(np.flatnonzero(np.diff(self._ids["event_id"][rows])) + 1, len(rows))
        cuts = ends[np.searchsorted(ends, np.arange(_CHUNK, len(rows), _CHUNK))]
        return [part for part in np.split(rows, np.unique(cuts)) if len(part)]

    def _chunk(self, rows: np.ndarray) -> EventChunk:
        data = self._read(rows)
        tel_id = self._ids["tel_id"][rows]
        image, time = data["image"].astype(np.float32), data["peak_time"].astype(np.float32)
        mask = data["image_mask"].astype(bool) & np.isfinite(image)
        return EventChunk(
            event_id=self._ids["event_id"][rows],
            tel_id=tel_id,
            image=image,
            peak_time=time,
            image_mask=mask,
            is_valid=data["is_valid"].astype(bool) if "is_valid" in data.dtype.names else None,
            time_s=self._time_s[rows],
            event_type=self._event_type[rows],
            truth={name: column[rows] for name, column in self._truth.items()},
            parameters=_parameters(image, time, mask, [self._telescopes[tel] for tel in tel_id.tolist()]),
        )

    def _read(self, rows: np.ndarray) -> np.ndarray:
        """Rows of the table of images in any order, neighbours in one go."""
        order = np.argsort(rows, kind="stable")
        rising = rows[order]
        pieces = np.split(rising, np.flatnonzero(np.diff(rising) > _FAR_ROWS) + 1)
        with hdf5_errors(self._path):
            data = np.concatenate([self._images[piece[0] : piece[-1] + 1][piece - piece[0]] for piece in pieces])
        return data[np.argsort(order, kind="stable")]

    def _read_subarray(self) -> Subarray:
        from astropy.coordinates import EarthLocation

        layout = self._file[schema.LAYOUT].attrs
        name = text(layout.get("SUBARRAY", "unknown"))
        keys = [f"reference_itrs_{axis}" for axis in "xyz"]
        place_m = [float(layout.get(key, math.nan)) for key in keys]
        if not all(map(math.isfinite, place_m)):  # simulations omit it
            return Subarray(name, self._telescopes, self._positions_m)
        place = EarthLocation.from_geocentric(*place_m, unit="m").geodetic
        return Subarray(
            name, self._telescopes, self._positions_m, place.height.to_value("m"), place.lon.deg, place.lat.deg
        )

    def _write_pointing(self, writer: DL1Writer, tel_id: int) -> None:
        """What the drives reported: an observation follows its target."""
        here = np.flatnonzero((self._ids["tel_id"] == tel_id) & np.isfinite(self._alt_rad))
        _, first = np.unique(self._time_s[here], return_index=True)
        if len(first) > 1:
            here = here[first]
            writer.append_pointing(tel_id, self._time_s[here], self._alt_rad[here], self._az_rad[here])

    # ---- simulations -------------------------------------------------------------------------------------------------
    def _read_settings(self) -> dict[int, SimulationRun]:
        """How the showers of each run were thrown."""
        if _RUN not in self._file:
            self.warnings.append(
                f"it has no {_RUN}: how its showers were thrown is not known, so effective areas and spectral weights "
                "cannot be made from it"
            )
            unknown = SimulationRun(math.nan, math.nan, math.nan, n_showers=-1, shower_reuse=-1)
            return {run.obs_id: unknown for run in self._runs}
        table = dataset(self._file, _RUN, ("energy_range_min", "energy_range_max", "spectral_index", "n_showers"))
        rows, missing = self._rows_of_runs(table)
        if missing:
            self.warnings.append(
                f"{_RUN} has no row for run {', '.join(map(str, missing))}; the settings of its first row are used"
            )
        return {run.obs_id: self._run(table, rows.get(run.obs_id, 0)) for run in self._runs}

    def _read_thrown(self) -> dict[int, ShowerDistribution]:
        """Histogram of the showers that were thrown in each run: the denominator of effective areas."""
        if _THROWN not in self._file:
            self.notes.append("no histogram of thrown showers")
            return {}
        table = dataset(self._file, _THROWN, ("num_entries", "bins_energy", "bins_core_dist", "histogram"))
        rows, _ = self._rows_of_runs(table)
        thrown = {}
        for obs_id, place in rows.items():
            row = table[place]
            energy_tev, distance_m = row["bins_energy"].astype(np.float64), row["bins_core_dist"].astype(np.float64)
            histogram = row["histogram"].astype(np.float64)
            shape = len(energy_tev) - 1, len(distance_m) - 1
            sound = (np.isfinite(edges).all() and (np.diff(edges) > 0).all() for edges in (energy_tev, distance_m))
            if histogram.shape == shape and (histogram >= 0).all() and all(sound) and int(row["num_entries"]) >= 0:
                thrown[obs_id] = ShowerDistribution(int(row["num_entries"]), energy_tev, distance_m, histogram)
        if len(thrown) < len(self._runs):
            self.warnings.append(
                f"{_THROWN} has no histogram that can be used for {len(self._runs) - len(thrown)} of "
                f"{len(self._runs)} runs; effective areas need the number of thrown showers from elsewhere"
            )
        return thrown

    def _rows_of_runs(self, table: h5py.Dataset) -> tuple[dict[int, int], list[int]]:
        """Row of a table of runs for each run of the product, and the runs without one.

        Runs of one number take its rows in their order, as they were appended. A table without run numbers is in the
        order of the file if it has a row for each.
        """
        if "obs_id" not in table.dtype.names:
            if len(table) != len(self._runs):
                return {}, ([] if len(table) == 1 else [run.obs_id for run in self._runs])
            in_file = sorted(self._runs, key=lambda run: int(run.rows.min()))
            return {run.obs_id: place for place, run in enumerate(in_file)}, []
        number = table["obs_id"].astype(np.int64)
        rows: dict[int, int] = {}
        for run in self._runs:
            places = np.flatnonzero(number == run.file_obs_id)
            if len(places):
                rows[run.obs_id] = int(places[min(run.place, len(places) - 1)])
        return rows, [run.obs_id for run in self._runs if run.obs_id not in rows]

    def _run(self, table: h5py.Dataset, place: int) -> SimulationRun:
        row = table[place]

        def value(name: str, unit: str) -> float:
            if name not in table.dtype.names:
                return math.nan
            return float(quantity(table, name, unit, self._path, default=unit)[place])

        def count(name: str) -> int:
            return int(row[name]) if name in table.dtype.names else -1

        return SimulationRun(
            energy_range_min_tev=value("energy_range_min", "TeV"),
            energy_range_max_tev=value("energy_range_max", "TeV"),
            spectral_index=float(row["spectral_index"]),
            n_showers=int(row["n_showers"]),
            shower_reuse=count("shower_reuse"),
            max_scatter_range_m=value("max_scatter_range", "m"),
            min_scatter_range_m=value("min_scatter_range", "m"),
            max_viewcone_radius_deg=value("max_viewcone_radius", "deg"),
            min_viewcone_radius_deg=value("min_viewcone_radius", "deg"),
            max_alt_rad=value("max_alt", "rad"),
            min_alt_rad=value("min_alt", "rad"),
            max_az_rad=value("max_az", "rad"),
            min_az_rad=value("min_az", "rad"),
            prod_site_alt_m=value("prod_site_alt", "m"),
            atmosphere=count("atmosphere"),
            corsika_version=count("corsika_version"),
            shower_prog_id=count("shower_prog_id"),
            detector_prog_id=count("detector_prog_id"),
        )


def _parameters(image: np.ndarray, time: np.ndarray, mask: np.ndarray, cameras: list[Camera]) -> dict[str, np.ndarray]:
    """Image parameters; all LSTs have one camera, but a file may describe it more than once."""
    image = usable_charges(image)
    mask = mask & np.isfinite(image)
    parameters: dict[str, np.ndarray] = {}
    for camera in dict.fromkeys(cameras):
        here = np.array([one is camera for one in cameras])
        times = usable_times(image[here], time[here], mask[here], camera)
        for name, column in image_parameters(image[here], times, mask[here], camera).items():
            parameters.setdefault(name, np.empty(len(image), column.dtype))[here] = column
    return parameters
