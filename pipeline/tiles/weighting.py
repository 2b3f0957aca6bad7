"""Weights that equalise chosen columns between the classes, as a small table that gives the weight of any tile.

Without them a classifier learns the spectra and the field positions that happened to be simulated. The weight of a
tile is a product of one factor per column, found by iterative proportional fitting ("raking", Deming & Stephan 1940,
Ann. Math. Stat. 11, 427): each column's weighted histogram is brought to the geometric mean of the classes'
histograms, in turn, until all fit. A bin that one class does not reach has weight zero in every class, and so has a
tile without a finite value in one of the columns.

Networks of single images and of events see different samples, so each has tables of its own: single images one for
each camera, for classes that are alike in the sum of all tiles are not in those of one camera; events of several
telescopes one, of one row per event. Without it, an event would count by the telescopes that saw it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.tiles.event_rows import EVENT_KEYS, MIN_TELESCOPES, event_starts, event_values
from pipeline.tiles.layout import CAMERA_COLUMN

_ITERATIONS = 100
_STARVED = 0.5
#: What ctapipe writes for a particle that it does not know: the largest number of 16 bit.
UNKNOWN_CLASS = 32767


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
    classes = np.asarray(events[class_column])
    names = [str(value) for value in np.unique(classes).tolist()]
    if len(names) < 2:
        return None
    member = {name: classes == int(name) for name in names}
    edges = {column: _quantile_edges(np.asarray(events[column]), n) for column, n in bins.items()}
    index = {column: EqualisedColumn(column, edges[column], {}).bins(np.asarray(events[column])) for column in bins}
    factors = {column: {name: np.ones(len(edges[column]) - 1) for name in names} for column in bins}
    for _ in range(_ITERATIONS):
        for column in bins:
            weights = _products(factors, index, member, names, len(classes))
            histograms = _histograms(index[column], weights, member, names, len(edges[column]) - 1)
            target = np.exp(np.mean([np.log(np.maximum(h, 1e-300)) for h in histograms.values()], axis=0))
            target[np.any([h <= 0 for h in histograms.values()], axis=0)] = 0
            target /= max(target.sum(), 1e-300)
            for name, histogram in histograms.items():
                factors[column][name] *= np.divide(target, histogram, out=np.zeros_like(target), where=histogram > 0)
    weights = _products(factors, index, member, names, len(classes))
    scale, effective = {}, {}
    for name in names:
        total = weights[member[name]].sum()
        scale[name] = len(classes) / len(names) / total if total > 0 else 0.0
        w = np.minimum(weights[member[name]] * scale[name], max_weight)
        effective[name] = float(w.sum() ** 2 / max((w**2).sum(), 1e-300))
    columns = [
        EqualisedColumn(column, edges[column], {name: factors[column][name].tolist() for name in names})
        for column in bins
    ]
    return Weighting(class_column, columns, scale, max_weight, effective)


def usable_rows(
    events: Mapping[str, np.ndarray], class_column: str, bins: Mapping[str, int], items: str = "tiles"
) -> tuple[np.ndarray, dict[str, int], list[str]]:
    """Which tiles and which columns classes can be equalised in, and what is left out, in sentences.

    A column that has no value for a whole class is left out, for without it every tile would be. Tiles without a
    finite value in one of the others, or of an unknown particle, are left out one by one.

    Parameters
    ----------
    events, class_column, bins
        As for `equalise`, but values may be missing: NaN.
    items : str
        What a row is, in the sentences.

    Returns
    -------
    keep : ndarray of bool, shape (N,)
    bins : dict
        The columns that remain.
    warnings : list of str
    """
    classes = np.asarray(events[class_column])
    keep = classes != UNKNOWN_CLASS
    warnings = []
    if n_unknown := int(np.count_nonzero(~keep)):
        warnings.append(
            f"{n_unknown} of {len(keep)} {items} are of an unknown particle and have weight 0 where classes are "
            "equalised"
        )
    finite = {name: np.isfinite(np.asarray(events[name], np.float64)) for name in bins}
    remaining = {}
    for name, n_bins in bins.items():
        without = [value for value in np.unique(classes[keep]).tolist() if not finite[name][classes == value].any()]
        if without:
            warnings.append(
                f"no tile of class {', '.join(map(str, without))} has a value of {name}; the classes are not equalised "
                "in it"
            )
        else:
            remaining[name] = n_bins
    for name in remaining:
        lost = keep & ~finite[name]
        keep &= finite[name]
        if lost.any():
            warnings.append(
                f"{np.count_nonzero(lost)} of {len(keep)} {items} have no {name} and weight 0 where classes are "
                "equalised"
            )
    return keep, remaining, warnings


def starved_classes(weighting: Weighting, events: Mapping[str, np.ndarray], items: str) -> list[str]:
    """Sentences about classes that lose most of their `items` because another class does not reach the same bins."""
    classes = np.asarray(events[weighting.class_column])
    weights = weighting.weights(events)
    sentences = []
    for name in weighting.scale:
        own = weights[classes == int(name)]
        if (n_lost := int(np.count_nonzero(own == 0))) > _STARVED * len(own):
            columns = ", ".join(column.name for column in weighting.columns)
            sentences.append(
                f"{n_lost} of {len(own)} {items} of class {name} have weight 0, because another class has none with "
                f"such values of {columns}; leave a class of few {items} out, or simulate equal ranges"
            )
    return sentences


def weightings_of(
    events: Sequence[Mapping[str, np.ndarray]],
    cameras: Sequence[str],
    class_column: str,
    equalised: Mapping[str, int],
    max_weight: float,
) -> tuple[list[Weighting | None], list[str]]:
    """Find the tables for single images, or for fields of the sky.

    Parameters
    ----------
    events : sequence of mapping
        Event columns of each shard, with `split`.
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
    if len(cameras) < 2:
        found = [_weighting(events, class_column, equalised, max_weight)]
    else:
        found = []
        for place, identity in enumerate(cameras):
            own = [_rows(columns, columns[CAMERA_COLUMN] == place) for columns in events]
            filled = any(len(columns["split"]) for columns in own)
            table, warnings = _weighting(own, class_column, equalised, max_weight) if filled else (None, [])
            found.append((table, [f"camera {identity}: {text}" for text in warnings]))
    tables = [table for table, _ in found]
    return tables if any(tables) else [], [text for _, warnings in found for text in warnings]


