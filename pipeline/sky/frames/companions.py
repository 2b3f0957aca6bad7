"""Masks and uncertainties that come with a frame: in extensions of its file, or in files beside it."""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.config import SkyIngestConfig
from pipeline.errors import InputFileError
from pipeline.sky import cards, headers
from pipeline.sky.dq import DQ, DQ_DTYPE
from pipeline.sky.frames.coverage import uncovered
from pipeline.sky.frames.frame import Frame
from pipeline.sky.frames.hdus import AS_STORED, bits_of, open_fits, pixels_of, science_hdus
from pipeline.sky.frames.mask_tables import Flag, flags_of_table
from pipeline.sky.frames.masks import IGNORE, Sky, translate
from pipeline.sky.frames.planes import NAMES, Kind, image_shape, kind_of, name_of
from pipeline.sky.remarks import Remarks
from pipeline.sky.strips import LazyImage, computed, constant, count, median, sample_of, strips

if TYPE_CHECKING:
    from astropy.io import fits

#: Kinds of planes that hold the uncertainty of an image.
UNCERTAINTIES: tuple[Kind, ...] = ("sigma", "variance", "inverse variance")
_WEIGHTS: tuple[Kind, ...] = ("weight", "exposure")
# Weights whose noise is within this factor of the measured one are inverse variances; others only say ratios.
_MAX_RATIO = 2.0
# An uncertainty of so many typical ones tells nothing: at the edge of a coadd of some hundred exposures, it is less.
_SAYS_NOTHING = 30.0


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
    of them before it. One that is alone, and has no plane of its EXTVER, was cut out of a larger file: it has them all.
    """
    rivals = [n for n in science if hdus[n].ver == hdus[number].ver]
    others = [n for n, hdu in enumerate(hdus) if n not in science and hdu.is_image]
    alike = [n for n in others if hdus[n].ver == hdus[number].ver]
    if len(science) == 1:
        return alike if any(hdus[n].shape for n in alike) else others
    return [n for n in alike if len(rivals) == 1 or max((m for m in rivals if m < n), default=None) == number]


def is_ours(hdu: "fits.ImageHDU") -> bool:
    """Whether a mask has lightpool's bits."""
    return cards.OUR_BITS.keyword in hdu.header


# ---- masks -----------------------------------------------------------------------------------------------------------
def file_mask(
    hdus: "fits.HDUList",
    number: int,
    cfg: SkyIngestConfig,
    path: Path,
    pixels: LazyImage,
    remarks: Remarks,
    beside: "Beside",
) -> LazyImage:
    """Our bits, from our own DQ extension, or from the camera's masks, weights of zero, and parts without light.

    Parameters
    ----------
    pixels : LazyImage of float32, shape (H, W)
        Of the science HDU `number`, as stored.
    beside : Beside
        Files that are opened for masks and weights; the result is read from them.
    """
    masks = companions(hdus, number, cfg, path, ("mask",))
    ours = next((n for n in masks if is_ours(hdus[n])), None)
    if ours is not None:
        return _our_bits(hdus[ours], path, pixels.shape)
    sky = Sky(pixels)
    mask = constant(pixels.shape, 0, DQ_DTYPE)
    names = _tables_of_names(hdus)
    image_headers = [hdus[number].header, hdus[0].header]
    for n in masks:
        label = f"the mask in {name_of(hdus[n]) or 'an extension'}"
        if cfg.dq_convention == IGNORE:
            remarks.note(f"{label} is ignored (ingest.sky.dq_convention)")
            continue
        _check_shape(hdus[n], label, path, pixels.shape)
        known = [hdus[n].header, *image_headers]
        mask = _both(mask, translate(bits_of(hdus[n]), known, label, path, sky, cfg, remarks, names))
    file = _file_beside(path, cfg.mask_suffix)
    if file is not None and cfg.dq_convention != IGNORE:
        hdu, primary = beside.image(file, hdus[number], number)
        known = [hdu.header, primary, *image_headers]
        mask = _both(mask, translate(bits_of(hdu), known, f"the mask {file.name}", path, sky, cfg, remarks))
    mask = _with_uncovered(mask, pixels, remarks)
    for plane in _planes(hdus, number, cfg, path, pixels.shape, beside):
        mask = _with_useless(mask, plane, sky, remarks)
    return mask


def _both(mask: LazyImage, other: LazyImage) -> LazyImage:
    return computed(np.bitwise_or, mask, other, dtype=DQ_DTYPE)


def _our_bits(hdu: "fits.ImageHDU", path: Path, shape: tuple[int, ...]) -> LazyImage:
    _check_shape(hdu, name_of(hdu), path, shape)
    bits = bits_of(hdu)
    if any((bits[rows] > np.iinfo(DQ_DTYPE).max).any() for rows in strips(bits)):
        raise InputFileError(f"{path}: {hdu.name} is marked as lightpool's, but has more than sixteen bits")
    return computed(lambda stored: stored.astype(DQ_DTYPE), bits, dtype=DQ_DTYPE)


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


