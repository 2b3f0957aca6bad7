"""Write a trained network as a bundle (torch)."""

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from models import create_model, describe
from models.generative import ConvVAE
from models.registry import model_entry
from models.sequence import ShowerModel
from pipeline.bundle.card import (
    CARD_FILE,
    ENCODER_FILE,
    ONNX_FILE,
    README_FILE,
    WEIGHTS_FILE,
    Card,
    ModelSection,
    bundle_sha256,
    bundle_weights,
    load_bundle_card,
    resolve_bundle,
)
from pipeline.bundle.files import check_bundle, weights_of_graph
from pipeline.bundle.model_card import card_markdown
from pipeline.errors import InputFileError, UserError
from pipeline.inputs.shower import N_PLACES

# Largest difference between torch and onnxruntime that counts as rounding, relative to the largest output.
_TOLERANCE = 1e-4


def export_bundle(network: nn.Module, card: Card, directory: str | Path) -> Card:
    """Write weights, ONNX graph and card into `directory`, which must not hold a bundle yet.

    Parameters
    ----------
    network : nn.Module
        On any device; it is exported from the processor, in float32 and evaluation mode.
    card : Card
        Its `bundle_sha256` is filled in.
    directory : path

    Returns
    -------
    Card
        As written.

    Raises
    ------
    RuntimeError
        If onnxruntime does not reproduce the network.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    network = network.to("cpu", torch.float32).to(memory_format=torch.contiguous_format).eval()
    state = {name: tensor.contiguous() for name, tensor in sorted(network.state_dict().items())}
    (directory / WEIGHTS_FILE).write_bytes(save(state))  # save_file lets nobody else read it
    export_graphs(network, card, directory)
    check_graphs(network, card, directory)
    card = card.model_copy(update={"bundle_sha256": bundle_sha256(directory)})
    (directory / CARD_FILE).write_text(card.model_dump_json(indent=2) + "\n")
    (directory / README_FILE).write_text(card_markdown(card))
    return card


def export_graphs(network: nn.Module, card: Card, directory: Path) -> None:
    """All graphs of a bundle: the network, or the encoders and the join of one for events.

    They take any number of tiles or events at once, and for frames any size that the network takes.
    """
    if isinstance(network, ShowerModel):
        return _export_parts(network, card, directory)
    if isinstance(network, ConvVAE):
        inputs = noise_inputs(network, card, n_tiles=2)
        n_images = torch.export.Dim("n")
        write_graph(network.generator(), inputs, {name: {0: n_images} for name in inputs}, directory / ONNX_FILE)
        return None
    inputs = example_inputs(card, n_tiles=2)
    n_tiles = torch.export.Dim("n")
    shapes: dict[str, Any] = {name: {0: n_tiles} for name in inputs}
    if multiple := card.input.size_multiple:
        # Named as multiples of the reduction, so that the exporter knows they can be divided.
        rows, columns = (multiple * torch.export.Dim(name, min=2) for name in ("rows", "columns"))
        shapes["images"] |= {2: rows, 3: columns}
    write_graph(network, inputs, shapes, directory / ONNX_FILE)
    return None


def noise_inputs(network: ConvVAE, card: Card, n_tiles: int) -> dict[str, Tensor]:
    """Seeded normal numbers of the shapes that the generating part of a network takes."""
    generator = torch.Generator().manual_seed(0)
    n_scalars = len(card.input.preparation.scalar_names)
    shapes = {"noise": (n_tiles, network.latent), "scalars": (n_tiles, n_scalars)}
    return {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}


def _export_parts(network: ShowerModel, card: Card, directory: Path) -> None:
    n_images, n_events, n_telescopes = (torch.export.Dim(name, min=1) for name in ("images", "events", "telescopes"))
    inputs = example_inputs(card, n_tiles=5)
    for number in range(len(network.encoders)):
        shapes = {name: {0: n_images} for name in inputs}
        write_graph(EncoderPart(network, number), inputs, shapes, directory / ENCODER_FILE.format(number=number))
    vectors = torch.randn(5, network.head.telescopes[0].output.out_features, generator=torch.Generator().manual_seed(0))
    n = card.input.preparation.max_telescopes
    members = torch.full((2, max(n, 3)), -1)
    members[0, :3], members[1, :2] = torch.arange(3), torch.arange(3, 5)
    inputs = {"vectors": vectors, "members": members, "places": torch.zeros(5, N_PLACES)}
    # A join that reads in order is a chain as long as the table is wide.
    table = {0: n_events} if network.reads_in_order else {0: n_events, 1: n_telescopes}
    shapes = {"vectors": {0: n_images}, "members": table, "places": {0: n_images}}
    write_graph(network.head, inputs, shapes, directory / ONNX_FILE)


class EncoderPart(nn.Module):
    """From the images of one kind of camera to a vector per telescope: what needs no other image of the event."""

    def __init__(self, network: ShowerModel, number: int) -> None:
        super().__init__()
        self.network, self.number = network, number

    def forward(self, images: Tensor, scalars: Tensor | None = None) -> Tensor:
        return self.network.encode(images, scalars, self.number)


def write_graph(network: nn.Module, inputs: Mapping[str, Tensor], shapes: Mapping[str, Any], path: Path) -> None:
    """Write a network as ONNX, without traces of where it was made.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode.
    inputs : mapping
        Name in the graph -> example, in the order of the network's arguments.
    shapes : mapping
        Name -> its dimensions that may vary, as `torch.export` takes them.
    path : path
    """
    # The exporter needs the names of forward's arguments, the graph has those of the arrays.
    arguments = dict(zip(inputs, inspect.signature(network.forward).parameters, strict=False))
    with _quiet():
        program = torch.onnx.export(
            network,
            (),
            kwargs={arguments[name]: tensor for name, tensor in inputs.items()},
            dynamo=True,
            input_names=list(inputs),
            output_names=["outputs"],
            dynamic_shapes={arguments[name]: shape for name, shape in shapes.items()},
            verbose=False,
        )
    onnx.save(_without_traces(program.model_proto), path)


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph alone: the exporter notes source lines with their paths, which differ between equal runs."""
    model.ClearField("metadata_props")
    model.doc_string = ""
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.doc_string = ""
    return model


