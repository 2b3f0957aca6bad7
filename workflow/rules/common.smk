# What the rules share: the experiment, the run's folder, and the files that it starts from.
import json
import os
import re
import shutil
import subprocess
import sys
import threading
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

if workflow.is_main_process:
    try:
        if release_stale_lock():
            print("A run was killed here; its lock is removed", file=sys.stderr)
    except UserError as error:
        raise WorkflowError(str(error)) from None

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
SIMULATED_SHOWERS, SIMULATED_FRAMES = set(SHOWER_RUNS), set(SKY_RUNS)
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
PART = 500  # shards that one manifest is made of; more become a manifest of manifests

MAX_JOBS = 1000  # that one command gathers the results of: it names them all, and has 128 kB
try:
    FILES_PER_JOB = int(config.get("files_per_job", 1))
except ValueError:
    FILES_PER_JOB = 0
if not 1 <= FILES_PER_JOB <= PART:
    raise WorkflowError(f"files_per_job={config['files_per_job']} is not a number from 1 to {PART}")
IRF_RUNS = [f"run_{run}" for run in CFG.irf.runs] if CFG.irf.n_runs else []
if len(IRF_RUNS) > MAX_JOBS:
    raise WorkflowError(
        f"{len(IRF_RUNS)} runs in irf.classes are more than {MAX_JOBS}; make fewer and larger ones"
    )
for names in RAW.values():
    if len(names) > MAX_JOBS * FILES_PER_JOB:
        raise WorkflowError(
            f"{len(names)} files with {FILES_PER_JOB} in each job are more than {MAX_JOBS} jobs; say "
            f"FILES_PER_JOB={-(-len(names) // MAX_JOBS)} or more"
        )


def batched(names):
    """Files of each job, by the label of the job. It holds no number, which would change when files are added."""
    names = list(names)
    parts = [names[start : start + FILES_PER_JOB] for start in range(0, len(names), FILES_PER_JOB)]
    return {(part[0] if FILES_PER_JOB == 1 else f"from_{part[0]}"): part for part in parts}


SIMULATED = {"camera": batched(SHOWER_RUNS), "sky": batched(SKY_RUNS)}
INGESTED = {wing: batched(RAW[wing]) for wing in RAW}
IRF_BATCHES = batched(IRF_RUNS)
# What becomes tiles and predictions: simulated showers are not ingested.
PRODUCTS = {"camera": SIMULATED["camera"] | INGESTED["camera"], "sky": INGESTED["sky"]}


def receipt(rule_name, batch="{batch}"):
    """What a job on many files writes when all are done (workflow/scripts/many.py). The files themselves are no outputs
    of the rule: Snakemake removes the outputs of a job that fails, and those that were done would be lost."""
    return f"{RUN}/jobs/{rule_name}/{batch}.json"


def receipts(rule_name, names):
    """Those of the jobs that some files of a rule are in."""
    batches = {"simulate_showers": SIMULATED["camera"], "simulate_sky": SIMULATED["sky"]}
    batches |= {f"ingest_{wing}": INGESTED[wing] for wing in INGESTED}
    batches |= {f"{stage}_{wing}": PRODUCTS[wing] for stage in ("tiles", "predict") for wing in PRODUCTS}
    batches |= {"simulate_irf": IRF_BATCHES, "predict_irf": IRF_BATCHES}
    wanted = set(names)
    return [
        receipt(rule_name, batch) for batch, part in batches[rule_name].items() if not wanted.isdisjoint(part)
    ]


def forget_lost():
    """Remove the receipts of products that somebody removed: Snakemake does not know these files."""
    for path in sorted(Path(RUN).glob("jobs/*/*.json")):
        try:
            products = [product for made in json.loads(path.read_text()).values() for product in made]
        except (OSError, ValueError, AttributeError):
            products = [""]
        if lost := [product for product in products if not os.path.exists(product)]:
            print(
                f"{len(lost)} products of {path} are gone; they are made again when something needs them",
                file=sys.stderr,
            )
            path.unlink()


if workflow.is_main_process:
    forget_lost()


def verbatim(*texts):
    """Parameters with braces that stay, for Snakemake looks for no wildcards in the result of a function."""
    return lambda wildcards: list(texts)


