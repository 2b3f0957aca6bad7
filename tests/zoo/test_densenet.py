"""Dense networks: what reads what, channels between the blocks, layers of the names."""

import pytest
import torch
from torch import nn

from models import create_model, list_models
from models.densenet import DenseBlock, DenseLayer
from models.layers import DropChannels

KINDS = {nn.Conv2d: "conv", nn.BatchNorm2d: "bn", nn.ReLU: "relu", nn.AvgPool2d: "pool", nn.Dropout: "drop"}


def kinds(module):
    return " ".join(KINDS[type(layer)] for layer in module.modules() if type(layer) in KINDS)


def test_order_within_a_layer_and_a_transition():
    assert kinds(DenseLayer(8, 4, bottleneck=False, drop_rate=0.0)) == "bn relu conv"
    assert kinds(DenseLayer(8, 4, bottleneck=True, drop_rate=0.0)) == "bn relu conv bn relu conv"
    assert kinds(DenseLayer(8, 4, bottleneck=True, drop_rate=0.2)) == "bn relu conv drop bn relu conv drop"
    model = create_model("densenet121", growth_rate=4, depths=(1, 1))
    assert kinds(model.stages[1]) == "bn relu conv pool"
    assert kinds(model.last) == "bn relu"


def test_every_layer_reads_all_maps_before_it_and_keeps_them():
    torch.manual_seed(0)
    block = DenseBlock(DenseLayer(6 + 2 * place, 2, bottleneck=True, drop_rate=0.0) for place in range(3)).eval()
    read = []
    for layer in block:
        layer.register_forward_pre_hook(lambda _layer, inputs: read.append(inputs[0].detach()))
    x = torch.randn(2, 6, 5, 5)
    y = block(x)
    assert [maps.shape[1] for maps in read] == [6, 8, 10]
    assert y.shape[1] == 12
    for maps in read:
        assert torch.equal(y[:, : maps.shape[1]], maps)
    assert torch.equal(read[0], x)


@pytest.mark.parametrize("name", list_models("densenet"))
def test_layers_of_the_name(name):
    """Stem, layers, one convolution per transition and the output: the number in the name."""
    with torch.device("meta"):
        model = create_model(name, 3, 10)
    n_convolutions = sum(isinstance(module, nn.Conv2d) for module in model.modules())
    number = name.removeprefix("densenet").removeprefix("_bc").split("_")[0]
    assert n_convolutions + 1 == int(number)


@pytest.mark.parametrize(
    ("name", "first", "chans"),
    [
        ("densenet40_k12", 16, [160, 304, 448]),
        ("densenet_bc100_k12", 24, [216, 300, 342]),
        ("densenet121", 64, [256, 512, 1024, 1024]),
        ("densenet161", 96, [384, 768, 2112, 2208]),
    ],
)
def test_channels_by_hand(name, first, chans):
    """Plain: 16 + 12 x 12 and so on; BC: each transition halves; 121 as in torchvision (1024 features)."""
    with torch.device("meta"):
        model = create_model(name, 3, 10)
    assert model.stem[0].out_channels == first
    assert [info.num_chs for info in model.feature_info] == chans


@pytest.mark.parametrize(("stem", "first", "last"), [("imagenet", 16, 2), ("stride2", 32, 4), ("cifar", 64, 8)])
def test_stem_sets_the_resolution(stem, first, last):
    model = create_model("densenet121", growth_rate=2, depths=(1, 1, 1, 1), stem=stem).eval()
    x = torch.randn(1, 1, 64, 64)
    assert model.stem(x).shape == (1, 4, first, first)
    assert model.forward_features(x).shape[2:] == (last, last)
    assert model.min_size == 64 // last


def test_features_are_activated_before_pooling():
    model = create_model("densenet_bc100_k12", growth_rate=4, depths=(2, 2)).eval()
    assert (model.forward_features(torch.randn(2, 1, 48, 48)) >= 0).all()


def test_dropout_in_training_alone():
    torch.manual_seed(0)
    model = create_model("densenet40_k12", growth_rate=4, depths=(2, 2), conv_drop_rate=0.2)
    x = torch.randn(2, 1, 16, 16)
    assert not torch.equal(model.train()(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


def test_dropout_of_whole_maps():
    """Behind the convolutions; what the last layer drops are numbers."""
    arguments = {"growth_rate": 4, "depths": (2, 1), "conv_drop_rate": 0.2, "drop_rate": 0.1}
    model = create_model("densenet121", **arguments, drop_channels=True)
    assert [type(layer) for layer in model.stages.modules() if hasattr(layer, "p")] == [DropChannels] * 7
    assert type(model.head.drop) is nn.Dropout
    assert model.state_dict().keys() == create_model("densenet121", **arguments).state_dict().keys()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"stem": "tiny"}, "stem of a DenseNet must be one of imagenet, stride2, cifar, got 'tiny'"),
        ({"depths": (2, 0)}, r"depths of a DenseNet .* each at least 1, got \(2, 0\)"),
        ({"growth_rate": 0}, "growth_rate of a DenseNet must be at least 1, got 0"),
        ({"init_chans": 0}, "init_chans of a DenseNet must be at least 1, got 0"),
        ({"compression": 0.0}, r"compression of a DenseNet must be in \(0, 1\], got 0.0"),
    ],
)
def test_densenet_refuses(kwargs, message):
    with pytest.raises(ValueError, match=message):
        create_model("densenet121", **kwargs)
