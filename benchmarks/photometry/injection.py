"""Stars and tracks that are added to a real frame, and what is left of them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter

from photometry.methods import Bundle, Method
from photometry.real import RealFrame
from photometry.scenes import paste, psf_stamp, track
from photometry.stars import APERTURE_FWHM
from pipeline.sky.frames import Frame

#: Signal over noise of the added stars in an aperture of one FWHM radius: 2.5 mag between any two.
SNRS = (10.0, 100.0, 1000.0)
_MOFFAT_BETA = 3.0
# Added sources are so far from each other that no answer is that to two of them.
_APART_FWHM = 6.0
_LEAST_APART_PX = 24.0
_MOST = 90
_TRACK_SIGMA = 3.0
_FOUND_SHARE = 0.5


@dataclass(frozen=True)
class AddedStars:
    """(R(frame + star) - R(frame)) / star, 1 being perfect.

    Attributes
    ----------
    snr, response : ndarray, shape (n,)
    on_wing : ndarray of bool, shape (n,)
        Whether the star lies two FWHM from a bright one, and not on the sky.
    """

    snr: np.ndarray
    response: np.ndarray
    on_wing: np.ndarray


@dataclass(frozen=True)
class AddedTracks:
    """Shares of pixels above 3 sigma in the mask, and of tracks with half of these."""

    n_tracks: int
    n_pixels: int
    pixels_found: float
    tracks_found: float


def add_stars(real: RealFrame, bundle: Bundle, seed: int) -> AddedStars:
    """Add noise-free stars, Gaussian and Moffat by turns, to sky and to the wings of bright stars."""
    rng = np.random.default_rng(seed)
    frame, fwhm = real.frame, real.fwhm_px
    places = list(_places(real, rng))
    light = np.zeros(frame.shape)
    noise, area = frame.noise, np.pi * (APERTURE_FWHM * fwhm) ** 2
    for number, (x, y, _) in enumerate(places):
        beta = _MOFFAT_BETA if number % 2 else None
        column, row = round(x), round(y)
        stamp = psf_stamp(fwhm, int(np.ceil(4 * fwhm)), x - column, y - row, beta)
        paste(light, _flux_of(SNRS[number % len(SNRS)], noise, area, frame) * stamp, row, column)
    x, y = (np.array([place[axis] for place in places], float) for axis in (0, 1))
    brighter = bundle.restore(with_light(frame, light))
    answer = _sum(brighter.sci - real.after.sci, x, y, fwhm)
    return AddedStars(
        snr=np.array([SNRS[number % len(SNRS)] for number in range(len(places))]),
        response=answer / _sum(light, x, y, fwhm) if len(places) else np.empty(0),
        on_wing=np.array([place[2] for place in places], bool),
    )


def _sum(image: np.ndarray, x: np.ndarray, y: np.ndarray, fwhm_px: float) -> np.ndarray:
    """Sum in the aperture; no ring, for what is added is known to be nothing else."""
    from photutils.aperture import CircularAperture

    if not len(x):
        return np.empty(0)
    circle = CircularAperture(np.column_stack([x, y]), r=APERTURE_FWHM * fwhm_px)
    return circle.do_photometry(np.nan_to_num(image).astype(float))[0]


def _flux_of(snr: float, noise: float, area_px: float, frame: Frame) -> float:
    """Flux with this signal over noise: of the sky, and of the star's own photons where the frame is in electrons."""
    variance = area_px * noise**2
    if frame.unit != "electron":
        return snr * np.sqrt(variance)
    return 0.5 * (snr**2 + np.sqrt(snr**4 + 4 * snr**2 * variance))


def with_light(frame: Frame, light: np.ndarray) -> Frame:
    """A frame with more light or charge, and its photon noise in the uncertainty where that is a model in electrons.

    As it would be in a file: the model takes it from the pixels, whatever their charge came from.
    """
    variance = frame.err.astype(float) ** 2 + (light if frame.unit == "electron" and frame.err_modelled else 0.0)
    return replace(
        frame, sci=(frame.sci + light).astype(np.float32), err=np.sqrt(np.maximum(variance, 0)).astype(np.float32)
    )


