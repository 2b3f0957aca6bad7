"""What a training reaches of the bare step of its network, on this machine's GPU or processor; at most six minutes.

    python benchmarks/gpu.py [--device cuda] [--batch N] [--compile] [--threads N] [--out TABLE.md] [--quick]

For one network of single images, one of events and one of sky frames, on synthetic tiles in a temporary folder:

read      shuffled batches from shards
prepare   batches read before, to arrays, and what a CPU does of augmentation
step      forward, loss, backward and optimiser on one batch that lies on the device: the bare step
epoch     a whole epoch from disk, by the function that `lightpool train` calls; the last of several, validation apart
predict   tiles from disk through the network, in evaluation mode, back to memory

Rates are images per second of wall time, which is what counts on a GPU and on a machine that does nothing else. On a
busy machine look at the CPU time of all threads, and of the training thread alone: reading and preparation run beside
it, so that with a core to spare an epoch takes as long as its training thread.
"""

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.config import Config, parse_config
from pipeline.device import choose_device, torch_threads
from pipeline.stages.train import TrainingRun
from pipeline.text_tables import format_table
from pipeline.training import loop

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests" / "support"))

from synthetic_tiles import array_batch, camera_batch, sky_batch, write_tiles  # noqa: E402  (of the tests)

ENCODER = {"width": 16, "stem": "stride2", "depths": [2, 2, 2]}
NETWORKS: dict[str, dict[str, Any]] = {
    "image": {
        "heads": ["energy", "gammaness"],
        "model": {"name": "resnet18", "kwargs": ENCODER},
        "scalars": ["log10_hillas_intensity"],
    },
    "shower": {
        "input": "shower",
        "heads": ["gammaness"],
        "model": {"name": "stereo_mean", "kwargs": {"encoder": "resnet18", "encoder_kwargs": ENCODER}},
        "scalars": ["log10_hillas_intensity"],
    },
    "frame": {"heads": ["denoise"], "model": {"name": "unet", "kwargs": {"width": 16}}},
}
N_TELESCOPES = 4


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    tiles: dict[str, int]
    batches: dict[str, int]
    """Images, events or frames per step."""
    side_px: dict[str, int]
    epochs: int
    seconds: float


_SIDES = {"image": 56, "shower": 56, "frame": 64}
GPU = Size({"image": 16384, "shower": 16384, "frame": 4096}, {"image": 512, "shower": 128, "frame": 64}, _SIDES, 4, 6.0)
CPU = Size({"image": 4096, "shower": 4096, "frame": 512}, {"image": 32, "shower": 16, "frame": 4}, _SIDES, 2, 4.0)
QUICK = Size(
    {"image": 96, "shower": 96, "frame": 24}, {"image": 8, "shower": 4, "frame": 4}, dict.fromkeys(_SIDES, 24), 1, 0.05
)


@dataclass(frozen=True)
class Used:
    """Time per image of one part of the work [s]."""

    wall: float
    cpu: float
    thread: float


