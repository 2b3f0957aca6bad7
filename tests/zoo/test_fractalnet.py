"""Fractal networks: columns, joins, local and global drop-path."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from models import create_model
from models.fractalnet import FractalBlock, PathDraw, surviving_paths

SMALL = {"width": 4, "factors": (1, 2, 2)}


def local_draw(n_columns=3):
    return PathDraw(torch.tensor(False), torch.zeros(n_columns, dtype=torch.bool))


def global_draw(column, n_columns=3):
    return PathDraw(torch.tensor(True), torch.arange(n_columns) == column)


def join(block, n_paths, drawn):
    """Weights that a join gives to its inputs."""
    paths = list(torch.eye(n_paths).reshape(n_paths, 1, 1, 1, n_paths))
    return block._join(paths, drawn).flatten()


# ---- structure -----------------------------------------------------------------------------------------------------
def test_columns_have_1_2_4_convolutions():
    model = create_model("fractalnet20", **SMALL)
    for block in model.blocks:
        assert [len(column) for column in block.columns] == [1, 2, 4]
    longest = sum(len(block.columns[-1]) for block in create_model("fractalnet20", width=2).blocks)
    assert longest == 20


def fractal(columns, x):
    """The expansion rule itself: f_1 = conv, f_{C+1} = join(f_C f_C, conv), joins flattened into one mean.

    Returns the paths that end together, so that a join sees them all.
    """
    if len(columns) == 1:
        return [columns[0][0](x)]
    halves = [
        [column[: len(column) // 2] for column in columns[1:]],
        [column[len(column) // 2 :] for column in columns[1:]],
    ]
    middle = mean(fractal(halves[0], x))
    return [columns[0][0](x), *fractal(halves[1], middle)]


def mean(paths):
    return torch.stack(paths).mean(0)


@pytest.mark.parametrize("n_columns", [1, 2, 3, 4])
def test_block_is_the_expansion_rule(n_columns):
    torch.manual_seed(0)
    block = FractalBlock(3, 5, n_columns, local_drop_rate=0.15, drop_rate=0.0).eval()
    x = torch.randn(2, 3, 8, 8)
    expected = mean([nn.functional.max_pool2d(path, 2) for path in fractal(list(block.columns), x)])
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("n_columns", [1, 2, 3, 4])
def test_parameters_by_formula(n_columns):
    """The formula in the docstring of models/fractalnet.py."""
    widths = [3, 4, 8, 8]
    more = 2**n_columns - 1 - n_columns
    expected = (widths[-1] + 1) * 7
    for before, chans in pairwise(widths):
        expected += 9 * n_columns * before * chans + 9 * more * chans**2 + 2 * (n_columns + more) * chans
    model = create_model("fractalnet20", 3, 7, columns=n_columns, **SMALL)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


# ---- joins ---------------------------------------------------------------------------------------------------------
def test_join_in_evaluation_is_the_plain_mean():
    block = FractalBlock(1, 1, 3, local_drop_rate=0.9, drop_rate=0.0)
    for n_paths in (2, 3):
        torch.testing.assert_close(join(block, n_paths, None), torch.full((n_paths,), 1 / n_paths))


@pytest.mark.parametrize("drop_rate", [0.15, 0.5, 0.99])
def test_local_join_is_the_mean_of_at_least_one_survivor(drop_rate):
    torch.manual_seed(0)
    block = FractalBlock(1, 1, 3, local_drop_rate=drop_rate, drop_rate=0.0)
    seen = set()
    for _ in range(300):
        weights = join(block, 3, local_draw())
        survives = weights > 0
        assert survives.any()
        torch.testing.assert_close(weights, survives / survives.sum())
        seen.add(tuple(survives.tolist()))
    assert len(seen) >= 3
    if drop_rate == 0.5:
        assert len(seen) == 7  # every pattern but none at all


def test_local_drop_rate():
    """Of two paths, one is dropped alone with probability p (1 - p), both with p^2, and then either one comes back."""
    torch.manual_seed(0)
    n_draws, rate = 4000, 0.15
    dropped = sum((surviving_paths(2, rate) == 0).float() for _ in range(n_draws))
    expected = rate * (1 - rate) + rate**2 / 2
    sigma = (expected * (1 - expected) / n_draws) ** 0.5
    assert (dropped / n_draws - expected).abs().max() < 5 * sigma
    assert torch.equal(surviving_paths(3, 0.0), torch.full((3,), 1 / 3))


@pytest.mark.parametrize("column", [0, 1, 2])
def test_global_join_takes_the_drawn_column(column):
    block = FractalBlock(1, 1, 3, local_drop_rate=0.15, drop_rate=0.0)
    assert torch.equal(join(block, 3, global_draw(column)), torch.eye(3)[column])
    if column:
        assert torch.equal(join(block, 2, global_draw(column)), torch.eye(2)[column - 1])


def test_a_join_that_the_drawn_column_does_not_pass_is_not_zero():
    """Else the normalisations behind it would learn the statistics of nothing."""
    torch.manual_seed(0)
    block = FractalBlock(1, 4, 3, local_drop_rate=0.15, drop_rate=0.0).train()
    assert join(block, 2, global_draw(0)).sum() == pytest.approx(1)
    for _ in range(50):
        block(torch.randn(4, 1, 8, 8), global_draw(0))
    assert block.columns[2][3][1].running_var.min() > 0.05


# ---- drop-path through the net ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("column", [0, 1, 2])
def test_global_drop_path_is_the_one_column(column):
    torch.manual_seed(0)
    model = create_model("fractalnet20", block_drop_rate=0.0, **SMALL).eval()
    alone = nn.Sequential(*(nn.Sequential(*block.columns[column], nn.MaxPool2d(2)) for block in model.blocks))
    x = torch.randn(2, 1, 48, 48)
    features = x
    for block in model.blocks:
        features = block(features, global_draw(column))
    torch.testing.assert_close(features, alone(x))


@pytest.mark.parametrize("column", [0, 1, 2])
def test_global_drop_path_trains_the_one_column(column):
    torch.manual_seed(0)
    model = create_model("fractalnet20", **SMALL).train()
    features = torch.randn(4, 1, 48, 48)
    for block in model.blocks:
        features = block(features, global_draw(column))
    features.square().sum().backward()
    for block in model.blocks:
        for place, layers in enumerate(block.columns):
            gradients = [parameter.grad for parameter in layers.parameters()]
            assert all(gradient is not None for gradient in gradients)
            assert any(gradient.any() for gradient in gradients) == (place == column)


def test_one_draw_for_the_net_half_of_them_global_each_column_alike():
    torch.manual_seed(0)
    model = create_model("fractalnet20", **SMALL).train()
    seen = []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda _block, inputs: seen.append(inputs[1]))
    x = torch.randn(2, 1, 8, 8)
    model.forward_features(x)
    assert seen[0] is seen[1] is seen[2]
    n_draws = 3000
    draws = [model._draw_paths(x.device) for _ in range(n_draws)]
    n_global = sum(int(draw.is_global) for draw in draws)
    assert abs(n_global / n_draws - 0.5) < 5 * (0.25 / n_draws) ** 0.5
    columns = sum(draw.column.long() for draw in draws)
    assert columns.sum() == n_draws
    assert (columns / n_draws - 1 / 3).abs().max() < 5 * (2 / 9 / n_draws) ** 0.5


def test_no_drop_path_in_evaluation_or_with_rates_of_zero():
    torch.manual_seed(0)
    x = torch.randn(4, 1, 24, 24)
    model = create_model("fractalnet20", block_drop_rate=0.0, **SMALL)
    model.eval()
    assert torch.equal(model(x), model(x))
    model.train()
    assert len({model(x).sum().item() for _ in range(10)}) > 3
    none = create_model("fractalnet20", block_drop_rate=0.0, local_drop_rate=0.0, global_share=0.0, **SMALL).train()
    assert torch.equal(none(x), none(x))


def test_draws_are_keyed_by_the_seed():
    model = create_model("fractalnet20", **SMALL).train()
    x = torch.randn(4, 1, 24, 24)
    outputs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outputs.append(model(x))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_dropout_rises_from_block_to_block():
    rates = []
    for block in create_model("fractalnet20", width=2).blocks:
        found = {layer.p for layer in block.modules() if isinstance(layer, nn.Dropout)}
        rates.append(found.pop() if found else 0.0)
        assert not found
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


@pytest.mark.usefixtures("fresh_compiler")
def test_one_compiled_graph_whatever_is_drawn():
    torch.manual_seed(0)
    model = create_model("fractalnet20", columns=2, width=2, factors=(1, 1), block_drop_rate=0.0).train()
    graphs = []

    def count(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(model, backend=count, fullgraph=True)
    x = torch.randn(2, 1, 8, 8)
    outputs = [compiled(x).detach() for _ in range(12)]
    assert len(graphs) == 1
    assert any(not torch.equal(output, outputs[0]) for output in outputs)


# ---- arguments ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"columns": 0}, "columns of a FractalNet must be at least 1, got 0"),
        ({"width": 0}, "width of a FractalNet must be at least 1, got 0"),
        ({"stem": "cifar"}, "stem of a FractalNet must be one of none, stride2, got 'cifar'"),
        ({"factors": ()}, r"factors of a FractalNet .* each at least 1, got \(\)"),
        ({"local_drop_rate": 1.0}, r"local_drop_rate of a FractalNet must be in \[0, 1\), got 1.0"),
        ({"block_drop_rate": -0.1}, r"block_drop_rate of a FractalNet must be in \[0, 1\), got -0.1"),
        ({"global_share": 1.5}, r"global_share of a FractalNet must be in \[0, 1\], got 1.5"),
    ],
)
def test_fractalnet_refuses(kwargs, message):
    with pytest.raises(ValueError, match=message):
        create_model("fractalnet20", **kwargs)


def test_stem_halves_the_size():
    torch.manual_seed(0)
    model = create_model("fractalnet20", stem="stride2", block_drop_rate=0.0, **SMALL).eval()
    x = torch.randn(2, 1, 48, 48)
    assert model.forward_features(x).shape == (2, 8, 3, 3)
    assert model.min_size == 16
