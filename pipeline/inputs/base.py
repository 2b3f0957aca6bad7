"""Base class of all inputs: from raw tiles to the named arrays of a network."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple, Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from pipeline.errors import UserError
from pipeline.tiles.reader import TileReader
from pipeline.tiles.shards import TileBatch


class Columns(NamedTuple):
    """Columns of an array that move when the images of their item are turned or mirrored.

    Attributes
    ----------
    first, last : int
        From `first` to before `last`.
    motion : {"vector", "double_angle"}
        See `pipeline.tasks.interfaces.Motion`.
    """

    first: int
    last: int
    motion: Literal["vector", "double_angle"]


class Input(BaseModel):
    """A kind of input, fitted to training tiles; it is stored in the model's card and replayed at prediction.

    Attributes
    ----------
    kind : str
        Name of the kind, and of its module.
    wing : {"camera", "sky"}
        Whose tiles it reads.
    takes : {"image", "telescopes", "frame"}
        Which networks it feeds, as their registration says.
    raw_channels : tuple of str
        Channels of the tiles that it reads, in this order.
    generates : bool
        Whether it feeds networks that make images, instead of judging them.
    may_move : bool
        Whether training images may be turned and mirrored.
    moving : mapping
        Array besides the images -> which of its columns move with them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    wing: ClassVar[Literal["camera", "sky"]]
    takes: ClassVar[Literal["image", "telescopes", "frame"]]
    raw_channels: ClassVar[tuple[str, ...]]
    generates: ClassVar[bool] = False
    may_move: ClassVar[bool] = True
    moving: ClassVar[Mapping[str, tuple[Columns, ...]]] = {}

    kind: str

    @classmethod
    def fit(
        cls,
        reader: TileReader,
        scalars: Sequence[str] = (),
        *,
        axis_maps: bool = False,
        validation: TileReader | None = None,
    ) -> Self:
        """Fit the input to the training split.

        Parameters
        ----------
        reader : TileReader
        scalars : sequence of str
            Numbers per image that the network also takes.
        axis_maps : bool
            Whether the network is also told where each pixel lies along a camera image.
        validation : TileReader, optional
            The validation split, for limits that must hold beyond the tiles of training.

        Raises
        ------
        UserError
            If the tiles lack a channel, or a scalar cannot be computed from their columns.
        """
        raise NotImplementedError

    @classmethod
    def check_channels(cls, reader: TileReader) -> None:
        """Refuse tiles without the channels that are read.

        Raises
        ------
        UserError
            Naming the channels that are missing.
        """
        present = [channel.name for channel in reader.channels]
        missing = [name for name in cls.raw_channels if name not in present]
        if missing:
            raise UserError(
                f"the tiles have no channel {', '.join(missing)} (they have {', '.join(present)}); "
                "remake them with this version's `lightpool tiles`"
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """Event columns that must come with the tiles."""
        raise NotImplementedError

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Channels of the network's images."""
        raise NotImplementedError

    @property
    def n_channels(self) -> int:
        """How many these are."""
        return len(self.channel_names)

    @property
    def scalar_names(self) -> tuple[str, ...]:
        """Numbers per image besides the images, in their order."""
        return ()

    def arrays(self, batch: TileBatch, channels: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Arrays for the network, in the order of its arguments.

        Parameters
        ----------
        batch : TileBatch
        channels : sequence of str, optional
            Names of the batch's channels; by default those of `raw_channels`.
        """
        raise NotImplementedError

    def items(self, batch: TileBatch) -> TileBatch:
        """What the outputs of the network belong to, one row each: the tiles, or whole events made of them."""
        return batch

    def shapes(self, n: int, tile_shape: tuple[int, int]) -> dict[str, tuple[int, ...]]:
        """Shapes of `arrays` for `n` tiles."""
        found: dict[str, tuple[int, ...]] = {"images": (n, self.n_channels, *tile_shape)}
        if self.scalar_names:
            found["scalars"] = (n, len(self.scalar_names))
        return found

    def planes(self, images: np.ndarray, channels: Sequence[str] | None) -> Mapping[str, np.ndarray]:
        """Raw channels by name, shape (N, H, W) each."""
        order = list(self.raw_channels if channels is None else channels)
        return {name: images[:, order.index(name)] for name in self.raw_channels}
