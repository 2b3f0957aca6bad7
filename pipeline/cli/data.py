"""Commands that make and describe data: simulate, validate, ingest, tiles, manifest, info."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.framework import (
    Files,
    Force,
    Jobs,
    KeepGoing,
    Run,
    Seed,
    ShardsOutside,
    app,
    command,
    exit_code,
    group,
)
from pipeline.text_tables import printable

if TYPE_CHECKING:
    from pipeline.config import Config

simulate = group("Simulate raw data: air showers or sky frames.", app, "simulate")
validate = group("Compare a simulation with reference data.", app, "validate")


@command(
    simulate,
    "showers",
    example="lightpool simulate showers --config configs/demo.yaml --run 1 --out run_0001.dl1.h5",
    config="required",
)
def simulate_showers(
    cfg: "Config",
    out: Annotated[Path, typer.Option(metavar="FILE.h5", help="DL1 file to write.")],
    run: Run,
    seed: Seed = None,
    jobs: Jobs = 1,
    force: Force = False,
) -> None:
    """Simulate a run of air showers. Writes the camera images as DL1 HDF5."""
    from pipeline.stages.simulate_showers import simulate_showers as stage

    stage(cfg, run, out, seed=seed, force=force, jobs=jobs)


@command(
    simulate,
    "sky",
    example="lightpool simulate sky --config configs/demo.yaml --run 1 --out frame_0001.fits",
    config="required",
)
def simulate_sky(
    cfg: "Config",
    out: Annotated[
        Path, typer.Option(metavar="FILE.fits", help="Frame to write; its truth goes to FILE.truth.fits next to it.")
    ],
    run: Run,
    seed: Seed = None,
    force: Force = False,
) -> None:
    """Simulate a long exposure. Writes the raw frame and its truth as FITS."""
    from pipeline.stages.simulate_sky import simulate_sky as stage

    stage(cfg, run, out, seed=seed, force=force)


@command(
    simulate,
    "images",
    example="lightpool simulate images --bundle results/lst_generator/bundles/flow --config configs/lst_generator.yaml "
    "--out images.dl1.h5",
    config="required",
)
def simulate_images(
    cfg: "Config",
    bundle: Annotated[
        Path, typer.Option(metavar="BUNDLE", help="Bundle of the task generation, made by `lightpool train`.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE.h5", help="DL1 file to write.")],
    run: Annotated[int, typer.Option(min=1, help="Number of the run; other runs have other images.")] = 1,
    seed: Seed = None,
    force: Force = False,
) -> None:
    """Generate camera images with a network, without following showers. Writes them as DL1 HDF5."""
    from pipeline.stages.simulate_images import simulate_images as stage

    stage(cfg, bundle, out, run=run, seed=seed, force=force)


@command(
    validate,
    "showers",
    example="lightpool validate showers --data data --out results/validation --jobs 4",
    threads=1,
)
def validate_showers(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Directory for the table and the figures.")],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Reference files of CORSIKA and sim_telarray; only published numbers without it."
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Simulate a tenth of the showers.")] = False,
    jobs: Jobs = 1,
    force: Force = False,
) -> None:
    """Compare the simulated showers with references: CORSIKA, sim_telarray and published numbers."""
    from pipeline.stages.validate_showers import validate_showers as stage

    stage(out, data, quick=quick, jobs=jobs, force=force)


@command(app, "ingest", example="lightpool ingest gamma_run1.simtel.zst --out ingested --jobs 2", config="optional")
def ingest(
    cfg: "Config",
    files: Files,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Directory for the results and status.json.")],
    keep_going: KeepGoing = False,
    jobs: Jobs = 1,
    force: Force = False,
) -> int:
    """Convert raw files to DL1 HDF5 or calibrated FITS.

    simtel and lstchain files become DL1 HDF5, FITS frames become calibrated FITS.
    """
    from pipeline.stages.ingest import ingest as stage

    return exit_code(stage(files, cfg, out, force=force, jobs=jobs), keep_going=keep_going)


@command(
    app,
    "tiles",
    example="lightpool tiles ingested/*.h5 --config configs/demo.yaml --out tiles",
    config="required",
)
def tiles(
    cfg: "Config",
    files: Files,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Directory for the shards and status.json.")],
    keep_going: KeepGoing = False,
    force: Force = False,
) -> int:
    """Cut ingested files into tiles for training.

    Writes one shard per input.
    """
    from pipeline.stages.tiles import make_tiles

    return exit_code(make_tiles(files, cfg, out, force=force, keep_going=keep_going), keep_going=keep_going)


@command(app, "manifest", example="lightpool manifest tiles/*.tiles.h5 --out manifest.json", config="optional")
def manifest(
    cfg: "Config",
    shards: Annotated[
        list[Path],
        typer.Argument(
            metavar="SHARD",
            show_default=False,
            help="Shards made by `lightpool tiles`; a manifest stands for its shards, which are not read again.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="MANIFEST.json", help="Manifest to write.")],
    shards_outside: ShardsOutside = False,
    force: Force = False,
) -> None:
    """Combine shards into one data set.

    The manifest lists the shards with their splits, counts and weights.
    """
    from pipeline.stages.manifest import make_manifest

    make_manifest(shards, cfg, out, force=force, shards_outside=shards_outside)


@command(app, "info", example="lightpool info gamma_run1.simtel.zst")
def info(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", show_default=False, help="File, or directory of a bundle."),
    ] = None,
    system: Annotated[
        bool, typer.Option("--system", help="Show what this machine has instead, what will be used, what is missing.")
    ] = False,
) -> None:
    """Show on one screen what is in a file.

    simtel, lstchain, DL1, DL2, FITS, shard, manifest or bundle.
    """
    from pipeline.errors import UserError

    if system == (file is not None):
        raise UserError("lightpool info takes the name of a file, or --system alone: give one of the two")
    if file is None:
        from pipeline.stages.system import describe_system

        lines = describe_system()
    else:
        from pipeline.stages.info import describe_file

        lines = describe_file(file)
    for line in lines:
        print(printable(line))


@command(app, "doctor", example="lightpool doctor")
def doctor() -> int:
    """Check the installation.

    Shows versions, caches, models that ship, what this machine has and what is missing; exits with 2 if something is
    wrong.
    """
    from pipeline.stages.doctor import examine

    lines, problems = examine()
    for line in lines:
        print(printable(line))
    return 2 if problems else 0
