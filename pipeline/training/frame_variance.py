"""Uncertainties of restored pixels on whole validation frames (torch): their factors, and how errors go together."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.bundle.card import Card, HeadSection
from pipeline.bundle.export import apply_network
from pipeline.bundle.runtime import Predictor
from pipeline.bundle.variance import (
    PULLS,
    WINDOWS_PX,
    FrameVariance,
    Sample,
    counted,
    fit_factors,
    quantiles_of,
    summaries,
)
from pipeline.sky.dq import DQ_DTYPE, LOST
from pipeline.sky.tiled_frames import predicted_planes, tiles_of_frames
from pipeline.sky.tiling import untile
from pipeline.tasks import get_decoder
from pipeline.tiles.reader import TileReader
from pipeline.tiles.shards import TileBatch
from pipeline.training.data import as_tensors

if TYPE_CHECKING:
    from torch import nn

# Pixels of each stratum that are looked at: of one frame, and of all.
_PER_FRAME, _IN_ALL = 20_000, 400_000
# Frames beyond so many pixels add little.
_MOST_PX = 40_000_000
_FEWEST_WINDOWS = 200


class _Live(Predictor):
    """A network in torch, used as its bundle will be."""

    def __init__(self, card: Card, network: "nn.Module", device: str) -> None:
        super().__init__(card, None)
        self._network, self._device = network, device

    @torch.no_grad()
    def _compute(self, session: None, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        tensors = {name: tensor.to(self._device) for name, tensor in as_tensors(arrays).items()}
        return apply_network(self._network, tensors).float().cpu().numpy()


def with_variances(card: Card, network: "nn.Module", validation: TileReader, device: str) -> Card:
    """The card with the variances of its heads that state uncertainties of pixels.

    Parameters
    ----------
    card : Card
        Without any; its thresholds are used.
    network : nn.Module
        Trained; afterwards on the processor, in evaluation mode.
    validation : TileReader
        Without a truth, or without frames, the card stays as it is.
    device : str
        Where the network is evaluated.
    """
    if not any(get_decoder(head.task).strata for head in card.heads):
        return card
    network.to(device).eval()
    heads = []
    for head in card.heads:
        factors = _factors(card, head, network, validation, device)
        if factors:
            known = head.model_copy(update={"variance": FrameVariance(factors=factors)})
            head = known.model_copy(update={"variance": _measured(card, known, network, validation, device)})
        heads.append(head)
    network.to("cpu")
    return card.model_copy(update={"heads": tuple(heads)})


def _factors(card: Card, head: HeadSection, network: "nn.Module", validation: TileReader, device: str) -> dict:
    decoder = get_decoder(head.task)
    rng = np.random.default_rng(0)
    parts: list[Sample] = []
    for values, frame in _restored(card, head, network, validation, device) if decoder.strata else ():
        error, truth = decoder.errors(values, frame)
        traits = decoder.traits(values, frame)
        pull = error / values[decoder.uncertainties[0]]
        judged = (truth >= 0) & (traits.place >= 0) & np.isfinite(pull)
        for number in range(len(decoder.strata)):
            found = np.flatnonzero((judged & (traits.place == number)).ravel())
            chosen = np.sort(rng.permutation(found)[:_PER_FRAME])
            taken = [plane.ravel()[chosen] for plane in (pull, traits.place, truth, *traits.values)]
            weight = np.full(chosen.size, found.size / max(chosen.size, 1))
            parts.append(Sample(taken[0], taken[1], tuple(taken[3:]), taken[2], weight))
    parts = [part for part in parts if part.pull.size]
    return fit_factors(_joined(parts, rng), decoder.strata) if parts else {}


def _joined(parts: list[Sample], rng: np.random.Generator) -> Sample:
    """One sample, of at most so many pixels per stratum."""
    planes = [np.concatenate(columns) for columns in zip(*(_columns(part) for part in parts), strict=True)]
    kept = []
    for number in np.unique(planes[1]):
        found = np.flatnonzero(planes[1] == number)
        chosen = np.sort(rng.permutation(found)[:_IN_ALL])
        planes[3][chosen] *= found.size / chosen.size
        kept.append(chosen)
    pull, place, truth, weight, *traits = (plane[np.concatenate(kept)] for plane in planes)
    return Sample(pull, place, tuple(traits), truth, weight)


def _columns(part: Sample) -> tuple[np.ndarray, ...]:
    return part.pull, part.place, part.truth, part.weight, *part.traits


def _measured(
    card: Card, head: HeadSection, network: "nn.Module", validation: TileReader, device: str
) -> FrameVariance:
    """Pulls and correlations with the factors that the head has."""
    decoder = get_decoder(head.task)
    names = list(decoder.strata)
    counts = np.zeros((len(names), len(PULLS) - 1))
    sums: dict[int, list[np.ndarray]] = {size: [] for size in WINDOWS_PX}
    for values, frame in _restored(card, head, network, validation, device):
        error, truth = (plane[0] for plane in decoder.errors(values, frame))
        err, place = values[decoder.uncertainties[0]][0], decoder.traits(values, frame).place[0]
        counts += counted(error / err, truth, len(names))
        empty = (truth == 0) & (place == 0)
        for size, found in sums.items():
            found.append(window_sums(error, err, empty, size))
    joined = {size: np.concatenate(found) for size, found in sums.items()}
    correlations = {
        size: float(f"{quantiles_of(found).width:.4g}")
        for size, found in joined.items()
        if len(found) > _FEWEST_WINDOWS
    }
    return head.variance.model_copy(update={"pulls": summaries(counts, names), "correlations": correlations})


def window_sums(error: np.ndarray, err: np.ndarray, usable: np.ndarray, size: int) -> np.ndarray:
    """Sums of errors over the root of the sum of squared uncertainties, of square windows side by side."""
    height, width = (length // size * size for length in error.shape)

    def summed(plane: np.ndarray) -> np.ndarray:
        blocks = plane[:height, :width].reshape(height // size, size, width // size, size)
        return blocks.sum(axis=(1, 3), dtype=np.float64)

    whole = summed(usable) == size**2
    clean = np.where(usable, error, 0)
    return (summed(clean)[whole]) / np.sqrt(summed(np.square(np.where(usable, err, 0)))[whole])


def _restored(
    card: Card, head: HeadSection, network: "nn.Module", validation: TileReader, device: str
) -> Iterator[tuple[dict[str, np.ndarray], TileBatch]]:
    """What the head makes of each validation frame with a truth, and the frame as one tile, shape (1, H, W).

    Tiles that do not say of which frame they are give none.
    """
    predictor = _Live(card.model_copy(update={"heads": (head,)}) if len(card.heads) == 1 else card, network, device)
    predictor.heads = (head,)
    predictor.specs = tuple(spec for spec in predictor.specs if spec.name == head.task)
    n_pixels = 0
    if "frame" not in validation.columns:
        return
    for _, tiles, facts in tiles_of_frames(validation):
        if facts.get("target") != "truth" or n_pixels > _MOST_PX:
            continue
        planes = untile(tiles)
        yield _one(predictor, planes, tiles)
        n_pixels += planes["sci"].size


def _one(
    predictor: Predictor, planes: Mapping[str, np.ndarray], tiles: TileBatch
) -> tuple[dict[str, np.ndarray], TileBatch]:
    level, noise = (float(tiles.events[name][0]) for name in ("level", "noise"))
    frame = TileBatch(
        images=np.stack([planes["sci"], planes["err"]])[None],
        events={"level": np.full(1, level), "noise": np.full(1, noise)},
        group=np.zeros(1, np.int64),
        targets={"clean": planes["clean"][None, None]},
        masks=planes["dq"][None],
    )
    values = predicted_planes(planes["sci"], planes["err"], planes["dq"] & DQ_DTYPE(LOST), level, noise, predictor)
    return {name: plane[None] for name, plane in values.items()}, frame
