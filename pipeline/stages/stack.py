"""Exposures of one field combined into one frame, with defects rejected."""

import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import provenance
from pipeline.config import Config, sections_of
from pipeline.errors import InputFileError, TooFewEventsError, UserError
from pipeline.files import atomic_output, reserved
from pipeline.logs import get_logger
from pipeline.stages.inputs import check_no_input
from pipeline.stages.prediction_plan import check_ending, predictable_kind
from pipeline.stages.products import READS_SKY

if TYPE_CHECKING:
    from pipeline.bundle.runtime import Predictor
    from pipeline.sky.frames import Frame
    from pipeline.sky.registration import Placement
    from pipeline.sky.strips import Bits

log = get_logger(__name__)

FEWEST_EXPOSURES = 3
# From so many exposures on, pixels that are hot in most of them are sought, as long as their pixels fit into memory.
_HOT_FROM, _HOT_PIXELS = 5, 200_000_000


def stack(
    cfg: Config, files: Sequence[Path], out: Path, *, bundle: str | Path | None = None, force: bool = False
) -> dict[str, Any]:
    """Register exposures to the middle one, reject defects, and write their mean beside a sigma-clipped one.

    Parameters
    ----------
    cfg : Config
        `ingest.sky`, `predict` and `threads` are used.
    files : sequence of path
        Exposures of one field, one image each.
    out : path
        FITS with the HDUs of the middle exposure: SCI, ERR, DQ, CLIPPED (the sigma-clipped mean) and NEXP (exposures
        per pixel).
    bundle : str or path, optional
        Model whose mask says what is rejected; without, only the files' own masks do.
    force : bool
        Replace `out`.

    Returns
    -------
    dict
        `n_combined`, `left_out` (file name -> reason), `rejected_fraction`, `output`, and `warnings`.

    Raises
    ------
    UserError
        If fewer than three exposures can be used, a file is of another kind, or they are not different exposures with
        one detector.
    """
    from pipeline.sky.frames import open_frames
    from pipeline.sky.stacking import Exposure, check_exposures, for_registration, stack_product

    started = time.monotonic()
    paths = [Path(path) for path in files]
    check_ending(Path(out), "sky", "exposures")
    if len(paths) < FEWEST_EXPOSURES:
        raise TooFewEventsError(f"a stack needs at least three exposures of one field, got {len(paths)}")
    check_no_input([Path(out)], paths)
    for path in paths:
        if predictable_kind(path) != "fits":
            raise InputFileError(f"{path} is no FITS frame; a stack is made of exposures of the sky")
    predictor = _predictor(bundle, cfg)
    with reserved(out, force=force), ExitStack() as opened:
        frames = [_only(opened.enter_context(open_frames(path, cfg.ingest.sky)), path) for path in paths]
        of_all = check_exposures(frames, cfg.predict.bayer)
        masks, warnings = zip(*(_rejected(frame, predictor, cfg) for frame in frames), strict=True)
        hot = _static_hot_pixels(frames)
        for bits in masks if hot is not None else ():
            bits.add(0, hot)
        middle = len(frames) // 2
        loaded = (for_registration(frame, bits, hot) for frame, bits in zip(frames, masks, strict=True))
        placements = _place(for_registration(frames[middle], masks[middle], hot), loaded, middle)
        used = [number for number, placement in enumerate(placements) if placement is not None]
        left_out = {paths[n].name: "too few stars in common" for n in range(len(paths)) if n not in used}
        if len(used) < FEWEST_EXPOSURES:
            raise TooFewEventsError(
                f"{len(used)} of {len(paths)} exposures can be registered to {paths[middle].name} (too few stars in "
                "common); at least three are needed: give exposures of one field"
            )
        texts = [*of_all, *(f"{name} is left out: {reason}" for name, reason in left_out.items())]
        texts += [f"{paths[number].name}: {text}" for number in used for text in warnings[number]]
        exposures = [Exposure(frames[n], placements[n], masks[n]) for n in used]
        product = stack_product(exposures, used.index(middle), texts)
        _write(cfg, paths, out, product, predictor, texts, force=force, started=started)
        share = float(np.mean([_share(bits) for bits in masks]))
    for text in texts:
        log.warning("%s: %s", Path(out).name, text)
    log.info("combined %d of %d exposures, written to %s", len(used), len(paths), out)
    facts = {"n_combined": len(used), "left_out": left_out, "rejected_fraction": share, "output": str(out)}
    return facts | ({"warnings": texts} if texts else {})


