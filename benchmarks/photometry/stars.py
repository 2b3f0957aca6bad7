"""Measures of stars: flux, place and shape against the truth, and how many are found."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from photometry.pixels import TOUCHED
from photometry.scenes import SIGMA_TO_FWHM, Scene
from pipeline.sky.photometry import aperture_photometry, detect_stars, isolated

#: Radius of the aperture in units of the FWHM: where the demands on photometry are set.
APERTURE_FWHM = 1.0
LEAST_SNR = 20.0
#: Fewer stars make no bin.
FEWEST = 10
PURITY = 0.95
_ISOLATED_FWHM = 2.0
# Candidates are taken from this many times the noise of a matched filter on, in frames as recorded and in others:
# what has less noise can be searched deeper.
_DETECTION_SNR = {True: 2.5, False: 1.25}
#: Only this corner of a large frame is searched for faint stars.
SEARCHED_PX = 768


@dataclass(frozen=True)
class Stars:
    """Isolated stars with S/N > 20 of one frame.

    Attributes
    ----------
    magnitude, snr : ndarray, shape (n,)
        -2.5 log10 of the flux [e-]; of the aperture.
    clear : ndarray of bool, shape (n,)
        No defect in the aperture.
    fwhm_px : ndarray, shape (n,)
        Of the frame.
    flux_error : mapping
        Method -> flux / true flux - 1, shape (n,).
    shift_px : mapping
        Method -> centroid less the true one (x, y), shape (n, 2).
    ellipticity_error : mapping
        Method -> both components less the true ones, shape (n, 2).
    """

    magnitude: np.ndarray
    snr: np.ndarray
    clear: np.ndarray
    fwhm_px: np.ndarray
    flux_error: Mapping[str, np.ndarray]
    shift_px: Mapping[str, np.ndarray]
    ellipticity_error: Mapping[str, np.ndarray]

    @classmethod
    def joined(cls, parts: "list[Stars]") -> "Stars":
        """Of several frames."""
        plain = {n: np.concatenate([getattr(p, n) for p in parts]) for n in ("magnitude", "snr", "clear", "fwhm_px")}
        mapped = {
            name: {key: np.concatenate([getattr(p, name)[key] for p in parts]) for key in getattr(parts[0], name)}
            for name in ("flux_error", "shift_px", "ellipticity_error")
        }
        return cls(**plain, **mapped)

    def select(self, keep: np.ndarray) -> "Stars":
        """Some of them."""
        plain = {name: getattr(self, name)[keep] for name in ("magnitude", "snr", "clear", "fwhm_px")}
        mapped = {
            name: {key: values[keep] for key, values in getattr(self, name).items()}
            for name in ("flux_error", "shift_px", "ellipticity_error")
        }
        return Stars(**plain, **mapped)


def measure_stars(images: Mapping[str, np.ndarray], scene: Scene) -> Stars:
    """Every method's stars against the truth.

    Fluxes are those of the differences from the truth in one aperture: photometry of the frames themselves would
    compare two backgrounds, for faint neighbours in the ring hide in the noise of one and are clipped in the other.
    """
    x, y = scene.stars["x"], scene.stars["y"]
    truth = _photometry(scene.clean, x, y, scene.fwhm_px, err=scene.noise)
    keep = _inside(scene.clean.shape, x, y, 2 * scene.fwhm_px) & (truth.flux > LEAST_SNR * truth.flux_err)
    keep &= isolated(x, y, scene.stars["flux"], _ISOLATED_FWHM * scene.fwhm_px)
    x, y, flux, background = x[keep], y[keep], truth.flux[keep], truth.background[keep]
    clear = _photometry(scene.clean, x, y, scene.fwhm_px, mask=scene.excess > TOUCHED).clear
    place, shape = moments(scene.clean, x, y, scene.fwhm_px, background)
    flux_error, shift_px, ellipticity_error = {}, {}, {}
    for name, image in images.items():
        difference = _photometry(image - scene.clean, x, y, scene.fwhm_px)
        flux_error[name] = difference.flux / flux
        new_place, new_shape = moments(image, x, y, scene.fwhm_px, background + difference.background)
        shift_px[name], ellipticity_error[name] = new_place - place, new_shape - shape
    return Stars(
        magnitude=-2.5 * np.log10(flux),
        snr=(truth.flux / truth.flux_err)[keep],
        clear=clear,
        fwhm_px=np.full(len(x), scene.fwhm_px),
        flux_error=flux_error,
        shift_px=shift_px,
        ellipticity_error=ellipticity_error,
    )


def _photometry(image, x, y, fwhm_px, **known):
    return aperture_photometry(image, x, y, fwhm_px, aperture_fwhm=APERTURE_FWHM, **known)


def _inside(shape: tuple[int, int], x: np.ndarray, y: np.ndarray, margin: float) -> np.ndarray:
    height, width = shape
    return (x >= margin) & (x < width - margin) & (y >= margin) & (y < height - margin)


# ---- place and shape -------------------------------------------------------------------------------------------------
def moments(
    image: np.ndarray, x: np.ndarray, y: np.ndarray, fwhm_px: float, background: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Centroid and ellipticity of stars with a Gaussian weight of the PSF's width.

    Returns
    -------
    centroid : ndarray, shape (n, 2)
        x, y [px].
    ellipticity : ndarray, shape (n, 2)
        (Qxx - Qyy) / (Qxx + Qyy) and 2 Qxy / (Qxx + Qyy) of the weighted second moments.
    """
    reach = int(np.ceil(1.5 * fwhm_px))
    offset = np.arange(-reach, reach + 1)
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    padded = np.pad(image, reach, mode="edge")
    stamps = padded[(row + reach)[:, None, None] + offset[:, None], (column + reach)[:, None, None] + offset]
    stamps = stamps - background[:, None, None]
    variance = (fwhm_px / SIGMA_TO_FWHM) ** 2
    dx, dy = x - column, y - row
    for _ in range(4):
        u, v = offset - dx[:, None, None], offset[:, None] - dy[:, None, None]
        weighted = stamps * np.exp(-(u**2 + v**2) / (2 * variance))
        total = weighted.sum(axis=(1, 2))
        # The weight has the star's own width, so that a displacement shows by half.
        step = [2 * (weighted * d).sum(axis=(1, 2)) / total for d in (u, v)]
        dx, dy = (np.clip(d + s, -reach, reach) for d, s in zip((dx, dy), step, strict=True))
    xx, yy, xy = ((weighted * product).sum(axis=(1, 2)) for product in (u * u, v * v, u * v))
    ellipticity = np.stack([xx - yy, 2 * xy], axis=1) / (xx + yy)[:, None]
    return np.stack([column + dx, row + dy], axis=1), ellipticity


