"""Opening FITS files, choosing their science images, and the numbers that an HDU stores."""

import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from pipeline.config import SkyIngestConfig
from pipeline.errors import InputFileError
from pipeline.sky import cards
from pipeline.sky.frames.checksums import remark_on_sums
from pipeline.sky.frames.layout import Layout, Part, memory_limit, plain_streams
from pipeline.sky.frames.planes import image_shape, is_marked_science, may_be_picture, name_of
from pipeline.sky.remarks import Remarks
from pipeline.sky.strips import LazyImage, Strips, computed, strip_rows_of, strips

if TYPE_CHECKING:
    from astropy.io import fits

#: How files are opened whose stored numbers are read: strip by strip, and not mapped into memory.
AS_STORED: Mapping[str, Any] = {"do_not_scale_image_data": True, "memmap": False}
#: More image HDUs than this, none of them called SCI, is a collection, not a frame.
_MAX_IMAGE_HDUS = 16
# In a narrower frame no star has a surrounding: neither its width nor the sky's noise can be measured.
_SMALLEST_PX = 8
# A primary image of fewer pixels than this share of the largest other one is a thumbnail.
_THUMBNAIL = 0.25
# Cards that detectors of several chips or amplifiers write into each image.
_DETECTOR_CARDS = ("CCDSEC", "DETSEC", "AMPSEC", "AMPNAME", "CCDNAME", "CCDNUM", "CHIPID", "IMAGEID")
# Attribute of an HDUList of ours: how its file is built.
_LAYOUT = "lightpool_layout"
_STREAM = "lightpool_stream"  # and the file itself, unpacked
_REWRITTEN = "lightpool_rewritten"  # HDUs whose headers are not those of the file any more
# Attribute of the HDUs of a file of ours: the strips of it that were decoded last.
_STRIPS = "lightpool_strips"
#: Standard and registered kinds of extensions (FITS standard 4.0, sect. 7 and appendix F).
_EXTENSIONS = ("IMAGE", "TABLE", "BINTABLE", "IUEIMAGE", "A3DTABLE", "FOREIGN", "DUMP")
# Memory that a frame takes for each pixel from reading to writing, beside the stored number (measured).
_BYTES_PER_PIXEL = 40
# No light is as bright in any unit; such numbers are fill values or damage, and their squares are beyond float32.
_LARGEST = 1e30


class _PixelError(InputFileError):
    """What astropy cannot read; `open_fits` adds the path."""


# ---- files -----------------------------------------------------------------------------------------------------------
@contextmanager
def open_fits(path: str | Path, **options: Any) -> Iterator["fits.HDUList"]:
    """Open a FITS file (plain, gzip, bz2 or tile-compressed), its structure checked; packed ones are unpacked first.

    Errors of the code that uses the file are not touched: only what fails while astropy reads is damage of the file.

    Raises
    ------
    InputFileError
        If the file is missing, is not FITS, is truncated, or cannot be decoded.
    """
    with open_views(path, options) as (hdus,):
        yield hdus


@contextmanager
def open_views(path: str | Path, *options: dict[str, Any]) -> Iterator[list["fits.HDUList"]]:
    """Open a file several times with different options; a packed one is unpacked once. See `open_fits`."""
    path = Path(path)
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd cards, which are kept as they are
        layout, streams = stack.enter_context(plain_streams(path, len(options)))
        try:
            yield [
                stack.enter_context(_opened(stream, layout, chosen))
                for stream, chosen in zip(streams, options, strict=True)
            ]
        except _PixelError as error:
            raise InputFileError(f"{path}: {error}") from error


def place_in_file(hdus: "fits.HDUList", number: int) -> tuple[BinaryIO, Part] | None:
    """The file of an HDU, unpacked, and where in it the HDU is; None for one in memory."""
    layout = getattr(hdus, _LAYOUT, None)
    return None if layout is None else (getattr(hdus, _STREAM), layout.parts[number])


def is_rewritten(hdus: "fits.HDUList", number: int) -> bool:
    """Whether the header of an HDU had to be changed so that it can be written."""
    return number in getattr(hdus, _REWRITTEN, ())


