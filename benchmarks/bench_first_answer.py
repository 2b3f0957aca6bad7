"""Seconds and memory from a command line to an answer: one event, one run, two frames; beside other programs.

    python benchmarks/bench_first_answer.py [--data DIR] [--peers ENVIRONMENT] [--repeat N] [--quick]
        [--page docs/models.md]

Each row is a command as a user types it, in a process of its own that starts cold but for the system's file cache:
median CPU seconds (of all threads), wall time and peak memory of its repetitions. The files are real ones (default:
$LIGHTPOOL_DATA); --quick takes one of lightpool's own. ctapipe-process makes image parameters and stereo geometry: it
has no trained models. --peers is an environment with deepCR and Cosmic-CoNN (benchmarks/outside/sky_peers.py).
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from pages import table, write_page
from photometry.scenes import bench_scene

SIMTEL = Path("camera/simtel/st_v036b_gamma_run7_za40_South_lsts_700.simtel.zst")
LST_MONO = Path(__file__).resolve().parent.parent / "configs" / "lst_mono.yaml"
OWN = str(Path(sys.executable).with_name("lightpool"))
FRAMES = (Path("sky/kpno_m51/M51.fits"), Path("sky/ntt_emmi/galaxies.fits"))
_DEEPCR = """
from astropy.io import fits; from deepCR import deepCR
frame = fits.getdata({path!r}).astype("f4")
mask, clean = deepCR(mask="ACS-WFC", inpaint="ACS-WFC-F606W-2-32").clean(frame, inpaint=True)
fits.HDUList([fits.PrimaryHDU(clean), fits.ImageHDU(mask)]).writeto({out!r})
"""
_COSMIC_CONN = """
from astropy.io import fits; from cosmic_conn import init_model
mask = init_model("ground_imaging").detect_cr(fits.getdata({path!r}).astype("f4"))
fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU((mask > 0.5).astype("u1"))]).writeto({out!r})
"""
_ASTROSCRAPPY = """
from astropy.io import fits; from astroscrappy import detect_cosmics
mask, clean = detect_cosmics(fits.getdata({path!r}).astype("f4"), gain=1.0, readnoise=6.0)
fits.HDUList([fits.PrimaryHDU(clean), fits.ImageHDU(mask.astype("u1"))]).writeto({out!r})
"""


@dataclass(frozen=True)
class Row:
    """One command; `{out}` is a fresh path."""

    what: str
    command: Sequence[str]


@dataclass(frozen=True)
class Cost:
    """Of one process and those that it waited for."""

    cpu_s: float
    wall_s: float
    memory_mb: float


def run(row: Row, folder: Path) -> Cost:
    """One repetition."""
    out = folder / "out"
    command = [part.format(out=out) for part in row.command]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program has its bytecode
    started = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env=environment, cwd=folder)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{' '.join(command)}: {said.read().decode()[-2000:]}")
    for made in folder.glob("out*"):
        shutil.rmtree(made) if made.is_dir() else made.unlink()
    return Cost(usage.ru_utime + usage.ru_stime, wall_s, usage.ru_maxrss / 1024)


def quick_rows(folder: Path) -> list[Row]:
    """One command, which shows that this works."""
    from astropy.io import fits

    pixels = np.random.default_rng(1).normal(100, 10, (128, 128)).astype(np.float32)
    fits.PrimaryHDU(pixels, fits.Header({"BUNIT": "electron"})).writeto(folder / "frame.fits")
    return [Row("one small frame", [OWN, "predict", "frame.fits", "--out", "{out}.fits"])]


def rows(data: Path, peers: Path | None, folder: Path) -> list[Row]:
    """The commands; what they read and is not among the data is made in `folder`."""
    simtel, run = str(data / SIMTEL), str(folder / "run.dl1.h5")
    process = str(Path(sys.executable).with_name("ctapipe-process"))
    lightpool("ingest", simtel, "--out", str(folder / "ingested"))
    (dl1,) = map(str, (folder / "ingested").rglob("*.dl1.h5"))
    lightpool("simulate", "showers", "--config", str(LST_MONO), "--run", "1", "--out", run)
    event, n_images, frame = str(first_event(simtel)), images_of(run), bench_scene("ground")
    large = frame.write(folder / f"{frame.file_stem}.fits")
    found = [
        Row("one event of a simtel file, table", [OWN, "predict", simtel, "--event", event]),
        Row("the same event of a DL1 file, table", [OWN, "predict", dl1, "--event", event]),
        Row(f"{n_images:,} images of a simulated run of one LST, DL2", [OWN, "predict", run, "--out", "{out}.h5"]),
        Row(f"{frame.name}, 2048 x 2048 px", [OWN, "predict", str(large), "--out", "{out}.fits"]),
        Row("a simtel run of four LSTs, DL2", [OWN, "predict", simtel, "--out", "{out}.h5"]),
        Row(
            "the same run, image parameters and stereo geometry",
            [process, "--input", simtel, "--output", "{out}.h5", "--write-showers", "--quiet"],
        ),
    ]
    for path in (data / frame for frame in FRAMES):
        size = " x ".join(map(str, shape_of(path)))
        found.append(Row(f"{path.name}, {size} px", [OWN, "predict", str(path), "--out", "{out}.fits"]))
        scripts = {sys.executable: (_ASTROSCRAPPY,)}
        if peers is not None:
            scripts[str(peers / "bin" / "python")] = (_DEEPCR, _COSMIC_CONN)
        for python, texts in scripts.items():
            for text in texts:
                script = text.strip().replace("{path!r}", repr(str(path))).replace("{out!r}", "'{out}.fits'")
                found.append(Row("the same frame", [python, "-c", script]))
    return found


def lightpool(*arguments: str) -> None:
    """Run a command that is not measured."""
    subprocess.run([OWN, *arguments], check=True, capture_output=True)


def images_of(path: str) -> int:
    """Number of images in a DL1 file."""
    from ctapipe.io import TableLoader

    with TableLoader(path, dl1_images=True, dl2=False, instrument=False) as loader:
        return sum(len(table) for table in loader.read_telescope_events_by_id().values())


def first_event(path: str) -> int:
    """Number of the first event of a file that the models answer."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "dl2.h5"
        lightpool("predict", path, "--out", str(out))
        from ctapipe.io import TableLoader

        with TableLoader(out, dl2=True, dl1_parameters=False, instrument=False) as loader:
            events = loader.read_subarray_events()
        valid = next(name for name in events.colnames if name.endswith("energy_is_valid"))
        return int(events["event_id"][np.flatnonzero(events[valid])[0]])


