"""Turning, mirroring, shifting and magnifying tiles."""

import math

import numpy as np
import pytest
import torch

from pipeline.config import HILLAS_SCALARS, AugmentationConfig
from pipeline.training.augmentation import (
    changed_by_scale,
    changed_by_shift,
    draw_motion,
    draw_symmetries,
    resample_camera_images,
    shift,
    turn_and_mirror,
)

SIDE = 57  # odd: the centre of the tile is the centre of a pixel


def test_all_eight_symmetries_are_drawn_alike(rng):
    tile = torch.arange(9.0).reshape(1, 1, 3, 3).expand(4000, 1, 3, 3)
    turned = turn_and_mirror(tile, draw_symmetries(4000, rng)).reshape(4000, 9).numpy()
    variants, counts = np.unique(turned, axis=0, return_counts=True)
    assert len(variants) == 8
    assert np.abs(counts - 500).max() < 5 * np.sqrt(500)


@pytest.mark.parametrize(
    ("mirror", "rotation", "transposable", "n_variants"),
    [
        (True, "none", True, 2),
        (False, "quarters", True, 4),
        (False, "quarters", False, 2),
        (True, "sixths", True, 4),
        (False, "sixths", True, 2),
        (False, "none", True, 1),
    ],
)
def test_symmetries_that_are_switched_off_are_not_drawn(mirror, rotation, transposable, n_variants, rng):
    tile = torch.arange(9.0).reshape(1, 1, 3, 3).expand(400, 1, 3, 3)
    drawn = draw_symmetries(400, rng, mirror=mirror, rotation=rotation, transposable=transposable)
    turned = turn_and_mirror(tile, drawn).reshape(400, 9).numpy()
    assert len(np.unique(turned, axis=0)) == n_variants
    if not mirror:  # turns keep the sense of rotation: clockwise around the centre, the corners are 0, 2, 8, 6
        around = turned[:, [0, 2, 8, 6]]
        first = around.argmin(axis=1)
        assert all(np.array_equal(np.roll(row, -k), [0, 2, 8, 6]) for row, k in zip(around, first, strict=True))


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


def test_the_default_draws_nothing_but_symmetries():
    """What is off must not change what is drawn after it: trainings of older configurations stay as they were."""
    ours, plain = np.random.default_rng(5), np.random.default_rng(5)
    motion = draw_motion(30, ours, AugmentationConfig())
    assert torch.equal(motion.symmetries, draw_symmetries(30, plain))
    assert ours.random() == plain.random()
    assert (motion.angles_rad == 0).all()
    assert (motion.scales == 1).all()
    assert (motion.shifts_px == 0).all()


def test_sixth_turns_shifts_and_scales_are_drawn_evenly(rng):
    config = AugmentationConfig(mirror=False, rotation="sixths", shift_px=2, scale=0.2)
    motion = draw_motion(6000, rng, config)
    turn = np.round(np.degrees(motion.angles_rad.numpy()) + 180 * motion.symmetries[:, 0].numpy()) % 360
    angles, counts = np.unique(turn, return_counts=True)
    assert angles.tolist() == [0, 60, 120, 180, 240, 300]
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000)
    assert np.unique(motion.shifts_px.numpy()).tolist() == [-2, -1, 0, 1, 2]
    assert motion.scales.min() < 0.81 < 1.19 < motion.scales.max()


