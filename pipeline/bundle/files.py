"""The files of a bundle, checked before any library opens them."""

import hashlib
import mmap
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.bundle.card import ENCODER_FILE, ONNX_FILE, WEIGHTS_FILE, Card, bundle_file, bundle_sha256
from pipeline.errors import InputFileError

if TYPE_CHECKING:
    import numpy as np

# The key under which a tensor of an ONNX graph names a file that holds its values, as protobuf writes it: field 1 of 8
# bytes, where the number of the field and the length may be padded.
_EXTERNAL = re.compile(rb"(?:\x0a|\x8a\x80*\x00)(?:\x08|\x88\x80*\x00)location")
_CONSTANT = "val_"  # how the exporter names what is no parameter


def check_bundle(directory: Path, card: Card) -> None:
    """Refuse a bundle whose network is not whole, or not the one that its card was written for.

    Raises
    ------
    InputFileError
        If a file is missing or leads out of the bundle, if the graph takes its weights from another file, which the
        bundle's digest would not cover, or if the digest is another one than the card's.
    """
    if not card.weights_sha256:
        bundle_file(directory, WEIGHTS_FILE)
    graphs = [bundle_file(directory, name) for name in graph_files(card)]
    check_digest(directory, card)
    for graph in graphs:
        _check_graph_file(graph)


def check_digest(directory: Path, card: Card) -> None:
    """Refuse a bundle with other weights than those that its card was written for.

    Raises
    ------
    InputFileError
        If the digest is another one than the card's.
    """
    if bundle_sha256(directory, card.weights_sha256) != card.bundle_sha256:
        raise InputFileError(
            f"the weights of the bundle {directory} are not those that its card was written for; copy it again"
        )


def graph_files(card: Card) -> list[str]:
    """Names of the ONNX files of a bundle."""
    given = card.input.preparation
    n_encoders = len(given.cameras) if given.takes == "telescopes" else 0
    return [ONNX_FILE, *(ENCODER_FILE.format(number=number) for number in range(n_encoders))]


def weights_of_graph(graph: Path, digest: str) -> "dict[str, np.ndarray] | None":
    """Weights of a network by name, from an ONNX graph; None if it does not hold all of them, bit for bit.

    It does if nothing was folded, as batch normalisation is into the convolutions before it.

    Parameters
    ----------
    graph : path
    digest : str
        SHA-256 of the file of weights that the bundle was made with.
    """
    import onnx
    from safetensors.numpy import save

    held = onnx.load(graph).graph.initializer
    tensors = {one.name: onnx.numpy_helper.to_array(one) for one in held if not one.name.startswith(_CONSTANT)}
    return tensors if hashlib.sha256(save(tensors)).hexdigest() == digest else None


def _check_graph_file(graph: Path) -> None:
    if not graph.stat().st_size:
        raise InputFileError(f"{graph} is empty; copy the bundle again")
    with open(graph, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if _EXTERNAL.search(content):
            raise InputFileError(
                f"{graph} takes weights from another file, which the bundle's digest does not cover; save it with all "
                "weights inside"
            )
