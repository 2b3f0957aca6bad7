"""One restored sky frame against its truth, or against other exposures of its field where there is no truth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.bundle.variance import PULLS, counted
from pipeline.evaluation.comparison import NETWORK
from pipeline.figures.denoise import Cutout
from pipeline.sky.baselines import psnr_db
from pipeline.sky.dq import DEFECTS, DQ, UNJUDGED, has
from pipeline.sky.photometry import aperture_photometry, detect_stars, isolated, measure_fwhm
from pipeline.tasks.denoise.confidence import KINDS, strata_of_truth

NOISY = "noisy"
#: Fainter stars are left out altogether.
SHOWN_SNR = 5.0

_SKY_SIGMA = 5.0
_PULLS_PER_FIELD = 20_000
PROBABILITY_BINS = 4096
_CUTOUT_PX = 96


@dataclass(frozen=True)
class Pair:
    """One tile of another exposure, registered: `clean` (size, size) at (x0, y0), NaN where it must not be used."""

    x0: int
    y0: int
    image: np.ndarray


@dataclass(frozen=True)
class JudgedFrame:
    """One frame as it was recorded, what is known of it, and what each method makes of it.

    Attributes
    ----------
    name : str
    sci, err : ndarray, shape (H, W)
        In `unit`.
    dq : ndarray of uint16, shape (H, W)
        With the true defects, where there is a truth.
    level, noise : float
        Background and its rms.
    clean : ndarray, shape (H, W)
        The truth; or other exposures of each place, put together, NaN where there is none.
    stars : mapping
        x, y [px] and mag of the true stars.
    fwhm_px : float, optional
    pairs : sequence of Pair
        Tiles of other exposures, where there is no truth.
    restored : mapping
        Method -> ndarray, shape (H, W).
    restored_err, defect_probability : ndarray, shape (H, W)
        The network's.
    painted : ndarray of bool, shape (H, W)
        Where it has replaced what was measured.
    registration : mapping
        Of an exposure of a field: `placed`, `matrix` and `offset_px` to the field's reference.
    """

    name: str
    sci: np.ndarray
    err: np.ndarray
    dq: np.ndarray
    level: float
    noise: float
    unit: str
    clean: np.ndarray
    stars: Mapping[str, np.ndarray] = field(default_factory=dict)
    fwhm_px: float | None = None
    pairs: Sequence[Pair] = ()
    restored: Mapping[str, np.ndarray] = field(default_factory=dict)
    restored_err: np.ndarray | None = None
    defect_probability: np.ndarray | None = None
    painted: np.ndarray | None = None
    registration: Mapping[str, Any] = field(default_factory=dict)

    def has(self, bits: DQ) -> np.ndarray:
        """Pixels with any of these bits, shape (H, W), bool."""
        return has(self.dq, bits)


@dataclass(frozen=True)
class Score:
    """What one frame adds to the figures of merit; small, so that frames need not be kept.

    Attributes
    ----------
    per_method : mapping
        Method -> name -> number.
    stars : mapping
        `magnitude`, `snr`, `clear` (no defect in the aperture) and method -> flux / reference - 1, shape (n,).
    defect_counts, good_counts : ndarray, shape (n_bins,)
        Pixels by the network's defect probability.
    pulls : ndarray
        (restored - truth) / stated error of some good pixels.
    pull_counts : ndarray, shape (n_strata, n_bins)
        The same of all pixels, by stratum, see `pipeline.bundle.variance.counted`.
    cutout : Cutout
    """

    name: str
    unit: str
    per_method: Mapping[str, Mapping[str, float]]
    stars: Mapping[str, np.ndarray]
    defect_counts: np.ndarray
    good_counts: np.ndarray
    pulls: np.ndarray
    pull_counts: np.ndarray
    cutout: Cutout


# ---- scores ----------------------------------------------------------------------------------------------------------
def score_against_truth(frame: JudgedFrame, seed: int) -> Score:
    """Errors of every method on one simulated frame."""
    judged = np.isfinite(frame.clean) & np.isfinite(frame.sci) & ~frame.has(UNJUDGED)
    defect = judged & frame.has(DEFECTS)
    good = judged & ~defect
    empty = good & (frame.clean < frame.level + 0.5 * frame.noise)
    truth = _stretched(frame.clean, frame)
    per_method = {}
    for method, image in frame.restored.items():
        error = (image - frame.clean).astype(float)
        per_method[method] = {
            "psnr_db": psnr_db(image, frame.clean, judged),
            "psnr_clean_pixels_db": psnr_db(image, frame.clean, good),
            "ssim": _ssim(_stretched(image, frame), truth, judged),
            "defect_sse": float(np.square(error[defect]).sum()),
            "n_defect": float(defect.sum()),
            "empty_sse": float(np.square(error[empty] / frame.noise).sum()),
            "n_empty": float(empty.sum()),
        }
    # Frames that are alike draw alike: the number of pixels keys the choice, not the order of the fields.
    chosen = np.random.default_rng([seed, int(good.sum())]).permutation(np.flatnonzero(good))[:_PULLS_PER_FIELD]
    pulls = (frame.restored[NETWORK] - frame.clean) / frame.restored_err
    missing = frame.has(DQ.MISSING) | ~np.isfinite(frame.sci)
    place = strata_of_truth((frame.clean - frame.level) / frame.noise, frame.painted, missing, frame.dq)
    return Score(
        name=frame.name,
        unit=frame.unit,
        per_method=per_method,
        stars=_stars_against_truth(frame),
        defect_counts=_by_probability(frame.defect_probability[defect]),
        good_counts=_by_probability(frame.defect_probability[good]),
        pulls=pulls.ravel()[chosen],
        pull_counts=counted(pulls, place, len(KINDS)),
        cutout=_cutout(frame, frame.clean),
    )


def score_against_exposures(frame: JudgedFrame) -> Score:
    """Differences of every method from other exposures of the field, which share its sky but not its noise."""
    usable = np.isfinite(frame.sci) & (frame.dq == 0)
    names = ("pair_sse", "n_pair", "pair_sky_sse", "n_pair_sky")
    sums = {method: dict.fromkeys(names, 0.0) for method in frame.restored}
    for pair in frame.pairs:
        part = (slice(pair.y0, pair.y0 + pair.image.shape[0]), slice(pair.x0, pair.x0 + pair.image.shape[1]))
        keep = usable[part] & np.isfinite(pair.image)
        # Chosen by the other exposure alone: the same pixels for every method. Stars are left out, for there the
        # small remaining drift between the exposures outweighs any noise.
        sky = keep & (np.abs(pair.image - frame.level) < _SKY_SIGMA * frame.noise)
        for method, image in frame.restored.items():
            squared = np.square((image[part] - pair.image).astype(float))
            totals = (squared[keep].sum(), keep.sum(), squared[sky].sum(), sky.sum())
            for name, value in zip(names, totals, strict=True):
                sums[method][name] += float(value)
    no_pixels = np.zeros(PROBABILITY_BINS)
    return Score(
        name=frame.name,
        unit=frame.unit,
        per_method=sums,
        stars=_stars_against_raw(frame),
        defect_counts=no_pixels,
        good_counts=no_pixels,
        pulls=np.empty(0),
        pull_counts=np.zeros((len(KINDS), len(PULLS) - 1)),
        cutout=_cutout(frame, None),
    )


def _stretched(image: np.ndarray, frame: JudgedFrame) -> np.ndarray:
    """Arcsinh of the signal in units of the noise: on a linear scale one bright star is all that SSIM sees."""
    return np.arcsinh((image - frame.level) / frame.noise)


def _ssim(image: np.ndarray, truth: np.ndarray, judged: np.ndarray) -> float:
    """Mean structural similarity of the judged pixels; what is not judged is made equal beforehand."""
    from skimage.metrics import structural_similarity

    filled = np.where(np.isfinite(truth), truth, 0.0)
    span = float(filled[judged].max() - filled[judged].min())
    _, similarity = structural_similarity(np.where(judged, image, filled), filled, data_range=span, full=True)
    return float(similarity[judged].mean())


def _by_probability(probability: np.ndarray) -> np.ndarray:
    """Histogram on a scale that resolves both ends, where a detector is used."""
    clipped = np.clip(probability.astype(float), 1e-9, 1 - 1e-9)
    logit = np.log(clipped / (1 - clipped))
    return np.histogram(logit, PROBABILITY_BINS, range=(-21, 21))[0].astype(float)


def _stars_against_truth(frame: JudgedFrame) -> dict[str, np.ndarray]:
    """Flux errors at the true positions: photometry of each method's difference from the truth.

    Photometry of the frames themselves would compare two backgrounds: faint neighbours in the ring are clipped away
    on a frame without noise, and hide in the noise of the other.
    """
    x, y = (np.asarray(frame.stars.get(name, ()), float) for name in ("x", "y"))
    fwhm = frame.fwhm_px or 3.0
    lost = ~np.isfinite(frame.sci) | frame.has(UNJUDGED)
    truth = aperture_photometry(frame.clean, x, y, fwhm, err=frame.err, mask=lost)
    untouched = aperture_photometry(frame.sci, x, y, fwhm, mask=lost | frame.has(DEFECTS))
    keep = truth.clear & (truth.flux > 0) & isolated(x, y, truth.flux, 2 * fwhm)
    measured = {
        method: aperture_photometry(image - frame.clean, x, y, fwhm, mask=lost).flux
        for method, image in frame.restored.items()
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = truth.flux / truth.flux_err
        errors = {method: flux / truth.flux for method, flux in measured.items()}
        keep &= (snr > SHOWN_SNR) & np.isfinite(list(errors.values())).all(axis=0)
        magnitude = np.asarray(frame.stars.get("mag", -2.5 * np.log10(truth.flux)), float)
    columns = {"magnitude": magnitude, "snr": snr, "clear": untouched.clear, **errors}
    return {name: column[keep] for name, column in columns.items()}


def _stars_against_raw(frame: JudgedFrame) -> dict[str, np.ndarray]:
    """The same relative to the frame as it was recorded, of stars that the other exposure shows as well."""
    bad = ~np.isfinite(frame.sci) | (frame.dq != 0)
    detected = detect_stars(frame.sci, frame.level, frame.noise, mask=bad)
    x, y = detected["x"], detected["y"]
    fwhm = 3.0
    # Twice: cosmic rays and hot pixels must be gone before the width of the stars is measured.
    for _ in range(2):
        raw = aperture_photometry(frame.sci, x, y, fwhm, err=frame.err, mask=bad)
        other = aperture_photometry(frame.clean, x, y, fwhm)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = other.flux / raw.flux
        keep = raw.clear & other.clear & (raw.flux > 0) & (ratio > 0.5) & (ratio < 2.0)
        fwhm = measure_fwhm(frame.sci, x[keep], y[keep], frame.level)
    keep &= isolated(x, y, raw.flux, 2 * fwhm)
    measured = {
        method: aperture_photometry(image - frame.sci, x, y, fwhm, mask=bad).flux
        for method, image in frame.restored.items()
        if method != NOISY
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = raw.flux / raw.flux_err
        errors = {method: flux / raw.flux for method, flux in measured.items()}
        keep &= (snr > SHOWN_SNR) & np.isfinite(list(errors.values())).all(axis=0)
        columns = {"magnitude": -2.5 * np.log10(raw.flux), "snr": snr, "clear": raw.clear, **errors}
    return {name: column[keep] for name, column in columns.items()}


def _cutout(frame: JudgedFrame, truth: np.ndarray | None) -> Cutout:
    """The place of the frame with most defects, where its stars are too; or the first tile that has a partner."""
    if truth is None and frame.pairs:
        pair = frame.pairs[len(frame.pairs) // 2]
        y0, x0 = pair.y0, pair.x0
        part = (slice(y0, y0 + pair.image.shape[0]), slice(x0, x0 + pair.image.shape[1]))
        reference = pair.image
    else:
        part = _busiest(frame.has(DEFECTS) & ~frame.has(UNJUDGED), _CUTOUT_PX)
        reference = None if truth is None else truth[part]
    before = np.where(frame.has(DQ.MISSING), np.nan, frame.sci)[part]
    return Cutout(
        title=frame.name,
        before=before,
        restored=frame.restored[NETWORK][part],
        truth=reference,
        level=frame.level,
        noise=frame.noise,
        unit="e−" if frame.unit == "electron" else frame.unit,
    )


def _busiest(mask: np.ndarray, size: int) -> tuple[slice, slice]:
    """The window of `size` px, on a coarse grid, with most true pixels."""
    height, width = mask.shape
    starts = [
        (y, x)
        for y in range(0, max(height - size, 0) + 1, max(size // 3, 1))
        for x in range(0, max(width - size, 0) + 1, max(size // 3, 1))
    ]
    y, x = max(starts, key=lambda s: np.count_nonzero(mask[s[0] : s[0] + size, s[1] : s[1] + size]))
    return slice(y, y + size), slice(x, x + size)
