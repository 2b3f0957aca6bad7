"""The mean of losses that come batch by batch (torch)."""

import torch
from torch import Tensor
from torchmetrics import Metric


class RunningMean(Metric):
    """A mean over tiles in float64, also over several ranks.

    torchmetrics' own `MeanMetric` looks for NaN at every step, which waits for the device; switched off
    (`nan_strategy="disable"`, torchmetrics 1.9), it ignores the weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("n_tiles", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, value: Tensor, n_tiles: int) -> None:
        """Take in the mean of `n_tiles` tiles."""
        self.total += value.detach().double() * n_tiles
        self.n_tiles += n_tiles

    def set(self, total: float, n_tiles: float) -> None:
        """Go on from these sums."""
        self.total.fill_(total)
        self.n_tiles.fill_(n_tiles)

    def compute(self) -> Tensor:
        """The mean; NaN of nothing."""
        return self.total / self.n_tiles
