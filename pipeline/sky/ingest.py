"""Calibrate one FITS frame into SCI, ERR and DQ; everything else in the file stays as it came."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import provenance
from pipeline.config import SkyIngestConfig
from pipeline.errors import InputFileError
from pipeline.files import atomic_output, check_free
from pipeline.logs import get_logger
from pipeline.sky import cards
from pipeline.sky.background import robust_background
from pipeline.sky.dq import DESCRIPTIONS, DQ, has
from pipeline.sky.frames import (
    Frame,
    StreamedProduct,
    Strip,
    checked_uncertainty,
    fingerprint,
    open_frames,
    read_frames,
    write_products,
)
from pipeline.sky.strips import strips
from pipeline.sky.truth import truth_path

log = get_logger(__name__)


def ingest_frame(path: str | Path, out: str | Path, cfg: SkyIngestConfig, force: bool = False) -> dict[str, Any]:
    """Read, calibrate and write one frame.

    Bias, dark and flat are applied where configured. The truth of a simulated frame is copied along.

    Parameters
    ----------
    path : path
        The frame as the camera wrote it.
    out : path
        FITS with the HDUs of `path`, the science image in electrons (in ADU where no gain is known), ERR and DQ.
    cfg : SkyIngestConfig
        Values that the header lacks.
    force : bool
        Replace an existing `out`.

    Returns
    -------
    dict
        `unit`, `level`, `noise`, `shape`, `n_science_hdus`, the number of flagged pixels by DQ bit,
        `notes`, and `warnings`.

    Raises
    ------
    InputFileError
        If the file cannot be used; the message gives the reason.
    """
    path, out = Path(path), check_free(out, force=force)
    with _frames_of(path, cfg) as frames:
        return _written(path, out, frames, cfg, force=force)


@contextmanager
def _frames_of(path: Path, cfg: SkyIngestConfig) -> Iterator[list[Frame]]:
    """The science images, read strip by strip; those that are calibrated are in memory."""
    if cfg.bias or cfg.dark or cfg.flat:
        yield [_calibrated(frame, cfg) for frame in read_frames(path, cfg)]
        return
    with open_frames(path, cfg) as frames:
        yield frames


def _written(path: Path, out: Path, frames: Sequence[Frame], cfg: SkyIngestConfig, *, force: bool) -> dict[str, Any]:
    warnings = list(dict.fromkeys(text for frame in frames for text in frame.warnings))
    stamped = provenance.stamp(
        "ingest",
        config=cfg.model_dump(mode="json"),
        warnings=warnings,
        input=path.name,
        input_sha256=provenance.sha256_file(path),
    )
    history = [f"lightpool {stamped['version']} ingest of {path.name}"]
    with atomic_output(out, force=force) as temporary:
        write_products(path, temporary, [_product(frame) for frame in frames], history)
        truth = truth_path(path)
        if truth.is_file():
            shutil.copyfile(truth, truth_path(temporary))
        provenance.write_sidecar(temporary, stamped)
    for note in dict.fromkeys(note for frame in frames for note in frame.notes):
        log.info("%s: %s", path.name, note)
    for text in warnings:
        log.warning("%s: %s", path.name, text)
    return _summary(frames, warnings)


def _calibrated(frame: Frame, cfg: SkyIngestConfig) -> Frame:
    """Bias, dark and flat applied, and the background measured again."""
    from pipeline.sky.calibration import calibrate

    frame = calibrate(frame, cfg)
    part = frame.exposed
    level, noise = robust_background(frame.sci[part], has(frame.dq[part], ~DQ(0)), cfg.background_box_px)
    if not noise > 0:
        raise InputFileError(f"{frame.path}: the background noise measured is {noise:g}; is this a sky frame?")
    return checked_uncertainty(replace(frame, level=level, noise=noise), frame.err, "after calibration")


def _product(frame: Frame) -> StreamedProduct:
    values = {
        cards.LEVEL: frame.level,
        cards.NOISE: frame.noise,
        cards.GAIN: frame.gain_e_per_adu,
        cards.READ_NOISE: frame.read_noise_e,
        cards.BIAS: frame.bias_level,
        cards.ZERO_KNOWN: frame.zero_known,
        cards.SATURATION: _saturation(frame),
        cards.SECTION: str(frame.section) if frame.section else None,
        cards.SUM: fingerprint(frame.sci),
    }
    known = [("BUNIT", frame.unit, "unit of the pixel values")]
    known += [card.with_value(value) for card, value in values.items() if value is not None]
    return StreamedProduct(
        frame.science_hdu,
        frame.shape,
        {},
        lambda: (Strip(rows.start, frame.sci[rows], frame.err[rows], frame.dq[rows], {}) for rows in strips(frame.sci)),
        known,
        history=[f"lightpool: {note}" for note in frame.notes],
        warnings=frame.warnings,
    )


def _saturation(frame: Frame) -> float | None:
    if frame.saturation is None:
        return None
    return (frame.saturation - frame.bias_level) * frame.factor


def _summary(frames: Sequence[Frame], warnings: list[str]) -> dict[str, Any]:
    first = frames[0]
    flagged = dict.fromkeys(DESCRIPTIONS.values(), 0)
    for dq in (frame.dq[rows] for frame in frames for rows in strips(frame.dq)):
        for bit, text in DESCRIPTIONS.items() if dq.any() else ():
            flagged[text] += int(np.count_nonzero(has(dq, bit)))
    return {
        "unit": first.unit,
        "level": round(first.level, 6),
        "noise": round(first.noise, 6),
        "shape": list(first.shape),
        "n_science_hdus": len(frames),
        "flagged_pixels": {text: count for text, count in flagged.items() if count},
        "notes": list(first.notes),
        "warnings": warnings,
    }
