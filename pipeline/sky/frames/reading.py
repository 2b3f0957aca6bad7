"""A file's science images as frames: pixels, mask, unit, background and uncertainty."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.config import SkyIngestConfig
from pipeline.errors import InputFileError
from pipeline.sky import cards, headers
from pipeline.sky.background import BoxNoise, box_noise, quantised_noise, robust_background
from pipeline.sky.dq import DQ, DQ_DTYPE, flag, has
from pipeline.sky.frames.companions import file_mask, file_uncertainty, is_ours
from pipeline.sky.frames.fingerprint import fingerprint
from pipeline.sky.frames.frame import Frame
from pipeline.sky.frames.hdus import open_fits, pixels_of, remark_on_file, science_hdus
from pipeline.sky.frames.scale import (
    bias_level,
    exposed_section,
    gain_e_per_adu,
    read_noise_e,
    saturation_level,
    zero_is_contradicted,
)
from pipeline.sky.frames.uncertainty import checked_uncertainty
from pipeline.sky.headers import Cards
from pipeline.sky.remarks import Remarks

if TYPE_CHECKING:
    from astropy.io import fits

#: What messages call HDUs that come from no file.
IN_MEMORY = Path("the image")

# A mask beside changed pixels is theirs still if most of what it calls bright is bright.
_BRIGHT = DQ.SATURATED | DQ.HOT | DQ.COSMIC_RAY | DQ.TRAIL | DQ.BLEED
_MIN_BRIGHT_PIXELS = 3


def read_frame(path: str | Path, cfg: SkyIngestConfig | None = None) -> Frame:
    """The first (most often the only) science image of a file; see `read_frames`."""
    return read_frames(path, cfg)[0]


def read_frames(source: "str | Path | fits.HDUList", cfg: SkyIngestConfig | None = None) -> list[Frame]:
    """Read every science image of a file, each SCI,n with its own ERR,n and DQ,n.

    Parameters
    ----------
    source : path or HDUList
        FITS of any BITPIX and scaling, plain or compressed in any of the usual ways; or HDUs in memory.
    cfg : SkyIngestConfig, optional
        Values that the header lacks or has wrong.

    Raises
    ------
    InputFileError
        If the file is damaged, or has no image that can be a sky frame; the message names the choices.
    """
    cfg = cfg or SkyIngestConfig()
    if not isinstance(source, str | Path):
        return _read_all(source, cfg, IN_MEMORY)
    path = Path(source)
    with open_fits(path, do_not_scale_image_data=True, memmap=True) as hdus:
        return _read_all(hdus, cfg, path)


def _read_all(hdus: "fits.HDUList", cfg: SkyIngestConfig, path: Path) -> list[Frame]:
    chosen = science_hdus(hdus, cfg, path)
    remarks = Remarks()
    remark_on_file(hdus, chosen, remarks)
    return [_read(hdus, number, cfg, path, Remarks(remarks.notes, remarks.warnings)) for number in chosen]


def _read(hdus: "fits.HDUList", number: int, cfg: SkyIngestConfig, path: Path, remarks: Remarks) -> Frame:
    searched = Cards.of(hdus, number)
    pixels, integer = pixels_of(hdus[number])
    mask = file_mask(hdus, number, cfg, path, pixels, remarks)
    as_ingested = _is_as_ingested(searched, pixels)
    if as_ingested:
        frame = _ingested(searched, pixels, mask, cfg, remarks)
    else:
        frame = _foreign(searched, pixels, integer, mask, cfg, path, remarks)
    frame = replace(frame, path=path, science_hdu=number)
    given = file_uncertainty(hdus, frame, cfg, remarks)
    if as_ingested:
        _remark_on_lost_planes(hdus, given, remarks)
    frame = replace(
        frame,
        notes=tuple(remarks.notes),
        warnings=tuple(remarks.warnings),
        header=searched.header,
        searched=searched,
    )
    if as_ingested and given is not None:
        return replace(frame, err=given)
    return checked_uncertainty(frame, given, strict=_is_changed(searched) and not _is_restored(searched))


def _remark_on_lost_planes(hdus: "fits.HDUList", given: np.ndarray | None, remarks: Remarks) -> None:
    """Ingest writes ERR and DQ beside every image: where one is missing, something was lost."""
    lost = ["ERR"] if given is None else []
    lost += [] if any(is_ours(hdu) for hdu in hdus) else ["DQ"]
    if lost:
        remarks.warn(
            f"lightpool has ingested this file, but its {' and '.join(lost)} cannot be read or was removed: "
            "uncertainties and bad pixels are those of the image alone; ingest it again"
        )


# ---- as lightpool has ingested it ------------------------------------------------------------------------------------
def _is_as_ingested(searched: Cards, pixels: np.ndarray) -> bool:
    """Whether ingest wrote the cards of this header, and for these pixels."""
    written = next(searched.of_image(cards.SUM.keyword), None)
    if written is None or cards.LEVEL.keyword not in searched.header:
        return False
    return written.text == fingerprint(pixels) and None not in _background_cards(searched)


def _is_changed(searched: Cards) -> bool:
    """Whether a frame that is not as ingested was ingested once."""
    return cards.LEVEL.keyword in searched.header


def _is_restored(searched: Cards) -> bool:
    """Whether lightpool itself has changed the pixels since, by a prediction."""
    return cards.LEVEL_BEFORE.keyword in searched.header


def _background_cards(searched: Cards) -> tuple[float | None, float | None]:
    entries = (next(searched.of_image(card.keyword), None) for card in (cards.LEVEL, cards.NOISE))
    level, noise = (None if entry is None else entry.number for entry in entries)
    return level, noise


def _ingested(searched: Cards, pixels: np.ndarray, mask: np.ndarray, cfg: SkyIngestConfig, remarks: Remarks) -> Frame:
    """What ingest measured is in the header: nothing is measured or looked up again."""
    for text in cards.warnings_in(searched.header.get("HISTORY", ())):
        remarks.warn(text)
    stored_unit = headers.unit_of(searched)
    gain = cfg.gain_e_per_adu if stored_unit == "adu" else None
    factor = gain or 1.0
    level, noise = _background_cards(searched)
    saturation = next((entry.number for entry in searched.of_image(cards.SATURATION.keyword)), None)
    sci = pixels * np.float32(factor)
    return Frame(
        path=IN_MEMORY,
        science_hdu=0,
        sci=sci,
        err=sci,  # replaced by the caller
        dq=_flagged(pixels, saturation) | mask,
        unit="electron" if gain else stored_unit,
        stored_unit=stored_unit,
        level=level * factor,
        noise=noise * factor,
        gain_e_per_adu=gain,
        read_noise_e=read_noise_e(searched, cfg, remarks),
        zero_known=any(entry.value is True for entry in searched.of_image(cards.ZERO_KNOWN.keyword)),
        saturation=saturation,
        section=headers.find_section(searched, (cards.SECTION.keyword,), pixels.shape, remarks),
    )


# ---- any other -------------------------------------------------------------------------------------------------------
def _foreign(
    searched: Cards,
    pixels: np.ndarray,
    integer: bool,
    mask: np.ndarray,
    cfg: SkyIngestConfig,
    path: Path,
    remarks: Remarks,
) -> Frame:
    changed = _is_changed(searched)
    if changed and _is_restored(searched):
        remarks.note("the pixels are restored ones; level, noise and saturation are measured again")
    elif changed:
        remarks.warn(
            f"the pixels are not those that lightpool ingested ({cards.SUM.keyword} differs): its cards are not used; "
            "level, noise and saturation are measured again"
        )
    stored_unit = headers.unit_of(searched)
    section = None if changed else exposed_section(searched, pixels.shape, integer, remarks)
    part = section.slices if section else (slice(None), slice(None))
    measured = box_noise(pixels[part], mask[part] != 0)
    if changed:
        mask = _mask_that_fits(mask, pixels, measured, remarks)
    scale = _scale(searched, pixels, integer, changed, section, measured, cfg, remarks)
    saturation = saturation_level(None if changed else searched, cfg, pixels, scale.gain, measured, remarks)
    dq = _flagged(pixels, saturation) | mask
    sci = (pixels - np.float32(scale.bias)) * np.float32(scale.gain or 1.0)
    level, noise = _background(sci[part], dq[part], cfg, path)
    return Frame(
        path=path,
        science_hdu=0,
        sci=sci,
        err=sci,  # replaced by the caller
        dq=dq,
        unit="electron" if scale.gain else stored_unit,
        stored_unit=stored_unit,
        level=level,
        noise=noise,
        gain_e_per_adu=scale.gain,
        read_noise_e=read_noise_e(searched, cfg, remarks),
        bias_level=scale.bias,
        zero_known=scale.zero_known,
        saturation=saturation,
        gain_contradicted=scale.gain_contradicted,
        section=section,
    )


class _Scale(NamedTuple):
    """From stored numbers to the frame's unit."""

    bias: float
    zero_known: bool
    gain: float | None
    gain_contradicted: bool


