"""From single frames to training tiles, without a truth and without another exposure (Noise2Void).

What is learned at a pixel is what its neighbours tell of it. Where neighbours share their noise, as on a frame that was
resampled, a network learns the noise: such frames are refused.
"""

from collections.abc import Iterator
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
from pipeline.sky.dq import DEFECTS, DQ, UNUSABLE, flag, has
from pipeline.sky.frame_statistics import source_pixels
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
# L.A.Cosmic with few false alarms; what looks like a star of the frame is left alone all the same.
_STRICT = Settings(sigclip=6.0, objlim=5.0, median_px=1)


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

    Defects are flagged first, by L.A.Cosmic and by the frame's own mask: the prediction of a mask (`lightpool predict
    --only defects`) is best. Tiles of one frame are of all splits, for nothing of it is known to the network that it
    is not shown.

    Parameters
    ----------
    path : path
        Ingested frame.
    out : path
        Shard to make. Simulated tracks lie over the frame; `clean` and `clean_err` are its own pixel and uncertainty,
        NaN where it must not be learned from, and `hideable` says where it may.
    cfg : Config
        Sections `tiles.sky` and `tiles.splits`, and the seed of the splits.

    Returns
    -------
    dict
        `n_tiles`, `n_flagged` (pixels that L.A.Cosmic has added) and `noise_correlation`.

    Raises
    ------
    InputFileError
        If the noise of neighbours is correlated, or there is too little sky to tell.
    """
    path, out = Path(path), check_free(out, force=force)
    frame = read_frame(path)
    correlation = noise_correlation(frame)
    _check(path, correlation)
    dq, n_flagged = _with_defects(frame)
    sky, source = cfg.tiles.sky, source_name(path)
    stamped = stamp_of(path, cfg, input_sha256=provenance.sha256_file(path))
    attributes = shard_attributes(frame, sky) | {
        "target": "noise2void",
        "noise_correlation": [round(float(value), 4) for value in correlation[:3]],
        "provenance": stamped,
    }
    with atomic_output(out, force=force) as temporary:
        with shard_writer(temporary, sky, frame, source, attributes, target="noise2void") as writer:
            for row in _rows(frame, dq, cfg, source):
                writer.append(row)
        provenance.write_sidecar(temporary, stamped)
    log.info("%s: noise correlation %.3f, %d pixels flagged", path.name, correlation.largest, n_flagged)
    return {"n_tiles": writer.n_tiles, "n_flagged": n_flagged, "noise_correlation": round(correlation.largest, 4)}


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


def _with_defects(frame: Frame) -> tuple[np.ndarray, int]:
    """The frame's mask with what L.A.Cosmic finds, stars excepted; and how many pixels that adds."""
    found = astroscrappy_median(frame.sci, frame.err, frame.dq, _STRICT)[1]
    found &= ~np.asarray(source_pixels(frame)) & ~has(frame.dq, DEFECTS)
    dq = frame.dq.copy()
    flag(dq, found, DQ.COSMIC_RAY)
    return dq, int(np.count_nonzero(found))


def with_tracks(
    frame: Frame, sci: np.ndarray, err: np.ndarray, dq: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The planes with simulated tracks of particles laid over them: what is below is known, on stars as on sky.

    Where no gain is known, a unit of the frame counts as an electron.
    """
    per_unit = (frame.gain_e_per_adu or 1.0) if frame.unit == "adu" else 1.0
    charge = np.zeros(frame.shape)
    for thickness_um in _THICKNESSES_UM:
        charge += Muons(_TRACKS_PER_MPIX, thickness_um=thickness_um).sample(rng, frame.shape)
        charge += Worms(_TRACKS_PER_MPIX, thickness_um=thickness_um).sample(rng, frame.shape)
    added = (charge / per_unit).astype(np.float32)
    if frame.saturation is not None:
        full = np.float32((frame.saturation - frame.bias_level) * frame.factor)
        added = np.where(sci + added > full, np.maximum(full - sci, 0), added)
    struck = dq.copy()
    flag(struck, (added > FLAG_SIGMA * err) & ~has(dq, UNUSABLE), DQ.COSMIC_RAY)
    return sci + added, np.sqrt(np.square(err) + _photon_slope(frame) * added), struck


def _photon_slope(frame: Frame) -> np.float32:
    """Variance per signal, in the frame's unit, as its own uncertainties have it; 0 where nothing is bright."""
    signal = frame.sci - np.float32(frame.level)
    bright = (signal > 5 * frame.noise) & (frame.dq == 0) & np.isfinite(frame.err)
    if not bright.any():
        return np.float32(0)
    slope = np.median((np.square(frame.err[bright]) - np.float32(frame.noise) ** 2) / signal[bright])
    return np.float32(max(slope, 0))


def _rows(frame: Frame, dq: np.ndarray, cfg: Config, source: str) -> Iterator[Any]:
    """One batch per row of tiles."""
    sky = cfg.tiles.sky
    sci, err = known_pixels(frame)
    hideable = np.isfinite(sci) & ~has(dq, UNUSABLE)
    clean, clean_err = (np.where(hideable, plane, np.nan) for plane in (sci, err))
    sci, err, dq = with_tracks(frame, sci, err, dq, np.random.default_rng([cfg.seed, field_number(source)]))
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
                "hideable": np.stack([[hideable[p]] for p in parts]).astype(np.uint8),
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
