"""Symmetries of a square tile.

The atmosphere and a telescope's optics know no preferred direction in the image to first order (the geomagnetic
field and the zenith angle are small effects), and neither does the sky. Quarter turns and mirrors move whole tile
pixels, so that nothing is interpolated: the sixth turns of a hexagonal camera would blur every image they turn, and a
blurred shower is a wider shower.
"""

import numpy as np
import torch
from torch import Tensor


def draw_symmetries(n: int, rng: np.random.Generator, *, transposable: bool = True) -> Tensor:
    """For each of `n` tiles: mirror in x, mirror in y, swap x with y; shape (n, 3), bool.

    The three choices together reach each of the eight symmetries of a square with equal probability.
    """
    choices = rng.random((n, 3)) < 0.5
    choices[:, 2] &= transposable
    return torch.from_numpy(choices)


def turn_and_mirror(planes: Tensor, symmetries: Tensor) -> Tensor:
    """Apply `symmetries` (N, 3) to planes of shape (N, ..., H, W), tile by tile."""
    flip_x, flip_y, swap = (choice.view(-1, *[1] * (planes.ndim - 1)) for choice in symmetries.to(planes.device).T)
    planes = torch.where(flip_x, planes.flip(-1), planes)
    planes = torch.where(flip_y, planes.flip(-2), planes)
    if bool(swap.any()):
        planes = torch.where(swap, planes.transpose(-1, -2), planes)
    return planes
