"""The train stage from tiles to a bundle: same bytes, resuming, and what it refuses."""

import csv
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from synthetic_tiles import camera_batch, sky_batch, write_tiles

from pipeline.bundle.card import load_bundle_card
from pipeline.bundle.held_out import check_held_out
from pipeline.bundle.runtime import Predictor
from pipeline.config import Config, SplitsConfig, parse_config
from pipeline.errors import UserError
from pipeline.provenance import sha256_file
from pipeline.stages.evaluate import evaluate
from pipeline.stages.train import train
from pipeline.tiles.manifest import load_manifests

MODELS = {
    "energy": {"name": "resnet18", "kwargs": {"width": 4, "stem": "stride2", "depths": [1, 1], "drop_rate": 0.1}},
    "gammaness": {"name": "resnet18", "kwargs": {"width": 4, "stem": "stride2", "depths": [1, 1]}},
    "denoise": {"name": "conv_autoencoder", "kwargs": {"width": 4, "depth": 1, "skips": True}},
}


def config(task: str = "energy", **changes) -> Config:
    scalars = [] if task == "denoise" else ["log10_hillas_intensity"]
    section = {"model": MODELS[task], "scalars": scalars, "epochs": 3, "batch_size": 16, "precision": "float32"}
    run = {key: changes.pop(key) for key in ("seed", "device") if key in changes}
    return parse_config({"seed": 3, "threads": 1, "device": "cpu", "networks": {task: section | changes}} | run)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tiles")
    camera = write_tiles(folder, camera_batch(240), "camera", equalised={"true_energy_tev": 3}).path
    return {
        "energy": camera,
        "gammaness": camera,
        "denoise": write_tiles(folder, sky_batch(60), "sky").path,
        "noise2noise": write_tiles(folder, sky_batch(60, noise2noise=True), "pairs").path,
    }


@pytest.fixture(scope="module")
def energy_bundle(tiles, tmp_path_factory) -> Path:
    return train(config(), "energy", [tiles["energy"]], tmp_path_factory.mktemp("bundles") / "energy")


def weights_of(bundle: Path) -> str:
    return sha256_file(bundle / "weights.safetensors")


def test_a_bundle_is_whole(energy_bundle):
    names = {path.name for path in energy_bundle.iterdir()}
    assert names == {
        "weights.safetensors", "model.onnx", "card.json", "MODEL_CARD.md", "train_log.csv", "learning_curves.png",
    }  # fmt: skip
    assert len({path.stat().st_mode for path in energy_bundle.iterdir()}) == 1  # who reads the card reads the weights
    assert not energy_bundle.with_name("energy.ckpt").exists()
    sidecar = json.loads(energy_bundle.with_name("energy.provenance.json").read_text())
    assert sidecar["stage"] == "train"
    with open(energy_bundle / "train_log.csv") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert 0 <= float(rows[-1]["dead_relu_fraction"]) < 1
    card = load_bundle_card(energy_bundle)
    assert 0 < card.training.n_images < 120  # gammas of the training split
    assert card.cameras[0].name == "TestCam"
    assert card.validation["log10_energy_rms"] == float(rows[card.training.best_epoch - 1]["log10_energy_rms"])


@pytest.mark.parametrize("task", ["energy", "denoise"])
def test_what_was_trained_on_is_no_test(task, tiles, energy_bundle, tmp_path):
    """The same images, divided in another way, would be judged by a network that has seen them."""
    bundle = energy_bundle if task == "energy" else train(config(task, epochs=1), task, [tiles[task]], tmp_path / task)
    batch, name = (camera_batch(240), "camera") if task == "energy" else (sky_batch(60), "sky")
    other = write_tiles(tmp_path, batch, name, shares=SplitsConfig(train=0.1, validation=0.1, test=0.8)).path
    card = load_bundle_card(bundle)
    check_held_out(card, load_manifests([tiles[task]]))
    message = r"was trained on images of the test split of .*: on \d+ of \d+ showers or fields .* the tiles.splits of"
    with pytest.raises(UserError, match=message):
        evaluate(config(task), bundle, [other], tmp_path / "evaluation")
    assert not (tmp_path / "evaluation").exists()
    if task == "energy":
        with pytest.raises(UserError, match=message):
            train(config(start_from=str(bundle)), task, [other], tmp_path / "finer")
    older = card.model_copy(update={"training": card.training.model_copy(update={"groups": None})})
    check_held_out(older, load_manifests([other]))


