"""A Slurm cluster for the tests of this folder; they are skipped where there is none."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from local_slurm import LocalSlurm, missing, wait_for


@pytest.fixture(scope="session")
def cluster():
    if reason := missing():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # names of sockets are short
    slurm = LocalSlurm(folder)
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.stop()
        shutil.rmtree(folder, ignore_errors=True)


class Run:
    """A workflow that a controller of Snakemake runs on the cluster."""

    def __init__(self, cluster, checkout, folder):
        self._cluster, self._checkout, self.folder = cluster, checkout, folder
        self._process = None
        self._output = folder / "controller.txt"

    def start(self, snakefile, *arguments, **settings):
        command = [
            sys.executable, "-m", "snakemake", "--snakefile", snakefile, "--directory", self.folder,
            "--workflow-profile", self._checkout / "workflow" / "profiles" / "slurm",
            "--slurm-init-seconds-before-status-checks", "3", "--seconds-between-status-checks", "3",
            "--latency-wait", "10", *arguments, "--config", *(f"{key}={value}" for key, value in settings.items()),
        ]  # fmt: skip
        environment = self._cluster.environment | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{self._cluster.environment['PATH']}",
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(self._checkout), os.environ.get("PYTHONPATH")))),
        }
        with self._output.open("a") as output:
            self._process = subprocess.Popen(
                list(map(str, command)), env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=self.folder
            )
        return self

    @property
    def said(self):
        return self._output.read_text()

    def end(self, seconds=1500):
        """Exit code."""
        return self._process.wait(seconds)

    def kill(self):
        """As kill -9 or a crash of the login node."""
        self._process.kill()
        self._process.wait()

    def running_jobs(self, number=1, seconds=300):
        """Numbers of jobs that run, when so many do."""
        wait_for(lambda: len(self._cluster.jobs("running")) >= number, seconds, f"{number} jobs to run\n{self.said}")
        return self._cluster.jobs("running")


@pytest.fixture
def run(cluster, checkout, tmp_path):
    made = Run(cluster, checkout, tmp_path)
    yield made
    if made._process is not None and made._process.poll() is None:
        made.kill()
    if jobs := cluster.jobs():
        cluster.call("scancel", *jobs, check=False)
        wait_for(lambda: not cluster.jobs(), 60, "jobs to end")
