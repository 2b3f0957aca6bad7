"""Reading and answering FITS frames. numpy and astropy.io.fits only: single-image prediction stands on this module.

A frame is read into electrons where a gain is known (from the configuration, else from the header), else it stays in
its own unit, and `Frame.notes` says so. The answer goes back into a copy of the file it came from, in the unit it came
in, with every other HDU, card and the WCS as they were.
"""

import logging
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.config import SkyIngestConfig
from pipeline.errors import InputFileError, UserError
from pipeline.files import atomic_output
from pipeline.sky import cards, headers
from pipeline.sky.background import robust_background
from pipeline.sky.dq import DESCRIPTIONS, DQ, DQ_DTYPE, flag

if TYPE_CHECKING:
    from astropy.io import fits

log = logging.getLogger(__name__)

#: More image HDUs than this, none of them called SCI, is a collection, not a frame.
_MAX_IMAGE_HDUS = 16
# As many pixels at the largest value of an integer image, and that value of the form 2^n - 1, are a full converter.
_MIN_CLIPPED_PIXELS = 3
# Photon statistics that predict more than this times the measured noise cannot be those of the frame's pixels.
_MAX_NOISE_RATIO = 2.0
_PACKED = (b"\x1f\x8b", b"BZh")  # gzip, bzip2
# Cards that describe the stored numbers and not the image; they do not fit the float pixels of an answer.
_STORAGE_CARDS = ("BSCALE", "BZERO", "BLANK", "CHECKSUM", "DATASUM")
_DQ_NAMES = ("DQ", cards.OUR_BITS.keyword)


@dataclass(frozen=True)
class Frame:
    """One science image with its uncertainty and mask.

    Attributes
    ----------
    sci : ndarray, shape (H, W), float32
        In `unit`; NaN where the file has no value.
    err : ndarray, shape (H, W), float32
        One sigma, in `unit`.
    dq : ndarray, shape (H, W), uint16
        Bits of `pipeline.sky.dq.DQ`.
    unit : str
        ``electron``, ``adu``, or the file's own unit as it is written.
    stored_unit : str
        The unit that the file's pixels are in.
    gain_e_per_adu, read_noise_e : float, optional
        As used; None where unknown.
    bias_level : float
        What was subtracted, in `stored_unit`.
    zero_known : bool
        Whether zero means no light: the bias is known, or was subtracted before.
    saturation : float, optional
        Level from which a pixel counts as saturated, in `stored_unit`, bias included.
    level, noise : float
        Median level and rms of the background, in `unit`.
    section : Section, optional
        The exposed part of a frame that still has its overscan.
    notes : tuple of str
        What was taken from where, and what is not known.
    """

    path: Path
    science_hdu: int
    sci: np.ndarray
    err: np.ndarray
    dq: np.ndarray
    unit: str
    stored_unit: str
    level: float
    noise: float
    gain_e_per_adu: float | None = None
    read_noise_e: float | None = None
    bias_level: float = 0.0
    zero_known: bool = False
    saturation: float | None = None
    section: headers.Section | None = None
    notes: tuple[str, ...] = ()
    header: "fits.Header | None" = field(default=None, repr=False)

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.sci.shape

    @property
    def exposed(self) -> tuple[slice, slice]:
        """Index of the exposed part: the whole frame, unless it has its overscan still."""
        return self.section.slices if self.section else (slice(None), slice(None))

    @property
    def factor(self) -> float:
        """`unit` per `stored_unit`."""
        return self.gain_e_per_adu if self.unit == "electron" and self.stored_unit == "adu" else 1.0

    def to_stored(self, values: np.ndarray) -> np.ndarray:
        """From `unit` back to the pixels' own unit and zero point."""
        return values / np.float32(self.factor) + np.float32(self.bias_level)