def _scale(
    searched: Cards,
    pixels: np.ndarray,
    integer: bool,
    changed: bool,
    section: headers.Section | None,
    measured: BoxNoise,
    cfg: SkyIngestConfig,
    remarks: Remarks,
) -> _Scale:
    stored_unit = headers.unit_of(searched)
    if stored_unit == "electron":
        remarks.note("the pixels are electrons already")
    if stored_unit != "adu":
        return _Scale(0.0, stored_unit == "electron", None, False)
    if changed:  # bias and gain of the header were applied when lightpool ingested it
        return _Scale(cfg.bias_level_adu or 0.0, cfg.bias_level_adu is not None, cfg.gain_e_per_adu, False)
    bias, zero_known = bias_level(searched, cfg, pixels, section, integer, measured, remarks)
    gain, contradicted = gain_e_per_adu(searched, cfg, bias, zero_known, measured, remarks)
    if zero_known and gain is not None:
        read_noise = read_noise_e(searched, cfg, Remarks())
        zero_known = not zero_is_contradicted(gain, bias, read_noise, measured, remarks)
    return _Scale(bias, zero_known and not contradicted, gain, contradicted)


def _flagged(pixels: np.ndarray, saturation: float | None) -> np.ndarray:
    """Missing and saturated pixels."""
    dq = np.zeros(pixels.shape, DQ_DTYPE)
    flag(dq, ~np.isfinite(pixels), DQ.MISSING)
    if saturation is not None:
        flag(dq, pixels >= saturation, DQ.SATURATED)
    return dq


