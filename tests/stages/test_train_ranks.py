"""Runs that are stopped, killed or shared by two ranks: their weights are those of an undisturbed run."""

import json
import os
import signal

import pytest
from synthetic_tiles import array_batch, camera_batch, write_tiles
from two_ranks import run_ranks

from pipeline.bundle.card import load_bundle_card
from pipeline.config import Config, parse_config
from pipeline.errors import Terminated, UserError
from pipeline.provenance import sha256_file
from pipeline.stages.train import train
from pipeline.training.module import TrainingModule

MODEL = {"name": "resnet18", "kwargs": {"width": 4, "stem": "stride2", "depths": [1, 1], "drop_rate": 0.1}}
FILES = ("weights.safetensors", "train_log.csv")


def config(minutes: float = 0, **changes) -> Config:
    section = {"heads": ["energy", "gammaness"], "model": MODEL, "axis_maps": False, "epochs": 2, "batch_size": 8}
    run = {"seed": 3, "threads": 1, "device": "cpu", "checkpoint_minutes": minutes}
    return parse_config(run | {"networks": {"mono": section | {"precision": "float32"} | changes}})


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return write_tiles(tmp_path_factory.mktemp("tiles"), camera_batch(300), equalised={"true_energy_tev": 3}).path


def digests(bundle) -> list[str]:
    return [sha256_file(bundle / name) for name in FILES]


class PulledPlugError(Exception):
    """Stands for a kill: nothing of ours catches it."""


def disturb(what, epoch: int, step: int, monkeypatch, rank: str | None = None) -> None:
    """Do `what` in a step of one rank."""

    def training_step(self, batch, batch_idx):
        if (self.current_epoch, batch_idx) == (epoch, step) and os.environ.get("RANK") == rank:
            what()
        return unharmed(self, batch, batch_idx)

    unharmed = TrainingModule.training_step
    monkeypatch.setattr(TrainingModule, "training_step", training_step)


def pull_plug():
    raise PulledPlugError


# ---- one rank --------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def undisturbed(tiles, tmp_path_factory):
    return digests(train(config(minutes=99), "mono", [tiles], tmp_path_factory.mktemp("one") / "mono"))


@pytest.mark.parametrize(
    ("epoch", "step"), [pytest.param(0, 1, marks=pytest.mark.slow), (0, 7), pytest.param(1, 3, marks=pytest.mark.slow)]
)
def test_a_killed_run_goes_on_within_the_epoch(epoch, step, undisturbed, tiles, tmp_path, monkeypatch, caplog):
    out = tmp_path / "mono"
    with monkeypatch.context() as patch:
        disturb(pull_plug, epoch, step, patch)
        with pytest.raises(PulledPlugError):
            train(config(), "mono", [tiles], out)
    steps = []
    disturb(lambda: steps.append(1), epoch, step - 1, monkeypatch)
    with caplog.at_level("INFO", logger="lightpool"):
        train(config(), "mono", [tiles], out)
    assert not steps  # that step was not taken again
    assert f"resuming after epoch {epoch} of 2 and {step} steps of " in caplog.text
    assert digests(out) == undisturbed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_run_that_is_asked_to_end_saves_its_state(number, undisturbed, tiles, tmp_path, monkeypatch, caplog):
    out, usual = tmp_path / "mono", signal.getsignal(number)
    with monkeypatch.context() as patch:
        disturb(lambda: os.kill(os.getpid(), number), 1, 2, patch)
        with pytest.raises(Terminated) as end:
            train(config(minutes=99), "mono", [tiles], out)
    assert end.value.code == 128 + number
    assert signal.getsignal(number) is usual
    assert f"stopped by {number.name} after step 3 of " in caplog.text
    assert f"in epoch 2; the state is in {out}.ckpt: run the same command again to resume" in caplog.text
    train(config(minutes=99), "mono", [tiles], out)
    assert digests(out) == undisturbed


def test_a_second_signal_ends_at_once(tiles, tmp_path, monkeypatch):
    def twice():
        signal.raise_signal(signal.SIGTERM)
        monkeypatch.setattr("pipeline.training.checkpoints._REPEATED_S", 0.0)
        signal.raise_signal(signal.SIGTERM)

    def end(number, frame):
        raise PulledPlugError

    usual = signal.signal(signal.SIGTERM, end)
    try:
        disturb(twice, 0, 2, monkeypatch)
        with pytest.raises(PulledPlugError):
            train(config(minutes=99), "mono", [tiles], tmp_path / "mono")
    finally:
        signal.signal(signal.SIGTERM, usual)
    assert not (tmp_path / "mono.ckpt").exists()


