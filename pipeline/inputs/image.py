"""Raw tile to network input: fitted when a model is trained, kept in its card, replayed when it predicts.

numpy only. Both wings compress their huge range (1 to 10^5) with asinh, which is linear in the noise and
logarithmic in the signal [1]_.

References
----------
.. [1] Lupton, Gunn & Szalay (1999), AJ 118, 1406.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from pipeline.errors import UserError
from pipeline.sky.dq import DQ, has
from pipeline.tiles.reader import TileReader
from pipeline.tiles.shards import TileBatch

#: Input channels in their order.
CAMERA_CHANNELS = ("charge", "peak_time", "mask")
SKY_CHANNELS = ("sci", "err")

#: Event columns that change when the image is turned or mirrored: of no use beside augmented images. The signs of
#: skewness and time slope depend on which end of the image axis is called its head.
ORIENTED_COLUMNS = (
    "hillas_psi", "hillas_phi", "hillas_fov_lon", "hillas_fov_lat", "hillas_skewness", "timing_slope",
)  # fmt: skip

#: Scalars made of several event columns. `hillas_miss`: distance of the image axis from the camera's centre, small for
#: a shower that comes from there; `hillas_density`: charge per area of the ellipse.
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

# A scalar further out than this many standard deviations tells nothing more, but would drown the other inputs.
_MAX_DEVIATION = 6.0


class ScalarStatistics(BaseModel):
    """How one scalar is standardised: mean and standard deviation over the training split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    mean: float
    std: float