def example_inputs(card: Card, n_tiles: int) -> dict[str, Tensor]:
    """Seeded noise of the shapes that the network takes, in the order of its arguments."""
    generator = torch.Generator().manual_seed(0)
    shapes = card.input.preparation.shapes(n_tiles, card.input.tile_shape)
    return {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}


@torch.no_grad()
def check_graphs(network: nn.Module, card: Card, directory: Path) -> None:
    """Compare onnxruntime with torch, at another number of tiles than the one exported.

    Raises
    ------
    RuntimeError
        If they differ by more than rounding.
    """
    if isinstance(network, ShowerModel):
        got, expected = _parts_and_network(network, card, directory)
    elif isinstance(network, ConvVAE):
        inputs = noise_inputs(network, card, n_tiles=3)
        got, expected = _run(directory / ONNX_FILE, inputs), network.generator()(**inputs).numpy()
    else:
        inputs = example_inputs(card, n_tiles=3)
        got, expected = _run(directory / ONNX_FILE, inputs), apply_network(network, inputs).numpy()
    difference = float(np.abs(got - expected).max()) / max(1.0, float(np.abs(expected).max()))
    if got.shape != expected.shape or not difference < _TOLERANCE:
        raise RuntimeError(f"onnxruntime differs from torch by {difference:g} of the largest output: {directory}")


def _parts_and_network(network: ShowerModel, card: Card, directory: Path) -> tuple[np.ndarray, np.ndarray]:
    """Three events of seven images: by the exported parts, and by the network."""
    given = card.input.preparation
    inputs = example_inputs(card, n_tiles=7)
    camera = torch.arange(7) % len(network.encoders)
    members = torch.full((3, max(given.max_telescopes, 4)), -1)
    members[0, :4], members[1, :2], members[2, 0] = torch.arange(4), torch.arange(4, 6), 6
    places = torch.randn(7, N_PLACES, generator=torch.Generator().manual_seed(1))
    expected = apply_network(network, inputs | {"members": members, "places": places, "camera": camera}).numpy()
    parts = [
        _run(directory / ENCODER_FILE.format(number=number), {name: t[camera == number] for name, t in inputs.items()})
        for number in range(len(network.encoders))
    ]
    vectors = np.empty((7, parts[0].shape[1]), np.float32)
    for number, part in enumerate(parts):
        vectors[camera.numpy() == number] = part
    join = {"vectors": torch.from_numpy(vectors), "members": members, "places": places}
    return _run(directory / ONNX_FILE, join), expected


