"""Commands around trained networks: train, evaluate, predict, explain, report, compare."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.framework import (
    Bundle,
    Force,
    KeepGoing,
    Manifests,
    RunDir,
    ShardsOutside,
    app,
    command,
    exit_code,
    models_that_ship,
)

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.tiles.manifest import Manifest


def _manifests(paths: list[Path], shards_outside: bool) -> "list[Path] | list[Manifest]":
    """The paths, for the stage to load; loaded here, where their shards may lie outside."""
    if not shards_outside:
        return paths
    from pipeline.tiles.manifest import load_manifests

    return load_manifests(paths, shards_outside=True)


def _with_options_of_frames(
    cfg: "Config", bundles: list[str], files: list[Path], **options: str | float | None
) -> "Config":
    """The configuration, with the options of `predict` that are for sky frames."""
    from pipeline.bundle.card import load_bundle_card
    from pipeline.config import parse_config
    from pipeline.errors import UserError
    from pipeline.stages.inputs import kind_of

    changes = {name: value for name, value in options.items() if value is not None}
    if not changes:
        return cfg
    named = " and ".join(f"--{name}" for name in changes)
    if bundles and "sky" not in [load_bundle_card(bundle).wing for bundle in bundles]:
        raise UserError(f"{named}: for models of sky frames, and no bundle is one; leave it out")
    if not bundles and "fits" not in map(kind_of, files):
        raise UserError(f"{named}: for sky frames, and no file is one; leave it out")
    content = cfg.model_dump(mode="json")
    return parse_config(content | {"predict": content["predict"] | changes})


@command(
    app,
    "train",
    example="lightpool train manifest.json --config configs/demo.yaml --network mono --out bundles/mono",
    config="required",
    settings=("device", "threads"),
)
def train(
    cfg: "Config",
    manifests: Manifests,
    network: Annotated[str, typer.Option(metavar="NAME", help="Network of the configuration, a key of `networks`.")],
    out: Annotated[Path, typer.Option(metavar="BUNDLE", help="Directory for the trained model.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume a stopped run also with --force, which starts again without it.")
    ] = False,
    shards_outside: ShardsOutside = False,
    force: Force = False,
) -> None:
    """Train a network and write it as a bundle."""
    cfg.network(network)  # an unknown name fails before torch is imported
    from pipeline.stages.train import train as stage

    stage(cfg, network, _manifests(manifests, shards_outside), out, resume=resume, force=force)


@command(
    app,
    "evaluate",
    example="lightpool evaluate manifest.json --bundle bundles/mono --out evaluation/mono",
    config="optional",
    settings=("device", "threads", "backend"),
)
def evaluate(
    cfg: "Config",
    manifests: Manifests,
    bundle: Bundle,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Directory for metrics.json, tables and figures.")],
    shards_outside: ShardsOutside = False,
    force: Force = False,
) -> None:
    """Measure a trained model on the test split.

    Its baselines are measured on the same images, for comparison.
    """
    from pipeline.bundle.card import resolve_bundle
    from pipeline.stages.evaluate import evaluate as stage

    stage(cfg, resolve_bundle(bundle), _manifests(manifests, shards_outside), out, force=force)


@command(
    app,
    "predict",
    example="lightpool predict run.dl1.h5 --event 12",
    config="optional",
    settings=("threads", "backend"),
)
def predict(
    cfg: "Config",
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE",
            show_default=False,
            help="simtel, DL1, lstchain or FITS files, or folders of them; -: a FITS frame on standard input.",
        ),
    ],
    bundle: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BUNDLE",
            autocompletion=models_that_ship,
            help="Directory of a trained model, or the name of one that ships; may be given several times; without, "
            "those that ship and serve the file.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="DL2 HDF5 or FITS file to write; a directory if there are several inputs; -: FITS to standard output.",
        ),
    ] = None,
    append: Annotated[
        Path | None,
        typer.Option(metavar="DL2", help="DL2 file of the events of FILE, which the predictions are added to."),
    ] = None,
    event: Annotated[int | None, typer.Option(metavar="ID", help="Only this event.")] = None,
    telescope: Annotated[int | None, typer.Option(metavar="ID", help="Only this telescope.")] = None,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="TASK", help="Only this head of a model of sky frames; defects: only the mask is written."
        ),
    ] = None,
    fpr: Annotated[
        float | None,
        typer.Option(metavar="RATE", help="Share of good pixels that may be flagged as defects (sky); default: 5e-4."),
    ] = None,
    bayer: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN",
            help="Colours of the pixels of a raw colour frame, such as RGGB, or none; default: as its header says.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per image on stdout.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png", help="Picture to write of the event (with --event), or of a frame before and after."
        ),
    ] = None,
    keep_going: KeepGoing = False,
    jobs: Annotated[int, typer.Option(min=1, metavar="N", help="Files processed in parallel, with --out.")] = 1,
    force: Force = False,
) -> int:
    """Apply trained models to files.

    Prints a table, or writes DL2 HDF5 (camera events) and FITS (sky frames) with --out.
    """
    from pipeline.stages.inputs import with_directories
    from pipeline.stages.pictures import Picture
    from pipeline.stages.pipes import STREAM, piped
    from pipeline.stages.predict import predict as stage

    bundles = bundle or []
    with piped(with_directories(files), out) as work:
        cfg = _with_options_of_frames(cfg, bundles, work.files, only=only, fpr=fpr, bayer=bayer)
        statuses = stage(
            cfg, work.files, bundles, work.out,
            append=append, event=event, telescope=telescope, as_json=as_json, force=force, jobs=jobs, names=work.names,
            stream=sys.stderr if out == STREAM else sys.stdout,
            picture=None if plot is None else Picture(plot, force=force),
        )  # fmt: skip
    return exit_code(statuses, keep_going=keep_going)


@command(
    app,
    "view",
    example="lightpool view frame.fits",
    config="optional",
    settings=("threads", "backend"),
)
def view(
    cfg: "Config",
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            show_default=False,
            help="simtel, DL1, lstchain or FITS; a frame as it came, or as `lightpool predict` has written it.",
        ),
    ],
    bundle: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BUNDLE",
            autocompletion=models_that_ship,
            help="Directory of a trained model to apply, or the name of one that ships; may be given several times; "
            "without, those that ship and serve the file, unless it has predictions.",
        ),
    ] = None,
    no_model: Annotated[
        bool, typer.Option("--no-model", help="Apply none; only what the file holds is shown.")
    ] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="Port of the page; 0: any that is free.")
    ] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address.")] = False,
) -> None:
    """Look at events or frames in the browser.

    Serves a page on this machine alone, until Ctrl-C. Nothing is written.
    """
    from pipeline.apps.view.app import view as show

    def announce(url: str) -> None:
        print(url, flush=True)  # read by programs that start this one

    show(cfg, file, bundle or (), announce=announce, port=port, open_browser=not no_browser, no_model=no_model)


@command(
    app,
    "stack",
    example="lightpool stack night/*.fits --bundle sky-denoise --out stack.fits",
    config="optional",
    settings=("threads",),
)
def stack(
    cfg: "Config",
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", show_default=False, help="FITS exposures of one field, three or more."),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE.fits", help="FITS file to write.")],
    bundle: Annotated[
        str | None,
        typer.Option(
            metavar="BUNDLE",
            autocompletion=models_that_ship,
            help="Model that finds defects; without, the files' own masks are used.",
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Combine exposures of one field, with defects rejected.

    Writes their mean, its uncertainty and mask, and a sigma-clipped mean for comparison.
    """
    from pipeline.stages.stack import stack as stage

    stage(cfg, files, out, bundle=bundle, force=force)


