"""What `predict` is to do: which models each input is for, and where its product goes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline import provenance
from pipeline.bundle.backends import facts_of
from pipeline.config import Config, sections_of
from pipeline.errors import InputFileError, UserError
from pipeline.files import check_free, source_name
from pipeline.filetypes import Kind, file_kind
from pipeline.stages import products
from pipeline.stages.inputs import check_no_input, is_of_a_stopped_run, names_file
from pipeline.stages.shelf import Models

#: Which models a file of each kind is for.
WING: dict[Kind, str] = {"simtel": "camera", "dl1": "camera", "lstchain": "camera", "fits": "sky"}
_SUFFIX = {"camera": ".dl2.h5", "sky": ".fits"}
_DL2_ENDINGS = (".h5", ".hdf5", ".hdf")


@dataclass(frozen=True)
class Settings:
    """What is the same for all inputs."""

    cfg: Config
    bundles: tuple[str | Path, ...]
    event: int | None
    telescope: int | None
    force: bool

    @property
    def selects(self) -> bool:
        """Whether only some of the images are asked for."""
        return self.event is not None or self.telescope is not None

    def load_models(self) -> Models:
        """The bundles, opened."""
        return Models.load(self.bundles, self.cfg)


@dataclass(frozen=True)
class Job:
    """One input, what it is, and where its product goes."""

    path: Path
    kind: Kind | None
    out: Path | None
    problem: InputFileError | None = None
    replaces: bool = False
    appends: bool = False

    @property
    def wing(self) -> str:
        """Camera or sky; empty for a file that cannot be used."""
        return WING.get(self.kind, "") if self.kind else ""


def plan(files: Sequence[Path], out: Path | None, settings: Settings, models: Models) -> list[Job]:
    """Look at every input and every place for an output before anything is computed."""
    jobs = []
    for path in map(Path, files):
        try:
            kind = predictable_kind(path)
            jobs.append(Job(path, kind, _product(path, kind, out, files)))
        except InputFileError as error:
            jobs.append(Job(path, None, None, error))
    taken = Counter(job.out for job in jobs if job.out is not None)
    for target, times in taken.items():
        if times > 1:
            raise UserError(f"{times} inputs would be written to {target}; rename them, or predict them one by one")
    check_no_input(taken, files)
    has_status = out is not None and not names_file(out)
    for place, job in enumerate(jobs):
        stopped = has_status and _is_of_a_stopped_run(job, settings, models)
        jobs[place] = replace(job, replaces=settings.force or stopped)
    for job in jobs:
        if job.out is not None:
            check_free(job.out, force=job.replaces)
    return jobs


def appending(files: Sequence[Path], target: Path, out: Path | None, settings: Settings) -> Job:
    """The one input, for predictions that are added to a DL2 file.

    Raises
    ------
    UserError
        If there are other inputs, the input or the file is of another kind, or other options contradict.
    """
    if out is not None:
        raise UserError(f"--append changes {target}, and --out writes a file of its own; give one of them")
    if settings.selects:
        raise UserError("--append adds predictions for whole files; leave --event and --telescope out")
    if len(files) != 1:
        raise UserError(f"--append adds predictions from one file with images, got {len(files)}; give one")
    path = Path(files[0])
    kind = predictable_kind(path)
    if WING[kind] != "camera":
        raise UserError(f"--append adds predictions for camera images, and {path.name} is a FITS frame; use --out")
    if not _has_dl2(target):
        raise UserError(f"{target} is no DL2 file; --append takes one, and --out writes a new one")
    if target.samefile(path):
        raise UserError(
            f"{target} is the input, which stays as it is; write predictions to a file of their own with --out"
        )
    return Job(path, kind, check_free(target.resolve(), force=True), replaces=True, appends=True)


def _has_dl2(path: Path) -> bool:
    """Whether it is a file of ctapipe's layout with predictions; files of `ctapipe-process` may have images, too."""
    kind = file_kind(path)
    if kind != "dl1":
        return kind == "dl2"
    from pipeline.hdf5 import open_hdf5

    with open_hdf5(path) as file:
        return "dl2/event" in file


def _is_of_a_stopped_run(job: Job, settings: Settings, models: Models) -> bool:
    """Whether an equal run on several files, which did not end, has left the product of this one."""
    if job.out is None or settings.selects or not job.out.exists():
        return False
    used = models.that_made(job.out, job.wing)
    facts = provenance.stamp(
        "predict",
        config=sections_of(settings.cfg, products.READS_SKY if job.wing == "sky" else products.READS_CAMERA),
        input=job.path.name,
        input_sha256=provenance.sha256_file(job.path),
        bundles={name: predictor.card.bundle_sha256 for name, predictor in used.items()},
        backends={name: facts_of(predictor.backend) for name, predictor in used.items()},
    )
    return is_of_a_stopped_run(job.out, facts)


def predictable_kind(path: Path) -> Kind:
    """Type of a file that models can be applied to.

    Raises
    ------
    InputFileError
        If it cannot be read, or is of another kind.
    """
    kind = file_kind(path)
    if kind not in WING:
        raise InputFileError(f"{path} is {_ARTICLE.get(kind, kind)}; predict takes simtel, DL1 and FITS files")
    return kind


_ARTICLE = {
    "dl2": "a DL2 file without images, which predictions are made from",
    "corsika": "a CORSIKA file, photons without a telescope",
    "tiles": "a shard of training tiles",
    "manifest": "a manifest of training tiles",
    "bundle": "a model bundle",
    "hdf5": "an HDF5 file of unknown layout",
}


def _product(path: Path, kind: Kind, out: Path | None, files: Sequence[Path]) -> Path | None:
    if out is None:
        return None
    wing = WING[kind]
    if not names_file(out):
        return out / f"{source_name(path)}{_SUFFIX[wing]}"
    if len(files) > 1:
        raise UserError(f"--out {out} is a file, but {len(files)} inputs need a directory; give another path")
    check_ending(out, wing, path.name)
    return out


def check_ending(out: Path, wing: str, source: str) -> None:
    """Refuse a name whose ending does not fit a product of `source`.

    Raises
    ------
    UserError
        Naming the endings that are accepted.
    """
    from pipeline.sky.frames.formats import ENDINGS

    endings = ENDINGS if wing == "sky" else _DL2_ENDINGS
    if not out.name.lower().endswith(endings):
        accepted = " or ".join(endings)
        raise UserError(f"predictions from {source} cannot be written as {out.name}; end the name in {accepted}")
