"""What training costs compared with the bare model step: reading, preparing, the loop, and the rest of the stage.

    python benchmarks/bench_train_throughput.py [--network NAME ...] [--tiles MANIFEST] [--config FILE] [--quick]

The networks of the configuration (the default one without --config) are trained by the function that `lightpool train`
calls, for a few epochs. Without --tiles, the tiles are those of the tests, of the configured size; they have few
columns, so that networks for camera images then get one scalar alone. All figures are CPU seconds of all threads, which
a busy machine falsifies less than wall time.
"""

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from models import create_model
from pipeline.bundle.card import Card, load_bundle_card
from pipeline.config import Config, NetworkConfig, load_config
from pipeline.device import torch_threads
from pipeline.stages.train import train
from pipeline.tiles import TileReader

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests" / "support"))

from synthetic_tiles import camera_batch, sky_batch, write_tiles  # noqa: E402  (of the tests)

SCALARS = ("log10_hillas_intensity",)  # the synthetic tiles have no other that the networks take


@dataclass(frozen=True)
class Effort:
    """How long everything takes."""

    n_camera_tiles: int
    n_sky_tiles: int
    epochs: int
    seconds: float
    """CPU time of each measurement besides the training."""


FULL = Effort(n_camera_tiles=4096, n_sky_tiles=768, epochs=3, seconds=5.0)
QUICK = Effort(n_camera_tiles=128, n_sky_tiles=32, epochs=1, seconds=0.2)


def synthetic_tiles(cfg: Config, network: NetworkConfig, effort: Effort, folder: Path) -> Path:
    """Manifest of tiles for one network."""
    if network.wing == "camera":
        batch = camera_batch(effort.n_camera_tiles, cfg.tiles.camera.size)
    else:
        batch = sky_batch(effort.n_sky_tiles, cfg.tiles.sky.size)
    return write_tiles(folder, batch).path


def cpu_s_per_tile(batches: Iterator[int], seconds: float) -> float:
    """CPU seconds per tile of an endless iterator over numbers of tiles."""
    for _ in range(2):  # first calls allocate, open files, fill caches
        next(batches)
    n_tiles = 0
    start = time.process_time()
    while time.process_time() - start < seconds:
        n_tiles += next(batches)
    return (time.process_time() - start) / n_tiles


def reading(manifest: Path, batch_size: int) -> Iterator[int]:
    """Shuffled batches of the training split, again and again."""
    reader = TileReader([manifest], "train", equalise=False)
    epoch = 0
    while True:
        yield from map(len, reader.shuffled(0, epoch, batch_size))
        epoch += 1


def bare_steps(card: Card, batch_size: int) -> Iterator[int]:
    """Forward, a sum of squares, backward and optimiser, on one batch that is in memory."""
    model = card.model
    torch.manual_seed(0)
    network = create_model(model.name, model.in_chans, model.num_outputs, model.n_scalars, **model.kwargs).train()
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    images = torch.randn(batch_size, model.in_chans, *card.input.tile_shape)
    images = images.contiguous(memory_format=torch.channels_last)
    scalars = torch.randn(batch_size, model.n_scalars) if model.n_scalars else None
    while True:
        with torch.autocast("cpu", torch.bfloat16, enabled=card.training.precision == "bfloat16"):
            outputs = network(images, scalars)
        outputs.float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        yield batch_size


def measure(cfg: Config, name: str, manifest: Path, effort: Effort, folder: Path) -> Table:
    """Train one network of `cfg` and time its parts."""
    network = cfg.network(name)
    start = time.process_time()
    card = load_bundle_card(train(cfg, name, [manifest], folder / name))
    stage_s = time.process_time() - start
    if card.training.images_per_cpu_s is None:
        raise SystemExit(f"trained on {card.training.device}, where CPU time is meaningless; set device: cpu")
    with torch_threads(cfg.threads):
        step_s = cpu_s_per_tile(bare_steps(card, network.batch_size), effort.seconds)
    rows = {
        "bare model step": step_s,
        "reading shards, shuffled": cpu_s_per_tile(reading(manifest, network.batch_size), effort.seconds),
        "training epochs": 1 / card.training.images_per_cpu_s,
        "whole stage": stage_s / (card.training.n_images * card.training.epochs),
    }
    height, width = card.input.tile_shape
    kwargs = ", ".join(f"{key}={value}" for key, value in card.model.kwargs.items())
    table = Table(
        "part", "ms CPU / tile", "tiles / CPU s", "of the bare step",
        title=f"{name}: {card.model.name}({kwargs}), {height} x {width} px, batches of {network.batch_size}, "
        f"{card.training.precision}, {cfg.threads} thread(s), {card.training.n_images} tiles, "
        f"{card.training.epochs} epoch(s)",
    )  # fmt: skip
    for part, used_s in rows.items():
        table.add_row(part, f"{1e3 * used_s:.3f}", f"{1 / used_s:.0f}", f"{used_s / step_s:.3f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="append", help="default: all of the configuration")
    parser.add_argument("--config", type=Path, help="default: the default configuration")
    parser.add_argument("--tiles", type=Path, help="manifest to read instead of synthetic tiles (one --network)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="few tiles and one epoch: does it run?")
    arguments = parser.parse_args()
    if arguments.tiles and len(arguments.network or ()) != 1:
        parser.error("--tiles needs exactly one --network")
    effort = QUICK if arguments.quick else FULL
    cfg = load_config(arguments.config) if arguments.config else Config()
    networks = {}
    for name in arguments.network or cfg.networks:
        changes = {"epochs": effort.epochs, "early_stopping_patience": effort.epochs}
        if not arguments.tiles and cfg.network(name).scalars:
            changes["scalars"] = SCALARS
        networks[name] = cfg.network(name).model_copy(update=changes)
    cfg = cfg.model_copy(update={"threads": arguments.threads, "device": "cpu", "networks": networks})
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    console = Console(width=110)
    for name, network in networks.items():
        with tempfile.TemporaryDirectory() as folder:
            manifest = arguments.tiles or synthetic_tiles(cfg, network, effort, Path(folder))
            console.print(measure(cfg, name, manifest, effort, Path(folder)))


if __name__ == "__main__":
    main()