def _mask_that_fits(mask: np.ndarray, pixels: np.ndarray, measured: BoxNoise, remarks: Remarks) -> np.ndarray:
    """A mask beside changed pixels, unless what it calls bright is not: then they were flipped, shifted or cut."""
    bright = pixels[has(mask, _BRIGHT) & ~has(mask, DQ.RESTORED) & np.isfinite(pixels)]
    if bright.size < _MIN_BRIGHT_PIXELS or not len(measured):
        return mask
    limit = np.median(measured.level) + 3 * np.median(measured.spread)
    if np.mean(bright > limit) >= 0.5:
        return mask
    remarks.warn("the mask is not used: most pixels that it calls saturated or defective have the level of the sky")
    return np.zeros_like(mask)


def _background(sci: np.ndarray, dq: np.ndarray, cfg: SkyIngestConfig, path: Path) -> tuple[float, float]:
    level, noise = robust_background(sci, dq != 0, cfg.background_box_px)
    if not np.isfinite(noise):
        level, noise = robust_background(sci, None, cfg.background_box_px)
    if not np.isfinite(noise):
        raise InputFileError(f"{path} has no valid pixel")
    if noise <= 0:
        noise = quantised_noise(np.where(dq == 0, sci, np.float32(np.nan)), level)
    if noise <= 0:
        raise InputFileError(
            f"{path}: most pixels have the value {level:g}, so its noise cannot be measured; is it a mask or a weight "
            "map? Remove it, or attach it to its frame with ingest.sky.mask_suffix or weight_suffix"
        )
    return level, noise
