# What the rules share: the experiment, the run's folder, and the files that it starts from.
import json
import os
import re
import sys
from collections import Counter
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

from pipeline.bundle.card import list_bundles, resolve_bundle
from pipeline.config import HILLAS_RECONSTRUCTOR, digest_of, load_config, zoo_config
from pipeline.errors import UserError
from pipeline.files import source_name
from pipeline.output.runs import release_stale_lock
from pipeline.plugins import plugin_files
from pipeline.stages import (
    evaluate,
    ingest,
    irf,
    manifest,
    predict,
    simulate_showers,
    simulate_sky,
    tiles,
    train,
)

if workflow.is_main_process and release_stale_lock():
    print("A run was killed here; its lock is removed", file=sys.stderr)

CHECKOUT = Path(os.path.relpath(Path(workflow.main_snakefile).parent.parent))
CONFIG_FILE = os.path.relpath(config.get("experiment", CHECKOUT / "configs/demo.yaml"))
SOURCES = yaml.safe_load((CHECKOUT / "workflow/sources.yaml").read_text())
PRODUCT_SUFFIX = {"camera": ".dl1.h5", "sky": ".fits"}

try:
    CFG = load_config(CONFIG_FILE)
except UserError as error:
    raise WorkflowError(str(error)) from None

RUN = f"{config.get('results', 'results')}/{CFG.name}"
ZOO = [entry.label for entry in CFG.zoo.entries]

try:
    for label in ZOO:
        zoo_config(CFG, label)
except UserError as error:
    raise WorkflowError(f"{CONFIG_FILE}: {error}") from None


def sources(rule_name):
    """Source modules of a rule, relative to the working directory: a checkout may move without a rerun."""
    modules = {path for pattern in SOURCES[rule_name] for path in CHECKOUT.glob(pattern)}
    return sorted(str(path) for path in modules | set(plugin_files()))


def settings(sections):
    """Digest of the sections that a stage declares to read: other keys change without a rerun."""
    return digest_of(CFG, sections)


def named(paths):
    """Paths by their source's name, which the names of all products and the splits are made of."""
    names = Counter(source_name(path) for path in paths)
    for name, count in names.items():
        if count > 1:
            same = ", ".join(str(path) for path in paths if source_name(path) == name)
            raise WorkflowError(f"{count} input files are called {name} ({same}); rename all but one")
    return {source_name(path): str(path) for path in paths}


def users_files(wing):
    """Files under DATA that the experiment's patterns name."""
    patterns = getattr(CFG.inputs, wing)
    if not patterns:
        return []
    if "data" not in config:
        raise WorkflowError(
            f"{CONFIG_FILE} reads files of yours; say where they are: make run CONFIG=... DATA=DIR"
        )
    folder = Path(str(config["data"]))
    if not folder.is_dir():
        raise WorkflowError(f"DATA={folder} is not a directory")
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


SHOWER_RUNS = [f"shower_run_{run:04d}" for run in range(1, CFG.showers.n_runs + 1)]
SKY_RUNS = [f"sky_run_{run:04d}" for run in range(1, CFG.sky.runs + 1)]
# What goes through `ingest`. Simulated showers are DL1 already.
RAW = {
    "camera": named(users_files("camera")),
    "sky": named([f"{RUN}/raw/{name}.fits" for name in SKY_RUNS] + users_files("sky")),
}
HAS_SOURCES = {"camera": bool(SHOWER_RUNS or RAW["camera"]), "sky": bool(RAW["sky"])}
if not any(HAS_SOURCES.values()) and not CFG.irf.n_runs:
    raise WorkflowError(
        f"{CONFIG_FILE} simulates nothing and its patterns match no file"
        + (f" under {config['data']}" if "data" in config else "")
        + f": inputs.camera {list(CFG.inputs.camera)}, inputs.sky {list(CFG.inputs.sky)}"
    )
if ZOO and not HAS_SOURCES["camera"]:
    raise WorkflowError(
        f"{CONFIG_FILE} has zoo.entries, which are trained on camera tiles, and no camera files"
    )
PAIRED = CFG.tiles.sky.target == "noise2noise"
WING_OF = {name: network.wing for name, network in CFG.networks.items()}
NETWORKS = [name for name in CFG.networks if HAS_SOURCES[WING_OF[name]]]


def bundle_folder(use, key="predict.uses"):
    """Folder of a bundle that a key names: made here (a network), by another run (a path), or shipped."""
    if use in NETWORKS:
        return f"{RUN}/bundles/{use}"
    if not use:
        raise WorkflowError(f"{key} is empty; name the network or the bundle that gives it")
    try:
        return str(resolve_bundle(use))
    except UserError as error:
        raise WorkflowError(f"{key}: {error}. `make run` makes those in results/demo") from None


