"""Where the pixels of a camera sit, as rules: every function gives pixel centres in the camera frame [m].

Hexagonal layouts live on a triangular lattice with axial coordinates (a, b), whose axes a and b are 60 deg apart.
`pix_rotation_deg` of a camera is the direction from a pixel to a neighbour, modulo 60 deg.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

Positions = tuple[np.ndarray, np.ndarray]

# The six directions of the lattice in axial coordinates (a, b), in the order in which rings are walked.
_DIRECTIONS = ((0, 1), (1, 0), (1, -1), (0, -1), (-1, 0), (-1, 1))


def _ring(k: int) -> Iterator[tuple[int, int]]:
    """Cells of the k-th hexagon around the origin, from (-k, 0) onwards."""
    a, b = -k, 0
    if k == 0:
        yield a, b
    for da, db in _DIRECTIONS:
        for _ in range(k):
            yield a, b
            a, b = a + da, b + db


def _turned(x: np.ndarray, y: np.ndarray, angle_rad: float) -> Positions:
    cos, sin = math.cos(angle_rad), math.sin(angle_rad)
    return x * cos - y * sin, x * sin + y * cos


def hexagon_area(pitch_m: float) -> float:
    """Area of a hexagon of flat-to-flat width `pitch_m` [m^2]."""
    return math.sqrt(3) / 2 * pitch_m**2


def seven_pixel_modules(module_rings: int, pitch_m: float) -> Positions:
    """Pixel centres of a camera made of modules of seven hexagonal pixels [m].

    The modules fill a hexagon of `module_rings` rings without its six corners, with rows of modules along the axes of
    the camera; pixels are numbered in a spiral from the centre, as in the files of the real cameras.

    Parameters
    ----------
    module_rings : int
        Rings of modules around the central one.
    pitch_m : float
        Distance between neighbouring pixels.

    Returns
    -------
    x_m, y_m : ndarray, shape (n_pixels,)
        Camera frame.
    """
    modules = [cell for k in range(module_rings + 1) for cell in _ring(k)]
    corners = {(module_rings * da, module_rings * db) for da, db in _DIRECTIONS}
    flower = ((0, 0), *_DIRECTIONS)
    # Module (m, n) sits at m (2, 1) + n (-1, 3) on the lattice of pixels: lattice vectors of length sqrt(7).
    pixels = {(2 * m - n + da, m + 3 * n + db) for m, n in modules if (m, n) not in corners for da, db in flower}
    spiral = [cell for k in range(3 * module_rings + 2) for cell in _ring(k) if cell in pixels]
    a, b = np.transpose(spiral)
    # Axis a at 30 deg and axis b at 90 deg, then turned by the angle between the two lattices.
    x, y = pitch_m * a * math.sqrt(3) / 2, pitch_m * (b + a / 2)
    return _turned(x, y, MODULE_TURN_RAD)


# Between the lattice of seven-pixel modules and that of their pixels
MODULE_TURN_RAD = math.atan(math.sqrt(3) / 9)

# A module of twelve pixels: its rows of 2, 5, 4 and 1 cells, (b, a from, a to) in axial coordinates with axis a at
# 30 deg and axis b at 90 deg
_TWELVE = ((3, -1, -2), (2, 1, -3), (1, 1, -2), (0, 0, 0))
_TWELVE_STEPS = ((2, 2), (-4, 2))  # from a module to the next in its column, and to the next column


def twelve_pixel_modules(n_per_side: int, pitch_m: float) -> Positions:
    """Pixel centres of a camera made of modules of twelve hexagonal pixels [m].

    Three sectors, each a rhombus of `n_per_side` x `n_per_side` modules, turned by 120 deg against each other around
    the corner that three pixels share; pixels are numbered module by module and sector by sector, clockwise.

    Parameters
    ----------
    n_per_side : int
        Modules along a side of a sector.
    pitch_m : float
        Distance between neighbouring pixels.

    Returns
    -------
    x_m, y_m : ndarray, shape (36 * n_per_side^2,)
        Camera frame.
    """
    cells = [(a, b) for b, first, last in _TWELVE for a in range(first, last - 1, -1)]
    (up_a, up_b), (left_a, left_b) = _TWELVE_STEPS
    sector = [
        (a + i * left_a + j * up_a, b + i * left_b + j * up_b)
        for i in range(n_per_side)
        for j in range(n_per_side)
        for a, b in cells
    ]
    a, b = np.transpose(sector).astype(np.float64)
    # The corner between three pixels is (-1/3, -1/3) from a pixel's centre
    a, b = a + 1 / 3, b + 1 / 3
    x, y = pitch_m * a * math.sqrt(3) / 2, pitch_m * (b + a / 2)
    sectors = [_turned(x, y, -2 * math.pi / 3 * k) for k in range(3)]
    return np.concatenate([s[0] for s in sectors]), np.concatenate([s[1] for s in sectors])


def hexagonal_disc(n_pixels: int, pitch_m: float, pix_rotation_deg: float = 0.0) -> Positions:
    """The `n_pixels` positions of a triangular lattice that are nearest to one of them [m].

    Parameters
    ----------
    n_pixels : int
        Has to complete a shell: positions at equal distance are in or out together.
    pitch_m : float
        Distance between neighbouring pixels.
    pix_rotation_deg : float
        Direction from a pixel to a neighbour.

    Returns
    -------
    x_m, y_m : ndarray, shape (n_pixels,)
        Camera frame, in a clockwise spiral of hexagons that begins at the centre.

    Raises
    ------
    ValueError
        If a shell would be cut; the message gives the nearest whole numbers.
    """
    # A disc of n cells has radius sqrt(n sqrt(3) / (2 pi)) pitches; hexagon k reaches no nearer than k sqrt(3) / 2.
    n_rings = math.ceil(math.sqrt(n_pixels) * 0.65) + 2
    cells = [cell for k in range(n_rings) for cell in _ring(k)]
    norm = np.array([a * a + a * b + b * b for a, b in cells])
    complete = np.cumsum(np.bincount(norm))
    if n_pixels not in complete:
        place = np.searchsorted(complete, n_pixels)
        raise ValueError(
            f"{n_pixels} pixels make no whole disc; the nearest are {complete[place - 1]} and {complete[place]}"
        )
    limit = np.searchsorted(complete, n_pixels)
    a, b = np.transpose([cell for cell, n in zip(cells, norm, strict=True) if n <= limit])
    # Axis a along x, axis b at 60 deg, then turned so that the spiral begins opposite to the axis a
    return _turned(pitch_m * (a + b / 2), pitch_m * b * math.sqrt(3) / 2, math.radians(pix_rotation_deg))


def square_modules(modules_per_row: Sequence[int], n_per_side: int, pitch_m: float, module_step_m: float) -> Positions:
    """Pixel centres of a camera made of square modules of square pixels, with gaps between the modules [m].

    Parameters
    ----------
    modules_per_row : sequence of int
        Modules in each row, from the lowest row on; rows are centred.
    n_per_side : int
        Pixels along a side of a module.
    pitch_m : float
        Distance between neighbouring pixels of a module.
    module_step_m : float
        Distance between neighbouring modules.

    Returns
    -------
    x_m, y_m : ndarray, shape (n_pixels,)
        Camera frame, row by row of pixels.
    """
    inside = pitch_m * (np.arange(n_per_side) - (n_per_side - 1) / 2)
    x, y = [], []
    for row, n_modules in enumerate(modules_per_row):
        centres = module_step_m * (np.arange(n_modules) - (n_modules - 1) / 2)
        across = (centres[:, None] + inside).ravel()
        for offset in inside:
            x.append(across)
            y.append(np.full(len(across), module_step_m * (row - (len(modules_per_row) - 1) / 2) + offset))
    return np.concatenate(x), np.concatenate(y)
