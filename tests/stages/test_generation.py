"""Images from a network, from simulated showers to a file of generated ones and their judgement."""

import json

import h5py
import numpy as np
import pytest
from tiny_bundles import camera_bundle
from toy_events import toy_camera, write_toy_dl1

from pipeline.bundle.card import load_bundle_card
from pipeline.bundle.generator import ImageGenerator
from pipeline.camera.dl1 import DL1File
from pipeline.camera.dl1.schema import GENERATED_BY
from pipeline.config import parse_config
from pipeline.errors import InputFileError, TooFewEventsError, UserError
from pipeline.evaluation.generation import _Neighbours
from pipeline.stages.evaluate import evaluate
from pipeline.stages.explain import explain
from pipeline.stages.info import describe_file
from pipeline.stages.manifest import make_manifest
from pipeline.stages.predict import predict
from pipeline.stages.simulate_images import simulate_images
from pipeline.stages.simulate_showers import simulate_showers
from pipeline.stages.tiles import make_tiles
from pipeline.stages.train import train
from pipeline.tiles.reader import TileReader

CONTENT = {
    "name": "generated",
    "threads": 1,
    "networks": {
        "vae": {
            "heads": ["generation"], "augmentation": False, "epochs": 2, "batch_size": 16,
            "model": {"name": "conv_flow", "kwargs": {"width": 8, "latent": 2, "couplings": 2}},
        }
    },
    "showers": {
        "positions_per_shower": 12,
        "classes": [{"particle": "gamma", "runs": 1, "showers_per_run": 190, "energy_min_tev": 0.03}],
    },
    "tiles": {
        "splits": {"train": 0.6, "validation": 0.1, "test": 0.3},
        "camera": {"frame": "shower", "size": 64, "cuts": {"size_min_pe": 30, "n_pixels_min": 4, "leakage_max": 1}},
    },
    "images": {"n_images": 40},
    "evaluate": {"bootstrap": 50, "forest_trees": 20, "energy_edges_tev": [0.03, 10]},
}  # fmt: skip


@pytest.fixture(scope="module")
def cfg():
    return parse_config(CONTENT)


def changed(**sections):
    return parse_config(CONTENT | sections)


@pytest.fixture(scope="module")
def run(tmp_path_factory, cfg):
    """A simulated run, its tiles, and a bundle that was trained on them for a moment."""
    root = tmp_path_factory.mktemp("generation")
    simulate_showers(cfg, 1, root / "run.dl1.h5")
    make_tiles([root / "run.dl1.h5"], cfg, root / "tiles")
    make_manifest(sorted((root / "tiles").glob("*.h5")), cfg, root / "manifest.json")
    train(cfg, "vae", [root / "manifest.json"], root / "vae")
    return root


@pytest.fixture(scope="module")
def generated(run, cfg):
    return simulate_images(cfg, run / "vae", run / "images.dl1.h5")


def test_tiles_hold_the_photo_electrons_of_the_shower(run):
    with h5py.File(run / "run.dl1.h5") as file:
        table = file["/simulation/event/telescope/images/tel_001"][:]
    true_image = dict(zip(table["event_id"].tolist(), table["true_image"], strict=True))
    reader = TileReader([run / "manifest.json"], "all", equalise=False)
    assert [channel.name for channel in reader.channels] == [
        "true_pe",
        "peak_time",
        "timed",
        "pixel_256s",
        "pixel_rest",
    ]
    for batch in reader.sequential():
        in_tile = batch.images[:, 0].sum((1, 2), dtype=np.float64)
        whole = np.array([true_image[number].sum() for number in batch.events["event_id"].tolist()])
        assert (in_tile <= whole * 1.002).all()
        assert np.median(in_tile / whole) == pytest.approx(1, abs=2e-3)
        light = batch.images[:, 0].astype(np.float64)
        along = (light * (np.arange(64) - 7.5)).sum((1, 2)) / light.sum((1, 2))
        far = batch.events["true_impact_m"] > 100
        assert np.median(along[far]) > 10  # the core is to the right
        pixel = (256 * batch.images[:, 3].astype(int) + batch.images[:, 4].astype(int)).reshape(len(batch), -1)
        assert (batch.images[:, 0].reshape(len(batch), -1)[pixel == 0] == 0).all()
        assert pixel.max() == 1855
        for k, number in enumerate(batch.events["event_id"].tolist()):
            in_pixels = np.bincount(pixel[k], light[k].ravel(), minlength=1856)[1:]
            seen = np.isin(np.arange(1, 1856), pixel[k])
            np.testing.assert_allclose(in_pixels[seen], true_image[number][seen], rtol=2e-3, atol=2e-3)


