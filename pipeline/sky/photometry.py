"""Stars and their fluxes, by photutils: detection, aperture photometry, and widths."""

from dataclasses import dataclass

import numpy as np

# Radius of the aperture and of the local background ring, in units of the FWHM: the aperture holds 90 to 98 % of a
# star's light, and the ring begins where a Moffat profile has fallen to a thousandth of its peak.
APERTURE_FWHM = 1.5
_ANNULUS_FWHM = (3.0, 5.0)


@dataclass(frozen=True)
class Photometry:
    """Aperture fluxes of stars above their local background.

    Attributes
    ----------
    flux, flux_err : ndarray, shape (n,)
        In the unit of the image; NaN where the aperture has no valid pixel.
    background : ndarray, shape (n,)
        Local background per pixel.
    clear : ndarray of bool, shape (n,)
        Whether the aperture lies within the image and has no excluded pixel.
    """

    flux: np.ndarray
    flux_err: np.ndarray
    background: np.ndarray
    clear: np.ndarray


def aperture_photometry(
    image: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    fwhm_px: float,
    *,
    err: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    aperture_fwhm: float = APERTURE_FWHM,
) -> Photometry:
    """Sum each star in a circle and subtract the sigma-clipped median of a ring around it.

    Parameters
    ----------
    image : ndarray, shape (H, W)
        NaN counts as excluded.
    x, y : ndarray, shape (n,)
        Positions [px], integers at pixel centres.
    fwhm_px : float
        Scale of aperture and ring.
    err : ndarray, shape (H, W), optional
        One sigma per pixel, for `flux_err`; without it, `flux_err` is NaN.
    mask : ndarray of bool, shape (H, W), optional
        True excludes a pixel from the ring, and makes an aperture that holds it unclear.
    aperture_fwhm : float
        Radius of the circle in units of the FWHM.
    """
    from astropy.stats import SigmaClip
    from photutils.aperture import ApertureStats, CircularAnnulus, CircularAperture

    excluded = ~np.isfinite(image) if mask is None else mask | ~np.isfinite(image)
    n_stars = len(x)
    if n_stars == 0:
        empty = np.empty(0)
        return Photometry(empty, empty, empty, np.empty(0, bool))
    data = np.where(excluded, 0.0, image).astype(float)
    positions = np.column_stack([x, y])
    radius = aperture_fwhm * fwhm_px
    circle = CircularAperture(positions, r=radius)
    ring = CircularAnnulus(positions, *(factor * fwhm_px for factor in _ANNULUS_FWHM))
    ring_statistics = ApertureStats(data, ring, mask=excluded, sigma_clip=SigmaClip(3.0), sum_method="center")
    background = np.atleast_1d(ring_statistics.median)
    total, total_err = circle.do_photometry(data, error=None if err is None else err.astype(float))
    bad, _ = circle.do_photometry(excluded.astype(float))
    height, width = image.shape
    within = (x >= radius) & (x < width - radius) & (y >= radius) & (y < height - radius)
    flux_err = np.full(n_stars, np.nan)
    if err is not None:
        ring_rms = np.atleast_1d(ring_statistics.std)
        ring_px = np.atleast_1d(ring_statistics.sum_aper_area.value)
        flux_err = np.hypot(total_err, circle.area * ring_rms / np.sqrt(np.maximum(ring_px, 1)))
    return Photometry(total - background * circle.area, flux_err, background, within & (bad == 0))


def detect_stars(
    image: np.ndarray,
    level: float,
    noise: float,
    fwhm_px: float = 3.0,
    *,
    threshold_sigma: float = 10.0,
    mask: np.ndarray | None = None,
    brightest: int | None = None,
) -> dict[str, np.ndarray]:
    """Find point sources (DAOFIND), brightest first.

    Parameters
    ----------
    image : ndarray, shape (H, W)
    level, noise : float
        Background of the image and its rms.
    threshold_sigma : float
        Peak height of a star in units of `noise`.
    mask : ndarray of bool, shape (H, W), optional
        Pixels to exclude.
    brightest : int, optional
        Keep at most this many.

    Returns
    -------
    dict of ndarray, shape (n,)
        x, y [px], peak and flux above the background, in the unit of the image.
    """
    import warnings

    from photutils.detection import DAOStarFinder
    from photutils.utils.exceptions import NoDetectionsWarning

    excluded = ~np.isfinite(image) if mask is None else mask | ~np.isfinite(image)
    finder = DAOStarFinder(
        threshold=threshold_sigma * noise,
        fwhm=fwhm_px,
        n_brightest=brightest,
        scale_threshold=False,
        exclude_border=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoDetectionsWarning)
        table = finder(np.where(excluded, 0.0, image - level).astype(float), mask=excluded)
    if table is None:
        return {name: np.empty(0) for name in ("x", "y", "peak", "flux")}
    table.sort("flux", reverse=True)
    names = {"x": "x_centroid", "y": "y_centroid", "peak": "peak", "flux": "flux"}
    return {name: np.asarray(table[column], dtype=float) for name, column in names.items()}


def measure_fwhm(image: np.ndarray, x: np.ndarray, y: np.ndarray, level: float, default_px: float = 3.0) -> float:
    """Median FWHM of stars [px], from Gaussian fits; `default_px` where fewer than three can be fitted."""
    import warnings

    from photutils.psf import fit_fwhm

    inside = (x > 6) & (x < image.shape[1] - 7) & (y > 6) & (y < image.shape[0] - 7)
    positions = np.column_stack([x, y])[inside][:30]
    if len(positions) < 3:
        return default_px
    with warnings.catch_warnings():
        # A star whose fit does not converge is skipped; the median uses the others.
        warnings.simplefilter("ignore")
        widths = fit_fwhm(np.nan_to_num(image - level).astype(float), xypos=positions, fit_shape=(11, 11))
    widths = widths[np.isfinite(widths) & (widths > 0.5) & (widths < 15)]
    return float(np.median(widths)) if widths.size >= 3 else default_px


def isolated(x: np.ndarray, y: np.ndarray, flux: np.ndarray, radius_px: float, share: float = 0.05) -> np.ndarray:
    """Stars without a neighbour of more than `share` of their flux within `radius_px`, shape (n,), bool."""
    from scipy.spatial import cKDTree

    alone = np.ones(len(x), bool)
    if len(x) < 2:
        return alone
    for first, second in cKDTree(np.column_stack([x, y])).query_pairs(radius_px):
        alone[first] &= flux[second] < share * flux[first]
        alone[second] &= flux[first] < share * flux[second]
    return alone
