"""One science image of a FITS file."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.sky import headers
from pipeline.sky.strips import Image, LazyImage, strips

if TYPE_CHECKING:
    from astropy.io import fits


@dataclass(frozen=True)
class Frame:
    """One science image with its uncertainty and mask.

    The planes are in memory, or are read strip by strip from a file that is open (`open_frames`).

    Attributes
    ----------
    sci : ndarray or LazyImage, shape (H, W), float32
        In `unit`; NaN where the file has no value.
    err : ndarray or LazyImage, shape (H, W), float32
        One sigma, in `unit`.
    dq : ndarray or LazyImage, shape (H, W), uint16
        Bits of `pipeline.sky.dq.DQ`.
    unit : str
        ``electron``, ``adu``, or the file's own unit as it is written.
    stored_unit : str
        The unit that the file's pixels are in.
    gain_e_per_adu, read_noise_e : float, optional
        As used; None where unknown.
    bias_level : float
        What was subtracted, in `stored_unit`.
    zero_known : bool
        Whether zero means no light: the bias is known, or was subtracted before.
    saturation : float, optional
        Level from which a pixel counts as saturated, in `stored_unit`, bias included.
    level, noise : float
        Median level and rms of the background, in `unit`.
    err_modelled : bool
        Whether `err` is a model, and did not come with the file.
    gain_contradicted : bool
        Whether the header has a gain that the pixels contradict, or that cannot be read: `unit` is then the stored one.
    section : Section, optional
        The exposed part of a frame that still has its overscan.
    notes : tuple of str
        Where each value came from, and what is unknown.
    warnings : tuple of str
        What was not believed or had to be assumed, so that the numbers mean something else than the file says.
    header : Header, optional
        Of the science HDU.
    searched : Cards, optional
        Look-ups in it, and in the primary header that it inherits.
    """

    path: Path
    science_hdu: int
    sci: Image
    err: Image
    dq: Image
    unit: str
    stored_unit: str
    level: float
    noise: float
    gain_e_per_adu: float | None = None
    read_noise_e: float | None = None
    bias_level: float = 0.0
    zero_known: bool = False
    saturation: float | None = None
    err_modelled: bool = False
    gain_contradicted: bool = False
    section: headers.Section | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    header: "fits.Header | None" = field(default=None, repr=False)
    searched: "headers.Cards | None" = field(default=None, repr=False)

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.sci.shape

    @property
    def exposed(self) -> tuple[slice, slice]:
        """Index of the exposed part: the whole frame, unless it has its overscan still."""
        return self.section.slices if self.section else (slice(None), slice(None))

    def is_exposed(self, rows: slice) -> np.ndarray:
        """Which pixels of some rows are in the exposed part, shape (n_rows, W), bool."""
        height, width = self.shape
        exposed_rows, exposed_columns = (np.zeros(side, bool) for side in (height, width))
        exposed_rows[self.exposed[0]] = exposed_columns[self.exposed[1]] = True
        return exposed_rows[rows, None] & exposed_columns

    @property
    def factor(self) -> float:
        """`unit` per `stored_unit`."""
        return self.gain_e_per_adu if self.unit == "electron" and self.stored_unit == "adu" else 1.0

    def loaded(self) -> "Frame":
        """The same frame with its planes in memory."""
        images = {name: getattr(self, name) for name in ("sci", "err", "dq")}
        lazy = {name: image for name, image in images.items() if isinstance(image, LazyImage)}
        if not lazy:
            return self
        whole = {name: np.empty(image.shape, image.dtype) for name, image in lazy.items()}
        for rows in strips(next(iter(lazy.values()))):
            for name, image in lazy.items():
                whole[name][rows] = image[rows]
        return replace(self, **whole)

    def to_stored(self, values: np.ndarray) -> np.ndarray:
        """From `unit` back to the pixels' own unit and zero point."""
        return values / np.float32(self.factor) + np.float32(self.bias_level)
