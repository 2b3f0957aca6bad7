"""A camera's mask in our bits: by configuration, by the names in the file, by the camera; else with care.

A bit that nothing explains counts as a bad pixel, as numpy's and astropy's masks have it, unless it marks the sources:
those are what the frame was taken for. A mask that would replace a large part of a frame is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.config import SkyIngestConfig
from pipeline.errors import InputFileError, UserError
from pipeline.sky.dq import DEFECTS, DESCRIPTIONS, DQ, DQ_DTYPE, flag, has
from pipeline.sky.frames.mask_tables import TABLES, Flag, MaskTable, named_flags, recognised
from pipeline.sky.remarks import Remarks

if TYPE_CHECKING:
    from astropy.io import fits

#: Values of ingest.sky.dq_convention beside the names of tables.
IGNORE, NONZERO_IS_BAD, ZERO_IS_BAD = "ignore", "nonzero_is_bad", "zero_is_bad"
CONVENTIONS = (IGNORE, NONZERO_IS_BAD, ZERO_IS_BAD, *TABLES)

# Pixels this far above the sky, with all eight neighbours, belong to a source: tracks of particles are narrower.
_SOURCE_SIGMA = 5.0
# A flag marks the sources if it has half of their pixels, or half of its pixels are theirs. Fewer say nothing.
_SOURCE_SHARE, _ENRICHMENT = 0.5, 2.0
_MIN_SOURCE_PIXELS, _MIN_FLAGGED = 30, 5


@dataclass(frozen=True)
class Sky:
    """What the pixels say about a mask.

    Attributes
    ----------
    pixels : ndarray of float32, shape (H, W)
    """

    pixels: np.ndarray

    @cached_property
    def sources(self) -> np.ndarray:
        """Inner pixels of sources: bool, shape (H, W)."""
        sample = self.pixels.ravel()[:: max(1, self.pixels.size // 1_000_000)]
        sample = sample[np.isfinite(sample)]
        inner = np.zeros(self.pixels.shape, bool)
        if sample.size == 0 or min(self.pixels.shape) < 3:
            return inner
        level = np.median(sample)
        bright = self.pixels > level + _SOURCE_SIGMA * 1.4826 * np.median(np.abs(sample - level))
        rows = bright[:-2] & bright[1:-1] & bright[2:]
        inner[1:-1, 1:-1] = rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:]
        return inner

    @cached_property
    def n_sources(self) -> int:
        """Number of inner pixels of sources."""
        return int(np.count_nonzero(self.sources))

    def share_of_sources(self, where: np.ndarray) -> float:
        """Which part of the sources is in `where`; 0 where there are too few pixels to say."""
        if self.n_sources < _MIN_SOURCE_PIXELS:
            return 0.0
        return np.count_nonzero(where & self.sources) / self.n_sources

    def marks_sources(self, where: np.ndarray) -> bool:
        """Whether flagged pixels are those of the sources."""
        n_flagged = int(np.count_nonzero(where))
        if self.n_sources < _MIN_SOURCE_PIXELS or n_flagged < _MIN_FLAGGED:
            return False
        n_common = np.count_nonzero(where & self.sources)
        # A flag that is everywhere is on the sources, too.
        if n_common / self.n_sources < _ENRICHMENT * n_flagged / where.size:
            return False
        return n_common >= _SOURCE_SHARE * self.n_sources or n_common >= _SOURCE_SHARE * n_flagged


@dataclass
class _Foreign:
    """A camera's mask and what is known of it."""

    bits: np.ndarray
    headers: Sequence["fits.Header"]
    label: str
    flags: dict[int, Flag] = field(default_factory=dict)
    codes: bool = False

    @cached_property
    def present(self) -> list[int]:
        """Bits that are set somewhere, or the codes that occur."""
        if self.codes:
            return [int(value) for value in np.unique(self.bits) if value]
        every = int(np.bitwise_or.reduce(self.bits, axis=None))
        return [1 << bit for bit in range(every.bit_length()) if every >> bit & 1]

    def where(self, value: int) -> np.ndarray:
        """Pixels with a bit, or with a code."""
        theirs = self.bits.dtype.type(value)
        return self.bits == theirs if self.codes else (self.bits & theirs) != 0

    def share(self, where: np.ndarray) -> str:
        """For messages."""
        return f"{100 * np.count_nonzero(where) / where.size:.2g} %"


