"""Several ranks: what each is told, its part of the tiles, and that together they do what one rank does."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from synthetic_tiles import array_batch, camera_batch, write_tiles
from torch import nn
from two_ranks import environment, run_ranks

from pipeline.config import NetworkConfig
from pipeline.errors import UserError
from pipeline.inputs import get_input
from pipeline.tiles.events import EventReader, starts_of
from pipeline.tiles.reader import WHOLE, Part, TileReader
from pipeline.training.data import Feed, TrainingBatches
from pipeline.training.heads import Heads
from pipeline.training.module import TrainingModule
from pipeline.training.ranks import ALONE, Ranks


# ---- what a rank is told ---------------------------------------------------------------------------------------------
def test_ranks_are_those_of_torchrun():
    assert Ranks.of_environment({}) == ALONE
    assert not ALONE.together
    ranks = Ranks.of_environment(environment(3, 4, 0) | {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"})
    assert (ranks.rank, ranks.n_ranks, ranks.local_rank, ranks.n_local, ranks.n_nodes) == (3, 4, 1, 2, 2)
    assert ranks.part == Part(3, 4)


def test_equal_tasks_of_slurm_without_torchrun():
    with pytest.raises(UserError, match=r"one of 4 equal tasks of a Slurm step, .* start one torchrun per node"):
        Ranks.of_environment({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "1"})
    assert Ranks.of_environment({"SLURM_STEP_NUM_TASKS": "1"}) == ALONE
    assert Ranks.of_environment({"SLURM_STEP_NUM_TASKS": "2"} | environment(1, 2, 0)).rank == 1


def test_the_batch_is_that_of_all_ranks():
    assert Ranks(0, 4).share_of(32, "mono") == 8
    with pytest.raises(UserError, match=r"networks\.mono\.batch_size is 30, .* use a multiple of 4$"):
        Ranks(0, 4).share_of(30, "mono")


def test_each_rank_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert Ranks(3, 4, 1, 2).device("auto") == "cuda:1"
    assert Ranks(2, 4, 0, 2).device("cuda") == "cuda:0"
    assert Ranks(1, 2, 0, 1).device("cuda:1") == "cuda:1"
    assert Ranks(1, 2, 1, 2).device("cpu") == "cpu"
    assert ALONE.device("cuda:1") == "cuda:1"
    with pytest.raises(UserError, match="device 'cuda:0' is one GPU for 2 ranks of this node; use --device cuda"):
        Ranks(3, 4, 1, 2).device("cuda:0")
    with pytest.raises(UserError, match="3 ranks were started on a node with 2 GPUs; give torchrun --nproc-per-node"):
        Ranks(2, 3, 2, 3).device("auto")


# ---- parts of the tiles ----------------------------------------------------------------------------------------------
def read_keys(reader, seed, epoch, batch_size, part=WHOLE):
    """Which tiles each batch has, by number of shard and event."""
    stream = reader.shuffled(seed, epoch, batch_size, columns=["event_id", "tel_id"], part=part, buffer_blocks=2)
    return [
        list(zip(b.group.tolist(), *(b.events[k].tolist() for k in ("event_id", "tel_id")), strict=True))
        for b in stream
    ]


@pytest.fixture
def manifests(tmp_path):
    """Two shards whose tiles fill no block."""
    batches = array_batch(150, (0, 0, 1)), array_batch(117, (0, 1))
    return [
        write_tiles(tmp_path, batch, name, cameras=(("hexagon-a",), ("hexagon-b",)))
        for name, batch in zip("ab", batches, strict=True)
    ]


@pytest.mark.parametrize("kind", [TileReader, EventReader])
@pytest.mark.parametrize("n_ranks", [2, 3, 4])
def test_the_parts_are_the_epoch(kind, n_ranks, manifests):
    reader = kind(manifests, "train", equalise=False)
    n_items = reader.n_events if kind is EventReader else reader.n_tiles
    assert reader.block_items.sum() == n_items
    of_each = 4
    parts = [read_keys(reader, 1, 0, of_each, Part(rank, n_ranks)) for rank in range(n_ranks)]
    assert {len(part) for part in parts} == {reader.n_batches(of_each * n_ranks)}
    tiles = [key for part in parts for batch in part for key in batch]
    assert len(set(tiles)) == len(tiles)  # no tile twice
    items = {key[:2] for key in tiles} if kind is EventReader else tiles
    assert len(items) == n_items // (of_each * n_ranks) * of_each * n_ranks  # as one rank reads them
    assert read_keys(reader, 1, 0, of_each, Part(1, n_ranks)) == parts[1]
    assert read_keys(reader, 1, 1, of_each, Part(1, n_ranks)) != parts[1]
    assert read_keys(reader, 2, 0, of_each, Part(1, n_ranks)) != parts[1]


def test_fewer_tiles_than_a_batch_are_one_step_of_each_rank(manifests):
    reader = TileReader(manifests, "train", equalise=False)
    sizes = [[len(batch) for batch in read_keys(reader, 1, 0, 10_000, Part(rank, 3))] for rank in range(3)]
    assert sizes == 3 * [[reader.n_tiles // 3]]


@pytest.mark.parametrize("kind", [TileReader, EventReader])
@pytest.mark.parametrize("n_ranks", [2, 3, 20])
def test_ranks_share_the_batches_of_validation(kind, n_ranks, manifests):
    reader = kind(manifests, "validation", equalise=False)

    def batches(part):
        stream = reader.in_batches(16, ["event_id", "tel_id"], part)
        return [list(zip(b.group.tolist(), b.events["event_id"], b.events["tel_id"], strict=True)) for b in stream]

    parts = [batches(Part(rank, n_ranks)) for rank in range(n_ranks)]
    assert [batch for part in parts for batch in part] == batches(WHOLE)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_events_stay_whole_where_ranks_share_a_block(manifests):
    reader = EventReader(manifests, "train", equalise=False)
    for rank in range(3):
        for batch in reader.shuffled(0, 0, 4, part=Part(rank, 3)):
            sizes = np.diff(starts_of(batch), append=len(batch))
            assert len(sizes) == 4
            assert set(sizes.tolist()) <= {2, 3}


def test_ranks_draw_their_own_augmentation(manifests):
    config = NetworkConfig(heads=["gammaness"], model={"name": "by_hand"}, axis_maps=False)
    reader = TileReader(manifests, "train")
    feed = Feed(get_input("image").fit(reader), Heads(config), config.augmentation, 0)
    tiles = next(iter(reader.sequential()))
    made = [feed.training_batch(tiles, 0, 0, Part(rank, n))["inputs"]["images"] for rank, n in ((0, 1), (0, 2), (1, 2))]
    assert not torch.equal(made[1], made[2])
    assert torch.equal(made[0], feed.training_batch(tiles, 0, 0)["inputs"]["images"])


def test_a_run_goes_on_within_an_epoch(manifests):
    config = NetworkConfig(heads=["gammaness"], model={"name": "by_hand"}, axis_maps=False)
    reader = TileReader(manifests, "train")
    feed = Feed(get_input("image").fit(reader), Heads(config), config.augmentation, 0)
    whole = list(TrainingBatches(reader, feed, epoch=1, batch_size=16))
    rest = TrainingBatches(reader, feed, epoch=1, batch_size=16, first_step=3)
    assert len(rest) == len(whole)
    for found, expected in zip(rest, whole[3:], strict=True):
        assert torch.equal(found["inputs"]["images"], expected["inputs"]["images"])


# ---- two ranks and one -----------------------------------------------------------------------------------------------
class Small(nn.Module):
    """A network without normalisation: a share of a batch gives its share of the gradient."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 5, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(100, num_outputs))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.body(images)


