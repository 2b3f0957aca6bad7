"""The command line: every command in-process, exit codes, and one line for what a user can mend."""

import contextlib
import json
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import typer
import yaml
from astropy.io import fits
from tiny_bundles import camera_bundle, sky_bundle
from toy_events import FIRST_EVENT, toy_camera, write_toy_dl1

from pipeline import __version__, cli, text_tables
from pipeline.bundle.card import README_FILE
from pipeline.config import Config
from pipeline.errors import InputFileError, UserError
from pipeline.files import atomic_output
from pipeline.logs import get_logger

COMMANDS = [
    ["simulate", "showers"], ["simulate", "sky"], ["simulate", "images"], ["ingest"], ["tiles"], ["manifest"],
    ["train"], ["evaluate"], ["irf"],
    ["predict"], ["view"], ["stack"], ["explain"], ["report"], ["compare"], ["validate", "showers"], ["models", "list"],
    ["models", "describe"], ["bundles", "list"], ["bundles", "show"], ["info"], ["doctor"],
    ["completion"],
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("cli")
    camera_bundle(root / "energy", "energy", toy_camera().identity)
    sky_bundle(root / "denoise")
    write_toy_dl1(root / "run.dl1.h5")
    pixels = np.random.default_rng(1).normal(200, 15, (64, 70)).astype(np.float32)
    fits.PrimaryHDU(pixels, fits.Header({"BUNIT": "electron"})).writeto(root / "frame.fits")
    (root / "broken.h5").write_bytes(b"\x89HDF\r\n\x1a\n and no more")
    (root / "run.yaml").write_text(yaml.safe_dump({"name": "cli", "threads": 1, "tiles": {"camera": {"size": 32}}}))
    return root


def _fails(capsys, argv, *words):
    """The command exits 2 and says why in one line on stderr, nothing on stdout."""
    assert cli.main([str(argument) for argument in argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line


# ---- help ------------------------------------------------------------------------------------------------------------
def _leaves(command, path=()):
    """Every command that is no group: its words and the command itself."""
    if not hasattr(command, "commands"):
        return [(list(path), command)]
    return [leaf for name, child in command.commands.items() for leaf in _leaves(child, (*path, name))]


LEAVES = _leaves(typer.main.get_command(cli.app))


def test_the_commands_are_those_of_the_contract():
    assert sorted(path for path, _ in LEAVES) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(command, capsys):
    assert cli.main([*command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"lightpool {' '.join(command)} [OPTIONS]" in text
    assert "--quiet" in text
    assert "--verbose" in text


@pytest.mark.parametrize(
    ("path", "command"), LEAVES, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_the_example_in_the_help_is_accepted(path, command):
    (line,) = command.epilog.removeprefix("\b\n").splitlines()
    words = shlex.split(line.removeprefix("Example: "))
    assert words[: len(path) + 1] == ["lightpool", *path]
    command.make_context("example", words[len(path) + 1 :])


@pytest.mark.parametrize(
    ("option", "commands"),
    [
        ("device", ["evaluate", "train"]),
        ("threads", ["evaluate", "explain", "irf", "predict", "stack", "train", "view"]),
        ("jobs", ["ingest", "irf", "predict", "simulate showers", "validate showers"]),
    ],
)
def test_options_are_only_where_they_have_an_effect(option, commands):
    having = [" ".join(path) for path, command in LEAVES if option in {p.name for p in command.params}]
    assert sorted(having) == commands


def test_without_arguments_the_help_lists_the_work_in_its_order(capsys):
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    places = [text.index(f"\n  {command[0]} ") for command in COMMANDS]
    assert places == sorted(places)
    assert "..." not in text.partition("Commands:")[2]  # no description is cut


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"lightpool {__version__}\n"


def test_help_loads_little():
    code = """
import sys
from pipeline.cli import main
slow = {"numpy", "torch", "ctapipe", "rich", "h5py", "astropy", "yaml", "numba"}
assert main(["--help"]) == 0
assert not (slow | {"pydantic"}) & set(sys.modules), sys.modules
assert main(["predict", "--help"]) == 0  # typer itself has options checked by pydantic
assert not slow & set(sys.modules), sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ---- the commands ----------------------------------------------------------------------------------------------------
def test_predict_json_and_nothing_else(folder, capsys):
    argv = [
        "predict",
        folder / "run.dl1.h5",
        "--bundle",
        folder / "energy",
        "--event",
        FIRST_EVENT + 1,
        "--telescope",
        1,
    ]
    assert cli.main([*map(str, argv), "--json"]) == 0
    captured = capsys.readouterr()
    (record,) = map(json.loads, captured.out.splitlines())
    assert list(record)[:7] == ["file", "obs_id", "event_id", "tel_id", "event_type", "camera", "valid"]
    assert captured.err == ""


def test_predict_several_files_into_a_directory(folder, tmp_path, capsys):
    argv = [
        "predict", folder / "run.dl1.h5", folder / "broken.h5", folder / "frame.fits",
        "--bundle", folder / "energy", "--bundle", folder / "denoise", "--out", tmp_path / "out", "--threads", 1,
    ]  # fmt: skip
    argv = [str(argument) for argument in argv]
    assert cli.main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "broken.h5" in captured.err
    assert "Traceback" not in captured.err
    assert (tmp_path / "out" / "run.dl2.h5").exists()
    assert (tmp_path / "out" / "frame.fits").exists()
    assert cli.main([*argv, "--force", "--keep-going"]) == 0
    status = json.loads((tmp_path / "out" / "status.json").read_text())
    assert {name: entry["status"] for name, entry in status.items()} == {
        "run.dl1.h5": "ok", "broken.h5": "failed", "frame.fits": "ok",
    }  # fmt: skip


def test_predict_reads_the_configuration(folder, tmp_path, capsys):
    config = tmp_path / "sky.yaml"
    config.write_text(yaml.safe_dump({"ingest": {"sky": {"science_hdu": 5}}}))
    _fails(
        capsys,
        ["predict", folder / "frame.fits", "--bundle", folder / "denoise", "--config", config],
        "has no image HDU 5",
    )


def test_the_colours_of_a_raw_frame_can_be_said(folder, tmp_path, capsys):
    argv = ["predict", folder / "frame.fits", "--bundle", folder / "denoise"]
    _fails(capsys, [*argv, "--bayer", "RGB"], "bayer")
    out = tmp_path / "out.fits"
    assert cli.main([str(argument) for argument in [*argv, "--bayer", "RGGB", "--out", out]]) == 0
    assert "colour mosaic (given as RGGB): each of its four kinds of pixels" in capsys.readouterr().err


def test_tiles_and_manifest(folder, tmp_path, capsys):
    pytest.importorskip("pipeline.stages.tiles")
    config = tmp_path / "run.yaml"
    cuts = {"size_min_pe": 20.0, "n_pixels_min": 3, "leakage_max": 1.0}
    config.write_text(yaml.safe_dump({"tiles": {"camera": {"size": 32, "cuts": cuts}}}))
    argv = ["tiles", folder / "run.dl1.h5", "--config", config, "--out", tmp_path / "tiles"]
    assert cli.main([str(argument) for argument in argv]) == 0
    shard = tmp_path / "tiles" / "run.tiles.h5"
    assert shard.exists()
    assert cli.main(["manifest", str(shard), "--out", str(tmp_path / "m.json"), "--config", str(config)]) == 0
    capsys.readouterr()
    assert cli.main(["info", str(tmp_path / "m.json")]) == 0
    assert "manifest of tiles (camera)" in capsys.readouterr().out


def test_sky_from_simulation_to_prediction(folder, tmp_path, tiny_config_path, capsys):
    def run(*argv):
        assert cli.main([str(argument) for argument in argv]) == 0, capsys.readouterr().err

    config, raw = ("--config", tiny_config_path), tmp_path / "sky_run_0001.fits"
    run("simulate", "sky", *config, "--out", raw, "--run", 1)
    assert (tmp_path / "sky_run_0001.truth.fits").exists()
    run("ingest", raw, *config, "--out", tmp_path / "ingested")
    run("tiles", tmp_path / "ingested" / raw.name, *config, "--out", tmp_path / "tiles")
    run("info", tmp_path / "tiles" / "sky_run_0001.tiles.h5")
    assert "tile shard (sky)" in capsys.readouterr().out
    run("predict", tmp_path / "ingested" / raw.name, "--bundle", folder / "denoise", "--out", tmp_path / "out.fits")
    with fits.open(tmp_path / "out.fits") as hdus:
        assert {hdu.name for hdu in hdus} >= {"SCI", "ERR", "DQ"}


def test_info(folder, capsys):
    assert cli.main(["info", str(folder / "run.dl1.h5")]) == 0
    assert "ctapipe DL1" in capsys.readouterr().out
    _fails(capsys, ["info", folder / "broken.h5"], "as HDF5")


def test_architectures(capsys):
    assert cli.main(["models", "list"]) == 0
    assert "resnet18 " in capsys.readouterr().out
    assert cli.main(["models", "describe", "lenet5_modern", "--tile", "32", "--in-chans", "3"]) == 0
    text = capsys.readouterr().out
    assert "3 x 32 x 32" in text
    heading, first, second = (line.split() for line in text.splitlines()[1:4])
    assert heading == ["layer", "kind", "output", "parameters", "Mflop", "sees", "[px]", "step", "[px]"]
    assert first == ["c1", "Conv2d", "6x28x28", "456", "0.71", "5", "1"]
    assert second[0] == "s2"  # the activation between them changes nothing that the table tells
    _fails(capsys, ["models", "describe", "resnet19"], "unknown model 'resnet19'", "resnet18")
    _fails(capsys, ["models", "describe", "lenet5", "--tile", "8"], "8")


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("command", [["list"], ["describe", "inception_v3", "--tile", "112"]])
def test_tables_of_architectures_fit_the_terminal(columns, command, capsys, monkeypatch):
    def table():
        assert cli.main(["models", *command]) == 0
        return capsys.readouterr().out.splitlines()[1:]

    whole = table()
    assert "…" not in "".join(whole)  # nothing is cut for another program
    monkeypatch.setattr(text_tables, "terminal_columns", lambda: columns)
    fitted = table()
    assert len(fitted) == len(whole)
    assert max(map(len, fitted)) <= columns


def test_shipped_bundles(folder, tmp_path, capsys, monkeypatch):
    shutil.copytree(folder / "denoise", tmp_path / "shelf" / "denoise")
    shutil.copytree(folder / "energy", tmp_path / "shelf" / "energy")
    (tmp_path / "shelf" / "denoise" / "notes").write_bytes(bytes(1_999_000))
    monkeypatch.setattr("pipeline.bundle.card.bundles_directory", lambda: tmp_path / "shelf")
    assert cli.main(["bundles", "list"]) == 0
    lines = [re.split(" {2,}", line) for line in capsys.readouterr().out.splitlines()]
    assert [line[:5] for line in lines] == [
        ["name", "for", "tasks", "network", "size [MB]"],
        ["denoise", "FITS frames", "denoise", "by_hand", "2.00"],
        ["energy", "Toy, one telescope", "energy", "by_hand", "0.00"],
    ]
    monkeypatch.setattr("pipeline.bundle.card.bundles_directory", lambda: tmp_path)
    assert cli.main(["bundles", "list"]) == 0
    assert "no trained model ships" in capsys.readouterr().out


def test_model_card(folder, capsys, monkeypatch):
    (folder / "energy" / README_FILE).write_text("# Energies\n\nFor images of one telescope.\n")
    assert cli.main(["bundles", "show", str(folder / "energy")]) == 0
    assert capsys.readouterr().out == "# Energies\n\nFor images of one telescope.\n"
    monkeypatch.setattr("pipeline.bundle.card.bundles_directory", lambda: folder)
    assert cli.main(["bundles", "show", "energy"]) == 0
    assert capsys.readouterr().out.startswith("# Energies")
    _fails(capsys, ["bundles", "show", folder], "has no readable MODEL_CARD.md", "lightpool bundles list")
    _fails(capsys, ["bundles", "show", "energie"], "there is no bundle 'energie'", "denoise, energy")


# ---- arguments reach the stage, and its answer the exit code ---------------------------------------------------------
@pytest.mark.parametrize(
    ("argv", "stage", "expected"),
    [
        (
            ["simulate", "showers", "--out", "o.h5", "--run", "3"],
            "simulate_showers.simulate_showers",
            {"seed": None, "jobs": 1},
        ),
        (
            ["simulate", "showers", "--out", "o.h5", "--run", "3", "--jobs", "4"],
            "simulate_showers.simulate_showers",
            {"seed": None, "jobs": 4},
        ),
        (["simulate", "sky", "--out", "o.fits", "--run", "3", "--seed", "5"], "simulate_sky.simulate_sky", {"seed": 5}),
        (["ingest", "a", "b", "--out", "o", "--keep-going", "--jobs", "2"], "ingest.ingest", {"jobs": 2}),
        (["train", "a", "b", "--network", "energy", "--out", "o", "--resume"], "train.train", {"resume": True}),
        (["evaluate", "a", "b", "--bundle", "energy", "--out", "o"], "evaluate.evaluate", {}),
        (["irf", "a", "b", "--out", "o", "--jobs", "2"], "irf.irf", {"bundles": None, "tiles": (), "jobs": 2}),
        (
            ["irf", "--out", "o", "--bundles", "here", "--tiles", "one.json", "--tiles", "two.json"],
            "irf_runs.irf_from_runs",
            {"bundles": Path("here"), "tiles": [Path("one.json"), Path("two.json")], "jobs": 1},
        ),
        (
            ["explain", "a", "--bundle", "energy", "--event", "7", "--show", "features"],
            "explain.explain",
            {"event": 7, "telescope": None, "head": None, "out": None, "show": "features"},
        ),
    ],
)
def test_arguments_reach_the_stage(folder, monkeypatch, argv, stage, expected):
    module, _, function = stage.rpartition(".")
    pytest.importorskip(f"pipeline.stages.{module}")
    calls = []
    monkeypatch.setattr(f"pipeline.stages.{module}.{function}", lambda *args, **kwargs: calls.append((args, kwargs)))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(Config, "network", lambda cfg, name: None, raising=False)
    threads = ["--threads", "3"] if argv[0] in ("train", "evaluate", "explain") else []
    assert cli.main([*argv, "--config", "run.yaml", "--force", *threads]) == 0
    ((args, kwargs),) = calls
    assert kwargs == {"force": True} | expected
    cfg = next(argument for argument in args if isinstance(argument, Config))
    assert (cfg.name, cfg.threads) == ("cli", 3 if threads else 1)
    if "b" in argv:
        assert [str(path) for path in next(a for a in args if isinstance(a, list))] == ["a", "b"]


def test_device_is_checked(folder, capsys):
    argv = ["train", "a", "--config", folder / "run.yaml", "--network", "energy", "--out", "o"]
    _fails(capsys, [*argv, "--device", "tpu"], "device", "tpu")


@pytest.mark.parametrize("stage", ["report", "compare"])
def test_pages_reach_their_stage(monkeypatch, tmp_path, stage):
    calls = []
    monkeypatch.setattr(f"pipeline.stages.{stage}.{stage}", lambda *args, **kwargs: calls.append((args, kwargs)))
    assert cli.main([stage, str(tmp_path), "--out", str(tmp_path / "r.html")]) == 0
    assert calls == [((tmp_path, tmp_path / "r.html"), {"force": False})]


def test_threads_limit_the_numerical_libraries(folder, monkeypatch):
    monkeypatch.setattr("pipeline.stages.predict.predict", lambda *args, **kwargs: [])
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert cli.main(["predict", "a", "--bundle", "b"]) == 0
    assert os.environ["OMP_NUM_THREADS"] == "5"
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        monkeypatch.setenv(name, "5")
    assert cli.main(["predict", "a", "--bundle", "b", "--threads", "2"]) == 0
    assert os.environ["OMP_NUM_THREADS"] == os.environ["NUMBA_NUM_THREADS"] == "2"


@pytest.mark.parametrize(("keep_going", "code"), [([], 2), (["--keep-going"], 0)])
def test_a_failed_input_decides_the_exit_code(folder, monkeypatch, keep_going, code):
    pytest.importorskip("pipeline.stages.ingest")
    statuses = [{"file": "a", "status": "ok"}, {"file": "b", "status": "failed", "reason": "bad"}]
    monkeypatch.setattr("pipeline.stages.ingest.ingest", lambda *args, **kwargs: statuses)
    assert cli.main(["ingest", "a", "b", "--out", "o", *keep_going]) == code


# ---- what goes wrong -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["simulate"], ["Missing command", "lightpool simulate --help"]),
        (["no-such"], ["No such command 'no-such'"]),
        (["predict"], ["Missing argument 'FILE'"]),
        (["predict", "x", "--bundle"], ["--bundle", "argument"]),
        (["predict", "x", "--bundle", "nothing"], ["there is no bundle 'nothing'", "(lst-mono, "]),
        (["predict", "x", "--threads", "0", "--bundle", "b"], ["--threads"]),
        (["train", "a", "--config", "nowhere.yaml", "--network", "energy", "--out", "o"], ["nowhere.yaml"]),
        (["train", "--config", "c.yaml", "--network", "energy", "--out", "o"], ["Missing argument 'MANIFEST'"]),
        (["evaluate", "a", "--out", "o"], ["Missing option '--bundle'", "lightpool evaluate --help"]),
        (["explain", "a", "--bundle", "b"], ["Missing option '--event'"]),
        (["bundles", "show"], ["Missing argument 'NAME'"]),
        (["info", "nowhere"], ["nowhere", "does not exist"]),
        (["simulate", "sky", "--config", "c", "--out", "o", "--run", "x"], ["--run", "integer"]),
    ],
)
def test_usage(capsys, argv, words):
    _fails(capsys, argv, *words)


def test_unknown_key(tmp_path, capsys, checkout):
    unknown = checkout / "tests" / "conf" / "unknown_key.yaml"
    _fails(capsys, ["tiles", "x", "--config", unknown, "--out", tmp_path], "unknown key")


def test_an_unknown_network_is_answered_without_torch(folder):
    code = f"""
import sys
from pipeline.cli import main
from pipeline.config import Config
from pipeline.errors import UserError

def network(self, name):
    raise UserError(f"no network {{name!r}}")

Config.network = network
code = main(["train", "a", "--config", {str(folder / "run.yaml")!r}, "--network", "energie", "--out", "o"])
assert "torch" not in sys.modules
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "error: no network 'energie'\n")


def test_an_output_in_the_way(folder, capsys):
    argv = ["predict", folder / "run.dl1.h5", "--bundle", folder / "energy", "--out", folder / "broken.h5"]
    _fails(capsys, argv, "broken.h5 exists", "--force")


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UserError("two\nlines"), 2, "error: two lines\n"),
        (InputFileError("file x"), 2, "error: file x\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (RuntimeError("a fault of ours"), 1, "Traceback"),
        (BrokenPipeError(), 141, ""),
    ],
)
def test_exit_codes(monkeypatch, capsys, error, code, text):
    def fail(path):
        raise error

    monkeypatch.setattr("pipeline.stages.info.describe_file", fail)
    assert cli.main(["info", "x"]) == code
    assert capsys.readouterr().err.startswith(text)


def test_a_reader_that_goes_away(folder):
    code = f"""
import sys
from pipeline.cli import main
sys.exit(main(["predict", {str(folder / "run.dl1.h5")!r}, "--bundle", {str(folder / "energy")!r}, "--json"]))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=60), error) == (141, b"")


@pytest.mark.parametrize(("option", "logged"), [("-q", []), (None, ["wrote 7"]), ("-v", ["wrote 7", "debug: in 3 s"])])
def test_quiet_and_verbose(monkeypatch, capsys, option, logged):
    def stage(path):
        log = get_logger("pipeline.stages.info")
        log.info("wrote %d", 7)
        log.debug("in 3 s")
        logging.getLogger("numba").info("details of a library")
        return []

    monkeypatch.setattr("pipeline.stages.info.describe_file", stage)
    levels = [logging.getLogger(name).level for name in ("", "lightpool")]
    assert cli.main(["info", "x", *([option] if option else [])]) == 0
    assert capsys.readouterr().err.splitlines() == logged
    assert [logging.getLogger(name).level for name in ("", "lightpool")] == levels


# ---- what reaches the screen -----------------------------------------------------------------------------------------
@pytest.fixture
def running(monkeypatch, capsys):
    """Run `lightpool info` with this function in place of the stage; returns exit code, stdout and stderr."""

    def run(stage, *options):
        monkeypatch.setattr("pipeline.stages.info.describe_file", stage)
        code = cli.main(["info", "x", *options])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_control_characters_do_not_reach_the_terminal(running):
    name = "a\x1b[31m\n\udcff.h5"
    shown = r"a\x1b[31m\n\xff.h5"
    logged = name.replace("\udcff", "")  # what is captured of logs cannot hold it

    def describe(path):
        get_logger("pipeline.stages.info").warning("%s: odd", logged)
        return [name]

    def refuse(path):
        raise InputFileError(f"{name} is damaged")

    def fail(path):
        raise RuntimeError(name)

    assert running(describe) == (0, f"{shown}\n", "warning: a\\x1b[31m\\n.h5: odd\n")
    assert running(refuse) == (2, "", "error: a\\x1b[31m \\xff.h5 is damaged\n")
    code, _, error = running(fail)
    assert code == 1
    assert "\x1b" not in error


class Dying:
    def __del__(self):
        raise ValueError("of no interest")


@pytest.fixture
def chatty():
    """A library that logs by a handler of its own, logs by that of the program, and warns."""
    logger = logging.getLogger("chatty")

    def speak(path):
        logger.addHandler(logging.StreamHandler())
        logger.setLevel(logging.INFO)
        logger.warning("of no interest")
        logging.getLogger("silent").warning("of no interest")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("of no interest", stacklevel=1)
        Dying()
        get_logger("pipeline.stages.info").warning("of interest")
        return []

    yield speak
    logger.handlers.clear()


def test_libraries_are_heard_with_verbose_only(running, chatty):
    assert running(chatty) == (0, "", "warning: of interest\n")
    assert running(chatty, "-q") == (0, "", "")
    code, _, error = running(chatty, "-v")
    assert code == 0
    assert error.count("of no interest") >= 5
    assert logging.root.manager.disable == logging.NOTSET


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGTERM, 143, "terminated"), (signal.SIGHUP, 129, "terminated"), (signal.SIGINT, 130, "interrupted")],
)
def test_a_signal_ends_the_program_and_removes_what_is_half_made(running, tmp_path, number, code, said):
    def stage(path):
        with atomic_output(tmp_path / "new" / "table.csv") as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), number)
            time.sleep(60)

    assert running(stage) == (code, "", f"{said}\n")
    assert list(tmp_path.iterdir()) == []
    usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    assert signal.getsignal(number) is usual


def test_a_signal_that_gets_lost_ends_the_program_all_the_same(running, tmp_path):
    def swallow(path):
        with contextlib.suppress(SystemExit):
            os.kill(os.getpid(), signal.SIGTERM)

    def damaged(path):
        swallow(path)
        raise SystemError("returned a result with an exception set")  # as numba does

    def seemingly_whole(path):
        with atomic_output(tmp_path / "table.csv") as temporary:
            swallow(path)
            temporary.write_text("half")

    for stage in (damaged, seemingly_whole):
        assert running(stage) == (143, "", "terminated\n")
    assert list(tmp_path.iterdir()) == []


def test_a_signal_that_is_ignored_stays_so(running, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as by nohup
    try:
        assert running(lambda path: os.kill(os.getpid(), signal.SIGHUP) or ["done"]) == (0, "done\n", "")
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_under_the_output(folder):
    code = f"""
import sys
from pipeline.cli import main
sys.exit(main(["predict", {str(folder / "run.dl1.h5")!r}, "--bundle", {str(folder / "energy")!r}, "--json"]))
"""
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "error: cannot write the output: no space left on device\n")
