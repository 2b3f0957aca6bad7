"""What it costs to check a frame: noise of its pixels, saturation and fingerprint, beside reading it.

    python benchmarks/bench_sky_checks.py [--side PIXELS] [--quick]

CPU seconds of one process for a frame of SIDE x SIDE pixels (8,000 by default), stored as 16-bit integers with gain,
bias level and read noise, then ingested and read again. Stars are left out: they do not change the cost.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from astropy.io import fits
from rich.console import Console
from rich.table import Table

from pipeline.config import SkyIngestConfig
from pipeline.sky.background import box_noise, robust_background
from pipeline.sky.frames import checked_uncertainty, fingerprint, read_frame
from pipeline.sky.frames.scale import saturation_level
from pipeline.sky.ingest import ingest_frame
from pipeline.sky.remarks import Remarks


def raw_frame(path: Path, side: int) -> None:
    """A sky of 900 electrons, gain 2, bias 1000 ADU, read noise 5 electrons."""
    electrons = np.random.default_rng(0).normal(900, np.sqrt(925), (side, side))
    hdu = fits.PrimaryHDU(np.round(electrons / 2 + 1000).astype(np.uint16))
    hdu.header.update(GAIN=2.0, BIASLVL=1000.0, RDNOISE=5.0)
    hdu.writeto(path)


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=8000)
    parser.add_argument("--quick", action="store_true", help="a frame of 512 px")
    arguments = parser.parse_args()
    side = 512 if arguments.quick else arguments.side
    cfg = SkyIngestConfig()
    with tempfile.TemporaryDirectory() as folder:
        raw, ingested = Path(folder) / "raw.fits", Path(folder) / "ingested.fits"
        raw_frame(raw, side)
        frame = read_frame(raw)
        measured = box_noise(frame.sci)
        costs = {
            "read a raw frame (all below but the fingerprint)": lambda: read_frame(raw),
            "background, as prediction needs it": lambda: robust_background(frame.sci),
            "noise of boxes": lambda: box_noise(frame.sci, frame.dq != 0),
            "saturation from the pixels": lambda: saturation_level(None, cfg, frame.sci, None, measured, Remarks()),
            "uncertainty, checked": lambda: checked_uncertainty(frame, frame.err),
            "fingerprint": lambda: fingerprint(frame.sci),
            "ingest": lambda: ingest_frame(raw, ingested, cfg),
            "read the ingested frame": lambda: read_frame(ingested),
        }
        table = Table("step", "CPU s", title=f"{side} x {side} px")
        for name, work in costs.items():
            table.add_row(name, f"{cpu_seconds(work):.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
