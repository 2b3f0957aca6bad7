"""Squeeze and excitation: what it computes, where it sits."""

import pytest
import torch
from torch import nn

from models import create_model
from models.layers import SqueezeExcite
from models.residual import ResidualBlock


def blocks_of(model):
    return [module for module in model.modules() if isinstance(module, ResidualBlock)]


def test_scales_each_channel_by_what_the_means_decide():
    torch.manual_seed(0)
    layer = SqueezeExcite(8, reduction=2)
    x = torch.randn(3, 8, 5, 6)
    hidden = torch.relu(x.mean((2, 3)) @ layer.reduce.weight[:, :, 0, 0].T + layer.reduce.bias)
    scale = torch.sigmoid(hidden @ layer.expand.weight[:, :, 0, 0].T + layer.expand.bias)
    torch.testing.assert_close(layer(x), x * scale[:, :, None, None])
    shuffled = x.flatten(2)[:, :, torch.randperm(30)].reshape(x.shape)
    torch.testing.assert_close(layer(shuffled).sum((2, 3)), layer(x).sum((2, 3)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("chans", "reduction", "hidden"), [(64, 16, 4), (2048, 16, 128), (100, 16, 6), (64, 8, 8), (8, 16, 4)]
)
def test_hidden_units(chans, reduction, hidden):
    layer = SqueezeExcite(chans, reduction)
    assert layer.reduce.out_channels == layer.expand.in_channels == hidden
    assert layer.reduce.bias is not None


@pytest.mark.parametrize("name", ["se_resnet18", "se_resnet50", "senet154"])
def test_sits_on_the_branch_before_the_addition(name):
    """With gates shut, the shortcut remains; were it behind the addition, nothing would."""
    torch.manual_seed(0)
    model = create_model(name, width=4, depths=(1, 1)).eval()
    for block in blocks_of(model):
        gate = block.residual[-1]
        assert isinstance(gate, SqueezeExcite)
        nn.init.zeros_(gate.expand.weight)
        nn.init.constant_(gate.expand.bias, -200)
        x = torch.randn(2, block.residual[0].in_channels, 8, 8)
        assert torch.equal(block(x), torch.relu(block.shortcut(x)))


@pytest.mark.parametrize("name", ["se_resnet18", "se_resnet34", "se_resnet50", "se_resnet101", "se_resnet152"])
def test_parameters_added_to_those_of_the_plain_network(name):
    """Each unit of C channels adds 2 C floor(C / 16) weights, C + floor(C / 16) biases."""
    with torch.device("meta"):
        plain, excited = create_model(name.removeprefix("se_"), 3, 1000), create_model(name, 3, 1000)
    added = 0
    for block in blocks_of(excited):
        chans = [layer.out_channels for layer in block.residual if isinstance(layer, nn.Conv2d)][-1]
        added += 2 * chans * (chans // 16) + chans + chans // 16
    assert added == sum(p.numel() for p in excited.parameters()) - sum(p.numel() for p in plain.parameters())


def test_senet154_has_154_weighted_layers_in_64_groups():
    with torch.device("meta"):
        model = create_model("senet154", 3, 1000)
    stem = [layer for layer in model.stem if isinstance(layer, nn.Conv2d)]
    branches = [layer for block in blocks_of(model) for layer in block.residual if isinstance(layer, nn.Conv2d)]
    assert len(stem) + len(branches) + 1 == 154
    assert {layer.groups for layer in branches if layer.kernel_size == (3, 3)} == {64}
    assert [layer.out_channels for layer in branches[:3]] == [128, 256, 256]
    assert model.head.drop.p == 0.2


def test_senet_strides_in_the_3x3_and_projects_with_3x3():
    model = create_model("senet154", width=4, depths=(1, 2)).eval()
    (first,), (second, third) = model.stages
    assert second.residual[0](torch.randn(1, 16, 16, 16)).shape[2] == 16
    assert second(torch.randn(1, 16, 16, 16)).shape == (1, 32, 8, 8)
    assert first.shortcut[0].kernel_size == (1, 1)
    assert second.shortcut[0].kernel_size == (3, 3)
    assert isinstance(third.shortcut, nn.Identity)
    assert model.stem(torch.randn(1, 1, 64, 64)).shape == (1, 8, 16, 16)
    small = create_model("senet154", width=4, depths=(1, 2), stem="small")
    assert small.stem(torch.randn(1, 1, 64, 64)).shape == (1, 8, 32, 32)
    assert small.min_size == 4


def test_squeeze_and_excitation_joins_every_residual_network():
    """An argument of the class, for comparisons on one's own tiles."""
    torch.manual_seed(0)
    kwargs = {"width": 4, "depths": (1, 1), "stem": "stride2"}
    model = create_model("resnet18", se_reduction=16, variant="full_preact", last_survival=0.5, **kwargs).eval()
    assert model(torch.randn(2, 1, 56, 56)).shape == (2, 1)
    assert sum(isinstance(module, SqueezeExcite) for module in model.modules()) == 2


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"depths": (2, 0)}, r"depths of a SENet .* each at least 1, got \(2, 0\)"),
        ({"width": 0}, "width of a SENet must be at least 1, got 0"),
        ({"stem": "tiny"}, "stem of a SENet must be one of paper, small, got 'tiny'"),
        ({"reduction": 0}, "reduction of a SENet must be at least 1, got 0"),
    ],
)
def test_senet_refuses(kwargs, message):
    with pytest.raises(ValueError, match=message):
        create_model("senet154", **kwargs)


