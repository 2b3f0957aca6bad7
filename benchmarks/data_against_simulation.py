"""How images of other programs and of a real camera differ from our simulation, and what networks make of them.

    python benchmarks/data_against_simulation.py --simulation RUN.dl1.h5 ...
        [--bundle NAME=FOLDER[,FOLDER] ...] [SET ...]
        [--page docs/data_against_simulation.md] [--figure FILE.png] [--quick]

A SET is [NAME=]FILE[,FILE...] of simtel or DL1; without any, each file in camera/simtel and camera/dl1 of
$LIGHTPOOL_DATA is one. Images are cleaned and cut as for tiles, with the default configuration, one kind of camera at a
time. Each image is compared with simulated ones of its own kind, so that the spectra need not be alike: its size with
those of the same particle, energy and impact distance, its shape with those of the same particle and size. Tables go to
the screen, or between the marks of a page. Of several folders under one name, later ones replace what earlier ones
predict too.
"""

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from against.images import GAMMA, MUON, PROTON, Images, measure, pooled
from against.tables import event_table, noise_table, prediction_table, shape_table
from pages import write_page

from pipeline.bundle.runtime import Predictor
from pipeline.config import Config, parse_config
from pipeline.errors import UserError
from pipeline.filetypes import file_kind
from pipeline.stages.ingest import ingest
from pipeline.stages.simulate_showers import simulate_showers

MOST_EVENTS = 500  # for a table of each


