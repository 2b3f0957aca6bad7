"""The FITS files of ctapipe's tools after they were written: what varies taken out, and checked against the format."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

#: Types of tables of responses -> their names in ogadf-schema.
GADF_TABLES = {name: name for name in ("AEFF_2D", "EDISP_2D", "PSF_TABLE", "BKG_2D")} | {"RAD_MAX_2D": "RAD_MAX"}


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


def tables_of(path: Path) -> list[str]:
    """Types of the tables of responses, in their order.

    Raises
    ------
    RuntimeError
        If one is none of the GADF format's.
    """
    from astropy.io import fits

    with fits.open(path) as hdus:
        found = {hdu.name: str(hdu.header.get("HDUCLAS4", "")) for hdu in hdus[1:]}
    for name, kind in found.items():
        if kind not in GADF_TABLES:
            raise RuntimeError(f"{path.name}: {name} is of no type of the GADF format ({kind!r})")
    return list(found.values())


def check_schema(path: Path) -> bool:
    """Compare every table of responses with the GADF data format, if ogadf-schema is installed.

    It is no dependency: fits-schema, which it needs, installs a package called ``tests``.

    Returns
    -------
    bool
        Whether it was compared.

    Raises
    ------
    RuntimeError
        If a table violates the format: a fault of ours, or of ctapipe.
    """
    from astropy.io import fits

    try:
        from ogadf_schema import irfs
    except ImportError:
        return False
    with fits.open(path) as hdus:
        for hdu in hdus[1:]:
            schema = getattr(irfs, GADF_TABLES[hdu.header["HDUCLAS4"]])
            try:
                with warnings.catch_warnings():  # of additional cards, which the format allows
                    warnings.simplefilter("ignore")
                    schema.validate_hdu(hdu)
            except Exception as error:
                raise RuntimeError(f"{path.name}: {hdu.name} violates the GADF format: {error}") from error
    return True
