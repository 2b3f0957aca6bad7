"""`lightpool simulate showers`: one run of gamma or proton showers as DL1 HDF5, with truth."""

import logging
import time
from pathlib import Path

from pipeline import provenance
from pipeline.config import Config
from pipeline.files import atomic_output, check_free

log = logging.getLogger(__name__)


def simulate_showers(cfg: Config, run: int, out: str | Path, seed: int | None = None, force: bool = False) -> Path:
    """Simulate run number `run` and write its triggered images.

    Parameters
    ----------
    cfg : Config
        Section `showers` says what is thrown where; `tiles.camera.cleaning` gives the image masks and parameters.
    run : int
        1-based; runs count through the classes of the configuration in their order.
    out : path
        DL1 file, data model v7.1.0.
    seed : int, optional
        Replaces ``cfg.seed``. A shower depends on seed, run and its number in the run only.
    force : bool
        Replace an existing file.

    Returns
    -------
    path
        `out`.

    Raises
    ------
    UserError
        If the configuration has no such run or telescope, or `out` exists and `force` is false.
    """
    out = check_free(out, force=force)
    shower_class = cfg.showers.class_of_run(run)
    # Numba and PyTables are imported, and the configuration is known to be good, only from here on.
    from pipeline.camera.dl1 import DL1Writer
    from pipeline.camera.showers.generate import run_showers, simulation_run, subarray

    seed = cfg.seed if seed is None else seed
    run_info = simulation_run(cfg.showers, run)
    cleaning = cfg.tiles.camera.cleaning
    stamped = provenance.stamp(
        "simulate showers",
        config=cfg.showers.model_dump(mode="json"),
        cleaning=cleaning.model_dump(mode="json"),
        seed=seed,
        run=run,
    )
    began = time.perf_counter()
    with (
        atomic_output(out, force=force) as temporary,
        DL1Writer(
            temporary,
            subarray(cfg.showers),
            obs_id=run,
            pointing_alt_rad=run_info.min_alt_rad,
            pointing_az_rad=run_info.min_az_rad,
            simulation=run_info,
            provenance=stamped,
        ) as writer,
    ):
        run_showers(cfg.showers, run, seed, writer, cleaning)
    wall_s = time.perf_counter() - began
    provenance.write_sidecar(out, stamped, wall_s=round(wall_s, 3), n_images=writer.n_images)
    log.info(
        "simulated %s: %d %s showers, %d images in %.1f s",
        out,
        shower_class.showers_per_run,
        shower_class.particle,
        writer.n_images,
        wall_s,
    )
    return out