# ---- opening ---------------------------------------------------------------------------------------------------------
@contextmanager
def open_fits(path: str | Path, **options: Any) -> Iterator["fits.HDUList"]:
    """Open a FITS file (plain, gzip, bz2 or tile-compressed); every way in which it can be damaged has one answer.

    Raises
    ------
    InputFileError
        If the file is missing, is not FITS, is truncated, or cannot be decoded while the block uses it.
    """
    from astropy.io import fits

    path = Path(path)
    if not path.is_file():
        raise InputFileError(f"{path} does not exist or is not a file")
    try:
        # Odd cards are the files' own affair: they are kept as they are, and not complained about. What astropy tells
        # only as a warning, and matters, is that the end is missing.
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            with fits.open(path, **options) as hdus:
                if len(hdus) == 0:  # also reads all headers
                    raise InputFileError(f"{path} holds no FITS data")
                if any("truncated" in str(warning.message) for warning in told):
                    raise InputFileError(f"{path} is truncated; fetch it again")
                yield hdus
    except InputFileError:
        raise
    except (OSError, EOFError, zlib.error, fits.VerifyError) as error:
        raise InputFileError(_plain_reason(path, error)) from error
    except (ValueError, TypeError, IndexError, KeyError) as error:
        if isinstance(error, UserError):
            raise
        raise InputFileError(f"{path} is damaged: its pixels cannot be read ({error})") from error


def _plain_reason(path: Path, error: BaseException) -> str:
    with open(path, "rb") as stream:
        start = stream.read(6)
    if start == b"SIMPLE" or start.startswith(_PACKED):
        return f"{path} is truncated or damaged; fetch it again ({' '.join(str(error).split())})"
    return f"{path} is not a FITS file: it does not begin with SIMPLE, nor is it packed by gzip or bzip2"


def science_hdus(hdus: "fits.HDUList", cfg: SkyIngestConfig, path: Path) -> list[int]:
    """Which HDUs are science images.

    The configured one; else those that ingest has marked; else all SCI,n; else the primary image; else the first
    image HDU.

    Raises
    ------
    InputFileError
        If there is none, the choice is not a 2-D image, or the file is a collection of images.
    """
    images = [number for number, hdu in enumerate(hdus) if hdu.is_image and hdu.header.get("NAXIS", 0) > 0]
    if cfg.science_hdu is not None:
        chosen = [_configured_hdu(hdus, cfg.science_hdu, images, path)]
    else:
        chosen = [n for n in images if cards.LEVEL.keyword in hdus[n].header] or [
            n for n in images if hdus[n].name == "SCI"
        ]
    if not images:
        raise InputFileError(f"{path} has no image; its HDUs are {_names(hdus, range(len(hdus)))}")
    if not chosen and len(images) > _MAX_IMAGE_HDUS:
        raise InputFileError(
            f"{path} holds {len(images)} images and none is called SCI; choose one with ingest.sky.science_hdu: "
            f"{_names(hdus, images)}"
        )
    chosen = chosen or images[:1]
    for number in chosen:
        n_axes = hdus[number].header["NAXIS"]
        if n_axes != 2:
            raise InputFileError(
                f"{path}: HDU {number} has {n_axes} axes {tuple(hdus[number].shape)}, not 2; "
                f"choose an image with ingest.sky.science_hdu: {_names(hdus, images)}"
            )
    return chosen


def _configured_hdu(hdus: "fits.HDUList", wanted: str | int, images: list[int], path: Path) -> int:
    names = {hdus[number].name: number for number in reversed(images)}
    number = wanted if isinstance(wanted, int) else names.get(wanted.upper(), names.get(wanted))
    if number not in images:
        raise InputFileError(f"{path} has no image HDU {wanted!r} (ingest.sky.science_hdu); {_names(hdus, images)}")
    return number


