"""Inception-v2, -v3, -v4, Inception-ResNet-v2: counts, maps, normalisation, residual scales, the auxiliary head."""

from collections import Counter
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import create_model, describe, list_models, model_entry
from models.tables import AuxPool, ScaledResidual
from models.tile_model import AuxOutputs

NAMES = list_models("inception")
SMALL = {"width": 4, "stem": "small", "depths": (1, 2, 1)}


@cache
def reference(name, **kwargs):
    with torch.device("meta"):
        return create_model(name, **model_entry(name).ref, **kwargs).eval()


def num_params(module):
    return sum(parameter.numel() for parameter in module.parameters())


def layers(model, kind):
    return [layer for layer in model.modules() if isinstance(layer, kind)]


def shapes(model, size):
    found = {}
    for name, block in model.blocks.named_children():
        block.register_forward_hook(lambda _m, _i, output, name=name: found.update({name: tuple(output.shape[1:])}))
    model.forward_features(torch.empty(1, model.in_chans, size, size, device=next(model.parameters()).device))
    return found


# ---- counts and maps ------------------------------------------------------------------------------------------------
# arXiv:1502.03167, Fig. 5: 1x1; 3x3 reduce, 3x3; double 3x3 reduce, double 3x3; projection (0: passed through, strided)
FIGURE_5 = [
    (64, 64, 64, 64, 96, 32), (64, 64, 96, 64, 96, 64), (0, 128, 160, 64, 96, 0),
    (224, 64, 96, 96, 128, 128), (192, 96, 128, 96, 128, 128), (160, 128, 160, 128, 160, 96),
    (96, 128, 192, 160, 192, 96), (0, 128, 192, 192, 256, 0),
    (352, 192, 320, 160, 224, 128), (352, 192, 320, 192, 224, 128),
]  # fmt: skip
FIGURE_5_OUTPUTS = [256, 320, 576, 576, 576, 576, 576, 1024, 1024, 1024]


def test_inception_v2_counted_from_the_figure():
    kernels = 7 * 7 * 3 * 8 + 24 * 64 + 64 * 64 + 9 * 64 * 192
    maps = 64 + 64 + 192
    chans = 192
    for (ones, reduce3, threes, reduce_double, double, pooled), outputs in zip(FIGURE_5, FIGURE_5_OUTPUTS, strict=True):
        kernels += chans * (ones + reduce3 + reduce_double + pooled)
        kernels += 9 * (reduce3 * threes + reduce_double * double + double * double)
        maps += ones + reduce3 + threes + reduce_double + 2 * double + pooled
        chans = ones + threes + double + (pooled or chans)
        assert chans == outputs
    assert kernels + 2 * maps + 1025 * 1000 == model_entry("inception_v2").num_params
    # The authors' test (inception_v2_test.py of TF-Slim) counts the moving averages, no scale, and 64 biases in place
    # of the first normalisation, without the last layer.
    assert kernels + 3 * (maps - 64) + 64 == 10_173_112


def test_inception_v3_agrees_with_the_authors_test():
    """21,802,784 in inception_v3_test.py of TF-Slim: moving averages, no scale, without the last layer."""
    model = reference("inception_v3")
    maps = sum(norm.num_features for norm in layers(model, nn.BatchNorm2d))
    assert num_params(model.blocks) + maps == 21_802_784


def test_parameters_of_inception_v3_with_its_auxiliary_head():
    assert num_params(reference("inception_v3", aux=True)) == 27_161_264


def test_maps_of_inception_v2():
    found = shapes(reference("inception_v2"), 224)
    assert found["stem2"] == (192, 56, 56)
    modules = [shape for name, shape in found.items() if not name.startswith("stem")]
    assert [shape[0] for shape in modules] == FIGURE_5_OUTPUTS
    assert [shape[1] for shape in modules] == [28] * 2 + [14] * 5 + [7] * 3


def test_maps_of_inception_v3():
    found = shapes(reference("inception_v3"), 299)
    assert found == {
        "stem1": (64, 147, 147), "stem2": (192, 71, 71), "stem3": (192, 35, 35),
        "a1": (256, 35, 35), "a2": (288, 35, 35), "a3": (288, 35, 35), "reduction_a": (768, 17, 17),
        "b1": (768, 17, 17), "b2": (768, 17, 17), "b3": (768, 17, 17), "b4": (768, 17, 17),
        "reduction_b": (1280, 8, 8), "c1": (2048, 8, 8), "c2": (2048, 8, 8),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "a", "b", "c", "last"),
    [("inception_v4", 384, 1024, 1536, 1536), ("inception_resnet_v2", 320, 1088, 2080, 1536)],
)
def test_maps_of_inception_v4_and_resnet_v2(name, a, b, c, last):
    found = shapes(reference(name), 299)
    assert {shape for key, shape in found.items() if key[0] == "a"} == {(a, 35, 35)}
    assert {shape for key, shape in found.items() if key[0] == "b"} == {(b, 17, 17)}
    assert {shape for key, shape in found.items() if key[0] == "c"} == {(c, 8, 8)}
    assert list(found.values())[-1] == (last, 8, 8)


