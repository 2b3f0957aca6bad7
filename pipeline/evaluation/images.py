"""From the tiles of the camera to the sample that a judge looks at: predictions of the network and of the forest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.camera.baselines import FOREST_COLUMNS, Estimand, Forest, Sample, train_forest
from pipeline.config import Config
from pipeline.errors import TooFewEventsError, UserError
from pipeline.evaluation.comparison import COMBINED, NETWORK
from pipeline.evaluation.result import Predicts, Result
from pipeline.tasks.spec import TaskSpec
from pipeline.tiles.cameras import where_served
from pipeline.tiles.reader import TileReader

if TYPE_CHECKING:
    from astropy.table import Table

FOREST = "forest"
_IDENTITY = ("obs_id", "event_id", "tel_id", "shower_id")
_TRUTH = ("true_energy_tev", "true_primary_id")


@dataclass(frozen=True)
class ImageSample:
    """The test split of a camera task, as the methods see it.

    Attributes
    ----------
    events : mapping
        Event columns of the test images, shape (N,); `weights` and `group` (shower) among them.
    predicted : mapping
        Columns of the network, shape (N,).
    baseline : mapping
        Name of an estimand -> what the forest estimates, shape (N,): its target, or the score of class 1.
    forest_settings : mapping
        Of the forest, or of each by the name of its estimand, where there are several.
    """

    events: Mapping[str, np.ndarray]
    predicted: Mapping[str, np.ndarray]
    baseline: Mapping[str, np.ndarray]
    forest_settings: Mapping[str, Any]
    sources: Sequence[str]
    n_groups: int

    def methods(self, estimand: str, network: np.ndarray) -> dict[str, np.ndarray]:
        """Network, forest and the mean of both, which is better where the two complement each other.

        Parameters
        ----------
        estimand : str
        network : ndarray, shape (N,)
            The network's estimate of it.
        """
        forest = self.baseline[estimand]
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
        events = self.events
        facts = {
            "n": len(events["weights"]),
            "n_weighted": int(np.count_nonzero(events["weights"])),
            "n_groups": self.n_groups,
        }
        return Result(
            content=dict(result.content) | {"data": facts},
            bins=result.bins,
            tables=dict(result.tables) | {"predictions": self._table(columns, units)},
            figures=result.figures,
            baseline_settings={FOREST: dict(self.forest_settings)},
        )

    def _table(self, columns: Mapping[str, np.ndarray], units: Mapping[str, str]) -> "Table":
        """One row per test image: its source, the truth, and the prediction of each method."""
        from astropy.table import Table

        events = self.events
        own = {name: events[name] for name in (*_IDENTITY, *_TRUTH) if name in events}
        content = {
            "source": np.array(self.sources)[events["source_index"]],
            **own,
            "hillas_intensity": events["hillas_intensity"],
            "weight": events["weights"],
            **columns,
        }
        return Table(content, units={"true_energy_tev": "TeV"} | dict(units))


def reader_of(spec: TaskSpec, manifests: Sequence[Any], split: str, where: Mapping[str, Any]) -> TileReader:
    """Tiles of one split, chosen and weighted as in training.

    Parameters
    ----------
    spec : TaskSpec
    manifests : sequence of path or Manifest
    split : {"train", "validation", "test"}
    where : mapping
        Selection of the cameras whose tiles are read (`pipeline.tiles.cameras`).

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
    return TileReader(manifests, split, where={**spec.where, **where}, equalise=spec.equalise)


def image_sample(
    spec: TaskSpec, estimands: Mapping[str, Estimand], predictor: Predicts, manifests: Sequence[Any], cfg: Config
) -> ImageSample:
    """Predict the test split with the network, and with a forest for each quantity that the baseline is made of.

    Parameters
    ----------
    spec : TaskSpec
    estimands : mapping
        What forests are trained for, by name.
    predictor : Predicts
    manifests : sequence of path or Manifest
    cfg : Config

    Raises
    ------
    UserError
        If the tiles carry no truth, or a split has too few images.
    """
    where = where_served(manifests, predictor.cameras)
    reader = reader_of(spec, manifests, "test", where)
    if reader.n_tiles == 0:
        raise TooFewEventsError("the test split has no image; enlarge tiles.splits.test or simulate more runs")
    predicted = _predict(predictor, reader)
    events = reader.events()
    forests = {name: _forest(spec, estimand, manifests, where, cfg) for name, estimand in estimands.items()}
    settings = {name: forest.settings for name, forest in forests.items()}
    return ImageSample(
        events=events,
        predicted=predicted,
        baseline={name: forest.predict(events) for name, forest in forests.items()},
        forest_settings=settings if len(settings) > 1 else next(iter(settings.values())),
        sources=reader.sources,
        n_groups=reader.n_groups,
    )


def _predict(predictor: Predicts, reader: TileReader) -> dict[str, np.ndarray]:
    """The network's columns for all tiles of `reader`; one chunk of tiles is in memory at a time."""
    parts = [predictor.predict(batch) for batch in reader.sequential()]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _forest(
    spec: TaskSpec, estimand: Estimand, manifests: Sequence[Any], where: Mapping[str, Any], cfg: Config
) -> Forest:
    samples = []
    for split in ("train", "validation"):
        reader = reader_of(spec, manifests, split, where)
        if reader.n_tiles == 0:
            raise TooFewEventsError(f"the {split} split has no image; the forest needs it: see tiles.splits")
        events = reader.events(dict.fromkeys([*FOREST_COLUMNS, *estimand.columns]))
        reader.close()
        keep = _whole_groups(events["group"], cfg.evaluate.max_baseline_images, cfg.seed)
        events = {name: column[keep] for name, column in events.items()}
        samples.append(Sample(events, estimand.target(events), events["weights"]))
    return train_forest(
        *samples,
        classes=estimand.classes,
        n_trees=cfg.evaluate.forest_trees,
        seed=cfg.seed,
        threads=cfg.threads,
    )


def _whole_groups(group: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """At most `limit` images, as whole showers drawn at random: a selection (n,) bool."""
    if len(group) <= limit:
        return np.ones(len(group), bool)
    names, sizes = np.unique(group, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    return np.isin(group, names[order[np.cumsum(sizes[order]) <= limit]])