def test_card_says_what_it_generates(run):
    card = load_bundle_card(run / "vae")
    assert card.generates
    assert card.input.preparation.classes == (0,)
    assert len(card.input.preparation.sample["0"]) > 200
    assert np.isfinite(card.validation["nats"])


def test_file_says_that_it_was_generated(run, generated, cfg):
    card = load_bundle_card(run / "vae")
    with h5py.File(generated) as file:
        assert file.attrs[GENERATED_BY].decode() == f"{card.name}, sha256 {card.bundle_sha256}"
        assert file["/configuration/simulation/run"]["n_showers"].tolist() == [0]
    with DL1File(generated) as file:
        assert json.loads(file.provenance)["bundle_sha256"] == card.bundle_sha256
    assert any("generated by" in line and card.name in line for line in describe_file(generated))
    assert not any("generated by" in line for line in describe_file(run / "run.dl1.h5"))


def test_images_are_those_of_the_telescope(run, generated):
    with DL1File(generated) as file:
        assert file.n_images == 40
        chunk = file.read(1, np.arange(40), true_images=True)
    with DL1File(run / "run.dl1.h5") as file:
        simulated = file.read(1, np.arange(100))
    assert chunk.camera.identity == simulated.camera.identity
    assert np.median(chunk.image) == pytest.approx(np.median(simulated.image), abs=0.3)  # the same night sky
    assert chunk.image.std(axis=1).min() > 0.5
    light, charge = chunk.true_image.sum(axis=1), chunk.image.sum(axis=1)
    bright = light > 200
    # Trained for a moment, the network states arrival times that the window of the readout does not all hold.
    assert 0.5 < np.median(charge[bright] / light[bright]) < 1.1
    assert (chunk.truth["true_primary_id"] == 0).all()
    assert (chunk.truth["true_offset_deg"] < 4).all()


def test_ctapipe_reads_it(generated):
    from ctapipe.io import EventSource

    with EventSource(str(generated), allowed_tels=None) as source:
        events = [event.index.event_id for event in source]
    assert len(events) == 40


def test_equal_runs_are_equal_and_others_differ(run, generated, cfg, tmp_path):
    simulate_images(cfg, run / "vae", tmp_path / "again.dl1.h5")
    simulate_images(cfg, run / "vae", tmp_path / "other.dl1.h5", run=2)
    images = []
    for path in (generated, tmp_path / "again.dl1.h5", tmp_path / "other.dl1.h5"):
        with DL1File(path) as file:
            images.append(file.read(1, np.arange(40)).image)
    np.testing.assert_array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


def test_fewer_images_are_the_first_ones(run, generated, tmp_path):
    few = changed(images={"n_images": 15})
    simulate_images(few, run / "vae", tmp_path / "few.dl1.h5")
    with DL1File(generated) as all_of_them, DL1File(tmp_path / "few.dl1.h5") as file:
        np.testing.assert_array_equal(file.read(1, np.arange(15)).image, all_of_them.read(1, np.arange(15)).image)


def test_generated_images_become_tiles_like_others(generated, tmp_path):
    made = make_tiles([generated], changed(tiles={"camera": {"size": 56}}), tmp_path)
    assert made[0]["status"] == "ok"
    assert made[0]["n_tiles"] > 10


