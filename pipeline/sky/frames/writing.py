"""Write new pixels into a copy of the file that a frame came from."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.files import atomic_output
from pipeline.sky import cards
from pipeline.sky.dq import DESCRIPTIONS, DQ_DTYPE
from pipeline.sky.frames.hdus import open_fits

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
    sci, err : ndarray, shape (H, W)
        In the unit that they are written in.
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
    sci: np.ndarray
    err: np.ndarray
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

    A tile-compressed science image is written as a plain one: compressing floats would lose bits silently. A camera's
    own DQ extension keeps its bits; ours then goes into an extension LPDQ.

    Parameters
    ----------
    source : path or HDUList
        What the frames were read from.
    out : path
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
        _with_products(raw, unpacked, by_number, history).writeto(temporary, output_verify="ignore")
    return out


@contextmanager
def _opened(source: "str | Path | fits.HDUList") -> Iterator[tuple["fits.HDUList", "fits.HDUList"]]:
    """Two views of a file: the raw one for what is copied, the decompressed one for headers of what is replaced."""
    if not isinstance(source, str | Path):
        yield source, source
        return
    with (
        open_fits(source, disable_image_compression=True, do_not_scale_image_data=True, memmap=True) as raw,
        open_fits(source, do_not_scale_image_data=True, memmap=True) as unpacked,
    ):
        yield raw, unpacked


def _with_products(
    raw: "fits.HDUList", unpacked: "fits.HDUList", products: dict[int, FrameProduct], history: Sequence[str]
) -> "fits.HDUList":
    """The HDUs of a file, with those of the science images replaced and what they lack added."""
    from astropy.io import fits

    result = fits.HDUList()
    added: list[fits.ImageHDU] = []
    replaced = _replaced_companions(unpacked, products)
    for number, hdu in enumerate(raw):
        if number in products:
            result.append(_science_hdu(unpacked[number], number, products[number], history))
        elif number in replaced:
            result.append(replaced[number])
        else:
            result.append(hdu)
    for number, product in products.items():
        added += _added_companions(unpacked, number, product, replaced)
    result.extend(added)
    if added and "EXTEND" not in result[0].header:
        result[0].header["EXTEND"] = True
    return result


def _science_hdu(hdu: "fits.ImageHDU", number: int, product: FrameProduct, history: Sequence[str]) -> "fits.ImageHDU":
    from astropy.io import fits

    header = _float_header(hdu.header)
    if not header.get("EXTNAME"):
        header["EXTNAME"] = ("SCI", "science image")
    for keyword, value, comment in product.cards:
        header[keyword] = (value, comment)
    for line in (*history, *product.history):
        header.add_history(line)
    _add_warnings(header, product.warnings)
    kind = fits.PrimaryHDU if number == 0 else fits.ImageHDU
    return kind(np.ascontiguousarray(product.sci, np.float32), header)


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


def _is_ours(hdu: "fits.ImageHDU") -> bool:
    return cards.OUR_BITS.keyword in hdu.header


def _replaced_companions(hdus: "fits.HDUList", products: dict[int, FrameProduct]) -> dict[int, "fits.ImageHDU"]:
    """New HDUs for the ERR and (our) DQ extensions that the file already has, also where they are empty."""
    from astropy.io import fits

    replaced = {}
    for number, product in products.items():
        for other, hdu in enumerate(hdus):
            if other in products or not hdu.is_image or hdu.ver != hdus[number].ver:
                continue
            empty = hdu.header.get("NAXIS", 0) == 0
            if hdu.name == "ERR":
                replaced[other] = fits.ImageHDU(np.asarray(product.err, np.float32), _float_header(hdu.header))
            elif hdu.name in _DQ_NAMES and (empty or _is_ours(hdu)):
                replaced[other] = _dq_hdu(product.dq, hdu.name, hdu.ver, _float_header(hdu.header))
            elif hdu.name in product.planes:
                replaced[other] = _plane_hdu(product, hdu.name, hdu.ver, _float_header(hdu.header))
    return replaced


def _added_companions(
    hdus: "fits.HDUList", number: int, product: FrameProduct, replaced: dict[int, "fits.ImageHDU"]
) -> list["fits.ImageHDU"]:
    from astropy.io import fits

    version = hdus[number].ver
    names = {hdu.name for other, hdu in replaced.items() if hdus[other].ver == version}
    added = []
    if "ERR" not in names:
        added.append(fits.ImageHDU(np.asarray(product.err, np.float32), name="ERR", ver=version))
    if not names.intersection(_DQ_NAMES):
        foreign = any(hdu.name == "DQ" and hdu.ver == version for hdu in hdus)
        added.append(_dq_hdu(product.dq, cards.OUR_BITS.keyword if foreign else "DQ", version, None))
    return added + [_plane_hdu(product, name, version, None) for name in product.planes if name not in names]


def _plane_hdu(product: FrameProduct, name: str, version: int, header: "fits.Header | None") -> "fits.ImageHDU":
    from astropy.io import fits

    plane, unit = product.planes[name]
    hdu = fits.ImageHDU(np.asarray(plane, np.float32), header, name=name, ver=version)
    hdu.header.remove("BUNIT", ignore_missing=True)  # of the plane that was there before
    if unit:
        hdu.header["BUNIT"] = unit
    return hdu


def _dq_hdu(dq: np.ndarray, name: str, version: int, header: "fits.Header | None") -> "fits.ImageHDU":
    from astropy.io import fits

    hdu = fits.ImageHDU(dq.astype(DQ_DTYPE, casting="safe"), header, name=name, ver=version)
    hdu.header[cards.OUR_BITS.keyword] = (True, cards.OUR_BITS.comment)
    for bit, text in DESCRIPTIONS.items():
        hdu.header[cards.bit_keyword(bit)] = text
    return hdu
