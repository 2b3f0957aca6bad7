"""What a file is, and the page for it."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from pipeline.apps.view.server import Site, serve
from pipeline.bundle.runtime import Predictor
from pipeline.config import Config
from pipeline.errors import InputFileError, UserError
from pipeline.filetypes import file_kind
from pipeline.stages.prediction_plan import WING
from pipeline.stages.shelf import Shelf


def view(
    cfg: Config,
    path: Path,
    bundles: Sequence[str | Path] = (),
    *,
    announce: Callable[[str], None],
    port: int = 0,
    open_browser: bool = True,
    no_model: bool = False,
) -> None:
    """Show a file in the browser until Ctrl-C.

    Parameters
    ----------
    cfg : Config
        `threads`, `backend`, `ingest` and `predict` are used.
    path : path
        simtel, DL1 or lstchain; a FITS frame, as it came or as `lightpool predict` has written it.
    bundles : sequence of str or path
        Models to apply: of camera images and events, or one of frames. Without, those that ship and serve the file,
        where it has no predictions and is not restored.
    announce : callable
        Gets the address of the page.
    port : int
        0: any that is free.
    open_browser : bool
    no_model : bool
        Apply none: only what the file holds is shown.

    Raises
    ------
    UserError
        If the file or a bundle cannot be used, or the port is taken.
    """
    with ExitStack() as stack:
        site = site_of(cfg, path, bundles, stack, no_model=no_model)
        serve(site, port, announce=announce, open_browser=open_browser)


def site_of(
    cfg: Config, path: Path, bundles: Sequence[str | Path], stack: ExitStack, *, no_model: bool = False
) -> Site:
    """The site of a file; `stack` closes what it holds open.

    Raises
    ------
    UserError
        If the file or a bundle cannot be used.
    """
    kind = file_kind(path)
    if kind not in WING:
        what = "a DL2 file without images: give the DL1 file beside it" if kind == "dl2" else kind
        raise InputFileError(f"{path} is {what}; view takes simtel, DL1, lstchain and FITS files")
    if bundles and no_model:
        raise UserError("--bundle gives a model, and --no-model applies none; leave one of them out")
    wing = WING[kind]
    shelf = None if bundles or no_model else Shelf(cfg)
    predictors = [Predictor.load(bundle, threads=cfg.threads, backend=cfg.backend) for bundle in bundles]
    if other := [predictor.card.name for predictor in predictors if predictor.card.wing != wing]:
        what = "camera images" if wing == "camera" else "a FITS frame"
        raise UserError(f"{path} holds {what}, and {other[0]} is no model for that; give another --bundle")
    if wing == "camera":
        from pipeline.apps.view.events import EventSite
        from pipeline.camera.predictions import CameraModel, distinct

        return EventSite(path, kind, distinct([CameraModel.of(p) for p in predictors]), cfg, stack, shelf)
    if len(predictors) > 1:
        names = ", ".join(predictor.card.name for predictor in predictors)
        raise UserError(f"only one bundle can be applied to a frame, got {names}; give one")
    from pipeline.apps.view.frames import FrameSite

    predictor = predictors[0].set_up(cfg.predict.only or None, cfg.predict.fpr) if predictors else None
    return FrameSite(path, predictor, cfg, stack, shelf)