def _with_uncovered(mask: LazyImage, pixels: LazyImage, remarks: Remarks) -> LazyImage:
    """Missing data: numbers without noise over large parts."""
    where, values = uncovered(pixels)
    if where is None:
        return mask
    numbers = " and ".join(f"{value:g}" for value in values)
    remarks.warn(
        f"{100 * count(where) / where.size:.2g} % of the pixels have the value {numbers} without any "
        "noise over large parts and count as missing"
    )
    return _flagged_missing(mask, where)


def _with_useless(mask: LazyImage, plane: "_Plane", sky: Sky, remarks: Remarks) -> LazyImage:
    """Missing data: pixels of which a weight or an uncertainty says that nothing is known, where no flag says more.

    Pipelines give saturated stars a weight of zero, too: inner pixels of sources are left alone.
    """
    if not count(computed(_useful, plane.values, dtype=bool)):
        return mask
    sigma = _where_it_says_something(_sigma_of(plane, 1.0), sky.pixels, *sky.level_and_noise)
    useless = computed(lambda values, mask: np.isnan(values) & (mask == 0), sigma, mask, dtype=bool)
    n_useless = count(useless)
    if n_useless == 0:
        return mask
    share = 100 * n_useless / useless.size
    said = "no weight" if plane.kind not in ("sigma", "variance") else "no usable uncertainty"
    remarks.note(f"{share:.2g} % of the pixels have {said} in {plane.label} and count as missing")
    return _flagged_missing(mask, computed(lambda u, source: u & ~source, useless, sky.sources, dtype=bool))


