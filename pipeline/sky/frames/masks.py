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
from pipeline.sky.strips import LazyImage, computed, count, distinct, sample_of, strips

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
    pixels : LazyImage of float32, shape (H, W)
    """

    pixels: LazyImage

    @cached_property
    def level_and_noise(self) -> tuple[float, float]:
        """Median, and noise by the median deviation; NaN without any valid pixel."""
        sample = sample_of(self.pixels)
        sample = sample[np.isfinite(sample)]
        if sample.size == 0:
            return float("nan"), float("nan")
        level = np.median(sample)
        return float(level), float(1.4826 * np.median(np.abs(sample - level)))

    @cached_property
    def sources(self) -> LazyImage:
        """Inner pixels of sources: bool, shape (H, W)."""

        def inner_pixels(pixels: np.ndarray) -> np.ndarray:
            inner = np.zeros(pixels.shape, bool)
            level, noise = self.level_and_noise
            if min(pixels.shape) < 3:
                return inner
            bright = pixels > level + _SOURCE_SIGMA * noise
            rows = bright[:-2] & bright[1:-1] & bright[2:]
            inner[1:-1, 1:-1] = rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:]
            return inner

        return computed(inner_pixels, self.pixels, dtype=bool, halo=1)

    @cached_property
    def n_sources(self) -> int:
        """Number of inner pixels of sources."""
        return count(self.sources)

    def share_of_sources(self, where: LazyImage) -> float:
        """Which part of the sources is in `where`; 0 where there are too few pixels to say."""
        if self.n_sources < _MIN_SOURCE_PIXELS:
            return 0.0
        return count(computed(np.logical_and, where, self.sources, dtype=bool)) / self.n_sources

    def marks_sources(self, where: LazyImage) -> bool:
        """Whether flagged pixels are those of the sources."""
        n_flagged = count(where)
        if self.n_sources < _MIN_SOURCE_PIXELS or n_flagged < _MIN_FLAGGED:
            return False
        n_common = count(computed(np.logical_and, where, self.sources, dtype=bool))
        # A flag that is everywhere is on the sources, too.
        if n_common / self.n_sources < _ENRICHMENT * n_flagged / where.size:
            return False
        return n_common >= _SOURCE_SHARE * self.n_sources or n_common >= _SOURCE_SHARE * n_flagged


@dataclass
class _Foreign:
    """A camera's mask and what is known of it."""

    bits: LazyImage
    headers: Sequence["fits.Header"]
    label: str
    flags: dict[int, Flag] = field(default_factory=dict)
    codes: bool = False

    @cached_property
    def present(self) -> list[int]:
        """Bits that are set somewhere, or the codes that occur."""
        if self.codes:
            return [int(value) for value in distinct(self.bits, np.ravel)[0] if value]
        every = int(np.bitwise_or.reduce([np.bitwise_or.reduce(self.bits[r], axis=None) for r in strips(self.bits)]))
        return [1 << bit for bit in range(every.bit_length()) if every >> bit & 1]

    def has(self, bits: np.ndarray, value: int) -> np.ndarray:
        """Which of some pixels have a bit, or a code."""
        theirs = bits.dtype.type(value)
        return bits == theirs if self.codes else (bits & theirs) != 0

    def where(self, value: int) -> LazyImage:
        """Pixels with a bit, or with a code."""
        return computed(lambda bits: self.has(bits, value), self.bits, dtype=bool)

    def share(self, where: LazyImage) -> str:
        """For messages."""
        return f"{100 * count(where) / where.size:.2g} %"

    def in_our_bits(self, meanings: Sequence[tuple[int, DQ]]) -> LazyImage:
        """With our bits for those of theirs that have a meaning."""

        def ours(bits: np.ndarray) -> np.ndarray:
            result = np.zeros(bits.shape, DQ_DTYPE)
            for value, meaning in meanings:
                flag(result, self.has(bits, value), meaning)
            return result

        return computed(ours, self.bits, dtype=DQ_DTYPE)