def _run(graph: Path, inputs: Mapping[str, Tensor]) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    return session.run(["outputs"], {name: tensor.numpy() for name, tensor in inputs.items()})[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's progress messages and its warnings about its own code."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir", "onnxscript")]
    levels = [entry.level for entry in loggers]
    for entry in loggers:
        entry.setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for entry, level in zip(loggers, levels, strict=True):
                entry.setLevel(level)


def apply_network(network: nn.Module, arrays: Mapping[str, Tensor]) -> Any:
    """The network's answer to the arrays of an `Input`: images by position, all others by their names."""
    return network(arrays["images"], **{name: tensor for name, tensor in arrays.items() if name != "images"})


def build_network(model: ModelSection) -> nn.Module:
    """The network that a card describes, with fresh weights."""
    return create_network(model.name, model.kwargs, model.in_chans, model.num_outputs, model.n_scalars)


def create_network(name: str, kwargs: Mapping[str, Any], in_chans: int, num_outputs: int, n_scalars: int) -> nn.Module:
    """`models.create_model`, whose errors the user can fix here: the name comes from a configuration.

    Raises
    ------
    UserError
        If the name, an argument or its value is not accepted.
    """
    try:
        if n_scalars and "n_scalars" not in model_entry(name).arguments:
            raise UserError(
                f"the model {name!r} takes no scalars: set scalars: [] in the network's section, or use another"
            )
        return create_model(name, in_chans=in_chans, num_outputs=num_outputs, n_scalars=n_scalars, **kwargs)
    except UserError:
        raise
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:  # not all arguments' types are checked
        raise UserError(str(error).partition("\n")[0]) from error


def flops_of(card: Card) -> int:
    """Operations of a camera network for one of its tiles, two per multiply-accumulate.

    Raises
    ------
    UserError
        If the card's network cannot be built.
    """
    model = card.model
    build_network(model)  # its errors are the user's
    scalars = {"n_scalars": model.n_scalars} if model.n_scalars else {}
    return describe(
        model.name, card.input.tile_shape[0], model.in_chans, model.num_outputs, **scalars, **model.kwargs
    ).flops


def load_network(path: str | Path) -> tuple[nn.Module, Card]:
    """A bundle's network in torch, in evaluation mode, and its card.

    Raises
    ------
    InputFileError
        If the weights are damaged, or not those of the card's network.
    """
    card = load_bundle_card(path)
    directory = resolve_bundle(path)
    if (directory / ONNX_FILE).exists():  # the weights alone are enough here; the digest covers both
        check_bundle(directory, card)
    network = build_network(card.model)
    weights = bundle_weights(path)
    try:
        network.load_state_dict(load_weights(weights))
    except RuntimeError as error:  # of torch: names or shapes differ
        raise InputFileError(
            f"{weights} does not fit the network of its card ({_first_problem(error)}); copy the bundle again"
        ) from error
    return network.eval(), card


def load_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a file of `bundle_weights` by name.

    Raises
    ------
    InputFileError
        If it is damaged: its header does not fit its length, or is no JSON; or if it is a graph that does not hold the
        weights.
    """
    if path.name == ONNX_FILE:
        weights = weights_of_graph(path, load_bundle_card(path.parent).weights_sha256)
        if weights is None:
            raise InputFileError(f"the bundle {path.parent} comes without weights; start from another one")
        return {name: torch.from_numpy(np.array(tensor)) for name, tensor in weights.items()}
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputFileError(f"{path} is damaged ({_first_problem(error)}); copy the bundle again") from error


def _first_problem(error: Exception) -> str:
    return f"{' '.join(str(error).split()):.200}"
