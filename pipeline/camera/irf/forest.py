"""The stereo forests as a second method for responses: their values beside those of the networks, event by event.

They are the baseline of `lightpool evaluate`, trained in the same way on the same tiles; here they answer the events of
the runs for responses, and ctapipe's tools do with their columns what they do with those of the networks.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.camera.baselines import FOREST
from pipeline.camera.dl2 import add_events, outputs_of
from pipeline.camera.dl2.contents import TRIGGER, keys_of
from pipeline.camera.irf.images import EventImages, check_images, read_images
from pipeline.camera.irf.inputs import EventFile, Prefixes
from pipeline.camera.keys import KeyIndex
from pipeline.camera.stereo.forests import StereoForest
from pipeline.camera.stereo.training import events_of_split, train_forests
from pipeline.config import Config
from pipeline.errors import InputFileError, UserError
from pipeline.files import source_name
from pipeline.hdf5 import open_hdf5
from pipeline.inputs.image import ImageRecipe
from pipeline.logs import get_logger
from pipeline.tasks import get_spec
from pipeline.tasks.direction import baseline as direction
from pipeline.tasks.energy import baseline as energy
from pipeline.tasks.gammaness import baseline as gammaness
from pipeline.tiles.manifest import Manifest, load_manifests

log = get_logger(__name__)

#: Of the forests' columns in DL2.
PREFIXES = Prefixes(*(f"{FOREST}_{quantity}" for quantity in ("energy", "gammaness", "direction")))

_ESTIMANDS = {
    "energy": {energy.LOG10_ENERGY: energy.ESTIMANDS[energy.LOG10_ENERGY]},
    "gammaness": {gammaness.GAMMANESS: gammaness.ESTIMANDS[gammaness.GAMMANESS]},
    "direction": {direction.NORM: direction.ESTIMANDS[direction.NORM]},
}


@dataclass(frozen=True)
class ForestTiles:
    """What the forests learn from.

    Attributes
    ----------
    manifests : tuple of Manifest
    recipe : ImageRecipe
        How the tiles were made.
    cameras : tuple of str
        Identities of their cameras.
    """

    manifests: tuple[Manifest, ...]
    recipe: ImageRecipe
    cameras: tuple[str, ...]


def forest_tiles(cfg: Config, manifests: Sequence[str | Path | Manifest]) -> ForestTiles | None:
    """The tiles for the forests; None where the section `irf` wants no baseline.

    Parameters
    ----------
    cfg : Config
    manifests : sequence of path or Manifest
        Of camera tiles; empty: that of the experiment, where the workflow puts it.

    Raises
    ------
    UserError
        If a baseline is wanted and there are no tiles, or the other way round, or the tiles hold no simulated events of
        two telescopes.
    """
    if cfg.irf.baseline is None:
        if manifests:
            raise UserError(
                "tiles are given, and no forests learn from them; set irf.baseline: forest, or leave --tiles out"
            )
        return None
    if not manifests:
        manifests = [usual := Path("results", cfg.name, "tiles", "camera.manifest.json")]
        if not usual.is_file():
            raise UserError(
                f"irf.baseline {cfg.irf.baseline} is trained on camera tiles, and there is no {usual}, where the "
                "workflow puts their manifest; say where it is (--tiles MANIFEST), or set baseline: null"
            )
    loaded = tuple(load_manifests(manifests))
    cameras = tuple(loaded[0].cameras)
    reader = events_of_split(get_spec("gammaness"), loaded, "train", cameras)
    reader.close()
    return ForestTiles(loaded, ImageRecipe.model_validate(reader.attributes["recipe"]), cameras)


@dataclass(frozen=True)
class EventForests:
    """Trained forests.

    Attributes
    ----------
    tiles : ForestTiles
    forests : mapping
        Task -> forest.
    """

    tiles: ForestTiles
    forests: Mapping[str, StereoForest]

    @classmethod
    def train(cls, tiles: ForestTiles, cfg: Config) -> "EventForests":
        """Train them as `lightpool evaluate` does.

        Raises
        ------
        UserError
            If a split has too few events.
        """
        forests = {}
        for task, estimands in _ESTIMANDS.items():
            log.info("training the forests for %s", task)
            (forests[task],) = train_forests(get_spec(task), estimands, tiles.manifests, tiles.cameras, cfg).values()
        return cls(tiles, forests)

    @property
    def settings(self) -> dict[str, Any]:
        """How each was chosen, by task."""
        return {task: forest.settings for task, forest in self.forests.items()}

    def predict(self, events: EventImages) -> dict[str, dict[str, np.ndarray]]:
        """Task -> field of ctapipe's container -> values of all events, NaN where fewer than two images are usable."""
        answers = {task: forest.predict(events.images) for task, forest in self.forests.items()}
        alt_deg, az_deg = direction.event_altaz_deg(events.images, answers["direction"])
        return {
            "energy": {"energy": 10.0 ** events.images.mean(answers["energy"])},
            "gammaness": {"prediction": events.images.mean(answers["gammaness"])},
            "direction": {"alt": alt_deg, "az": az_deg},
        }

    def complete(self, files: Sequence[EventFile], copies: Mapping[Path, Path], folder: Path) -> dict[Path, Path]:
        """Add the forests' values to copies of DL2 files.

        Parameters
        ----------
        files : sequence of EventFile
            As `check_events` accepts them.
        copies : mapping
            Path of a file -> that of the file with all other values, which may be itself.
        folder : path
            For the copies.

        Returns
        -------
        dict
            Path of a file -> that of the copy.
        """
        log.info("predicting %d files with the forests", len(files))
        made = {}
        for file in files:
            made[file.path] = folder / f"{source_name(file.path)}.with_{FOREST}.dl2.h5"
            shutil.copyfile(copies[file.path], made[file.path])
            events = read_images(file.path, self.tiles.recipe, self.tiles.cameras)
            self._add(events, made[file.path])
        return made

    def _add(self, events: EventImages, path: Path) -> None:
        """Write the values into a file, which may have the events in another order."""
        with open_hdf5(path) as file:
            keys = keys_of(file, TRIGGER)
        row, is_known = KeyIndex(events.obs_id, events.event_id).find(keys["obs_id"], keys["event_id"])
        images = events.images
        used = {
            int(tel_id): is_known & np.isin(row, images.event[images.columns["tel_id"] == tel_id])
            for tel_id in np.unique(images.columns["tel_id"])
        }
        for task, values in self.predict(events).items():
            (output,) = outputs_of(dict(PREFIXES)[task], get_spec(task).columns, of_events=True)
            own = {name: np.where(is_known, column[row], np.nan) for name, column in values.items()}
            add_events(path, output, own, used)


def check_events(files: Sequence[EventFile], tiles: ForestTiles) -> None:
    """Compare DL2 files with the tiles; see `check_images`. A file without events says nothing to compare.

    Raises
    ------
    InputFileError
        If one has other images than the tiles, or holds values of the forests already.
    """
    for file in files:
        for _, prefix in PREFIXES:
            if any(prefix == other for _, other in file.predicted):
                raise InputFileError(f"{file.path} holds values of {prefix} already; give the file without them")
        if file.n_events:
            check_images(file.path, tiles.recipe, tiles.cameras)
