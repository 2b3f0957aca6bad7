"""The five orders in a residual unit, pre-activated networks, wide networks."""

import pytest
import torch
from torch import nn

from models import create_model
from models.layers import PadShortcut
from models.residual import VARIANTS, ResidualBlock, residual_block

BASIC = [(8, 8, 3, 1), (8, 8, 3, 1)]
BOTTLENECK = [(8, 2, 1, 1), (2, 2, 3, 1), (2, 8, 1, 1)]
KINDS = {nn.Conv2d: "conv", nn.BatchNorm2d: "bn", nn.ReLU: "relu"}
FIGURE_4 = {
    "original": ("conv bn relu conv bn", "relu"),
    "bn_after_addition": ("conv bn relu conv", "bn relu"),
    "relu_before_addition": ("conv bn relu conv bn relu", ""),
    "relu_preact": ("relu conv bn relu conv bn", ""),
    "full_preact": ("bn relu conv bn relu conv", ""),
}


def kinds(module):
    return " ".join(KINDS[type(layer)] for layer in module.modules() if type(layer) in KINDS)


def residual_blocks(model):
    return [module for module in model.modules() if isinstance(module, ResidualBlock)]


def shake_norms(module):
    """Normalisations as they are after some training, not the identity that they start as."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 2)
            nn.init.normal_(layer.bias)
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2)


@pytest.mark.parametrize("variant", VARIANTS)
def test_order_of_the_layers_is_that_of_figure_4(variant):
    block = residual_block(BASIC, variant)
    assert (kinds(block.residual), kinds(block.act)) == FIGURE_4[variant]


@pytest.mark.parametrize("convolutions", [BASIC, BOTTLENECK])
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_left_with_zeroed_convolutions(variant, convolutions):
    """(d) and (e) are exact identities, (a) is ReLU(x), (b) ReLU(BN(x)), (c) adds a branch >= 0."""
    torch.manual_seed(0)
    block = residual_block(convolutions, variant).eval()
    shake_norms(block)
    if variant in ("original", "relu_preact"):  # a normalisation ends the branch: the zero must get through
        nn.init.zeros_(block.residual[-1].bias)
        nn.init.zeros_(block.residual[-1].running_mean)
    for layer in block.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.weight)
    x = torch.randn(2, 8, 5, 5)
    before = x.clone()
    y = block(x)
    assert torch.equal(x, before)
    if variant in ("relu_preact", "full_preact"):
        assert torch.equal(y, x)
    elif variant == "original":
        assert torch.equal(y, torch.relu(x))
    elif variant == "bn_after_addition":
        assert torch.equal(y, torch.relu(block.act[0](x)))
        assert not torch.equal(y, torch.relu(x))
    else:
        assert (y - x >= 0).all()
        assert (y - x > 0).any()


def test_relu_before_addition_never_lessens():
    torch.manual_seed(0)
    block = residual_block(BASIC, "relu_before_addition").train()
    x = torch.randn(4, 8, 5, 5)
    assert (block(x) - x > -1e-6).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_unit_leaves_its_input_as_it_is(variant):
    """The shortcut reads what the branch reads: an activation in place would change it."""
    torch.manual_seed(0)
    for convolutions in (BASIC, BOTTLENECK, [(8, 16, 3, 2), (16, 16, 3, 1)]):
        for shortcut in ("projection", "pad"):
            block = residual_block(convolutions, variant, shortcut)
            x = torch.randn(2, 8, 6, 6)
            before = x.clone()
            block(x)
            assert torch.equal(x, before)


@pytest.mark.parametrize("name", ["resnet110_relu_preact", "preact_resnet110"])
def test_identity_from_the_stem_to_the_last_activation(name):
    """The shortcuts of (d) and (e) are free from end to end: with zeroed branches, only padding and subsampling."""
    torch.manual_seed(0)
    model = create_model(name, 3, 2, width=4, depths=(2, 2, 2)).eval()
    for block in residual_blocks(model):
        for layer in block.residual:
            if isinstance(layer, nn.Conv2d):
                nn.init.zeros_(layer.weight)
    x = torch.randn(2, 3, 16, 16)
    start = model.stem(x)
    assert torch.equal(model.stages(start), PadShortcut(4, 16, 4)(start))


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("resnet110_bn_after_addition", ""), ("resnet110_relu_before_addition", ""),
        ("resnet110_relu_preact", "relu"), ("preact_resnet110", "bn relu"), ("preact_resnet164", "bn relu"),
        ("resnetv2_50", "bn relu"), ("wrn_40_2", "bn relu"),
    ],
)  # fmt: skip
def test_activation_before_pooling(name, last):
    model = create_model(name, width=4).eval()
    assert kinds(model.last) == last
    assert (model.forward_features(torch.randn(2, 1, 48, 48)) >= 0).all()


def test_first_unit_has_no_activation_of_its_own():
    """The stem ends with one."""
    for name in ("preact_resnet110", "preact_resnet164", "resnetv2_50", "wrn_40_2", "resnet110_relu_preact"):
        first, second = residual_blocks(create_model(name, width=4))[:2]
        assert isinstance(first.before, nn.Identity)
        assert isinstance(first.residual[0], nn.Conv2d)
        assert isinstance(second.residual[0], nn.ReLU if "relu" in name else nn.BatchNorm2d)


def test_projection_reads_the_activated_input_and_padding_the_input():
    projected = residual_block([(8, 16, 3, 2), (16, 16, 3, 1)], "full_preact", "projection")
    assert kinds(projected.before) == "bn relu"
    assert kinds(projected.residual) == "conv bn relu conv"
    assert kinds(projected.shortcut) == "conv"
    padded = residual_block([(8, 16, 3, 2), (16, 16, 3, 1)], "full_preact", "pad")
    assert kinds(padded.before) == ""
    assert kinds(padded.residual) == "bn relu conv bn relu conv"


def test_layers_of_the_name():
    """The number in a name is that of the convolutions on the longest way and the output.

    A wide network's name counts its three projections, too: 6n + 4.
    """
    for name in ("preact_resnet164", "resnetv2_50", "wrn_40_2"):
        with torch.device("meta"):
            model = create_model(name, 3)
        branches = sum(isinstance(layer, nn.Conv2d) for block in residual_blocks(model) for layer in block.residual)
        projections = sum(kinds(block.shortcut).count("conv") for block in residual_blocks(model))
        counted = branches + 2 + (projections - 1 if name == "wrn_40_2" else 0)
        assert counted == int(name.removesuffix("_2").split("_")[-1].removeprefix("resnet"))


def test_widening_leaves_the_stem():
    model = create_model("wrn_40_2")
    assert model.stem[0].out_channels == 16
    assert [info.num_chs for info in model.feature_info] == [32, 64, 128]
    assert [info.num_chs for info in create_model("wrn_40_2", widen=4, width=4).feature_info] == [16, 32, 64]


@pytest.mark.parametrize(("kwargs", "inner_size"), [({}, 8), ({"bottleneck_stride": "3x3"}, 16)])
def test_bottleneck_strides_where_it_says(kwargs, inner_size):
    first_block = create_model("resnetv2_50", width=4, **kwargs).eval().stages[1][0]
    assert first_block.residual[0](torch.randn(1, 16, 16, 16)).shape[2] == inner_size
    assert first_block(torch.randn(1, 16, 16, 16)).shape == (1, 32, 8, 8)


@pytest.mark.parametrize("variant", [variant for variant in VARIANTS if variant != "relu_before_addition"])
def test_zero_init_silences_every_branch_and_lets_it_learn(variant):
    torch.manual_seed(0)
    model = create_model("resnet20", width=4, depths=(2, 2), variant=variant, zero_init_residual=True).train()
    silent = []
    for block in residual_blocks(model):
        block.residual.register_forward_hook(lambda _module, _inputs, output: silent.append(not output.any()))
    model(torch.randn(4, 1, 16, 16)).square().sum().backward()
    assert silent == [True] * 4
    for block in residual_blocks(model):
        last = [layer for layer in block.residual if hasattr(layer, "weight")][-1]
        assert last.weight.grad.any()
