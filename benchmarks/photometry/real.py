"""Real frames: which of their stars are confirmed, and what becomes of them."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.ndimage import label
from scipy.spatial import cKDTree

from photometry.methods import Bundle, Method, read
from photometry.stars import APERTURE_FWHM, moments
from pipeline.errors import InputFileError
from pipeline.sky.background import robust_background
from pipeline.sky.dq import DEFECTS, LOST, has
from pipeline.sky.frame_statistics import measure
from pipeline.sky.frames import Frame
from pipeline.sky.photometry import aperture_photometry, detect_stars, isolated
from pipeline.sky.registration import place, star_catalogue

LEAST_SNR = 30.0
#: Exposures that a star is looked for in, besides the one that is judged; it must be in half of those that show its
#: place.
_OTHERS = 6
_SEARCH_SNR = 6.0
# A star by its profile: size and ellipticity of the weighted moments near those of the frame's stars, and neighbours
# of the peak that have at least this part of what a Gaussian of the frame's FWHM gives them.
_SAME_SIZE, _SAME_SHAPE, _LEAST_LIT = 0.2, 0.15, 0.5
_FEWEST_STARS = 3
# So many neighbouring pixels within 1 % of the highest value are saturated: a star of FWHM 7 px has one such pixel.
_PLATEAU_PX = 4
_NO_FWHM_PX = 2.5
# Peaks that the FWHM is fitted to where there are few stars: how they are searched, and the side of their windows.
_WIDE_PX, _FITTED_PX, _MOST_FITTED = 5.0, 25, 10
# Of the bright sources, stars are the most compact that are not sharp: their size is this quantile; in cut-outs without
# stars, it is that of profiles between a Gaussian (1.88) and a Moffat of index 3 (2.05).
_STAR_QUANTILE, _STAR_SIZE = 0.3, 1.95


@dataclass(frozen=True)
class RealSet:
    """Frames of one instrument.

    Attributes
    ----------
    files : sequence of path
        One exposure or cut-out each.
    judged : sequence of int
        Which of them are restored.
    one_field : bool
        Whether all show the same field, so that stars can be confirmed in the others.
    galaxies : int
        How many of the largest sources of each frame are measured, too.
    fwhm_card : str, optional
        Card with the FWHM of the stars in pixels, for cut-outs with too few of them.
    """

    name: str
    files: Sequence[Path]
    judged: Sequence[int]
    one_field: bool = False
    galaxies: int = 0
    fwhm_card: str | None = None


def real_sets(root: Path) -> list[RealSet]:
    """The sets in a folder of public frames; what is not there is left out."""

    def files(pattern: str) -> list[Path]:
        return sorted(root.glob(pattern))

    microobs, m13 = files("microobs_hatp32/*.fits.gz"), files("m13_blue/*.fits.gz")
    legacy = files("legacypipe/**/*_ooi_*.fits")
    every = len(microobs) - 1
    sets = [
        RealSet("microobs_hatp32", microobs, sorted({0, every // 2, every}), one_field=True),
        RealSet("m13_blue", m13, [len(m13) // 2], one_field=True, galaxies=1),
        RealSet("kpno_m51", files("kpno_m51/*.fits"), [0], galaxies=1),
        RealSet("ntt_emmi", files("ntt_emmi/galaxies.fits"), [0], galaxies=10),
        RealSet("saao", files("saao/*.fits"), [0]),
        RealSet("legacypipe", legacy, range(len(legacy)), galaxies=1, fwhm_card="FWHM"),
        RealSet("hst_mef", files("hst_mef/*.fits"), [0]),
        RealSet("kmtnet", files("kmtnet/*.fits"), [0]),
    ]
    return [one for one in sets if one.files]


@dataclass(frozen=True)
class RealStars:
    """Stars with S/N > 30 of one frame, before and after.

    Attributes
    ----------
    x, y, snr, flux : ndarray, shape (n,)
    saturated : ndarray of bool, shape (n,)
    flagged : ndarray of bool, shape (n,)
        A pixel within one FWHM of the peak was taken for a defect.
    kept : ndarray, shape (n,)
        Flux after / flux before, aperture of one FWHM radius.
    """

    x: np.ndarray
    y: np.ndarray
    snr: np.ndarray
    flux: np.ndarray
    saturated: np.ndarray
    flagged: np.ndarray
    kept: np.ndarray


@dataclass(frozen=True)
class RealFrame:
    """One real frame, restored, and its confirmed stars."""

    name: str
    frame: Frame
    after: Method
    fwhm_px: float
    confirmed_by: str
    stars: RealStars
    galaxies: dict[str, np.ndarray] = field(default_factory=dict)


def restore_set(chosen: RealSet, bundle: Bundle) -> list[RealFrame]:
    """Every judged frame of a set. A file that cannot be read is an error of the set, not of the measurement."""
    done = []
    for number in chosen.judged:
        path = chosen.files[number]
        for frame in _read(path):
            stars, fwhm_px, how = _confirmed(frame, chosen, number)
            after = bundle.restore(frame)
            measured = kept_flux(frame, after, *stars, fwhm_px)
            extended = kept_galaxies(frame, after, fwhm_px, chosen.galaxies) if chosen.galaxies else {}
            name = path.name.split(".")[0]
            done.append(RealFrame(name, frame, after, fwhm_px, how, measured, extended))
    return done


def _read(path: Path) -> list[Frame]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cards that break the standard: astropy names each
        try:
            return read(path)
        except InputFileError as error:
            raise InputFileError(f"{path.name} is to be judged, but {error}") from error


# ---- which are stars -------------------------------------------------------------------------------------------------
def _confirmed(frame: Frame, chosen: RealSet, number: int) -> tuple[tuple[np.ndarray, np.ndarray], float, str]:
    """Places of stars, the FWHM, and how they were confirmed."""
    fwhm_px = fwhm_of(frame, chosen.fwhm_card)
    x, y = candidates(frame, fwhm_px)
    if chosen.one_field:
        others = [k for k in range(len(chosen.files)) if k != number]
        others = [others[k] for k in np.unique(np.linspace(0, len(others) - 1, _OTHERS).astype(int))]
        seen = seen_again(frame, x, y, [_read(chosen.files[k])[0] for k in others], fwhm_px)
        if seen is not None:
            return (x[seen], y[seen]), fwhm_px, "other exposures"
    like = like_the_psf(frame, x, y, fwhm_px)
    return (x[like], y[like]), fwhm_px, "profile"


def fwhm_of(frame: Frame, card: str | None = None) -> float:
    """FWHM of the stars [px]: as prediction measures it, from a card, or fitted to the brightest peaks that are lit."""
    measured = measure(frame).fwhm_px
    if measured is None and card is not None and frame.header is not None:
        measured = frame.header.get(card)
    if measured is None and min(frame.shape) > 2 * _FITTED_PX:
        x, y = candidates(frame, _WIDE_PX)
        lit = _lit(frame, x, y, _WIDE_PX)
        measured = _fitted_fwhm(frame, x[lit][:_MOST_FITTED], y[lit][:_MOST_FITTED])
    return float(measured or _NO_FWHM_PX)


def _fitted_fwhm(frame: Frame, x: np.ndarray, y: np.ndarray) -> float | None:
    """Median width of Gaussians that are fitted to a few peaks; `measure_fwhm` wants more of them."""
    from photutils.psf import fit_fwhm

    if not len(x):
        return None
    light = np.nan_to_num(frame.sci - frame.level).astype(float)
    shape = (_FITTED_PX, _FITTED_PX)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit that does not converge is left out below
        widths = fit_fwhm(light, xypos=np.column_stack([x, y]), fwhm=_WIDE_PX, fit_shape=shape)
    widths = widths[np.isfinite(widths) & (widths > 1.2) & (widths < _FITTED_PX / 1.5)]
    return float(np.median(widths)) if widths.size else None


def candidates(frame: Frame, fwhm_px: float) -> tuple[np.ndarray, np.ndarray]:
    """Peaks of the exposed part that DAOFIND takes for point sources."""
    bad = has(frame.dq, DEFECTS) | ~np.isfinite(frame.sci)
    outside = np.ones(frame.shape, bool)
    outside[frame.exposed] = False
    if min(frame.shape) < 4 * fwhm_px + 3:
        return np.empty(0), np.empty(0)
    found = detect_stars(frame.sci, frame.level, frame.noise, fwhm_px, threshold_sigma=5.0, mask=bad | outside)
    return found["x"], found["y"]


def seen_again(
    frame: Frame, x: np.ndarray, y: np.ndarray, others: Sequence[Frame], fwhm_px: float
) -> np.ndarray | None:
    """Which sources are in at least half of the other exposures that show their place; None if none can be registered.

    Of cosmic rays none is: they are at another place in every exposure.
    """
    reference = star_catalogue(frame, fwhm_px)
    shown, seen = np.zeros(len(x)), np.zeros(len(x))
    points = np.column_stack([x, y])
    for other in others:
        placement = place(other, frame, reference)
        if placement is None:
            continue
        found = detect_stars(other.sci, other.level, other.noise, fwhm_px, threshold_sigma=_SEARCH_SNR / 2)
        catalogue = placement.to_reference(np.column_stack([found["x"], found["y"]]))
        there = placement.from_reference(points)
        inside = ((there > 3) & (there < np.array(other.shape[::-1]) - 4)).all(axis=1)
        distance, _ = cKDTree(catalogue).query(points)
        shown += inside
        seen += inside & (distance < max(1.0, 0.5 * fwhm_px))
    return None if not shown.any() else (shown > 0) & (seen >= 0.5 * shown)


def like_the_psf(frame: Frame, x: np.ndarray, y: np.ndarray, fwhm_px: float) -> np.ndarray:
    """Which sources have the shape that most bright ones share, and are not sharper; bool, shape (n,)."""
    if not len(x):
        return np.zeros(0, bool)
    image = np.where(np.isfinite(frame.sci), frame.sci, frame.level).astype(float)
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    _, shape = moments(image, x, y, fwhm_px, np.full(len(x), frame.level))
    size = _sizes(image - frame.level, x, y, fwhm_px)
    lit = _lit(frame, x, y, fwhm_px)
    bright = lit & (image[row, column] - frame.level > 10 * frame.noise)
    typical, common = _STAR_SIZE, np.zeros(2)
    if bright.sum() >= _FEWEST_STARS:
        typical, common = np.quantile(size[bright], _STAR_QUANTILE), np.median(shape[bright], axis=0)
    return lit & (np.abs(size / typical - 1) < _SAME_SIZE) & (np.hypot(*(shape - common).T) < _SAME_SHAPE)


def _lit(frame: Frame, x: np.ndarray, y: np.ndarray, fwhm_px: float) -> np.ndarray:
    """Peaks whose neighbours along both axes have light as those of a star have, shape (n,), bool."""
    light = np.pad(np.nan_to_num(frame.sci - frame.level).astype(float), 1, mode="edge")
    column, row = np.rint(x).astype(int) + 1, np.rint(y).astype(int) + 1
    across, along = (light[row, column - 1] + light[row, column + 1], light[row - 1, column] + light[row + 1, column])
    expected = 2 * np.exp(-4 * np.log(2) / max(fwhm_px, 1.5) ** 2)
    return np.minimum(across, along) > _LEAST_LIT * expected * np.maximum(light[row, column], 1e-9)


def _sizes(light: np.ndarray, x: np.ndarray, y: np.ndarray, fwhm_px: float) -> np.ndarray:
    """Flux within one FWHM over that within half a FWHM: how far out the light is."""
    wide, narrow = (
        aperture_photometry(light, x, y, fwhm_px, aperture_fwhm=radius).flux for radius in (APERTURE_FWHM, 0.5)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(narrow > 0, wide / narrow, np.inf)


# ---- what becomes of them --------------------------------------------------------------------------------------------
def kept_flux(frame: Frame, after: Method, x: np.ndarray, y: np.ndarray, fwhm_px: float) -> RealStars:
    """Stars above S/N 30 without a brighter neighbour: flagged or not, and the share of the flux that is left."""
    bad = ~np.isfinite(frame.sci)
    before = aperture_photometry(frame.sci, x, y, fwhm_px, err=frame.err, mask=bad, aperture_fwhm=APERTURE_FWHM)
    difference = aperture_photometry(after.sci - frame.sci, x, y, fwhm_px, mask=bad, aperture_fwhm=APERTURE_FWHM)
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = before.flux / before.flux_err
    keep = before.clear & (snr > LEAST_SNR) & isolated(x, y, before.flux, fwhm_px, share=1.0)
    x, y = x[keep], y[keep]
    return RealStars(
        x=x, y=y, snr=snr[keep], flux=before.flux[keep],
        saturated=any_within(saturated(frame), x, y, fwhm_px), flagged=any_within(after.mask, x, y, fwhm_px),
        kept=1 + difference.flux[keep] / before.flux[keep],
    )  # fmt: skip


def saturated(frame: Frame) -> np.ndarray:
    """Pixels that the frame says are saturated, and plateaus at its highest values, shape (H, W), bool."""
    sci = np.where(np.isfinite(frame.sci), frame.sci, frame.level)
    labels, _ = label((sci - frame.level) >= 0.99 * (sci.max() - frame.level))
    size = np.bincount(labels.ravel())
    size[0] = 0
    return has(frame.dq, LOST) | (size[labels] >= _PLATEAU_PX)


def any_within(mask: np.ndarray, x: np.ndarray, y: np.ndarray, radius_px: float) -> np.ndarray:
    """Whether a true pixel lies within a distance of each place, shape (n,), bool."""
    rows, columns = np.nonzero(mask)
    if not len(rows) or not len(x):
        return np.zeros(len(x), bool)
    distance, _ = cKDTree(np.column_stack([columns, rows])).query(np.column_stack([x, y]))
    return distance <= radius_px


def kept_galaxies(frame: Frame, after: Method, fwhm_px: float, largest: int) -> dict[str, np.ndarray]:
    """Sources much larger than a star: place, area [px], flux, and the share of it that is left."""
    from photutils.segmentation import SourceCatalog, detect_sources
    from photutils.utils.exceptions import NoDetectionsWarning
    from scipy.ndimage import gaussian_filter

    level, noise = robust_background(frame.sci[frame.exposed], frame.dq[frame.exposed] != 0)
    light = np.where(np.isfinite(frame.sci), frame.sci - level, 0.0).astype(float)
    smooth = gaussian_filter(light, fwhm_px / 2.355)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoDetectionsWarning)
        segments = detect_sources(smooth, 1.5 * noise, int(10 * max(fwhm_px, 2.0) ** 2))
    names = ("x", "y", "area_px", "flux", "kept")
    if segments is None:
        return {name: np.empty(0) for name in names}
    labels, areas = segments.labels, segments.areas
    order = np.argsort(-areas, kind="stable")
    catalogue = SourceCatalog(light, segments)
    index = segments.data
    flux = np.bincount(index.ravel(), light.ravel())[labels]
    change = np.bincount(index.ravel(), np.nan_to_num(after.sci - frame.sci).astype(float).ravel())[labels]
    columns = (catalogue.x_centroid, catalogue.y_centroid, areas, flux, 1 + change / flux)
    # The half-light radius of a star is half a FWHM, that of a wide Moffat profile 0.7.
    large = np.asarray(catalogue.flux_radius(0.5).value) > 0.9 * fwhm_px
    order = [k for k in order if large[k]][:largest]
    return {name: np.asarray(values, float)[order] for name, values in zip(names, columns, strict=True)}