@command(
    app,
    "irf",
    example="lightpool irf --config configs/lst_stereo.yaml --out results/lst_stereo/irf --jobs 2",
    config="required",
    settings=("threads",),
)
def irf(
    cfg: "Config",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Directory for responses, cuts, sensitivity and figures.")],
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE]...",
            show_default=False,
            help="DL2 files of the runs of section irf; without, the runs are simulated and predicted first.",
        ),
    ] = None,
    bundles: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of the bundles of the experiment's networks; default: results/NAME/bundles."
        ),
    ] = None,
    tiles: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="MANIFEST",
            help="Camera tiles that the forests of irf.baseline are trained on; may be given several times; default: "
            "results/NAME/tiles/camera.manifest.json.",
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, metavar="N", help="Runs processed in parallel.")] = 1,
    force: Force = False,
) -> None:
    """Make instrument response functions.

    Optimises cuts and computes responses in the GADF format with ctapipe's tools, from simulated runs of their own.
    """
    if files:
        from pipeline.stages.irf import irf as stage

        stage(cfg, out, files, bundles=bundles, tiles=tiles or (), jobs=jobs, force=force)
    else:
        from pipeline.stages.irf_runs import irf_from_runs

        irf_from_runs(cfg, out, bundles=bundles, tiles=tiles or (), jobs=jobs, force=force)


@command(
    app,
    "explain",
    example="lightpool explain run.dl1.h5 --bundle bundles/mono --event 12 --out event_12.png",
    config="optional",
    settings=("threads",),
)
def explain(
    cfg: "Config",
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False, help="Camera file: simtel or DL1.")],
    bundle: Bundle,
    event: Annotated[int, typer.Option(metavar="ID", help="Event to explain.")],
    telescope: Annotated[
        int | None, typer.Option(metavar="ID", help="Telescope; by default the one with the brightest image.")
    ] = None,
    head: Annotated[
        str | None, typer.Option(metavar="TASK", help="Head of the network; by default the first one.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Figure to write.")] = None,
    show: Annotated[
        str,
        typer.Option(
            metavar="WHAT",
            help="attribution: which pixels the prediction rests on; features: first filters and feature maps.",
        ),
    ] = "attribution",
    force: Force = False,
) -> None:
    """Show what a network looked at in one event.

    Writes a figure; by default, which pixels the prediction rests on.
    """
    from pipeline.stages.explain import explain as stage

    stage(cfg, bundle, file, event=event, telescope=telescope, head=head, out=out, show=show, force=force)


@command(app, "report", example="lightpool report results/demo --out results/demo/report.html")
def report(
    run_dir: RunDir,
    out: Annotated[Path, typer.Option(metavar="FILE.html", help="Page to write.")],
    force: Force = False,
) -> None:
    """Summarise a run in one HTML page."""
    from pipeline.stages.report import report as stage

    stage(run_dir, out, force=force)


@command(app, "compare", example="lightpool compare results/zoo --out results/zoo/compare.html", threads=1)
def compare(
    run_dir: RunDir,
    out: Annotated[Path, typer.Option(metavar="FILE.html", help="Page to write; its tables go to FILE.json.")],
    force: Force = False,
) -> None:
    """Compare the networks of a run in one HTML page.

    They are compared with each other and with the random forest.
    """
    from pipeline.stages.compare import compare as stage

    stage(run_dir, out, force=force)
