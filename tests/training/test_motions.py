"""Targets that move with their image: a vector, an axis, a map."""

import math

import numpy as np
import pytest
import torch

from pipeline.config import AugmentationConfig
from pipeline.errors import UserError
from pipeline.training.augmentation import (
    Motion,
    augment,
    check_augmentation,
    draw_motion,
    move_target,
    resample_camera_images,
    shift,
    turn_and_mirror,
)

SIDE = 57  # odd: the centre of the tile is the centre of a pixel
SYMMETRIES = [[bool(n & 1), bool(n & 2), bool(n & 4)] for n in range(8)]
SIXTHS = [-1, 0, 1]
SEEDS = range(4)


def motion_of(symmetry, angle_rad=0.0, scale=1.0, shift_px=(0, 0)) -> Motion:
    """Of one tile."""
    return Motion(
        torch.tensor([symmetry]), torch.tensor([angle_rad]).double(), torch.tensor([scale]).double(),
        torch.tensor([shift_px]),
    )  # fmt: skip


def moved_image(image: torch.Tensor, motion: Motion) -> torch.Tensor:
    """Images (N, 3, H, W) as a training moves them."""
    image = resample_camera_images(turn_and_mirror(image, motion.symmetries), motion.angles_rad, motion.scales)
    return shift(image, motion.shifts_px, int(motion.shifts_px.abs().max()))


def blob(x_px: float, y_px: float, *, length: float = 1.5, width: float = 1.5, angle_rad: float = 0.0) -> torch.Tensor:
    """A prepared image of an ellipse of charge; its centre is measured from the tile's, its angle from x to y."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    along = (x - x_px) * np.cos(angle_rad) + (y - y_px) * np.sin(angle_rad)
    across = -(x - x_px) * np.sin(angle_rad) + (y - y_px) * np.cos(angle_rad)
    charge = 100 * np.exp(-0.5 * ((along / length) ** 2 + (across / width) ** 2))
    return torch.from_numpy(np.stack([np.arcsinh(charge), np.zeros_like(charge), charge > 1])[None]).float()


def centre_of(image: torch.Tensor) -> np.ndarray:
    """Centre of gravity (x, y) of the charge, from the tile's centre."""
    charge = np.sinh(image[0, 0].double().numpy())
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    return np.array([(charge * x).sum(), (charge * y).sum()]) / charge.sum()


def axis_of(image: torch.Tensor) -> float:
    """Angle of the long axis [rad], from the second moments of the charge."""
    charge = np.sinh(image[0, 0].double().numpy())
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    covariance = np.cov(np.stack([x.ravel(), y.ravel()]), aweights=charge.ravel())
    return 0.5 * math.atan2(2 * covariance[0, 1], covariance[0, 0] - covariance[1, 1])


def between_lines(a_rad: float, b_rad: float) -> float:
    """Angle between two lines without a head [rad], at most a quarter turn."""
    return abs((a_rad - b_rad + math.pi / 2) % math.pi - math.pi / 2)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("sixths", SIXTHS)
@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_a_vector_moves_as_the_spot_that_it_points_to(symmetry, sixths, seed):
    rng = np.random.default_rng(seed)
    radius, place = rng.uniform(8, 14), rng.uniform(0, 2 * np.pi)
    vector = np.array([radius * np.cos(place), radius * np.sin(place)])
    motion = motion_of(symmetry, sixths * math.pi / 3, scale=rng.uniform(0.8, 1.2))
    measured = centre_of(moved_image(blob(*vector), motion))
    moved = move_target(torch.from_numpy(vector)[None], motion, "vector")
    np.testing.assert_allclose(moved[0].numpy(), measured, atol=0.05)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("sixths", SIXTHS)
@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_an_axis_moves_as_the_line_that_it_belongs_to(symmetry, sixths, seed):
    rng = np.random.default_rng(seed)
    angle_rad = rng.uniform(0, np.pi)
    image = blob(*rng.uniform(-4, 4, 2), length=6.0, width=2.0, angle_rad=angle_rad)
    assert between_lines(axis_of(image), angle_rad) < 1e-3
    motion = motion_of(symmetry, sixths * math.pi / 3, scale=rng.uniform(0.9, 1.1))
    moved = move_target(torch.tensor([angle_rad]).double(), motion, "axis").item()
    assert 0 <= moved < math.pi
    assert between_lines(moved, axis_of(moved_image(image, motion))) < 0.01


def test_a_shift_moves_the_spot_and_no_difference_of_two_points():
    vector = torch.tensor([[5.0, -3.0]]).double()
    motion = motion_of([False] * 3, shift_px=(2, -4))  # rows, columns
    still, moved = blob(5.0, -3.0), moved_image(blob(5.0, -3.0), motion)
    np.testing.assert_allclose(centre_of(moved) - centre_of(still), [-4, 2], atol=1e-3)
    assert torch.equal(move_target(vector, motion, "vector"), vector)


