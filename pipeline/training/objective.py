"""Targets, losses and validation metrics of the tasks (torch)."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from pipeline.config import TaskConfig
from pipeline.errors import TooFewEventsError, UserError
from pipeline.preparation import Preparation
from pipeline.tasks.training.augmentation import (
    changed_by_scale,
    changed_by_shift,
    changed_by_turn,
    draw_motion,
    resample_camera_images,
    shift,
    turn_and_mirror,
)
from pipeline.tiles.reader import TileReader
from pipeline.tiles.shards import TileBatch


class Monitor(NamedTuple):
    """The validation metric that chooses the best epoch, and which way is better."""

    metric: str
    better: Literal["higher", "lower"]

    def improves(self, value: float, best: float | None) -> bool:
        """Whether `value` is better than `best` (anything is better than None)."""
        if best is None:
            return True
        return value > best if self.better == "higher" else value < best


class Metrics(Protocol):
    """Collects what a validation metric needs, batch by batch."""

    def add(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Take in one batch: outputs in float32, and the batch that they belong to."""
        ...

    def compute(self) -> dict[str, float]:
        """The metrics of everything added."""
        ...


class Objective(ABC):
    """What one task trains for.

    Attributes
    ----------
    task, kind : str
        Name of the task, and the wing whose tiles it takes.
    monitor : Monitor
    where : mapping or None
        Event column -> value of the tiles that are used; all of them by default.
    equalise : bool
        Whether tiles are weighted so that the classes look alike.
    spatial : tuple of str
        Arrays of a batch that are turned and mirrored together with the image.
    has_labels : bool
        Whether the target is a class.
    """

    task: ClassVar[str]
    kind: ClassVar[Literal["camera", "sky"]]
    monitor: ClassVar[Monitor]
    where: ClassVar[Mapping[str, int] | None] = None
    equalise: ClassVar[bool] = True
    spatial: ClassVar[tuple[str, ...]] = ("images",)
    has_labels: ClassVar[bool] = False

    def __init__(self, config: TaskConfig) -> None:
        self.config = config

    @property
    @abstractmethod
    def num_outputs(self) -> int:
        """Outputs that the network needs."""

    @abstractmethod
    def target_arrays(self, batch: TileBatch) -> dict[str, np.ndarray]:
        """What the loss compares with, and the loss alone."""

    @abstractmethod
    def loss(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Scalar loss of float32 outputs; tiles count by `batch["weights"]`."""

    @abstractmethod
    def metrics(self) -> Metrics:
        """A fresh collector of the validation metrics."""

    def check(self, train: TileReader, validation: TileReader) -> None:
        """Fail before the long work: the right wing, enough tiles, scalars that make sense.

        Raises
        ------
        UserError
            Or `TooFewEventsError`, if these tiles cannot train this task.
        """
        for reader in (train, validation):
            if reader.wing != self.kind:
                raise UserError(
                    f"{', '.join(str(m.path) for m in reader.manifests)} holds {reader.wing} tiles, but the task "
                    f"{self.task} takes {self.kind} tiles"
                )
            if reader.n_tiles == 0:
                selection = "".join(f" with {name} = {value}" for name, value in (self.where or {}).items())
                raise TooFewEventsError(
                    f"the {reader.split_name} split has no tile{selection} to train {self.task} on; "
                    "add runs, loosen the cuts (tiles.*.cuts) or change the shares (tiles.splits)"
                )
        self._check_settings(train)

    def _check_settings(self, train: TileReader) -> None:
        """Settings that are accepted in general, but make no sense for this task, its scalars or these tiles."""
        config, section = self.config.augmentation, f"train.{self.task}"
        if self.kind == "sky" and (config.interpolates or config.shift_px):
            raise UserError(
                f"{section}.augmentation: frames are turned by quarters and mirrored only: interpolation would spoil "
                "their noise; set rotation to quarters or none, shift_px and scale to 0"
            )
        camera = str(train.attributes.get("camera_identity", ""))
        if config.rotation == "sixths" and not camera.startswith("hexagon"):
            raise UserError(
                f"{section}.augmentation.rotation: sixths are for cameras with hexagonal pixels, and the tiles are of "
                f"{camera or 'none that is known'}; take quarters"
            )
        if self.config.label_smoothing and not self.has_labels:
            raise UserError(
                f"{section}.label_smoothing must be 0, got {self.config.label_smoothing:g}: it is for labels, and "
                f"{self.task} has none"
            )
        for name in self.config.scalars:
            if config.turns and changed_by_turn(name):
                raise UserError(
                    f"the scalar {name!r} changes when an image is turned or mirrored; take {name}_outward or "
                    f"{name}_abs where that has a meaning, leave it out, or set {section}.augmentation: false"
                )
            for option, changed_by in (("shift_px", changed_by_shift), ("scale", changed_by_scale)):
                if getattr(config, option) and changed_by(name):
                    raise UserError(
                        f"{section}.augmentation.{option} changes images and not their scalars, and {name!r} would no "
                        f"longer belong to its image; leave that scalar out, or set {option} to 0"
                    )

    def arrays(self, batch: TileBatch, preparation: Preparation) -> dict[str, np.ndarray]:
        """Everything that one step needs, as arrays: network inputs, weights and targets."""
        found = {
            "images": preparation.images(batch.images, batch.events, batch.masks),
            "weights": batch.weights.astype(np.float32),
        }
        scalars = preparation.scalars(batch.events)
        if scalars is not None:
            found["scalars"] = scalars
        return found | self.target_arrays(batch)

    def augment(self, batch: dict[str, Tensor], rng: np.random.Generator) -> dict[str, Tensor]:
        """Move each tile as the configuration says, drawn from `rng`."""
        config, first = self.config.augmentation, batch["images"]
        motion = draw_motion(len(first), rng, config, transposable=first.shape[-1] == first.shape[-2])
        moved = {name: turn_and_mirror(batch[name], motion.symmetries) for name in self.spatial if name in batch}
        if config.interpolates:
            moved["images"] = resample_camera_images(moved["images"], motion.angles_rad, motion.scales)
        if config.shift_px:
            moved["images"] = shift(moved["images"], motion.shifts_px)
        return batch | moved


def check_target(reader: TileReader, name: str, task: str) -> None:
    """Refuse tiles without truth.

    Raises
    ------
    UserError
        If the target is not among the tiles' targets.
    """
    if name not in reader.targets:
        raise UserError(
            f"the tiles have no truth to train {task} on: no target {name!r} (they have "
            f"{', '.join(reader.targets) or 'none'}); use simulated files, or tiles made with a target"
        )


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Mean over a batch. Divided by the number of tiles, not by the sum of weights: the weights' mean is 1 over the
    whole split, and a batch that happens to hold little weight shall count little.
    """
    return (values * weights).mean()
