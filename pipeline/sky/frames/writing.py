"""Write new pixels into a copy of the file that a frame came from, strip by strip."""

import io
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from pipeline.files import atomic_output
from pipeline.sky import cards, headers
from pipeline.sky.dq import DEFECTS, DESCRIPTIONS, DQ, DQ_DTYPE, LOST, has
from pipeline.sky.frames.checksums import add_sums, sum_of
from pipeline.sky.frames.companions import UNCERTAINTIES, belonging, is_ours, unit_of_sigma
from pipeline.sky.frames.formats import copy_bytes, product_stream
from pipeline.sky.frames.hdus import AS_STORED, bits_of, is_rewritten, open_views, place_in_file
from pipeline.sky.frames.layout import BLOCK
from pipeline.sky.frames.planes import Kind, image_shape, kind_of, name_of
from pipeline.sky.frames.product import Product, Strip
from pipeline.sky.headers import Cards
from pipeline.sky.strips import largest

if TYPE_CHECKING:
    from astropy.io import fits

# Cards that describe the stored numbers and not the image; they do not fit the float pixels of a product.
_STORAGE_CARDS = ("BSCALE", "BZERO", "BLANK", "CHECKSUM", "DATASUM")
_SUM_COMMENT = "updated by lightpool"  # and not the time: equal runs give equal bytes
_DQ_NAMES = ("DQ", cards.OUR_BITS.keyword)


@dataclass(frozen=True)
class _Written:
    """An HDU that is new or changed.

    Attributes
    ----------
    header : Header
        Complete, but for the sums.
    product : int
        Science HDU of the product whose pixels it has.
    dtype : dtype
        Of its numbers in the file.
    stored : callable
        These numbers, for a strip of the product.
    is_mask : bool
        Whether they are made of its bits alone.
    """

    header: "fits.Header"
    product: int
    dtype: np.dtype
    stored: Callable[[Strip], np.ndarray]
    is_mask: bool = False

    @classmethod
    def of(
        cls,
        header: "fits.Header | None",
        shape: Sequence[int],
        product: int,
        dtype: Any,
        stored: Callable[[Strip], np.ndarray],
        *,
        primary: bool = False,
        is_mask: bool = False,
        **name: Any,
    ) -> "_Written":
        """With the header that astropy writes for an image of that shape and type."""
        from astropy.io import fits

        dot = np.zeros((1,) * len(shape), dtype)
        hdu = fits.PrimaryHDU(dot, header) if primary else fits.ImageHDU(dot, header, **name)
        buffer = io.BytesIO()
        fits.HDUList([hdu, fits.ImageHDU()] if primary else [fits.PrimaryHDU(), hdu]).writeto(
            buffer, output_verify="ignore"
        )
        buffer.seek(0 if primary else BLOCK)
        header = fits.Header.fromfile(buffer)
        for axis, length in enumerate(reversed(shape), start=1):
            header[f"NAXIS{axis}"] = length
        return cls(header, product, np.dtype(dtype), stored, is_mask)

    def file_bytes(self, strip: Strip) -> bytes:
        """As FITS has them: big-endian, unsigned integers as signed ones about their middle."""
        values = np.ascontiguousarray(self.stored(strip), self.dtype)
        if self.dtype.kind == "u" and self.dtype.itemsize > 1:
            signed = f"i{self.dtype.itemsize}"
            values = (values ^ self.dtype.type(1 << 8 * self.dtype.itemsize - 1)).view(signed)
        return values.astype(values.dtype.newbyteorder(">")).data

    @property
    def n_bytes(self) -> int:
        """Of the data, without the fill of the last block."""
        n_pixels = math.prod(self.header[f"NAXIS{axis}"] for axis in range(1, self.header["NAXIS"] + 1))
        return n_pixels * self.dtype.itemsize


