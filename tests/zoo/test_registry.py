"""What every registered network must do."""

import inspect
import math

import pytest
import torch
from small_networks import small_arguments, small_model
from torch import nn

from models import ModelEntry, create_model, list_models, model_entry, register_model
from models.resnet import ResNet

# A gate may be closed in one pass: gradients of so many together.
PASSES = {"stochastic_depth": 8, "fractalnet": 8}
# One image is no sequence: what they pass from telescope to telescope is tested in test_sequence.py.
RECURRENT = {"stereo_lstm", "hyper_lstm"}


def without_gradient(name, model):
    silent = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    return [key for key in silent if not (name in RECURRENT and key.startswith("head.join."))]


def output_shape(name, x, num_outputs=3):
    return (len(x), num_outputs, *x.shape[2:]) if model_entry(name).gives == "map" else (len(x), num_outputs)


def every_size(name, model):
    """The smallest, an odd one and one that is not square."""
    if model_entry(name).gives == "map":
        return [(model.min_size, model.min_size), (3 * model.size_multiple, 5 * model.size_multiple)]
    return [(model.min_size, model.min_size), (49, 49), (56, 63)]


#: Those that make images are another kind (`test_generative.py`).
each_model = pytest.mark.parametrize("name", [name for name in list_models() if model_entry(name).gives != "image"])
each_vector_model = pytest.mark.parametrize(
    "name", [name for name in list_models() if model_entry(name).gives == "vector"]
)


@each_model
def test_reference_parameter_count(name):
    entry = model_entry(name)
    with torch.device("meta"):
        model = create_model(name, **entry.ref)
    assert sum(parameter.numel() for parameter in model.parameters()) == entry.num_params


@each_model
def test_entry_says_what_it_is(name):
    entry = model_entry(name)
    assert entry.paper.startswith(("arXiv:", "doi:"))
    assert entry.summary
    assert isinstance(small_model(name), entry.network)


@each_model
def test_takes_and_gives_what_the_entry_says(name):
    entry = model_entry(name)
    model = small_model(name).eval()
    x = torch.randn(3, 3, 64, 96)
    assert ("members" in inspect.signature(model.forward).parameters) == (entry.takes == "telescopes")
    if entry.takes == "telescopes":
        assert model(x, members=torch.tensor([[0, 1], [2, -1]])).shape == (2, 3)
    assert model(x).shape == ((3, 3) if entry.gives == "vector" else (3, 3, 64, 96))
    assert hasattr(model, "size_multiple") == (entry.gives == "map")
    # only a frame comes in any size, and its maps with it
    assert (entry.takes == "frame") == (entry.gives == "map")


@each_model
def test_output_shape_and_finite_at_every_size(name):
    model = small_model(name).eval()
    for height, width in every_size(name, model):
        x = torch.randn(2, 3, height, width)
        with torch.no_grad():
            y = model(x)
        assert y.shape == output_shape(name, x)
        assert torch.isfinite(y).all()


@each_model
def test_any_number_of_channels_and_outputs(name):
    x = torch.randn(2, 1, 56, 56)
    for num_outputs in (1, 2):
        model = small_model(name, in_chans=1, num_outputs=num_outputs).eval()
        assert model(x).shape == output_shape(name, x, num_outputs)


@each_model
def test_every_parameter_gets_a_gradient(name):
    model = small_model(name).train()
    for _ in range(PASSES.get(model_entry(name).family, 1)):
        model(torch.randn(4, 3, 56, 56)).square().sum().backward()
    assert not without_gradient(name, model)


@each_model
def test_eval_is_repeatable_and_does_not_depend_on_the_batch(name):
    model = small_model(name, **({"drop_rate": 0.5} if "drop_rate" in model_entry(name).arguments else {})).eval()
    x = torch.randn(3, 3, 56, 56)
    with torch.no_grad():
        y = model(x)
        assert torch.equal(y, model(x))
        torch.testing.assert_close(y[1:2], model(x[1:2]), rtol=1e-4, atol=1e-5)


@each_model
def test_state_dict_round_trip(name):
    first, second = small_model(name).eval(), small_model(name).eval()
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.zero_()
    second.load_state_dict(first.state_dict())
    x = torch.randn(2, 3, 56, 56)
    assert torch.equal(first(x), second(x))


@each_model
def test_weights_are_keyed_by_the_global_seed(name):
    x = torch.randn(1, 3, 56, 56)
    outputs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outputs.append(create_model(name, 3, 3, **small_arguments(name)).eval()(x))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


@each_model
def test_features_and_head_make_the_whole(name):
    model = small_model(name).eval()
    x = torch.randn(2, 3, 56, 56)
    features = model.forward_features(x)
    assert torch.equal(model.forward_head(features), model(x))


