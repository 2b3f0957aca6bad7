"""Masks and uncertainties that come with a frame: in extensions of its file, or in files beside it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.config import SkyIngestConfig
from pipeline.errors import InputFileError
from pipeline.sky import cards, headers
from pipeline.sky.dq import DQ, DQ_DTYPE, flag
from pipeline.sky.frames.coverage import uncovered
from pipeline.sky.frames.frame import Frame
from pipeline.sky.frames.hdus import bits_of, open_fits, pixels_of, science_hdus
from pipeline.sky.frames.mask_tables import Flag, flags_of_table
from pipeline.sky.frames.masks import IGNORE, Sky, translate
from pipeline.sky.frames.planes import NAMES, Kind, image_shape, kind_of, name_of
from pipeline.sky.remarks import Remarks

if TYPE_CHECKING:
    from astropy.io import fits

#: Kinds of planes that hold the uncertainty of an image.
UNCERTAINTIES: tuple[Kind, ...] = ("sigma", "variance", "inverse variance")
_WEIGHTS: tuple[Kind, ...] = ("weight", "exposure")
# Weights whose noise is within this factor of the measured one are inverse variances; others only say ratios.
_MAX_RATIO = 2.0


# ---- which plane belongs to which image ------------------------------------------------------------------------------
def companions(hdus: "fits.HDUList", number: int, cfg: SkyIngestConfig, path: Path, kinds: Sequence[Kind]) -> list[int]:
    """HDUs of the given kinds that belong to a science HDU, in order of preference."""
    science = {number}
    with suppress(InputFileError):  # where the choice had to be configured
        science.update(science_hdus(hdus, cfg.model_copy(update={"science_hdu": None}), path))
    found = [n for n in belonging(hdus, number, sorted(science)) if hdus[n].shape and kind_of(hdus[n]) in kinds]
    order = list(NAMES)
    return sorted(found, key=lambda n: order.index(name_of(hdus[n])) if name_of(hdus[n]) in NAMES else len(order))


def planes_of(hdus: "fits.HDUList", number: int, cfg: SkyIngestConfig, path: Path) -> list[tuple[int, Kind]]:
    """Masks, uncertainties and weights that belong to a science HDU: number and kind, in order of preference."""
    return [(n, kind_of(hdus[n])) for n in companions(hdus, number, cfg, path, ("mask", *UNCERTAINTIES, *_WEIGHTS))]


def belonging(hdus: "fits.HDUList", number: int, science: Sequence[int]) -> list[int]:
    """All images of a file that belong to one of its science HDUs.

    They have its EXTVER. Where several science images have the same, as where all lack it, an image belongs to the last
    of them before it.
    """
    rivals = [n for n in science if hdus[n].ver == hdus[number].ver]
    return [
        other
        for other, hdu in enumerate(hdus)
        if other not in science
        and hdu.is_image
        and hdu.ver == hdus[number].ver
        and (len(rivals) == 1 or max((n for n in rivals if n < other), default=None) == number)
    ]


def is_ours(hdu: "fits.ImageHDU") -> bool:
    """Whether a mask has lightpool's bits."""
    return cards.OUR_BITS.keyword in hdu.header


# ---- masks -----------------------------------------------------------------------------------------------------------
def file_mask(
    hdus: "fits.HDUList", number: int, cfg: SkyIngestConfig, path: Path, pixels: np.ndarray, remarks: Remarks
) -> np.ndarray:
    """Our bits, from our own DQ extension, or from the camera's masks, weights of zero, and parts without light.

    Parameters
    ----------
    pixels : ndarray of float32, shape (H, W)
        Of the science HDU `number`, as stored.
    """
    masks = companions(hdus, number, cfg, path, ("mask",))
    ours = next((n for n in masks if is_ours(hdus[n])), None)
    if ours is not None:
        return _our_bits(hdus[ours], path, pixels.shape)
    sky = Sky(pixels)
    mask = np.zeros(pixels.shape, DQ_DTYPE)
    names = _tables_of_names(hdus)
    image_headers = [hdus[number].header, hdus[0].header]
    for n in masks:
        label = f"the mask in {name_of(hdus[n]) or 'an extension'}"
        if cfg.dq_convention == IGNORE:
            remarks.note(f"{label} is ignored (ingest.sky.dq_convention)")
            continue
        _check_shape(hdus[n], label, path, pixels.shape)
        mask |= translate(bits_of(hdus[n]), [hdus[n].header, *image_headers], label, path, sky, cfg, remarks, names)
    beside = _beside(path, cfg.mask_suffix)
    if beside is not None and cfg.dq_convention != IGNORE:
        with _image_beside(beside, hdus[number], number) as (hdu, primary):
            known = [hdu.header, primary, *image_headers]
            mask |= translate(bits_of(hdu), known, f"the mask {beside.name}", path, sky, cfg, remarks)
    _flag_without_light(hdus, number, cfg, path, pixels, mask, sky, remarks)
    return mask


