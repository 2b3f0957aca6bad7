"""Tiles to batches of tensors, in an order and with an augmentation that depend on (seed, epoch, step) alone."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from pipeline.preparation import Preparation
from pipeline.tasks.training import Objective
from pipeline.tiles.reader import TileReader
from pipeline.tiles.shards import TileBatch

# Purposes of random numbers: part of every key, so that no two uses share a stream.
AUGMENTATION = 1
DROPOUT = 2
WEIGHTS = 3


def keyed_rng(seed: int, purpose: int, *item: int) -> np.random.Generator:
    """Random generator of one purpose and item (epoch, step)."""
    return np.random.default_rng([seed, purpose, *item])


def keyed_seed(seed: int, purpose: int, *item: int) -> int:
    """Seed for torch's global generator, for one purpose and item."""
    return int(np.random.SeedSequence([seed, purpose, *item]).generate_state(1, np.uint64)[0] >> np.uint64(1))


class TrainingBatches(IterableDataset):
    """One epoch of shuffled, augmented batches.

    Read in the main process: preparing a batch costs a small part of a training step, and a second copy of the
    reader's buffer in a worker costs memory.
    """

    def __init__(
        self,
        reader: TileReader,
        objective: Objective,
        preparation: Preparation,
        *,
        seed: int,
        epoch: int,
        batch_size: int,
    ) -> None:
        self.reader, self.objective, self.preparation = reader, objective, preparation
        self.seed, self.epoch, self.batch_size = seed, epoch, batch_size

    def __len__(self) -> int:
        return self.reader.n_batches(self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        columns = self.preparation.columns
        stream = self.reader.shuffled(self.seed, self.epoch, self.batch_size, columns=columns)
        for step, tiles in enumerate(stream):
            batch = as_tensors(self.objective.arrays(tiles, self.preparation))
            if self.objective.config.augmentation.active:
                batch = self.objective.augment(batch, keyed_rng(self.seed, AUGMENTATION, self.epoch, step))
            yield batch


class ValidationBatches(IterableDataset):
    """The validation tiles in the order of their shards, each epoch the same."""

    def __init__(self, reader: TileReader, objective: Objective, preparation: Preparation, *, batch_size: int) -> None:
        self.reader, self.objective, self.preparation = reader, objective, preparation
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for tiles in _rebatch(self.reader.sequential(self.preparation.columns), self.batch_size):
            yield as_tensors(self.objective.arrays(tiles, self.preparation))


def _rebatch(parts: Iterator[TileBatch], batch_size: int) -> Iterator[TileBatch]:
    """Chunks of a shard hold few tiles of one split: join them to batches of `batch_size` (the last one is smaller)."""
    waiting: list[TileBatch] = []
    n_waiting = 0
    for part in parts:
        waiting.append(part)
        n_waiting += len(part)
        if n_waiting < batch_size:
            continue
        joined = TileBatch.concatenate(waiting)
        n_whole = n_waiting // batch_size * batch_size
        for start in range(0, n_whole, batch_size):
            yield joined.select(slice(start, start + batch_size))
        waiting, n_waiting = [joined.select(slice(n_whole, None))], n_waiting - n_whole
    if n_waiting:
        yield TileBatch.concatenate(waiting)


def as_tensors(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Arrays as tensors that share their memory."""
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
