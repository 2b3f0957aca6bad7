"""Write new pixels into a copy of the file that a frame came from."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.files import atomic_output
from pipeline.sky import cards
from pipeline.sky.dq import DEFECTS, DESCRIPTIONS, DQ, DQ_DTYPE, LOST, has
from pipeline.sky.frames.companions import UNCERTAINTIES, belonging, is_ours
from pipeline.sky.frames.formats import write_hdus
from pipeline.sky.frames.hdus import bits_of, open_views
from pipeline.sky.frames.planes import Kind, image_shape, kind_of, name_of

if TYPE_CHECKING:
    from astropy.io import fits

# Cards that describe the stored numbers and not the image; they do not fit the float pixels of a product.
_STORAGE_CARDS = ("BSCALE", "BZERO", "BLANK", "CHECKSUM", "DATASUM")
_DQ_NAMES = ("DQ", cards.OUR_BITS.keyword)


@dataclass(frozen=True)
class FrameProduct:
    """New pixels of one science HDU.

    Attributes
    ----------
    science_hdu : int
        Number of the HDU in the file.
    sci, err : ndarray, shape (H, W), optional
        In the unit that they are written in. None: only the mask is written, and the science image and its uncertainty
        stay as they are, bit for bit; `history` and `warnings` then go to the mask.
    dq : ndarray of uint16, shape (H, W)
        Bits of `pipeline.sky.dq.DQ`.
    cards : sequence of (keyword, value, comment)
        Set in the science header.
    planes : mapping
        Further planes: extension name -> (ndarray of shape (H, W), unit).
    history : sequence of str
        Lines for HISTORY cards of this image.
    warnings : sequence of str
        What changes the meaning of the pixels: they are counted in LPNWARN and stand in HISTORY.
    """

    science_hdu: int
    sci: np.ndarray | None
    err: np.ndarray | None
    dq: np.ndarray
    cards: Sequence[tuple[str, Any, str]] = ()
    planes: Mapping[str, tuple[np.ndarray, str]] = field(default_factory=dict)
    history: Sequence[str] = ()
    warnings: Sequence[str] = ()


def write_products(
    source: "str | Path | fits.HDUList",
    out: str | Path,
    products: Sequence[FrameProduct],
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
    products : sequence of FrameProduct
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
        ours = [place for place, origin in enumerate(origins) if origin is None or hdus[place] is not raw[origin]]
        write_hdus(hdus, temporary, out.name, ours, _new_checksums(raw, origins, ours))
    return out


def _new_checksums(raw: "fits.HDUList", origins: Sequence[int | None], ours: Sequence[int]) -> list[int]:
    """HDUs of the product whose sums are made: those that we add, so that damage to them shows, and changed ones that
    had sums.

    An image without sums gets none: programs that change it later, or save it anew with its header, would leave them,
    and its own pixels have their fingerprint. astropy gives a primary header its EXTEND where that is missing, which no
    HDU tells.
    """
    had = {n for n, hdu in enumerate(raw) if "CHECKSUM" in hdu.header or "DATASUM" in hdu.header}
    changed = {place for place in ours if origins[place] is None or origins[place] in had}
    is_copied = 0 in had and 0 not in changed
    if is_copied and raw[0].verify_checksum() == 0 and raw[0].verify_datasum() != 0:
        changed.add(0)
    return sorted(changed)


@contextmanager
def _opened(source: "str | Path | fits.HDUList") -> Iterator[tuple["fits.HDUList", "fits.HDUList"]]:
    """Two views of a file: the raw one for what is copied, the decompressed one for headers of what is replaced."""
    if not isinstance(source, str | Path):
        yield source, source
        return
    stored = {"do_not_scale_image_data": True, "memmap": True}
    with open_views(source, {**stored, "disable_image_compression": True}, stored) as (raw, unpacked):
        yield raw, unpacked


def _with_products(
    raw: "fits.HDUList", unpacked: "fits.HDUList", products: dict[int, FrameProduct], history: Sequence[str]
) -> tuple["fits.HDUList", list[int | None]]:
    """The HDUs of a file, with those of the science images replaced and what they lack added.

    Returns
    -------
    hdus : HDUList
    origins : list of int or None
        For each of them its number in the file; None for what is added.
    """
    from astropy.io import fits

    hdus = list(raw)
    replaced = _replaced_companions(unpacked, products, history)
    for number, hdu in replaced.items():
        hdus[number] = hdu
    for number, product in products.items():
        if product.sci is not None:
            hdus[number] = _science_hdu(unpacked[number], number, product, history)
    # What is added comes last; or, where EXTVER does not say to which image it belongs, behind its image.
    added: dict[int, list[fits.ImageHDU]] = {}
    for number, product in products.items():
        rivals = [other for other in products if unpacked[other].ver == unpacked[number].ver]
        before = len(hdus) if len(rivals) == 1 else min((n for n in rivals if n > number), default=len(hdus))
        added.setdefault(before, []).extend(_added_companions(unpacked, number, product, replaced, history))
    result, origins = fits.HDUList(), []
    for number in range(len(hdus) + 1):
        for hdu in added.get(number, ()):
            result.append(hdu)
            origins.append(None)
        if number < len(hdus):
            result.append(hdus[number])
            origins.append(number)
    return result, origins


def _science_hdu(hdu: "fits.ImageHDU", number: int, product: FrameProduct, history: Sequence[str]) -> "fits.ImageHDU":
    from astropy.io import fits

    header = _float_header(hdu.header)
    if not header.get("EXTNAME"):
        header["EXTNAME"] = ("SCI", "science image")
    for keyword, value, comment in product.cards:
        header[keyword] = (printable(value) if isinstance(value, str) else value, comment)
    _add_history(header, product, history)
    kind = fits.PrimaryHDU if number == 0 else fits.ImageHDU
    return kind(np.ascontiguousarray(product.sci, np.float32).reshape(hdu.shape), header)


def printable(text: str) -> str:
    r"""What FITS cards can hold: other characters, as those of file names, are written as ``\xe9`` or ``\u2192``."""
    text = text.encode("ascii", "backslashreplace").decode()
    return "".join(character if " " <= character <= "~" else f"\\x{ord(character):02x}" for character in text)


def _add_history(header: "fits.Header", product: FrameProduct, history: Sequence[str]) -> None:
    """How the product was made, and its warnings."""
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
    hdus: "fits.HDUList", products: dict[int, FrameProduct], history: Sequence[str]
) -> dict[int, "fits.ImageHDU"]:
    """New HDUs for the uncertainties, masks and planes that the file already has, also where they are empty."""
    replaced = {}
    for number, product in products.items():
        for other in belonging(hdus, number, list(products)):
            hdu = hdus[other]
            kind = kind_of(hdu)
            header = _float_header(hdu.header)
            if kind in UNCERTAINTIES and product.err is None:
                continue
            if kind in UNCERTAINTIES:
                replaced[other] = _uncertainty_hdu(product, kind, header)
            elif name_of(hdu) in _DQ_NAMES and (not hdu.shape or is_ours(hdu)):
                replaced[other] = _dq_hdu(product, name_of(hdu), hdu.ver, header, history)
            elif name_of(hdu) == "MASK" and _is_boolean(hdu):
                replaced[other] = _mask_hdu(product.dq, header)
            elif name_of(hdu) in product.planes:
                replaced[other] = _plane_hdu(product, name_of(hdu), hdu.ver, header)
    return {other: _as_shaped(hdu, hdus[other]) for other, hdu in replaced.items()}


def _as_shaped(new: "fits.ImageHDU", old: "fits.ImageHDU") -> "fits.ImageHDU":
    """With the axes of length 1 that the old one has."""
    if old.shape and new.shape != old.shape and image_shape(old) == new.shape:
        new.data = new.data.reshape(old.shape)
    return new


def _uncertainty_hdu(product: FrameProduct, kind: Kind, header: "fits.Header") -> "fits.ImageHDU":
    from astropy.io import fits

    values = np.asarray(product.err, np.float32)
    unit = next((str(value) for keyword, value, _ in product.cards if keyword == "BUNIT"), None)
    if kind == "variance":
        values = values**2
    elif kind == "inverse variance":
        values = np.divide(1, values**2, out=np.zeros_like(values), where=values > 0)
    if unit is not None and "BUNIT" in header:
        header["BUNIT"] = {"sigma": unit, "variance": f"{unit}2"}.get(kind, f"1 / {unit}2")
    return fits.ImageHDU(values, header)


def _is_boolean(hdu: "fits.ImageHDU") -> bool:
    """Whether it is a mask of 0 and 1, as astropy's CCDData has it."""
    return bool(hdu.shape) and not is_ours(hdu) and hdu.header["BITPIX"] == 8 and int(bits_of(hdu).max()) <= 1