@pytest.mark.parametrize(
    ("task", "tile_set", "precision"),
    [("gammaness", "gammaness", "bfloat16"), ("denoise", "denoise", "float32"), ("denoise", "noise2noise", "float32")],
)
def test_every_task_trains_and_predicts(task, tile_set, precision, tiles, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = config(task, epochs=1, precision=precision)
    predictor = Predictor.load(train(cfg, task, [tiles[tile_set]], tmp_path / "made" / task), threads=1)
    assert [path.name for path in tmp_path.iterdir()] == ["made"]  # nothing beside it, no log folder
    assert {path.name for path in (tmp_path / "made").iterdir()} == {task, f"{task}.provenance.json"}
    batch = camera_batch(6, seed=5) if task == "gammaness" else sky_batch(6, seed=5)
    found = predictor.predict(batch)
    assert all(np.isfinite(values).all() for values in found.values())
    first = next(iter(found.values()))
    assert len(np.unique(first.reshape(6, -1), axis=0)) == 6  # differs from image to image


def test_same_seed_same_bytes(energy_bundle, tiles, tmp_path):
    # Resuming where there is nothing to resume simply starts.
    again = train(config(), "energy", [tiles["energy"]], tmp_path / "again", resume=True)
    for name in ("weights.safetensors", "model.onnx", "train_log.csv", "learning_curves.png"):
        assert sha256_file(again / name) == sha256_file(energy_bundle / name), name
    other = train(config(seed=4), "energy", [tiles["energy"]], tmp_path / "other")
    assert weights_of(other) != weights_of(again)


@pytest.mark.parametrize(
    ("fractions", "warns"),
    [([0.3], False), ([0.3, 0.31], False), ([0.3, 0.35], True), ([0.35, 0.3], False), ([np.nan, np.nan], False),
     ([0.1, 0.3, 0.31], False)],
)  # fmt: skip
def test_relus_that_die_are_told(fractions, warns, tmp_path, caplog):
    from pipeline.training.callbacks import EpochLog

    rows = [{"epoch": epoch, "dead_relu_fraction": fraction} for epoch, fraction in enumerate(fractions, start=1)]
    log = EpochLog(SimpleNamespace(rows=rows), tmp_path / "log.csv")
    log.on_train_epoch_end(None, SimpleNamespace(config=SimpleNamespace(epochs=3)))
    told = [record.message for record in caplog.records if record.levelname == "WARNING"]
    expected = "35 % of the ReLU channels are dead, more than an epoch ago; a lower learning rate may help"
    assert told == [expected] * warns


# ---- stopping and going on -------------------------------------------------------------------------------------------
class PulledPlugError(Exception):
    """Stands for a kill: nothing of ours catches it."""


def pull_plug(monkeypatch, epoch: int, step: int) -> None:
    from pipeline.training.module import TrainingModule

    def stop(self, batch, batch_idx):
        if (self.current_epoch, batch_idx) == (epoch, step):
            raise PulledPlugError
        return unharmed(self, batch, batch_idx)

    unharmed = TrainingModule.training_step
    monkeypatch.setattr(TrainingModule, "training_step", stop)


@pytest.mark.parametrize(
    ("epoch", "step"), [pytest.param(0, 1, marks=pytest.mark.slow), (1, 2), pytest.param(2, 0, marks=pytest.mark.slow)]
)
def test_resuming_gives_the_same_weights(epoch, step, energy_bundle, tiles, tmp_path, monkeypatch):
    out = tmp_path / "energy"
    with monkeypatch.context() as patch:
        pull_plug(patch, epoch, step)
        with pytest.raises(PulledPlugError):
            train(config(), "energy", [tiles["energy"]], out)
    # Before the end of the first epoch, nothing is left.
    assert out.with_name("energy.ckpt").exists() == (epoch > 0)
    train(config(), "energy", [tiles["energy"]], out, resume=True)
    for name in ("weights.safetensors", "model.onnx", "train_log.csv"):
        assert sha256_file(out / name) == sha256_file(energy_bundle / name), name


def test_resuming_after_the_last_epoch_only_writes_the_bundle(energy_bundle, tiles, tmp_path, monkeypatch):
    out = tmp_path / "energy"
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.stages.train._write", lambda *_: (_ for _ in ()).throw(PulledPlugError))
        with pytest.raises(PulledPlugError):
            train(config(), "energy", [tiles["energy"]], out)
    pull_plug(monkeypatch, 0, 0)
    train(config(), "energy", [tiles["energy"]], out, resume=True)
    assert weights_of(out) == weights_of(energy_bundle)


def test_early_stopping_is_kept_over_a_resume(tmp_path, monkeypatch):
    # A learning rate of nothing, and no running statistics: no epoch is better than the first.
    manifest = write_tiles(tmp_path, camera_batch(100, size=32)).path
    model = {"name": "lenet5_modern"}
    cfg = config(model=model, learning_rate=1e-30, early_stopping_patience=2, epochs=9)
    out = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.stages.train._write", lambda *_: (_ for _ in ()).throw(PulledPlugError))
        with pytest.raises(PulledPlugError):
            train(cfg, "energy", [manifest], out)
    train(cfg, "energy", [manifest], out, resume=True)
    training = load_bundle_card(out).training
    assert (training.best_epoch, training.epochs) == (1, 3)


@pytest.mark.slow
@pytest.mark.parametrize("step", [6, 8])  # of 4 an epoch: in the middle of the second, after the second
def test_resuming_after_kill_9(step, energy_bundle, tiles, tmp_path):
    script = f"""
        import os, signal
        from pipeline.config import parse_config
        from pipeline.stages.train import train
        from pipeline.training.module import TrainingModule
        unharmed = TrainingModule.training_step
        def stop(self, batch, batch_idx):
            if self.global_step == {step}:
                os.kill(os.getpid(), signal.SIGKILL)
            return unharmed(self, batch, batch_idx)
        TrainingModule.training_step = stop
        cfg = parse_config({config().model_dump(mode="json")!r})
        train(cfg, "energy", [{str(tiles["energy"])!r}], {str(tmp_path / "energy")!r})
    """
    answer = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False
    )
    assert answer.returncode == -signal.SIGKILL
    train(config(), "energy", [tiles["energy"]], tmp_path / "energy", resume=True)
    assert weights_of(tmp_path / "energy") == weights_of(energy_bundle)