def test_signals_that_come_together_are_one(tiles, tmp_path, monkeypatch):
    """Slurm sends them to all processes, and torchrun passes on its own."""

    def several():
        for number in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGTERM):
            signal.raise_signal(number)

    disturb(several, 0, 2, monkeypatch)
    with pytest.raises(Terminated) as end:
        train(config(minutes=99), "mono", [tiles], tmp_path / "mono")
    assert end.value.code == 128 + signal.SIGUSR1
    assert (tmp_path / "mono.ckpt" / "last.ckpt").exists()


# ---- two ranks -------------------------------------------------------------------------------------------------------
def train_all(cfg, tiles, out):
    return train(cfg, next(iter(cfg.networks)), [tiles], out)


@pytest.fixture(scope="module")
def undisturbed_pair(tiles, tmp_path_factory):
    out = tmp_path_factory.mktemp("two") / "mono"
    _, codes = run_ranks(train_all, config(minutes=99), tiles, out)
    assert codes == [0, 0]
    return out


@pytest.mark.slow
def test_two_ranks_make_one_bundle(undisturbed_pair, undisturbed):
    assert {path.name for path in undisturbed_pair.parent.iterdir()} == {"mono", "mono.provenance.json"}
    card = load_bundle_card(undisturbed_pair)
    assert card.training.ranks == 2
    assert card.training.epochs == 2
    assert json.loads((undisturbed_pair.parent / "mono.provenance.json").read_text())["ranks"] == 2
    assert digests(undisturbed_pair) != undisturbed  # another order


@pytest.mark.slow
@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_killed_rank_changes_nothing(rank, undisturbed_pair, tiles, tmp_path, monkeypatch):
    out = tmp_path / "mono"
    with monkeypatch.context() as patch:
        disturb(lambda: os.kill(os.getpid(), signal.SIGKILL), 1, 12, patch, rank=rank)
        _, codes = run_ranks(train_all, config(), tiles, out)
    assert codes[int(rank)] == -signal.SIGKILL
    assert codes[1 - int(rank)] == 1  # it has lost the other one
    assert (tmp_path / "mono.ckpt" / "last.ckpt").exists()
    _, codes = run_ranks(train_all, config(minutes=99), tiles, out)
    assert codes == [0, 0]
    assert digests(out) == digests(undisturbed_pair)


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 12])
def test_a_signal_to_one_rank_ends_both_behind_the_same_step(step, undisturbed_pair, tiles, tmp_path, monkeypatch):
    out = tmp_path / "mono"
    with monkeypatch.context() as patch:
        disturb(lambda: os.kill(os.getpid(), signal.SIGUSR1), 0, step, patch, rank="1")
        _, codes = run_ranks(train_all, config(minutes=99), tiles, out)
    assert codes == 2 * [128 + signal.SIGUSR1]
    assert not out.exists()
    with pytest.raises(UserError, match="holds an unfinished run of another configuration, data or version"):
        train(config(minutes=99), "mono", [tiles], out)  # one rank is another run
    _, codes = run_ranks(train_all, config(minutes=99), tiles, out)
    assert codes == [0, 0]
    assert digests(out) == digests(undisturbed_pair)


@pytest.mark.slow
def test_two_ranks_train_on_events_of_several_cameras(tmp_path):
    """A batch of one rank may have no image of one kind of camera."""
    batch = array_batch(60, (1, 0, 1))
    events = batch.events["event_id"]
    batch = batch.select((batch.events["camera"] == 1) | (events % 5 == 0))  # one camera is rare
    cameras = (("hexagon-a", "NectarCam", "MST"), ("hexagon-b", "LSTCam", "LST"))
    tiles = write_tiles(tmp_path, batch, cameras=cameras, equalised={"true_energy_tev": 2}).path
    encoder = {"encoder": "resnet18", "encoder_kwargs": {"width": 4, "stem": "stride2", "depths": [1]}}
    section = {
        "input": "shower", "heads": ["gammaness"], "model": {"name": "stereo_mean", "kwargs": {"width": 8, **encoder}},
        "epochs": 2, "batch_size": 4, "precision": "float32",
    }  # fmt: skip
    cfg = parse_config({"seed": 5, "threads": 1, "device": "cpu", "networks": {"stereo": section}})
    _, codes = run_ranks(train_all, cfg, tiles, tmp_path / "stereo")
    assert codes == [0, 0]
    assert load_bundle_card(tmp_path / "stereo").training.ranks == 2
