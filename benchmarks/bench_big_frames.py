"""Memory and CPU seconds of `lightpool predict` on large frames, from file to file.

    python benchmarks/bench_big_frames.py [--bundle BUNDLE] [--side N ...] [--rows N] [--form float int16 fz gz]
        [--out ENDING] [--backend NAME ...] [--quick]

Each frame (stars of FWHM 3 px on sky, with hot pixels) is made strip by strip in the temporary folder, and predicted by
a process of its own; without a bundle, by a U-Net of width 24 and depth 2 that was not trained. Peaks are those of
that process: anonymous memory, which nothing can take back, and all resident pages, with those of mapped files. Seams
are the largest difference between a frame restored in tiles and in one piece, in units of the noise.
"""

import argparse
import gzip
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits
from rich.console import Console
from rich.table import Table

_STRIP_ROWS = 500
_LEVEL_E, _READ_NOISE_E, _FWHM_PX, _REACH_PX = 400.0, 6.0, 3.0, 8
_STARS_PER_PIXEL, _HOT_PER_PIXEL = 2e-3, 2e-4
_SEAM_SIDE = 1200
_POLL_S = 0.02
_MAIN = "import sys; from pipeline.cli import main; sys.exit(main())"
FORMS = ("float", "int16", "fz", "gz")


class Cost(NamedTuple):
    """One row of the table; peaks in MB."""

    form: str
    backend: str
    side: int
    n_rows: int
    anonymous_mb: float
    resident_mb: float
    cpu_s: float
    wall_s: float