# ---- statistics ------------------------------------------------------------------------------------------------------
def width(values: np.ndarray) -> float:
    """Half of the central 68.3 %."""
    low, high = np.quantile(values, [0.158655, 0.841345])
    return float(high - low) / 2


def flux_statistics(error: np.ndarray, before: np.ndarray) -> dict[str, float]:
    """Median and scatter of flux / true flux - 1, after and before, and the standard error of the median."""
    scatter, scatter_before = width(error), width(before)
    return {
        "n": len(error),
        "bias": float(np.median(error)),
        "bias_error": 1.2533 * scatter / np.sqrt(len(error)),
        "bias_before": float(np.median(before)),
        "bias_added": float(np.median(error - before)),
        "scatter": scatter,
        "scatter_before": scatter_before,
        "scatter_ratio": scatter / scatter_before if scatter_before > 0 else np.nan,
    }


def magnitude_bins(magnitude: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """Whole magnitudes with at least `FEWEST` stars: the middle, and who is in it."""
    edges = np.arange(np.floor(magnitude.min()), np.ceil(magnitude.max()) + 1) if len(magnitude) else []
    bins = [(low + 0.5, (magnitude >= low) & (magnitude < low + 1)) for low in edges]
    return [(middle, inside) for middle, inside in bins if inside.sum() >= FEWEST]


def added(after: np.ndarray, before: np.ndarray) -> dict[str, float]:
    """How far two-component errors are from 0, and what was added to them.

    Parameters
    ----------
    after, before : ndarray, shape (n, 2)

    Returns
    -------
    dict
        `after`, `before`: median distance. `systematic`: length of the median vector after less the one before.
        `added`: square root of the excess of the squared medians, 0 where the errors became smaller.
    """
    medians = [float(np.median(np.hypot(*error.T))) for error in (after, before)]
    systematic = float(np.hypot(*(np.median(after, axis=0) - np.median(before, axis=0))))
    excess = max(medians[0] ** 2 - medians[1] ** 2, 0.0)
    return {"after": medians[0], "before": medians[1], "systematic": systematic, "added": float(np.sqrt(excess))}


# ---- completeness ----------------------------------------------------------------------------------------------------
def limiting_magnitude(image: np.ndarray, scene: Scene, *, noisy: bool) -> float | None:
    """Magnitude at which half of the isolated stars are found when 95 % of all detections are real.

    Stars are searched by DAOFIND, ranked by their height after a matched filter, and cut where the purity is reached.
    A detection is real if a star or galaxy is near. None where half are found in every bin, or in none.

    Parameters
    ----------
    image : ndarray, shape (H, W)
    noisy : bool
        Whether it has the noise of the recorded frame.
    """
    part = (slice(0, SEARCHED_PX), slice(0, SEARCHED_PX))
    sigma = scene.fwhm_px / SIGMA_TO_FWHM
    noise = float(np.median(scene.noise[part]))
    matched = noise / (np.sqrt(np.pi) * sigma)  # of the height of a Gaussian that is fitted
    light = np.asarray(image[part] - (scene.clean - scene.star_light - scene.galaxy_light)[part], float)
    found = detect_stars(light, 0.0, matched, scene.fwhm_px, threshold_sigma=_DETECTION_SNR[noisy])
    smooth = gaussian_filter(light, sigma) - gaussian_filter(light, 3 * sigma)
    height = smooth[np.rint(found["y"]).astype(int), np.rint(found["x"]).astype(int)]
    order = np.argsort(-height, kind="stable")
    places = np.column_stack([found["x"], found["y"]])[order]
    real = _near(places, scene.stars, max(1.0, 0.7 * scene.fwhm_px))
    real |= _near(places, scene.galaxies, max(3.0, 2.0 * scene.fwhm_px))
    pure = np.flatnonzero(np.cumsum(real) >= PURITY * np.arange(1, len(real) + 1))
    accepted = places[: pure[-1] + 1] if pure.size else places[:0]
    return _half_found(accepted, scene, light.shape)


def _near(places: np.ndarray, sources: Mapping[str, np.ndarray], radius: float) -> np.ndarray:
    if not len(sources["x"]) or not len(places):
        return np.zeros(len(places), bool)
    distance, _ = cKDTree(np.column_stack([sources["x"], sources["y"]])).query(places)
    return distance < radius


def _half_found(accepted: np.ndarray, scene: Scene, shape: tuple[int, int]) -> float | None:
    x, y, flux = (scene.stars[name] for name in ("x", "y", "flux"))
    keep = isolated(x, y, flux, _ISOLATED_FWHM * scene.fwhm_px, share=0.5) & _inside(shape, x, y, 2 * scene.fwhm_px)
    stars = {"x": x[keep], "y": y[keep]}
    found = _near(np.column_stack([stars["x"], stars["y"]]), {"x": accepted[:, 0], "y": accepted[:, 1]},
                  max(1.0, 0.7 * scene.fwhm_px))  # fmt: skip
    return faintest_crossing(-2.5 * np.log10(flux[keep]), found)


def faintest_crossing(magnitude: np.ndarray, found: np.ndarray, bin_mag: float = 0.5) -> float | None:
    """Magnitude where the share of the found stars falls through a half, from bins with at least `FEWEST` stars."""
    edges = np.arange(magnitude.min(), magnitude.max() + bin_mag, bin_mag)
    place = np.digitize(magnitude, edges) - 1
    bins = [
        (edges[k] + bin_mag / 2, found[place == k].mean()) for k in range(len(edges)) if (place == k).sum() >= FEWEST
    ]
    if len(bins) < 2:
        return None
    middle, share = np.array(bins).T
    above = np.flatnonzero(share >= 0.5)
    if not above.size or above[-1] == len(share) - 1:
        return None
    k = above[-1]
    return float(middle[k] + (share[k] - 0.5) / (share[k] - share[k + 1]) * (middle[k + 1] - middle[k]))
