"""Train one task's network on tiles and write it as a bundle."""

import contextlib
import json
import logging
import math
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline import __version__
from pipeline.bundle.card import (
    CameraSection,
    Card,
    InputSection,
    ManifestSection,
    ModelSection,
    OriginSection,
    OutputColumn,
    OutputSection,
    TrainingSection,
)
from pipeline.config import Config
from pipeline.device import choose_device, choose_precision, torch_threads
from pipeline.errors import UserError
from pipeline.files import atomic_output, check_free
from pipeline.logs import get_logger
from pipeline.preparation import Preparation
from pipeline.provenance import package_versions, sha256_json, stamp, write_sidecar
from pipeline.tasks import get_decoder, get_training
from pipeline.tiles.reader import TileReader

if TYPE_CHECKING:
    from lightning.pytorch import Callback
    from torch import nn

    from pipeline.bundle.transfer import Origin
    from pipeline.tasks.training import Objective
    from pipeline.tasks.training.module import Progress

logger = get_logger(__name__)

_GROUPS = {"camera": "showers", "sky": "fields"}

CHECKPOINT_FILE = "last.ckpt"
IDENTITY_FILE = "identity.json"
LOG_FILE = "train_log.csv"
FIGURE_FILE = "learning_curves.png"

_TRANSFORMS = {
    "energy": "The network gives log10 of the energy in TeV, and the logarithm of the variance of that.",
    "gammaness": "The network gives the logit of gammaness, for classes of equal weight.",
    "denoise": "The network gives, per pixel, a correction in units of the pixel's uncertainty, a replacement in asinh "
    "of the background noise, the log variance of the result and the logit of being a defect.",
}


def train(
    cfg: Config,
    task: str,
    manifests: Sequence[str | Path],
    out: str | Path,
    resume: bool = False,
    force: bool = False,
) -> Path:
    """Train `task` on the tiles of `manifests` and write the bundle `out`.

    The state after each epoch is kept in `OUT.ckpt` until the bundle is written. A run that was stopped goes on from
    there with `resume` and ends with the same weights, bit for bit, as an undisturbed one.

    Parameters
    ----------
    cfg : Config
    task : str
        One of `pipeline.config.TASKS`.
    manifests : sequence of path
    out : path
        Directory to make.
    resume : bool
        Go on from `OUT.ckpt`; where there is none, start.
    force : bool
        Replace `out`, and start anew where `OUT.ckpt` is not resumed or belongs to another configuration.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    UserError
        If something is in the way or does not fit (see the message); before any long work.
    """
    out = check_free(out, force=force)
    cfg.train.task(task)  # an unknown task is answered before torch is imported
    run = _Run(cfg, task, manifests)
    checkpoints = _open_checkpoints(out, run, resume=resume, force=force)
    started = time.monotonic()
    with torch_threads(cfg.threads):
        progress = _fit(run, checkpoints)
        wall_time_s = time.monotonic() - started
        network = run.network()
        network.load_state_dict(progress.best)
        card = _card(run, network, progress, wall_time_s)
        with atomic_output(out, force=force) as temporary:
            _write(network, card, progress, temporary)
    write_sidecar(out, run.stamped, wall_time_s=round(wall_time_s, 1))
    shutil.rmtree(checkpoints)
    logger.info("wrote %s: epoch %d is the best: %s", out, progress.best_epoch, _summary(progress))
    return out