def _our_bits(hdu: "fits.ImageHDU", path: Path, shape: tuple[int, ...]) -> np.ndarray:
    _check_shape(hdu, name_of(hdu), path, shape)
    bits = bits_of(hdu)
    if (bits > np.iinfo(DQ_DTYPE).max).any():
        raise InputFileError(f"{path}: {hdu.name} is marked as lightpool's, but has more than sixteen bits")
    return bits.astype(DQ_DTYPE)


def _check_shape(hdu: "fits.ImageHDU", label: str, path: Path, shape: tuple[int, ...]) -> None:
    if image_shape(hdu) != shape:
        raise InputFileError(
            f"{path}: {label} has {image_shape(hdu)} pixels, and its image {shape}; remove it, or set "
            f"ingest.sky.dq_convention: {IGNORE}"
        )


def _tables_of_names(hdus: "fits.HDUList") -> tuple[Flag, ...]:
    """Flags that a table of the file explains (JWST's DQ_DEF)."""
    for hdu in hdus:
        if name_of(hdu) in ("DQ_DEF", "DQDEF", "BITMASK", "MASKDEF") and not hdu.is_image:
            columns = {name: list(hdu.data[name]) for name in hdu.columns.names}
            if flags := flags_of_table(columns):
                return flags
    return ()


def _flag_without_light(
    hdus: "fits.HDUList",
    number: int,
    cfg: SkyIngestConfig,
    path: Path,
    pixels: np.ndarray,
    mask: np.ndarray,
    sky: Sky,
    remarks: Remarks,
) -> None:
    """Missing data: numbers without noise over large parts, and weights of zero that no flag explains.

    Pipelines give saturated stars a weight of zero, too: inner pixels of sources are left alone.
    """
    where, values = uncovered(pixels)
    if where is not None:
        flag(mask, where, DQ.MISSING)
        numbers = " and ".join(f"{value:g}" for value in values)
        remarks.warn(
            f"{100 * np.count_nonzero(where) / where.size:.2g} % of the pixels have the value {numbers} without any "
            "noise over large parts and count as missing"
        )
    for plane in _planes(hdus, number, cfg, path, pixels.shape):
        if plane.kind in ("sigma", "variance"):
            continue
        useless = ~(plane.values > 0) & (mask == 0)
        if useless.all() or not useless.any():
            continue
        flag(mask, useless & ~sky.sources, DQ.MISSING)
        share = 100 * np.count_nonzero(useless) / useless.size
        remarks.note(f"{share:.2g} % of the pixels have no weight in {plane.label} and count as missing")


# ---- uncertainties ---------------------------------------------------------------------------------------------------
def file_uncertainty(hdus: "fits.HDUList", frame: Frame, cfg: SkyIngestConfig, remarks: Remarks) -> np.ndarray | None:
    """One sigma from uncertainties, variances, inverse variances or weights, in the file or in one beside.

    Returns
    -------
    ndarray of float32, shape (H, W), or None
        In the unit of `frame`, everywhere positive; None where there is nothing that can be used.
    """
    for plane in _planes(hdus, frame.science_hdu, cfg, frame.path, frame.shape):
        useless = ~(np.isfinite(plane.values) & (plane.values > 0))
        if useless.all():  # HST's raw files carry empty ERR arrays
            continue
        factor = _unit_factor(plane, frame, remarks)
        if factor is None:
            continue
        sigma = np.where(useless, np.float32(np.nan), plane.values)
        if plane.kind == "variance":
            sigma = np.sqrt(sigma)
        elif plane.kind != "sigma":
            sigma = 1 / np.sqrt(sigma)
        sigma = sigma * np.float32(factor)
        if plane.kind in _WEIGHTS:
            sigma = _of_the_measured_size(sigma, plane, frame, remarks)
        remarks.note(f"uncertainty from {plane.label}")
        if useless.any():
            sigma[useless] = np.median(sigma[~useless])
        return sigma.astype(np.float32, copy=False)
    return None


@dataclass(frozen=True)
class _Plane:
    """An uncertainty or a weight: its numbers as stored, and its unit as it is written."""

    kind: Kind
    values: np.ndarray
    label: str
    unit: str


