"""Tiles to batches: their order, their augmentation, and settings that make no sense for the tiles."""

from itertools import islice
from pathlib import Path

import pytest
import torch
from synthetic_tiles import camera_batch, sky_batch, write_tiles

from pipeline.config import Config, NetworkConfig, parse_config
from pipeline.errors import TooFewEventsError, UserError
from pipeline.inputs import get_input
from pipeline.stages.train import TrainingRun
from pipeline.tiles import TileBatch, TileReader
from pipeline.training.data import Feed, TrainingBatches, ValidationBatches
from pipeline.training.heads import Heads


def network_config(task: str = "gammaness", **settings) -> NetworkConfig:
    return NetworkConfig(heads=[task], model={"name": "lenet5"}, **settings)


def feed(reader: TileReader, config: NetworkConfig, seed: int = 0) -> Feed:
    return Feed(get_input(config.input).fit(reader, config.scalars), Heads(config), config.augmentation, seed)


def test_batches_depend_on_seed_and_epoch_alone(tmp_path):
    reader = TileReader([write_tiles(tmp_path, camera_batch(200))], "train")
    config = network_config(scalars=("log10_hillas_intensity",))

    def batches(seed, epoch):
        stream = TrainingBatches(reader, feed(reader, config, seed), epoch=epoch, batch_size=16)
        return [batch["inputs"]["images"] for batch in islice(stream, 3)]

    first = batches(1, 0)
    assert all(torch.equal(a, b) for a, b in zip(first, batches(1, 0), strict=True))
    assert not torch.equal(first[0], batches(1, 1)[0])
    assert not torch.equal(first[0], batches(2, 0)[0])
    assert {tuple(batch.shape) for batch in first} == {(16, 3, 24, 24)}


def test_a_batch_has_what_network_and_head_are_given(tmp_path):
    reader = TileReader([write_tiles(tmp_path, camera_batch(200))], "train")
    config = network_config(scalars=("log10_hillas_intensity", "hillas_length"))
    batch = next(iter(TrainingBatches(reader, feed(reader, config), epoch=0, batch_size=16)))
    assert {name: tuple(tensor.shape) for name, tensor in batch["inputs"].items()} == {
        "images": (16, 3, 24, 24),
        "scalars": (16, 2),
    }
    heads = {task: {name: tuple(t.shape) for name, t in target.items()} for task, target in batch["heads"].items()}
    assert heads == {"gammaness": {"gamma": (16,), "weights": (16,)}}


def test_validation_sees_every_tile_once(tmp_path):
    reader = TileReader([write_tiles(tmp_path, camera_batch(400))], "validation")
    stream = ValidationBatches(reader, feed(reader, network_config()), batch_size=30)
    sizes = [len(batch["inputs"]["images"]) for batch in stream]
    assert sum(sizes) == reader.n_tiles
    assert set(sizes[:-1]) == {30}


@pytest.mark.parametrize(
    "augmentation", [{"rotation": "sixths"}, {"shift_px": 2}, {"scale": 0.1}, {"mirror": False, "rotation": "none"}]
)
def test_every_augmentation_gives_batches_that_depend_on_the_seed_alone(augmentation, tmp_path):
    reader = TileReader([write_tiles(tmp_path, camera_batch(100))], "train")
    config = network_config(augmentation=augmentation)

    def images(seed):
        stream = TrainingBatches(reader, feed(reader, config, seed), epoch=0, batch_size=16)
        return torch.cat([batch["inputs"]["images"] for batch in stream])

    assert torch.equal(images(1), images(1))
    assert torch.isfinite(images(1)).all()
    assert not torch.equal(images(1), images(2))


def test_the_planes_of_a_sky_target_move_with_the_image(tmp_path):
    """The first channel is asinh of the plane that the loss takes as the signal, whatever way the tile was turned."""
    reader = TileReader([write_tiles(tmp_path, sky_batch(40))], "train")
    config = network_config("denoise")
    made = feed(reader, config)
    tiles = next(iter(reader.sequential()))
    batch, still = made.training_batch(tiles, 0, 0), made.batch(tiles)
    assert not torch.equal(batch["inputs"]["images"], still["inputs"]["images"])
    target = batch["heads"]["denoise"]
    torch.testing.assert_close(batch["inputs"]["images"][:, 0], torch.asinh(target["signal"]))
    assert torch.equal(batch["inputs"]["images"][:, 2] == 1, target["missing"] | target["saturated"])
    assert torch.equal(target["photon_slope"], still["heads"]["denoise"]["photon_slope"])


# ---- what is refused -------------------------------------------------------------------------------------------------
def config_of(task: str, **settings) -> Config:
    section = {"heads": [task], "model": {"name": "lenet5"}, "scalars": []} | settings
    return parse_config({"threads": 1, "device": "cpu", "networks": {"mine": section}})


def prepare(task: str, folder: Path, batch: TileBatch, **settings) -> None:
    """All checks of a training, up to the first step."""
    TrainingRun(config_of(task, **settings), "mine", [write_tiles(folder, batch)], bundles=folder)


@pytest.mark.parametrize(("task", "batch"), [("denoise", camera_batch(40)), ("energy", sky_batch(40))])
def test_tiles_of_the_other_wing(task, batch, tmp_path):
    with pytest.raises(UserError, match=rf"holds (camera|sky) tiles, but the task {task} takes"):
        prepare(task, tmp_path, batch)


def test_no_gammas_for_the_energy(tmp_path):
    with pytest.raises(TooFewEventsError, match="the train split has no tile with true_primary_id = 0"):
        prepare("energy", tmp_path, camera_batch(100, gamma=False))


def test_scalar_that_augmentation_changes(tmp_path):
    with pytest.raises(UserError, match=r"'hillas_psi' changes when an image is .*set networks\.mine\.augmentation"):
        prepare("gammaness", tmp_path, camera_batch(100), scalars=("hillas_psi",))


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        ("denoise", {"augmentation": {"shift_px": 2}},
         r"networks\.mine\.augmentation: frames are turned by quarters and mirrored only"),
        ("denoise", {"augmentation": {"rotation": "sixths"}}, "frames are turned by quarters and mirrored only"),
        ("gammaness", {"augmentation": {"shift_px": 1}, "scalars": ("hillas_r",)},
         r"shift_px changes images but not their scalars, and 'hillas_r' would no longer"),
        ("gammaness", {"augmentation": {"scale": 0.1}, "scalars": ("log10_hillas_intensity", "hillas_length")},
         r"scale changes images but not their scalars, and 'hillas_length' would no longer"),
        ("denoise", {"scalars": ("hillas_width",)}, "scalars must be empty, got hillas_width"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_for_the_task(task, settings, message, tmp_path):
    with pytest.raises(UserError, match=message):
        prepare(task, tmp_path, sky_batch(40) if task == "denoise" else camera_batch(100), **settings)


def test_options_of_another_task():
    with pytest.raises(UserError, match=r"energy: unknown key 'label_smoothing'; accepted: weight, uncertainty"):
        config_of("energy", heads={"energy": {"label_smoothing": 0.1}})


def test_sixth_turns_of_a_camera_with_square_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr("synthetic_tiles.CAMERA_IDENTITY", "square-1764-11.2arcmin-0deg-r29")
    with pytest.raises(UserError, match=r"sixths are for cameras with hexagonal pixels, .* square-1764.*use quarters"):
        prepare("gammaness", tmp_path, camera_batch(100), augmentation={"rotation": "sixths"})
