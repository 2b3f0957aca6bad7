"""Faults of a cluster, on a real Slurm: what the user sees, and that nothing is lost.

Run by `make test-cluster`; minutes, for Slurm counts in them.
"""

import contextlib
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from local_slurm import wait_for

pytestmark = pytest.mark.cluster

FAULTS = Path(__file__).parent / "faults.smk"


def _lines(path):
    return path.read_text().split() if path.exists() else []


def test_a_job_that_needs_more_memory_gets_it(run):
    run.start(FAULTS, names="hungry")
    assert run.end() == 0, run.said
    assert _lines(run.folder / "memory") == ["1500", "3000"]
    assert "out-of-memory" in run.said.lower() or "oom" in run.said.lower() or "Trying to restart job" in run.said


def test_a_job_that_needs_more_time_gets_it(run):
    run.start(FAULTS, names="lengthy")
    assert run.end() == 0, run.said
    assert _lines(run.folder / "minutes") == ["1", "10"]
    assert "TIMEOUT" in run.said, run.said


def test_a_cancelled_job_is_started_again(run, cluster):
    run.start(FAULTS, names="wait_1", seconds=30)
    (job,) = run.running_jobs()
    wait_for((run.folder / "tries_1").exists, 120, "the job to begin")
    cluster.call("scancel", job)
    assert run.end() == 0, run.said
    assert len(_lines(run.folder / "tries_1")) == 2
    assert (run.folder / "made" / "wait_1").exists()
    assert "CANCELLED" in run.said, run.said


def test_jobs_of_a_lost_node_run_on_another(run, cluster):
    run.start(FAULTS, names="wait_1", seconds=40)
    (job,) = run.running_jobs()
    wait_for((run.folder / "tries_1").exists, 120, "the job to begin")
    node = cluster.node_of(job)
    cluster.kill_node(node)
    try:
        assert run.end() == 0, run.said
    finally:
        cluster.start_node(node)
        wait_for(lambda: node in cluster.idle(), 120, f"{node} to come back")
    assert (run.folder / "made" / "wait_1").exists()
    assert len(_lines(run.folder / "tries_1")) == 2
    nodes = {entry["NodeList"] for entry in cluster.log() if entry["JobId"] != job}
    assert nodes - {node}, run.said


def test_the_controller_of_slurm_may_crash(run, cluster):
    run.start(FAULTS, names="wait_1,wait_2", seconds=40)
    run.running_jobs(2)
    cluster.kill_controller()
    cluster.start_controller()
    assert run.end() == 0, run.said
    assert [len(_lines(run.folder / f"tries_{number}")) for number in (1, 2)] == [1, 1]  # nothing ran twice


def test_a_killed_controller_of_the_workflow(run, cluster, checkout):
    """Its jobs go on; a run that is started meanwhile says what to do, and one that is started later does the rest."""
    snakefile, settings = _experiment(run.folder, checkout)
    run.start(snakefile, "--until", "simulate_sky", **settings)
    (job, *_) = run.running_jobs()
    run.kill()
    run.start(snakefile, "--until", "simulate_sky", **settings)
    assert run.end() != 0
    assert "a run was killed here, and 2 of its jobs are still in the queue" in run.said, run.said
    assert f"scancel {job}" in run.said
    wait_for(lambda: not cluster.jobs(), 600, "the jobs to end")
    run.start(snakefile, "--until", "simulate_sky", **settings)
    assert run.end() == 0, run.said
    assert "A run was killed here; its lock is removed" in run.said
    assert len(list((run.folder / "results" / "cluster" / "raw").glob("*.truth.fits"))) == 6


def _experiment(folder, checkout, **settings):
    (folder / "cluster.yaml").write_text("name: cluster\nnetworks: {}\nsky: {runs: 6, shape: [64, 64]}\n")
    return checkout / "workflow" / "Snakefile", {"experiment": "cluster.yaml", "files_per_job": 3} | settings


def test_one_corrupt_file_of_fifty(run, checkout):
    """It has a status that says why; the other files of its job and all others are there."""
    data = run.folder / "data"
    data.mkdir()
    rng = np.random.default_rng(0)
    for number in range(50):
        header = fits.Header({"GAIN": 1.5})
        fits.PrimaryHDU(rng.normal(500, 5, (32, 32)).astype("f4"), header).writeto(data / f"frame_{number:02d}.fits")
    whole = (data / "frame_17.fits").read_bytes()
    (data / "frame_17.fits").write_bytes(whole[: len(whole) // 2 + 100])
    (run.folder / "own.yaml").write_text("name: own\nnetworks: {}\ninputs: {sky: ['*.fits']}\n")
    run.start(
        checkout / "workflow" / "Snakefile", "--until", "usable", experiment="own.yaml", data=data, files_per_job=25
    )
    assert run.end() == 0, run.said
    statuses = json.loads((run.folder / "results" / "own" / "status" / "ingest_sky.json").read_text())
    assert len(statuses) == 50
    assert [name for name, record in statuses.items() if record["status"] != "ok"] == ["frame_17"]
    assert statuses["frame_17"]["reason"]


@contextlib.contextmanager
def _small_disk(folder, kilobytes):
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_costs_what_did_not_fit(run, checkout):
    snakefile, settings = _experiment(run.folder, checkout)
    raw = run.folder / "results" / "cluster" / "raw"
    try:
        disk = _small_disk(raw, 250)
        disk.__enter__()
    except subprocess.CalledProcessError:
        pytest.skip("a disk of its own cannot be mounted here")
    try:
        run.start(snakefile, "--until", "simulate_sky", "--retries", "0", **settings)
        assert run.end() != 0
        assert "cannot write" in run.said, run.said
        assert "no space left" in run.said.lower() or "disk is full" in run.said.lower(), run.said
        done = {path: path.stat().st_mtime_ns for path in raw.glob("*.truth.fits")}
        subprocess.run(["mount", "-o", "remount,size=20m", raw], check=True)
        run.start(snakefile, "--until", "simulate_sky", **settings)
        assert run.end() == 0, run.said
        frames = list(raw.glob("*.truth.fits"))
        assert len(frames) == 6
        assert all(path.stat().st_mtime_ns == when for path, when in done.items())  # not made again
        assert not [name for name in os.listdir(raw) if name.startswith(".")]  # nothing half made is left
    finally:
        disk.__exit__(None, None, None)
