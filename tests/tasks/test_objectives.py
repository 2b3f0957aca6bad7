"""Losses, metrics and what tasks refuse; overfitting one batch, judged by the task's own metric."""

from itertools import islice

import numpy as np
import pytest
import torch
from scipy.ndimage import maximum_filter
from synthetic_tiles import camera_batch, sky_batch, write_tiles

from models import create_model
from pipeline import statistics
from pipeline.config import ModelConfig, TaskConfig
from pipeline.errors import TooFewEventsError, UserError
from pipeline.preparation import Preparation
from pipeline.tasks import get_decoder, get_training
from pipeline.tasks.training.data import TrainingBatches, ValidationBatches, as_tensors
from pipeline.tiles import TileBatch, TileReader


def task_config(**kwargs) -> TaskConfig:
    return TaskConfig(model=ModelConfig(name="lenet5"), **kwargs)


def overfit(task: str, tiles: TileBatch, preparation: Preparation, network, steps: int) -> dict[str, np.ndarray]:
    """Train on one batch without augmentation; give back the decoded outputs."""
    objective = get_training(task)(task_config(augmentation=False))
    batch = as_tensors(objective.arrays(tiles, preparation))
    optimizer = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
    for _ in range(steps):
        optimizer.zero_grad()
        objective.loss(network(batch["images"], batch.get("scalars")), batch).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        outputs = network(batch["images"], batch.get("scalars")).numpy()
    return get_decoder(task).decode(outputs, tiles)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_energy_overfits_one_batch():
    tiles = camera_batch(8)
    network = create_model("resnet18", 3, 2, width=4, stem="stride2")
    preparation = Preparation(kind="camera", channels=("charge", "peak_time", "mask"))
    found = overfit("energy", tiles, preparation, network, steps=150)
    residual = np.log10(found["reco_energy_tev"] / tiles.events["true_energy_tev"])
    assert np.sqrt(np.mean(residual**2)) < 0.02


def test_gammaness_overfits_one_batch():
    tiles = camera_batch(8)
    network = create_model("resnet18", 3, 1, width=4, stem="stride2")
    preparation = Preparation(kind="camera", channels=("charge", "peak_time", "mask"))
    found = overfit("gammaness", tiles, preparation, network, steps=30)
    labels = tiles.targets["gammaness"][:, 0] > 0.5
    assert statistics.auc(found["gammaness"], labels, np.ones(8)) == 1.0
    assert np.abs(found["gammaness"] - labels).max() < 0.2


def test_denoise_overfits_one_batch():
    tiles = sky_batch(8)
    network = create_model("conv_autoencoder", 3, 4, width=20, depth=1, skips=True)
    preparation = Preparation(kind="sky", channels=("sci", "err"))
    found = overfit("denoise", tiles, preparation, network, steps=250)
    clean, sci = tiles.targets["clean"][:, 0], tiles.images[:, 0]
    defects = (tiles.masks & 8) != 0
    sound = (tiles.masks == 0) & np.isfinite(sci)
    noise = tiles.events["noise"][0]

    def rmse(image, where):
        return np.sqrt(np.mean((image[where] - clean[where]) ** 2)) / noise

    defects &= (tiles.masks & 4) == 0
    assert rmse(found["restored"], sound) < 0.8 * rmse(sci, sound)
    assert rmse(found["restored"], defects) < 0.15 * rmse(sci, defects)
    flux = clean[sound].sum() - 200.0 * sound.sum()
    assert abs((found["restored"] - clean)[sound].sum() / flux) < 0.01
    assert statistics.auc(found["defect_probability"].ravel(), defects.ravel(), np.ones(defects.size)) > 0.999


@pytest.mark.parametrize("noise2noise", [False, True])
def test_denoise_loss_is_least_at_the_truth(noise2noise):
    """Correction that gives exactly the expectation, against none and against a biased one."""
    tiles = sky_batch(8, noise2noise=noise2noise)
    objective = get_training("denoise")(task_config())
    batch = as_tensors(objective.arrays(tiles, Preparation(kind="sky", channels=("sci", "err"))))
    expectation = torch.from_numpy(sky_batch(8).targets["clean"][:, 0] - 200.0) / batch_noise(tiles)
    outputs = torch.zeros(8, 4, 32, 32)
    # Everything replaced by the expectation: what an ideal network would do with noise, too.
    outputs[:, 1], outputs[:, 3] = torch.asinh(expectation), 30.0
    perfect = objective.loss(outputs, {k: v for k, v in batch.items() if k != "defect"})
    for wrong in (torch.asinh(expectation + 0.3), torch.asinh(0.9 * expectation)):
        outputs[:, 1] = wrong
        assert objective.loss(outputs, {k: v for k, v in batch.items() if k != "defect"}) > perfect


