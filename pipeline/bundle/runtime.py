"""Use of a trained model: onnxruntime and numpy, no torch."""

from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from pydantic import ValidationError

from pipeline.bundle.card import ONNX_FILE, Card, HeadSection, load_bundle_card, resolve_bundle
from pipeline.bundle.files import check_bundle
from pipeline.errors import InputFileError, UserError
from pipeline.inputs.base import Range
from pipeline.tasks import get_decoder, get_spec
from pipeline.tasks.spec import Column
from pipeline.tiles.shards import TileBatch

if TYPE_CHECKING:
    import onnxruntime

# Images per call of the network: bounds the memory of its intermediate maps, whatever the caller's batch.
_MAX_IMAGES = 256


class Predictor:
    """A bundle's network in onnxruntime, with the preparation before it and the decoders of its heads after it.

    Attributes
    ----------
    card : Card
    specs : tuple of TaskSpec
        Of the heads, in their order.
    cameras : tuple of str
        Identities of the cameras that the model serves; empty for the sky.
    """

    def __init__(self, card: Card, session: "onnxruntime.InferenceSession") -> None:
        self.card = card
        self.specs = tuple(get_spec(task) for task in card.tasks)
        self._session = session
        self._decoders = {head.task: get_decoder(head.task) for head in card.heads}

    @classmethod
    def load(cls, path: str | Path, threads: int = 2) -> Self:
        """Open the bundle in directory `path`, or the one of that name that ships with lightpool.

        Raises
        ------
        UserError
            If there is no such bundle.
        InputFileError
            If it is incomplete: a file is missing, or not the one that the card was written for.
        """
        import onnxruntime

        directory = resolve_bundle(path)
        card = load_bundle_card(directory)
        check_bundle(directory, card)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Waiting threads sleep instead of spinning: other jobs share the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = onnxruntime.InferenceSession(
                str(directory / ONNX_FILE), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            if not _is_of_onnxruntime(error):
                raise
            raise InputFileError(
                f"{directory / ONNX_FILE} is no network that onnxruntime can load ({_first_line(error)}); copy the "
                "bundle again, or train it again"
            ) from error
        _check_graph(session, card, directory)
        return cls(card, session)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Columns of all heads."""
        return tuple(column for spec in self.specs for column in spec.columns)

    @property
    def size_multiple(self) -> int:
        """Height and width of a frame must be multiples of it."""
        return self.card.input.size_multiple or 1

    @property
    def ranges(self) -> tuple[Range, ...]:
        """What the training data covered."""
        return self.card.input.preparation.ranges

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
        try:
            outputs = self._session.run(["outputs"], arrays)[0]
        except Exception as error:
            if not _is_of_onnxruntime(error):
                raise
            raise UserError(f"the network of {self.card.name} cannot be computed ({_first_line(error)})") from error
        if outputs.shape[:2] != (len(batch), self.card.model.num_outputs):
            raise UserError(
                f"the network of {self.card.name} gives outputs of shape {outputs.shape} for {len(batch)} images, and "
                f"its card says {self.card.model.num_outputs} each; train it again"
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
        for head in self.card.heads:
            self._check_columns(head, batch.events)
        outputs = self.outputs(batch)
        decoded: dict[str, np.ndarray] = {}
        for head in self.card.heads:
            own = outputs[:, head.first : head.first + len(head.outputs)]
            decoder = self._decoders[head.task]
            values = decoder.decode(own, batch)
            if head.calibration is not None:
                factors = head.calibration.of(batch.events)
                values |= {name: values[name] * factors for name in decoder.uncertainties}
            decoded |= values
        return decoded

    def _check_columns(self, head: HeadSection, events: Mapping[str, np.ndarray]) -> None:
        needed = (*self._decoders[head.task].columns, *([head.calibration.column] if head.calibration else []))
        if missing := [name for name in needed if name not in events]:
            raise UserError(
                f"the head {head.task} of {self.card.name} also reads {', '.join(missing)}, which the tiles do not "
                "have; make them again with this version's `lightpool tiles`"
            )

    def flags(
        self, planes: Mapping[str, np.ndarray], dq: np.ndarray, noise: float, kept: np.ndarray | None = None
    ) -> np.ndarray:
        """DQ bits that the heads add to a frame, uint16; see `pipeline.tasks.interfaces.Decoder.flags`."""
        return reduce(np.bitwise_or, (decoder.flags(planes, dq, noise, kept) for decoder in self._decoders.values()))

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


def _is_of_onnxruntime(error: Exception) -> bool:
    """Whether the library raised it: it has exceptions of its own for each of its error codes."""
    return type(error).__module__.partition(".")[0] == "onnxruntime"


def _first_line(error: Exception) -> str:
    return f"{str(error).partition(chr(10))[0]:.200}"


def _check_graph(session: "onnxruntime.InferenceSession", card: Card, directory: Path) -> None:
    """Refuse a graph whose inputs or outputs are not those that the card describes."""
    expected = card.input.preparation.shapes(1, card.input.tile_shape)
    given = {entry.name: entry.shape for entry in session.get_inputs()}
    fits = set(given) == set(expected) and "outputs" in [entry.name for entry in session.get_outputs()]
    for name, shape in expected.items() if fits else ():
        # Sizes that are free have a name in place of a number.
        sizes = zip(given[name][1:], shape[1:], strict=False)
        fits &= len(given[name]) == len(shape) and all(size == n for size, n in sizes if isinstance(size, int))
    if not fits:
        raise InputFileError(
            f"{directory / ONNX_FILE} takes {given}, and its card says {expected}; copy the bundle again"
        )
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
