"""The table of layers: counts against torch's own, receptive fields against what the network really sees."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models import create_model, describe, list_models

# Deeper ones of the same kind as another entry: hundreds of layers would only cost time.
DEEPER = {
    *("resnet101", "resnet152", "resnet110", "resnet1202"),
    *("preact_resnet110", "preact_resnet1001", "resnetv2_101", "resnetv2_152"),
    *("resnet110_bn_after_addition", "resnet110_relu_before_addition", "resnet110_relu_preact"),
    *("stochastic_depth_resnet110", "se_resnet101", "se_resnet152", "senet154"),
    *("densenet_bc250_k24", "densenet_bc190_k40", "densenet169", "densenet201", "densenet161"),
}


@pytest.mark.parametrize("name", [name for name in list_models() if name not in DEEPER])
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


def test_flops_are_two_per_multiply_accumulate():
    rows = {row.name: row for row in describe("lenet5_modern", 32, num_outputs=10).layers}
    assert rows["c1"].flops == 2 * 28 * 28 * 6 * 25
    assert rows["head.output"].flops == 2 * 84 * 10


@pytest.mark.parametrize(
    ("name", "kwargs", "field_px", "jump_px"),
    [
        (
            "resnet18",
            {},
            435,
            32,
        ),  # Araujo et al. 2019, table of receptive fields: ResNet-18 ... -152 by the recurrence
        ("resnet50", {}, 483, 32),
        ("resnet50", {"bottleneck_stride": "3x3"}, 427, 32),
        ("resnet101", {}, 1027, 32),
        ("lenet5", {}, 32, 4),
    ],
)
def test_known_receptive_fields(name, kwargs, field_px, jump_px):
    table = describe(name, 64, **kwargs)
    assert table.receptive_field_px == field_px
    last_map = [row for row in table.layers if row.jump_px is not None][-1]
    assert (last_map.receptive_field_px, last_map.jump_px) == (field_px, jump_px)


CASES = [
    ("resnet18", {"width": 2, "depths": (1, 1)}),
    ("resnet18", {"width": 2, "depths": (1, 1), "stem": "stride2"}),
    ("resnet20", {"width": 2, "depths": (1, 1)}),
    ("resnet50", {"width": 2, "depths": (1, 1)}),
    ("lenet5", {}),
    ("lenet5_modern", {}),
]


def seen_px(model, size):
    """Extent of the pixels that the central element of the last maps answers to.

    With positive weights nothing cancels: each pixel of the central row is lit alone.
    """
    view = model if hasattr(model, "stride") else model.forward_features
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
        lit = torch.zeros(size, 1, size, size, dtype=torch.float64)
        lit[torch.arange(size), 0, size // 2, torch.arange(size)] = 1e3
        maps = view(lit) - view(torch.zeros_like(lit[:1]))
    centre = maps.shape[-1] // 2
    answers = maps[..., centre, centre].abs().sum(1).nonzero().flatten()
    return int(answers.max() - answers.min()) + 1


@pytest.mark.parametrize(("name", "kwargs"), CASES)
def test_receptive_field_is_what_the_network_sees(name, kwargs):
    model = create_model(name, **kwargs).double().eval()
    assert seen_px(model, 96) == describe(name, 96, **kwargs).receptive_field_px


@pytest.mark.parametrize("kwargs", [{"skips": True}, {"skips": False}, {"skips": True, "unshuffle": 1}])
def test_receptive_field_of_a_dense_network_is_not_exceeded(kwargs):
    """What an output pixel sees depends on its place within a stride; the table gives the widest."""
    model = create_model("conv_autoencoder", width=2, depth=1, zero_init=False, **kwargs).double().eval()
    claimed = describe("conv_autoencoder", 64, width=2, depth=1, **kwargs).receptive_field_px
    seen = seen_px(model, 64)
    assert claimed - model.stride < seen <= claimed


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
