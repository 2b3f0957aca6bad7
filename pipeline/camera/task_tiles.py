"""The camera tiles of a task, as its forests and judges read them."""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from pipeline.errors import UserError
from pipeline.tasks.spec import TaskSpec
from pipeline.tiles.cameras import where_served
from pipeline.tiles.reader import TileReader

Reader = TypeVar("Reader", bound=TileReader)


def reader_of(
    spec: TaskSpec, manifests: Sequence[Any], split: str, kind: type[Reader], served: Sequence[str]
) -> Reader:
    """Tiles of one split, chosen and weighted as in training.

    Parameters
    ----------
    spec : TaskSpec
    manifests : sequence of path or Manifest
    split : {"train", "validation", "test"}
    kind : type
        `TileReader`, or `EventReader` for whole events.
    served : sequence of str
        Identities of the cameras that the network serves; images of others are left out.

    Raises
    ------
    UserError
        If the tiles are not of a camera that the network serves, or carry no truth.
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
    where = {**spec.where, **where_served(manifests, served)}
    return kind(manifests, split, where=where, equalise=spec.equalise)


def whole_groups(group: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """At most `limit` images, as whole showers drawn at random: a selection (n,) bool."""
    if len(group) <= limit:
        return np.ones(len(group), bool)
    names, sizes = np.unique(group, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    return np.isin(group, names[order[np.cumsum(sizes[order]) <= limit]])
