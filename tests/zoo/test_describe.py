"""The table of layers: counts against torch's own, receptive fields against what the network really sees."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models import create_model, describe, list_models, model_entry
from models.layers import SqueezeExcite

# Deeper ones of the same kind as another entry: hundreds of layers would only cost time.
DEEPER = {
    *("preact_resnet164", "densenet_bc100_k12", "inception_v4", "se_resnet50", "se_inception", "wrn_40_2"),
    *("stereo_lstm", "vgg13", "vgg16", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"),
    *("resnet101", "resnet152", "resnet110", "resnet1202"),
    *("preact_resnet110", "preact_resnet1001", "resnetv2_101", "resnetv2_152"),
    *("resnet110_bn_after_addition", "resnet110_relu_before_addition", "resnet110_relu_preact"),
    *("stochastic_depth_resnet110", "se_resnet101", "se_resnet152", "senet154"),
    *("densenet_bc250_k24", "densenet_bc190_k40", "densenet169", "densenet201", "densenet161"),
}


VECTORS_AND_MAPS = [name for name in list_models() if model_entry(name).gives != "image"]


@pytest.mark.parametrize("name", [name for name in VECTORS_AND_MAPS if name not in DEEPER])
def test_totals_equal_torch_and_the_sum_of_the_layers(name):
    table = describe(name, 112, in_chans=2, num_outputs=3)
    with torch.device("meta"):
        model = create_model(name, 2, 3).eval()
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            model(torch.empty(1, 2, 112, 112))
    assert table.flops == counter.get_total_flops() == sum(row.flops for row in table.layers)
    n_params = sum(p.numel() for p in model.parameters())
    assert table.num_params == n_params == sum(row.num_params for row in table.layers)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_heads_are_not_counted(name):
    """They have no part in a prediction: the number would not fit the operations beside it."""
    arguments = {"width": 4, "stem": "small"}
    with_aux, without = describe(name, 56, aux=True, **arguments), describe(name, 56, **arguments)
    assert with_aux.num_params == without.num_params == sum(row.num_params for row in with_aux.layers)
    assert with_aux.flops == without.flops


def test_flops_are_two_per_multiply_accumulate():
    rows = {row.name: row for row in describe("lenet5_modern", 32, num_outputs=10).layers}
    assert rows["c1"].flops == 2 * 28 * 28 * 6 * 25
    assert rows["head.output"].flops == 2 * 84 * 10


@pytest.mark.parametrize(
    ("name", "kwargs", "field_px", "jump_px"),
    [
        ("resnet18", {}, 435, 32),
        ("resnet50", {}, 483, 32),
        ("resnet50", {"bottleneck_stride": "3x3"}, 427, 32),
        ("resnet101", {}, 1027, 32),
        ("resnet152", {}, 1507, 32),
        ("vgg16", {}, 212, 32),
        ("inception_v2", {}, 699, 32),
        ("inception_v3", {}, 1311, 32),
        ("inception_v4", {}, 2071, 32),
        ("inception_resnet_v2", {}, 3039, 32),
        ("lenet5", {}, 32, 4),
    ],
)
def test_known_receptive_fields(name, kwargs, field_px, jump_px):
    """Araujo et al. 2019, table of receptive fields, has the same for those that it lists; the others by hand."""
    table = describe(name, 112, **kwargs)
    assert table.receptive_field_px == field_px
    in_features = [row for row in table.layers if row.jump_px is not None and not row.name.startswith("head")]
    assert max(row.receptive_field_px for row in in_features) == field_px  # the last row may be a narrower branch
    assert in_features[-1].jump_px == jump_px


CASES = [
    ("resnet18", {"width": 2, "depths": (1, 1)}),
    ("resnet18", {"width": 2, "depths": (1, 1), "stem": "stride2"}),
    ("resnet20", {"width": 2, "depths": (1, 1)}),
    ("resnet20", {"width": 2, "depths": (1, 1), "variant": "relu_preact", "shortcut": "average_pad"}),
    ("resnet50", {"width": 2, "depths": (1, 1)}),
    ("wrn_40_2", {"width": 2, "depths": (1, 1)}),
    ("stochastic_depth_resnet110", {"width": 2, "depths": (1, 1)}),
    ("se_resnet18", {"width": 4, "depths": (1, 1)}),
    ("senet154", {"width": 2, "depths": (1, 1)}),
    ("lenet5", {}),
    ("lenet5_modern", {}),
    ("alexnet", {"width": 4, "stem": "small"}),
    ("vgg11", {"width": 1}),
    ("nin_cifar", {"width": 8}),
    ("nin_imagenet", {"width": 8}),
    ("googlenet", {"width": 4, "stem": "small"}),
    ("inception_v2", {"width": 4, "depths": (1, 1, 1), "stem": "small"}),
    ("inception_v3", {"width": 4, "depths": (1, 1, 1), "stem": "small"}),
    ("inception_v4", {"width": 4, "depths": (1, 1, 1), "stem": "small"}),
    ("inception_resnet_v2", {"width": 4, "depths": (1, 1, 1), "stem": "small"}),
    ("fractalnet20", {"width": 2, "factors": (1, 1)}),
    ("densenet_bc100_k12", {"growth_rate": 2, "depths": (2, 2)}),
    ("densenet121", {"growth_rate": 2, "depths": (2, 2)}),
    ("hypernet", {"width": 2}),
    ("hypernet_wrn40_2", {"width": 2, "depths": (1, 1)}),
    ("stereo_mean", {"encoder": "resnet20", "encoder_kwargs": {"width": 2, "depths": (1, 1)}}),
]


def seen_px(model, size, read=None):
    """Rows and columns between the outermost pixels on which the central element of the maps that `read` gives depends.

    By default these are the last features.

    With positive weights no derivatives cancel; averages instead of maxima let all of a window through, and a gate of
    squeeze and excitation is held fixed.
    """
    for module in list(model.modules()):
        if isinstance(module, SqueezeExcite):
            nn.init.zeros_(module.expand.weight)
        for name, pool in module.named_children():
            if isinstance(pool, nn.MaxPool2d):
                setattr(module, name, nn.AvgPool2d(pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    x = torch.rand(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    maps = (read or model.forward_features)(x)
    centre = maps.shape[-1] // 2
    maps[..., centre, centre].sum().backward()
    seen = [(x.grad[0, 0] != 0).any(dim).nonzero().flatten() for dim in (1, 0)]
    return [int(answers.max() - answers.min()) + 1 for answers in seen]


@pytest.mark.parametrize(("name", "kwargs"), CASES)
def test_receptive_field_is_what_the_network_sees(name, kwargs):
    torch.manual_seed(0)
    model = create_model(name, **kwargs).double().eval()
    field_px = describe(name, 96, **kwargs).receptive_field_px
    assert seen_px(model, field_px + 48) == [field_px, field_px]


def test_a_gate_over_the_whole_tile_is_left_out_of_account():
    """What it decides is not where something is; in the narrow sense, every element would see the whole tile."""
    arguments = {"width": 4, "depths": (1, 1)}
    rows = {row.name: row for row in describe("se_resnet18", 96, **arguments).layers}
    assert rows["stages.1.0.residual.5.reduce"].receptive_field_px is None
    assert rows["stages.1.0.act"].receptive_field_px == 51
    assert describe("resnet18", 96, **arguments).receptive_field_px == 51


def test_parts_and_wholes_are_counted_once():
    """A layer with a part of its own, or with weights that another one makes, has its own numbers in its row."""
    rows = describe("hypernet", 28, num_outputs=10).layers
    assert [(row.name, row.num_params) for row in rows if row.num_params] == [
        ("conv1", 800), ("generator.project", 320), ("generator.emit", 3920), ("conv2", 20), ("head.output", 7850),
    ]  # fmt: skip
    flops = {row.name: row.flops for row in rows}
    assert flops["generator.emit"] == 2 * 16 * 4 * 784
    assert flops["conv2"] == 2 * 14 * 14 * 16 * 16 * 49


def test_fully_connected_layers_read_all_positions():
    rows = {row.name: row for row in describe("vgg11", 112, width=1).layers}
    # three pixels of 32 px to seven bins, of which some span two of them: their centres lie from pixel 0 to pixel 2
    assert rows["head.pool"].receptive_field_px == 150 + 32
    assert rows["head.pool"].jump_px == pytest.approx(32 * 2 / 6)
    assert rows["head.hidden.0"].receptive_field_px is None
    assert describe("vgg11", 224, width=1).warnings == ()
    assert describe("mlp", 112).receptive_field_px is None


@pytest.mark.parametrize(("map_size", "jump_px"), [(13, 16), (6, 32), (1, None)])
def test_step_between_the_bins_of_a_pooling(map_size, jump_px):
    """AlexNet's last 13 x 13 maps, of 16 px; six bins of three elements or less, the first and last centre 10 apart."""
    rows = {row.name: row for row in describe("alexnet", 227, width=8, map_size=map_size).layers}
    assert rows["head.pool"].jump_px == jump_px


