"""Masks and uncertainties that come with a frame: in extensions of its file, or in files beside it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.config import SkyIngestConfig
from pipeline.errors import InputFileError, UserError
from pipeline.sky import cards
from pipeline.sky.dq import DESCRIPTIONS, DQ, DQ_DTYPE, flag
from pipeline.sky.frames.hdus import bits_of, open_fits, pixels_of

if TYPE_CHECKING:
    from astropy.io import fits


def _companion(hdus: "fits.HDUList", number: int, names: Sequence[str]) -> "fits.ImageHDU | None":
    """The first HDU of those names that belongs to the science HDU: of the same EXTVER and shape."""
    for name in names:
        for hdu in hdus:
            alike = hdu.is_image and hdu.name == name and hdu.ver == hdus[number].ver
            if alike and hdu is not hdus[number] and hdu.shape == hdus[number].shape:
                return hdu
    return None


def file_mask(
    hdus: "fits.HDUList", number: int, cfg: SkyIngestConfig, path: Path, shape: tuple[int, int], notes: list[str]
) -> np.ndarray:
    """Our bits, from our own DQ extension or translated from the camera's."""
    ours = _companion(hdus, number, (cards.OUR_BITS.keyword, "DQ"))
    if ours is not None and cards.OUR_BITS.keyword in ours.header:
        return _our_bits(ours, path)
    mask = np.zeros(shape, DQ_DTYPE)
    foreign = _companion(hdus, number, ("DQ", "MASK", "FLAGS"))
    if foreign is not None:
        mask |= _translate(bits_of(foreign), cfg)
        notes.append(f"mask from the {foreign.name} extension")
    beside = _beside(path, cfg.mask_suffix)
    if beside is not None:
        mask |= _translate(_bits_beside(beside, shape), cfg)
        notes.append(f"mask from {beside.name}")
    return mask


def _our_bits(hdu: "fits.ImageHDU", path: Path) -> np.ndarray:
    bits = bits_of(hdu)
    if (bits > np.iinfo(DQ_DTYPE).max).any():
        raise InputFileError(f"{path}: {hdu.name} is marked as lightpool's, but has more than sixteen bits")
    return bits.astype(DQ_DTYPE)


def _translate(foreign: np.ndarray, cfg: SkyIngestConfig) -> np.ndarray:
    """A camera's bits (uint64) in ours: listed ones as configured, all others mean a bad pixel."""
    for bit in cfg.dq_bits.values():
        if bit <= 0 or bit & ~int(~DQ(0)):
            accepted = ", ".join(f"{int(known)} ({text})" for known, text in DESCRIPTIONS.items())
            raise UserError(f"ingest.sky.dq_bits has {bit}, not a sum of lightpool's bits; accepted: {accepted}")
    ours = np.zeros(foreign.shape, DQ_DTYPE)
    rest = foreign.copy()
    for theirs, bit in cfg.dq_bits.items():
        flag(ours, (foreign & np.uint64(theirs)) != 0, DQ(bit))
        rest &= ~np.uint64(theirs)
    flag(ours, rest != 0, DQ.BAD)
    return ours


def file_uncertainty(
    hdus: "fits.HDUList",
    number: int,
    cfg: SkyIngestConfig,
    path: Path,
    factor: float,
    dq: np.ndarray,
    notes: list[str],
) -> np.ndarray | None:
    """One sigma from ERR, VAR or inverse variances, in the extension or in a file beside; `dq` gets their zeros."""
    hdu = _companion(hdus, number, ("ERR", "ERROR", "SIGMA", "VAR", "VARIANCE", "IVAR"))
    beside = _beside(path, cfg.weight_suffix)
    if hdu is not None:
        kind, values, source = hdu.name, pixels_of(hdu)[0], f"the {hdu.name} extension"
    elif beside is not None:
        kind, values, source = "IVAR", _pixels_beside(beside, dq.shape), beside.name
    else:
        return None
    useless = ~(np.isfinite(values) & (values > 0))
    if useless.all():  # HST's raw files carry empty ERR arrays
        return None
    values = np.where(useless, np.nan, values)
    if kind in ("VAR", "VARIANCE"):
        values = np.sqrt(values)
    elif kind == "IVAR":
        values = 1 / np.sqrt(values)
        flag(dq, useless, DQ.BAD)
    notes.append(f"uncertainty from {source}")
    return (np.nan_to_num(values, nan=float(np.nanmedian(values))) * factor).astype(np.float32)


def _beside(path: Path, suffix: tuple[str, str] | None) -> Path | None:
    """The companion file that a configured pattern names, where it exists."""
    if suffix is None or suffix[0] not in path.name:
        return None
    beside = path.with_name(path.name.replace(*suffix))
    return beside if beside.is_file() else None


def _pixels_beside(path: Path, shape: tuple[int, int]) -> np.ndarray:
    with _image_beside(path, shape) as hdu:
        return pixels_of(hdu)[0]


def _bits_beside(path: Path, shape: tuple[int, int]) -> np.ndarray:
    with _image_beside(path, shape) as hdu:
        return bits_of(hdu)


@contextmanager
def _image_beside(path: Path, shape: tuple[int, int]) -> Iterator["fits.ImageHDU"]:
    with open_fits(path, do_not_scale_image_data=True) as hdus:
        for hdu in hdus:
            if hdu.is_image and hdu.shape == shape:
                yield hdu
                return
    raise InputFileError(f"{path} has no image with the shape {shape} of its frame")
