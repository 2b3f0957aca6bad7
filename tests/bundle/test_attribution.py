"""Attributions whose values are known."""

import numpy as np
import pytest
import torch
from torch import nn

from models import create_model
from models.tile_model import FeatureInfo
from pipeline.bundle.attribution import attribute, features


class Linear(nn.Module):
    """The sum of weights times pixels and scalars, plus 3."""

    feature_info = ()

    def __init__(self, rng) -> None:
        super().__init__()
        self.pixels = torch.from_numpy(rng.normal(size=(2, 8, 8))).float()
        self.scalars = torch.tensor([0.5, -2.0])

    def forward(self, x, scalars=None):
        return ((self.pixels * x).sum((1, 2, 3)) + scalars @ self.scalars + 3)[:, None]


class Weighted(nn.Module):
    """Two maps (the image, and its negative part) averaged, with weights 2 and -1."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Conv2d(1, 2, 1, bias=False)
        self.maps.weight.data[:] = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)
        self.act = nn.ReLU(inplace=True)
        self.tiny = nn.AdaptiveAvgPool2d(2)
        self.feature_info = [FeatureInfo("maps", 2, 1), FeatureInfo("tiny", 2, 4)]

    def forward(self, x, scalars=None):
        maps = self.tiny(self.act(self.maps(x)))
        return maps.mean((2, 3)) @ torch.tensor([[2.0], [-1.0]])


def test_parts_of_a_linear_network_are_weight_times_input(rng):
    network = Linear(rng)
    images, scalars = torch.randn(1, 2, 8, 8), torch.tensor([[1.0, 4.0]])
    found = attribute(network, images, scalars)
    np.testing.assert_allclose(found.images, (network.pixels * images[0]).numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.scalars, [0.5, -8.0], rtol=1e-5)
    assert found.empty_output == pytest.approx(3.0)
    assert found.output == pytest.approx(float(network(images, scalars)))
    assert abs(found.missing) < 1e-4
    assert found.location is None


def test_what_an_empty_image_has_too_takes_no_part(rng):
    network = Linear(rng)
    images, scalars = torch.randn(1, 2, 8, 8), torch.tensor([[1.0, 4.0]])
    empty = torch.cat([torch.zeros(1, 1, 8, 8), images[:, 1:]], dim=1)
    found = attribute(network, images, scalars, empty=empty)
    assert found.empty_output == pytest.approx(float(network(empty, torch.zeros(1, 2))))
    np.testing.assert_allclose(found.images[0], (network.pixels * images[0]).numpy()[0], rtol=1e-4, atol=1e-6)
    assert not found.images[1].any()


def test_location_weighs_the_maps_of_the_deepest_level_that_is_fine_enough():
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 1, 1], image[0, 0, 6, 6] = 5.0, -5.0
    found = attribute(Weighted().eval(), image, None)
    assert found.location_layer == "maps, 8 x 8 px"
    # Each map counts by the mean gradient of its pixels, of which one of 64 is above zero.
    assert found.location[1, 1] > 0 > found.location[6, 6]
    assert found.location[1, 1] == pytest.approx(5 * (2 / 64 + 1 / 64) / 64, rel=1e-5)


@pytest.mark.parametrize("kwargs", [{"stem": "stride2"}, {"stem": "imagenet", "n_scalars": 3}])
def test_parts_add_up_to_the_change_of_the_output(kwargs):
    torch.manual_seed(3)
    network = create_model("resnet18", 3, 2, width=8, **kwargs).eval()
    scalars = torch.randn(1, 3) if "n_scalars" in kwargs else None
    found = attribute(network, torch.randn(1, 3, 56, 56).abs(), scalars)
    assert abs(found.missing) < 0.02 * abs(found.output - found.empty_output)
    assert found.location.shape == (56, 56)
    assert len(found.scalars) == kwargs.get("n_scalars", 0)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_features_are_the_strongest_maps_of_each_level(rng):
    torch.manual_seed(0)
    network = create_model("resnet18", 2, 1, width=16, stem="stride2", depths=[1, 1]).eval()
    images = torch.randn(1, 2, 48, 48)
    found = features(network, images, None, n_maps=4)
    assert [level.layer for level in found.levels] == ["stem.0", "stages.0", "stages.1"]
    assert [level.maps.shape for level in found.levels] == [(4, 24, 24), (4, 24, 24), (4, 12, 12)]
    with torch.no_grad():
        first = network.stem[0](images)[0]  # before the batch normalisation and the ReLU that works in place
    strength = first.square().mean((1, 2)).numpy()
    np.testing.assert_array_equal(found.levels[0].indices, np.argsort(-strength)[:4])
    np.testing.assert_allclose(found.levels[0].maps, first[found.levels[0].indices].numpy(), rtol=1e-6)
    np.testing.assert_array_equal(found.filters, network.stem[0].weight[found.levels[0].indices].detach().numpy())


def test_a_network_without_maps():
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    network.feature_info = []
    with pytest.raises(ValueError, match="Sequential has no feature maps: none of its layers keeps the positions"):
        features(_ignoring_scalars(network), torch.zeros(1, 1, 8, 8), None)


def _ignoring_scalars(network):
    forward = network.forward
    network.forward = lambda x, scalars=None: forward(x)
    return network
