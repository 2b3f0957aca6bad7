"""Several processes that train one network together, as torchrun starts them: one rank each."""

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pipeline import logs
from pipeline.device import choose_device
from pipeline.errors import UserError
from pipeline.tiles.reader import Part

if TYPE_CHECKING:
    from torchmetrics import Metric

# How long a rank waits for another one: validation and the writing of a checkpoint are the longest times apart.
_TIMEOUT = timedelta(minutes=30)

# Groups that were left, kept to the end of the process. Whoever lets go of a Gloo group last waits for its threads.
# Where that is the gradient reducer of a network, it does so holding the interpreter's lock, which such a thread may
# need to end (torch 2.13: one run of five hung that left a group behind its last backward pass).
_LEFT_GROUPS: list[Any] = []


@dataclass(frozen=True)
class Ranks:
    """Place of a process among those that train together.

    Attributes
    ----------
    rank, n_ranks : int
        Number of the process, from 0, and how many there are. Rank 0 writes.
    local_rank, n_local : int
        The same among the processes of its node: rank i computes on its i-th GPU.
    """

    rank: int = 0
    n_ranks: int = 1
    local_rank: int = 0
    n_local: int = 1

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> "Ranks":
        """What torchrun says; one rank where the process was started otherwise.

        Raises
        ------
        UserError
            If Slurm has started several equal processes without torchrun: each would train alone.
        """
        if "TORCHELASTIC_RUN_ID" in environment:
            names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
            return cls(*(int(environment[name]) for name in names))
        n_tasks = int(environment.get("SLURM_STEP_NUM_TASKS", 1))
        if n_tasks > 1:
            raise UserError(
                f"this is one of {n_tasks} equal tasks of a Slurm step, and each would train the whole network; start "
                "one torchrun per node, which starts the ranks: see docs/scaling.md, Training on several nodes"
            )
        return cls()

    @property
    def part(self) -> Part:
        """Its share of the tiles."""
        return Part(self.rank, self.n_ranks)

    @property
    def n_nodes(self) -> int:
        """Number of nodes."""
        return self.n_ranks // self.n_local

    @property
    def together(self) -> bool:
        """Whether there are several."""
        return self.n_ranks > 1

    def device(self, requested: str) -> str:
        """The device of this rank, as torch writes it.

        Raises
        ------
        UserError
            If it is not available, or the ranks of a node would share a GPU.
        """
        device = choose_device(requested)
        if not self.together or device == "cpu":
            return device
        if device == "mps":
            raise UserError(
                f"device {requested!r}: {self.n_ranks} ranks need CUDA GPUs or processors; use --device cpu"
            )
        if ":" in requested and self.n_local > 1:
            raise UserError(
                f"device {requested!r} is one GPU for {self.n_local} ranks of this node; use --device cuda, where each "
                "takes its own"
            )
        if ":" in requested:
            return device
        import torch

        if self.n_local > torch.cuda.device_count():
            raise UserError(
                f"{self.n_local} ranks were started on a node with {torch.cuda.device_count()} GPUs; give torchrun "
                "--nproc-per-node=gpu"
            )
        return f"cuda:{self.local_rank}"

    def share_of(self, batch_size: int, network: str) -> int:
        """Number of tiles or events per step of one rank.

        Raises
        ------
        UserError
            If the batch cannot be divided.
        """
        if batch_size % self.n_ranks:
            raise UserError(
                f"networks.{network}.batch_size is {batch_size}, the tiles per step of all ranks together, and "
                f"{self.n_ranks} ranks cannot share them equally; use a multiple of {self.n_ranks}"
            )
        return batch_size // self.n_ranks

    @contextlib.contextmanager
    def joined(self, device: str) -> Iterator[None]:
        """Connect the ranks in the block: by NCCL on GPUs, by Gloo on processors."""
        if not self.together:
            yield
            return
        import torch
        from torch import distributed

        options: dict[str, Any] = {"backend": "gloo"}
        if device.startswith("cuda"):
            torch.cuda.set_device(device)
            options = {"backend": "nccl", "device_id": torch.device(device)}
        distributed.init_process_group(timeout=_TIMEOUT, **options)
        try:
            yield
        finally:
            _LEFT_GROUPS.append(distributed.group.WORLD)
            distributed.destroy_process_group()

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.together:
            from torch import distributed

            distributed.barrier()

    def largest(self, numbers: Sequence[int], device: Any) -> list[int]:
        """Of each number the largest of all ranks. Waits for the device."""
        if not self.together:
            return list(numbers)
        import torch
        from torch import distributed

        values = torch.tensor(numbers, device=device)
        distributed.all_reduce(values, distributed.ReduceOp.MAX)
        return values.tolist()

    def of_all(self, value: Any) -> list[Any]:
        """A small object of each rank, in their order."""
        if not self.together:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.n_ranks
        distributed.all_gather_object(values, value)
        return values

    def gather(self, metric: "Metric") -> "Metric":
        """Give a metric what all ranks have seen: sums are added, lists joined, in the order of the ranks.

        torchmetrics' own exchange fails for a list of which one rank has nothing, such as that of a head without a tile
        on this rank (torchmetrics 1.9).
        """
        if not self.together:
            return metric
        own = {
            name: [entry.cpu() for entry in state] if isinstance(state, list) else state.cpu()
            for name, state in metric.metric_state.items()
        }
        parts = self.of_all(own)
        for name, state in own.items():
            values = [part[name] for part in parts]
            setattr(metric, name, sum(values, start=[] if isinstance(state, list) else 0 * state))
        metric.distributed_available_fn = lambda: False
        return metric

    @contextlib.contextmanager
    def only_first_talks(self) -> Iterator[None]:
        """Let the other ranks log errors alone."""
        logger = logging.getLogger(logs.ROOT)
        level = logger.level
        if self.rank:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


ALONE = Ranks()
