"""Network in Network."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models import create_model
from models.layers import DropChannels


def sides(model, size):
    found = []
    for name, block in model.blocks.named_children():
        if name.startswith("mlpconv"):
            block.register_forward_hook(lambda _m, _i, output: found.append(output.shape[2]))
    device = next(model.parameters()).device
    model.forward_features(torch.empty(1, model.in_chans, size, size, device=device))
    return found


def kernels(model):
    return [layer.kernel_size[0] for layer in model.blocks.modules() if isinstance(layer, nn.Conv2d)]


@pytest.mark.parametrize(("classes", "count"), [(10, 966_986), (100, 984_356)])
def test_parameters_of_both_cifar_sets(classes, count):
    with torch.device("meta"):
        model = create_model("nin_cifar", 3, classes)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_blocks_and_maps():
    with torch.device("meta"):
        cifar, imagenet = create_model("nin_cifar", 3).eval(), create_model("nin_imagenet", 3).eval()
    assert sides(cifar, 32) == [32, 16, 8]
    assert sides(imagenet, 224) == [54, 27, 13, 6]
    # the last 1x1 convolution of the paper is the head's linear layer
    assert kernels(cifar) == [5, 1, 1, 5, 1, 1, 3, 1]
    assert kernels(imagenet) == [11, 1, 1, 5, 1, 1, 3, 1, 1, 3, 1]


def test_poolings_and_dropout():
    kinds = {
        name: [type(layer) for layer in model.blocks.modules() if isinstance(layer, nn.MaxPool2d | nn.AvgPool2d)]
        for name in ("nin_cifar", "nin_imagenet")
        for model in [create_model(name, width=4)]
    }
    assert kinds == {"nin_cifar": [nn.MaxPool2d, nn.AvgPool2d], "nin_imagenet": [nn.MaxPool2d] * 3}
    for name, behind in (("nin_cifar", ["pool1", "pool2"]), ("nin_imagenet", ["pool3"])):
        model = create_model(name, width=4)
        dropped = [key.split(".")[1] for key, layer in model.named_modules() if isinstance(layer, nn.Dropout)]
        assert [key for key in dropped if key.startswith("pool")] == behind


@pytest.mark.parametrize(("name", "n_layers"), [("nin_cifar", 2), ("nin_imagenet", 1)])
def test_dropout_of_whole_maps(name, n_layers):
    model = create_model(name, width=4, drop_rate=0.3, drop_channels=True)
    dropouts = [layer for layer in model.blocks.modules() if isinstance(layer, nn.Dropout | nn.Dropout2d)]
    assert [(type(layer), layer.p) for layer in dropouts] == [(DropChannels, 0.3)] * n_layers


def test_head_is_the_global_average_of_a_1x1_convolution():
    """The class maps of section 3.2, averaged: the same as the linear layer on averaged features."""
    model = create_model("nin_cifar", 1, 5, width=12).eval()
    x = torch.randn(3, 1, 48, 50)
    weight, bias = model.head.output.weight, model.head.output.bias
    class_maps = F.conv2d(model.forward_features(x), weight[:, :, None, None], bias)
    torch.testing.assert_close(model(x), class_maps.mean((2, 3)))


def test_outputs_may_be_negative():
    torch.manual_seed(0)
    assert (create_model("nin_cifar", 1, 20, width=12).eval()(torch.randn(4, 1, 48, 48)) < 0).any()


def test_stem_for_small_tiles():
    with torch.device("meta"):
        assert sides(create_model("nin_imagenet", width=8).eval(), 56) == [12, 6, 3, 1]
        assert sides(create_model("nin_imagenet", width=8, stem="cifar").eval(), 56) == [56, 28, 14, 7]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"form": "mnist"}, "form of a NiN must be one of cifar, imagenet, got 'mnist'"),
        ({"stem": "tiny"}, "stem of a NiN must be one of cifar, imagenet, got 'tiny'"),
        ({"width": 0}, "width of a NiN must be at least 1, got 0"),
    ],
)
def test_nin_refuses(kwargs, message):
    with pytest.raises(ValueError, match=message):
        create_model("nin_cifar", **kwargs)
