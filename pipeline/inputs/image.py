"""The image of one telescope, and numbers that belong to it.

The charges span a huge range (1 to 10^5), which asinh compresses: it is linear in the noise and logarithmic in the
signal [1]_.

References
----------
.. [1] Lupton, Gunn & Szalay (1999), AJ 118, 1406.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.directions import outward
from pipeline.errors import TooFewEventsError, UserError
from pipeline.inputs.base import Input
from pipeline.inputs.image_features import COLUMNS as FEATURE_COLUMNS
from pipeline.inputs.image_features import image_features
from pipeline.inputs.population import Population
from pipeline.tiles.layout import CAMERA_COLUMN
from pipeline.tiles.reader import TileReader
from pipeline.tiles.shards import CHUNK_TILES, TileBatch

if TYPE_CHECKING:
    from pipeline.config import CameraTilesConfig

#: Event columns that change when the image is turned or mirrored: of no use with augmented images. The signs of
#: skewness and time slope depend on which end of the image axis is called its head.
ORIENTED_COLUMNS = (
    "hillas_psi", "hillas_phi", "hillas_fov_lon", "hillas_fov_lat", "hillas_skewness", "timing_slope",
)  # fmt: skip

#: Scalars made of several event columns. `hillas_miss`: distance of the image axis from the camera's centre, small for
#: a shower that comes from there; `hillas_density`: charge per area of the ellipse.
# Event columns that say which image it is; those of the truth begin with true_.
_NOT_MEASURED = {CAMERA_COLUMN, "obs_id", "event_id", "tel_id", "shower_id"}
DERIVED_SCALARS: dict[str, tuple[tuple[str, ...], Callable[..., np.ndarray]]] = {
    "hillas_miss": (
        ("hillas_r", "hillas_psi", "hillas_phi"),
        lambda r, psi, phi: r * np.abs(np.sin(np.deg2rad(psi - phi))),
    ),
    "hillas_density": (
        ("hillas_intensity", "hillas_length", "hillas_width"),
        lambda intensity, length, width: intensity / (length * width),
    ),
    "hillas_width_over_length": (("hillas_width", "hillas_length"), lambda width, length: width / length),
}

#: Event columns that the maps along an image's axis are computed from.
AXIS_COLUMNS = ("hillas_fov_lon", "hillas_fov_lat", "hillas_psi", "hillas_phi")
# Almost no image reaches further from its centre of gravity than this.
_AXIS_REACH_DEG = 2.0

# A scalar further out than this many standard deviations carries no more information, but would dominate the others.
_MAX_DEVIATION = 6.0
# So many images tell what those of training are like.
_MAX_SAMPLED = 6000


class ImageRecipe(BaseModel):
    """How a camera image becomes a tile: as stored in shards and cards.

    A format of its own, with a version and without defaults: whatever the configuration is called or defaults to
    later, a model's images are prepared as they were in training.

    Attributes
    ----------
    size_px : int
        Side of the tile.
    picture_pe, boundary_pe : float
        Thresholds of the two-level cleaning [p.e.].
    min_picture_neighbors : int
    size_min_pe, n_pixels_min, leakage_max : float
        Cuts on the cleaned image: charge [p.e.], pixels, largest share of the charge in the outermost ring.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    version: Literal[1]
    size_px: int = Field(ge=1, le=8192)
    picture_pe: float
    boundary_pe: float
    min_picture_neighbors: int = Field(ge=0)
    size_min_pe: float
    n_pixels_min: int
    leakage_max: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.boundary_pe > self.picture_pe:
            raise ValueError(f"boundary_pe {self.boundary_pe} is above picture_pe {self.picture_pe}")
        return self

    @classmethod
    def of(cls, tiles: "CameraTilesConfig") -> Self:
        """The recipe of a configuration."""
        cleaning, cuts = tiles.cleaning, tiles.cuts
        return cls(
            version=1,
            size_px=tiles.size,
            picture_pe=cleaning.picture_pe,
            boundary_pe=cleaning.boundary_pe,
            min_picture_neighbors=cleaning.min_picture_neighbors,
            size_min_pe=cuts.size_min_pe,
            n_pixels_min=cuts.n_pixels_min,
            leakage_max=cuts.leakage_max,
        )


