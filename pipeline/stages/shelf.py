"""The models of `predict`: those that were named, or those among the ones that ship that serve a file."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline import provenance
from pipeline.bundle.card import Card, list_bundles, load_bundle_card
from pipeline.bundle.runtime import Predictor
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.logs import get_logger

if TYPE_CHECKING:
    from pipeline.camera.dl1 import DL1File
    from pipeline.camera.predictions import CameraModel

log = get_logger(__name__)

#: What is done to a frame where nobody asks for one of these, in the order of preference.
_FOR_FRAMES = ("denoise", "defects")
_ADVICE = "train one with `lightpool train`, and name it with --bundle"


class Shelf:
    """The models that ship, each opened once, when a file needs it.

    Parameters
    ----------
    cfg : Config
        `threads`, `backend` and `predict` are used.
    """

    def __init__(self, cfg: Config) -> None:
        self._cfg = cfg
        self.cards = {name: load_bundle_card(name) for name in list_bundles()}
        self._opened: dict[str, Predictor] = {}

    def open(self, name: str) -> Predictor:
        """The model of that name."""
        if name not in self._opened:
            self._opened[name] = Predictor.load(name, threads=self._cfg.threads, backend=self._cfg.backend)
        return self._opened[name]

    def for_events(
        self, file: "DL1File", source: Path, event: int | None = None, telescope: int | None = None
    ) -> "list[CameraModel]":
        """Models for the images of a file, or for those of one event or telescope.

        Of each camera: those for whole events, where an event has two images or more, else those for single images.
        Every task is that of the model with the fewest others.

        Parameters
        ----------
        file : DL1File
        source : path
            What it was made from, for messages.
        event, telescope : int, optional
            As asked for.

        Raises
        ------
        UserError
            If no model serves one of the cameras.
        """
        from pipeline.camera.predictions import CameraModel

        asked = [tel_id for tel_id in file.tel_ids if telescope in (None, tel_id) and file.n_images_of(tel_id)]
        asked = asked or list(file.telescopes)  # an empty file, or a telescope that is not there: others say so
        tel_ids: dict[str, list[int]] = {}
        for tel_id in asked:
            tel_ids.setdefault(file.telescopes[tel_id].identity, []).append(tel_id)
        tasks: dict[str, set[str]] = {}
        for identity, own in tel_ids.items():
            cards = {name: card for name, card in self.cards.items() if identity in _served(card)}
            together = _has_coincidence(file, own, event)
            fitting = {name: card for name, card in cards.items() if card.of_events == together} or cards
            for task, name in _best(fitting).items():
                tasks.setdefault(name, set()).add(task)
        if not tasks:
            raise UserError(self._unserved(source, sorted({file.telescopes[tel_id].name for tel_id in asked})))
        self._say(source, tasks)
        models = []
        for name in sorted(tasks):
            model = CameraModel.of(self.open(name))
            models.append(replace(model, heads=tuple(h for h in model.heads if h.spec.name in tasks[name])))
        return models

    def for_frames(self, source: Path) -> list[Predictor]:
        """The model for a FITS frame: for the head that `predict.only` names, else one that denoises.

        Raises
        ------
        UserError
            If there is none.
        """
        wanted = (self._cfg.predict.only,) if self._cfg.predict.only else _FOR_FRAMES
        best = _best({name: card for name, card in self.cards.items() if card.wing == "sky"})
        task = next((task for task in wanted if task in best), None)
        if task is None:
            what = f"for {self._cfg.predict.only} " if self._cfg.predict.only else ""
            raise UserError(f"{source} is a FITS frame, and no model {what}that ships is for frames; {_ADVICE}")
        name = best[task]
        self._say(source, {name: {task}})
        return [self.open(name).set_up(self._cfg.predict.only or None, self._cfg.predict.fpr)]

    def that_made(self, product: Path) -> dict[str, Predictor]:
        """Those among the models that ship that the provenance of a product names."""
        named = provenance.record_of(product).get("bundles")
        names = set(named) if isinstance(named, dict) else set()
        return {name: self.open(name) for name in self.cards if name in names}

    def _unserved(self, source: Path, cameras: Sequence[str]) -> str:
        served = {camera.name or camera.identity for card in self.cards.values() for camera in card.cameras}
        others = f" (they serve {', '.join(sorted(served))})" if served else ""
        return f"{source}: no model that ships serves {', '.join(cameras)}{others}; {_ADVICE}"

    def _say(self, source: Path, tasks: Mapping[str, Iterable[str]]) -> None:
        if tasks:
            models = (f"{name} ({', '.join(sorted(tasks[name]))})" for name in sorted(tasks))
            log.info("%s: taking %s, which ship with lightpool", source.name, " and ".join(models))


@dataclass
class Models:
    """The bundles, by what they work on; where none was named, those that ship."""

    camera: "list[CameraModel]" = field(default_factory=list)
    sky: list[Predictor] = field(default_factory=list)
    shelf: Shelf | None = None

    @classmethod
    def load(cls, bundles: Sequence[str | Path], cfg: Config) -> "Models":
        """Open the bundles that were named.

        Raises
        ------
        UserError
            If one is not there, or has no such head or rate as the configuration asks for.
        """
        if not bundles:
            return cls(shelf=Shelf(cfg))
        predictors = [Predictor.load(bundle, threads=cfg.threads, backend=cfg.backend) for bundle in bundles]
        camera = [predictor for predictor in predictors if predictor.card.wing == "camera"]
        sky = [predictor for predictor in predictors if predictor.card.wing == "sky"]
        models = cls(sky=[predictor.set_up(cfg.predict.only or None, cfg.predict.fpr) for predictor in sky])
        if camera:
            from pipeline.camera.predictions import CameraModel, distinct

            models.camera = distinct([CameraModel.of(predictor) for predictor in camera])
        return models

    def for_events(
        self, file: "DL1File", source: Path, event: int | None, telescope: int | None
    ) -> "list[CameraModel]":
        """Those for the images of a file, see `Shelf.for_events`."""
        return self.camera if self.shelf is None else self.shelf.for_events(file, source, event, telescope)

    def for_frames(self, path: Path) -> list[Predictor]:
        """Those for a frame."""
        return self.sky if self.shelf is None else self.shelf.for_frames(path)

    def that_made(self, product: Path, wing: str) -> dict[str, Predictor]:
        """Those that a product says it was made by, or would be made by now."""
        if self.shelf is not None:
            return self.shelf.that_made(product)
        if wing == "sky":
            return {predictor.card.name: predictor for predictor in self.sky}
        return {model.name: model.predictor for model in self.camera}

    def named(self) -> str:
        """Their names and what each is for."""
        names = [(model.name, "camera files") for model in self.camera]
        names += [(predictor.card.name, "FITS frames") for predictor in self.sky]
        return ", ".join(f"{name} (for {what})" for name, what in names)


def _served(card: Card) -> tuple[str, ...]:
    return tuple(camera.identity for camera in card.cameras)


def _best(cards: Mapping[str, Card]) -> dict[str, str]:
    """Task -> the model that does nothing else, or as little else as possible."""
    found: dict[str, str] = {}
    for name in sorted(cards, key=lambda name: (len(cards[name].tasks), name)):
        for task in cards[name].tasks:
            found.setdefault(task, name)
    return found


def _has_coincidence(file: "DL1File", tel_ids: Sequence[int], event: int | None) -> bool:
    """Whether at least two of the telescopes have an image of the same event."""
    if len(tel_ids) < 2:
        return False
    if event is not None:
        return len(file.telescopes_of(event, tel_ids)) > 1
    seen = np.concatenate([file.index(tel_id)["order"] for tel_id in tel_ids])
    return len(np.unique(seen)) < len(seen)
