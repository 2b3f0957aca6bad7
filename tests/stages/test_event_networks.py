"""Networks of whole events: trained on tiles of an array, exported, applied to files, in Python and in ctapipe."""

import json
import shutil
from io import StringIO

import h5py
import numpy as np
import onnx
import pytest
import torch

import lightpool
from pipeline.bundle.card import load_bundle_card
from pipeline.bundle.export import load_network
from pipeline.bundle.runtime import EventPredictor, Predictor
from pipeline.camera.dl1 import DL1File
from pipeline.config import Config, parse_config
from pipeline.errors import InputFileError, UserError
from pipeline.stages.explain import explain
from pipeline.stages.manifest import make_manifest
from pipeline.stages.predict import predict
from pipeline.stages.simulate_showers import simulate_showers
from pipeline.stages.tiles import make_tiles
from pipeline.stages.train import train
from pipeline.tiles.events import EventReader

HEADS = {"energy": {}, "gammaness": {}, "direction": {}}
ENCODER = {"name": "resnet18", "kwargs": {"width": 4, "stem": "stride2", "depths": [1, 1]}}
MONO = {"heads": HEADS, "epochs": 1, "model": ENCODER, "scalars": "hillas"}
STEREO = {
    "input": "shower", "heads": HEADS, "epochs": 1, "model": {"name": "stereo_mean", "kwargs": {"width": 16}},
    "scalars": "hillas", "start_from": "mono",
}  # fmt: skip
THROWN = {"showers_per_run": 36, "scatter_radius_m": 250.0, "energy_min_tev": 0.1, "energy_max_tev": 4.0}