# ---- interpolation ---------------------------------------------------------------------------------------------------
def shower(angle_rad: float, length: float = 6.0, distance: float = 8.0) -> torch.Tensor:
    """A prepared image: an ellipse of 3000 units of charge whose centre lies `distance` px out at `angle_rad`."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    u = x * np.cos(angle_rad) + y * np.sin(angle_rad) - distance
    v = -x * np.sin(angle_rad) + y * np.cos(angle_rad)
    charge = np.exp(-0.5 * ((u / length) ** 2 + (v / 2.5) ** 2))
    charge *= 3000 / charge.sum()
    mask = charge > 1
    time = np.where(mask, 1.0 + 0.1 * u, 0)
    return torch.from_numpy(np.stack([np.arcsinh(charge), time, mask])[None]).float()


def resampled(image: torch.Tensor, angle_rad: float = 0.0, scale: float = 1.0) -> torch.Tensor:
    return resample_camera_images(image, torch.tensor([angle_rad]).double(), torch.tensor([scale]).double())


def moments(image: torch.Tensor) -> tuple[float, float, float, float]:
    """Total charge, centre of gravity (x, y) and length of the charge."""
    charge = torch.sinh(image[0, 0]).double().numpy()
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    total = charge.sum()
    cx, cy = (charge * x).sum() / total, (charge * y).sum() / total
    covariance = np.cov(np.stack([x.ravel(), y.ravel()]), aweights=charge.ravel())
    return total, cx, cy, np.sqrt(np.linalg.eigvalsh(covariance)[1])


@pytest.mark.parametrize("turn_deg", [60, -60, 120])
def test_a_turned_image_is_that_of_the_turned_shower(turn_deg):
    turned = resampled(shower(0.3), math.radians(turn_deg))
    expected = shower(0.3 + math.radians(turn_deg))
    np.testing.assert_allclose(moments(turned), moments(expected), rtol=0.02)
    # Times are not diluted at the edge of the image, nor does the area that has them grow.
    timed, expected_timed = turned[0, 1] != 0, expected[0, 1] != 0
    assert abs(int(timed.sum()) / int(expected_timed.sum()) - 1) < 0.03
    both = timed & expected_timed
    assert (turned[0, 1] - expected[0, 1])[both].abs().max() < 0.06
    assert (turned[0, 2] - expected[0, 2]).abs().mean() < 0.01


def test_six_sixth_turns_bring_a_bright_spot_back():
    image = torch.zeros(1, 3, SIDE, SIDE)
    image[0, 0, 28, 40] = 5.0
    for _ in range(6):
        image = resampled(image, math.pi / 3)
    _, cx, cy, _ = moments(image)
    assert (cx, cy) == (pytest.approx(12, abs=0.15), pytest.approx(0, abs=0.15))


@pytest.mark.parametrize("scale", [0.8, 1.25])
def test_a_magnified_image_keeps_its_charge(scale):
    before, after = moments(shower(0.3)), moments(resampled(shower(0.3), scale=scale))
    assert after[0] == pytest.approx(before[0], rel=0.01)
    np.testing.assert_allclose(after[1:], scale * np.array(before[1:]), rtol=0.02)


def test_lengths_grow_with_the_image():
    image = torch.cat([shower(0.3), torch.full((1, 1, SIDE, SIDE), 0.8)], dim=1)
    magnified = resampled(image, scale=1.25)
    assert magnified.shape == image.shape
    assert torch.equal(magnified[:, :3], resampled(image[:, :3], scale=1.25))
    assert magnified[0, 3, SIDE // 2, SIDE // 2] == pytest.approx(1.0)


def test_tiles_that_are_not_turned_stay_bit_for_bit():
    images = torch.cat([shower(0.1), shower(0.9)])
    angles, scales = torch.tensor([0.0, math.pi / 3]), torch.ones(2)
    moved = resample_camera_images(images, angles, scales)
    assert torch.equal(moved[0], images[0])
    assert not torch.equal(moved[1], images[1])


def test_shift_moves_whole_pixels_and_fills_with_nothing(rng):
    planes = torch.from_numpy(rng.normal(size=(3, 2, 5, 6)))
    shifts_px = torch.tensor([[0, 0], [2, -1], [-1, 0]])
    moved = shift(planes, shifts_px, 2)
    assert torch.equal(moved, shift(planes, shifts_px, 4))
    assert torch.equal(moved[0], planes[0])
    assert torch.equal(moved[1, :, 2:, :-1], planes[1, :, :-2, 1:])
    assert (moved[1, :, :2] == 0).all()
    assert (moved[1, :, :, -1] == 0).all()
    assert torch.equal(moved[2, :, :-1], planes[2, :, 1:])


def test_scalars_that_no_longer_fit_a_moved_image():
    kept_by_shift = {name for name in HILLAS_SCALARS if not changed_by_shift(name)}
    assert {"hillas_length", "log10_hillas_intensity", "n_islands"} <= kept_by_shift
    assert not kept_by_shift & {"hillas_r", "hillas_miss", "timing_slope_outward", "leakage_intensity_width_2"}
    kept_by_scale = {name for name in HILLAS_SCALARS if not changed_by_scale(name)}
    assert {"hillas_width_over_length", "log10_hillas_intensity", "hillas_kurtosis"} <= kept_by_scale
    assert not kept_by_scale & {"hillas_length", "log10_hillas_density", "log10_n_pixels", "hillas_miss"}