def test_vectors_and_axes_of_a_batch_move_tile_by_tile(rng):
    """Every tile by its own motion, whatever axes lie between the first and the last."""
    motion = draw_motion(50, rng, AugmentationConfig(rotation="sixths", scale=0.2))
    vectors, axes = torch.from_numpy(rng.normal(size=(50, 2, 3, 2))), torch.from_numpy(rng.uniform(0, 3, (50, 4)))
    moved_vectors, moved_axes = move_target(vectors, motion, "vector"), move_target(axes, motion, "axis")
    assert moved_vectors.shape == vectors.shape
    assert moved_axes.shape == axes.shape
    for tile in range(50):
        own = motion.of(torch.tensor([tile]))
        torch.testing.assert_close(move_target(vectors[[tile], 1, 2], own, "vector"), moved_vectors[[tile], 1, 2])
        torch.testing.assert_close(move_target(axes[[tile], 3], own, "axis"), moved_axes[[tile], 3])
    lengths = vectors.norm(dim=-1) * motion.scales[:, None, None]
    torch.testing.assert_close(moved_vectors.norm(dim=-1), lengths)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_targets_keep_their_type(dtype, rng):
    motion = draw_motion(8, rng, AugmentationConfig(rotation="sixths", scale=0.2))
    for kind, shape in (("vector", (8, 2)), ("axis", (8,)), ("map", (8, 5, 5)), ("scalar", (8,))):
        assert move_target(torch.ones(shape, dtype=dtype), motion, kind).dtype is dtype


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_a_map_moves_as_the_pixels_do(symmetry, rng):
    planes = torch.from_numpy(rng.normal(size=(1, 3, 6, 6)))
    motion = motion_of(symmetry)
    moved = move_target(planes, motion, "map")
    assert torch.equal(moved, turn_and_mirror(planes, motion.symmetries))
    # The brightest pixel stands where the vector to it points.
    bright = torch.zeros(1, SIDE, SIDE)
    bright[0, 28 - 7, 28 + 12] = 1.0
    row, column = divmod(int(move_target(bright, motion, "map").argmax()), SIDE)
    assert move_target(torch.tensor([[12.0, -7.0]]), motion, "vector").tolist() == [[column - 28, row - 28]]


def test_a_scalar_stays(rng):
    values = torch.from_numpy(rng.normal(size=(20, 3)))
    motion = draw_motion(20, rng, AugmentationConfig(rotation="sixths", scale=0.3))
    assert torch.equal(move_target(values, motion, "scalar"), values)


def test_unknown_kind():
    with pytest.raises(ValueError, match="unknown motion 'spin'; accepted: scalar, vector, axis, double_angle, map"):
        move_target(torch.zeros(1, 2), motion_of([False] * 3), "spin")


@pytest.mark.parametrize("seed", SEEDS)
def test_targets_of_a_batch_follow_their_images(seed):
    """As a training step does it: a head that takes only some tiles has targets of these alone, in `rows`."""
    rng = np.random.default_rng(seed)
    n = 30
    vectors = rng.uniform(-9, 9, (n, 2))
    images = torch.cat([blob(*vector) for vector in vectors])
    rows = torch.from_numpy(np.flatnonzero(rng.random(n) < 0.4))
    heads = {
        "all": {"source": torch.from_numpy(vectors), "weights": torch.arange(n)},
        "some": {"source": torch.from_numpy(vectors)[rows], "weights": torch.arange(len(rows)), "rows": rows},
    }
    motions = {"all": {"source": "vector"}, "some": {"source": "vector", "not_here": "map"}}
    batch = {"inputs": {"images": images, "scalars": torch.arange(n)}, "heads": heads}
    config = AugmentationConfig(rotation="sixths", scale=0.1)
    found = augment(batch, np.random.default_rng(seed), config, motions)
    measured = np.stack([centre_of(image[None]) for image in found["inputs"]["images"]])
    np.testing.assert_allclose(found["heads"]["all"]["source"].numpy(), measured, atol=0.05)
    np.testing.assert_allclose(found["heads"]["some"]["source"].numpy(), measured[rows], atol=0.05)
    assert np.abs(measured - vectors).max() > 5
    for task, target in heads.items():
        assert torch.equal(found["heads"][task]["weights"], target["weights"])
    assert torch.equal(found["inputs"]["scalars"], batch["inputs"]["scalars"])
    assert found["heads"].keys() == heads.keys()
    assert found["heads"]["some"].keys() == heads["some"].keys()


@pytest.mark.parametrize("settings", [{"rotation": "sixths"}, {"shift_px": 1}, {"scale": 0.1}])
def test_maps_are_moved_by_whole_turns_only(settings):
    with pytest.raises(UserError, match=r"networks\.mine\.augmentation: the targets of outline are maps, which are"):
        check_augmentation(
            AugmentationConfig(**settings), "networks.mine", wing="camera", cameras=["hexagon-1855"],
            scalars=(), motions={"outline": {"mask": "map"}},
        )  # fmt: skip


@pytest.mark.parametrize(("kind", "shape"), [("vector", (0, 2)), ("vector", (0, 3, 2)), ("double_angle", (0, 2))])
def test_no_target(kind, shape):
    """Of the images of a batch, none may count for a head."""
    motion = motion_of([True, False, True]).of(torch.zeros(0, dtype=torch.int64))
    assert move_target(torch.empty(shape), motion, kind).shape == shape
