"""A frame compared with those that a network was trained on; and what is done where it is not like them.

A network has learnt what a defect looks like beside stars of a certain sharpness. It takes sharper ones for cosmic
rays: of 40 stars with a FWHM of 1.6 px, 38 were defects to a model that was trained from 2 px on.
"""

from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np

from pipeline.errors import InputFileError
from pipeline.inputs.population import Population, Unlikeness
from pipeline.sky.dq import UNTRUSTED, has
from pipeline.sky.frame_statistics import FrameStatistics, described
from pipeline.sky.frames import Frame
from pipeline.sky.source_pixels import source_pixels
from pipeline.sky.star_shapes import ELONGATED, SOURCE_SNR, PointSpread
from pipeline.sky.strips import LazyImage, computed, count, part_of, sample_of

#: Ellipticity of what looks like stars, and share of bright rows or columns, from which on together a frame is taken
#: for a spectrum: two of the Kast spectrograph have 0.82 and 0.87, and 0.07 and 0.06; a frame of M13 0.05 and 0.08.
_SPECTRUM_ELLIPTICITY, _SPECTRUM_LINES = 0.5, 0.01
# Where photons come one by one, the noise has no lower tail, and what stands out of it is no defect. Below this noise
# [electron] the skewness of the pixels is looked at (`_skewness`; of Poisson numbers with a mean of 5, it is .08): from
# the first on, a frame is unlike those of training; from the second on (a mean of 1), nothing in it is changed.
_FEW_ELECTRONS, _SKEWED, _COUNTED = 4.0, 0.05, 0.12
_ENOUGH_PIXELS = 8000  # the skewness of Gaussian noise is then within .012 (one sigma)
# Stars below this FWHM, the pixel included, are one pixel when they stand in its middle, as hot pixels are.
_ONE_PIXEL_FWHM = 1.3
#: Types of spectral axes: Greisen et al. (2006), A&A 446, 747, table 1.
_SPECTRAL_AXES = ("FREQ", "ENER", "WAVN", "VRAD", "WAVE", "VOPT", "ZOPT", "AWAV", "VELO", "BETA")
Choice = Literal["keep_sources", "apply", "refuse"]


@dataclass(frozen=True)
class Comparison:
    """A frame beside those of training.

    Attributes
    ----------
    statistics : FrameStatistics, optional
        Of the frame; None where the frames of training are not known.
    score : float, optional
        How far it is from these (`pipeline.inputs.population`): above 1, it is unlike them.
    why : str
        What is unlike training, in at most 68 characters.
    kept : LazyImage of bool, shape (H, W), optional
        Pixels that look like sources and must keep their value.
    is_like : bool
        Whether the frame is like those of training: of `kept`, only what would be painted over keeps its value.
    n_kept : int
        How many they are.
    warnings : tuple of str
        One at most: it names every quantity that is unlike training, or says why sources are not painted over.
    is_mosaic : bool
        Whether neighbouring pixels are of different colours: each colour is then a frame of its own.
    psf : PointSpread, optional
        Of a frame that is like those of training: the shape of its stars, where enough are seen.
    """

    statistics: FrameStatistics | None = None
    score: float | None = None
    why: str = ""
    kept: LazyImage | None = None
    is_like: bool = False
    n_kept: int = 0
    warnings: tuple[str, ...] = ()
    is_mosaic: bool = False
    psf: PointSpread | None = None


def compare(frame: Frame, population: Population | None, choice: Choice, *, may_be_mosaic: bool = True) -> Comparison:
    """Measure a frame and compare it with those that a model was trained on.

    Where these are not known, nothing is measured. In a frame unlike them, pixels that look like sources are to be kept
    (`keep_sources`), or not (`apply`). Where stars are elongated, they are kept from being painted over, and from being
    flagged but beyond doubt: such a star looks like a track. A mosaic of colours that only its background tells is to
    be taken apart, unless it is forced (`apply`). A spectrum is left as it is, whose lines of the night sky look like
    defects, and so are counts of single photons.

    Raises
    ------
    InputFileError
        If the frame is unlike those of training and `choice` is `refuse`.
    """
    if population is None:
        return Comparison()
    statistics, psf = described(frame)
    skewness = _skewness(frame)
    if choice != "apply" and (text := _not_restored(frame, statistics, skewness)):
        if choice == "refuse":
            raise InputFileError(f"{frame.path}: {text}; see predict.outside_range")
        every = computed(_everywhere, frame.sci, dtype=bool)
        text = f"{text}: no pixel is changed; see predict.outside_range"
        score = max(population.compare(asdict(statistics)).score, skewness / _SKEWED)
        short = "a spectrum" if skewness <= _COUNTED else "counts of single photons"
        return Comparison(statistics, score, short, every, n_kept=count(every), warnings=(text,))
    found = _with_few_photons(population.compare(asdict(statistics)), frame, skewness)
    if not found.text:
        known = Comparison(statistics, found.score, is_like=True, psf=psf)
        if choice != "keep_sources" or (statistics.ellipticity or 0.0) <= ELONGATED:
            return known
        text = (
            f"the stars are elongated (ellipticity {statistics.ellipticity:.2f}): what looks like a source is not "
            "painted over, and flagged only beyond doubt: cosmic rays that look like one may stay (DQ bit 128); see "
            "predict.outside_range"
        )
        return replace(known, kept=_sources(frame, psf), warnings=(text,))
    text = f"unlike the frames that the model was trained on: {found.text}"
    if choice == "refuse":
        raise InputFileError(f"{frame.path}: {text}; see predict.outside_range")
    known = Comparison(statistics, found.score, found.short)
    if choice == "apply":
        text = f"{text}; its result is applied everywhere, check stars and defects"
        return replace(known, warnings=(text,))
    if "colour_pattern" in found.outside and may_be_mosaic:
        text = f"{text}; each of its four kinds of pixels is taken for a frame of its own"
        return replace(known, warnings=(text,), is_mosaic=True)
    kept = _sources(frame, psf)
    n_kept = count(kept)
    text = f"{text}; {n_kept} pixels that look like sources keep their values"
    return replace(known, kept=kept, n_kept=n_kept, warnings=(text,))


