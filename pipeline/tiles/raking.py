"""Find the weights that equalise columns between classes (`pipeline.tiles.weighting`), in more tiles than memory holds.

Iterative proportional fitting ("raking", Deming & Stephan 1940, Ann. Math. Stat. 11, 427): each column's weighted
histogram is brought to the geometric mean of the classes' histograms, in turn, until all fit.

The rows are never all in memory: they come in parts from the index of a manifest, several times. All that the fit needs
is the edges of the bins (`pipeline.tiles.quantiles`) and the number of rows of each class in each cell of bins.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from pipeline.tiles.event_rows import EVENT_KEYS, MIN_TELESCOPES, event_starts, event_values
from pipeline.tiles.index import TileIndex
from pipeline.tiles.layout import CAMERA_COLUMN
from pipeline.tiles.quantiles import Sample, quantile_edges
from pipeline.tiles.weighting import EqualisedColumn, Weighting

_ITERATIONS = 100
_STARVED = 0.5
_PART_ROWS = 1 << 18  # in memory at once
#: What ctapipe writes for a particle that it does not know: the largest number of 16 bit.
UNKNOWN_CLASS = 32767


def equalise(
    events: Mapping[str, np.ndarray], class_column: str, bins: Mapping[str, int], max_weight: float
) -> Weighting | None:
    """Find the table for these tiles.

    Parameters
    ----------
    events : mapping of ndarray, shape (N,)
        The class column and every column named in `bins`; finite.
    class_column : str
    bins : mapping
        Column -> number of bins, at quantiles of the tiles of all classes together.
    max_weight : float

    Returns
    -------
    Weighting or None
        None if there are fewer than two classes: nothing to equalise.
    """
    return _equalised(lambda: iter([events]), class_column, bins, max_weight)


def _equalised(sample: Sample, class_column: str, bins: Mapping[str, int], max_weight: float) -> Weighting | None:
    """`equalise` of rows that come part by part."""
    names = [
        str(value) for value in sorted({value for part in sample() for value in np.unique(part[class_column]).tolist()})
    ]
    if len(names) < 2:
        return None
    edges = quantile_edges(sample, bins)
    columns = {name: EqualisedColumn(name, edges[name], {}) for name in bins}
    cells = _cells(sample, class_column, names, list(columns.values()))
    weights = _raked(cells, len(names))
    n_rows = cells.n.sum()
    scale, effective = {}, {}
    for place, name in enumerate(names):
        own = cells.of_class == place
        total = (weights.of_cell[own] * cells.n[own]).sum()
        scale[name] = float(n_rows / len(names) / total) if total > 0 else 0.0
        w = np.minimum(weights.of_cell[own] * scale[name], max_weight)
        effective[name] = float((w * cells.n[own]).sum() ** 2 / max((w**2 * cells.n[own]).sum(), 1e-300))
    found = [
        EqualisedColumn(column, edges[column], {name: factors[place].tolist() for place, name in enumerate(names)})
        for column, factors in zip(bins, weights.factors, strict=True)
    ]
    return Weighting(class_column, found, scale, max_weight, effective)


@dataclass(frozen=True)
class _Cells:
    """The joint histogram of the rows: those of one cell have the same class and bins, and so the same weight.

    `n` (n_cells,) counts the rows, `of_class` (n_cells,) is the number of the class, `bins` has one array (n_cells,)
    for each column and `n_bins` the number of its bins. Cells without rows are left out.
    """

    n: np.ndarray
    of_class: np.ndarray
    bins: list[np.ndarray]
    n_bins: list[int]


@dataclass(frozen=True)
class _Raked:
    """Weight of each cell, and for each column the factors of shape (n_classes, n_bins)."""

    of_cell: np.ndarray
    factors: list[np.ndarray]


def _cells(sample: Sample, class_column: str, names: Sequence[str], columns: Sequence[EqualisedColumn]) -> _Cells:
    shape = (len(names), *(len(column.edges) - 1 for column in columns))
    classes = np.array([int(name) for name in names])
    numbers, counts = np.empty(0, np.int64), np.empty(0, np.int64)
    for part in sample():
        index = [np.searchsorted(classes, part[class_column])]
        index += [column.bins(np.asarray(part[column.name])) for column in columns]
        numbers, counts = _counted(numbers, counts, np.ravel_multi_index(tuple(index), shape))
    of_class, *bins = np.unravel_index(numbers, shape)
    return _Cells(counts.astype(np.float64), of_class, list(bins), list(shape[1:]))


def _counted(known: np.ndarray, counts: np.ndarray, more: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values in rising order with their numbers, when `more` values come to those that are known."""
    values, n = np.unique(more, return_counts=True)
    joined, place = np.unique(np.concatenate([known, values]), return_inverse=True)
    return joined, np.bincount(place, np.concatenate([counts, n]), minlength=len(joined)).astype(np.int64)