def _where_it_says_something(sigma: LazyImage, pixels: LazyImage, level: float, noise: float) -> LazyImage:
    """Uncertainties; NaN where they are none, and where they are so large that the pixel could have any value.

    Other programs write numbers such as 1e10 for what was not observed, and weights that only just are not zero. Bright
    sources have large uncertainties, too, which are small beside their light.
    """
    sample = sample_of(sigma)
    typical = np.median(sample[np.isfinite(sample)]) if np.isfinite(sample).any() else np.float32(np.nan)

    def told(sigma: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", over="ignore"):
            ratio = sigma / typical
            nothing = (ratio > _SAYS_NOTHING) & ~(np.abs(pixels - np.float32(level)) > ratio * np.float32(noise))
        return np.where(nothing, np.float32(np.nan), sigma)

    return computed(told, sigma, pixels, dtype=np.float32)


def _flagged_missing(mask: LazyImage, where: LazyImage) -> LazyImage:
    missing, good = DQ_DTYPE(DQ.MISSING), DQ_DTYPE(0)
    return computed(lambda mask, where: mask | np.where(where, missing, good), mask, where, dtype=DQ_DTYPE)


# ---- uncertainties ---------------------------------------------------------------------------------------------------
def file_uncertainty(
    hdus: "fits.HDUList", frame: Frame, cfg: SkyIngestConfig, remarks: Remarks, beside: "Beside"
) -> LazyImage | None:
    """One sigma from uncertainties, variances, inverse variances or weights, in the file or in one beside.

    Returns
    -------
    LazyImage of float32, shape (H, W), or None
        In the unit of `frame`, everywhere positive; None where there is nothing that can be used.
    """
    for plane in _planes(hdus, frame.science_hdu, cfg, frame.path, frame.shape, beside):
        if not count(computed(_useful, plane.values, dtype=bool)):  # HST's raw files carry empty ERR arrays
            continue
        factor = _unit_factor(plane, frame, remarks)
        if factor is None:
            continue
        sigma = _where_it_says_something(_sigma_of(plane, factor), frame.sci, frame.level, frame.noise)
        if plane.kind in _WEIGHTS:
            sigma = _of_the_measured_size(sigma, plane, frame, remarks)
        remarks.note(f"uncertainty from {plane.label}")
        return _filled_up(sigma, median(sigma))
    return None


def _filled_up(sigma: LazyImage, typical: np.float32) -> LazyImage:
    return computed(lambda values: np.where(np.isnan(values), typical, values), sigma, dtype=np.float32)


def _useful(values: np.ndarray) -> np.ndarray:
    return np.isfinite(values) & (values > 0)


def _sigma_of(plane: "_Plane", factor: float) -> LazyImage:
    """Of a plane, times a factor; NaN where it says nothing."""

    def sigma(values: np.ndarray) -> np.ndarray:
        values = np.where(_useful(values), values, np.float32(np.nan))
        if plane.kind == "variance":
            values = np.sqrt(values)
        elif plane.kind != "sigma":
            values = 1 / np.sqrt(values)
        return values * np.float32(factor)

    return computed(sigma, plane.values, dtype=np.float32)


@dataclass(frozen=True)
class _Plane:
    """An uncertainty or a weight: its numbers as stored, and its unit as it is written."""

    kind: Kind
    values: LazyImage
    label: str
    unit: str


def _planes(
    hdus: "fits.HDUList",
    number: int,
    cfg: SkyIngestConfig,
    path: Path,
    shape: tuple[int, ...],
    beside: "Beside",
) -> Iterator[_Plane]:
    """Those in the file, uncertainties first, then weights; then the one in the file beside."""

    def plane(hdu: "fits.ImageHDU", kind: Kind, label: str) -> _Plane:
        return _Plane(kind, pixels_of(hdu)[0], label, str(hdu.header.get("BUNIT", "")).strip())

    for kinds in (UNCERTAINTIES, _WEIGHTS):
        for n in companions(hdus, number, cfg, path, kinds):
            if image_shape(hdus[n]) == shape:
                yield plane(hdus[n], kind_of(hdus[n]), f"the {name_of(hdus[n])} extension")
    file = _file_beside(path, cfg.weight_suffix)
    if file is not None:
        hdu, _ = beside.image(file, hdus[number], number)
        yield plane(hdu, kind_of(hdu) or "inverse variance", file.name)


def _unit_factor(plane: _Plane, frame: Frame, remarks: Remarks) -> float | None:
    """What turns a plane's sigma into the unit of the frame; None, and a warning, where that is unknown."""
    theirs = "" if plane.kind in _WEIGHTS else unit_of_sigma(plane.unit, plane.kind)
    if theirs in ("", frame.stored_unit):
        return frame.factor
    if theirs == frame.unit:
        return 1.0
    if theirs == "adu" and frame.unit == "electron" and frame.gain_e_per_adu is not None:
        return frame.gain_e_per_adu
    try:
        return headers.parsed_unit(theirs).to(headers.parsed_unit(frame.stored_unit)) * frame.factor
    except (ValueError, TypeError, AttributeError):  # units of other things, or none
        remarks.warn(f"{plane.label} is in {plane.unit}, the image in {frame.stored_unit}: it is not used")
        return None


def unit_of_sigma(unit: str, kind: Kind) -> str:
    """The unit of one sigma: ``electron / s`` of a variance in ``electron2 / s2``; an empty one of none.

    Some programs copy the unit of the image into the header of its variance: what is no square stays as it is.
    """
    root = unit if kind == "sigma" else unit.replace(" ", "")
    if kind == "inverse variance":
        root = root.removeprefix("1/")
    if kind != "sigma":
        sign = "-?" if kind == "inverse variance" else ""
        root = re.sub(rf"(?:\*\*|\^)?(?:{sign}2|\({sign}2\))$", "", root)
    root = root.strip(" ()'\"")
    parsed = None if kind == "sigma" or re.fullmatch(r"[A-Za-z]+|e-", root) else headers.parsed_unit(unit)
    if parsed is not None:
        parsed **= -0.5 if kind == "inverse variance" else 0.5
        if all(power == int(power) for power in parsed.powers):
            return parsed.to_string()
    return headers.unit_named(root) if root else ""


def _of_the_measured_size(sigma: LazyImage, plane: _Plane, frame: Frame, remarks: Remarks) -> LazyImage:
    """Weights may be ratios only, or exposure times: their noise is then that of the sky."""
    ratio = frame.noise / float(np.nanmedian(sample_of(sigma)))
    if plane.kind == "weight" and 1 / _MAX_RATIO < ratio < _MAX_RATIO:
        return sigma
    remarks.note(
        f"{plane.label} has no scale of its own: the noise of the sky, {frame.noise:.3g} {frame.unit}, gives it"
    )
    return computed(lambda values: values * np.float32(ratio), sigma, dtype=np.float32)


# ---- files beside ----------------------------------------------------------------------------------------------------
def _file_beside(path: Path, suffix: tuple[str, str] | None) -> Path | None:
    """The companion file that a configured pattern names, where it exists."""
    if suffix is None or suffix[0] not in path.name:
        return None
    beside = path.with_name(path.name.replace(*suffix))
    return beside if beside.is_file() else None


class Beside:
    """Files beside a frame, each opened once, and open until the frame is done with."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack, self._files = stack, {}

    @classmethod
    @contextmanager
    def opened(cls) -> "Iterator[Beside]":
        """Close all files at the end."""
        with ExitStack() as stack:
            yield cls(stack)

    def image(self, path: Path, science: "fits.ImageHDU", number: int) -> tuple["fits.ImageHDU", "fits.Header"]:
        """The image of another file that belongs to a science HDU, and that file's primary header.

        The one of the same EXTNAME and EXTVER; else the only one of its shape; else the one of its number.
        """
        if path not in self._files:
            self._files[path] = self._stack.enter_context(open_fits(path, **AS_STORED))
        hdus, shape = self._files[path], image_shape(science)
        alike = [n for n, hdu in enumerate(hdus) if hdu.is_image and hdu.shape and image_shape(hdu) == shape]
        named = [n for n in alike if name_of(hdus[n]) == name_of(science) and hdus[n].ver == science.ver]
        if len(named) == 1:
            alike = named
        elif len(alike) > 1:
            alike = [n for n in alike if n == number]
        if not alike:
            raise InputFileError(f"{path} has no image with the shape {shape} of its frame")
        return hdus[alike[0]], hdus[0].header
