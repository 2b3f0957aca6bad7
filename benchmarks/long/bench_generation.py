"""Generated beside simulated camera images: can a network tell them apart, can it learn from them, what do they cost?

    python benchmarks/long/bench_generation.py --gamma BUNDLE --proton BUNDLE --simulated-gamma DL1 ...
        --simulated-proton DL1 ... [--gamma-config FILE] [--proton-config FILE] [--out DIR] [--images N] [--seeds N]

BUNDLE are those of configs/lst_generator.yaml and lst_generator_proton.yaml; the simulated files are runs that they
were not trained on. Every step is a command of `lightpool`:

- two samples: a ResNet is trained to tell generated from simulated images of one class. The generated ones are passed
  off as protons for that, and the AUC of gammaness is that of the two samples (0.5: it cannot).
- a classifier is trained on generated gammas and protons, another one on as many simulated ones, two more on one class
  of each; every one of them is trained with --seeds seeds and tested on simulated and on generated images that none
  of them has seen. Differences of their mean AUC are of pairs: all on the same resamples of the showers.
- speed: images per CPU second of the simulation, in bins of energy, and of the generator, in the same run.

Prints Markdown tables, and keeps what it made in --out.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  reads and writes what PyTables compressed
import numpy as np
import yaml
from astropy.table import Table

from pipeline.camera.dl1 import DL1File
from pipeline.files import source_name
from pipeline.statistics import auc, bootstrap

ROOT = Path(__file__).resolve().parents[2]
_COMMAND = "import sys; from pipeline.cli import main; sys.exit(main())"
_PROTON = 101
_SHOWER = "/simulation/event/subarray/shower"
_EDGES_TEV = (0.03, 0.1, 0.3, 1.0, 3.0)  # above, there are too few training images to draw conditions from
_NETWORK = {
    "heads": ["gammaness"], "epochs": 6, "batch_size": 64, "learning_rate": 0.0025, "scalars": "hillas",
    "model": {"name": "resnet18", "kwargs": {"width": 16, "stem": "stride2", "depths": [2, 2, 2]}},
}  # fmt: skip


def lightpool(*arguments: object) -> float:
    """Run a command; CPU seconds of its process, which shows no progress."""
    line = [sys.executable, "-c", _COMMAND, *map(str, arguments)]
    quiet = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1,)]
    pid = os.posix_spawn(sys.executable, line, os.environ | {"PYTHONPATH": str(ROOT)}, file_actions=quiet)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"lightpool {arguments[0]} failed")
    return usage.ru_utime + usage.ru_stime


def write_config(path: Path, base: Path, **sections: Any) -> Path:
    """A configuration with some sections replaced."""
    path.write_text(yaml.safe_dump(yaml.safe_load(base.read_text()) | sections))
    return path


def passed_off_as(path: Path, out: Path, primary_id: int) -> Path:
    """A copy of a DL1 file with another primary particle."""
    shutil.copy(path, out)
    with h5py.File(out, "a") as file:
        rows = file[_SHOWER][:]
        rows["true_shower_primary_id"] = primary_id
        file[_SHOWER][:] = rows
    return out


def n_images(path: Path) -> int:
    """In a DL1 file."""
    with DL1File(path) as file:
        return file.n_images


def generate(bundle: Path, config: Path, n: int, out: Path, run: int) -> float:
    """CPU seconds of a file of `n` generated images."""
    chosen = write_config(out.with_suffix(".yaml"), config, images={"n_images": n})
    return lightpool("simulate", "images", "--bundle", bundle, "--config", chosen, "--run", run, "--out", out)


def manifest(files: Sequence[Path], config: Path, out: Path) -> Path:
    """Tiles of DL1 files, and their manifest."""
    lightpool("tiles", *files, "--config", config, "--out", out)
    lightpool("manifest", *sorted(out.glob("*.tiles.h5")), "--config", config, "--out", out / "manifest.json")
    return out / "manifest.json"


def auc_of(bundle: Path, tested: Path, config: Path, out: Path) -> dict[str, float]:
    """AUC with its limits on the test split."""
    lightpool("evaluate", tested, "--bundle", bundle, "--config", config, "--out", out)
    return json.loads((out / "gammaness" / "metrics.json").read_text())["metrics"]["auc"]


def text_of(value: dict[str, float], sign: str = "") -> str:
    """A figure with its limits."""
    return f"{value['value']:{sign}.3f} ({value['low']:{sign}.3f} to {value['high']:{sign}.3f})"


def two_samples(name: str, simulated: Sequence[Path], generated: Path, config: Path, folder: Path) -> str:
    """Row of the table: how well a ResNet tells generated from simulated images."""
    folder.mkdir()
    own = [passed_off_as(path, folder / path.name, 0) for path in simulated]
    other = passed_off_as(generated, folder / f"generated_{generated.name}", _PROTON)
    together = manifest([*own, other], config, folder / "tiles")
    lightpool("train", together, "--config", config, "--network", "told", "--out", folder / "told")
    return f"| {name} | {text_of(auc_of(folder / 'told', together, config, folder / 'evaluation'))} |"


@dataclass(frozen=True)
class Judged:
    """Gammaness of the same test images from several trainings, shape (n,) each."""

    is_gamma: np.ndarray
    is_simulated: np.ndarray
    showers: np.ndarray
    weights: np.ndarray
    gammaness: dict[str, list[np.ndarray]]
    """By what was trained on; one array per seed."""

    def row(self, name: str, reference: str) -> str:
        """Mean AUC, its difference to the reference, and the spread of the seeds, on images of each kind."""
        cells = []
        for chosen in (self.is_simulated, ~self.is_simulated):
            own, others = ([scores[chosen] for scores in self.gammaness[key]] for key in (name, reference))

            def statistic(
                weights: np.ndarray, chosen: np.ndarray = chosen, own: Any = own, others: Any = others
            ) -> np.ndarray:
                mean, mean_of_reference = (
                    np.mean([auc(scores, self.is_gamma[chosen], weights) for scores in group], axis=0)
                    for group in (own, others)
                )
                return np.stack([mean, mean - mean_of_reference], axis=-1)

            value, difference = bootstrap(statistic, self.showers[chosen], self.weights[chosen])
            ones = np.broadcast_to(self.weights[chosen], (1, chosen.sum()))
            of_seeds = [auc(scores, self.is_gamma[chosen], ones)[0] for scores in own]
            cells += [f"{value.value:.3f} ({', '.join(f'{one:.3f}' for one in of_seeds)})"]
            cells += ["" if name == reference else text_of(vars(difference), sign="+")]
        return f"| {name} | {' | '.join(cells)} |"


def gammaness_of(bundle: Path, tested: Path, config: Path, out: Path) -> Table:
    """Predictions for the test split."""
    lightpool("evaluate", tested, "--bundle", bundle, "--config", config, "--out", out)
    return Table.read(out / "gammaness" / "predictions.ecsv")


def classifiers(
    simulated: dict[str, Sequence[Path]], generated: dict[str, Path], config: Path, seeds: int, folder: Path
) -> list[str]:
    """Rows of the table: AUC on images of each kind, by what the classifier was trained on."""
    tiles: dict[tuple[str, str], list[Path]] = {}
    for kind, files in (("simulated", simulated), ("generated", {name: [path] for name, path in generated.items()})):
        for name, own in files.items():
            lightpool("tiles", *own, "--config", config, "--out", folder / f"{kind}_{name}_tiles")
            tiles[kind, name] = sorted((folder / f"{kind}_{name}_tiles").glob("*.tiles.h5"))

    def together(name: str, shards: Sequence[Path]) -> Path:
        # Beside the folders of its shards: a manifest reaches only what lies below its own.
        lightpool("manifest", *shards, "--config", config, "--out", folder / f"{name}.json")
        return folder / f"{name}.json"

    tested = together("tested", [shard for shards in tiles.values() for shard in shards])
    found: dict[str, list[Table]] = {}
    for gammas, protons in product(("simulated", "generated"), repeat=2):
        name = f"{gammas} gammas, {protons} protons"
        trained = together(f"{gammas}_{protons}", tiles[gammas, "gamma"] + tiles[protons, "proton"])
        found[name] = []
        for seed in range(1, seeds + 1):
            own = write_config(folder / f"judged_{seed}.yaml", config, seed=seed)
            bundle = folder / f"{gammas}_{protons}_{seed}"
            lightpool("train", trained, "--config", own, "--network", "told", "--out", bundle)
            found[name].append(gammaness_of(bundle, tested, own, folder / f"{bundle.name}_evaluation"))
    one = next(iter(found.values()))[0]
    images = ["source", "obs_id", "event_id", "tel_id"]
    if any((table[images] != one[images]).any() for tables in found.values() for table in tables):
        raise SystemExit("the classifiers were not tested on the same images")
    judged = Judged(
        is_gamma=np.asarray(one["true_primary_id"]) == 0,
        is_simulated=~np.isin(one["source"], [source_name(path) for path in generated.values()]),
        showers=np.char.add(one["source"].astype(str), one["shower_id"].astype(str)),
        weights=np.asarray(one["weight"], float),
        gammaness={
            name: [np.asarray(table["gammaness_network"]) for table in tables] for name, tables in found.items()
        },
    )
    return [judged.row(name, next(iter(found))) for name in found]


def speeds(bundle: Path, config: Path, folder: Path, n_generated: int = 3000) -> list[str]:
    """Images per CPU second in bins of energy: of the simulation, and of the generator."""
    content = yaml.safe_load(config.read_text())
    showers = content["showers"]
    first = showers["classes"][0]
    rows = []
    for low, high in pairwise(_EDGES_TEV):
        rates = []
        for showers_per_run in (1, max(10, int(60 / low**0.7))):
            chosen = [first | {"runs": 1, "showers_per_run": showers_per_run, "energy_min_tev": low,
                               "energy_max_tev": high}]  # fmt: skip
            name = f"simulated_{low}_{showers_per_run}"
            path = write_config(folder / f"{name}.yaml", config, showers=showers | {"classes": chosen})
            cpu_s = lightpool("simulate", "showers", "--config", path, "--run", 1, "--out", folder / f"{name}.dl1.h5")
            rates.append((n_images(folder / f"{name}.dl1.h5"), cpu_s))
        made = []
        for n in (1, n_generated):
            path = folder / f"generated_{low}_{n}.dl1.h5"
            wanted = {"n_images": n, "energy_min_tev": low, "energy_max_tev": high}
            chosen_path = write_config(path.with_suffix(".yaml"), config, images=wanted)
            made.append(
                (n, lightpool("simulate", "images", "--bundle", bundle, "--config", chosen_path, "--out", path))
            )
        # Without the start of the process, which costs seconds whatever follows.
        simulated, generated = ((b[0] - a[0]) / (b[1] - a[1]) for a, b in (rates, made))
        rows.append(f"| {low:g} to {high:g} | {simulated:.0f} | {generated:.0f} | {generated / simulated:.2f} |")
    return rows


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("gamma", "proton"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="BUNDLE")
        parser.add_argument(f"--simulated-{name}", type=Path, nargs="+", required=True, metavar="DL1")
        suffix = "" if name == "gamma" else "_proton"
        parser.add_argument(f"--{name}-config", type=Path, default=ROOT / "configs" / f"lst_generator{suffix}.yaml")
    parser.add_argument("--out", type=Path, default=None, metavar="DIR")
    parser.add_argument("--images", type=int, default=None, help="generated images of each class; as many as simulated")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each classifier")
    parser.add_argument("--only", choices=("two-samples", "classifiers", "speed"), default=None)
    options = parser.parse_args()
    folder = options.out or Path(tempfile.mkdtemp(prefix="generation_"))
    folder.mkdir(parents=True, exist_ok=True)
    judged = write_config(
        folder / "judged.yaml",
        options.gamma_config,
        networks={"told": _NETWORK},
        tiles={"splits": {"train": 0.6, "validation": 0.1, "test": 0.3}},
        name="judged",
    )
    simulated = {"gamma": options.simulated_gamma, "proton": options.simulated_proton}
    generated = {}
    for run, name in enumerate(simulated, start=900_001 if options.only != "speed" else 1):
        path = folder / f"{name}.dl1.h5"
        wanted = options.images or sum(map(n_images, simulated[name]))
        if options.only != "speed" and not path.exists():
            generate(getattr(options, name), getattr(options, f"{name}_config"), wanted, path, run)
        generated[name] = path
    if options.only in (None, "two-samples"):
        print("| class | two-sample AUC of a ResNet |\n| --- | --- |")
        for name, files in simulated.items():
            print(two_samples(name, files, generated[name], judged, folder / f"two_samples_{name}"), flush=True)
    if options.only in (None, "classifiers"):
        print("\n| trained on | AUC on simulated images (by seed) | difference | on generated images | difference |")
        print("| --- | --- | --- | --- | --- |")
        print("\n".join(classifiers(simulated, generated, judged, options.seeds, folder)), flush=True)
    if options.only in (None, "speed"):
        print("\n| energy [TeV] | simulated [images per CPU s] | generated | ratio |\n| --- | --- | --- | --- |")
        print("\n".join(speeds(options.gamma, options.gamma_config, folder)), flush=True)


if __name__ == "__main__":
    main()
