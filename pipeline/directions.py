"""Directions in the sky and in a telescope's field of view.

Field-of-view coordinates are those of ctapipe's TelescopeFrame: ``fov_lat`` grows with the altitude, ``fov_lon`` with
the azimuth, which turns from north to east; both are spherical offsets from the direction that the telescope points to.
Columns of a tile go along ``fov_lon``, rows along ``fov_lat``. A test compares with ctapipe, to 1e-9 deg.
"""

import warnings
from collections.abc import Mapping

import numpy as np

#: Radius about a direction with 68 % of a two-dimensional normal distribution, in standard deviations along one axis.
RADIUS_68 = float(np.sqrt(-2 * np.log(1 - 0.68)))


def altaz_of_fov(
    fov_lon_deg: np.ndarray, fov_lat_deg: np.ndarray, pointing_alt_deg: np.ndarray, pointing_az_deg: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Altitude and azimuth of places in the field of view, shape (n,) each, in degrees; the azimuth in [0, 360).

    Parameters
    ----------
    fov_lon_deg, fov_lat_deg, pointing_alt_deg, pointing_az_deg : ndarray, shape (n,)
        NaN gives NaN.
    """
    lon, lat, alt0, az0 = map(np.radians, (fov_lon_deg, fov_lat_deg, pointing_alt_deg, pointing_az_deg))
    x, y, z = np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)
    alt = np.arcsin(np.clip(x * np.sin(alt0) + z * np.cos(alt0), -1, 1))
    az = az0 + np.arctan2(y, x * np.cos(alt0) - z * np.sin(alt0))
    return np.degrees(alt), np.degrees(az) % 360


def fov_of_altaz(
    alt_deg: np.ndarray, az_deg: np.ndarray, pointing_alt_deg: np.ndarray, pointing_az_deg: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Longitude and latitude in the field of view, shape (n,) each, in degrees: the inverse of `altaz_of_fov`."""
    alt, alt0 = np.radians(alt_deg), np.radians(pointing_alt_deg)
    delta = np.radians(np.subtract(az_deg, pointing_az_deg))
    x = np.cos(alt) * np.cos(delta) * np.cos(alt0) + np.sin(alt) * np.sin(alt0)
    y = np.cos(alt) * np.sin(delta)
    z = np.sin(alt) * np.cos(alt0) - np.cos(alt) * np.cos(delta) * np.sin(alt0)
    return np.degrees(np.arctan2(y, x)), np.degrees(np.arctan2(z, np.hypot(x, y)))


def offset_deg(alt_deg: np.ndarray, az_deg: np.ndarray, alt0_deg: np.ndarray, az0_deg: np.ndarray) -> np.ndarray:
    """Angle between two directions [deg], accurate for small ones (haversine)."""
    alt, alt0, delta = np.radians(alt_deg), np.radians(alt0_deg), np.radians(np.subtract(az_deg, az0_deg))
    haversine = np.sin((alt - alt0) / 2) ** 2 + np.cos(alt) * np.cos(alt0) * np.sin(delta / 2) ** 2
    return np.degrees(2 * np.arcsin(np.sqrt(np.clip(haversine, 0, 1))))


def unit_vectors(alt_deg: np.ndarray, az_deg: np.ndarray) -> np.ndarray:
    """Directions as unit vectors, x to the north, y to the east, z up, shape (n, 3)."""
    alt, az = np.radians(alt_deg), np.radians(az_deg)
    return np.stack([np.cos(alt) * np.cos(az), np.cos(alt) * np.sin(az), np.sin(alt)], axis=-1)


def altaz_of_vectors(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Altitude and azimuth [deg] of vectors (n, 3) of any length, the azimuth in [0, 360)."""
    x, y, z = np.moveaxis(np.asarray(vectors, np.float64), -1, 0)
    return np.degrees(np.arctan2(z, np.hypot(x, y))), np.degrees(np.arctan2(y, x)) % 360


# ---- on the celestial sphere -----------------------------------------------------------------------------------------
_UNIX_EPOCH_JD = 2440587.5
_WGS84 = 1  # ERFA's number


def radec_of_altaz(
    alt_deg: np.ndarray, az_deg: np.ndarray, time_s: np.ndarray, lon_deg: float, lat_deg: float
) -> tuple[np.ndarray, np.ndarray]:
    """Right ascension and declination (ICRS) [deg] of directions, by ERFA, the library below astropy.

    UT1 is taken for UTC, and the pole for that of the figure of the Earth: both need tables of the day, and turn the
    sky by less than 0.004 deg. Refraction is left out.

    Parameters
    ----------
    alt_deg, az_deg : ndarray, shape (n,)
    time_s : ndarray, shape (n,)
        Since 1970-01-01 TAI; NaN where unknown.
    lon_deg, lat_deg : float
        Of the observer, to the east and geodetic.
    """
    import erfa

    result = np.full((2, len(time_s)), np.nan)
    known = np.isfinite(time_s)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", erfa.ErfaWarning)  # of years whose leap seconds are not decided yet
        utc = erfa.taiutc(_UNIX_EPOCH_JD, np.asarray(time_s, np.float64)[known] / 86400)
        az, zenith = np.radians(np.asarray(az_deg)[known]), np.radians(90 - np.asarray(alt_deg)[known])
        place = 0.0, np.radians(lon_deg), np.radians(lat_deg), 0.0  # UT1 - UTC, and the height, which does not matter
        found = erfa.atoc13("A", az, zenith, *utc, *place, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    result[:, known] = np.degrees(found)
    return result[0], result[1]


def geodetic_of_itrs(x_m: float, y_m: float, z_m: float) -> tuple[float, float]:
    """Longitude and geodetic latitude [deg] of a place (WGS84)."""
    import erfa

    lon, lat, _ = erfa.gc2gd(_WGS84, np.array([x_m, y_m, z_m]))
    return float(np.degrees(lon)), float(np.degrees(lat))


# ---- on the ground ---------------------------------------------------------------------------------------------------
def pointing_axes(alt_deg: np.ndarray, az_deg: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors along ``fov_lon`` and ``fov_lat`` at the pointing, and towards it, shape (n, 3) each.

    In coordinates of the ground: x to the north, y to the west, z up. Of what a telescope sees, the vector from it to
    the shower's axis is parallel, in these two axes, to that from the source to the image.
    """
    alt, az = np.radians(alt_deg), np.radians(az_deg)
    zero = np.zeros_like(alt)
    along_lon = np.stack([-np.sin(az), -np.cos(az), zero], axis=-1)
    along_lat = np.stack([-np.sin(alt) * np.cos(az), np.sin(alt) * np.sin(az), np.cos(alt)], axis=-1)
    towards = np.stack([np.cos(alt) * np.cos(az), -np.cos(alt) * np.sin(az), np.sin(alt)], axis=-1)
    return along_lon, along_lat, towards


def core_direction_rad(events: Mapping[str, np.ndarray]) -> np.ndarray:
    """Direction in which a shower's image lies from its source, shape (n,): from ``fov_lon`` to ``fov_lat``.

    It is that of the shortest way from the telescope to the shower's axis; see `pointing_axes`. NaN where the
    telescope's place or pointing is unknown.

    Parameters
    ----------
    events : mapping
        true_alt_deg, true_az_deg, true_core_x_m, true_core_y_m (the core is at z = 0), tel_x_m, tel_y_m, tel_z_m,
        pointing_alt_deg, pointing_az_deg, shape (n,).
    """
    to_core = np.column_stack(
        [
            events["true_core_x_m"] - events["tel_x_m"],
            events["true_core_y_m"] - events["tel_y_m"],
            -np.asarray(events["tel_z_m"], np.float64),
        ]
    )
    _, _, axis = pointing_axes(events["true_alt_deg"], events["true_az_deg"])
    to_axis = to_core - (to_core * axis).sum(axis=1, keepdims=True) * axis
    along_lon, along_lat, _ = pointing_axes(events["pointing_alt_deg"], events["pointing_az_deg"])
    return np.arctan2((to_axis * along_lat).sum(axis=1), (to_axis * along_lon).sum(axis=1))


def centre_from_source(
    lon_deg: np.ndarray, lat_deg: np.ndarray, direction_rad: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where the camera's centre is, seen from a source: along a direction and to its left, shape (n,) each [deg]."""
    cosine, sine = np.cos(direction_rad), np.sin(direction_rad)
    return -(cosine * lon_deg + sine * lat_deg), sine * lon_deg - cosine * lat_deg


def on_ground(vectors_m: np.ndarray, alt_deg: np.ndarray, az_deg: np.ndarray) -> np.ndarray:
    """Where lines along the pointing meet the ground (z = 0), shape (n, 2): x to the north, y to the west [m].

    Parameters
    ----------
    vectors_m : ndarray, shape (n, 3)
        A point of each line.
    alt_deg, az_deg : ndarray, shape (n,)
    """
    _, _, towards = pointing_axes(alt_deg, az_deg)
    with np.errstate(divide="ignore", invalid="ignore"):
        down = vectors_m[..., 2:] / towards[..., 2:]
        return (vectors_m - down * towards)[..., :2]


def outward(events: Mapping[str, np.ndarray]) -> np.ndarray:
    """Unit vectors along the images' long axes, away from the camera's centre, shape (N, 2); 0 without an axis."""
    psi = np.radians(np.asarray(events["hillas_psi"], np.float64))
    axis = np.nan_to_num(np.stack([np.cos(psi), np.sin(psi)], axis=1))
    is_outward = np.cos(psi - np.radians(np.asarray(events["hillas_phi"], np.float64))) >= 0
    return np.where(is_outward[:, None], axis, -axis)
