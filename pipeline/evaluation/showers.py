"""The sample of events that several telescopes saw: predictions of the network and of the baselines, event by event.

All methods see the same images of the same events; these are the baselines:

- ``forest``: a forest per kind of camera, with the impact distance and the height of the maximum among its parameters,
  and the mean over the telescopes (`pipeline.camera.stereo.forests`);
- ``hillas``: the crossing of the images' axes as in ctapipe's HillasReconstructor (`pipeline.camera.stereo.hillas`);
- ``mono``: the mean, as in DL2 files, of what the network for single telescopes says from which this one started.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pipeline.camera.baselines import FOREST, Estimand
from pipeline.camera.dl2.layout import outputs_of
from pipeline.camera.stereo.forests import StereoForest, StereoImages
from pipeline.camera.stereo.training import events_of_split, images_of, train_forests
from pipeline.config import Config
from pipeline.evaluation.camera import CameraSample
from pipeline.evaluation.comparison import COMBINED
from pipeline.evaluation.images import image_sample
from pipeline.evaluation.result import Predicts
from pipeline.inputs.shower import events_of
from pipeline.tasks.spec import TaskSpec
from pipeline.tiles.event_rows import event_starts
from pipeline.tiles.events import EventReader
from pipeline.tiles.layout import CAMERA_COLUMN
from pipeline.tiles.shards import TileBatch

HILLAS, MONO = "hillas", "mono"


@dataclass(frozen=True)
class EventSample(CameraSample):
    """The events of the test split; `events` holds the columns of `pipeline.inputs.shower.events_of`.

    Attributes
    ----------
    mono : mapping
        Columns of the network for single telescopes, combined, shape (N,); empty if there is none.
    images : StereoImages
        The images of these events.
    answers : mapping
        Name of an estimand -> what the forests estimate for each image.
    forests : mapping
        Name of an estimand -> forest.
    """

    mono: Mapping[str, np.ndarray]
    images: StereoImages
    answers: Mapping[str, np.ndarray]
    forests: Mapping[str, StereoForest]

    identity: ClassVar[tuple[str, ...]] = ("obs_id", "event_id", "shower_id", "n_telescopes")

    @property
    def settings(self) -> dict[str, Any]:
        """Of the forests, if there are any."""
        settings = {name: forest.settings for name, forest in self.forests.items()}
        return {FOREST: settings if len(settings) > 1 else next(iter(settings.values()))} if settings else {}

    @property
    def facts(self) -> dict[str, Any]:
        """Sizes of the sample."""
        return super().facts | {"items": "events", "n_images": len(self.images.event)}

    def methods(
        self, estimand: str, of_columns: Callable[[Mapping[str, np.ndarray]], np.ndarray]
    ) -> dict[str, np.ndarray]:
        """With the network for single telescopes, if there is one."""
        found = super().methods(estimand, of_columns)
        combined = found.pop(COMBINED)
        if self.mono:
            found[MONO] = of_columns(self.mono)
        return found | {COMBINED: combined}


def camera_sample(
    spec: TaskSpec, estimands: Mapping[str, Estimand], predictor: Predicts, manifests: Sequence[Any], cfg: Config
) -> CameraSample:
    """Images, or events for a network that takes several telescopes; see `image_sample` and `event_sample`."""
    make = event_sample if takes_events(predictor) else image_sample
    return make(spec, estimands, predictor, manifests, cfg)


def takes_events(predictor: Predicts) -> bool:
    """Whether a network takes whole events of several telescopes."""
    return getattr(predictor, "takes", "image") == "telescopes"


def event_sample(
    spec: TaskSpec, estimands: Mapping[str, Estimand], predictor: Predicts, manifests: Sequence[Any], cfg: Config
) -> EventSample:
    """Predict the events of the test split with the network and with its baselines.

    Parameters
    ----------
    spec : TaskSpec
    estimands : mapping
        What forests are trained for, by name; they estimate it for each image.
    predictor : Predicts
        Of whole events.
    manifests : sequence of path or Manifest
    cfg : Config

    Raises
    ------
    UserError
        If the tiles carry no truth, no pointing or no positions of telescopes, or a split has too few events.
    """
    reader = events_of_split(spec, manifests, "test", predictor.cameras)
    images, rows = images_of(reader)
    forests = train_forests(spec, estimands, manifests, predictor.cameras, cfg)
    answers = {name: forest.predict(images) for name, forest in forests.items()}
    starts = event_starts(rows)
    parts, predicted, singly = [], [], []
    for batch, camera in _batches(reader, images.camera, predictor.cameras):
        parts.append(events_of(batch))
        predicted.append(predictor.predict(batch))
        singly.append(_of_single_telescopes(spec, getattr(predictor, "mono", {}), batch, camera))
    reader.close()
    events = {name: np.concatenate([part.events[name] for part in parts]) for name in parts[0].events}
    weights = np.concatenate([part.weights for part in parts])
    of_event = {"weights": weights, "group": rows["group"][starts], "source_index": rows["source_index"][starts]}
    return EventSample(
        events=events | of_event,
        predicted=_joined(predicted),
        baseline={name: images.mean(values) for name, values in answers.items()},
        sources=reader.sources,
        n_groups=len(np.unique(of_event["group"])),
        mono=_mean_over_telescopes(spec, _joined(singly), images),
        images=images,
        answers=answers,
        forests=forests,
    )


def _batches(reader: EventReader, camera: np.ndarray, served: Sequence[str]) -> Iterator[tuple[TileBatch, np.ndarray]]:
    """Whole events, and the camera of each of their images; the column `camera` counts as the network does."""
    number = np.array([served.index(camera.identity) for camera in reader.cameras])
    done = 0
    for batch in reader.sequential():
        batch.events[CAMERA_COLUMN] = number[batch.events[CAMERA_COLUMN]]
        yield batch, camera[done : done + len(batch)]
        done += len(batch)


def _joined(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


# ---- the network for single telescopes -------------------------------------------------------------------------------
def _of_single_telescopes(
    spec: TaskSpec, models: Mapping[str, Predicts], batch: TileBatch, camera: np.ndarray
) -> dict[str, np.ndarray]:
    """Columns of the task for each image; NaN for a camera without a model, empty if no model has the task."""
    names = [column.name for column in spec.columns]
    values: dict[str, np.ndarray] = {}
    for identity, model in models.items():
        own = np.flatnonzero(camera == identity)
        answers = model.predict(batch.select(own))
        if names[0] not in answers:
            continue
        for name in names:
            values.setdefault(name, np.full(len(batch), np.nan))[own] = answers[name]
    return values


def _mean_over_telescopes(
    spec: TaskSpec, values: Mapping[str, np.ndarray], images: StereoImages
) -> dict[str, np.ndarray]:
    """One value per event, as the events of a DL2 file have it."""
    found: dict[str, np.ndarray] = {}
    for output in outputs_of(spec.name, spec.columns) if values else ():
        if not output.is_averaged:
            continue
        column_of = {column.dl2.name: column.name for column in output.columns}
        mean = output.combiner(images.n_events)
        for tel_id in np.unique(images.columns["tel_id"]):
            own = np.flatnonzero(images.columns["tel_id"] == tel_id)
            fields = {field: values[name][own] for field, name in column_of.items()}
            mean.add(images.event[own], fields, images.columns["hillas_intensity"][own])
        found |= {column_of[field]: column for field, column in mean.result().items() if field in column_of}
    return found
