"""Use of a trained model: onnxruntime or another backend, and numpy; no torch."""

import copy
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import ValidationError

from pipeline.bundle.agreement import disagreement
from pipeline.bundle.backends import (
    Backend,
    Choice,
    GraphError,
    Name,
    NoDeviceError,
    Precision,
    candidates,
    multiplies_bfloat16,
    open_graph,
)
from pipeline.bundle.card import (
    ENCODER_FILE,
    MONO_FOLDER,
    ONNX_FILE,
    Card,
    HeadSection,
    load_bundle_card,
    resolve_bundle,
)
from pipeline.bundle.files import check_bundle, graph_files
from pipeline.bundle.rates import thresholds_of
from pipeline.errors import InputFileError, UserError
from pipeline.inputs.frame import row_blocks
from pipeline.inputs.population import Population
from pipeline.inputs.shower import N_PLACES, members_of, places_of
from pipeline.logs import get_logger
from pipeline.tasks import get_decoder, get_spec
from pipeline.tasks.interfaces import REACH_PX
from pipeline.tasks.spec import Column
from pipeline.tiles.events import starts_of
from pipeline.tiles.shards import TileBatch

log = get_logger(__name__)

# Images per call of the network: bounds the memory of its intermediate maps, whatever the caller's batch.
_MAX_IMAGES = 256
_MAX_EVENTS = 4096


