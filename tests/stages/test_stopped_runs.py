"""Products of a run on several files that was stopped before its end do not stand in the way of the next run."""

import json
import shutil

import numpy as np
import pytest
from astropy.io import fits
from tiny_bundles import camera_bundle, sky_bundle
from toy_events import write_toy_dl1

from pipeline.camera.dl1 import DL1File
from pipeline.config import parse_config
from pipeline.errors import UserError
from pipeline.stages.ingest import ingest
from pipeline.stages.predict import predict
from pipeline.stages.simulate_sky import simulate_sky
from pipeline.stages.tiles import make_tiles

CFG = parse_config({"threads": 1})
OTHER = parse_config({"threads": 1, "ingest": {"sky": {"read_noise_e": 7.0}}, "predict": {"batch_size": 7}})


@pytest.fixture
def inputs(tmp_path, rng):
    frame, events = tmp_path / "frame.fits", tmp_path / "run.dl1.h5"
    fits.PrimaryHDU(rng.normal(900, 20, (64, 64)).astype(np.float32)).writeto(frame)
    write_toy_dl1(events, n_events=4)
    return [frame, events]


@pytest.fixture
def bundles(tmp_path, inputs):
    with DL1File(inputs[1]) as file:
        identity = file.telescopes[1].identity
    return [sky_bundle(tmp_path / "denoise"), camera_bundle(tmp_path / "energy", "energy", identity)]


@pytest.fixture(params=["ingest", "predict"])
def stage(request, inputs, bundles):
    def run(out, cfg=CFG, **options):
        if request.param == "ingest":
            return ingest(inputs, cfg, out, **options)
        return predict(cfg, inputs, bundles, out, **options)

    return run


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".fits", ".h5")}


def test_a_stopped_run_is_made_again_without_force(stage, tmp_path):
    out = tmp_path / "out"
    stage(out)
    made = bytes_of(out)
    assert len(made) == 2
    (out / "status.json").unlink()  # it comes last
    assert [status["status"] for status in stage(out)] == ["ok", "ok"]
    assert bytes_of(out) == made
    assert len(json.loads((out / "status.json").read_text())) == 2


def test_a_run_that_ended_is_not_replaced(stage, tmp_path):
    stage(tmp_path / "out")
    with pytest.raises(UserError, match=r"exists; choose another name or add --force"):
        stage(tmp_path / "out")


def test_other_settings_inputs_and_origins_are_not_replaced(stage, tmp_path, inputs):
    out = tmp_path / "out"
    stage(out)
    (out / "status.json").unlink()
    shutil.copytree(out, tmp_path / "aside")
    with pytest.raises(UserError, match=r"frame\.fits exists; choose another name or add --force"):
        stage(out, OTHER)
    (out / "frame.fits.provenance.json").write_text("{")  # it could be anybody's
    with pytest.raises(UserError, match=r"frame\.fits exists; choose another name or add --force"):
        stage(out)
    shutil.rmtree(out)
    (tmp_path / "aside").rename(out)
    with fits.open(inputs[0], "update") as hdus:
        hdus[0].header["OBJECT"] = "another file of the same name"
    with pytest.raises(UserError, match=r"frame\.fits exists; choose another name or add --force"):
        stage(out)


def test_stopped_tiles_are_made_again_without_force(tmp_path):
    sky = {"runs": 2, "shape": [96, 96], "stars_per_frame": 12, "galaxies_per_frame": 3}
    tiles = {"sky": {"size": 32, "stride": 32}}
    cfg = parse_config({"threads": 1, "sky": sky, "tiles": tiles})
    frames = []
    for run in (1, 2):
        raw = simulate_sky(cfg, run, tmp_path / f"raw_{run}.fits")
        ingest([raw], cfg, tmp_path / f"ingested_{run}")
        frames.append(tmp_path / f"ingested_{run}" / raw.name)
    write_toy_dl1(tmp_path / "run.dl1.h5", n_events=4)
    inputs, out = [*frames, tmp_path / "run.dl1.h5"], tmp_path / "tiles"
    make_tiles(inputs, cfg, out)
    made = bytes_of(out)
    assert len(made) == 3
    with pytest.raises(UserError, match=r"exists; choose another name or add --force"):
        make_tiles(inputs, cfg, out)
    assert {name: status["status"] for name, status in json.loads((out / "status.json").read_text()).items()} == {
        path.name: "ok" for path in inputs
    }
    for missing in (*made, None):  # None: all shards were made, and nothing was said of them
        (out / "status.json").unlink()
        if missing:
            (out / missing).unlink()
        assert [status["status"] for status in make_tiles(inputs, cfg, out)] == 3 * ["ok"]
        assert bytes_of(out) == made
    (out / "status.json").unlink()
    with pytest.raises(UserError, match=r"raw_1\.tiles\.h5 exists; choose another name or add --force"):
        make_tiles(inputs, parse_config(cfg.model_dump(mode="json") | {"seed": 77}), out)


def test_tiles_of_one_file_leave_a_status_only_if_asked(tmp_path):
    write_toy_dl1(tmp_path / "run.dl1.h5", n_events=4)
    (tmp_path / "broken.dl1.h5").write_bytes(b"no HDF5")
    make_tiles([tmp_path / "run.dl1.h5"], CFG, tmp_path / "tiles")
    assert not (tmp_path / "tiles" / "status.json").exists()
    make_tiles([tmp_path / "broken.dl1.h5"], CFG, tmp_path / "tiles", keep_going=True)
    status = json.loads((tmp_path / "tiles" / "status.json").read_text())["broken.dl1.h5"]
    assert status["status"] == "failed"
    assert "broken.dl1.h5" in status["reason"]
