"""Tiles to batches of tensors, in an order and with an augmentation that depend on (seed, epoch, step) alone.

A batch is ``{"inputs": {...}, "heads": {TASK: {...}}}``: what the network is given, in the order of its arguments, and
the targets and weights of each head.
"""

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset

from pipeline.config import AugmentationConfig
from pipeline.inputs import Input
from pipeline.tiles.reader import WHOLE, Part, TileReader
from pipeline.tiles.shards import TileBatch
from pipeline.training.augmentation import BatchMotion, draw_batch_motion, drop_telescopes, move_batch
from pipeline.training.heads import Heads
from pipeline.training.prefetch import prefetched

# Purposes of random numbers: part of every key, so that no two uses share a stream.
AUGMENTATION = 1
DROPOUT = 2
WEIGHTS = 3

Batch = dict[str, dict[str, Any]]


def keyed_rng(seed: int, purpose: int, *item: int) -> np.random.Generator:
    """Random generator of one purpose and item (epoch, step)."""
    return np.random.default_rng([seed, purpose, *item])


def keyed_seed(seed: int, purpose: int, *item: int) -> int:
    """Seed for torch's global generator, for one purpose and item."""
    return int(np.random.SeedSequence([seed, purpose, *item]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def rank_key(part: Part) -> tuple[int, ...]:
    """What a key of random numbers also has where several ranks train together: each draws its own."""
    return (part.rank,) if part.n_ranks > 1 else ()


@dataclass(frozen=True)
class Feed:
    """From tiles to batches: the fitted input, the heads, and what is done to training images.

    For a GPU, batches lie in memory that it can read by itself, and their images are not moved but come with their
    motions, for `on_device`.
    """

    input: Input
    heads: Heads
    augmentation: AugmentationConfig
    seed: int
    device: str = "cpu"

    @property
    def columns(self) -> tuple[str, ...]:
        """Event columns that must be read with the tiles."""
        return tuple(dict.fromkeys((*self.input.columns, *self.heads.columns)))

    def batch(self, tiles: TileBatch) -> Batch:
        """Tensors that share the memory of the tiles where they can."""
        return self._pinned(self._tensors(tiles))

    def training_batch(self, tiles: TileBatch, epoch: int, step: int, part: Part = WHOLE) -> Batch:
        """The same with the images moved at random, keyed by epoch and step, and by the rank if there are several."""
        rng = keyed_rng(self.seed, AUGMENTATION, epoch, step, *rank_key(part))
        if self.input.takes == "telescopes" and self.augmentation.drop_telescopes:
            tiles = drop_telescopes(tiles, rng, self.augmentation.drop_telescopes)
        batch = self._tensors(tiles)
        if not self.augmentation.active:
            return self._pinned(batch)
        motion = draw_batch_motion(batch, rng, self.augmentation)
        if self.of_gpu:
            return self._pinned(batch | {"motion": motion.to_tensors()})
        return self._moved(batch, motion)

    @property
    def of_gpu(self) -> bool:
        """Whether batches are prepared for a CUDA device."""
        return self.device.startswith("cuda")

    def on_device(self, batch: Batch) -> Batch:
        """A training batch that has arrived on its device, with its images moved."""
        batch = dict(batch)
        motion = batch.pop("motion", None)
        return batch if motion is None else self._moved(batch, BatchMotion.from_tensors(motion))

    def _moved(self, batch: Batch, motion: BatchMotion) -> Batch:
        motions = {head.task: head.objective.targets.motions for head in self.heads.heads}
        return move_batch(batch, motion, self.augmentation, motions, self.input.moving)

    def _tensors(self, tiles: TileBatch) -> Batch:
        return as_tensors({"inputs": self.input.arrays(tiles), "heads": self.heads.arrays(self.input.items(tiles))})

    def _pinned(self, batch: Any) -> Any:
        """The batch where a GPU can fetch it while both sides go on."""
        if not self.of_gpu:
            return batch
        if isinstance(batch, Mapping):
            return {name: self._pinned(value) for name, value in batch.items()}
        return batch.pin_memory()


class TrainingBatches(IterableDataset):
    """One epoch of shuffled, augmented batches, of one rank.

    They are made in a thread of this process, while the network computes: a worker process would need a second copy of
    the reader's buffer, and pass every batch through shared memory.

    Parameters
    ----------
    reader : TileReader
    feed : Feed
    epoch : int
    batch_size : int
        Of all ranks together.
    part : Part
        Which rank reads.
    first_step : int
        Batches before it are left out: a run resumes within an epoch.
    """

    def __init__(
        self,
        reader: TileReader,
        feed: Feed,
        *,
        epoch: int,
        batch_size: int,
        part: Part = WHOLE,
        first_step: int = 0,
    ) -> None:
        self.reader, self.feed, self.epoch, self.batch_size = reader, feed, epoch, batch_size
        self.part, self.first_step = part, first_step

    def __len__(self) -> int:
        """Of the whole epoch."""
        return self.reader.n_batches(self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return prefetched(self._batches())

    def _batches(self) -> Generator[Batch, None, None]:
        own = self.batch_size // self.part.n_ranks
        stream = self.reader.shuffled(self.feed.seed, self.epoch, own, columns=self.feed.columns, part=self.part)
        for step, tiles in enumerate(stream):
            if step >= self.first_step:
                yield self.feed.training_batch(tiles, self.epoch, step, self.part)


class ValidationBatches(IterableDataset):
    """The validation tiles of one rank, in the order of their shards, each epoch the same.

    The batches are those of one rank, whole: some losses depend on what else is in a batch.
    """

    def __init__(self, reader: TileReader, feed: Feed, *, batch_size: int, part: Part = WHOLE) -> None:
        self.reader, self.feed, self.batch_size, self.part = reader, feed, batch_size, part

    def __iter__(self) -> Iterator[Batch]:
        return prefetched(self._batches())

    def _batches(self) -> Generator[Batch, None, None]:
        for tiles in self.reader.in_batches(self.batch_size, self.feed.columns, self.part):
            yield self.feed.batch(tiles)


def as_tensors(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays, in nested mappings, as tensors that share their memory."""
    return {
        name: as_tensors(value) if isinstance(value, Mapping) else torch.from_numpy(np.ascontiguousarray(value))
        for name, value in arrays.items()
    }