def remark_on_file(hdus: "fits.HDUList", chosen: Sequence[int], remarks: Remarks) -> None:
    """Say what is unusual about a file that is read nevertheless, and which images of it are not read."""
    layout: Layout | None = getattr(hdus, _LAYOUT, None)
    if layout is not None:
        if layout.without_fill:
            remarks.note("the last block of the file is not filled up to 2880 bytes; all pixels are there")
        if layout.trailing:
            remarks.warn(
                "behind the last HDU the file goes on with what is not FITS, which is not read; if extensions are "
                "missing, fetch it again"
            )
        odd = sorted({keyword for part in layout.parts for keyword in part.odd_cards})
        if odd:
            remarks.note(f"cards whose values are not standard FITS are read as text: {', '.join(odd[:8])}")
        unknown = [n for n, part in enumerate(layout.parts) if n and part.kind not in _EXTENSIONS]
        if unknown:
            remarks.warn(
                f"HDU {', '.join(map(str, unknown))} is of no kind that FITS knows (XTENSION = "
                f"{layout.parts[unknown[0]].kind or 'nothing'}) and is not read; if it is an image, fetch it again"
            )
        remark_on_sums(getattr(hdus, _STREAM), layout.parts, remarks)
    left_out = images_left_out(hdus, chosen)
    if left_out:
        remarks.warn(left_out)


@contextmanager
def _opened(stream: BinaryIO, layout: Layout, options: dict[str, Any]) -> Iterator["fits.HDUList"]:
    from astropy.io import fits

    with ExitStack() as stack:
        with _astropy_reads("its headers cannot be read"):
            hdus = stack.enter_context(fits.open(stream, **options))
            if len(hdus) != len(layout.parts):  # also reads all headers
                raise ValueError(f"HDU {len(hdus)} is not readable")
            kept, rewritten = Strips(), set()
            stack.callback(kept.close)
            for number, (hdu, part) in enumerate(zip(hdus, layout.parts, strict=True)):
                if not hasattr(hdu, "filebytes"):  # a placeholder of astropy's
                    raise ValueError(f"HDU {number} is corrupt")
                if not options.get("disable_image_compression"):  # that is for copying: cards stay as they are
                    _read_as_text(hdu.header, part.odd_cards)
                if (part.odd_cards or part.unprintable) and _make_writable(hdu.header):
                    rewritten.add(number)
                # A compressed image makes its header of another, and astropy takes any value of a card for a length.
                if not all(isinstance(length, int) for length in getattr(hdu, "shape", ())):
                    raise ValueError(f"HDU {number} has axes of {hdu.shape} pixels")
                setattr(hdu, _STRIPS, kept)
        setattr(hdus, _LAYOUT, layout)
        setattr(hdus, _STREAM, stream)
        setattr(hdus, _REWRITTEN, rewritten)
        yield hdus


def _read_as_text(header: "fits.Header", odd_cards: Mapping[str, str]) -> None:
    """Give cards that astropy cannot parse the text that they hold as their value."""
    from astropy.io import fits

    for keyword, text in odd_cards.items():
        try:
            header.get(keyword)
        except fits.VerifyError:
            header[keyword] = text


def _make_writable(header: "fits.Header") -> bool:
    """Put comments in place of cards that astropy can neither read nor write; whether there were any."""
    changed = False
    for place in range(len(header) - 1, -1, -1):
        card = header.cards[place]
        try:
            str(card.value), str(card)
        except Exception:  # astropy has half a dozen kinds
            name = re.sub("[^ -~]", "?", card.keyword)
            del header[place]
            header.insert(place, ("COMMENT", f"unreadable card {name}"))
            changed = True
    return changed