def _names(hdus: "fits.HDUList", numbers: Sequence[int]) -> str:
    shown = []
    for number in numbers[:8]:
        shape = hdus[number].shape if hdus[number].is_image else ()
        shown.append(f"{number} {hdus[number].name or '(no name)'} {'x'.join(map(str, shape))}".strip())
    return ", ".join(shown) + (f" ... ({len(numbers)} in all)" if len(numbers) > 8 else "")


# ---- reading ---------------------------------------------------------------------------------------------------------
def read_frame(path: str | Path, cfg: SkyIngestConfig | None = None) -> Frame:
    """The first (most often the only) science image of a file; see `read_frames`."""
    return read_frames(path, cfg)[0]


def read_frames(path: str | Path, cfg: SkyIngestConfig | None = None) -> list[Frame]:
    """Read every science image of a file, each SCI,n with its own ERR,n and DQ,n.

    Parameters
    ----------
    path : path
        FITS of any BITPIX and scaling, plain or compressed in any of the usual ways.
    cfg : SkyIngestConfig, optional
        What the header does not tell, or tells wrongly.

    Raises
    ------
    InputFileError
        If the file is damaged, or has no image that can be a sky frame; the message names the choices.
    """
    cfg = cfg or SkyIngestConfig()
    path = Path(path)
    with open_fits(path, do_not_scale_image_data=True, memmap=True) as hdus:
        return [_read(hdus, number, cfg, path) for number in science_hdus(hdus, cfg, path)]


def read_pixels(path: str | Path, cfg: SkyIngestConfig) -> tuple[np.ndarray, "fits.Header"]:
    """Scaled pixels and header of the first science image, uncalibrated: for bias, dark and flat frames."""
    path = Path(path)
    with open_fits(path, do_not_scale_image_data=True, memmap=True) as hdus:
        number = science_hdus(hdus, cfg, path)[0]
        return _pixels(hdus[number])[0], hdus[number].header.copy()


def _read(hdus: "fits.HDUList", number: int, cfg: SkyIngestConfig, path: Path) -> Frame:
    header = hdus[number].header.copy()
    searched = (header,) if number == 0 else (header, hdus[0].header)
    notes: list[str] = []
    pixels, integer = _pixels(hdus[number])
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
    dq |= _file_mask(hdus, number, cfg, path, pixels.shape, notes)

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
    err = _file_uncertainty(hdus, number, cfg, path, factor, dq, notes)
    if err is None:
        err = _modelled_uncertainty(frame, notes)
    return replace(frame, err=err, notes=tuple(notes))


def _pixels(hdu: "fits.ImageHDU") -> tuple[np.ndarray, bool]:
    """Scaled pixels as float32, NaN where blank; and whether they are stored as integers.

    astropy's own scaling ignores BLANK in unsigned images, which is how raw frames mark missing pixels.
    """
    stored = hdu.data
    if stored is None:
        raise InputFileError(f"HDU {hdu.name or 0} has no pixels")
    header = hdu.header
    integer = stored.dtype.kind in "iu"
    scale, zero = float(header.get("BSCALE", 1)), float(header.get("BZERO", 0))
    if stored.dtype.kind == "u" and zero == 2 ** (8 * stored.dtype.itemsize - 1):
        zero = 0.0  # a compressed image comes with its offset applied
    pixels = stored.astype(np.float32)
    if scale != 1 or zero != 0:
        pixels = (stored.astype(np.float64) * scale + zero).astype(np.float32)
    blank = header.get("BLANK")
    if integer and blank is not None:
        pixels[stored == blank] = np.nan
    pixels[~np.isfinite(pixels)] = np.nan
    return pixels, integer


def _exposed_section(
    header: "fits.Header", shape: tuple[int, int], ingested: bool, integer: bool, notes: list[str]
) -> headers.Section | None:
    if ingested:
        return headers.find_section(header, (cards.SECTION.keyword,), shape)
    if not integer:  # a calibrated frame: its sections speak of the raw one
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
    found = headers.find_gain(searched, notes)
    if found is None:
        notes.append("gain unknown: the frame stays in ADU; configure ingest.sky.gain_e_per_adu for electrons")
        return None
    notes.append(f"gain {found.value:.4g} electron/adu from {found.card}")
    return found.value