def _raked(cells: _Cells, n_classes: int) -> _Raked:
    factors = [np.ones((n_classes, n)) for n in cells.n_bins]

    def weights() -> np.ndarray:
        found = np.ones(len(cells.n))
        for own, bins in zip(factors, cells.bins, strict=True):
            found *= own[cells.of_class, bins]
        return found

    for _ in range(_ITERATIONS):
        for own, bins, n in zip(factors, cells.bins, cells.n_bins, strict=True):
            histograms = np.bincount(cells.of_class * n + bins, weights() * cells.n, minlength=n_classes * n)
            histograms = histograms.reshape(n_classes, n)
            histograms /= np.maximum(histograms.sum(1, keepdims=True), 1e-300)
            target = np.exp(np.mean(np.log(np.maximum(histograms, 1e-300)), axis=0))
            target[(histograms <= 0).any(0)] = 0
            target /= max(target.sum(), 1e-300)
            own *= np.divide(target, histograms, out=np.zeros_like(histograms), where=histograms > 0)
    return _Raked(weights(), factors)


@dataclass
class Usable:
    """Which rows and which columns classes can be equalised in, and what is left out, in sentences.

    A column that has no value for a whole class is left out, for without it every tile would be. Tiles without a
    finite value in one of the others, or of an unknown particle, are left out one by one.

    Attributes
    ----------
    bins : dict
        The columns that remain, with their numbers of bins.
    warnings : list of str
    """

    class_column: str
    bins: dict[str, int]
    warnings: list[str]

    @classmethod
    def of(cls, sample: Sample, class_column: str, bins: Mapping[str, int], items: str = "tiles") -> Self:
        """Look through all rows; `items` says what a row is, in the sentences. Values may be missing: NaN."""
        n_rows = n_unknown = 0
        filled: dict[str, set[int]] = {name: set() for name in bins}
        classes: set[int] = set()
        for part in sample():
            known = np.asarray(part[class_column]) != UNKNOWN_CLASS
            n_rows, n_unknown = n_rows + len(known), n_unknown + int(np.count_nonzero(~known))
            own = np.asarray(part[class_column])[known]
            classes.update(np.unique(own).tolist())
            for name in bins:
                filled[name].update(np.unique(own[_finite(part, name)[known]]).tolist())
        warnings = []
        if n_unknown:
            warnings.append(
                f"{n_unknown} of {n_rows} {items} are of an unknown particle and have weight 0 where classes are "
                "equalised"
            )
        for name in bins:
            if without := sorted(classes - filled[name]):
                warnings.append(
                    f"no tile of class {', '.join(map(str, without))} has a value of {name}; the classes are not "
                    "equalised in it"
                )
        found = cls(class_column, {name: n for name, n in bins.items() if not classes - filled[name]}, warnings)
        for name, n_lost in found._lost(sample).items():
            if n_lost:
                warnings.append(f"{n_lost} of {n_rows} {items} have no {name} and weight 0 where classes are equalised")
        return found

    def _lost(self, sample: Sample) -> dict[str, int]:
        """How many rows each column costs that the columns before it have left."""
        lost = dict.fromkeys(self.bins, 0)
        for part in sample():
            keep = np.asarray(part[self.class_column]) != UNKNOWN_CLASS
            for name in self.bins:
                finite = _finite(part, name)
                lost[name] += int(np.count_nonzero(keep & ~finite))
                keep &= finite
        return lost

    def rows(self, sample: Sample) -> Sample:
        """The usable rows of a sample."""

        def parts() -> Iterator[Mapping[str, np.ndarray]]:
            for part in sample():
                keep = np.asarray(part[self.class_column]) != UNKNOWN_CLASS
                for name in self.bins:
                    keep &= _finite(part, name)
                yield {name: np.asarray(part[name])[keep] for name in (self.class_column, *self.bins)}

        return parts


