"""lstchain's DL1 to ctapipe's: other tables for the same images.

lstchain (0.9 and later) has one table of images and one of parameters for all telescopes of a type, simulation truth
among the parameters, and times as Unix seconds. Telescopes and cameras are described as in ctapipe, so they come from
the file. Hillas parameters are recomputed from lstchain's own cleaning mask: its units (metres here, degrees there)
have changed between versions.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (registers the blosc filter)
import numpy as np

from pipeline import provenance
from pipeline.camera.dl1 import DL1Writer, EventChunk, SimulationRun, Subarray, schema
from pipeline.camera.dl1.columns import quantity, text
from pipeline.camera.dl1.instrument import read_subarray
from pipeline.camera.geometry import Camera
from pipeline.camera.hillas import image_parameters
from pipeline.errors import InputFileError
from pipeline.files import atomic_output, check_free, check_regular

_IMAGES = "dl1/event/telescope/image/LST_LSTCam"
_PARAMETERS = "dl1/event/telescope/parameters/LST_LSTCam"
_RUN = "simulation/run_config"
_CHUNK = 512
_FIRST_SHOWER_TYPE = 16  # ctapipe's EventType: lower ones are flat fields, pedestals and other calibration
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


def convert(path: str | Path, out: str | Path, force: bool = False) -> dict[str, Any]:
    """Write the images of an lstchain DL1 file as ctapipe DL1 v7.1.0.

    Calibration events are skipped and counted. The values that lstchain gave to unusable pixels are kept.

    Returns
    -------
    dict
        ``n_events``, ``n_images``, ``n_telescopes`` and ``notes``.

    Raises
    ------
    InputFileError
        If the file is not whole, or not lstchain's layout.
    """
    path, out = check_regular(path), check_free(out, force=force)
    try:
        with h5py.File(path, "r") as file:
            source = _Source(file, path)
            stamped = provenance.stamp("ingest", input=path.name, input_sha256=provenance.sha256_file(path))
            with atomic_output(out, force=force) as temporary:
                counts = source.write(temporary, stamped)
                provenance.write_sidecar(temporary, stamped, **counts)
    except (OSError, KeyError) as error:
        reason = str(error.args[0] if error.args else error)
        raise InputFileError(f"{path} is not a whole lstchain DL1 file ({reason}); copy or make it again") from error
    return counts


class _Source:
    """An opened lstchain file."""

    def __init__(self, file: h5py.File, path: Path) -> None:
        self._path = path
        self._file = file
        self._images, self._parameters = file[_IMAGES], file[_PARAMETERS]
        self._check_columns()
        self._telescopes, self._positions_m = read_subarray(file, path)
        self._tel_id = self._images["tel_id"].astype(np.int64)
        self._event_id = self._images["event_id"].astype(np.int64)
        self._check_rows()

    def _check_columns(self) -> None:
        wanted = {
            self._images: ("obs_id", "event_id", "tel_id", "image", "peak_time", "image_mask"),
            self._parameters: ("event_id", "tel_id", "alt_tel", "az_tel"),
        }
        for table, names in wanted.items():
            missing = [name for name in names if name not in table.dtype.names]
            if missing:
                raise InputFileError(
                    f"{self._path}: {table.name} has no column {', '.join(missing)}; written by lstchain 0.9 or later?"
                )

    def _check_rows(self) -> None:
        same = len(self._images) == len(self._parameters) and (
            (self._event_id == self._parameters["event_id"]).all()
            and (self._tel_id == self._parameters["tel_id"]).all()
        )
        if not same:
            raise InputFileError(f"{self._path}: its images and its parameters are not of the same events")
        if len(self._images) == 0:
            raise InputFileError(f"{self._path} holds no images")
        if unknown := sorted(set(self._tel_id.tolist()) - set(self._telescopes)):
            raise InputFileError(f"{self._path}: images of telescope {unknown[0]}, which the file does not describe")
        self.obs_ids = np.unique(self._images["obs_id"]).tolist()
        if len(self.obs_ids) > 1:
            raise InputFileError(f"{self._path} holds runs {self.obs_ids}; convert one run at a time")

    @property
    def _simulated(self) -> bool:
        return "mc_energy" in self._parameters.dtype.names and _RUN in self._file

    def write(self, target: Path, stamped: Mapping[str, Any]) -> dict[str, Any]:
        """Write all showers; the counts of `convert`."""
        alt_rad = self._column("alt_tel", "rad", "rad")
        az_rad = self._column("az_tel", "rad", "rad")
        event_type = self._event_types()
        # The images of one event are made adjacent, as the writer needs them, whatever the order in the file.
        rows = np.lexsort((self._tel_id, self._event_id))
        rows = rows[event_type[rows] >= _FIRST_SHOWER_TYPE]
        time_s = self._times()
        with DL1Writer(
            target,
            self._subarray(),
            obs_id=int(self.obs_ids[0]),
            pointing_alt_rad=float(np.median(alt_rad)),
            pointing_az_rad=float(np.median(az_rad)),
            simulation=self._run() if self._simulated else None,
            provenance=stamped,
        ) as writer:
            for part in self._parts(rows):
                writer.append(self._chunk(part, event_type, time_s))
            if not self._simulated:
                for tel_id in np.unique(self._tel_id).tolist():
                    self._write_pointing(writer, tel_id, time_s, alt_rad, az_rad)
            counts = {"n_events": writer.n_events, "n_images": writer.n_images}
        n_calibration = len(event_type) - len(rows)
        notes = [f"{n_calibration} calibration events skipped"] if n_calibration else []
        return counts | {"n_telescopes": len(self._telescopes), "notes": notes}

    def _parts(self, rows: np.ndarray) -> list[np.ndarray]:
        """Rows in parts that do not tear events."""
        ends = np.append(np.flatnonzero(np.diff(self._event_id[rows])) + 1, len(rows))
        cuts = ends[np.searchsorted(ends, np.arange(_CHUNK, len(rows), _CHUNK))]
        return [part for part in np.split(rows, np.unique(cuts)) if len(part)]

    def _chunk(self, rows: np.ndarray, event_type: np.ndarray, time_s: np.ndarray) -> EventChunk:
        first, last = int(rows.min()), int(rows.max())
        data = self._images[first : last + 1][rows - first]
        tel_id = self._tel_id[rows]
        image, time = data["image"].astype(np.float32), data["peak_time"].astype(np.float32)
        mask = data["image_mask"].astype(bool) & np.isfinite(image)
        names = data.dtype.names
        return EventChunk(
            event_id=self._event_id[rows],
            tel_id=tel_id,
            image=image,
            peak_time=time,
            image_mask=mask,
            is_valid=data["is_valid"].astype(bool) if "is_valid" in names else None,
            time_s=time_s[rows],
            event_type=event_type[rows],
            truth=self._truth(rows) if self._simulated else {},
            parameters=_parameters(image, time, mask, [self._telescopes[tel] for tel in tel_id.tolist()]),
        )

    def _column(self, name: str, unit: str, default: str) -> np.ndarray:
        return quantity(self._parameters, name, unit, self._path, default=default)

    def _event_types(self) -> np.ndarray:
        if "event_type" not in self._parameters.dtype.names:
            return np.full(len(self._parameters), 32)
        return self._parameters["event_type"].astype(np.int64)

    def _times(self) -> np.ndarray:
        """Seconds since 1970 TAI; lstchain's are Unix seconds, which omit leap seconds."""
        from astropy.time import Time

        if "trigger_time" not in self._parameters.dtype.names:
            return np.zeros(len(self._parameters))
        unix_s = np.nan_to_num(self._parameters["trigger_time"].astype(np.float64))
        return unix_s + np.round(Time(unix_s, format="unix").unix_tai - unix_s)

    def _truth(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        truth = {
            name: self._column(column, unit, default)[rows]
            for name, (column, unit, default) in _TRUTH.items()
            if column in self._parameters.dtype.names
        }
        truth["true_primary_id"] = self._parameters["mc_type"].astype(np.int64)[rows]
        truth["shower_id"] = self._event_id[rows] // schema.SIMTEL_USES
        return truth

    def _subarray(self) -> Subarray:
        from astropy.coordinates import EarthLocation

        layout = self._file[schema.LAYOUT].attrs
        name = text(layout.get("SUBARRAY", "unknown"))
        if "reference_itrs_x" not in layout:  # simulations omit it
            return Subarray(name, self._telescopes, self._positions_m)
        place = EarthLocation.from_geocentric(*(layout[f"reference_itrs_{axis}"] for axis in "xyz"), unit="m").geodetic
        return Subarray(
            name, self._telescopes, self._positions_m, place.height.to_value("m"), place.lon.deg, place.lat.deg
        )

    def _run(self) -> SimulationRun:
        table = self._file[_RUN]
        row = table[0]

        def value(name: str, unit: str) -> float:
            return float(quantity(table, name, unit, self._path, default=unit)[0])

        return SimulationRun(
            energy_range_min_tev=value("energy_range_min", "TeV"),
            energy_range_max_tev=value("energy_range_max", "TeV"),
            spectral_index=float(row["spectral_index"]),
            n_showers=int(row["n_showers"]),
            shower_reuse=int(row["shower_reuse"]),
            max_scatter_range_m=value("max_scatter_range", "m"),
            min_scatter_range_m=value("min_scatter_range", "m"),
            max_viewcone_radius_deg=value("max_viewcone_radius", "deg"),
            min_viewcone_radius_deg=value("min_viewcone_radius", "deg"),
            max_alt_rad=value("max_alt", "rad"),
            min_alt_rad=value("min_alt", "rad"),
            max_az_rad=value("max_az", "rad"),
            min_az_rad=value("min_az", "rad"),
            prod_site_alt_m=value("prod_site_alt", "m"),
            atmosphere=int(row["atmosphere"]),
            corsika_version=int(row["corsika_version"]),
            shower_prog_id=int(row["shower_prog_id"]),
            detector_prog_id=int(row["detector_prog_id"]),
        )

    def _write_pointing(
        self, writer: DL1Writer, tel_id: int, time_s: np.ndarray, alt_rad: np.ndarray, az_rad: np.ndarray
    ) -> None:
        """What the drives reported: an observation follows its target."""
        here = np.flatnonzero(self._tel_id == tel_id)
        _, first = np.unique(time_s[here], return_index=True)
        if len(first) > 1:
            here = here[first]
            writer.append_pointing(tel_id, time_s[here], alt_rad[here], az_rad[here])


def _parameters(image: np.ndarray, time: np.ndarray, mask: np.ndarray, cameras: list[Camera]) -> dict[str, np.ndarray]:
    """Image parameters; all LSTs have one camera, but a file may describe it more than once."""
    parameters: dict[str, np.ndarray] = {}
    for camera in dict.fromkeys(cameras):
        here = np.array([one is camera for one in cameras])
        for name, column in image_parameters(image[here], time[here], mask[here], camera).items():
            parameters.setdefault(name, np.empty(len(image), column.dtype))[here] = column
    return parameters
