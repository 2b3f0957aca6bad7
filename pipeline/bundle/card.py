"""`card.json`: everything about a trained model that its use needs besides the network."""

import hashlib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, ValidationError, model_validator

from pipeline.bundle.calibration import Calibration
from pipeline.bundle.false_alarms import FalseAlarms
from pipeline.bundle.variance import FrameVariance
from pipeline.documents import read_json
from pipeline.errors import InputFileError, UserError
from pipeline.files import check_regular, is_directory
from pipeline.inputs import Input, restore_input
from pipeline.inputs.shower_frame import restore_recipe
from pipeline.provenance import sha256_file

FORMAT_NAME = "lightpool-bundle"
FORMAT_VERSION = 2

CARD_FILE = "card.json"
WEIGHTS_FILE = "weights.safetensors"
ONNX_FILE = "model.onnx"
README_FILE = "MODEL_CARD.md"
#: Of a network for events: graph of the encoder of each camera, in the order of the card; model.onnx is then the join.
ENCODER_FILE = "encoder_{number}.onnx"
#: Of a network for events: bundle of the network for single images that the encoder of a camera started from.
MONO_FOLDER = "mono_{number}"


class CardSection(BaseModel):
    """A part of the card; unknown keys are errors, because a newer card may differ in meaning."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelSection(CardSection):
    """The network.

    Attributes
    ----------
    receptive_field_px : int, optional
        Of a network of frames: side of the square that one output pixel depends on.
    """

    name: str
    kwargs: dict[str, Any]
    in_chans: int
    num_outputs: int
    n_scalars: int
    n_parameters: int
    receptive_field_px: int | None = None


class CameraSection(CardSection):
    """A camera that the model serves, by its geometry; the name is for readers."""

    identity: str
    name: str = ""


_Side = Annotated[int, Field(ge=1, le=8192)]


class InputSection(CardSection):
    """The input, from the raw image on.

    Attributes
    ----------
    channels, units : tuple of str
        Of the raw tiles.
    tile_shape : (int, int)
        Of the training tiles (H, W).
    recipe : dict
        How the tiles were made, from the shards: a format of its own with a version, see `pipeline.inputs`.
        Prediction repeats it.
    unit : str, optional
        Of a frame's pixels.
    preparation : Input
        From raw tiles to the network's arrays, as it was fitted.
    size_multiple : int, optional
        Height and width of a frame must be multiples of it; None where the tile shape is fixed.
    """

    channels: tuple[str, ...]
    units: tuple[str, ...]
    tile_shape: tuple[_Side, _Side]
    recipe: dict[str, Any] | None = None
    unit: str | None = None
    preparation: Annotated[SerializeAsAny[Input], BeforeValidator(restore_input)]
    size_multiple: _Side | None = None


class OutputColumn(CardSection):
    """One predicted quantity."""

    name: str
    unit: str
    description: str = ""


class HeadSection(CardSection):
    """One head: its task, which of the network's outputs are its own, and the columns that the decoder makes of them.

    Attributes
    ----------
    task : str
    first : int
        Number of its first output among those of the network.
    outputs : tuple of str
    options : dict
        Of the head, as in the experiment.
    transform : str
    columns : tuple of OutputColumn
    calibration : Calibration, optional
        Of the head's uncertainties.
    false_alarms : FalseAlarms, optional
        Of the head's flags.
    variance : FrameVariance, optional
        Of the head's uncertainties of pixels.
    """

    task: str
    first: int
    outputs: tuple[str, ...]
    options: dict[str, Any] = {}
    transform: str
    columns: tuple[OutputColumn, ...]
    calibration: Calibration | None = None
    false_alarms: FalseAlarms | None = None
    variance: FrameVariance | None = None


class ManifestSection(CardSection):
    """A training set."""

    name: str
    sha256: str
    counts: dict[str, dict[str, int]]


class GroupsSection(CardSection):
    """A sample of the showers or fields that were trained on (`pipeline.tiles.trained`)."""

    largest_key: Annotated[int, Field(ge=0, lt=2**64)]
    marks: tuple[str, ...]


class OriginSection(CardSection):
    """A bundle whose weights a training started from."""

    name: str
    sha256: str


class TrainingSection(CardSection):
    """How the weights were trained.

    `images_per_cpu_s` counts the training images alone, over all threads; None on an accelerator, and of several
    processes that trained together, `ranks`.
    """

    config: dict[str, Any]
    manifests: tuple[ManifestSection, ...]
    seed: int
    threads: int
    device: str
    ranks: int = 1
    precision: str
    epochs: int
    best_epoch: int
    n_images: int
    wall_time_s: float
    images_per_cpu_s: float | None = None
    origins: tuple[OriginSection, ...] = ()
    groups: GroupsSection | None = None
    versions: dict[str, str]


class Measured(CardSection):
    """A metric, or a difference of two, with the 95 % limits of its bootstrap; None where it is not defined."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