# ---- frames ----------------------------------------------------------------------------------------------------------
def strips_of(side: int, n_rows: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Electrons, float32, from the first row on."""
    rng = np.random.default_rng(seed)
    n_stars = int(_STARS_PER_PIXEL * side * n_rows)
    y, x = rng.uniform(0, n_rows, n_stars), rng.uniform(0, side, n_stars)
    flux = np.minimum(100 * rng.pareto(1.0, n_stars) + 100, 1e6)
    for top in range(0, n_rows, _STRIP_ROWS):
        height = min(_STRIP_ROWS, n_rows - top)
        near = (y > top - _REACH_PX) & (y < top + height + _REACH_PX)
        light = _stars(y[near] - top, x[near], flux[near], (height, side))
        own = np.random.default_rng((seed, top))
        strip = own.poisson(_LEVEL_E + light) + own.normal(0, _READ_NOISE_E, light.shape)
        hot = own.random(light.shape) < _HOT_PER_PIXEL
        strip[hot] += own.exponential(2000, np.count_nonzero(hot))
        yield strip.astype(np.float32)


def _stars(y: np.ndarray, x: np.ndarray, flux: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    sigma = _FWHM_PX / 2.3548
    padded = np.zeros((shape[0] + 4 * _REACH_PX, shape[1] + 4 * _REACH_PX))
    reach = np.arange(-_REACH_PX, _REACH_PX + 1)
    for first in range(0, len(y), 5000):
        part = slice(first, first + 5000)
        rows, columns = (np.floor(place[part]).astype(int)[:, None] + reach for place in (y, x))
        dy, dx = rows + 0.5 - y[part, None], columns + 0.5 - x[part, None]
        profile = np.exp(-(dy[:, :, None] ** 2 + dx[:, None, :] ** 2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)
        place = (rows[:, :, None] + 2 * _REACH_PX, columns[:, None, :] + 2 * _REACH_PX)
        np.add.at(padded, place, flux[part, None, None] * profile)
    return padded[2 * _REACH_PX : 2 * _REACH_PX + shape[0], 2 * _REACH_PX : 2 * _REACH_PX + shape[1]]


def make_frame(folder: Path, side: int, form: str, n_rows: int | None = None) -> Path:
    """A frame as plain float32, as int16 with BZERO and BLANK, tile-compressed, or packed by gzip."""
    path = folder / f"{form}_{side}.fits"
    n_rows = n_rows or side
    header = fits.Header({"SIMPLE": True, "BITPIX": -32, "NAXIS": 2, "NAXIS1": side, "NAXIS2": n_rows, "EXTEND": True})
    header.update(BUNIT="electron", GAIN=1.0, RDNOISE=_READ_NOISE_E)
    if form == "int16":
        header.update(BITPIX=16, BZERO=32768.0, BSCALE=1.0, BLANK=-32768)
    with fits.StreamingHDU(str(path), header) as stream:  # of a Path, it looks at the name alone
        for strip in strips_of(side, n_rows):
            if form == "int16":
                strip = (np.clip(np.rint(strip), 1, 65535) - 32768).astype(">i2")
            stream.write(strip)
    if form == "fz":
        packed = path.with_name(path.name + ".fz")
        with fits.open(path) as hdus:
            image = fits.CompImageHDU(hdus[0].data, hdus[0].header, compression_type="RICE_1", quantize_level=16)
            fits.HDUList([fits.PrimaryHDU(), image]).writeto(packed)
    elif form == "gz":
        packed = path.with_name(path.name + ".gz")
        with open(path, "rb") as plain, gzip.open(packed, "wb", compresslevel=1) as target:
            shutil.copyfileobj(plain, target, 1 << 20)
    else:
        return path
    path.unlink()
    return packed


def untrained_bundle(folder: Path, width: int = 24, depth: int = 2) -> Path:
    """A denoiser as fast as a trained one: a U-Net."""
    import torch

    from pipeline.bundle.card import Card, HeadSection, InputSection, ModelSection, OutputColumn, TrainingSection
    from pipeline.bundle.export import create_network, export_bundle
    from pipeline.inputs.frame import FrameInput
    from pipeline.tasks import get_spec

    torch.manual_seed(0)
    spec, kwargs = get_spec("denoise"), {"width": width, "depth": depth, "skips": True}
    network = create_network("conv_autoencoder", kwargs, 3, len(spec.outputs), 0)
    torch.nn.init.normal_(network.head[0].weight, std=0.1)  # its correction starts at zero, which has no seams
    columns = tuple(OutputColumn(name=c.name, unit=c.unit, description=c.description) for c in spec.shown)
    card = Card(
        name="untrained",
        network="denoise",
        wing="sky",
        model=ModelSection(
            name="conv_autoencoder", kwargs=kwargs, in_chans=3, num_outputs=len(spec.outputs), n_scalars=0,
            n_parameters=sum(parameter.numel() for parameter in network.parameters()),
        ),
        cameras=(),
        input=InputSection(
            channels=("sci", "err"), units=("electron", "electron"), tile_shape=(64, 64),
            recipe={"version": 1, "size_px": 64, "stride_px": 64}, unit="electron", preparation=FrameInput(),
            size_multiple=network.size_multiple,
        ),
        heads=(
            HeadSection(
                task="denoise", first=0, outputs=spec.outputs, options=spec.options().model_dump(mode="json"),
                transform=spec.transform, columns=columns,
            ),
        ),
        training=TrainingSection(
            config={}, manifests=(), seed=0, threads=1, device="cpu", precision="float32", epochs=0, best_epoch=0,
            n_images=0, wall_time_s=0.0, versions={},
        ),
        validation={},
        limits=("not trained",),
    )  # fmt: skip
    export_bundle(network, card, folder)
    return folder


# ---- predicting ------------------------------------------------------------------------------------------------------
def measured(arguments: Sequence[str]) -> tuple[float, float, float, float]:
    """Run Python; peaks of anonymous and of all resident memory [MB], CPU and wall-clock seconds."""
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, *arguments])
    anonymous = resident = 0
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        pages = _memory_kb(process.pid)
        anonymous, resident = max(anonymous, pages.get("RssAnon", 0)), max(resident, pages.get("VmHWM", 0))
        time.sleep(_POLL_S)
    if status:
        raise SystemExit(f"{' '.join(arguments)} failed")
    cpu_s = usage.ru_utime + usage.ru_stime
    return anonymous / 1000, resident / 1000, cpu_s, time.monotonic() - started


def _memory_kb(pid: int) -> dict[str, int]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "VmHWM"))}


def predict(bundle: Path, path: Path, out: Path, *options: str) -> tuple[float, float, float, float]:
    """Predict one file with one thread."""
    files = [str(path), "--bundle", str(bundle), "--out", str(out)]
    return measured(["-c", _MAIN, "predict", *files, "--force", "--threads", "1", *options])


def seams(bundle: Path, folder: Path, side: int, backend: str) -> float:
    """Of a frame of some tiles, in units of its noise."""
    path = make_frame(folder, side, "float")
    planes = []
    for tile_px in (side // 3, 2 * side):
        out = folder / f"tiles_of_{tile_px}.fits"
        settings = folder / "settings.yaml"
        settings.write_text(f"predict: {{tile_px: {tile_px}}}\n")
        predict(bundle, path, out, "--config", str(settings), "--backend", backend)
        with fits.open(out) as hdus:
            planes.append(hdus["SCI"].data.astype(np.float64))
            noise = hdus["SCI"].header["LPRMS"]
    return float(np.abs(planes[0] - planes[1]).max() / noise)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--side", type=int, nargs="+", default=[4000, 8000])
    parser.add_argument("--rows", type=int, help="height, if another than the side: what takes memory is the width")
    parser.add_argument("--form", choices=FORMS, nargs="+", default=["float"])
    parser.add_argument("--backend", nargs="+", default=["auto"], help="auto, onnxruntime, openvino, cuda")
    parser.add_argument("--out", default=".fits", help="ending of the product: .fits, .fits.gz, .fits.fz")
    parser.add_argument("--quick", action="store_true", help="one small frame: does it run?")
    options = parser.parse_args()
    sides = [300] if options.quick else options.side
    costs = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = options.bundle.absolute() if options.bundle else untrained_bundle(folder / "bundle")
        for side in sides:
            for form in options.form:
                path, out = make_frame(folder, side, form, options.rows), folder / f"out{options.out}"
                for backend in options.backend:
                    cost = predict(bundle, path, out, "--backend", backend)
                    costs.append(Cost(form, backend, side, options.rows or side, *cost))
                    out.unlink()
                path.unlink()
        steps = {backend: seams(bundle, folder, min(_SEAM_SIDE, *sides), backend) for backend in options.backend}
    table = Table("form", "backend", "pixels", "anonymous MB", "resident MB", "CPU s", "wall s", "Mpix per CPU s")
    for cost in costs:
        speed = cost.side * cost.n_rows / cost.cpu_s / 1e6
        peaks = f"{cost.anonymous_mb:.0f}", f"{cost.resident_mb:.0f}"
        seconds = f"{cost.cpu_s:.1f}", f"{cost.wall_s:.1f}", f"{speed:.2f}"
        table.add_row(cost.form, cost.backend, f"{cost.side} x {cost.n_rows}", *peaks, *seconds)
    Console().print(table)
    for backend, step in steps.items():
        Console().print(f"largest seam with {backend}: {step:.2g} of the noise")


if __name__ == "__main__":
    main()