class _Run:
    """Everything that defines a run, checked: what cannot be trained fails here, within seconds."""

    def __init__(self, cfg: Config, task: str, manifests: Sequence[str | Path]) -> None:
        self.cfg, self.task, self.config = cfg, task, cfg.train.task(task)
        self.device = choose_device(cfg.device)
        self.precision = choose_precision(self.config.precision, self.device)
        self.objective: Objective = get_training(task)(self.config)
        options = {"where": self.objective.where, "equalise": self.objective.equalise}
        _check_columns(manifests, self.objective)
        self.train_tiles = TileReader(manifests, "train", **options)
        self.validation_tiles = TileReader(manifests, "validation", **options)
        self.objective.check(self.train_tiles, self.validation_tiles)
        self.origin = self._origin()
        self.preparation = self._preparation()
        self.network()  # refuses what does not fit
        self.stamped = stamp(
            "train",
            config={"task": task, "seed": cfg.seed, "train": self.config.model_dump(mode="json")},
            manifests=[manifest.sha256 for manifest in self.train_tiles.manifests],
            precision=self.precision,
            **({"origin_sha256": self.origin.card.bundle_sha256} if self.origin else {}),
        )

    @property
    def identity(self) -> str:
        """Digest of all that a checkpoint depends on."""
        return sha256_json(self.stamped)

    def network(self) -> "nn.Module":
        """The network with its initial weights, which depend on the seed and the bundle that it starts from alone."""
        import torch

        from pipeline.bundle.export import create_network
        from pipeline.tasks.training.data import WEIGHTS, keyed_seed

        model, n_channels, n_outputs = self.config.model, self.preparation.n_channels, self.objective.num_outputs

        def build(n_outputs: int) -> "nn.Module":
            return create_network(model.name, model.kwargs, n_channels, n_outputs, len(self.config.scalars))

        with torch.random.fork_rng(devices=[]):
            self._check_fit(create_network(model.name, model.kwargs, n_channels, n_outputs, 0))
            torch.manual_seed(keyed_seed(self.cfg.seed, WEIGHTS))
            if self.origin is None:
                return build(n_outputs)
            return self.origin.network(build, outputs=self.output_names, scalars=self.config.scalars)

    @property
    def output_names(self) -> tuple[str, ...]:
        """What the network gives, in its order."""
        return get_decoder(self.task).outputs[: self.objective.num_outputs]

    def _preparation(self) -> Preparation:
        """Fitted to the training tiles; scalars whose weights are kept are standardised as these learned it."""
        fitted = Preparation.fit(self.train_tiles, self.config.scalars)
        if self.origin is None or not self.origin.has_scalars(self.config.scalars):
            return fitted
        learned = self.origin.card.input.preparation.scalar_statistics
        return fitted.model_copy(update={"scalar_statistics": learned})

    def _origin(self) -> "Origin | None":
        if self.config.start_from is None:
            return None
        from pipeline.bundle.transfer import Origin

        logger.info("starting from the weights of %s", self.config.start_from)
        return Origin(self.config.start_from)

    def frozen(self, network: "nn.Module") -> list["nn.Module"]:
        """Freeze what the configuration says; the parts of `network` that must stay in evaluation mode."""
        if not self.config.freeze:
            return []
        import torch

        from pipeline.bundle.transfer import freeze

        return freeze(
            network, self.config.freeze, torch.zeros(1, self.preparation.n_channels, *self.train_tiles.tile_shape)
        )

    def _check_fit(self, network: "nn.Module") -> None:
        """Refuse a network of the other kind or for showers of several telescopes, or tiles that it cannot take."""
        from models.registry import model_entry

        name, size = self.config.model.name, self.train_tiles.tile_shape
        stride = getattr(network, "size_multiple", None)
        if (self.objective.kind == "sky") != (stride is not None):
            needed = "gives an image" if self.objective.kind == "sky" else "gives numbers per image"
            raise UserError(
                f"the model {name!r} does not fit the task {self.task}, which needs one that {needed}; "
                "`lightpool models list` tells them apart"
            )
        if model_entry(name).family == "sequence":
            raise UserError(
                f"the model {name!r} joins the telescopes of a shower, and training gives it single images; take its "
                "encoder"
            )
        if stride and any(side % stride for side in size):
            raise UserError(
                f"tiles of {size[0]} x {size[1]} px do not fit the model {name!r}, whose stride is {stride}: "
                "change tiles.sky.size or the model's depth"
            )
        if min(size) < network.min_size:
            raise UserError(
                f"tiles of {size[0]} x {size[1]} px are too small for the model {name!r}, which needs "
                f"{network.min_size} px: change tiles.{self.objective.kind}.size or the model"
            )


def _check_columns(manifests: Sequence[str | Path], objective: "Objective") -> None:
    """Refuse tiles that lack the columns a task selects by, in the words of the task."""
    reader = TileReader(manifests, "all", equalise=False)
    try:
        missing = [
            name for name in objective.where or {} if reader.wing == objective.kind and name not in reader.columns
        ]
        if missing and reader.n_tiles:
            raise UserError(
                f"the tiles have no truth to train {objective.task} on: no event column {', '.join(missing)}; "
                "use simulated files"
            )
    finally:
        reader.close()


