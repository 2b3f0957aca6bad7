"""Small layers that the families share."""

import pytest
import torch
from torch import nn

from models import create_model
from models.heads import Head
from models.layers import DropChannels, RandomisedLeakyReLU, init_he_normal


def test_slopes_of_the_randomised_relu_in_training():
    """Uniform within the range: mean and rms within 5 sigma, and another draw at each call."""
    torch.manual_seed(0)
    layer = RandomisedLeakyReLU(0.01, 0.05).train()
    x = -torch.ones(100_000)
    slopes = -layer(x)
    assert slopes.min() >= 0.01
    assert slopes.max() <= 0.05
    sigma = 0.04 / 12**0.5
    assert slopes.mean().item() == pytest.approx(0.03, abs=5 * sigma / len(x) ** 0.5)
    assert slopes.std().item() == pytest.approx(sigma, rel=0.02)
    assert not torch.equal(slopes, -layer(x))


def test_randomised_relu_in_evaluation_has_the_mean_slope():
    layer = RandomisedLeakyReLU(0.01, 0.05).eval()
    x = torch.tensor([-2.0, 0.0, 3.0])
    torch.testing.assert_close(layer(x), torch.tensor([-0.06, 0.0, 3.0]))
    assert torch.equal(layer.train()(x)[1:], x[1:])


def test_randomised_relu_refuses_slopes_in_disorder():
    with pytest.raises(ValueError, match=r"must be 0 <= lower <= upper, got 0\.2 and 0\.1"):
        RandomisedLeakyReLU(0.2, 0.1)


def test_dropping_channels_takes_whole_maps():
    torch.manual_seed(0)
    layer = DropChannels(0.5).train()
    x = torch.ones(8, 64, 3, 4)
    dropped = layer(x)
    first = dropped[:, :, :1, :1]
    assert torch.equal(dropped, first.expand_as(x))
    assert set(first.unique().tolist()) == {0.0, 2.0}  # survivors are scaled by 1 / (1 - p)
    assert torch.equal(layer.eval()(x), x)


@pytest.mark.parametrize("shape", [(8, 64), (64, 3, 4), (1, 2, 3, 4, 5)])
def test_dropping_channels_needs_a_batch_of_maps(shape):
    with pytest.raises(ValueError, match=r"needs maps of 4 dimensions \(N, C, H, W\), got \(\d"):
        DropChannels(0.5)(torch.ones(shape))


@pytest.mark.parametrize("groups", [1, 4, 32])
def test_he_initialisation_counts_the_outputs_of_a_group(groups):
    """He et al. (2015), Eq. 14: variance 2 / (k^2 d), with d the maps that an input reaches."""
    torch.manual_seed(0)
    layer = nn.Conv2d(64, 96, 3, groups=groups)
    for mode, reached in (("fan_out", 96 / groups), ("fan_in", 64 / groups)):
        init_he_normal(layer, mode)
        sigma = (2 / (9 * reached)) ** 0.5
        assert layer.weight.std().item() == pytest.approx(sigma, rel=5 / (2 * layer.weight.numel()) ** 0.5)


def test_grouped_convolutions_of_senet_keep_the_variance():
    torch.manual_seed(0)
    model = create_model("senet154", width=16, depths=(1, 1, 1, 1))
    grouped = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d) and layer.groups > 1]
    assert grouped
    for layer in grouped:
        sigma = (2 * layer.groups / (9 * layer.out_channels)) ** 0.5
        assert layer.weight.std().item() == pytest.approx(sigma, rel=5 / (2 * layer.weight.numel()) ** 0.5)


@pytest.mark.parametrize(("n_scalars", "hidden"), [(2, 0), (2, -1), (0, 0), (-1, 64)])
def test_head_refuses_layers_without_units(n_scalars, hidden):
    message = f"n_scalars must be at least 0 and scalars_hidden at least 1, got {n_scalars} and {hidden}"
    with pytest.raises(ValueError, match=message):
        Head(8, 1, n_scalars, hidden)
