"""From single frames to training tiles, without a truth and without another exposure (Noise2Void).

What is learned at a pixel is what its neighbours tell of it. Where neighbours share their noise, as on a frame that was
resampled, a network learns the noise: such frames are refused.
"""

from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline import provenance
from pipeline.config import Config
from pipeline.errors import InputFileError
from pipeline.files import atomic_output, check_free, source_name
from pipeline.logs import get_logger
from pipeline.sky.baselines import Settings, astroscrappy_median
from pipeline.sky.defects import FLAG_SIGMA, Muons, Worms
from pipeline.sky.dq import DEFECTS, DQ, LOST, UNUSABLE, flag, has
from pipeline.sky.frames import Frame, read_frame
from pipeline.sky.strips import part_of
from pipeline.sky.tiling import (
    field_number,
    known_pixels,
    shard_attributes,
    shard_writer,
    stamp_of,
    tile_batch,
    tile_corners,
)
from pipeline.tiles.splits import split_of

log = get_logger(__name__)

#: Largest correlation of the noise of neighbours with which a single frame can be learned from.
MAX_CORRELATION = 0.05
# Fewer pixels of the sky do not give a correlation to .03.
_MIN_PIXELS = 1500
# At most this many windows along an axis are looked at, of this side, with the background of boxes of that [px].
_WINDOWS_PER_SIDE, _WINDOW_PX, _BOX_PX = 4, 384, 16
# Sources: sums of 3 x 3 pixels above this many times their noise, and so many pixels around them.
_SOURCE_SIGMA, _SOURCE_REACH_PX = 3.0, 3
_OUTLIER_SIGMA = 4.0
# Tracks that are laid over a frame: of muons and of electrons, in thin and in thick silicon, so many of each.
_THICKNESSES_UM, _TRACKS_PER_MPIX = (15.0, 60.0, 250.0), 150.0
# L.A.Cosmic masks 97 % of the bright defect pixels so, and 4 % of the star cores at a FWHM of 2.5 px.
_FINDER = Settings(sigclip=6.0, objlim=5.0, median_px=1)


class Role(IntEnum):
    """What a pixel is for a network that learns from its frame."""

    MASKED = 0  # a defect, or missing: not shown
    LEARNED = 1
    SHOWN = 2  # saturated: shown, and not learned from


class NoiseCorrelation(NamedTuple):
    """Of the sky's noise in neighbouring pixels; offsets of whole rows and columns are taken out before.

    Attributes
    ----------
    x, y, diagonal : float
    n_pixels : int
        That it was measured on.
    """

    x: float
    y: float
    diagonal: float
    n_pixels: int

    @property
    def largest(self) -> float:
        """Largest absolute value."""
        return max(abs(self.x), abs(self.y), abs(self.diagonal))


def noise_correlation(frame: Frame) -> NoiseCorrelation:
    """Measure how much neighbouring pixels of the empty sky share their noise, on a sample of a large frame.

    Sources down to where sums of 3 x 3 pixels show them are left out, and so is the background on scales of 16 px.
    """
    sums = np.zeros((3, 2))
    variance, n_pixels = 0.0, 0
    sci, dq = (part_of(image, frame.exposed) for image in (frame.sci, frame.dq))
    for part in _windows(sci.shape):
        residual, sky = _sky_noise(np.asarray(sci[part]), np.asarray(dq[part]), frame)
        variance += float(np.square(residual[sky], dtype=np.float64).sum())
        n_pixels += int(np.count_nonzero(sky))
        for row, (dy, dx) in zip(sums, ((0, 1), (1, 0), (1, 1)), strict=True):
            height, width = sky.shape
            one, other = np.s_[: height - dy, : width - dx], np.s_[dy:, dx:]
            both = sky[one] & sky[other]
            row += float((residual[one] * residual[other])[both].sum(dtype=np.float64)), np.count_nonzero(both)
    if n_pixels < _MIN_PIXELS or not variance > 0:
        return NoiseCorrelation(np.nan, np.nan, np.nan, n_pixels)
    covariance = sums[:, 0] / np.maximum(sums[:, 1], 1)
    return NoiseCorrelation(*(float(c) for c in covariance / (variance / n_pixels)), n_pixels)


def _windows(shape: tuple[int, int]) -> list[tuple[slice, slice]]:
    def starts(length: int) -> np.ndarray:
        if length <= _WINDOWS_PER_SIDE * _WINDOW_PX:
            return np.arange(0, length, _WINDOW_PX)
        return np.linspace(0, length - _WINDOW_PX, _WINDOWS_PER_SIDE).astype(int)

    rows, columns = (starts(length) for length in shape)
    return [(slice(int(y), int(y) + _WINDOW_PX), slice(int(x), int(x) + _WINDOW_PX)) for y in rows for x in columns]


