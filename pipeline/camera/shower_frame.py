"""Camera images in the frame of their shower: the source at the left, the direction of the core towards the right.

Seen from a telescope, a shower is an ellipse that points from the source of the gamma ray towards the place where the
axis meets the ground. Turned so that this direction is +x, with the source as the origin, images of all azimuths and
offsets look alike, and a network need not learn them one by one.

A tile has square cells, finer than the pixels. Each cell belongs to the pixel that its centre lies in, and a pixel's
light is shared out equally among its cells. Adding up the cells of each pixel of the same image gives it back. Laid on
pixels in another place, cells blur it: what is learnt from tiles is to be compared in pixels.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from pipeline.camera.compiled import njit
from pipeline.camera.geometry import Camera, cached_by_pixels
from pipeline.camera.pixel_map import pixel_map
from pipeline.directions import centre_from_source, core_direction_rad
from pipeline.errors import UserError

#: Side of a cell in units of the distance between pixels: each pixel has cells, however it lies.
CELL_PER_PITCH = 0.5
#: Where the source is: this share of the tile's width from its left edge.
SOURCE_AT = 1 / 8


class Orientation(NamedTuple):
    """How showers lie in the field of view of a telescope.

    Attributes
    ----------
    source_lon_deg, source_lat_deg : ndarray, shape (n,)
        Where they come from.
    core_direction_rad : ndarray, shape (n,)
        Direction from there to the core, from ``fov_lon`` to ``fov_lat``.
    side : ndarray, shape (n,)
        1, or -1 where the tile is mirrored: the camera's centre is never below the shower's axis. Nature knows no
        left or right of a shower, but for a slight effect of the magnetic field.
    """

    source_lon_deg: np.ndarray
    source_lat_deg: np.ndarray
    core_direction_rad: np.ndarray
    side: np.ndarray

    @classmethod
    def of_events(cls, events: Mapping[str, np.ndarray]) -> "Orientation":
        """From event columns: truth, pointing and place of the telescope.

        Raises
        ------
        UserError
            If a pointing or the place of a telescope is not known.
        """
        lon, lat = (np.asarray(events[f"true_fov_{axis}_deg"], np.float64) for axis in ("lon", "lat"))
        direction = core_direction_rad(events)
        if not np.isfinite(direction + lon + lat).all():
            raise UserError(
                "the file does not say where its telescopes stand and point: its images cannot be turned towards the "
                "core (tiles.camera.frame: shower)"
            )
        _, across = centre_from_source(lon, lat, direction)
        return cls(lon, lat, direction, np.where(across < 0, -1.0, 1.0))

    @classmethod
    def of_centre(
        cls, along_deg: np.ndarray, across_deg: np.ndarray, direction_rad: np.ndarray, side: np.ndarray
    ) -> "Orientation":
        """From where the camera's centre lies in the frame, seen from the source: the inverse of `centre`."""
        cosine, sine = np.cos(direction_rad), np.sin(direction_rad)
        lon = -(cosine * along_deg - sine * side * across_deg)
        lat = -(sine * along_deg + cosine * side * across_deg)
        return cls(lon, lat, direction_rad, side)

    @property
    def centre(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the camera's centre is, seen from the source: towards the core, and beside, not negative [deg]."""
        along, across = centre_from_source(self.source_lon_deg, self.source_lat_deg, self.core_direction_rad)
        return along, self.side * across


@cached_by_pixels
def shower_frame(camera: Camera, size: int) -> "ShowerFrame":
    """The `ShowerFrame` of a camera and tile size, from the cache if one with the same pixels was made before."""
    return ShowerFrame(camera, size)


class ShowerFrame:
    """Turns camera images into tiles of the shower's frame, and back.

    Parameters
    ----------
    camera : Camera
    size : int
        Rows and columns of a tile.

    Attributes
    ----------
    cell_deg : float
        Side of a cell.
    """

    def __init__(self, camera: Camera, size: int) -> None:
        self.camera, self.size = camera, size
        self.cell_deg = CELL_PER_PITCH * camera.pitch_deg
        table, edge_m, cell_m = pixel_map(camera)
        angle = math.radians(camera.cam_rotation_deg)
        self._map = table, edge_m, cell_m, math.radians(camera.focal_length_m), math.cos(angle), math.sin(angle)

    def pixels(self, orientation: Orientation) -> np.ndarray:
        """Camera pixel of each cell, shape (n, size, size), int32; -1 outside the camera."""
        lon, lat, angle, side = (np.ascontiguousarray(values, np.float64) for values in orientation)
        found = np.empty((len(lon), self.size, self.size), np.int32)
        source = SOURCE_AT * self.size
        _pixels_of_cells(lon, lat, np.cos(angle), np.sin(angle), side, self.cell_deg, source, *self._map, found)
        return found

    def spread(self, image: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        """Amounts per pixel to amounts per cell, shape (n, size, size), float32.

        Parameters
        ----------
        image : ndarray, shape (n, n_pixels)
        pixels : ndarray of int, shape (n, size, size)
            Of `pixels`.
        """
        cells = np.zeros(pixels.shape, np.float32)
        _spread(np.ascontiguousarray(image, np.float32), pixels, cells)
        return cells

    def values(self, image: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        """What each cell has of its pixel, unlike an amount: (n, size, size), float32; 0 outside the camera."""
        rows = np.arange(len(image))[:, None, None]
        return np.where(pixels >= 0, image[rows, np.maximum(pixels, 0)], 0).astype(np.float32)

    def gather(self, cells: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        """Amounts per cell to amounts per pixel, shape (n, n_pixels), float64: the inverse of `spread`."""
        image = np.zeros((len(cells), self.camera.n_pixels))
        _gather(np.ascontiguousarray(cells, np.float32), pixels, image)
        return image


@njit(cache=True, nogil=True)
def _pixels_of_cells(
    lon, lat, cosine, sine, side, cell_deg, source, table, edge, step, m_per_deg, turn_cos, turn_sin, found
):
    n_items, n_rows, n_columns = found.shape
    for i in range(n_items):
        for row in range(n_rows):
            across = side[i] * (row + 0.5 - n_rows / 2) * cell_deg
            for column in range(n_columns):
                along = (column + 0.5 - source) * cell_deg
                fov_lon = lon[i] + cosine[i] * along - sine[i] * across
                fov_lat = lat[i] + sine[i] * along + cosine[i] * across
                up, east = m_per_deg * fov_lat, m_per_deg * fov_lon
                x = math.floor((turn_cos * up - turn_sin * east + edge) / step)
                y = math.floor((turn_sin * up + turn_cos * east + edge) / step)
                inside = 0 <= x < table.shape[0] and 0 <= y < table.shape[1]
                found[i, row, column] = table[x, y] if inside else -1


@njit(cache=True, nogil=True)
def _spread(image, pixels, cells):
    n_items, n_rows, n_columns = cells.shape
    for i in range(n_items):
        count = np.zeros(image.shape[1], np.int64)
        for row in range(n_rows):
            for column in range(n_columns):
                if pixels[i, row, column] >= 0:
                    count[pixels[i, row, column]] += 1
        for row in range(n_rows):
            for column in range(n_columns):
                pixel = pixels[i, row, column]
                if pixel >= 0:
                    cells[i, row, column] = image[i, pixel] / count[pixel]


@njit(cache=True, nogil=True)
def _gather(cells, pixels, image):
    n_items, n_rows, n_columns = cells.shape
    for i in range(n_items):
        for row in range(n_rows):
            for column in range(n_columns):
                if pixels[i, row, column] >= 0:
                    image[i, pixels[i, row, column]] += cells[i, row, column]
