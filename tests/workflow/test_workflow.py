"""The workflow: checked before any job, one tiny run from simulation to report, and what an edit makes run again."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from astropy.io import fits
from snakemake_forks import SnakemakeForks
from tiny_bundles import camera_bundle

BIN = Path(sys.executable).parent


ENVIRONMENT = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


def _arguments(checkout, folder, *arguments, **settings):
    return [
        "--snakefile", checkout / "workflow" / "Snakefile",
        "--profile", checkout / "workflow" / "profiles" / "local",
        "--cores", "2",
        "--directory", folder,
        *arguments,
        "--config", *(f"{key}={value}" for key, value in settings.items()),
    ]  # fmt: skip


def _snakemake(checkout, folder, *arguments, **settings):
    """Run Snakemake of `checkout` in `folder`; returns the finished process with both streams as one text."""
    return subprocess.run(
        [sys.executable, "-m", "snakemake", *_arguments(checkout, folder, *arguments, **settings)],
        # Snakemake's own cache, which two workers must not share.
        env=os.environ | ENVIRONMENT | {"XDG_CACHE_HOME": str(folder / "cache")},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1200,
    )  # fmt: skip


@pytest.fixture(scope="module")
def forks(checkout, tmp_path_factory, tiny_config_path):
    """Snakemake of this checkout, started once for all plans."""
    folder = tmp_path_factory.mktemp("plans")
    first = _arguments(checkout, folder, "--dry-run", experiment=tiny_config_path)
    process = SnakemakeForks(folder, ENVIRONMENT, first)
    yield process
    process.end()


def _planned_jobs(text):
    """Jobs per rule in the table that a dry run ends with."""
    table = re.search(r"^Job stats:\n.*?\n-.*?\n(.*?)^total", text, re.MULTILINE | re.DOTALL)
    if table is None:
        assert "Nothing to be done" in text, text
        return {}
    return {name: int(count) for name, count in (line.split() for line in table.group(1).strip().splitlines())}


@pytest.fixture
def planned(forks, checkout, tmp_path):
    """Plan an experiment without running it; returns the jobs of each rule."""

    def plan(experiment, **settings):
        done = forks.run(_arguments(checkout, tmp_path, "--dry-run", experiment=experiment, **settings))
        assert done.returncode == 0, done.stdout
        return _planned_jobs(done.stdout)

    return plan


@pytest.fixture
def refused(forks, checkout, tmp_path):
    """Try an experiment that must be refused; returns what Snakemake says."""

    def refuse(content, **settings):
        experiment = tmp_path / "experiment.yaml"
        experiment.write_text(content)
        done = forks.run(_arguments(checkout, tmp_path, "--dry-run", experiment=experiment, **settings))
        assert done.returncode != 0, done.stdout
        return done.stdout

    return refuse


def test_lint_is_clean(checkout, tmp_path, tiny_config_path):
    done = _snakemake(checkout, tmp_path, "--lint", experiment=tiny_config_path)
    assert done.returncode == 0, done.stdout
    assert "good condition" in done.stdout


def test_format_is_clean(checkout):
    done = subprocess.run(
        [sys.executable, "-m", "snakefmt", "--check", checkout / "workflow"],
        cwd=checkout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_one_job_for_each_run_and_frame(planned, tiny_config, tiny_config_path):
    jobs = planned(tiny_config_path)
    assert jobs["simulate_showers"] == jobs["tiles_camera"] == tiny_config.showers.n_runs
    assert jobs["simulate_sky"] == jobs["ingest_sky"] == tiny_config.sky.runs
    assert jobs["train"] == jobs["evaluate"] == len(tiny_config.networks)
    assert jobs["report"] == 1


def test_several_files_in_a_job(planned, tmp_path):
    (tmp_path / "data").mkdir()
    for number in range(7):
        (tmp_path / "data" / f"{number}.fits").write_bytes(b"")
    experiment = tmp_path / "own.yaml"
    experiment.write_text(
        "name: own\nshowers: {classes: [{particle: gamma, runs: 5}]}\nnetworks: {energy: {}}\n"
        "inputs: {sky: ['*.fits']}\npredict: {uses: {camera: [energy]}}\n"
    )
    jobs = planned(experiment, data=tmp_path / "data", files_per_job=3)
    assert jobs["simulate_showers"] == jobs["tiles_camera"] == jobs["predict_camera"] == 2
    assert (jobs["ingest_sky"], jobs["usable"]) == (3, 1)


def test_thousands_of_shards_make_a_manifest_of_manifests(planned, tmp_path):
    (tmp_path / "own.yaml").write_text(
        "name: own\nshowers: {classes: [{particle: gamma, runs: 1200}]}\nnetworks: {energy: {}}\n"
    )
    jobs = planned(tmp_path / "own.yaml", files_per_job=100)
    assert (jobs["tiles_camera"], jobs["manifest_part"], jobs["manifest"]) == (12, 3, 1)


def test_an_array_of_several_cameras_is_planned(planned, checkout):
    jobs = planned(checkout / "configs" / "mixed_array.yaml")
    assert jobs["simulate_showers"] == jobs["tiles_camera"] == jobs["predict_camera"] == 20
    assert jobs["manifest"] == 1  # of both cameras
    assert jobs["train"] == jobs["evaluate"] == 4


def test_one_job_for_each_file_of_the_user(planned, tmp_path):
    for name in ("night 1/a.simtel.zst", "night 1/b.simtel.gz", "c.fits", "notes.txt"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(b"")
    experiment = tmp_path / "own.yaml"
    experiment.write_text("name: own\nnetworks: {}\ninputs: {camera: ['night*/*.simtel.*'], sky: ['*.fits']}\n")
    jobs = planned(experiment, data=tmp_path / "data")
    assert (jobs["ingest_camera"], jobs["ingest_sky"], jobs["usable"]) == (2, 1, 2)


def test_a_wing_without_files_is_left_out(planned, tmp_path):
    (tmp_path / "a.simtel.zst").write_bytes(b"")
    experiment = tmp_path / "own.yaml"
    experiment.write_text("name: own\nnetworks: {denoise: {}}\ninputs: {camera: ['*.simtel.zst'], sky: ['*.fits']}\n")
    assert "train" not in planned(experiment, data=tmp_path)


ZOO = """
name: side
networks: {}
device: cpu
threads: 1
showers:
  positions_per_shower: 4
  classes:
    - {particle: gamma, runs: 1, showers_per_run: 160, scatter_radius_m: 150.0, energy_min_tev: 0.2}
    - {particle: proton, runs: 1, showers_per_run: 240, scatter_radius_m: 150.0, energy_min_tev: 0.5}
