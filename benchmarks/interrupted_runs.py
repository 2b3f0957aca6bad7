"""Kill every stage at random moments, and write every product to a full disk: what is left, and what a rerun makes.

    python benchmarks/interrupted_runs.py [--moments 10] [--seed 0] [--stages ...] [--quick]

Each stage of a tiny experiment (tests/conf/tiny.yaml) runs once undisturbed. Then it is killed with SIGKILL, and again
with SIGTERM, at `--moments` random moments of its run, and run again by the same command. Counted are, of the killed
runs: how often a product existed already, exit codes other than 143 after SIGTERM, and files that SIGTERM left; of the
reruns: failures, products whose bytes differ from those of the undisturbed run, and files that are no products.

Then each writing command runs on file systems of several sizes (tmpfs, which needs root to mount; else only with a
limit of file sizes, `ulimit -f`), and is counted by how it ends: whole (0), one line (2), or else; and what it left.

One row of a table per stage and kind. Exit code 1 if anything is not as it should be.
"""

import argparse
import hashlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
CONFIG = CHECKOUT / "tests" / "conf" / "tiny.yaml"
# What varies between equal runs stands in the sidecars, in the log's and the card's times, and in status files.
VARYING = (".provenance.json", "status.json", "card.json", "MODEL_CARD.md")
DISK_SIZES_KB = (20, 100, 400, 900)
SIZE_LIMITS_KB = (8, 60, 300)
TIMEOUT_S = 600


@dataclass(frozen=True)
class Stage:
    """A command; ``{out}`` stands for where its product goes, ``{base}`` for the folder with what it needs."""

    name: str
    arguments: str
    product: str  # the name of what it makes, below the folder of the run


STAGES = (
    Stage(
        "simulate showers", "simulate showers --config {conf} --run 1 --out {out}/shower_1.dl1.h5", "shower_1.dl1.h5"
    ),
    Stage(
        "simulate showers, 2 processes",
        "simulate showers --config {conf} --run 1 --jobs 2 --out {out}/shower_1.dl1.h5",
        "shower_1.dl1.h5",
    ),
    Stage("simulate sky", "simulate sky --config {conf} --run 1 --out {out}/sky_1.fits", "sky_1.fits"),
    Stage("ingest sky", "ingest {base}/sky_1.fits {base}/sky_2.fits --jobs 2 --out {out}/ingested", "ingested"),
    Stage("ingest camera", "ingest {base}/shower_1.dl1.h5 --out {out}/ingested", "ingested"),
    Stage("tiles camera", "tiles {base}/shower_1.dl1.h5 --config {conf} --out {out}/tiles", "tiles"),
    Stage(
        "tiles sky",
        "tiles {base}/ingested/sky_1.fits {base}/ingested/sky_2.fits --config {conf} --out {out}/tiles",
        "tiles",
    ),
    Stage("manifest", "manifest {base}/camera/shower_1.tiles.h5 --shards-outside --out {out}/m.json", "m.json"),
    Stage("train", "train {base}/camera.json --config {conf} --network gammaness --out {out}/bundle", "bundle"),
    Stage("evaluate", "evaluate {base}/camera.json --config {conf} --bundle {base}/gammaness --out {out}/e", "e"),
    Stage(
        "predict camera", "predict {base}/shower_1.dl1.h5 --bundle {base}/gammaness --out {out}/x.dl2.h5", "x.dl2.h5"
    ),
    Stage(
        "predict camera, 2 processes",
        "predict {base}/shower_1.dl1.h5 {base}/shower_2.dl1.h5 --bundle {base}/gammaness --jobs 2 --out {out}/dl2",
        "dl2",
    ),
    Stage("predict sky", "predict {base}/ingested/sky_1.fits --bundle {base}/denoise --out {out}/x.fits", "x.fits"),
    Stage(
        "explain", "explain {base}/shower_1.dl1.h5 --bundle {base}/gammaness --event {event} --out {out}/x.png", "x.png"
    ),
    Stage("report", "report {base} --out {out}/report.html", "report.html"),
)


@dataclass
class Outcome:
    """What happened to one stage, counted."""

    name: str
    kind: str
    runs: int = 0
    counts: Counter = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def note(self, what: str, example: str = "") -> None:
        self.counts[what] += 1
        if example and len(self.examples) < 3:
            self.examples.append(f"{self.name}, {self.kind}: {what}: {example}")

    def line(self) -> str:
        counted = ", ".join(f"{count} {what}" for what, count in sorted(self.counts.items()))
        return f"{self.name:28s} {self.kind:9s} {self.runs:3d}  {counted}"


