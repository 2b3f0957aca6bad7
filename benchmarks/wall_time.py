"""Wall time of the camera workflow for 10^6 to 10^9 images on 1 to 1,024 nodes: a model from measured costs.

    python benchmarks/wall_time.py [results/demo] [--bundle DIR] [--out docs/figures/wall_time.png]

The costs of simulation, tiles and prediction are measured on one and on two files of a finished run, and kept in
wall_time_costs.json: what the start of a process costs, and what an image does. Without a run, those that are kept are
taken. The costs of jobs and of the graph are constants below, measured as
docs/scaling.md says. A stage takes the longest of three: its work on the cores that its jobs fill, the submission of
its jobs, and its bytes through the file system. The CPU time that the costs predict for the run is printed beside that
which its benchmarks say.
"""

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

JOB_S = 8.0  # a job of Slurm: 5 to 12 s from submission to the start of its work
SUBMITTED_PER_S = 5.0  # max-jobs-per-second of the profile
GRAPH_S, GRAPH_S_PER_JOB = 2.0, 0.0045  # 1,526 jobs: 8.8 CPU s
CONTROLLER_S_PER_JOB = 0.05  # bookkeeping of Snakemake for each job that ends
SHARD_S, JOINED_SHARD_S = 0.0117, 0.00052  # `manifest`: a new shard, and one out of another manifest
PART = 500  # shards of a part of a manifest
DIGEST_BYTES_PER_S = 2e9

CORES = 64  # of a node
DISK_BYTES_PER_S = 10e9  # of the file system for all nodes together: an assumption, not measured
MAX_JOBS = 1 << 16  # of a rule


@dataclass(frozen=True)
class Costs:
    """CPU time [s] of the start of a process and of an image, by stage; bytes of an image in event files and shards."""

    start: dict[str, float]
    seconds: dict[str, float]
    event_bytes: float
    tile_bytes: float


MANY = Path(__file__).resolve().parent.parent / "workflow" / "scripts" / "many.py"
KEPT = Path(__file__).with_name("wall_time_costs.json")
RULES = {"simulate": "simulate_showers", "tiles": "tiles_camera", "predict": "predict_camera"}


def measured_costs(run: Path, bundle: Path) -> Costs:
    """Run each stage on the first file of a finished run, and on two."""
    names = [f"shower_run_{number:04d}" for number in range(1, 3)]
    config = ["--config", str(run / "config.yaml")]
    commands = {
        "simulate": ["simulate", "showers", *config, "--run", "{value}", "--out", "raw/{name}.h5"],
        "tiles": ["tiles", "{value}", *config, "--out", "tiles"],
        "predict": [
            "predict",
            "{value}",
            "--bundle",
            str(bundle.resolve()),
            "--out",
            "predicted/{name}",
            "--threads",
            "1",
        ],
    }
    products = {"simulate": "raw/{name}.h5", "tiles": "tiles/{name}.tiles.h5", "predict": "predicted/{name}"}
    n_images = [_n_images(run / f"raw/{name}.dl1.h5") for name in names]
    start, seconds = {}, {}
    for stage, command in commands.items():
        items = [
            f"{name}={place if stage == 'simulate' else run / f'raw/{name}.dl1.h5'}"
            for place, name in enumerate(names, 1)
        ]
        one, two = (_cpu_of(items[:n], products[stage], [*command, "--force"]) for n in (1, 2))
        seconds[stage] = (two - one) / sum(n_images[1:])
        start[stage] = one - seconds[stage] * n_images[0]
    sizes = [
        sum(path.stat().st_size for path in run.glob(what)) for what in ("raw/*.dl1.h5", "tiles/camera/*.tiles.h5")
    ]
    total = sum(map(_n_images, run.glob("raw/shower*.dl1.h5")))
    return Costs(start, seconds, sizes[0] / total, sizes[1] / total)


def _n_images(events: Path) -> int:
    return json.loads(events.with_name(f"{events.name}.provenance.json").read_text())["n_images"]


def _cpu_of(items: list[str], products: str, command: list[str]) -> float:
    """CPU time [s] of a job on some files."""
    with tempfile.TemporaryDirectory() as folder:
        argv = [sys.executable, MANY, "--receipt", "jobs/stage/receipt.json", "--settings", "", "--items", *items]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*argv, "--products", products, "--", *command], cwd=folder, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _cpu_s(path: Path) -> float:
    with path.open() as lines:
        return float(list(csv.DictReader(lines, delimiter="\t"))[-1]["cpu_time"])


@dataclass(frozen=True)
class Stage:
    """Wall time [s] of a stage, by what limits it."""

    work: float
    submission: float
    disk: float

    @property
    def wall_s(self) -> float:
        """The longest."""
        return max(self.work, self.submission, self.disk)


def model(costs: Costs, n_images: float, nodes: int, images_per_file: float) -> dict[str, Stage]:
    """Wall time of each stage for a number of images, in files of so many, with the best number of files per job."""
    n_files = max(n_images / images_per_file, 1)
    numbers = [min(n_files, 2.0**power) for power in range(MAX_JOBS.bit_length())]
    plans = [_with_jobs(costs, n_images, n_files, nodes, n_jobs) for n_jobs in numbers]
    return min(plans, key=lambda stages: sum(stage.wall_s for stage in stages.values()))