def batch_noise(tiles: TileBatch) -> float:
    return float(tiles.events["noise"][0])


def test_noise2noise_labels_what_only_one_exposure_has():
    tiles = sky_batch(8, noise2noise=True)
    truth = sky_batch(8)
    found = get_training("denoise")(task_config()).target_arrays(tiles)
    hits = ((truth.masks & 8) != 0) & found["usable"]
    hits &= maximum_filter(tiles.targets["clean"][:, 0], size=(1, 5, 5)) < 260  # dark all around, in the partner too
    bright = hits & (tiles.images[:, 0] > 600)
    assert found["defect"][bright].mean() > 0.99
    assert found["defect"][~hits & (truth.masks == 0)].mean() < 1e-3


def test_noise2noise_learns_how_far_sources_change_between_exposures():
    """Sources that come back 20 % brighter or fainter: the scatter is found, and they do not drown the sky's noise."""
    tiles = sky_batch(8, noise2noise=True)
    flux = 4000.0 * (1 + 0.2 * np.random.default_rng(5).normal(size=(2, 8, 32, 32)))
    tiles.images[:, 0] += flux[0]
    tiles.targets["clean"][:, 0] += flux[1]
    found = get_training("denoise")(task_config()).target_arrays(tiles)
    np.testing.assert_allclose(found["scatter"], 0.2 * np.sqrt(2), rtol=0.1)  # of the difference of two exposures
    alone = tiles.select(np.array([0]))
    alone.images[:, 0], alone.targets["clean"][:, 0] = 200.0, 200.0
    assert get_training("denoise")(task_config()).target_arrays(alone)["scatter"] == 0


def test_metrics_of_a_perfect_denoiser():
    tiles = sky_batch(8)
    objective = get_training("denoise")(task_config())
    batch = as_tensors(objective.arrays(tiles, Preparation(kind="sky", channels=("sci", "err"))))
    # No pixel fluctuates so low that the truth is above what a replacement may be.
    batch["signal"] = torch.maximum(batch["signal"], batch["clean"] - 3 * batch["uncertainty"])
    outputs = torch.zeros(8, 4, 32, 32)
    outputs[:, 1], outputs[:, 3] = torch.asinh(batch["clean"]), 30.0
    metrics = objective.metrics()
    metrics.add(outputs, batch)
    found = metrics.compute()
    assert found["gain_db"] > 60
    assert abs(found["flux_bias"]) < 1e-4
    assert found["defect_rmse"] < 1e-2


def test_replacement_of_a_defect_is_not_far_above_what_was_measured():
    """Only missing and dead pixels may come back brighter, and they as bright as what is around them."""
    tiles = sky_batch(1)
    tiles.images[:, 0], tiles.images[:, 1] = 200.0, 10.0
    tiles.images[0, 0, 3, 3], tiles.images[0, 0, 3, 4] = np.nan, 50.0
    tiles.masks[:] = 0
    outputs = np.zeros((1, 4, 32, 32), np.float32)
    outputs[:, 1], outputs[:, 3] = 8.0, 30.0
    restored = get_decoder("denoise").decode(outputs, tiles)["restored"][0]
    assert restored[0, 0] == pytest.approx(240.0)
    noise = float(tiles.events["noise"][0])
    assert restored[3, 3:5] == pytest.approx(200.0 + 4 * noise)


def test_energy_metrics_are_those_of_the_residuals(rng):
    objective = get_training("energy")(task_config())
    truth = rng.normal(size=100).astype(np.float32)
    residual = rng.normal(0.1, 0.3, 100).astype(np.float32)
    outputs = torch.from_numpy(np.stack([truth + residual, np.full(100, 2 * np.log(0.3))], 1)).float()
    metrics = objective.metrics()
    for part in (slice(0, 30), slice(30, 100)):
        batch = {"log10_energy": torch.from_numpy(truth[part]), "weights": torch.ones(part.stop - part.start)}
        metrics.add(outputs[part], batch)
    found = metrics.compute()
    assert found["log10_energy_rms"] == pytest.approx(np.sqrt(np.mean(residual**2)), rel=1e-5)
    assert found["log10_energy_bias"] == pytest.approx(residual.mean(), rel=1e-4)
    assert found["pull_rms"] == pytest.approx(np.sqrt(np.mean(residual**2)) / 0.3, rel=1e-4)


