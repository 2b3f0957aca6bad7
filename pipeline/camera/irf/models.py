"""What gives the values of the events for responses: trained models, and for directions perhaps ctapipe."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.bundle.card import resolve_bundle
from pipeline.bundle.runtime import Predictor
from pipeline.camera.irf import tools
from pipeline.camera.irf.inputs import GROUPS, EventFile, Prefixes
from pipeline.camera.predictions import CameraModel, distinct
from pipeline.config import HILLAS_RECONSTRUCTOR, Config
from pipeline.errors import InputFileError, UserError
from pipeline.files import source_name
from pipeline.logs import get_logger
from pipeline.workers import in_order

log = get_logger(__name__)


@dataclass(frozen=True)
class Models:
    """Bundles that give energies, gammaness and directions.

    Attributes
    ----------
    bundles : tuple of Path
        Each once.
    prefixes : Prefixes
        Of their columns in DL2.
    sha256 : dict
        Name of a bundle -> digest.
    """

    bundles: tuple[Path, ...]
    prefixes: Prefixes
    sha256: dict[str, str]

    @property
    def needs_directions(self) -> bool:
        """Whether ctapipe reconstructs the directions."""
        return self.prefixes.direction == HILLAS_RECONSTRUCTOR


def bundles_of(cfg: Config, folder: Path) -> dict[str, Path | None]:
    """Directory of the bundle for each quantity; None for directions of ctapipe.

    Parameters
    ----------
    cfg : Config
    folder : path
        With the bundles of the experiment's networks.

    Raises
    ------
    UserError
        If the section `irf` names none, or one that does not exist.
    """
    bundles: dict[str, Path | None] = {}
    for quantity in GROUPS:
        use = getattr(cfg.irf, quantity)
        if not use:
            raise UserError(f"irf.{quantity} is empty; name the network or the bundle that gives it")
        if use == HILLAS_RECONSTRUCTOR:
            bundles[quantity] = None
            continue
        if (folder / use).is_dir():
            bundles[quantity] = folder / use
            continue
        try:
            bundles[quantity] = resolve_bundle(use)
        except UserError as error:
            raise UserError(
                f"irf.{quantity}: there is no {folder / use}, where the workflow puts the networks of the experiment "
                f"(or say with --bundles where they are), and {error}"
            ) from None
    return bundles


def load_models(cfg: Config, folder: Path) -> Models:
    """The models that the section `irf` names, and how their columns are called.

    Raises
    ------
    UserError
        If one does not exist, or has no head for what it is named for.
    """
    places = bundles_of(cfg, folder)
    if places["direction"] is None and len(cfg.showers.places) < 2:
        raise UserError(
            f"irf.direction: {HILLAS_RECONSTRUCTOR} needs two telescopes, and the array has one; name a network with a "
            "head for the direction"
        )
    unique = tuple(dict.fromkeys(path.resolve() for path in places.values() if path is not None))
    models = distinct([CameraModel.of(Predictor.load(path, threads=cfg.threads)) for path in unique])
    by_path = dict(zip(unique, models, strict=True))
    prefixes = {}
    for quantity, path in places.items():
        if path is None:
            prefixes[quantity] = HILLAS_RECONSTRUCTOR
            continue
        model = by_path[path.resolve()]
        found = [head.prefix for head in model.heads if head.spec.name == quantity]
        if not found:
            heads = ", ".join(head.spec.name for head in model.heads)
            raise UserError(f"irf.{quantity}: {path} has no head {quantity}; it has {heads}")
        prefixes[quantity] = found[0]
    return Models(unique, Prefixes(**prefixes), {m.name: m.predictor.card.bundle_sha256 for m in models})


def with_directions(files: Sequence[EventFile], models: Models, folder: Path, jobs: int) -> list[Path]:
    """Paths of files that have directions: where ctapipe gives them and a file has none, they are added to a copy.

    Raises
    ------
    InputFileError
        If a file has neither directions nor image parameters to make them of.
    """
    place = ("geometry", models.prefixes.direction)
    if not models.needs_directions:
        return [file.path for file in files]
    missing = [file.path for file in files if place not in file.predicted]
    for file in files:
        if file.path in missing and not file.has_parameters:
            raise InputFileError(
                f"{file.path} has no directions by {HILLAS_RECONSTRUCTOR} and no image parameters to make them of; "
                "predict DL1 files that have parameters, or add the directions with ctapipe-process"
            )
    if missing:
        log.info("reconstructing directions in %d files with %s", len(missing), HILLAS_RECONSTRUCTOR)
    made = in_order(_direction_maker, (folder,), missing, max(1, min(jobs, len(missing))))
    copies = dict(zip(missing, made, strict=True))
    return [copies.get(file.path, file.path) for file in files]


def _direction_maker(folder: Path) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        out = folder / f"{source_name(path)}.with_directions.dl2.h5"
        tools.add_directions(path, out, folder)
        return out

    return make
