"""Networks of whole events that cameras of several kinds saw, started from a network for the images of each."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file
from synthetic_tiles import array_batch, write_tiles

from pipeline.bundle.card import load_bundle_card
from pipeline.bundle.description import _images_per_cpu_s
from pipeline.bundle.runtime import EventPredictor, Predictor
from pipeline.config import Config, parse_config
from pipeline.errors import UserError
from pipeline.inputs.shower import events_of
from pipeline.stages.train import train
from pipeline.tiles.events import EventReader
from pipeline.tiles.reader import TileReader
from pipeline.training.ranks import ALONE

CAMERAS = (("hexagon-a", "NectarCam", "MST"), ("hexagon-b", "LSTCam", "LST"))
SINGLE = {
    "heads": ["gammaness"],
    "model": {"name": "resnet18", "kwargs": {"width": 4, "stem": "stride2", "depths": [1]}},
}
SHARED = {"scalars": ["log10_hillas_intensity"], "epochs": 1, "batch_size": 16, "precision": "float32"}
STEREO = {
    "input": "shower",
    "heads": ["gammaness"],
    "model": {"name": "stereo_mean", "kwargs": {"width": 8}},
    "start_from": ["mono_lst", "mono_mst"],  # in any order
    "learning_rate": 1e-30,
    "weight_decay": 0.0,
}


def config(**stereo) -> Config:
    networks = {"mono_lst": SINGLE | {"camera": "LST"}, "mono_mst": SINGLE | {"camera": "MST"}}
    networks["stereo"] = STEREO | stereo
    networks = {name: SHARED | section for name, section in networks.items()}
    return parse_config({"seed": 5, "threads": 1, "device": "cpu", "networks": networks})


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    batch = array_batch(80, (1, 0, 1))
    return write_tiles(tmp_path_factory.mktemp("tiles"), batch, cameras=CAMERAS, equalised={"true_energy_tev": 2}).path


@pytest.fixture(scope="module")
def bundles(manifest, tmp_path_factory) -> Path:
    """Of the networks `mono_lst`, `mono_mst` and `stereo`."""
    folder = tmp_path_factory.mktemp("bundles")
    for network in ("mono_lst", "mono_mst", "stereo"):
        train(config(), network, [manifest], folder / network)
    return folder


def test_each_camera_has_the_encoder_of_its_network(bundles):
    card = load_bundle_card(bundles / "stereo")
    assert [camera.identity for camera in card.cameras] == ["hexagon-a", "hexagon-b"]
    assert [origin.name for origin in card.mono] == ["default_mono_mst", "default_mono_lst"]
    assert card.model.kwargs["n_cameras"] == 2
    weights = load_file(bundles / "stereo" / "weights.safetensors")
    for number, network in enumerate(("mono_mst", "mono_lst")):
        own = load_file(bundles / network / "weights.safetensors")
        kernels = [name for name, values in own.items() if values.ndim == 4]
        assert kernels
        for name in kernels:
            np.testing.assert_array_equal(weights[f"encoders.{number}.{name}"], own[name])
        preparation = load_bundle_card(bundles / network).input.preparation
        assert list(card.input.preparation.cameras.values())[number] == preparation


def test_events_of_both_cameras_are_predicted(bundles):
    predictor = Predictor.load(bundles / "stereo", threads=1)
    assert isinstance(predictor, EventPredictor)
    assert list(predictor.mono) == ["hexagon-a", "hexagon-b"]
    batch = array_batch(6, (1, 0, 1), seed=3)
    found = predictor.predict(batch)["gammaness"]
    assert found.shape == (len(events_of(batch)),) == (6,)
    for number, identity in enumerate(predictor.cameras):
        own = batch.events["camera"] == number
        assert predictor.encode(batch.select(own), identity).shape == (own.sum(), 8)
        assert predictor.mono[identity].cameras == (identity,)
    batch.events["camera"] = 1 - batch.events["camera"]
    assert not np.allclose(predictor.predict(batch)["gammaness"], found)


@pytest.mark.parametrize(
    ("kind", "batch_size", "rate"), [(EventReader, 16, 24), (EventReader, 64, 30), (TileReader, 16, 24)]
)
def test_images_are_counted_where_batches_hold_events(kind, batch_size, rate, tmp_path):
    """Two epochs of 20 events with 60 images, without the rest behind whole batches, in 4 CPU seconds."""
    reader = kind([write_tiles(tmp_path, array_batch(20, (1, 0, 1)), cameras=CAMERAS)], "all")
    config = SimpleNamespace(batch_size=batch_size)
    run = SimpleNamespace(device="cpu", train_tiles=reader, config=config, ranks=ALONE)
    assert _images_per_cpu_s(run, SimpleNamespace(cpu_time_s=4.0, rows=[{}, {}])) == rate


def test_events_of_one_camera_alone(bundles, manifest):
    bundle = train(config(camera="LST", start_from="mono_lst"), "stereo", [manifest], bundles / "of_lst")
    card = load_bundle_card(bundle)
    assert [camera.name for camera in card.cameras] == ["LSTCam"]
    assert [origin.name for origin in card.mono] == ["default_mono_lst"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"start_from": ["mono_lst"]},
            "start_from names bundles for the cameras hexagon-b, and the tiles are of hexagon-a, hexagon-b; name one",
        ),
        ({"camera": "SST"}, "have no camera 'SST'; set networks.NAME.camera .*: NectarCam, MST, hexagon-a; LSTCam"),
        (
            {"camera": "LST", "start_from": ["stereo_of_both"]},
            "is of whole events of the cameras hexagon-a, hexagon-b, and the tiles are of hexagon-b; name it alone",
        ),
        (
            {"start_from": [], "model": {"name": "stereo_mean", "kwargs": {"encoder_kwargs": [4]}}},
            "'list' object has no attribute",
        ),
        ({"start_from": ["mono_lst", "stereo_of_both"]}, "is of whole events of the cameras .*; name it alone"),
    ],
)
def test_what_cannot_be_trained_is_refused(changes, message, bundles, manifest, tmp_path):
    names = [str(bundles / "stereo") if n == "stereo_of_both" else n for n in changes.get("start_from", [])]
    names = [str(bundles / n) if n.startswith("mono") else n for n in names]
    start_from = {"start_from": names} if names else {}
    with pytest.raises(UserError, match=message):
        train(config(**changes | start_from), "stereo", [manifest], tmp_path / "stereo")
