"""Parts of shards that are read at once, and which tiles of them: small for millions of blocks."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Block(NamedTuple):
    """Tiles of one shard that are read at once."""

    shard: int
    start: int
    stop: int

    @property
    def tiles(self) -> slice:
        """Its part of the shard."""
        return slice(self.start, self.stop)

    @property
    def n_tiles(self) -> int:
        """Whether they are selected or not."""
        return self.stop - self.start


class Blocks(Sequence[Block]):
    """Blocks by their numbers: millions of tuples would take more memory than all else."""

    def __init__(self, numbers: np.ndarray) -> None:
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, place: int) -> Block:  # type: ignore[override]
        return Block(*self._numbers[place].tolist())


class Selection:
    """Which tiles of each shard are read; eight to a byte."""

    def __init__(self) -> None:
        self._bits: list[np.ndarray] = []
        self._n: list[int] = []

    def append(self, keep: np.ndarray) -> None:
        """Add a shard: which of its tiles are read, shape (N,), bool."""
        self._bits.append(np.packbits(keep))
        self._n.append(len(keep))

    def __len__(self) -> int:
        return len(self._bits)

    def __getitem__(self, number: int) -> np.ndarray:
        return np.unpackbits(self._bits[number], count=self._n[number]).astype(bool)

    def part(self, number: int, tiles: slice) -> np.ndarray:
        """Those of a part of a shard."""
        first, last = tiles.start // 8, -(-tiles.stop // 8)
        bits = np.unpackbits(self._bits[number][first:last])
        return bits[tiles.start - 8 * first : tiles.stop - 8 * first].astype(bool)


def blocks_of(shard: int, ends: np.ndarray, items: np.ndarray) -> np.ndarray:
    """The blocks of a shard that have selected items, and how many: shape (n, 4)."""
    bounds = np.concatenate([[0], ends]).astype(np.int64)
    counts = np.diff(np.searchsorted(items, bounds))
    has = counts > 0
    return np.stack([np.full(np.count_nonzero(has), shard), bounds[:-1][has], bounds[1:][has], counts[has]], axis=1)
