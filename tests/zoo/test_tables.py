"""Steps and the modules that they stand for, and the pooling to a fixed size."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.layers import PoolTo, scaled_chans
from models.tables import Assembler, Conv, Drop, Fork, Lrn, Pool, Residual, Separable, TableNetwork, total_stride


@pytest.mark.parametrize("side", [1, 4, 5, 6, 7])
def test_pool_to_has_the_bins_of_torch(side):
    for height, width in ((1, 1), (2, 3), (5, 7), (6, 6), (13, 14), (17, 23)):
        x = torch.randn(2, 3, height, width)
        torch.testing.assert_close(PoolTo(side, "avg")(x), F.adaptive_avg_pool2d(x, side))
        assert torch.equal(PoolTo(side, "max")(x), F.adaptive_max_pool2d(x, side))


@pytest.mark.parametrize("kind", ["avg", "max"])
def test_pool_to_leaves_a_map_of_its_size_and_hands_gradients_back(kind):
    x = torch.randn(2, 3, 6, 6, requires_grad=True)
    assert PoolTo(6, kind)(x) is x  # no products with unit matrices
    PoolTo(4, kind)(x).sum().backward()
    assert x.grad.sum().item() == pytest.approx(2 * 3 * 4 * 4)


def test_response_normalisation_is_the_papers_sum_and_not_a_mean():
    """Krizhevsky et al. (2012), section 3.3: alpha times the sum over n maps; torch's alpha is divided by n."""
    made, chans = Assembler().assemble((Lrn(alpha=1e-4, size=5, beta=0.75, k=2),), 7)
    assert chans == 7
    x = 100 * torch.randn(1, 7, 1, 1)
    a = x.flatten().tolist()
    expected = [
        a[i] / (2 + 1e-4 * sum(a[j] ** 2 for j in range(max(0, i - 2), min(6, i + 2) + 1))) ** 0.75 for i in range(7)
    ]
    torch.testing.assert_close(made(x).flatten(), torch.tensor(expected))


TABLES = [
    (Conv(3, 11, 4, "valid"), Pool("max", 3, 2, "ceil"), Conv(2, 5)),
    (Conv(3, 7, 2), Pool("max", 3, 2), Pool("avg", 2, 2, "valid")),
    (Conv(2, 3, 1, "valid"), Fork(((Conv(2, 3, 2, "valid"),), (Conv(1), Conv(3, (1, 7)), Conv(2, 3, 2, "valid"))))),
    (Separable(4, 7, 2, 8), Drop(0.5), Fork(((Conv(2, 3, 2),), (Pool("max", 3, 2),))), Conv(2, (7, 1))),
    (Conv(3, 3, 2), Residual(((Conv(2),), (Conv(2, 3), Conv(3, 3))), 0.1), Pool("max", 3, 2, "ceil")),
]


@pytest.mark.parametrize("pad_all", [False, True])
@pytest.mark.parametrize("steps", TABLES)
def test_size_behind_the_steps_is_told_before_they_run(steps, pad_all):
    assembler = Assembler(pad_all=pad_all)
    made, chans = assembler.assemble(steps, 2)
    for side in range(1, 40):
        told = assembler.side_behind(steps, side)
        if told >= 1:
            assert made(torch.zeros(1, 2, side, side)).shape == (1, chans, told, told)
        else:
            with pytest.raises(RuntimeError):
                made(torch.zeros(1, 2, side, side))


@pytest.mark.parametrize("steps", TABLES)
def test_stride_is_that_of_the_sizes(steps):
    assembler = Assembler(pad_all=True)
    stride = total_stride(steps)
    assert assembler.side_behind(steps, 8 * stride) == 8


def test_smallest_tile_is_the_smallest_that_leaves_a_map():
    table = {"conv": (Conv(2, 11, 4, "valid"),), "pool": (Pool("max", 3, 2, "valid"),)}
    network = TableNetwork(1, table, Assembler())
    assert network.min_size == 11 + 2 * 4
    assert network.forward_features(torch.zeros(1, 1, 19, 19)).shape[2:] == (1, 1)
    assert [(info.module, info.reduction) for info in network.feature_info] == [("blocks.conv", 4), ("blocks.pool", 8)]


def test_branches_keep_their_order_and_the_last_one_may_be_a_pooling():
    made, chans = Assembler().assemble((Fork(((Conv(3),), (Pool("max"),))),), 2)
    x = torch.randn(1, 2, 5, 5)
    assert chans == 5
    assert torch.equal(made(x)[:, 3:], F.max_pool2d(x, 3, 1, 1))


def test_average_counts_the_padding_only_if_asked_to():
    x = torch.ones(1, 1, 4, 4)
    (not_counted, _), (counted, _) = (
        Assembler().assemble((Pool("avg", count_padding=counts),), 1) for counts in (False, True)
    )
    assert torch.equal(not_counted(x), x)
    assert counted(x)[0, 0, 0, 0].item() == pytest.approx(4 / 9)


def test_normalisation_and_biases():
    (plain, _), (normalised, _) = (
        assembler.assemble((Conv(4, 3),), 2) for assembler in (Assembler(), Assembler(batch_norm_eps=1e-3, bias=False))
    )
    assert [type(layer) for layer in plain] == [nn.Conv2d, nn.ReLU]
    assert plain[0].bias is not None
    assert [type(layer) for layer in normalised] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert normalised[0].bias is None
    assert normalised[1].eps == 1e-3


def test_scaled_channels():
    assert [scaled_chans(chans, 64, 64) for chans in (16, 208, 1024)] == [16, 208, 1024]
    assert [scaled_chans(chans, 24, 96, multiple=2) for chans in (96, 256, 384, 4096)] == [24, 64, 96, 1024]
    assert scaled_chans(256, 9, 96, multiple=2) == 24
    assert scaled_chans(16, 1, 64) == 1
    assert scaled_chans(16, 1, 64, multiple=2) == 2