def unfinished(tiles, out, monkeypatch, cfg=None) -> None:
    with monkeypatch.context() as patch:
        pull_plug(patch, 1, 0)
        with pytest.raises(PulledPlugError):
            train(cfg or config(), "energy", [tiles["energy"]], out)


@pytest.mark.parametrize(
    ("resume", "force", "epochs"),
    [(False, False, 2), pytest.param(True, True, 2, marks=pytest.mark.slow), (False, True, 3)],
)
def test_an_unfinished_run_is_resumed_unless_forced(
    resume, force, epochs, energy_bundle, tiles, tmp_path, monkeypatch, caplog
):
    unfinished(tiles, tmp_path / "energy", monkeypatch)
    with caplog.at_level("INFO", logger="lightpool"):
        train(config(), "energy", [tiles["energy"]], tmp_path / "energy", resume=resume, force=force)
    assert sum("epoch" in text and "of 3:" in text for text in caplog.messages) == epochs
    assert weights_of(tmp_path / "energy") == weights_of(energy_bundle)
    assert not (tmp_path / "energy.ckpt").exists()


def test_checkpoint_of_another_configuration(tiles, tmp_path, monkeypatch):
    unfinished(tiles, tmp_path / "energy", monkeypatch)
    changed = config(epochs=1)
    for resume in (False, True):
        with pytest.raises(UserError, match=r"another configuration, data or version \(\w{12}, this one is \w{12}\)"):
            train(changed, "energy", [tiles["energy"]], tmp_path / "energy", resume=resume)
    train(changed, "energy", [tiles["energy"]], tmp_path / "energy", resume=True, force=True)
    assert load_bundle_card(tmp_path / "energy").training.epochs == 1