@pytest.fixture(scope="module")
def both_classes(tmp_path_factory):
    batch = camera_batch(300)
    batch.events["true_primary_id"] = np.where(np.arange(300) < 200, 101, 0).astype(np.int16)  # blocks of one class
    return write_tiles(tmp_path_factory.mktemp("tiles"), batch, equalised={"true_energy_tev": 3})


def module_of(manifest, ranks=ALONE, heads=("direction", "gammaness")) -> TrainingModule:
    config = NetworkConfig(heads=list(heads), model={"name": "by_hand"}, axis_maps=False, batch_size=32)
    made = Heads(config)
    torch.manual_seed(0)
    readers = [made.reader([manifest], split) for split in ("train", "validation")]
    feed = Feed(get_input("image").fit(readers[0]), made, config.augmentation, 0)
    return TrainingModule(Small(made.num_outputs), feed, config, *readers, ranks=ranks)


def validation_row(manifest, heads) -> dict[str, float]:
    ranks = Ranks.of_environment()
    with ranks.joined("cpu"):
        module = module_of(manifest, ranks, heads)
        module.eval()
        module.on_validation_epoch_start()
        with torch.no_grad():
            for step, batch in enumerate(module.val_dataloader()):
                module.validation_step(batch, step)
        module._train_loss.update(torch.tensor(float(ranks.rank)), 1)
        module.trainer = SimpleNamespace(optimizers=[SimpleNamespace(param_groups=[{"lr": 0.1}])])
        return module.epoch_summary()