class Preparation(BaseModel):
    """What happens to a tile before the network sees it.

    Attributes
    ----------
    kind : {"camera", "sky"}
    channels : tuple of str
        Raw channels that are read, in their order.
    charge_scale_pe : float
        Charge at which the compression turns from linear to logarithmic: about the noise of one pixel.
    time_scale_ns : float
        Peak times are divided by this and cut at +-3: a shower crosses a camera within tens of nanoseconds.
    scalar_statistics : tuple of ScalarStatistics
        Event quantities joined to the image features.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["camera", "sky"]
    channels: tuple[str, ...]
    charge_scale_pe: float = 3.0
    time_scale_ns: float = 10.0
    scalar_statistics: tuple[ScalarStatistics, ...] = ()

    @classmethod
    def fit(cls, reader: TileReader, scalars: Sequence[str] = ()) -> Self:
        """Take the channels from `reader` and the scalars' statistics from its tiles (the training split).

        Raises
        ------
        UserError
            If a channel is missing, or a scalar can be computed from none of the event columns.
        """
        needed = CAMERA_CHANNELS if reader.wing == "camera" else SKY_CHANNELS
        present = [channel.name for channel in reader.channels]
        missing = [name for name in needed if name not in present]
        if missing:
            raise UserError(
                f"the tiles have no channel {', '.join(missing)} (they have {', '.join(present)}); "
                "make them anew with this version's `lightpool tiles`"
            )
        for name in scalars:
            lacking = [column for column in scalar_columns(name) if column not in reader.columns]
            if lacking:
                raise UserError(
                    f"unknown scalar {name!r}: the tiles have no event column {', '.join(lacking)}; accepted, also as "
                    f"log10_NAME, NAME_abs or NAME_outward: {', '.join([*DERIVED_SCALARS, *reader.columns])}"
                )
        events = reader.events({column for name in scalars for column in scalar_columns(name)}) if scalars else {}
        return cls(
            kind=reader.wing,
            channels=needed,
            scalar_statistics=tuple(_statistics(name, scalar_value(name, events)) for name in scalars),
        )

    @classmethod
    def from_card(cls, content: Mapping[str, Any]) -> Self:
        """Inverse of `to_card`."""
        return cls.model_validate(content)

    def to_card(self) -> dict[str, Any]:
        """JSON-able form for a model's card."""
        return self.model_dump(mode="json")

    @property
    def columns(self) -> tuple[str, ...]:
        """Event columns that must come with the tiles."""
        frame = ("level", "noise") if self.kind == "sky" else ()
        return (*sorted({c for entry in self.scalar_statistics for c in scalar_columns(entry.name)}), *frame)

    @property
    def n_channels(self) -> int:
        """Channels of the network's input."""
        return len(self.channels) + (self.kind == "sky")

    def images(
        self,
        raw: np.ndarray,
        events: Mapping[str, np.ndarray],
        masks: np.ndarray | None = None,
        channels: Sequence[str] | None = None,
    ) -> np.ndarray:
        """Network input.

        Parameters
        ----------
        raw : ndarray, shape (N, C, H, W)
            Tiles as they are stored.
        events : mapping of ndarray, shape (N,)
            For sky tiles `level` and `noise` of the frame, in the unit of the tile.
        masks : ndarray of uint16, shape (N, H, W), optional
            DQ bits of sky tiles; only those known before restoring (saturated, missing) are looked at.
        channels : sequence of str, optional
            Names of the raw channels; by default they stand in the order of `self.channels`.

        Returns
        -------
        ndarray of float32, shape (N, C', H, W)
            Finite everywhere. Camera: asinh charge, scaled time, mask. Sky: asinh of the signal in units of the
            background noise, log of the relative uncertainty, and 1 where the pixel is not to be trusted.
        """
        order = list(self.channels if channels is None else channels)
        planes = {name: raw[:, order.index(name)] for name in self.channels}
        return self._camera(planes) if self.kind == "camera" else self._sky(planes, events, masks)

    def _camera(self, planes: Mapping[str, np.ndarray]) -> np.ndarray:
        charge = planes["charge"].astype(np.float32) / np.float32(self.charge_scale_pe)
        time = planes["peak_time"].astype(np.float32) / np.float32(self.time_scale_ns)
        mask = planes["mask"].astype(np.float32)
        prepared = np.stack([np.arcsinh(charge), np.clip(time, -3, 3), mask], axis=1)
        prepared[~np.isfinite(prepared)] = 0
        return prepared

    def _sky(
        self, planes: Mapping[str, np.ndarray], events: Mapping[str, np.ndarray], masks: np.ndarray | None
    ) -> np.ndarray:
        known = SkyPixels.of(planes["sci"], planes["err"], events, masks)
        untrusted = (known.missing | known.saturated).astype(np.float32)
        signal = np.arcsinh((known.sci - known.level) / known.noise)
        return np.stack([signal, np.log(known.err / known.noise), untrusted], axis=1, dtype=np.float32)

    def scalars(self, events: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """Standardised scalars, shape (N, S), float32, or None where the model uses none.

        A value that is not finite (a parameter that could not be computed) counts as the mean.

        Raises
        ------
        UserError
            If an event column is missing.
        """
        if not self.scalar_statistics:
            return None
        missing = [name for name in self.columns if name not in events]
        if missing:
            raise UserError(
                f"this model also reads the image parameters {', '.join(missing)}, which the images do not have"
            )
        columns = [(scalar_value(s.name, events) - s.mean) / s.std for s in self.scalar_statistics]
        standardised = np.nan_to_num(np.stack(columns, axis=1), nan=0.0)
        return np.clip(standardised, -_MAX_DEVIATION, _MAX_DEVIATION).astype(np.float32)


class SkyPixels:
    """Pixels of sky tiles with every hole filled, and the scales that denoising works in.

    Attributes
    ----------
    sci, err : ndarray of float32, shape (N, H, W)
        Finite; where the pixel is missing, the background level and its noise.
    level, noise : ndarray of float32, shape (N, 1, 1)
        Background of the frame, and its rms.
    missing, saturated : ndarray of bool, shape (N, H, W)
    """

    def __init__(
        self,
        sci: np.ndarray,
        err: np.ndarray,
        level: np.ndarray,
        noise: np.ndarray,
        missing: np.ndarray,
        saturated: np.ndarray,
    ) -> None:
        self.sci, self.err, self.level, self.noise = sci, err, level, noise
        self.missing, self.saturated = missing, saturated

    @classmethod
    def of(
        cls,
        sci: np.ndarray,
        err: np.ndarray,
        events: Mapping[str, np.ndarray],
        masks: np.ndarray | None,
    ) -> Self:
        """Fill what is not known: NaN or infinite, flagged as missing, or an uncertainty that is none.

        Raises
        ------
        UserError
            If the noise of a frame is not positive: then there is no scale to judge anything by.
        """
        level = np.asarray(events["level"], np.float32)[:, None, None]
        noise = np.asarray(events["noise"], np.float32)[:, None, None]
        if not (np.isfinite(level).all() and np.isfinite(noise).all() and (noise > 0).all()):
            raise UserError(
                "the background level or noise of a frame is not a positive number: "
                f"level {level.ravel()[:4].tolist()}, noise {noise.ravel()[:4].tolist()}; ingest the frame anew"
            )
        sci, err = np.asarray(sci, np.float32), np.asarray(err, np.float32)
        missing = ~np.isfinite(sci)
        saturated = np.zeros_like(missing)
        if masks is not None:
            missing |= has(masks, DQ.MISSING)
            saturated = has(masks, DQ.SATURATED) & ~missing
        usable = np.isfinite(err) & (err > 0) & ~missing
        # A pixel cannot be better known than to a small part of the background noise; the floor keeps the
        # logarithm of a wrong (far too small) uncertainty from ruling the input.
        err = np.where(usable, np.maximum(np.nan_to_num(err), 0.05 * noise), noise)
        return cls(np.where(missing, level, np.nan_to_num(sci)), err, level, noise, missing, saturated)

    @classmethod
    def of_batch(cls, batch: TileBatch) -> Self:
        """Pixels of a batch whose channels are `sci` and `err`."""
        return cls.of(batch.images[:, 0], batch.images[:, 1], batch.events, batch.masks)


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


def _statistics(name: str, values: np.ndarray) -> ScalarStatistics:
    finite = values[np.isfinite(values)]
    mean = float(finite.mean()) if len(finite) else 0.0
    std = float(finite.std()) if len(finite) else 0.0
    # A constant scalar stays constant (0) instead of dividing by nothing.
    return ScalarStatistics(name=name, mean=mean, std=std if std > 1e-9 * abs(mean) else 1.0)