tiles: {splits: {train: 0.5, validation: 0.25, test: 0.25}, camera: {size: 32}}
evaluate: {bootstrap: 50, forest_trees: 10}
zoo:
  tasks: [gammaness]
  train: {scalars: [], batch_size: 16}
  epochs: 1
  best: 1
  seeds: 2
  entries: [{name: lenet5_modern}, {name: resnet18, label: narrow, kwargs: {width: 4}}, {name: inception_v3}]
"""


def test_one_training_for_each_network_of_a_zoo(planned, tmp_path):
    (tmp_path / "zoo.yaml").write_text(ZOO)
    jobs = planned(tmp_path / "zoo.yaml")
    assert (jobs["zoo_train"], jobs["zoo_best"], jobs["compare"]) == (3, 1, 1)
    assert not jobs.keys() & {"train", "evaluate", "report"}


@pytest.mark.slow
def test_a_zoo_goes_on_without_a_network_that_cannot_be_trained(checkout, tmp_path):
    (tmp_path / "zoo.yaml").write_text(ZOO)
    done = _snakemake(checkout, tmp_path, experiment=tmp_path / "zoo.yaml")
    assert done.returncode == 0, done.stdout
    assert "The comparison is results/side/comparison.html" in done.stdout
    run = tmp_path / "results" / "side"
    rows = json.loads((run / "comparison.json").read_text())["networks"]["gammaness"]
    assert sorted(len(row["by_seed"]["auc"]) for row in rows) == [1, 2]
    reason = (run / "zoo" / "gammaness" / "inception_v3" / "run_0" / "bundle" / "failed.txt").read_text()
    assert "32 x 32 px are too small for the model 'inception_v3'" in reason
    (tmp_path / "zoo.yaml").write_text(ZOO.replace("width: 4", "width: 5"))
    again = _snakemake(checkout, tmp_path, "--dry-run", experiment=tmp_path / "zoo.yaml")
    # The network that changed, and what hangs on it; further seeds of the best are known when it is trained.
    assert _planned_jobs(again.stdout)["zoo_train"] == 1


RESPONSES = """
name: responses
showers: {array: [{type: LST}, {type: LST, x_m: 100}], min_telescopes: 2, classes: [{particle: gamma, runs: 1}]}
networks: {energy: {}, gammaness: {}}
irf:
  energy: energy
  gammaness: gammaness
  classes: [{particle: gamma, runs: 2}, {particle: proton, runs: 3}]
