"""All images of an event: those of `image`, and where the telescopes stand and the images lie.

Positions are those in the plane perpendicular to the pointing, along fov_lon and fov_lat: there, the way from a
telescope to the shower's axis is parallel to that from the image's centre of gravity to the source, so that all image
axes meet in the source, and lines through the telescopes along them meet in the core (Hofmann et al. 1999, Astropart.
Phys. 12, 135, sect. 3).
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple, Self

import numpy as np
from pydantic import Field

from pipeline.directions import pointing_axes
from pipeline.errors import UserError
from pipeline.inputs.base import Columns, Input
from pipeline.inputs.image import ImageInput
from pipeline.tiles.event_rows import EVENT_KEYS, event_starts
from pipeline.tiles.events import starts_of
from pipeline.tiles.layout import CAMERA_COLUMN
from pipeline.tiles.reader import TileReader
from pipeline.tiles.shards import TileBatch

#: Event columns that tell where images lie and telescopes stand.
_IMAGE = ("hillas_intensity", "hillas_fov_lon", "hillas_fov_lat", "hillas_psi", "hillas_length", "hillas_width")
_POINTING = ("pointing_alt_deg", "pointing_az_deg")
_POSITION = ("tel_x_m", "tel_y_m", "tel_z_m")

#: Units of the network's numbers, so that these are of order 1.
_ANGLE_UNIT_DEG, _LENGTH_UNIT_M, _HEIGHT_UNIT_M = 1.0, 100.0, 10_000.0
_MAX = 4.0
# How far the axis of an image of 100 p.e., of usual shape, misses the source, and how that falls with the charge: of
# simulated LST images, 68 % are within .18, .09 and .05 deg at 100, 500 and 3,000 p.e.
_AXIS_DEG, _AXIS_POWER, _BEST_AXIS_DEG, _USUAL_ELONGATION = 0.13, -0.45, 0.03, 0.6
# How far sources are from the mean of the centres of gravity: what draws the point where axes meet, for parallel axes
# meet nowhere; and so weakly that it acts on parallel axes alone.
_CENTRE_DEG, _WEAKLY_DEG = 0.7, 3.0


#: Seven vectors (x, y), a line (cos 2a, sin 2a), and five numbers that do not move.
N_VECTORS, _N_NUMBERS = 7, 5
N_PLACES = 2 * N_VECTORS + 2 + _N_NUMBERS


class ShowerInput(Input):
    """Images, scalars and places of all telescopes of an event.

    Attributes
    ----------
    cameras : mapping
        Identity of each kind of camera -> input of its images; in the order of the network's encoders, which is that
        of the event column `camera`.
    max_telescopes : int
        Most images of an event in training: a network that reads them in order takes no more.
    """

    wing: ClassVar[Literal["camera"]] = "camera"
    takes: ClassVar[Literal["telescopes"]] = "telescopes"
    raw_channels: ClassVar[tuple[str, ...]] = ImageInput.raw_channels
    moving: ClassVar[Mapping[str, tuple[Columns, ...]]] = {
        "places": (
            Columns(0, 2 * N_VECTORS, "vector"),
            Columns(2 * N_VECTORS, 2 * N_VECTORS + 2, "double_angle"),
        )
    }

    kind: str = "shower"
    version: Literal[1] = 1
    cameras: dict[str, ImageInput] = Field(min_length=1)
    max_telescopes: int = Field(ge=2)

    @classmethod
    def fit(
        cls,
        reader: TileReader,
        scalars: Sequence[str] = (),
        *,
        axis_maps: bool = False,
        validation: TileReader | None = None,
    ) -> Self:
        """Fit each camera's images to its tiles of the training split.

        Raises
        ------
        UserError
            Also if pointing or position of a telescope are unknown.
        """
        cls.check_channels(reader)
        columns = {c for c in (*_IMAGE, *_POINTING, *_POSITION) if c not in reader.columns}
        if columns:
            raise UserError(f"the tiles have no event column {sorted(columns)[0]}; remake them with `lightpool tiles`")
        events = reader.events([*EVENT_KEYS, *_POINTING, *_POSITION])
        unknown = ~np.all([np.isfinite(events[name]) for name in (*_POINTING, *_POSITION)], axis=0)
        if unknown.any():
            raise UserError(
                f"pointing or position of the telescope are unknown for {unknown.sum()} of {len(unknown)} training "
                "images; events of several telescopes need both"
            )
        return cls(
            cameras=ImageInput.fit_cameras(reader, scalars, axis_maps=axis_maps, validation=validation),
            max_telescopes=int(n_telescopes_of(events).max(initial=2)),
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """Event columns that images, scalars and places are computed from."""
        own = {column for given in self.cameras.values() for column in given.columns}
        several = (CAMERA_COLUMN,) if len(self.cameras) > 1 else ()
        return tuple(sorted({*own, *EVENT_KEYS, *_IMAGE, *_POINTING, *_POSITION, *several}))

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Of each image, the same for all cameras."""
        return next(iter(self.cameras.values())).channel_names

    @property
    def scalar_names(self) -> tuple[str, ...]:
        """Scalars of each image, the same for all cameras."""
        return next(iter(self.cameras.values())).scalar_names

    def arrays(self, batch: TileBatch, channels: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Arrays of whole events.

        Returns
        -------
        dict
            `images` (M, 3, H, W), `scalars` (M, S) if any, `members` (N, T) int64, `places` (M, 21), and `camera` (M,)
            int64 if there are several kinds.

        Raises
        ------
        UserError
            If an event column is missing.
        """
        found = {**self.image_arrays(batch, channels), "members": members_of(batch), "places": places_of(batch)}
        if len(self.cameras) > 1:
            found["camera"] = batch.events[CAMERA_COLUMN].astype(np.int64)
        return found

    def image_arrays(self, batch: TileBatch, channels: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """`images` and `scalars`, which need no other image of the event."""
        if len(self.cameras) == 1:
            return next(iter(self.cameras.values())).arrays(batch, channels)
        found: dict[str, np.ndarray] = {}
        for number, given in enumerate(self.cameras.values()):
            own = np.flatnonzero(batch.events[CAMERA_COLUMN] == number)
            for name, values in given.arrays(batch.select(own), channels).items():
                if name not in found:
                    found[name] = np.empty((len(batch), *values.shape[1:]), values.dtype)
                found[name][own] = values
        return found

    def items(self, batch: TileBatch) -> TileBatch:
        """One row per event; see `events_of`."""
        return events_of(batch)

    def shapes(self, n: int, tile_shape: tuple[int, int]) -> dict[str, tuple[int, ...]]:
        """Shapes of `image_arrays` for `n` images."""
        return next(iter(self.cameras.values())).shapes(n, tile_shape)


INPUT = ShowerInput


# ---- events ----------------------------------------------------------------------------------------------------------
def n_telescopes_of(events: Mapping[str, np.ndarray]) -> np.ndarray:
    """Images of each event, shape (N,); see `pipeline.tiles.events.event_starts`."""
    return np.diff(event_starts(events), append=len(events["group"]))


def members_of(batch: TileBatch) -> np.ndarray:
    """Table (N, T), int64, of the images of each event; -1 where it has fewer than T."""
    starts = starts_of(batch)
    counts = np.diff(starts, append=len(batch))
    number = np.arange(counts.max(initial=1))
    return np.where(number < counts[:, None], starts[:, None] + number, -1)


def events_of(batch: TileBatch) -> TileBatch:
    """One row per event of a batch of whole events.

    Its event columns are the ids, truth and pointing of the event; `n_telescopes`; `hillas_intensity`, the sum over
    the telescopes; `hillas_fov_lon`, `hillas_fov_lat`, `tel_x_m`, `tel_y_m`, `tel_z_m`, means weighted by the
    intensity; and `reference_fov_lon`, `reference_fov_lat` [deg], `reference_x_m`, `reference_y_m`, `reference_z_m`,
    from which direction and core are predicted: near the points where the axes meet, see `places_of`. Weights are
    means. There are no images, and no targets: these follow from the columns (`Targets.of_truth`).
    """
    starts = starts_of(batch)
    counts = np.diff(starts, append=len(batch))
    events = {name: values[starts] for name, values in batch.events.items() if _is_of_event(name)}
    events["n_telescopes"] = counts
    if len(batch):
        geometry = _Geometry.of(batch.events, starts)
        events["hillas_intensity"] = np.add.reduceat(geometry.intensity, starts)
        for name, column in zip(("hillas_fov_lon", "hillas_fov_lat"), geometry.mean_centre.T, strict=True):
            events[name] = column
        for name, column in zip(_POSITION, geometry.mean(batch.events, _POSITION).T, strict=True):
            events[name] = column
        events |= geometry.reference(batch.events)
    return TileBatch(
        images=np.empty((len(starts), 0, 0, 0), np.float16),
        events=events,
        group=batch.group[starts],
        weights=_means(batch.weights, starts, counts),
        base_weights=_means(batch.base_weights, starts, counts),
        split=batch.split[starts],
    )


def _means(weights: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return (np.add.reduceat(weights, starts) / counts).astype(np.float32) if len(starts) else np.empty(0, np.float32)


def _is_of_event(name: str) -> bool:
    """Whether a column is the same for all telescopes of an event."""
    if name == "true_impact_m":
        return False
    return name in (*EVENT_KEYS, "shower_id", *_POINTING) or name.startswith("true_")


# ---- places ----------------------------------------------------------------------------------------------------------
def places_of(batch: TileBatch) -> np.ndarray:
    """Where the telescopes of events stand and their images lie, shape (M, 21), float32, finite everywhere.

    For each telescope, along fov_lon and fov_lat and relative to the reference of the event: centre of gravity [deg],
    its projection onto the normal of the image's axis, and the vector from here to the point where the axes of all
    images meet; telescope [100 m], its projection onto the same normal, and the vector from here to the core, where the
    same lines through the telescopes meet; the unit vector along the image's axis, at the end that is nearer to the
    meeting point; then (cos 2 psi, sin 2 psi); the lengths of the vectors to the source and to the core, the height
    that follows from their ratio [10 km], how well the axes cross (0: parallel, 1: at right angles), and the cosine of
    the angle from the unit vector to the direction away from the camera's centre. All are cut at +-4.

    The axes meet in the point of the least sum of squared distances in units of the errors that such images usually
    have. The reference is the same point, drawn to the mean of the centres of gravity, or of the telescopes, as the
    usual distance from there says: the most probable point for normal distributions.
    """
    if not len(batch):
        return np.empty((0, N_PLACES), np.float32)
    geometry = _Geometry.of(batch.events, starts_of(batch))
    event = geometry.event
    from_reference, off_axis, to_meeting = [], [], []
    for values, unit in ((geometry.centre, _ANGLE_UNIT_DEG), (geometry.position, _LENGTH_UNIT_M)):
        values = values - geometry.meeting(values, _CENTRE_DEG)[event]
        from_reference.append(values / unit)
        off_axis.append(np.einsum("nij,nj->ni", geometry.normal, values) / unit)
        to_meeting.append((geometry.meeting(values, _WEAKLY_DEG)[event] - values) / unit)
    source_deg = _ANGLE_UNIT_DEG * np.linalg.norm(to_meeting[0], axis=1)
    core_m = _LENGTH_UNIT_M * np.linalg.norm(to_meeting[1], axis=1)
    height_m = core_m / np.maximum(np.radians(source_deg), 1e-6)
    end = geometry.end(to_meeting[0])
    outward = geometry.centre + geometry.mean_centre[event]
    outward /= np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-6)
    vectors = [part[which] for which in (0, 1) for part in (from_reference, off_axis, to_meeting)] + [end]
    numbers = [source_deg / _ANGLE_UNIT_DEG, core_m / _LENGTH_UNIT_M, height_m / _HEIGHT_UNIT_M]
    trace = np.trace(geometry.matrix, axis1=1, axis2=2)
    crossing = np.clip(4 * np.linalg.det(geometry.matrix) / trace**2, 0.0, 1.0)[event]
    numbers += [crossing, (end * outward).sum(axis=1)]
    columns = [*vectors, geometry.double, np.stack(numbers, axis=1)]
    return np.clip(np.nan_to_num(np.concatenate(columns, axis=1)), -_MAX, _MAX).astype(np.float32)


class _Geometry(NamedTuple):
    """Axes of the images of whole events; of N events and M images.

    Attributes
    ----------
    starts, event : ndarray, shape (N,), (M,)
        First image of each event, event of each image.
    intensity, weight : ndarray, shape (M,)
        Weights of the means, and of the axes [1/deg2].
    centre, position : ndarray, shape (M, 2)
        Centre of gravity [deg], and the telescope in the plane perpendicular to the pointing [m], relative to the means
        of the event.
    mean_centre : ndarray, shape (N, 2)
    double : ndarray, shape (M, 2)
        (cos 2 psi, sin 2 psi); zero for a round image.
    normal : ndarray, shape (M, 2, 2)
        Projection onto the normal of the axis.
    matrix : ndarray, shape (N, 2, 2)
        Weighted sum of these.
    """

    starts: np.ndarray
    event: np.ndarray
    intensity: np.ndarray
    weight: np.ndarray
    centre: np.ndarray
    position: np.ndarray
    mean_centre: np.ndarray
    double: np.ndarray
    normal: np.ndarray
    matrix: np.ndarray

    @classmethod
    def of(cls, events: Mapping[str, np.ndarray], starts: np.ndarray) -> Self:
        event = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(events["hillas_intensity"])))
        intensity = np.asarray(events["hillas_intensity"], np.float64)
        centre = np.stack([events["hillas_fov_lon"], events["hillas_fov_lat"]], axis=1).astype(np.float64)
        position = _tilted(events)
        mean_centre, mean_position = (_weighted(values, intensity, starts) for values in (centre, position))
        psi = np.radians(np.asarray(events["hillas_psi"], np.float64))
        double = np.nan_to_num(np.stack([np.cos(2 * psi), np.sin(2 * psi)], axis=1))
        with np.errstate(invalid="ignore", divide="ignore"):
            roundness = np.nan_to_num(np.asarray(events["hillas_width"] / events["hillas_length"], np.float64), nan=1.0)
        weight = 1 / _axis_deg(intensity, np.clip(1 - roundness, 0, 1)) ** 2
        normal = _normal_projection(double)
        return cls(
            starts, event, intensity, weight, centre - mean_centre[event], position - mean_position[event], mean_centre,
            double, normal, np.add.reduceat(weight[:, None, None] * normal, starts),
        )  # fmt: skip

    def mean(self, events: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
        """Means of columns over the telescopes of each event, shape (N, len(names))."""
        return _weighted(np.stack([events[name] for name in names], axis=1), self.intensity, self.starts)

    def meeting(self, values: np.ndarray, centre_deg: float) -> np.ndarray:
        """Where lines through `values` (M, 2) along the axes meet, drawn to the origin, shape (N, 2).

        `centre_deg` is the distance from there that is expected, in the units of the axes' errors.
        """
        off_axis = np.einsum("nij,nj->ni", self.normal, values)
        sums = np.add.reduceat(self.weight[:, None] * off_axis, self.starts)
        return np.linalg.solve(self.matrix + np.eye(2) / centre_deg**2, sums[..., None])[..., 0]

    def end(self, towards: np.ndarray) -> np.ndarray:
        """Unit vectors along the axes, (M, 2), within 90 deg of `towards`; zero for a round image."""
        half = np.arctan2(self.double[:, 1], self.double[:, 0]) / 2
        axis = np.stack([np.cos(half), np.sin(half)], axis=1) * np.linalg.norm(self.double, axis=1, keepdims=True)
        return np.where((axis * towards).sum(axis=1, keepdims=True) < 0, -axis, axis)

    def reference(self, events: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Points from which direction and core are predicted, shape (N,) each."""
        source = self.mean_centre + self.meeting(self.centre, _CENTRE_DEG)
        core = self.meeting(self.position, _CENTRE_DEG)
        axes = pointing_axes(*(np.asarray(events[name], np.float64)[self.starts] for name in _POINTING))[:2]
        place = self.mean(events, _POSITION) + sum(core[:, [i]] * axis for i, axis in enumerate(axes))
        return {
            "reference_fov_lon": source[:, 0],
            "reference_fov_lat": source[:, 1],
            **{f"reference_{axis}_m": place[:, i] for i, axis in enumerate("xyz")},
        }


def _tilted(events: Mapping[str, np.ndarray]) -> np.ndarray:
    """Telescopes in the plane perpendicular to the pointing [m], shape (M, 2), along fov_lon and fov_lat."""
    axes = pointing_axes(*(np.asarray(events[name], np.float64) for name in _POINTING))[:2]
    position = np.stack([events[name] for name in _POSITION], axis=1).astype(np.float64)
    return np.stack([(position * axis).sum(axis=1) for axis in axes], axis=1)


def _axis_deg(intensity_pe: np.ndarray, elongation: np.ndarray) -> np.ndarray:
    """How far the axes of images miss the source [deg], (M,); `elongation` is 1 - width / length."""
    usual = np.maximum(_AXIS_DEG * (np.maximum(intensity_pe, 1) / 100) ** _AXIS_POWER, _BEST_AXIS_DEG)
    return usual * _USUAL_ELONGATION / np.maximum(elongation, 0.02)


def _weighted(values: np.ndarray, weight: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Weighted means over the images of each event, of (M, ...) to (N, ...)."""
    wide = weight.reshape(-1, *[1] * (values.ndim - 1))
    return np.add.reduceat(wide * values, starts) / np.add.reduceat(wide, starts)


def _normal_projection(double: np.ndarray) -> np.ndarray:
    """Projection onto the normal of lines at angle a, from (cos 2a, sin 2a), (M, 2, 2); identity for a round image."""
    cosine, sine = double.T
    half = np.where(np.hypot(cosine, sine) > 0.5, 0.5, 1.0)
    return np.stack(
        [np.stack([half - cosine / 2, -sine / 2], axis=-1), np.stack([-sine / 2, half + cosine / 2], axis=-1)], axis=-2
    )
