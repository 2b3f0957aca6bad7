"""The WCS of a science image, where it has one that can be used."""

import warnings
from typing import TYPE_CHECKING

import numpy as np

from pipeline.logs import get_logger

if TYPE_CHECKING:
    from astropy.io import fits
    from astropy.wcs import WCS

log = get_logger(__name__)


def wcs_of(
    header: "fits.Header | None", hdus: "fits.HDUList | None" = None, *, celestial: bool = False
) -> "WCS | None":
    """The WCS that a header has; None where it has none, or one that astropy cannot read.

    Parameters
    ----------
    header : fits.Header, optional
    hdus : fits.HDUList, optional
        Where tables of distortions are.
    celestial : bool
        Whether only coordinates on the sky will do, which the image's first pixels have.
    """
    from astropy.wcs import WCS

    if header is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # repairs of old keywords
        try:
            wcs = WCS(header, hdus, naxis=2)
            if not any(wcs.wcs.ctype):
                return None
            if celestial and not (wcs.has_celestial and np.isfinite(wcs.pixel_to_world_values([0, 10], [0, 10])).all()):
                return None
        except Exception:  # astropy.wcs raises its own errors, AssertionError and plain Exception
            log.debug("the WCS cannot be read and is omitted", exc_info=True)
            return None
    return wcs
