"""What the planes of a FITS file are: pictures, or masks, uncertainties and weights that belong to them.

Read from EXTNAME, and from the cards of conventions: EXTTYPE (Rubin), HDUCLAS2 and HDUCLAS3 (ESO data interface),
UTYPE (astropy's CCDData).
"""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from astropy.io import fits

Kind = Literal["mask", "sigma", "variance", "inverse variance", "weight", "exposure", "unknown uncertainty"]

#: What extensions are called, in the order in which they are preferred.
NAMES: dict[str, Kind] = {
    name: kind
    for kind, names in {
        "mask": "DQ MASK FLAGS FLAG MSK FLG BPM BADPIX DQMASK QUALITY QUAL DATAQUALITY DATA_QUALITY PIXMASK BPMMASK "
        "MASKBITS LPDQ",
        "sigma": "ERR ERROR ERRORS SIGMA RMS STD STDDEV NOISE UNC UNCERT UNCERTAINTY",
        "variance": "VAR VARIANCE STAT",
        "inverse variance": "IVAR INVVAR INVVARIANCE INVERSE_VARIANCE",
        "weight": "WHT WEIGHT WEIGHTS WGT WT WEIGHTMAP WEIGHT_MAP WTMAP",
        "exposure": "EXP EXPMAP EXPOSURE COVERAGE COV NEXP",
    }.items()
    for name in names.split()
}
_ESO: dict[str, Kind] = {"MSE": "variance", "RMSE": "sigma", "INVMSE": "inverse variance"}
_ASTROPY: dict[str, Kind] = {
    "STDDEVUNCERTAINTY": "sigma",
    "VARIANCEUNCERTAINTY": "variance",
    "INVERSEVARIANCE": "inverse variance",
    "UNKNOWNUNCERTAINTY": "unknown uncertainty",
}
_EXTTYPES: dict[str, Kind] = {"MASK": "mask", "VARIANCE": "variance"}
# Distortions that belong to the WCS, and bookkeeping of drizzled images.
_NO_PICTURES = frozenset(("WCSDVARR", "D2IMARR", "CTX", "CON", "HDRLET"))


def name_of(hdu: "fits.ImageHDU") -> str:
    """EXTNAME in capitals, without blanks at its ends; an empty one for none."""
    return str(hdu.header.get("EXTNAME", "")).strip().upper()


def text_of(hdu: "fits.ImageHDU", keyword: str) -> str:
    """A card as text in capitals; an empty one if it is missing."""
    return str(hdu.header.get(keyword, "")).strip().upper()


def kind_of(hdu: "fits.ImageHDU") -> Kind | None:
    """What a plane is if it is not a picture.

    A card that says what a plane is counts more than its name.
    """
    if text_of(hdu, "HDUCLAS2") == "QUALITY":
        return "mask"
    if text_of(hdu, "HDUCLAS2") == "ERROR":
        return _ESO.get(text_of(hdu, "HDUCLAS3"), "sigma")
    if text_of(hdu, "EXTTYPE") in _EXTTYPES:
        return _EXTTYPES[text_of(hdu, "EXTTYPE")]
    kind = NAMES.get(name_of(hdu))
    return _ASTROPY.get(text_of(hdu, "UTYPE"), kind) if kind == "sigma" else kind


def is_marked_science(hdu: "fits.ImageHDU") -> bool:
    """Whether its own cards say that it is the picture."""
    if name_of(hdu) == "SCI":
        return True
    return kind_of(hdu) is None and (text_of(hdu, "EXTTYPE") == "IMAGE" or text_of(hdu, "HDUCLAS2") == "DATA")


def may_be_picture(hdu: "fits.ImageHDU") -> bool:
    """Whether it can be the science image: not a mask, an uncertainty, a weight or a table of a distortion."""
    return kind_of(hdu) is None and name_of(hdu) not in _NO_PICTURES


def image_shape(hdu: "fits.ImageHDU") -> tuple[int, ...]:
    """Shape in numpy's order, without axes of length 1 where there are more than two."""
    shape = tuple(hdu.shape or ())
    while len(shape) > 2 and 1 in shape:
        place = shape.index(1)
        shape = shape[:place] + shape[place + 1 :]
    return shape
