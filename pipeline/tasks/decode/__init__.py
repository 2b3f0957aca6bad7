"""Network outputs to physical values; numpy only, for this is part of every prediction."""

from typing import NamedTuple, Protocol

import numpy as np

from pipeline.tiles.shards import TileBatch


class Column(NamedTuple):
    """One quantity that a task predicts. An empty unit is a pure number; `sci` is the unit of the frame."""

    name: str
    unit: str
    description: str


class Decoder(Protocol):
    """How the outputs of a task are read.

    Attributes
    ----------
    task : str
    columns : tuple of Column
        What `decode` returns.
    outputs : tuple of str
        Names of the network's output channels, in their order.
    """

    task: str
    columns: tuple[Column, ...]
    outputs: tuple[str, ...]

    def decode(self, outputs: np.ndarray, batch: TileBatch) -> dict[str, np.ndarray]:
        """Physical values, by column name.

        Parameters
        ----------
        outputs : ndarray of float32, shape (N, K) or (N, K, H, W)
        batch : TileBatch
            The raw tiles that the outputs belong to.
        """
        ...
