"""Real frames: which of their stars are confirmed, and what becomes of them."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.ndimage import maximum_filter
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
_SAME_SIZE, _SAME_SHAPE, _LEAST_LIT = 0.25, 0.25, 0.5
_FEWEST_STARS = 3
_NO_FWHM_PX = 2.5


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
    galaxies : bool
        Whether large sources are measured, too.
    """

    name: str
    files: Sequence[Path]
    judged: Sequence[int]
    one_field: bool = False
    galaxies: bool = False


def real_sets(root: Path) -> list[RealSet]:
    """The sets in a folder of public frames; what is not there is left out."""

    def files(pattern: str) -> list[Path]:
        return sorted(root.glob(pattern))

    microobs, m13 = files("microobs_hatp32/*.fits.gz"), files("m13_blue/*.fits.gz")
    legacy = files("legacypipe/**/*_ooi_*.fits")
    every = len(microobs) - 1
    sets = [
        RealSet("microobs_hatp32", microobs, sorted({0, every // 2, every}), one_field=True),
        RealSet("m13_blue", m13, [len(m13) // 2], one_field=True),
        RealSet("kpno_m51", files("kpno_m51/*.fits"), [0], galaxies=True),
        RealSet("ntt_emmi", files("ntt_emmi/galaxies.fits"), [0], galaxies=True),
        RealSet("saao", files("saao/*.fits"), [0]),
        RealSet("legacypipe", legacy, range(len(legacy))),
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
            extended = kept_galaxies(frame, after, fwhm_px) if chosen.galaxies else {}
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
    fwhm_px = measure(frame).fwhm_px or _NO_FWHM_PX
    x, y = candidates(frame, fwhm_px)
    if chosen.one_field:
        others = [k for k in range(len(chosen.files)) if k != number]
        others = [others[k] for k in np.unique(np.linspace(0, len(others) - 1, _OTHERS).astype(int))]
        seen = seen_again(frame, x, y, [_read(chosen.files[k])[0] for k in others], fwhm_px)
        if seen is not None:
            return (x[seen], y[seen]), fwhm_px, "other exposures"
    like = like_the_psf(frame, x, y, fwhm_px)
    return (x[like], y[like]), fwhm_px, "profile"


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
    height = image[row, column] - frame.level
    padded = np.pad(image - frame.level, 1, mode="edge")
    pairs = [
        padded[row + 1, column] + padded[row + 1, column + 2],
        padded[row, column + 1] + padded[row + 2, column + 1],
    ]
    expected = 2 * np.exp(-4 * np.log(2) / max(fwhm_px, 1.5) ** 2)
    lit = np.minimum(*pairs) / np.maximum(height, 1e-9) > _LEAST_LIT * expected
    bright = lit & (height > 10 * frame.noise)
    if bright.sum() < _FEWEST_STARS:
        return lit
    typical = np.median(size[bright])
    common = np.median(shape[bright], axis=0)
    return lit & (np.abs(size / typical - 1) < _SAME_SIZE) & (np.hypot(*(shape - common).T) < _SAME_SHAPE)


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
    """Pixels that the frame says are saturated, and those of a plateau at its highest values, shape (H, W), bool."""
    sci = np.where(np.isfinite(frame.sci), frame.sci, -np.inf)
    high = sci >= 0.98 * sci.max()
    plateau = high & (maximum_filter(high.astype(np.int8), 1) > 0) if high.sum() > 3 else np.zeros(frame.shape, bool)
    return has(frame.dq, LOST) | plateau


def any_within(mask: np.ndarray, x: np.ndarray, y: np.ndarray, radius_px: float) -> np.ndarray:
    """Whether a true pixel lies within a distance of each place, shape (n,), bool."""
    rows, columns = np.nonzero(mask)
    if not len(rows) or not len(x):
        return np.zeros(len(x), bool)
    distance, _ = cKDTree(np.column_stack([columns, rows])).query(np.column_stack([x, y]))
    return distance <= radius_px


def kept_galaxies(frame: Frame, after: Method, fwhm_px: float, largest: int = 20) -> dict[str, np.ndarray]:
    """Sources much larger than a star: place, area [px], flux, and the share of it that is left."""
    from photutils.segmentation import SourceCatalog, detect_sources
    from scipy.ndimage import gaussian_filter

    level, noise = robust_background(frame.sci[frame.exposed], frame.dq[frame.exposed] != 0)
    light = np.where(np.isfinite(frame.sci), frame.sci - level, 0.0).astype(float)
    smooth = gaussian_filter(light, fwhm_px / 2.355)
    segments = detect_sources(smooth, 1.5 * noise, int(10 * max(fwhm_px, 2.0) ** 2))
    names = ("x", "y", "area_px", "flux", "kept")
    if segments is None:
        return {name: np.empty(0) for name in names}
    labels, areas = segments.labels, segments.areas
    order = np.argsort(-areas)[:largest]
    catalogue = SourceCatalog(light, segments)
    index = segments.data
    flux = np.bincount(index.ravel(), light.ravel())[labels]
    change = np.bincount(index.ravel(), np.nan_to_num(after.sci - frame.sci).astype(float).ravel())[labels]
    columns = (catalogue.x_centroid, catalogue.y_centroid, areas, flux, 1 + change / flux)
    # Star-like sources spread their light as a star does: their half-light radius is a FWHM at most.
    large = np.asarray(catalogue.flux_radius(0.5).value) > 1.2 * fwhm_px
    order = [k for k in order if large[k]]
    return {name: np.asarray(values, float)[order] for name, values in zip(names, columns, strict=True)}
