"""Opening FITS files, choosing their science images, and the numbers that an HDU stores."""

import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.config import SkyIngestConfig
from pipeline.errors import InputFileError, UserError
from pipeline.files import check_regular
from pipeline.sky import cards

if TYPE_CHECKING:
    from astropy.io import fits

#: More image HDUs than this, none of them called SCI, is a collection, not a frame.
_MAX_IMAGE_HDUS = 16
_PACKED = (b"\x1f\x8b", b"BZh")  # gzip, bzip2


# ---- files -----------------------------------------------------------------------------------------------------------
@contextmanager
def open_fits(path: str | Path, **options: Any) -> Iterator["fits.HDUList"]:
    """Open a FITS file (plain, gzip, bz2 or tile-compressed); any damage raises the same error.

    Raises
    ------
    InputFileError
        If the file is missing, is not FITS, is truncated, or cannot be decoded while the block uses it.
    """
    from astropy.io import fits

    path = check_regular(path)
    try:
        # Odd cards are kept as they are, without a warning. The one thing that matters, and that astropy reports
        # only as a warning, is that the end of the file is missing.
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            with fits.open(path, **options) as hdus:
                if len(hdus) == 0:  # also reads all headers
                    raise InputFileError(f"{path} holds no FITS data")
                if any("truncated" in str(warning.message) for warning in warned):
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
    return f"{path} is not a FITS file: it does not begin with SIMPLE and is not compressed by gzip or bzip2"


def science_hdus(hdus: "fits.HDUList", cfg: SkyIngestConfig, path: Path) -> list[int]:
    """Which HDUs are science images.

    The configured one; else those that ingest has marked; else all SCI,n; else the primary image; else the first
    image HDU.

    Raises
    ------
    InputFileError
        If the file has no image, the choice is not a 2-D image, or the file is a collection of images.
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


# ---- the numbers of one HDU ------------------------------------------------------------------------------------------
def pixels_of(hdu: "fits.ImageHDU") -> tuple[np.ndarray, bool]:
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


def bits_of(hdu: "fits.ImageHDU") -> np.ndarray:
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