def test_weights_reach_the_loss():
    objective = get_training("gammaness")(task_config())
    outputs = torch.tensor([[4.0], [4.0]])
    batch = {"gamma": torch.tensor([1.0, 0.0]), "weights": torch.tensor([1.0, 0.0])}
    assert objective.loss(outputs, batch) < 0.02
    assert objective.loss(outputs, batch | {"weights": torch.tensor([0.0, 1.0])}) > 1


# ---- batches ---------------------------------------------------------------------------------------------------------
def test_batches_depend_on_seed_and_epoch_alone(tmp_path):
    reader = TileReader([write_tiles(tmp_path, camera_batch(200))], "train")
    objective = get_training("gammaness")(task_config(scalars=("log10_hillas_intensity",)))
    preparation = Preparation.fit(reader, objective.config.scalars)

    def batches(seed, epoch):
        stream = TrainingBatches(reader, objective, preparation, seed=seed, epoch=epoch, batch_size=16)
        return [batch["images"] for batch in islice(stream, 3)]

    first = batches(1, 0)
    assert all(torch.equal(a, b) for a, b in zip(first, batches(1, 0), strict=True))
    assert not torch.equal(first[0], batches(1, 1)[0])
    assert not torch.equal(first[0], batches(2, 0)[0])
    assert {tuple(batch.shape) for batch in first} == {(16, 3, 24, 24)}


def test_validation_sees_every_tile_once(tmp_path):
    reader = TileReader([write_tiles(tmp_path, camera_batch(400))], "validation")
    objective = get_training("gammaness")(task_config())
    stream = ValidationBatches(reader, objective, Preparation.fit(reader), batch_size=30)
    sizes = [len(batch["images"]) for batch in stream]
    assert sum(sizes) == reader.n_tiles
    assert set(sizes[:-1]) == {30}


# ---- what is refused -------------------------------------------------------------------------------------------------
def check(task: str, folder, batch: TileBatch, **config) -> None:
    manifest = write_tiles(folder, batch)
    objective = get_training(task)
    options = {"where": objective.where, "equalise": objective.equalise}
    readers = (TileReader([manifest], split, **options) for split in ("train", "validation"))
    objective(task_config(**config)).check(*readers)


@pytest.mark.parametrize(("task", "batch"), [("denoise", camera_batch(40)), ("energy", sky_batch(40))])
def test_tiles_of_the_other_wing(task, batch, tmp_path):
    objective = get_training(task)
    manifest = write_tiles(tmp_path, batch)
    readers = [TileReader([manifest], split) for split in ("train", "validation")]
    with pytest.raises(UserError, match=rf"holds (camera|sky) tiles, but the task {task} takes"):
        objective(task_config()).check(*readers)


def test_no_truth(tmp_path):
    batch = camera_batch(100)
    batch.targets = {}
    with pytest.raises(UserError, match="no truth to train gammaness on: no target 'gammaness'"):
        check("gammaness", tmp_path, batch)


def test_one_class_only(tmp_path):
    with pytest.raises(TooFewEventsError, match=r"the train split has \d+ gammas and 0 hadrons"):
        check("gammaness", tmp_path, camera_batch(100, gamma=True))


def test_no_gammas_for_the_energy(tmp_path):
    with pytest.raises(TooFewEventsError, match="the train split has no tile with true_primary_id = 0"):
        check("energy", tmp_path, camera_batch(100, gamma=False))


def test_energy_not_positive(tmp_path):
    batch = camera_batch(100)
    batch.events["true_energy_tev"][:10] = np.nan
    with pytest.raises(UserError, match="have no positive true energy"):
        check("energy", tmp_path, batch)


