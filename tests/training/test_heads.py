"""Networks with several heads: which tiles count for which, the sum of their losses, and their metrics."""

import csv

import numpy as np
import pytest
import torch
from synthetic_tiles import camera_batch, write_tiles

from pipeline.bundle.card import load_bundle_card
from pipeline.bundle.runtime import Predictor
from pipeline.config import NetworkConfig, parse_config
from pipeline.errors import TooFewEventsError, UserError
from pipeline.inputs.image import ImageInput
from pipeline.stages.train import train
from pipeline.tiles import Manifest, TileBatch, TileReader
from pipeline.training.data import Feed, as_tensors
from pipeline.training.heads import Heads

BOTH = {"energy": {}, "gammaness": {}}
MODEL = {"name": "resnet18", "kwargs": {"width": 4, "stem": "stride2", "depths": [1, 1]}}


def heads_of(options=BOTH) -> Heads:
    return Heads(NetworkConfig(heads=options, model=MODEL))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Manifest:
    """Gammas and hadrons whose spectra differ, with weights that make them alike."""
    batch = camera_batch(400)
    rng = np.random.default_rng(2)
    hadron = batch.events["true_primary_id"] != 0
    keep = ~hadron | (rng.random(400) < np.where(batch.events["true_energy_tev"] > 1, 1.0, 0.3))
    return write_tiles(tmp_path_factory.mktemp("tiles"), batch.select(keep), equalised={"true_energy_tev": 3})


def all_tiles(heads: Heads, manifest: Manifest) -> TileBatch:
    return TileBatch.concatenate(list(heads.reader([manifest], "train").sequential()))


def test_outputs_are_those_of_the_heads_in_their_order():
    heads = heads_of()
    assert heads.output_names == ("energy.log10_energy_tev", "energy.log_variance", "gammaness.logit")
    assert heads.num_outputs == 3
    assert [head.first for head in heads.heads] == [0, 2]
    other = heads_of({"gammaness": {}, "energy": {"uncertainty": False}})
    assert other.output_names == ("gammaness.logit", "energy.log10_energy_tev")
    assert [head.first for head in other.heads] == [0, 1]


def test_each_head_is_given_its_own_outputs():
    outputs = torch.arange(12.0).reshape(4, 3)
    energy, gammaness = heads_of().heads
    assert energy.of(outputs, {"rows": torch.tensor([0, 2])}).tolist() == [[0, 1], [6, 7]]
    assert gammaness.of(outputs, {}).tolist() == [[2], [5], [8], [11]]


def test_the_energy_has_gammas_alone_and_no_class_weights(manifest):
    heads = heads_of()
    assert heads.columns == ("true_primary_id",)
    tiles = all_tiles(heads, manifest)
    gamma = tiles.events["true_primary_id"] == 0
    assert 0 < gamma.sum() < len(tiles)
    assert np.ptp(tiles.weights[gamma]) > 0.1  # class weights change the gammas' spectrum
    found = heads.arrays(tiles)
    np.testing.assert_array_equal(found["energy"]["rows"], np.flatnonzero(gamma))
    np.testing.assert_array_equal(found["energy"]["weights"], tiles.base_weights[gamma])
    np.testing.assert_array_equal(found["energy"]["weights"], 1)
    np.testing.assert_array_equal(found["energy"]["log10_energy"], tiles.targets["energy"][gamma, 0])
    assert "rows" not in found["gammaness"]
    np.testing.assert_array_equal(found["gammaness"]["weights"], tiles.weights)
    np.testing.assert_array_equal(found["gammaness"]["gamma"], gamma)


