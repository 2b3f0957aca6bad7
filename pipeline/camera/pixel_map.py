"""Which pixel of a camera lies where: the places of its focal plane, on a fine grid."""

import math

import numpy as np

from pipeline.camera.geometry import Camera

CELLS_PER_PITCH = 12


def pixel_map(camera: Camera) -> tuple[np.ndarray, float, float]:
    """Map of the pixels: an (n, n) table [x, y], its edge and its cell size [m].

    A hexagonal pixel's territory is what is nearer to its centre than to any other, no farther than the corner of a
    regular pixel of that pitch: small gaps between pixels belong to them, as light guides collect there too. A square
    pixel is a square with sides of the pitch, along the axes of the camera: gaps between modules are dead.
    """
    from scipy.spatial import cKDTree

    edge = float(max(np.abs(camera.pix_x_m).max(), np.abs(camera.pix_y_m).max()) + camera.pitch_m)
    cell = camera.pitch_m / CELLS_PER_PITCH
    centres = np.arange(-edge + cell / 2, edge, cell)
    grid = np.stack(np.meshgrid(centres, centres, indexing="ij"), axis=-1)
    # Squares are the circles of the maximum norm.
    norm, reach = (2, camera.pitch_m / math.sqrt(3)) if camera.hexagonal else (np.inf, camera.pitch_m / 2)
    distance, index = cKDTree(np.column_stack([camera.pix_x_m, camera.pix_y_m])).query(grid, p=norm)
    return np.where(distance < reach, index, -1).astype(np.int32), edge, cell