# ---- SE-Inception --------------------------------------------------------------------------------------------------
def test_every_inception_module_ends_with_squeeze_and_excitation():
    torch.manual_seed(0)
    model = create_model("se_inception", width=8).eval()
    seen = []
    for name, block in model.blocks.named_children():
        gates = [module for module in block.modules() if isinstance(module, SqueezeExcite)]
        if name.startswith("stem"):
            assert not gates
            continue
        branches, gate = block
        assert gates == [gate]
        branches.register_forward_hook(lambda _module, _inputs, output, gate=gate: seen.append((gate, output.detach())))
        block.register_forward_hook(lambda _module, _inputs, output: seen.append(output.detach()))
    model(torch.randn(1, 1, 64, 64))
    assert len(seen) == 2 * 10
    for (gate, joined), output in zip(seen[::2], seen[1::2], strict=True):
        torch.testing.assert_close(output, gate(joined))


def test_inception_channels_are_those_of_the_authors_definition():
    with torch.device("meta"):
        model = create_model("se_inception", 3, 1000)
    gates = [module for module in model.modules() if isinstance(module, SqueezeExcite)]
    chans = [256, 320, 576, 576, 576, 608, 608, 1056, 1024, 1024]
    assert [gate.expand.out_channels for gate in gates] == chans
    assert [gate.reduce.out_channels for gate in gates] == [16, 20, 36, 36, 36, 38, 38, 66, 64, 64]
    assert {layer.eps for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)} == {1e-5}


@pytest.mark.parametrize(("stem", "size"), [("paper", 2), ("small", 4)])
def test_inception_stem_sets_the_resolution(stem, size):
    model = create_model("se_inception", width=8, stem=stem).eval()
    assert model.forward_features(torch.randn(1, 1, 56, 56)).shape[2:] == (size, size)
    assert model.min_size == {"paper": 32, "small": 16}[stem]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"stem": "tiny"}, "stem of an SE-Inception network must be one of paper, small, got 'tiny'"),
        ({"width": 0}, "width of an SE-Inception network must be at least 1, got 0"),
        ({"reduction": 0}, "reduction of an SE-Inception network must be at least 1, got 0"),
    ],
)
def test_se_inception_refuses(kwargs, message):
    with pytest.raises(ValueError, match=message):
        create_model("se_inception", **kwargs)
