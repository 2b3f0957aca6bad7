"""Random changes of training images that leave their truth unchanged.

The atmosphere and a telescope's optics know no preferred direction in the image to first order (the geomagnetic
field and the zenith angle are small effects), and neither does the sky. Quarter turns, mirrors and shifts by whole
tile pixels move pixels as they are.

Sixth turns are the symmetry of a hexagonal camera, but not of the square tile: of six turns, four have to be
interpolated, and so has every change of scale. The interpolation is bilinear, once for turn and scale together. On
simulated LST images of 56 x 56 px (1,500 gammas) it keeps the total charge to 0.1 %, lowers the brightest pixel by 12
to 16 % and the night-sky noise by 14 % (median), and takes 0.11 ms of CPU per image, where quarter turns take 0.03 ms
and a training step of a small ResNet-18 2 ms. Only training images are blurred in this way: the network is
tested, and used, on sharper ones. Hence these two are off by default.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.config import AugmentationConfig
from pipeline.errors import UserError
from pipeline.inputs.base import Columns
from pipeline.inputs.image import ORIENTED_COLUMNS, scalar_columns
from pipeline.tiles.events import starts_of
from pipeline.tiles.shards import TileBatch

# Event columns (or how they begin) that belong to a place in the camera, and that are lengths, or counts and shares of
# areas. Like those that belong to a direction, they no longer fit an image that is moved, for they are not.
_PLACED_COLUMNS = ("hillas_r", "hillas_phi", "hillas_fov_lon", "hillas_fov_lat", "leakage_")
_SIZED_COLUMNS = (
    "hillas_length", "hillas_width", "hillas_r", "hillas_fov_lon", "hillas_fov_lat", "timing_slope", "n_pixels",
    "concentration_", "leakage_",
)  # fmt: skip


class Motion(NamedTuple):
    """How each tile of a batch is moved; parts are applied in this order.

    Attributes
    ----------
    symmetries : Tensor of bool, shape (n, 3)
        Mirror in x, mirror in y, swap x with y.
    angles_rad, scales : Tensor, shape (n,)
        Turn about the tile's centre and magnification.
    shifts_px : Tensor of int, shape (n, 2)
        To higher rows, to higher columns.
    """

    symmetries: Tensor
    angles_rad: Tensor
    scales: Tensor
    shifts_px: Tensor

    def of(self, rows: Tensor) -> "Motion":
        """Motions of some of the tiles."""
        return Motion(*(part.index_select(0, rows) for part in self))


class BatchMotion(NamedTuple):
    """Motions of a batch: of its items, and of its images, of which an event has several."""

    of_item: Motion
    of_image: Motion

    def to_tensors(self) -> dict[str, dict[str, Tensor]]:
        """As part of a batch, which then moves to the device as a whole."""
        return {"of_item": self.of_item._asdict(), "of_image": self.of_image._asdict()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Mapping[str, Tensor]]) -> "BatchMotion":
        """Inverse of `to_tensors`."""
        return cls(Motion(**tensors["of_item"]), Motion(**tensors["of_image"]))


def augment(
    batch: dict[str, dict[str, Any]],
    rng: np.random.Generator,
    config: AugmentationConfig,
    motions: Mapping[str, Mapping[str, str]],
    moving: Mapping[str, Sequence[Columns]] | None = None,
) -> dict[str, dict[str, Any]]:
    """Move each item of a batch as the configuration says: its images, and its targets with it.

    Parameters
    ----------
    batch : dict
        `inputs` with `images` (N, C, H, W), and the arrays of each head. With `members` (N, T), an item is an event,
        and all of its images make the same motion.
    rng : numpy.random.Generator
    config : AugmentationConfig
    motions : mapping
        Task -> array -> how it moves (`pipeline.tasks.interfaces.Motion`).
    moving : mapping, optional
        Array of the inputs -> which of its columns move with the images.
    """
    return move_batch(batch, draw_batch_motion(batch, rng, config), config, motions, moving)


def draw_batch_motion(
    batch: Mapping[str, Mapping[str, Any]], rng: np.random.Generator, config: AugmentationConfig
) -> BatchMotion:
    """Motions of a batch in memory: numbers are drawn there, so that they do not depend on the device."""
    images, members = batch["inputs"]["images"], batch["inputs"].get("members")
    n = len(images) if members is None else len(members)
    motion = draw_motion(n, rng, config, transposable=images.shape[-1] == images.shape[-2])
    return BatchMotion(motion, motion if members is None else motion.of(_item_of_image(members, len(images))))


def move_batch(
    batch: dict[str, dict[str, Any]],
    motion: BatchMotion,
    config: AugmentationConfig,
    motions: Mapping[str, Mapping[str, str]],
    moving: Mapping[str, Sequence[Columns]] | None = None,
) -> dict[str, dict[str, Any]]:
    """Move a batch on the device where it and its motion are, without waiting for the device; see `augment`."""
    inputs = batch["inputs"]
    of_item, of_image = motion
    heads = {task: _moved(arrays, of_item, motions[task]) for task, arrays in batch["heads"].items()}
    images = turn_and_mirror(inputs["images"], of_image.symmetries)
    if config.interpolates:
        images = resample_camera_images(images, of_image.angles_rad, of_image.scales)
    if config.shift_px:
        images = shift(images, of_image.shifts_px, config.shift_px)
    moved = {name: _move_columns(inputs[name], of_image, parts) for name, parts in (moving or {}).items()}
    return {"inputs": inputs | moved | {"images": images}, "heads": heads}


def _item_of_image(members: Tensor, n_images: int) -> Tensor:
    """From the table of images by event to the event of each image, shape (M,)."""
    rows, columns = torch.nonzero(members >= 0, as_tuple=True)
    return torch.empty(n_images, dtype=torch.int64).scatter_(0, members[rows, columns], rows)


def _move_columns(values: Tensor, motion: Motion, parts: Sequence[Columns]) -> Tensor:
    """Some columns of (M, K) moved, two by two."""
    values = values.clone()
    for first, last, kind in parts:
        pairs = values[:, first:last].unflatten(1, (-1, 2))
        values[:, first:last] = move_target(pairs, motion, kind).flatten(1)
    return values


def _moved(arrays: dict[str, Tensor], motion: Motion, kinds: Mapping[str, str]) -> dict[str, Tensor]:
    """Targets of one head, moved as `motions` says; those without an entry stay unchanged."""
    own = motion.of(arrays["rows"]) if "rows" in arrays else motion
    moved = {name: move_target(arrays[name], own, kind) for name, kind in kinds.items() if name in arrays}
    return arrays | moved


def move_target(values: Tensor, motion: Motion, kind: str) -> Tensor:
    """Targets of moved images.

    Parameters
    ----------
    values : Tensor
        ``map``: (N, ..., H, W). ``vector``: (N, ..., 2), x and y in tile axes (columns and rows), from any point to any
        other, so that a shift does not change it. ``axis``: (N, ...), angle [rad] of a line from x to y.
        ``double_angle``: (N, ..., 2), cosine and sine of twice such an angle. ``scalar``: any.
    motion : Motion
    kind : {"scalar", "vector", "axis", "double_angle", "map"}

    Raises
    ------
    ValueError
        For an unknown kind.
    """
    if kind == "scalar":
        return values
    if kind == "map":
        return turn_and_mirror(values, motion.symmetries)
    if kind == "vector":
        return _move_vector(values, motion, with_scale=True)
    if kind == "axis":
        line = _move_vector(torch.stack([torch.cos(values), torch.sin(values)], dim=-1), motion, with_scale=False)
        return torch.remainder(torch.atan2(line[..., 1], line[..., 0]), torch.pi)
    if kind == "double_angle":
        return _move_double_angle(values, motion)
    raise ValueError(f"unknown motion {kind!r}; accepted: scalar, vector, axis, double_angle, map")


def _move_vector(vectors: Tensor, motion: Motion, *, with_scale: bool) -> Tensor:
    """Mirror, swap, turn and magnify (N, ..., 2), in the order in which images are."""
    flat = vectors.reshape(len(vectors), math.prod(vectors.shape[1:-1]), 2)  # also of no vectors
    flip_x, flip_y, swap = (choice[:, None] for choice in motion.symmetries.T)
    x, y = torch.where(flip_x, -flat[..., 0], flat[..., 0]), torch.where(flip_y, -flat[..., 1], flat[..., 1])
    x, y = torch.where(swap, y, x), torch.where(swap, x, y)
    cosine, sine = (f(motion.angles_rad).to(flat)[:, None] for f in (torch.cos, torch.sin))
    turned = torch.stack([cosine * x - sine * y, sine * x + cosine * y], dim=-1)
    if with_scale:
        turned = turned * motion.scales.to(flat)[:, None, None]
    return turned.reshape(vectors.shape)


def _move_double_angle(values: Tensor, motion: Motion) -> Tensor:
    """(N, ..., 2): mirrors turn the angle a into -a or pi - a, the swap into pi/2 - a, a turn adds to it."""
    flat = values.reshape(len(values), math.prod(values.shape[1:-1]), 2)
    flip_x, flip_y, swap = (choice[:, None] for choice in motion.symmetries.T)
    cosine, sine = flat[..., 0], flat[..., 1]
    sine = torch.where(flip_x ^ flip_y, -sine, sine)
    cosine = torch.where(swap, -cosine, cosine)
    turn_cos, turn_sin = (f(2 * motion.angles_rad).to(flat)[:, None] for f in (torch.cos, torch.sin))
    turned = torch.stack([turn_cos * cosine - turn_sin * sine, turn_sin * cosine + turn_cos * sine], dim=-1)
    return turned.reshape(values.shape)


def drop_telescopes(tiles: TileBatch, rng: np.random.Generator, probability: float, at_least: int = 2) -> TileBatch:
    """Whole events of which each telescope is left out with a probability; `at_least` of each event remain.

    A network that has seen events of few telescopes of an array is not lost when some of them do not observe.
    """
    starts = starts_of(tiles)
    event = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(tiles)))
    luck = rng.random(len(tiles))
    order = np.lexsort((-luck, event))
    rank = np.empty(len(tiles), np.int64)
    rank[order] = np.arange(len(tiles)) - starts[event[order]]
    return tiles.select((luck >= probability) | (rank < at_least))


def check_augmentation(
    config: AugmentationConfig,
    section: str,
    *,
    wing: str,
    cameras: Sequence[str],
    scalars: Sequence[str],
    motions: Mapping[str, Mapping[str, str]],
    of_events: bool = False,
    may_move: bool = True,
) -> None:
    """Refuse settings that are valid in general, but not for these tiles, scalars or targets.

    Raises
    ------
    UserError
        Naming the key in `section` that has to change.
    """
    if not may_move and config.active:
        raise UserError(
            f"{section}.augmentation: images in the frame of their shower lie as they do, and all alike; set "
            f"{section}.augmentation: false"
        )
    if wing == "sky" and (config.interpolates or config.shift_px):
        raise UserError(
            f"{section}.augmentation: frames are turned by quarters and mirrored only: interpolation would spoil "
            "their noise; set rotation to quarters or none, shift_px and scale to 0"
        )
    if of_events and (config.interpolates or config.shift_px):
        raise UserError(
            f"{section}.augmentation: events of several telescopes are turned by quarters and mirrored only; set "
            "rotation to quarters or none, shift_px and scale to 0"
        )
    others = [identity for identity in cameras if not identity.startswith("hexagon")]
    if config.rotation == "sixths" and others:
        raise UserError(
            f"{section}.augmentation.rotation: sixths are for cameras with hexagonal pixels, and the tiles are of "
            f"{', '.join(others)}; use quarters"
        )
    for task, kinds in motions.items():
        if "map" in kinds.values() and (config.interpolates or config.shift_px):
            raise UserError(
                f"{section}.augmentation: the targets of {task} are maps, which are turned by quarters and mirrored "
                "only; set rotation to quarters or none, shift_px and scale to 0"
            )
    for name in scalars:
        if config.turns and changed_by_turn(name):
            raise UserError(
                f"the scalar {name!r} changes when an image is turned or mirrored; use {name}_outward or {name}_abs "
                f"if that is defined, remove it, or set {section}.augmentation: false"
            )
        for option, changed_by in (("shift_px", changed_by_shift), ("scale", changed_by_scale)):
            if getattr(config, option) and changed_by(name):
                raise UserError(
                    f"{section}.augmentation.{option} changes images but not their scalars, and {name!r} would no "
                    f"longer belong to its image; remove that scalar, or set {option} to 0"
                )


def draw_motion(n: int, rng: np.random.Generator, config: AugmentationConfig, *, transposable: bool = True) -> Motion:
    """Motions of `n` tiles. Disabled changes draw nothing from `rng`."""
    symmetries = draw_symmetries(n, rng, mirror=config.mirror, rotation=config.rotation, transposable=transposable)
    # With the half turn, which is among the symmetries, these three make all six turns.
    thirds = rng.integers(-1, 2, n) if config.rotation == "sixths" else np.zeros(n)
    scales = rng.uniform(1 - config.scale, 1 + config.scale, n) if config.scale else np.ones(n)
    reach = config.shift_px
    shifts_px = rng.integers(-reach, reach + 1, (n, 2)) if reach else np.zeros((n, 2), np.int64)
    return Motion(
        symmetries,
        torch.from_numpy(thirds * (np.pi / 3)),
        torch.from_numpy(scales),
        torch.from_numpy(shifts_px),
    )


def draw_symmetries(
    n: int, rng: np.random.Generator, *, mirror: bool = True, rotation: str = "quarters", transposable: bool = True
) -> Tensor:
    """For each of `n` tiles: mirror in x, mirror in y, swap x with y; shape (n, 3), bool.

    With mirror and quarter turns the three choices together reach each of the eight symmetries of a square with equal
    probability; with one of the two, those that it can reach. Sixth turns have only their half turns here.
    """
    if not mirror and rotation == "none":
        return torch.zeros(n, 3, dtype=torch.bool)
    choices = rng.random((n, 3)) < 0.5
    choices[:, 2] &= transposable and rotation == "quarters"
    if rotation == "none":
        choices[:, 1] = False
    elif not mirror:
        choices[:, 0] = choices[:, 1] ^ choices[:, 2]  # a turn is made of two mirrors
    return torch.from_numpy(choices)


def turn_and_mirror(planes: Tensor, symmetries: Tensor) -> Tensor:
    """Apply `symmetries` (N, 3) to planes of shape (N, ..., H, W), tile by tile."""
    flip_x, flip_y, swap = (choice.view(-1, *[1] * (planes.ndim - 1)) for choice in symmetries.to(planes.device).T)
    planes = torch.where(flip_x, planes.flip(-1), planes)
    planes = torch.where(flip_y, planes.flip(-2), planes)
    # On an accelerator, a look at the choices would wait for it.
    if planes.shape[-1] == planes.shape[-2] and (planes.device.type != "cpu" or bool(swap.any())):
        planes = torch.where(swap, planes.transpose(-1, -2), planes)
    return planes


def resample_camera_images(images: Tensor, angles_rad: Tensor, scales: Tensor) -> Tensor:
    """Turn and magnify prepared camera images by bilinear interpolation; tiles that need none stay as they are.

    Parameters
    ----------
    images : Tensor, shape (N, C, H, H)
        As `ImageInput` makes them: asinh of the charge, time, share of the pixel that the cleaning kept, and maps of
        lengths, which grow with the image. Charges are interpolated as charges, and keep their sum except for what
        leaves the tile. Times are averaged over the pixels that have one.
    angles_rad, scales : Tensor, shape (N,)
        From the x axis to the y axis (columns to rows); above 1 the image gets larger.
    """
    moved = (angles_rad != 0) | (scales != 1)
    cosine, sine = (f(angles_rad) / scales for f in (torch.cos, torch.sin))
    # Where each pixel of the new image comes from: the inverse turn and magnification.
    matrix = torch.stack([cosine, sine, torch.zeros_like(sine), -sine, cosine, torch.zeros_like(sine)], dim=-1)
    grid = F.affine_grid(matrix.view(-1, 2, 3).to(images), list(images.shape), align_corners=False)
    charge, time, mask, *lengths = images.unbind(1)
    timed = (time != 0).to(images.dtype)
    planes = torch.stack([torch.sinh(charge), time, timed, mask, *lengths], dim=1)
    charge, time, timed, mask, *lengths = F.grid_sample(planes, grid, align_corners=False).unbind(1)
    scales = scales.to(images)[:, None, None]
    charge = torch.asinh(charge / scales.square())
    lengths = [length * scales for length in lengths]
    # A pixel has a time where more than half of it comes from pixels that have one: the area with times stays as large.
    time = torch.where(timed > 0.5, time / timed.clamp(min=0.5), 0)
    new = torch.stack([charge, time, mask, *lengths], dim=1)
    return torch.where(moved.to(images.device)[:, None, None, None], new, images)


def shift(planes: Tensor, shifts_px: Tensor, reach: int) -> Tensor:
    """Move planes of shape (N, C, H, W) by up to `reach` whole pixels (N, 2: rows, columns); what comes in is empty."""
    n, _, height, width = planes.shape
    padded = F.pad(planes, [reach] * 4)
    rows, columns = (
        torch.arange(side, device=planes.device)[None] + reach - shifts_px[:, [axis]]
        for axis, side in enumerate((height, width))
    )
    tiles = torch.arange(n, device=planes.device)[:, None, None]
    picked = padded.permute(0, 2, 3, 1)[tiles, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2).contiguous()


def changed_by_turn(scalar: str) -> bool:
    """Whether a scalar changes when its image is turned or mirrored."""
    return scalar in ORIENTED_COLUMNS


def changed_by_shift(scalar: str) -> bool:
    """Whether a scalar changes when its image is moved in the camera."""
    return any(column.startswith(_PLACED_COLUMNS) for column in scalar_columns(scalar))


def changed_by_scale(scalar: str) -> bool:
    """Whether a scalar changes when its image is magnified at constant charge."""
    if scalar.removeprefix("log10_") == "hillas_width_over_length":
        return False
    return any(column.startswith(_SIZED_COLUMNS) for column in scalar_columns(scalar))
