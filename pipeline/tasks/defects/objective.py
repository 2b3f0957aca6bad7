"""Defects of sky frames: a cross-entropy for each kind of defect, which may overlap.

- A pixel whose defects have less than 3 sigma of charge is not told apart by anyone: from 0.3 to 3 sigma it counts
  neither way.
- Bright pixels weigh more, 1 + asinh(u) of what was observed: to flag a star's core does more harm than to miss a
  cosmic ray that hardly stands out.
- What is missed lies between 3 and 10 sigma, at the edges of tracks: such pixels count three times.
- After the first third of a training, the hardest 1 % of the good pixels count ten times, half of them in star cores:
  the rate of false alarms that matters is far below what the mean over all pixels feels.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from pipeline.tasks.defects.decode import DEFECT_PRIOR, LIFT
from pipeline.tasks.defects.spec import SPEC
from pipeline.tasks.defects.targets import FOUND_SNR, TARGETS
from pipeline.tasks.interfaces import Targets
from pipeline.tasks.spec import TaskSpec
from pipeline.training.objective import Objective

LOSS_SCALE = 4.0  # as the defect output of the denoiser
EDGE_SNR = 10.0
EDGE_WEIGHT = 3.0
HARD_SHARE = 0.01  # of the good pixels of a batch
HARD_WEIGHT = 10.0
HARD_FROM = 1 / 3  # of the epochs; from 2/3 on, less is found
#: Share of the good pixels at which the validation metrics count what is found.
FALSE_ALARM_RATE = 5e-4


class DefectObjective(Objective):
    """Cross-entropy per kind of defect."""

    spec: ClassVar[TaskSpec] = SPEC
    targets: ClassVar[Targets] = TARGETS

    def loss(self, outputs: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        """Weighted mean over the pixels of the sum over the kinds."""
        logits = outputs + DEFECT_PRIOR
        positive = target["positive"]
        entropy = F.binary_cross_entropy_with_logits(logits, positive.float(), reduction="none")
        weight = (~target["missing"]) * (1 + torch.asinh(target["signal"].abs())) * target["weights"][:, None, None]
        edge = positive.any(dim=1) & (target["charge"] >= FOUND_SNR) & (target["charge"] < EDGE_SNR)
        weight = weight * torch.where(edge, EDGE_WEIGHT, 1.0)
        if self.progress >= HARD_FROM:
            hard = hardest(logits.detach().amax(dim=1), target["good"], target["core"])
            weight = weight * torch.where(hard, HARD_WEIGHT, 1.0)
        counted = entropy.masked_fill(target["faint"], 0.0).sum(dim=1)
        return LOSS_SCALE * (counted * weight).sum() / weight.sum().clamp(min=1)

    def metrics(self) -> Metric:
        """Defects found at a fixed rate of false alarms, by both counts, and false alarms in star cores."""
        return DefectMetrics()


def hardest(logits: Tensor, good: Tensor, core: Tensor) -> Tensor:
    """The good pixels of a batch that look most like defects, `HARD_SHARE` of them, half in star cores if there are.

    All of shape (N, H, W); `core` is a part of `good`.
    """
    n_wanted = int(HARD_SHARE * int(good.sum()))
    chosen = torch.zeros_like(good).flatten()
    n_core = min(n_wanted // 2, int(core.sum()))
    for place, n in ((core, n_core), (good & ~core, n_wanted - n_core)):
        scores = logits.masked_fill(~place, -torch.inf).flatten()
        chosen[scores.topk(min(n, int(place.sum()))).indices] = True
    return chosen.view_as(good)


def score_of(logits: Tensor) -> Tensor:
    """As `pipeline.tasks.defects.decode.score_of`; a test holds the two together."""
    score = logits.amax(dim=1)
    around = F.max_pool2d(score[:, None], 3, stride=1, padding=1)[:, 0]
    return torch.maximum(score, torch.minimum(score + LIFT, around))


_BINS = 4000
_RANGE = (-20.0, 20.0)
_KINDS = ("bench", "own", "good", "sound", "core")


class DefectMetrics(Metric):
    """Histograms of the score: of defects by both counts, of the good pixels of each, and of good pixels in cores."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(len(_KINDS), _BINS, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, target: Mapping[str, Tensor]) -> None:
        """Take in one batch."""
        score = score_of(outputs + DEFECT_PRIOR)
        low, high = _RANGE
        place = ((score - low) / (high - low) * _BINS).long().clamp(0, _BINS - 1)
        good, own = target["good"], target["own"]
        bench = target["positive"].any(dim=1) & ~target["missing"] & ~target["saturated"]
        sound = ~target["missing"] & ~target["saturated"] & ~own
        for row, kind in enumerate((bench, own, good, sound, target["core"])):
            self.counts[row] += torch.bincount(place[kind], minlength=_BINS)

    def compute(self) -> dict[str, float]:
        """`tpr_bench`, `tpr_own`: share of the defects found while 0.05 % of the good pixels are flagged.

        `core_fpr`: share of the good pixels in star cores that are flagged then (by the bench count). NaN without any.
        """
        above = self.counts.flip(1).cumsum(1)
        shares = dict(zip(_KINDS, above / above[:, -1:], strict=True))
        bench, own = (_first_beyond(shares[name], FALSE_ALARM_RATE) for name in ("good", "sound"))
        return {
            "tpr_bench": _before(shares["bench"], bench),
            "tpr_own": _before(shares["own"], own),
            "core_fpr": _before(shares["core"], bench),
        }


def _first_beyond(shares: Tensor, rate: float) -> int:
    """The first bin, from the highest score down, with which more than `rate` of the pixels are flagged."""
    return int((shares <= rate).sum())


def _before(shares: Tensor, bin_number: int) -> float:
    """Share of the pixels in the bins before one."""
    return float(shares[bin_number - 1]) if bin_number else float(shares[0]) * 0.0


OBJECTIVE = DefectObjective
