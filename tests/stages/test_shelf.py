"""Prediction without a bundle: which of the models that ship are taken, and where none serves the file."""

import io
import json
import logging
import shutil

import h5py
import numpy as np
import pytest
from astropy.io import fits
from tiny_bundles import camera_bundle, defects_bundle, event_bundle, sky_bundle
from toy_events import FIRST_EVENT, toy_camera, write_toy_dl1
from two_headed_bundles import two_headed_bundle

from pipeline import cli
from pipeline.config import parse_config
from pipeline.stages.predict import predict

CFG = parse_config({"threads": 1})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models on a shelf and inputs: telescope 2 has a camera of its own, 1 and 3 share one."""
    root = tmp_path_factory.mktemp("shelf")
    identity = toy_camera().identity
    shelf = root / "bundles"
    two_headed_bundle(shelf / "toy-mono", identity, name="toy-mono")
    camera_bundle(shelf / "toy-mono-energy", "energy", identity, name="toy-mono-energy")
    event_bundle(shelf / "toy-stereo", "energy", identity, name="toy-stereo")
    sky_bundle(shelf / "sky-denoise", name="sky-denoise")
    defects_bundle(shelf / "sky-defects", name="sky-defects")
    write_toy_dl1(root / "one.dl1.h5", n_events=4)
    write_toy_dl1(root / "two.dl1.h5", n_events=4, tel_ids=(1, 3))
    pixels = np.random.default_rng(1).normal(200, 15, (64, 70)).astype(np.float32)
    fits.PrimaryHDU(pixels, fits.Header({"BUNIT": "electron"})).writeto(root / "frame.fits")
    return root


@pytest.fixture
def shelf(folder, tmp_path, monkeypatch):
    """The models that ship, to take some away."""
    place = shutil.copytree(folder / "bundles", tmp_path / "bundles")
    monkeypatch.setattr("pipeline.bundle.card.bundles_directory", lambda: place)
    return place


def records(path, cfg=CFG, **options):
    stream = io.StringIO()
    predict(cfg, [path], as_json=True, stream=stream, **options)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO, logger="lightpool")
    return lambda: [text for text in caplog.messages if "ship" in text]


MONO = "toy-mono (gammaness) and toy-mono-energy (energy)"


def test_each_quantity_is_of_the_model_made_for_it(folder, shelf, said):
    by_telescope = {r["tel_id"]: r for r in records(folder / "one.dl1.h5", event=FIRST_EVENT + 1)}
    assert said() == [f"one.dl1.h5: taking {MONO}, which ship with lightpool"]
    assert [key for key in by_telescope[1] if "energy" in key or "gammaness" in key] == [
        "gammaness", "reco_energy_tev", "reco_energy_uncert_tev",
    ]  # fmt: skip
    assert by_telescope[1]["valid"]
    assert "does not serve the camera Other" in by_telescope[2]["reason"]


@pytest.mark.parametrize(
    ("options", "telescopes", "taken"),
    [
        ({}, [1, 3], "toy-stereo (energy)"),
        ({"event": FIRST_EVENT + 1}, [1, 3], "toy-stereo (energy)"),
        ({"event": FIRST_EVENT + 1, "telescope": 3}, None, MONO),
    ],
)
def test_events_of_several_telescopes(folder, shelf, said, options, telescopes, taken):
    found = {r["event_id"]: r for r in records(folder / "two.dl1.h5", **options)}
    assert found[FIRST_EVENT + 1].get("tel_ids") == telescopes
    assert found[FIRST_EVENT + 1]["tel_id"] == (None if telescopes else options["telescope"])
    assert said() == [f"two.dl1.h5: taking {taken}, which ship with lightpool"]


def test_models_for_events_answer_where_there_are_no_others(folder, shelf, said):
    shutil.rmtree(shelf / "toy-mono")
    shutil.rmtree(shelf / "toy-mono-energy")
    assert {"tel_ids", "reco_energy_tev"} <= set(records(folder / "two.dl1.h5", telescope=1)[0])
    assert said() == ["two.dl1.h5: taking toy-stereo (energy), which ship with lightpool"]


def test_dl2_has_a_place_for_each(folder, shelf, tmp_path):
    predict(CFG, [folder / "one.dl1.h5"], out=tmp_path / "one.dl2.h5")
    with h5py.File(tmp_path / "one.dl2.h5") as file:
        telescope = file["dl2/event/telescope"]
        assert {kind: list(telescope[kind]) for kind in telescope} == {
            "energy": ["toy_mono_energy"], "classification": ["toy_mono_gammaness"],
        }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "taken"), [({}, "sky-denoise (denoise)"), ({"only": "defects"}, "sky-defects (defects)")]
)
def test_frames(folder, shelf, said, settings, taken):
    (record,) = records(
        folder / "frame.fits", CFG.model_copy(update={"predict": CFG.predict.model_copy(update=settings)})
    )
    assert record["model"] == taken.partition(" ")[0]
    assert said() == [f"frame.fits: taking {taken}, which ship with lightpool"]


def test_a_stopped_run_is_made_again(folder, shelf, tmp_path):
    files, out = [folder / "one.dl1.h5", folder / "frame.fits"], tmp_path / "out"
    assert [status["status"] for status in predict(CFG, files, out=out)] == ["ok", "ok"]
    (out / "status.json").unlink()
    assert [status["status"] for status in predict(CFG, files, out=out)] == ["ok", "ok"]


def test_a_directory_stands_for_its_files(folder, shelf, tmp_path, capsys):
    night = tmp_path / "night"
    night.mkdir()
    for name in ("one.dl1.h5", "frame.fits"):
        shutil.copy(folder / name, night)
    for name in ("frame.fits.provenance.json", ".hidden.fits"):
        (night / name).write_text("{}")
    assert cli.main(["predict", str(night), "--only", "denoise", "--out", str(tmp_path / "out"), "--threads", "1"]) == 0
    statuses = json.loads((tmp_path / "out" / "status.json").read_text())
    assert list(statuses) == ["frame.fits", "one.dl1.h5"]
    capsys.readouterr()
    (tmp_path / "empty").mkdir()
    assert cli.main(["predict", str(tmp_path / "empty")]) == 2
    assert "empty has no file ending in .bz2, .fit, .fits" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "without", "message"),
    [
        (
            ["one.dl1.h5", "--telescope", "2"],
            "",
            "one.dl1.h5: no model that ships serves Other (they serve Toy); train one",
        ),
        (["one.dl1.h5", "--telescope", "2"], "toy-*", "no model that ships serves Other; train one with"),
        (["one.dl1.h5", "--telescope", "9"], "", "has no images of telescope 9; it has those of 1, 2"),
        (["frame.fits"], "sky-*", "frame.fits is a FITS frame, and no model that ships is for frames; train one"),
        (["frame.fits", "--only", "defects"], "sky-defects", "no model for defects that ships is for frames"),
        (["one.dl1.h5", "--only", "defects"], "", "--only: for sky frames, and no file is one; leave it out"),
    ],
)
def test_where_none_serves(folder, shelf, capsys, argv, without, message):
    for bundle in shelf.glob(without) if without else ():
        shutil.rmtree(bundle)
    name, *options = argv
    assert cli.main(["predict", str(folder / name), "-q", "--threads", "1", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert "--bundle" in line or "telescope 9" in line or "--only" in line
