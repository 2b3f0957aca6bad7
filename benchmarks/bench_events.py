"""Events of several telescopes through tiles, training and prediction: images per CPU second, and peak memory.

    python benchmarks/bench_events.py [--files DL1 ...] [--config FILE] [--network NAME] [--runs N] [--quick]

Each stage is the command of `lightpool` in a process of its own; its CPU time is that of all threads, its memory the
largest resident set. All stages are measured for the first quarter of the files and for all of them: memory must not
grow with the number of events. Without --files, the first runs of the configuration (configs/lst_stereo.yaml) are
simulated. The network is trained for one epoch, without the bundle that it would start from.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from rich.console import Console
from rich.table import Table

from pipeline.bundle.card import load_bundle_card
from pipeline.tiles.events import EventReader

ROOT = Path(__file__).resolve().parent.parent
_COMMAND = "import sys; from pipeline.cli import main; sys.exit(main())"


class Cost(NamedTuple):
    """Of one process, and of those that it waited for."""

    cpu_s: float
    memory_mb: float


def lightpool(*arguments: object) -> Cost:
    """Run a command; its progress is not shown."""
    line = [sys.executable, "-c", _COMMAND, *map(str, arguments)]
    pid = os.posix_spawn(
        sys.executable, line, os.environ | {"PYTHONPATH": str(ROOT)},
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
    )  # fmt: skip
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"lightpool {arguments[0]} failed")
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def configuration(path: Path, network: str, folder: Path) -> Path:
    """The configuration with one epoch of this network, which starts from fresh weights, and with all tiles in use."""
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    chosen = dict(content["networks"][network])
    model = dict(chosen["model"])
    if origin := chosen.pop("start_from", None):
        encoder = content["networks"][origin if isinstance(origin, str) else origin[0]]["model"]
        model["kwargs"] = {"encoder": encoder["name"], "encoder_kwargs": encoder["kwargs"]} | model.get("kwargs", {})
    # Gammas alone may be measured, which cannot be told from hadrons.
    heads = {name: options for name, options in chosen["heads"].items() if name != "gammaness"}
    changes = {"epochs": 1, "heads": heads, "model": model}
    content |= {"threads": 1, "networks": {network: chosen | changes}}
    out = folder / "config.yaml"
    out.write_text(yaml.safe_dump(content))
    return out


def measure(files: Sequence[Path], config: Path, network: str, folder: Path) -> tuple[int, int, dict[str, Cost]]:
    """Events, images, and what each stage costs."""
    folder.mkdir()
    tiles, bundle = folder / "tiles", folder / "bundle"
    costs = {"tiles": lightpool("tiles", *files, "--config", config, "--out", tiles)}
    manifest = folder / "m.json"
    shards = sorted(tiles.glob("*.tiles.h5"))
    costs["manifest"] = lightpool("manifest", *shards, "--config", config, "--out", manifest)
    train = ("train", manifest, "--config", config, "--network", network, "--out", bundle)
    costs["train, one epoch"] = lightpool(*train)
    costs["predict"] = lightpool("predict", *files, "--bundle", bundle, "--out", folder / "dl2", "--threads", 1)
    readers = [EventReader([manifest], split, equalise=False) for split in ("train", "validation", "test")]
    assert load_bundle_card(bundle).training.epochs == 1
    return sum(r.n_events for r in readers), sum(r.n_tiles for r in readers), costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", nargs="+", type=Path, default=[])
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "lst_stereo.yaml")
    parser.add_argument("--network", default="stereo")
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--quick", action="store_true", help="a few small runs, which show that this works")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = configuration(arguments.config, arguments.network, folder)
        files = arguments.files or simulated(config, arguments.runs, folder, quick=arguments.quick)
        table = Table("files", "events", "images", "stage", "images per CPU s", "memory [MB]")
        for number in sorted({len(files) if arguments.quick else max(1, len(files) // 4), len(files)}):
            n_events, n_images, costs = measure(files[:number], config, arguments.network, folder / f"of_{number}")
            for stage, cost in costs.items():
                speed, memory = f"{n_images / cost.cpu_s:,.0f}", f"{cost.memory_mb:,.0f}"
                table.add_row(str(number), f"{n_events:,}", f"{n_images:,}", stage, speed, memory)
        Console().print(table)


def simulated(config: Path, runs: int, folder: Path, *, quick: bool) -> list[Path]:
    """DL1 files of the first runs of the configuration; small ones with `quick`."""
    if quick:
        content = yaml.safe_load(config.read_text())
        for entry in content["showers"]["classes"]:
            entry["showers_per_run"] = 60
        content["showers"]["positions_per_shower"] = 2
        config.write_text(yaml.safe_dump(content))
    files = [folder / f"run{run}.dl1.h5" for run in range(1, 1 + (2 if quick else runs))]
    for run, file in enumerate(files, 1):
        lightpool("simulate", "showers", "--config", config, "--run", run, "--out", file)
    return files


if __name__ == "__main__":
    main()