def config(**networks) -> Config:
    array = [{"type": "LST", "x_m": x, "y_m": y} for x in (-60, 60) for y in (-60, 60)]
    classes = [
        {"particle": "gamma", "runs": 1, "viewcone_deg": 1.0, **THROWN},
        {"particle": "proton", "runs": 1, "viewcone_deg": 1.0, **THROWN},
    ]
    return parse_config({
        "name": "array", "threads": 1, "seed": 5, "networks": {"mono": MONO, "stereo": STEREO} | networks,
        "showers": {"array": array, "min_telescopes": 1, "positions_per_shower": 5, "classes": classes},
        "tiles": {"camera": {"size": 32, "cuts": {"size_min_pe": 400}},
                  "splits": {"train": 0.5, "validation": 0.3, "test": 0.2}},
    })  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two runs of four telescopes, their tiles, and the bundles mono and stereo."""
    root = tmp_path_factory.mktemp("array")
    cfg = config()
    runs = [simulate_showers(cfg, run, root / f"run{run}.dl1.h5") for run in (1, 2)]
    make_tiles(runs, cfg, root / "tiles")
    make_manifest(sorted((root / "tiles").glob("*.h5")), cfg, root / "m.json")
    for name in ("mono", "stereo"):
        train(cfg, name, [root / "m.json"], root / "bundles" / name)
    return root


@pytest.fixture(scope="module")
def stereo(folder) -> EventPredictor:
    return Predictor.load(folder / "bundles" / "stereo", threads=1)


@pytest.fixture(scope="module")
def tiles(folder, stereo):
    """Whole events of the training split."""
    reader = EventReader([folder / "m.json"], "train")
    return next(iter(reader.sequential((*stereo.card.input.preparation.columns, "tel_id"))))


@pytest.fixture(scope="module")
def records(folder):
    """What predict says of run 1, by event."""
    stream = StringIO()
    predict(Config(), [folder / "run1.dl1.h5"], [folder / "bundles" / "stereo"], as_json=True, stream=stream)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def copied(folder, tmp_path):
    return shutil.copytree(folder / "bundles" / "stereo", tmp_path / "stereo")


# ---- the bundle ------------------------------------------------------------------------------------------------------
def test_bundle_holds_encoder_join_and_network_of_single_images(folder, stereo):
    bundle = folder / "bundles" / "stereo"
    assert {"encoder_0.onnx", "model.onnx", "mono_0", "weights.safetensors", "card.json"} <= {
        p.name for p in bundle.iterdir()
    }
    mono = load_bundle_card(folder / "bundles" / "mono")
    assert stereo.takes == "telescopes"
    assert stereo.max_telescopes is None
    assert [origin.sha256 for origin in stereo.card.training.origins] == [mono.bundle_sha256]
    assert stereo.mono[mono.cameras[0].identity].card == load_bundle_card(bundle / "mono_0")
    assert mono.bundle_sha256 == load_bundle_card(bundle / "mono_0").bundle_sha256
    assert mono.head("direction").outputs[:2] == ("axis_cos", "axis_sin")
    assert stereo.card.head("direction").outputs == ("lon", "lat", "log_variance")
    given = stereo.card.input.preparation
    assert given.cameras[mono.cameras[0].identity] == mono.input.preparation  # weights keep the scalars' scale


def test_graphs_give_what_the_network_gives(folder, stereo, tiles):
    network, _ = load_network(folder / "bundles" / "stereo")
    arrays = {name: torch.from_numpy(values) for name, values in stereo.card.input.preparation.arrays(tiles).items()}
    with torch.no_grad():
        expected = network(arrays["images"], arrays["scalars"], members=arrays["members"], places=arrays["places"])
    np.testing.assert_allclose(stereo.outputs(tiles), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_an_event_is_predicted_alone_as_among_others(stereo, tiles):
    together = stereo.predict(tiles)
    starts = np.flatnonzero(np.diff(tiles.events["event_id"], prepend=-1))
    first = tiles.select(slice(starts[0], starts[1]))
    alone = stereo.predict(first)
    for name, values in alone.items():
        np.testing.assert_allclose(values, together[name][:1], rtol=1e-4, atol=1e-6, err_msg=name)


def test_order_of_the_telescopes_does_not_matter(stereo, tiles):
    """Images of an event the other way round."""
    starts = np.flatnonzero(np.diff(tiles.events["event_id"], prepend=-1))
    event = np.cumsum(np.diff(tiles.events["event_id"], prepend=-1) != 0)
    turned = tiles.select(np.lexsort((-tiles.events["tel_id"], event)))
    assert len(starts) > 5
    assert (turned.events["tel_id"] != tiles.events["tel_id"]).any()
    for name, values in stereo.predict(turned).items():
        np.testing.assert_allclose(values, stereo.predict(tiles)[name], rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_training_can_be_repeated(folder):
    """Motions and telescopes that are left out depend on the seed alone."""
    again = train(config(), "stereo", [folder / "m.json"], folder / "bundles" / "again")
    first, second = (load_bundle_card(path).bundle_sha256 for path in (folder / "bundles" / "stereo", again))
    assert first == second


def test_encoder_that_is_not_that_of_the_card(folder, tmp_path):
    bundle = copied(folder, tmp_path)
    graph = onnx.load(bundle / "encoder_0.onnx")
    graph.graph.input[0].name = "pictures"
    for node in graph.graph.node:
        node.input[:] = ["pictures" if name == "images" else name for name in node.input]
    onnx.save(graph, bundle / "encoder_0.onnx")
    with pytest.raises(
        InputFileError, match=r"the weights of the bundle \S*stereo are not those that its card was written for"
    ):
        Predictor.load(bundle, threads=1)


def test_missing_encoder(folder, tmp_path):
    bundle = copied(folder, tmp_path)
    (bundle / "encoder_0.onnx").unlink()
    with pytest.raises(UserError, match=r"encoder_0\.onnx"):
        Predictor.load(bundle, threads=1)


# ---- prediction ------------------------------------------------------------------------------------------------------
def test_every_event_has_one_answer(folder, records):
    with DL1File(folder / "run1.dl1.h5") as file:
        seen = {(int(o), int(e)) for c in file.chunks(500) for o, e in zip(c.obs_id, c.event_id, strict=True)}
    assert {(r["obs_id"], r["event_id"]) for r in records} == seen
    assert len(records) == len(seen)
    answered = {r["answered_by"]: r for r in records}
    assert set(answered) == {"stereo", "mono", None}
    for record in records:
        n = len(record["tel_ids"])
        assert record["answered_by"] == (None if n == 0 else "mono" if n == 1 else "stereo")
        assert record["valid"] == (n > 0)
        assert (record["reco_energy_tev"] is not None) == record["valid"]
        assert record.get("reason", "").startswith("no usable image") == (n == 0)


def test_one_usable_image_is_answered_as_the_mono_bundle_does(folder, records):
    stream = StringIO()
    predict(Config(), [folder / "run1.dl1.h5"], [folder / "bundles" / "mono"], as_json=True, stream=stream)
    images = {(r["event_id"], r["tel_id"]): r for r in map(json.loads, stream.getvalue().splitlines())}
    single = [record for record in records if record["answered_by"] == "mono"]
    assert len(single) > 3
    for record in single:
        image = images[record["event_id"], record["tel_ids"][0]]
        for name in ("reco_energy_tev", "gammaness", "reco_alt_deg", "reco_az_deg"):
            assert record[name] == pytest.approx(image[name], rel=1e-5)


def test_a_file_gives_what_tiles_give(folder, records):
    """Events of two and more usable images, of all splits."""
    predictor = Predictor.load(folder / "bundles" / "stereo", threads=1)
    known = {record["event_id"]: record for record in records}
    checked = 0
    for split in ("train", "validation", "test"):
        for batch in EventReader([folder / "m.json"], split).sequential(
            (*predictor.card.input.preparation.columns, "tel_id")
        ):
            items = predictor.card.input.preparation.items(batch)
            values = predictor.predict(batch)
            for place in np.flatnonzero(items.events["obs_id"] == 1):
                record = known[items.events["event_id"][place]]
                assert record["answered_by"] == "stereo"
                assert len(record["tel_ids"]) == items.events["n_telescopes"][place]
                assert record["reco_energy_tev"] == pytest.approx(values["reco_energy_tev"][place], rel=1e-3)
                assert record["reco_alt_deg"] == pytest.approx(values["reco_alt_deg"][place], abs=2e-3)
                checked += 1
    assert checked == sum(record["answered_by"] == "stereo" for record in records)


def test_directions_without_a_pointing(folder, tmp_path):
    shutil.copy(folder / "run1.dl1.h5", tmp_path / "run.h5")
    with h5py.File(tmp_path / "run.h5", "a") as file:
        for table in file["configuration/telescope/pointing"].values():
            rows = table[:]
            rows["telescope_pointing_altitude"] = np.nan
            table[:] = rows
    stream = StringIO()
    predict(Config(), [tmp_path / "run.h5"], [folder / "bundles" / "stereo"], as_json=True, stream=stream)
    reasons = [r["reason"] for r in map(json.loads, stream.getvalue().splitlines()) if r["answered_by"] == "mono"]
    assert len(reasons) > 3
    assert set(reasons) == {"the pointing of its telescope is unknown"}


def test_without_a_network_of_single_images(folder, tmp_path):
    """Started from fresh weights, the bundle has no answer for one image, and says so."""
    cfg = config(fresh=STEREO | {"start_from": None, "model": {"name": "stereo_mean", "kwargs": {
        "width": 16, "encoder": "resnet18", "encoder_kwargs": ENCODER["kwargs"]}}})  # fmt: skip
    bundle = train(cfg, "fresh", [folder / "m.json"], tmp_path / "fresh")
    stream = StringIO()
    (status,) = predict(Config(), [folder / "run1.dl1.h5"], [bundle], as_json=True, stream=stream)
    of_one = [
        r
        for r in map(json.loads, stream.getvalue().splitlines())
        if "no network for single images" in r.get("reason", "")
    ]
    assert status["n_by_mono"] == 0
    assert len(of_one) > 3
    assert {(r["valid"], r["reco_energy_tev"]) for r in of_one} == {(False, None)}


def test_dl2_of_images_and_of_events_in_one_file(folder, tmp_path):
    loader = pytest.importorskip("ctapipe.io").TableLoader
    (status,) = predict(
        Config(), [folder / "run1.dl1.h5"], [folder / "bundles" / name for name in ("mono", "stereo")],
        tmp_path / "run1.dl2.h5",
    )  # fmt: skip
    with loader(tmp_path / "run1.dl2.h5", focal_length_choice="EQUIVALENT") as file:
        events = file.read_subarray_events()
        images = file.read_telescope_events()
    several = events["array_stereo_energy_tels_used"].sum(axis=1) >= 2
    n_valid = events["array_stereo_energy_is_valid"].sum()
    assert status["n_valid_events"] == n_valid == status["n_by_mono"] + several.sum()
    assert "array_stereo_energy_tel_energy" not in images.colnames
    assert "array_mono_energy_tel_energy" in images.colnames


def test_the_log_says_nothing_of_single_images_that_no_network_was_for(folder, tmp_path, caplog):
    caplog.set_level("INFO")
    (status,) = predict(Config(), [folder / "run1.dl1.h5"], [folder / "bundles" / "stereo"], tmp_path / "run1.dl2.h5")
    (text,) = [record.getMessage() for record in caplog.records if "written to" in record.getMessage()]
    counts = f"predicted {status['n_valid_events']} of {status['n_events']} events ({status['n_by_mono']} with one"
    assert text.startswith(f"run1.dl1.h5: {counts} usable image, by the network for single images)")


# ---- in Python, in ctapipe -------------------------------------------------------------------------------------------
def test_from_python(folder, records):
    result = lightpool.load(folder / "bundles" / "stereo", threads=1).predict(folder / "run1.dl1.h5")
    table = result.table
    assert repr(result).startswith(f"<EventPredictions by array_stereo: {len(records)} events, ")
    np.testing.assert_array_equal(table["event_id"], [record["event_id"] for record in records])
    np.testing.assert_array_equal(table["n_telescopes"], [len(record["tel_ids"]) for record in records])
    np.testing.assert_array_equal(table["by_mono"], [record["answered_by"] == "mono" for record in records])
    known = [record["reco_energy_tev"] or np.nan for record in records]
    np.testing.assert_allclose(result["reco_energy_tev"].to_value("TeV"), known, rtol=1e-6)


def test_an_array_of_pixels_is_no_event(folder):
    with DL1File(folder / "run1.dl1.h5") as file:
        chunk = next(iter(file.chunks(1)))
    model = lightpool.load(folder / "bundles" / "stereo", threads=1)
    with pytest.raises(
        UserError, match=r"array_stereo is a model for events of several telescopes, and \(image, peak_time"
    ):
        model.predict((chunk.image, chunk.peak_time, None))


def test_ctapipe_gives_the_same(folder, records):
    """Each event of the file through the plug-in; an event of one image by the mono network, too."""
    pytest.importorskip("ctapipe")
    from ctapipe.io import EventSource

    from pipeline.apps.ctapipe_plugin import LightpoolReconstructor

    known = {record["event_id"]: record for record in records}
    model = lightpool.load(folder / "bundles" / "stereo", threads=1)
    n = {"mono": 0, "stereo": 0, None: 0}
    with EventSource(folder / "run1.dl1.h5", focal_length_choice="EQUIVALENT") as source:
        plugin = LightpoolReconstructor(source.subarray, bundles=[str(folder / "bundles" / "stereo")])
        for event in source:
            plugin(event)
            record = known[event.index.event_id]
            found = event.dl2.stereo.energy["array_stereo_energy"]
            assert found.is_valid == record["valid"]
            assert list(found.telescopes) == record["tel_ids"]
            if record["valid"]:
                assert found.energy.to_value("TeV") == pytest.approx(record["reco_energy_tev"], rel=1e-5)
                geometry = event.dl2.stereo.geometry["array_stereo_direction"]
                assert geometry.alt.to_value("deg") == pytest.approx(record["reco_alt_deg"], abs=1e-4)
                table = model.predict(event, subarray=source.subarray).table
                assert table["reco_energy_tev"][0].to_value("TeV") == pytest.approx(record["reco_energy_tev"], rel=1e-5)
            n[record["answered_by"]] += 1
    assert min(n.values()) > 0


def test_events_are_not_explained(folder):
    with pytest.raises(
        UserError, match="array_stereo answers for whole events; only networks with one answer per camera image"
    ):
        explain(Config(), folder / "bundles" / "stereo", folder / "run1.dl1.h5", event=1, telescope=1)


# ---- training that cannot be -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"freeze": 1}, "freeze is 1; of a network for events, only the features of all encoders can be kept"),
        ({"model": {"name": "resnet18"}}, "the model 'resnet18' takes one image, and the input shower gives whole"),
        ({"start_from": ["mono", "mono"]}, "name one bundle of single images for each, or none"),
        ({"augmentation": {"shift_px": 2}}, "events of several telescopes are turned by quarters and mirrored only"),
        ({"augmentation": {"rotation": "sixths"}}, "events of several telescopes are turned by quarters and mirrored"),
        (
            {"model": {"name": "stereo_mean", "kwargs": {"encoder": "resnet18", "encoder_kwargs": {"width": 8}}}},
            "does not fit this network's encoder: .* leave encoder and encoder_kwargs out",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_trained(network, message, folder, tmp_path):
    with pytest.raises(UserError, match=message):
        train(config(stereo=STEREO | network), "stereo", [folder / "m.json"], folder / "bundles" / "x")
    assert not (folder / "bundles" / "x").exists()
    assert not (folder / "bundles" / "x.ckpt").exists()


def test_a_network_of_events_cannot_start_from_one_with_other_heads(folder, tmp_path):
    origin = str(folder / "bundles" / "stereo")
    cfg = config(other=STEREO | {"start_from": origin, "heads": {"energy": {}}, "model": {"name": "stereo_mean"}})
    with pytest.raises(
        UserError, match=r"is a network of whole events with the outputs energy\.log10_energy_tev, .* same"
    ):
        train(cfg, "other", [folder / "m.json"], tmp_path / "other")


@pytest.mark.parametrize(
    ("join", "most"), [pytest.param("stereo_attention", None, marks=pytest.mark.slow), ("hyper_lstm", 4)]
)
def test_other_joins(join, most, folder, tiles):
    """One that takes any number of telescopes, and one that reads them in order, as many as the array has."""
    cfg = config(stereo=STEREO | {"model": {"name": join}, "freeze": "features"})
    made = Predictor.load(train(cfg, "stereo", [folder / "m.json"], folder / "bundles" / join), threads=1)
    assert made.max_telescopes == most
    network, _ = load_network(folder / "bundles" / join)
    arrays = {name: torch.from_numpy(values) for name, values in made.card.input.preparation.arrays(tiles).items()}
    with torch.no_grad():
        expected = network(arrays["images"], arrays["scalars"], members=arrays["members"], places=arrays["places"])
    np.testing.assert_allclose(made.outputs(tiles), expected.numpy(), rtol=1e-4, atol=1e-5)
    # The encoder kept its weights; only the join was trained.
    mono, _ = load_network(folder / "bundles" / "mono")
    for name, kept in mono.state_dict().items():
        if not name.startswith("head."):
            torch.testing.assert_close(network.state_dict()[f"encoders.0.{name}"], kept, rtol=0, atol=0)


def test_more_telescopes_than_a_join_takes(folder, tiles):
    made = Predictor.load(folder / "bundles" / "hyper_lstm", threads=1)
    five = tiles.select(np.repeat(0, 5))
    with pytest.raises(UserError, match="takes events of up to 4 images, and one has 5; use a network whose"):
        made.predict(five)