def _planes(
    hdus: "fits.HDUList", number: int, cfg: SkyIngestConfig, path: Path, shape: tuple[int, ...]
) -> Iterator[_Plane]:
    """Those in the file, uncertainties first, then weights; then the one in the file beside."""

    def plane(hdu: "fits.ImageHDU", kind: Kind, label: str) -> _Plane:
        return _Plane(kind, pixels_of(hdu)[0], label, str(hdu.header.get("BUNIT", "")).strip())

    for kinds in (UNCERTAINTIES, _WEIGHTS):
        for n in companions(hdus, number, cfg, path, kinds):
            if image_shape(hdus[n]) == shape:
                yield plane(hdus[n], kind_of(hdus[n]), f"the {name_of(hdus[n])} extension")
    beside = _beside(path, cfg.weight_suffix)
    if beside is not None:
        with _image_beside(beside, hdus[number], number) as (hdu, _):
            yield plane(hdu, kind_of(hdu) or "inverse variance", beside.name)


def _unit_factor(plane: _Plane, frame: Frame, remarks: Remarks) -> float | None:
    """What turns a plane's sigma into the unit of the frame; None, and a warning, where that is unknown."""
    theirs = "" if plane.kind in _WEIGHTS else _unit_of_sigma(plane.unit, plane.kind)
    if theirs in ("", frame.stored_unit):
        return frame.factor
    if theirs == frame.unit:
        return 1.0
    if theirs == "adu" and frame.unit == "electron" and frame.gain_e_per_adu is not None:
        return frame.gain_e_per_adu
    from astropy import units

    try:
        return units.Unit(theirs).to(units.Unit(frame.stored_unit)) * frame.factor
    except (ValueError, TypeError, units.UnitConversionError):
        remarks.warn(f"{plane.label} is in {plane.unit}, the image in {frame.stored_unit}: it is not used")
        return None


def _unit_of_sigma(unit: str, kind: Kind) -> str:
    """The unit of the square root of a variance: electron2, electron**2, (electron)^2 are electron."""
    if kind != "sigma":
        unit = unit.replace(" ", "")
    if kind == "inverse variance":
        unit = unit.removeprefix("1/")
        for power in ("^-2", "**-2", "**(-2)", "^(-2)", "-2"):
            unit = unit.removesuffix(power)
    if kind != "sigma":
        for power in ("**2", "^2", "2", "**(2)"):
            unit = unit.removesuffix(power)
    unit = unit.strip(" ()'\"")
    return headers.unit_named(unit) if unit else ""


def _of_the_measured_size(sigma: np.ndarray, plane: _Plane, frame: Frame, remarks: Remarks) -> np.ndarray:
    """Weights may be ratios only, or exposure times: their noise is then that of the sky."""
    ratio = frame.noise / float(np.nanmedian(sigma.ravel()[:: max(1, sigma.size // 1_000_000)]))
    if plane.kind == "weight" and 1 / _MAX_RATIO < ratio < _MAX_RATIO:
        return sigma
    remarks.note(
        f"{plane.label} has no scale of its own: the noise of the sky, {frame.noise:.3g} {frame.unit}, gives it"
    )
    return sigma * np.float32(ratio)


# ---- files beside ----------------------------------------------------------------------------------------------------
def _beside(path: Path, suffix: tuple[str, str] | None) -> Path | None:
    """The companion file that a configured pattern names, where it exists."""
    if suffix is None or suffix[0] not in path.name:
        return None
    beside = path.with_name(path.name.replace(*suffix))
    return beside if beside.is_file() else None


@contextmanager
def _image_beside(path: Path, science: "fits.ImageHDU", number: int) -> Iterator[tuple["fits.ImageHDU", "fits.Header"]]:
    """The image of another file that belongs to a science HDU, and that file's primary header.

    The one of the same EXTNAME and EXTVER; else the only one of its shape; else the one of its number.
    """
    shape = image_shape(science)
    with open_fits(path, do_not_scale_image_data=True, memmap=True) as hdus:
        alike = [n for n, hdu in enumerate(hdus) if hdu.is_image and hdu.shape and image_shape(hdu) == shape]
        named = [n for n in alike if name_of(hdus[n]) == name_of(science) and hdus[n].ver == science.ver]
        if len(named) == 1:
            alike = named
        elif len(alike) > 1:
            alike = [n for n in alike if n == number]
        if not alike:
            raise InputFileError(f"{path} has no image with the shape {shape} of its frame")
        yield hdus[alike[0]], hdus[0].header
