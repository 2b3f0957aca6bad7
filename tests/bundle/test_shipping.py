"""The models that ship, and how they are made from trained bundles."""

import json
import zlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from safetensors.numpy import save_file
from synthetic_tiles import CAMERA_IDENTITY
from tiny_bundles import camera_bundle, event_bundle, sky_bundle

from pipeline.bundle import shipping
from pipeline.bundle.card import (
    MONO_FOLDER,
    README_FILE,
    WEIGHTS_FILE,
    bundle_sha256,
    bundle_weights,
    bundles_directory,
    list_bundles,
    load_bundle_card,
)
from pipeline.bundle.export import load_weights
from pipeline.bundle.files import weights_of_graph
from pipeline.bundle.model_card import card_markdown
from pipeline.bundle.runtime import Predictor
from pipeline.camera.predictions import population_of
from pipeline.config import load_config
from pipeline.errors import InputFileError
from pipeline.inputs.population import IMAGE_QUANTITIES

MODEL = shipping.ShippedModel(config="tiny.yaml", network="energy", purpose="For tests.", failures=("Fails at night.",))


# ---- what ships ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", list_bundles())
def test_a_model_that_ships(name, checkout, monkeypatch):
    """It is small, is that of its configuration, opens, and says nothing of the machine it was made on."""
    monkeypatch.chdir(checkout)
    folder, card, model = bundles_directory() / name, load_bundle_card(name), shipping.shipped_model(name)
    contents = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert sum(len(zlib.compress(content, 6)) for content in contents.values()) < 3e6  # a wheel packs each file so
    assert [path for path, content in contents.items() if b"/tmp/" in content or b"/home/" in content] == []
    assert (folder / README_FILE).read_text(encoding="utf-8") == card_markdown(card)
    assert card.name == name
    assert card.failures == model.failures
    assert [found.task for found in card.evaluations] == list(card.tasks)
    cfg = load_config(model.config)
    assert card.training.seed == cfg.seed
    settings = cfg.network(model.network).model_dump(mode="json")
    assert card.training.config == {key: settings[key] for key in card.training.config}
    predictor = Predictor.load(name, threads=1)
    assert predictor.card.bundle_sha256 == card.bundle_sha256
    for camera in predictor.cameras:
        assert len(population_of(predictor, camera).ranges) == len(IMAGE_QUANTITIES)


