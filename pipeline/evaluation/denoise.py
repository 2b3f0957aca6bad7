"""Restored sky frames against the truth, or against other exposures of the same field where there is no truth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline import statistics
from pipeline.config import EvaluateConfig
from pipeline.evaluation.comparison import NETWORK, Comparison, Metric, compare, merge_json
from pipeline.evaluation.result import Bin, CaptionedFigure, Result, bins_table, compare_in_bins, series_of
from pipeline.figures import denoise
from pipeline.figures.denoise import Cutout
from pipeline.sky.baselines import psnr_db
from pipeline.sky.dq import DEFECTS, DQ, LOST, has
from pipeline.sky.photometry import aperture_photometry, detect_stars, isolated, measure_fwhm

NOISY = "noisy"
FALSE_ALARM_RATE = 0.0005

#: Stars that count for the flux metrics: their own photon noise is then below 5 %.
STAR_SNR = 20.0
#: Fainter ones are shown in the figure only.
SHOWN_SNR = 5.0
# Detected on the very frame that is compared: a star that noise made brighter is preferred. At this signal-to-noise
# ratio the effect is below 0.1 %.
PAIR_STAR_SNR = 40.0
FEWEST_STARS = 10

_SKY_SIGMA = 5.0
_PULLS_PER_FIELD = 20_000
_PROBABILITY_BINS = 4096
_CUTOUT_PX = 96
_UNIT_SUFFIX = {"electron": "e", "adu": "adu"}


@dataclass(frozen=True)
class Pair:
    """One tile of another exposure, registered: `clean` (size, size) at (x0, y0), NaN where it must not be used."""

    x0: int
    y0: int
    image: np.ndarray


@dataclass(frozen=True)
class Field:
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

    def has(self, bits: DQ) -> np.ndarray:
        """Pixels with any of these bits, shape (H, W), bool."""
        return has(self.dq, bits)


@dataclass(frozen=True)
class Score:
    """What one field adds to the figures of merit; small, so that fields need not be kept.

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
    cutout : Cutout
    """

    name: str
    unit: str
    per_method: Mapping[str, Mapping[str, float]]
    stars: Mapping[str, np.ndarray]
    defect_counts: np.ndarray
    good_counts: np.ndarray
    pulls: np.ndarray
    cutout: Cutout


# ---- one field -------------------------------------------------------------------------------------------------------
def score_against_truth(frame: Field, seed: int) -> Score:
    """Errors of every method on one simulated frame."""
    judged = np.isfinite(frame.clean) & np.isfinite(frame.sci) & ~frame.has(LOST)
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
    pulls = ((frame.restored[NETWORK] - frame.clean) / frame.restored_err).ravel()[chosen]
    return Score(
        name=frame.name,
        unit=frame.unit,
        per_method=per_method,
        stars=_stars_against_truth(frame),
        defect_counts=_by_probability(frame.defect_probability[defect]),
        good_counts=_by_probability(frame.defect_probability[good]),
        pulls=pulls,
        cutout=_cutout(frame, frame.clean),
    )


def score_against_exposures(frame: Field) -> Score:
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
            found = (squared[keep].sum(), keep.sum(), squared[sky].sum(), sky.sum())
            for name, value in zip(names, found, strict=True):
                sums[method][name] += float(value)
    nothing = np.zeros(_PROBABILITY_BINS)
    return Score(
        name=frame.name,
        unit=frame.unit,
        per_method=sums,
        stars=_stars_against_raw(frame),
        defect_counts=nothing,
        good_counts=nothing,
        pulls=np.empty(0),
        cutout=_cutout(frame, None),
    )


def _stretched(image: np.ndarray, frame: Field) -> np.ndarray:
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
    return np.histogram(logit, _PROBABILITY_BINS, range=(-21, 21))[0].astype(float)


def _stars_against_truth(frame: Field) -> dict[str, np.ndarray]:
    """Flux errors at the true positions: photometry of each method's difference from the truth.

    Photometry of the frames themselves would compare two backgrounds: faint neighbours in the ring are clipped away
    on a frame without noise, and hide in the noise of the other.
    """
    x, y = (np.asarray(frame.stars.get(name, ()), float) for name in ("x", "y"))
    fwhm = frame.fwhm_px or 3.0
    lost = ~np.isfinite(frame.sci) | frame.has(LOST)
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


def _stars_against_raw(frame: Field) -> dict[str, np.ndarray]:
    """The same relative to the frame as it was recorded, of stars that the other exposure shows as well."""
    bad = ~np.isfinite(frame.sci) | (frame.dq != 0)
    found = detect_stars(frame.sci, frame.level, frame.noise, mask=bad)
    x, y = found["x"], found["y"]
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


def _cutout(frame: Field, truth: np.ndarray | None) -> Cutout:
    """The place of the frame with most defects, where its stars are too; or the first tile that has a partner."""
    if truth is None and frame.pairs:
        pair = frame.pairs[len(frame.pairs) // 2]
        y0, x0 = pair.y0, pair.x0
        part = (slice(y0, y0 + pair.image.shape[0]), slice(x0, x0 + pair.image.shape[1]))
        beside = pair.image
    else:
        part = _busiest(frame.has(DEFECTS) & ~frame.has(LOST), _CUTOUT_PX)
        beside = None if truth is None else truth[part]
    before = np.where(frame.has(DQ.MISSING), np.nan, frame.sci)[part]
    return Cutout(
        title=frame.name,
        before=before,
        restored=frame.restored[NETWORK][part],
        truth=beside,
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


# ---- all fields ------------------------------------------------------------------------------------------------------
def _mean(name: str) -> Metric:
    return Metric(name, "higher", lambda prediction, weights: statistics.mean(prediction[name], weights))


def _root_mean_square(name: str, sum_of_squares: str, count: str) -> Metric:
    """Pooled over the pixels of all fields."""

    def statistic(prediction: Mapping[str, np.ndarray], weights: np.ndarray) -> np.ndarray:
        n_pixels = weights @ prediction[count]
        return np.sqrt((weights @ prediction[sum_of_squares]) / np.where(n_pixels > 0, n_pixels, np.nan))

    return Metric(name, "lower", statistic)


FLUX_BIAS = Metric("flux_bias", "lower", statistics.median, absolute=True)
FLUX_SCATTER = Metric("flux_scatter", "lower", statistics.containment)


def evaluate_against_truth(scores: Sequence[Score], cfg: EvaluateConfig, *, seed: int) -> Result:
    """Join the fields of the test split into figures of merit with intervals over fields.

    Parameters
    ----------
    scores : sequence of Score
        From `score_against_truth`.
    cfg : EvaluateConfig
    seed : int
    """
    suffix = _UNIT_SUFFIX.get(scores[0].unit, "sci")
    metrics = (
        _mean("psnr_db"),
        _mean("psnr_clean_pixels_db"),
        _mean("ssim"),
        _root_mean_square(f"defect_rmse_{suffix}", "defect_sse", "n_defect"),
        _root_mean_square("sky_rms_sigma", "empty_sse", "n_empty"),
    )
    fields = _compare_fields(metrics, scores, cfg, seed)
    found = compare(
        (Metric(f"tpr_at_fpr_{FALSE_ALARM_RATE:g}", "higher", _detection_rate),),
        {NETWORK: (_stacked(scores, "defect_counts"), _stacked(scores, "good_counts"))},
        np.arange(len(scores)),
        np.ones(len(scores)),
        n_resamples=cfg.bootstrap,
        seed=seed,
    )
    stars = _Stars(scores)
    parts = [fields.to_json(), found.to_json()]
    bins: list[Bin] = []
    figures = [_cutout_figure(scores, "truth")]
    if stars.enough(STAR_SNR):
        parts += [stars.compare((FLUX_BIAS,), stars.bright(STAR_SNR) & stars.clear, cfg, seed).to_json()]
        parts += [stars.compare((FLUX_SCATTER,), stars.bright(STAR_SNR), cfg, seed).to_json()]
        bins = stars.bins(stars.clear, cfg, seed)
        figures.append(_flux_figure(stars, bins, stars.clear, "true flux", "magnitude"))
    pulls = np.concatenate([score.pulls for score in scores])
    low, middle, high = np.quantile(pulls, [0.158655, 0.5, 0.841345])
    figures.append(_pull_figure(pulls, float(middle), float(high - low) / 2))
    content = merge_json(parts)
    content["calibration"] = {"pull_median": float(middle), "pull_width": float(high - low) / 2}
    return Result(content=content, bins=bins, tables=_tables(scores, stars, bins), figures=figures)


def evaluate_against_exposures(scores: Sequence[Score], cfg: EvaluateConfig, *, seed: int) -> Result:
    """The same without a truth: scores from `score_against_exposures`."""
    suffix = _UNIT_SUFFIX.get(scores[0].unit, "sci")
    metrics = (
        _root_mean_square(f"n2n_rms_{suffix}", "pair_sse", "n_pair"),
        _root_mean_square(f"n2n_sky_rms_{suffix}", "pair_sky_sse", "n_pair_sky"),
    )
    fields = _compare_fields(metrics, scores, cfg, seed)
    stars = _Stars(scores)
    parts = [fields.to_json()]
    bins: list[Bin] = []
    figures = [_cutout_figure(scores, "other exposure")]
    if stars.enough(PAIR_STAR_SNR):
        parts += [stars.compare((FLUX_BIAS, FLUX_SCATTER), stars.bright(PAIR_STAR_SNR), cfg, seed).to_json()]
        bins = stars.bins(stars.bright(PAIR_STAR_SNR), cfg, seed)
        label = "instrumental magnitude, −2.5 log10 of the flux"
        figures.append(_flux_figure(stars, bins, stars.bright(SHOWN_SNR), "flux as recorded", label))
    return Result(content=merge_json(parts), bins=bins, tables=_tables(scores, stars, bins), figures=figures)


def _compare_fields(metrics: Sequence[Metric], scores: Sequence[Score], cfg: EvaluateConfig, seed: int) -> Comparison:
    names = list(scores[0].per_method[NETWORK])
    predictions = {
        method: {name: np.array([score.per_method[method][name] for score in scores]) for name in names}
        for method in scores[0].per_method
    }
    n = len(scores)
    return compare(metrics, predictions, np.arange(n), np.ones(n), n_resamples=cfg.bootstrap, seed=seed)


def _stacked(scores: Sequence[Score], name: str) -> np.ndarray:
    return np.stack([getattr(score, name) for score in scores])


def _detection_rate(counts: tuple[np.ndarray, np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Share of defect pixels above the threshold that `FALSE_ALARM_RATE` of the good pixels pass."""
    # Cumulated from the highest probability down: one step of the ROC curve per bin.
    found, alarms = (np.cumsum((weights @ part)[:, ::-1], axis=1) for part in counts)
    with np.errstate(invalid="ignore", divide="ignore"):
        rates, false_rates = found / found[:, -1:], alarms / alarms[:, -1:]
    return np.array([np.interp(FALSE_ALARM_RATE, f, r) for f, r in zip(false_rates, rates, strict=True)])