@pytest.mark.parametrize("heads", [("gammaness",), ("energy", "gammaness"), ("direction", "energy")])
def test_metrics_of_two_ranks_are_those_of_one(heads, both_classes):
    """Also of heads that the tiles of one rank do not count for: its blocks have no gamma."""
    (first, second), codes = run_ranks(validation_row, both_classes, heads)
    assert codes == [0, 0]
    assert first == second  # to the last bit: they stop and choose alike
    assert first.pop("train_loss") == 0.5
    expected = validation_row(both_classes, heads)
    expected.pop("train_loss")
    assert first == pytest.approx(expected, rel=1e-6)
    assert len(first) > 3


def gradient(manifest, steps: int) -> list[np.ndarray]:
    """Mean gradient of the first steps on this rank's tiles, or with one rank on those of both."""
    ranks = Ranks.of_environment()
    with ranks.joined("cpu"):
        module = module_of(manifest, ranks)
        module.log = lambda *_, **__: None
        network = nn.parallel.DistributedDataParallel(module.network) if ranks.together else module.network
        module.outputs = lambda network_, batch: (network(batch["inputs"]["images"]), ())
        parts = [ranks.part] if ranks.together else [Part(0, 2), Part(1, 2)]
        streams = [TrainingBatches(module.train_tiles, module.feed, epoch=0, batch_size=32, part=p) for p in parts]
        for step, batches in zip(range(steps), zip(*streams, strict=True), strict=False):
            module.training_step(joined(batches), step).backward()
        return [parameter.grad.numpy() for parameter in module.network.parameters()]


def joined(batches):
    """One batch of the shares of all ranks."""
    if len(batches) == 1:
        return batches[0]
    n, heads = 0, {}
    for task in batches[0]["heads"]:
        targets = [dict(batch["heads"][task]) for batch in batches]
        for target, batch in zip(targets, batches, strict=True):
            if "rows" in target:
                target["rows"] = target["rows"] + n * (batch is not batches[0])
            n = len(batches[0]["inputs"]["images"])
        heads[task] = {name: torch.cat([target[name] for target in targets]) for name in targets[0]}
    return {"inputs": {"images": torch.cat([batch["inputs"]["images"] for batch in batches])}, "heads": heads}


def test_the_gradient_of_two_ranks_is_that_of_the_whole_batch(both_classes):
    """Also of the head that only gammas count for, of which the ranks have unlike numbers."""
    (first, second), codes = run_ranks(gradient, both_classes, 4)
    assert codes == [0, 0]
    expected = gradient(both_classes, 4)
    for mine, other, whole in zip(first, second, expected, strict=True):
        np.testing.assert_array_equal(mine, other)
        np.testing.assert_allclose(mine, whole, rtol=1e-4, atol=1e-6)
    assert "RANK" not in os.environ


@pytest.mark.slow
def test_ranks_end_behind_their_last_backward_pass(both_classes):
    """One of five waited for a thread of Gloo that waited for the interpreter's lock."""
    for _ in range(25):
        _, codes = run_ranks(gradient, both_classes, 4, timeout_s=60)
        assert codes == [0, 0]
