"""AlexNet: towers, overlapping pooling, response normalisation, the size of the maps."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models import create_model, describe, model_entry


def reference(name):
    with torch.device("meta"):
        return create_model(name, **model_entry(name).ref).eval()


def shapes(model, size):
    """Shape behind each block, for one tile on the model's device."""
    found = {}
    for name, block in model.blocks.named_children():
        block.register_forward_hook(lambda _m, _i, output, name=name: found.update({name: tuple(output.shape[1:])}))
    model.forward_features(torch.empty(1, model.in_chans, size, size, device=next(model.parameters()).device))
    return found


def convolutions(model):
    return [layer for layer in model.blocks.modules() if isinstance(layer, nn.Conv2d)]


def test_maps_of_the_paper():
    assert shapes(reference("alexnet"), 227) == {
        "conv1": (96, 55, 55), "pool1": (96, 27, 27), "conv2": (256, 27, 27), "pool2": (256, 13, 13),
        "conv3": (384, 13, 13), "conv4": (384, 13, 13), "conv5": (256, 13, 13),
    }  # fmt: skip


def test_small_stem_gives_a_tile_of_55_px_the_papers_maps():
    small = {
        name: shape[1:] for name, shape in shapes(create_model("alexnet", width=8, stem="small").eval(), 55).items()
    }
    paper = {name: shape[1:] for name, shape in shapes(reference("alexnet"), 227).items()}
    assert small == paper


def test_parameters_by_layer():
    """Section 3.5 of the paper; the sum is that of the registry."""
    model = reference("alexnet")
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    counts = [sum(p.numel() for p in layer.parameters()) for layer in layers]
    assert counts == [34_944, 307_456, 885_120, 663_936, 442_624, 37_752_832, 16_781_312, 4_097_000]


def test_channels_and_groups_of_both_forms():
    two, one = (convolutions(reference(name)) for name in ("alexnet", "alexnet_owt"))
    assert [(layer.out_channels, layer.groups) for layer in two] == [(96, 1), (256, 2), (384, 1), (384, 2), (256, 2)]
    assert [(layer.out_channels, layer.groups) for layer in one] == [(64, 1), (192, 1), (384, 1), (256, 1), (256, 1)]


def test_a_tower_does_not_see_the_other():
    """Fig. 2: between the third and the fifth convolution, half of the maps depends on half of the maps."""
    model = create_model("alexnet", width=8, stem="small").eval()
    x = torch.randn(1, convolutions(model)[2].out_channels, 9, 9)
    changed = x.clone()
    half = x.shape[1] // 2
    changed[:, :half] += 1
    tower = nn.Sequential(model.blocks.conv4, model.blocks.conv5)
    before, after = tower(x), tower(changed)
    half = before.shape[1] // 2
    assert not torch.equal(before[:, :half], after[:, :half])
    assert torch.equal(before[:, half:], after[:, half:])


def test_pooling_overlaps_and_the_last_one_is_the_same_on_the_papers_map():
    model = create_model("alexnet", width=8)
    for pool in (model.blocks.pool1, model.blocks.pool2):
        assert (pool.kernel_size, pool.stride) == (3, 2)
    x = torch.randn(2, 4, 13, 13)
    assert torch.equal(model.head.pool(x), F.max_pool2d(x, 3, 2))


def test_response_normalisation_behind_the_first_two_relus():
    model = reference("alexnet")
    with_norm = [name for name, block in model.blocks.named_children() if isinstance(block, nn.Sequential)
                 and isinstance(block[-1], nn.LocalResponseNorm)]  # fmt: skip
    assert with_norm == ["conv1", "conv2"]
    norm = model.blocks.conv1[-1]
    assert isinstance(model.blocks.conv1[-2], nn.ReLU)
    assert (norm.size, norm.alpha / norm.size, norm.beta, norm.k) == (5, pytest.approx(1e-4), 0.75, 2)


def test_dropout_behind_both_hidden_layers():
    model = create_model("alexnet", width=8, hidden=16)
    kinds = [type(layer) for layer in [*model.head.hidden, model.head.head.drop]]
    assert kinds == [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear, nn.ReLU, nn.Dropout]
    assert [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)] == [0.5, 0.5]


def test_map_size_and_hidden():
    model = create_model("alexnet", width=8, stem="small", map_size=2, hidden=16).eval()
    assert model.head.hidden[0].weight.shape == (16, 22 * 2 * 2)
    assert model(torch.randn(2, 1, 56, 60)).shape == (2, 1)


def test_the_head_reads_positions_so_there_is_no_warning():
    table = describe("alexnet", 227)
    assert table.receptive_field_px == 163
    assert table.warnings == ()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"towers": 3}, "towers of an AlexNet must be 1 or 2, got 3"),
        ({"stem": "tiny"}, "stem of an AlexNet must be one of paper, small, got 'tiny'"),
        ({"width": 0}, "width of an AlexNet must be at least 1, got 0"),
        ({"map_size": 0}, "map_size of an AlexNet must be at least 1, got 0"),
        ({"hidden": 0}, "hidden of an AlexNet must be at least 1, got 0"),
    ],
)
def test_alexnet_refuses(kwargs, message):
    with pytest.raises(ValueError, match=message):
        create_model("alexnet", **kwargs)
