"""The tiny experiment through the slurm profile: what each job asked for, and the same products as on one machine."""

import hashlib
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

_PRODUCTS = (
    "raw/*.h5", "raw/*.fits", "ingested/*/*/*.fits", "tiles/*/*.h5", "tiles/*.manifest.json", "tiles/*.index.h5",
    "bundles/*/weights.safetensors", "bundles/*/model.onnx", "predictions/*/*/*.h5", "predictions/*/*/*.fits",
    "evaluation/*/*/metrics.json",
)  # fmt: skip
_WITH_GPU = {"train", "evaluate", "predict_camera", "predict_sky"}


def _digests(run):
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for pattern in _PRODUCTS
        for path in run.glob(pattern)
    }


class _Watch(threading.Thread):
    """Notes what the jobs of a cluster asked for, while Slurm knows them."""

    def __init__(self, cluster):
        super().__init__(daemon=True)
        self._cluster, self.ended, self.asked = cluster, threading.Event(), {}

    def run(self):
        while not self.ended.wait(20):
            shown = self._cluster.call("scontrol", "show", "job", "--oneliner", check=False)
            for line in shown.splitlines():
                if rule := re.search(r"Comment=rule_(.+?)_wildcards", line):
                    memory = int(re.search(r"TRES=\S*mem=(\d+)M", line).group(1))
                    self.asked[rule.group(1)] = {"gpu": "gres:gpu:1" in line, "memory_mb": memory}


def test_a_run_on_two_nodes_is_that_of_one_machine(run, cluster, checkout):
    settings = {"experiment": checkout / "tests" / "conf" / "tiny.yaml", "files_per_job": 2}
    watch = _Watch(cluster)
    watch.start()
    run.start(checkout / "workflow" / "Snakefile", **settings)
    assert run.end(5000) == 0, run.said
    watch.ended.set()
    asked = watch.asked
    assert _WITH_GPU | {"simulate_showers", "simulate_sky", "tiles_camera"} <= asked.keys()
    assert {rule for rule, what in asked.items() if what["gpu"]} == _WITH_GPU
    assert min(what["memory_mb"] for what in asked.values()) >= 1500
    local = run.folder / "local"
    local.mkdir()
    subprocess.run(
        [
            sys.executable, "-m", "snakemake", "--snakefile", checkout / "workflow" / "Snakefile", "--directory", local,
            "--profile", checkout / "workflow" / "profiles" / "local", "--cores", "1",
            "--config", *(f"{key}={value}" for key, value in settings.items()),
        ],
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        check=True, timeout=5000,
    )  # fmt: skip
    assert _digests(run.folder / "results" / "tiny") == _digests(local / "results" / "tiny")
