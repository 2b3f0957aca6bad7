"""What a training step costs beside the bare model step: reading, preparing and the loop around it.

    python benchmarks/bench_train_throughput.py [--task TASK] [--tiles MANIFEST] [--config FILE] [--seconds S]

Without --tiles, tiles of the configured size are made up: charge on an ellipse over pedestal noise, or stars on a noisy
sky, so that they compress like real ones. All figures are CPU seconds of all threads, which a busy machine falsifies
less than wall time.
"""

import argparse
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Trainer
from rich.console import Console
from rich.table import Table

from models import create_model
from pipeline.config import TASKS, Config, load_config
from pipeline.device import choose_precision, torch_threads
from pipeline.preparation import CAMERA_CHANNELS, SKY_CHANNELS, Preparation, scalar_column
from pipeline.tasks import TASK_KINDS, get_training
from pipeline.tasks.training.data import TrainingBatches
from pipeline.tasks.training.module import TrainingModule
from pipeline.tiles import Channel, ShardWriter, TileBatch, TileReader, write_manifest

N_TILES = {"camera": 4096, "sky": 1024}
TILES_PER_SHARD = 512


# ---- tiles to train on -----------------------------------------------------------------------------------------------
def camera_tiles(n: int, size: int, columns: list[str], rng: np.random.Generator) -> TileBatch:
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    length, width = size / 8, size / 20
    ellipse = np.exp(-0.5 * ((x / length) ** 2 + (y / width) ** 2))
    charge = rng.lognormal(4, 1, (n, 1, 1)) * ellipse + rng.normal(0, 1, (n, size, size))
    mask = charge > 6
    log10_energy = rng.uniform(-1, 1, n)
    gamma = rng.integers(0, 2, n)
    return TileBatch(
        images=np.stack([charge, np.where(mask, x, 0), mask], axis=1).astype(np.float16),
        events={name: rng.lognormal(size=n) for name in columns}
        | {"true_primary_id": np.where(gamma, 0, 101), "true_energy_tev": 10**log10_energy},
        targets={
            "energy": log10_energy.astype(np.float32)[:, None],
            "gammaness": gamma.astype(np.float32)[:, None],
        },
        group=np.arange(n) // 8,
    )


def sky_tiles(n: int, size: int, rng: np.random.Generator) -> TileBatch:
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    level_e, read_noise_e = 200.0, 5.0
    star = np.exp(-0.5 * (x**2 + y**2) / 1.5**2)
    clean = level_e + rng.lognormal(6, 2, (n, 1, 1)) * star
    sci = rng.poisson(clean) + rng.normal(0, read_noise_e, clean.shape)
    hit = rng.random(sci.shape) < 0.005
    sci[hit] += rng.uniform(200, 5000, hit.sum())
    err = np.sqrt(np.maximum(sci, 0) + read_noise_e**2)
    return TileBatch(
        images=np.stack([sci, err], axis=1).astype(np.float32),
        events={"level": np.full(n, level_e), "noise": np.full(n, np.hypot(np.sqrt(level_e), read_noise_e))},
        targets={"clean": clean[:, None].astype(np.float32)},
        masks=np.where(hit, 8, 0).astype(np.uint16),
        group=np.arange(n) // 8,
    )


