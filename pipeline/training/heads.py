"""The heads of one network: which outputs belong to which task, which tiles count for it, and the sum of the losses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from pipeline.config import NetworkConfig
from pipeline.errors import TooFewEventsError, UserError
from pipeline.inputs import get_input
from pipeline.tasks import get_objective
from pipeline.tasks.spec import Monitor
from pipeline.tiles.cameras import where_camera, where_one_camera
from pipeline.tiles.events import EventReader
from pipeline.tiles.manifest import Manifest
from pipeline.tiles.reader import TileReader
from pipeline.tiles.shards import TileBatch
from pipeline.training.objective import Objective
from pipeline.training.ranks import ALONE, Ranks
from pipeline.training.running_mean import RunningMean

_TOTAL = Monitor("loss", "lower")


@dataclass(frozen=True)
class Head:
    """One head and its place among the network's outputs.

    Attributes
    ----------
    objective : Objective
    first : int
        Number of its first output.
    selects : bool
        Whether only some tiles of a batch count for it.
    equalises : bool
        Whether its tiles have the weights that equalise the classes.
    """

    objective: Objective
    first: int
    selects: bool
    equalises: bool

    @property
    def task(self) -> str:
        """Name of the task, and of the head."""
        return self.objective.spec.name

    def of(self, outputs: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        """Outputs of this head, for the tiles that count: (N', K) or (N', K, H, W)."""
        own = outputs[:, self.first : self.first + len(self.objective.outputs)]
        return own.index_select(0, target["rows"]) if self.selects else own

    def arrays(self, batch: TileBatch) -> dict[str, np.ndarray]:
        """Targets and weights of the tiles that count; `rows` says which ones they are, where not all do."""
        rows = None
        if self.selects:
            where = self.objective.spec.where
            keep = np.ones(len(batch), bool)
            for name, value in where.items():
                keep &= batch.events[name] == value
            rows = np.flatnonzero(keep)
            batch = batch.select(rows)
        targets = self.objective.targets
        if any(target.name not in batch.targets for target in targets.stored):  # an event, made of its tiles
            batch.targets |= targets.of_truth(batch)
        weights = batch.weights if self.equalises else batch.base_weights
        target = {"weights": weights.astype(np.float32), **targets.arrays(batch)}
        return target if rows is None else target | {"rows": rows}


class Heads:
    """All heads of a network, in the order of their outputs.

    With one head, tiles are chosen and weighted by the reader as its task says. With several that differ in that, the
    reader gives all tiles, and each head takes its own from a batch: a head without tiles in a batch adds nothing.
    """

    def __init__(self, config: NetworkConfig) -> None:
        self.config = config
        specs = config.specs
        self._selection = dict(specs[0].where) if all(spec.where == specs[0].where for spec in specs) else {}
        differ = len({spec.equalise for spec in specs}) > 1
        self._equalise = any(spec.equalise for spec in specs)
        self.heads: list[Head] = []
        first = 0
        for task, options in config.heads.items():
            objective = get_objective(task)(options)
            selects = dict(objective.spec.where) != self._selection
            self.heads.append(Head(objective, first, selects, objective.spec.equalise or not differ))
            first += len(objective.outputs)
        self.num_outputs = first

    @property
    def output_names(self) -> tuple[str, ...]:
        """All outputs, as TASK.OUTPUT; they must be equal to reuse the last layer of another network."""
        return tuple(f"{head.task}.{name}" for head in self.heads for name in head.objective.outputs)

    @property
    def vector_outputs(self) -> tuple[int, ...]:
        """Numbers of the outputs that begin a vector."""
        options = self.config.heads.values()
        return tuple(
            head.first + number for head, own in zip(self.heads, options, strict=True) for number in own.vectors
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """Event columns that the selection of tiles needs, and what targets are made of."""
        names = [c for head in self.heads if head.selects for c in head.objective.spec.where]
        names += [c for head in self.heads for c in head.objective.targets.columns]
        if get_input(self.config.input).takes == "telescopes":
            names += [c for head in self.heads for c in head.objective.spec.needs]
        return tuple(dict.fromkeys(names))

    @property
    def monitor(self) -> Monitor:
        """What chooses the best epoch: the task's own metric, or the sum of the losses of several."""
        return self.heads[0].objective.spec.monitor if len(self.heads) == 1 else _TOTAL

    def reader(self, manifests: Sequence[str | Path | Manifest], split: str) -> TileReader:
        """The tiles of a split that count for at least one head."""
        return self._reader(manifests, split, self._selection, equalise=self._equalise)

    def _reader(
        self, manifests: Sequence[str | Path | Manifest], split: str, where: Mapping[str, Any], *, equalise: bool
    ) -> TileReader:
        kind = EventReader if get_input(self.config.input).takes == "telescopes" else TileReader
        return kind(manifests, split, where={**where, **self._camera(manifests)}, equalise=equalise)

    def _camera(self, manifests: Sequence[str | Path | Manifest]) -> dict[str, Any]:
        """Selection of the tiles of the network's camera; an input of single images takes no more than one."""
        chosen = self.config.camera
        if get_input(self.config.input).takes == "image":
            return where_one_camera(manifests, chosen)
        return where_camera(manifests, [chosen] if chosen else [])

    def check(self, manifests: Sequence[str | Path | Manifest]) -> None:
        """Fail before the long work: the right wing, the truth that each task needs, and tiles that count for it.

        Raises
        ------
        UserError
            Or `TooFewEventsError`, if these tiles cannot train one of the heads.
        """
        whole = TileReader(manifests, "all", equalise=False)
        try:
            for head in self.heads:
                self._check_columns(whole, head.objective)
        finally:
            whole.close()
        for head in self.heads:
            spec = head.objective.spec
            for split in ("train", "validation"):
                reader = self._reader(manifests, split, spec.where, equalise=spec.equalise)
                if reader.n_tiles == 0:
                    selection = "".join(f" with {name} = {value}" for name, value in spec.where.items())
                    selection += f" of {self.config.camera}" if self.config.camera else ""
                    item = "event of several telescopes" if isinstance(reader, EventReader) else "tile"
                    raise TooFewEventsError(
                        f"the {split} split has no {item}{selection} to train {spec.name} on; add runs, loosen the "
                        "cuts (tiles.*.cuts) or change the shares (tiles.splits)"
                    )
                head.objective.check(reader)
                reader.close()

    @staticmethod
    def _check_columns(reader: TileReader, objective: Objective) -> None:
        spec = objective.spec
        if reader.wing != spec.wing:
            raise UserError(
                f"{', '.join(str(m.path) for m in reader.manifests)} holds {reader.wing} tiles, but the task "
                f"{spec.name} takes {spec.wing} tiles"
            )
        missing = [name for name in spec.where if name not in reader.columns]
        if missing and reader.n_tiles:
            raise UserError(
                f"the tiles have no truth to train {spec.name} on: no event column {', '.join(missing)}; use simulated "
                "files"
            )

    def arrays(self, batch: TileBatch) -> dict[str, dict[str, np.ndarray]]:
        """Task -> targets and weights of a batch."""
        return {head.task: head.arrays(batch) for head in self.heads}

    def loss(
        self,
        outputs: Tensor,
        targets: Mapping[str, Mapping[str, Tensor]],
        shares: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Sum of the heads' losses, each times the weight of its options, and its share among several ranks."""
        parts = [part * head.objective.options.weight for head, part in self.losses(outputs, targets)]
        if shares is not None:
            tasks = [head.task for head in self.heads if len(targets[head.task]["weights"])]
            parts = [part * shares[task] for task, part in zip(tasks, parts, strict=True)]
        return torch.stack(parts).sum() if parts else outputs.sum() * 0.0

    def losses(self, outputs: Tensor, targets: Mapping[str, Mapping[str, Tensor]]) -> list[tuple[Head, Tensor]]:
        """The loss of each head that has a tile in this batch."""
        losses = []
        for head in self.heads:
            target = targets[head.task]
            if len(target["weights"]):
                losses.append((head, head.objective.loss(head.of(outputs, target), target)))
        return losses

    def set_progress(self, progress: float) -> None:
        """Tell all objectives which share of the training is done; 0 for validation."""
        for head in self.heads:
            head.objective.progress = progress

    def metrics(self) -> "HeadMetrics":
        """Fresh collectors of the validation metrics of all heads."""
        return HeadMetrics(self.heads)


class HeadMetrics:
    """Validation metrics of all heads; with several, names are TASK_METRIC, and each has its own loss."""

    def __init__(self, heads: Sequence[Head]) -> None:
        self._heads = heads
        self._metrics: dict[str, Metric] = {head.task: head.objective.metrics() for head in heads}
        self._losses = {head.task: RunningMean() for head in heads if len(heads) > 1}

    def update(self, outputs: Tensor, targets: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take in one batch: outputs in float32, and the targets that they belong to."""
        for head in self._heads:
            target = targets[head.task]
            if len(target["weights"]) == 0:
                continue
            own = head.of(outputs, target)
            self._metrics[head.task].to(own.device).update(own, target)
            if head.task in self._losses:
                loss = head.objective.loss(own, target)
                self._losses[head.task].to(own.device).update(loss, len(target["weights"]))

    def compute(self, ranks: Ranks = ALONE) -> dict[str, float]:
        """The metrics of everything taken in, on all ranks."""
        if len(self._heads) == 1:
            return _numbers(ranks.gather(self._metrics[self._heads[0].task]).compute())
        values = {}
        for task, metric in self._metrics.items():
            numbers = {"loss": ranks.gather(self._losses[task]).compute(), **ranks.gather(metric).compute()}
            values |= {f"{task}_{name}": value for name, value in _numbers(numbers).items()}
        return values


def _numbers(content: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in content.items()}