def _mask_hdu(dq: np.ndarray, header: "fits.Header") -> "fits.ImageHDU":
    from astropy.io import fits

    defect = has(dq, DEFECTS) & ~has(dq, DQ.RESTORED)
    return fits.ImageHDU((defect | has(dq, LOST | DQ.LOW_CONFIDENCE)).astype(np.uint8), header)


def _added_companions(
    hdus: "fits.HDUList",
    number: int,
    product: FrameProduct,
    replaced: dict[int, "fits.ImageHDU"],
    history: Sequence[str],
) -> list["fits.ImageHDU"]:
    from astropy.io import fits

    version = hdus[number].ver
    theirs = belonging(hdus, number, [number])
    names = {name_of(hdu) for other, hdu in replaced.items() if other in theirs}
    added = []
    if "ERR" not in names and product.err is not None:
        added.append(fits.ImageHDU(np.asarray(product.err, np.float32), name="ERR", ver=version))
    if not names.intersection(_DQ_NAMES):
        foreign = any(name_of(hdus[other]) == "DQ" for other in theirs)
        name = cards.OUR_BITS.keyword if foreign else "DQ"
        added.append(_dq_hdu(product, name, version, None, history))
    added += [_plane_hdu(product, name, version, None) for name in product.planes if name not in names]
    for hdu in added:
        if version == 0:  # astropy leaves it out
            hdu.header["EXTVER"] = 0
    return [_as_shaped(hdu, hdus[number]) for hdu in added]


def _plane_hdu(product: FrameProduct, name: str, version: int, header: "fits.Header | None") -> "fits.ImageHDU":
    from astropy.io import fits

    plane, unit = product.planes[name]
    hdu = fits.ImageHDU(np.asarray(plane, np.float32), header, name=name, ver=version)
    hdu.header.remove("BUNIT", ignore_missing=True)  # of the plane that was there before
    if unit:
        hdu.header["BUNIT"] = unit
    return hdu


def _dq_hdu(
    product: FrameProduct, name: str, version: int, header: "fits.Header | None", history: Sequence[str]
) -> "fits.ImageHDU":
    from astropy.io import fits

    hdu = fits.ImageHDU(product.dq.astype(DQ_DTYPE, casting="safe"), header, name=name, ver=version)
    hdu.header[cards.OUR_BITS.keyword] = (True, cards.OUR_BITS.comment)
    for bit, text in DESCRIPTIONS.items():
        hdu.header[cards.bit_keyword(bit)] = text
    if product.sci is None:
        _add_history(hdu.header, product, history)
    return hdu
