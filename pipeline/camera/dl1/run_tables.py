"""Rows of the tables that describe a whole run: telescopes, cameras, the observation, the simulation."""

import json
import math
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.camera.dl1 import schema
from pipeline.camera.dl1.coordinates import mjd
from pipeline.camera.dl1.model import SimulationRun, Subarray
from pipeline.camera.geometry import Camera

Row = dict[str, Any]


def root_attributes(obs_id: int, subarray_name: str, provenance: Mapping[str, Any], *, simulated: bool) -> Row:
    """What ctapipe's reference metadata require, and the provenance as JSON.

    Times and random identifiers are omitted: the sidecar has them, and equal runs give equal bytes.
    """
    text = json.dumps(dict(provenance), sort_keys=True, default=str)
    return {
        "CTA REFERENCE VERSION": "1",
        "CTA PRODUCT DESCRIPTION": "lightpool DL1",
        "CTA PRODUCT ID": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{obs_id} {text}")),
        "CTA PRODUCT DATA CATEGORY": "Sim" if simulated else "Other",
        "CTA PRODUCT DATA LEVELS": "DL1_IMAGES",
        "CTA PRODUCT DATA ASSOCIATION": "Subarray",
        "CTA PRODUCT DATA MODEL NAME": "ASWG",
        "CTA PRODUCT DATA MODEL VERSION": schema.DATA_MODEL_VERSION,
        "CTA PRODUCT FORMAT": "hdf5",
        "CTA PROCESS TYPE": "Simulation" if simulated else "Observation",
        "CTA PROCESS ID": str(obs_id),
        "CTA ACTIVITY NAME": str(provenance.get("stage", "lightpool")),
        "CTA ACTIVITY TYPE": "software",
        "CTA ACTIVITY SOFTWARE NAME": "lightpool",
        "CTA ACTIVITY SOFTWARE VERSION": str(provenance.get("version", "unknown")),
        "CTA INSTRUMENT SITE": "Other",
        "CTA INSTRUMENT CLASS": "Subarray",
        "CTA INSTRUMENT ID": subarray_name,
        "LIGHTPOOL PROVENANCE": text,
    }


def layout_rows(subarray: Subarray, cameras: Sequence[Camera]) -> list[Row]:
    """Telescopes and their places; a camera is referred to by its index in `cameras`."""
    index = {id(camera): number for number, camera in enumerate(cameras)}
    rows = []
    for tel_id, camera in subarray.telescopes.items():
        x, y, z = subarray.positions_m[tel_id]
        rows.append(
            {
                "tel_id": tel_id, "name": camera.optics_name, "type": camera.size_type, "pos_x": x, "pos_y": y,
                "pos_z": z, "camera_name": camera.name, "optics_name": camera.optics_name,
                "camera_index": index[id(camera)], "optics_index": index[id(camera)],
                "tel_description": f"{camera.size_type}_{camera.optics_name}_{camera.name}",
            }
        )  # fmt: skip
    return rows


def itrs_attributes(subarray: Subarray) -> dict[str, float]:
    """Geocentric position [m] of the array's reference point."""
    from astropy.coordinates import EarthLocation

    location = EarthLocation.from_geodetic(subarray.lon_deg, subarray.lat_deg, subarray.altitude_m)
    return {f"reference_itrs_{axis}": float(getattr(location, axis).to_value("m")) for axis in "xyz"}


def optics_row(camera: Camera) -> Row:
    """Mirror and focal lengths."""
    effective_m = camera.effective_focal_length_m
    return {
        "optics_name": camera.optics_name,
        "size_type": camera.size_type,
        "reflector_shape": camera.reflector_shape,
        "mirror_area": camera.mirror_area_m2,
        "n_mirrors": camera.n_mirrors,
        "n_mirror_tiles": camera.n_mirror_tiles,
        "equivalent_focal_length": camera.focal_length_m,
        # ctapipe's readers require the effective one by default and refuse a file without it.
        "effective_focal_length": camera.focal_length_m if math.isnan(effective_m) else effective_m,
    }


