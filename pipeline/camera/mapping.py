"""Camera pixels to square tiles: linear interpolation that conserves charge, for any camera and tile size.

Between the centres of neighbouring pixels the image is interpolated linearly (on the triangles of a Delaunay
triangulation: the hexagonal counterpart of bilinear interpolation), sampled on the tile's grid and scaled so that every
camera pixel gives its whole charge. All of it is one sparse matrix per camera.
"""

import hashlib
import math
from functools import cached_property

import numpy as np
from numba import njit

from pipeline.camera.geometry import Camera

_SAMPLES_PER_PITCH = 2  # of the interpolated image in each direction, before samples are added up in tile pixels
_CACHE_SIZE = 16
_cache: dict[tuple[str, int], "TileMapper"] = {}


def tile_mapper(camera: Camera, size: int) -> "TileMapper":
    """The `TileMapper` of a camera and tile size, from the cache if one with the same pixels was made before.

    Pixels are compared by position and order, not by name: the NectarCam has as many as the LST camera.
    """
    positions = np.concatenate([camera.pix_x_deg, camera.pix_y_deg]).astype(np.float32)
    key = hashlib.blake2b(positions.tobytes(), digest_size=16).hexdigest(), size
    if key not in _cache:
        if len(_cache) >= _CACHE_SIZE:
            _cache.pop(next(iter(_cache)))
        _cache[key] = TileMapper(camera, size)
    return _cache[key]


class TileMapper:
    """Resample camera images onto square tiles.

    Parameters
    ----------
    camera : Camera
        Hexagonal or square pixels; gaps between modules are filled by interpolation.
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
        from scipy.sparse import coo_array

        samples = max(1, math.ceil(_SAMPLES_PER_PITCH * self.pixel_deg / self.camera.pitch_deg))
        row, pixel, weight = self._interpolate(samples)
        shape = self.size**2, self.camera.n_pixels
        matrix = coo_array((weight / samples**2, (row, pixel)), shape=shape).tocsr()
        return matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32), matrix.data.astype(np.float32)

    def _interpolate(self, samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tile pixel, camera pixel and weight of every corner of the triangle that a sample lies in."""
        from scipy.spatial import Delaunay

        n = self.size * samples
        axis = (np.arange(n) + 0.5) / n * 2 * self.half_width_deg - self.half_width_deg
        y, x = (grid.ravel() for grid in np.meshgrid(axis, axis, indexing="ij"))
        row = (np.arange(n) // samples)[:, None] * self.size + np.arange(n) // samples
        triangulation = Delaunay(self._nodes())
        triangle = triangulation.find_simplex(np.column_stack([x, y]))
        inside = triangle >= 0
        triangle, row = triangle[inside], row.ravel()[inside]
        transform = triangulation.transform[triangle]
        offset = np.column_stack([x, y])[inside] - transform[:, 2]
        first = np.einsum("nij,nj->ni", transform[:, :2], offset)
        weight = np.column_stack([first, 1 - first.sum(axis=1)]).clip(0, 1)
        corner = triangulation.simplices[triangle]
        real = (corner < self.camera.n_pixels) & (weight > 0)  # what lies further out is dark
        return np.broadcast_to(row[:, None], corner.shape)[real], corner[real], weight[real]

    def _nodes(self) -> np.ndarray:
        """Pixel centres, then a dark ring around them: without it the border pixels would end at their centres."""
        from scipy.spatial import cKDTree

        camera = self.camera
        centres = np.column_stack([camera.pix_x_deg, camera.pix_y_deg])
        pixel, slot = np.nonzero(camera.neighbors >= 0)
        mirrored = 2 * centres[pixel] - centres[camera.neighbors[pixel, slot]]
        distance, _ = cKDTree(centres).query(mirrored)
        ring = mirrored[distance > 0.6 * camera.pitch_deg]
        # Several border pixels mirror to nearly the same place: keep the first of each.
        kept = np.ones(len(ring), bool)
        for first, second in sorted(cKDTree(ring).query_pairs(0.5 * camera.pitch_deg)):
            if kept[first]:
                kept[second] = False
        return np.concatenate([centres, ring[kept]])

    @cached_property
    def _charge_weights(self) -> np.ndarray:
        _, pixel, weight = self._matrix
        total = np.bincount(pixel, weights=weight, minlength=self.camera.n_pixels)
        if not (total > 0).all():
            raise ValueError(f"{np.count_nonzero(total == 0)} pixels of {self.camera.name} give nothing to the tile")
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


@njit(cache=True, nogil=True)
def _multiply(image, start, pixel, weight, result):
    """Sparse matrix times images; scipy's product wants the images transposed, and NaN removed."""
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