def test_energies_are_those_asked_for(run, tmp_path):
    some = changed(images={"n_images": 10, "energy_min_tev": 0.06, "energy_max_tev": 5.0, "particle": "gamma"})
    simulate_images(some, run / "vae", tmp_path / "some.dl1.h5")
    with DL1File(tmp_path / "some.dl1.h5") as file:
        energy_tev = file.read(1, np.arange(10)).truth["true_energy_tev"]
    assert (energy_tev >= 0.06 * (1 - 1e-6)).all()
    assert (energy_tev <= 5).all()


def test_evaluation_tells_generated_from_simulated(run, cfg, tmp_path):
    evaluate(cfg, run / "vae", [run / "manifest.json"], tmp_path / "ev")
    content = json.loads((tmp_path / "ev" / "generation" / "metrics.json").read_text())
    metrics = content["metrics"]
    assert set(metrics) == {"two_sample_auc", "ks_mean", "rejected_fraction"}
    # Trained for a moment, its images are told at once; copies of the training images are far better.
    assert metrics["two_sample_auc"]["value"] > content["baselines"]["nearest"]["two_sample_auc"]["value"]
    assert 0 < metrics["ks_mean"]["value"] < 1
    assert set(content["ks"]) == {"network", "nearest", "again"}
    again = content["baselines"]["again"]
    assert again["two_sample_auc"]["low"] < 0.55
    assert again["ks_mean"]["value"] < content["baselines"]["nearest"]["ks_mean"]["value"]
    assert 0 < again["rejected_fraction"]["value"] < 0.2
    assert set(content["median_distance_to_training_images"]) == {"network", "nearest", "simulation"}
    assert set(content["nearer_to_training_images"]) == {"network", "nearest", "simulation"}
    for figure in content["figures"]:
        assert (tmp_path / "ev" / "generation" / figure["file"]).stat().st_size > 10_000


def test_what_is_remembered_is_nearer_to_the_training_images():
    rng = np.random.default_rng(5)
    training, test, made = (rng.normal(size=(n, 12)) for n in (450, 900, 900))
    neighbours = _Neighbours(training, test, np.repeat(np.arange(300), 3))
    learnt, remembered = (neighbours.distances(own) for own in (made, training[np.arange(900) % 450] + 0.01))
    assert learnt.shape == (2, 450)
    assert np.mean(learnt[0] < learnt[1]) == pytest.approx(0.5, abs=0.08)
    np.testing.assert_allclose(remembered[0], 0.01 * 12**0.5, rtol=1e-3)
    assert (remembered[0] < remembered[1]).all()
    copied = neighbours.distances(test)
    assert (copied[1] > 0).all()  # images are not compared with themselves


# ---- refusals --------------------------------------------------------------------------------------------------------
def test_other_telescopes_and_particles_are_refused(run, tmp_path):
    out = tmp_path / "no.dl1.h5"
    for sections, message in (
        ({"showers": {"telescope": "MAGIC"}}, "generates images of LSTCam .*, and the telescope MAGIC has the camera"),
        ({"showers": {"array": [{"type": "LST"}, {"type": "LST", "x_m": 90}]}}, "generated for one on its own"),
        ({"images": {"particle": "proton"}}, "was not trained on the primary 101; it has 0"),
        (
            {"images": {"energy_min_tev": 9.0}},
            r"knows \d+ training images of the primary 0 from 9 to .*; widen the range",
        ),
    ):
        with pytest.raises(UserError, match=message):
            simulate_images(changed(**sections), run / "vae", out)
        assert not list(tmp_path.iterdir())


def test_a_classifier_generates_nothing(cfg, tmp_path):
    camera_bundle(tmp_path / "energy", "energy", toy_camera().identity)
    with pytest.raises(UserError, match=r"generates no images \(its tasks: energy\)"):
        simulate_images(cfg, tmp_path / "energy", tmp_path / "no.dl1.h5")