def _places(real: RealFrame, rng: np.random.Generator) -> Iterator[tuple[float, float, bool]]:
    """Places for stars: first two FWHM from bright stars, then on empty sky."""
    apart = max(_APART_FWHM * real.fwhm_px, _LEAST_APART_PX)
    taken: list[tuple[float, float]] = []
    sky = np.abs(gaussian_filter(np.nan_to_num(real.frame.sci - real.frame.level), real.fwhm_px)) < real.frame.noise
    order = np.argsort(-real.stars.snr)[: 3 * _MOST]
    bright = [(real.stars.x[k], real.stars.y[k]) for k in order if not real.stars.saturated[k]]
    for x, y in bright:
        angle = rng.uniform(0, 2 * np.pi)
        place = x + 2 * real.fwhm_px * np.cos(angle), y + 2 * real.fwhm_px * np.sin(angle)
        if len(taken) < _MOST // 3 and _is_free(place, taken, real, apart):
            taken.append(place)
            yield *place, True
    for y, x in rng.uniform((0, 0), real.frame.shape, (1500, 2)):
        inside = int(min(y, real.frame.shape[0] - 1)), int(min(x, real.frame.shape[1] - 1))
        if len(taken) < _MOST and sky[inside] and _is_free((x, y), taken, real, apart):
            taken.append((x, y))
            yield x, y, False


def _is_free(place: tuple[float, float], taken: list[tuple[float, float]], real: RealFrame, apart: float) -> bool:
    """Within the exposed part, on pixels that are not defects, and far from other added ones."""
    x, y = place
    margin = 2 * real.fwhm_px + 1
    for position, part, side in zip((y, x), real.frame.exposed, real.frame.shape, strict=True):
        first, last = part.start or 0, side if part.stop is None else part.stop
        if not first + margin <= position < last - margin:
            return False
    reach = int(np.ceil(2 * real.fwhm_px))
    near = (
        slice(max(round(y) - reach, 0), round(y) + reach + 1),
        slice(max(round(x) - reach, 0), round(x) + reach + 1),
    )
    if real.after.mask[near].any() or real.frame.dq[near].any():
        return False
    return all(np.hypot(x - a, y - b) > apart for a, b in taken)


# ---- tracks ----------------------------------------------------------------------------------------------------------
def add_tracks(real: RealFrame, bundle: Bundle, seed: int) -> AddedTracks:
    """Add cosmic rays anywhere on the exposed part, one per 4,000 px, and count what the mask holds of them."""
    rng = np.random.default_rng(seed)
    frame = real.frame
    rows, columns = (range(*part.indices(side)) for part, side in zip(frame.exposed, frame.shape, strict=True))
    light, owner = np.zeros(frame.shape), np.full(frame.shape, -1)
    n_wanted = int(np.clip(len(rows) * len(columns) / 4000, 1, 150))
    for number in range(n_wanted):
        x, y = rng.uniform(columns.start, columns.stop), rng.uniform(rows.start, rows.stop)
        per_px = frame.noise * rng.lognormal(np.log(15), 0.7)
        xs, ys, charge = track(rng, x, y, rng.uniform(0, 2 * np.pi), min(1 + rng.exponential(8), 80), per_px)
        j, i = np.floor(ys).astype(int), np.floor(xs).astype(int)
        inside = (j >= rows.start) & (j < rows.stop) & (i >= columns.start) & (i < columns.stop)
        if not inside.any():
            continue
        j, i, charge = j[inside], i[inside], charge[inside]
        box = tuple(slice(max(p.min() - 3, 0), p.max() + 4) for p in (j, i))
        plane = np.zeros(light[box].shape)
        np.add.at(plane, (j - box[0].start, i - box[1].start), charge)
        plane = gaussian_filter(plane, 0.4)
        above = (plane > _TRACK_SIGMA * frame.err[box]) & ~real.after.mask[box] & (frame.dq[box] == 0)
        owner[box][above] = number
        light[box] += plane
    return count_tracks(owner, bundle.restore(with_light(frame, light)))


def count_tracks(owner: np.ndarray, after: Method) -> AddedTracks:
    """Shares found; `owner` is the number of the track of each pixel, -1 for none."""
    numbers = owner[owner >= 0]
    if not numbers.size:
        return AddedTracks(0, 0, float("nan"), float("nan"))
    n_all = np.bincount(numbers)
    n_found = np.bincount(owner[(owner >= 0) & after.mask], minlength=len(n_all))
    some = n_all > 0
    whole = n_found[some] >= _FOUND_SHARE * n_all[some]
    return AddedTracks(int(some.sum()), int(numbers.size), float(n_found.sum() / numbers.size), float(whole.mean()))
