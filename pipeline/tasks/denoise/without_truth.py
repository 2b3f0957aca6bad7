"""One restored frame judged without a truth: by other exposures, by what was taken away, and by stars laid over it.

- The mean squared error against the unknown truth, from other exposures a, b, c of the field [1]_:
  ``mean (f(y) - a)^2 - mean (b - c)^2 / 2``. The noise of the exposures cancels, whatever its kind.
- The residual, recorded less restored, in units of the stated uncertainty: noise alone has a width of 1 at most, no
  correlation between neighbours, and no mean where there are sources.
- The response to stars that are added, with their photon noise: what becomes of them over what they were.

References
----------
.. [1] Marcos Morales, Leibovich, Mohan, ... & Fernandez-Granda (2022), "Evaluating unsupervised denoising requires
   unsupervised metrics", arXiv:2210.05553, Eq. 3; here the mean over all ways to choose a, b and c.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from pipeline.evaluation.comparison import NETWORK
from pipeline.sky.dq import DQ, has
from pipeline.sky.photometry import aperture_photometry, detect_stars, isolated, measure_fwhm
from pipeline.tasks.denoise.scores import NOISY, JudgedFrame

#: (science plane, uncertainty) -> method -> restored plane.
Restores = Callable[[np.ndarray, np.ndarray], Mapping[str, np.ndarray]]

LAGS = (1, 2, 3)
#: Signal-to-noise ratios of the stars that are added, in an aperture of 1.5 FWHM.
INJECTED_SNR = (20.0, 50.0, 150.0, 500.0)
# Fewer exposures of a place do not give an error: each is compared with two others.
_FEWEST_EXPOSURES = 3
# Sky: the other exposures are within so many sigma of the background; pixels that they do not agree on are left out.
_SKY_SIGMA, _OUTLIER_SIGMA = 3.0, 6.0
# A scatter is that of so many exposures at least.
_FEWEST_OF_STAR = 4
_RESIDUAL_SIGMA = 5.0
_SOURCE_SNR = (3.0, 20.0)
_SPACING_FWHM = 12.0  # between stars that are added: apertures and rings do not touch
_STAR_SNR = 10.0


@dataclass(frozen=True)
class Checked:
    """What one frame tells without a truth; small, so that frames need not be kept.

    Attributes
    ----------
    per_method : mapping
        Method -> name -> number; NaN where there is nothing to measure.
    injected : mapping
        `snr`, and method -> response - 1, shape (n,).
    stars : mapping
        `x`, `y` [px of the field's reference], `snr`, and method -> flux, shape (n,); empty where the frame is not
        registered.
    """

    name: str
    per_method: Mapping[str, Mapping[str, float]]
    injected: Mapping[str, np.ndarray]
    stars: Mapping[str, np.ndarray] = field(default_factory=dict)


def check(frame: JudgedFrame, restores: Restores, seed: int) -> Checked:
    """Judge one frame.

    Parameters
    ----------
    frame : JudgedFrame
        Restored; `pairs` where there are other exposures.
    restores : callable
        What restored it, for the frame with stars added.
    seed : int
        Of the places of these stars.
    """
    bad = ~np.isfinite(frame.sci) | (frame.dq != 0)
    fwhm = _fwhm(frame, bad)
    numbers = {
        method: _residual(frame, image, bad) | _error(frame, image, bad) for method, image in frame.restored.items()
    }
    return Checked(
        name=frame.name,
        per_method=numbers,
        injected=_responses(frame, restores, fwhm, bad, seed),
        stars=_stars(frame, fwhm, bad) if frame.registration.get("placed") else {},
    )


def _fwhm(frame: JudgedFrame, bad: np.ndarray) -> float:
    """Of the brightest stars that are not a single pixel."""
    found = detect_stars(frame.sci, frame.level, frame.noise, threshold_sigma=15.0, mask=bad, brightest=100)
    return measure_fwhm(frame.sci, found["x"], found["y"], frame.level)


# ---- other exposures -------------------------------------------------------------------------------------------------
def _error(frame: JudgedFrame, image: np.ndarray, bad: np.ndarray) -> dict[str, float]:
    """Sums of the squared error in units of the background's variance, and of the pixels, of all and of empty sky."""
    names = ("error", "n_error", "sky_error", "n_sky_error")
    sums = dict.fromkeys(names, 0.0)
    places: dict[tuple[int, int], list[np.ndarray]] = {}
    for pair in frame.pairs:
        places.setdefault((pair.y0, pair.x0), []).append(pair.image)
    for (y0, x0), exposures in places.items():
        if len(exposures) < _FEWEST_EXPOSURES:
            continue
        others = (np.stack(exposures) - frame.level) / frame.noise
        part = (slice(y0, y0 + others.shape[1]), slice(x0, x0 + others.shape[2]))
        err = frame.err[part] / frame.noise
        # Chosen by the other exposures alone: the same pixels for every method.
        spread = np.ptp(others, axis=0)
        keep = ~bad[part] & np.isfinite(others).all(axis=0) & (spread < _OUTLIER_SIGMA * err)
        sky = keep & (np.abs(others.mean(axis=0)) < _SKY_SIGMA)
        restored = (image[part] - frame.level) / frame.noise
        distance = np.mean([np.square(restored - other) for other in others], axis=0)
        noise = np.mean([np.square(a - b) for a, b in combinations(others, 2)], axis=0) / 2
        for place, (total, count) in zip((keep, sky), (names[:2], names[2:]), strict=True):
            sums[total] += float((distance - noise)[place].sum(dtype=np.float64))
            sums[count] += float(np.count_nonzero(place))
    return sums


# ---- what was taken away ---------------------------------------------------------------------------------------------
def _residual(frame: JudgedFrame, image: np.ndarray, bad: np.ndarray) -> dict[str, float]:
    """Width, correlation at `LAGS` along both axes, and mean on sources, of what was taken away."""
    names = ("residual_width", *(f"residual_correlation_{lag}" for lag in LAGS), "residual_on_sources")
    if np.array_equal(image, frame.sci, equal_nan=True):
        return dict.fromkeys(names, np.nan)
    good = ~bad & ~frame.painted
    residual = np.where(good, (frame.sci - image) / frame.err, 0)
    good &= np.abs(residual) < _RESIDUAL_SIGMA
    snr = (image - frame.level) / frame.err
    sky = good & (snr < _SOURCE_SNR[0])
    source = good & (snr > _SOURCE_SNR[0]) & (snr < _SOURCE_SNR[1])
    middle = float(np.median(residual[sky])) if sky.any() else 0.0
    width = 1.4826 * float(np.median(np.abs(residual[sky] - middle))) if sky.any() else np.nan
    correlations = [_correlation(residual, sky, lag) for lag in LAGS]
    mean = float(residual[source].mean()) if source.any() else np.nan
    return dict(zip(names, (width, *correlations, mean), strict=True))


def _correlation(residual: np.ndarray, keep: np.ndarray, lag: int) -> float:
    """That of the two axes which is further from 0."""
    if not keep.any():
        return np.nan
    mean, variance = residual[keep].mean(dtype=np.float64), residual[keep].var(dtype=np.float64)
    found = []
    for one, other in ((np.s_[:, :-lag], np.s_[:, lag:]), (np.s_[:-lag], np.s_[lag:])):
        both = keep[one] & keep[other]
        product = (residual[one] - mean) * (residual[other] - mean)
        found.append(float(product[both].mean(dtype=np.float64) / variance) if both.any() and variance > 0 else np.nan)
    return max(found, key=lambda value: abs(np.nan_to_num(value)))


# ---- stars that are added --------------------------------------------------------------------------------------------
def _responses(
    frame: JudgedFrame, restores: Restores, fwhm: float, bad: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """What became of added stars over what they were, less 1; of the network and of the baselines."""
    rng = np.random.default_rng([seed, frame.sci.size])
    x, y = _free_places(frame, fwhm, bad, rng)
    snr = rng.choice(INJECTED_SNR, x.size)
    slope = _photon_slope(frame, bad)
    added, err = _with_stars(frame, x, y, snr, fwhm, slope, rng)
    after = restores(frame.sci + added, err)
    put_in = aperture_photometry(added, x, y, fwhm)
    columns = {"snr": snr}
    keep = put_in.clear & (put_in.flux > 0)
    for method, image in after.items():
        if method != NOISY:
            flux = aperture_photometry(image - frame.restored[method], x, y, fwhm).flux
            with np.errstate(invalid="ignore", divide="ignore"):
                columns[method] = flux / put_in.flux - 1
            keep &= np.isfinite(columns[method])
    return {name: column[keep] for name, column in columns.items()}


def _free_places(
    frame: JudgedFrame, fwhm: float, bad: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Places of a grid, moved at random by fractions of a pixel, where nothing bad is near; on stars too."""
    from scipy.ndimage import maximum_filter

    step, reach = max(int(_SPACING_FWHM * fwhm), 12), max(int(5 * fwhm), 5)
    height, width = frame.sci.shape
    rows, columns = (np.arange(reach, length - reach, step) for length in (height, width))
    y, x = (place.ravel().astype(float) for place in np.meshgrid(rows, columns, indexing="ij"))
    x, y = x + rng.uniform(-0.5, 0.5, x.size), y + rng.uniform(-0.5, 0.5, y.size)
    # What is replaced has no response.
    spoiled = bad | frame.painted
    near = maximum_filter(spoiled, size=2 * int(np.ceil(1.5 * fwhm)) + 1)
    free = ~near[np.rint(y).astype(int), np.rint(x).astype(int)]
    return x[free], y[free]


def _photon_slope(frame: JudgedFrame, bad: np.ndarray) -> float:
    """Variance per signal, as the frame's own uncertainty has it; 0 where nothing is bright."""
    signal = frame.sci - frame.level
    with np.errstate(invalid="ignore"):
        bright = ~bad & (signal > 5 * frame.noise) & np.isfinite(frame.err)
    if not bright.any():
        return 0.0
    return max(float(np.median((np.square(frame.err[bright]) - frame.noise**2) / signal[bright])), 0.0)


def _with_stars(
    frame: JudgedFrame,
    x: np.ndarray,
    y: np.ndarray,
    snr: np.ndarray,
    fwhm: float,
    slope: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Light of Gaussian stars with their own photon noise, and the uncertainty of the frame with it."""
    sigma = fwhm / 2.3548
    n_pixels = np.pi * (1.5 * fwhm) ** 2
    # flux / sqrt(n noise^2 + slope flux) = snr
    flux = 0.5 * snr**2 * (slope + np.sqrt(slope**2 + 4 * n_pixels * frame.noise**2 / snr**2))
    light = np.zeros(frame.sci.shape)
    reach = int(np.ceil(4 * sigma)) + 1
    for x0, y0, total in zip(x, y, flux, strict=True):
        rows, columns = (slice(max(round(c) - reach, 0), round(c) + reach + 1) for c in (y0, x0))
        window = light[rows, columns]
        dy = np.arange(rows.start, rows.start + window.shape[0])[:, None] - y0
        dx = np.arange(columns.start, columns.start + window.shape[1]) - x0
        profile = np.exp(-(dx**2 + dy**2) / (2 * sigma**2))
        window += total * profile / profile.sum()
    noisy = light + np.sqrt(slope * light) * rng.standard_normal(light.shape)
    err = np.sqrt(np.square(frame.err) + slope * light)
    return noisy.astype(np.float32), err.astype(np.float32)


# ---- stars over exposures --------------------------------------------------------------------------------------------
def _stars(frame: JudgedFrame, fwhm: float, bad: np.ndarray) -> dict[str, np.ndarray]:
    """Fluxes of the frame's stars, by method, at their places on the reference frame of the field."""
    found = detect_stars(frame.sci, frame.level, frame.noise, fwhm, mask=has(frame.dq, ~DQ.SATURATED))
    x, y = found["x"], found["y"]
    raw = aperture_photometry(frame.sci, x, y, fwhm, err=frame.err, mask=bad)
    flux = {method: aperture_photometry(image, x, y, fwhm).flux for method, image in frame.restored.items()}
    with np.errstate(invalid="ignore", divide="ignore"):
        snr = raw.flux / raw.flux_err
        keep = raw.clear & (snr > _STAR_SNR) & isolated(x, y, raw.flux, 2 * fwhm)
        keep &= np.all([value > 0 for value in flux.values()], axis=0)
    placed = np.column_stack([x, y]) @ np.array(frame.registration["matrix"]).T + frame.registration["offset_px"]
    columns = {"x": placed[:, 0], "y": placed[:, 1], "snr": snr, **flux}
    return {name: column[keep] for name, column in columns.items()}


def scatter_over_exposures(checked: Sequence[Checked]) -> dict[str, np.ndarray]:
    """Scatter of each star over the exposures of its field, by method, and its median signal-to-noise ratio.

    Zero points of the exposures are taken from the stars themselves, for each method on its own.

    Returns
    -------
    dict of ndarray, shape (n_stars,)
        `snr`, and method -> rms of the magnitudes [mag]; empty where there are too few exposures.
    """
    from scipy.spatial import cKDTree

    frames = [one.stars for one in checked if len(one.stars.get("x", ())) > 0]
    if len(frames) < _FEWEST_OF_STAR:
        return {}
    reference = max(frames, key=lambda stars: len(stars["x"]))
    places = np.column_stack([reference["x"], reference["y"]])
    methods = [name for name in reference if name not in ("x", "y", "snr")]
    tables = {name: np.full((len(frames), len(places)), np.nan) for name in (*methods, "snr")}
    for row, stars in enumerate(frames):
        distance, nearest = cKDTree(np.column_stack([stars["x"], stars["y"]])).query(places, distance_upper_bound=1.0)
        seen = np.isfinite(distance)
        for name, table in tables.items():
            table[row, seen] = stars[name][nearest[seen]]
    often = np.isfinite(tables[NETWORK]).sum(axis=0) >= _FEWEST_OF_STAR
    if not often.any():
        return {}
    return {"snr": np.nanmedian(tables.pop("snr")[:, often], axis=0)} | {
        name: _scatter(-2.5 * np.log10(table[:, often])) for name, table in tables.items()
    }


def _scatter(magnitudes: np.ndarray) -> np.ndarray:
    """Rms over exposures (rows) of each star (columns), each exposure shifted by the median of its stars."""
    for _ in range(3):
        magnitudes = magnitudes - np.nanmedian(magnitudes - np.nanmedian(magnitudes, axis=0), axis=1, keepdims=True)
    return np.nanstd(magnitudes, axis=0, ddof=1)