MANY_SCRIPT = CHECKOUT / "workflow/scripts/many.py"


def grown(mem_mb):
    """Memory of a job [MB], more with each attempt. Below 1,000 MB Slurm may kill Snakemake's own part of the job."""
    return lambda wildcards, attempt: mem_mb * attempt


def minutes(of_job, of_file=0):
    """Time of a job on many files [min], more with each attempt."""
    return lambda wildcards, attempt: (of_job + of_file * FILES_PER_JOB) * attempt


def gpus():
    """GPUs of a job that can use one: those that the user says, else 1 where there are some, here or in a cluster."""
    if "gpus" in config:
        return int(config["gpus"])
    if shutil.which("sinfo"):
        try:
            asked = subprocess.run(["sinfo", "-h", "-o", "%G"], capture_output=True, text=True, timeout=30)
        except subprocess.TimeoutExpired:
            return 0
        return int("gpu" in asked.stdout)
    return int(shutil.which("nvidia-smi") is not None)


GPUS = gpus() if workflow.is_main_process else 0

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
    batch="[^/]+",
    part="[0-9]+",
    wing="camera|sky",
    network="|".join(map(re.escape, NETWORKS)) or "none",
    task="|".join(CFG.zoo.tasks) or "none",
    label="[A-Za-z0-9_.-]+",
    repeat="[0-9]+",


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


def usable_of(wing, batch):
    """Those files of a job on products that there is a product of."""
    names = PRODUCTS[wing][batch]
    if batch in INGESTED[wing]:
        known = set(usable(wing))
        names = [name for name in names if name in known]
    return names


def product_file(wing, name):
    """The simulated event file, or the event file or calibrated frame that `ingest` makes."""
    if name in SIMULATED_SHOWERS:
        return f"{RUN}/raw/{name}.dl1.h5"
    return f"{RUN}/ingested/{wing}/{name}/{name}{PRODUCT_SUFFIX[wing]}"


def product_receipt(wing, batch):
    """Receipt of the job that makes the products of a job's files."""
    return receipt("simulate_showers" if batch in SIMULATED["camera"] else f"ingest_{wing}", batch)


def known_usable(wing, batch=None):
    """What says which files can be used, where a job is on ingested ones: input of each rule that asks for the names.
    That another file was added is no reason to run again."""
    asked = RAW[wing] if batch is None else batch in INGESTED[wing]
    return [ancient(checkpoints.usable.get(wing=wing).output.status)] if asked else []


def items(wing):
    """Names and product files of a job on products."""
    return lambda wildcards: [
        f"{name}={product_file(wing, name)}" for name in usable_of(wing, wildcards.batch)
    ]


def parts_of(names):
    """Names by the part of a manifest that they are in; none where one manifest is enough."""
    if len(names) <= PART:
        return {}
    return {f"{start // PART + 1:04d}": names[start : start + PART] for start in range(0, len(names), PART)}


def shards_of(wing):
    """Paths of all shards of a wing."""
    return [f"{RUN}/tiles/{wing}/{name}.tiles.h5" for name in names_of(wing)]


def described(wing):
    """What the manifest of a wing is made of, as the command line has it: shards, or manifests of parts of them."""
    if wing == "sky" and PAIRED:
        return [f"{RUN}/tiles/sky"]
    parts = parts_of(names_of(wing))
    return [f"{RUN}/tiles/{wing}_part_{part}.manifest.json" for part in parts] or shards_of(wing)


def described_by(wing):
    """What has to be done before."""
    if (wing == "sky" and PAIRED) or parts_of(names_of(wing)):
        return described(wing)
    return receipts(f"tiles_{wing}", names_of(wing))


def predictions():
    """Receipts of the predictions asked for, of the wings that have some."""
    return [
        path
        for wing in BUNDLES
        if BUNDLES[wing] and (usable(wing) or (wing == "camera" and SHOWER_RUNS))
        for path in receipts(f"predict_{wing}", names_of(wing))
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


def forget_timers() -> None:
    """Let the process end: Snakemake leaves a timer behind every job, as long as `max-jobs-per-timespan` says."""
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.cancel()