@pytest.mark.parametrize("task", ["energy", "gammaness"])
def test_a_single_head_has_what_its_reader_selects(task, manifest):
    """Alone or with others, a head is trained on the same tiles, targets and weights."""
    alone = heads_of({task: {}})
    spec = alone.heads[0].objective.spec
    reader = TileReader([manifest], "train", where=spec.where, equalise=spec.equalise)
    tiles = TileBatch.concatenate(list(reader.sequential()))
    expected = {"weights": tiles.weights, **alone.heads[0].objective.targets.arrays(tiles)}
    assert alone.columns == ()
    found = alone.arrays(all_tiles(alone, manifest))[task]
    together = heads_of()
    shared = together.arrays(all_tiles(together, manifest))[task]
    assert found.keys() == expected.keys() == shared.keys() - {"rows"}
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
        np.testing.assert_array_equal(shared[name], array)


def test_losses_are_summed_with_the_weights_of_the_heads(manifest, rng):
    heads = heads_of({"energy": {"weight": 0.25}, "gammaness": {"weight": 3.0}})
    tiles = all_tiles(heads, manifest)
    targets = as_tensors(heads.arrays(tiles))
    outputs = torch.from_numpy(rng.normal(size=(len(tiles), 3))).float()
    gamma = torch.from_numpy(tiles.events["true_primary_id"] == 0)
    energy, gammaness = (head.objective for head in heads.heads)
    expected = 0.25 * energy.loss(outputs[gamma, :2], targets["energy"])
    expected = expected + 3.0 * gammaness.loss(outputs[:, 2:], targets["gammaness"])
    assert heads.loss(outputs, targets).item() == pytest.approx(expected.item(), rel=1e-6)
    (alone,) = heads_of({"gammaness": {}}).heads
    loss = heads_of({"gammaness": {}}).loss(outputs[:, 2:], {"gammaness": targets["gammaness"]})
    assert torch.equal(loss, alone.objective.loss(outputs[:, 2:], targets["gammaness"]))


def test_a_batch_without_gammas_adds_no_energy_loss(manifest):
    heads = heads_of()
    tiles = all_tiles(heads, manifest)
    tiles = tiles.select(tiles.events["true_primary_id"] != 0)
    targets = as_tensors(heads.arrays(tiles))
    assert len(targets["energy"]["rows"]) == 0
    outputs = torch.zeros(len(tiles), 3, requires_grad=True)
    loss = heads.loss(outputs, targets)
    assert [head.task for head, _ in heads.losses(outputs, targets)] == ["gammaness"]
    assert torch.equal(loss, heads.heads[1].objective.loss(outputs[:, 2:], targets["gammaness"]))
    loss.backward()
    assert torch.isfinite(loss)
    assert (outputs.grad[:, :2] == 0).all()
    assert (outputs.grad[:, 2] != 0).any()


def test_a_batch_that_counts_for_no_head_has_a_loss_of_nothing(manifest):
    heads = heads_of()
    tiles = all_tiles(heads, manifest).select(slice(0, 0))
    outputs = torch.zeros(0, 3, requires_grad=True)
    loss = heads.loss(outputs, as_tensors(heads.arrays(tiles)))
    loss.backward()
    assert loss.item() == 0


def test_validation_metrics_have_the_names_of_their_heads(manifest, rng):
    """Batch by batch they are those of each head alone, also where a batch has no gamma."""
    heads = heads_of()
    assert (heads.monitor.metric, heads.monitor.better) == ("loss", "lower")
    tiles = all_tiles(heads, manifest)
    hadrons = np.flatnonzero(tiles.events["true_primary_id"] != 0)[:20]
    parts = [hadrons, np.setdiff1d(np.arange(len(tiles)), hadrons)]
    outputs = torch.from_numpy(rng.normal(size=(len(tiles), 3))).float()
    metrics = heads.metrics()
    for part in parts:
        metrics.update(outputs[part], as_tensors(heads.arrays(tiles.select(part))))
    found = metrics.compute()
    assert list(found) == [
        "energy_loss", "energy_log10_energy_rms", "energy_log10_energy_bias", "energy_pull_rms",
        "gammaness_loss", "gammaness_auc",
    ]  # fmt: skip
    targets = as_tensors(heads.arrays(tiles))
    for head in heads.heads:
        own, target = head.of(outputs, targets[head.task]), targets[head.task]
        alone = head.objective.metrics()
        alone.update(own, target)
        expected = {"loss": head.objective.loss(own, target), **alone.compute()}
        for name, value in expected.items():
            assert found[f"{head.task}_{name}"] == pytest.approx(float(value), rel=1e-5), name


