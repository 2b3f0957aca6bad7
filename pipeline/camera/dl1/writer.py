"""Write DL1 with PyTables, chunk by chunk."""

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from pipeline.camera.dl1 import run_tables, schema
from pipeline.camera.dl1.coordinates import high_resolution_time, impact_distance_m
from pipeline.camera.dl1.model import EventChunk, ShowerDistribution, SimulationRun, Subarray
from pipeline.camera.dl1.schema import Column
from pipeline.camera.geometry import Camera

_HIGH_GAIN_STORED = 4  # of ctapipe's PixelStatus
_CHUNK_BYTES = 1 << 19  # of uncompressed rows: enough for zstd, little to decompress for one event
# Columns of a chunk that belong to a trigger, not to an image
_OF_A_TRIGGER = ("event_id", "tel_id", "time_s", "event_type", "n_trigger_pixels")


class DL1Writer:
    """Write observations or simulated runs; memory is bounded by one appended chunk.

    Parameters
    ----------
    path : path
        File to make (a temporary name of `pipeline.files.atomic_output`).
    subarray : Subarray
    obs_id : int
        Number of the run.
    pointing_alt_rad, pointing_az_rad : float
        Direction of all telescopes, azimuth from north to east.
    simulation : SimulationRun, optional
        Given, the file is one of simulated events, with truth.
    provenance : mapping
        What `pipeline.provenance.stamp` returned; kept as JSON in the root attribute ``LIGHTPOOL PROVENANCE``.
    obs_id_type : {"i4", "i8"}
        Of the column in all tables; the numbers of simulated runs fit ctapipe's 32 bits.
    attributes : mapping, optional
        More attributes of the root.
    """

    def __init__(
        self,
        path: str | Path,
        subarray: Subarray,
        *,
        obs_id: int,
        pointing_alt_rad: float,
        pointing_az_rad: float,
        simulation: SimulationRun | None = None,
        provenance: Mapping[str, Any] | None = None,
        obs_id_type: str = "i4",
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        import tables

        self._subarray = subarray
        self._obs_id = obs_id
        self._obs_id_type = obs_id_type
        self._index = {tel_id: index for index, tel_id in enumerate(subarray.telescopes)}
        self._tables: dict[str, Any] = {}
        self._simulation = simulation
        self.n_events = self.n_images = 0
        # ctapipe's level 5 makes images of noise 10 % smaller in 6 times the time (measured: 2.0 against 0.3 ms each).
        filters = tables.Filters(complevel=1, complib="blosc:zstd", fletcher32=True)
        self._file = tables.open_file(str(path), "w", filters=filters)
        try:
            self._write_what_is_known(provenance or {})
            self._set_root_attributes(dict(attributes or {}))
            self._begin_run(obs_id, pointing_alt_rad, pointing_az_rad, simulation)
        except BaseException:
            self._file.close()
            raise

    def start_run(
        self,
        *,
        obs_id: int,
        pointing_alt_rad: float,
        pointing_az_rad: float,
        simulation: SimulationRun | None = None,
    ) -> None:
        """Begin another run in the same file; the one before is complete.

        Raises
        ------
        ValueError
            If one of the runs is simulated and the other is not.
        """
        if (simulation is None) != (self._simulation is None):
            raise ValueError("simulated and observed runs cannot be in one file")
        self._write_observation()
        self._begin_run(obs_id, pointing_alt_rad, pointing_az_rad, simulation)

    def _begin_run(self, obs_id: int, alt_rad: float, az_rad: float, simulation: SimulationRun | None) -> None:
        self._obs_id, self._simulation, self._pointing = obs_id, simulation, (alt_rad, az_rad)
        self._last_event: int | None = None
        self._time_range_s = math.inf, -math.inf
        self._write_pointing()
        if simulation is not None:
            run = run_tables.simulation_run_row(obs_id, simulation)
            self._write(schema.SIMULATION_RUN, schema.SIMULATION_RUN_COLUMNS, [run])
            self._table(schema.SHOWER, schema.SHOWER_COLUMNS)

    def append(self, *chunks: EventChunk) -> None:
        """Add images. Those of one array event are adjacent in a chunk, and come in one call.

        Where cameras differ in their number of pixels, each has a chunk of its own: an event may then have images in
        several of them, and event ids rise within each.

        Raises
        ------
        ValueError
            If an event is split, a telescope is unknown, or the number of pixels is wrong.
        """
        filled = [chunk for chunk in chunks if len(chunk)]
        if not filled:
            return
        heads = {name: np.concatenate([getattr(chunk, name) for chunk in filled]) for name in _OF_A_TRIGGER}
        order, starts = self._events(filled, heads)
        self._append_triggers(heads, order, starts)
        if self._simulation is not None:
            self._append_truth(filled, heads["event_id"], order[starts])
        for chunk in filled:
            # Within an event only the order of telescopes was changed.
            for tel_id in np.unique(chunk.tel_id).tolist():
                self._append_telescope(chunk, tel_id, np.flatnonzero(chunk.tel_id == tel_id))
        known_s = heads["time_s"][heads["time_s"] > 0]  # 0 and NaN are unknown times
        if len(known_s):
            first_s, last_s = self._time_range_s
            self._time_range_s = min(first_s, float(known_s.min())), max(last_s, float(known_s.max()))
        self.n_events += len(starts)
        self.n_images += len(order)

    def write_shower_distribution(self, distribution: ShowerDistribution) -> None:
        """Add what was thrown in the whole run; ctapipe takes the number of showers from there."""
        columns = schema.shower_distribution_columns(*distribution.histogram.shape)
        row = {
            "obs_id": self._obs_id, "hist_id": -1, "n_entries": distribution.n_entries,
            "bins_energy": distribution.bins_energy_tev, "bins_core_dist": distribution.bins_core_dist_m,
            "histogram": distribution.histogram,
        }  # fmt: skip
        self._write(schema.SHOWER_DISTRIBUTION, columns, [row])

    def append_pointing(self, tel_id: int, time_s: np.ndarray, alt_rad: np.ndarray, az_rad: np.ndarray) -> None:
        """Add what the drive reported during an observation (times since 1970-01-01 TAI, strictly rising)."""
        columns = schema.MONITORED_POINTING_COLUMNS
        rows = np.zeros(len(time_s), schema.row_dtype(columns))
        rows["time"], rows["azimuth"], rows["altitude"] = high_resolution_time(time_s), az_rad, alt_rad
        self._table(f"{schema.MONITORED_POINTING}/tel_{tel_id:03d}", columns).append(rows)

    def close(self) -> None:
        """Write what is known only at the end, and close the file."""
        if self._file.isopen:
            self._write_observation()
            self._set_root_attributes({"CTA PRODUCT DATA LEVELS": ",".join(self._levels())})
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._file.close()

    # ---- events ------------------------------------------------------------------------------------------------------
    def _events(self, chunks: Sequence[EventChunk], heads: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Order of rows with telescopes sorted within each event, and where each event starts in it."""
        event_id, tel_id = heads["event_id"], heads["tel_id"]
        unknown = sorted(set(np.unique(tel_id).tolist()) - set(self._index))
        if unknown:
            raise ValueError(f"telescopes {unknown} are not in the subarray; it has {sorted(self._index)}")
        # ctapipe's event reader takes the rows of an event in the order of the telescope list.
        tel_index = np.array([self._index[number] for number in tel_id.tolist()])
        if len(chunks) == 1:
            begins = np.diff(event_id, prepend=event_id[0] - 1) != 0
            torn = np.count_nonzero(begins) != len(np.unique(event_id))
            event = np.cumsum(begins)
        else:
            torn = any((np.diff(chunk.event_id) < 0).any() for chunk in chunks)
            event = event_id
        order = np.lexsort((tel_index, event))
        starts = np.flatnonzero(np.diff(event[order], prepend=event[order[0]] - 1))
        if torn or event_id[order[0]] == self._last_event:
            raise ValueError("the images of one event must be adjacent in a chunk, and event ids rise in several")
        self._last_event = int(event_id[order[-1]])
        return order, starts

    def _ids(self, event_id: np.ndarray, tel_id: np.ndarray) -> dict[str, np.ndarray]:
        return {"obs_id": np.full(len(event_id), self._obs_id), "event_id": event_id, "tel_id": tel_id}

    def _append_triggers(self, heads: Mapping[str, np.ndarray], order: np.ndarray, starts: np.ndarray) -> None:
        tel_id = heads["tel_id"]
        per_telescope = self._ids(heads["event_id"], tel_id) | {
            "time": high_resolution_time(heads["time_s"]), "event_type": heads["event_type"],
            "n_trigger_pixels": heads["n_trigger_pixels"],
        }  # fmt: skip
        self._append(schema.TEL_TRIGGER, schema.TEL_TRIGGER_COLUMNS, per_telescope, order)
        first = order[starts]
        mask = np.zeros((len(starts), len(self._index)), bool)
        event = np.searchsorted(starts, np.arange(len(order)), side="right") - 1
        mask[event, [self._index[number] for number in tel_id[order].tolist()]] = True
        columns = schema.trigger_columns(len(self._index))
        per_event = {name: column[first] for name, column in per_telescope.items()} | {"tels_with_trigger": mask}
        self._append(schema.TRIGGER, columns, per_event, slice(None))

    def _append_truth(self, chunks: Sequence[EventChunk], event_id: np.ndarray, first: np.ndarray) -> None:
        def column(name: str, unknown: np.ndarray) -> np.ndarray:
            # What one chunk does not know does not cost the others what they know.
            ends = np.cumsum([0, *map(len, chunks)])
            parts = zip(chunks, ends[:-1], ends[1:], strict=True)
            return np.concatenate([chunk.truth.get(name, unknown[start:stop]) for chunk, start, stop in parts])

        nan = np.full(len(event_id), math.nan)
        values = self._ids(event_id, event_id)
        values |= {written: column(name, nan) for written, name in schema.TRUTH_COLUMNS.items()}
        unknown_id = np.full(len(event_id), np.iinfo(np.int16).max)  # ctapipe's "unknown"
        values["true_shower_primary_id"] = column("true_primary_id", unknown_id)
        values["shower_id"] = column("shower_id", event_id)
        self._append(schema.SHOWER, schema.SHOWER_COLUMNS, values, first)

    def _append_telescope(self, chunk: EventChunk, tel_id: int, rows: np.ndarray) -> None:
        ids = self._ids(chunk.event_id, chunk.tel_id)
        n_pixels = self._subarray.telescopes[tel_id].n_pixels
        if chunk.image.shape[1] != n_pixels:
            raise ValueError(
                f"images have {chunk.image.shape[1]} pixels; the camera of telescope {tel_id} has {n_pixels}"
            )
        name = f"tel_{tel_id:03d}"
        images = dict(ids) | {key: getattr(chunk, key) for key in ("image", "peak_time", "image_mask", "is_valid")}
        self._append(f"{schema.IMAGES}/{name}", schema.image_columns(n_pixels), images, rows)
        if chunk.parameters is not None:
            values = dict(ids) | chunk.parameters
            self._append(f"{schema.PARAMETERS}/{name}", schema.PARAMETER_COLUMNS, values, rows)
        if chunk.waveforms is not None:
            self._append_waveforms(f"{schema.WAVEFORMS}/{name}", chunk, ids, rows)
        if self._simulation is None:
            return
        true_image = chunk.true_image
        if true_image is None:
            # ctapipe's event reader needs one for every simulated image, and takes -1 for "not known".
            true_image = np.full(chunk.image.shape, -1, np.int32)
        true_sum = true_image.sum(axis=1) if chunk.true_image is not None else np.full(len(chunk), -1)
        true = dict(ids) | {"true_image": true_image, "true_image_sum": true_sum}
        self._append(f"{schema.TRUE_IMAGES}/{name}", schema.true_image_columns(n_pixels), true, rows)
        impact_m = chunk.truth.get("true_impact_m")
        if impact_m is None and {"true_alt_deg", "true_az_deg", "true_core_x_m", "true_core_y_m"} <= chunk.truth.keys():
            impact_m = impact_distance_m(chunk.truth, self._subarray.positions_m[tel_id])
        elif impact_m is None:
            impact_m = np.full(len(chunk), math.nan)
        impact = dict(ids) | {"true_impact_distance": impact_m, "true_impact_distance_uncert": np.zeros(len(chunk))}
        self._append(f"{schema.TRUE_IMPACT}/{name}", schema.IMPACT_COLUMNS, impact, rows)
        if chunk.parameters is not None:
            values = dict(ids) | (chunk.true_parameters or {})
            self._append(f"{schema.TRUE_PARAMETERS}/{name}", schema.TRUE_PARAMETER_COLUMNS, values, rows)

    def _append_waveforms(self, path: str, chunk: EventChunk, ids: Mapping[str, np.ndarray], rows: np.ndarray) -> None:
        _, n_pixels, n_samples = chunk.waveforms.shape
        broken = np.zeros(chunk.image.shape, bool) if chunk.is_broken is None else chunk.is_broken
        values = dict(ids) | {
            "event_type": chunk.event_type, "event_time": high_resolution_time(chunk.time_s),
            "waveform": chunk.waveforms[:, None],
            "pixel_status": np.where(broken, 0, _HIGH_GAIN_STORED),
            "selected_gain_channel": np.zeros(chunk.image.shape, np.int8),
        }  # fmt: skip
        self._append(path, schema.waveform_columns(n_pixels, n_samples), values, rows)

    # ---- tables ------------------------------------------------------------------------------------------------------
    def _append(
        self, path: str, columns: Sequence[Column], values: Mapping[str, np.ndarray], rows: np.ndarray | slice
    ) -> None:
        table = self._table(path, columns)
        n = len(values["obs_id"][rows])
        record = np.zeros(n, schema.row_dtype(columns, self._obs_id_type))
        for column in columns:
            missing = math.nan if column.dtype.startswith("f") else -1
            record[column.name] = values[column.name][rows] if column.name in values else missing
        table.append(record)

    def _table(self, path: str, columns: Sequence[Column]) -> Any:
        if path not in self._tables:
            dtype = schema.row_dtype(columns, self._obs_id_type)
            table = self._file.create_table(
                *path.rsplit("/", 1),
                description=dtype,
                createparents=True,
                chunkshape=(min(max(_CHUNK_BYTES // dtype.itemsize, 1), 4096),),
                track_times=False,
            )
            for key, value in schema.column_attributes(columns).items():
                table.attrs[key] = value
            self._tables[path] = table
        return self._tables[path]

    def _write(
        self,
        path: str,
        columns: Sequence[Column],
        entries: Sequence[Mapping[str, Any]],
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        table = self._table(path, columns)
        record = np.zeros(len(entries), schema.row_dtype(columns, self._obs_id_type))
        for column in columns:
            record[column.name] = [entry[column.name] for entry in entries]
        table.append(record)
        for key, value in (attributes or {}).items():
            table.attrs[key] = value

    # ---- what does not change from event to event --------------------------------------------------------------------
    def _write_what_is_known(self, provenance: Mapping[str, Any]) -> None:
        self._write_root(provenance)
        self._write_instrument()
        self._table(schema.TRIGGER, schema.trigger_columns(len(self._index)))
        self._table(schema.TEL_TRIGGER, schema.TEL_TRIGGER_COLUMNS)
        self._file.create_group(*schema.IMAGES.rsplit("/", 1), createparents=True)

    def _levels(self) -> list[str]:
        levels = ["DL1_IMAGES"]
        if schema.PARAMETERS in self._file.root:
            levels.append("DL1_PARAMETERS")
        if schema.WAVEFORMS in self._file.root:
            levels.append("R1")
        return levels

    def _write_root(self, provenance: Mapping[str, Any]) -> None:
        simulated = self._simulation is not None
        self._set_root_attributes(
            run_tables.root_attributes(self._obs_id, self._subarray.name, provenance, simulated=simulated)
        )

    def _set_root_attributes(self, attributes: Mapping[str, str]) -> None:
        import tables

        with warnings.catch_warnings():
            # The data model's names have spaces in them.
            warnings.simplefilter("ignore", tables.NaturalNameWarning)
            for key, value in attributes.items():
                self._file.root._v_attrs[key] = value

    def _write_instrument(self) -> None:
        cameras = list({id(camera): camera for camera in self._subarray.telescopes.values()}.values())
        width = max(len(name.encode()) for camera in cameras for name in (camera.name, camera.optics_name))
        name = self._subarray.name
        common = {"ORIGIN": "ctapipe.instrument.SubarrayDescription", "SOFT_VER": "0.28.0", "SUBARRAY": name}
        attributes = common | {"TAB_TYPE": "subarray", "TAB_VER": "2.0", "name": name}
        attributes |= run_tables.itrs_attributes(self._subarray)
        self._write(
            schema.LAYOUT, schema.layout_columns(width), run_tables.layout_rows(self._subarray, cameras), attributes
        )
        attributes = common | {"TAB_TYPE": "optics", "TAB_VER": "4.0"}
        self._write(schema.OPTICS, schema.optics_columns(width), list(map(run_tables.optics_row, cameras)), attributes)
        for number, camera in enumerate(cameras):
            self._write_camera(number, camera)

    def _write_camera(self, number: int, camera: Camera) -> None:
        attributes = {
            "PIX_TYPE": "hexagon" if camera.hexagonal else "square",
            "TAB_TYPE": "ctapipe.instrument.CameraGeometry",
            "TAB_VER": "2.0",
            "CAM_ID": camera.name,
            "PIX_ROT": float(camera.pix_rotation_deg),
            "CAM_ROT": float(camera.cam_rotation_deg),
        }
        path = f"{schema.CAMERA}/geometry_{number}"
        self._write(path, schema.GEOMETRY_COLUMNS, run_tables.geometry_rows(camera), attributes)
        n_channels = len(np.atleast_2d(camera.reference_pulse))
        attributes = {
            "TAB_TYPE": "ctapipe.instrument.CameraReadout",
            "TAB_VER": "3.0",
            "CAM_ID": camera.name,
            "NCHAN": n_channels,
            "NPIXELS": camera.n_pixels,
            "NSAMPLES": int(camera.n_samples),
            "SAMPFREQ": float(camera.sampling_rate_ghz),
            "REFWIDTH": float(camera.reference_pulse_step_ns),
        }
        path = f"{schema.CAMERA}/readout_{number}"
        self._write(path, schema.readout_columns(n_channels), run_tables.readout_rows(camera), attributes)

    def _write_pointing(self) -> None:
        alt, az = self._pointing
        for tel_id in self._subarray.telescopes:
            row = {"obs_id": self._obs_id, "tel_id": tel_id}
            row |= {"telescope_pointing_azimuth": az, "telescope_pointing_altitude": alt}
            self._write(f"{schema.FIXED_POINTING}/tel_{tel_id:03d}", schema.POINTING_COLUMNS, [row])

    def _write_observation(self) -> None:
        simulated = self._simulation is not None
        time_range_s = None
        if self._last_event is not None:
            time_range_s = self._time_range_s if math.isfinite(self._time_range_s[0]) else (0.0, 0.0)
        scheduling = run_tables.scheduling_row(self._obs_id, simulated=simulated)
        observation = run_tables.observation_row(self._obs_id, self._pointing, time_range_s, simulated=simulated)
        self._write(schema.SCHEDULING_BLOCK, schema.SCHEDULING_COLUMNS, [scheduling])
        self._write(schema.OBSERVATION_BLOCK, schema.OBSERVATION_COLUMNS, [observation])