@contextmanager
def _astropy_reads(what: str) -> Iterator[None]:
    """Whatever astropy raises for damaged content: OSError, ValueError, KeyError, zlib.error and a dozen others."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise _PixelError(f"{what}, the file is damaged; fetch it again ({reason})") from error


# ---- which image -----------------------------------------------------------------------------------------------------
def science_hdus(hdus: "fits.HDUList", cfg: SkyIngestConfig, path: Path) -> list[int]:
    """Which HDUs are science images.

    The configured ones; else those that ingest has marked; else those that are marked as science (SCI,n and the cards
    of `pipeline.sky.frames.planes`); else the images of a mosaic's chips or amplifiers; else the primary image unless
    it is a thumbnail; else the first image.

    Raises
    ------
    InputFileError
        If the file has no image, the choice is not a 2-D image, or the file is a collection of images.
    """
    images = [number for number, hdu in enumerate(hdus) if hdu.is_image and hdu.shape and min(hdu.shape) > 0]
    if not images:
        raise InputFileError(f"{path} has no image; its HDUs are {_names(hdus, range(len(hdus)))}")
    if cfg.science_hdu is not None:
        chosen = _configured_hdus(hdus, cfg.science_hdu, images, path)
    else:
        chosen = (
            [n for n in images if cards.LEVEL.keyword in hdus[n].header]
            or [n for n in images if is_marked_science(hdus[n])]
            or _unmarked(hdus, images, path)
        )
    for number in chosen:
        shape = image_shape(hdus[number])
        if len(shape) != 2:
            flat = [n for n in images if len(image_shape(hdus[n])) == 2]
            advice = (
                f"choose an image with ingest.sky.science_hdu: {_names(hdus, flat)}" if flat
                else "write the plane that you mean to a file of its own"
            )  # fmt: skip
            raise InputFileError(
                f"{path}: HDU {number} has {len(hdus[number].shape)} axes {tuple(hdus[number].shape)}, not 2; {advice}"
            )
        if min(shape) < _SMALLEST_PX:
            raise InputFileError(
                f"{path}: HDU {number} is {shape[1]} x {shape[0]} px; frames have at least {_SMALLEST_PX} each way"
            )
    return chosen


def images_left_out(hdus: "fits.HDUList", chosen: Sequence[int]) -> str | None:
    """A sentence about images as large as the chosen one that nothing distinguishes from it."""
    if any(is_marked_science(hdus[n]) or cards.LEVEL.keyword in hdus[n].header for n in chosen):
        return None
    shapes = {image_shape(hdus[n]) for n in chosen}
    others = [
        n
        for n, hdu in enumerate(hdus)
        if n not in chosen and hdu.is_image and may_be_picture(hdu) and image_shape(hdu) in shapes
    ]
    if not others:
        return None
    return (
        f"only {_names(hdus, chosen)} is read, of several images of the same size; set ingest.sky.science_hdu for "
        f"another: {_names(hdus, others)}"
    )


def _unmarked(hdus: "fits.HDUList", images: list[int], path: Path) -> list[int]:
    pictures = [n for n in images if may_be_picture(hdus[n])] or images
    if len(pictures) > _MAX_IMAGE_HDUS:
        raise InputFileError(
            f"{path} holds {len(pictures)} images and none is called SCI; choose one with ingest.sky.science_hdu: "
            f"{_names(hdus, pictures)}"
        )
    planes = [n for n in pictures if len(image_shape(hdus[n])) == 2]
    extensions = [n for n in planes if n > 0]
    if pictures[0] == 0 and extensions:
        largest = max(math.prod(hdus[n].shape) for n in extensions)
        if math.prod(hdus[0].shape) >= _THUMBNAIL * largest:
            return [0]
    elif not extensions:
        return pictures[:1]
    return extensions if _alike(hdus, extensions) else extensions[:1]


def _alike(hdus: "fits.HDUList", numbers: Sequence[int]) -> bool:
    """Whether images are those of the chips or amplifiers of one detector: equal in size and kind, numbered."""
    chosen = [hdus[n] for n in numbers]
    if len({(image_shape(hdu), hdu.header["BITPIX"]) for hdu in chosen}) > 1:
        return False
    if all(any(card in hdu.header for card in _DETECTOR_CARDS) for hdu in chosen):
        return True
    stems = {re.sub(r"\d+$|(?<=[_-])[A-Z]$", "#", name_of(hdu)) for hdu in chosen}
    numbered = all(re.search(r"\d+$|[_-][A-Z]$", name_of(hdu)) for hdu in chosen)
    versions = len({hdu.ver for hdu in chosen}) == len(chosen)
    return len(stems) == 1 and "" not in stems and (numbered or versions)


def _configured_hdus(hdus: "fits.HDUList", wanted: str | int, images: list[int], path: Path) -> list[int]:
    if isinstance(wanted, int):
        chosen = [n for n in images if n == wanted]
    else:
        chosen = [n for n in images if hdus[n].name == wanted.upper() or name_of(hdus[n]) == wanted.strip().upper()]
    if not chosen:
        raise InputFileError(f"{path} has no image HDU {wanted!r} (ingest.sky.science_hdu); {_names(hdus, images)}")
    return chosen


def _names(hdus: "fits.HDUList", numbers: Sequence[int]) -> str:
    shown = []
    for number in numbers[:8]:
        shape = hdus[number].shape if hdus[number].is_image else ()
        shown.append(f"{number} {hdus[number].name or '(no name)'} {'x'.join(map(str, shape))}".strip())
    return ", ".join(shown) + (f" ... ({len(numbers)} in all)" if len(numbers) > 8 else "")


# ---- the numbers of one HDU ------------------------------------------------------------------------------------------
def check_memory(hdu: "fits.ImageHDU") -> None:
    """Fail before a whole image is read that needs more memory than there is.

    Raises
    ------
    InputFileError
    """
    _check_memory(hdu, math.prod(image_shape(hdu)))


def _check_memory(hdu: "fits.ImageHDU", n_pixels: int) -> None:
    needed = n_pixels * (abs(hdu.header["BITPIX"]) // 8 + _BYTES_PER_PIXEL)
    if needed > memory_limit():
        raise _PixelError(
            f"{_label(hdu)} declares {' x '.join(map(str, hdu.shape))} pixels, which need {needed / 1e9:.3g} GB of "
            f"memory, and there are {memory_limit() / 1e9:.3g} GB"
        )


def _label(hdu: "fits.ImageHDU") -> str:
    return f"HDU {name_of(hdu) or '(no name)'}"


def stored_image(hdu: "fits.ImageHDU") -> LazyImage:
    """The numbers as they are stored, without axes of length 1; those of a file are read when they are asked for.

    Raises
    ------
    InputFileError
        If they cannot be read, or a strip of them needs more memory than the machine has.
    """
    whole = tuple(hdu.shape or ())
    shape = image_shape(hdu)
    if len(shape) != 2 or not hasattr(hdu, _STRIPS):
        return _image_in_memory(hdu)
    axis = next(place for place in range(len(whole)) if whole[place] == shape[0] and math.prod(whole[:place]) == 1)
    tiles = getattr(hdu, "tile_shape", None)
    strip_rows = strip_rows_of(shape, 1 if tiles is None else min(tiles[axis], shape[0]))
    _check_memory(hdu, strip_rows * shape[1])

    def window(rows: slice, columns: slice) -> np.ndarray:
        if rows.start == rows.stop:
            return np.empty((0, columns.stop - columns.start), dtype)
        with _astropy_reads(f"the pixels of {_label(hdu)} cannot be read"):
            stored = np.asarray(hdu.section[(*[slice(None)] * axis, rows)])
            return stored.reshape(-1, shape[1])[:, columns]

    dtype = np.dtype(np.uint8)  # of no pixels
    dtype = window(slice(0, 1), slice(0, shape[1])).dtype
    image = LazyImage(shape, dtype, window, strip_rows)
    return image if tiles is None else _kept(hdu).spooled(image)


def _image_in_memory(hdu: "fits.ImageHDU") -> LazyImage:
    """Of HDUs that come from no file of ours; also images of more or fewer axes than two, as rows."""
    with _astropy_reads(f"the pixels of {_label(hdu)} cannot be read"):
        if hdu.data is None:
            raise ValueError("there are none")
        stored = np.asarray(hdu.data)
        stored = stored.reshape(-1, (image_shape(hdu) or (1,))[-1])
    return LazyImage(stored.shape, stored.dtype, lambda rows, columns: stored[rows, columns])


def pixels_of(hdu: "fits.ImageHDU") -> tuple[LazyImage, bool]:
    """Scaled pixels as float32, NaN where blank or beyond 1e30; and whether they are stored as integers.

    astropy's own scaling ignores BLANK in unsigned images, which is how raw frames mark missing pixels.
    """
    image = stored_image(hdu)
    header = hdu.header
    integer = image.dtype.kind in "iu"
    scale, zero = _scaling(header)
    if image.dtype.kind == "u" and zero == 2 ** (8 * image.dtype.itemsize - 1):
        zero = 0.0  # a compressed image comes with its offset applied
    blank = header.get("BLANK") if integer else None

    # Whole numbers of 24 bits are exact in float32, and so are their sums.
    only_shifted = scale == 1 and image.dtype.itemsize <= 2 and zero.is_integer() and abs(zero) <= 1 << 23

    def scaled(stored: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):
            if integer and only_shifted:
                pixels = stored.astype(np.float32)
                pixels += np.float32(zero)
            elif scale != 1 or zero != 0:
                pixels = (stored.astype(np.float64) * scale + zero).astype(np.float32)
            else:
                pixels = stored.astype(np.float32)
        if blank is not None:
            pixels[stored == blank] = np.nan
        if pixels.size and not (pixels.max() < _LARGEST and pixels.min() > -_LARGEST):
            pixels[~(np.abs(pixels) < _LARGEST)] = np.nan
        return pixels

    return _kept(hdu).cached(computed(scaled, image, dtype=np.float32)), integer


def _kept(hdu: "fits.ImageHDU") -> Strips:
    """Where strips of this HDU are kept, together with those of the other HDUs of its file."""
    return getattr(hdu, _STRIPS, None) or Strips()


def bits_of(hdu: "fits.ImageHDU") -> LazyImage:
    """A mask as unsigned integers of its own width.

    Float32, in which pixels are read, would round the low bits of a mask of 32 bits away. A mask of numbers that are
    not whole, or are negative, as resampling makes them, is 1 where it is not 0.
    """
    image, header = stored_image(hdu), hdu.header
    if image.dtype.kind not in "iu":
        return _kept(hdu).cached(_bits_of_numbers(image))
    scale, zero = _scaling(header)
    top = 1 << (8 * image.dtype.itemsize - 1)
    blank = header.get("BLANK")

    def bits(stored: np.ndarray) -> np.ndarray:
        native = stored.astype(stored.dtype.newbyteorder("="))
        unsigned = native.view(f"u{native.itemsize}")
        if scale != 1 or zero not in (0, top):
            unsigned = np.rint(native * scale + zero).astype(np.int64).view(np.uint64)
        elif zero == top and native.dtype.kind == "i":  # a compressed image comes with its offset applied
            unsigned = unsigned ^ unsigned.dtype.type(top)
        return unsigned if blank is None else np.where(stored == blank, unsigned.dtype.type(0), unsigned)

    dtype = bits(np.zeros((1, 1), image.dtype)).dtype
    return _kept(hdu).cached(computed(bits, image, dtype=dtype))


def _bits_of_numbers(image: LazyImage) -> LazyImage:
    def known(stored: np.ndarray) -> np.ndarray:
        return np.where(np.isfinite(stored), stored, 0)

    for rows in strips(image):
        finite = known(image[rows])
        if (finite < 0).any() or (finite >= 2.0**63).any() or (finite != np.floor(finite)).any():
            return computed(lambda stored: (known(stored) != 0).astype(np.uint8), image, dtype=np.uint8)
    return computed(lambda stored: known(stored).astype(np.int64).view(np.uint64), image, dtype=np.uint64)


def _scaling(header: "fits.Header") -> tuple[float, float]:
    try:
        return float(header.get("BSCALE", 1)), float(header.get("BZERO", 0))
    except (TypeError, ValueError) as error:
        raise _PixelError(
            f"BSCALE = {header.get('BSCALE')!r} and BZERO = {header.get('BZERO')!r} are not two numbers"
        ) from error
