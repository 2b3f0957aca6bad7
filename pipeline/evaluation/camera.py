"""What the samples of all camera tasks share, whether an item is an image or an event of several telescopes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pipeline.camera.baselines import FOREST
from pipeline.evaluation.comparison import COMBINED, NETWORK
from pipeline.evaluation.result import Result

if TYPE_CHECKING:
    from astropy.table import Table

_TRUTH = ("true_energy_tev", "true_primary_id")


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