# ---- figure ----------------------------------------------------------------------------------------------------------
def draw(sets: Sequence[Images], bundles: Sequence[str], out: Path) -> None:
    """Predicted against true energy and gammaness against size, a row of panels per bundle."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6 * len(bundles)), layout="constrained", dpi=110)
    axes = figure.subplots(len(bundles), 2, squeeze=False)
    for (left, right), key in zip(axes, bundles, strict=True):
        shown = [images for images in sets if key in images.predictions]
        for number, images in enumerate(shown):
            predicted, gamma = images.predictions[key], images.of_class(GAMMA)
            style = {"s": 16, "alpha": 0.8, "color": f"C{number % 10}", "linewidths": 0}
            if gamma.any():
                left.scatter(
                    images.events["true_energy_tev"][gamma], predicted["reco_energy_tev"][gamma], label=images.name,
                    **style,
                )  # fmt: skip
            for chosen, marker in ((gamma, "o"), (images.of_class(PROTON), "^"), (images.of_class(MUON), "s")):
                if chosen.any():
                    size = images.events["hillas_intensity"][chosen]
                    right.scatter(size, predicted["gammaness"][chosen], marker=marker, **style)
        left.axline((0.1, 0.1), (1, 1), color="0.4", linewidth=0.8, linestyle="--")
        left.set(xscale="log", yscale="log", xlabel="true energy [TeV]", ylabel="predicted energy [TeV]", title=key)
        left.legend(fontsize=6)
        right.set(xscale="log", xlabel="size [p.e.]", ylabel="gammaness", ylim=(-0.02, 1.02))
        right.set_title("circles: gammas, triangles: protons, squares: muons", fontsize=9)
    figure.savefig(out)


# ---- files -----------------------------------------------------------------------------------------------------------
def default_sets() -> dict[str, list[Path]]:
    """Every file of camera images in $LIGHTPOOL_DATA."""
    root = os.environ.get("LIGHTPOOL_DATA")
    if not root:
        raise UserError("no set was given and LIGHTPOOL_DATA is not set; name files, or the folder that has camera/")
    files = [path for folder in ("simtel", "dl1") for path in sorted((Path(root) / "camera" / folder).glob("*.*"))]
    return {path.name.split(".")[0]: [path] for path in files if path.suffix in (".gz", ".zst", ".h5")}


def parsed_sets(texts: Sequence[str]) -> dict[str, list[Path]]:
    """NAME=FILE,FILE, or FILE."""
    sets = {}
    for text in texts:
        name, _, files = text.rpartition("=")
        paths = [Path(part) for part in files.split(",")]
        sets[name or paths[0].name.split(".")[0]] = paths
    return sets


def as_dl1(sets: Mapping[str, Sequence[Path]], folder: Path) -> tuple[dict[str, list[Path]], list[str]]:
    """The sets as DL1 files, calibrated or converted into `folder` where they are not; what cannot be used."""
    others = [path for paths in sets.values() for path in paths if _kind(path) != "dl1"]
    made = {Path(status["file"]): status for status in ingest(others, Config(), folder)} if others else {}
    lost = [f"- `{path.name}`: {_reason(status)}" for path, status in made.items() if status["status"] != "ok"]
    found = {
        name: [
            Path(made[path]["output"]) if path in made else path
            for path in paths
            if path not in made or made[path]["status"] == "ok"
        ]
        for name, paths in sets.items()
    }
    return {name: paths for name, paths in found.items() if paths}, lost


def _kind(path: Path) -> str:
    try:
        return file_kind(path)
    except UserError:
        return "unknown"  # ingest says what is wrong with it


def _reason(status: Mapping[str, Any]) -> str:
    """Why a file was refused, without its name."""
    return str(status["reason"]).removeprefix(status["file"]).strip()


def small_runs(folder: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    """For --quick: a few showers under a bright sky, with dead pixels, against the dark one."""
    thrown = {"runs": 1, "showers_per_run": 6, "energy_min_tev": 0.3, "energy_max_tev": 1.0, "scatter_radius_m": 150}
    classes = [thrown | {"particle": "gamma", "viewcone_deg": 1}, thrown | {"particle": "proton", "viewcone_deg": 2}]
    bright = {"night_sky_factor": 3.0, "dead_pixel_fraction": 0.02}
    found = []
    for name, camera in (("bright", bright), ("dark", {})):
        cfg = parse_config({"showers": {"camera": camera, "classes": classes}})
        found.append([simulate_showers(cfg, run, folder / f"{name}_{run}.dl1.h5") for run in (1, 2)])
    return {"bright sky": found[0]}, found[1]


def compare(
    sets: Mapping[str, Sequence[Path]], simulations: Sequence[Path], bundles: Mapping[str, Sequence[Path]], folder: Path
) -> tuple[dict[str, str], list[Images]]:
    """All tables by name, and the images that they are of."""
    files, lost = as_dl1(sets, folder)
    predictors = {key: [Predictor.load(path, threads=1) for path in paths] for key, paths in bundles.items()}
    simulated = {images.identity: images for images in measure("our simulation", simulations, {})}
    found = [images for name, paths in files.items() for images in measure(name, paths, predictors)]
    tables = {
        "noise": noise_table([*simulated.values(), *found]),
        "shapes": shape_table(found, simulated),
        "refused": "\n".join(lost) or "None.",
    }
    if predictors:
        together = [pooled("all with truth", found, identity) for identity in dict.fromkeys(i.identity for i in found)]
        tables["predictions"] = prediction_table([*found, *filter(None, together)], list(predictors))
        if sum(len(images.events["event_id"]) for images in found) <= MOST_EVENTS:
            tables["events"] = event_table(found, list(predictors))
    return tables, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET")
    parser.add_argument("--simulation", nargs="+", type=Path, default=[], help="own simulated DL1 to compare with")
    parser.add_argument(
        "--bundle", action="append", default=[], help="NAME=FOLDER[,FOLDER]; may be given several times"
    )
    parser.add_argument("--page", type=Path, help="write the tables into this page, and not to the screen")
    parser.add_argument("--tables", nargs="+", metavar="OLD=NEW", default=[], help="other names for tables of the page")
    parser.add_argument("--figure", type=Path, help="PNG of predictions")
    parser.add_argument("--quick", action="store_true", help="few showers of our own: does it run?")
    arguments = parser.parse_args()
    named = (text.partition("=") for text in arguments.bundle)
    bundles = {key: [Path(part) for part in paths.split(",")] for key, _, paths in named}
    with tempfile.TemporaryDirectory() as folder:
        if arguments.quick:
            sets, simulations = small_runs(Path(folder))
        else:
            sets = parsed_sets(arguments.sets) if arguments.sets else default_sets()
            simulations = arguments.simulation
        tables, images = compare(sets, simulations, bundles, Path(folder))
    if arguments.figure:
        draw(images, list(bundles), arguments.figure)
    names = dict(text.split("=", 1) for text in arguments.tables)
    if arguments.page:
        write_page(
            arguments.page, {new: tables[old] for old, new in (names or {name: name for name in tables}).items()}
        )
    else:
        for name, content in tables.items():
            print(f"\n## {name}\n\n{content}")


if __name__ == "__main__":
    main()