def write_tiles(folder: Path, cfg: Config, task: str) -> Path:
    """Shards and a manifest like those of `lightpool tiles`; all in the training split but one shard."""
    wing = TASK_KINDS[task]
    size = cfg.tiles.camera.size if wing == "camera" else cfg.tiles.sky.size
    channels = CAMERA_CHANNELS if wing == "camera" else SKY_CHANNELS
    columns = [scalar_column(name) for name in cfg.train.task(task).scalars]
    rng = np.random.default_rng(0)
    shards = []
    for number in range(N_TILES[wing] // TILES_PER_SHARD + 1):
        if wing == "camera":
            batch = camera_tiles(TILES_PER_SHARD, size, columns, rng)
        else:
            batch = sky_tiles(TILES_PER_SHARD, size, rng)
        batch.split = np.full(len(batch), 0 if number else 1, np.uint8)
        shards.append(folder / f"part_{number:02d}.tiles.h5")
        with ShardWriter(
            shards[-1],
            channels=[Channel(name, "") for name in channels],
            tile_shape=(size, size),
            dtype="float16" if wing == "camera" else "float32",
            source=f"part_{number:02d}",
            wing=wing,
            attributes={},
            masks=batch.masks is not None,
        ) as writer:
            writer.append(batch)
    return write_manifest(shards, folder / "manifest.json").path


# ---- what is measured ------------------------------------------------------------------------------------------------
def cpu_s_per_tile(batches: Callable[[], Iterator[int]], seconds: float) -> float:
    """CPU seconds per tile of an iterator over numbers of tiles, restarted until `seconds` are used up."""
    for _ in zip(range(2), batches(), strict=False):  # first calls allocate, open files, fill caches
        pass
    n_tiles = 0
    start = time.process_time()
    while time.process_time() - start < seconds:
        for n in batches():
            n_tiles += n
            if time.process_time() - start >= seconds:
                break
    return (time.process_time() - start) / n_tiles


class Bench:
    """One task's reader, network and step, in the parts that are timed."""

    def __init__(self, cfg: Config, task: str, manifest: Path) -> None:
        self.cfg, self.config = cfg, cfg.train.task(task)
        self.objective = get_training(task)(self.config)
        options = {"where": self.objective.where, "equalise": self.objective.equalise}
        self.reader = TileReader([manifest], "train", **options)
        self.validation = TileReader([manifest], "validation", **options)
        self.preparation = Preparation.fit(self.reader, self.config.scalars)
        self.precision = choose_precision(self.config.precision, "cpu")

    def module(self) -> TrainingModule:
        torch.manual_seed(0)
        network = create_model(
            self.config.model.name,
            self.preparation.n_channels,
            self.objective.num_outputs,
            len(self.config.scalars),
            **self.config.model.kwargs,
        )
        return TrainingModule(
            network, self.objective, self.preparation, self.reader, self.validation, seed=self.cfg.seed
        )

    def training_batches(self) -> TrainingBatches:
        return TrainingBatches(
            self.reader,
            self.objective,
            self.preparation,
            seed=self.cfg.seed,
            epoch=0,
            batch_size=self.config.batch_size,
        )

    def read(self) -> Iterator[int]:
        for tiles in self.reader.shuffled(self.cfg.seed, 0, self.config.batch_size):
            yield len(tiles)

    def read_and_prepare(self) -> Iterator[int]:
        for batch in self.training_batches():
            yield len(batch["images"])

    def bare_step(self) -> Iterator[int]:
        """Forward, loss, backward, optimiser on one batch that is in memory."""
        module = self.module()
        optimizer = torch.optim.AdamW(module.network.parameters())
        batch = next(iter(self.training_batches()))
        batch["images"] = batch["images"].contiguous(memory_format=torch.channels_last)
        while True:
            with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bfloat16"):
                loss = self.objective.loss(module.outputs(module.network, batch), batch)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            yield len(batch["images"])

    def train_epoch_cpu_s_per_tile(self) -> float:
        """One epoch as `lightpool train` runs it, without validation, checkpoint and export."""
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(
                accelerator="cpu",
                devices=1,
                precision="bf16-mixed" if self.precision == "bfloat16" else "32-true",
                max_epochs=1,
                limit_val_batches=0,
                gradient_clip_val=self.config.gradient_clip,
                default_root_dir=folder,
                num_sanity_val_steps=0,
                logger=False,
                enable_checkpointing=False,
                enable_model_summary=False,
                enable_progress_bar=False,
            )
            module = self.module()
            start = time.process_time()
            trainer.fit(module)
            used = time.process_time() - start
        return used / (self.reader.n_batches(self.config.batch_size) * self.config.batch_size)


def measure(cfg: Config, task: str, manifest: Path, seconds: float) -> Table:
    bench = Bench(cfg, task, manifest)
    step = cpu_s_per_tile(bench.bare_step, seconds)
    rows = {
        "bare model step": step,
        "reading shards, shuffled": cpu_s_per_tile(bench.read, seconds),
        "reading, preparing, augmenting": cpu_s_per_tile(bench.read_and_prepare, seconds),
        "training epoch": bench.train_epoch_cpu_s_per_tile(),
    }
    model = bench.config.model
    height, width = bench.reader.tile_shape
    kwargs = ", ".join(f"{key}={value}" for key, value in model.kwargs.items())
    table = Table(
        "part", "ms CPU / tile", "tiles / CPU s", "of the bare step",
        title=f"{task}: {model.name}({kwargs}), {height} x {width} px, batches of {bench.config.batch_size}, "
        f"{bench.precision}, {cfg.threads} thread(s), {bench.reader.n_tiles} tiles",
    )  # fmt: skip
    for part, used in rows.items():
        table.add_row(part, f"{1e3 * used:.3f}", f"{1 / used:.0f}", f"{used / step:.3f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=TASKS, action="append", help="default: gammaness and denoise")
    parser.add_argument("--config", type=Path, default=Path(__file__).parents[1] / "configs" / "demo.yaml")
    parser.add_argument("--tiles", type=Path, help="manifest to read instead of made-up tiles (one --task)")
    parser.add_argument("--seconds", type=float, default=5.0, help="CPU seconds per measurement")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.tiles and len(arguments.task or ()) != 1:
        parser.error("--tiles needs exactly one --task")
    cfg = load_config(arguments.config).model_copy(update={"threads": arguments.threads})
    console = Console(width=110)
    warnings.filterwarnings("ignore", module=r"lightning\.")  # hints on worker processes and the like
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with torch_threads(cfg.threads):
        for task in arguments.task or ("gammaness", "denoise"):
            with tempfile.TemporaryDirectory() as folder:
                manifest = arguments.tiles or write_tiles(Path(folder), cfg, task)
                console.print(measure(cfg, task, manifest, arguments.seconds))


if __name__ == "__main__":
    main()
