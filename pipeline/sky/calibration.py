"""Bias, dark and flat correction with ccdproc, where configured."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.config import SkyIngestConfig
from pipeline.errors import InputFileError, UserError
from pipeline.sky.frames import Frame, read_pixels

if TYPE_CHECKING:
    from astropy.nddata import CCDData

_EXPOSURE_CARDS = ("EXPTIME", "EXPOSURE", "EXP_TIME", "TEXPTIME")


def calibrate(frame: Frame, cfg: SkyIngestConfig) -> Frame:
    """Subtract bias and dark (scaled by exposure time) and divide by the flat.

    Several files of a kind are combined by their median. The uncertainty is scaled with the flat; the noise of the
    master frames themselves is not added.

    Raises
    ------
    UserError
        If a calibration file is missing, of another shape, or has no exposure time where one is needed.
    InputFileError
        If the frame is not in ADU, or has no exposure time although a dark is configured.
    """
    import ccdproc
    from astropy import units

    if frame.stored_unit != "adu":
        raise InputFileError(
            f"{frame.path} is in {frame.stored_unit}; bias, dark and flat apply to frames in ADU: remove them from "
            "ingest.sky for this frame"
        )
    image = _ccd(frame.to_stored(frame.sci))
    notes = []
    if cfg.bias:
        image = ccdproc.subtract_bias(image, _master(cfg.bias, frame.shape, "bias"))
        notes.append(f"bias subtracted: median of {len(cfg.bias)}")
    if cfg.dark:
        image = _subtract_dark(image, frame, cfg)
        notes.append(f"dark subtracted, scaled by exposure time: median of {len(cfg.dark)}")
    response = np.ones(frame.shape)
    if cfg.flat:
        response = _response(cfg, frame)
        image = ccdproc.flat_correct(image, _ccd(response), norm_value=1.0)
        notes.append(f"divided by the flat: median of {len(cfg.flat)}")
    zero_known = frame.zero_known or bool(cfg.bias)
    offset = 0.0 if cfg.bias else frame.bias_level
    sci = ((image.data - offset) * frame.factor).astype(np.float32)
    assert image.unit == units.adu
    return replace(
        frame,
        sci=sci,
        err=(frame.err / response).astype(np.float32),
        bias_level=offset,
        zero_known=zero_known,
        notes=(*frame.notes, *notes),
    )


def _ccd(pixels: np.ndarray) -> "CCDData":
    from astropy.nddata import CCDData

    return CCDData(np.asarray(pixels, dtype=float), unit="adu")


def _subtract_dark(image: "CCDData", frame: Frame, cfg: SkyIngestConfig) -> "CCDData":
    import ccdproc
    from astropy import units

    dark = _master(cfg.dark, frame.shape, "dark")
    if cfg.bias:
        dark = ccdproc.subtract_bias(dark, _master(cfg.bias, frame.shape, "bias"))
    dark_s = _exposure_s(read_pixels(cfg.dark[0], SkyIngestConfig())[1], cfg.dark[0], UserError)
    data_s = _exposure_s(frame.header, frame.path, InputFileError)
    # Only what grows with time may be scaled: without a bias the dark must have been exposed as long as the frame.
    if not cfg.bias and dark_s != data_s:
        raise UserError(
            f"the dark {cfg.dark[0]} is exposed for {dark_s:g} s and {frame.path} for {data_s:g} s; configure "
            "ingest.sky.bias too, so that the dark can be scaled"
        )
    return ccdproc.subtract_dark(
        image, dark, dark_exposure=dark_s * units.s, data_exposure=data_s * units.s, exposure_unit=units.s, scale=True
    )


def _response(cfg: SkyIngestConfig, frame: Frame) -> np.ndarray:
    """Flat field of mean 1 over the exposed part; where it has no light, 1."""
    flat = _master(cfg.flat, frame.shape, "flat").data
    if cfg.bias:
        flat = flat - _master(cfg.bias, frame.shape, "bias").data
    flat = flat / np.mean(flat[frame.exposed])
    return np.where(flat > 0, flat, 1.0)


def _master(paths: Sequence[str], shape: tuple[int, int], kind: str) -> "CCDData":
    master = _combined(tuple(paths))
    if master.shape != shape:
        raise UserError(
            f"the {kind} {paths[0]} has the shape {master.shape}, the frame {shape}; ingest.sky.{kind} needs the "
            "same camera, binning and window"
        )
    return master


@lru_cache(maxsize=8)
def _combined(paths: tuple[str, ...]) -> "CCDData":
    import ccdproc

    missing = [path for path in paths if not Path(path).is_file()]
    if missing:
        raise UserError(f"the calibration frame {missing[0]} does not exist; correct ingest.sky in the configuration")
    frames = [_ccd(read_pixels(path, SkyIngestConfig())[0]) for path in paths]
    return frames[0] if len(frames) == 1 else ccdproc.combine(frames, method="median")


def _exposure_s(header: "object", path: str | Path, kind: type[UserError]) -> float:
    for card in _EXPOSURE_CARDS:
        if card in header:
            return float(header[card])
    raise kind(f"{path} has no exposure time ({', '.join(_EXPOSURE_CARDS)}), which is needed to scale a dark")
