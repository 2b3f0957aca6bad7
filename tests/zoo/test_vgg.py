"""VGG: depth, kernels, poolings, the head on any map."""

import pytest
import torch
from torch import nn

from models import create_model, describe, list_models, model_entry


def reference(name):
    with torch.device("meta"):
        return create_model(name, **model_entry(name).ref).eval()


def layers(model, kind):
    return [layer for layer in model.modules() if isinstance(layer, kind)]


@pytest.mark.parametrize("name", list_models("vgg"))
def test_weighted_layers_of_the_name_and_3x3_kernels_only(name):
    model = reference(name)
    convolutions = layers(model, nn.Conv2d)
    assert len(convolutions) + len(layers(model, nn.Linear)) == int(name.removeprefix("vgg").removesuffix("_bn"))
    assert {(layer.kernel_size, layer.stride, layer.padding) for layer in convolutions} == {((3, 3), (1, 1), (1, 1))}
    norms = layers(model, nn.BatchNorm2d)
    assert len(norms) == (len(convolutions) if name.endswith("_bn") else 0)
    assert {norm.eps for norm in norms} <= {1e-5}
    assert all(layer.bias is not None for layer in convolutions)


def test_maps_of_the_paper():
    model = reference("vgg16")
    seen = {}
    for name, block in model.blocks.named_children():
        block.register_forward_hook(lambda _m, _i, output, name=name: seen.update({name: tuple(output.shape[1:])}))
    model.forward_features(torch.empty(1, 3, 224, 224, device="meta"))
    assert [seen[f"pool{stage}"] for stage in range(1, 6)] == [
        (64, 112, 112), (128, 56, 56), (256, 28, 28), (512, 14, 14), (512, 7, 7),
    ]  # fmt: skip
    assert [layer.in_features for layer in layers(model, nn.Linear)] == [512 * 49, 4096, 4096]


def test_small_stem_leaves_out_the_first_pooling():
    x = torch.randn(1, 1, 56, 56)
    for stem, side in (("paper", 1), ("small", 3)):
        assert create_model("vgg16", width=4, stem=stem).eval().forward_features(x).shape == (1, 32, side, side)


def test_width_hidden_and_map_size():
    model = create_model("vgg11", width=4, map_size=2).eval()
    assert [layer.out_channels for layer in layers(model, nn.Conv2d)] == [4, 8, 16, 16, 32, 32, 32, 32]
    assert [layer.weight.shape for layer in layers(model, nn.Linear)] == [(256, 32 * 4), (256, 256), (1, 256)]
    assert create_model("vgg11", width=4, hidden=10).head.hidden[0].out_features == 10


def test_activations_neither_die_nor_explode_without_normalisation():
    torch.manual_seed(0)
    model = create_model("vgg19", width=16, stem="small").eval()
    x = torch.randn(4, 1, 112, 112)
    with torch.no_grad():
        features = model.forward_features(x)
    assert 0.1 < features.square().mean() < 20


def test_the_head_reads_positions_so_there_is_no_warning():
    table = describe("vgg16", 224)
    assert table.receptive_field_px == 212  # Araujo et al. (2019), doi:10.23915/distill.00021
    assert table.warnings == ()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"depths": (1, 1)}, r"depths of a VGG are the numbers of convolutions of five stages, got \(1, 1\)"),
        ({"depths": (1, 1, 1, 1, 0)}, r"of five stages, got \(1, 1, 1, 1, 0\)"),
        ({"stem": "tiny"}, "stem of a VGG must be one of paper, small, got 'tiny'"),
        ({"width": 0}, "width of a VGG must be at least 1, got 0"),
        ({"map_size": 0}, "map_size of a VGG must be at least 1, got 0"),
        ({"hidden": 0}, "hidden of a VGG must be at least 1, got 0"),
    ],
)
def test_vgg_refuses(kwargs, message):
    with pytest.raises(ValueError, match=message):
        create_model("vgg16", **kwargs)
