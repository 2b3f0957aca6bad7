"""The command line: every command in-process, exit codes, and one line for what a user can mend."""

import json
import subprocess
import sys

import numpy as np
import pytest
import yaml
from astropy.io import fits
from tiny_bundles import camera_bundle, sky_bundle
from toy_events import FIRST_EVENT, toy_camera, write_toy_dl1

from pipeline import __version__, cli
from pipeline.errors import InputFileError, UserError

COMMANDS = [
    ["simulate", "showers"], ["simulate", "sky"], ["ingest"], ["tiles"], ["manifest"], ["train"], ["evaluate"],
    ["predict"], ["report"], ["models", "list"], ["models", "describe"],
    ["models", "explain"], ["models", "compare"], ["bundles", "list"], ["info"],
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
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(command, capsys):
    assert cli.main([*command, "--help"]) == 0
    assert f"lightpool {' '.join(command)} [OPTIONS]" in capsys.readouterr().out


def test_without_arguments_the_help_lists_the_work_in_its_order(capsys):
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    places = [
        text.index(f"\n  {command[0]} ") for command in COMMANDS if command[0] not in ("models", "bundles", "info")
    ]
    assert places == sorted(places)


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
    assert list(record)[:6] == ["file", "obs_id", "event_id", "tel_id", "camera", "valid"]
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
    monkeypatch.setattr(cli, "_columns", lambda: columns)
    fitted = table()
    assert len(fitted) == len(whole)
    assert max(map(len, fitted)) <= columns


def test_shipped_bundles(folder, capsys, monkeypatch):
    assert cli.main(["bundles", "list"]) == 0
    assert "none ships" in capsys.readouterr().out
    monkeypatch.setattr("pipeline.bundle.card.bundles_directory", lambda: folder)
    assert cli.main(["bundles", "list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["denoise", "energy"]


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
        (["ingest", "a", "b", "--out", "o", "--keep-going"], "ingest.ingest", {}),
        (["train", "--task", "energy", "--tiles", "a", "b", "--out", "o", "--resume"], "train.train", {"resume": True}),
        (["evaluate", "--bundle", "energy", "--tiles", "a", "b", "--out", "o"], "evaluate.evaluate", {}),
    ],
)
def test_arguments_reach_the_stage(folder, monkeypatch, argv, stage, expected):
    module, _, function = stage.rpartition(".")
    pytest.importorskip(f"pipeline.stages.{module}")
    calls = []
    monkeypatch.setattr(f"pipeline.stages.{module}.{function}", lambda *args, **kwargs: calls.append((args, kwargs)))
    monkeypatch.chdir(folder)
    argv = [*argv, "--config", "run.yaml", "--threads", "3", "--force"]
    assert cli.main(argv) == 0
    ((args, kwargs),) = calls
    assert kwargs == {"force": True} | expected
    cfg = next(argument for argument in args if hasattr(argument, "threads"))
    assert (cfg.name, cfg.threads) == ("cli", 3)
    if "--tiles" in argv:
        assert [str(path) for path in next(a for a in args if isinstance(a, list))] == ["a", "b"]


def test_device_is_checked(folder, capsys):
    argv = ["train", "--config", folder / "run.yaml", "--task", "energy", "--tiles", "a", "--out", "o"]
    _fails(capsys, [*argv, "--device", "tpu"], "device", "tpu")


def test_report_reaches_its_stage(monkeypatch, tmp_path):
    pytest.importorskip("pipeline.stages.report")
    calls = []
    monkeypatch.setattr("pipeline.stages.report.report", lambda *args, **kwargs: calls.append((args, kwargs)))
    assert cli.main(["report", str(tmp_path), "--out", str(tmp_path / "r.html")]) == 0
    assert calls == [((tmp_path, tmp_path / "r.html"), {"force": False})]


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
        (["predict", "x", "--bundle", "nothing"], ["there is no bundle 'nothing'", "(none)"]),
        (["predict", "x", "--threads", "0", "--bundle", "b"], ["--threads"]),
        (["train", "--config", "nowhere.yaml", "--task", "energy", "--tiles", "a", "--out", "o"], ["nowhere.yaml"]),
        (["info", "nowhere"], ["nowhere", "No such file"]),
        (["simulate", "sky", "--config", "c", "--out", "o", "--run", "x"], ["--run", "integer"]),
    ],
)
def test_usage(capsys, argv, words):
    _fails(capsys, argv, *words)


def test_unknown_key_and_task(folder, tmp_path, capsys, checkout):
    unknown = checkout / "tests" / "conf" / "unknown_key.yaml"
    _fails(capsys, ["tiles", "x", "--config", unknown, "--out", tmp_path], "unknown key")
    argv = ["train", "--config", folder / "run.yaml", "--task", "energie", "--tiles", "a", "--out", tmp_path / "o"]
    _fails(capsys, argv, "unknown task 'energie'", "energy")


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


@pytest.mark.parametrize(("option", "quiet"), [("-q", True), ("-v", False)])
def test_quiet_and_verbose(folder, tmp_path, capsys, option, quiet):
    argv = ["predict", folder / "run.dl1.h5", "--bundle", folder / "energy", "--out", tmp_path / "o.h5", option]
    assert cli.main([str(argument) for argument in argv]) == 0
    assert (capsys.readouterr().err == "") == quiet
