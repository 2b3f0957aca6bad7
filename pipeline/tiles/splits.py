"""Which group of tiles is for training, validation or test: decided by hash, so that it never changes."""

import hashlib

import numpy as np

from pipeline.config import SplitsConfig

SPLITS = {"train": 0, "validation": 1, "test": 2}


def split_of(source: str, group_ids: np.ndarray, shares: SplitsConfig, seed: int = 0) -> np.ndarray:
    """Split of each tile from its source and group.

    The hash sees (seed, source, group id) only: adding files or images never moves a group to another split, and
    all images of a reused shower, or all tiles of a field, stand on one side.

    Parameters
    ----------
    source : str
        Name of the run or field that the ids are unique within.
    group_ids : ndarray of int, shape (N,)
        Shower or field number of each tile.
    shares : SplitsConfig
        Shares of the groups.
    seed : int
        Another seed gives another, independent division.

    Returns
    -------
    ndarray of uint8, shape (N,)
        Values of `SPLITS`.
    """
    unique, inverse = np.unique(np.asarray(group_ids, dtype=np.int64), return_inverse=True)
    edges = np.cumsum([shares.train, shares.validation])
    uniform = np.array([_uniform(f"{seed}:{source}:{group}") for group in unique.tolist()])
    return np.searchsorted(edges, uniform, side="right").astype(np.uint8)[inverse]


def _uniform(key: str) -> float:
    """A number in [0, 1) that depends on the key alone (blake2b: equal on every machine)."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") / 2**64