class _Stars:
    """The stars of all fields."""

    def __init__(self, scores: Sequence[Score]) -> None:
        names = list(scores[0].stars)
        columns = {name: np.concatenate([score.stars[name] for score in scores]) for name in names}
        self.magnitude, self.snr = columns.pop("magnitude"), columns.pop("snr")
        self.clear = columns.pop("clear").astype(bool)
        self.errors = columns
        self.group = np.repeat(np.arange(len(scores)), [len(score.stars["snr"]) for score in scores])

    def bright(self, snr: float) -> np.ndarray:
        """Stars above a signal-to-noise ratio."""
        return self.snr > snr

    def enough(self, snr: float) -> bool:
        """Whether there is anything to say about fluxes."""
        return int((self.bright(snr) & self.clear).sum()) >= FEWEST_STARS

    def compare(self, metrics: Sequence[Metric], keep: np.ndarray, cfg: EvaluateConfig, seed: int) -> Comparison:
        """Flux metrics of the stars in `keep`, over fields."""
        predictions = {method: error[keep] for method, error in self.errors.items()}
        n = int(keep.sum())
        return compare(metrics, predictions, self.group[keep], np.ones(n), n_resamples=cfg.bootstrap, seed=seed)

    def bins(self, keep: np.ndarray, cfg: EvaluateConfig, seed: int) -> list[Bin]:
        """Flux bias in whole magnitudes."""
        shown = self.magnitude[keep]
        edges = np.arange(np.floor(shown.min()), np.ceil(shown.max()) + 1)
        edges = edges if len(edges) > 1 else np.array([edges[0], edges[0] + 1])
        selections = [(low, high, inside & keep) for low, high, inside in statistics.bins_of(self.magnitude, edges)]

        def compare_selected(inside: np.ndarray) -> Comparison | None:
            return self.compare((FLUX_BIAS,), inside, cfg, seed) if inside.sum() >= FEWEST_STARS else None

        return compare_in_bins("magnitude", selections, compare_selected)