# ---- running ---------------------------------------------------------------------------------------------------------
def command(arguments: str, base: Path, out: Path, event: int) -> list[str]:
    words = arguments.split()
    filled = [word.format(base=base, out=out, conf=CONFIG, event=event) for word in words]
    return [sys.executable, "-c", "import sys; from pipeline.cli import main; sys.exit(main())", *filled]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}


def run(arguments: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, env=environment(), capture_output=True, text=True, check=False, timeout=TIMEOUT_S, **options
    )  # fmt: skip


def killed(arguments: list[str], after_s: float, number: signal.Signals) -> tuple[int | None, str]:
    """Exit code and stderr of a process and its children that got a signal; None if it had ended before."""
    process = subprocess.Popen(
        arguments, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        process.wait(timeout=after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    else:
        return None, ""
    # stderr closes when the last child has ended, too.
    _, error = process.communicate(timeout=60)
    return process.returncode, error


def prepare(base: Path) -> int:
    """Make what the stages need, one from the other; the number of an event that can be explained."""
    for text in (
        "simulate showers --config {conf} --run 1 --out {base}/shower_1.dl1.h5",
        "simulate showers --config {conf} --run 2 --out {base}/shower_2.dl1.h5",
        *(f"simulate sky --config {{conf}} --run {n} --out {{base}}/sky_{n}.fits" for n in range(1, 5)),
        "ingest " + " ".join(f"{{base}}/sky_{n}.fits" for n in range(1, 5)) + " --out {base}/ingested",
        "tiles {base}/shower_1.dl1.h5 {base}/shower_2.dl1.h5 --config {conf} --out {base}/camera",
        "tiles "
        + " ".join(f"{{base}}/ingested/sky_{n}.fits" for n in range(1, 5))
        + " --config {conf} --out {base}/sky",
        "manifest {base}/camera/shower_1.tiles.h5 {base}/camera/shower_2.tiles.h5 --out {base}/camera.json",
        "manifest " + " ".join(f"{{base}}/sky/sky_{n}.tiles.h5" for n in range(1, 5)) + " --out {base}/sky.json",
        "train {base}/camera.json --config {conf} --network gammaness --out {base}/gammaness",
        "train {base}/sky.json --config {conf} --network denoise --out {base}/denoise",
        "evaluate {base}/camera.json --config {conf} --bundle {base}/gammaness --out {base}/evaluation/gammaness",
    ):
        done = run(command(text, base, base, 0))
        if done.returncode:
            sys.exit(f"cannot prepare: {text}: {done.stderr}")
    import h5py
    import hdf5plugin  # noqa: F401 (registers the filters of PyTables)

    with h5py.File(base / "shower_1.dl1.h5") as file:
        images = file["dl1/event/telescope/images/tel_001"][:]
    return int(images["event_id"][images["image"].sum(axis=1).argmax()])


def digests(folder: Path) -> dict[str, str]:
    """Digest of each file that is equal between equal runs; of the others, that they are there."""
    return {
        str(path.relative_to(folder)): ""
        if path.name.endswith(VARYING)
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# ---- kills -----------------------------------------------------------------------------------------------------------
def kill_at_random(stage: Stage, base: Path, work: Path, event: int, moments: int, rng: random.Random) -> list[Outcome]:
    wall_s = float("inf")  # the first run may compile
    for _ in range(2):
        whole = work / "whole"
        whole.mkdir()
        started = time.monotonic()
        done = run(command(stage.arguments, base, whole, event))
        wall_s = min(wall_s, time.monotonic() - started)
        if done.returncode:
            sys.exit(f"{stage.name} fails undisturbed: {done.stderr}")
        expected = digests(whole)
        shutil.rmtree(whole)
    outcomes = []
    for number in (signal.SIGKILL, signal.SIGTERM):
        outcome = Outcome(stage.name, number.name)
        for _ in range(moments):
            out = work / "killed"
            out.mkdir()
            kill_and_repeat(
                stage,
                command(stage.arguments, base, out, event),
                out,
                expected,
                outcome,
                number,
                rng.uniform(0.2, wall_s),
            )
            shutil.rmtree(out)
        outcomes.append(outcome)
    return outcomes


def kill_and_repeat(
    stage: Stage, arguments: list[str], out: Path, expected: dict[str, str], outcome: Outcome, number: signal.Signals,
    after_s: float,
) -> None:  # fmt: skip
    outcome.runs += 1
    code, error = killed(arguments, after_s, number)
    left = digests(out)
    if code is None:
        outcome.note("ended before")
    elif number == signal.SIGTERM and not left.keys() >= expected.keys():
        # Before Python has come to the program, the system ends it.
        if code not in (143, -signal.SIGTERM):
            outcome.note("WRONG EXIT CODE", f"{code} after {after_s:.2f} s: {error[-200:]}")
        if error.strip() not in ("terminated", "") and "Traceback" in error:
            outcome.note("TRACEBACK", f"after {after_s:.2f} s: {error[-300:]}")
        if unfinished := [name for name in left if ".ckpt" not in name and (".part" in name or name not in expected)]:
            outcome.note("LEFT BY SIGTERM", f"after {after_s:.2f} s: {unfinished}")
    done = run(arguments)
    if done.returncode == 2 and "exists; choose" in done.stderr and left.keys() >= expected.keys():
        outcome.note("whole before the kill")
    elif done.returncode:
        outcome.note("RERUN FAILS", f"after {after_s:.2f} s: {done.stderr[-300:]}")
        return
    again = digests(out)
    if surplus := sorted(again.keys() - expected.keys()):
        outcome.note("LEFTOVERS", f"after {after_s:.2f} s: {surplus}")
    if differing := sorted(name for name in expected if again.get(name) != expected[name]):
        outcome.note("OTHER BYTES", f"after {after_s:.2f} s: {differing}")
    else:
        outcome.note("same bytes")


# ---- full disks ------------------------------------------------------------------------------------------------------
@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[bool]:
    """A file system of this size, if it can be mounted."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(folder)], capture_output=True, check=False
    ).returncode
    try:
        yield mounted == 0
    finally:
        if mounted == 0:
            subprocess.run(["umount", str(folder)], check=True)


def limit(kilobytes: int) -> Callable[[], None]:
    def set_limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes << 10, kilobytes << 10))

    return set_limit


def fill_disks(stage: Stage, base: Path, work: Path, event: int) -> list[Outcome]:
    out = work / "small"
    out.mkdir()
    full, limited = Outcome(stage.name, "full disk"), Outcome(stage.name, "limit")
    for kilobytes in DISK_SIZES_KB:
        with small_disk(out, kilobytes) as is_mounted:
            if is_mounted:
                judge(full, run(command(stage.arguments, base, out, event)), out, f"{kilobytes} kB")
    for kilobytes in SIZE_LIMITS_KB:
        done = run(command(stage.arguments, base, out, event), preexec_fn=limit(kilobytes))
        judge(limited, done, out, f"{kilobytes} kB")
        shutil.rmtree(out)
        out.mkdir()
    out.rmdir()
    return [full, limited]


def judge(outcome: Outcome, done: subprocess.CompletedProcess[str], out: Path, size: str) -> None:
    outcome.runs += 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    if done.returncode == 0:
        outcome.note("whole")
    elif done.returncode == 2 and len(lines) == 1:
        is_named = lines[0].startswith("error: cannot write ")
        outcome.note("one line" if is_named else "BLAMES ANOTHER", "" if is_named else f"{size}: {lines[0]}")
    else:
        outcome.note(f"EXIT CODE {done.returncode}", f"{size}: {done.stderr[-400:]}")
    if "Traceback" in done.stderr:
        outcome.note("TRACEBACK", f"{size}: {done.stderr[-400:]}")
    left = [name for name in digests(out) if ".part" in name or (done.returncode and name.startswith(out.name))]
    if left:
        outcome.note("LEFT", f"{size}: {left}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=10, help="kills of each kind and stage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", nargs="*", help="names of stages; all by default")
    parser.add_argument("--quick", action="store_true", help="one stage, one kill of each kind")
    settings = parser.parse_args()
    moments = 1 if settings.quick else settings.moments
    stages = [stage for stage in STAGES if not settings.stages or stage.name in settings.stages]
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="interrupted-") as folder:
        base, work = Path(folder) / "base", Path(folder) / "work"
        work.mkdir()
        if settings.quick:
            stages, event = [stage for stage in STAGES if stage.name == "simulate sky"], 0
            base.mkdir()
        else:
            base.mkdir()
            event = prepare(base)
        for stage in stages:
            rng = random.Random(f"{settings.seed} {stage.name}")
            for outcome in [
                *kill_at_random(stage, base, work, event, moments, rng),
                *fill_disks(stage, base, work, event),
            ]:
                outcomes.append(outcome)
                print(outcome.line() if outcome.runs else f"{outcome.name:28s} {outcome.kind:9s} needs root")
                print("".join(f"    {example}\n" for example in outcome.examples), end="", flush=True)
    return 1 if any(what.isupper() or "EXIT" in what for outcome in outcomes for what in outcome.counts) else 0


if __name__ == "__main__":
    sys.exit(main())