def test_metrics_of_a_single_head_keep_their_names(manifest, rng):
    heads = heads_of({"gammaness": {}})
    assert heads.monitor.metric == "auc"
    tiles = all_tiles(heads, manifest)
    metrics = heads.metrics()
    metrics.update(torch.from_numpy(rng.normal(size=(len(tiles), 1))).float(), as_tensors(heads.arrays(tiles)))
    assert list(metrics.compute()) == ["auc"]


def test_targets_reach_a_batch_with_the_columns_that_select_them(manifest):
    """Event columns that nothing else needs are read for the selection."""
    heads = heads_of()
    feed = Feed(ImageInput(), heads, heads.config.augmentation, seed=0)
    assert feed.columns == ("true_primary_id",)
    tiles = next(heads.reader([manifest], "train").shuffled(0, 0, 32, columns=feed.columns))
    batch = feed.training_batch(tiles, epoch=0, step=0)
    assert batch["heads"]["energy"]["rows"].dtype is torch.int64
    assert torch.isfinite(heads.loss(torch.zeros(32, 3), batch["heads"]))


# ---- the whole stage -------------------------------------------------------------------------------------------------
def test_a_bundle_with_two_heads(manifest, tmp_path):
    section = {
        "heads": {"energy": {"weight": 2.0}, "gammaness": {"label_smoothing": 0.1}},
        "model": MODEL, "scalars": ["log10_hillas_intensity"], "epochs": 2, "batch_size": 32, "precision": "float32",
    }  # fmt: skip
    cfg = parse_config({"seed": 3, "threads": 1, "device": "cpu", "networks": {"both": section}})
    bundle = train(cfg, "both", [manifest.path], tmp_path / "both")
    card = load_bundle_card(bundle)
    assert (card.network, card.tasks, card.wing) == ("both", ("energy", "gammaness"), "camera")
    assert [(head.first, head.outputs) for head in card.heads] == [
        (0, ("log10_energy_tev", "log_variance")),
        (2, ("logit",)),
    ]
    assert card.head("energy").options == {"weight": 2.0, "uncertainty": True}
    assert card.head("gammaness").options == {"weight": 1.0, "label_smoothing": 0.1}
    assert card.model.num_outputs == 3
    with open(bundle / "train_log.csv") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        assert np.isfinite([float(row["energy_log10_energy_rms"]), float(row["gammaness_auc"])]).all()
    losses = [float(row["loss"]) for row in rows]
    assert card.training.best_epoch == 1 + int(np.argmin(losses))
    assert card.validation["loss"] == min(losses)
    predictor = Predictor.load(bundle, threads=1)
    batch = camera_batch(8, seed=5)
    found = predictor.predict(batch)
    assert list(found) == ["reco_energy_tev", "reco_energy_uncert_tev", "gammaness"]
    assert list(found) == [column.name for column in predictor.columns]
    outputs = predictor.outputs(batch)
    np.testing.assert_allclose(found["reco_energy_tev"], 10.0 ** outputs[:, 0], rtol=1e-5)
    np.testing.assert_allclose(found["gammaness"], 1 / (1 + np.exp(-outputs[:, 2])), rtol=1e-5)
    text = (bundle / "MODEL_CARD.md").read_text()
    assert "tasks: energy, gammaness (camera)" in text
    assert all(f"`{name}`" in text for name in found)


# ---- tiles of several cameras -------------------------------------------------------------------------------------
TWO_CAMERAS = (("hexagon-7-a", "NectarCam", "MST"), ("hexagon-7-b", "LSTCam", "LST"))