def translate(
    bits: LazyImage,
    headers: Sequence["fits.Header"],
    label: str,
    path: Path,
    sky: Sky,
    cfg: SkyIngestConfig,
    remarks: Remarks,
    table_of_names: Sequence[Flag] = (),
) -> LazyImage:
    """A camera's mask in our bits.

    Parameters
    ----------
    bits : LazyImage of unsigned integers, shape (H, W)
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
    LazyImage of uint16, shape (H, W)

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
    meanings, unknown = [], []
    for value in foreign.present:
        configured = None if foreign.codes else _configured(value, cfg)
        known = foreign.flags.get(value)
        if configured is not None:
            meanings.append((value, configured))
        elif known is not None and known.meaning is not None:
            meanings.append((value, known.meaning))
        else:
            unknown.append(value)
    meanings += [(value, DQ.BAD) for value in _take_unknown(foreign, unknown, sky, remarks)]
    ours = foreign.in_our_bits(meanings)
    bad = computed(lambda dq: has(dq, DEFECTS), ours, dtype=bool)
    _refuse_large(foreign, path, bad, cfg)
    share = sky.share_of_sources(bad)
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
    bits = foreign.bits
    quality = _first_text(foreign.headers[:1], "HDUCLAS3")
    if cfg.dq_convention == ZERO_IS_BAD or (cfg.dq_convention is None and quality == "MASKONE"):
        foreign.bits = computed(lambda bits: (bits == 0).astype(np.uint8), bits, dtype=np.uint8)
        foreign.flags = {1: Flag(1, "0", DQ.BAD)}
        return "0 is bad"
    if cfg.dq_convention == NONZERO_IS_BAD or (cfg.dq_convention is None and quality == "MASKZERO"):
        foreign.bits = computed(lambda bits: (bits != 0).astype(np.uint8), bits, dtype=np.uint8)
        foreign.flags = {1: Flag(1, "not 0", DQ.BAD)}
        return "all but 0 is bad"
    if cfg.dq_convention is not None:
        return _use(foreign, TABLES[cfg.dq_convention])
    if flags := tuple(table_of_names) or named_flags(foreign.headers):
        foreign.flags = _by_value(flags)
        return f"bits as named in the file ({', '.join(known.name for known in flags[:6])} ...)"
    if table := recognised(foreign.headers):
        return _use(foreign, table)
    if not cfg.dq_bits and _has_one_value(bits):
        foreign.codes = True  # one number, whatever its bits are: a mask of true and false
    return "no names of bits"


def _has_one_value(bits: LazyImage) -> bool:
    """Whether all pixels that are not 0 are the same, and there are any."""
    found: set[int] = set()
    for rows in strips(bits):
        present = bits[rows][bits[rows] != 0]
        if present.size:
            found |= {int(present.min()), int(present.max())}
        if len(found) > 1:
            return False
    return len(found) == 1


def _first_text(headers: Sequence["fits.Header"], keyword: str) -> str:
    """A card of the first header that has it, in capitals; an empty text for none."""
    return next((str(header[keyword]).strip().upper() for header in headers if keyword in header), "")


def _use(foreign: _Foreign, table: MaskTable) -> str:
    foreign.flags, foreign.codes = _by_value(table.flags), table.codes
    return f"{'codes' if table.codes else 'bits'} of the convention {table.name}"


def _by_value(flags: Sequence[Flag]) -> dict[int, Flag]:
    """Where two names share a bit, the one that is bad counts."""
    return {known.value: known for known in sorted(flags, key=lambda known: known.meaning or DQ(0))}


def _take_unknown(foreign: _Foreign, unknown: Sequence[int], sky: Sky, remarks: Remarks) -> list[int]:
    """Flags of unknown meaning: those that are taken as bad, because they do not mark the sources."""
    bad, taken, left = [], [], []
    for value in unknown:
        where = foreign.where(value)
        text = f"{foreign.flags[value].name if value in foreign.flags else value} ({foreign.share(where)})"
        if sky.marks_sources(where):
            left.append(text)
        else:
            taken.append(text)
            bad.append(value)
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
    return bad


def _refuse_large(foreign: _Foreign, path: Path, bad: LazyImage, cfg: SkyIngestConfig) -> None:
    share = count(bad) / bad.size
    if share <= cfg.max_masked_fraction:
        return
    shares = ", ".join(f"{value} on {foreign.share(foreign.where(value))}" for value in foreign.present[:8])
    raise InputFileError(
        f"{path}: {foreign.label} would have {100 * share:.3g} % of the pixels replaced, more than "
        f"{100 * cfg.max_masked_fraction:g} % (ingest.sky.max_masked_fraction); it has {shares}. Where it means "
        f"something else, set ingest.sky.dq_bits or dq_convention: {ZERO_IS_BAD} (1 means good), {IGNORE} ..."
    )
