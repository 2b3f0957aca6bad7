"""The card of a network that was just trained (torch)."""

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from models.describe import count_params, describe
from models.registry import model_entry
from pipeline import __version__
from pipeline.bundle.calibration import Calibration
from pipeline.bundle.card import (
    CameraSection,
    Card,
    GroupsSection,
    HeadSection,
    InputSection,
    ManifestSection,
    ModelSection,
    OriginSection,
    OutputColumn,
    TrainingSection,
)
from pipeline.bundle.false_alarms import FalseAlarms
from pipeline.provenance import package_versions
from pipeline.tiles.events import EventReader
from pipeline.tiles.manifest import Manifest
from pipeline.tiles.reader import TileReader
from pipeline.tiles.trained import Groups

if TYPE_CHECKING:
    from torch import nn

    from pipeline.stages.train import TrainingRun
    from pipeline.training.callbacks import Progress
    from pipeline.training.heads import Head

_GROUPS = {"camera": "showers", "sky": "fields"}
_NOT_METRICS = ("epoch", "learning_rate", "train_loss")
# Event columns whose ranges a card gives: what they are, and their unit (None: that of the frame).
_RANGES = {
    "true_energy_tev": ("true energy", "TeV"),
    "true_offset_deg": ("angle between source and pointing", "deg"),
    "hillas_intensity": ("image size", "p.e."),
    "noise": ("background noise", None),
}


def card_of(
    run: "TrainingRun",
    network: "nn.Module",
    progress: "Progress",
    calibrations: Mapping[str, Calibration],
    false_alarms: Mapping[str, FalseAlarms],
    wall_time_s: float,
) -> Card:
    """The card of a trained network, without the digest of its files; `calibrations` and `false_alarms` by task."""
    reader, model = run.train_tiles, run.config.model
    gives_map = model_entry(model.name).gives == "map"
    validation = {name: value for name, value in progress.best_row.items() if name not in _NOT_METRICS}
    return Card(
        name=f"{run.cfg.name}_{run.network}".replace("-", "_").replace(".", "_"),
        network=run.network,
        wing=run.config.wing,
        model=ModelSection(
            name=model.name,
            kwargs=run.model_kwargs,
            in_chans=run.input.n_channels,
            num_outputs=run.heads.num_outputs,
            n_scalars=len(run.input.scalar_names),
            n_parameters=count_params(network),
            receptive_field_px=_receptive_field_px(run) if gives_map else None,
        ),
        cameras=_cameras(reader),
        input=InputSection(
            channels=tuple(channel.name for channel in reader.channels),
            units=tuple(channel.unit for channel in reader.channels),
            tile_shape=reader.tile_shape,
            recipe=reader.attributes.get("recipe"),
            unit=reader.attributes.get("unit"),
            preparation=run.input,
            size_multiple=network.size_multiple if gives_map else None,
        ),
        heads=tuple(_head(head, calibrations.get(head.task), false_alarms.get(head.task)) for head in run.heads.heads),
        mono=_origins(run) if run.mono_bundles else (),
        training=_training(run, progress, wall_time_s),
        # JSON has no NaN: a metric that is not defined is null.
        validation={name: value if math.isfinite(value) else None for name, value in validation.items()},
        limits=_limits(run),
        citation=f"lightpool {__version__}; {model.name}: {model_entry(model.name).paper}.",
    )


def _receptive_field_px(run: "TrainingRun") -> int | None:
    side = max(run.train_tiles.tile_shape)
    layers = describe(run.config.model.name, side, run.input.n_channels, run.heads.num_outputs, **run.model_kwargs)
    return layers.receptive_field_px


def _origins(run: "TrainingRun") -> tuple[OriginSection, ...]:
    return tuple(OriginSection(name=origin.card.name, sha256=origin.card.bundle_sha256) for origin in run.origins)


def _head(head: "Head", calibration: Calibration | None, false_alarms: FalseAlarms | None) -> HeadSection:
    spec = head.objective.spec
    return HeadSection(
        task=spec.name,
        first=head.first,
        outputs=head.objective.outputs,
        options=head.objective.options.model_dump(mode="json"),
        transform=spec.transform,
        columns=tuple(OutputColumn(name=c.name, unit=c.unit, description=c.description) for c in spec.shown),
        calibration=calibration,
        false_alarms=false_alarms,
    )


def _training(run: "TrainingRun", progress: "Progress", wall_time_s: float) -> TrainingSection:
    reader = run.train_tiles
    return TrainingSection(
        config=run.config.model_dump(mode="json"),
        manifests=tuple(
            ManifestSection(name=manifest.path.name, sha256=manifest.sha256, counts=manifest.counts)
            for manifest in reader.manifests
        ),
        seed=run.cfg.seed,
        threads=run.cfg.threads,
        device=run.device,
        ranks=run.ranks.n_ranks,
        precision=run.precision,
        epochs=len(progress.rows),
        best_epoch=progress.best_epoch,
        n_images=reader.n_tiles,
        wall_time_s=round(wall_time_s, 1),
        images_per_cpu_s=_images_per_cpu_s(run, progress),
        origins=_origins(run),
        groups=_groups(reader.manifests),
        versions={"lightpool": __version__} | package_versions(("torch", "lightning", "numpy", "onnx", "onnxscript")),
    )


def _groups(manifests: Sequence[Manifest]) -> GroupsSection:
    """What tells a manifest that divides the same tiles in another way."""
    with closing(Groups(manifests, "train")) as groups:
        largest_key, marks = groups.sample()
    return GroupsSection(largest_key=largest_key, marks=tuple(marks))


def _images_per_cpu_s(run: "TrainingRun", progress: "Progress") -> float | None:
    """Training images per second of CPU time; None with an accelerator or several ranks, where it has no meaning."""
    if run.device != "cpu" or run.ranks.together or not progress.cpu_time_s:
        return None
    reader, batch_size = run.train_tiles, run.config.batch_size
    n_items = reader.n_events if isinstance(reader, EventReader) else reader.n_tiles
    # The last, partial batch of an epoch is left out, unless it is the only one.
    share = min(reader.n_batches(batch_size) * batch_size / n_items, 1)
    per_epoch = share * reader.n_tiles
    return round(per_epoch * len(progress.rows) / progress.cpu_time_s, 1)


def _cameras(reader: TileReader) -> tuple[CameraSection, ...]:
    return tuple(CameraSection(identity=camera.identity, name=camera.name) for camera in reader.cameras)


def _limits(run: "TrainingRun") -> tuple[str, ...]:
    """What the training tiles did not cover, from the tiles themselves."""
    reader = run.train_tiles
    limits = [f"trained on {reader.n_tiles:,} images of {reader.n_groups:,} {_GROUPS[run.config.wing]}"]
    events = reader.events([name for name in _RANGES if name in reader.columns])
    for name, (words, unit) in _RANGES.items():
        if name in events:
            low, high = np.nanquantile(events[name], [0.01, 0.99])
            unit = unit or reader.attributes.get("unit") or "unit of the frame"
            limits.append(f"{words} from {low:.3g} to {high:.3g} {unit} (98 % of the training images)")
    if run.config.wing == "sky" and run.input.population is None:
        limits.append("too few training frames to say which frames are unlike them")
    limits.append("no GPU was used or tested" if run.device == "cpu" else f"trained on {run.device}")
    return tuple(limits)
