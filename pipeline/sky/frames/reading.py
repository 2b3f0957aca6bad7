"""A file's science images as frames: unit, gain, bias, saturation, background and uncertainty."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.config import SkyIngestConfig
from pipeline.errors import InputFileError
from pipeline.sky import cards, headers
from pipeline.sky.background import robust_background
from pipeline.sky.dq import DQ, DQ_DTYPE, flag
from pipeline.sky.frames.companions import file_mask, file_uncertainty
from pipeline.sky.frames.frame import Frame
from pipeline.sky.frames.hdus import open_fits, pixels_of, remark_on_file, science_hdus
from pipeline.sky.remarks import Remarks

if TYPE_CHECKING:
    from astropy.io import fits

#: What messages call HDUs that come from no file.
IN_MEMORY = Path("the image")

# As many pixels at the largest value of an integer image, and that value of the form 2^n - 1, are a full converter.
_MIN_CLIPPED_PIXELS = 3
# Photon statistics that predict more than this times the measured noise cannot be those of the frame's pixels.
_MAX_NOISE_RATIO = 2.0


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


def read_pixels(path: str | Path, cfg: SkyIngestConfig) -> tuple[np.ndarray, "fits.Header"]:
    """Scaled pixels and header of the first science image, uncalibrated: for bias, dark and flat frames."""
    path = Path(path)
    with open_fits(path, do_not_scale_image_data=True, memmap=True) as hdus:
        number = science_hdus(hdus, cfg, path)[0]
        return pixels_of(hdus[number])[0], hdus[number].header.copy()


def _read(hdus: "fits.HDUList", number: int, cfg: SkyIngestConfig, path: Path, remarks: Remarks) -> Frame:
    header = hdus[number].header.copy()
    searched = (header,) if number == 0 else (header, hdus[0].header)
    notes = remarks.notes
    pixels, integer = pixels_of(hdus[number])
    ingested = cards.LEVEL.keyword in header
    stored_unit = headers.unit_of(header)
    section = _exposed_section(header, pixels.shape, ingested, integer, notes)
    gain = None if stored_unit not in ("adu", "electron") else _gain(searched, cfg, stored_unit, notes)
    bias, bias_known = _bias_level(searched, cfg, pixels, stored_unit, integer, ingested, notes)
    saturation = _saturation(searched, cfg, pixels, integer, ingested)

    dq = np.zeros(pixels.shape, DQ_DTYPE)
    flag(dq, ~np.isfinite(pixels), DQ.MISSING)
    if saturation is not None:
        flag(dq, pixels >= saturation, DQ.SATURATED)
    dq |= file_mask(hdus, number, cfg, path, pixels, remarks)

    unit = "electron" if stored_unit == "adu" and gain is not None else stored_unit
    factor = gain if unit != stored_unit else 1.0
    sci = (pixels - np.float32(bias)) * np.float32(factor)
    level, noise = _background(header, sci, dq, section, cfg, path)
    frame = Frame(
        path=path,
        science_hdu=number,
        sci=sci,
        err=sci,  # replaced below: the uncertainty needs the rest of the frame
        dq=dq,
        unit=unit,
        stored_unit=stored_unit,
        level=level,
        noise=noise,
        gain_e_per_adu=gain,
        read_noise_e=_read_noise(searched, cfg, notes),
        bias_level=bias,
        zero_known=bias_known,
        saturation=saturation,
        section=section,
        header=header,
    )
    err = file_uncertainty(hdus, frame, cfg, remarks)
    if err is None:
        err = _modelled_uncertainty(frame, notes)
    return replace(frame, err=err, notes=tuple(notes), warnings=tuple(remarks.warnings))


def _exposed_section(
    header: "fits.Header", shape: tuple[int, int], ingested: bool, integer: bool, notes: list[str]
) -> headers.Section | None:
    if ingested:
        return headers.find_section(header, (cards.SECTION.keyword,), shape)
    if not integer:  # a calibrated frame: its sections refer to the raw frame
        return None
    section = headers.find_section(header, ("TRIMSEC", "DATASEC"), shape)
    if section is None or section == headers.Section((0, shape[0]), (0, shape[1])):
        return None
    notes.append(f"only the section {section} is exposed; the rest of the frame is left as it is")
    return section


def _gain(searched: Sequence["fits.Header"], cfg: SkyIngestConfig, unit: str, notes: list[str]) -> float | None:
    if unit == "electron":
        notes.append("the pixels are electrons already")
        return None
    if cfg.gain_e_per_adu is not None:
        notes.append(f"gain {cfg.gain_e_per_adu:g} electron/adu from the configuration")
        return cfg.gain_e_per_adu
    gain = headers.find_gain(searched, notes)
    if gain is None:
        notes.append("gain unknown: the frame stays in ADU; configure ingest.sky.gain_e_per_adu for electrons")
        return None
    notes.append(f"gain {gain.value:.4g} electron/adu from {gain.card}")
    return gain.value


def _read_noise(searched: Sequence["fits.Header"], cfg: SkyIngestConfig, notes: list[str]) -> float | None:
    if cfg.read_noise_e is not None:
        notes.append(f"read noise {cfg.read_noise_e:g} electron from the configuration")
        return cfg.read_noise_e
    read_noise = headers.find_read_noise(searched, notes)
    if read_noise is None:
        return None
    notes.append(f"read noise {read_noise.value:.4g} electron from {read_noise.card}")
    return read_noise.value


def _bias_level(
    searched: Sequence["fits.Header"],
    cfg: SkyIngestConfig,
    pixels: np.ndarray,
    unit: str,
    integer: bool,
    ingested: bool,
    notes: list[str],
) -> tuple[float, bool]:
    """Bias level in the pixels, and whether the zero point is known."""
    if ingested:
        return 0.0, bool(searched[0].get(cards.ZERO_KNOWN.keyword, False))
    if unit != "adu":
        return 0.0, unit == "electron"
    if cfg.bias_level_adu is not None:
        notes.append(f"bias level {cfg.bias_level_adu:g} ADU from the configuration")
        return cfg.bias_level_adu, True
    done = headers.bias_subtracted(searched[0])
    if done is not None:
        notes.append(f"{done} says that the bias is subtracted")
        return 0.0, True
    bias = headers.find_bias_level(searched)
    if bias is not None:
        notes.append(f"bias level {bias.value:g} ADU from {bias.card}")
        return bias.value, True
    overscan = headers.find_section(searched[0], ("BIASSEC",), pixels.shape) if integer else None
    if overscan is not None:
        level = float(np.nanmedian(pixels[overscan.slices]))
        notes.append(f"bias level {level:g} ADU is the median of the overscan (BIASSEC)")
        return level, True
    notes.append("bias level unknown: nothing is subtracted")
    return 0.0, False


def _saturation(
    searched: Sequence["fits.Header"], cfg: SkyIngestConfig, pixels: np.ndarray, integer: bool, ingested: bool
) -> float | None:
    """Level from which a stored pixel counts as saturated."""
    if ingested:
        return searched[0].get(cards.SATURATION.keyword)
    if cfg.saturation_adu is not None:
        return cfg.saturation_adu
    saturation = headers.find_saturation(searched)
    if saturation is not None:
        return saturation.value
    if not integer or not np.isfinite(pixels).any():
        return None
    top = float(np.nanmax(pixels))
    full = top > 254 and float(np.log2(top + 1)).is_integer()
    return top if full and np.count_nonzero(pixels == top) >= _MIN_CLIPPED_PIXELS else None


def _background(
    header: "fits.Header",
    sci: np.ndarray,
    dq: np.ndarray,
    section: headers.Section | None,
    cfg: SkyIngestConfig,
    path: Path,
) -> tuple[float, float]:
    if cards.LEVEL.keyword in header and cards.NOISE.keyword in header:
        return float(header[cards.LEVEL.keyword]), float(header[cards.NOISE.keyword])
    part = section.slices if section else (slice(None), slice(None))
    level, noise = robust_background(sci[part], dq[part] != 0, cfg.background_box_px)
    if not np.isfinite(noise):
        level, noise = robust_background(sci[part], None, cfg.background_box_px)
    if not np.isfinite(noise):
        raise InputFileError(f"{path} has no valid pixel")
    if noise <= 0:
        raise InputFileError(
            f"{path}: most pixels have the value {level:g}, so its noise cannot be measured; is it a mask or a weight "
            "map? Remove it, or attach it to its frame with ingest.sky.mask_suffix or weight_suffix"
        )
    return level, noise


def _modelled_uncertainty(frame: Frame, notes: list[str]) -> np.ndarray:
    """Photon and read noise where gain and zero point are known; else the measured noise, plus the sources' photons."""
    measured = np.float32(frame.noise**2)
    if frame.unit != "electron":
        notes.append("uncertainty is the measured background noise alone: without a gain, photon noise is not known")
        return np.full(frame.shape, frame.noise, np.float32)
    if frame.zero_known and frame.read_noise_e is not None:
        expected = np.sqrt(max(frame.level, 0) + frame.read_noise_e**2)
        if expected > _MAX_NOISE_RATIO * frame.noise:
            notes.append(
                f"uncertainty is the measured background noise alone: {frame.noise:.3g} where photon statistics and "
                f"read noise give {expected:.3g}; the pixels are averaged, resampled or not counts"
            )
            return np.full(frame.shape, frame.noise, np.float32)
        notes.append("uncertainty from photon statistics and read noise")
        variance = np.maximum(frame.sci, 0) + np.float32(frame.read_noise_e**2)
    else:
        notes.append("uncertainty from the measured background noise and the photon statistics above the background")
        variance = np.maximum(frame.sci - np.float32(frame.level), 0) + measured
    return np.sqrt(np.where(np.isfinite(variance), variance, measured)).astype(np.float32)