def _not_restored(frame: Frame, statistics: FrameStatistics, skewness: float) -> str:
    """Why nothing is changed in a frame; empty where it can be."""
    if why := _spectral(frame, statistics):
        return f"this is a spectrum ({why}), and the model restores images of the sky"
    if skewness > _COUNTED:
        return f"these are counts of single photons ({_few(frame)}), and the model knows the noise of many"
    return ""


def _few(frame: Frame) -> str:
    return f"noise of {frame.noise:.2g} electron with a tail upwards"


def _with_few_photons(found: Unlikeness, frame: Frame, skewness: float) -> Unlikeness:
    if skewness <= _SKEWED:
        return found
    text = f"few photons per pixel ({_few(frame)})"
    return found._replace(
        score=max(found.score, skewness / _SKEWED),
        text=f"{found.text}, {text}" if found.text else text,
        short=found.short or "few photons per pixel",
    )


def _skewness(frame: Frame) -> float:
    """Of the pixels of a frame with little noise: how much further the upper tenth is from the median than the lower,
    over their distance; 0 for other and small frames, and where electrons are not known.
    """
    if frame.unit != "electron" or not frame.noise < _FEW_ELECTRONS:
        return 0.0
    usable = computed(
        lambda sci, dq: np.where(has(dq, UNTRUSTED), np.float32(np.nan), sci), frame.sci, frame.dq, dtype=np.float32
    )
    pixels = sample_of(part_of(usable, frame.exposed))
    pixels = pixels[np.isfinite(pixels)]
    if pixels.size < _ENOUGH_PIXELS:
        return 0.0
    low, middle, high = np.quantile(pixels, [0.1, 0.5, 0.9])
    return float((high + low - 2 * middle) / (high - low)) if high > low else 0.0


def _spectral(frame: Frame, statistics: FrameStatistics) -> str:
    """What tells that a frame is a spectrum; empty where nothing does."""
    for axis in (1, 2):
        kind = str((frame.header or {}).get(f"CTYPE{axis}", "")).strip().upper()
        if kind[:4] in _SPECTRAL_AXES:
            return f"its axis {axis} is {kind}"
    if (statistics.ellipticity or 0) > _SPECTRUM_ELLIPTICITY and statistics.lit_lines > _SPECTRUM_LINES:
        return (
            f"{statistics.lit_lines:.1%} of its rows or columns are bright from end to end, and what is bright has the "
            f"ellipticity {statistics.ellipticity:.2f}"
        )
    return ""


def _sources(frame: Frame, psf: PointSpread | None) -> LazyImage:
    """Pixels that look like sources and are no known defects, shape (H, W), bool: every bright one, where stars do."""
    sources = source_pixels(frame, psf)
    if psf is not None and psf.fwhm_px < _ONE_PIXEL_FWHM:
        limit = np.float32(frame.level + SOURCE_SNR * frame.noise)
        sources = computed(lambda sources, sci: sources | (sci > limit), sources, frame.sci, dtype=bool)
    return computed(_trusted, sources, frame.sci, frame.dq, dtype=bool)


def _everywhere(sci: np.ndarray) -> np.ndarray:
    return np.ones(sci.shape, bool)


def _trusted(sources: np.ndarray, sci: np.ndarray, dq: np.ndarray) -> np.ndarray:
    return sources & np.isfinite(sci) & ~has(dq, UNTRUSTED)


def mosaic_taken_apart(source: str) -> Comparison:
    """Of a frame that is said to be a mosaic: its kinds of pixels are compared, each on its own."""
    return Comparison(
        warnings=(f"colour mosaic ({source}): each of its four kinds of pixels is restored as a frame of its own",),
        is_mosaic=True,
    )
