"""Weights that equalise chosen columns between the classes, as a small table that gives the weight of any tile.

Without them a classifier learns the spectra and the field positions that happened to be simulated. The weight of a
tile is a product of one factor per column (found by `pipeline.tiles.raking`). A bin that one class does not reach has
weight zero in every class, and so has a tile without a finite value in one of the columns.

Networks of single images and of events see different samples, so each has tables of its own: single images one for
each camera, for classes that are alike in the sum of all tiles are not in those of one camera; events of several
telescopes one, of one row per event. Without it, an event would count by the telescopes that saw it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.tiles.layout import CAMERA_COLUMN


@dataclass(frozen=True)
class EqualisedColumn:
    """Bin edges (shape (n + 1,)) of one column and, per class, a factor for each bin (shape (n,))."""

    name: str
    edges: list[float]
    factors: dict[str, list[float]]

    def bins(self, values: np.ndarray) -> np.ndarray:
        """Bin of each value; values beyond the edges belong to the outermost bins."""
        return np.clip(np.searchsorted(self.edges, values, side="right") - 1, 0, len(self.edges) - 2)


@dataclass(frozen=True)
class Weighting:
    """From event columns to weights.

    Attributes
    ----------
    class_column : str
        Integer column that tells the classes apart.
    columns : sequence of EqualisedColumn
    scale : dict
        Per class: brings the classes to equal total weight, and the mean weight to 1.
    max_weight : float
        Upper limit: rare tiles must not dominate a batch.
    effective_n : dict
        Per class: (sum w)^2 / sum w^2 of the tiles that the table was made from.
    """

    class_column: str
    columns: list[EqualisedColumn]
    scale: dict[str, float]
    max_weight: float
    effective_n: dict[str, float]

    @property
    def needs(self) -> list[str]:
        """Event columns that `weights` reads."""
        return [self.class_column, *(column.name for column in self.columns)]

    def weights(self, events: Mapping[str, np.ndarray]) -> np.ndarray:
        """Weight of each tile, shape (N,), float32; 0 for an unknown class or a value that is not finite."""
        classes = np.asarray(events[self.class_column])
        result = np.zeros(len(classes), np.float32)
        for name, scale in self.scale.items():
            member = classes == int(name)
            weight = np.full(int(member.sum()), scale)
            for column in self.columns:
                values = np.asarray(events[column.name])[member]
                weight *= np.asarray(column.factors[name])[column.bins(values)]
                weight[~np.isfinite(values)] = 0
            result[member] = np.minimum(weight, self.max_weight)
        return result

    def to_json(self) -> dict[str, Any]:
        """JSON-able form; a manifest holds it."""
        return asdict(self)

    def check(self) -> None:
        """Refuse a table that gives no weights, as a damaged manifest may hold.

        Raises
        ------
        ValueError
            If a class is no whole number, a number is negative or not finite, edges do not rise, or a class lacks
            factors.
        """
        for name, scale in self.scale.items():
            if not name.removeprefix("-").isdecimal() or not 0 <= scale < np.inf:
                raise ValueError(f"the class {name!r:.40} has the scale {scale}")
        if not 0 < self.max_weight < np.inf:
            raise ValueError(f"max_weight is {self.max_weight}")
        for column in self.columns:
            edges = np.asarray(column.edges)
            if len(edges) < 2 or not np.isfinite(edges).all() or not (edges[1:] > edges[:-1]).all():
                raise ValueError(f"the edges of {column.name!r:.40} do not rise")
            factors = list(column.factors.values())
            if set(column.factors) != set(self.scale) or any(len(values) != len(edges) - 1 for values in factors):
                raise ValueError(f"{column.name!r:.40} lacks factors")
            if not all(0 <= value < np.inf for values in factors for value in values):
                raise ValueError(f"{column.name!r:.40} has factors that are negative or not finite")


def needs_of(tables: Sequence[Weighting | None]) -> list[str]:
    """Event columns that `weights_of` reads."""
    own = [name for table in tables if table is not None for name in table.needs]
    return list(dict.fromkeys([*([CAMERA_COLUMN] if len(tables) > 1 else []), *own]))


def weights_of(tables: Sequence[Weighting | None], events: Mapping[str, np.ndarray]) -> np.ndarray:
    """Weight of each tile by the table of its camera, or by the only one; 1 where a camera has none.

    Parameters
    ----------
    tables : sequence of Weighting or None
        One for all tiles, or one for each camera as the column `camera` counts them.
    events : mapping of ndarray, shape (N,)
        The columns of `needs_of`.

    Returns
    -------
    ndarray of float32, shape (N,)
    """
    if len(tables) == 1 and tables[0] is not None:
        return tables[0].weights(events)
    camera = np.asarray(events[CAMERA_COLUMN])
    result = np.ones(len(camera), np.float32)
    for place, table in enumerate(tables):
        if table is not None:
            here = camera == place
            result[here] = table.weights({name: np.asarray(events[name])[here] for name in table.needs})
    return result