@pytest.mark.parametrize("kwargs", [{"skips": True}, {"skips": False}, {"skips": True, "unshuffle": 1}])
def test_receptive_field_of_a_dense_network_is_not_exceeded(kwargs):
    """What an output pixel sees depends on its place within a stride; the table gives the widest."""
    model = create_model("conv_autoencoder", width=2, depth=1, zero_init=False, **kwargs).double().eval()
    claimed = describe("conv_autoencoder", 64, width=2, depth=1, **kwargs).receptive_field_px
    for seen in seen_px(model, 64, read=model):
        assert claimed - model.size_multiple < seen <= claimed


def test_warns_when_the_tile_is_not_covered():
    covered = describe("resnet18", 112)
    assert covered.warnings == ()
    (warning,) = describe("lenet5", 112).warnings
    assert "the last features of lenet5 see 32 px, not the whole tile of 112 px" in warning


def test_dense_networks_do_not_warn():
    assert describe("unet", 512).warnings == ()


def test_scalars_enter_the_head():
    rows = {row.name: row for row in describe("resnet18", 56, n_scalars=11, width=16).layers}
    assert rows["head.embed.0"].num_params == (11 + 1) * 64
    assert rows["head.join.0"].num_params == (128 + 64 + 1) * 64


def test_tile_too_small():
    with pytest.raises(ValueError, match="the smallest is 32 px"):
        describe("resnet18", 16)
