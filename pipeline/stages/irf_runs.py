"""`lightpool irf` without files: its runs are simulated and predicted first."""

from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.camera.irf.forest import forest_tiles
from pipeline.camera.irf.models import Models, load_models
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.files import reserved, temporary_folder
from pipeline.logs import get_logger
from pipeline.stages.irf import bundles_folder, irf
from pipeline.stages.predict import predict
from pipeline.stages.simulate_showers import simulate_showers
from pipeline.workers import in_order

log = get_logger(__name__)


def irf_from_runs(
    cfg: Config,
    out: str | Path,
    *,
    bundles: str | Path | None = None,
    tiles: Sequence[str | Path] = (),
    jobs: int = 1,
    force: bool = False,
) -> Path:
    """Simulate and predict the runs of the section `irf`, and make responses of them.

    Parameters
    ----------
    cfg : Config
        Sections `irf` and `showers`, and what `predict` reads.
    out, bundles, tiles, force
        See `pipeline.stages.irf.irf`.
    jobs : int
        Number of processes, each for one run.

    Raises
    ------
    UserError
        As `pipeline.stages.irf.irf`; or if the section has no runs.
    """
    if not cfg.irf.n_runs:
        raise UserError(
            "the section irf has no runs of showers (irf.classes), and no DL2 files are given; give one of the two"
        )
    models = load_models(cfg, bundles_folder(cfg, bundles))
    forest_tiles(cfg, tiles)  # what is wrong with them is said before hours of simulation
    with reserved(out, force=force, folder=True), temporary_folder() as work:
        log.info("simulating and predicting %d runs for responses", cfg.irf.n_runs)
        runs = in_order(_run_maker, (cfg, models, work), cfg.irf.runs, min(jobs, cfg.irf.n_runs))
        return irf(cfg, out, list(runs), bundles=bundles, tiles=tiles, jobs=jobs, force=force)


def _run_maker(cfg: Config, models: Models, folder: Path) -> Callable[[int], Path]:
    def make(run: int) -> Path:
        events = simulate_showers(cfg, run, folder / f"run_{run}.dl1.h5")
        out = folder / f"run_{run}.dl2.h5"
        (status,) = predict(cfg, [events], models.bundles, out)
        events.unlink()
        if status["status"] == "failed":
            raise UserError(status["reason"])
        return out

    return make