def _sky_noise(sci: np.ndarray, dq: np.ndarray, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """The window less its background, in units of the noise, and which of its pixels are empty sky."""
    from scipy.ndimage import binary_dilation, uniform_filter

    good = np.isfinite(sci) & (dq == 0)
    signal = np.where(good, (sci - np.float32(frame.level)) / np.float32(frame.noise), np.float32(0))
    signal = signal - _smooth_background(signal)
    bright = np.abs(uniform_filter(np.where(good, signal, 0), 3)) > _SOURCE_SIGMA / 3
    bright |= np.abs(signal) > _OUTLIER_SIGMA
    sky = good & ~binary_dilation(bright, iterations=_SOURCE_REACH_PX)
    for axis in (0, 1):
        n = np.maximum(sky.sum(axis=axis, keepdims=True), 1)
        signal = signal - np.where(sky, signal, 0).sum(axis=axis, keepdims=True) / n
    return signal, sky


def _smooth_background(signal: np.ndarray) -> np.ndarray:
    """Medians of boxes, then of 3 x 3 boxes, interpolated."""
    from scipy.ndimage import median_filter, zoom

    height, width = signal.shape
    rows, columns = max(height // _BOX_PX, 1), max(width // _BOX_PX, 1)
    ys, xs = (np.linspace(0, n, k + 1).astype(int) for n, k in ((height, rows), (width, columns)))
    boxes = np.array(
        [[np.median(signal[ys[i] : ys[i + 1], xs[j] : xs[j + 1]]) for j in range(columns)] for i in range(rows)]
    )
    smooth = median_filter(boxes, 3, mode="nearest")
    return zoom(smooth, (height / rows, width / columns), order=1, mode="nearest", grid_mode=True)


# ---- tiles -----------------------------------------------------------------------------------------------------------
def tile_single_frame(path: str | Path, out: str | Path, cfg: Config, force: bool = False) -> dict[str, Any]:
    """Cut one ingested frame into a shard of tiles that a network learns from by itself (Noise2Void).

    What L.A.Cosmic and the frame's own mask call a defect is masked, and simulated tracks are laid over the rest: below
    them the frame is known. Tiles of one frame are of all splits, for nothing of it is known to the network that it is
    not shown.

    Parameters
    ----------
    path : path
        Ingested frame.
    out : path
        Shard to make. `clean` and `clean_err` are the frame without the tracks, NaN where it is not learned from;
        `role` is the `Role` of each pixel.
    cfg : Config
        Sections `tiles.sky` and `tiles.splits`, and the seed of the splits.

    Returns
    -------
    dict
        `n_tiles`, `n_masked` (pixels that L.A.Cosmic has found) and `noise_correlation`.

    Raises
    ------
    InputFileError
        If the noise of neighbours is correlated, or there is too little sky to tell.
    """
    path, out = Path(path), check_free(out, force=force)
    frame = read_frame(path)
    correlation = noise_correlation(frame)
    _check(path, correlation)
    role, n_masked = roles(frame)
    sky, source = cfg.tiles.sky, source_name(path)
    stamped = stamp_of(path, cfg, input_sha256=provenance.sha256_file(path))
    attributes = shard_attributes(frame, sky) | {
        "target": "noise2void",
        "noise_correlation": [round(float(value), 4) for value in correlation[:3]],
        "provenance": stamped,
    }
    with atomic_output(out, force=force) as temporary:
        with shard_writer(temporary, sky, frame, source, attributes, target="noise2void") as writer:
            for row in _rows(frame, role, cfg, source):
                writer.append(row)
        provenance.write_sidecar(temporary, stamped)
    log.info("%s: noise correlation %.3f, %d pixels masked", path.name, correlation.largest, n_masked)
    return {"n_tiles": writer.n_tiles, "n_masked": n_masked, "noise_correlation": round(correlation.largest, 4)}


def _check(path: Path, correlation: NoiseCorrelation) -> None:
    if not np.isfinite(correlation.largest):
        raise InputFileError(
            f"{path} has {correlation.n_pixels} pixels of empty sky, too few to tell whether the noise of neighbours "
            f"is correlated ({_MIN_PIXELS} are needed); learn from pairs of exposures (tiles.sky.target: noise2noise)"
        )
    if correlation.largest > MAX_CORRELATION:
        raise InputFileError(
            f"{path}: the noise of neighbouring pixels is correlated ({correlation.x:.2f} along x, "
            f"{correlation.y:.2f} along y, {correlation.diagonal:.2f} diagonally; at most {MAX_CORRELATION} is "
            "accepted), as on a resampled or smoothed frame: a network would learn the noise. Give the frame as the "
            "camera recorded it, or pairs of exposures (tiles.sky.target: noise2noise)"
        )


def roles(frame: Frame) -> tuple[np.ndarray, int]:
    """`Role` of each pixel, uint8, shape (H, W); and how many pixels L.A.Cosmic has masked.

    A pixel around what is masked is masked, too: the edges of tracks are faint.
    """
    from scipy.ndimage import binary_dilation

    found = astroscrappy_median(frame.sci, frame.err, frame.dq, _FINDER)[1] & ~has(frame.dq, UNUSABLE)
    defect = has(frame.dq, DEFECTS) & ~has(frame.dq, LOST)
    masked = binary_dilation(found | defect, structure=np.ones((3, 3), bool)) & ~has(frame.dq, DQ.SATURATED)
    role = np.full(frame.shape, Role.LEARNED, np.uint8)
    role[has(frame.dq, DQ.SATURATED)] = Role.SHOWN
    role[masked | has(frame.dq, DQ.MISSING) | ~np.isfinite(frame.sci)] = Role.MASKED
    return role, int(np.count_nonzero(found))


def tracks(frame: Frame, rng: np.random.Generator) -> np.ndarray:
    """Charge of simulated particles in the unit of a frame, float32, shape (H, W): what is below it is known.

    Where no gain is known, a unit of the frame counts as an electron. No pixel becomes brighter than a full well.
    """
    per_unit = (frame.gain_e_per_adu or 1.0) if frame.unit == "adu" else 1.0
    charge = np.zeros(frame.shape)
    for thickness_um in _THICKNESSES_UM:
        charge += Muons(_TRACKS_PER_MPIX, thickness_um=thickness_um).sample(rng, frame.shape)
        charge += Worms(_TRACKS_PER_MPIX, thickness_um=thickness_um).sample(rng, frame.shape)
    charge /= per_unit
    if frame.saturation is not None:
        full = (frame.saturation - frame.bias_level) * frame.factor
        charge = np.minimum(charge, np.maximum(full - np.nan_to_num(frame.sci), 0))
    return charge.astype(np.float32)


def _photon_slope(frame: Frame) -> np.float32:
    """Variance per signal, in the frame's unit, as its own uncertainties have it; 0 where nothing is bright."""
    signal = frame.sci - np.float32(frame.level)
    bright = (signal > 5 * frame.noise) & (frame.dq == 0) & np.isfinite(frame.err)
    if not bright.any():
        return np.float32(0)
    slope = np.median((np.square(frame.err[bright]) - np.float32(frame.noise) ** 2) / signal[bright])
    return np.float32(max(slope, 0))


def _rows(frame: Frame, role: np.ndarray, cfg: Config, source: str) -> Iterator[Any]:
    """One batch per row of tiles."""
    sky = cfg.tiles.sky
    sci, err = known_pixels(frame)
    learned = role == Role.LEARNED
    clean, clean_err = (np.where(learned, plane, np.nan) for plane in (sci, err))
    charge = tracks(frame, np.random.default_rng([cfg.seed, field_number(source)])) * learned
    dq = frame.dq.copy()
    flag(dq, charge > FLAG_SIGMA * err, DQ.COSMIC_RAY)
    sci, err = sci + charge, np.sqrt(np.square(err) + _photon_slope(frame) * charge)
    ys, xs = tile_corners(frame, sky)
    for number, y in enumerate(ys):
        parts = [(slice(y, y + sky.size), slice(x, x + sky.size)) for x in xs]
        if not parts:
            return
        batch = tile_batch(
            images=np.stack([[sci[p], err[p]] for p in parts]),
            masks=np.stack([dq[p] for p in parts]),
            targets={
                "clean": np.stack([[clean[p]] for p in parts]),
                "clean_err": np.stack([[clean_err[p]] for p in parts]),
                "role": np.stack([[role[p]] for p in parts]),
            },
            events={
                "field": np.int64(field_number(source)),
                "frame": np.int64(0),
                "level": np.float64(frame.level),
                "noise": np.float64(frame.noise),
                "x0": xs.astype(np.int32),
                "y0": np.int32(y),
            },
            split=0,
        )
        batch.split = split_of(source, number * len(xs) + np.arange(len(xs)), cfg.tiles.splits, cfg.seed)
        yield batch
