"""Which tiles a network was trained on: a sample that its card keeps, to know them again in another manifest.

Splits are decided by hash (`pipeline.tiles.splits`). Tiles that were made with another seed or other shares are divided
in another way, and what a network was trained on would be in the test split, where its figures are too good.
"""

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from pipeline.tiles.manifest import Manifest
from pipeline.tiles.reader import TileReader

#: Groups (showers, or fields) of a sample. Of another seed, a third of them would be in the test split.
MOST_GROUPS = 256


class Groups:
    """The groups of one split: which of them are looked at depends on their source and their place in it alone.

    Parameters
    ----------
    manifests : sequence of path or Manifest
    split : str

    Attributes
    ----------
    key : ndarray of uint64, shape (n_groups,)
        Uniform numbers; a sample has the groups with the smallest ones.
    """

    def __init__(self, manifests: Sequence[str | Path | Manifest], split: str) -> None:
        self._reader = TileReader(manifests, split, equalise=False)
        shards, tiles, keys = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
        for shard, group, first_tile in self._reader.groups():
            shards.append(np.full(len(group), shard))
            tiles.append(first_tile)
            keys.append(_uniform(self._reader.sources[shard], group))
        self._shard, self._tile, self.key = (np.concatenate(parts) for parts in (shards, tiles, keys))

    def sample(self) -> tuple[int, list[str]]:
        """Largest key of a sample, and the marks of its groups."""
        chosen = np.argsort(self.key, kind="stable")[:MOST_GROUPS]
        return int(self.key[chosen].max(initial=0)), self._marks(np.sort(chosen))

    def known(self, largest_key: int, marks: Collection[str]) -> tuple[int, int]:
        """How many groups are in a sample, and how many could be."""
        chosen = np.flatnonzero(self.key <= np.uint64(largest_key))
        return len(set(self._marks(chosen)) & set(marks)), len(chosen)

    def _marks(self, chosen: np.ndarray) -> list[str]:
        """Digest of each group: its key, and its first image as it is stored, for runs of equal names may differ."""
        marks = []
        for key, shard, tile in zip(self.key[chosen], self._shard[chosen], self._tile[chosen], strict=True):
            content = key.tobytes() + np.ascontiguousarray(self._reader.image(shard, tile)).tobytes()
            marks.append(hashlib.blake2b(content, digest_size=8).hexdigest())
        return marks

    def close(self) -> None:
        """Close the shards."""
        self._reader.close()


def _uniform(source: str, group: np.ndarray) -> np.ndarray:
    """Numbers of 64 bits that depend on source and place alone (the finaliser of splitmix64)."""
    mixed = np.uint64(int.from_bytes(hashlib.blake2b(source.encode(), digest_size=8).digest(), "big"))
    mixed = group.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + mixed
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))