def _read_noise(searched: Sequence["fits.Header"], cfg: SkyIngestConfig, notes: list[str]) -> float | None:
    if cfg.read_noise_e is not None:
        notes.append(f"read noise {cfg.read_noise_e:g} electron from the configuration")
        return cfg.read_noise_e
    found = headers.find_read_noise(searched, notes)
    if found is None:
        return None
    notes.append(f"read noise {found.value:.4g} electron from {found.card}")
    return found.value


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
    found = headers.find_bias_level(searched)
    if found is not None:
        notes.append(f"bias level {found.value:g} ADU from {found.card}")
        return found.value, True
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
    found = headers.find_saturation(searched)
    if found is not None:
        return found.value
    if not integer or not np.isfinite(pixels).any():
        return None
    top = float(np.nanmax(pixels))
    full = top > 254 and float(np.log2(top + 1)).is_integer()
    return top if full and np.count_nonzero(pixels == top) >= _MIN_CLIPPED_PIXELS else None


# ---- masks and uncertainties that come with the frame ----------------------------------------------------------------
def _companion(hdus: "fits.HDUList", number: int, names: Sequence[str]) -> "fits.ImageHDU | None":
    """The first HDU of those names that belongs to the science HDU: of the same EXTVER and shape."""
    for name in names:
        for hdu in hdus:
            alike = hdu.is_image and hdu.name == name and hdu.ver == hdus[number].ver
            if alike and hdu is not hdus[number] and hdu.shape == hdus[number].shape:
                return hdu
    return None


def _file_mask(
    hdus: "fits.HDUList", number: int, cfg: SkyIngestConfig, path: Path, shape: tuple[int, int], notes: list[str]
) -> np.ndarray:
    """Our bits, from our own DQ extension or translated from the camera's."""
    ours = _companion(hdus, number, (cards.OUR_BITS.keyword, "DQ"))
    if ours is not None and cards.OUR_BITS.keyword in ours.header:
        return _our_bits(ours, path)
    mask = np.zeros(shape, DQ_DTYPE)
    foreign = _companion(hdus, number, ("DQ", "MASK", "FLAGS"))
    if foreign is not None:
        mask |= _translate(_bits(foreign), cfg)
        notes.append(f"mask from the file's {foreign.name} extension")
    beside = _beside(path, cfg.mask_suffix)
    if beside is not None:
        mask |= _translate(_bits_beside(beside, shape), cfg)
        notes.append(f"mask from {beside.name}")
    return mask


def _our_bits(hdu: "fits.ImageHDU", path: Path) -> np.ndarray:
    bits = _bits(hdu)
    if (bits > np.iinfo(DQ_DTYPE).max).any():
        raise InputFileError(f"{path}: {hdu.name} says that its bits are lightpool's, but has more than sixteen")
    return bits.astype(DQ_DTYPE)


def _bits(hdu: "fits.ImageHDU") -> np.ndarray:
    """A mask as uint64. Float32, in which pixels are read, would round the low bits of a mask of 32 bits away."""
    stored, header = hdu.data, hdu.header
    if stored.dtype.kind not in "iu":
        return np.where(np.isfinite(stored), stored, 0).astype(np.int64).view(np.uint64)
    bits = stored.astype(stored.dtype.newbyteorder("="))
    scale, zero = float(header.get("BSCALE", 1)), float(header.get("BZERO", 0))
    top = 1 << (8 * bits.itemsize - 1)
    unsigned = bits.view(f"u{bits.itemsize}")
    if scale != 1 or zero not in (0, top):
        unsigned = np.rint(bits * scale + zero).astype(np.int64).view(np.uint64)
    elif zero == top and bits.dtype.kind == "i":  # a compressed image comes with its offset applied
        unsigned = unsigned ^ unsigned.dtype.type(top)
    unsigned = unsigned.astype(np.uint64)
    if "BLANK" in header:
        unsigned[stored == header["BLANK"]] = 0
    return unsigned


