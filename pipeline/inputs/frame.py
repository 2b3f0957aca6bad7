"""Tiles of a sky frame: image, uncertainty, and where they cannot be trusted; and the ranges of the training frames.

The signal is compressed with asinh, which is linear in the noise and logarithmic in the signal (Lupton, Gunn & Szalay
1999, AJ 118, 1406).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple, Self

import numpy as np

from pipeline.errors import UserError
from pipeline.inputs.base import Input, Range
from pipeline.sky.dq import DQ, has
from pipeline.tiles.reader import TileReader
from pipeline.tiles.shards import TileBatch


class Quantity(NamedTuple):
    """A number that describes a frame, see `pipeline.sky.frame_statistics.FrameStatistics`.

    Attributes
    ----------
    name, words, unit : str
    absolute, relative : float
        Margin about the range of training: errors of measurement, and differences that do no harm.
    below : bool
        Whether values below the range matter.
    """

    name: str
    words: str
    unit: str
    absolute: float = 0.0
    relative: float = 0.0
    below: bool = False


QUANTITIES = (
    Quantity("fwhm_px", "FWHM of the stars", "px", relative=0.05, below=True),
    Quantity("ellipticity", "ellipticity of the stars", "", absolute=0.1),
    Quantity("noise_correlation_x", "noise correlation of neighbours along x", "", absolute=0.1, below=True),
    Quantity("noise_correlation_y", "noise correlation of neighbours along y", "", absolute=0.1, below=True),
    Quantity("noise_correlation_diagonal", "noise correlation of diagonal neighbours", "", absolute=0.1, below=True),
    Quantity("colour_pattern", "differences of the background within 2 x 2 pixels", "sigma", absolute=0.2),
    Quantity("source_density", "sources per 1,000 pixels", "", absolute=1.0, relative=1.0),
    Quantity("dynamic_range", "log10 of the brightest pixels over the noise", "", absolute=0.5),
)
# Fewer training frames do not show a range.
_MIN_FRAMES = 5
_PERCENTILES = (1, 99)


class FrameInput(Input):
    """Pixels in units of the frame's background noise.

    `ranges` are of the `QUANTITIES` of the training frames, 1st to 99th percentile; empty where there were few frames.
    """

    wing: ClassVar[Literal["sky"]] = "sky"
    takes: ClassVar[Literal["frame"]] = "frame"
    raw_channels: ClassVar[tuple[str, ...]] = ("sci", "err")

    kind: str = "frame"
    version: Literal[1] = 1

    @classmethod
    def fit(cls, reader: TileReader, scalars: Sequence[str] = (), *, axis_maps: bool = False) -> Self:
        """Only the ranges of the training frames are taken: level and noise of each frame come with its tiles.

        A frame has no axis: `axis_maps` does not matter.
        """
        if scalars:
            raise UserError(f"scalars must be empty, got {', '.join(scalars)}: a frame has no parameters")
        cls.check_channels(reader)
        return cls(ranges=_ranges(reader))

    @property
    def columns(self) -> tuple[str, ...]:
        """Background of the frame and its rms."""
        return ("level", "noise")

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Signal, relative uncertainty, and whether a pixel cannot be trusted."""
        return ("signal", "uncertainty", "untrusted")

    def arrays(self, batch: TileBatch, channels: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """`images`, shape (N, 3, H, W), float32, finite everywhere.

        asinh of the signal in units of the background noise, log of the relative uncertainty, and 1 where the pixel
        cannot be trusted. Of the masks, only what is known before restoring (saturated, missing) is read.
        """
        planes = self.planes(batch.images, channels)
        n_tiles, _, height, width = batch.images.shape
        images = np.empty((n_tiles, len(self.channel_names), height, width), np.float32)
        for rows in row_blocks(height, n_tiles * width):
            masks = None if batch.masks is None else batch.masks[:, rows]
            known = SkyPixels.of(planes["sci"][:, rows], planes["err"][:, rows], batch.events, masks)
            signal, uncertainty, untrusted = images[:, :, rows].swapaxes(0, 1)
            np.arcsinh((known.sci - known.level) / known.noise, out=signal)
            np.log(known.err / known.noise, out=uncertainty)
            untrusted[:] = known.missing | known.saturated
        return {"images": images}


INPUT = FrameInput

# Pixels whose planes fit into the cache of a processor.
_BLOCK_PX = 1 << 16


def row_blocks(height: int, width: int) -> Iterator[slice]:
    """Rows of blocks of about 65,000 pixels: what is computed in several steps is then computed twice as fast."""
    step = max(16, _BLOCK_PX // max(width, 1))
    return (slice(top, min(top + step, height)) for top in range(0, height, step))


def _ranges(reader: TileReader) -> tuple[Range, ...]:
    """Of the frames that have tiles in this split."""
    attributes = reader.shard_attributes()
    used = np.unique(reader.events([])["source_index"]) if reader.n_tiles else ()
    frames = [attributes[number].get("frame", {}).get("statistics", {}) for number in used]
    found = []
    for quantity in QUANTITIES:
        values = [frame[quantity.name] for frame in frames if frame.get(quantity.name) is not None]
        if len(values) >= _MIN_FRAMES:
            low, high = (float(f"{value:.4g}") for value in np.percentile(values, _PERCENTILES))
            found.append(
                Range(
                    name=quantity.name,
                    words=quantity.words,
                    unit=quantity.unit,
                    low=low,
                    high=high,
                    n_frames=len(values),
                )
            )
    return tuple(found)


def outside(values: Mapping[str, float | None], ranges: Sequence[Range]) -> dict[str, str]:
    """Quantities of a frame that lie outside the ranges of training: name -> what was found and what was expected.

    A quantity that could not be measured is not compared. The fewer frames there were, the wider is the margin: the
    range of n values is expected to be wider than they are by 1 / (n - 1) at either end.
    """
    quantities = {quantity.name: quantity for quantity in QUANTITIES}
    found = {}
    for trained in ranges:
        quantity, value = quantities.get(trained.name), values.get(trained.name)
        if quantity is None or value is None:
            continue
        unseen = (trained.high - trained.low) / (trained.n_frames - 1) + quantity.absolute
        too_low = quantity.below and value < trained.low - unseen - quantity.relative * abs(trained.low)
        if too_low or value > trained.high + unseen + quantity.relative * abs(trained.high):
            unit = f" {quantity.unit}" if quantity.unit else ""
            found[trained.name] = f"{quantity.words} {value:.3g}{unit} ({trained.low:.3g} to {trained.high:.3g})"
    return found


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
        """Fill what is not known: NaN or infinite, flagged as missing, or an invalid uncertainty.

        Raises
        ------
        UserError
            If the noise of a frame is not positive: then no scale is defined.
        """
        level = np.asarray(events["level"], np.float32)[:, None, None]
        noise = np.asarray(events["noise"], np.float32)[:, None, None]
        if not (np.isfinite(level).all() and np.isfinite(noise).all() and (noise > 0).all()):
            raise UserError(
                "the background level or noise of a frame is not a positive number: "
                f"level {level.ravel()[:4].tolist()}, noise {noise.ravel()[:4].tolist()}; ingest the frame again"
            )
        sci, err = np.asarray(sci, np.float32), np.asarray(err, np.float32)
        missing = ~np.isfinite(sci)
        saturated = np.zeros_like(missing)
        if masks is not None:
            missing |= has(masks, DQ.MISSING)
            saturated = has(masks, DQ.SATURATED) & ~missing
        usable = np.isfinite(err) & (err > 0) & ~missing
        # A pixel cannot be better known than to a small part of the background noise; the floor keeps the
        # logarithm of a wrong (far too small) uncertainty from dominating the input.
        err = np.where(usable, np.maximum(err, 0.05 * noise), noise)
        return cls(np.where(missing, level, sci), err, level, noise, missing, saturated)

    @classmethod
    def of_batch(cls, batch: TileBatch) -> Self:
        """Pixels of a batch whose channels are `sci` and `err`."""
        return cls.of(batch.images[:, 0], batch.images[:, 1], batch.events, batch.masks)