def event_weighting_of(
    shards: Sequence[Mapping[str, np.ndarray]], class_column: str, equalised: Mapping[str, int], max_weight: float
) -> tuple[Weighting | None, list[str]]:
    """Find the table for events of several telescopes, of one row per event.

    Parameters
    ----------
    shards : sequence of mapping
        Event columns of each shard, with `split` and `group`.
    class_column, equalised, max_weight
        See `weightings_of`.

    Returns
    -------
    table : Weighting or None
        None without such events.
    warnings : list of str
    """
    of_events = []
    for columns in shards:
        if set(EVENT_KEYS) <= columns.keys():
            starts = event_starts(columns)
            wanted = [name for name in (class_column, "split", *equalised) if name in columns]
            several = np.diff(starts, append=len(columns["group"])) >= MIN_TELESCOPES
            of_events.append(_rows(event_values(columns, wanted, starts), several))
    filled = [columns for columns in of_events if len(columns["split"])]
    if not filled:
        return None, []
    table, warnings = _weighting(filled, class_column, equalised, max_weight, items="events")
    return table, [f"events of several telescopes: {text}" for text in warnings]


def _rows(columns: Mapping[str, np.ndarray], keep: np.ndarray) -> dict[str, np.ndarray]:
    return {name: column[keep] for name, column in columns.items()}


def _weighting(
    events: Sequence[Mapping[str, np.ndarray]],
    class_column: str,
    equalised: Mapping[str, int],
    max_weight: float,
    items: str = "tiles",
) -> tuple[Weighting | None, list[str]]:
    """The table that equalises the classes, from those of the columns that the shards have, and what it leaves out."""
    # Tiles of all shards have to have a column, or the reader could not give them a weight.
    n_bins = {name: n for name, n in equalised.items() if all(name in columns for columns in events)}
    columns = {name: joined_column(events, name) for name in (class_column, *n_bins)}
    keep, n_bins, warnings = usable_rows(columns, class_column, n_bins, items)
    columns = {name: columns[name][keep] for name in (class_column, *n_bins)}
    weighting = equalise(columns, class_column, n_bins, max_weight)
    if weighting is None:
        return None, warnings
    warnings += [
        f"a shard has no column {name}; the classes are not equalised in it"
        for name in equalised
        if not all(name in each for each in events)
    ]
    return weighting, warnings + starved_classes(weighting, columns, items)


def joined_column(events: Sequence[Mapping[str, np.ndarray]], name: str) -> np.ndarray:
    """A column of all shards; NaN where a shard does not have it."""
    return np.concatenate(
        [columns[name] if name in columns else np.full(len(columns["split"]), np.nan) for columns in events]
    )


def _quantile_edges(values: np.ndarray, n_bins: int) -> list[float]:
    edges = np.unique(np.quantile(values, np.linspace(0, 1, n_bins + 1)))
    if len(edges) < 2:
        edges = np.array([edges[0], np.nextafter(edges[0], np.inf)])
    return [float(edge) for edge in edges]


def _products(
    factors: Mapping[str, Mapping[str, np.ndarray]],
    index: Mapping[str, np.ndarray],
    member: Mapping[str, np.ndarray],
    names: Sequence[str],
    n: int,
) -> np.ndarray:
    weights = np.ones(n)
    for column, per_class in factors.items():
        for name in names:
            weights[member[name]] *= per_class[name][index[column][member[name]]]
    return weights


def _histograms(
    index: np.ndarray,
    weights: np.ndarray,
    member: Mapping[str, np.ndarray],
    names: Sequence[str],
    n_bins: int,
) -> dict[str, np.ndarray]:
    found = {}
    for name in names:
        histogram = np.bincount(index[member[name]], weights[member[name]], minlength=n_bins)
        found[name] = histogram / max(histogram.sum(), 1e-300)
    return found
