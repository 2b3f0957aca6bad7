"""Trained models applied to the images of a DL1 file: one pass over the file for all of them, a chunk at a time."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pipeline.bundle.runtime import Predictor
from pipeline.camera.dl1 import DL1File, ImageChunk
from pipeline.camera.tiling import CameraTiles, camera_tile_chunk
from pipeline.errors import UserError
from pipeline.inputs.image import ImageRecipe
from pipeline.tasks.spec import TaskSpec

_CHUNK_BYTES = 32 << 20  # of the pixels of one chunk: cameras of 40,000 pixels go in smaller chunks

NOT_FINITE = "the model gave no finite value"

#: Parameters of the cleaned image that go along with its predictions, as tiles name them.
SHOWN_PARAMETERS = ("hillas_intensity", "hillas_length", "hillas_width", "leakage_intensity_width_1")


@dataclass(frozen=True)
class HeadOfModel:
    """One head of a bundle: its columns, under a prefix of their own.

    Attributes
    ----------
    prefix : str
        Of the columns in DL2: letters, digits and underscores.
    spec : TaskSpec
    of_events : bool
        Whether the values are those of events: columns that telescopes alone have are then not shown.
    """

    prefix: str
    spec: TaskSpec
    of_events: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """What it predicts; the first decides whether a prediction is valid."""
        return tuple(column.name for column in self.spec.columns)

    @property
    def deciding(self) -> str:
        """The column that decides whether the prediction for an event is valid: that which telescopes average."""
        return next((c.name for c in self.spec.columns if c.dl2 and c.dl2.average), self.columns[0])

    @property
    def shown(self) -> tuple[str, ...]:
        """Those of the columns that users see."""
        columns = self.spec.shown
        if self.of_events:
            with_events = {c.dl2.group for c in columns if c.dl2 and c.dl2.average}
            columns = tuple(c for c in columns if c.dl2 is None or not with_events or c.dl2.group in with_events)
        return tuple(column.name for column in columns)


@dataclass(frozen=True)
class CameraModel:
    """A bundle for camera images, ready to use.

    Attributes
    ----------
    name : str
        As the card has it.
    predictor : Predictor
    heads : tuple of HeadOfModel
    recipe : ImageRecipe
        How images become tiles: cleaning, cuts, size.
    """

    name: str
    predictor: Predictor
    heads: tuple[HeadOfModel, ...]
    recipe: ImageRecipe

    @classmethod
    def of(cls, predictor: Predictor) -> "CameraModel":
        """Wrap an opened bundle."""
        card = predictor.card
        prefix = column_prefix(card.name)
        single = len(predictor.specs) == 1
        return cls(
            name=card.name,
            predictor=predictor,
            heads=tuple(
                HeadOfModel(prefix if single else f"{prefix}_{spec.name}", spec, predictor.takes == "telescopes")
                for spec in predictor.specs
            ),
            recipe=ImageRecipe.model_validate(card.input.recipe),
        )

    @property
    def of_events(self) -> bool:
        """Whether it takes whole events of several telescopes."""
        return self.predictor.takes == "telescopes"


class Preparations:
    """The images of a chunk as tiles, made once for all models with the same recipe."""

    def __init__(self, chunk: ImageChunk) -> None:
        self._chunk = chunk
        self._made: dict[ImageRecipe, CameraTiles] = {}

    def of(self, recipe: ImageRecipe) -> CameraTiles:
        """Tiles made by this recipe."""
        if recipe not in self._made:
            self._made[recipe] = camera_tile_chunk(self._chunk, recipe)
        return self._made[recipe]


def column_prefix(name: str) -> str:
    """`name` with all but letters, digits and underscores replaced, so that it can begin a column's name."""
    prefix = re.sub(r"\W", "_", name, flags=re.ASCII)
    return prefix if prefix.isidentifier() else f"m_{prefix}"


@dataclass(frozen=True)
class ImagePredictions:
    """The models' predictions for some images of one telescope, in the order of the file.

    Attributes
    ----------
    camera : str
        Name of the camera in the file.
    obs_id, event_id : ndarray, shape (n,)
    event_type : ndarray of int64, shape (n,)
        ctapipe's ``EventType``.
    is_triggered : ndarray of bool, shape (n,)
        False for images whose trigger is not in the file: DL2 has no place for them.
    size_pe : ndarray, shape (n,)
        Charge of the cleaned image [p.e.], the weight of the image among telescopes; NaN where no model took it.
    values : dict
        Prefix of a head -> column -> ndarray, shape (n,); NaN where it has no value.
    reasons : dict
        Prefix of a head -> ndarray of str, shape (n,): why the value is missing; empty where it is not.
    served : bool
        Whether at least one model, also of whole events, is for this camera.
    parameters : mapping
        Image parameter (`SHOWN_PARAMETERS`) -> ndarray, shape (n,); NaN where no model took the image.
    """

    camera: str
    tel_id: int
    obs_id: np.ndarray
    event_id: np.ndarray
    event_type: np.ndarray
    is_triggered: np.ndarray
    size_pe: np.ndarray
    values: dict[str, dict[str, np.ndarray]]
    reasons: dict[str, np.ndarray]
    served: bool
    parameters: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.event_id)

    @property
    def any_valid(self) -> np.ndarray:
        """Images for which at least one model has a value, shape (n,)."""
        return np.any([np.zeros(len(self), bool), *(reason == "" for reason in self.reasons.values())], axis=0)

    def joined_reasons(self) -> list[str]:
        """For each image, the reasons of all models without a value; empty where all have one."""
        columns = list(self.reasons.values())
        return ["; ".join(sorted({text for text in row if text})) for row in zip(*columns, strict=True)]

    def left_out(self) -> dict[str, int]:
        """Reason -> number of images for which at least one model gives it."""
        reasons = list(self.reasons.values())
        texts = {text for reason in reasons for text in reason.tolist() if text}
        return {text: int(np.any([reason == text for reason in reasons], axis=0).sum()) for text in sorted(texts)}


