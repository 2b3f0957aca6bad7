"""Regression of the direction: the line on which the source lies, the end of the image, and an uncertainty."""

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from pipeline import statistics
from pipeline.errors import UserError
from pipeline.tasks.direction.decode import LOG_VARIANCE_RANGE, displacement, has_ends, has_variance, line_and_end
from pipeline.tasks.direction.spec import SPEC, DirectionOptions
from pipeline.tasks.direction.targets import TARGETS, displacement_deg
from pipeline.tasks.interfaces import Targets
from pipeline.tasks.spec import TaskSpec
from pipeline.tiles.reader import TileReader
from pipeline.training.objective import Objective, weighted_mean

# Residuals beyond this count linearly: in images cut off at the camera's edge the source can be anywhere.
HUBER_DELTA_DEG = 0.3
# Weights that bring the three parts to order 1: residuals are tenths of a degree.
LINE_WEIGHT, END_WEIGHT, VARIANCE_WEIGHT = 10.0, 1.0, 0.1
# Below this the source is in the centre of gravity, and no end is right.
SMALLEST_DISPLACEMENT_DEG = 1e-3


class DirectionObjective(Objective):
    """Line or vector by a Huber loss, end by a cross-entropy, variance by a Gaussian likelihood that these do not feel.

    See `pipeline.tasks.direction.decode` for the outputs. The likelihood is that of a normal distribution in two
    dimensions about the source, for the right end.
    """

    spec: ClassVar[TaskSpec] = SPEC
    targets: ClassVar[Targets] = TARGETS
    options: DirectionOptions

    def check(self, reader: TileReader) -> None:
        """Besides the common checks: the direction of every tile is known relative to the pointing."""
        super().check(reader)
        names = [f"{kind}_{axis}" for kind in ("true_fov", "hillas_fov") for axis in ("lon", "lat")]
        names = [f"{name}_deg" if name.startswith("true") else name for name in names]
        unknown = ~np.isfinite(displacement_deg(reader.events(names))).all(axis=1)
        if unknown.any():
            raise UserError(
                f"{unknown.sum()} of {len(unknown)} tiles of the {reader.split_name} split have no true direction "
                "relative to the telescope's pointing; make the tiles from simulated files that say where it pointed"
            )

    def loss(self, outputs: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        """Sum of the three parts."""
        if self.options.energy_power:
            factors = target["energy_tev"] ** self.options.energy_power
            target = {**target, "weights": target["weights"] * factors / factors.mean()}
        off, total = self._where(outputs, target)
        if has_variance(outputs):
            log_variance = outputs[:, -1].clamp(*LOG_VARIANCE_RANGE)
            likelihood = log_variance + 0.5 * off.detach().square() * torch.exp(-log_variance)
            total = total + VARIANCE_WEIGHT * weighted_mean(likelihood, target["weights"])
        return total

    @staticmethod
    def _where(outputs: Tensor, target: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Distance [deg] from the truth, at the right end, shape (N,), and the loss without that of the variance."""
        truth, weights = target["displacement_deg"], target["weights"]
        if not has_ends(outputs):
            off = (outputs[:, :2] - truth).norm(dim=1)
            return off, LINE_WEIGHT * weighted_mean(_huber(off), weights)
        # A magnified image has a magnified vector, whose direction alone counts.
        outward = F.normalize(target["outward"], dim=1)
        joined = torch.stack(line_and_end(outputs, outward), dim=1)
        distance = truth.norm(dim=1)
        along = truth / distance.clamp(min=SMALLEST_DISPLACEMENT_DEG)[:, None]
        line = distance[:, None] * torch.stack([along[:, 0].square() - along[:, 1].square(), 2 * along.prod(1)], dim=1)
        off_line = (joined[:, :2] - line).norm(dim=1)
        logit = (joined[:, 2:] * along).sum(1)
        total = LINE_WEIGHT * weighted_mean(_huber(off_line), weights)
        total = total + END_WEIGHT * weighted_mean(F.softplus(-logit), weights)
        return _distance_at_the_right_end(joined.detach(), truth), total

    def metrics(self) -> Metric:
        """Resolution, with and without the end, and the width of the pulls."""
        return DirectionMetrics()


def _huber(off_deg: Tensor) -> Tensor:
    """Per item, scaled to the size of a squared error."""
    return 2 * F.huber_loss(off_deg, torch.zeros_like(off_deg), reduction="none", delta=HUBER_DELTA_DEG)


def _distance_at_the_right_end(line: Tensor, truth: Tensor) -> Tensor:
    """Distance [deg] of the predicted source from the true one, shape (N,), the end being chosen for the truth."""
    angle = torch.atan2(line[:, 1], line[:, 0]) / 2
    vector = line[:, :2].norm(dim=1, keepdim=True) * torch.stack([torch.cos(angle), torch.sin(angle)], dim=1)
    return torch.minimum((vector - truth).norm(dim=1), (vector + truth).norm(dim=1))


class DirectionMetrics(Metric):
    """Four numbers per validation tile are kept: containment needs all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("parts", [], dist_reduce_fx="cat")
        self._ends = True

    def update(self, outputs: Tensor, target: Mapping[str, Tensor]) -> None:
        """Take in one batch."""
        self._ends = has_ends(outputs)
        truth = target["displacement_deg"].cpu().numpy()
        axes = F.normalize(target["outward"], dim=1).cpu().numpy() if has_ends(outputs) else None
        vector = displacement(outputs.cpu().numpy(), axes).vector_deg
        distance = np.linalg.norm(vector - truth, axis=1)
        at_right_end = distance
        if has_ends(outputs):
            at_right_end = np.minimum(distance, np.linalg.norm(vector + truth, axis=1))
        pull2 = np.zeros_like(distance)
        if has_variance(outputs):
            pull2 = at_right_end**2 / 2 / np.exp(np.clip(outputs[:, -1].cpu().numpy(), *LOG_VARIANCE_RANGE))
        is_right = (vector * truth).sum(axis=1) > 0
        columns = (distance, at_right_end, is_right, pull2, target["weights"].cpu().numpy())
        self.parts.append(torch.from_numpy(np.stack(columns, axis=1).astype(np.float32)).to(outputs.device))

    def compute(self) -> dict[str, float]:
        """`angular_resolution_deg`, `pull_rms`, and with ends `axis_resolution_deg` (that of the right end) and
        `sign_accuracy`.
        """
        parts = self.parts if isinstance(self.parts, Tensor) else torch.cat(self.parts)
        distance, at_right_end, is_right, pull2, weights = parts.cpu().numpy().astype(np.float64).T
        found = {"angular_resolution_deg": float(statistics.containment(distance, weights))}
        if self._ends:
            found["axis_resolution_deg"] = float(statistics.containment(at_right_end, weights))
            found["sign_accuracy"] = float(statistics.mean(is_right, weights))
        return found | {"pull_rms": math.sqrt(statistics.mean(pull2, weights))}


OBJECTIVE = DirectionObjective
