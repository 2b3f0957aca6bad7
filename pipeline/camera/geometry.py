"""Camera geometry without ctapipe: pixel positions in two frames, neighbours, borders, and a name-blind identity.

Frames are ctapipe's [1]_. In the camera frame positions are metres on the focal plane. In the telescope frame they are
degrees on the sky relative to the pointing: ``fov_lon = y / f`` and ``fov_lat = x / f``, so x and y change places.

References
----------
.. [1] ctapipe 0.28, ``ctapipe.coordinates.camera_to_telescope``.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import TypeVar

import numpy as np

# Where the nearest and second nearest neighbours part, as in ctapipe's CameraGeometry.calc_pixel_neighbors: relative to
# the nearest distance, Euclidean for hexagons (second ring at 1.73), city-block for squares (diagonal at 2).
_NEIGHBOR_RADIUS = {True: 1.4, False: 1.5}

# What a camera can be. The limits are far from any camera that was built or proposed (4 to 20 arcmin per pixel, focal
# lengths of 1 to 36 m, fields of up to 60 deg): they catch wrong units and damaged numbers, not unusual designs.
_N_PIXELS = (7, 100_000)
_FOCAL_LENGTH_M = (0.1, 100.0)
_PITCH_ARCMIN = (0.2, 120.0)
_MAX_RADIUS_PER_FOCAL_LENGTH = 1.0
_MAX_ELONGATION = 10.0
_MAX_OUTLIER = 4.0  # distance from the median position, in medians of that: 1.5 in a disc, 1.8 in a square
_OVERLAP = 0.1  # pixels nearer than this to each other, in typical pitches, are one pixel twice
_AREA_PER_PITCH2 = (
    1e-4,
    4.0,
)  # some files have areas that are far too small, and nothing but the core's size uses them
_ISOLATED = 8.0  # pitches; further away a pixel has no neighbours
_N_SAMPLES = 100_000
#: How far arrival times of one image can be apart where the length of the readout is not known [ns]: the longest
#: readout of the telescopes here, that of small telescopes, whose showers last longest.
DEFAULT_READOUT_NS = 128.0
_READOUT_NS = (1.0, 1000.0)
_CACHE_SIZE = 16
_Made = TypeVar("_Made")


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
        With coma, for pointing reconstruction; NaN where the file does not give it (0 and negative ones become NaN).
    mirror_area_m2, n_mirrors, n_mirror_tiles, optics_name, reflector_shape
        The optics, words and numbers as in ctapipe's optics table; an area of 0 or less becomes NaN.
    n_samples, sampling_rate_ghz
        The readout; 0 and NaN where the file does not give it, or gives what cannot be.
    reference_pulse : ndarray, shape (n_channels, n)
        Pulse shape of a single photo-electron in steps of `reference_pulse_step_ns`; written as it was read.

    Raises
    ------
    ValueError
        If the numbers cannot be those of a camera: not finite, two pixels at one place, a size that no camera has.
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
        for name in ("effective_focal_length_m", "mirror_area_m2", "sampling_rate_ghz"):
            value = float(getattr(self, name))
            object.__setattr__(self, name, value if 0 < value < math.inf else math.nan)
        if not 0 < self.n_samples <= _N_SAMPLES:
            object.__setattr__(self, "n_samples", 0)
        _check_numbers(self)
        object.__setattr__(self, "_spacing_m", _check_layout(self))

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

    @property
    def readout_ns(self) -> float:
        """Length of the readout window [ns]; `DEFAULT_READOUT_NS` where the file does not say."""
        length_ns = self.n_samples / self.sampling_rate_ghz
        return length_ns if _READOUT_NS[0] <= length_ns <= _READOUT_NS[1] else DEFAULT_READOUT_NS

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
        furthest = _ISOLATED * self._spacing_m
        reach = min(2 * math.sqrt(float(np.median(self.pix_area_m2))), furthest)
        while True:
            pixel, other, dx, dy = _pairs(self.pix_x_m, self.pix_y_m, reach)
            distance = np.hypot(dx, dy) if self.hexagonal else np.abs(dx) + np.abs(dy)
            nearest = np.full(self.n_pixels, np.inf)
            np.minimum.at(nearest, pixel, distance)
            limit = _NEIGHBOR_RADIUS[self.hexagonal] * nearest
            # Some files have areas that are far too small: all possible neighbours have to be within reach.
            if limit.max() < reach or reach >= furthest:
                break
            reach = min(2 * reach, furthest)
        near = distance < limit[pixel]
        return pixel[near], other[near], np.hypot(dx, dy)[near]

    @cached_property
    def pitch_m(self) -> float:
        """Mean distance between nearest pixel centres [m]."""
        pixel, _, distance = self._adjacent
        nearest = np.full(self.n_pixels, np.inf)
        np.minimum.at(nearest, pixel, distance)
        return float(nearest[np.isfinite(nearest)].mean())

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


def _check_numbers(camera: Camera) -> None:
    """Refuse numbers that are not finite or have the wrong sign, pixel by pixel."""
    low, high = _N_PIXELS
    if not low <= camera.n_pixels <= high:
        raise ValueError(f"it has {camera.n_pixels} pixels; a camera has {low} to {high}")
    faults = {
        "no finite position": ~(np.isfinite(camera.pix_x_m) & np.isfinite(camera.pix_y_m)),
        "no positive area": ~((camera.pix_area_m2 > 0) & np.isfinite(camera.pix_area_m2)),
    }
    for fault, wrong in faults.items():
        if wrong.any():
            first = int(wrong.argmax())
            raise ValueError(
                f"{np.count_nonzero(wrong)} of {camera.n_pixels} pixels have {fault}: pixel {first} is at "
                f"({camera.pix_x_m[first]:g}, {camera.pix_y_m[first]:g}) m and has {camera.pix_area_m2[first]:g} m2"
            )
    low_m, high_m = _FOCAL_LENGTH_M
    if not low_m <= camera.focal_length_m <= high_m:
        raise ValueError(f"its equivalent focal length is {camera.focal_length_m:g} m; {low_m:g} to {high_m:g} m exist")
    for name in ("pix_rotation_deg", "cam_rotation_deg"):
        if not math.isfinite(getattr(camera, name)):
            raise ValueError(f"{name} is {getattr(camera, name)}; it must be a number of degrees")


def _check_layout(camera: Camera) -> float:
    """Refuse pixels at impossible places or of impossible size; the typical distance between neighbours [m].

    The distance follows from the number of pixels and the extent of the camera, within 10 % or so, and needs no search
    for neighbours: the search is bounded by it.
    """
    x, y = camera.pix_x_m, camera.pix_y_m
    radius = np.hypot(x - np.median(x), y - np.median(y))
    typical, furthest = float(np.median(radius)), int(radius.argmax())
    if radius[furthest] > _MAX_OUTLIER * typical:
        raise ValueError(
            f"pixel {furthest} at ({x[furthest]:g}, {y[furthest]:g}) m is far from all others, half of which are "
            f"within {typical:g} m"
        )
    extents = sorted((float(np.ptp(x)), float(np.ptp(y))))
    if not extents[1] <= _MAX_ELONGATION * extents[0]:
        raise ValueError(f"its pixels cover {extents[1]:g} by {extents[0]:g} m, nearly a line")
    spacing_m = math.sqrt(extents[0] * extents[1] / camera.n_pixels)
    pitch_arcmin = 60 * math.degrees(spacing_m / camera.focal_length_m)
    size = (
        f"at a focal length of {camera.focal_length_m:g} m its pixels of about {1000 * spacing_m:.3g} mm are "
        f"{pitch_arcmin:.3g} arcmin apart and its radius is {radius[furthest]:.3g} m"
    )
    low, high = _PITCH_ARCMIN
    if not (low <= pitch_arcmin <= high and radius[furthest] <= _MAX_RADIUS_PER_FOCAL_LENGTH * camera.focal_length_m):
        raise ValueError(f"{size}, which no camera has: are positions and focal length in metres?")
    relative_area = float(np.median(camera.pix_area_m2)) / spacing_m**2
    if not _AREA_PER_PITCH2[0] <= relative_area <= _AREA_PER_PITCH2[1]:
        raise ValueError(f"its pixels have {relative_area:.3g} times the area that is free for each: are areas in m2?")
    if (twin := _twins(x, y, _OVERLAP * spacing_m)) is not None:
        raise ValueError(f"pixels {twin[0]} and {twin[1]} are at one place, ({x[twin[0]]:g}, {y[twin[0]]:g}) m")
    return spacing_m


def _twins(x: np.ndarray, y: np.ndarray, distance: float) -> tuple[int, int] | None:
    """Two points nearer than `distance` to each other in both coordinates, if there are any.

    Points this near fall into one cell of at least one of four shifted grids with cells of twice that size.
    """
    for shift_x in (0.0, 0.5):
        for shift_y in (0.0, 0.5):
            column, row = (
                np.floor((values - values.min()) / (2 * distance) + shift).astype(np.int64)
                for values, shift in ((x, shift_x), (y, shift_y))
            )
            cell = column * (row.max() + 1) + row
            order = np.argsort(cell, kind="stable")
            same = np.flatnonzero(np.diff(cell[order]) == 0)
            if len(same):
                first, second = sorted(order[same[0] : same[0] + 2].tolist())
                return first, second
    return None


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


def cached_by_pixels(make: Callable[[Camera, int], _Made]) -> Callable[[Camera, int], _Made]:
    """Keep what `make` makes of a camera and a size; the oldest goes when there are too many.

    Pixels are compared by position and order, not by name: the NectarCam has as many as the LST camera.
    """
    kept: dict[tuple[str, int], _Made] = {}

    @wraps(make)
    def cached(camera: Camera, size: int) -> _Made:
        positions = np.concatenate([camera.pix_x_deg, camera.pix_y_deg]).astype(np.float32)
        key = hashlib.blake2b(positions.tobytes(), digest_size=16).hexdigest(), size
        if key not in kept:
            if len(kept) >= _CACHE_SIZE:
                kept.pop(next(iter(kept)))
            kept[key] = make(camera, size)
        return kept[key]

    return cached
