"""Static hypernetworks: what the generator makes, from how many parameters, and that it learns."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models import create_model
from models.hypernet import HyperConv2d, KernelGenerator


def n_params(module):
    return sum(parameter.numel() for parameter in module.parameters())


def small(**kwargs):
    return create_model("hypernet_wrn40_2", 3, 2, **({"depths": (1, 1, 1), "width": 4, "embedding": 8} | kwargs))


def generated(model):
    return [layer for layer in model.modules() if isinstance(layer, HyperConv2d)]


def test_generator_of_mnist_has_the_papers_parameters():
    """4,240 in the text of the paper, 4,244 with the embedding in its Table 7, instead of 12,544."""
    model = create_model("hypernet", num_outputs=10)
    assert n_params(model.generator) == 4240
    assert n_params(model.generator) + model.conv2.embeddings.numel() == 4244
    assert model.conv2.weight().numel() == 12_544


@pytest.mark.parametrize(
    ("widen", "embeddings", "total", "paper_m"), [(1, 242, 96_570, 0.097), (2, 966, 147_578, 0.148)]
)
def test_generated_wide_networks_have_the_papers_parameters(widen, embeddings, total, paper_m):
    """Table 2 of the paper gives millions to three decimals."""
    with torch.device("meta"):
        model = create_model("hypernet_wrn40_2", 3, 10, widen=widen, bias=True)
    assert len(generated(model)) == 36
    assert sum(layer.embeddings.shape[:2].numel() for layer in generated(model)) == embeddings
    assert n_params(model.generator) == 64 * 65 * 16 + 9 * 16 * 65
    assert n_params(model) == total
    assert round(total / 1e6, 3) == paper_m


def test_layers_are_those_of_the_wide_network():
    with torch.device("meta"):
        hyper = create_model("hypernet_wrn40_2", 3, 10)
        plain = create_model("resnet20", 3, 10, depths=(6, 6, 6), widen=2, variant="full_preact")
    shapes = [layer.weight().shape for layer in generated(hyper)]
    assert shapes == [layer.weight.shape for layer in plain.stages.modules() if isinstance(layer, nn.Conv2d)]


def test_kernel_is_the_papers_equation():
    """Eq. 2, channel by channel, and Eq. 3: rows of basic kernels are input channels, columns output channels."""
    generator = KernelGenerator(chans=2, kernel=3, embedding=5).double()
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.normal_()
    z = torch.randn(2, 3, 5, dtype=torch.float64)
    kernel = generator(z)
    assert kernel.shape == (6, 4, 3, 3)
    w, b = generator.project.weight.reshape(2, 5, 5), generator.project.bias.reshape(2, 5)
    w_out, b_out = generator.emit.weight.reshape(2, 3, 3, 5), generator.emit.bias.reshape(2, 3, 3)
    for row in range(2):
        for column in range(3):
            for i in range(2):
                a = w[i] @ z[row, column] + b[i]
                expected = w_out @ a + b_out
                torch.testing.assert_close(kernel[2 * column : 2 * column + 2, 2 * row + i], expected)


@pytest.mark.parametrize(("name", "kwargs"), [("hypernet", {}), ("hypernet_wrn40_2", {"depths": (1, 1, 1)})])
def test_generated_weights_start_with_he_variance(name, kwargs):
    model = create_model(name, **kwargs)
    layers = generated(model)
    assert len({layer.weight().shape for layer in layers}) == (1 if name == "hypernet" else 6)
    for layer in layers:
        weight = layer.weight()
        fan_out = weight.shape[0] * weight[0, 0].numel()
        assert weight.square().mean().item() * fan_out / 2 == pytest.approx(1, rel=1e-5)
        # a zero mean is only that of the draw: few embeddings and one generator stand behind all weights
        assert abs(weight.mean()) < 0.2 * weight.std()


def test_gradient_reaches_the_embeddings():
    """Of every layer and basic kernel, and it is the derivative: compared with a finite difference."""
    torch.manual_seed(0)
    model = small().double().eval()
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    model(x).square().sum().backward()
    for layer in generated(model):
        assert (layer.embeddings.grad.abs().sum(2) > 0).all()
    z = generated(model)[2].embeddings
    step = 1e-6
    with torch.no_grad():
        z[0, 0, 3] += step
        above = model(x).square().sum()
        z[0, 0, 3] -= 2 * step
        below = model(x).square().sum()
    assert z.grad[0, 0, 3].item() == pytest.approx(((above - below) / (2 * step)).item(), rel=1e-5)


def test_layers_share_one_generator_that_is_saved_once():
    model = small()
    assert {id(layer.generator) for layer in generated(model)} == {id(model.generator)}
    assert sum("project.weight" in key for key in model.state_dict()) == 1
    twin = copy.deepcopy(model)
    assert {id(layer.generator) for layer in generated(twin)} == {id(twin.generator)}
    assert twin.generator is not model.generator


def test_generated_convolution_is_a_convolution():
    generator = KernelGenerator(4, 3, 8)
    layer = HyperConv2d(4, 8, generator, stride=2, bias=True)
    nn.init.normal_(layer.bias)
    x = torch.randn(2, 4, 9, 9)
    torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight(), layer.bias, stride=2, padding=1))


def test_biases_learn_nothing():
    """Why they are left out unless asked for: batch normalisation cancels them."""
    torch.manual_seed(0)
    model = small(bias=True).double().train()
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    y = model(x)
    for layer in generated(model):
        nn.init.normal_(layer.bias)
    torch.testing.assert_close(model(x), y)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: small(embedding=0), "embedding of a HyperResNet must be at least 1, got 0"),
        (lambda: create_model("hypernet", width=0), "width of a HyperNet must be at least 1, got 0"),
        (lambda: HyperConv2d(4, 6, KernelGenerator(4, 3, 8)), "must be multiples of 4, got 4 and 6"),
    ],
)
def test_hypernetworks_refuse(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("name", ["hypernet", "hypernet_wrn40_2"])
def test_compiles_in_one_piece(name):
    torch.manual_seed(0)
    model = create_model(name, 3, 2, width=4, **({"depths": (1, 1, 1)} if name == "hypernet_wrn40_2" else {})).train()
    x = torch.randn(2, 3, 28, 28)
    torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(x), model(x))