class ScalarStatistics(BaseModel):
    """How one scalar is standardised: mean and standard deviation over the training split."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    mean: float
    std: float = Field(gt=0)


class ImageInput(Input):
    """Charge, time and cleaning mask of one telescope's image, scalars, and where each pixel lies along the image.

    Attributes
    ----------
    charge_scale_pe : float
        Charge at which the compression turns from linear to logarithmic: about the noise of one pixel.
    time_scale_ns : float
        Peak times are divided by this and cut at +-3: a shower crosses a camera within tens of nanoseconds.
    scalar_statistics : tuple of ScalarStatistics
        Event quantities joined to the image features.
    axis_pixel_deg : float, optional
        Side of a tile pixel. If it is given, two more channels tell how far each pixel is from the image's centre of
        gravity: along the long axis, positive away from the camera's centre, and to either side of it [deg]. A mean
        over the tile forgets places; with these maps, convolutions know the head from the tail of a shower, however
        it lies.
    population : Population, optional
        What the training images were like; None where there were few.
    """

    wing: ClassVar[Literal["camera"]] = "camera"
    takes: ClassVar[Literal["image"]] = "image"
    raw_channels: ClassVar[tuple[str, ...]] = ("charge", "peak_time", "mask")

    kind: str = "image"
    version: Literal[1] = 1
    charge_scale_pe: float = Field(3.0, gt=0, allow_inf_nan=False)
    time_scale_ns: float = Field(10.0, gt=0, allow_inf_nan=False)
    scalar_statistics: tuple[ScalarStatistics, ...] = ()
    axis_pixel_deg: float | None = Field(None, gt=0, allow_inf_nan=False)
    population: Population | None = None

    @classmethod
    def fit(
        cls,
        reader: TileReader,
        scalars: Sequence[str] = (),
        *,
        axis_maps: bool = False,
        validation: TileReader | None = None,
    ) -> Self:
        """Take the scalars' statistics from the training split; its tiles are of one camera."""
        cls.check_channels(reader)
        events = cls._event_columns(reader, scalars)
        return cls(
            scalar_statistics=tuple(_statistics(name, scalar_value(name, events)) for name in scalars),
            axis_pixel_deg=_pixel_deg(reader, 0) if axis_maps else None,
            population=population_of(reader, validation),
        )

    @classmethod
    def fit_cameras(
        cls,
        reader: TileReader,
        scalars: Sequence[str] = (),
        *,
        axis_maps: bool = False,
        validation: TileReader | None = None,
    ) -> dict[str, Self]:
        """The same for the images of each camera of the reader, by its identity.

        Raises
        ------
        TooFewEventsError
            If there is no image of one of them.
        """
        cls.check_channels(reader)
        events = cls._event_columns(reader, scalars, CAMERA_COLUMN)
        fitted = {}
        for number, camera in enumerate(reader.cameras):
            rows = events[CAMERA_COLUMN] == number
            if not rows.any():
                raise TooFewEventsError(
                    f"the training split has no event with an image of the camera {camera.name} ({camera.identity}); "
                    "add runs, or choose one of the others (networks.NAME.camera)"
                )
            own = {name: column[rows] for name, column in events.items()}
            fitted[camera.identity] = cls(
                scalar_statistics=tuple(_statistics(name, scalar_value(name, own)) for name in scalars),
                axis_pixel_deg=_pixel_deg(reader, number) if axis_maps else None,
                population=population_of(reader, validation, number),
            )
        return fitted

    @staticmethod
    def _event_columns(reader: TileReader, scalars: Sequence[str], *more: str) -> dict[str, np.ndarray]:
        """Event columns that the scalars are computed from, and `more`."""
        for name in scalars:
            measured = [column for column in reader.columns if column not in _NOT_MEASURED and column[:5] != "true_"]
            lacking = [column for column in scalar_columns(name) if column not in measured]
            if lacking:
                why = "were not measured" if set(lacking) <= set(reader.columns) else "are no event column of the tiles"
                raise UserError(
                    f"unknown scalar {name!r}: {', '.join(lacking)} {why}; accepted, also as log10_NAME, NAME_abs or "
                    f"NAME_outward: {', '.join([*DERIVED_SCALARS, *measured])}"
                )
        wanted = {*more, *(column for name in scalars for column in scalar_columns(name))}
        return reader.events(wanted) if wanted else {}

    @property
    def columns(self) -> tuple[str, ...]:
        """Event columns that the scalars and the axis are computed from."""
        of_axis = AXIS_COLUMNS if self.axis_pixel_deg else ()
        return tuple(sorted({*of_axis, *(c for entry in self.scalar_statistics for c in scalar_columns(entry.name))}))

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Charge, time, mask, and two maps of the axis."""
        return (*self.raw_channels, *(("along_axis", "off_axis") if self.axis_pixel_deg else ()))

    @property
    def scalar_names(self) -> tuple[str, ...]:
        """Names of the scalars."""
        return tuple(entry.name for entry in self.scalar_statistics)

    def arrays(self, batch: TileBatch, channels: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """`images`, shape (N, 3 or 5, H, W), and `scalars`, shape (N, S), if any; float32, finite everywhere.

        Images: asinh charge, scaled time, mask; then the place along the axis and beside it [deg], cut at 2 deg.

        Raises
        ------
        UserError
            If an event column is missing.
        """
        missing = [name for name in self.columns if name not in batch.events]
        if missing:
            raise UserError(
                f"this model also reads the image parameters {', '.join(missing)}, which the images do not have"
            )
        planes = self.planes(batch.images, channels)
        n, height, width = planes["charge"].shape
        images = np.empty((n, len(self.channel_names), height, width), np.float32)
        self._prepare(planes, images[:, : len(self.raw_channels)])
        if self.axis_pixel_deg:
            axis_maps(batch.events, (height, width), self.axis_pixel_deg, out=images[:, len(self.raw_channels) :])
        found = {"images": images}
        if self.scalar_statistics:
            found["scalars"] = self._scalars(batch.events)
        return found

    def _prepare(self, planes: Mapping[str, np.ndarray], out: np.ndarray) -> None:
        """Charge, time and mask into `out`, shape (N, 3, H, W): in its place, because memory is what takes the time."""
        charge, time, mask = out[:, 0], out[:, 1], out[:, 2]
        np.divide(planes["charge"], np.float32(self.charge_scale_pe), out=charge, dtype=np.float32)
        np.arcsinh(charge, out=charge)
        np.divide(planes["peak_time"], np.float32(self.time_scale_ns), out=time, dtype=np.float32)
        np.copyto(time, 0, where=~np.isfinite(time))  # no measurement, and not the latest one
        np.clip(time, -3, 3, out=time)
        mask[...] = planes["mask"]
        for plane in (charge, mask):
            np.copyto(plane, 0, where=~np.isfinite(plane))

    def _scalars(self, events: Mapping[str, np.ndarray]) -> np.ndarray:
        """Standardised; a value that is not finite (a parameter that could not be computed) counts as the mean."""
        columns = [(scalar_value(s.name, events) - s.mean) / s.std for s in self.scalar_statistics]
        standardised = np.nan_to_num(np.stack(columns, axis=1), nan=0.0)
        return np.clip(standardised, -_MAX_DEVIATION, _MAX_DEVIATION).astype(np.float32)


INPUT = ImageInput


def population_of(reader: TileReader, validation: TileReader | None, camera: int = 0) -> Population | None:
    """What the images of one camera are like, by its number among those of the readers; None of fewer than 200."""
    training = _sampled(reader, camera)
    return Population.fit_images(training, _sampled(validation, camera) if validation is not None else training)


def _sampled(reader: TileReader, camera: int) -> dict[str, np.ndarray]:
    """Features of some thousand images."""
    channels = [channel.name for channel in reader.channels]
    if not {"charge", "peak_time", "mask"} <= set(channels):
        return {}
    known = [name for name in (*FEATURE_COLUMNS, CAMERA_COLUMN) if name in reader.columns]
    parts: list[dict[str, np.ndarray]] = []
    n_images = 0
    for batch in reader.shuffled(0, 0, CHUNK_TILES, columns=known):
        own = batch.select(batch.events[CAMERA_COLUMN] == camera) if CAMERA_COLUMN in known else batch
        parts.append(image_features(dict(zip(channels, own.images.swapaxes(0, 1), strict=True)), own.events))
        n_images += len(own)
        if n_images >= _MAX_SAMPLED:
            break
    return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}


def axis_maps(
    events: Mapping[str, np.ndarray], shape: tuple[int, int], pixel_deg: float, *, out: np.ndarray | None = None
) -> np.ndarray:
    """Where the pixels of tiles lie relative to the images in them, shape (N, 2, H, W), float32.

    First, how far along the long axis from the centre of gravity, positive away from the camera's centre; then, how far
    from the axis [deg]: a mirrored image has the mirrored maps. Both are cut at 2 deg, and 0 for an image without axis.

    Parameters
    ----------
    events : mapping
        The `AXIS_COLUMNS`, shape (N,) each.
    shape : (int, int)
        Of the tiles.
    pixel_deg : float
        Side of a tile pixel.
    out : ndarray of float32, optional
        Where they are written.
    """
    height, width = shape
    lon, lat = (np.float32(pixel_deg) * (np.arange(n, dtype=np.float32) - (n - 1) / 2) for n in (width, height))
    x = lon - np.asarray(events["hillas_fov_lon"], np.float32)[:, None]
    y = lat - np.asarray(events["hillas_fov_lat"], np.float32)[:, None]
    cosine, sine = outward(events).astype(np.float32).T[:, :, None]
    maps = np.empty((len(x), 2, height, width), np.float32) if out is None else out
    np.add((cosine * x)[:, None, :], (sine * y)[:, :, None], out=maps[:, 0])
    np.subtract((cosine * y)[:, :, None], (sine * x)[:, None, :], out=maps[:, 1])
    np.abs(maps[:, 1], out=maps[:, 1])
    np.copyto(maps, 0, where=~np.isfinite(maps))
    return np.clip(maps, -_AXIS_REACH_DEG, _AXIS_REACH_DEG, out=maps)


def scalar_columns(name: str) -> tuple[str, ...]:
    """Event columns that the scalar `name` is computed from."""
    base = name.removeprefix("log10_").removesuffix("_abs").removesuffix("_outward")
    columns = DERIVED_SCALARS[base][0] if base in DERIVED_SCALARS else (base,)
    return (*columns, "hillas_psi", "hillas_phi") if name.endswith("_outward") else columns


def scalar_value(name: str, events: Mapping[str, np.ndarray]) -> np.ndarray:
    """Scalar `name` from the event columns, shape (N,), float64; NaN where it is not defined.

    `log10_NAME` is the logarithm and `NAME_abs` the absolute value of a column or of a derived scalar. `NAME_outward`
    gives a quantity along the image axis (skewness, time slope) the sign that it has when the axis points away from
    the camera's centre, which is the same however the image is turned.
    """
    base = name.removeprefix("log10_").removesuffix("_abs").removesuffix("_outward")
    columns, function = DERIVED_SCALARS.get(base, ((base,), np.asarray))
    with np.errstate(divide="ignore", invalid="ignore"):
        values = function(*(np.asarray(events[column], np.float64) for column in columns))
        if name.endswith("_outward"):
            delta_rad = np.deg2rad(np.asarray(events["hillas_psi"], np.float64) - events["hillas_phi"])
            values = values * np.where(np.cos(delta_rad) >= 0, 1.0, -1.0)
        if name.endswith("_abs"):
            values = np.abs(values)
        if name.startswith("log10_"):
            values = np.log10(np.where(values > 0, values, np.nan))
    return np.where(np.isfinite(values), values, np.nan)


def _pixel_deg(reader: TileReader, number: int) -> float:
    """Side of a tile pixel of one camera: all shards agree, but for rounding.

    Raises
    ------
    UserError
        If the tiles lack a column that maps of the axis are computed from.
    """
    lacking = [name for name in AXIS_COLUMNS if name not in reader.columns]
    if lacking:
        raise UserError(
            f"the tiles have no event column {', '.join(lacking)}, which tell where an image lies; set "
            "networks.NAME.axis_maps: false"
        )
    return float(np.median([cameras[number].tile_pixel_deg for cameras in reader.shard_cameras()]))


def _statistics(name: str, values: np.ndarray) -> ScalarStatistics:
    finite = values[np.isfinite(values)]
    mean = float(finite.mean()) if len(finite) else 0.0
    std = float(finite.std()) if len(finite) else 0.0
    # A constant scalar stays constant (0) instead of dividing by nothing.
    return ScalarStatistics(name=name, mean=mean, std=std if std > 1e-9 * abs(mean) else 1.0)
