"""What the numpy part of a task provides: targets before training, decoded values after prediction."""

from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from pipeline.tiles.shards import TileBatch

#: How an array moves when its image is turned, mirrored or magnified: not at all; as two coordinates (x, y) in tile
#: axes, along its last axis; as an angle [rad] from x to y of a line without head, modulo pi; as (cos 2a, sin 2a) of
#: such an angle a, along its last axis; as the image's pixels.
Motion = Literal["scalar", "vector", "axis", "double_angle", "map"]


#: What is decoded of a pixel of a map may depend on outputs and pixels this far away, and no further: large maps are
#: decoded in parts.
REACH_PX = 20


class StoredTarget(NamedTuple):
    """A target that tiles hold: `n_values` float32 per tile, or per pixel."""

    name: str
    n_values: int = 1
    per_pixel: bool = False

    def shape(self, tile_shape: tuple[int, int]) -> tuple[int, ...]:
        """Of one tile."""
        return (self.n_values, *tile_shape) if self.per_pixel else (self.n_values,)


class PixelTraits(NamedTuple):
    """What tells the size of a pixel's error.

    Attributes
    ----------
    place : ndarray of int8, shape S
        Number of its stratum, -1 for none.
    values : tuple of ndarray of float32, shape S
        The most telling first: a stratum may use the first ones alone.
    """

    place: np.ndarray
    values: tuple[np.ndarray, ...]


class Targets:
    """From truth to what a loss compares with.

    Attributes
    ----------
    stored : tuple of StoredTarget
        What is written into the tiles, where these have a truth. What can be computed from the event columns, or from
        the sky's own target `clean`, need not be stored.
    motions : mapping
        Name of an array that `arrays` gives -> how it moves; those without a name here do not move.
    columns : tuple of str
        Event columns of images that `arrays` reads.
    """

    stored: ClassVar[tuple[StoredTarget, ...]] = ()
    motions: ClassVar[Mapping[str, Motion]] = {}
    columns: ClassVar[tuple[str, ...]] = ()

    def of_truth(self, batch: TileBatch) -> dict[str, np.ndarray]:
        """The stored targets of tiles whose truth is known, by name, shape (N, n_values) or (N, n_values, H, W).

        Parameters
        ----------
        batch : TileBatch
            Camera: event columns `true_*`. Sky: the target `clean`, and the truth's DQ bits as masks.
        """
        return {}

    def hide(self, batch: TileBatch, rng: np.random.Generator) -> TileBatch:
        """The tiles as the network is shown them in training, where it learns from what it is not shown.

        As they are by default. `arrays` is then given what this returns.
        """
        return batch

    def arrays(self, batch: TileBatch) -> dict[str, np.ndarray]:
        """What the loss compares with, by name; first axis N. Reads `batch.targets`, `batch.events` and masks."""
        raise NotImplementedError


class Decoder:
    """How the outputs of a task's head are read.

    Attributes
    ----------
    columns : tuple of str
        Event columns that it reads, whatever the outputs of the head.
    uncertainties : tuple of str
        Columns of the task with uncertainties, which a calibration multiplies.
    rates : mapping
        Of a task that flags pixels by a threshold: kind of place in a frame -> share of its good pixels that may be
        flagged, unless a user says otherwise. Empty for the others.
    lines : mapping
        Column of logits -> DQ bit: straight lines in it are flagged across the whole frame.
    decodes_by_rate : bool
        Of a task with `rates`: whether `decode` is given the thresholds, too. They then guard what it replaces, and
        no rate is promised to users.
    stand_ins : mapping
        Of such a task: kind of place that only a whole frame tells -> the one among `rates` whose thresholds it has,
        and the rate of it.
    strata : mapping
        Of a task that states uncertainties of pixels: kind of pixel -> how many of its traits tell the size of its
        error. Empty for the others.
    """

    columns: ClassVar[tuple[str, ...]] = ()
    uncertainties: ClassVar[tuple[str, ...]] = ()
    rates: ClassVar[Mapping[str, float]] = {}
    lines: ClassVar[Mapping[str, int]] = {}
    decodes_by_rate: ClassVar[bool] = False
    stand_ins: ClassVar[Mapping[str, tuple[str, float]]] = {}
    strata: ClassVar[Mapping[str, int]] = {}

    def columns_of(self, n_outputs: int) -> tuple[str, ...]:
        """Those that it reads for a head of so many outputs."""
        return self.columns

    def decode(self, outputs: np.ndarray, batch: TileBatch) -> dict[str, np.ndarray]:
        """Physical values, by the names of the task's columns.

        Parameters
        ----------
        outputs : ndarray of float32, shape (N, K) or (N, K, H, W)
            Of this head alone.
        batch : TileBatch
            The raw tiles that the outputs belong to.
        """
        raise NotImplementedError

    def pulls(self, values: Mapping[str, np.ndarray], events: Mapping[str, np.ndarray]) -> np.ndarray:
        """Error over stated uncertainty of what `decode` gave, shape (N, k), k being the number of axes.

        NaN where no uncertainty is stated. Only for tasks with `uncertainties`.

        Parameters
        ----------
        values : mapping
            Columns of the task, shape (N,).
        events : mapping
            Event columns, the truth among them.
        """
        raise NotImplementedError

    def traits(self, values: Mapping[str, np.ndarray], batch: TileBatch) -> PixelTraits:
        """Strata and traits of the pixels, shape (N, H, W). Only for tasks with `strata`.

        Parameters
        ----------
        values : mapping
            What `decode` gave.
        batch : TileBatch
            The raw tiles that they belong to.
        """
        raise NotImplementedError

    def errors(self, values: Mapping[str, np.ndarray], batch: TileBatch) -> tuple[np.ndarray, np.ndarray]:
        """Error of each pixel, and the number of its stratum by the truth, -1 where it is not judged; (N, H, W).

        Only for tasks with `strata`, and tiles with a truth.

        Parameters
        ----------
        values : mapping
            What `decode` gave.
        batch : TileBatch
            With the target `clean`, and the truth's bits as masks.
        """
        raise NotImplementedError

    def alarms(self, values: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """The score that a threshold is for, and the number of each pixel's kind of place among `rates`.

        Only for tasks with `rates`.

        Parameters
        ----------
        values : mapping
            What `decode` gave, or whole planes of it.
        """
        raise NotImplementedError

    def flags(
        self,
        planes: Mapping[str, np.ndarray],
        dq: np.ndarray,
        noise: float,
        kept: np.ndarray | None = None,
        thresholds: Mapping[str, float] | None = None,
        *,
        unless_sure: bool = False,
    ) -> np.ndarray:
        """DQ bits that a result adds to a frame, shape (H, W), uint16; none by default.

        Parameters
        ----------
        planes : mapping of ndarray, shape (H, W)
            Decoded columns of a whole frame, or of some of its rows.
        dq : ndarray of uint16, shape (H, W)
            What was known before.
        noise : float
            Rms of the frame's background.
        kept : ndarray of bool, shape (H, W), optional
            Pixels that keep their measured value, whatever was predicted for them.
        thresholds : mapping, optional
            Kind of place -> score from which a pixel is flagged; only tasks with `rates` are given any.
        unless_sure : bool
            Of `kept`, pixels that are defects beyond doubt may be flagged, if that changes no value.
        """
        return np.zeros(dq.shape, np.uint16)