def of_two_cameras(folder, n=240, name="run"):
    batch = camera_batch(n)
    batch.events["camera"] = (np.arange(n) // 4 % 2).astype(np.int16)
    return write_tiles(folder, batch, name, cameras=TWO_CAMERAS)


def heads_on(camera) -> Heads:
    return Heads(NetworkConfig(heads=BOTH, model=MODEL, camera=camera))


@pytest.mark.parametrize(("camera", "place"), [("MST", 0), ("NectarCam", 0), ("hexagon-7-b", 1)])
def test_a_network_reads_the_tiles_of_its_camera(camera, place, tmp_path):
    manifest = of_two_cameras(tmp_path)
    heads = heads_on(camera)
    heads.check([manifest])
    reader = heads.reader([manifest], "train")
    whole = TileReader([manifest], "train").events(["camera"])["camera"]
    assert reader.n_tiles == np.count_nonzero(whole == place) < len(whole)
    # Cameras are counted among those that are read.
    assert set(reader.events(["camera"])["camera"].tolist()) == {0}
    assert [known.identity for known in reader.cameras] == [TWO_CAMERAS[place][0]]


def test_single_images_of_several_cameras_need_a_choice(tmp_path):
    manifest = of_two_cameras(tmp_path)
    choices = "NectarCam, MST, hexagon-7-a; LSTCam, LST, hexagon-7-b"
    with pytest.raises(UserError, match=rf"are of 2 cameras, .* takes one; set networks\.NAME\.camera .*: {choices}"):
        heads_on(None).check([manifest])
    with pytest.raises(UserError, match=rf"have no camera 'SST'; set networks\.NAME\.camera .*: {choices}"):
        heads_on("SST").reader([manifest], "train")


def test_a_camera_without_tiles_is_named(tmp_path):
    manifest = write_tiles(tmp_path, camera_batch(60), cameras=TWO_CAMERAS)
    with pytest.raises(
        TooFewEventsError, match="the train split has no tile with true_primary_id = 0 of LST to train energy on"
    ):
        heads_on("LST").check([manifest])


def test_the_card_names_the_camera_that_was_trained_on(tmp_path):
    manifest = of_two_cameras(tmp_path)
    section = {"heads": ["gammaness"], "model": MODEL, "camera": "LST", "epochs": 1, "precision": "float32"}
    cfg = parse_config({"seed": 3, "threads": 1, "device": "cpu", "networks": {"mono_lst": section}})
    card = load_bundle_card(train(cfg, "mono_lst", [manifest.path], tmp_path / "mono_lst"))
    assert [(camera.identity, camera.name) for camera in card.cameras] == [("hexagon-7-b", "LSTCam")]
    assert card.training.n_images == heads_on("LST").reader([manifest], "train").n_tiles


# ---- what is refused -------------------------------------------------------------------------------------------------
def test_tiles_that_count_for_one_head_only(tmp_path):
    manifest = write_tiles(tmp_path, camera_batch(60, gamma=False))
    with pytest.raises(TooFewEventsError, match="the train split has no tile with true_primary_id = 0 to train energy"):
        heads_of().check([manifest])


def test_tiles_without_the_truth_of_one_head(tmp_path):
    batch = camera_batch(60)
    del batch.targets["energy"]
    with pytest.raises(UserError, match=r"no truth to train energy on: no target 'energy' \(they have direction, ga"):
        heads_of().check([write_tiles(tmp_path, batch)])


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        (["energy", "denoise"], r"networks\.both: heads of one network share the wing and give all vectors"),
        (["energy", "colour"], r"unknown task 'colour'.*accepted: "),
        (
            "energy",
            r"networks\.both\.heads: Input should be a list of tasks, or a mapping of tasks to their options",
        ),
        ({"energy": {"weight": 0}}, r"networks\.both\.heads: energy: weight: Input should be greater than 0, got 0"),
        ([], r"networks\.both\.heads: Dictionary should have at least 1 item"),
    ],
)
def test_heads_that_make_no_network(heads, message):
    with pytest.raises(UserError, match=message):
        parse_config({"networks": {"both": {"heads": heads, "model": MODEL}}})
