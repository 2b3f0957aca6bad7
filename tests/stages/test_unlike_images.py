"""Camera images unlike those that a model was trained on: what the user sees."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from populations import population
from tiny_bundles import camera_bundle, event_bundle
from toy_events import FIRST_EVENT, toy_camera, write_toy_dl1

from pipeline.camera.likeness import FileLikeness, Likeness
from pipeline.config import parse_config
from pipeline.stages.predict import predict

CFG = parse_config({"threads": 1})
LIKE = {"log10_size": (2.0, 3.5)}
UNLIKE = {"log10_size": (2.0, 3.5), "pointing_alt_deg": (40.0, 40.0), "dark_noise_pe": (3.0, 4.0)}
WHY = "unlike the images of training: altitude of the pointing, noise of dark tile pixels"


def with_population(bundle: Path, ranges) -> Path:
    card = json.loads((bundle / "card.json").read_text())
    preparation = card["input"]["preparation"]
    for own in preparation.get("cameras", {"": preparation}).values():
        own["population"] = population(n_frames=500, **ranges).model_dump(mode="json")
    (bundle / "card.json").write_text(json.dumps(card))
    return bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("unlike")
    identity = toy_camera().identity
    with_population(camera_bundle(root / "like", "energy", identity), LIKE)
    with_population(camera_bundle(root / "unlike", "gammaness", identity), UNLIKE)
    with_population(event_bundle(root / "events", "energy", identity), UNLIKE)
    write_toy_dl1(root / "run.dl1.h5", n_events=4, tel_ids=(1, 3))
    return root


def told(folder, *bundles, **options):
    stream = io.StringIO()
    (status,) = predict(
        CFG, [folder / "run.dl1.h5"], [folder / name for name in bundles], as_json=True, stream=stream, **options
    )
    return status, [json.loads(line) for line in stream.getvalue().splitlines()]


def test_images_like_training_have_a_score_and_no_warning(folder):
    status, records = told(folder, "like")
    assert status["n_unlike"] == 0
    assert "warnings" not in status
    scores = [record["unlikeness"] for record in records if record["valid"]]
    assert len(scores) == 6
    assert 0 < max(scores) < 1
    assert [r["unlikeness"] for r in records if not r["valid"]] == [None, None]
    assert not any("warnings" in record for record in records)


def test_images_unlike_training_are_named(folder, tmp_path):
    status, records = told(folder, "like", "unlike", out=tmp_path / "run.dl2.h5")
    (text,) = status["warnings"]
    assert status["n_unlike"] == 6
    assert text.startswith("6 of 6 images are unlike those of training, and their values may be wrong: altitude of ")
    assert "altitude of the pointing 68.8 deg (40 to 40); noise of dark tile pixels" in text
    assert all(record["unlikeness"] > 1 and record["warnings"] == [WHY] for record in records if record["valid"])
    record = json.loads((tmp_path / "run.dl2.h5.provenance.json").read_text())
    assert (record["n_unlike"], record["warnings"]) == (6, [text])


def test_an_event_is_as_unlike_as_its_worst_image(folder):
    status, records = told(folder, "events", event=FIRST_EVENT + 1)
    (record,) = records
    assert record["tel_ids"] == [1, 3]
    assert record["warnings"] == [WHY]
    _, images = told(folder, "unlike", event=FIRST_EVENT + 1)
    assert record["unlikeness"] == pytest.approx(max(image["unlikeness"] for image in images))
    assert status["warnings"][0].startswith("2 of 2 images are unlike those of training")


def test_models_that_do_not_say_it_give_no_score(folder, tmp_path):
    camera_bundle(tmp_path / "old", "energy", toy_camera().identity)
    status, records = told(folder, tmp_path / "old")
    assert "n_unlike" not in status
    assert not any("unlikeness" in record for record in records)


@pytest.mark.parametrize(("n_unlike", "n_warnings"), [(5, 0), (6, 1)])
def test_a_few_images_unlike_training_are_no_warning(n_unlike, n_warnings):
    score = np.where(np.arange(100) < n_unlike, 1.5, 0.5)
    file = FileLikeness()
    file.add(None)
    file.add(Likeness(score, {}, {}, {}))
    text = "images are unlike those of training, and their values may be wrong: their properties together"
    assert file.warnings() == [f"{n_unlike} of 100 {text}"] * n_warnings
