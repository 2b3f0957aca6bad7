"""From the tiles of the camera to the sample that a judge looks at: predictions of the network and of the forest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pipeline.camera.baselines import FOREST, FOREST_COLUMNS, Estimand, Forest, Sample, train_forest
from pipeline.camera.task_tiles import reader_of, whole_groups
from pipeline.config import Config
from pipeline.errors import TooFewEventsError
from pipeline.evaluation.camera import CameraSample
from pipeline.evaluation.result import Predicts
from pipeline.tasks.spec import TaskSpec
from pipeline.tiles.reader import TileReader


@dataclass(frozen=True)
class ImageSample(CameraSample):
    """The images of the test split.

    Attributes
    ----------
    forest_settings : mapping
        Of the forest, or of each by the name of its estimand, where there are several.
    """

    forest_settings: Mapping[str, Any]

    identity: ClassVar[tuple[str, ...]] = ("obs_id", "event_id", "tel_id", "shower_id")

    @property
    def settings(self) -> dict[str, Any]:
        """Of the forest."""
        return {FOREST: dict(self.forest_settings)}


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
    reader = reader_of(spec, manifests, "test", TileReader, predictor.cameras)
    if reader.n_tiles == 0:
        raise TooFewEventsError("the test split has no image; enlarge tiles.splits.test or simulate more runs")
    predicted = _predict(predictor, reader)
    events = reader.events()
    forests = {name: _forest(spec, estimand, manifests, predictor.cameras, cfg) for name, estimand in estimands.items()}
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


def _forest(spec: TaskSpec, estimand: Estimand, manifests: Sequence[Any], served: Sequence[str], cfg: Config) -> Forest:
    samples = []
    for split in ("train", "validation"):
        reader = reader_of(spec, manifests, split, TileReader, served)
        if reader.n_tiles == 0:
            raise TooFewEventsError(f"the {split} split has no image; the forest needs it: see tiles.splits")
        events = reader.events(dict.fromkeys([*FOREST_COLUMNS, *estimand.columns]))
        reader.close()
        keep = whole_groups(events["group"], cfg.evaluate.max_baseline_images, cfg.seed)
        events = {name: column[keep] for name, column in events.items()}
        samples.append(Sample(events, estimand.target(events), estimand.weights_of(events)))
    return train_forest(
        *samples,
        classes=estimand.classes,
        n_trees=cfg.evaluate.forest_trees,
        seed=cfg.seed,
        threads=cfg.threads,
    )