def write_products(
    source: "str | Path | fits.HDUList",
    out: str | Path,
    products: Sequence[Product],
    history: Sequence[str] = (),
    *,
    force: bool = False,
) -> Path:
    """Write a copy of a file with new SCI, ERR and DQ; all other HDUs are copied byte for byte.

    A camera's own DQ extension keeps its bits; ours then goes into an extension LPDQ. An uncertainty that the file has
    gets the new values in its own kind (variance, inverse variance, astropy's UNCERT), a MASK of 0 and 1 the pixels
    that are still not to be trusted. HDUs that are added have CHECKSUM and DATASUM, and changed ones that had them.

    Parameters
    ----------
    source : path or HDUList
        What the frames were read from.
    out : path
        Its ending says what is written: .fits, .fit or .fts, packed with .gz or .bz2, or with lossless tile compression
        (.fz). Elsewhere a tile-compressed science image becomes a plain one.
    products : sequence of Product
        One for each science HDU that is replaced.
    history : sequence of str
        Lines for HISTORY cards of all images.
    force : bool
        Replace `out`.

    Returns
    -------
    path
        `out`.

    Raises
    ------
    UserError
        If `out` exists and `force` is false.
    InputFileError
        If `source` cannot be read.
    """
    out = Path(out)
    by_number = {product.science_hdu: product for product in products}
    with _opened(source) as (raw, unpacked), atomic_output(out, force=force) as temporary:
        hdus, origins = _with_products(raw, unpacked, by_number, history)
        ours = [place for place, hdu in enumerate(hdus) if isinstance(hdu, _Written)]
        sums = _new_checksums(raw, origins, ours)
        with product_stream(temporary, out.name, ours) as stream:
            _write(hdus, origins, by_number, raw, stream, sums)
    return out


def _new_checksums(raw: "fits.HDUList", origins: Sequence[int | None], ours: Sequence[int]) -> list[int]:
    """HDUs of the product whose sums are made: those that we add, so that damage to them shows, and changed ones that
    had sums.

    An image without sums gets none: programs that change it later, or save it anew with its header, would leave them,
    and its own pixels have their fingerprint.
    """
    had = {n for n, hdu in enumerate(raw) if "CHECKSUM" in hdu.header or "DATASUM" in hdu.header}
    return [place for place in ours if origins[place] is None or origins[place] in had]


