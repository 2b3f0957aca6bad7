"""Every network runs in onnxruntime as it does in torch, at batch and frame sizes that the export did not see."""

import numpy as np
import pytest
import torch
from onnx_sessions import onnx_session
from small_networks import settled, small_model

from models import create_model, list_models, model_entry

BATCH = torch.export.Dim("batch", min=1, max=4096)


def agree(session, model, **inputs):
    with torch.no_grad():
        expected = model(*inputs.values()).numpy()
    got = session.run(None, {name: value.numpy() for name, value in inputs.items()})[0]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    if len(expected) > 1:  # far less than what distinguishes two tiles
        assert np.abs(got - expected).max() < 1e-2 * expected.std(0).max()


def runs_as_in_torch(model, folder):
    """With scalars, for a batch of one and for a larger one than that of the export."""
    arguments = (torch.randn(4, 3, 56, 56), torch.randn(4, 5))
    model = settled(model, *arguments)
    session = onnx_session(model, folder / "model.onnx", *arguments, dynamic_shapes=({0: BATCH}, {0: BATCH}))
    for n_tiles in (1, 7):
        agree(session, model, x=torch.randn(n_tiles, 3, 56, 56), scalars=torch.randn(n_tiles, 5))


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("resnet18", {"width": 4, "depths": (1, 1)}),
        ("lenet5", {}),
        ("resnetv2_50", {"width": 4, "depths": (1, 1)}),
        ("stochastic_depth_resnet110", {"width": 4, "depths": (1, 1), "stem": "stride2"}),
        ("se_resnet18", {"width": 4, "depths": (1, 1)}),
        ("fractalnet20", {"width": 4, "factors": (1, 1)}),
        ("densenet121", {"growth_rate": 4, "depths": (2, 2)}),
        ("mlp", {"hidden": (16,), "grid": 24}),
        ("mlp", {"hidden": (16,), "grid": 56, "act": "rrelu"}),  # its pooling has nothing to do
        ("alexnet", {"width": 8, "stem": "small"}),
        ("vgg11_bn", {"width": 4}),
        ("nin_imagenet", {"width": 12}),
        ("hypernet", {"width": 4}),
        pytest.param("googlenet", {"width": 8, "stem": "small", "aux": True}, marks=pytest.mark.slow),
        pytest.param(
            "inception_v3",
            {"width": 4, "stem": "small", "depths": (1, 1, 1), "aux": True},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_network_of_each_family(name, kwargs, tmp_path):
    torch.manual_seed(0)
    runs_as_in_torch(create_model(name, 3, 2, n_scalars=5, **kwargs), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in list_models() if model_entry(name).gives == "vector"])
def test_every_tile_network(name, tmp_path):
    runs_as_in_torch(small_model(name, n_scalars=5), tmp_path)


def test_tile_network_without_scalars(tmp_path):
    torch.manual_seed(0)
    model = create_model("lenet5_modern", 1, 2)
    session = onnx_session(model, tmp_path / "model.onnx", torch.randn(2, 1, 48, 48), dynamic_shapes=({0: BATCH},))
    agree(session, model, x=torch.randn(3, 1, 48, 48))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name != "unet" else [])  # the one that ships
        for name in list_models()
        if model_entry(name).gives == "map"
    ],
)
def test_dense_network_with_any_frame(name, tmp_path):
    torch.manual_seed(0)
    model = create_model(name, 2, 3, width=4, zero_init=False)
    height, width = torch.export.Dim("height", min=1, max=4096), torch.export.Dim("width", min=1, max=4096)
    shape = {0: BATCH, 2: model.size_multiple * height, 3: model.size_multiple * width}
    session = onnx_session(model, tmp_path / "model.onnx", torch.randn(2, 2, 32, 48), dynamic_shapes=(shape,))
    for n_frames, rows, columns in ((1, 8, 8), (3, 40, 104)):
        agree(session, model, x=torch.randn(n_frames, 2, rows, columns))
