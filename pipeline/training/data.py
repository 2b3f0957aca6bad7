"""Tiles to batches of tensors, in an order and with an augmentation that depend on (seed, epoch, step) alone.

A batch is ``{"inputs": {...}, "heads": {TASK: {...}}}``: what the network is given, in the order of its arguments, and
the targets and weights of each head.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset

from pipeline.config import AugmentationConfig
from pipeline.inputs import Input
from pipeline.tiles.reader import TileReader
from pipeline.tiles.shards import TileBatch
from pipeline.training.augmentation import augment, drop_telescopes
from pipeline.training.heads import Heads

# Purposes of random numbers: part of every key, so that no two uses share a stream.
AUGMENTATION = 1
DROPOUT = 2
WEIGHTS = 3
HIDING = 4
HIDING_VALIDATION = 5

Batch = dict[str, dict[str, Any]]


def keyed_rng(seed: int, purpose: int, *item: int) -> np.random.Generator:
    """Random generator of one purpose and item (epoch, step)."""
    return np.random.default_rng([seed, purpose, *item])


def keyed_seed(seed: int, purpose: int, *item: int) -> int:
    """Seed for torch's global generator, for one purpose and item."""
    return int(np.random.SeedSequence([seed, purpose, *item]).generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass(frozen=True)
class Feed:
    """From tiles to batches: the fitted input, the heads, and what is done to training images."""

    input: Input
    heads: Heads
    augmentation: AugmentationConfig
    seed: int

    @property
    def columns(self) -> tuple[str, ...]:
        """Event columns that must be read with the tiles."""
        return tuple(dict.fromkeys((*self.input.columns, *self.heads.columns)))

    def batch(self, tiles: TileBatch) -> Batch:
        """Tensors that share the memory of the tiles where they can."""
        return as_tensors({"inputs": self.input.arrays(tiles), "heads": self.heads.arrays(self.input.items(tiles))})

    def validation_batch(self, tiles: TileBatch, step: int) -> Batch:
        """The same in all epochs; where something is hidden, it is hidden in the same places."""
        return self.batch(self.heads.hide(tiles, keyed_rng(self.seed, HIDING_VALIDATION, step)))

    def training_batch(self, tiles: TileBatch, epoch: int, step: int) -> Batch:
        """The same with the images moved at random, keyed by epoch and step."""
        rng = keyed_rng(self.seed, AUGMENTATION, epoch, step)
        tiles = self.heads.hide(tiles, keyed_rng(self.seed, HIDING, epoch, step))
        if self.input.takes == "telescopes" and self.augmentation.drop_telescopes:
            tiles = drop_telescopes(tiles, rng, self.augmentation.drop_telescopes)
        batch = self.batch(tiles)
        if not self.augmentation.active:
            return batch
        motions = {head.task: head.objective.targets.motions for head in self.heads.heads}
        return augment(batch, rng, self.augmentation, motions, self.input.moving)


class TrainingBatches(IterableDataset):
    """One epoch of shuffled, augmented batches.

    Read in the main process: preparing a batch costs a small part of a training step, and a second copy of the
    reader's buffer in a worker costs memory.
    """

    def __init__(self, reader: TileReader, feed: Feed, *, epoch: int, batch_size: int) -> None:
        self.reader, self.feed, self.epoch, self.batch_size = reader, feed, epoch, batch_size

    def __len__(self) -> int:
        return self.reader.n_batches(self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        stream = self.reader.shuffled(self.feed.seed, self.epoch, self.batch_size, columns=self.feed.columns)
        for step, tiles in enumerate(stream):
            yield self.feed.training_batch(tiles, self.epoch, step)


class ValidationBatches(IterableDataset):
    """The validation tiles in the order of their shards, each epoch the same."""

    def __init__(self, reader: TileReader, feed: Feed, *, batch_size: int) -> None:
        self.reader, self.feed, self.batch_size = reader, feed, batch_size

    def __iter__(self) -> Iterator[Batch]:
        for step, tiles in enumerate(self.reader.in_batches(self.batch_size, self.feed.columns)):
            yield self.feed.validation_batch(tiles, step)


def as_tensors(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays, in nested mappings, as tensors that share their memory."""
    return {
        name: as_tensors(value) if isinstance(value, Mapping) else torch.from_numpy(np.ascontiguousarray(value))
        for name, value in arrays.items()
    }
