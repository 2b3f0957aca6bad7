"""Where each telescope pointed: per run, or over time as its drive reported."""

import math
from functools import cache
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from pipeline.camera.dl1 import schema
from pipeline.camera.dl1.columns import quantity
from pipeline.camera.dl1.coordinates import circular_median_rad, finite_median, wrapped_rad
from pipeline.camera.dl1.events import read_ids, read_times, telescope_table
from pipeline.hdf5 import dataset

_REPORTED = (schema.LEGACY_POINTING, schema.MONITORED_POINTING)
_TIME_TOLERANCE_S = 1e-3  # reports are written with the time of the first event that they hold for, as a float
_SAME_DIRECTION_RAD = 1e-5  # 2 arcsec: rows of one run that agree to this say the same


class _Reports(NamedTuple):
    """Reports of a drive, in the order of time; all finite."""

    time_s: np.ndarray
    alt_rad: np.ndarray
    az_rad: np.ndarray


class Pointings:
    """Pointings of the telescopes of a DL1 file.

    A file has one row per run (since data model v5.1), or the reports of the drives over time. Of reports, the last
    one at or before an event holds for it, else the first: runs that were merged have their own, and nothing is
    averaged over north. Reports that are not finite are left out. Reports are also used for runs whose rows differ.

    Parameters
    ----------
    file : h5py.File
    path : path
        For messages.
    """

    def __init__(self, file: h5py.File, path: Path) -> None:
        self._file, self._path = file, path
        self._fixed_of, self._reports_of = cache(self._read_fixed), cache(self._read_reports)

    def of(self, tel_id: int, obs_id: np.ndarray, time_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Altitude and azimuth [rad] of a telescope at events of some runs, shape (n,) each; NaN if unknown."""
        alt, az = np.full(len(obs_id), math.nan), np.full(len(obs_id), math.nan)
        fixed = self._fixed_of(tel_id)
        for run in np.unique(obs_id).tolist() if fixed else ():
            here = obs_id == run
            alt[here], az[here] = fixed.get(run, (math.nan, math.nan))
        missing = np.isnan(alt)
        if missing.any() and (reports := self._reports_of(tel_id)) is not None and len(reports.time_s):
            time = np.where(np.isfinite(time_s), time_s, -np.inf) + _TIME_TOLERANCE_S
            place = np.maximum(np.searchsorted(reports.time_s, time, side="right") - 1, 0)
            alt, az = np.where(missing, reports.alt_rad[place], alt), np.where(missing, reports.az_rad[place], az)
        return alt, az

    def typical(self, tel_id: int, obs_id: np.ndarray, time_s: np.ndarray) -> tuple[float, float] | None:
        """Altitude and azimuth [deg] of a telescope in the first of these runs; None if unknown.

        Parameters
        ----------
        tel_id : int
        obs_id, time_s : ndarray, shape (n,)
            Runs and times [s] of all events.
        """
        runs = np.unique(obs_id)
        reports = None if self._fixed_of(tel_id) else self._reports_of(tel_id)
        if reports is not None and len(runs) <= 1:
            alt, az = reports.alt_rad, reports.az_rad
        else:
            here = obs_id == runs[0] if len(runs) else np.zeros(0, bool)
            alt, az = self.of(tel_id, obs_id[here], time_s[here])
        direction = finite_median(alt), circular_median_rad(az)
        return None if math.isnan(sum(direction)) else (math.degrees(direction[0]), math.degrees(direction[1]))

    def _read_fixed(self, tel_id: int) -> dict[int, tuple[float, float]]:
        """Altitude and azimuth [rad] by run, without runs that have no finite pointing, or several.

        Parts of one observation that were merged have a row each, as the telescopes went on.
        """
        name = telescope_table(schema.FIXED_POINTING, tel_id)
        if name not in self._file:
            return {}
        table = dataset(self._file, name)
        alt = quantity(table, "telescope_pointing_altitude", "rad", self._path)
        az = quantity(table, "telescope_pointing_azimuth", "rad", self._path)
        runs = read_ids(self._file, name, ("obs_id",))["obs_id"]
        pointings: dict[int, tuple[float, float]] = {}
        contradicted = set()
        for row in np.flatnonzero(np.isfinite(alt) & np.isfinite(az)).tolist():
            run, direction = int(runs[row]), (float(alt[row]), float(az[row]))
            known = pointings.setdefault(run, direction)
            if (np.abs(wrapped_rad(np.subtract(known, direction))) > _SAME_DIRECTION_RAD).any():
                contradicted.add(run)
        return {run: direction for run, direction in pointings.items() if run not in contradicted}

    def _read_reports(self, tel_id: int) -> _Reports | None:
        for group in _REPORTED:
            name = telescope_table(group, tel_id)
            if name in self._file:
                table = dataset(self._file, name)
                reports = _Reports(
                    read_times(table),
                    quantity(table, "altitude", "rad", self._path),
                    quantity(table, "azimuth", "rad", self._path),
                )
                is_finite = np.isfinite(reports).all(axis=0)
                order = np.argsort(reports.time_s[is_finite], kind="stable")
                return _Reports(*(column[is_finite][order] for column in reports))
        return None