def _finite(part: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    return np.isfinite(np.asarray(part[name], np.float64))


def starved_classes(weighting: Weighting, sample: Sample, items: str) -> list[str]:
    """Sentences about classes that lose most of their `items` because another class does not reach the same bins."""
    n_own, n_lost = dict.fromkeys(weighting.scale, 0), dict.fromkeys(weighting.scale, 0)
    for part in sample():
        classes, weights = np.asarray(part[weighting.class_column]), weighting.weights(part)
        for name in weighting.scale:
            own = classes == int(name)
            n_own[name] += int(np.count_nonzero(own))
            n_lost[name] += int(np.count_nonzero(weights[own] == 0))
    columns = ", ".join(column.name for column in weighting.columns)
    return [
        f"{n_lost[name]} of {n_own[name]} {items} of class {name} have weight 0, because another class has none with "
        f"such values of {columns}; leave a class of few {items} out, or simulate equal ranges"
        for name in weighting.scale
        if n_lost[name] > _STARVED * n_own[name]
    ]


def weightings_of(
    index: TileIndex,
    chosen: np.ndarray,
    cameras: Sequence[str],
    class_column: str,
    equalised: Mapping[str, int],
    max_weight: float,
) -> tuple[list[Weighting | None], list[str]]:
    """Find the tables for single images, or for fields of the sky.

    Parameters
    ----------
    index : TileIndex
    chosen : ndarray of bool, shape (n_shards,)
        Shards that count; all have the class column.
    cameras : sequence of str
        Identities, as the column `camera` counts them; empty for the sky.
    class_column : str
    equalised : mapping
        Column -> number of bins.
    max_weight : float

    Returns
    -------
    tables : list of Weighting or None
        One for each camera, or one for all tiles; empty if none equalises anything.
    warnings : list of str
        What is left out, in sentences.
    """
    # Tiles of all shards have to have a column, or the reader could not give them a weight.
    bins = {name: n for name, n in equalised.items() if index.has(name)[chosen].all()}
    wanted = (CAMERA_COLUMN, class_column, *bins)

    def of_camera(place: int | None) -> Sample:
        def parts() -> Iterator[Mapping[str, np.ndarray]]:
            for rows in index.shards(wanted, chosen):
                if place is None:
                    yield rows.columns
                elif (own := rows.columns[CAMERA_COLUMN] == place).any():
                    yield {name: column[own] for name, column in rows.columns.items()}

        return lambda: _together(parts())

    found = []
    for place in range(len(cameras)) if len(cameras) > 1 else [None]:
        table, warnings = _weighting(of_camera(place), bins, class_column, equalised, max_weight)
        of = "" if place is None else f"camera {cameras[place]}: "
        found.append((table, [of + text for text in warnings]))
    tables = [table for table, _ in found]
    return tables if any(tables) else [], [text for _, warnings in found for text in warnings]


def event_weighting_of(
    index: TileIndex, chosen: np.ndarray, class_column: str, equalised: Mapping[str, int], max_weight: float
) -> tuple[Weighting | None, list[str]]:
    """Find the table for events of several telescopes, of one row per event.

    Parameters
    ----------
    index, chosen, class_column, equalised, max_weight
        See `weightings_of`.

    Returns
    -------
    table : Weighting or None
        None without such events.
    warnings : list of str
    """
    chosen = chosen & np.all([index.has(name) for name in EVENT_KEYS], axis=0)
    bins = {name: n for name, n in equalised.items() if index.has(name)[chosen].all()}
    wanted = (class_column, *bins)

    def parts() -> Iterator[Mapping[str, np.ndarray]]:
        for rows in index.shards((*EVENT_KEYS, *wanted), chosen):
            group = rows.group
            starts = event_starts(rows.columns | {"group": group})
            several = np.diff(starts, append=len(group)) >= MIN_TELESCOPES
            if several.any():
                values = event_values(rows.columns, wanted, starts)
                yield {name: column[several] for name, column in values.items()}

    table, warnings = _weighting(lambda: _together(parts()), bins, class_column, equalised, max_weight, items="events")
    return table, [f"events of several telescopes: {text}" for text in warnings]


def _together(parts: Iterable[Mapping[str, np.ndarray]]) -> Iterator[Mapping[str, np.ndarray]]:
    """The rows of small shards in larger parts: numpy's fixed cost is paid once for all."""
    waiting: list[Mapping[str, np.ndarray]] = []
    n_waiting = 0
    for part in parts:
        waiting.append(part)
        n_waiting += len(next(iter(part.values())))
        if n_waiting >= _PART_ROWS:
            yield _joined(waiting)
            waiting, n_waiting = [], 0
    if n_waiting:
        yield _joined(waiting)


def _joined(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    common = set.intersection(*(set(part) for part in parts))
    return {name: np.concatenate([part[name] for part in parts]) for name in common}


def _weighting(
    sample: Sample,
    bins: Mapping[str, int],
    class_column: str,
    equalised: Mapping[str, int],
    max_weight: float,
    items: str = "tiles",
) -> tuple[Weighting | None, list[str]]:
    """The table that equalises the classes in the columns `bins`, and what it leaves out of `equalised`."""
    usable = Usable.of(sample, class_column, bins, items)
    rows = usable.rows(sample)
    weighting = _equalised(rows, class_column, usable.bins, max_weight)
    if weighting is None:
        return None, usable.warnings
    missing = [
        f"a shard has no column {name}; the classes are not equalised in it" for name in equalised if name not in bins
    ]
    return weighting, usable.warnings + missing + starved_classes(weighting, rows, items)
