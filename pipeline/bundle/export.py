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
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models import create_model, describe
from models.registry import model_entry
from pipeline.bundle.card import (
    CARD_FILE,
    ONNX_FILE,
    README_FILE,
    WEIGHTS_FILE,
    Card,
    ModelSection,
    bundle_sha256,
    bundle_weights,
    card_markdown,
    load_bundle_card,
    resolve_bundle,
)
from pipeline.bundle.files import check_bundle
from pipeline.errors import InputFileError, UserError

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
    save_file(state, directory / WEIGHTS_FILE)
    export_onnx(network, card, directory / ONNX_FILE)
    check_onnx(network, card, directory / ONNX_FILE)
    card = card.model_copy(update={"bundle_sha256": bundle_sha256(directory)})
    (directory / CARD_FILE).write_text(card.model_dump_json(indent=2) + "\n")
    (directory / README_FILE).write_text(card_markdown(card))
    return card


def export_onnx(network: nn.Module, card: Card, path: Path) -> None:
    """The graph, with any number of tiles at once, and for frames any size that the network takes."""
    inputs = example_inputs(card, n_tiles=2)
    n_tiles = torch.export.Dim("n")
    shapes: dict[str, Any] = {name: {0: n_tiles} for name in inputs}
    if multiple := card.input.size_multiple:
        # Named as multiples of the reduction, so that the exporter knows they can be divided.
        rows, columns = (multiple * torch.export.Dim(name, min=2) for name in ("rows", "columns"))
        shapes["images"] |= {2: rows, 3: columns}
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
def check_onnx(network: nn.Module, card: Card, path: Path) -> None:
    """Compare onnxruntime with torch, at another batch size than the one exported.

    Raises
    ------
    RuntimeError
        If they differ by more than rounding.
    """
    import onnxruntime

    inputs = example_inputs(card, n_tiles=3)
    expected = network(*inputs.values()).numpy()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    got = session.run(["outputs"], {name: tensor.numpy() for name, tensor in inputs.items()})[0]
    difference = float(np.abs(got - expected).max()) / max(1.0, float(np.abs(expected).max()))
    if got.shape != expected.shape or not difference < _TOLERANCE:
        raise RuntimeError(f"onnxruntime differs from torch by {difference:g} of the largest output: {path}")


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
    """Tensors of a safetensors file by name.

    Raises
    ------
    InputFileError
        If it is damaged: its header does not fit its length, or is no JSON.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputFileError(f"{path} is damaged ({_first_problem(error)}); copy the bundle again") from error


def _first_problem(error: Exception) -> str:
    return f"{' '.join(str(error).split()):.200}"
