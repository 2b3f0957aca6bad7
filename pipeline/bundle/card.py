"""`card.json`: everything that is known of a trained model, and all that its use needs besides the network."""

import hashlib
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import InputFileError, UserError
from pipeline.preparation import Preparation

FORMAT_NAME = "lightpool-bundle"
FORMAT_VERSION = 1

CARD_FILE = "card.json"
WEIGHTS_FILE = "weights.safetensors"
ONNX_FILE = "model.onnx"
README_FILE = "MODEL_CARD.md"


class CardSection(BaseModel):
    """A part of the card; unknown keys are errors, for a newer card may mean something else."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSection(CardSection):
    """The network."""

    name: str
    kwargs: dict[str, Any]
    in_chans: int
    num_outputs: int
    n_scalars: int
    n_parameters: int


class CameraSection(CardSection):
    """A camera that the model serves, by its geometry; the name is for readers."""

    identity: str
    name: str = ""


class InputSection(CardSection):
    """What goes in, from the raw image on.

    `tile` is what made the tiles (mapping, cleaning, cuts, tile size), as the shards state it: prediction repeats it.
    """

    layout: Literal["grid"] = "grid"
    channels: tuple[str, ...]
    units: tuple[str, ...]
    tile_shape: tuple[int, int]
    tile: Any = None
    unit: str | None = None
    preparation: Preparation
    stride: int | None = None
    """Height and width of a frame must be multiples of it; None where the tile shape is fixed."""


class OutputColumn(CardSection):
    """One predicted quantity."""

    name: str
    unit: str
    description: str = ""


class OutputSection(CardSection):
    """What comes out: the network's outputs by name, and the columns that the task's decoder makes of them."""

    outputs: tuple[str, ...]
    transform: str
    columns: tuple[OutputColumn, ...]


class ManifestSection(CardSection):
    """A training set."""

    name: str
    sha256: str
    counts: dict[str, dict[str, int]]


class OriginSection(CardSection):
    """The bundle whose weights a training started from."""

    name: str
    sha256: str


class TrainingSection(CardSection):
    """How the weights came about.

    `images_per_cpu_s` counts the training images alone, over all threads; None where an accelerator computed.
    """

    config: dict[str, Any]
    manifests: tuple[ManifestSection, ...]
    seed: int
    threads: int
    device: str
    precision: str
    epochs: int
    best_epoch: int
    n_images: int
    wall_time_s: float
    images_per_cpu_s: float | None = None
    origin: OriginSection | None = None
    versions: dict[str, str]


class Card(CardSection):
    """The whole card.

    `validation` holds metrics of the split that chose the best epoch, so they are slightly too good; test metrics are
    in the output of `lightpool evaluate`.
    """

    format: Literal["lightpool-bundle"] = FORMAT_NAME
    format_version: Literal[1] = FORMAT_VERSION
    name: str
    tasks: tuple[str, ...]
    kind: Literal["camera", "sky"]
    model: ModelSection
    cameras: tuple[CameraSection, ...] = ()
    input: InputSection
    output: OutputSection
    training: TrainingSection
    validation: dict[str, float | None]
    limits: tuple[str, ...] = ()
    licence: str = "BSD-3-Clause"
    citation: str = ""
    bundle_sha256: str = ""

    @property
    def task(self) -> str:
        """The task, where there is one (all models of this version)."""
        return self.tasks[0]


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
    if path.is_dir():
        return path
    if str(name_or_path) in list_bundles():
        return bundles_directory() / name_or_path
    shipped = ", ".join(list_bundles()) or "none"
    raise UserError(
        f"there is no bundle {str(name_or_path)!r}: give a directory made by `lightpool train`, or the name of one "
        f"that ships with lightpool ({shipped})"
    )


def bundle_weights(path: str | Path) -> Path:
    """File of a bundle's weights: what training goes on from, and prediction does not need.

    Raises
    ------
    UserError
        If there is no such bundle.
    InputFileError
        If it has no weights.
    """
    file = resolve_bundle(path) / WEIGHTS_FILE
    if not file.is_file():
        raise InputFileError(f"the bundle {file.parent} has no {WEIGHTS_FILE}; copy it anew, or train it again")
    return file


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
    file = directory / CARD_FILE
    try:
        content = file.read_text()
    except OSError as error:
        raise InputFileError(
            f"{directory} is not a bundle: it has no readable {CARD_FILE}; give a directory made by `lightpool train`"
        ) from error
    try:
        return Card.model_validate_json(content)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise InputFileError(
            f"{file} cannot be read by this version of lightpool ({where}: {problem['msg']}); "
            "train the model anew or use the version that made it"
        ) from error


def bundle_sha256(path: str | Path) -> str:
    """Digest of a bundle's weights and ONNX graph: equal digests predict equally."""
    digest = hashlib.sha256()
    for name in (WEIGHTS_FILE, ONNX_FILE):
        with open(Path(path) / name, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def card_markdown(card: Card) -> str:
    """The card for human readers."""
    training, model = card.training, card.model
    metrics = [
        f"| {name} | {'not defined' if value is None else f'{value:.4g}'} |" for name, value in card.validation.items()
    ]
    columns = [f"| `{c.name}` | {c.unit or '-'} | {c.description} |" for c in card.output.columns]
    scalars = [entry.name for entry in card.input.preparation.scalar_statistics]
    cameras = [f"- {camera.name} ({camera.identity})" for camera in card.cameras]
    data = [
        f"- {m.name} (sha256 {m.sha256[:16]}): "
        + "; ".join(f"{split} {sum(counts.values())}" for split, counts in m.counts.items())
        for m in training.manifests
    ]
    lines = [
        f"# {card.name}",
        "",
        f"Task: {', '.join(card.tasks)} ({card.kind}). Bundle sha256: `{card.bundle_sha256}`.",
        "",
        "## Network",
        "",
        f"`{model.name}` with {model.kwargs or 'its default arguments'}, {model.n_parameters:,} parameters.",
        "",
        "## Input",
        "",
        f"Tiles of {card.input.tile_shape[0]} x {card.input.tile_shape[1]} px, channels "
        + ", ".join(f"{n} [{u or '-'}]" for n, u in zip(card.input.channels, card.input.units, strict=True))
        + ".",
        *(["Scalars joined to the image features: " + ", ".join(scalars) + "."] if scalars else []),
        *(["", "Cameras served:", "", *cameras] if cameras else []),
        "",
        "## Output",
        "",
        f"{card.output.transform}",
        "",
        "| column | unit | meaning |",
        "| --- | --- | --- |",
        *columns,
        "",
        "## Training",
        "",
        *(f"Started from the weights of {o.name} (sha256 {o.sha256[:16]}).\n" for o in [training.origin] if o),
        f"{training.n_images:,} images, {training.epochs} epochs (the weights are those of epoch "
        f"{training.best_epoch}), seed {training.seed}, {training.device} in {training.precision}, "
        f"{training.wall_time_s:.0f} s.",
        "",
        *data,
        "",
        "## Validation",
        "",
        "On the split that chose the best epoch; test results come from `lightpool evaluate`.",
        "",
        "| metric | value |",
        "| --- | --- |",
        *metrics,
        "",
        "## Limits",
        "",
        *(f"- {limit}" for limit in card.limits),
        "",
        "## Licence and citation",
        "",
        f"{card.licence}. {card.citation}",
    ]
    return "\n".join(lines).rstrip() + "\n"