"""


def test_runs_of_responses_are_predicted_and_never_become_tiles(planned, tmp_path):
    (tmp_path / "own.yaml").write_text(RESPONSES)
    jobs = planned(tmp_path / "own.yaml")
    assert (jobs["simulate_showers"], jobs["tiles_camera"], jobs["train"]) == (1, 1, 2)
    assert (jobs["simulate_irf"], jobs["predict_irf"], jobs["irf"], jobs["report"]) == (5, 5, 1, 1)


def test_the_baseline_of_responses_waits_for_the_tiles(planned, tmp_path):
    content = RESPONSES.replace("networks: {energy: {}, gammaness: {}}", "networks: {}")
    for task in ("energy", "gammaness"):
        bundle = camera_bundle(tmp_path / task, task, "hexagon-1855-6.14arcmin-41deg-r24")
        content = content.replace(f"{task}: {task}", f"{task}: {bundle}")
    (tmp_path / "own.yaml").write_text(content)
    assert planned(tmp_path / "own.yaml")["irf"] == 1
    assert "tiles_camera" not in planned(tmp_path / "own.yaml")
    (tmp_path / "own.yaml").write_text(content + "  baseline: forest\n")
    jobs = planned(tmp_path / "own.yaml")
    assert (jobs["tiles_camera"], jobs["manifest"], jobs["irf"]) == (1, 1, 1)


def test_without_its_classes_there_are_no_responses(planned, tiny_config_path):
    assert not planned(tiny_config_path).keys() & {"simulate_irf", "predict_irf", "irf"}


def test_a_training_waits_for_the_one_that_it_starts_from(planned, tmp_path):
    experiment = tmp_path / "own.yaml"
    experiment.write_text(
        "name: own\nshowers: {classes: [{particle: gamma, runs: 1}]}\n"
        "networks: {gammaness: {}, energy: {start_from: gammaness, freeze: 1}}\n"
    )
    assert planned(experiment)["train"] == 2


def test_a_training_waits_for_the_bundle_of_another_experiment(planned, tmp_path):
    """Made by this run where it is one of its own; else it must be there."""
    experiment = tmp_path / "own.yaml"
    experiment.write_text(
        "name: own\nshowers: {classes: [{particle: gamma, runs: 1}]}\n"
        "networks: {gammaness: {}, energy: {start_from: results/own/bundles/gammaness, freeze: 1}}\n"
    )
    assert planned(experiment)["train"] == 2


@pytest.mark.parametrize(
    ("content", "data", "message"),
    [
        ("networks: {energy: {epoch: 3}}", None, r"unknown key 'networks\.energy\.epoch'; did you mean 'epochs'"),
        ("inputs: {camera: ['*.h5']}", None, r"reads files of yours; say where they are: make run .* DATA=DIR"),
        ("inputs: {camera: ['*.h5']}", "none", r"DATA=.*none is not a directory"),
        ("inputs: {camera: ['*.h5']}", ".", r"match no file under .*inputs\.camera \['\*\.h5'\]"),
        ("inputs: {sky: ['*.fits', '*/*.fits']}", "same", r"2 input files are called a \(.*a\.fits, .*\); rename"),
        ("{sky: {runs: 1}, zoo: {entries: [{name: vgg11}]}}", None, "has zoo.entries, .*and no camera files"),
        ("{showers: {classes: [{particle: gamma}]}, zoo: {entries: [{name: vgg11, train: {epoch: 3}}]}}", None,
         r"zoo entry 'vgg11': unknown key 'networks\.\w+\.epoch'"),
        ("{showers: {classes: [{particle: gamma}]}, predict: {uses: {camera: [no/such]}}}", None,
         r"predict\.uses: there is no bundle 'no/such'.*`make run` makes those"),
        ("{irf: {energy: no/such, gammaness: b, classes: [{particle: gamma}]}}", None,
         r"irf\.energy: there is no bundle 'no/such'"),
        ("{irf: {baseline: forest, classes: [{particle: gamma}]}}", None,
         r"irf\.baseline forest is trained on camera tiles, and there are no camera files"),
        ("{irf: {classes: [{particle: gamma}]}}", None, r"irf\.energy is empty; name the network or the bundle"),
    ],
)  # fmt: skip
def test_mistakes_are_said_before_any_job(refused, tmp_path, content, data, message):
    for name in ("a.fits", "sub/a.fits"):
        (tmp_path / "same" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "same" / name).write_bytes(b"")
    said = refused(content, **({} if data is None else {"data": tmp_path / data}))
    assert re.search(message, said), said


@pytest.mark.parametrize("number", ["0", "501", "many"])
def test_a_number_of_files_that_no_job_takes_is_refused(refused, number):
    said = refused("{showers: {classes: [{particle: gamma}]}}", files_per_job=number)
    assert re.search(rf"files_per_job={number} is not a number from 1 to 500", said), said


def test_too_many_files_for_one_in_each_job_are_refused_with_the_number_to_give(refused, tmp_path):
    (tmp_path / "data").mkdir()
    for number in range(1001):
        (tmp_path / "data" / f"{number}.fits").write_bytes(b"")
    said = refused("{inputs: {sky: ['*.fits']}}", data=tmp_path / "data")
    assert re.search(r"1001 files with 1 in each job are more than 1000 jobs; say FILES_PER_JOB=2 or more", said), said


def test_damaged_files_leave_a_status_and_the_rest_goes_on(checkout, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "noise.simtel.gz").write_bytes(b"no simtel at all")
    (tmp_path / "data" / "cut.fits").write_bytes(b"SIMPLE  =                    T")
    (tmp_path / "data" / "good.fits").write_bytes(_frame())
    experiment = tmp_path / "own.yaml"
    experiment.write_text("name: own\nnetworks: {}\ninputs: {camera: ['*.simtel.gz'], sky: ['*.fits']}\n")
    done = _snakemake(checkout, tmp_path, "--until", "usable", experiment=experiment, data=tmp_path / "data")
    assert done.returncode == 0, done.stdout
    camera, sky = (
        json.loads((tmp_path / "results" / "own" / "status" / f"ingest_{wing}.json").read_text())
        for wing in ("camera", "sky")
    )
    assert {name: record["status"] for name, record in (camera | sky).items()} == {
        "noise": "failed", "cut": "failed", "good": "ok"
    }  # fmt: skip
    assert camera["noise"]["input"] == "noise.simtel.gz"
    assert camera["noise"]["reason"]
    assert sky["cut"]["reason"]


def _frame():
    """A small sky frame, as the bytes of its file."""
    hdu = fits.PrimaryHDU(np.random.default_rng(0).normal(500.0, 5.0, (64, 64)).astype("f4"))
    hdu.header["GAIN"] = 1.5
    stream = io.BytesIO()
    hdu.writeto(stream)
    return stream.getvalue()


def test_profiles_name_existing_rules(checkout, tmp_path, tiny_config_path):
    done = _snakemake(checkout, tmp_path, "--list-rules", experiment=tiny_config_path)
    rules = set(done.stdout.split())
    assert {"train", "evaluate"} <= rules
    for profile in (checkout / "workflow" / "profiles").glob("*/config.yaml"):
        content = yaml.safe_load(profile.read_text())
        assert rules >= content.get("set-resources", {}).keys() | content.get("set-threads", {}).keys()


# ---- one real run ----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def finished(checkout, tmp_path_factory):
    """A copy of the sources in a path with a space, and the tiny experiment run there; returns the copy."""
    copy = tmp_path_factory.mktemp("a checkout")
    for name in ("workflow", "pipeline", "models", "tests/conf"):
        shutil.copytree(checkout / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "bundles"))
    done = _snakemake(copy, copy, experiment="tests/conf/tiny.yaml")
    assert done.returncode == 0, done.stdout
    assert "The report is results/tiny/report.html" in done.stdout
    return copy


def _again(copy, *arguments):
    done = _snakemake(copy, copy, "--dry-run", *arguments, experiment="tests/conf/tiny.yaml")
    assert done.returncode == 0, done.stdout
    return _planned_jobs(done.stdout)


def test_products_of_a_run(finished, tiny_config):
    run = finished / "results" / "tiny"
    assert "<html" in (run / "report.html").read_text()
    for task in tiny_config.networks:
        metrics = json.loads((run / "evaluation" / task / task / "metrics.json").read_text())
        assert metrics["task"] == metrics["network"] == task
        assert {path.name for path in (run / "bundles" / task).iterdir()} >= {
            "card.json", "model.onnx", "weights.safetensors"
        }  # fmt: skip
        assert not (run / "bundles" / f"{task}.ckpt").exists()
    status = json.loads((run / "status" / "ingest_sky.json").read_text())
    assert [status[name]["status"] for name in sorted(status)] == ["ok"] * tiny_config.sky.runs
    assert len(list((run / "predictions" / "camera").glob("*/*.dl2.h5"))) == tiny_config.showers.n_runs
    assert len(list((run / "predictions" / "sky").glob("*/*.fits"))) == tiny_config.sky.runs
    assert list((run / "logs" / "train").iterdir())
    assert list((run / "benchmarks" / "train").iterdir())


def test_a_second_run_has_nothing_to_do(finished):
    done = _snakemake(finished, finished, experiment="tests/conf/tiny.yaml")
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout


def test_a_product_that_somebody_removed_is_made_again(finished):
    run = finished / "results" / "tiny"
    kept = [run / "raw" / "shower_run_0002.dl1.h5", run / "jobs" / "simulate_showers" / "shower_run_0002.json"]
    for path in kept:
        path.rename(path.with_suffix(".aside"))
        shutil.copy2(path.with_suffix(".aside"), path)
    kept[0].unlink()
    try:
        receipt = kept[1].relative_to(finished)
        done = _snakemake(finished, finished, "--dry-run", receipt, experiment="tests/conf/tiny.yaml")
        assert re.search(r"1 products of .*shower_run_0002\.json are gone; they are made again", done.stdout)
        assert _planned_jobs(done.stdout)["simulate_showers"] == 1
    finally:
        for path in kept:
            path.with_suffix(".aside").rename(path)


def test_runs_that_are_added_are_the_only_ones_made(finished):
    experiment = finished / "tests" / "conf" / "tiny.yaml"
    before = experiment.read_text()
    experiment.write_text(before.replace("positions_per_shower:", "scale: 2\n  positions_per_shower:"))
    try:
        jobs = _again(finished)
    finally:
        experiment.write_text(before)
    assert (jobs["simulate_showers"], jobs["tiles_camera"]) == (2, 2)  # the network is another one, so all is predicted
    assert not jobs.keys() & {"simulate_sky", "tiles_sky"}


@pytest.mark.parametrize(
    ("module", "rules"),
    [
        ("pipeline/stages/evaluate.py", {"evaluate": 2, "report": 1, "all": 1}),
        ("pipeline/stages/report.py", {"report": 1, "all": 1}),
        ("pipeline/cli/networks.py", {}),
    ],
)
def test_an_edited_module_reruns_its_stage_and_what_follows(finished, module, rules):
    source = finished / module
    before, when = source.read_text(), source.stat()
    source.write_text(before + "# an afterthought\n")
    try:
        assert _again(finished) == rules
    finally:
        source.write_text(before)
        os.utime(source, ns=(when.st_atime_ns, when.st_mtime_ns))


def test_a_changed_setting_reruns_what_depends_on_it(finished):
    experiment = finished / "tests" / "conf" / "tiny.yaml"
    before = experiment.read_text()
    experiment.write_text(before.replace("bootstrap: 50", "bootstrap: 60"))
    try:
        assert _again(finished) == {"experiment": 1, "evaluate": 2, "report": 1, "all": 1}
    finally:
        experiment.write_text(before)


def test_a_changed_cleaning_reruns_the_simulation_and_all_that_follows(finished):
    """DL1 holds image parameters, so the cleaning of the tiles is read there, too."""
    experiment = finished / "tests" / "conf" / "tiny.yaml"
    before = experiment.read_text()
    experiment.write_text(before.replace("camera: {size: 32}", "camera: {size: 32, cleaning: {picture_pe: 7.0}}"))
    try:
        jobs = _again(finished)
    finally:
        experiment.write_text(before)
    assert (jobs["simulate_showers"], jobs["tiles_camera"], jobs["predict_camera"]) == (2, 2, 2)
    assert jobs["train"] == 1  # gammaness; the sky's tiles, and so denoise, are as they were
    assert not jobs.keys() & {"simulate_sky", "ingest_sky", "tiles_sky", "predict_sky"}


def test_a_changed_overlap_reruns_what_predicts_frames(finished):
    experiment = finished / "tests" / "conf" / "tiny.yaml"
    before = experiment.read_text()
    experiment.write_text(before.replace("predict:\n", "predict:\n  overlap_px: 64\n"))
    try:
        jobs = _again(finished)
    finally:
        experiment.write_text(before)
    assert jobs == {"experiment": 1, "evaluate": 2, "predict_sky": 4, "report": 1, "all": 1}