def _predictor(bundle: str | Path | None, cfg: Config) -> "Predictor | None":
    if bundle is None:
        return None
    from pipeline.bundle.runtime import Predictor

    predictor = Predictor.load(bundle, threads=cfg.threads)
    if predictor.card.wing != "sky":
        raise UserError(f"{bundle} is a model of camera images; a stack needs one of sky frames")
    return predictor.set_up(cfg.predict.only or None, cfg.predict.fpr)


def _only(frames: "list[Frame]", path: Path) -> "Frame":
    if len(frames) != 1:
        raise InputFileError(
            f"{path} has {len(frames)} science images, and a stack is made of one per file; choose it with "
            "ingest.sky.science_hdu"
        )
    return frames[0]


def _rejected(frame: "Frame", predictor: "Predictor | None", cfg: Config) -> "tuple[Bits, tuple[str, ...]]":
    """What the model, or without one the frame's own mask, leaves out of an exposure; and what is to be known of it."""
    from pipeline.sky.dq import has
    from pipeline.sky.restore import Restoration
    from pipeline.sky.stacking import REJECTED
    from pipeline.sky.strips import Bits, strips

    bits = Bits(frame.shape)
    if predictor is None:
        for rows in strips(frame.dq):
            bits.add(rows.start, has(np.asarray(frame.dq[rows]), REJECTED))
        return bits, frame.warnings
    how = cfg.predict.tile_px, cfg.predict.overlap_px, cfg.predict.outside_range, cfg.predict.bayer
    restoration = Restoration.of(frame, predictor, *how)
    product = restoration.product()
    for strip in product.strips():
        bits.add(strip.top, has(strip.dq, REJECTED))
    for top, dq in product.amended():
        bits.add(top, has(dq, REJECTED))
    return bits, restoration.warnings


def _static_hot_pixels(frames: "Sequence[Frame]") -> np.ndarray | None:
    from pipeline.sky.registration import static_hot_pixels

    n_pixels = frames[0].shape[0] * frames[0].shape[1]
    if len(frames) < _HOT_FROM or len(frames) * n_pixels > _HOT_PIXELS:
        return None
    return static_hot_pixels([frame.loaded() for frame in frames])


def _place(reference: "Frame", frames: "Iterable[Frame]", middle: int) -> "list[Placement | None]":
    """Of each frame relative to the middle one; two are in memory at a time."""
    from pipeline.sky.registration import identity_placement, place, star_catalogue

    stars = star_catalogue(reference)
    return [
        identity_placement(frame, stars) if number == middle else place(frame, reference, stars)
        for number, frame in enumerate(frames)
    ]


def _share(bits: "Bits") -> float:
    from pipeline.sky.strips import count

    return count(bits.image) / max(bits.shape[0] * bits.shape[1], 1)


def _write(
    cfg: Config,
    paths: Sequence[Path],
    out: Path,
    product: Any,
    predictor: "Predictor | None",
    warnings: Sequence[str],
    *,
    force: bool,
    started: float,
) -> None:
    from pipeline.sky.frames import write_products

    bundles = {} if predictor is None else {predictor.card.name: predictor.card.bundle_sha256}
    stamp = provenance.stamp(
        "stack",
        config=sections_of(cfg, READS_SKY),
        warnings=list(warnings),
        inputs={path.name: provenance.sha256_file(path) for path in paths},
        bundles=bundles,
    )
    names = ", ".join(bundles) or "the files' own masks"
    history = [f"lightpool {stamp['version']}: mean of exposures", f"defects rejected by {names}"]
    with atomic_output(out, force=force) as temporary:
        write_products(paths[len(paths) // 2], temporary, [product], history)
        provenance.write_sidecar(temporary, stamp, wall_time_s=round(time.monotonic() - started, 3))
