"""Forests for events of several telescopes, trained on the tiles of a task."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.camera.baselines import Estimand
from pipeline.camera.stereo.forests import COLUMNS, StereoForest, StereoImages, stereo_images, train_stereo_forest
from pipeline.camera.task_tiles import reader_of, whole_groups
from pipeline.config import Config
from pipeline.errors import TooFewEventsError, UserError
from pipeline.tasks.spec import TaskSpec
from pipeline.tiles.event_rows import EVENT_KEYS, event_starts
from pipeline.tiles.events import EventReader
from pipeline.tiles.layout import CAMERA_COLUMN


def events_of_split(spec: TaskSpec, manifests: Sequence[Any], split: str, served: Sequence[str]) -> EventReader:
    """Tiles of one split in events of at least two images, chosen and weighted as in training; see `reader_of`.

    Raises
    ------
    UserError
        If the tiles are not of a camera, carry no truth, or there is no such event.
    """
    reader = reader_of(spec, manifests, split, EventReader, served)
    if reader.n_events == 0:
        raise TooFewEventsError(
            f"the {split} split has no event with images of two telescopes; simulate an array of several telescopes, "
            "more runs, or see tiles.splits"
        )
    return reader


def images_of(
    reader: EventReader, wanted: Iterable[str] = (), choose: Callable[[np.ndarray], np.ndarray] | None = None
) -> tuple[StereoImages, dict[str, np.ndarray]]:
    """Images of a reader with the axes of their showers, and their columns.

    Parameters
    ----------
    reader : EventReader
    wanted : iterable of str
        Further columns.
    choose : callable, optional
        Showers of all images (n,) -> which images are taken (n,), bool.

    Raises
    ------
    UserError
        If the tiles lack columns that events are reconstructed from.
    """
    if missing := [name for name in COLUMNS if name not in reader.columns]:
        raise UserError(
            f"the tiles do not have {', '.join(missing)}, which events of several telescopes are reconstructed from; "
            "make them again with this version's `lightpool tiles`"
        )
    rows = reader.events(dict.fromkeys([*EVENT_KEYS, *COLUMNS, "tel_id", CAMERA_COLUMN, *wanted]))
    if choose is not None:
        chosen = choose(rows["group"])
        rows = {name: column[chosen] for name, column in rows.items()}
    n = len(rows["group"])
    starts = event_starts(rows)
    event = np.repeat(np.arange(len(starts)), np.diff(starts, append=n))
    camera = np.array([camera.identity for camera in reader.cameras])[rows[CAMERA_COLUMN]]
    pixel_deg = np.array([[camera.tile_pixel_deg for camera in cameras] for cameras in reader.shard_cameras()])
    radius_deg = reader.tile_shape[0] / 2 * pixel_deg[rows["source_index"], rows[CAMERA_COLUMN]]
    return stereo_images(rows, event, len(starts), camera, radius_deg), rows


def train_forests(
    spec: TaskSpec, estimands: Mapping[str, Estimand], manifests: Sequence[Any], served: Sequence[str], cfg: Config
) -> dict[str, StereoForest]:
    """Train a forest for each quantity, with settings chosen on the validation split.

    Parameters
    ----------
    spec : TaskSpec
        Says which tiles are taken, and how they are weighted.
    estimands : mapping
        What is estimated for each image, by name.
    manifests : sequence of path or Manifest
    served : sequence of str
        Identities of the cameras whose images are taken.
    cfg : Config
        `evaluate.forest_trees`, `evaluate.max_baseline_images`, `seed` and `threads` are used.

    Raises
    ------
    UserError
        As `events_of_split` and `images_of`; or if a camera has too few images in a split.
    """
    if not estimands:
        return {}
    wanted = dict.fromkeys(column for estimand in estimands.values() for column in estimand.columns)
    splits = []
    for split in ("train", "validation"):
        reader = events_of_split(spec, manifests, split, served)
        splits.append(
            images_of(reader, wanted, lambda group: whole_groups(group, cfg.evaluate.max_baseline_images, cfg.seed))
        )
        reader.close()
    return {
        name: train_stereo_forest(
            *((images, estimand.target(rows), estimand.weights_of(rows)) for images, rows in splits),
            classes=estimand.classes,
            n_trees=cfg.evaluate.forest_trees,
            seed=cfg.seed,
            threads=cfg.threads,
        )
        for name, estimand in estimands.items()
    }