def _with_jobs(costs: Costs, n_images: float, n_files: float, nodes: int, n_jobs: float) -> dict[str, Stage]:
    slots = nodes * CORES
    bytes_of = {
        "simulate": costs.event_bytes,
        "tiles": costs.event_bytes + costs.tile_bytes,
        "predict": costs.event_bytes,
    }
    stages = {}
    for name, per_image in costs.seconds.items():
        of_job = JOB_S + costs.start[name] + per_image * n_images / n_jobs
        waves = -(-n_jobs // slots)
        per_job = 1 / SUBMITTED_PER_S + CONTROLLER_S_PER_JOB
        stages[name] = Stage(waves * of_job, n_jobs * per_job, n_images * bytes_of[name] / DISK_BYTES_PER_S)
    n_parts = max(n_files / PART, 1)
    read = n_images * costs.tile_bytes
    of_part = JOB_S + min(n_files, PART) * SHARD_S + read / n_parts / DIGEST_BYTES_PER_S
    join = n_files * JOINED_SHARD_S if n_parts > 1 else 0.0
    stages["manifest"] = Stage(
        -(-n_parts // slots) * of_part + join, n_parts / SUBMITTED_PER_S, read / DISK_BYTES_PER_S
    )
    graph = GRAPH_S + GRAPH_S_PER_JOB * (3 * n_jobs + n_parts)
    stages["graph"] = Stage(graph, 0.0, 0.0)
    return stages


def draw(costs: Costs, images_per_file: float, out: Path) -> None:
    """Wall time against nodes, one line for each number of images, and what limits the largest."""
    from matplotlib.figure import Figure

    nodes = [2**power for power in range(11)]
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for exponent in range(6, 10):
        hours = [
            sum(stage.wall_s for stage in model(costs, 10.0**exponent, n, images_per_file).values()) / 3600
            for n in nodes
        ]
        left.loglog(nodes, hours, marker="o", ms=3, label=f"$10^{exponent}$ images")
    for name in ("simulate", "tiles", "predict", "manifest", "graph"):
        seconds = [model(costs, 1e9, n, images_per_file)[name].wall_s / 3600 for n in nodes]
        right.loglog(nodes, seconds, marker="o", ms=3, label=name)
    for axes, title in ((left, "all stages but training"), (right, "$10^9$ images, by stage")):
        axes.set(xlabel=f"nodes of {CORES} cores", ylabel="wall time [h]", title=title)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(out, dpi=110)


def table(costs: Costs, images_per_file: float) -> str:
    """Hours by number of images and nodes, with the largest part and its limit."""
    lines = ["| images | nodes | hours | most of it | limited by |", "| --- | --- | --- | --- | --- |"]
    for exponent in range(6, 10):
        for nodes in (1, 16, 128, 1024):
            stages = model(costs, 10.0**exponent, nodes, images_per_file)
            total = sum(stage.wall_s for stage in stages.values())
            name, longest = max(stages.items(), key=lambda entry: entry[1].wall_s)
            limit = max(("work", "submission", "disk"), key=lambda what: getattr(longest, what))
            lines.append(f"| 10^{exponent} | {nodes:,} | {total / 3600:.2g} | {name} | {limit} |")
    return "\n".join(lines)


def check(costs: Costs, run: Path) -> str:
    """CPU time that the costs predict for a run, beside that of its benchmarks."""
    n_images = sum(map(_n_images, run.glob("raw/shower*.dl1.h5")))
    lines = []
    for stage, rule in RULES.items():
        files = list(run.glob(f"benchmarks/{rule}/*.tsv"))
        predicted = len(files) * costs.start[stage] + costs.seconds[stage] * n_images
        lines.append(
            f"{stage:9} {n_images} images: predicted {predicted:.1f} CPU s, benchmarks {sum(map(_cpu_s, files)):.1f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the costs and the table, draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="folder of a finished run with camera files")
    parser.add_argument("--bundle", type=Path, help="that predicts; by default `mono` of the run")
    parser.add_argument("--images-per-file", type=float, default=20_000)
    parser.add_argument("--out", type=Path, help="figure to draw")
    parser.add_argument("--quick", action="store_true", help="the same as without")
    arguments = parser.parse_args()
    if arguments.run is not None:
        costs = measured_costs(arguments.run.resolve(), arguments.bundle or arguments.run / "bundles" / "mono")
        KEPT.write_text(json.dumps(asdict(costs), indent=1) + "\n")
        print(check(costs, arguments.run))
    costs = Costs(**json.loads(KEPT.read_text()))
    for stage, seconds in costs.seconds.items():
        print(f"{stage:9} {1e3 * seconds:.3f} ms CPU per image, {costs.start[stage]:.1f} s per process")
    print(f"{costs.event_bytes / 1e3:.1f} kB of an image in event files, {costs.tile_bytes / 1e3:.1f} kB in shards")
    print(table(costs, arguments.images_per_file))
    if arguments.out:
        draw(costs, arguments.images_per_file, arguments.out)


if __name__ == "__main__":
    main()