def _write(
    hdus: "Sequence[_Written | fits.ImageHDU]",
    origins: Sequence[int | None],
    products: Mapping[int, Product],
    raw: "fits.HDUList",
    stream: BinaryIO,
    sums: Sequence[int],
) -> None:
    """All headers and what is copied first, then the pixels strip by strip, then the sums."""
    starts = {}
    for place, (hdu, origin) in enumerate(zip(hdus, origins, strict=True)):
        if not isinstance(hdu, _Written):
            _copy_hdu(raw, origin, stream)
            continue
        starts[place] = stream.tell()
        if place in sums:
            add_sums(hdu.header, 0, _SUM_COMMENT)
        stream.write(hdu.header.tostring().encode("ascii"))
        stream.seek(-(-hdu.n_bytes // BLOCK) * BLOCK, os.SEEK_CUR)
    stream.truncate()
    ends = {place: start + len(hdus[place].header.tostring()) for place, start in starts.items()}
    for number, product in products.items():
        own = {place: hdus[place] for place in starts if hdus[place].product == number}
        n_rows = 0
        for strip in product.strips():
            for place, hdu in own.items():
                stream.seek(ends[place] + n_rows * product.shape[1] * hdu.dtype.itemsize)
                stream.write(hdu.file_bytes(strip))
            n_rows += len(strip.sci)
        if n_rows != product.shape[0]:
            raise ValueError(f"a product of {product.shape[0]} rows came with {n_rows}")
        masks = {place: hdu for place, hdu in own.items() if hdu.is_mask}
        for top, dq in product.amended():
            for place, hdu in masks.items():
                stream.seek(ends[place] + top * product.shape[1] * hdu.dtype.itemsize)
                stream.write(hdu.file_bytes(Strip(top, dq, dq, dq, {})))
    stream.flush()
    for place in sums:
        hdu = hdus[place]
        data_sum = sum_of(stream, ends[place], ends[place] + -(-hdu.n_bytes // BLOCK) * BLOCK)
        add_sums(hdu.header, data_sum, _SUM_COMMENT)
        stream.seek(starts[place])
        stream.write(hdu.header.tostring().encode("ascii"))
    stream.seek(0, os.SEEK_END)


def _copy_hdu(raw: "fits.HDUList", number: int, stream: BinaryIO) -> None:
    """An HDU as it is in its file; its header, if that had to be changed."""
    from astropy.io import fits

    hdu, place = raw[number], place_in_file(raw, number)
    if place is None:  # in memory
        buffer = io.BytesIO()
        alone = fits.HDUList([hdu, fits.ImageHDU()] if number == 0 else [fits.PrimaryHDU(), hdu])
        alone.writeto(buffer, output_verify="ignore")
        content = buffer.getvalue()
        stream.write(content[:-BLOCK] if number == 0 else content[BLOCK:])
        return
    source, part = place
    start, data_end = part.start, part.data_start + -(-part.data_bytes // BLOCK) * BLOCK
    if is_rewritten(raw, number) or (number == 0 and _add_extend(hdu)):
        stream.write(hdu.header.tostring().encode("ascii"))
        start = part.data_start
    copy_bytes(source, start, data_end, stream)


def _add_extend(primary: "fits.PrimaryHDU") -> bool:
    """Make a primary header that is copied say that extensions follow, if it does not, and keep its sums right."""
    header = primary.header
    if header.get("EXTEND") is True:
        return False
    if "EXTEND" in header:
        header["EXTEND"] = True
    else:
        header.set("EXTEND", True, after=f"NAXIS{header['NAXIS'] or ''}")
    if ("CHECKSUM" in header or "DATASUM" in header) and primary.verify_datasum() != 0:
        primary.add_checksum(when=_SUM_COMMENT)
    return True


@contextmanager
def _opened(source: "str | Path | fits.HDUList") -> Iterator[tuple["fits.HDUList", "fits.HDUList"]]:
    """Two views of a file: the raw one for what is copied, the decompressed one for headers of what is replaced."""
    if not isinstance(source, str | Path):
        yield source, source
        return
    with open_views(source, {**AS_STORED, "disable_image_compression": True}, AS_STORED) as (raw, unpacked):
        yield raw, unpacked


def _with_products(
    raw: "fits.HDUList", unpacked: "fits.HDUList", products: Mapping[int, Product], history: Sequence[str]
) -> "tuple[list[_Written | fits.ImageHDU], list[int | None]]":
    """The HDUs of a file, with those of the science images replaced and what they lack added.

    Returns
    -------
    hdus : list
    origins : list of int or None
        For each of them its number in the file; None for what is added.
    """
    hdus: list[_Written | fits.ImageHDU] = list(raw)
    replaced = _replaced_companions(unpacked, products, history)
    for number, hdu in replaced.items():
        hdus[number] = hdu
    for number, product in products.items():
        if not product.only_flags:
            hdus[number] = _science_hdu(unpacked[number], number, product, history)
    # What is added comes last; or, where EXTVER does not say to which image it belongs, behind its image.
    added: dict[int, list[_Written]] = {}
    for number, product in products.items():
        rivals = [other for other in products if unpacked[other].ver == unpacked[number].ver]
        before = len(hdus) if len(rivals) == 1 else min((n for n in rivals if n > number), default=len(hdus))
        added.setdefault(before, []).extend(_added_companions(unpacked, number, product, replaced, history))
    result, origins = [], []
    for number in range(len(hdus) + 1):
        new = added.get(number, [])
        result += [*new, *hdus[number : number + 1]]
        origins += [*[None] * len(new), *[number] * (number < len(hdus))]
    return result, origins


def _science_hdu(hdu: "fits.ImageHDU", number: int, product: Product, history: Sequence[str]) -> _Written:
    header = _float_header(hdu.header)
    if not header.get("EXTNAME"):
        header["EXTNAME"] = ("SCI", "science image")
    _describe(header, product, history)
    return _Written.of(header, hdu.shape, number, np.float32, lambda strip: strip.sci, primary=number == 0)


def printable(text: str) -> str:
    r"""What FITS cards can hold: other characters, as those of file names, are written as ``\xe9`` or ``\u2192``."""
    text = text.encode("ascii", "backslashreplace").decode()
    return "".join(character if " " <= character <= "~" else f"\\x{ord(character):02x}" for character in text)


def _describe(header: "fits.Header", product: Product, history: Sequence[str]) -> None:
    """The product's cards, how it was made, and its warnings."""
    for keyword, value, comment in product.cards:
        header[keyword] = (printable(value) if isinstance(value, str) else value, comment)
    for line in (*history, *product.history):
        header.add_history(printable(line))
    _add_warnings(header, product.warnings)


def _add_warnings(header: "fits.Header", warnings: Sequence[str]) -> None:
    """Those that the header does not have yet, and the number of all."""
    before = cards.warnings_in(header.get("HISTORY", ()))
    lines = [cards.warning_lines(text) for text in warnings]
    for line in (line for text in lines if cards.warnings_in(text)[0] not in before for line in text):
        header.add_history(line)
    header.set(*cards.N_WARNINGS.with_value(len(cards.warnings_in(header.get("HISTORY", ())))))


def _float_header(header: "fits.Header") -> "fits.Header":
    header = header.copy()
    for keyword in _STORAGE_CARDS:
        header.remove(keyword, ignore_missing=True, remove_all=True)
    return header


def _replaced_companions(
    hdus: "fits.HDUList", products: Mapping[int, Product], history: Sequence[str]
) -> dict[int, _Written]:
    """New HDUs for the uncertainties, masks and planes that the file already has, also where they are empty."""
    replaced = {}
    for number, product in products.items():
        for other in belonging(hdus, number, list(products)):
            hdu = hdus[other]
            kind, name = kind_of(hdu), name_of(hdu)
            header = _float_header(hdu.header)
            if kind in UNCERTAINTIES and product.only_flags:
                continue
            if kind in UNCERTAINTIES:
                replaced[other] = _uncertainty_hdu(product, kind, header, hdu, Cards.of(hdus, number).text("BUNIT"))
            elif name in _DQ_NAMES and (not hdu.shape or is_ours(hdu)):
                replaced[other] = _dq_hdu(product, hdu, header, history, name=name, ver=hdu.ver)
            elif name == "MASK" and _is_boolean(hdu):
                shape = _shape_as(hdu, product)
                replaced[other] = _Written.of(
                    header, shape, number, np.uint8, lambda strip: _unsure(strip.dq), is_mask=True
                )
            elif name in product.units:
                replaced[other] = _plane_hdu(product, hdu, header, name=name, ver=hdu.ver)
    return replaced


def _shape_as(old: "fits.ImageHDU", product: Product) -> tuple[int, ...]:
    """That of a product, with the axes of length 1 that an HDU of the file has."""
    return old.shape if old.shape and image_shape(old) == product.shape else product.shape


def _uncertainty_hdu(
    product: Product, kind: Kind, header: "fits.Header", old: "fits.ImageHDU", stored_unit: str
) -> _Written:
    """New values for an uncertainty of the file, whose image is in `stored_unit` unless the product says otherwise.

    Whatever unit it had, they are in the image's; the card is changed only where it does not say so already.
    """
    unit = next((str(value) for keyword, value, _ in product.cards if keyword == "BUNIT"), stored_unit)
    theirs = unit_of_sigma(Cards(header).text("BUNIT"), kind)
    if theirs and not _same_unit(theirs, unit):
        header["BUNIT"] = _unit_of_kind(unit, kind)

    def stored(strip: Strip) -> np.ndarray:
        values = np.asarray(strip.err, np.float32)
        if kind == "variance":
            return values**2
        if kind == "inverse variance":
            return np.divide(1, values**2, out=np.zeros_like(values), where=values > 0)
        return values

    return _Written.of(header, _shape_as(old, product), product.science_hdu, np.float32, stored)


def _same_unit(a: str, b: str) -> bool:
    if headers.unit_named(a) == headers.unit_named(b):
        return True
    parsed = headers.parsed_unit(a)
    return parsed is not None and parsed == headers.parsed_unit(b)


def _unit_of_kind(unit: str, kind: Kind) -> str:
    """Of an uncertainty of an image in `unit`, as `unit_of_sigma` and astropy read it."""
    if kind == "sigma":
        return unit or headers.unit_named(unit)
    power = 2 if kind == "variance" else -2
    parsed = headers.parsed_unit(headers.unit_named(unit))
    return f"({unit})**{power}" if parsed is None else (parsed**power).to_string()


def _is_boolean(hdu: "fits.ImageHDU") -> bool:
    """Whether it is a mask of 0 and 1, as astropy's CCDData has it."""
    return bool(hdu.shape) and not is_ours(hdu) and hdu.header["BITPIX"] == 8 and largest(bits_of(hdu)) <= 1


def _unsure(dq: np.ndarray) -> np.ndarray:
    """Pixels that are still not to be trusted, as a mask of 0 and 1."""
    defect = has(dq, DEFECTS) & ~has(dq, DQ.RESTORED)
    return (defect | has(dq, LOST | DQ.LOW_CONFIDENCE)).astype(np.uint8)


def _added_companions(
    hdus: "fits.HDUList",
    number: int,
    product: Product,
    replaced: Mapping[int, _Written],
    history: Sequence[str],
) -> list[_Written]:
    science, version = hdus[number], hdus[number].ver
    theirs = belonging(hdus, number, [number])
    names = {name_of(written) for other, written in replaced.items() if other in theirs}
    added = []
    if "ERR" not in names and not product.only_flags:
        shape = _shape_as(science, product)
        added.append(_Written.of(None, shape, number, np.float32, lambda strip: strip.err, name="ERR", ver=version))
    if not names.intersection(_DQ_NAMES):
        foreign = any(name_of(hdus[other]) == "DQ" for other in theirs)
        name = cards.OUR_BITS.keyword if foreign else "DQ"
        added.append(_dq_hdu(product, science, None, history, name=name, ver=version))
    added += [_plane_hdu(product, science, None, name=n, ver=version) for n in product.units if n not in names]
    for written in added:
        if version == 0:  # astropy leaves it out
            written.header["EXTVER"] = 0
    return added


def _plane_hdu(
    product: Product, old: "fits.ImageHDU", header: "fits.Header | None", *, name: str, ver: int
) -> _Written:
    written = _Written.of(
        header,
        _shape_as(old, product),
        product.science_hdu,
        np.float32,
        lambda strip: strip.planes[name],
        name=name,
        ver=ver,
    )
    written.header.remove("BUNIT", ignore_missing=True)  # of the plane that was there before
    if product.units[name]:
        written.header["BUNIT"] = product.units[name]
    return written


def _dq_hdu(
    product: Product,
    old: "fits.ImageHDU",
    header: "fits.Header | None",
    history: Sequence[str],
    *,
    name: str,
    ver: int,
) -> _Written:
    written = _Written.of(
        header,
        _shape_as(old, product),
        product.science_hdu,
        DQ_DTYPE,
        lambda strip: strip.dq,
        is_mask=True,
        name=name,
        ver=ver,
    )
    written.header[cards.OUR_BITS.keyword] = (True, cards.OUR_BITS.comment)
    for bit, text in DESCRIPTIONS.items():
        written.header[cards.bit_keyword(bit)] = text
    if product.only_flags:
        _describe(written.header, product, history)
    return written
