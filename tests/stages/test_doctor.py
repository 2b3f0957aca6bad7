"""`lightpool doctor`."""

import json

import pytest
from tiny_bundles import camera_bundle
from toy_events import toy_camera

from pipeline import __version__
from pipeline.cli import main


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.bundle.card.bundles_directory", lambda: tmp_path)
    monkeypatch.setattr("pipeline.stages.doctor.describe_system", lambda: ["This machine has:", "  one core"])
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "compiled"))
    camera_bundle(tmp_path / "toy", "energy", toy_camera().identity)
    return tmp_path


def test_an_installation_that_works(shelf, capsys):
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert f"lightpool      {__version__}, in " in text
    assert f"kept in {shelf / 'compiled'}" in text
    assert "toy  whole: energy for Toy, one telescope" in text
    assert text.endswith("This machine has:\n  one core\n")


def test_a_model_that_is_damaged(shelf, capsys):
    card = json.loads((shelf / "toy" / "card.json").read_text())
    (shelf / "toy" / "card.json").write_text(json.dumps(card | {"bundle_sha256": "0" * 64}))
    assert main(["doctor"]) == 2
    text = capsys.readouterr().out
    assert "toy  damaged" in text
    assert text.rstrip().endswith("copy it again; install lightpool again")


def test_no_model_ships(shelf, monkeypatch, capsys):
    monkeypatch.setattr("pipeline.bundle.card.bundles_directory", lambda: shelf / "empty")
    assert main(["doctor"]) == 0
    assert "Models that ship:\n  none" in capsys.readouterr().out
