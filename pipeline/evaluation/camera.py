"""What the samples of all camera tasks share, whether an item is an image or an event of several telescopes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from pipeline.errors import UserError
from pipeline.evaluation.comparison import COMBINED, NETWORK
from pipeline.evaluation.result import Result
from pipeline.tasks.spec import TaskSpec
from pipeline.tiles.cameras import where_served
from pipeline.tiles.reader import TileReader

if TYPE_CHECKING:
    from astropy.table import Table

FOREST = "forest"
_TRUTH = ("true_energy_tev", "true_primary_id")

Reader = TypeVar("Reader", bound=TileReader)


@dataclass(frozen=True)
class CameraSample(ABC):
    """The test split of a camera task, as the methods see it.

    Attributes
    ----------
    events : mapping
        Columns of the items, shape (N,); `weights`, `group` (shower) and `source_index` among them.
    predicted : mapping
        Columns of the network, shape (N,).
    baseline : mapping
        Name of an estimand -> what the forest estimates, shape (N,): its target, or the score of class 1.
    sources : sequence of str
        Names of the shards.
    n_groups : int
    """

    events: Mapping[str, np.ndarray]
    predicted: Mapping[str, np.ndarray]
    baseline: Mapping[str, np.ndarray]
    sources: Sequence[str]
    n_groups: int

    #: Columns that say which item a row of the table is.
    identity: ClassVar[tuple[str, ...]]

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """How each baseline was made."""

    @property
    def facts(self) -> dict[str, Any]:
        """Sizes of the sample."""
        return {
            "n": len(self.events["weights"]),
            "n_weighted": int(np.count_nonzero(self.events["weights"])),
            "n_groups": self.n_groups,
        }

    def methods(
        self, estimand: str, of_columns: Callable[[Mapping[str, np.ndarray]], np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Network, forest and the mean of both, which is better where the two complement each other.

        Parameters
        ----------
        estimand : str
        of_columns : callable
            Columns that a network predicts -> its estimate of it, shape (N,).
        """
        network, forest = of_columns(self.predicted), self.baseline[estimand]
        return {NETWORK: network, FOREST: forest, COMBINED: (network + forest) / 2}

    def complete(self, result: Result, columns: Mapping[str, np.ndarray], units: Mapping[str, str]) -> Result:
        """Add to a judge's result what all camera tasks share: sample size, table of predictions, forest settings.

        Parameters
        ----------
        result : Result
        columns : mapping
            Estimates by method for the table, shape (N,).
        units : mapping
            Column -> unit, where it has one.
        """
        return Result(
            content=dict(result.content) | {"data": self.facts},
            bins=result.bins,
            tables=dict(result.tables) | {"predictions": self._table(columns, units)},
            figures=result.figures,
            baseline_settings=self.settings,
        )

    def _table(self, columns: Mapping[str, np.ndarray], units: Mapping[str, str]) -> "Table":
        """One row per item: its source, the truth, and the prediction of each method."""
        from astropy.table import Table

        events = self.events
        own = {name: events[name] for name in (*self.identity, *_TRUTH) if name in events}
        content = {
            "source": np.array(self.sources)[events["source_index"]],
            **own,
            "hillas_intensity": events["hillas_intensity"],
            "weight": events["weights"],
            **columns,
        }
        return Table(content, units={"true_energy_tev": "TeV"} | dict(units))


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
