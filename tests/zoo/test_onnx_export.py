"""Every family runs in onnxruntime as it does in torch, at batch and frame sizes that the export did not see."""

import warnings

import numpy as np
import onnxruntime
import pytest
import torch

from models import create_model

INCEPTION = {"width": 4, "stem": "small", "depths": (1, 1, 1)}
BATCH = torch.export.Dim("batch", min=1, max=4096)


def session_of(model, arguments, dynamic_shapes, names, tmp_path):
    path = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about its own internals
        program = torch.onnx.export(
            model.eval(), arguments, dynamo=True, dynamic_shapes=dynamic_shapes, input_names=names, verbose=False
        )
    program.save(path)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def agree(session, model, **inputs):
    with torch.no_grad():
        expected = model(*inputs.values()).numpy()
    got = session.run(None, {name: value.numpy() for name, value in inputs.items()})[0]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("resnet18", {"width": 4, "depths": (1, 1)}),
        ("resnet20", {"width": 4, "depths": (1, 1)}),
        ("lenet5", {}),
        ("resnet110_bn_after_addition", {"width": 4, "depths": (1, 1)}),
        ("resnetv2_50", {"width": 4, "depths": (1, 1)}),
        ("stochastic_depth_resnet110", {"width": 4, "depths": (1, 1), "stem": "stride2"}),
        ("se_resnet18", {"width": 4, "depths": (1, 1)}),
        ("senet154", {"width": 4, "depths": (1, 1)}),
        ("fractalnet20", {"width": 4, "factors": (1, 1)}),
        ("densenet121", {"growth_rate": 4, "depths": (2, 2)}),
        pytest.param("se_inception", {"width": 4}, marks=pytest.mark.slow),
        ("mlp", {"hidden": (16,), "grid": 24}),
        ("alexnet", {"width": 8, "stem": "small"}),
        ("vgg11_bn", {"width": 4}),
        ("nin_imagenet", {"width": 12}),
        pytest.param("googlenet", {"width": 8, "stem": "small", "aux": True}, marks=pytest.mark.slow),
        pytest.param("inception_v2", INCEPTION, marks=pytest.mark.slow),
        pytest.param("inception_v3", INCEPTION | {"aux": True}, marks=pytest.mark.slow),
        pytest.param("inception_v4", INCEPTION, marks=pytest.mark.slow),
        pytest.param("inception_resnet_v2", INCEPTION, marks=pytest.mark.slow),
    ],
)
def test_tile_network_with_scalars(name, kwargs, tmp_path):
    torch.manual_seed(0)
    model = create_model(name, 3, 2, n_scalars=5, **kwargs)
    arguments = (torch.randn(2, 3, 56, 56), torch.randn(2, 5))
    session = session_of(model, arguments, ({0: BATCH}, {0: BATCH}), ["images", "scalars"], tmp_path)
    for n_tiles in (1, 7):
        agree(session, model, images=torch.randn(n_tiles, 3, 56, 56), scalars=torch.randn(n_tiles, 5))


def test_tile_network_without_scalars(tmp_path):
    torch.manual_seed(0)
    model = create_model("lenet5_modern", 1, 2)
    session = session_of(model, (torch.randn(2, 1, 48, 48),), ({0: BATCH},), ["images"], tmp_path)
    agree(session, model, images=torch.randn(3, 1, 48, 48))


@pytest.mark.parametrize("name", ["conv_autoencoder", "unet"])
def test_dense_network_with_any_frame(name, tmp_path):
    torch.manual_seed(0)
    model = create_model(name, 2, 3, width=4, zero_init=False)
    height, width = torch.export.Dim("height", min=1, max=4096), torch.export.Dim("width", min=1, max=4096)
    shape = {0: BATCH, 2: model.stride * height, 3: model.stride * width}
    session = session_of(model, (torch.randn(2, 2, 32, 48),), (shape,), ["images"], tmp_path)
    for n_frames, rows, columns in ((1, 8, 8), (3, 40, 104)):
        agree(session, model, images=torch.randn(n_frames, 2, rows, columns))
