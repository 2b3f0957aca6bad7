"""The FITS files of ctapipe's tools after they were written: what varies taken out, and checked against the format."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def finish(path: Path, cards: Sequence[tuple[str, object, str]]) -> None:
    """Remove the times of writing, so that equal runs give equal bytes, and add cards to the primary header."""
    from astropy.io import fits

    with fits.open(path, mode="update") as hdus:
        for hdu in hdus:
            hdu.header.remove("DATE", ignore_missing=True)
        for card in cards:
            hdus[0].header.append(card, end=True)


def limit_offsets(cuts: Path, largest_deg: float) -> None:
    """Write in a file of cuts where they are valid: percentile cuts say infinity, which no table of radii can hold."""
    from astropy.io import fits

    with fits.open(cuts, mode="update") as hdus:
        hdus["VALID_OFFSET"].data["offset_max"] = np.minimum(hdus["VALID_OFFSET"].data["offset_max"], largest_deg)


def check_schema(path: Path) -> list[str]:
    """Compare every table of responses with the GADF data format (ogadf-schema).

    Returns
    -------
    list of str
        Types of the tables, in their order.

    Raises
    ------
    RuntimeError
        If one violates the format: a fault of ours, or of ctapipe.
    """
    from astropy.io import fits
    from ogadf_schema import irfs

    found = []
    with fits.open(path) as hdus:
        for hdu in hdus[1:]:
            kind = str(hdu.header.get("HDUCLAS4", ""))
            schema = getattr(irfs, "RAD_MAX" if kind == "RAD_MAX_2D" else kind, None)
            if schema is None:
                raise RuntimeError(f"{path.name}: {hdu.name} is of no type of the GADF format ({kind!r})")
            try:
                with warnings.catch_warnings():  # of additional cards, which the format allows
                    warnings.simplefilter("ignore")
                    schema.validate_hdu(hdu)
            except Exception as error:
                raise RuntimeError(f"{path.name}: {hdu.name} violates the GADF format: {error}") from error
            found.append(kind)
    return found
