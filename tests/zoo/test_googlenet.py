"""GoogLeNet as published: 5x5 kernels, biases, response normalisation, auxiliary heads in training only."""

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import create_model, model_entry
from models.googlenet import GoogLeNetAux
from models.tables import AuxPool
from models.tile_model import AuxOutputs

SMALL = {"width": 8, "stem": "small"}


@cache
def reference(**kwargs):
    with torch.device("meta"):
        return create_model("googlenet", **model_entry("googlenet").ref, **kwargs)


def num_params(module):
    return sum(parameter.numel() for parameter in module.parameters())


def layers(model, kind):
    return [layer for layer in model.modules() if isinstance(layer, kind)]


def test_maps_of_table_1():
    model = reference().eval()
    seen = {}
    for name, block in model.blocks.named_children():
        block.register_forward_hook(lambda _m, _i, output, name=name: seen.update({name: tuple(output.shape[1:])}))
    model(torch.empty(1, 3, 224, 224, device="meta"))
    assert seen == {
        "conv1": (64, 112, 112), "pool1": (64, 56, 56), "conv2": (192, 56, 56), "pool2": (192, 28, 28),
        "3a": (256, 28, 28), "3b": (480, 28, 28), "pool3": (480, 14, 14),
        "4a": (512, 14, 14), "4b": (512, 14, 14), "4c": (512, 14, 14), "4d": (528, 14, 14), "4e": (832, 14, 14),
        "pool4": (832, 7, 7), "5a": (832, 7, 7), "5b": (1024, 7, 7),
    }  # fmt: skip


def test_parameters_with_both_auxiliary_heads():
    model = reference(aux=True)
    assert num_params(model) == 13_378_280
    assert {name: num_params(head) for name, head in model.auxiliary.items()} == {"4a": 3_188_840, "4d": 3_190_888}


def test_true_5x5_kernels_biases_and_no_batch_normalisation():
    model = reference()
    convolutions = layers(model, nn.Conv2d)
    assert [layer.kernel_size for layer in convolutions].count((5, 5)) == 9
    assert all(layer.bias is not None for layer in convolutions)
    assert not layers(model, nn.BatchNorm2d)
    third = [module.branches[2] for module in model.blocks if hasattr(module, "branches")]
    assert [branch[2].kernel_size for branch in third] == [(5, 5)] * 9


def test_response_normalisation_behind_the_first_pooling_and_before_the_second():
    """Fig. 3 of the paper."""
    model = reference()
    assert [type(layer) for layer in model.blocks.pool1] == [nn.MaxPool2d, nn.LocalResponseNorm]
    assert isinstance(model.blocks.conv2[-1], nn.LocalResponseNorm)
    assert len(layers(model, nn.LocalResponseNorm)) == 2


def test_auxiliary_outputs_in_training_only():
    model = create_model("googlenet", 2, 3, aux=True, **SMALL)
    x = torch.randn(2, 2, 56, 56)
    outputs = model.train()(x)
    assert isinstance(outputs, AuxOutputs)
    assert [tuple(part.shape) for part in (outputs.main, *outputs.auxiliary)] == [(2, 3)] * 3
    assert isinstance(model.eval()(x), Tensor)
    assert isinstance(create_model("googlenet", 2, 3, **SMALL).train()(x), Tensor)


def test_auxiliary_heads_do_not_change_the_outputs():
    model = create_model("googlenet", 2, 3, aux=True, drop_rate=0, **SMALL)
    plain = create_model("googlenet", 2, 3, drop_rate=0, **SMALL)
    missing, unexpected = plain.load_state_dict(model.state_dict(), strict=False)
    assert not missing
    assert all(key.startswith("auxiliary.") for key in unexpected)
    x = torch.randn(2, 2, 56, 56)
    torch.testing.assert_close(model.train()(x).main, plain(x))
    torch.testing.assert_close(model.eval()(x), plain(x))


@pytest.mark.parametrize(("which", "last", "beyond"), [(0, "4a", "4b"), (1, "4d", "4e")])
def test_an_auxiliary_loss_reaches_the_blocks_before_it_alone(which, last, beyond):
    model = create_model("googlenet", 1, 1, aux=True, **SMALL).train()
    model(torch.randn(4, 1, 56, 56)).auxiliary[which].square().sum().backward()
    reached = {name for name, block in model.blocks.named_children() if next(block.parameters(), None) is not None
               and all(parameter.grad is not None for parameter in block.parameters())}  # fmt: skip
    assert {"conv1", "3a", last} <= reached
    assert beyond not in reached
    assert all(parameter.grad is None for parameter in model.head.parameters())


@pytest.mark.parametrize("n_scalars", [0, 3])
def test_every_parameter_gets_a_gradient_with_auxiliary_heads(n_scalars):
    torch.manual_seed(0)
    model = create_model("googlenet", 1, 2, aux=True, n_scalars=n_scalars, **SMALL).train()
    scalars = torch.randn(4, n_scalars) if n_scalars else None
    main, auxiliary = model(torch.randn(4, 1, 56, 56), scalars)
    (main.square().sum() + 0.3 * sum(part.square().sum() for part in auxiliary)).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_reset_head_resets_the_auxiliary_heads():
    model = create_model("googlenet", 1, 2, aux=True, **SMALL).train()
    hidden = model.auxiliary["4a"].hidden[0].weight.clone()
    model.reset_head(5)
    outputs = model(torch.randn(2, 1, 56, 56))
    assert [part.shape[1] for part in (outputs.main, *outputs.auxiliary)] == [5, 5, 5]
    assert torch.equal(model.auxiliary["4a"].hidden[0].weight, hidden)


def test_auxiliary_head_on_the_papers_map_pools_5x5_by_3():
    x = torch.randn(2, 3, 14, 14)
    torch.testing.assert_close(AuxPool(4)(x), F.avg_pool2d(x, 5, 3))
    for side in range(1, 20):
        assert AuxPool(4)(torch.randn(1, 1, side, side)).shape == (1, 1, 4, 4)
    assert [layer.p for layer in GoogLeNetAux(3, 2, 4, 1).modules() if isinstance(layer, nn.Dropout)] == [0.7]


def test_depth_of_the_paper():
    """22 layers with parameters on the longest way: three of the stem, two of each module, the outputs."""
    model = reference()
    stem = sum(len(layers(model.blocks.get_submodule(name), nn.Conv2d)) for name in ("conv1", "conv2"))
    longest = [
        max(len(layers(branch, nn.Conv2d)) for branch in module.branches)
        for module in model.blocks
        if hasattr(module, "branches")
    ]
    assert stem + sum(longest) + 1 == 22


def test_small_stem_leaves_twice_the_resolution():
    x = torch.randn(1, 1, 56, 56)
    paper = create_model("googlenet", width=8).eval().forward_features(x)
    small = create_model("googlenet", **SMALL).eval().forward_features(x)
    assert (paper.shape[2], small.shape[2]) == (1, 3)


def test_activations_neither_die_nor_explode_without_normalisation():
    torch.manual_seed(0)
    model = create_model("googlenet", width=16, stem="small").eval()
    with torch.no_grad():
        features = model.forward_features(torch.randn(4, 1, 112, 112))
    assert 0.05 < features.square().mean() < 50


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"stem": "tiny"}, "stem of a GoogLeNet must be one of paper, small, got 'tiny'"),
        ({"width": 0}, "width of a GoogLeNet must be at least 1, got 0"),
    ],
)
def test_googlenet_refuses(kwargs, message):
    with pytest.raises(ValueError, match=message):
        create_model("googlenet", **kwargs)
