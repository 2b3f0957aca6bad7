"""What a task provides for training: a loss and the metrics of the validation split (torch)."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor
from torchmetrics import Metric

from pipeline.errors import UserError
from pipeline.tasks.interfaces import Targets
from pipeline.tasks.spec import HeadOptions, TaskSpec
from pipeline.tiles.reader import TileReader


class Objective(ABC):
    """Loss and validation metrics of one head.

    Attributes
    ----------
    spec : TaskSpec
    targets : Targets
        Their `arrays` and `weights`, shape (N,), are what `loss` and `metrics` are given.
    progress : float
        Share of the training that is done, by epochs: a loss may change with it. 0 in validation, whose losses are
        compared between epochs.

    Parameters
    ----------
    options : HeadOptions
        Of this head, of the task's own class.
    """

    spec: ClassVar[TaskSpec]
    targets: ClassVar[Targets]

    def __init__(self, options: HeadOptions) -> None:
        self.options = options
        self.progress = 0.0

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the network outputs that the head has."""
        return self.options.outputs(self.spec.outputs)

    @abstractmethod
    def loss(self, outputs: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        """Scalar loss, of order 1, of float32 outputs (N, K) or (N, K, H, W); tiles count by `target["weights"]`."""

    @abstractmethod
    def metrics(self) -> Metric:
        """Validation metrics: `update(outputs, target)` batch by batch, `compute()` gives names and numbers.

        States are sums over tiles (or lists of them), so that the metrics of several ranks are those of all tiles.
        """

    def check(self, reader: TileReader) -> None:
        """Fail before the long work, with what is wrong with the tiles of one split for this task.

        Raises
        ------
        UserError
            Or `TooFewEventsError`.
        """
        for name in self.spec.targets:
            if name not in reader.targets:
                raise UserError(
                    f"the tiles have no truth to train {self.spec.name} on: no target {name!r} (they have "
                    f"{', '.join(reader.targets) or 'none'}); use simulated files, or tiles made with a target"
                )


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Mean over a batch, shapes (N,).

    Divided by the number of tiles, not by the sum of weights: the weights' mean is 1 over the whole split, and a batch
    that happens to hold little weight shall count little.
    """
    return (values * weights).mean()