def test_the_list_of_models_is_that_of_committed_configurations(checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    models = shipping.shipped_models()
    assert set(list_bundles()) <= set(models)
    for model in models.values():
        load_config(model.config).network(model.network)


# ---- how one is made -------------------------------------------------------------------------------------------------
@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of a configuration: where its bundle and its evaluation are."""
    monkeypatch.chdir(tmp_path)
    network = {"heads": ["energy"], "model": {"name": "resnet18"}}
    Path("tiny.yaml").write_text(yaml.safe_dump({"name": "tiny", "seed": 3, "networks": {"energy": network}}))
    settings = load_config("tiny.yaml").network("energy").model_dump(mode="json")
    bundle = camera_bundle(tmp_path / "results/tiny/bundles/energy", "energy", CAMERA_IDENTITY)
    _change(bundle / "card.json", {"training": {"config": settings | {"start_from": ["/data/me/mono"]}, "seed": 3}})
    Path("tiny.yaml").write_text(
        yaml.safe_dump({"name": "tiny", "seed": 3, "networks": {"energy": network | {"start_from": ["mono"]}}})
    )
    evaluation = tmp_path / "results/tiny/evaluation/energy/energy"
    evaluation.mkdir(parents=True)
    value = {"value": 0.25, "low": 0.2, "high": None, "n": 90, "better": "lower"}
    metrics = {
        "bundle_sha256": load_bundle_card(bundle).bundle_sha256,
        "data": {"manifests": ["/data/me/all.json"], "n": 90, "n_groups": 30},
        "metrics": {"energy_resolution": value, "energy_bias": {"value": 0.012, "low": 0.01, "high": 0.02}},
        "baselines": {"forest": {"energy_resolution": {"value": 0.3}}},
        "differences": {"forest": {"energy_resolution": {"value": -0.05, "low": -0.07, "high": -0.03}}},
        "calibration": {"pull_median": 0.1, "pull_width": 1.04, "by_true_energy_tev": []},
    }
    (evaluation / "metrics.json").write_text(json.dumps(metrics))
    (bundle / "learning_curves.png").write_bytes(b"a picture")
    return bundle, evaluation


def _change(file, changes):
    content = json.loads(file.read_text())
    for key, value in changes.items():
        content[key] = content[key] | value if isinstance(value, dict) else value
    file.write_text(json.dumps(content))


def _ship(run, name="lst"):
    bundle, evaluation = run
    return shipping.ship(name, MODEL, bundle, evaluation.parent, Path("shelf"))


def test_it_has_the_tests_results_and_no_place_of_the_machine(run):
    assert shipping.target_of(MODEL, Path("results")) == (
        "tiny.yaml",
        *(Path(f"results/tiny/{p}/energy") for p in ("bundles", "evaluation")),
    )
    _ship(run)
    made = _ship(run)  # in place of the earlier one
    assert sorted(path.name for path in made.iterdir()) == [
        "MODEL_CARD.md",
        "card.json",
        "model.onnx",
        "weights.safetensors",
    ]
    card = load_bundle_card(made)
    assert (card.name, card.training.config["start_from"]) == ("lst", ["mono"])
    text = (made / README_FILE).read_text()
    assert "| energy_resolution | 0.25 | 0.3 | -0.05 (-0.07 to -0.03) |" in text
    assert "| energy_bias | 0.012 (0.01 to 0.02) | – | – |" in text
    assert "energy, 90 items of 30 showers or fields of all.json:" in text
    assert "the width 1.04" in text
    assert "- Fails at night." in text
    assert "For tests. `make pretrained MODEL=lst` makes it from tiny.yaml, network energy." in text
    assert "/data" not in text + (made / "card.json").read_text()


def test_what_is_not_of_the_configuration_does_not_ship(run):
    bundle, evaluation = run
    _change(evaluation / "metrics.json", {"bundle_sha256": "0" * 64})
    with pytest.raises(InputFileError, match="is of another bundle than tiny_energy; evaluate this one"):
        _ship(run)
    (evaluation / "metrics.json").write_text(json.dumps({"bundle_sha256": load_bundle_card(bundle).bundle_sha256}))
    with pytest.raises(InputFileError, match="is not what `lightpool evaluate` writes"):
        _ship(run)
    _change(bundle / "card.json", {"training": {"seed": 4}})
    with pytest.raises(InputFileError, match=r"was trained with seed 4, and energy of tiny.yaml has 3; train it"):
        _ship(run)


def test_networks_for_single_images_go_without_weights(tmp_path):
    bundle = event_bundle(tmp_path / "stereo", "energy", CAMERA_IDENTITY)
    mono = camera_bundle(bundle / MONO_FOLDER.format(number=0), "energy", CAMERA_IDENTITY)
    digest = load_bundle_card(mono).bundle_sha256
    _change(bundle / "card.json", {"mono": [{"name": "tiny_energy", "sha256": digest}]})
    shipping._write(bundle, tmp_path / "made", load_bundle_card(bundle), {})
    made = tmp_path / "made" / mono.name
    assert not (made / WEIGHTS_FILE).exists()
    assert list(Predictor.load(tmp_path / "made").mono) == [CAMERA_IDENTITY]
    graph = made / "model.onnx"
    graph.write_bytes(graph.read_bytes() + b"\0")
    with pytest.raises(InputFileError, match="are not those that its card was written for"):
        Predictor.load(tmp_path / "made")


def test_weights_that_the_graph_holds_do_not_ship_twice(tmp_path):
    bundle = sky_bundle(tmp_path / "denoise")
    held = weights_of_graph(bundle / "model.onnx", "")  # not those of this digest
    assert held is None
    proto = onnx.load(bundle / "model.onnx")
    weights = {one.name: onnx.numpy_helper.to_array(one) for one in proto.graph.initializer}
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(1), "val_3"))  # a constant of the exporter
    onnx.save(proto, bundle / "model.onnx")
    save_file(weights, bundle / WEIGHTS_FILE)
    _change(bundle / "card.json", {"bundle_sha256": bundle_sha256(bundle)})
    made = tmp_path / "made"
    shipping._write(bundle, made, load_bundle_card(bundle), {})
    assert not (made / WEIGHTS_FILE).exists()
    read = load_weights(bundle_weights(made))
    assert {name: tensor.numpy().tobytes() for name, tensor in read.items()} == {
        name: tensor.tobytes() for name, tensor in weights.items()
    }


def test_no_training_starts_from_a_bundle_without_weights(tmp_path):
    bundle = camera_bundle(tmp_path / "energy", "energy", CAMERA_IDENTITY)
    shipping._write(bundle, tmp_path / "made", load_bundle_card(bundle), {}, weights=False)
    with pytest.raises(InputFileError, match="made comes without weights; start from another one"):
        load_weights(bundle_weights(tmp_path / "made"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["mst"], "no model that ships is named 'mst'; shipped.yaml has lst"),
        (["lst"], "there is no bundle 'nowhere/tiny"),
    ],
)
def test_what_the_command_refuses(run, argv, message, monkeypatch, capsys):
    monkeypatch.setattr(shipping, "bundles_directory", Path)
    Path("shipped.yaml").write_text(yaml.safe_dump({"lst": MODEL.model_dump(mode="json")}))
    assert shipping.main([*argv, "--results", "nowhere"]) == 2
    assert message in capsys.readouterr().err
    assert shipping.main(["--plan"]) == 0
    assert capsys.readouterr().out == "lst tiny.yaml results/tiny/evaluation/energy\n"
    Path("shipped.yaml").write_text("lst: {config: tiny.yaml}\n")
    assert shipping.main(argv) == 2
    assert "shipped.yaml is not a list of models (network: Field required)" in capsys.readouterr().err