# ---- checkpoints -----------------------------------------------------------------------------------------------------
def _open_checkpoints(out: Path, run: _Run, *, resume: bool, force: bool) -> Path:
    """Directory of this run's checkpoints; empty of anything that shall not be resumed."""
    directory = out.with_name(out.name + ".ckpt")
    if directory.exists():
        found = _identity_of(directory)
        same = found == run.identity
        if resume and same:
            return directory
        if not force:
            if same:
                raise UserError(
                    f"{directory} holds an unfinished run of this configuration; add --resume to go on with it, "
                    "or --force to start anew"
                )
            raise UserError(
                f"{directory} holds an unfinished run of another configuration, data or version "
                f"({str(found)[:12]}, this one is {run.identity[:12]}); add --force to start anew, or use another --out"
            )
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    identity = {"identity": run.identity, **run.stamped}
    (directory / IDENTITY_FILE).write_text(json.dumps(identity, indent=1, sort_keys=True) + "\n")
    return directory


def _identity_of(directory: Path) -> str | None:
    try:
        return json.loads((directory / IDENTITY_FILE).read_text())["identity"]
    except (OSError, ValueError, KeyError):
        return None  # stopped before the first line was written, or not ours


# ---- fit -------------------------------------------------------------------------------------------------------------
def _fit(run: _Run, checkpoints: Path) -> "Progress":
    """Run the epochs that are left."""
    import torch

    with _quiet_lightning():
        from lightning.pytorch import Trainer

        from pipeline.tasks.training.module import Checkpoint, EpochLog, Progress, TrainingModule

        progress = Progress(run.objective)
        last = checkpoints / CHECKPOINT_FILE
        if last.exists():
            state = torch.load(last, map_location="cpu", weights_only=True)
            progress.load_state_dict(state["callbacks"][progress.state_key])
            logger.info("resuming after epoch %d of %d", len(progress.rows), run.config.epochs)
        if not progress.finished:
            network = run.network()
            module = TrainingModule(
                network,
                run.objective,
                run.preparation,
                run.train_tiles,
                run.validation_tiles,
                seed=run.cfg.seed,
                frozen=run.frozen(network),
            )
            trainer = Trainer(
                accelerator=run.device.partition(":")[0],
                devices=[int(run.device.partition(":")[2])] if ":" in run.device else 1,
                precision="bf16-mixed" if run.precision == "bfloat16" else "32-true",
                max_epochs=run.config.epochs,
                gradient_clip_val=run.config.gradient_clip,
                callbacks=[progress, EpochLog(progress, checkpoints / LOG_FILE), *_progress_bar(), Checkpoint(last)],
                enable_progress_bar=sys.stderr.isatty(),
                default_root_dir=checkpoints,
                reload_dataloaders_every_n_epochs=1,
                num_sanity_val_steps=0,
                logger=False,
                enable_checkpointing=False,
                enable_model_summary=False,
            )
            with torch.random.fork_rng(devices=[]):
                trainer.fit(module, ckpt_path=last if last.exists() else None, weights_only=True)
    return progress


