"""From rays to pixels: projection onto the focal plane, point spread, and which pixel is hit.

The telescope frame is ctapipe's: a source above the axis (higher altitude) has its image at +x, one at larger azimuth
at +y.
"""

import math
from typing import NamedTuple

import numpy as np

from pipeline.camera.pixel_map import pixel_map
from pipeline.camera.showers.compilation import compiled
from pipeline.camera.telescopes import Telescope


class Optics(NamedTuple):
    """What turns a ray into a pixel.

    Attributes
    ----------
    axis, up, east : tuple of 3 floats
        Pointing, and the directions in which altitude and azimuth grow (x north, y west, z up).
    focal_length_m, psf_sigma_m, time_spread_ns : float
        See `pipeline.camera.telescopes.Telescope`.
    cos_rotation, sin_rotation : float
        Rotation of the camera in the telescope frame.
    pixel_map : ndarray, shape (n, n), int32
        Pixel at (x, y) on a fine square grid; -1 outside all pixels.
    map_edge_m, map_cell_m : float
        The grid begins at -`map_edge_m` and has cells of `map_cell_m`.
    """

    axis: tuple[float, float, float]
    up: tuple[float, float, float]
    east: tuple[float, float, float]
    focal_length_m: float
    psf_sigma_m: float
    time_spread_ns: float
    cos_rotation: float
    sin_rotation: float
    pixel_map: np.ndarray
    map_edge_m: float
    map_cell_m: float


def horizontal_basis(
    altitude_rad: float, azimuth_rad: float
) -> tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]:
    """Unit vectors towards (altitude, azimuth), towards larger altitude, and towards larger azimuth.

    Components are (north, west, up); azimuth counts from north over east.
    """
    sin_alt, cos_alt = math.sin(altitude_rad), math.cos(altitude_rad)
    sin_az, cos_az = math.sin(azimuth_rad), math.cos(azimuth_rad)
    return (
        (cos_alt * cos_az, -cos_alt * sin_az, sin_alt),
        (-sin_alt * cos_az, sin_alt * sin_az, cos_alt),
        (-sin_az, -cos_az, 0.0),
    )


def make_optics(telescope: Telescope, altitude_rad: float, azimuth_rad: float) -> Optics:
    """Optics of a telescope that looks at (altitude, azimuth)."""
    axis, up, east = horizontal_basis(altitude_rad, azimuth_rad)
    table, edge, cell = pixel_map(telescope.camera)
    rotation = math.radians(telescope.camera.cam_rotation_deg)
    return Optics(
        axis=axis,
        up=up,
        east=east,
        focal_length_m=telescope.camera.effective_focal_length_m,
        psf_sigma_m=telescope.psf_sigma_m,
        time_spread_ns=telescope.time_spread_ns,
        cos_rotation=math.cos(rotation),
        sin_rotation=math.sin(rotation),
        pixel_map=table,
        map_edge_m=edge,
        map_cell_m=cell,
    )


@compiled
def trace(rays, optics, seed):
    """Pixel and arrival time of each ray.

    Parameters
    ----------
    rays : structured ndarray of `RAY`
        Rays on the mirror of one telescope.
    optics : Optics
    seed : int
        Seeds point spread and transit times.

    Returns
    -------
    pixel : ndarray, shape (n_rays,), int64
        -1 where no pixel is hit.
    time_ns : ndarray, shape (n_rays,)
        Arrival plus transit time.
    """
    np.random.seed(seed)
    pixel = np.empty(len(rays), np.int64)
    time = np.empty(len(rays))
    for i in range(len(rays)):
        # Where the ray comes from
        sx, sy, sz = -rays[i].kx, -rays[i].ky, -rays[i].kz
        along = sx * optics.axis[0] + sy * optics.axis[1] + sz * optics.axis[2]
        scale = optics.focal_length_m / along
        lat = scale * (sx * optics.up[0] + sy * optics.up[1] + sz * optics.up[2])
        lon = scale * (sx * optics.east[0] + sy * optics.east[1] + sz * optics.east[2])
        x = lat * optics.cos_rotation - lon * optics.sin_rotation
        y = lat * optics.sin_rotation + lon * optics.cos_rotation
        x += optics.psf_sigma_m * np.random.normal()
        y += optics.psf_sigma_m * np.random.normal()
        column = math.floor((x + optics.map_edge_m) / optics.map_cell_m)
        row = math.floor((y + optics.map_edge_m) / optics.map_cell_m)
        inside = 0 <= column < optics.pixel_map.shape[0] and 0 <= row < optics.pixel_map.shape[1]
        pixel[i] = optics.pixel_map[column, row] if inside else -1
        time[i] = rays[i].t + optics.time_spread_ns * np.random.normal()
    return pixel, time