def geometry_rows(camera: Camera) -> list[Row]:
    """Pixels, in the columns `schema.GEOMETRY_COLUMNS`."""
    pixels = zip(range(camera.n_pixels), camera.pix_x_m, camera.pix_y_m, camera.pix_area_m2, strict=True)
    names = [column.name for column in schema.GEOMETRY_COLUMNS]
    return [dict(zip(names, pixel, strict=True)) for pixel in pixels]


def readout_rows(camera: Camera) -> list[Row]:
    """Reference pulse per channel, in the columns `schema.readout_columns`."""
    pulse = np.atleast_2d(camera.reference_pulse)
    names = [column.name for column in schema.readout_columns(len(pulse))]
    times = camera.reference_pulse_step_ns * np.arange(pulse.shape[1])
    return [dict(zip(names, (*shape, t), strict=True)) for shape, t in zip(pulse.T, times, strict=True)]


def scheduling_row(obs_id: int, *, simulated: bool) -> Row:
    """The scheduling block: each run is one of its own."""
    return {
        "sb_id": obs_id, "sb_type": 0, "producer_id": _producer(simulated), "observing_mode": -1, "pointing_mode": 1,
    }  # fmt: skip


def observation_row(
    obs_id: int, pointing_alt_az_rad: tuple[float, float], time_range_s: tuple[float, float] | None, *, simulated: bool
) -> Row:
    """The observation block; without a range of times, which is one without images, it counts as cancelled."""
    first_s, last_s = time_range_s or (math.nan, math.nan)
    return {
        "obs_id": obs_id, "sb_id": obs_id, "producer_id": _producer(simulated),
        "state": 1 if time_range_s else 2,  # completed, or cancelled
        "subarray_pointing_lat": math.degrees(pointing_alt_az_rad[0]),
        "subarray_pointing_lon": math.degrees(pointing_alt_az_rad[1]),
        "subarray_pointing_frame": 0,  # ALTAZ
        "scheduled_duration": math.nan, "scheduled_start_time": mjd(first_s), "actual_start_time": mjd(first_s),
        "actual_duration": (last_s - first_s) / 60,
    }  # fmt: skip


def _producer(simulated: bool) -> str:
    return "simulation" if simulated else "unknown"


def simulation_run_row(obs_id: int, run: SimulationRun) -> Row:
    """The settings of a simulation; -1 for those that are not known."""
    row = {column.name: -1 for column in schema.SIMULATION_RUN_COLUMNS}
    return row | {
        "obs_id": obs_id, "run_number": obs_id, "corsika_version": run.corsika_version,
        "simtel_version": run.simtel_version, "energy_range_min": run.energy_range_min_tev,
        "energy_range_max": run.energy_range_max_tev, "prod_site_B_total": run.prod_site_b_total_ut,
        "prod_site_B_declination": run.prod_site_b_declination_rad,
        "prod_site_B_inclination": run.prod_site_b_inclination_rad, "prod_site_alt": run.prod_site_alt_m,
        "spectral_index": run.spectral_index, "shower_prog_id": run.shower_prog_id,
        "detector_prog_id": run.detector_prog_id, "n_showers": run.n_showers, "shower_reuse": run.shower_reuse,
        "max_alt": run.max_alt_rad, "min_alt": run.min_alt_rad, "max_az": run.max_az_rad, "min_az": run.min_az_rad,
        "diffuse": int(run.max_viewcone_radius_deg > 0), "max_viewcone_radius": run.max_viewcone_radius_deg,
        "min_viewcone_radius": run.min_viewcone_radius_deg, "max_scatter_range": run.max_scatter_range_m,
        "min_scatter_range": run.min_scatter_range_m, "core_pos_mode": 0, "atmosphere": run.atmosphere,
        "corsika_bunchsize": run.corsika_bunchsize, "corsika_wlen_min": run.corsika_wlen_min_nm,
        "corsika_wlen_max": run.corsika_wlen_max_nm,
    }  # fmt: skip
