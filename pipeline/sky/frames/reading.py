"""A file's science images as frames: pixels, mask, unit, background and uncertainty.

Nothing here holds a whole image: planes are read, strip by strip, as often as something has to be known of all their
pixels.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.config import SkyIngestConfig
from pipeline.errors import InputFileError
from pipeline.sky import cards, headers
from pipeline.sky.background import BoxNoise, box_noise, quantised_noise, robust_background
from pipeline.sky.dq import DQ, DQ_DTYPE, flag, has
from pipeline.sky.frames.companions import Beside, file_mask, file_uncertainty, is_ours
from pipeline.sky.frames.fingerprint import fingerprint
from pipeline.sky.frames.frame import Frame
from pipeline.sky.frames.hdus import AS_STORED, check_memory, open_fits, pixels_of, remark_on_file, science_hdus
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
from pipeline.sky.strips import Image, LazyImage, computed, constant, count, nonzero, part_of

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
    """Read every science image of a file into memory, each SCI,n with its own ERR,n and DQ,n.

    Parameters
    ----------
    source : path or HDUList
        FITS of any BITPIX and scaling, plain or compressed in any of the usual ways; or HDUs in memory.
    cfg : SkyIngestConfig, optional
        Values that the header lacks or has wrong.

    Raises
    ------
    InputFileError
        If the file is damaged, has no image that can be a sky frame (the message names the choices), or has one that is
        larger than the memory.
    """
    with _opened(source, cfg or SkyIngestConfig(), whole=True) as frames:
        return [frame.loaded() for frame in frames]


@contextmanager
def open_frames(source: "str | Path | fits.HDUList", cfg: SkyIngestConfig | None = None) -> Iterator[list[Frame]]:
    """The science images of a file, whatever their size: their planes are read when, and as far as, they are used.

    Level, noise, saturation, mask and uncertainty of each are known when the block begins: all pixels were looked at
    for them. The planes can be used within the block.

    Raises
    ------
    InputFileError
        As `read_frames`, but for the memory; also within the block, for pixels that cannot be decoded.
    """
    with _opened(source, cfg or SkyIngestConfig(), whole=False) as frames:
        yield frames


@contextmanager
def _opened(source: "str | Path | fits.HDUList", cfg: SkyIngestConfig, *, whole: bool) -> Iterator[list[Frame]]:
    with ExitStack() as stack:
        beside = stack.enter_context(Beside.opened())
        if not isinstance(source, str | Path):
            yield _read_all(source, cfg, IN_MEMORY, beside)
            return
        hdus = stack.enter_context(open_fits(source, **AS_STORED))
        if whole:
            for number in science_hdus(hdus, cfg, Path(source)):
                check_memory(hdus[number])
        yield _read_all(hdus, cfg, Path(source), beside)


def _read_all(hdus: "fits.HDUList", cfg: SkyIngestConfig, path: Path, beside: Beside) -> list[Frame]:
    chosen = science_hdus(hdus, cfg, path)
    remarks = Remarks()
    remark_on_file(hdus, chosen, remarks)
    return [_read(hdus, number, cfg, path, Remarks(remarks.notes, remarks.warnings), beside) for number in chosen]


def _read(
    hdus: "fits.HDUList", number: int, cfg: SkyIngestConfig, path: Path, remarks: Remarks, beside: Beside
) -> Frame:
    searched = Cards.of(hdus, number)
    pixels, integer = pixels_of(hdus[number])
    mask = file_mask(hdus, number, cfg, path, pixels, remarks, beside)
    as_ingested, measured = _is_as_ingested(searched, pixels), None
    if as_ingested:
        frame = _ingested(searched, pixels, mask, cfg, remarks)
    else:
        frame, measured = _foreign(searched, pixels, integer, mask, cfg, path, remarks)
    frame = replace(frame, path=path, science_hdu=number)
    given = file_uncertainty(hdus, frame, cfg, remarks, beside)
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
    strict = _is_changed(searched) and not _is_restored(searched)
    return checked_uncertainty(frame, given, strict=strict, measured=measured)


def _remark_on_lost_planes(hdus: "fits.HDUList", given: Image | None, remarks: Remarks) -> None:
    """Ingest writes ERR and DQ beside every image: where one is missing, something was lost."""
    lost = ["ERR"] if given is None else []
    lost += [] if any(is_ours(hdu) for hdu in hdus) else ["DQ"]
    if lost:
        remarks.warn(
            f"lightpool has ingested this file, but its {' and '.join(lost)} cannot be read or was removed: "
            "uncertainties and bad pixels are those of the image alone; ingest it again"
        )


# ---- as lightpool has ingested it ------------------------------------------------------------------------------------
def _is_as_ingested(searched: Cards, pixels: Image) -> bool:
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


def _ingested(searched: Cards, pixels: LazyImage, mask: LazyImage, cfg: SkyIngestConfig, remarks: Remarks) -> Frame:
    """What ingest measured is in the header: nothing is measured or looked up again."""
    for text in cards.warnings_in(searched.header.get("HISTORY", ())):
        remarks.warn(text)
    stored_unit = headers.unit_of(searched)
    gain = cfg.gain_e_per_adu if stored_unit == "adu" else None
    factor = gain or 1.0
    level, noise = _background_cards(searched)
    saturation = next((entry.number for entry in searched.of_image(cards.SATURATION.keyword)), None)
    sci = computed(lambda stored: stored * np.float32(factor), pixels, dtype=np.float32)
    return Frame(
        path=IN_MEMORY,
        science_hdu=0,
        sci=sci,
        err=sci,  # replaced by the caller
        dq=_flagged(pixels, saturation, mask),
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
    pixels: LazyImage,
    integer: bool,
    mask: LazyImage,
    cfg: SkyIngestConfig,
    path: Path,
    remarks: Remarks,
) -> tuple[Frame, BoxNoise]:
    """A frame, and the noise of its boxes in its unit."""
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
    measured = box_noise(part_of(pixels, part), nonzero(part_of(mask, part)))
    if changed:
        mask = _mask_that_fits(mask, pixels, measured, remarks)
    scale = _scale(searched, pixels, integer, changed, section, measured, cfg, remarks)
    saturation = saturation_level(None if changed else searched, cfg, pixels, scale.gain, measured, remarks)
    dq = _flagged(pixels, saturation, mask)
    sci = computed(
        lambda stored: (stored - np.float32(scale.bias)) * np.float32(scale.gain or 1.0), pixels, dtype=np.float32
    )
    level, noise = _background(part_of(sci, part), part_of(dq, part), cfg, path)
    frame = Frame(
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
    return frame, measured.scaled(scale.bias, scale.gain or 1.0)


class _Scale(NamedTuple):
    """From stored numbers to the frame's unit."""

    bias: float
    zero_known: bool
    gain: float | None
    gain_contradicted: bool


