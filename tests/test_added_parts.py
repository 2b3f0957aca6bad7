"""A task, an input and a network of a user's own, each one folder or file outside the package, through every stage.

The camera task and the input are the examples of CONTRIBUTING.md; the sky task is in tests/support/toy_sky. A telescope
and a defect are added in tests/camera/test_telescopes.py and tests/stages/test_simulate_sky.py.
"""

import json
import os
import shutil
import subprocess
import sys

import h5py
import hdf5plugin  # noqa: F401 (registers the compression)
import pytest
import yaml
from astropy.io import fits
from contributing_examples import example, write_examples

# All commands in one process: starting one takes longer than the tiny work that it does.
RUN = """
import json, sys
from pipeline.cli import main
for arguments in json.loads(sys.argv[1]):
    if code := main(arguments):
        sys.exit(f"{arguments}: exit code {code}")
"""
SMALL = {"epochs": 2, "batch_size": 16}
PLAIN = {"name": "plain3", "kwargs": {"width": 4}}
AUTOENCODER = {"name": "conv_autoencoder", "kwargs": {"width": 4}}
NETWORKS = {
    "offset": {"heads": ["offset"], "model": PLAIN, **SMALL},
    "mono": {"heads": ["gammaness", "offset"], "model": PLAIN, "input": "centre", **SMALL},
    "starmap": {"heads": ["starmap"], "model": AUTOENCODER, **SMALL},
    "frame": {"heads": ["denoise", "starmap"], "model": AUTOENCODER, **SMALL},
}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, checkout, tiny_config_path):
    """The folder of a run with the added parts: simulated, tiled, trained, evaluated, predicted and reported."""
    folder = tmp_path_factory.mktemp("added")
    plugins, run = folder / "plugins", folder / "toy"
    write_examples("Add a task", plugins)
    write_examples("Add a kind of input", plugins)
    (plugins / "models").mkdir()
    (plugins / "models" / "plain.py").write_text(example("Add a model"))
    shutil.copytree(checkout / "tests/support/toy_sky/tasks", plugins / "tasks", dirs_exist_ok=True)
    config = folder / "toy.yaml"
    content = yaml.safe_load(tiny_config_path.read_text())
    kept = {key: content[key] for key in ("seed", "device", "threads", "showers", "sky", "tiles", "evaluate")}
    config.write_text(yaml.safe_dump(kept | {"name": "toy", "networks": NETWORKS}))
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(_commands(config, run))],
        capture_output=True, text=True, check=False,
        env=os.environ | {"LIGHTPOOL_PLUGINS": str(plugins), "PYTHONPATH": str(checkout)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return run


def _commands(config, run):
    common = ["--config", str(config), "-q"]
    events = [str(run / f"raw/shower_run_000{n}.dl1.h5") for n in (1, 2)]
    raw = [str(run / f"raw/sky_run_000{n}.fits") for n in (1, 2, 3, 4)]
    frames = [str(run / f"ingested/sky_run_000{n}.fits") for n in (1, 2, 3, 4)]
    commands = [["simulate", "showers", "--run", str(n + 1), "--out", path, *common] for n, path in enumerate(events)]
    commands += [["simulate", "sky", "--run", str(n + 1), "--out", path, *common] for n, path in enumerate(raw)]
    commands += [["ingest", *raw, "--out", str(run / "ingested"), *common]]
    for wing, files in (("camera", events), ("sky", frames)):
        shards = [str(run / "tiles" / wing / f"{os.path.basename(f).split('.')[0]}.tiles.h5") for f in files]
        commands += [["tiles", *files, "--out", str(run / "tiles" / wing), *common]]
        commands += [["manifest", *shards, "--out", str(run / "tiles" / f"{wing}.manifest.json"), *common]]
    for network, wing in (("offset", "camera"), ("mono", "camera"), ("starmap", "sky"), ("frame", "sky")):
        manifest, bundle = str(run / "tiles" / f"{wing}.manifest.json"), str(run / "bundles" / network)
        commands += [["train", manifest, "--network", network, "--out", bundle, *common]]
        commands += [["evaluate", manifest, "--bundle", bundle, "--out", str(run / "evaluation" / network), *common]]
    bundles = [f"--bundle={run}/bundles/{network}" for network in ("offset", "mono")]
    commands += [["predict", events[0], *bundles, "--out", str(run / "predictions/camera/shower_run_0001"), *common]]
    for network in ("starmap", "frame"):
        out = str(run / f"predictions/sky/{network}")
        commands += [["predict", frames[0], f"--bundle={run}/bundles/{network}", "--out", out, *common]]
    return [*commands, ["report", str(run), "--out", str(run / "report.html"), "-q"]]


def test_tiles_have_the_targets_of_the_added_tasks(run_dir):
    with h5py.File(run_dir / "tiles/camera/shower_run_0001.tiles.h5") as file:
        offset = file["targets/offset"][:, 0]
        assert offset == pytest.approx(file["events/true_offset_deg"][:], rel=1e-6)
        assert len(offset) > 50
    with h5py.File(run_dir / "tiles/sky/sky_run_0001.tiles.h5") as file:
        assert file["targets/source"].shape == (9, 1, 32, 32)
        assert 0 < file["targets/source"][:].mean() < 0.5


@pytest.mark.parametrize(
    ("network", "heads"),
    [("offset", ["offset"]), ("mono", ["gammaness", "offset"]), ("frame", ["denoise", "starmap"])],
)
def test_networks_are_trained_alone_and_as_second_heads(run_dir, network, heads):
    card = json.loads((run_dir / "bundles" / network / "card.json").read_text())
    assert [head["task"] for head in card["heads"]] == heads
    metrics = card["validation"].keys() - {"dead_relu_fraction"}  # of a network without ReLUs: none
    assert all(card["validation"][name] is not None for name in metrics)
    assert card["input"]["preparation"]["kind"] == {"offset": "image", "mono": "centre", "frame": "frame"}[network]


@pytest.mark.parametrize(
    ("path", "metric", "baseline"),
    [
        ("offset/offset", "offset_rms_deg", "forest"),
        ("mono/offset", "offset_rms_deg", "forest"),
        ("mono/gammaness", "auc", "forest"),
        ("starmap/starmap", "wrong_pixels", "threshold"),
        ("frame/starmap", "wrong_pixels", "threshold"),
        ("frame/denoise", "psnr_db", "noisy"),
    ],
)
def test_every_head_is_judged_against_its_baseline(run_dir, path, metric, baseline):
    content = json.loads((run_dir / "evaluation" / path / "metrics.json").read_text())
    assert content["network"] == path.partition("/")[0]
    assert content["metrics"][metric]["value"] > 0
    assert content["baselines"][baseline][metric]["value"] > 0
    assert content["differences"][baseline][metric]["low"] is not None


def test_predictions_have_a_place_in_dl2(run_dir):
    with h5py.File(run_dir / "predictions/camera/shower_run_0001/shower_run_0001.dl2.h5") as file:
        groups = file["dl2/event/telescope"]
        assert sorted(groups) == ["classification", "offset"]
        assert sorted(groups["offset"]) == ["toy_mono_offset", "toy_offset"]
        rows = groups["offset/toy_offset/tel_001"][:]
    valid = rows["toy_offset_tel_is_valid"].astype(bool)
    assert valid.sum() > 50
    assert (rows["toy_offset_tel_offset"][valid] >= 0).all()


def test_a_plane_of_a_sky_task_is_an_extension(run_dir):
    raw = fits.getdata(run_dir / "ingested/sky_run_0001.fits", "SCI")
    with fits.open(run_dir / "predictions/sky/starmap/sky_run_0001.fits") as hdus:
        assert (hdus["STARS"].data >= 0).all()
        assert (hdus["STARS"].data <= 1).all()
        assert hdus["SCI"].data == pytest.approx(raw, nan_ok=True, rel=1e-6)  # no task of it restores the image
    with fits.open(run_dir / "predictions/sky/frame/sky_run_0001.fits") as hdus:
        assert hdus["STARS"].shape == raw.shape
        assert (hdus["SCI"].data != raw).any()


def test_the_report_names_the_added_tasks(run_dir):
    page = (run_dir / "report.html").read_text()
    assert "Angle between gamma ray and pointing (network mono)" in page
    assert "Which pixels belong to a source" in page
    assert "pixels told wrongly" in page
