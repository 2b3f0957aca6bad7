"""Camera pixels to square tiles: linear interpolation that conserves charge, for any camera and tile size.

Between the centres of neighbouring pixels the image is interpolated linearly: bilinearly on squares, and on triangles
of three pixels, its counterpart for hexagons. That is sampled on the tile's grid and scaled so that every camera pixel
gives its whole charge. All of it is one sparse matrix per camera.
"""

import math
from functools import cached_property

import numpy as np

from pipeline.camera.compiled import njit
from pipeline.camera.geometry import Camera, cached_by_pixels

_SAMPLES_PER_PITCH = 2  # of the interpolated image in each direction, before samples are added up in tile pixels


@cached_by_pixels
def tile_mapper(camera: Camera, size: int) -> "TileMapper":
    """The `TileMapper` of a camera and tile size, from the cache if one with the same pixels was made before."""
    return TileMapper(camera, size)


class TileMapper:
    """Resample camera images onto square tiles.

    Parameters
    ----------
    camera : Camera
        Hexagonal or square pixels, with gaps between modules or without.
    size : int
        Rows and columns of a tile, at least 16.

    Attributes
    ----------
    half_width_deg : float
        The tile reaches from minus to plus this angle around the camera's centre, in both directions.
    pixel_deg : float
        Side of a tile pixel [deg].
    """

    def __init__(self, camera: Camera, size: int) -> None:
        if size < 16:
            raise ValueError(f"tile size {size} is too small; use 16 or more")
        self.camera = camera
        self.size = size
        reach = max(np.abs(camera.pix_x_deg).max(), np.abs(camera.pix_y_deg).max())
        # Interpolation lets the light of the outermost pixels fade out within one pitch.
        self.half_width_deg = float(reach + 0.75 * camera.pitch_deg)
        self.pixel_deg = 2 * self.half_width_deg / size

    @cached_property
    def _matrix(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Interpolation weights in compressed rows (one row per tile pixel): row starts, camera pixels, weights."""
        row, pixel, weight = self._samples(
            max(1, math.ceil(_SAMPLES_PER_PITCH * self.pixel_deg / self.camera.pitch_deg))
        )
        # Add up the samples of each camera pixel in each tile pixel.
        cell, where = np.unique(row * self.camera.n_pixels + pixel, return_inverse=True)
        total = np.bincount(where, weights=weight).astype(np.float32)
        row, pixel = np.divmod(cell, self.camera.n_pixels)
        start = np.searchsorted(row, np.arange(self.size**2 + 1))
        return start.astype(np.int32), pixel.astype(np.int32), total

    def _samples(self, per_side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tile pixel, camera pixel and weight of each sample within reach; `per_side`^2 samples per tile pixel."""
        camera, n = self.camera, self.size * per_side
        step = 2 * self.half_width_deg / n
        # Samples around each pixel: its light reaches one pitch (on squares, their diagonal).
        reach = camera.pitch_deg * (1.0 if camera.hexagonal else math.sqrt(2))
        window = np.arange(-math.ceil(reach / step), math.ceil(reach / step) + 1)
        columns, rows = (
            np.floor((position + self.half_width_deg) / step).astype(np.int64)[:, None] + window
            for position in (camera.pix_x_deg, camera.pix_y_deg)
        )
        dx, dy = (
            (index + 0.5) * step - self.half_width_deg - position[:, None]
            for index, position in ((columns, camera.pix_x_deg), (rows, camera.pix_y_deg))
        )
        weight = _interpolation_weight(camera, dx[:, None, :], dy[:, :, None])
        inside = ((columns >= 0) & (columns < n))[:, None, :] & ((rows >= 0) & (rows < n))[:, :, None]
        pixel, row, column = np.nonzero(inside & (weight > 0))
        tile = (rows[pixel, row] // per_side) * self.size + columns[pixel, column] // per_side
        return tile, pixel, weight[pixel, row, column]

    @cached_property
    def _charge_weights(self) -> np.ndarray:
        _, pixel, weight = self._matrix
        total = np.bincount(pixel, weights=weight, minlength=self.camera.n_pixels)
        if not (total > 0).all():
            raise ValueError(f"{np.count_nonzero(total == 0)} pixels of {self.camera.name} add nothing to the tile")
        return (weight / total[pixel]).astype(np.float32)

    def charge(self, image: np.ndarray) -> np.ndarray:
        """Images on tiles; the sum of a tile is the sum of its image.

        Parameters
        ----------
        image : ndarray, shape (n, n_pixels)
            Charge [p.e.]; NaN counts as 0.

        Returns
        -------
        ndarray of float32, shape (n, size, size)
            Row 0 is the lowest ``fov_lat``, column 0 the lowest ``fov_lon``.
        """
        start, pixel, _ = self._matrix
        result = np.empty((len(image), self.size**2), np.float32)
        _multiply(self._checked(image), start, pixel, self._charge_weights, result)
        return result.reshape(-1, self.size, self.size)

    def average(self, values: np.ndarray, keep: np.ndarray | None = None) -> np.ndarray:
        """Interpolated values that are not amounts (times, masks): weights are normalised per tile pixel.

        Parameters
        ----------
        values : ndarray, shape (n, n_pixels)
        keep : ndarray of bool, shape (n, n_pixels), optional
            Only these camera pixels count (and only finite values).

        Returns
        -------
        ndarray of float32, shape (n, size, size)
            0 where no camera pixel counts.
        """
        start, pixel, weight = self._matrix
        values = self._checked(values)
        use = np.isfinite(values) if keep is None else keep & np.isfinite(values)
        result = np.empty((len(values), self.size**2), np.float32)
        _average(values, use, start, pixel, weight, result)
        return result.reshape(-1, self.size, self.size)

    def _checked(self, values: np.ndarray) -> np.ndarray:
        if values.ndim != 2 or values.shape[1] != self.camera.n_pixels:
            raise ValueError(f"images have shape {values.shape}; expected (n, {self.camera.n_pixels})")
        return np.ascontiguousarray(values, dtype=np.float32)


def _interpolation_weight(camera: Camera, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """How much a pixel counts at (dx, dy) [deg] from its centre: 1 there, 0 at its neighbours, linear between.

    On a regular lattice these are the barycentric coordinates in the triangle of the three pixels around, or the
    bilinear weights in the square of four. At gaps between modules the weights fall short of 1 together, which the
    users of the matrix normalise.
    """
    angle, pitch = camera.lattice_angle_rad, camera.pitch_deg
    if not camera.hexagonal:
        u, v = (np.abs(dx * math.cos(a) + dy * math.sin(a)) / pitch for a in (angle, angle + math.pi / 2))
        return np.clip(1 - u, 0, None) * np.clip(1 - v, 0, None)
    # Lines of equal weight are hexagons, with their corners towards the neighbours.
    edges = (angle + math.pi / 6 + k * math.pi / 3 for k in range(3))
    far = [np.abs(dx * math.cos(a) + dy * math.sin(a)) for a in edges]
    return np.clip(1 - np.maximum.reduce(far) / (pitch * math.sqrt(3) / 2), 0, None)


@njit(cache=True, nogil=True)
def _multiply(image, start, pixel, weight, result):
    """Sparse matrix times images; scipy's product needs the images transposed, and NaN removed."""
    for i in range(image.shape[0]):
        for row in range(len(start) - 1):
            total = 0.0
            for k in range(start[row], start[row + 1]):
                value = image[i, pixel[k]]
                if value == value:  # not NaN
                    total += value * weight[k]
            result[i, row] = total


@njit(cache=True, nogil=True)
def _average(values, use, start, pixel, weight, result):
    for i in range(values.shape[0]):
        for row in range(len(start) - 1):
            total = norm = 0.0
            for k in range(start[row], start[row + 1]):
                if use[i, pixel[k]]:
                    total += values[i, pixel[k]] * weight[k]
                    norm += weight[k]
            result[i, row] = total / norm if norm > 0 else 0.0