def origin_of(network):
    """Weights that a training starts from, where they are a file: this run may have to make them first."""
    made = [bundle for bundle in CFG.network(network).start_from if bundle not in list_bundles()]
    return [
        f"{bundle_folder(bundle) if bundle in NETWORKS else bundle}/weights.safetensors" for bundle in made
    ]


BUNDLES = {wing: [bundle_folder(use) for use in CFG.predict.uses.get(wing, ())] for wing in RAW}


# What the baseline of the responses learns from.
IRF_TILES = [f"{RUN}/tiles/camera.manifest.json"] if CFG.irf.n_runs and CFG.irf.baseline else []
if IRF_TILES and not HAS_SOURCES["camera"]:
    raise WorkflowError(
        f"{CONFIG_FILE}: irf.baseline {CFG.irf.baseline} is trained on camera tiles, and there are no camera files"
    )
# What gives the values of the events for responses; each bundle once.
IRF_USES = (
    {key: getattr(CFG.irf, key) for key in ("energy", "gammaness", "direction")} if CFG.irf.n_runs else {}
)
IRF_BUNDLES = sorted(
    {bundle_folder(use, f"irf.{key}") for key, use in IRF_USES.items() if use != HILLAS_RECONSTRUCTOR}
)


# Files that the shower simulation is compared with: CORSIKA's and sim_telarray's under DATA, if they are there.
VALIDATION_DATA = (
    [f"--data={config['data']}"] if Path(config.get("data", ""), "camera", "corsika").is_dir() else []
)


wildcard_constraints:
    name="[^/]+",
    wing="camera|sky",
    network="|".join(map(re.escape, NETWORKS)) or "none",
    task="|".join(CFG.zoo.tasks) or "none",
    label="[A-Za-z0-9_.-]+",
    repeat="[0-9]+",
    run="[0-9]+",


def usable(wing):
    """Names of a wing's raw files that `ingest` could use; known once it has seen them all."""
    if not RAW[wing]:
        return []
    gathered = json.loads(Path(checkpoints.usable.get(wing=wing).output.status).read_text())
    return [name for name, record in gathered.items() if record["status"] == "ok"]


def names_of(wing):
    """Names of all simulated and ingested event files or frames of a wing; at least one."""
    names = (SHOWER_RUNS if wing == "camera" else []) + usable(wing)
    if not names:
        raise WorkflowError(
            f"ingest could use no {wing} file; {RUN}/status/ingest_{wing}.json says why for each"
        )
    return names


def product(wing, name):
    """What the workflow waits for: a simulated event file, or the folder that `ingest` makes of one raw file."""
    return f"{RUN}/raw/{name}.dl1.h5" if name in SHOWER_RUNS else f"{RUN}/ingested/{wing}/{name}"


def product_file(wing, name):
    """The event file or calibrated frame in `product`."""
    path = product(wing, name)
    return path if name in SHOWER_RUNS else f"{path}/{name}{PRODUCT_SUFFIX[wing]}"


def shards_of(wing):
    """Tile shards of a wing: one for each file, or the folder of pairs, which only the frames tell the number of."""
    if wing == "sky" and PAIRED:
        return [f"{RUN}/tiles/sky"]
    return [f"{RUN}/tiles/{wing}/{name}.tiles.h5" for name in names_of(wing)]


def predictions():
    """Folders of the predictions asked for, one for each file of the wings that have some."""
    return [
        f"{RUN}/predictions/{wing}/{name}"
        for wing in BUNDLES
        if BUNDLES[wing] and (usable(wing) or (wing == "camera" and SHOWER_RUNS))
        for name in names_of(wing)
    ]


def zoo_run(task, label, repeat=0):
    """Folder of one training of one network."""
    return f"{RUN}/zoo/{task}/{label}/run_{repeat}"


def zoo_settings(wildcards):
    """Digest of what decides one training: other entries of the zoo may change without a rerun."""
    cfg = zoo_config(CFG, wildcards.label, int(wildcards.repeat))
    return digest_of(cfg, train.reads(wildcards.task))


def zoo_evaluations(wildcards):
    """Folders of all evaluations: the first training of each network, and further ones of the best."""
    folders = []
    for task in CFG.zoo.tasks:
        best = json.loads(Path(checkpoints.zoo_best.get(task=task).output.best).read_text())
        runs = [(label, 0) for label in ZOO]
        runs += [(label, repeat) for label in best for repeat in range(1, CFG.zoo.seeds)]
        folders += [f"{zoo_run(task, label, repeat)}/evaluation" for label, repeat in runs]
    return folders
