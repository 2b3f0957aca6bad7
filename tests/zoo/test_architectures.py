"""What parameter counts do not see: the structure of each family."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from models import create_model, model_entry
from models.layers import PadShortcut, ScaledTanh
from models.lenet import C3_INPUTS, RbfOutput, paley_hadamard
from models.resnet import ResidualBlock


# ---- ResNet --------------------------------------------------------------------------------------------------------
def residual_blocks(model):
    return [module for module in model.modules() if isinstance(module, ResidualBlock)]


@pytest.mark.parametrize(("stem", "first", "last"), [("imagenet", 16, 2), ("stride2", 32, 4), ("cifar", 64, 8)])
def test_stem_sets_the_resolution(stem, first, last):
    model = create_model("resnet18", width=4, stem=stem).eval()
    x = torch.randn(1, 1, 64, 64)
    assert model.stem(x).shape == (1, 4, first, first)
    assert model.forward_features(x).shape == (1, 32, last, last)
    assert model.min_size == 64 // last


@pytest.mark.parametrize(("kwargs", "inner_size"), [({}, 8), ({"bottleneck_stride": "3x3"}, 16)])
def test_bottleneck_strides_where_it_says(kwargs, inner_size):
    """He et al. stride in the first 1x1, torchvision in the 3x3: the map between the two tells."""
    model = create_model("resnet50", width=4, **kwargs).eval()
    first_block = model.stages[1][0]
    assert first_block.residual[0](torch.randn(1, 16, 16, 16)).shape[2] == inner_size
    assert first_block(torch.randn(1, 16, 16, 16)).shape == (1, 32, 8, 8)


def test_layers_of_the_name():
    """ResNet-n has n weighted layers on the longest way: convolutions of the branches, stem, output."""
    for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet20", "resnet56"):
        with torch.device("meta"):
            model = create_model(name, **model_entry(name).ref)
        branches = sum(isinstance(layer, nn.Conv2d) for block in residual_blocks(model) for layer in block.residual)
        assert branches + 2 == int(name.removeprefix("resnet"))


def test_option_a_is_the_subsampled_input_with_zero_channels():
    x = torch.randn(2, 3, 7, 8)
    y = PadShortcut(3, 8, stride=2)(x)
    assert y.shape == (2, 8, 4, 4)
    assert torch.equal(y[:, :3], x[:, :, ::2, ::2])
    assert not y[:, 3:].any()


def test_cifar_form_has_no_projection():
    model = create_model("resnet20")
    kinds = [type(block.shortcut) for block in residual_blocks(model)]
    assert kinds.count(PadShortcut) == 2
    assert kinds.count(nn.Identity) == 7


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet20"])
def test_zero_init_starts_as_the_shortcut(name):
    model = create_model(name, width=4, zero_init_residual=True).train()
    for block in residual_blocks(model):
        chans = next(layer.in_channels for layer in block.residual if isinstance(layer, nn.Conv2d))
        x = torch.randn(2, chans, 8, 8)
        assert torch.equal(block(x), torch.relu(block.shortcut(x)))


def test_names_and_first_weights_stay():
    """Stored networks are read by these names; equal seeds give equal networks."""
    torch.manual_seed(0)
    model = create_model("resnet18", width=2, depths=(1, 1), stem="stride2")
    weights = [name for name, parameter in model.named_parameters() if parameter.ndim > 1]
    assert weights == [
        "stem.0.weight", "stages.0.0.residual.0.weight", "stages.0.0.residual.3.weight",
        "stages.1.0.residual.0.weight", "stages.1.0.residual.3.weight", "stages.1.0.shortcut.0.weight",
        "head.output.weight",
    ]  # fmt: skip
    # as drawn before the class had variants, rounded
    sums = [parameter.detach().double().sum().item() for parameter in model.parameters() if parameter.ndim > 1]
    expected = [-0.074023, 4.818599, 2.449028, 2.846791, 0.280419, -1.456495, -0.393257]
    assert sums == pytest.approx(expected, abs=2e-6)


def test_depths_and_width_are_free():
    model = create_model("resnet18", depths=[1, 2, 3], width=5)
    assert [len(stage) for stage in model.stages] == [1, 2, 3]
    assert [info.num_chs for info in model.feature_info] == [5, 10, 20]
    same = create_model("resnet20", depths=(5, 5, 5))
    assert sum(p.numel() for p in same.parameters()) == sum(p.numel() for p in create_model("resnet32").parameters())


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"stem": "tiny"}, "stem of a ResNet must be one of imagenet, stride2, cifar, got 'tiny'"),
        ({"block": "wide"}, "block of a ResNet must be one of basic, bottleneck, got 'wide'"),
        ({"shortcut": "none"}, "shortcut of a ResNet must be one of projection, pad, average_pad, got 'none'"),
        ({"bottleneck_stride": "5x5"}, "bottleneck_stride of a ResNet must be one of 1x1, 3x3, got '5x5'"),
        ({"depths": (2, 0)}, r"each at least 1, got \(2, 0\)"),
        ({"depths": ()}, r"each at least 1, got \(\)"),
        ({"width": 0}, "width of a ResNet must be at least 1, got 0"),
        ({"widen": 0}, "widen of a ResNet must be at least 1, got 0"),
        ({"se_reduction": 0}, "se_reduction of a ResNet must be at least 1, got 0"),
        ({"last_survival": 0.0}, r"last_survival of a ResNet must be in \(0, 1\], got 0.0"),
        ({"variant": "preact"}, "variant of a ResNet must be one of original, .*, full_preact, got 'preact'"),
        ({"variant": "relu_before_addition", "zero_init_residual": True}, "no gradient passes; drop it"),
    ],
)
def test_resnet_refuses(kwargs, message):
    with pytest.raises(ValueError, match=message):
        create_model("resnet18", **kwargs)


# ---- LeNet-5 -------------------------------------------------------------------------------------------------------
def test_lenet_layers_on_the_reference_tile():
    model = create_model("lenet5", num_outputs=10, output="rbf").eval()
    shapes = []
    for name in ("c1", "s2", "c3", "s4", "c5"):
        getattr(model, name).register_forward_hook(lambda _m, _i, output: shapes.append(tuple(output.shape[1:])))
    model(torch.randn(1, 1, 32, 32))
    assert shapes == [(6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (120, 1, 1)]


def test_lenet_parameters_by_layer():
    model = create_model("lenet5", num_outputs=10, output="rbf")
    layers = (model.c1, model.s2, model.c3, model.s4, model.c5, model.head.f6)
    counts = [sum(p.numel() for p in layer.parameters()) for layer in layers]
    assert counts == [156, 12, 1516, 32, 48120, 10164]


def test_c3_sees_only_the_maps_of_table_1():
    model = create_model("lenet5")
    for in_map in range(6):
        x = torch.zeros(1, 6, 5, 5)
        x[:, in_map] = torch.randn(5, 5)
        response = (model.c3(x) - model.c3(torch.zeros_like(x))).flatten()
        assert [bool(value) for value in response] == [in_map in in_maps for in_maps in C3_INPUTS]


def test_subsampling_is_coefficient_times_sum_plus_bias():
    layer = create_model("lenet5").s2
    x = torch.arange(6 * 4.0).reshape(1, 6, 2, 2)
    expected = layer.coefficient * x.sum((2, 3), keepdim=True) + layer.bias
    torch.testing.assert_close(layer(x), expected)


def test_scaled_tanh_fixed_points():
    y = ScaledTanh()(torch.tensor([-1.0, 0.0, 1.0]))
    torch.testing.assert_close(y, torch.tensor([-1.0, 0.0, 1.0]), rtol=0, atol=2e-5)


def test_rbf_is_the_negated_squared_distance_to_fixed_codes():
    layer = RbfOutput(10)
    assert not list(layer.parameters())
    assert set(layer.codes.unique().tolist()) == {-1, 1}
    outputs = layer(layer.codes)
    # equal code: 0; another one differs in 42 places by 2: -42 * 4
    torch.testing.assert_close(outputs, -168 * (1 - torch.eye(10)))


def test_paley_matrix_is_hadamard():
    matrix = paley_hadamard(83)
    torch.testing.assert_close(matrix @ matrix.T, 84 * torch.eye(84))


def test_lenet_refuses():
    with pytest.raises(ValueError, match="output of lenet5 must be one of rbf, linear, got 'softmax'"):
        create_model("lenet5", output="softmax")
    with pytest.raises(ValueError, match="RBF outputs of LeNet-5 have 84 codes, 85 were requested"):
        create_model("lenet5", num_outputs=85, output="rbf")


def test_rbf_head_resets_to_as_many_codes():
    model = create_model("lenet5", num_outputs=10, output="rbf")
    model.reset_head(4)
    assert model(torch.randn(2, 1, 40, 40)).shape == (2, 4)


# ---- autoencoder ---------------------------------------------------------------------------------------------------
def parameters_by_formula(c, n, w, d, m, r, skips):
    """The formula in the docstring of models/autoencoder.py."""
    widths = [2**i * w for i in range(d + 1)]
    s = 1 + skips
    total = (9 * c * r**2 + 1) * w + m * (9 * widths[d] + 1) * widths[d] + (9 * w + 1) * n * r**2
    for fine, coarse in pairwise(widths):
        total += m * (9 * fine + 1) * fine + (9 * fine + 1) * coarse + (4 * coarse + 1) * fine
        total += (9 * s * fine + 1) * fine + (m - 1) * (9 * fine + 1) * fine
    return total


@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize(
    ("width", "depth", "convs", "unshuffle"), [(24, 2, 1, 2), (4, 3, 2, 1), (5, 1, 3, 4), (6, 0, 1, 2)]
)
def test_autoencoder_parameters_by_formula(width, depth, convs, unshuffle, skips):
    with torch.device("meta"):
        model = create_model(
            "conv_autoencoder", 2, 3, width=width, depth=depth, convs=convs, unshuffle=unshuffle, skips=skips
        )
    expected = parameters_by_formula(2, 3, width, depth, convs, unshuffle, skips)
    assert sum(p.numel() for p in model.parameters()) == expected


def test_first_map_starts_at_zero_the_others_do_not():
    x = 100 * torch.randn(2, 2, 32, 32)
    y = create_model("unet", 2, 3, width=4)(x)
    assert not y[:, 0].any()
    assert y[:, 1].std() > 0
    assert y[:, 2].std() > 0
    assert create_model("unet", 2, 1, width=4, zero_init=False)(x).std() > 0


def test_autoencoder_stride_and_frames_that_do_not_fit():
    model = create_model("conv_autoencoder", width=4, depth=3)
    assert model.size_multiple == 16
    with pytest.raises(ValueError, match=r"a frame of 64 x 72 px .* multiples of 16 px: pad the frame"):
        model(torch.randn(1, 1, 64, 72))


def test_autoencoder_takes_no_scalars():
    model = create_model("unet", width=4)
    with pytest.raises(ValueError, match="gives maps and takes no scalars"):
        model(torch.randn(1, 1, 16, 16), torch.randn(1, 2))
    with pytest.raises(ValueError, match="unet has no argument 'n_scalars'"):
        create_model("unet", n_scalars=2)


def test_transposed_kernels_are_divisible_by_their_stride():
    model = create_model("unet", width=4, depth=3)
    transposed = [layer for layer in model.modules() if isinstance(layer, nn.ConvTranspose2d)]
    assert len(transposed) == 3
    assert all(layer.kernel_size[0] % layer.stride[0] == 0 for layer in transposed)


def test_frame_in_parts_gives_the_frame_whole():
    """No statistics of the tile enter: inside the receptive field's margin, a part is the same as the whole."""
    model = create_model("unet", 1, 2, width=4).eval()
    frame = torch.randn(1, 1, 96, 192)
    with torch.no_grad():
        whole = model(frame)
        part = model(frame[..., 32:160])
    torch.testing.assert_close(part[..., 32:96], whole[..., 64:128], rtol=1e-4, atol=1e-5)


def test_variance_is_kept_through_the_layers():
    """He's initialisation: features of unit-variance input stay of order one."""
    torch.manual_seed(0)
    for name in ("conv_autoencoder", "unet"):
        features = create_model(name, 2, 3, depth=3).forward_features(torch.randn(4, 2, 64, 64))
        assert 0.2 < features.square().mean() < 5


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"width": 0}, "width of an autoencoder must be at least 1, got 0"),
        ({"depth": -1}, "depth of an autoencoder must be at least 0, got -1"),
        ({"convs": 0}, "convs of an autoencoder must be at least 1, got 0"),
        ({"unshuffle": 3}, "unshuffle of an autoencoder must be 1, 2 or 4, got 3"),
    ],
)
def test_autoencoder_refuses(kwargs, message):
    with pytest.raises(ValueError, match=message):
        create_model("conv_autoencoder", **kwargs)