def shape_of(path: Path) -> tuple[int, ...]:
    """Of the first image."""
    from astropy.io import fits

    with fits.open(path) as hdus:
        return next(hdu.shape for hdu in hdus if hdu.is_image and len(hdu.shape) == 2)


def program(row: Row) -> str:
    """What the table calls it."""
    text = " ".join(row.command)
    names = {"lightpool predict": "lightpool", "ctapipe-process": "ctapipe-process", "deepCR": "deepCR",
             "cosmic_conn": "Cosmic-CoNN (mask only)", "astroscrappy": "astroscrappy"}  # fmt: skip
    return next(name for part, name in names.items() if part in text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("LIGHTPOOL_DATA"))
    parser.add_argument("--peers", type=Path, help="environment with deepCR and Cosmic-CoNN")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one small frame, once")
    parser.add_argument("--page", type=Path, help="write the table into this page")
    arguments = parser.parse_args()
    if not arguments.quick and arguments.data is None:
        parser.error("real files are needed: give --data, or set LIGHTPOOL_DATA")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        peers = arguments.peers and arguments.peers.absolute()
        prepare, given = (quick_rows, ()) if arguments.quick else (rows, (Path(arguments.data).resolve(), peers))
        # In a process of its own: a new process begins with the peak memory of the one that starts it.
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            chosen = pool.submit(prepare, *given, folder).result()
        lines = []
        for row in chosen:
            costs = [run(row, folder) for _ in range(1 if arguments.quick else arguments.repeat)]
            figures = [
                statistics.median(getattr(cost, name) for cost in costs) for name in ("cpu_s", "wall_s", "memory_mb")
            ]
            lines.append([row.what, program(row), *(f"{value:.2f}" for value in figures[:2]), f"{figures[2]:,.0f}"])
            print(lines[-1], flush=True)
    content = table(("input and answer", "program", "CPU s", "wall s", "MB"), lines)
    if arguments.page:
        write_page(arguments.page, {"first_answer": content})
    else:
        print(content)


if __name__ == "__main__":
    main()
