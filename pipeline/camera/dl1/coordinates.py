"""Times, shower axes and angles as ctapipe has them, for arrays."""

from collections.abc import Mapping

import numpy as np

_MAX_U4 = np.iinfo(np.uint32).max
_MJD_OF_1970 = 40587.0
_SECONDS_PER_DAY = 86400.0


def mjd(time_s: float) -> float:
    """Modified Julian date (TAI) of a number of seconds since 1970-01-01 TAI."""
    return _MJD_OF_1970 + time_s / _SECONDS_PER_DAY


def seconds_of_mjd(value: np.ndarray) -> np.ndarray:
    """Seconds since 1970-01-01 TAI of modified Julian dates (TAI); good to about a microsecond."""
    return (np.asarray(value, dtype=np.float64) - _MJD_OF_1970) * _SECONDS_PER_DAY


def high_resolution_time(time_s: np.ndarray) -> np.ndarray:
    """Seconds since 1970-01-01 TAI as (whole seconds, quarter nanoseconds), uint32, shape (n, 2).

    Unknown (NaN) and earlier times become 0, times after 2106 the largest whole second, as in ctapipe.
    """
    whole = np.clip(np.floor(np.nan_to_num(time_s)), 0, _MAX_U4)
    fraction = np.clip(np.nan_to_num(time_s) - whole, 0, np.nextafter(1, 0))
    return np.column_stack([whole, np.rint(4e9 * fraction)]).astype(np.uint32)


def seconds_of_high_resolution(time: np.ndarray) -> np.ndarray:
    """Inverse of `high_resolution_time`, float64: 0.2 us of resolution for dates of this century."""
    return time[:, 0] + 0.25e-9 * time[:, 1]


# ---- angles ----------------------------------------------------------------------------------------------------------
def wrapped_rad(angle_rad: np.ndarray) -> np.ndarray:
    """Angles brought to [-pi, pi): what a difference of two directions is."""
    return (np.asarray(angle_rad, np.float64) + np.pi) % (2 * np.pi) - np.pi


def circular_median_rad(angle_rad: np.ndarray) -> float:
    """Median of angles such as azimuths, in [0, 2 pi); NaN if none is finite.

    The circle is cut opposite to the mean direction, so the values may lie on both sides of north. Values that are not
    finite are ignored; half a circle of outliers moves the median no more than it does on a line.
    """
    angle = np.asarray(angle_rad, np.float64)
    angle = angle[np.isfinite(angle)]
    if not len(angle):
        return float("nan")
    mean = np.arctan2(np.sin(angle).mean(), np.cos(angle).mean())
    # From one of the values, not from the mean: the median of equal angles is this angle to the last bit.
    origin = angle[np.argmin(np.abs(wrapped_rad(angle - mean)))]
    return float((origin + np.median(wrapped_rad(angle - origin))) % (2 * np.pi))


def finite_median(values: np.ndarray) -> float:
    """Median of the finite values; NaN if there is none."""
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else float("nan")


def continuous_rad(angle_rad: np.ndarray) -> np.ndarray:
    """Angles over time without jumps of a whole turn, for interpolation; what is not finite stays NaN."""
    angle = np.array(angle_rad, np.float64)
    is_finite = np.isfinite(angle)
    angle[~is_finite] = np.nan
    angle[is_finite] = np.unwrap(angle[is_finite])
    return angle


# ---- positions on the ground and in the sky --------------------------------------------------------------------------
def impact_distance_m(truth: Mapping[str, np.ndarray], position_m: tuple[float, float, float]) -> np.ndarray:
    """Distance of a telescope from the shower axes [m], shape (n,).

    Parameters
    ----------
    truth : mapping
        true_alt_deg, true_az_deg, true_core_x_m, true_core_y_m (the core is at z = 0).
    position_m : (float, float, float)
        The telescope, x to the north, y to the west, z up [m].
    """
    alt, az = np.radians(truth["true_alt_deg"]), np.radians(truth["true_az_deg"])
    # Azimuth turns from north to east, y points to the west.
    axis = np.column_stack([np.cos(alt) * np.cos(az), -np.cos(alt) * np.sin(az), np.sin(alt)])
    core = np.column_stack([truth["true_core_x_m"], truth["true_core_y_m"], np.zeros(len(alt))])
    return np.linalg.norm(np.cross(np.asarray(position_m) - core, axis), axis=1)