def _translate(foreign: np.ndarray, cfg: SkyIngestConfig) -> np.ndarray:
    """A camera's bits (uint64) in ours: listed ones as configured, all others mean a bad pixel."""
    for bit in cfg.dq_bits.values():
        if bit <= 0 or bit & ~int(~DQ(0)):
            accepted = ", ".join(f"{int(known)} ({text})" for known, text in DESCRIPTIONS.items())
            raise UserError(f"ingest.sky.dq_bits has {bit}, which is no sum of our bits; accepted: {accepted}")
    ours = np.zeros(foreign.shape, DQ_DTYPE)
    rest = foreign.copy()
    for theirs, bit in cfg.dq_bits.items():
        flag(ours, (foreign & np.uint64(theirs)) != 0, DQ(bit))
        rest &= ~np.uint64(theirs)
    flag(ours, rest != 0, DQ.BAD)
    return ours


def _file_uncertainty(
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
        kind, values, source = hdu.name, _pixels(hdu)[0], f"the file's {hdu.name} extension"
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
        return _pixels(hdu)[0]


def _bits_beside(path: Path, shape: tuple[int, int]) -> np.ndarray:
    with _image_beside(path, shape) as hdu:
        return _bits(hdu)


@contextmanager
def _image_beside(path: Path, shape: tuple[int, int]) -> Iterator["fits.ImageHDU"]:
    with open_fits(path, do_not_scale_image_data=True) as hdus:
        for hdu in hdus:
            if hdu.is_image and hdu.shape == shape:
                yield hdu
                return
    raise InputFileError(f"{path} holds no image of the shape {shape} of the frame that it belongs to")


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
            f"{path}: most pixels have the value {level:g}, so it has no noise to work with; is it a mask or a weight "
            "map? Leave it out, or join it to its frame with ingest.sky.mask_suffix or weight_suffix"
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


# ---- writing ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Answer:
    """New pixels of one science HDU, in the unit that they are to be written in.

    `cards` are (keyword, value, comment) to set in the science header.
    """

    science_hdu: int
    sci: np.ndarray
    err: np.ndarray
    dq: np.ndarray
    cards: Sequence[tuple[str, Any, str]] = ()


def write_like(
    frame: Frame,
    out: str | Path,
    sci: np.ndarray,
    err: np.ndarray,
    dq: np.ndarray,
    history: Sequence[str] = (),
    *,
    force: bool = False,
) -> Path:
    """Write an answer to `frame` as a copy of its file, in the unit and with the zero point that it came in.

    Parameters
    ----------
    frame : Frame
        As it was read.
    out : path
    sci, err : ndarray, shape (H, W)
        In `frame.unit`.
    dq : ndarray of uint16, shape (H, W)
    history : sequence of str
        Lines for HISTORY cards.
    """
    answer = Answer(frame.science_hdu, frame.to_stored(sci), err / np.float32(frame.factor), dq)
    return write_answers(frame.path, out, [answer], history, force=force)


def write_answers(
    path: str | Path, out: str | Path, answers: Sequence[Answer], history: Sequence[str] = (), *, force: bool = False
) -> Path:
    """Write a copy of the file `path` with new SCI, ERR and DQ; all other HDUs are copied byte for byte.

    A tile-compressed science image is answered as a plain one: compressing floats would lose bits silently. A camera's
    own DQ extension keeps its bits; ours then stands in an extension LPDQ.
    """
    from astropy.io import fits

    out = Path(out)
    by_number = {answer.science_hdu: answer for answer in answers}
    # Two views of the file: the raw one for what is copied, the decompressed one for the headers of what is answered.
    with (
        open_fits(path, disable_image_compression=True, do_not_scale_image_data=True, memmap=True) as raw,
        open_fits(path, do_not_scale_image_data=True, memmap=True) as seen,
        atomic_output(out, force=force) as temporary,
    ):
        made = fits.HDUList()
        added: list[fits.ImageHDU] = []
        replaced = _replaced_companions(seen, by_number)
        for number, hdu in enumerate(raw):
            if number in by_number:
                made.append(_science_hdu(seen[number], number, by_number[number], history))
            elif number in replaced:
                made.append(replaced[number])
            else:
                made.append(hdu)
        for number, answer in by_number.items():
            added += _added_companions(seen, number, answer, replaced)
        made.extend(added)
        if added and "EXTEND" not in made[0].header:
            made[0].header["EXTEND"] = True
        made.writeto(temporary, output_verify="ignore")
    return out


def _science_hdu(hdu: "fits.ImageHDU", number: int, answer: Answer, history: Sequence[str]) -> "fits.ImageHDU":
    from astropy.io import fits

    header = _float_header(hdu.header)
    if not header.get("EXTNAME"):
        header["EXTNAME"] = ("SCI", "science image")
    for keyword, value, comment in answer.cards:
        header[keyword] = (value, comment)
    for line in history:
        header.add_history(line)
    kind = fits.PrimaryHDU if number == 0 else fits.ImageHDU
    return kind(np.ascontiguousarray(answer.sci, np.float32), header)


def _float_header(header: "fits.Header") -> "fits.Header":
    header = header.copy()
    for keyword in _STORAGE_CARDS:
        header.remove(keyword, ignore_missing=True, remove_all=True)
    return header


def _is_ours(hdu: "fits.ImageHDU") -> bool:
    return cards.OUR_BITS.keyword in hdu.header


def _replaced_companions(hdus: "fits.HDUList", answers: dict[int, Answer]) -> dict[int, "fits.ImageHDU"]:
    """New HDUs for the ERR and (our) DQ extensions that the file already has, also where they are empty."""
    from astropy.io import fits

    replaced = {}
    for number, answer in answers.items():
        for other, hdu in enumerate(hdus):
            if other in answers or not hdu.is_image or hdu.ver != hdus[number].ver:
                continue
            empty = hdu.header.get("NAXIS", 0) == 0
            if hdu.name == "ERR":
                replaced[other] = fits.ImageHDU(np.asarray(answer.err, np.float32), _float_header(hdu.header))
            elif hdu.name in _DQ_NAMES and (empty or _is_ours(hdu)):
                replaced[other] = _dq_hdu(answer.dq, hdu.name, hdu.ver, _float_header(hdu.header))
    return replaced


def _added_companions(
    hdus: "fits.HDUList", number: int, answer: Answer, replaced: dict[int, "fits.ImageHDU"]
) -> list["fits.ImageHDU"]:
    from astropy.io import fits

    version = hdus[number].ver
    names = {hdu.name for other, hdu in replaced.items() if hdus[other].ver == version}
    added = []
    if "ERR" not in names:
        added.append(fits.ImageHDU(np.asarray(answer.err, np.float32), name="ERR", ver=version))
    if not names.intersection(_DQ_NAMES):
        foreign = any(hdu.name == "DQ" and hdu.ver == version for hdu in hdus)
        added.append(_dq_hdu(answer.dq, cards.OUR_BITS.keyword if foreign else "DQ", version, None))
    return added


def _dq_hdu(dq: np.ndarray, name: str, version: int, header: "fits.Header | None") -> "fits.ImageHDU":
    from astropy.io import fits

    hdu = fits.ImageHDU(dq.astype(DQ_DTYPE, casting="safe"), header, name=name, ver=version)
    hdu.header[cards.OUR_BITS.keyword] = (True, cards.OUR_BITS.comment)
    for bit, text in DESCRIPTIONS.items():
        hdu.header[cards.bit_keyword(bit)] = text
    return hdu
