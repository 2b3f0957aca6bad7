"""Turning and mirroring tiles."""

import numpy as np
import torch

from pipeline.tasks.training.augmentation import draw_symmetries, turn_and_mirror


def test_all_eight_symmetries_are_drawn_alike(rng):
    tile = torch.arange(9.0).reshape(1, 1, 3, 3).expand(4000, 1, 3, 3)
    turned = turn_and_mirror(tile, draw_symmetries(4000, rng)).reshape(4000, 9).numpy()
    variants, counts = np.unique(turned, axis=0, return_counts=True)
    assert len(variants) == 8
    assert np.abs(counts - 500).max() < 5 * np.sqrt(500)


def test_planes_of_a_tile_move_together(rng):
    planes = torch.from_numpy(rng.normal(size=(50, 2, 4, 4)))
    symmetries = draw_symmetries(50, rng)
    stacked = turn_and_mirror(planes, symmetries)
    single = turn_and_mirror(planes[:, 1], symmetries)
    assert torch.equal(stacked[:, 1], single)
    assert torch.allclose(stacked.sum((1, 2, 3)), planes.sum((1, 2, 3)))


def test_oblong_tiles_are_not_transposed(rng):
    planes = torch.zeros(20, 1, 4, 6)
    assert turn_and_mirror(planes, draw_symmetries(20, rng, transposable=False)).shape == planes.shape
