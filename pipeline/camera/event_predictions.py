"""Trained models of whole events applied to the images of a file, which come telescope by telescope."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.bundle.runtime import EventPredictor
from pipeline.camera.dl1 import DL1File, ImageChunk
from pipeline.camera.keys import KeyIndex
from pipeline.camera.likeness import Likeness
from pipeline.camera.predictions import (
    NOT_FINITE,
    CameraModel,
    ImagePredictions,
    Preparations,
    chosen_images,
    predict_chunk,
)
from pipeline.camera.tiling import POINTING, camera_tile_chunk
from pipeline.inputs.image import ImageRecipe
from pipeline.tiles.shards import TileBatch

#: Telescope, obs_id and event_id of images -> these images once more, in chunks of one telescope.
Reread = Callable[[int, np.ndarray, np.ndarray], Iterator[ImageChunk]]

NO_IMAGE = "no usable image"
UNKNOWN_PLACE = "pointing or position of a telescope is unknown"
UNKNOWN_POINTING = "the pointing of its telescope is unknown"
_NO_MONO = "one usable image, and the bundle has no network for single images"
_NO_HEAD = "one usable image, and the network for single images has no head {task}"
_TOO_MANY = "more usable images than the network takes ({n})"


@dataclass(frozen=True)
class EventPredictions:
    """The models' predictions for events, in the order of their ids.

    Attributes
    ----------
    obs_id, event_id, event_type : ndarray, shape (n,)
        Events with at least one image of a camera that a model serves.
    tel_ids : tuple of int
        Telescopes with such images.
    used : dict
        Prefix of a head -> ndarray of bool, shape (n, n_telescopes): the images that its value was made of.
    values : dict
        Prefix -> column -> ndarray, shape (n,); NaN where it has no value.
    reasons : dict
        Prefix -> ndarray of str, shape (n,): why the value is missing; empty where it is not.
    unlikeness : ndarray, shape (n,), optional
        Largest score of the images (`pipeline.camera.likeness`), NaN where none makes a tile; None where no model says
        what its images of training were like.
    unlike : ndarray of str or None, shape (n,), optional
        What is unlike in that image.
    """

    obs_id: np.ndarray
    event_id: np.ndarray
    event_type: np.ndarray
    tel_ids: tuple[int, ...]
    used: dict[str, np.ndarray]
    values: dict[str, dict[str, np.ndarray]]
    reasons: dict[str, np.ndarray]
    unlikeness: np.ndarray | None = None
    unlike: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.event_id)

    @property
    def any_valid(self) -> np.ndarray:
        """Events for which at least one model has a value, shape (n,)."""
        return np.any([reason == "" for reason in self.reasons.values()], axis=0)

    @property
    def by_mono(self) -> np.ndarray:
        """Events whose values come from the network for single images, shape (n,)."""
        single = [u.sum(axis=1) == 1 for u in self.used.values()]
        return self.any_valid & np.any(single, axis=0)

    def joined_reasons(self) -> list[str]:
        """For each event, the reasons of all models without a value; empty where all have one."""
        rows = zip(*self.reasons.values(), strict=True)
        return ["; ".join(sorted({text for text in row if text})) for row in rows]

    def left_out(self) -> dict[str, int]:
        """Reason, without its details, -> number of events for which at least one model gives it."""
        rows = zip(*(reason.tolist() for reason in self.reasons.values()), strict=True)
        texts = Counter(text for row in rows for text in {reason.partition(":")[0] for reason in row if reason})
        return dict(sorted(texts.items()))


@dataclass
class _Images:
    """Usable images of one model: what the join needs of them."""

    vectors: list[np.ndarray] = field(default_factory=list)
    columns: list[dict[str, np.ndarray]] = field(default_factory=list)


def predict_file(
    file: DL1File,
    models: Sequence[CameraModel],
    *,
    tel_ids: Collection[int] | None = None,
    event_ids: Collection[int] | None = None,
    chunk_images: int = 256,
) -> Iterator[ImagePredictions | EventPredictions]:
    """Predictions of all `models` for all images of `file`, or for those of some telescopes and events.

    Images are prepared once for all models with the same preparation. Images of a camera that no model serves
    are passed on unprocessed. Predictions for events come last, if a model gives any.

    Raises
    ------
    UserError
        If a telescope or an event is not in the file.
    """
    of_images = [model for model in models if not model.of_events]
    collector = EventCollector([model for model in models if model.of_events])
    for chunk in chosen_images(file, tel_ids=tel_ids, event_ids=event_ids, chunk_images=chunk_images):
        prepared = Preparations(chunk)
        likeness = prepared.likeness(models)
        collector.add(chunk, prepared, likeness)
        served = collector.serves(chunk.camera.identity)
        yield predict_chunk(chunk, of_images, prepared, served=served, likeness=likeness)
    if collector.models:

        def reread(tel_id: int, obs_id: np.ndarray, event_id: np.ndarray) -> Iterator[ImageChunk]:
            index = file.index(tel_id)
            rows = np.sort(KeyIndex(index["obs_id"], index["event_id"]).find(obs_id, event_id)[0])
            for start in range(0, len(rows), chunk_images):
                yield file.read(tel_id, rows[start : start + chunk_images])

        yield collector.results(reread)


def predict_event(
    chunks: Sequence[ImageChunk], models: Sequence[CameraModel]
) -> tuple[list[ImagePredictions], EventPredictions | None]:
    """Predictions for the images of one event in memory, and for the event by models of these.

    Parameters
    ----------
    chunks : sequence of ImageChunk
        One image each, of different telescopes.
    models : sequence of CameraModel

    Returns
    -------
    list of ImagePredictions
        By models of single images, in the order of `chunks`.
    EventPredictions or None
        Empty if no model serves a camera of the images; None without models of whole events.
    """
    of_images = [model for model in models if not model.of_events]
    collector = EventCollector([model for model in models if model.of_events])
    images = []
    for chunk in chunks:
        prepared = Preparations(chunk)
        likeness = prepared.likeness(models)
        collector.add(chunk, prepared, likeness)
        served = collector.serves(chunk.camera.identity)
        images.append(predict_chunk(chunk, of_images, prepared, served=served, likeness=likeness))
    if not collector.models:
        return images, None
    return images, collector.results(lambda tel_id, *_: (chunk for chunk in chunks if chunk.tel_id == tel_id))


class EventCollector:
    """Encodes images as they come, and joins those of each event when all have come.

    In memory are a vector and some fifteen numbers per image, and no pixels.

    Parameters
    ----------
    models : sequence of CameraModel
        Those of whole events.
    """

    def __init__(self, models: Sequence[CameraModel]) -> None:
        self.models = tuple(models)
        self._images = {model.name: _Images() for model in models}
        self._seen: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
        self._likeness: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
        self._unusable: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {m.name: [] for m in models}

    def serves(self, camera_identity: str) -> bool:
        """Whether at least one model is for this camera."""
        return any(model.predictor.serves(camera_identity) for model in self.models)

    def add(self, chunk: ImageChunk, prepared: Preparations, likeness: Likeness | None = None) -> None:
        """Take images of one telescope."""
        identity = chunk.camera.identity
        if not self.serves(identity):
            return
        if likeness is not None:
            self._likeness.append((chunk.obs_id, chunk.event_id, likeness.score, likeness.names()))
        tel_id = np.full(len(chunk), chunk.tel_id)
        self._seen.append((chunk.obs_id, chunk.event_id, chunk.event_type, tel_id))
        for model in self.models:
            if not model.predictor.serves(identity):
                continue
            tiles = prepared.of(model.recipe)
            bad = tiles.reason != ""
            self._unusable[model.name].append((chunk.obs_id[bad], chunk.event_id[bad], tiles.reason[bad]))
            if len(tiles.batch):
                self._encode(model, tiles.batch, identity)

    def _encode(self, model: CameraModel, batch: TileBatch, identity: str) -> None:
        predictor, images = model.predictor, self._images[model.name]
        assert isinstance(predictor, EventPredictor)
        images.vectors.append(predictor.encode(batch, identity))
        wanted = {*predictor.card.input.preparation.columns, "tel_id", "shower_id"} - {"camera"}
        number = np.full(len(batch), predictor.cameras.index(identity))
        images.columns.append({name: batch.events[name] for name in sorted(wanted)} | {"camera": number})

    def results(self, reread: Reread) -> EventPredictions:
        """Predictions of all models for all events.

        Parameters
        ----------
        reread : callable
            Gives images of events with one usable image once more, for the network of single images.
        """
        seen = self._seen or [(np.empty(0, np.int64),) * 4]
        obs_id, event_id, event_type, tel_id = map(np.concatenate, zip(*seen, strict=True))
        order = np.lexsort((event_id, obs_id))
        is_first = np.ones(len(order), bool)
        is_first[1:] = (obs_id[order][1:] != obs_id[order][:-1]) | (event_id[order][1:] != event_id[order][:-1])
        first = order[is_first]
        events = _Events(obs_id[first], event_id[first], tuple(np.unique(tel_id).tolist()))
        result = EventPredictions(
            events.obs_id, events.event_id, event_type[first], events.tel_ids, {}, {}, {}, *self._worst(events)
        )
        for model in self.models:
            answer = self._of_model(model, events, reread)
            for head in model.heads:
                values = {name: answer.values[name] for name in head.columns}
                reason = np.where(answer.reason == "", answer.of_head.get(head.spec.name, ""), answer.reason)
                value = values[head.deciding]
                lost = np.where(answer.of_unknown_pointing, UNKNOWN_POINTING, NOT_FINITE)
                reason = np.where((reason == "") & ~np.isfinite(value), lost, reason)
                result.values[head.prefix], result.reasons[head.prefix] = values, reason
                result.used[head.prefix] = answer.used & (reason == "")[:, None]
        return result

    def _worst(self, events: "_Events") -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
        """Of each event, the score of the image that is most unlike training, and what is said of it."""
        if not self._likeness:
            return None, None
        obs_id, event_id, score, text = map(np.concatenate, zip(*self._likeness, strict=True))
        rows = np.flatnonzero(np.isfinite(score))
        rows = rows[np.argsort(score[rows], kind="stable")]  # the highest score of an event is written last
        place = events.find(obs_id[rows], event_id[rows])
        worst, texts = np.full(len(events.event_id), np.nan), np.full(len(events.event_id), None, object)
        worst[place], texts[place] = score[rows], text[rows]
        return worst, texts

    def _of_model(self, model: CameraModel, events: "_Events", reread: Reread) -> "_Answer":
        answer = _Answer.empty(len(events.event_id), len(events.tel_ids), [c for h in model.heads for c in h.columns])
        images = self._images[model.name]
        if images.columns:
            columns = {name: np.concatenate([part[name] for part in images.columns]) for name in images.columns[0]}
            place = events.find(columns["obs_id"], columns["event_id"])
            order = np.lexsort((columns["tel_id"], place))
            columns = {name: column[order] for name, column in columns.items()}
            place, vectors = place[order], np.concatenate(images.vectors)[order]
            answer.used[place, np.searchsorted(events.tel_ids, columns["tel_id"])] = True
            self._join(model, answer, TileBatch(np.empty((len(place), 0, 0, 0)), columns, place), vectors)
            self._single(model, answer, columns, place, events, reread)
        answer.reason[~answer.used.any(axis=1)] = NO_IMAGE
        self._say_why(model, answer, events)
        return answer

    @staticmethod
    def _join(model: CameraModel, answer: "_Answer", batch: TileBatch, vectors: np.ndarray) -> None:
        """Values of events with several usable images; `group` is the place of the event."""
        predictor = model.predictor
        assert isinstance(predictor, EventPredictor)
        n_images = answer.used.sum(axis=1)
        known = np.all([np.isfinite(batch.events[name]) for name in _PLACE], axis=0)
        unknown = np.zeros(len(n_images), bool)
        unknown[batch.group[~known]] = True
        several = n_images >= 2
        answer.reason[several & unknown] = UNKNOWN_PLACE
        if predictor.max_telescopes is not None:
            answer.reason[n_images > predictor.max_telescopes] = _TOO_MANY.format(n=predictor.max_telescopes)
        rows = (several & (answer.reason == ""))[batch.group]
        if rows.any():
            chosen = batch.select(rows)
            outputs = predictor.join(vectors[rows], chosen)
            items = predictor.card.input.preparation.items(chosen)
            answer.put(np.unique(chosen.group), predictor.decode(outputs, items))

    @staticmethod
    def _single(
        model: CameraModel,
        answer: "_Answer",
        columns: Mapping[str, np.ndarray],
        place: np.ndarray,
        events: "_Events",
        reread: Reread,
    ) -> None:
        """Values of events with one usable image, by the network for single images."""
        predictor = model.predictor
        assert isinstance(predictor, EventPredictor)
        rows = np.flatnonzero((answer.used.sum(axis=1) == 1)[place])
        if not predictor.mono:
            answer.reason[place[rows]] = _NO_MONO
            return
        unknown = ~np.all([np.isfinite(columns[name][rows]) for name in POINTING], axis=0)
        answer.of_unknown_pointing[place[rows[unknown]]] = True
        for tel_id in np.unique(columns["tel_id"][rows]):
            own = rows[columns["tel_id"][rows] == tel_id]
            wanted = events.subset(place[own])
            for chunk in reread(int(tel_id), wanted.obs_id, wanted.event_id):
                mono = predictor.mono[chunk.camera.identity]
                tiles = camera_tile_chunk(chunk, ImageRecipe.model_validate(mono.card.input.recipe))
                here = events.find(chunk.obs_id, chunk.event_id)
                answer.reason[here] = tiles.reason
                if len(tiles.batch):
                    answer.put(here[tiles.reason == ""], mono.predict(tiles.batch))
        single = np.zeros(len(answer.reason), bool)
        single[place[rows]] = True
        tasks = set.intersection(*(set(mono.card.tasks) for mono in predictor.mono.values()))
        for head in model.heads:
            if head.spec.name not in tasks:
                text = _NO_HEAD.format(task=head.spec.name)
                answer.of_head[head.spec.name] = np.where(single, text, "").astype(object)

    def _say_why(self, model: CameraModel, answer: "_Answer", events: "_Events") -> None:
        """Why no image of an event is usable."""
        why: dict[int, set[str]] = {}
        for obs_id, event_id, reason in self._unusable[model.name]:
            place = events.find(obs_id, event_id)
            for number, text in zip(place.tolist(), reason.tolist(), strict=True):
                if answer.reason[number].startswith(NO_IMAGE):
                    why.setdefault(number, set()).add(text)
        for number, texts in why.items():
            answer.reason[number] = f"{NO_IMAGE}: {', '.join(sorted(texts))}"


_PLACE = ("pointing_alt_deg", "pointing_az_deg", "tel_x_m", "tel_y_m", "tel_z_m")


@dataclass(frozen=True)
class _Events:
    """Events in the order of their ids, and the telescopes."""

    obs_id: np.ndarray
    event_id: np.ndarray
    tel_ids: tuple[int, ...]

    def find(self, obs_id: np.ndarray, event_id: np.ndarray) -> np.ndarray:
        """Place of each event, all of which are there."""
        return KeyIndex(self.obs_id, self.event_id).find(obs_id, event_id)[0]

    def subset(self, place: np.ndarray) -> "_Events":
        """Some of them."""
        return _Events(self.obs_id[place], self.event_id[place], self.tel_ids)


@dataclass
class _Answer:
    """Values of one model; `of_head` has reasons of single heads by task.

    `of_unknown_pointing` are events of one usable image that cannot be placed in the sky.
    """

    values: dict[str, np.ndarray]
    reason: np.ndarray
    used: np.ndarray
    of_unknown_pointing: np.ndarray
    of_head: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def empty(cls, n: int, n_telescopes: int, columns: Sequence[str]) -> "_Answer":
        values = {name: np.full(n, np.nan) for name in columns}
        return cls(values, np.full(n, "", object), np.zeros((n, n_telescopes), bool), np.zeros(n, bool))

    def put(self, place: np.ndarray, predicted: Mapping[str, np.ndarray]) -> None:
        for name, values in predicted.items():
            if name in self.values:
                self.values[name][place] = values