class Predictor:
    """A bundle's network in a backend, with the preparation before it and the decoders of its heads after it.

    `load` gives an `EventPredictor` for a network of whole events.

    Attributes
    ----------
    card : Card
    specs : tuple of TaskSpec
        Of the heads, in their order.
    cameras : tuple of str
        Identities of the cameras that the model serves; empty for the sky.
    backend : Backend
        What computes its graph.
    asked_for : {"auto", "onnxruntime", "openvino", "cuda"}
        As it was chosen.
    """

    takes: ClassVar[Literal["image", "telescopes"]] = "image"
    asked_for: Choice = "onnxruntime"

    def __init__(self, card: Card, graph: Backend) -> None:
        self.card = card
        self.specs = tuple(get_spec(task) for task in card.tasks)
        self.backend = graph
        self._decoders = {head.task: get_decoder(head.task) for head in card.heads}
        self.heads: tuple[HeadSection, ...] = card.heads
        self._thresholds, self.warnings = thresholds_of(card.name, self.heads)

    @classmethod
    def load(cls, path: str | Path, threads: int = 2, backend: Choice = "onnxruntime") -> Self:
        """Open the bundle in directory `path`, or the one of that name that ships with lightpool.

        Parameters
        ----------
        path : str or path
        threads : int
            Of the processor.
        backend : {"auto", "onnxruntime", "openvino", "cuda"}
            See `pipeline.bundle.backends.candidates`. OpenVINO computes in bfloat16 where the processor does and
            `pipeline.bundle.agreement` accepts the result; else in float32, if it was asked for.

        Raises
        ------
        UserError
            If there is no such bundle, or the backend is not there.
        InputFileError
            If it is incomplete: a file is missing, or not the one that the card was written for.
        """
        directory = resolve_bundle(path)
        card = load_bundle_card(directory)
        if card.generates:
            raise UserError(
                f"{card.name} generates images and predicts nothing of those that are there; use it with `lightpool "
                f"simulate images --bundle {path}`"
            )
        check_bundle(directory, card)
        _check_heads(card, directory)
        predictor = cls._opened_in(candidates(backend, card.wing), directory, card, threads)
        predictor.asked_for = backend
        return predictor

    @classmethod
    def _opened_in(cls, names: Sequence[Name], directory: Path, card: Card, threads: int) -> Self:
        *better, last = names
        for name in better:
            with suppress(NoDeviceError):
                if (predictor := cls._opened_well(directory, card, threads, name)) is not None:
                    return predictor
        return cls._opened_well(directory, card, threads, last) or cls._opened(directory, card, threads, last)

    @classmethod
    def _opened_well(cls, directory: Path, card: Card, threads: int, name: Name) -> Self | None:
        """In OpenVINO only with bfloat16; None if the processor or the result is not good enough for that."""
        if name != "openvino":
            return cls._opened(directory, card, threads, name)
        if not multiplies_bfloat16():
            return None
        fast = cls._opened(directory, card, threads, "openvino", "bfloat16")
        difference = disagreement(cls._opened(directory, card, threads), fast)
        if difference is None:
            return fast
        log.info("%s is not computed in bfloat16: %s", card.name, difference)
        return None

    @classmethod
    def _opened(
        cls, directory: Path, card: Card, threads: int, name: Name = "onnxruntime", precision: Precision = "float32"
    ) -> Self:
        graph, *encoders = (open_graph(directory / file, threads, name, precision) for file in graph_files(card))
        if not encoders:
            _check_graph(graph, card.input.preparation.shapes(1, card.input.tile_shape), directory / ONNX_FILE)
            return cls(card, graph)
        mono = {}
        for number, (camera, section) in enumerate(zip(card.cameras, card.mono, strict=False)):
            predictor = Predictor.load(directory / MONO_FOLDER.format(number=number), threads, name)
            if predictor.card.bundle_sha256 != section.sha256 or not predictor.serves(camera.identity):
                raise InputFileError(
                    f"{directory / MONO_FOLDER.format(number=number)} is not the bundle that the card of {directory} "
                    "names for single images; copy the bundle again"
                )
            mono[camera.identity] = predictor
        return EventPredictor(card, graph, encoders, mono, directory)

    def set_up(self, only: str | None = None, fpr: float | None = None) -> Self:
        """The same model with one of its heads alone, or with another rate of false alarms.

        Parameters
        ----------
        only : str, optional
            Task of the head.
        fpr : float, optional
            Share of the good pixels on empty sky that may be flagged; other places have rates in proportion, see
            `pipeline.tasks.interfaces.Decoder.rates`.

        Raises
        ------
        UserError
            If there is no such head, or none that flags by a rate, or the card's table does not reach that rate.
        """
        chosen = copy.copy(self)
        if only is not None:
            chosen.heads = (self.card.head(only),)
            chosen.specs = (get_spec(only),)
        chosen._thresholds, chosen.warnings = thresholds_of(self.card.name, chosen.heads, fpr)
        return chosen

    @property
    def lines(self) -> dict[str, int]:
        """Columns of logits whose straight lines are flagged across a whole frame -> DQ bit."""
        return {column: bit for head in self.heads for column, bit in self._decoders[head.task].lines.items()}

    @property
    def correlations(self) -> dict[int, float]:
        """Side of a square window of restored sky [px] -> what its sum varies by; see `pipeline.bundle.variance`."""
        return {size: k for head in self.heads if head.variance for size, k in head.variance.correlations.items()}

    @property
    def receptive_field_px(self) -> int | None:
        """Of a network of frames: side of the square that one pixel depends on; None where the card does not say."""
        return self.card.model.receptive_field_px

    @property
    def columns(self) -> tuple[Column, ...]:
        """Columns of all heads."""
        return tuple(column for spec in self.specs for column in spec.columns)

    @property
    def size_multiple(self) -> int:
        """Height and width of a frame must be multiples of it."""
        return self.card.input.size_multiple or 1

    @property
    def population(self) -> Population | None:
        """What the training frames were like; None where that is not known, and for the camera."""
        return getattr(self.card.input.preparation, "population", None)

    @property
    def cameras(self) -> tuple[str, ...]:
        """Identities of the cameras served."""
        return tuple(camera.identity for camera in self.card.cameras)

    def serves(self, camera_identity: str) -> bool:
        """Whether images of this camera may be given to the model."""
        return camera_identity in self.cameras

    def outputs(self, batch: TileBatch) -> np.ndarray:
        """Bare network outputs, shape (N, K) or (N, K, H, W), float32."""
        self._check_shape(batch.images.shape)
        parts = [
            self._run(batch.select(slice(start, start + _MAX_IMAGES))) for start in range(0, len(batch), _MAX_IMAGES)
        ]
        if not parts:
            maps = batch.images.shape[2:] if self.specs[0].gives == "map" else ()
            return np.empty((0, self.card.model.num_outputs, *maps), np.float32)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run(self, batch: TileBatch) -> np.ndarray:
        arrays = self.card.input.preparation.arrays(batch, self.card.input.channels)
        return self._checked(self._compute(self.backend, arrays), len(batch))

    def _compute(self, graph: Backend, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        try:
            return graph.run(arrays)
        except GraphError as error:
            raise UserError(f"the network of {self.card.name} cannot be computed ({error})") from error

    def _checked(self, outputs: np.ndarray, n: int) -> np.ndarray:
        if outputs.shape[:2] != (n, self.card.model.num_outputs):
            raise UserError(
                f"the network of {self.card.name} gives outputs of shape {outputs.shape} for {n} items, and its card "
                f"says {self.card.model.num_outputs} each; train it again"
            )
        return outputs

    def predict(self, batch: TileBatch) -> dict[str, np.ndarray]:
        """Physical values of the columns of all heads.

        Parameters
        ----------
        batch : TileBatch
            Tiles as `lightpool tiles` makes them. Camera: the event columns that `card.input.preparation.columns`
            names. Sky: columns `level` and `noise`, masks where there are any; height and width may be any
            multiples of `card.input.size_multiple`.

        Returns
        -------
        dict of ndarray
            By column name, shape (N,) for the camera, (N, H, W) for the sky.

        Raises
        ------
        UserError
            If the tiles do not fit the model.
        """
        items = self.card.input.preparation.items(batch)
        for head in self.heads:
            self._check_columns(head, items.events)
        return self.decode(self.outputs(batch), items)

    def decode(self, outputs: np.ndarray, items: TileBatch) -> dict[str, np.ndarray]:
        """Physical values from the bare outputs (N, K) or (N, K, H, W), and what they belong to."""
        if outputs.ndim == 2:
            return self._decoded(outputs, items)
        n_tiles, _, height, width = outputs.shape
        planes: dict[str, np.ndarray] = {}
        for rows in row_blocks(height, n_tiles * width):
            around = slice(max(rows.start - REACH_PX, 0), min(rows.stop + REACH_PX, height))
            values = self._decoded(outputs[:, :, around], items.rows(around))
            inner = slice(rows.start - around.start, rows.stop - around.start)
            for name, plane in values.items():
                if name not in planes:
                    planes[name] = np.empty((n_tiles, height, width), plane.dtype)
                planes[name][:, rows] = plane[:, inner]
        return planes

    def _decoded(self, outputs: np.ndarray, items: TileBatch) -> dict[str, np.ndarray]:
        decoded: dict[str, np.ndarray] = {}
        for head in self.heads:
            own = outputs[:, head.first : head.first + len(head.outputs)]
            decoder = self._decoders[head.task]
            by_rate = decoder.decodes_by_rate and head.task in self._thresholds
            given = {"thresholds": self._thresholds[head.task]} if by_rate else {}
            values = decoder.decode(own, items, **given)
            if head.calibration is not None:
                factors = head.calibration.of(items.events)
                values |= {name: values[name] * factors for name in decoder.uncertainties}
            if head.variance is not None:
                traits = decoder.traits(values, items)
                scaled = {n: head.variance.scaled(values[n], decoder.strata, traits) for n in decoder.uncertainties}
                values |= scaled
            decoded |= values
        return decoded

    def _check_columns(self, head: HeadSection, events: Mapping[str, np.ndarray]) -> None:
        needed = self._decoders[head.task].columns_of(len(head.outputs))
        needed += (head.calibration.column,) if head.calibration else ()
        if missing := [name for name in needed if name not in events]:
            raise UserError(
                f"the head {head.task} of {self.card.name} also reads {', '.join(missing)}, which the tiles do not "
                "have; make them again with this version's `lightpool tiles`"
            )

    def flags(
        self,
        planes: Mapping[str, np.ndarray],
        dq: np.ndarray,
        noise: float,
        kept: np.ndarray | None = None,
        *,
        unless_sure: bool = False,
    ) -> np.ndarray:
        """DQ bits that the heads add to a frame, uint16; see `pipeline.tasks.interfaces.Decoder.flags`."""
        found = []
        for head in self.heads:
            given = {"thresholds": self._thresholds[head.task]} if head.task in self._thresholds else {}
            found.append(self._decoders[head.task].flags(planes, dq, noise, kept, unless_sure=unless_sure, **given))
        return reduce(np.bitwise_or, found)

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        card = self.card.input
        if shape[1] != len(card.channels):
            raise UserError(
                f"{self.card.name} takes tiles of {len(card.channels)} channels ({', '.join(card.channels)}), "
                f"got {shape[1]}"
            )
        height, width = shape[2:]
        if card.size_multiple is None:
            if (height, width) != card.tile_shape:
                expected = f"{card.tile_shape[0]} x {card.tile_shape[1]} px"
                raise UserError(f"{self.card.name} takes tiles of {expected}, got {height} x {width}")
        elif height % card.size_multiple or width % card.size_multiple or not (height and width):
            raise UserError(
                f"{self.card.name} takes frames whose height and width are multiples of {card.size_multiple} px, "
                f"got {height} x {width}; pad the frame"
            )


class EventPredictor(Predictor):
    """A bundle's network for whole events: encoders for images, and a join of the telescopes.

    Attributes
    ----------
    mono : dict
        Identity of a camera -> predictor of its single images, from the same bundle; empty if that holds none.
    max_telescopes : int or None
        Most images of an event that the join takes; None: any number.
    """

    takes: ClassVar[Literal["image", "telescopes"]] = "telescopes"

    def __init__(
        self,
        card: Card,
        join: Backend,
        encoders: Sequence[Backend],
        mono: Mapping[str, Predictor],
        directory: Path,
    ) -> None:
        super().__init__(card, join)
        self._encoders, self.mono = tuple(encoders), dict(mono)
        width = join.inputs.get("vectors", (None,))[-1] or 1
        for number, encoder in enumerate(self._encoders):
            expected = card.input.preparation.shapes(1, card.input.tile_shape)
            _check_graph(encoder, expected, directory / ENCODER_FILE.format(number=number))
        table = {"vectors": (1, width), "members": (1, 1), "places": (1, N_PLACES)}
        _check_graph(join, table, directory / ONNX_FILE, free=("members",))
        self.max_telescopes: int | None = join.inputs["members"][1]

    def encode(self, batch: TileBatch, camera: str) -> np.ndarray:
        """A vector per image of one camera, (M, W), float32: all that the join needs of its pixels."""
        self._check_shape(batch.images.shape)
        given = self.card.input.preparation
        number = list(given.cameras).index(camera)
        parts = []
        for start in range(0, len(batch), _MAX_IMAGES):
            part = batch.select(slice(start, start + _MAX_IMAGES))
            arrays = given.cameras[camera].arrays(part, self.card.input.channels)
            parts.append(self._compute(self._encoders[number], arrays))
        return np.concatenate(parts) if parts else np.empty((0, self._width), np.float32)

    @property
    def _width(self) -> int:
        return self.backend.inputs["vectors"][1]

    def join(self, vectors: np.ndarray, batch: TileBatch) -> np.ndarray:
        """Bare outputs (N, K) of whole events from the vectors (M, W) of their images.

        Parameters
        ----------
        vectors : ndarray, shape (M, W)
            Of `encode`, in the order of the batch.
        batch : TileBatch
            Whole events; pixels are not read.

        Raises
        ------
        UserError
            If an event has more images than the network takes.
        """
        ends = [*starts_of(batch)[::_MAX_EVENTS].tolist(), len(batch)]
        parts = []
        for start, stop in pairwise(ends):
            here = slice(start, stop)
            part = batch.select(here)
            arrays = {"vectors": vectors[here], "members": self._table(part), "places": places_of(part)}
            parts.append(self._checked(self._compute(self.backend, arrays), len(arrays["members"])))
        return np.concatenate(parts) if parts else np.empty((0, self.card.model.num_outputs), np.float32)

    def _table(self, batch: TileBatch) -> np.ndarray:
        members = members_of(batch)
        if self.max_telescopes is None:
            return members
        if members.shape[1] > self.max_telescopes:
            raise UserError(
                f"{self.card.name} takes events of up to {self.max_telescopes} images, and one has {members.shape[1]}; "
                "use a network whose join takes any number (stereo_mean, stereo_attention)"
            )
        return np.pad(members, ((0, 0), (0, self.max_telescopes - members.shape[1])), constant_values=-1)

    def outputs(self, batch: TileBatch) -> np.ndarray:
        """Bare network outputs of whole events, shape (N, K), float32."""
        cameras = self.cameras
        number = batch.events["camera"] if len(cameras) > 1 else np.zeros(len(batch), int)
        vectors = np.empty((len(batch), self._width), np.float32)
        for place, camera in enumerate(cameras):
            own = np.flatnonzero(number == place)
            vectors[own] = self.encode(batch.select(own), camera)
        return self.join(vectors, batch)


def _check_graph(
    graph: Backend,
    expected: Mapping[str, tuple[int, ...]],
    path: Path,
    free: Sequence[str] = (),
) -> None:
    """Refuse a graph whose inputs are not those that the card describes; only the rank of those in `free` counts."""
    given = graph.inputs
    fits = set(given) == set(expected) and "outputs" in graph.outputs
    for name, shape in expected.items() if fits else ():
        sizes = () if name in free else zip(given[name][1:], shape[1:], strict=False)
        fits &= len(given[name]) == len(shape) and all(size == n for size, n in sizes if size is not None)
    if not fits:
        raise InputFileError(f"{path} takes {given}, and its card says {dict(expected)}; copy the bundle again")


def _check_heads(card: Card, directory: Path) -> None:
    """Refuse a bundle whose heads have other outputs than those of this version's tasks."""
    for head in card.heads:
        spec = get_spec(head.task)
        try:
            outputs = spec.options.model_validate(head.options).outputs(spec.outputs)
        except ValidationError as error:
            raise InputFileError(f"{directory}: options of the head {head.task}: {error.errors()[0]['msg']}") from error
        if outputs != head.outputs:
            raise InputFileError(
                f"{directory}: the head {head.task} has the outputs {', '.join(head.outputs)}, and this version of "
                f"lightpool expects {', '.join(outputs)}"
            )
