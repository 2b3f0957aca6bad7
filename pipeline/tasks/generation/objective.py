"""Generation of camera images: the bound of the likelihood that the network computes itself."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from pipeline.tasks.generation.spec import SPEC
from pipeline.tasks.generation.targets import TARGETS
from pipeline.tasks.interfaces import Targets
from pipeline.tasks.spec import TaskSpec
from pipeline.training.objective import Objective, weighted_mean

# A share of the training in which the latent vector becomes as dear as it is: were it so from the beginning, a network
# whose decoder cannot yet read it would learn to do without. The many numbers of the map of details are dear from the
# first step on: cheap ones would take up the noise of every pixel, and the decoder would come to rely on them.
_WARM_UP, _DEARNESS_AT_FIRST = 0.3, 0.05
_SCALE_NATS = 30.0  # an image has some hundred nats: the loss is of order 1 to 10


class GenerationObjective(Objective):
    """Sum of the terms of the loss, in nats per image."""

    spec: ClassVar[TaskSpec] = SPEC
    targets: ClassVar[Targets] = TARGETS

    def loss(self, outputs: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        """Mean over the images. The best epoch is chosen by the bound itself, `nats`, which has no warm-up."""
        light, time, latent, details = outputs.unbind(1)
        dearness = min(1.0, _DEARNESS_AT_FIRST + self.progress / _WARM_UP)
        return weighted_mean(light + time + dearness * latent + details, target["weights"]) / _SCALE_NATS

    def metrics(self) -> Metric:
        """Of the bound, and of its terms."""
        return GenerationMetrics()


class GenerationMetrics(Metric):
    """Means over the images, in running sums."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(len(SPEC.outputs) + 1, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, target: Mapping[str, Tensor]) -> None:
        """Take in one batch."""
        terms = outputs.double()
        self.sums += torch.cat([terms, torch.ones_like(terms[:, :1])], dim=1).sum(0)

    def compute(self) -> dict[str, float]:
        """`nats`, the bound of -log p per image, and its terms."""
        *terms, n = self.sums.tolist()
        means = [term / n for term in terms]
        return {"nats": sum(means), **dict(zip(SPEC.outputs, means, strict=True))}


OBJECTIVE = GenerationObjective
