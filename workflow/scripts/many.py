"""Run a command of lightpool on many files in one process, where it has not been done.

    python many.py --receipt jobs/tiles/from_a.json --settings DIGEST --sources FILE... --products 'tiles/{name}.h5'
        --items NAME=VALUE... -- tiles {value} --out tiles

Imports and start of a process cost as much as the work on a small file, and a job of a cluster costs more. What is done
is noted file by file beside the receipt (`done/NAME.json`): a job that is started again, because it was killed, one of
its files failed or a file was added, goes on where it was. A file is done again if its note does not name the same
settings, source modules, command and input, or its products are not those that were noted. A file that fails does not
stop the others; then there is no receipt, and the exit code is that of the first failure.
"""

import argparse
import gc
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.cli import main as run_command
from pipeline.files import write_text_atomically
from pipeline.provenance import sha256_file, sha256_json

_STOPPED = (129, 130, 141, 143)  # exit codes of a command that was told to end
_MAX_NAMES = 5


def version_of(path: str | Path) -> list[int] | None:
    """Size and time of change [ns]; None where nothing is."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def filled(texts: Sequence[str], name: str, value: str) -> list[str]:
    """Texts with `{name}` and `{value}` replaced; other braces stay."""
    return [text.replace("{name}", name).replace("{value}", value) for text in texts]


class Files:
    """What decides the products of each file, and which of them are there.

    Parameters
    ----------
    arguments : namespace
        Of the command line.
    command : sequence of str
        With `{name}` and `{value}`.
    """

    def __init__(self, arguments: argparse.Namespace, command: Sequence[str]) -> None:
        self._notes = arguments.receipt.parent / "done"
        self._products = arguments.products
        self._command = list(command)
        sources = hashlib.sha256("".join(sha256_file(path) for path in arguments.sources).encode()).hexdigest()
        shared = {str(path): sha256_file(path) for path in arguments.shared}
        self._shared = {"settings": arguments.settings, "sources": sources, "shared": shared}

    def command(self, name: str, value: str) -> list[str]:
        """Arguments of lightpool for one file."""
        return filled(self._command, name, value)

    def products(self, name: str, value: str) -> dict[str, list[int] | None]:
        """Versions of the products that are there."""
        return {path: version_of(path) for path in filled(self._products, name, value)}

    def key(self, name: str, value: str) -> str:
        """Digest of all that decides the products."""
        facts: dict[str, Any] = {"command": self.command(name, value), "input": version_of(value)}
        return sha256_json(self._shared | facts)

    def is_done(self, name: str, value: str) -> bool:
        """Whether the products are those of the note, and would be made in the same way again."""
        try:
            note = json.loads((self._notes / f"{name}.json").read_text())
        except (OSError, ValueError):
            return False
        products = self.products(name, value)
        return None not in products.values() and note == {"key": self.key(name, value), "products": products}

    def note(self, name: str, value: str, key: str) -> None:
        """Note that a file is done; `key` is of before, so that an input that changed meanwhile is noticed."""
        content = {"key": key, "products": self.products(name, value)}
        write_text_atomically(self._notes / f"{name}.json", json.dumps(content, sort_keys=True) + "\n")


def run_all(files: Files, items: Sequence[tuple[str, str]]) -> tuple[dict[str, int], int]:
    """Exit code of each file that failed, and the number of files that were done before."""
    failures: dict[str, int] = {}
    n_before = 0
    for name, value in items:
        if files.is_done(name, value):
            n_before += 1
            continue
        key = files.key(name, value)
        argv = files.command(name, value)
        sys.argv = ["lightpool", *argv]  # provenance names the command
        code = run_command(argv)
        if code in _STOPPED:
            raise SystemExit(code)
        if code:
            failures[name] = code
        else:
            files.note(name, value, key)
        gc.collect()
    return failures, n_before


def main() -> int:
    """Command line of this script; the exit code."""
    place = sys.argv.index("--")
    own, command = sys.argv[1:place], sys.argv[place + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--receipt", type=Path, required=True)
    parser.add_argument("--settings", required=True)
    parser.add_argument("--sources", type=Path, nargs="*", default=[])
    parser.add_argument("--shared", type=Path, nargs="*", default=[], help="inputs of all files")
    parser.add_argument("--products", nargs="+", required=True)
    parser.add_argument("--items", nargs="+", required=True, metavar="NAME=VALUE")
    arguments = parser.parse_args(own)
    items = [(name, value) for name, _, value in (item.partition("=") for item in arguments.items)]
    files = Files(arguments, command)
    failures, n_before = run_all(files, items)
    if n_before:
        print(f"{n_before} of {len(items)} files were done before", file=sys.stderr)
    if failures:
        names = ", ".join(list(failures)[:_MAX_NAMES]) + (" ..." if len(failures) > _MAX_NAMES else "")
        print(
            f"error: {len(failures)} of {len(items)} files failed: {names}; the others are done, and stay when the job "
            "is started again",
            file=sys.stderr,
        )
        return next(iter(failures.values()))
    made = {name: files.products(name, value) for name, value in items}
    write_text_atomically(arguments.receipt, json.dumps(made, indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