class EvaluationSection(CardSection):
    """What `lightpool evaluate` found for one head, on the test split.

    Attributes
    ----------
    task : str
    manifests : tuple of str
        Names of the data sets.
    n, n_groups : int
        Items, and the independent showers or fields that they belong to.
    metrics : dict
        Name -> value of the network.
    baselines, differences : dict
        Baseline -> name -> its value, and network - baseline on the same items.
    pull_median, pull_width : float, optional
        Of the stated uncertainties.
    """

    task: str
    manifests: tuple[str, ...]
    n: int
    n_groups: int
    metrics: dict[str, Measured]
    baselines: dict[str, dict[str, Measured]] = {}
    differences: dict[str, dict[str, Measured]] = {}
    pull_median: float | None = None
    pull_width: float | None = None


class Card(CardSection):
    """The whole card.

    `validation` holds metrics of the split that chose the best epoch, so they are slightly too good; test metrics are
    in the output of `lightpool evaluate`, and in `evaluations` of a bundle that ships, as are its `purpose` and its
    known `failures` (`pipeline.bundle.shipping`). `mono` are the bundles within this one, for events with a single
    image: one per camera, or none. `weights_sha256` is the digest of weights that are left out of the bundle.
    """

    format: Literal["lightpool-bundle"] = FORMAT_NAME
    format_version: Literal[2] = FORMAT_VERSION
    name: str
    network: str
    wing: Literal["camera", "sky"]
    model: ModelSection
    cameras: tuple[CameraSection, ...] = ()
    input: InputSection
    heads: tuple[HeadSection, ...] = Field(min_length=1)
    mono: tuple[OriginSection, ...] = ()
    training: TrainingSection
    validation: dict[str, float | None]
    limits: tuple[str, ...] = ()
    purpose: str = ""
    failures: tuple[str, ...] = ()
    evaluations: tuple[EvaluationSection, ...] = ()
    licence: str = "BSD-3-Clause"
    citation: str = ""
    bundle_sha256: str = ""
    weights_sha256: str = Field(default="", pattern="^([0-9a-f]{64})?$")

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        """Refuse a card whose parts contradict each other: its network would be fed or read wrongly."""
        model, given, preparation = self.model, self.input, self.input.preparation
        n_outputs = 0
        for head in self.heads:
            if head.first != n_outputs or not head.outputs:
                raise ValueError(f"the outputs of the head {head.task} do not follow those of the heads before")
            n_outputs += len(head.outputs)
        facts = {
            "outputs of the heads and of the network": (n_outputs, model.num_outputs),
            "names and units of channels": (len(given.channels), len(given.units)),
            "channels of the input and of the network": (preparation.n_channels, model.in_chans),
            "scalars of the input and of the network": (len(preparation.scalar_names), model.n_scalars),
            "wing of the input and of the card": (preparation.wing, self.wing),
        }
        if preparation.takes == "telescopes":
            identities = [camera.identity for camera in self.cameras]
            facts["cameras of the input and of the card"] = (list(preparation.cameras), identities)
            facts["cameras and networks for their single images"] = (len(self.mono) or len(identities), len(identities))
        for what, (got, expected) in facts.items():
            if got != expected:
                raise ValueError(f"{what} differ: {got} and {expected}")
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError("two heads have the same task")
        if missing := [name for name in preparation.raw_channels if name not in given.channels]:
            raise ValueError(f"the input lacks the channel {missing[0]}")
        if self.wing == "camera":
            side = restore_recipe(given.recipe).size_px
            if given.tile_shape != (side, side):
                raise ValueError(f"the recipe makes tiles of {side} px, and the input takes {given.tile_shape}")
        return self

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks of the heads, in their order."""
        return tuple(head.task for head in self.heads)

    @property
    def of_events(self) -> bool:
        """Whether it takes whole events of several telescopes."""
        return self.input.preparation.takes == "telescopes"

    @property
    def generates(self) -> bool:
        """Whether it makes images, instead of judging them."""
        return self.input.preparation.generates

    @property
    def made_for(self) -> str:
        """What it may be applied to, in words."""
        if self.wing == "sky":
            return "FITS frames"
        names = ", ".join(camera.name or camera.identity for camera in self.cameras)
        return f"{names}, {'events of several telescopes' if self.of_events else 'one telescope'}"

    @property
    def output_names(self) -> tuple[str, ...]:
        """All outputs of the network, as TASK.OUTPUT."""
        return tuple(f"{head.task}.{name}" for head in self.heads for name in head.outputs)

    def head(self, task: str | None = None) -> HeadSection:
        """The head for `task`; by default the first one.

        Raises
        ------
        UserError
            If the model has no such head.
        """
        found = [head for head in self.heads if task in (None, head.task)]
        if not found:
            raise UserError(f"{self.name} has no head {task!r}; it has {', '.join(self.tasks)}")
        return found[0]


def bundles_directory() -> Path:
    """Where the bundles that ship with lightpool are."""
    return Path(str(resources.files("pipeline") / "data" / "bundles"))


def list_bundles() -> list[str]:
    """Names of the bundles that ship with lightpool."""
    return sorted(path.parent.name for path in bundles_directory().glob(f"*/{CARD_FILE}"))


def resolve_bundle(name_or_path: str | Path) -> Path:
    """Directory of a bundle, from its path or from the name of one that ships.

    Raises
    ------
    UserError
        If there is neither; the message lists what ships.
    """
    path = Path(name_or_path)
    if is_directory(path):
        return path
    if str(name_or_path) in list_bundles():
        return bundles_directory() / name_or_path
    shipped = ", ".join(list_bundles()) or "none"
    raise UserError(
        f"there is no bundle {str(name_or_path)!r}: give a directory made by `lightpool train`, or the name of one "
        f"that ships with lightpool ({shipped})"
    )


def bundle_weights(path: str | Path) -> Path:
    """File of a bundle's weights: another training can start from them, prediction does not need them.

    It is the graph of a bundle that ships without them, which may hold them.

    Raises
    ------
    UserError
        If there is no such bundle.
    InputFileError
        If it has no weights.
    """
    directory = resolve_bundle(path)
    left_out = not (directory / WEIGHTS_FILE).exists() and load_bundle_card(directory).weights_sha256
    return bundle_file(directory, ONNX_FILE if left_out else WEIGHTS_FILE)


def bundle_file(directory: Path, name: str) -> Path:
    """A file of the bundle in `directory`: a regular one, inside it.

    Raises
    ------
    InputFileError
        If it is missing, or a link that leads out of the bundle.
    """
    file = directory / name
    if not file.exists():
        raise InputFileError(
            f"the bundle {directory} is incomplete: it has no {name}; copy it again, or train it again"
        )
    if not file.resolve().is_relative_to(directory.resolve()):
        raise InputFileError(f"{file} is a link out of the bundle; copy the bundle with its files (cp -rL)")
    return check_regular(file)


def load_bundle_card(path: str | Path) -> Card:
    """Read the card of the bundle in directory `path` (or of the name of one that ships).

    Raises
    ------
    UserError
        If there is no such bundle.
    InputFileError
        If it has no card, or one that this version cannot read.
    """
    directory = resolve_bundle(path)
    try:
        file = bundle_file(directory, CARD_FILE)
    except (OSError, InputFileError) as error:
        raise InputFileError(
            f"{directory} is not a bundle: it has no readable {CARD_FILE}; give a directory made by `lightpool train`"
        ) from error
    advice = "train the model again or use the version that made it"
    try:
        content = read_json(file, "a card")
    except InputFileError as error:
        raise InputFileError(f"{file} cannot be read by this version of lightpool ({error}); {advice}") from error
    _check_version(file, content.get("format_version"))
    try:
        return Card.model_validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise InputFileError(
            f"{file} cannot be read by this version of lightpool ({where}: {problem['msg']:.200}); {advice}"
        ) from error


def _check_version(file: Path, version: Any) -> None:
    """Refuse a bundle of an older or newer format with a clear message, before its keys are checked."""
    if type(version) is int and version != FORMAT_VERSION:  # the schema refuses anything but a number
        advice = "train it again with `lightpool train`" if version < FORMAT_VERSION else "install a newer lightpool"
        raise InputFileError(f"{file} has bundle format {version}, and this version reads {FORMAT_VERSION}; {advice}")


def bundle_sha256(path: str | Path, weights_sha256: str = "") -> str:
    """Digest of a bundle's weights and ONNX graphs: those of equal digests compute the same outputs.

    Thresholds and calibrations, which stand in the card, are not covered. `weights_sha256` stands for weights that are
    left out.
    """
    digest = hashlib.sha256()
    encoders = sorted(file.name for file in Path(path).glob(ENCODER_FILE.format(number="*")))
    for name in (WEIGHTS_FILE, ONNX_FILE, *encoders):
        left_out = weights_sha256 if name == WEIGHTS_FILE else ""
        digest.update(bytes.fromhex(left_out or sha256_file(check_regular(Path(path) / name))))
    return digest.hexdigest()
