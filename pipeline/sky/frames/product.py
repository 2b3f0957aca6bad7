"""New pixels of a science image, on their way into a file: whole, or strip by strip."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np


class Strip(NamedTuple):
    """Rows of a frame; they come in order, and all of them.

    Attributes
    ----------
    top : int
        Number of the first row.
    sci, err : ndarray of float32, shape (n_rows, W)
    dq : ndarray of uint16, shape (n_rows, W)
    planes : mapping
        Extension name -> further plane, float32, shape (n_rows, W).
    """

    top: int
    sci: np.ndarray
    err: np.ndarray
    dq: np.ndarray
    planes: Mapping[str, np.ndarray]


class Product(Protocol):
    """What is written of one science HDU.

    Attributes
    ----------
    science_hdu : int
        Number of the HDU in the file.
    shape : (int, int)
    units : mapping
        Extension name of each further plane -> its unit.
    cards : sequence of (keyword, value, comment)
        Set in the science header.
    history : sequence of str
        Lines for HISTORY cards of this image.
    warnings : sequence of str
        What changes the meaning of the pixels: they are counted in LPNWARN and stand in HISTORY.
    only_flags : bool
        Whether only the mask is written: the science image and its uncertainty stay as they are, bit for bit, and
        history and warnings go to the mask.
    """

    science_hdu: int
    units: Mapping[str, str]
    cards: Sequence[tuple[str, Any, str]]
    history: Sequence[str]
    warnings: Sequence[str]
    only_flags: bool

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""

    def strips(self) -> Iterator[Strip]:
        """The pixels, in the units that they are written in."""

    def amended(self) -> Iterator[tuple[int, np.ndarray]]:
        """Rows of the mask that are known only when all strips are: number of the first one, and the bits."""


@dataclass(frozen=True)
class FrameProduct:
    """A `Product` in memory.

    Attributes
    ----------
    sci, err : ndarray, shape (H, W)
        In the unit that they are written in.
    dq : ndarray of uint16, shape (H, W)
        Bits of `pipeline.sky.dq.DQ`.
    planes : mapping
        Further planes: extension name -> (ndarray of shape (H, W), unit).
    """

    science_hdu: int
    sci: np.ndarray
    err: np.ndarray
    dq: np.ndarray
    cards: Sequence[tuple[str, Any, str]] = ()
    planes: Mapping[str, tuple[np.ndarray, str]] = field(default_factory=dict)
    history: Sequence[str] = ()
    warnings: Sequence[str] = ()
    only_flags: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.sci.shape

    def amended(self) -> Iterator[tuple[int, np.ndarray]]:
        """None: all is known."""
        return iter(())

    @property
    def units(self) -> dict[str, str]:
        """Of the further planes."""
        return {name: unit for name, (_, unit) in self.planes.items()}

    def strips(self) -> Iterator[Strip]:
        """All rows at once."""
        yield Strip(0, self.sci, self.err, self.dq, {name: plane for name, (plane, _) in self.planes.items()})


@dataclass(frozen=True)
class StreamedProduct:
    """A `Product` whose pixels are computed when they are written, and not kept."""

    science_hdu: int
    shape: tuple[int, int]
    units: Mapping[str, str]
    compute: Callable[[], Iterator[Strip]]
    cards: Sequence[tuple[str, Any, str]] = ()
    history: Sequence[str] = ()
    warnings: Sequence[str] = ()
    only_flags: bool = False
    amend: Callable[[], Iterator[tuple[int, np.ndarray]]] | None = None

    def strips(self) -> Iterator[Strip]:
        """From the first row to the last."""
        return self.compute()

    def amended(self) -> Iterator[tuple[int, np.ndarray]]:
        """What `strips` left to the end."""
        return self.amend() if self.amend else iter(())