def chosen_images(
    file: DL1File,
    *,
    tel_ids: Collection[int] | None = None,
    event_ids: Collection[int] | None = None,
    chunk_images: int = 256,
) -> Iterator[ImageChunk]:
    """All images of `file`, or those of some telescopes and events, in chunks of bounded size.

    Raises
    ------
    UserError
        If a telescope or an event is not in the file.
    """
    if tel_ids is not None and (unknown := sorted(set(tel_ids) - set(file.tel_ids))):
        raise UserError(f"{file.path} has no images of telescope {unknown[0]}; it has those of {_listed(file.tel_ids)}")
    n_found = 0
    for chunk in file.chunks(_bounded(chunk_images, file), tel_ids=tel_ids, event_ids=event_ids):
        n_found += len(chunk)
        yield chunk
    if event_ids is not None and n_found == 0:
        raise UserError(_no_such_event(file, sorted(event_ids)[0], tel_ids))


def _bounded(chunk_images: int, file: DL1File) -> int:
    n_pixels = max((file.telescopes[tel_id].n_pixels for tel_id in file.tel_ids), default=1)
    return max(min(chunk_images, _CHUNK_BYTES // (4 * n_pixels)), 1)


def predict_chunk(
    chunk: ImageChunk,
    models: Sequence[CameraModel],
    prepared: Preparations | None = None,
    *,
    served: bool = False,
) -> ImagePredictions:
    """Predictions for the images of one telescope by models of single images.

    Parameters
    ----------
    chunk : ImageChunk
    models : sequence of CameraModel
    prepared : Preparations, optional
        Of the same chunk, to share them with others.
    served : bool
        Whether a model of whole events is for this camera.
    """
    prepared = prepared or Preparations(chunk)
    n = len(chunk)
    identity = chunk.camera.identity
    parameters = {name: np.full(n, np.nan) for name in SHOWN_PARAMETERS}
    values, reasons = {}, {}
    for model in models:
        predicted: dict[str, np.ndarray] = {}
        if model.predictor.serves(identity):
            batch, _, reason = prepared.of(model.recipe)
            kept = np.flatnonzero(reason == "")
            for name, column in parameters.items():
                column[kept] = batch.events[name]
            predicted = model.predictor.predict(batch) if len(kept) else {}
        else:
            unserved = f"{model.name} does not serve the camera {chunk.camera.name} ({identity})"
            reason, kept = np.where(chunk.left_out == "", unserved, chunk.left_out), []
        for head in model.heads:
            values[head.prefix] = {column: np.full(n, np.nan) for column in head.columns}
            reasons[head.prefix] = reason.copy()
            if predicted:
                for column in head.columns:
                    values[head.prefix][column][kept] = predicted[column]
                lost = kept[~np.isfinite(predicted[head.columns[0]])]
                reasons[head.prefix][lost] = NOT_FINITE
    return ImagePredictions(
        camera=chunk.camera.name,
        tel_id=chunk.tel_id,
        obs_id=chunk.obs_id,
        event_id=chunk.event_id,
        event_type=chunk.event_type,
        is_triggered=chunk.is_triggered,
        size_pe=parameters["hillas_intensity"],
        values=values,
        reasons=reasons,
        served=served or any(model.predictor.serves(identity) for model in models),
        parameters=parameters,
    )


def _no_such_event(file: DL1File, event_id: int, tel_ids: Collection[int] | None) -> str:
    """Why no image matched: not in the file, or not seen by that telescope."""
    seen_by, lowest, highest = [], None, None
    for tel_id in file.tel_ids:
        ids = file.index(tel_id)["event_id"]
        if len(ids):
            lowest = min(int(ids.min()), lowest if lowest is not None else int(ids.min()))
            highest = max(int(ids.max()), highest if highest is not None else int(ids.max()))
        if np.any(ids == event_id):
            seen_by.append(tel_id)
    if seen_by:
        return f"{file.path}: event {event_id} has no image of telescope {_listed(tel_ids)}; it has {_listed(seen_by)}"
    if lowest is None:
        return f"{file.path} has no images at all"
    if np.any(file.events.event_id == event_id):
        return f"{file.path}: event {event_id} has a trigger, but no image in the file"
    return f"{file.path} has no event {event_id}; its event ids go from {lowest} to {highest}"


def _listed(numbers: Collection[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))


def distinct(models: Sequence[CameraModel]) -> list[CameraModel]:
    """The same models; where names repeat, the prefixes get numbers, in the order given."""
    seen: Counter[str] = Counter()
    result = []
    for model in models:
        heads = []
        for head in model.heads:
            seen[head.prefix] += 1
            again = seen[head.prefix]
            heads.append(head if again == 1 else replace(head, prefix=f"{head.prefix}_{again}"))
        result.append(replace(model, heads=tuple(heads)))
    return result