def test_a_generator_predicts_and_explains_nothing(run, cfg, tmp_path):
    with pytest.raises(UserError, match="generates images and judges none: there is nothing to explain"):
        explain(cfg, run / "vae", run / "run.dl1.h5", event=101)
    with pytest.raises(UserError, match="generates images and predicts nothing of those that are there"):
        predict(cfg, [run / "run.dl1.h5"], [run / "vae"], tmp_path / "out")


def test_files_without_true_images_are_refused(cfg, tmp_path):
    write_toy_dl1(tmp_path / "toy.dl1.h5")
    with h5py.File(tmp_path / "toy.dl1.h5", "a") as file:
        table = file["/simulation/event/telescope/images/tel_001"]
        rows = table[:]
        rows["true_image"] = -1
        table[:] = rows
    made = make_tiles([tmp_path / "toy.dl1.h5"], cfg, tmp_path / "tiles")
    assert made[0]["status"] == "failed"
    assert "photo-electrons are not known" in made[0]["reason"]
    with h5py.File(tmp_path / "toy.dl1.h5", "a") as file:
        del file["/simulation/event/telescope/images"]
    with (
        DL1File(tmp_path / "toy.dl1.h5") as file,
        pytest.raises(InputFileError, match="has no true images of telescope"),
    ):
        file.read(1, np.arange(2), true_images=True)


def test_cameras_of_too_many_pixels_are_refused(run, cfg, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.camera.tiling._MOST_PIXELS", 1000)
    made = make_tiles([run / "run.dl1.h5"], cfg, tmp_path)
    assert made[0]["status"] == "failed"
    assert "LSTCam has 1855 pixels, and images can be generated of cameras with up to 1000" in made[0]["reason"]


def test_networks_are_checked_before_the_training(run, tmp_path):
    def network(**keys):
        return changed(networks={"vae": CONTENT["networks"]["vae"] | keys})

    for cfg, message in (
        (network(augmentation=True), "networks.vae.augmentation: images in the frame of their shower lie as they do"),
        (network(scalars="hillas"), "the input shower_frame has its own conditions"),
        (network(model={"name": "resnet18"}), "gives one vector, and the task generation needs a network that makes"),
        (network(heads=["energy"], input="shower_frame"), "the model 'conv_flow' gives one image, and the task energy"),
    ):
        with pytest.raises(UserError, match=message):
            train(cfg, "vae", [run / "manifest.json"], tmp_path / "no")


def test_too_few_images_are_refused(run, cfg):
    generator = ImageGenerator.load(run / "vae")
    few = {"0": generator.conditions.sample["0"][:20]}
    with pytest.raises(UserError, match="knows 20 training images of the primary 0"):
        generator.conditions.model_copy(update={"sample": few}).draw(5, np.random.default_rng(0), 0)
    assert issubclass(TooFewEventsError, UserError)


def test_graphs_of_older_networks_are_refused(run, monkeypatch):
    generator = ImageGenerator.load(run / "vae")
    older = generator.backend.run
    monkeypatch.setattr(generator.backend, "run", lambda feed: older(feed)[:, :3])
    wanted = generator.conditions.draw(2, np.random.default_rng(0), 0)
    with pytest.raises(
        InputFileError, match=r"gives 3 maps of an image, and 5 are needed .* train the generator again"
    ):
        generator.maps(np.zeros(2, int), wanted, np.random.default_rng(0))


def test_drawn_conditions_are_distributed_as_those_of_the_training(run):
    conditions = ImageGenerator.load(run / "vae").conditions
    drawn = conditions.draw(20_000, np.random.default_rng(0), 0)
    sample = np.array(conditions.sample["0"])
    spread = sample.std(axis=0)
    np.testing.assert_allclose(drawn.mean(axis=0) / spread, sample.mean(axis=0) / spread, atol=0.05)
    np.testing.assert_allclose(drawn.std(axis=0), sample.std(axis=0), rtol=0.05)
    np.testing.assert_allclose(np.corrcoef(drawn.T), np.corrcoef(sample.T), atol=0.05)
    assert len(np.unique(drawn[:, 0])) > 10_000  # none is a copy