def translate(
    bits: np.ndarray,
    headers: Sequence["fits.Header"],
    label: str,
    path: Path,
    sky: Sky,
    cfg: SkyIngestConfig,
    remarks: Remarks,
    table_of_names: Sequence[Flag] = (),
) -> np.ndarray:
    """A camera's mask in our bits.

    Parameters
    ----------
    bits : ndarray of unsigned integers, shape (H, W)
    headers : sequence of Header
        Of the mask, the science image and the primary HDU.
    label : str
        What messages call the mask.
    path : path
        Of the frame, for errors.
    sky : Sky
        The frame.
    cfg : SkyIngestConfig
        `dq_bits`, `dq_convention` (but not to ignore the mask) and `max_masked_fraction` are used.
    remarks : Remarks
        Gets which convention was used, and warnings about bits of unknown meaning.
    table_of_names : sequence of Flag
        Flags that a table of the file explains.

    Returns
    -------
    ndarray of uint16, shape (H, W)

    Raises
    ------
    UserError
        If the configuration has unknown bits or an unknown convention.
    InputFileError
        If more of the frame would be replaced than configured.
    """
    _check(cfg)
    foreign = _Foreign(bits, headers, label)
    remarks.note(f"{label}: {_explain(foreign, cfg, table_of_names)}")
    ours = np.zeros(bits.shape, DQ_DTYPE)
    unknown = []
    for value in foreign.present:
        configured = None if foreign.codes else _configured(value, cfg)
        known = foreign.flags.get(value)
        if configured is not None:
            flag(ours, foreign.where(value), configured)
        elif known is not None and known.meaning is not None:
            flag(ours, foreign.where(value), known.meaning)
        else:
            unknown.append(value)
    _take_unknown(foreign, unknown, ours, sky, remarks)
    _refuse_large(foreign, path, ours, cfg)
    share = sky.share_of_sources(has(ours, DEFECTS))
    if share >= _SOURCE_SHARE:
        remarks.warn(
            f"{label} marks {share:.0%} of the pixels of bright sources as bad, and they will be replaced; if it marks "
            "sources, set ingest.sky.dq_convention: ignore"
        )
    return ours


def _check(cfg: SkyIngestConfig) -> None:
    for bit in cfg.dq_bits.values():
        if bit <= 0 or bit & ~int(~DQ(0)):
            accepted = ", ".join(f"{int(known)} ({text})" for known, text in DESCRIPTIONS.items())
            raise UserError(f"ingest.sky.dq_bits has {bit}, not a sum of lightpool's bits; accepted: {accepted}")
    if cfg.dq_convention is not None and cfg.dq_convention not in CONVENTIONS:
        raise UserError(f"ingest.sky.dq_convention is {cfg.dq_convention!r}; accepted: {', '.join(CONVENTIONS)}")


def _configured(value: int, cfg: SkyIngestConfig) -> DQ | None:
    meanings = [DQ(bit) for theirs, bit in cfg.dq_bits.items() if theirs & value]
    return None if not meanings else DQ(int(np.bitwise_or.reduce([int(meaning) for meaning in meanings])))


