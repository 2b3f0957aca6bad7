"""The result of an evaluation: the content of metrics.json, tables and figures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipeline.config import Config
from pipeline.evaluation.comparison import Comparison
from pipeline.figures.comparison import Series
from pipeline.statistics import Estimate
from pipeline.tiles.shards import TileBatch

if TYPE_CHECKING:
    from astropy.table import Table
    from matplotlib.figure import Figure


class Predicts(Protocol):
    """What an evaluation needs of a trained model (`pipeline.bundle.runtime.Predictor` is one).

    Attributes
    ----------
    takes : {"image", "telescopes", ...}
        What one prediction is made from; without the attribute, from one tile. "telescopes": `predict` takes whole
        events and gives a row for each.
    mono : mapping
        With "telescopes": identity of a camera -> the model for single telescopes, if there is one.
    """

    @property
    def cameras(self) -> Sequence[str]:
        """Identities of the cameras that it serves; empty for the sky."""
        ...

    def predict(self, batch: TileBatch) -> dict[str, np.ndarray]:
        """Physical values of raw tiles, by name."""
        ...


class Judge(Protocol):
    """The function `judge` of a task: its predictions compared with the baselines on the test split."""

    def __call__(self, predictor: Predicts, manifests: Sequence[Any], cfg: Config) -> "Result":
        """Judge one head of a network; `predictor` gives its columns, among possible others."""
        ...


UNDEFINED = Estimate(np.nan, np.nan, np.nan)
# Events of so many telescopes or more are one bin.
_MANY = 5


@dataclass(frozen=True)
class CaptionedFigure:
    """A figure and its caption."""

    file: str
    title: str
    caption: str
    figure: "Figure"


@dataclass(frozen=True)
class Bin:
    """A selection of the items; `high` may be infinite. `comparison` is None if these are too few.

    `name` says what it holds where its limits do not: numbers of telescopes.
    """

    by: str
    low: float
    high: float
    n: int
    comparison: Comparison | None
    name: str = ""

    def to_json(self) -> dict[str, Any]:
        """One entry of `bins` in metrics.json; baselines are listed next to the network's values."""
        entry: dict[str, Any] = {
            "by": self.by,
            "low": self.low if np.isfinite(self.low) else None,
            "high": self.high if np.isfinite(self.high) else None,
            "n": self.n,
        }
        if self.name:
            entry["name"] = self.name
        if self.comparison is None:
            return entry
        content = self.comparison.to_json()
        return entry | content.pop("metrics") | content


@dataclass(frozen=True)
class Result:
    """Everything that `lightpool evaluate` writes for one bundle."""

    content: Mapping[str, Any]
    bins: Sequence[Bin]
    tables: Mapping[str, "Table"]
    figures: Sequence[CaptionedFigure]
    baseline_settings: Mapping[str, Any] = field(default_factory=dict)


def compare_in_bins(
    by: str,
    selections: Sequence[tuple[float, float, np.ndarray]],
    compare_selected: Callable[[np.ndarray], Comparison | None],
) -> list[Bin]:
    """Compare the methods in each selection; (low, high, keep (n,) bool)."""
    return [Bin(by, low, high, int(keep.sum()), compare_selected(keep)) for low, high, keep in selections]


def compare_by_multiplicity(
    n_telescopes: np.ndarray | None, compare_selected: Callable[[np.ndarray], Comparison | None]
) -> list[Bin]:
    """Compare the methods for events of 2, 3, 4, and 5 or more telescopes, where there are any.

    Parameters
    ----------
    n_telescopes : ndarray of int, shape (n,), optional
        None for images: no bins.
    compare_selected : callable
        (n,) bool -> comparison, or None for too few items.
    """
    if n_telescopes is None:
        return []
    selections = [(n, n, str(n), n_telescopes == n) for n in range(2, _MANY)]
    selections.append((_MANY, np.inf, f"{_MANY} or more", n_telescopes >= _MANY))
    return [
        Bin("n_telescopes", low, high, int(keep.sum()), compare_selected(keep), name)
        for low, high, name, keep in selections
        if keep.any()
    ]


def series_of(bins: Sequence[Bin], metric: str) -> Series:
    """One metric of all methods over bins, for a figure."""
    filled = [b.comparison for b in bins if b.comparison is not None]
    methods = list(filled[0].values) if filled else []
    baselines = list(filled[0].differences) if filled else []
    return Series(
        edges=[(b.low, b.high) for b in bins],
        names=[b.name for b in bins],
        methods={m: [b.comparison.values[m][metric] if b.comparison else UNDEFINED for b in bins] for m in methods},
        differences={
            m: [b.comparison.differences[m][metric] if b.comparison else UNDEFINED for b in bins] for m in baselines
        },
    )


def bins_table(bins: Sequence[Bin]) -> "Table":
    """One row per bin, method and metric; `difference_*` is network minus that baseline."""
    from astropy.table import Table

    rows = [
        (
            b.by,
            b.name,
            b.low,
            b.high,
            b.n,
            method,
            metric,
            *_parts(estimate),
            *_parts(_difference(b.comparison, method, metric)),
        )
        for b in bins
        if b.comparison is not None
        for method, metrics in b.comparison.values.items()
        for metric, estimate in metrics.items()
    ]
    names = (
        "by", "bin", "bin_low", "bin_high", "n", "method", "metric", "value", "low", "high",
        "difference_value", "difference_low", "difference_high",
    )  # fmt: skip
    kinds = ("U32", "U32", "f8", "f8", "i8", "U32", "U32", *["f8"] * 6)
    return Table(rows=rows or None, names=names, dtype=kinds)


def _difference(comparison: Comparison, method: str, metric: str) -> Estimate:
    return comparison.differences.get(method, {}).get(metric, UNDEFINED)


def _parts(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high