# ---- figures and tables ----------------------------------------------------------------------------------------------
def _cutout_figure(scores: Sequence[Score], beside: str) -> CaptionedFigure:
    spread = np.unique(np.linspace(0, len(scores) - 1, 4).astype(int))
    text = (
        "Places with defects in test frames: as recorded, restored, "
        + ("truth" if beside == "truth" else "another exposure of the same place (with noise of its own)")
        + ", and what is left between the last two in units of the background noise. Grey: missing data. "
    )
    text += (
        "A good restoration leaves no star and no track in the last column."
        if beside == "truth"
        else "The last column should be noise alone: that of the other exposure."
    )
    figure = denoise.cutouts([scores[i].cutout for i in spread], truth_label=beside)
    return CaptionedFigure("cutouts.png", "Before and after", text, figure)


def _flux_figure(
    stars: _Stars, bins: Sequence[Bin], keep: np.ndarray, reference: str, magnitude_label: str
) -> CaptionedFigure:
    figure = denoise.flux_bias(
        stars.magnitude[keep],
        {method: error[keep] for method, error in stars.errors.items()},
        series_of(bins, "flux_bias"),
        magnitude_label=magnitude_label,
        reference=reference,
    )
    return CaptionedFigure(
        "flux_bias.png",
        "Flux of the stars",
        f"Relative error of each star's aperture flux against the {reference}, in the same aperture; black: medians "
        "per magnitude with 95 % intervals over fields. The grey band is ±1 %. A method that eats light lies below "
        "zero; a trend with magnitude would bend a light curve.",
        figure,
    )


def _pull_figure(pulls: np.ndarray, median: float, width: float) -> CaptionedFigure:
    return CaptionedFigure(
        "pull.png",
        "Stated errors",
        "Error of restored good pixels divided by the uncertainty that the network states (its ERR plane). Where it "
        "follows the dashed unit Gaussian, the stated uncertainty can be used.",
        denoise.pull(pulls, width=width, median=median),
    )


def _tables(scores: Sequence[Score], stars: _Stars, bins: Sequence[Bin]):
    from astropy.table import Table

    rows = [
        {"field": score.name, "method": method, **numbers}
        for score in scores
        for method, numbers in score.per_method.items()
    ]
    names = np.array([score.name for score in scores])
    errors = {f"flux_error_{method}": error for method, error in stars.errors.items()}
    return {
        "bins": bins_table(bins),
        "fields": Table(rows=rows),
        "stars": Table(
            {"field": names[stars.group], "magnitude": stars.magnitude, "snr": stars.snr, "clear": stars.clear} | errors
        ),
    }