@each_model
def test_feature_info_tells_channels_and_reduction(name):
    model = small_model(name).eval()
    seen = {}
    for info in model.feature_info:
        model.get_submodule(info.module).register_forward_hook(
            lambda _module, _inputs, output, key=info.module: seen.update({key: output})
        )
    size = 64
    model(torch.randn(1, 3, size, size))
    for info in model.feature_info:
        assert seen[info.module].shape[1] == info.num_chs
        # without padding maps lose a rim, at most as wide as the smallest tile
        rim = model.min_size if model_entry(name).family in ("lenet", "alexnet") else 0
        assert size - rim <= seen[info.module].shape[2] * info.reduction <= size


@each_model
def test_reset_head_keeps_the_features(name):
    model = small_model(name).eval()
    x = torch.randn(2, 3, 56, 56)
    before = model.forward_features(x)
    model.reset_head(5)
    assert torch.equal(model.forward_features(x), before)
    assert model(x).shape == output_shape(name, x, 5)


@each_model
def test_bfloat16_and_channels_last(name):
    model = small_model(name).to(memory_format=torch.channels_last)
    x = torch.randn(4, 3, 56, 56).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        y = model(x)
    assert torch.isfinite(y).all()
    y.float().square().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@each_vector_model
def test_scalars_reach_the_output_and_learn(name):
    model = small_model(name, n_scalars=4).train()
    x = torch.randn(4, 3, 56, 56)
    scalars = torch.randn(4, 4, requires_grad=True)
    for _ in range(PASSES.get(model_entry(name).family, 1)):
        y = model(x, scalars)
        assert y.shape == (4, 3)
        y.square().sum().backward()
    assert (scalars.grad.abs().sum(dim=0) > 0).all()
    assert not without_gradient(name, model)
    assert not torch.equal(model.eval()(x, scalars), model(x, scalars + 1))


@each_vector_model
def test_scalars_missing_or_of_another_number(name):
    x = torch.randn(1, 3, 56, 56)
    with pytest.raises(ValueError, match="built for 4 scalars per tile, got 0"):
        small_model(name, n_scalars=4).eval()(x)
    with pytest.raises(ValueError, match="built for 0 scalars per tile, got 2"):
        small_model(name).eval()(x, torch.randn(1, 2))


@each_vector_model
def test_a_tile_too_small_is_named(name):
    model = small_model(name)
    assert model.min_size <= 48
    with pytest.raises(ValueError, match=f"too small for {type(model).__name__}; the smallest is {model.min_size} px"):
        model(torch.randn(1, 3, model.min_size - 1, 64))


@each_model
def test_wrong_number_of_channels(name):
    with pytest.raises(ValueError, match=r"was built for \w+ \(N, 3, H, W\), got \(1, 2, 64, 64\)"):
        small_model(name)(torch.randn(1, 2, 64, 64))


@each_model
def test_unknown_argument_lists_the_accepted_ones(name):
    with pytest.raises(
        ValueError, match=rf"{name} has no argument 'widht'; accepted: .*{list(model_entry(name).arguments)[-1]}"
    ):
        create_model(name, widht=3)


def test_unknown_name_lists_the_nearest():
    with pytest.raises(ValueError, match=r"unknown model 'resnet19'; did you mean .*resnet18"):
        create_model("resnet19")
    with pytest.raises(ValueError, match=r"unknown model 'zzz'; accepted: .*lenet5"):
        create_model("zzz")


def test_duplicate_name_raises():
    def resnet18(in_chans: int = 1, num_outputs: int = 1) -> nn.Module:
        return nn.Identity()

    with pytest.raises(ValueError, match=r"'resnet18' is registered already, by models\.resnet"):
        register_model(paper="arXiv:0", ref={}, num_params=0)(resnet18)


def test_registration_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="takes of a model must be one of image, telescopes, frame, got 'video'"):
        register_model(paper="arXiv:0", ref={}, num_params=0, takes="video")
    with pytest.raises(ValueError, match="gives of a model must be one of vector, map, image, got 'maps'"):
        register_model(paper="arXiv:0", ref={}, num_params=0, gives="maps")


def test_no_outputs_or_channels():
    with pytest.raises(ValueError, match="num_outputs of lenet5 must be at least 1, got 0"):
        create_model("lenet5", num_outputs=0)
    with pytest.raises(ValueError, match="in_chans of lenet5 must be at least 1, got 0"):
        create_model("lenet5", in_chans=0)


def test_list_by_family():
    assert list_models("lenet") == ["lenet5", "lenet5_modern"]
    assert isinstance(model_entry("resnet18"), ModelEntry)
    assert model_entry("resnet18").network is ResNet


@pytest.mark.parametrize("name", ["resnet18", "resnet20"])
def test_he_variance_of_the_convolutions(name):
    torch.manual_seed(0)
    model = create_model(name)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 2000:
            fan_out = layer.out_channels * math.prod(layer.kernel_size)
            # a variance estimated from n normal values scatters by sqrt(2 / n); 5 sigma
            tolerance = 5 * math.sqrt(2 / layer.weight.numel())
            assert layer.weight.var().item() * fan_out / 2 == pytest.approx(1, abs=tolerance)
