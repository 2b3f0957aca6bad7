"""The camera tiles of a task, as its forests and judges read them."""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from pipeline.errors import UserError
from pipeline.tasks.spec import TaskSpec
from pipeline.tiles.reader import TileReader

Reader = TypeVar("Reader", bound=TileReader)


def reader_of(spec: TaskSpec, manifests: Sequence[Any], split: str, kind: type[Reader]) -> Reader:
    """Tiles of one split, chosen and weighted as in training.

    Raises
    ------
    UserError
        If the tiles are not of a camera or carry no truth.
    """
    reader = TileReader(manifests, split)
    if reader.wing != "camera":
        raise UserError(f"the manifests hold {reader.wing} tiles, but {spec.name} is judged on camera tiles")
    missing = [name for name in spec.needs if reader.columns and name not in reader.columns]
    if missing:
        raise UserError(
            f"the tiles have no truth ({', '.join(missing)}); {spec.name} can be judged on simulated tiles only"
        )
    reader.close()
    return kind(manifests, split, where=spec.where, equalise=spec.equalise)


def whole_groups(group: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """At most `limit` images, as whole showers drawn at random: a selection (n,) bool."""
    if len(group) <= limit:
        return np.ones(len(group), bool)
    names, sizes = np.unique(group, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    return np.isin(group, names[order[np.cumsum(sizes[order]) <= limit]])
