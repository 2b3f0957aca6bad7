"""One training step: auxiliary outputs, the optimiser, the running average, losses that diverge, dead ReLUs."""

import copy

import numpy as np
import pytest
import torch
from synthetic_tiles import camera_batch, write_tiles
from torch import nn

from pipeline.config import NetworkConfig
from pipeline.errors import InputFileError, UserError
from pipeline.inputs.image import ImageInput
from pipeline.tiles import TileReader
from pipeline.training.data import Feed
from pipeline.training.heads import Heads
from pipeline.training.loop import _check_whole
from pipeline.training.module import TrainingModule
from pipeline.training.relus import ReluWatch
from pipeline.training.running_mean import RunningMean


class Pair(nn.Module):
    """A network of constants: its main output, and two auxiliary ones in training."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.5, -1.0, 2.0]))

    def forward(self, x, scalars=None):
        main, *auxiliary = (logit.expand(len(x), 1) for logit in self.logits)
        return (main, tuple(auxiliary)) if self.training else main


def module_of(network: nn.Module, **settings) -> TrainingModule:
    """For gammaness; without tiles."""
    config = NetworkConfig(heads=["gammaness"], model={"name": "by_hand"}, **settings)
    feed = Feed(ImageInput(), Heads(config), config.augmentation, seed=0)
    return TrainingModule(network, feed, config, None, None, name="mine")


def batch_of(images: torch.Tensor) -> dict[str, dict]:
    """These images, all of gammas."""
    ones = torch.ones(len(images))
    return {"inputs": {"images": images}, "heads": {"gammaness": {"gamma": ones, "weights": ones}}}


@pytest.mark.parametrize("damage", ["cut", "empty", "changed"])
def test_a_damaged_checkpoint_is_not_resumed(tmp_path, damage):
    """torch reads zeros in place of weights without a word."""
    path = tmp_path / "last.ckpt"
    torch.save({"weights": torch.arange(4096.0)}, path)
    _check_whole(path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    path.write_bytes({"cut": content[:middle], "empty": b"", "changed": content}[damage])
    with pytest.raises(InputFileError, match=r"last\.ckpt is damaged \(.+\); start again with --force"):
        _check_whole(path)


def test_auxiliary_outputs_count_by_their_weight_in_training_only(monkeypatch):
    module = module_of(Pair())
    monkeypatch.setattr(TrainingModule, "log", lambda *_, **__: None)
    batch = batch_of(torch.zeros(4, 1, 8, 8))
    each = nn.functional.softplus(-module.network.logits.detach())  # cross-entropy of a gamma
    loss = module.training_step(batch, 0)
    assert loss.item() == pytest.approx(float(each[0] + 0.3 * (each[1] + each[2])), rel=1e-5)
    # The log's training loss is compared with that of validation, which has no auxiliary outputs.
    assert float(module._train_loss.compute()) == pytest.approx(float(each[0]), rel=1e-5)
    loss.backward()
    assert (module.network.logits.grad != 0).all()
    module.eval()
    outputs, auxiliary = module.outputs(module.average, batch)
    assert auxiliary == ()
    assert outputs.shape == (4, 1)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [({}, torch.optim.AdamW), ({"optimizer": "sgd", "momentum": 0.8, "nesterov": True}, torch.optim.SGD)],
)
def test_optimizer_is_the_one_asked_for(changes, kind, tmp_path):
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    module = module_of(network, weight_decay=0.01, **changes)
    module.train_tiles = TileReader([write_tiles(tmp_path, camera_batch(40))], "train")
    optimizer = module.configure_optimizers()["optimizer"]
    assert type(optimizer) is kind
    assert [(len(group["params"]), group["weight_decay"]) for group in optimizer.param_groups] == [(1, 0.01), (3, 0.0)]
    if kind is torch.optim.SGD:
        assert all(group["momentum"] == 0.8 and group["nesterov"] for group in optimizer.param_groups)


class Normalised(nn.Module):
    """Convolution, batch normalisation (whose count of batches is an integer), and one output."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.body(images)


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """The running average, one tensor after the other."""
    current = network.state_dict()
    for name, averaged in average.state_dict().items():
        if averaged.is_floating_point():
            averaged.lerp_(current[name], 1 - decay)
        else:
            averaged.copy_(current[name])


@pytest.mark.parametrize("decay", [0.0, 0.4, 0.995])
def test_the_running_average_is_that_of_each_tensor(decay, monkeypatch):
    torch.manual_seed(0)
    module = module_of(Normalised(), average_decay=decay)
    expected = copy.deepcopy(module.average)
    optimizer = torch.optim.AdamW(module.network.parameters(), lr=0.05)
    steps = 12
    for step in range(1, steps + 1):
        batch = batch_of(torch.randn(8, 3, 8, 8))
        outputs, _ = module.outputs(module.network, batch)
        optimizer.zero_grad()
        module.heads.loss(outputs, batch["heads"]).backward()
        optimizer.step()
        monkeypatch.setattr(TrainingModule, "global_step", step)
        module.on_train_batch_end(None, batch, step - 1)
        follow(expected, module.network, min(decay, step / (step + 10)))
    found, last = module.average.state_dict(), module.network.state_dict()
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found[name], tensor), name  # to the last bit
    assert found["body.1.num_batches_tracked"].item() == steps
    assert torch.equal(found["body.0.weight"], last["body.0.weight"]) == (decay == 0)
    assert not any(parameter.requires_grad for parameter in module.average.parameters())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_diverges_is_found_at_its_step(value, monkeypatch):
    """Losses are looked at every fifty steps; the message names the step all the same."""
    module = module_of(Pair(), learning_rate=0.1, gradient_clip=2.0)
    monkeypatch.setattr(TrainingModule, "log", lambda *_, **__: None)
    good = batch_of(torch.zeros(4, 1, 8, 8))
    bad = {"inputs": good["inputs"], "heads": {"gammaness": {**good["heads"]["gammaness"]}}}
    bad["heads"]["gammaness"]["weights"] = torch.full((4,), value)
    message = (
        rf"the loss became {value} in epoch 1, step 38: training has diverged; lower networks\.mine\.learning_rate "
        r"\(now 0\.1\) or gradient_clip \(now 2\)$"
    )
    with pytest.raises(UserError, match=message):  # noqa: PT012
        for step in range(50):
            module.training_step(bad if step >= 37 else good, step)
    assert step == 49


def test_the_mean_loss_counts_tiles_not_batches():
    """The last batch of the validation split is smaller than the others."""
    mean = RunningMean()
    for value, n_tiles in ((1.0, 30), (5.0, 10)):
        mean.update(torch.tensor(value), n_tiles)
    assert mean.compute().item() == 2.0
    mean.update(torch.tensor(np.nan), 1)
    assert np.isnan(mean.compute().item())  # not left out
    mean.reset()
    mean.update(torch.tensor(3.0), 7)
    assert mean.compute().item() == 3.0


def test_dead_relus_are_counted():
    """Three ReLU channels of which one is dead, one dead in the first batch only; the ReLU is used twice."""

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
    watch = ReluWatch(network)
    for n_telescopes in (2, 4):  # vectors of all telescopes of an event
        network(torch.tensor([1.0, -1.0, -3.0]).expand(5, n_telescopes, 3))
    assert watch.close() == pytest.approx(2 / 6)
    watch = ReluWatch(network)
    network(torch.tensor([1.0, -1.0])[:, None, None].expand(7, 2, 5, 3))  # maps
    assert watch.close() == pytest.approx(1 / 4)
    assert np.isnan(ReluWatch(torch.nn.LeakyReLU()).close())
