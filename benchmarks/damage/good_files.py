"""Small good files of every kind that a command reads, and the commands that read each kind."""

import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from astropy.io import fits

from pipeline import cli
from pipeline.config import load_config

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT / "tests" / "support"), str(CHECKOUT / "tests" / "camera")]

from synthetic_tiles import camera_batch, write_tiles  # noqa: E402
from test_lstchain import write_lstchain  # noqa: E402
from tiny_bundles import camera_bundle, sky_bundle  # noqa: E402
from toy_events import toy_camera, write_toy_dl1  # noqa: E402

EXPERIMENT = """\
name: damage
seed: 3
threads: 1
device: cpu
evaluate: {bootstrap: 50, forest_trees: 10}
tiles:
  camera: {size: 32, cuts: {n_pixels_min: 3, leakage_max: 1.0}}
  weighting: {energy_bins: 3, offset_bins: 2, size_bins: 3}
"""


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    Attributes
    ----------
    file : Path
        A good one: a file, or a folder of which one file at a time is damaged.
    commands : tuple of list of str
        ``FILE`` stands for the damaged copy, ``OUT`` for a fresh folder. They run one after the other; a later one may
        read what an earlier one made.
    structure : str
        How its content can be damaged besides its bytes: "hdf5", "fits", "json", "yaml" or "".
    checked : bool
        Whether a checksum covers every byte, so that no value may differ without a complaint.
    """

    file: Path
    commands: tuple[list[str], ...]
    structure: str = ""
    checked: bool = False
    beside: tuple[Path, ...] = field(default=())


def make(folder: Path) -> dict[str, Kind]:
    """Write the good files into `folder`."""
    (folder / "experiment.yaml").write_text(EXPERIMENT)
    bundles = {"energy": folder / "energy", "gammaness": folder / "gammaness", "sky": folder / "sky"}
    identity = toy_camera().identity
    for task in ("energy", "gammaness"):
        camera_bundle(bundles[task], task, identity)
    sky_bundle(bundles["sky"])
    kinds = _sky(folder, bundles) | _camera(folder, bundles) | _own(folder, bundles, identity)
    return kinds | _real(bundles)


def _sky(folder: Path, bundles: dict[str, Path]) -> dict[str, Kind]:
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:96, :80]
    electrons = np.full((96, 80), 300.0)
    for _ in range(12):
        y0, x0 = rng.uniform(5, 75, 2)
        electrons += 10 ** rng.uniform(2, 4) * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / 5)
    counts = np.clip(rng.normal(electrons / 1.5 + 1000, np.sqrt(electrons) / 1.5 + 4), 0, 65535).astype(np.uint16)
    header = fits.Header({"GAIN": 1.5, "RDNOISE": 6.0, "BIASLVL": 1000.0, "BUNIT": "adu", "EXPTIME": 30.0})
    header.update({"OBJECT": "toy", "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 20.0})
    header.update({"CRPIX1": 40.0, "CRPIX2": 48.0, "CDELT1": -1e-4, "CDELT2": 1e-4})
    primary = fits.PrimaryHDU(counts, header)
    commands = (
        ["info", "FILE"],
        ["ingest", "FILE", "--out", "OUT/ingested"],
        ["predict", "FILE", "--bundle", str(bundles["sky"]), "--out", "OUT/restored.fits"],
    )
    names = {"fits": "f.fits", "fits.gz": "f.fits.gz", "fits.bz2": "f.fits.bz2"}
    for name in names.values():
        primary.writeto(folder / name)
    primary.writeto(folder / "sums.fits", checksum=True)
    science = fits.ImageHDU(counts.astype(np.float32), header, name="SCI")
    mask = fits.ImageHDU(np.zeros(counts.shape, np.uint8), name="DQ")
    fits.HDUList([fits.PrimaryHDU(), science, mask]).writeto(folder / "mef.fits")
    packed = fits.CompImageHDU(counts.astype(np.int32), header, compression_type="RICE_1")
    fits.HDUList([fits.PrimaryHDU(), packed]).writeto(folder / "f.fits.fz")
    kinds = {kind: Kind(folder / name, commands, "fits" if kind == "fits" else "") for kind, name in names.items()}
    kinds |= {
        "fits sums": Kind(folder / "sums.fits", commands, checked=True),
        "fits mef": Kind(folder / "mef.fits", commands, "fits"),
        "fits.fz": Kind(folder / "f.fits.fz", commands, "fits"),
    }
    _run("ingest", folder / "f.fits", "--out", folder / "calibrated")
    frame = (
        ["info", "FILE"],
        ["predict", "FILE", "--bundle", str(bundles["sky"]), "--out", "OUT/restored.fits"],
    )
    return kinds | {"frame": Kind(folder / "calibrated" / "f.fits", frame, "fits", checked=True)}


def _camera(folder: Path, bundles: dict[str, Path]) -> dict[str, Kind]:
    write_toy_dl1(folder / "run.dl1.h5", n_events=60)
    write_lstchain(folder / "lst.h5", simulated=True)
    experiment = str(folder / "experiment.yaml")
    energy = ["--bundle", str(bundles["energy"])]
    both = [*energy, "--bundle", str(bundles["gammaness"])]
    _run("predict", folder / "run.dl1.h5", *both, "--out", folder / "run.dl2.h5")
    events = (
        ["info", "FILE"],
        ["tiles", "FILE", "--config", experiment, "--out", "OUT/tiles"],
        ["predict", "FILE", *both, "--out", "OUT/run.dl2.h5"],
        ["predict", "FILE", *energy, "--event", "105", "--json"],
    )
    convert = (["info", "FILE"], ["ingest", "FILE", "--out", "OUT/ingested"])
    return {
        "dl1": Kind(folder / "run.dl1.h5", events, "hdf5"),
        "dl2": Kind(folder / "run.dl2.h5", events[:1], "hdf5"),
        "lstchain": Kind(folder / "lst.h5", convert, "hdf5"),
    }


def _own(folder: Path, bundles: dict[str, Path], identity: str) -> dict[str, Kind]:
    experiment = str(folder / "experiment.yaml")
    sets = folder / "sets"
    sets.mkdir()
    _images(sets, identity)
    bundle = ["--bundle", str(bundles["gammaness"])]
    judge = ["evaluate", "OUT/m.json", *bundle, "--config", experiment, "--out", "OUT/evaluation"]
    run = _results(folder, bundles, sets)
    one = ["predict", str(folder / "run.dl1.h5"), "--bundle", "FILE", "--event", "105", "--json"]
    shard = ["manifest", "FILE", "--config", experiment, "--out", "OUT/m.json", "--shards-outside"]
    judge_outside = [*judge, "--shards-outside"]
    return {
        "shard": Kind(sets / "run.tiles.h5", (["info", "FILE"], shard, judge_outside), "hdf5", checked=True),
        "shard of a manifest": Kind(sets, (["evaluate", "FILE/m.json", *judge[2:]],), checked=True),
        "manifest": Kind(
            sets / "m.json",
            (["info", "FILE"], ["evaluate", "FILE", *judge[2:]]),
            "json",
            beside=(sets / "run.tiles.h5",),
        ),
        "bundle": Kind(bundles["energy"], (["info", "FILE"], one), "json"),
        "yaml": Kind(
            folder / "experiment.yaml",
            (["manifest", str(sets / "run.tiles.h5"), "--config", "FILE", "--out", "OUT/m.json", "--shards-outside"],),
            "yaml",
        ),
        "run": Kind(run, (["report", "FILE", "--out", "OUT/report.html"],), "json"),
    }


def _images(sets: Path, identity: str) -> None:
    from pipeline.camera.baselines import FOREST_COLUMNS

    batch, rng = camera_batch(400, size=32), np.random.default_rng(1)
    batch.events |= {name: rng.uniform(0, 1, 400) for name in FOREST_COLUMNS if name not in batch.events}
    made = write_tiles(sets, batch)
    text = made.path.read_text()
    made.path.rename(sets / "first.json")
    # The hand-made bundles serve the toy camera; write_tiles names another one.
    import h5py

    shard = sets / made.shards[0].path
    with h5py.File(shard, "a") as file:
        file.attrs["attributes"] = file.attrs["attributes"].replace(made.cameras[0], identity)
    (sets / "first.json").unlink()
    assert identity not in text
    _run("manifest", shard, "--config", sets.parent / "experiment.yaml", "--out", sets / "m.json")


def _results(folder: Path, bundles: dict[str, Path], sets: Path) -> Path:
    """The folder of a run, with a product of every stage in it."""
    run = folder / "results"
    (run / "tiles").mkdir(parents=True)
    (run / "bundles").mkdir()
    shutil.copy(sets / "m.json", run / "tiles" / "camera.manifest.json")
    shutil.copytree(bundles["gammaness"], run / "bundles" / "gammaness")
    cfg = load_config(folder / "experiment.yaml").model_dump_json()
    (run / "config.yaml").write_text(cfg + "\n")  # JSON is YAML
    _run(
        "evaluate", sets / "m.json", "--bundle", bundles["gammaness"], "--config", folder / "experiment.yaml",
        "--out", run / "evaluation" / "gammaness",
    )  # fmt: skip
    for wing, bundle, source in (("camera", "gammaness", "run.dl1.h5"), ("sky", "sky", "f.fits")):
        out = run / "predictions" / wing / "one"
        suffix = ".dl2.h5" if wing == "camera" else ".fits"
        _run("predict", folder / source, "--bundle", bundles[bundle], "--out", out / f"one{suffix}")
    (run / "benchmarks").mkdir()
    (run / "benchmarks" / "train.tsv").write_text("s\th:m:s\tmax_rss\n312.5\t0:05:12\t900.1\n")
    return run


def _real(bundles: dict[str, Path]) -> dict[str, Kind]:
    """A file of sim_telarray, where there is one: no library writes that format."""
    data = os.environ.get("LIGHTPOOL_DATA")
    if not data:
        return {}
    file = Path(data) / "camera" / "simtel" / "st_v036b_gamma_run7_za40_South_lsts_700.simtel.zst"
    return {"simtel": Kind(file, (["info", "FILE"], ["ingest", "FILE", "--out", "OUT/ingested"]))}


def _run(*arguments: object) -> None:
    code = cli.main([str(argument) for argument in arguments] + ["-q"])
    if code:
        raise SystemExit(f"lightpool {arguments[0]} failed on a good file")
