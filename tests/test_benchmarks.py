"""Every script of benchmarks/ runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parent.parent / "benchmarks").glob("*.py"))


def test_there_are_benchmarks():
    assert SCRIPTS


#: Most of the time of this file: they run with `pytest -m slow`.
SLOW = (
    "bench_big_frames", "bench_events", "bench_showers", "bench_sky_speed", "bench_train_throughput", "damaged_files",
    "data_against_simulation", "gallery_showers", "gpu", "interrupted_runs",
)  # fmt: skip


@pytest.mark.parametrize(
    "script",
    [pytest.param(path, marks=pytest.mark.slow if path.stem in SLOW else ()) for path in SCRIPTS],
    ids=lambda path: path.stem,
)
def test_a_benchmark_runs(script, checkout, tmp_path):
    done = subprocess.run(
        [sys.executable, script, "--quick"],
        cwd=tmp_path,  # gallery_showers writes there
        env=os.environ | {"PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