def _explain(foreign: _Foreign, cfg: SkyIngestConfig, table_of_names: Sequence[Flag]) -> str:
    """Find the meaning of the flags, and say where it came from."""
    quality = _first_text(foreign.headers[:1], "HDUCLAS3")
    if cfg.dq_convention == ZERO_IS_BAD or (cfg.dq_convention is None and quality == "MASKONE"):
        foreign.bits = (foreign.bits == 0).astype(np.uint8)
        foreign.flags = {1: Flag(1, "0", DQ.BAD)}
        return "0 is bad"
    if cfg.dq_convention == NONZERO_IS_BAD or (cfg.dq_convention is None and quality == "MASKZERO"):
        foreign.bits = (foreign.bits != 0).astype(np.uint8)
        foreign.flags = {1: Flag(1, "not 0", DQ.BAD)}
        return "all but 0 is bad"
    if cfg.dq_convention is not None:
        return _use(foreign, TABLES[cfg.dq_convention])
    if flags := tuple(table_of_names) or named_flags(foreign.headers):
        foreign.flags = _by_value(flags)
        return f"bits as named in the file ({', '.join(known.name for known in flags[:6])} ...)"
    if table := recognised(foreign.headers):
        return _use(foreign, table)
    set_pixels = foreign.bits[foreign.bits != 0]
    if not cfg.dq_bits and set_pixels.size and set_pixels.min() == set_pixels.max():
        foreign.codes = True  # one number, whatever its bits are: a mask of true and false
    return "no names of bits"


def _first_text(headers: Sequence["fits.Header"], keyword: str) -> str:
    """A card of the first header that has it, in capitals; an empty text for none."""
    return next((str(header[keyword]).strip().upper() for header in headers if keyword in header), "")


def _use(foreign: _Foreign, table: MaskTable) -> str:
    foreign.flags, foreign.codes = _by_value(table.flags), table.codes
    return f"{'codes' if table.codes else 'bits'} of the convention {table.name}"


def _by_value(flags: Sequence[Flag]) -> dict[int, Flag]:
    """Where two names share a bit, the one that is bad counts."""
    return {known.value: known for known in sorted(flags, key=lambda known: known.meaning or DQ(0))}


def _take_unknown(foreign: _Foreign, unknown: Sequence[int], ours: np.ndarray, sky: Sky, remarks: Remarks) -> None:
    """Flags of unknown meaning: bad, unless they mark the sources."""
    taken, left = [], []
    for value in unknown:
        where = foreign.where(value)
        text = f"{foreign.flags[value].name if value in foreign.flags else value} ({foreign.share(where)})"
        if sky.marks_sources(where):
            left.append(text)
        else:
            taken.append(text)
            flag(ours, where, DQ.BAD)
    what = "values" if foreign.codes else "bits"
    if left:
        remarks.warn(
            f"{foreign.label}: {what} of unknown meaning lie on the sources and are not taken as bad: "
            f"{', '.join(left)}; set ingest.sky.dq_bits or dq_convention"
        )
    # One bit alone is a mask of true and false, and true is bad by the convention of numpy and astropy.
    if taken and (foreign.flags or len(foreign.present) > 1):
        remarks.warn(
            f"{foreign.label}: {what} of unknown meaning are taken as bad pixels: {', '.join(taken)}; set "
            "ingest.sky.dq_bits or dq_convention"
        )


def _refuse_large(foreign: _Foreign, path: Path, ours: np.ndarray, cfg: SkyIngestConfig) -> None:
    bad = has(ours, DEFECTS)
    share = np.count_nonzero(bad) / bad.size
    if share <= cfg.max_masked_fraction:
        return
    shares = ", ".join(f"{value} on {foreign.share(foreign.where(value))}" for value in foreign.present[:8])
    raise InputFileError(
        f"{path}: {foreign.label} would have {100 * share:.3g} % of the pixels replaced, more than "
        f"{100 * cfg.max_masked_fraction:g} % (ingest.sky.max_masked_fraction); it has {shares}. Where it means "
        f"something else, set ingest.sky.dq_bits or dq_convention: {ZERO_IS_BAD} (1 means good), {IGNORE} ..."
    )