def _scale(
    searched: Cards,
    pixels: LazyImage,
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


def _flagged(pixels: LazyImage, saturation: float | None, mask: LazyImage) -> LazyImage:
    """Missing and saturated pixels, beside those of a mask."""

    def flagged(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
        dq = mask.copy()
        flag(dq, ~np.isfinite(pixels), DQ.MISSING)
        if saturation is not None:
            flag(dq, pixels >= saturation, DQ.SATURATED)
        return dq

    return computed(flagged, pixels, mask, dtype=DQ_DTYPE)


def _mask_that_fits(mask: LazyImage, pixels: LazyImage, measured: BoxNoise, remarks: Remarks) -> LazyImage:
    """A mask beside changed pixels, unless what it calls bright is not: then they were flipped, shifted or cut."""
    if not len(measured):
        return mask
    limit = np.median(measured.level) + 3 * np.median(measured.spread)

    def called_bright(mask: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        return has(mask, _BRIGHT) & ~has(mask, DQ.RESTORED) & np.isfinite(pixels)

    n_called = count(computed(called_bright, mask, pixels, dtype=bool))
    n_bright = count(computed(lambda m, p: called_bright(m, p) & (p > limit), mask, pixels, dtype=bool))
    if n_called < _MIN_BRIGHT_PIXELS or n_bright >= 0.5 * n_called:
        return mask
    remarks.warn("the mask is not used: most pixels that it calls saturated or defective have the level of the sky")
    return constant(mask.shape, 0, DQ_DTYPE)


def _background(sci: Image, dq: Image, cfg: SkyIngestConfig, path: Path) -> tuple[float, float]:
    level, noise = robust_background(sci, nonzero(dq), cfg.background_box_px)
    if not np.isfinite(noise):
        level, noise = robust_background(sci, None, cfg.background_box_px)
    if not np.isfinite(noise):
        raise InputFileError(f"{path} has no valid pixel")
    if noise <= 0:
        valid = computed(lambda s, d: np.where(d == 0, s, np.float32(np.nan)), sci, dq, dtype=np.float32)
        noise = quantised_noise(valid, level)
    if noise <= 0:
        raise InputFileError(
            f"{path}: most pixels have the value {level:g}, so its noise cannot be measured; is it a mask or a weight "
            "map? Remove it, or attach it to its frame with ingest.sky.mask_suffix or weight_suffix"
        )
    return level, noise
