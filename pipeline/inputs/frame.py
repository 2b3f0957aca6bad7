"""Tiles of a sky frame: image, uncertainty, and where they cannot be trusted; and what training frames are like.

The signal is compressed with asinh, which is linear in the noise and logarithmic in the signal (Lupton, Gunn & Szalay
1999, AJ 118, 1406).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal, Self

import numpy as np

from pipeline.errors import UserError
from pipeline.inputs.base import Input
from pipeline.inputs.population import Population
from pipeline.sky.dq import DQ, NO_SOURCE, has
from pipeline.tiles.reader import TileReader
from pipeline.tiles.shards import TileBatch


class FrameInput(Input):
    """Pixels in units of the frame's background noise.

    Attributes
    ----------
    population : Population, optional
        What the training frames were like; None where there were few.
    """

    wing: ClassVar[Literal["sky"]] = "sky"
    takes: ClassVar[Literal["frame"]] = "frame"
    raw_channels: ClassVar[tuple[str, ...]] = ("sci", "err")

    kind: str = "frame"
    version: Literal[1] = 1
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
        """Only what the frames are like is taken: level and noise of each frame come with its tiles.

        A frame has no axis: `axis_maps` does not matter.
        """
        if scalars:
            raise UserError(f"scalars must be empty, got {', '.join(scalars)}: a frame has no parameters")
        cls.check_channels(reader)
        return cls(
            population=Population.fit(_statistics(reader), [] if validation is None else _statistics(validation))
        )

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
_BLOCK_PX = 1 << 17


def row_blocks(height: int, width: int) -> Iterator[slice]:
    """Rows of blocks of about 131,000 pixels: what is computed in several steps is then computed faster."""
    step = max(16, _BLOCK_PX // max(width, 1))
    return (slice(top, min(top + step, height)) for top in range(0, height, step))


def _statistics(reader: TileReader) -> list[Mapping[str, float | None]]:
    """Of the frames that have tiles in this split."""
    attributes = reader.shard_attributes()
    used = np.unique(reader.events([])["source_index"]) if reader.n_tiles else ()
    return [attributes[number].get("frame", {}).get("statistics", {}) for number in used]


class SkyPixels:
    """Pixels of sky tiles with every hole filled, and the scales that denoising works in.

    Attributes
    ----------
    sci, err : ndarray of float32, shape (N, H, W)
        Finite; where the pixel is missing, the background level and its noise.
    level, noise : ndarray of float32, shape (N, 1, 1)
        Background of the frame, and its rms.
    missing, saturated : ndarray of bool, shape (N, H, W)
    no_source : ndarray of bool, shape (N, H, W)
        Where it is known that there is no source: whole frames tell, tiles do not.
    """

    def __init__(
        self,
        sci: np.ndarray,
        err: np.ndarray,
        level: np.ndarray,
        noise: np.ndarray,
        missing: np.ndarray,
        saturated: np.ndarray,
        no_source: np.ndarray,
    ) -> None:
        self.sci, self.err, self.level, self.noise = sci, err, level, noise
        self.missing, self.saturated, self.no_source = missing, saturated, no_source

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
        saturated, no_source = np.zeros_like(missing), np.zeros_like(missing)
        if masks is not None:
            no_source = has(masks, NO_SOURCE)
            missing |= has(masks, DQ.MISSING)
            saturated = has(masks, DQ.SATURATED) & ~missing
        usable = np.isfinite(err) & (err > 0) & ~missing
        # A pixel cannot be better known than to a small part of the background noise; the floor keeps the
        # logarithm of a wrong (far too small) uncertainty from dominating the input.
        err = np.where(usable, np.maximum(err, 0.05 * noise), noise)
        return cls(np.where(missing, level, sci), err, level, noise, missing, saturated, no_source)

    @classmethod
    def of_batch(cls, batch: TileBatch) -> Self:
        """Pixels of a batch whose channels are `sci` and `err`."""
        return cls.of(batch.images[:, 0], batch.images[:, 1], batch.events, batch.masks)
