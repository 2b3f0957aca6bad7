"""What the commands do with damaged files: a table of kind x outcome, and a list of what must not be.

    python benchmarks/damaged_files.py [--n N] [--seed SEED] [--only KIND ...] [--quick]

Makes a small good file of each kind, damages N copies of each (random bytes, blocks of zeros, truncation, swapped
blocks, bytes too many; nodes, attributes, columns, cards and keys that are missing or absurd), and runs the commands
that read this kind on each copy, in a forked child with limits of 10 s of CPU time (90 s in all) and 2 GB. Each run
must end with exit 0 and the values of the good file, or with exit 2 and one line on stderr, and leave no temporary
file. "warned" counts runs that ended with exit 0, other numbers and a warning that the good file does not cause, and
"other values" those without one: damage inside the pixels of a file without checksums cannot be noticed, nor can swapped blocks of one with them, for
the sums of FITS do not depend on the order of its words.
With LIGHTPOOL_DATA set, a file of sim_telarray is damaged, too.
"""

import argparse
import os
import shutil
import socket
import sys
import tempfile
from collections import Counter
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}

import numpy as np
from damage.damages import damage
from damage.good_files import Kind, make
from damage.harness import Ending, empty, run, same
from rich.console import Console
from rich.table import Table

GOOD = ("right values", "refused", "warned", "other values")
BAD = ("traceback", "not one line", "hang", "memory", "signal", "files left", "other exit")
QUICK = ("fits", "yaml", "shard")


def runs_of(kind: Kind, n: int, seed: int, folder: Path) -> tuple[Counter[str], list[tuple[str, str, str]]]:
    """Outcomes over `n` damaged copies, and (outcome, what was done, detail) of those that must not be."""
    whole = _commands(kind, kind.file, folder)
    if failed := [ending for ending in whole if ending.outcome != "done"]:
        raise SystemExit(f"{kind.file} is good, and was not accepted: {failed[0]}")
    expected = [ending.value for ending in whole]
    counts: Counter[str] = Counter()
    wrong: list[tuple[str, str, str]] = []
    for number in range(n):
        rng = np.random.default_rng([seed, number])
        copies = folder / "copies"
        shutil.rmtree(copies, ignore_errors=True)
        copies.mkdir()
        copy = copies / kind.file.name
        shutil.copytree(kind.file, copy) if kind.file.is_dir() else shutil.copy(kind.file, copy)
        for beside in kind.beside:
            shutil.copy(beside, copies)
        copy.chmod(0o755 if copy.is_dir() else 0o644)
        what = f"#{number} {damage(copy, kind.structure, rng)}"
        for place, ending in enumerate(_commands(kind, copy, folder)):
            outcome = ending.outcome
            if outcome == "done":
                outcome = "right values" if same(ending.value, expected[place]) else "other values"
                new = set(ending.detail.splitlines()) - set(whole[place].detail.splitlines())
                outcome = "warned" if outcome == "other values" and new else outcome
            counts[outcome] += 1
            if outcome in BAD or outcome == "other values":
                wrong.append((outcome, what, ending.detail or kind.commands[place][0]))
    return counts, wrong


def _commands(kind: Kind, file: Path, folder: Path) -> list[Ending]:
    """Endings of the commands of a kind; what needs the product of one that failed is not run."""
    place = empty(folder / "run")
    endings = []
    for command in kind.commands:
        if any("OUT/m.json" in word for word in command[1:2]) and not (place / "OUT" / "m.json").exists():
            continue
        words = [word.replace("FILE", str(file)).replace("OUT", str(place / "OUT")) for word in command]
        endings.append(run(words, place))
    return endings


def special_files(kinds: dict[str, Kind], folder: Path) -> tuple[Counter[str], list[tuple[str, str, str]]]:
    """Every command on what is no regular file, or has an odd name."""
    odd = folder / "odd"
    odd.mkdir()
    os.mkfifo(odd / "pipe")
    (odd / "folder").mkdir()
    (odd / "loop").symlink_to("loop")
    (odd / "gone").symlink_to("nowhere")
    (odd / "empty").touch()
    (odd / "zeros").write_bytes(bytes(100_000))
    with socket.socket(socket.AF_UNIX) as listening:
        os.chdir(odd)  # the name of a socket may have 107 characters
        listening.bind("socket")
    paths = [odd / name for name in ("pipe", "folder", "loop", "gone", "empty", "zeros", "socket", "n" * 300)]
    paths += [Path("/dev/zero"), Path("/dev/null"), Path("/dev/full")]
    counts: Counter[str] = Counter()
    wrong = []
    for kind in kinds.values():
        good = kind.file if kind.file.is_file() else None
        named = (
            [odd / "x\x1b[31m\ny", odd / ("n" * 230 + ".fits"), odd / os.fsdecode(b"caf\xe9\xff.h5")] if good else []
        )
        for name in named:
            shutil.copy(good, name)
        for path in [*paths, *named]:
            for ending in _commands(kind, path, folder):
                outcome = "right values" if ending.outcome == "done" else ending.outcome
                if "\x1b" in ending.detail:
                    outcome = "not one line"
                counts[outcome] += 1
                if outcome in BAD or (outcome == "right values" and path in paths):
                    wrong.append((outcome, ascii(path.name), ending.detail))
    return counts, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=300, help="damaged copies per kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="kinds, or 'special files'")
    parser.add_argument("--quick", action="store_true", help="a few copies of three kinds")
    arguments = parser.parse_args()
    n, only = (4, QUICK) if arguments.quick else (arguments.n, arguments.only)
    console = Console(width=150)
    table = Table("kind", *GOOD, *BAD, title=f"{n} damaged copies per kind, seed {arguments.seed}")
    found: list[tuple[str, str, str, str]] = []
    with tempfile.TemporaryDirectory(prefix="damaged_") as name:
        folder = Path(name).resolve()
        (folder / "good").mkdir()
        kinds = make(folder / "good")
        for label in [*kinds, "special files"]:
            if only and label not in only:
                continue
            counts, wrong = (
                special_files(kinds, folder)
                if label == "special files"
                else runs_of(kinds[label], n, arguments.seed, folder)
            )
            table.add_row(label, *(str(counts[outcome] or "") for outcome in (*GOOD, *BAD)))
            found += [(label, *entry) for entry in wrong]
            print(label, dict(counts), *(entry for entry in wrong if entry[0] in BAD), sep="\n  ", file=sys.stderr)
        console.print(table)
        for entry in found:
            print(*(text.replace(str(folder), "") for text in entry), sep=" | ")


if __name__ == "__main__":
    main()
