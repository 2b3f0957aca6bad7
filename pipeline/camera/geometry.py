"""Camera geometry without ctapipe: pixel positions in two frames, neighbours, borders, and a name-blind identity.

Frames are ctapipe's [1]_. In the camera frame positions are metres on the focal plane. In the telescope frame they are
degrees on the sky relative to the pointing: ``fov_lon = y / f`` and ``fov_lat = x / f``, so x and y change places.

References
----------
.. [1] ctapipe 0.28, ``ctapipe.coordinates.camera_to_telescope``.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

# Where the nearest and second nearest neighbours part, as in ctapipe's CameraGeometry.calc_pixel_neighbors: relative to
# the nearest distance, Euclidean for hexagons (second ring at 1.73), city-block for squares (diagonal at 2).
_NEIGHBOR_RADIUS = {True: 1.4, False: 1.5}


@dataclass(frozen=True, eq=False)
class Camera:
    """What an event file contains about one type of telescope: its camera and the optics in front of it.

    Attributes
    ----------
    name : str
        Camera name as the file has it. Files disagree about names (LSTcam, LSTCam, LSTN-01 are one camera): compare
        `identity` instead.
    pix_x_m, pix_y_m : ndarray, shape (n_pixels,)
        Pixel centres in the camera frame [m], before `cam_rotation_deg` is undone.
    pix_area_m2 : ndarray, shape (n_pixels,)
        Pixel areas [m^2].
    hexagonal : bool
        Hexagonal (or circular) pixels on a triangular lattice; else square pixels.
    pix_rotation_deg, cam_rotation_deg : float
        Rotation of the pixels and of the camera, ctapipe's sign. Files are not always right about the former, so
        nothing is computed from it.
    focal_length_m : float
        Equivalent focal length: the one that turns metres into degrees.
    effective_focal_length_m : float
        With coma, for pointing reconstruction; NaN where the file does not give it.
    mirror_area_m2, n_mirrors, n_mirror_tiles, optics_name, reflector_shape
        The optics, words and numbers as in ctapipe's optics table.
    n_samples, sampling_rate_ghz
        The readout; NaN where the file does not give it.
    reference_pulse : ndarray, shape (n_channels, n)
        Pulse shape of a single photo-electron in steps of `reference_pulse_step_ns`.
    """

    name: str
    pix_x_m: np.ndarray
    pix_y_m: np.ndarray
    pix_area_m2: np.ndarray
    hexagonal: bool
    focal_length_m: float
    pix_rotation_deg: float = 0.0
    cam_rotation_deg: float = 0.0
    effective_focal_length_m: float = math.nan
    mirror_area_m2: float = math.nan
    n_mirrors: int = 1
    n_mirror_tiles: int = -1
    optics_name: str = "UNKNOWN"
    reflector_shape: str = "UNKNOWN"
    n_samples: int = 0
    sampling_rate_ghz: float = math.nan
    reference_pulse: np.ndarray = field(default_factory=lambda: np.ones((1, 1)))
    reference_pulse_step_ns: float = 1.0

    def __post_init__(self) -> None:
        for name in ("pix_x_m", "pix_y_m", "pix_area_m2"):
            values = np.asarray(getattr(self, name), dtype=np.float64)
            object.__setattr__(self, name, values)
            if values.ndim != 1 or values.shape != self.pix_x_m.shape:
                raise ValueError(f"{name} has shape {values.shape}; expected {self.pix_x_m.shape}, one value per pixel")
        if not self.focal_length_m > 0:
            raise ValueError(f"focal_length_m is {self.focal_length_m}; it must be positive")

    @property
    def n_pixels(self) -> int:
        """Number of pixels."""
        return len(self.pix_x_m)

    @property
    def size_type(self) -> str:
        """LST, MST or SST by mirror area, with the limits of ctapipe's guess for unknown telescopes."""
        if self.mirror_area_m2 > 300:
            return "LST"
        return "MST" if self.mirror_area_m2 > 50 else "SST"

    @cached_property
    def _derotated_m(self) -> tuple[np.ndarray, np.ndarray]:
        angle = math.radians(self.cam_rotation_deg)
        cos, sin = math.cos(angle), math.sin(angle)
        return cos * self.pix_x_m + sin * self.pix_y_m, cos * self.pix_y_m - sin * self.pix_x_m

    @cached_property
    def pix_x_deg(self) -> np.ndarray:
        """Pixel centres along ``fov_lon`` [deg], the x axis of Hillas parameters and tiles."""
        return np.degrees(self._derotated_m[1] / self.focal_length_m)

    @cached_property
    def pix_y_deg(self) -> np.ndarray:
        """Pixel centres along ``fov_lat`` [deg], the y axis of Hillas parameters and tiles."""
        return np.degrees(self._derotated_m[0] / self.focal_length_m)

    @cached_property
    def pix_area_deg2(self) -> np.ndarray:
        """Pixel areas [deg^2]."""
        return self.pix_area_m2 * math.degrees(1 / self.focal_length_m) ** 2

    @cached_property
    def pix_width_deg(self) -> np.ndarray:
        """In-circle diameter of hexagons, side of squares [deg], from the pixel area as ctapipe has it."""
        return np.sqrt(self.pix_area_deg2 * (2 / math.sqrt(3) if self.hexagonal else 1.0))

    @cached_property
    def _adjacent(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pixel, adjacent pixel and distance between their centres [m]; every pair comes in both orders."""
        reach = 2 * math.sqrt(float(np.median(self.pix_area_m2)))
        while True:
            pixel, other, dx, dy = _pairs(self.pix_x_m, self.pix_y_m, reach)
            distance = np.hypot(dx, dy) if self.hexagonal else np.abs(dx) + np.abs(dy)
            nearest = np.full(self.n_pixels, np.inf)
            np.minimum.at(nearest, pixel, distance)
            limit = _NEIGHBOR_RADIUS[self.hexagonal] * nearest
            # Some files have areas that are far too small: all possible neighbours have to be within reach.
            if self.n_pixels < 2 or limit.max() < reach:
                break
            reach *= 2
        near = distance < limit[pixel]
        return pixel[near], other[near], np.hypot(dx, dy)[near]

    @cached_property
    def pitch_m(self) -> float:
        """Mean distance between nearest pixel centres [m]."""
        pixel, _, distance = self._adjacent
        nearest = np.full(self.n_pixels, np.inf)
        np.minimum.at(nearest, pixel, distance)
        return float(nearest.mean())

    @property
    def pitch_deg(self) -> float:
        """Mean distance between nearest pixel centres [deg]."""
        return math.degrees(self.pitch_m / self.focal_length_m)

    @cached_property
    def neighbors(self) -> np.ndarray:
        """Indices of adjacent pixels, shape (n_pixels, 6 or 4), int32, padded with -1 at the end of a row.

        Pixels touch along edges: diagonal neighbours of squares are not adjacent (ctapipe's default).
        """
        pixel, other, distance = self._adjacent
        order = np.lexsort((distance, pixel))
        pixel, other = pixel[order], other[order]
        place = np.arange(len(pixel)) - np.searchsorted(pixel, pixel)
        table = np.full((self.n_pixels, 6 if self.hexagonal else 4), -1, np.int32)
        use = place < table.shape[1]
        table[pixel[use], place[use]] = other[use]
        return table

    @cached_property
    def lattice_angle_rad(self) -> float:
        """Direction from pixels to their neighbours in the telescope frame, in [0, pi/3) or, for squares, [0, pi/2)."""
        fold = 6 if self.hexagonal else 4
        x, y = self.pix_x_deg, self.pix_y_deg
        pixel, other, _ = self._adjacent
        direction = np.exp(1j * fold * np.arctan2(y[other] - y[pixel], x[other] - x[pixel])).mean()
        return float(np.angle(direction) / fold % (2 * math.pi / fold))

    @cached_property
    def _borders(self) -> dict[int, np.ndarray]:
        return {}

    def border_mask(self, width: int = 1) -> np.ndarray:
        """Pixels in the outermost `width` rings: bool, shape (n_pixels,).

        A pixel with fewer neighbours than the others is at the border, so holes and module gaps count as well.
        """
        if width not in self._borders:
            valid = self.neighbors >= 0
            if width == 1:
                # Counted as "neighbour of how many": differs from the row count only where the grid is irregular.
                count = np.bincount(self.neighbors[valid], minlength=self.n_pixels)
                mask = count < count.max()
            else:
                mask = (self.border_mask(width - 1)[self.neighbors] & valid).any(axis=1)
            self._borders[width] = mask
        return self._borders[width]

    @cached_property
    def identity(self) -> str:
        """What kind of camera this is, whatever its name: for example ``hexagon-1855-6.14arcmin-41deg-r24``.

        Shape and number of pixels, pixel pitch on the sky, orientation of the lattice, and radius in pitches. The order
        of the pixels is ignored on purpose: files have the same LST camera in several orders, and the sky position of
        each pixel is in the file. Measured positions of one camera differ by some micrometres between files, which is
        why these are few, robust, rounded numbers and not a digest of all positions. The focal length is in the pitch:
        the LST and the NectarCam have the same 1855 positions in metres.
        """
        fold_deg = 60 if self.hexagonal else 90
        # In the camera frame, whose axes are the telescope frame's exchanged.
        angle_deg = round(90 - math.degrees(self.lattice_angle_rad)) % fold_deg
        x, y = self._derotated_m
        radius = round(float(np.hypot(x - x.mean(), y - y.mean()).max()) / self.pitch_m)
        shape = "hexagon" if self.hexagonal else "square"
        return f"{shape}-{self.n_pixels}-{60 * self.pitch_deg:.3g}arcmin-{angle_deg}deg-r{radius}"


def _pairs(x: np.ndarray, y: np.ndarray, reach: float) -> tuple[np.ndarray, ...]:
    """All pairs of points nearer than `reach` in both coordinates, in both orders, and their differences.

    A sweep along x in plain numpy: a tree from scipy is no faster here, and takes a quarter of a second to import,
    which a single prediction would notice.
    """
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    first, second = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for shift in range(1, len(x)):
        near = x[shift:] - x[:-shift] < reach
        if not near.any():
            break
        here = np.flatnonzero(near & (np.abs(y[shift:] - y[:-shift]) < reach))
        first.append(here)
        second.append(here + shift)
    i, j = np.concatenate(first), np.concatenate(second)
    i, j = np.concatenate([i, j]), np.concatenate([j, i])
    return order[i], order[j], x[j] - x[i], y[j] - y[i]
