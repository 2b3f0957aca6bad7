"""Networks that torchvision or timm have, too, compute the same from the same weights.

Neither package is among lightpool's requirements: the tests are skipped where they are missing. They ran with
torchvision 0.28.0 and timm 1.0.31.
"""

import pytest
import torch
from torch import nn

from models import create_model

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # warnings of the two packages at their import


def carry_over(theirs, ours):
    """Copy weights and statistics by position: both define their layers in the order of the data."""
    values = [value for key, value in theirs.state_dict().items() if not key.endswith("num_batches_tracked")]
    keys = [key for key in ours.state_dict() if not key.endswith("num_batches_tracked")]
    assert [ours.state_dict()[key].shape for key in keys] == [value.shape for value in values]
    ours.load_state_dict(dict(zip(keys, values, strict=True)), strict=False)


def with_statistics(model):
    """As if trained: normalisation that is far from the identity shows its epsilon and its place."""
    torch.manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.0)
            nn.init.normal_(layer.bias, std=0.1)
            nn.init.normal_(layer.running_mean, std=0.1)
            nn.init.uniform_(layer.running_var, 0.1, 1.5)
    return model.eval()


def agree(theirs, name, tile, ours=None, **kwargs):
    theirs = with_statistics(theirs)
    ours = (ours or create_model(name, 3, 1000, **kwargs)).eval()
    carry_over(theirs, ours)
    x = torch.randn(2, 3, tile, tile)
    with torch.no_grad():
        expected, got = theirs(x), ours(x)
    scale = expected.abs().max().item()
    assert expected.std() > 1e-3 * scale
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize(
    ("name", "tile", "theirs_kwargs", "kwargs"),
    [
        ("resnet18", 96, {}, {}),
        ("resnet50", 96, {}, {"bottleneck_stride": "3x3"}),
        ("vgg16_bn", 96, {}, {}),
        ("densenet121", 96, {}, {}),
        ("inception_v3", 128, {"aux_logits": False, "init_weights": False, "transform_input": False}, {}),
    ],
)
def test_torchvision(name, tile, theirs_kwargs, kwargs):
    torchvision = pytest.importorskip("torchvision")
    agree(getattr(torchvision.models, name)(weights=None, **theirs_kwargs), name, tile, **kwargs)


@pytest.mark.parametrize(
    ("name", "tile", "theirs", "kwargs"),
    [
        ("se_resnet50", 96, "seresnet50", {"bottleneck_stride": "3x3"}),
        ("inception_v4", 128, "inception_v4", {}),
        ("inception_resnet_v2", 128, "inception_resnet_v2", {}),
    ],
)
def test_timm(name, tile, theirs, kwargs):
    timm = pytest.importorskip("timm")
    agree(timm.create_model(theirs, pretrained=False), name, tile, **kwargs)


def test_timm_senet154():
    """Its pooling is Caffe's: not padded, the last window reaches beyond the map."""
    timm = pytest.importorskip("timm")
    ours = create_model("senet154", 3, 1000)
    ours.stem[-1] = nn.MaxPool2d(3, stride=2, ceil_mode=True)
    agree(timm.create_model("legacy_senet154", pretrained=False), "senet154", 96, ours)
