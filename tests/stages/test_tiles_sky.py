"""The dispatcher's part of sky tiles; how frames are cut is tested with the sky wing."""

import numpy as np
import pytest
from astropy.io import fits

from pipeline.config import parse_config
from pipeline.errors import InputFileError, TooFewEventsError
from pipeline.stages.tiles import make_tiles


@pytest.fixture
def frames(tmp_path):
    paths = [tmp_path / f"frame_{number}.fits" for number in (1, 2)]
    for path in paths:
        fits.writeto(path, np.zeros((64, 64), np.float32))
    return paths


def test_frames_one_by_one(frames, tmp_path, monkeypatch):
    def tile_frame(path, out, cfg, force):
        if path.name == "frame_1.fits":
            raise InputFileError(f"{path} has no truth")
        return {"n_tiles": 4, "split": "train"}

    monkeypatch.setattr("pipeline.sky.tiling.tile_frame", tile_frame)
    bad, good = make_tiles(frames, parse_config({}), tmp_path / "out")
    assert bad == {
        "file": str(frames[0]), "kind": "sky", "status": "failed", "reason": f"{frames[0]} has no truth",
    }  # fmt: skip
    assert (good["status"], good["kind"], good["n_tiles"]) == ("ok", "sky", 4)
    assert good["output"] == str(tmp_path / "out" / "frame_2.tiles.h5")


def test_pairs_are_made_together(frames, tmp_path, monkeypatch):
    cfg = parse_config({"tiles": {"sky": {"target": "noise2noise"}}})
    shards = [tmp_path / "frame_1.tiles.h5", tmp_path / "frame_2.tiles.h5"]
    monkeypatch.setattr("pipeline.sky.pairs.tile_pairs", lambda paths, out, cfg, force: shards)
    statuses = make_tiles(frames, cfg, tmp_path)
    assert [(status["status"], status["output"]) for status in statuses] == [("ok", str(shard)) for shard in shards]

    def refuse(paths, out, cfg, force):
        raise TooFewEventsError("no two frames fit")

    monkeypatch.setattr("pipeline.sky.pairs.tile_pairs", refuse)
    assert [status["reason"] for status in make_tiles(frames, cfg, tmp_path)] == ["no two frames fit"] * 2