def _progress_bar() -> list["Callback"]:
    """A bar on a terminal, on stderr; nothing elsewhere."""
    if not sys.stderr.isatty():
        return []
    from lightning.pytorch.callbacks import RichProgressBar

    return [RichProgressBar(console_kwargs={"stderr": True})]


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Lightning greets, advertises and gives hints on data loaders; what matters here is said by ourselves."""
    import lightning.pytorch  # its import sets the levels of its loggers  # noqa: F401

    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [entry.level for entry in loggers]
    for entry in loggers:
        entry.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            yield
    finally:
        for entry, level in zip(loggers, levels, strict=True):
            entry.setLevel(level)


# ---- bundle ----------------------------------------------------------------------------------------------------------
def _write(network: "nn.Module", card: Card, progress: "Progress", directory: Path) -> None:
    from pipeline.bundle.export import export_bundle
    from pipeline.figures.style import save_figure
    from pipeline.figures.training import learning_curves
    from pipeline.tasks.training.module import write_log

    export_bundle(network, card, directory)
    write_log(progress.rows, directory / LOG_FILE)
    figure = learning_curves(progress.rows, progress.best_epoch, progress.objective.monitor.metric)
    save_figure(figure, directory / FIGURE_FILE)


def _card(run: _Run, network: "nn.Module", progress: "Progress", wall_time_s: float) -> Card:
    from models.describe import count_params
    from models.registry import model_entry

    reader, preparation = run.train_tiles, run.preparation
    decoder = get_decoder(run.task)
    not_metrics = ("epoch", "learning_rate", "train_loss")
    validation = {name: value for name, value in progress.best_row.items() if name not in not_metrics}
    return Card(
        name=f"{run.cfg.name}_{run.task}".replace("-", "_").replace(".", "_"),
        tasks=(run.task,),
        kind=run.objective.kind,
        model=ModelSection(
            name=run.config.model.name,
            kwargs=run.config.model.kwargs,
            in_chans=preparation.n_channels,
            num_outputs=run.objective.num_outputs,
            n_scalars=len(run.config.scalars),
            n_parameters=count_params(network),
        ),
        cameras=_cameras(reader),
        input=InputSection(
            channels=tuple(channel.name for channel in reader.channels),
            units=tuple(channel.unit for channel in reader.channels),
            tile_shape=reader.tile_shape,
            tile=reader.attributes.get("tile"),
            unit=reader.attributes.get("unit"),
            preparation=preparation,
            stride=getattr(network, "size_multiple", None),
        ),
        output=OutputSection(
            outputs=run.output_names,
            transform=_TRANSFORMS[run.task],
            columns=tuple(OutputColumn(**column._asdict()) for column in decoder.columns),
        ),
        training=TrainingSection(
            config=run.config.model_dump(mode="json"),
            manifests=tuple(
                ManifestSection(name=manifest.path.name, sha256=manifest.sha256, counts=manifest.counts)
                for manifest in reader.manifests
            ),
            seed=run.cfg.seed,
            threads=run.cfg.threads,
            device=run.device,
            precision=run.precision,
            epochs=len(progress.rows),
            best_epoch=progress.best_epoch,
            n_images=reader.n_tiles,
            wall_time_s=round(wall_time_s, 1),
            images_per_cpu_s=_images_per_cpu_s(run, progress),
            origin=run.origin and OriginSection(name=run.origin.card.name, sha256=run.origin.card.bundle_sha256),
            versions={"lightpool": __version__}
            | package_versions(("torch", "lightning", "numpy", "onnx", "onnxscript")),
        ),
        # JSON has no NaN: a metric that is not defined is null.
        validation={name: value if math.isfinite(value) else None for name, value in validation.items()},
        limits=_limits(run),
        citation=f"lightpool {__version__}; {run.config.model.name}: {model_entry(run.config.model.name).paper}.",
    )


def _images_per_cpu_s(run: _Run, progress: "Progress") -> float | None:
    """Training images per second of the processor's time; with an accelerator that would say nothing."""
    if run.device != "cpu" or not progress.cpu_time_s:
        return None
    per_epoch = min(run.train_tiles.n_batches(run.config.batch_size) * run.config.batch_size, run.train_tiles.n_tiles)
    return round(per_epoch * len(progress.rows) / progress.cpu_time_s, 1)


def _cameras(reader: TileReader) -> tuple[CameraSection, ...]:
    identity = reader.attributes.get("camera_identity")
    if identity is None:
        return ()
    names = {attributes.get("camera_name", "") for attributes in reader.shard_attributes()}
    return (CameraSection(identity=identity, name=", ".join(sorted(filter(None, names)))),)


def _limits(run: _Run) -> tuple[str, ...]:
    """What the training tiles did not cover, from the tiles themselves."""
    reader = run.train_tiles
    ranges = {
        "true_energy_tev": ("true energy", "TeV"),
        "true_offset_deg": ("angle between source and pointing", "deg"),
        "hillas_intensity": ("image size", "p.e."),
        "noise": ("background noise", run.train_tiles.attributes.get("unit") or "unit of the frame"),
    }
    found = [f"trained on {reader.n_tiles:,} images of {reader.n_groups:,} {_GROUPS[run.objective.kind]}"]
    events = reader.events([name for name in ranges if name in reader.columns])
    for name, (words, unit) in ranges.items():
        if name in events:
            low, high = np.nanquantile(events[name], [0.01, 0.99])
            found.append(f"{words} from {low:.3g} to {high:.3g} {unit} (98 % of the training images)")
    found.append("no GPU was used or tested" if run.device == "cpu" else f"trained on {run.device}")
    return tuple(found)


def _summary(progress: "Progress") -> str:
    metric = progress.objective.monitor.metric
    return f"validation {metric} {progress.best_row[metric]:.4g}"