@pytest.mark.parametrize(
    ("name", "size", "field_px"),
    [("inception_v2", 224, 699), ("inception_v3", 299, 1311), ("inception_v4", 299, 2071),
     ("inception_resnet_v2", 299, 3039)],
)  # fmt: skip
def test_receptive_fields_of_the_literature(name, size, field_px):
    """Araujo, Norris, Sim (2019), doi:10.23915/distill.00021."""
    assert describe(name, size, in_chans=3).receptive_field_px == field_px


# ---- layers ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", NAMES)
def test_epsilon_of_the_normalisation(name):
    """1e-3 throughout the family, where torch's own is 1e-5."""
    norms = layers(reference(name, **({"aux": True} if name == "inception_v3" else {})), nn.BatchNorm2d)
    assert {norm.eps for norm in norms} == {1e-3}


@pytest.mark.parametrize("name", NAMES)
def test_convolutions_are_normalised_and_without_bias(name):
    model = reference(name)
    linear = {id(block.residual[-1]) for block in layers(model, ScaledResidual)}
    depthwise = 1 if name == "inception_v2" else 0
    plain = [layer for layer in layers(model, nn.Conv2d) if id(layer) not in linear]
    assert all(layer.bias is None for layer in plain)
    assert len(plain) == len(layers(model, nn.BatchNorm2d)) + depthwise


def test_factorised_kernels_of_inception_v3():
    model = reference("inception_v3")
    for name, kernels in (
        ("a", {(1, 1), (3, 3), (5, 5)}),
        ("b", {(1, 1), (1, 7), (7, 1)}),
        ("c", {(1, 1), (3, 3), (1, 3), (3, 1)}),
    ):
        blocks = [block for key, block in model.blocks.named_children() if key[0] == name]
        assert {layer.kernel_size for block in blocks for layer in layers(block, nn.Conv2d)} == kernels
    # 1x1, 7x7 as 1x7 and 7x1, twice that: one after the other, the sizes of the inner maps as in the paper's appendix
    inner = [model.blocks.get_submodule(f"b{number}").branches[1][0].out_channels for number in range(1, 5)]
    assert inner == [128, 160, 160, 192]


def test_inception_v2_has_two_3x3_for_each_5x5_and_pools_as_the_figure_says():
    model = reference("inception_v2")
    assert {layer.kernel_size for layer in layers(model, nn.Conv2d)} == {(1, 1), (3, 3), (7, 7)}
    first = model.blocks.stem1[0]
    assert (first.kernel_size, first.groups, first.out_channels) == ((7, 7), 3, 24)  # separable, multiplier 8
    pools = {
        name: type(block.branches[-1][0] if isinstance(block.branches[-1], nn.Sequential) else block.branches[-1])
        for name, block in model.blocks.named_children()
        if not name.startswith("stem")
    }
    assert [name for name, kind in pools.items() if kind is nn.MaxPool2d] == ["reduction_a", "reduction_b", "c2"]


def test_only_inception_v3_counts_the_padding_of_an_average():
    for name in NAMES:
        model = reference(name)
        counts = {pool.count_include_pad for pool in layers(model, nn.AvgPool2d)}
        assert counts == {name == "inception_v3"}


# ---- residuals ------------------------------------------------------------------------------------------------------
def test_residual_scales():
    scales = Counter(block.scale for block in layers(reference("inception_resnet_v2"), ScaledResidual))
    assert scales == {0.17: 10, 0.10: 20, 0.20: 9, 1.0: 1}


def test_residual_blocks_are_relu_of_the_input_with_zeroed_branches_and_the_last_is_the_identity():
    model = create_model("inception_resnet_v2", **SMALL).train()
    blocks = layers(model, ScaledResidual)
    for block in blocks:
        convolution = block.residual[-1]
        nn.init.zeros_(convolution.weight)
        nn.init.zeros_(convolution.bias)
        x = torch.randn(2, convolution.out_channels, 5, 5)
        assert torch.equal(block(x), x if block is blocks[-1] else torch.relu(x))


