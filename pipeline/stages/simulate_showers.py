"""`lightpool simulate showers`: one run of showers of one kind as DL1 HDF5, with truth."""

import time
from pathlib import Path
from typing import Any

from pipeline import provenance
from pipeline.config import Config, ShowersConfig, sections_of
from pipeline.files import atomic_output, check_free
from pipeline.logs import get_logger

log = get_logger(__name__)

#: Keys and sections of the configuration that decide a run: DL1 holds image masks and parameters, so the cleaning is
#: one. The scale decides how many runs there are: those of a smaller scale stay as they are.
READS = (
    *(f"showers.{key}" for key in ShowersConfig.model_fields if key != "scale"),
    "tiles.camera.cleaning",
    "seed",
)
#: The same for a run of the section `irf`.
READS_IRF = (*READS, "irf.classes")


def simulate_showers(
    cfg: Config, run: int, out: str | Path, seed: int | None = None, force: bool = False, jobs: int = 1
) -> Path:
    """Simulate run number `run` and write its triggered images.

    Parameters
    ----------
    cfg : Config
        Section `showers` (for the runs of responses also `irf.classes`) defines primaries and telescopes;
        `tiles.camera.cleaning` the image masks and parameters.
    run : int
        Runs count through the classes of a section in their order: from 1 those of `showers`, from 10001 those of
        `irf`.
    out : path
        DL1 file, data model v7.1.0.
    seed : int, optional
        Replaces ``cfg.seed``. A shower depends on seed, run and its number in the run only.
    force : bool
        Replace an existing file.
    jobs : int
        Number of processes; the file is the same for any.

    Returns
    -------
    path
        `out`.

    Raises
    ------
    UserError
        If the configuration has no such run or telescope, `out` exists and `force` is false, or a process
        was killed.
    """
    out = check_free(out, force=force)
    cfg = cfg.model_copy(update={"showers": cfg.showers_of_run(run)} | ({} if seed is None else {"seed": seed}))
    shower_class = cfg.showers.class_of_run(run)
    # Numba and PyTables are imported, and the configuration is known to be good, only from here on.
    from pipeline.camera.dl1 import DL1Writer
    from pipeline.camera.showers.array import subarray
    from pipeline.camera.showers.generate import run_showers, simulation_run
    from pipeline.camera.showers.primaries import pointing

    alt_rad, az_rad = pointing(cfg.showers)
    array = subarray(cfg.showers)
    stamped = _stamped(cfg, run)
    began = time.perf_counter()
    with atomic_output(out, force=force) as temporary:
        with DL1Writer(
            temporary, array, obs_id=run, pointing_alt_rad=alt_rad, pointing_az_rad=az_rad,
            simulation=simulation_run(cfg.showers, run), provenance=stamped,
        ) as writer:  # fmt: skip
            run_showers(cfg.showers, run, cfg.seed, writer, cfg.tiles.camera.cleaning, jobs)
        wall_s = time.perf_counter() - began
        provenance.write_sidecar(temporary, stamped, wall_s=round(wall_s, 3), n_images=writer.n_images)
    log.info(
        "simulated %s: %d %s showers, %d images in %.1f s",
        out, shower_class.showers_per_run, shower_class.particle, writer.n_images, wall_s,
    )  # fmt: skip
    return out


def _stamped(cfg: Config, run: int) -> dict[str, Any]:
    """Provenance that is equal for equal runs."""
    from pipeline.camera.showers.particles import PRIMARIES

    files = cfg.showers.geometry_files
    facts: dict[str, Any] = {"geometry_sha256": {name: provenance.sha256_file(path) for name, path in files.items()}}
    nucleons, _ = PRIMARIES[cfg.showers.class_of_run(run).particle]
    if len(nucleons) > 1:
        facts["nucleus"] = f"superposition: {len(nucleons)} independent nucleons with equal shares of the energy"
    return provenance.stamp(
        "simulate showers",
        config=sections_of(cfg, READS),
        run=run,
        **facts,
    )
