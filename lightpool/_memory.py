"""Images in memory as the HDUs that a FITS file of them would have: one code path reads both."""

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lightpool._inputs import is_a, kind_of_object
from pipeline.errors import UserError

if TYPE_CHECKING:
    from astropy.io import fits
    from astropy.nddata import CCDData

#: Input of a model for frames, as messages describe it.
TAKES = "a FITS file, a CCDData, or an image of shape (H, W) as a Quantity or an array (in ADU)"

# The extension that carries each kind of uncertainty, and its unit as a power of the image's.
_UNCERTAINTIES = {"std": ("ERR", 1), "var": ("VAR", 2), "ivar": ("IVAR", -2)}

# Of a mask from memory nothing has to be guessed (ESO's cards for planes of quality).
_TRUE_IS_BAD = {"HDUCLAS2": "QUALITY", "HDUCLAS3": "MASKZERO"}


def hdus_of(data: Any, name: str) -> "tuple[fits.HDUList, fits.HDUList]":
    """HDUs of an image in memory.

    Parameters
    ----------
    data : CCDData, Quantity or ndarray, shape (H, W)
    name : str
        Of the model, for messages.

    Returns
    -------
    alone : HDUList
        The image alone, which a product is a copy of.
    whole : HDUList
        With its uncertainty and mask, as they are read.

    Raises
    ------
    UserError
        If the data are not an image of numbers.
    TypeError
        If the data are not an array.
    """
    from astropy.io import fits

    is_ccd = is_a(data, "astropy.nddata", "CCDData")
    if not (is_ccd or isinstance(data, np.ndarray)):
        message = f"{name} is a model for frames and takes {TAKES}; got {kind_of_object(data)}"
        of_camera = isinstance(data, tuple | list) or is_a(data, "ctapipe.containers", "ArrayEventContainer")
        raise UserError(message) if of_camera else TypeError(message)
    values = np.asarray(np.ma.getdata(data.data if is_ccd else getattr(data, "unmasked", data)))
    if values.ndim != 2 or values.dtype.kind not in "iuf" or 0 in values.shape:
        raise UserError(f"{name} takes an image of numbers, of shape (H, W); got {values.dtype} of {values.shape}")
    if values.dtype.kind == "f":
        values = values.astype(np.float32)  # FITS has no float16, and frames are read as float32 anyway
    image = fits.PrimaryHDU(values, _header(data, is_ccd))
    companions = [fits.ImageHDU(*_uncertainty(data))] if is_ccd and data.uncertainty is not None else []
    mask = getattr(data, "mask", None)
    if mask is not None and np.any(mask):
        bits = np.broadcast_to(np.asarray(mask, bool), values.shape).astype(np.uint8)
        says_true_is_bad = fits.Header(_TRUE_IS_BAD)
        companions.append(fits.ImageHDU(bits, says_true_is_bad, name="MASK"))
    return fits.HDUList([image]), fits.HDUList([image, *companions])


def _header(data: Any, is_ccd: bool) -> "fits.Header":
    """Header cards, WCS and unit of the image, without what describes stored numbers."""
    from astropy.io import fits

    header = fits.Header()
    if is_ccd:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # long names become HIERARCH cards, long comments are cut
            header = stripped(data.meta if isinstance(data.meta, fits.Header) else _cards(data.meta))
            if hasattr(data.wcs, "to_header"):
                header.update(data.wcs.to_header(relax=True))
    if hasattr(data, "unit"):
        header["BUNIT"] = data.unit.to_string()
    return header


def stripped(header: "fits.Header") -> "fits.Header":
    """A copy without the cards that describe how an HDU is stored."""
    header = header.copy(strip=True)
    for keyword in ("EXTNAME", "EXTVER", "BLANK", "CHECKSUM", "DATASUM"):
        header.remove(keyword, ignore_missing=True)
    return header


def _cards(meta: Mapping[str, Any]) -> "fits.Header":
    """What of `meta` a FITS header can hold."""
    from astropy.io import fits

    header = fits.Header()
    for key, value in meta.items():
        try:
            header[key] = value
        except (ValueError, TypeError):  # lists, objects, characters outside ASCII
            continue
    return header


def _uncertainty(ccd: "CCDData") -> "tuple[np.ndarray, fits.Header]":
    """Pixels and header of the extension that a file would hold it in."""
    from astropy.io import fits

    uncertainty = ccd.uncertainty
    kind = uncertainty.uncertainty_type
    if kind not in _UNCERTAINTIES:
        raise UserError(
            f"the uncertainty of the CCDData is of the kind {kind!r}; accepted: {', '.join(_UNCERTAINTIES)} "
            "(StdDevUncertainty, VarianceUncertainty, InverseVariance)"
        )
    extension, power = _UNCERTAINTIES[kind]
    values = np.asarray(uncertainty.array, np.float32)
    if uncertainty.unit is not None:
        values = (values * uncertainty.unit).to_value(ccd.unit**power).astype(np.float32)
    return values, fits.Header({"EXTNAME": extension})