def test_scalar_that_augmentation_changes(tmp_path):
    with pytest.raises(UserError, match=r"'hillas_psi' changes when an image is turned"):
        check("gammaness", tmp_path, camera_batch(100), scalars=("hillas_psi",))


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        ("denoise", {"augmentation": {"shift_px": 2}}, "frames are turned by quarters and mirrored only"),
        ("denoise", {"augmentation": {"rotation": "sixths"}}, "frames are turned by quarters and mirrored only"),
        ("energy", {"label_smoothing": 0.1}, r"label_smoothing must be 0, got 0\.1: .* energy has none"),
        ("gammaness", {"augmentation": {"shift_px": 1}, "scalars": ("hillas_r",)},
         r"shift_px changes images and not their scalars, and 'hillas_r' would no longer"),
        ("gammaness", {"augmentation": {"scale": 0.1}, "scalars": ("log10_hillas_intensity", "hillas_length")},
         r"scale changes images and not their scalars, and 'hillas_length' would no longer"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_for_the_task(task, settings, message, tmp_path):
    with pytest.raises(UserError, match=message):
        check(task, tmp_path, sky_batch(40) if task == "denoise" else camera_batch(100), **settings)


def test_sixth_turns_of_a_camera_with_square_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr("synthetic_tiles.CAMERA_IDENTITY", "square-1764-11.2arcmin-0deg-r29")
    with pytest.raises(UserError, match=r"sixths are for cameras with hexagonal pixels, .* square-1764.*take quarters"):
        check("gammaness", tmp_path, camera_batch(100), augmentation={"rotation": "sixths"})


def test_smoothed_labels_have_their_least_loss_inside(tmp_path):
    objective = get_training("gammaness")(task_config(label_smoothing=0.2))
    batch = {"gamma": torch.tensor([1.0]), "weights": torch.ones(1)}
    logits = torch.linspace(0, 5, 501)
    losses = [float(objective.loss(logit.view(1, 1), batch)) for logit in logits]
    assert torch.sigmoid(logits[int(np.argmin(losses))]) == pytest.approx(0.9, abs=0.002)


@pytest.mark.parametrize(
    "augmentation", [{"rotation": "sixths"}, {"shift_px": 2}, {"scale": 0.1}, {"mirror": False, "rotation": "none"}]
)
def test_every_augmentation_gives_batches_that_depend_on_the_seed_alone(augmentation, tmp_path):
    reader = TileReader([write_tiles(tmp_path, camera_batch(100))], "train")
    objective = get_training("gammaness")(task_config(augmentation=augmentation))
    preparation = Preparation.fit(reader)

    def images(seed):
        stream = TrainingBatches(reader, objective, preparation, seed=seed, epoch=0, batch_size=16)
        return torch.cat([batch["images"] for batch in stream])

    assert torch.equal(images(1), images(1))
    assert torch.isfinite(images(1)).all()
    assert not torch.equal(images(1), images(2))


def test_frames_have_no_scalars(tmp_path):
    with pytest.raises(UserError, match=r"train\.denoise\.scalars must be empty"):
        check("denoise", tmp_path, sky_batch(40), scalars=("hillas_width",))


def test_bias_of_bright_windows_is_seen():
    """A star 3 % too faint costs by the term's scale; noise without bias costs next to nothing."""
    from pipeline.tasks.training.denoise import BIAS_TOLERANCE, _bias_loss

    tiles = sky_batch(16, size=64, seed=3)
    clean = torch.from_numpy((tiles.targets["clean"][:, 0] - 200.0) / batch_noise(tiles)).float()
    sigma2, sound = 1 + clean / batch_noise(tiles), torch.ones_like(clean, dtype=torch.bool)
    faint = float(_bias_loss(-0.03 * clean, clean, sigma2, sound))
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 0.3, clean.shape)).float()
    assert faint == pytest.approx(0.03 / BIAS_TOLERANCE - 0.5, rel=0.05)  # linear part of the Huber loss
    assert float(_bias_loss(noise, clean, sigma2, sound)) < 0.1 * faint


def test_dead_relus_are_counted():
    """Three ReLU channels of which one is dead, one dead in the first batch only; the ReLU is used twice."""
    from pipeline.tasks.training.module import ReluWatch

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.act = torch.nn.ReLU()

        def forward(self, x):
            return self.act(self.act(x) + 1)

    network = Network()
    watch = ReluWatch(network)
    network(torch.tensor([[1.0, -1.0, -1.0]]))
    network(torch.tensor([[1.0, 1.0, -1.0]]))
    assert watch.close() == pytest.approx(1 / 6)
    network(torch.ones(1, 3))  # no longer watched
    assert np.isnan(ReluWatch(torch.nn.LeakyReLU()).close())
