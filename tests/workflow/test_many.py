"""workflow/scripts/many.py: many files in one process, and only where it has not been done."""

import importlib.util
import json
import os
import sys
from types import SimpleNamespace

import pytest


@pytest.fixture
def many(checkout):
    spec = importlib.util.spec_from_file_location("many", checkout / "workflow" / "scripts" / "many.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def batch(many, tmp_path, monkeypatch):
    """Run the script on three files with a command that copies them; returns its exit code and the files it copied."""
    for name in "abc":
        (tmp_path / f"{name}.in").write_text(name)
    source = tmp_path / "stage.py"
    source.write_text("one")
    calls = []
    codes = {}

    def command(argv):
        calls.append(argv[1])
        if code := codes.get(argv[1]):
            return code
        (tmp_path / f"{argv[1]}.out").write_text(argv[2])
        return 0

    monkeypatch.setattr(many, "run_command", command)
    # Between two files, garbage is let go of: here there is none, and the modules of all tests to look through.
    monkeypatch.setattr(many, "gc", SimpleNamespace(collect=int))

    def run(names="abc", settings="1"):
        calls.clear()
        receipt = tmp_path / "jobs" / "copy" / "from_a.json"
        receipt.unlink(missing_ok=True)  # as Snakemake does
        argv = ["--receipt", receipt, "--settings", settings, "--sources", source]
        argv += ["--items", *(f"{name}={tmp_path}/{name}.in" for name in names)]
        argv += ["--products", f"{tmp_path}/{{name}}.out", "--", "copy", "{name}", "{value}"]
        monkeypatch.setattr(sys, "argv", ["many.py", *map(str, argv)])
        try:
            code = many.main()
        except SystemExit as end:
            code = end.code
        return code, list(calls)

    run.codes, run.folder, run.receipt = codes, tmp_path, tmp_path / "jobs" / "copy" / "from_a.json"
    return run


def test_all_files_are_done_once(batch):
    assert batch() == (0, ["a", "b", "c"])
    first = json.loads(batch.receipt.read_text())
    assert {name: list(made) for name, made in first.items()} == {
        name: [f"{batch.folder}/{name}.out"] for name in "abc"
    }
    assert batch() == (0, [])
    assert json.loads(batch.receipt.read_text()) == first  # so that nothing that follows runs again


def test_a_file_that_is_added_is_the_only_one_done(batch):
    batch("ab")
    assert batch("abc") == (0, ["c"])


def test_a_file_that_fails_does_not_stop_the_others_and_is_tried_again(batch, capsys):
    batch.codes["b"] = 2
    assert batch() == (2, ["a", "b", "c"])
    assert not batch.receipt.exists()
    assert "error: 1 of 3 files failed: b; the others are done, and stay" in capsys.readouterr().err
    batch.codes.clear()
    assert batch() == (0, ["b"])
    assert "2 of 3 files were done before" in capsys.readouterr().err


def test_a_job_that_is_told_to_end_ends_and_goes_on_later(batch):
    batch.codes["b"] = 143
    assert batch() == (143, ["a", "b"])
    assert not batch.receipt.exists()
    batch.codes.clear()
    assert batch() == (0, ["b", "c"])


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (lambda folder: (folder / "b.out").unlink(), ["b"]),
        (lambda folder: (folder / "b.out").write_text("something else"), ["b"]),
        (lambda folder: (folder / "c.in").write_text("another input"), ["c"]),
        (lambda folder: os.utime(folder / "c.in", ns=(0, 0)), ["c"]),
        (lambda folder: (folder / "stage.py").write_text("two"), ["a", "b", "c"]),
        (lambda folder: os.utime(folder / "stage.py", ns=(0, 0)), []),  # the same text
        (lambda folder: (folder / "jobs" / "copy" / "done" / "a.json").write_text("{"), ["a"]),
    ],
)
def test_what_changed_is_done_again(batch, change, again):
    batch()
    change(batch.folder)
    assert batch() == (0, again)


def test_other_settings_make_everything_anew(batch):
    batch()
    assert batch(settings="2") == (0, ["a", "b", "c"])
