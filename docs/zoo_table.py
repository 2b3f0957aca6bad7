"""Write docs/zoo.md: each architecture with its parameters, its shapes, and the error of its ONNX graph.

Run it after a change of the zoo, from the root of the checkout (about five minutes on one core):

    python docs/zoo_table.py

Reference configurations are built on torch's meta device. ONNX graphs are those of the small networks of the tests.
"""

import sys
import tempfile
from fnmatch import fnmatch
from pathlib import Path

import onnxruntime
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from onnx_sessions import onnx_session  # noqa: E402  (of the tests)
from small_networks import settled, small_model  # noqa: E402

from models import create_model, list_models, model_entry  # noqa: E402
from pipeline.bundle.export import write_graph  # noqa: E402

TILE_PX = 112
ONNX_TILE_PX = 56

# Source of the number of parameters that the reference configuration must have; the module of the family says more.
# The first pattern that matches is used.
SOURCES = {
    "mlp": "layers",
    "lenet5": "paper, 60,000",
    "lenet5_modern": "layers",
    "alexnet": "layers of the paper",
    "alexnet_owt": "torchvision 0.29.1",
    "vgg*": "torchvision 0.29.1",
    "nin_*": "layers of the author's configuration",
    "googlenet": "layers of the paper, Table 1",
    "inception_v2": "layers of the paper, Fig. 5; authors' test",
    "inception_v3": "torchvision 0.29.1",
    "inception_*": "timm 1.0.31",
    "resnet110_*": "as `resnet110`",
    "stochastic_depth_resnet110": "as `resnet110`",
    "preact_resnet110": "as `resnet110`",
    "preact_*": "layers of the authors' code",
    "resnetv2_*": "timm 1.0.31",
    "wrn_40_2": "layers of the paper, Table 1",
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"), "torchvision 0.29.1"),
    "resnet*": "layers of the paper, section 4.2",
    "se_inception": "layers of the authors' definition",
    "se*": "timm 1.0.31",
    "fractalnet20": "formula; author's generator",
    "densenet40_*": "layers; paper, Table 2",
    "densenet_bc*": "layers; paper, Table 2",
    "densenet*": "torchvision 0.29.1",
    "hypernet": "layers; generator 4,240 in the paper",
    "hypernet_wrn40_2": "parts; paper, Table 2: 0.148 M",
    "stereo_*": "formula in the module",
    "hyper_lstm": "formula in the module",
    "conv_autoencoder": "formula in the module",
    "unet": "formula in the module",
    "conv_vae": "layers",
    "conv_flow": "layers",
}

HEAD = f"""# The network zoo

`docs/zoo_table.py` writes this page. `models.create_model(name)` builds each entry, and `lightpool models list` shows
all of them. `lightpool models describe NAME --tile N` shows the layers of one.

- **parameters**: counted in the reference configuration. The count equals the number in the registry, whose source is
  in the next column. The docstring of the entry's module derives the number and lists every departure from the paper.
- **at {TILE_PX} px**: shapes of the last feature maps and of the outputs of the reference configuration, for a tile of
  {TILE_PX} x {TILE_PX} px.
- **from**: smallest tile. For networks whose output is a map, height and width must be multiples of this number.
- **ONNX**: largest difference between onnxruntime and torch, divided by the largest output, for the small network of
  the tests on three tiles of {ONNX_TILE_PX} x {ONNX_TILE_PX} px. The largest values are rounding errors: the same
  difference is found between single and double precision in torch itself (`resnet50`: 6e-05).

Networks that make images (`conv_vae`, `conv_flow`) have the length of their latent vector in place of feature maps, and
take images of one size alone ([Generated images](generation.md)).

Networks that combine the telescopes of a shower (`stereo_*`, `hyper_lstm`) are joins for networks with
`input: shower` ([Training](training.md#events-of-several-telescopes)).

| entry | parameters | source of the number | paper | at {TILE_PX} px | from | ONNX |
| --- | ---: | --- | --- | --- | ---: | ---: |
"""


def main() -> None:
    """Write the page."""
    rows = []
    for name in list_models():
        rows.append(_row(name))
        print(rows[-1], flush=True)
    (ROOT / "docs" / "zoo.md").write_text(HEAD + "\n".join(rows) + "\n")


def _row(name: str) -> str:
    entry = model_entry(name)
    if entry.gives == "image":
        return _row_of_generator(name)
    with torch.device("meta"), torch.no_grad():
        model = create_model(name, **entry.ref).eval()
        features = model.forward_features(torch.empty(1, model.in_chans, TILE_PX, TILE_PX))
        outputs = model.forward_head(features)
    n_params = sum(parameter.numel() for parameter in model.parameters())
    if n_params != entry.num_params:
        raise ValueError(f"{name} has {n_params} parameters, {entry.num_params} in the registry")
    shapes = " → ".join(" x ".join(map(str, tensor.shape[1:])) for tensor in (features, outputs))
    source = next(source for pattern, source in SOURCES.items() if fnmatch(name, pattern))
    return (
        f"| `{name}` | {n_params:,} | {source} | {_link(entry.paper)} | {shapes} | {model.min_size} px | "
        f"{_onnx_difference(name):.0e} |"
    )


@torch.no_grad()
def _row_of_generator(name: str) -> str:
    """Of a network that makes images: its latent vector and its images, and the graph of what makes them."""
    entry = model_entry(name)
    torch.manual_seed(0)
    model = create_model(name, **entry.ref).eval()
    noise, conditions = (torch.randn(3, n) for n in (model.latent, entry.ref["n_scalars"]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write_graph(model.generator(), {"noise": noise, "scalars": conditions}, {"noise": {}, "scalars": {}}, path)
        session = onnxruntime.InferenceSession(path)
        got = torch.from_numpy(session.run(None, {"noise": noise.numpy(), "scalars": conditions.numpy()})[0])
    expected = model.generator()(noise, conditions)
    difference = ((got - expected).abs().max() / expected.abs().max()).item()
    shapes = f"{model.latent} → " + " x ".join(map(str, expected.shape[1:]))
    return (
        f"| `{name}` | {entry.num_params:,} | {SOURCES[name]} | {_link(entry.paper)} | {shapes} | {model.size} px | "
        f"{difference:.0e} |"
    )


def _link(paper: str) -> str:
    kind, _, number = paper.partition(":")
    address = "https://arxiv.org/abs/" if kind == "arXiv" else "https://doi.org/"
    return f"[{number}]({address}{number})"


@torch.no_grad()
def _onnx_difference(name: str) -> float:
    side = ONNX_TILE_PX
    model = small_model(name, **({"zero_init": False} if model_entry(name).family == "autoencoder" else {}))
    model = settled(model, torch.randn(4, 3, side, side))
    with tempfile.TemporaryDirectory() as folder:
        batch = {0: torch.export.Dim("batch", min=1, max=4096)}
        session = onnx_session(
            model, Path(folder) / "model.onnx", torch.randn(2, 3, side, side), dynamic_shapes=(batch,)
        )
        x = torch.randn(3, 3, side, side)
        expected = model(x)
        got = torch.from_numpy(session.run(None, {"x": x.numpy()})[0])
    difference = (got - expected).abs().max()
    if difference > 1e-2 * expected.std(0).max():
        raise ValueError(
            f"{name} differs by {difference:.1g}, which is not small compared with {expected.std(0).max():.1g}"
        )
    return (difference / expected.abs().max()).item()


if __name__ == "__main__":
    main()
