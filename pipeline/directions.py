"""Directions in the sky and in a telescope's field of view.

Field-of-view coordinates are those of ctapipe's TelescopeFrame: ``fov_lat`` grows with the altitude, ``fov_lon`` with
the azimuth, which turns from north to east; both are spherical offsets from the direction that the telescope points to.
Columns of a tile go along ``fov_lon``, rows along ``fov_lat``. A test compares with ctapipe, to 1e-9 deg.
"""

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
_TAI_MINUS_UTC_S = 37.0  # since 2017; 32 at the beginning of 1999, which turns the sky by 0.02 deg
_ECCENTRICITY2 = 6.69437999014e-3  # of WGS84


def radec_of_altaz(
    alt_deg: np.ndarray, az_deg: np.ndarray, time_s: np.ndarray, lon_deg: float, lat_deg: float
) -> tuple[np.ndarray, np.ndarray]:
    """Right ascension and declination (J2000) [deg] of directions, good to 0.02 deg.

    Refraction, nutation and aberration are left out: a prediction must not wait for astropy, and knows the source to
    0.1 deg. A test compares with astropy.

    Parameters
    ----------
    alt_deg, az_deg : ndarray, shape (n,)
    time_s : ndarray, shape (n,)
        Since 1970-01-01 TAI.
    lon_deg, lat_deg : float
        Of the observer, to the east and geodetic.

    References
    ----------
    .. [1] Meeus (1998), Astronomical Algorithms, eqs. 12.4 (sidereal time), 13.5 f., 21.2 f. (precession).
    """
    days = (np.asarray(time_s, np.float64) - _TAI_MINUS_UTC_S) / 86400 + 2440587.5 - 2451545.0
    centuries = days / 36525
    sidereal_deg = 280.46061837 + 360.98564736629 * days + 0.000387933 * centuries**2 + lon_deg
    alt, az, lat = np.radians(alt_deg), np.radians(az_deg), np.radians(lat_deg)
    dec = np.arcsin(np.clip(np.sin(alt) * np.sin(lat) + np.cos(alt) * np.cos(lat) * np.cos(az), -1, 1))
    hour = np.arctan2(-np.sin(az) * np.cos(alt), np.sin(alt) * np.cos(lat) - np.cos(alt) * np.sin(lat) * np.cos(az))
    # From the equinox of date to that of J2000: the turns of the precession the other way round.
    arcsec = np.pi / 180 / 3600
    zeta = (2306.2181 * centuries + 0.30188 * centuries**2 + 0.017998 * centuries**3) * arcsec
    z = (2306.2181 * centuries + 1.09468 * centuries**2 + 0.018203 * centuries**3) * arcsec
    theta = (2004.3109 * centuries - 0.42665 * centuries**2 - 0.041833 * centuries**3) * arcsec
    angle = np.radians(sidereal_deg) - hour - z
    x = np.cos(theta) * np.cos(dec) * np.cos(angle) + np.sin(theta) * np.sin(dec)
    y = np.cos(dec) * np.sin(angle)
    sine = np.cos(theta) * np.sin(dec) - np.sin(theta) * np.cos(dec) * np.cos(angle)
    return np.degrees(np.arctan2(y, x) - zeta) % 360, np.degrees(np.arcsin(np.clip(sine, -1, 1)))


def geodetic_of_itrs(x_m: float, y_m: float, z_m: float) -> tuple[float, float]:
    """Longitude and geodetic latitude [deg] of a place near the ground, to 1e-4 deg (WGS84)."""
    lat = np.arctan2(z_m, np.hypot(x_m, y_m) * (1 - _ECCENTRICITY2))
    return float(np.degrees(np.arctan2(y_m, x_m))), float(np.degrees(lat))


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
