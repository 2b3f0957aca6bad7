"""Stochastic depth: probabilities, gates, what evaluation makes of them."""

import pytest
import torch
from torch import nn

from models import create_model
from models.layers import PadShortcut, StochasticGate
from models.residual import ResidualBlock


def gates_of(model):
    return [module for module in model.modules() if isinstance(module, StochasticGate)]


def blocks_of(model):
    return [module for module in model.modules() if isinstance(module, ResidualBlock)]


def open_gates(model, x):
    """Which gates are open in one pass."""
    seen = []
    hooks = [
        gate.register_forward_hook(lambda _gate, _inputs, output: seen.append(bool(output.detach().any())))
        for gate in gates_of(model)
    ]
    model(x)
    for hook in hooks:
        hook.remove()
    return seen


def test_survival_falls_linearly_and_40_of_54_units_are_active_on_average():
    with torch.device("meta"):
        model = create_model("stochastic_depth_resnet110")
    survival = [gate.survival for gate in gates_of(model)]
    n_units = 54
    assert survival == pytest.approx([1 - unit / n_units * 0.5 for unit in range(1, n_units + 1)])
    assert sum(survival) == pytest.approx((3 * n_units - 1) / 4)  # 40.25: [1] of the module, section 3
    assert sum(survival) == pytest.approx(40.25)


@pytest.mark.parametrize("survival", [0.5, 0.8])
def test_a_gate_is_open_as_often_as_it_says(survival):
    torch.manual_seed(0)
    gate = StochasticGate(survival).train()
    n_draws = 2000
    n_open = sum(bool(gate(torch.ones(1))) for _ in range(n_draws))
    assert abs(n_open / n_draws - survival) < 5 * (survival * (1 - survival) / n_draws) ** 0.5


def test_one_draw_for_the_whole_mini_batch():
    torch.manual_seed(0)
    gate = StochasticGate(0.5).train()
    x = torch.randn(8, 3, 4, 4)
    seen = set()
    for _ in range(50):
        y = gate(x)
        assert torch.equal(y, x) or not y.any()  # all images alike, and no 1 / p in training
        seen.add(bool(y.any()))
    assert seen == {True, False}


def test_every_unit_draws_on_its_own():
    torch.manual_seed(0)
    model = create_model("stochastic_depth_resnet110", width=2, depths=(2, 2, 2), last_survival=0.2).train()
    x = torch.randn(2, 1, 16, 16)
    patterns = [tuple(open_gates(model, x)) for _ in range(30)]
    assert len(set(patterns)) > 10


def test_evaluation_scales_each_branch_by_its_survival():
    torch.manual_seed(0)
    model = create_model("stochastic_depth_resnet110", width=4, depths=(1, 2, 2)).eval()
    for unit, block in enumerate(blocks_of(model), start=1):
        chans = block.residual[0].in_channels
        x = torch.randn(2, chans, 8, 8)
        branch = block.residual[:-1](x)
        survival = 1 - unit / 5 * 0.5
        torch.testing.assert_close(block(x), torch.relu(survival * branch + block.shortcut(x)))


def test_a_dropped_unit_is_its_shortcut_and_its_gradient_zero_but_there():
    torch.manual_seed(0)
    model = create_model("stochastic_depth_resnet110", width=4, depths=(1, 1), last_survival=1e-9).train()
    first, last = blocks_of(model)
    x = torch.randn(2, 4, 8, 8)
    y = last(x)
    assert torch.equal(y, torch.relu(last.shortcut(x)))
    y.sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in last.parameters())
    assert first.residual[-1].survival == pytest.approx(0.5)


def test_draws_are_keyed_by_the_seed():
    model = create_model("stochastic_depth_resnet110", width=2, depths=(4, 4, 4)).train()
    x = torch.randn(2, 1, 16, 16)
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(open_gates(model, x))
    assert drawn[0] == drawn[1] != drawn[2]


def test_parameters_and_convolutions_are_those_of_resnet110():
    kwargs = {"width": 4, "depths": (2, 2, 2)}
    plain, stochastic = create_model("resnet110", **kwargs), create_model("stochastic_depth_resnet110", **kwargs)
    stochastic.load_state_dict(plain.state_dict())
    assert not gates_of(plain)
    assert not gates_of(create_model("stochastic_depth_resnet110", last_survival=1.0, **kwargs))


def test_shortcut_averages_the_pixels_that_there_are():
    x = torch.arange(15.0).reshape(1, 1, 3, 5)
    y = PadShortcut(1, 3, 2, average=True)(x)
    assert y.shape == (1, 3, 2, 3)
    torch.testing.assert_close(y[0, 0], torch.tensor([[3.0, 5.0, 6.5], [10.5, 12.5, 14.0]]))
    assert not y[0, 1:].any()
    model = create_model("stochastic_depth_resnet110", width=4, depths=(1, 1, 1)).eval()
    kinds = [block.shortcut for block in blocks_of(model)]
    assert isinstance(kinds[0], nn.Identity)
    assert all(shortcut.average for shortcut in kinds[1:])


@pytest.mark.usefixtures("fresh_compiler")
def test_one_compiled_graph_whatever_is_drawn():
    """No branch of the program depends on a draw: no graph break, no second compilation."""
    torch.manual_seed(0)
    model = create_model("stochastic_depth_resnet110", width=2, depths=(1, 1, 1), last_survival=0.3).train()
    graphs = []

    def count(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(model, backend=count, fullgraph=True)
    x = torch.randn(2, 1, 16, 16)
    outputs = [compiled(x).detach() for _ in range(12)]
    assert len(graphs) == 1
    assert any(not torch.equal(output, outputs[0]) for output in outputs)
