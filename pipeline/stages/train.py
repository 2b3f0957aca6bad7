"""Train one network on tiles and write it as a bundle."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import Config, sections_of
from pipeline.device import choose_precision, torch_threads
from pipeline.errors import UserError
from pipeline.files import atomic_output, reserved
from pipeline.inputs import Input, get_input
from pipeline.logs import get_logger
from pipeline.provenance import stamp, write_sidecar
from pipeline.training.ranks import ALONE, Ranks
from pipeline.training.unfinished import checkpoint_folder, checkpoints_of

if TYPE_CHECKING:
    from torch import nn

    from pipeline.bundle.card import Card
    from pipeline.tiles.manifest import Manifest
    from pipeline.training.callbacks import Progress
    from pipeline.training.module import TrainingModule
    from pipeline.training.transfer import Origin

logger = get_logger(__name__)

FIGURE_FILE = "learning_curves.png"


def reads(network: str) -> tuple[str, ...]:
    """Sections of the configuration that decide the weights of a network."""
    return (f"networks.{network}", "seed")


def train(
    cfg: Config,
    network: str,
    manifests: "Sequence[str | Path | Manifest]",
    out: str | Path,
    resume: bool = False,
    force: bool = False,
) -> Path:
    """Train `network` on the tiles of `manifests` and write the bundle `out`.

    The state after each epoch, and every `cfg.checkpoint_minutes` within one, is kept in `OUT.ckpt` until the bundle is
    written. A run that was stopped resumes from there and ends with the same weights, bit for bit, as an uninterrupted
    one. Processes that torchrun starts train together; the first one writes.

    Parameters
    ----------
    cfg : Config
    network : str
        A key of `cfg.networks`.
    manifests : sequence of path or Manifest
    out : path
        Directory to make.
    resume : bool
        Resume from `OUT.ckpt` also with `force`, which starts again without it.
    force : bool
        Replace `out`, and start again where `OUT.ckpt` is not resumed or belongs to another configuration.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    UserError
        If an output exists, or network, tiles and configuration do not fit together; before any long work.
    """
    cfg.network(network)  # an unknown name fails before torch is imported
    ranks = Ranks.of_environment()
    if ranks.rank:
        return _help(cfg, network, manifests, Path(out), ranks)
    with reserved(out, force=force, folder=True) as out:
        run = TrainingRun(cfg, network, manifests, bundles=out.parent, ranks=ranks)
        with checkpoints_of(out, run.stamped, resume=resume, force=force) as checkpoints, torch_threads(cfg.threads):
            progress = _fit_and_write(run, checkpoints, out, force=force)
    metric = progress.monitor.metric
    logger.info(
        "wrote %s: epoch %d is the best: validation %s %.4g",
        out, progress.best_epoch, metric, progress.best_row[metric],
    )  # fmt: skip
    return out


def _help(cfg: Config, network: str, manifests: "Sequence[str | Path | Manifest]", out: Path, ranks: Ranks) -> Path:
    """Train as one of the other ranks, which write nothing."""
    with ranks.only_first_talks(), torch_threads(cfg.threads):
        run = TrainingRun(cfg, network, manifests, bundles=out.parent, ranks=ranks)
        run.fit(checkpoint_folder(out))
    return out


def _fit_and_write(run: "TrainingRun", checkpoints: Path, out: Path, *, force: bool) -> "Progress":
    from pipeline.bundle.card import MONO_FOLDER
    from pipeline.bundle.description import card_of
    from pipeline.training.calibrate import calibrations, false_alarms
    from pipeline.training.frame_variance import with_variances

    started = time.monotonic()
    progress = run.fit(checkpoints)
    wall_time_s = time.monotonic() - started
    trained = run.new_network()
    trained.load_state_dict(progress.best)
    found = calibrations(trained, run.heads, run.input, run.validation_tiles, run.device)
    alarms = false_alarms(trained, run.heads, run.input, run.validation_tiles, run.device)
    card = card_of(run, trained, progress, found, alarms, wall_time_s)
    card = with_variances(card, trained, run.validation_tiles, run.device)
    with atomic_output(out, force=force, folder=True) as temporary:
        _write(trained, card, progress, temporary)
        for number, bundle in enumerate(run.mono_bundles):
            shutil.copytree(bundle, temporary / MONO_FOLDER.format(number=number))
        write_sidecar(temporary, run.stamped, wall_time_s=round(wall_time_s, 1))
    return progress


class TrainingRun:
    """Everything that defines a run, checked: what cannot be trained fails here, within seconds.

    Parameters
    ----------
    cfg : Config
    network : str
    manifests : sequence of path or Manifest
    bundles : path
        Folder of the experiment's bundles, where the network named by `start_from` is looked up.
    ranks : Ranks
        This process among those that train together.
    """

    def __init__(
        self,
        cfg: Config,
        network: str,
        manifests: "Sequence[str | Path | Manifest]",
        bundles: Path,
        ranks: Ranks = ALONE,
    ) -> None:
        from pipeline.training.augmentation import check_augmentation
        from pipeline.training.heads import Heads

        self.cfg, self.network, self.config, self.ranks = cfg, network, cfg.network(network), ranks
        ranks.share_of(self.config.batch_size, network)
        self.device = ranks.device(cfg.device)
        self.precision = choose_precision(self.config.precision, self.device)
        self.heads = Heads(self.config)
        self.heads.check(manifests)
        self.train_tiles = self.heads.reader(manifests, "train")
        self.validation_tiles = self.heads.reader(manifests, "validation")
        check_augmentation(
            self.config.augmentation,
            f"networks.{network}",
            wing=self.config.wing,
            cameras=[camera.identity for camera in self.train_tiles.cameras],
            scalars=self.config.scalars,
            motions={head.task: head.objective.targets.motions for head in self.heads.heads},
            of_events=self.of_events,
            may_move=get_input(self.config.input).may_move,
        )
        self.origins = self._origins(bundles)
        self.input = self._fitted_input()
        self.model_kwargs = self._model_kwargs()
        self.new_network()  # refuses what does not fit
        self._check_origins_held_out()
        self.stamped = stamp(
            "train",
            config={"network": network} | sections_of(cfg, reads(network)),
            manifests=[manifest.sha256 for manifest in self.train_tiles.manifests],
            precision=self.precision,
            **({"ranks": ranks.n_ranks} if ranks.together else {}),
            **({"origin_sha256": [o.card.bundle_sha256 for o in self.origins]} if self.origins else {}),
        )

    def fit(self, checkpoints: Path) -> "Progress":
        """Run the remaining epochs, with the other ranks."""
        from pipeline.training.loop import fit

        with self.ranks.joined(self.device):
            self.ranks.wait()  # for the first one, which knows whether an earlier checkpoint is resumed
            return fit(
                self._module(),
                self.config,
                self.heads.monitor,
                checkpoints,
                device=self.device,
                precision=self.precision,
                checkpoint_minutes=self.cfg.checkpoint_minutes,
            )

    def new_network(self) -> "nn.Module":
        """The network with its initial weights, which depend on the seed and the bundle that it starts from alone."""
        import torch

        from pipeline.bundle.export import create_network
        from pipeline.training.data import WEIGHTS, keyed_seed
        from pipeline.training.transfer import start_encoders

        name, n_channels = self.config.model.name, self.input.n_channels

        def build(n_outputs: int) -> "nn.Module":
            return create_network(name, self.model_kwargs, n_channels, n_outputs, len(self.input.scalar_names))

        self._check_takes()
        with torch.random.fork_rng(devices=[]):
            self._check_fit(create_network(name, self.model_kwargs, n_channels, self.heads.num_outputs, 0))
            torch.manual_seed(keyed_seed(self.cfg.seed, WEIGHTS))
            if self.mono_bundles:
                network = build(self.heads.num_outputs)
                start_encoders(network, self.origins, scalars=self.config.scalars)
                return network
            if self.origins:
                return self.origins[0].network(build, outputs=self.heads.output_names, scalars=self.config.scalars)
            return build(self.heads.num_outputs)

    @property
    def mono_bundles(self) -> "list[Path]":
        """Bundles for the single images of each camera, in the order of the encoders that started from them."""
        if self.of_events and self.origins and self.origins[0].takes == "image":
            return [origin.directory for origin in self.origins]
        return []

    def _module(self) -> "TrainingModule":
        from pipeline.training.data import Feed
        from pipeline.training.module import TrainingModule

        network = self.new_network()
        return TrainingModule(
            network,
            Feed(self.input, self.heads, self.config.augmentation, self.cfg.seed, self.device),
            self.config,
            self.train_tiles,
            self.validation_tiles,
            frozen=self._frozen(network),
            name=self.network,
            ranks=self.ranks,
        )

    def _fitted_input(self) -> Input:
        """Fitted to the training tiles; scalars whose weights are kept are standardised as these learned it."""
        kind = get_input(self.config.input)
        if kind.wing != self.config.wing:
            raise UserError(
                f"networks.{self.network}.input: {self.config.input} reads {kind.wing} tiles, and its heads are of the "
                f"{self.config.wing}; use {self.config.specs[0].input}"
            )
        fitted = kind.fit(
            self.train_tiles,
            self.config.scalars,
            axis_maps=self.config.axis_maps,
            validation=self.validation_tiles,
        )
        if self.of_events:
            self.origins = self._by_camera(fitted)
        self._check_channels_of_origins(fitted)
        learned = [origin.card.input.preparation for origin in self.origins]
        if not learned or not self.config.scalars:
            return fitted
        if not all(origin.has_scalars(self.config.scalars) for origin in self.origins):
            return fitted
        if self.mono_bundles:
            return fitted.model_copy(update={"cameras": dict(zip(fitted.cameras, learned, strict=True))})
        if self.of_events:
            return fitted.model_copy(update={"cameras": learned[0].cameras})
        return fitted.model_copy(update={"scalar_statistics": learned[0].scalar_statistics})

    def _check_channels_of_origins(self, fitted: Input) -> None:
        """Weights are for the channels that they were trained on."""
        for origin in self.origins:
            learned = origin.card.input.preparation
            if learned.channel_names != fitted.channel_names:
                raise UserError(
                    f"networks.{self.network}.start_from: {origin.card.name} reads {', '.join(learned.channel_names)}, "
                    f"and this network {', '.join(fitted.channel_names)}; set networks.{self.network}.axis_maps: "
                    f"{'false' if self.config.axis_maps else 'true'}"
                )

    @property
    def of_events(self) -> bool:
        """Whether the network takes whole events of several telescopes."""
        return get_input(self.config.input).takes == "telescopes"

    def _origins(self, bundles: Path) -> "list[Origin]":
        if not self.config.start_from:
            return []
        from pipeline.training.transfer import Origin

        logger.info("starting from the weights of %s", ", ".join(self.config.start_from))
        return [Origin(bundles / name if name in self.cfg.networks else name) for name in self.config.start_from]

    def _check_origins_held_out(self) -> None:
        """What a bundle has seen, a network that starts from it has seen."""
        from pipeline.bundle.held_out import check_held_out

        for origin in self.origins:
            check_held_out(origin.card, self.train_tiles.manifests)

    def _by_camera(self, fitted: Input) -> "list[Origin]":
        """The bundles in the order of the cameras: each serves one of them; one of whole events serves all."""
        if not self.origins:
            return []
        of_events = next((origin for origin in self.origins if origin.takes == "telescopes"), None)
        if of_events:
            served = [camera.identity for camera in of_events.card.cameras]
            if len(self.origins) > 1 or served != list(fitted.cameras):
                raise UserError(
                    f"networks.{self.network}.start_from: {of_events.name} is of whole events of the cameras "
                    f"{', '.join(served)}, and the tiles are of {', '.join(fitted.cameras)}; name it alone, for tiles "
                    "of its cameras, or one bundle of single images for each camera"
                )
            return self.origins
        served = {camera.identity: origin for origin in self.origins for camera in origin.card.cameras}
        if len(self.origins) != len(fitted.cameras) or set(served) != set(fitted.cameras):
            raise UserError(
                f"networks.{self.network}.start_from names bundles for the cameras {', '.join(sorted(served))}, and "
                f"the tiles are of {', '.join(fitted.cameras)}; name one bundle of single images for each, or none"
            )
        return [served[identity] for identity in fitted.cameras]

    def _model_kwargs(self) -> dict[str, Any]:
        """Arguments of the network: those of the configuration, and of an array those that tiles and origins tell."""
        kwargs = dict(self.config.model.kwargs)
        if not self.of_events:
            return kwargs
        from pipeline.inputs.shower import N_PLACES, N_VECTORS

        kwargs |= {"n_places": N_PLACES, "n_cameras": len(self.input.cameras)}
        kwargs |= {"n_vectors": N_VECTORS, "vector_outputs": list(self.heads.vector_outputs)}
        if self.origins and "encoder" not in kwargs:
            model = self.origins[0].card.model
            if self.mono_bundles:
                kwargs |= {"encoder": model.name, "encoder_kwargs": model.kwargs}
            else:
                kwargs = model.kwargs | kwargs
        return kwargs

    def _frozen(self, network: "nn.Module") -> list["nn.Module"]:
        """Freeze what the configuration names; the parts of `network` that must stay in evaluation mode."""
        if not self.config.freeze:
            return []
        if self.of_events and self.config.freeze != "features":
            raise UserError(
                f"networks.{self.network}.freeze is {self.config.freeze}; of a network for events, only the "
                "features of all encoders can be kept: set it to features or 0"
            )
        import torch

        from pipeline.training.transfer import freeze

        return freeze(network, self.config.freeze, torch.zeros(1, self.input.n_channels, *self.train_tiles.tile_shape))

    def _check_takes(self) -> None:
        """Refuse a network for another kind of input."""
        from models.registry import model_entry

        name, kind = self.config.model.name, self.config.input
        try:
            entry, takes = model_entry(name), get_input(kind).takes
        except ValueError as error:  # no such model
            raise UserError(str(error)) from error
        if entry.takes == takes:
            self._check_gives(name, entry.gives)
            return
        if entry.takes == "telescopes":
            raise UserError(
                f"the model {name!r} joins the telescopes of a shower, and the input {kind} gives it single images; "
                "set input: shower, or use its encoder"
            )
        if takes == "telescopes":
            raise UserError(
                f"the model {name!r} takes one {entry.takes}, and the input {kind} gives whole events; use "
                "stereo_mean, stereo_attention, hyper_lstm or stereo_lstm"
            )
        raise UserError(
            f"the model {name!r} takes one {entry.takes}, and the input {kind} gives one {takes}; "
            "`lightpool models list` tells them apart"
        )

    def _check_gives(self, name: str, gives: str) -> None:
        """Refuse a network for another kind of output."""
        spec = self.config.specs[0]
        if gives != spec.gives:
            needed = {"map": "a map", "image": "a network that makes images"}.get(spec.gives, "numbers per image")
            raise UserError(
                f"the model {name!r} gives one {gives}, and the task {spec.name} needs {needed}; "
                "`lightpool models list` tells them apart"
            )

    def _check_fit(self, network: "nn.Module") -> None:
        """Refuse tiles that the network cannot take."""
        from models.registry import model_entry

        name, size, spec = self.config.model.name, self.train_tiles.tile_shape, self.config.specs[0]
        entry = model_entry(name)
        multiple = network.size_multiple if entry.gives == "map" else 1
        if any(side % multiple for side in size):
            raise UserError(
                f"tiles of {size[0]} x {size[1]} px do not fit the model {name!r}, which takes multiples of {multiple} "
                f"px: change tiles.{spec.wing}.size or the model's depth"
            )
        if min(size) < network.min_size:
            raise UserError(
                f"tiles of {size[0]} x {size[1]} px are too small for the model {name!r}, which needs "
                f"{network.min_size} px: change tiles.{spec.wing}.size or the model"
            )


def _write(network: "nn.Module", card: "Card", progress: "Progress", directory: Path) -> None:
    from pipeline.bundle.export import export_bundle
    from pipeline.figures.style import save_figure
    from pipeline.figures.training import learning_curves
    from pipeline.training.callbacks import write_log
    from pipeline.training.loop import LOG_FILE

    export_bundle(network, card, directory)
    write_log(progress.rows, directory / LOG_FILE)
    figure = learning_curves(progress.rows, progress.best_epoch, progress.monitor.metric)
    save_figure(figure, directory / FIGURE_FILE)