# ---- what is refused -------------------------------------------------------------------------------------------------
def test_existing_bundle(energy_bundle, tiles):
    with pytest.raises(UserError, match="exists; choose another name or add --force"):
        train(config(), "energy", [tiles["energy"]], energy_bundle)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"name": "resnet17"}}, r"unknown model 'resnet17'; did you mean"),
        ({"model": {"name": "resnet18", "kwargs": {"wdith": 4}}}, r"resnet18 has no argument 'wdith'; accepted: "),
        ({"model": {"name": "resnet18", "kwargs": {"scalars_hidden": 0}}}, "scalars_hidden at least 1, got 0 and 0"),
        ({"model": {"name": "resnet18", "kwargs": {"depths": 4}}}, "'int' object is not iterable"),
        (
            {"model": {"name": "unet"}},
            "the model 'unet' takes one frame, and the input image gives one image; `lightpool models list` tells",
        ),
        (
            {"model": {"name": "hyper_lstm"}},
            "'hyper_lstm' joins the telescopes of a shower, and the input image gives it single images; set input",
        ),
        ({"model": {"name": "lenet5"}}, "24 x 24 px are too small for the model 'lenet5', which needs 32 px"),
        ({"scalars": ["hillas_lenght"]}, "unknown scalar 'hillas_lenght'"),
        ({"device": "cuda:7"}, "device 'cuda:7' is not available"),
    ],
)
def test_configuration_that_cannot_be_trained(changes, message, tiles, tmp_path):
    with pytest.raises(UserError, match=message):
        train(config(**changes), "energy", [tiles["energy"]], tmp_path / "energy")
    assert not list(tmp_path.iterdir())


def test_tiles_that_the_reductions_do_not_divide(tiles, tmp_path):
    model = {"name": "conv_autoencoder", "kwargs": {"width": 4, "depth": 6}}
    message = r"do not fit the model 'conv_autoencoder', which takes multiples of 128 px: change tiles\.sky\.size"
    with pytest.raises(UserError, match=message):
        train(config("denoise", model=model), "denoise", [tiles["denoise"]], tmp_path / "out")


def test_camera_network_for_the_sky(tiles, tmp_path):
    with pytest.raises(UserError, match="the model 'lenet5' takes one image, and the input frame gives one frame"):
        train(config("denoise", model={"name": "lenet5"}), "denoise", [tiles["denoise"]], tmp_path / "out")


def test_unknown_network(tiles, tmp_path):
    with pytest.raises(UserError, match=r"the experiment has no network 'direction'; accepted: energy$"):
        train(config(), "direction", [tiles["energy"]], tmp_path / "out")


def test_tiles_without_the_primary(tmp_path):
    batch = camera_batch(40)
    del batch.events["true_primary_id"]
    manifest = write_tiles(tmp_path, batch)
    with pytest.raises(UserError, match="no truth to train energy on: no event column true_primary_id"):
        train(config(), "energy", [manifest.path], tmp_path / "out")


@pytest.mark.parametrize(("after", "where"), [(0, "epoch 1, step 1"), (5, "epoch 2, step 2")])
def test_loss_that_is_no_number(after, where, tiles, tmp_path, monkeypatch):
    """The first step without a finite loss is named, although the losses are looked at only now and then."""
    from pipeline.tasks.energy.objective import EnergyObjective
    from pipeline.training.module import TrainingModule

    taken = TrainingModule.training_step
    steps = []

    def step(self, batch, batch_idx):
        steps.append((self.current_epoch, batch_idx))
        return taken(self, batch, batch_idx)

    def loss(self, outputs, target):
        return outputs.sum() * (np.nan if len(steps) > after else 0.0)

    monkeypatch.setattr(TrainingModule, "training_step", step)
    monkeypatch.setattr(EnergyObjective, "loss", loss)
    message = (
        rf"loss became nan in {where}: training has diverged; lower networks\.energy\.learning_rate \(now 0\.004\)"
    )
    with pytest.raises(UserError, match=message):
        train(config(), "energy", [tiles["energy"]], tmp_path / "energy")
    assert not (tmp_path / "energy").exists()
