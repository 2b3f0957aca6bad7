"""What the checks of foreign files cost, in CPU seconds of one process.

    python benchmarks/bench_checks.py [--images N] [--rows N ...] [--side PIXELS] [--quick]

Keys of events: in memory, for tables of some lengths, and in a DL1 file of N images (100,000 by default: 1.4 GB in the
temporary folder) of one Large-Sized Telescope. To read all images is what `predict` and `tiles` do anyway.

Sky frames: noise of the pixels, saturation and fingerprint of a frame of PIXELS x PIXELS (8,000 by default), beside
reading it and the background that prediction needs.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits
from rich.console import Console
from rich.table import Table

from pipeline.camera.dl1 import DL1File, DL1Writer, EventChunk, SimulationRun, Subarray
from pipeline.camera.keys import KeyIndex
from pipeline.camera.telescopes import get_telescope
from pipeline.config import SkyIngestConfig
from pipeline.sky.background import box_noise, robust_background
from pipeline.sky.frames import fingerprint, read_frame
from pipeline.sky.frames.scale import saturation_level
from pipeline.sky.ingest import ingest_frame
from pipeline.sky.remarks import Remarks

_BLOCK = 500


class Cost(NamedTuple):
    """One row of the table."""

    check: str
    of: str
    cpu_s: float


def timed(check: str, of: str, work: Callable[[], object]) -> Cost:
    """Do the work once."""
    start = time.process_time()
    work()
    return Cost(check, of, time.process_time() - start)


# ---- keys in memory --------------------------------------------------------------------------------------------------
def keys_in_memory(n_rows: int) -> Iterator[Cost]:
    """Index keys and look all of them up: in order, in any order, and with ids spread over 64 bit."""
    rng = np.random.default_rng(0)
    obs_id = np.repeat(np.arange(10, dtype=np.int32), -(-n_rows // 10))[:n_rows]
    event_id = 7 * np.arange(n_rows)
    tel_id = np.ones(n_rows, np.int16)
    order = rng.permutation(n_rows)
    far = rng.integers(0, 2**64 - 1, n_rows, dtype=np.uint64)
    for name, columns in {
        "in order": (obs_id, event_id, tel_id),
        "in any order": (obs_id[order], event_id[order], tel_id[order]),
        "over 64 bit": (obs_id, far, tel_id),
    }.items():
        index = KeyIndex(*columns)
        yield timed(f"index and duplicates, ids {name}", f"{n_rows:,} rows", lambda c=columns: duplicates(c))
        yield timed(f"join with itself, ids {name}", f"{n_rows:,} rows", lambda i=index, c=columns: i.find(*c))


def duplicates(columns: Sequence[np.ndarray]) -> np.ndarray:
    return KeyIndex(*columns).duplicated_rows


# ---- keys of a file --------------------------------------------------------------------------------------------------
def write_file(path: Path, n_images: int) -> Path:
    """Showers of noise: one block of images again and again, each with an event of its own."""
    rng = np.random.default_rng(0)
    camera = get_telescope("LST").camera
    image = rng.normal(0, 1.5, (_BLOCK, camera.n_pixels)).astype(np.float32)
    time_ns = rng.uniform(0, 40, image.shape).astype(np.float32)
    array = Subarray("benchmark", {1: camera}, {1: (0.0, 0.0, 0.0)})
    run = SimulationRun(0.1, 1.0, -2.0, n_showers=n_images)
    with DL1Writer(path, array, obs_id=1, pointing_alt_rad=1.2, pointing_az_rad=3.0, simulation=run) as writer:
        for first in range(0, n_images, _BLOCK):
            n = min(_BLOCK, n_images - first)
            ones = np.ones(n)
            truth = {"true_energy_tev": ones, "true_alt_deg": 69 * ones, "true_az_deg": 170 * ones,
                     "true_core_x_m": ones, "true_core_y_m": ones, "true_primary_id": np.zeros(n, int)}  # fmt: skip
            writer.append(
                EventChunk(
                    first + np.arange(n),
                    np.ones(n, int),
                    image[:n],
                    time_ns[:n],
                    truth=truth,
                    true_image=np.zeros((n, camera.n_pixels), int),
                )
            )
    return path


def keys_of_a_file(path: Path, n_images: int) -> Iterator[Cost]:
    """Each check on a freshly opened file."""
    of = f"{n_images:,} images"

    def opened(use: Callable[[DL1File], object]) -> Callable[[], object]:
        def work() -> object:
            with DL1File(path) as file:
                return use(file)

        return work

    yield timed("open", of, opened(lambda file: file.n_images))
    yield timed("open, keys of the small tables", of, opened(lambda file: file.events))
    yield timed("open, one event by its number", of, opened(lambda file: list(file.chunks(event_ids=[n_images // 2]))))
    yield timed("open, keys of all tables", of, opened(lambda file: file.check()))
    yield timed("the same and read all images", of, opened(lambda file: [len(chunk) for chunk in file.chunks()]))


# ---- sky frames ------------------------------------------------------------------------------------------------------
def sky_checks(folder: Path, side: int) -> Iterator[Cost]:
    """Of a raw frame of 900 electrons per pixel (gain 2, bias 1000 ADU, read noise 5 electrons), and as ingested."""
    raw, ingested, cfg = folder / "raw.fits", folder / "ingested.fits", SkyIngestConfig()
    electrons = np.random.default_rng(0).normal(900, np.sqrt(925), (side, side))
    hdu = fits.PrimaryHDU(np.round(electrons / 2 + 1000).astype(np.uint16))
    hdu.header.update(GAIN=2.0, BIASLVL=1000.0, RDNOISE=5.0)
    hdu.writeto(raw)
    frame = read_frame(raw)
    measured = box_noise(frame.sci)
    of = f"{side} x {side} px"
    yield timed("background", of, lambda: robust_background(frame.sci, frame.dq != 0))
    yield timed("noise of boxes (twice per frame)", of, lambda: box_noise(frame.sci, frame.dq != 0))
    yield timed("saturation", of, lambda: saturation_level(None, cfg, frame.sci, None, measured, Remarks()))
    yield timed("fingerprint", of, lambda: fingerprint(frame.sci))
    yield timed("read a raw frame, checks included", of, lambda: read_frame(raw))
    yield timed("ingest it", of, lambda: ingest_frame(raw, ingested, cfg))
    yield timed("read the ingested frame", of, lambda: read_frame(ingested))


# ---- the table -------------------------------------------------------------------------------------------------------
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--side", type=int, default=8000)
    parser.add_argument("--quick", action="store_true", help="small tables only: does it run?")
    options = parser.parse_args()
    rows, n_images, side = ([1000], 600, 512) if options.quick else (options.rows, options.images, options.side)
    costs = [cost for n_rows in rows for cost in keys_in_memory(n_rows)]
    with tempfile.TemporaryDirectory() as folder:
        costs += keys_of_a_file(write_file(Path(folder) / "run.dl1.h5", n_images), n_images)
        costs += sky_checks(Path(folder), side)
    table = Table("check", "of", "CPU s")
    for cost in costs:
        table.add_row(cost.check, cost.of, f"{cost.cpu_s:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