class Clock:
    """Wall time, CPU time of all threads, CPU time of this thread."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.start()

    def _now(self) -> tuple[float, float, float]:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter(), time.process_time(), time.thread_time()

    def start(self) -> None:
        self._started = self._now()

    def per_image(self, n_images: int) -> Used:
        return Used(*((now - before) / n_images for now, before in zip(self._now(), self._started, strict=True)))


def repeated(work: Iterator[int], device: str, seconds: float) -> Used:
    """Time of an endless iterator over numbers of images, after two of them."""
    for _ in range(2):
        next(work)
    clock, n_images = Clock(device), 0
    started = time.process_time()  # on a busy machine, not the wall time
    while time.process_time() - started < seconds:
        n_images += next(work)
    return clock.per_image(n_images)


def make_tiles(kind: str, size: Size, folder: Path) -> Path:
    """Manifest of synthetic tiles."""
    n, side = size.tiles[kind], size.side_px[kind]
    if kind == "frame":
        return write_tiles(folder, sky_batch(n, side)).path
    batch = camera_batch(n, side) if kind == "image" else array_batch(n // N_TELESCOPES, (0,) * N_TELESCOPES, side)
    return write_tiles(folder, batch, equalised={"true_energy_tev": 3}).path


def config_of(kind: str, size: Size, arguments: argparse.Namespace) -> Config:
    """An experiment with the one network."""
    section = NETWORKS[kind] | {
        "batch_size": arguments.batch or size.batches[kind],
        "epochs": size.epochs,
        "early_stopping_patience": size.epochs,
        "compile": arguments.compile,
    }
    if kind != "frame":
        section["axis_maps"] = False  # synthetic tiles lack the columns
    return parse_config(
        {"seed": 1, "threads": arguments.threads, "device": arguments.device, "networks": {kind: section}}
    )


def reading(run: TrainingRun) -> Iterator[int]:
    epoch = 0
    while True:
        for tiles in run.train_tiles.shuffled(1, epoch, run.config.batch_size):
            yield len(tiles)
        epoch += 1


def preparing(run: TrainingRun, module: Any) -> Iterator[int]:
    tiles = next(iter(run.train_tiles.shuffled(1, 0, run.config.batch_size, columns=module.feed.columns)))
    step = 0
    while True:
        module.feed.training_batch(tiles, 0, step)
        step += 1
        yield len(tiles)


def on_device(batch: Any, device: str) -> Any:
    if isinstance(batch, dict):
        return {name: on_device(value, device) for name, value in batch.items()}
    return batch.to(device, non_blocking=True)


def bare_steps(run: TrainingRun, module: Any) -> Iterator[int]:
    tiles = next(iter(run.train_tiles.shuffled(1, 0, run.config.batch_size, columns=module.feed.columns)))
    batch = module.feed.on_device(on_device(module.feed.training_batch(tiles, 0, 0), run.device))
    network = module.network.to(run.device)
    module.train()
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    while True:
        with torch.autocast(run.device.partition(":")[0], torch.bfloat16, enabled=run.precision == "bfloat16"):
            outputs, _ = module.outputs(network, batch)
        module.heads.loss(outputs, batch["heads"]).backward()
        optimizer.step()
        optimizer.zero_grad()
        yield len(batch["inputs"]["images"])


def predicting(run: TrainingRun, module: Any) -> Iterator[int]:
    network = module.average.to(run.device).eval()
    while True:
        for tiles in run.validation_tiles.in_batches(4 * run.config.batch_size, module.feed.columns):
            batch = on_device(module.feed.batch(tiles), run.device)
            kind = run.device.partition(":")[0]
            with torch.no_grad(), torch.autocast(kind, torch.bfloat16, enabled=run.precision == "bfloat16"):
                module.outputs(network, batch)[0].cpu()
            yield len(tiles)


def epoch(run: TrainingRun, module: Any, folder: Path) -> Used:
    """The last epoch of a training, without its validation."""
    clock, images, found = Clock(run.device), [0], []
    unharmed: dict[str, Callable] = {}

    def watch(name: str, function: Callable) -> None:
        unharmed[name] = getattr(module, name)
        setattr(module, name, lambda *given: (function(*given), unharmed[name](*given))[1])

    def begin() -> None:
        images[0] = 0
        clock.start()

    def count(batch: Any, number: int) -> None:
        images[0] += len(batch["inputs"]["images"])

    watch("on_train_epoch_start", begin)
    watch("on_train_batch_start", count)
    watch("on_validation_epoch_start", lambda: found.append(clock.per_image(images[0])))
    loop.fit(module, run.config, run.heads.monitor, folder, device=run.device, precision=run.precision)
    return found[-1]


def measure(kind: str, size: Size, arguments: argparse.Namespace) -> dict[str, Used]:
    """All parts of the work with one network."""
    cfg = config_of(kind, size, arguments)
    with tempfile.TemporaryDirectory() as folder, torch_threads(cfg.threads):
        run = TrainingRun(cfg, kind, [make_tiles(kind, size, Path(folder))], bundles=Path(folder))
        parts = {"read": repeated(reading(run), run.device, size.seconds)}
        for name, work in (("prepare", preparing), ("step", bare_steps)):
            parts[name] = repeated(work(run, run._module()), run.device, size.seconds)
        parts["epoch"] = epoch(run, run._module(), Path(folder))
        parts["predict"] = repeated(predicting(run, run._module()), run.device, size.seconds)
        run.train_tiles.close()
        run.validation_tiles.close()
    return parts


def rows_of(kind: str, parts: dict[str, Used]) -> list[list[str]]:
    step = parts["step"]
    return [
        [
            kind if name == "read" else "", name, f"{1 / used.wall:,.0f}", f"{1e3 * used.cpu:.3f}",
            f"{1e3 * used.thread:.3f}",
            f"{step.wall / used.wall:.2f}", f"{step.cpu / used.thread:.2f}" if name == "epoch" else "",
        ]
        for name, used in parts.items()
    ]  # fmt: skip


HEADER = ["network", "part", "images/s", "ms CPU/image", "of it, own thread", "of the step", "by CPU time"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--network", action="append", choices=list(NETWORKS), help="default: all three")
    parser.add_argument("--batch", type=int, help="images, events or frames per step")
    parser.add_argument("--compile", action="store_true", help="let torch compile the networks")
    parser.add_argument("--threads", type=int, default=1, help="of torch on the processor")
    parser.add_argument("--out", type=Path, help="also write the table there, as Markdown")
    parser.add_argument("--quick", action="store_true", help="few small tiles: does it run?")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    size = QUICK if arguments.quick else GPU if device.startswith("cuda") else CPU
    rows, started = [], time.monotonic()
    for kind in arguments.network or NETWORKS:
        rows += rows_of(kind, measure(kind, size, arguments))
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()
    sides = ", ".join(f"{kind} {side}" for kind, side in size.side_px.items())
    title = (
        f"{device} ({name}), torch {torch.__version__}, {arguments.threads} thread(s)"
        f"{', compiled' if arguments.compile else ''}, {time.monotonic() - started:.0f} s in all; "
        f"sides in pixels: {sides}"
    )
    print("\n".join([title, *format_table([HEADER, *rows], "<<>>>>>")]))
    if arguments.out:
        lines = [HEADER, ["---"] * 2 + ["---:"] * 5, *rows]
        text = "\n".join("| " + " | ".join(row) + " |" for row in lines)
        arguments.out.write_text(f"{title}\n\n{text}\n")


if __name__ == "__main__":
    main()
