"""Runs of Snakemake that need no start of their own: each is a fork of one process that has imported everything.

A start takes ten times the CPU of a plan. Each fork has the memory of a Snakemake that has made one plan, and leaves
nothing behind; the code of the checkout that the first plan was made with is imported, too.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

# Reads one request per line: arguments, and where the text goes. The first is made in the process itself.
_SERVER = """
import json, os, sys
from snakemake.cli import main

def run(arguments, path):
    stream = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    os.close(stream)
    try:
        main(arguments)
    except SystemExit as end:
        sys.stdout.flush()
        return end.code if isinstance(end.code, int) else int(end.code is not None)

answers = os.fdopen(os.dup(1), "w", buffering=1)
run(*json.loads(sys.stdin.readline()))
print(0, file=answers)
for line in sys.stdin:
    child = os.fork()
    if not child:
        code = 70
        try:
            code = run(*json.loads(line))
        finally:
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers)
"""


class Finished(NamedTuple):
    """As `subprocess.run` gives it, with both streams as one text."""

    returncode: int
    stdout: str


class SnakemakeForks:
    """A process that forks for each run.

    Parameters
    ----------
    folder : path
        For texts and Snakemake's cache.
    environment : mapping
        Of all runs.
    first : sequence of str
        Arguments of a run that imports what the others need.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], first: Sequence[str]) -> None:
        self._text = folder / "said.txt"
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            env=os.environ | dict(environment) | {"XDG_CACHE_HOME": str(folder / "cache")},
        )  # fmt: skip
        warmed = self.run(first)
        if "This was a dry-run" not in warmed.stdout:
            raise RuntimeError(f"the first plan failed:\n{warmed.stdout}")

    def run(self, arguments: Sequence[str]) -> Finished:
        """One run, when the one before has ended."""
        streams = self._process.stdin, self._process.stdout
        assert streams[0] is not None
        assert streams[1] is not None
        print(json.dumps([list(map(str, arguments)), str(self._text)]), file=streams[0], flush=True)
        answer = streams[1].readline()
        if not answer:
            raise RuntimeError(f"Snakemake's process ended:\n{self._text.read_text()}")
        return Finished(int(answer), self._text.read_text())

    def end(self) -> None:
        """No more runs."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        assert self._process.stdout is not None
        self._process.stdout.close()
