"""Exposures of one field as one frame: registered, without what a network calls a defect, beside a clipped mean.

What is combined are the recorded pixels, not the denoised ones: their noise is independent from pixel to pixel and from
exposure to exposure, so that the uncertainty of the sum is known. A network only says which of them to leave out.

Pixels come to the reference frame by bilinear interpolation. A pixel that has any part of a rejected one is left out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.errors import InputFileError
from pipeline.sky.dq import DQ, DQ_DTYPE, UNUSABLE, flag, has
from pipeline.sky.frames import Frame, StreamedProduct, Strip
from pipeline.sky.frames.fingerprint import fingerprint
from pipeline.sky.mosaic import AUTO, mosaic_of
from pipeline.sky.registration import Placement
from pipeline.sky.strips import Bits

#: Pixels of an exposure with any of these are not combined.
REJECTED = UNUSABLE | DQ.RESTORED
#: Extensions beside SCI, ERR and DQ: the sigma-clipped mean, and how many exposures a pixel has.
CLIPPED, N_EXPOSURES = "CLIPPED", "NEXP"
#: Exposures further from the median than this many times the pixel's noise are clipped.
CLIP_SIGMA = 3.0
_CLIP_ROUNDS = 3
# Pixels of all exposures that are in memory at a time.
_PIXELS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Exposure:
    """One frame of a stack.

    Attributes
    ----------
    frame : Frame
        Open while the stack is computed.
    placement : Placement
        To the reference frame.
    rejected : Bits
        Pixels that are not combined.
    """

    frame: Frame
    placement: Placement
    rejected: Bits


def check_exposures(frames: Sequence[Frame], bayer: str = AUTO) -> list[str]:
    """Look whether frames are different exposures with one detector.

    Parameters
    ----------
    frames : sequence of Frame
    bayer : str
        As in `pipeline.sky.mosaic.mosaic_of`.

    Returns
    -------
    list of str
        Warnings.

    Raises
    ------
    InputFileError
        If shapes differ, two have the same pixels, or one is a mosaic of colours.
    """
    seen: dict[str, Frame] = {}
    filters: dict[str, list[str]] = {}
    for frame in frames:
        if frame.shape != frames[0].shape:
            raise InputFileError(
                f"{frame.path} has the shape {frame.shape}, but {frames[0].path.name} {frames[0].shape}; give "
                "exposures of one detector"
            )
        mosaic = mosaic_of(frame, bayer)
        if mosaic is not None:
            raise InputFileError(
                f"{frame.path} is a mosaic of colours ({mosaic.source}): shifted exposures would mix them; give one "
                "colour per frame, or set predict.bayer: none if the pixels are of one"
            )
        first = seen.setdefault(fingerprint(frame.sci), frame)
        if first is not frame:
            raise InputFileError(
                f"{frame.path} and {first.path} are the same exposure, whose noise does not fall with itself; give "
                "each once"
            )
        if name := _filter_of(frame):
            filters.setdefault(name, []).append(frame.path.name)
    if len(filters) < 2:
        return []
    counts = ", ".join(f"{name} ({len(names)})" for name, names in sorted(filters.items()))
    return [f"the exposures are of several filters, whose light is not the same: {counts}"]


def _filter_of(frame: Frame) -> str:
    """What the header calls the filter; empty where it does not say."""
    searched = frame.searched
    entries = () if searched is None else searched.of_camera("FILTER", "FILTER1", "FILTER2", "FILTNAM1", "FILTNAM2")
    return " ".join(dict.fromkeys(entry.text for entry in entries))


def stack_product(exposures: Sequence[Exposure], reference: int, warnings: Sequence[str] = ()) -> StreamedProduct:
    """The stack on the pixels of its reference frame, in that file's unit, computed when it is written.

    Parameters
    ----------
    exposures : sequence of Exposure
        Of one unit.
    reference : int
        Number of the frame whose pixels, flux scale and background the stack has.
    warnings : sequence of str

    Raises
    ------
    InputFileError
        If the exposures are in different units.
    """
    frame = exposures[reference].frame
    for exposure in exposures:
        if exposure.frame.unit != frame.unit:
            raise InputFileError(
                f"{exposure.frame.path} is in {exposure.frame.unit}, but {frame.path.name} in {frame.unit}; set "
                "ingest.sky.gain_e_per_adu for all"
            )
    factor = np.float32(frame.factor)

    def strips() -> Iterator[Strip]:
        for strip in stack_strips(exposures, frame):
            planes = {CLIPPED: frame.to_stored(strip.planes[CLIPPED]), N_EXPOSURES: strip.planes[N_EXPOSURES]}
            yield Strip(strip.top, frame.to_stored(strip.sci), strip.err / factor, strip.dq, planes)

    return StreamedProduct(
        frame.science_hdu,
        frame.shape,
        {CLIPPED: frame.stored_unit, N_EXPOSURES: ""},
        strips,
        [("NCOMBINE", len(exposures), "exposures combined")],
        history=[f"combined: {exposure.frame.path.name}" for exposure in exposures],
        warnings=list(warnings),
    )


def stack_strips(exposures: Sequence[Exposure], reference: Frame) -> Iterator[Strip]:
    """The stack in the unit of the frames, some rows at a time."""
    height, width = reference.shape
    step = max(1, min(height, _PIXELS_AT_ONCE // (len(exposures) * width)))
    weights = np.array(
        [(exposure.placement.flux_scale * exposure.frame.noise) ** -2 for exposure in exposures], np.float32
    )
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        yield _combined(top, [moved(exposure, reference, rows) for exposure in exposures], weights)


@dataclass(frozen=True)
class Moved:
    """Rows of the reference frame as one exposure has them, shape (n_rows, W).

    Attributes
    ----------
    sci, variance : ndarray of float32
        At the flux scale and background of the reference; NaN where the exposure has nothing.
    good : ndarray of bool
        Whether no part of the pixel was rejected.
    bits : ndarray of uint16
        Of all its parts.
    """

    sci: np.ndarray
    variance: np.ndarray
    good: np.ndarray
    bits: np.ndarray


def moved(exposure: Exposure, reference: Frame, rows: slice) -> Moved:
    """Interpolate the part of an exposure that belongs to some rows of the reference."""
    frame, width = exposure.frame, reference.shape[1]
    shape = (rows.stop - rows.start, width)
    y, x = (plane.ravel().astype(float) for plane in np.mgrid[rows, :width])
    x, y = exposure.placement.from_reference(np.column_stack([x, y])).T
    # A whole shift stays one, whatever its last digit.
    x, y = (np.where(np.abs(c - np.rint(c)) < 1e-3, np.rint(c), c) for c in (x, y))
    left, low = np.floor(x).astype(int), np.floor(y).astype(int)
    first, last = max(int(low.min()), 0), min(int(low.max()) + 2, frame.shape[0])
    sums = {name: np.zeros(len(x), np.float32) for name in ("sci", "variance", "weight")}
    good, bits = np.ones(len(x), bool), np.zeros(len(x), DQ_DTYPE)
    if first < last:
        window = slice(first, last)
        sci = np.asarray(frame.sci[window])
        variance = np.square(np.asarray(frame.err[window]))
        dq, rejected = np.asarray(frame.dq[window]), np.asarray(exposure.rejected.image[window])
        known = np.isfinite(sci) & np.isfinite(variance) & ~has(dq, DQ.MISSING) & frame.is_exposed(window)
        for dy in (0, 1):
            for dx in (0, 1):
                part = np.abs(1 - dy - (y - low)) * np.abs(1 - dx - (x - left))
                column, row = left + dx, low + dy - first
                used = (part > 0) & (column >= 0) & (column < frame.shape[1]) & (row >= 0) & (row < last - first)
                place = row[used], column[used]
                share = part[used].astype(np.float32) * known[place]
                sums["sci"][used] += share * np.where(known, sci, 0)[place]
                sums["variance"][used] += share**2 * np.where(known, variance, 0)[place]
                sums["weight"][used] += share
                bits[used] |= dq[place]
                good[used] &= ~rejected[place]
    whole = (sums["weight"] > 0.999) & reference.is_exposed(rows).ravel()
    scale = np.float32(exposure.placement.flux_scale)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = (sums["sci"] / sums["weight"] - np.float32(frame.level)) * scale + np.float32(reference.level)
        spread = sums["variance"] / np.square(sums["weight"]) * scale**2
    value, spread = np.where(whole, value, np.nan), np.where(whole, spread, np.nan)
    return Moved(*(plane.reshape(shape) for plane in (value, spread, good & whole, bits)))


def _combined(top: int, parts: Sequence[Moved], weights: np.ndarray) -> Strip:
    sci, variance = np.stack([part.sci for part in parts]), np.stack([part.variance for part in parts])
    good, bits = np.stack([part.good for part in parts]), np.stack([part.bits for part in parts])
    known = np.isfinite(sci)
    # Where all are rejected, what there is comes with its bits: a saturated core is no hole.
    none_left = ~good.any(axis=0)
    used = np.where(none_left, known, good)
    mean, err = weighted_mean(sci, variance, used, weights)
    dq = np.zeros(mean.shape, DQ_DTYPE)
    dq[none_left] = np.bitwise_or.reduce(np.where(known, bits, 0), axis=0)[none_left]
    flag(dq, none_left, DQ.LOW_CONFIDENCE)
    flag(dq, ~known.any(axis=0), DQ.MISSING)
    planes = {
        CLIPPED: weighted_mean(sci, variance, clipped(sci, variance), weights)[0],
        N_EXPOSURES: good.sum(axis=0).astype(np.float32),
    }
    return Strip(top, mean, err, dq, planes)


def weighted_mean(
    sci: np.ndarray, variance: np.ndarray, used: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean over exposures and its one sigma, shape (H, W); NaN where none is used.

    Parameters
    ----------
    sci, variance : ndarray, shape (n, H, W)
    used : ndarray of bool, shape (n, H, W)
    weights : ndarray, shape (n,)
        One for each exposure: by the pixel's own variance, its low fluctuations would be preferred.
    """
    share = weights[:, None, None] * used
    total = share.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (share * np.where(used, sci, 0)).sum(axis=0) / total
        err = np.sqrt((share**2 * np.where(used, variance, 0)).sum(axis=0)) / total
    return mean.astype(np.float32), err.astype(np.float32)


def clipped(sci: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """What a sigma-clipped mean uses, bool, shape (n, H, W): it knows no mask, only how far exposures are apart."""
    used = np.isfinite(sci)
    sigma = np.sqrt(np.where(used, variance, 0))
    for _ in range(_CLIP_ROUNDS):
        with np.errstate(all="ignore"):
            middle = np.ma.median(np.ma.masked_array(sci, ~used), axis=0).filled(np.nan)
            # The uncertainty of a struck pixel has grown with its charge: that of a usual exposure counts.
            usual = np.ma.median(np.ma.masked_array(sigma, ~used), axis=0).filled(np.nan)
            used = used & (np.abs(sci - middle) <= CLIP_SIGMA * usual)
    return used


def for_registration(frame: Frame, rejected: Bits, hot: np.ndarray | None) -> Frame:
    """A frame in memory in which what stands still, or was rejected and is no source, is no star."""
    loaded = frame.loaded()
    dq = np.array(loaded.dq)
    if hot is not None:
        flag(dq, hot, DQ.HOT)
    else:
        flag(dq, np.asarray(rejected.image), DQ.HOT)
    return replace(loaded, dq=dq)
