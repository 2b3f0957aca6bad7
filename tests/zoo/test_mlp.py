"""The multilayer perceptron."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models import create_model, describe
from models.layers import RandomisedLeakyReLU, ScaledTanh


def num_params(**kwargs):
    with torch.device("meta"):
        model = create_model("mlp", num_outputs=10, grid=29, **kwargs)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("hidden", "million"),
    [
        ((1000, 500), 1.34), ((1500, 1000, 500), 3.26), ((2000, 1500, 1000, 500), 6.69),
        ((2500, 2000, 1500, 1000, 500), 12.11), ((1000,) * 9, 8.86),
    ],
)  # fmt: skip
def test_ladder_of_the_paper(hidden, million):
    """arXiv:1003.0358, Table 1, tiles of 29 px: weights in millions, cut off behind the second decimal."""
    assert num_params(hidden=hidden) // 10_000 == round(100 * million)


def test_a_tile_of_the_grid_goes_in_as_it_is():
    model = create_model("mlp", 2, 3, hidden=(5, 4)).eval()
    x = torch.randn(6, 2, 28, 28)
    first, second = (layer for layer in model.hidden if isinstance(layer, nn.Linear))
    expected = model.head.output(torch.relu(second(torch.relu(first(x.flatten(1))))))
    torch.testing.assert_close(model(x), expected)


def test_a_larger_tile_is_averaged_to_the_grid():
    model = create_model("mlp", hidden=(5,)).eval()
    x = torch.randn(2, 1, 56, 56)
    torch.testing.assert_close(model(x), model(F.avg_pool2d(x, 2)))
    with pytest.raises(ValueError, match="too small for Mlp; the smallest is 28 px"):
        model(torch.randn(1, 1, 27, 56))


def test_dropout_follows_every_hidden_layer():
    model = create_model("mlp", hidden=(5, 4, 3), drop_rate=0.25)
    assert [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)] == [0.25] * 3


@pytest.mark.parametrize(
    ("act", "kind"),
    [("relu", nn.ReLU), ("rrelu", RandomisedLeakyReLU), ("tanh", nn.Tanh), ("scaled_tanh", ScaledTanh)],
)
def test_activation(act, kind):
    model = create_model("mlp", hidden=(5, 4), act=act)
    assert sum(isinstance(layer, kind) for layer in model.hidden) == 2


def test_it_sees_the_whole_tile():
    table = describe("mlp", 56)
    assert table.receptive_field_px is None
    assert table.warnings == ()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"hidden": ()}, r"hidden of an MLP are the widths of its hidden layers, each at least 1, got \(\)"),
        ({"hidden": (10, 0)}, r"each at least 1, got \(10, 0\)"),
        ({"grid": 0}, "grid of an MLP must be at least 1, got 0"),
        ({"act": "elu"}, "act of an MLP must be one of relu, rrelu, tanh, scaled_tanh, got 'elu'"),
    ],
)
def test_mlp_refuses(kwargs, message):
    with pytest.raises(ValueError, match=message):
        create_model("mlp", **kwargs)