def test_the_last_1x1_of_a_residual_is_linear_and_scaled():
    torch.manual_seed(0)
    block = layers(create_model("inception_resnet_v2", **(SMALL | {"depths": (1, 1, 2)})), ScaledResidual)[0].eval()
    convolution = block.residual[-1]
    assert (type(convolution), convolution.kernel_size, convolution.bias is None) == (nn.Conv2d, (1, 1), False)
    block.act = nn.Identity()
    x = torch.randn(2, convolution.out_channels, 5, 5)
    added = block(x) - x
    assert (added < 0).any()  # a ReLU or a normalisation behind it would not add both signs
    with torch.no_grad():
        convolution.weight *= 2
        convolution.bias *= 2
    torch.testing.assert_close(block(x) - x, 2 * added, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(2 * added, 0.17 * block.residual(x), rtol=1e-4, atol=1e-4)


# ---- auxiliary head -------------------------------------------------------------------------------------------------
def test_auxiliary_head_in_training_only_and_behind_the_last_b():
    model = create_model("inception_v3", 1, 2, aux=True, **SMALL)
    assert list(model.auxiliary) == ["b2"]
    x = torch.randn(4, 1, 56, 56)
    outputs = model.train()(x)
    assert isinstance(outputs, AuxOutputs)
    assert [tuple(part.shape) for part in (outputs.main, *outputs.auxiliary)] == [(4, 2)] * 2
    outputs.auxiliary[0].square().sum().backward()
    without = {name for name, block in model.blocks.named_children()
               if any(parameter.grad is None for parameter in block.parameters())}  # fmt: skip
    assert without == {"reduction_b", "c1"}
    assert isinstance(model.eval()(x), Tensor)


def test_every_parameter_gets_a_gradient_with_the_auxiliary_head():
    torch.manual_seed(0)
    model = create_model("inception_v3", 1, 2, aux=True, n_scalars=3, **SMALL).train()
    main, (auxiliary,) = model(torch.randn(4, 1, 56, 56), torch.randn(4, 3))
    (main.square().sum() + 0.3 * auxiliary.square().sum()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_auxiliary_head_on_the_smallest_tile():
    model = create_model("inception_v3", 1, 2, aux=True, **SMALL).train()
    assert model(torch.randn(4, 1, 16, 16)).auxiliary[0].shape == (4, 2)


def test_auxiliary_head_is_normalised_and_pools_the_papers_map_to_5x5():
    x = torch.randn(2, 3, 17, 17)
    torch.testing.assert_close(AuxPool(5)(x), F.avg_pool2d(x, 5, 3))
    head = reference("inception_v3", aux=True).auxiliary["b4"]
    assert [(layer.kernel_size, layer.out_channels) for layer in layers(head, nn.Conv2d)] == [
        ((1, 1), 128),
        ((5, 5), 768),
    ]
    assert len(layers(head, nn.BatchNorm2d)) == 2
    assert head.maps(torch.empty(1, 768, 5, 5, device="meta").expand(2, -1, -1, -1)).shape == (2, 768, 1, 1)


def test_reset_head_resets_the_auxiliary_head():
    model = create_model("inception_v3", 1, 2, aux=True, **SMALL).train()
    model.reset_head(5)
    main, (auxiliary,) = model(torch.randn(2, 1, 56, 56))
    assert main.shape == auxiliary.shape == (2, 5)


# ---- adaptive form --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", NAMES)
def test_small_stem_on_a_tile_of_56_px(name):
    model = create_model(name, **SMALL).eval()
    found = shapes(model, 56)
    assert [found[key][1] for key in ("a1", "b1", "c1")] == [14, 7, 4]
    assert model.min_size == 16


def test_papers_stem_names_its_smallest_tile():
    for name in NAMES:
        smallest = 32 if name == "inception_v2" else 75
        model = create_model(name, **(SMALL | {"stem": "paper"})).eval()
        assert model.min_size == smallest
        assert model(torch.randn(1, 1, smallest, smallest)).shape == (1, 1)
        with pytest.raises(ValueError, match=f"too small for Inception; the smallest is {smallest} px"):
            model(torch.randn(1, 1, smallest - 1, 80))


def test_depths_take_the_first_modules_or_repeat_the_last():
    model = create_model("inception_v3", width=4, depths=(1, 5, 1))
    names = [name for name, _ in model.blocks.named_children() if not name.startswith("stem")]
    assert names == ["a1", "reduction_a", "b1", "b2", "b3", "b4", "b5", "reduction_b", "c1"]
    inner = [model.blocks.get_submodule(f"b{number}").branches[1][0].out_channels for number in range(1, 6)]
    assert inner == [16, 20, 20, 24, 24]
    residual = layers(create_model("inception_resnet_v2", width=4, depths=(1, 1, 2)), ScaledResidual)
    assert [(block.scale, type(block.act)) for block in residual[2:]] == [(0.20, nn.ReLU), (1.0, nn.Identity)]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"version": "v5"}, "version of an Inception network must be one of v2, v3, v4, resnet_v2, got 'v5'"),
        ({"stem": "tiny"}, "stem of an Inception network must be one of paper, small, got 'tiny'"),
        ({"width": 0}, "width of an Inception network must be at least 1, got 0"),
        ({"depths": (1, 1)}, r"the numbers of modules A, B, C, each at least 1, got \(1, 1\)"),
        ({"depths": (1, 0, 1)}, r"each at least 1, got \(1, 0, 1\)"),
        ({"aux": True}, "aux is the auxiliary head of Inception version v3, got version 'v4'"),
    ],
)
def test_inception_refuses(kwargs, message):
    with pytest.raises(ValueError, match=message):
        create_model("inception_v4", **kwargs)
