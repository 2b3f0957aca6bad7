"""Measure a trained network on the validation split (torch): how wide the pulls of its uncertainties are, and how often
it takes good pixels for defects.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.bundle.calibration import Calibration
from pipeline.bundle.export import apply_network
from pipeline.bundle.false_alarms import SCORES, FalseAlarms
from pipeline.inputs import Input
from pipeline.tasks import get_decoder
from pipeline.tiles.reader import TileReader
from pipeline.training.data import as_tensors

if TYPE_CHECKING:
    from torch import nn

    from pipeline.training.heads import Heads

_BATCH_TILES = 256
_BATCH_FRAME_TILES = 16
#: Image size: all images have it, and the uncertainty of nearly every quantity depends on it.
COLUMN = "hillas_intensity"
#: Scores and kinds of places are those of 3 x 3 pixels and their neighbours: so far, a defect has a say in them.
BESIDE_PX = 3


@torch.no_grad()
def calibrations(
    network: "nn.Module", heads: "Heads", prepared: Input, validation: TileReader, device: str
) -> dict[str, Calibration]:
    """Task -> calibration, for the heads that state an uncertainty and have enough validation images.

    Parameters
    ----------
    network : nn.Module
        Trained; afterwards on the processor, in evaluation mode.
    heads : Heads
    prepared : Input
        From tiles to the network's arrays.
    validation : TileReader
    device : str
        Where the network is evaluated.
    """
    stating = [head for head in heads.heads if get_decoder(head.task).uncertainties]
    if not stating or COLUMN not in validation.columns:
        return {}
    network.to(device).eval()
    pulls: dict[str, list[np.ndarray]] = {head.task: [] for head in stating}
    sizes: dict[str, list[np.ndarray]] = {head.task: [] for head in stating}
    for batch in validation.in_batches(_BATCH_TILES):
        arrays = {name: tensor.to(device) for name, tensor in as_tensors(prepared.arrays(batch)).items()}
        outputs = apply_network(network, arrays).float().cpu()
        items = prepared.items(batch)
        for head in stating:
            target = as_tensors(head.arrays(items))
            rows = target["rows"].numpy() if head.selects else np.arange(len(items))
            own, chosen = head.of(outputs, target).numpy(), items.select(rows)
            decoder = get_decoder(head.task)
            pulls[head.task].append(decoder.pulls(decoder.decode(own, chosen), chosen.events))
            sizes[head.task].append(chosen.events[COLUMN])
    network.to("cpu")
    fitted = {task: Calibration.fit(np.concatenate(pulls[task]), COLUMN, np.concatenate(sizes[task])) for task in pulls}
    return {task: calibration for task, calibration in fitted.items() if calibration is not None}


@torch.no_grad()
def false_alarms(
    network: "nn.Module", heads: "Heads", prepared: Input, validation: TileReader, device: str
) -> dict[str, FalseAlarms]:
    """Task -> which thresholds flag how many of the good pixels, for the heads that flag; see `calibrations`.

    The targets of such a task have a plane `good`; where there is none, for the tiles have no truth, nothing is told.
    Where the thresholds guard what is replaced, pixels beside a defect are not counted: that a track is taken for one
    pixel wider harms no source, and with them the thresholds would be too strict for the sources.
    """
    flagging = [head for head in heads.heads if get_decoder(head.task).rates]
    if not flagging:
        return {}
    network.to(device).eval()
    strata = {head.task: list(get_decoder(head.task).rates) for head in flagging}
    counts = {task: np.zeros((len(names), len(SCORES) - 1), np.int64) for task, names in strata.items()}
    for batch in validation.in_batches(_BATCH_FRAME_TILES):
        arrays = {name: tensor.to(device) for name, tensor in as_tensors(prepared.arrays(batch)).items()}
        outputs = apply_network(network, arrays).float().cpu()
        for head in flagging:
            target = as_tensors(head.arrays(batch))
            if "good" not in target:
                counts.pop(head.task, None)
                continue
            decoder, good = get_decoder(head.task), target["good"]
            if decoder.decodes_by_rate:
                good = good & ~_beside(target["defect"] | target["faint"])
            good = good.numpy()
            score, place = decoder.alarms(decoder.decode(head.of(outputs, target).numpy(), batch))
            for number, row in enumerate(counts[head.task]):
                own = np.clip(score[good & (place == number)], SCORES[0], SCORES[-1])
                row += np.histogram(own, SCORES)[0]
    network.to("cpu")
    return {task: FalseAlarms.fit(dict(zip(strata[task], rows, strict=True))) for task, rows in counts.items()}


def _beside(defects: Tensor) -> Tensor:
    """Defects, and what is within `BESIDE_PX` rows and columns of one; shape (N, H, W), bool."""
    return F.max_pool2d(defects.float()[:, None], 2 * BESIDE_PX + 1, stride=1, padding=BESIDE_PX)[:, 0] > 0
