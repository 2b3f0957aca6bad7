"""`lightpool explain`: which parts of one event a trained network's prediction rests on."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.bundle.card import Card, HeadSection, load_bundle_card, resolve_bundle
from pipeline.config import Config
from pipeline.errors import InputFileError, UserError
from pipeline.files import atomic_output, check_free, source_name
from pipeline.filetypes import file_kind
from pipeline.logs import get_logger
from pipeline.stages.events import as_dl1
from pipeline.tasks import get_decoder, get_spec
from pipeline.text_tables import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from pipeline.camera.dl1 import ImageChunk
    from pipeline.tiles.shards import TileBatch

log = get_logger(__name__)

Picture = Literal["attribution", "features"]
PICTURES: tuple[Picture, ...] = ("attribution", "features")

# Characters of a title that fit above the figure.
_LINE = 120
_CAMERA_FILES = ("simtel", "dl1", "lstchain")
_PARTICLES = {0: "gamma", 1: "electron", 101: "proton"}


def explain(
    cfg: Config,
    bundle: str | Path,
    file: Path,
    *,
    event: int,
    telescope: int | None = None,
    head: str | None = None,
    out: Path | None = None,
    show: str = "attribution",
    force: bool = False,
) -> Path:
    """Draw the attribution of a network's first output for one image, or the feature maps of its layers.

    Parameters
    ----------
    cfg : Config
        `ingest` and `threads` are used.
    bundle : str or path
        Of a camera task, with its weights.
    file : path
        simtel, DL1 or lstchain file.
    event : int
    telescope : int, optional
        By default the telescope with the brightest image of the event.
    head : str, optional
        Task of the head whose first output is explained; by default the first head.
    out : path, optional
        PNG file; by default named after file, event, telescope and task, in the working directory.
    show : {"attribution", "features"}
        Tile, integrated gradients and Grad-CAM; or first filters and feature maps.
    force : bool
        Replace `out`.

    Returns
    -------
    Path
        The picture.

    Raises
    ------
    UserError
        If the bundle cannot be explained, the image is not there, or the bundle does not take it.
    """
    if show not in PICTURES:
        raise UserError(f"unknown picture {show!r}; accepted: {', '.join(PICTURES)}")
    if out is not None:
        _check_name(check_free(out, force=force))
    card = load_bundle_card(bundle)
    if card.generates:
        raise UserError(f"{card.name} generates images and judges none: there is nothing to explain")
    if card.wing != "camera":
        raise UserError(f"{card.name} restores frames; only networks with one answer per camera image are explained")
    if card.input.preparation.takes != "image":
        raise UserError(
            f"{card.name} answers for whole events; only networks with one answer per camera image are explained: give "
            "the bundle of single images that it started from"
        )
    chosen = card.head(head)
    chunk, batch = _image(cfg, card, Path(file), event, telescope)
    target = out or Path(f"{source_name(file)}_event{event}_tel{chunk.tel_id}_{chosen.task}_{show}.png")
    check_free(target, force=force)

    from pipeline.figures.style import save_figure

    with atomic_output(target, force=force) as temporary:
        save_figure(_draw(cfg, bundle, card, chosen, _which(file, chunk, card), chunk, batch, show), temporary)
    log.info("wrote %s", target)
    return target


def _draw(
    cfg: Config,
    bundle: str | Path,
    card: Card,
    head: HeadSection,
    which: str,
    chunk: "ImageChunk",
    batch: "TileBatch",
    show: str,
) -> "Figure":
    import torch

    from pipeline.bundle.export import load_network
    from pipeline.device import torch_threads

    with torch_threads(cfg.threads):
        network, _ = load_network(resolve_bundle(bundle))
        arrays = card.input.preparation.arrays(batch, card.input.channels)
        images = torch.from_numpy(arrays["images"])
        scalars = torch.from_numpy(arrays["scalars"]) if "scalars" in arrays else None
        title = f"{_answer(head, network, images, scalars, batch)}\n{which}"
        if show == "features":
            return _features_figure(title, card, network, images, scalars)
        return _attribution_figure(title, card, head, network, images, scalars, chunk, batch)


def _check_name(path: Path) -> None:
    if path.suffix.lower() != ".png":
        raise UserError(f"the picture is written as PNG, got --out {path}; end the name in .png")


# ---- the image -------------------------------------------------------------------------------------------------------
def _image(cfg: Config, card: Card, path: Path, event: int, telescope: int | None) -> "tuple[ImageChunk, TileBatch]":
    """The requested image, alone in its chunk, and its tile."""
    from pipeline.camera.dl1 import DL1File
    from pipeline.camera.predictions import chosen_images
    from pipeline.camera.tiling import camera_tile_chunk
    from pipeline.inputs.image import ImageRecipe

    kind = file_kind(path)
    if kind not in _CAMERA_FILES:
        raise InputFileError(f"{path} is not a file of camera images but {kind}; give simtel, DL1 or lstchain")
    event_types = cfg.ingest.camera.event_types
    with as_dl1(path, kind, cfg) as dl1_path, DL1File(dl1_path, event_types) as file:
        tel_ids = None if telescope is None else [telescope]
        first: dict[int, ImageChunk] = {}
        for chunk in chosen_images(file, tel_ids=tel_ids, event_ids=[event], chunk_images=1):
            # If several runs use the same event number, the first one in the file counts.
            first.setdefault(chunk.tel_id, chunk)
        found = list(first.values())
    served = [camera.identity for camera in card.cameras]
    taken = [chunk for chunk in found if chunk.camera.identity in served]
    if not taken:
        cameras = ", ".join(sorted({chunk.camera.name for chunk in found}))
        raise UserError(f"{card.name} does not serve the camera {cameras} of event {event}")
    chunk = max(taken, key=lambda chunk: float(np.nansum(chunk.image)))
    if len(taken) > 1:
        others = ", ".join(str(other.tel_id) for other in taken)
        log.info("event %d has %d images (telescopes %s); the brightest is telescope %d's; --telescope selects another",
                 event, len(taken), others, chunk.tel_id)  # fmt: skip
    batch, _, reason = camera_tile_chunk(chunk, ImageRecipe.model_validate(card.input.recipe))
    if reason[0]:
        raise UserError(f"{card.name} does not take event {event} of telescope {chunk.tel_id}: {reason[0]}")
    return chunk, batch


# ---- words -----------------------------------------------------------------------------------------------------------
def _answer(
    head: HeadSection, network: "nn.Module", images: "Tensor", scalars: "Tensor | None", batch: "TileBatch"
) -> str:
    """What the head predicts, and the truth if the file has it."""
    import torch

    with torch.no_grad():
        outputs = network(images, scalars).numpy()[:, head.first : head.first + len(head.outputs)]
    decoded = {name: float(values[0]) for name, values in get_decoder(head.task).decode(outputs, batch).items()}
    predicted = ", ".join(
        f"{column.name} {_value(decoded[column.name], column.unit)}"
        for column in get_spec(head.task).columns
        if not column.internal and np.isfinite(decoded[column.name])
    )
    predicted = textwrap.fill(predicted, _LINE)
    truth = {name: column[0] for name, column in batch.events.items() if name.startswith("true_")}
    if not truth:
        return predicted
    return f"{predicted} (true: {_particle(truth)} of {_value(truth['true_energy_tev'], 'TeV')})"


def _value(number: float, unit: str) -> str:
    return f"{number:.3g} {unit}".rstrip()


def _particle(truth: Mapping[str, Any]) -> str:
    code = int(truth["true_primary_id"])
    return _PARTICLES.get(code, f"particle {code}")


def _which(file: Path, chunk: "ImageChunk", card: Card) -> str:
    words = (
        f"{Path(file).name}, event {int(chunk.event_id[0])}, telescope {chunk.tel_id} ({chunk.camera.name}); "
        f"{card.model.name} of {card.name}"
    )
    return printable(words).replace("$", r"\$")  # between two of them, matplotlib expects a formula


# ---- pictures --------------------------------------------------------------------------------------------------------
def _attribution_figure(
    title: str,
    card: Card,
    head: HeadSection,
    network: "nn.Module",
    images: "Tensor",
    scalars: "Tensor | None",
    chunk: "ImageChunk",
    batch: "TileBatch",
) -> "Figure":
    from pipeline.bundle.attribution import attribute
    from pipeline.camera.mapping import tile_mapper
    from pipeline.figures.explanation import ChannelPicture, explanation

    empty = images.clone()
    empty[:, : len(card.input.preparation.raw_channels)] = 0  # maps of the axis remain: they tell no charge
    parts = attribute(network, images, scalars, output=head.first, empty=empty)
    quantity = get_spec(head.task).quantity
    names = card.input.preparation.scalar_names
    sums = (
        f"{quantity} is {parts.output:.3g}, for an empty image {parts.empty_output:.3g}; the parts below add up to the "
        f"difference within {abs(parts.missing):.1g}"
    ).replace("-", "−")
    return explanation(
        f"{title}\n{sums}",
        [
            ChannelPicture(name, unit, batch.images[0, k].astype(float), parts.images[k])
            for k, (name, unit) in enumerate(zip(card.input.channels, card.input.units, strict=True))
        ],
        half_width_deg=tile_mapper(chunk.camera, card.input.tile_shape[0]).half_width_deg,
        quantity=quantity,
        location=parts.location,
        location_layer=parts.location_layer,
        scalars=list(zip(names, parts.scalars.tolist(), strict=True)),
    )


def _features_figure(
    title: str,
    card: Card,
    network: "nn.Module",
    images: "Tensor",
    scalars: "Tensor | None",
) -> "Figure":
    from pipeline.bundle.attribution import features
    from pipeline.figures.explanation import LevelPicture, feature_maps

    try:
        found = features(network, images, scalars)
    except ValueError as error:
        raise UserError(f"{error}; take --show attribution") from error
    levels = [LevelPicture(level.layer, level.n_maps, level.indices.tolist(), level.maps) for level in found.levels]
    return feature_maps(title, card.input.preparation.channel_names, found.filters, levels)
