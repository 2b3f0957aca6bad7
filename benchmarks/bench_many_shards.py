"""Seconds and memory of `manifest` and of a reader on thousands of small shards.

    python benchmarks/bench_many_shards.py [--shards 1000 10000] [--tiles 64] [--folder DIR]

Each row is measured in a process of its own, so that the memory is that of the step alone. The shards hold few pixels:
what is measured is the cost per shard and per row, not that of unpacking images (`bench_train_throughput.py`).
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

SIZE_PX = 8
N_TELESCOPES = 2


def make_shard(path: Path, run: int, n_tiles: int) -> None:
    """One shard of gammas (odd runs) or protons (even runs), with events of two telescopes."""
    from pipeline.config import SplitsConfig
    from pipeline.tiles import Channel, ShardWriter, TileBatch, split_of
    from pipeline.tiles.layout import TileCamera

    rng = np.random.default_rng(run)
    group = np.arange(n_tiles) // N_TELESCOPES
    source = f"run_{run:06d}"
    n = n_tiles
    log_energy = np.repeat(rng.uniform(-1.5, 1, -(-n // N_TELESCOPES)), N_TELESCOPES)[:n]
    events = {
        "camera": np.zeros(n, np.int16),
        "obs_id": np.full(n, run, np.int32),
        "event_id": group.astype(np.int64),
        "tel_id": (np.arange(n) % N_TELESCOPES + 1).astype(np.int16),
        "hillas_intensity": 10 ** (2 + log_energy + 0.2 * rng.normal(size=n)),
        "true_energy_tev": 10**log_energy,
        "true_offset_deg": np.repeat(rng.uniform(0, 2, -(-n // N_TELESCOPES)), N_TELESCOPES)[:n],
        "true_primary_id": np.full(n, 0 if run % 2 else 101, np.int16),
    }
    events |= {f"parameter_{i:02d}": rng.normal(size=n) for i in range(20)}  # as many as DL1 has
    camera = TileCamera(identity="bench", name="bench", type="LST", focal_length_m=28.0, tile_pixel_deg=0.1)
    channels = [Channel("charge", "p.e."), Channel("peak_time", "ns")]
    with ShardWriter(
        path, channels=channels, tile_shape=(SIZE_PX, SIZE_PX), source=source, wing="camera",
        attributes={"cameras": [camera.model_dump()]},
    ) as writer:  # fmt: skip
        writer.append(
            TileBatch(
                images=rng.normal(size=(n, 2, SIZE_PX, SIZE_PX)).astype(np.float16),
                events=events,
                targets={"energy": log_energy.astype(np.float32)[:, None]},
                group=group,
                split=split_of(source, group, SplitsConfig()),
            )
        )


def describe(shards: list[Path], out: Path) -> int:
    """The stage `manifest`."""
    from pipeline.config import Config
    from pipeline.stages.manifest import make_manifest

    manifest = make_manifest(shards, Config(), out, force=True)
    return sum(shard.n_tiles for shard in manifest.shards)


def open_reader(manifest: Path) -> int:
    """A reader of the training split, opened."""
    from pipeline.tiles import TileReader

    return len(TileReader([manifest], "train"))


def open_events(manifest: Path) -> int:
    """The same for whole events."""
    from pipeline.tiles.events import EventReader

    return len(EventReader([manifest], "train"))


def read_epoch(manifest: Path) -> int:
    """All tiles of the training split in a random order."""
    from pipeline.tiles import TileReader

    return sum(map(len, TileReader([manifest], "train").shuffled(0, 0, 64, columns=["hillas_intensity"])))


def _measure(step: Callable[..., int], arguments: tuple, pipe: "multiprocessing.connection.Connection") -> None:
    import pipeline.stages.manifest
    import pipeline.tiles.events  # noqa: F401 (imports are no cost of the step)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    wall, cpu = time.perf_counter(), time.process_time()
    n = step(*arguments)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    pipe.send((n, wall, cpu, before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def measured(step: Callable[..., int], *arguments: object) -> tuple[int, float, float, float, float]:
    """What `step` returns, its wall and CPU time [s], and the peak memory [MB] before and behind it."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_measure, args=(step, arguments, there))
    process.start()
    there.close()
    try:
        return here.recv()
    finally:
        process.join()


def main() -> None:
    """Print one row per number of shards and step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, nargs="+", default=[1000])
    parser.add_argument("--tiles", type=int, default=64, help="tiles of each shard")
    parser.add_argument("--folder", type=Path, help="keep the shards here; made where they are missing")
    parser.add_argument("--quick", action="store_true", help="twenty shards, to see that it runs")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.shards = [20]
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        print(
            f"{'shards':>7} {'tiles':>8}  {'step':12} {'wall_s':>7} {'cpu_s':>7} {'MB':>6} {'MB more':>7} "
            f"{'tiles/cpu_s':>11}"
        )
        for n_shards in arguments.shards:
            shards = [folder / f"run_{run:06d}.tiles.h5" for run in range(1, n_shards + 1)]
            for run, shard in enumerate(shards, 1):
                if not shard.exists():
                    make_shard(shard, run, arguments.tiles)
            out = folder / f"{n_shards}.manifest.json"
            steps = [(describe, (shards, out)), *((step, (out,)) for step in (open_reader, open_events, read_epoch))]
            for step, given in steps:
                n, wall, cpu, before, peak = measured(step, *given)
                print(
                    f"{n_shards:7d} {n:8d}  {step.__name__:12} {wall:7.2f} {cpu:7.2f} {peak:6.0f} {peak - before:7.0f} "
                    f"{n / cpu:11.0f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
