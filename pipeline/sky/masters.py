"""Master frames: bias, dark and flat files, checked and combined.

Every file is brought to what it stands for before the files of a kind are combined by their median: a bias to ADU, a
dark to ADU per second (where a bias is configured, so that it can be scaled), a flat to a relative response of median 1
over the exposed part. A pixel without a valid value concerns that pixel only.
"""

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.config import SkyIngestConfig
from pipeline.errors import UserError
from pipeline.sky import cards, headers
from pipeline.sky.dq import LOST, UNTRUSTED, has
from pipeline.sky.frames import open_fits
from pipeline.sky.frames.companions import companions, is_ours
from pipeline.sky.frames.hdus import AS_STORED, bits_of, pixels_of
from pipeline.sky.frames.planes import image_shape, kind_of, name_of
from pipeline.sky.master_choice import Choice, Kind, headers_of
from pipeline.sky.remarks import Remarks

if TYPE_CHECKING:
    from astropy.io import fits

#: A pixel of a flat with less than this share of the median light is dead or in the shade: its response is not known.
MIN_RESPONSE = 0.05
# Least share of the exposed pixels with a valid value: below the first, a master is refused; below the second, a
# warning is given.
_MIN_VALID, _FEW_VALID = 0.5, 0.9
# A flat's pixel noise relative to its level: above, it holds no light to speak of.
_MAX_FLAT_NOISE = 0.3
# A master whose level lies this many times its noise below its bias was not read out with that bias.
_BELOW_SIGMA = 5.0
# A bias level is constant to this share of itself from one night to the next.
_BIAS_DRIFT = 0.02
# Quantile of a flat's pixels that is bright, however much of it is in the shade.
_BRIGHT = 0.98
# Share of a flat's pixels at its largest value from which it counts as saturated.
_FULL_SHARE = 0.01
# Levels of the files of one kind agree to this share, or to `_BELOW_SIGMA` times their noise.
_SAME_LEVEL = 0.2
# Pixels that a level is measured from, at most.
_SAMPLE = 1_000_000
# A flat of a higher level after its bias is counts, not relative.
_RAW_FLAT_ADU = 100.0
# Pixels of all files of a kind that are combined at a time.
_STRIP = 20_000_000


@dataclass(frozen=True)
class Recipe:
    """What decides a master.

    Attributes
    ----------
    kind : {"bias", "dark", "flat"}
    images : tuple of Choice
    bias : Recipe, optional
        What is subtracted from each image first.
    section : Section, optional
        The exposed part.
    gain_e_per_adu : float, optional
        Of the frame: images in electrons are divided by it.
    """

    kind: Kind
    images: tuple[Choice, ...]
    bias: "Recipe | None" = None
    section: headers.Section | None = None
    gain_e_per_adu: float | None = None


@dataclass(frozen=True, eq=False)
class Master:
    """Files of one kind, combined.

    Attributes
    ----------
    pixels : ndarray of float32, shape (H, W)
        Bias: ADU. Dark: ADU per second, or ADU where no bias is configured. Flat: relative response. Finite
        everywhere: what is not known has the master's level (bias, dark) or 1 (flat).
    bad : ndarray of bool, shape (H, W)
        Exposed pixels that are not known.
    level : float
        Median over the exposed part.
    noise : float, optional
        One sigma of a pixel, in the unit of `pixels`: from the scatter of the files; of one file, as it gives it, from
        its neighbouring pixels (bias, dark) or its photons (flat). None where it is not known.
    exposure_s : float, optional
        Median over the files; of darks only.
    subtracted_before : bool
        Whether cards of its files say that an overscan or a bias was subtracted from them.
    warnings : tuple of str
    """

    pixels: np.ndarray
    bad: np.ndarray
    level: float
    n_files: int
    noise: float | None = None
    exposure_s: float | None = None
    subtracted_before: bool = False
    warnings: tuple[str, ...] = ()


# ---- combination -----------------------------------------------------------------------------------------------------
@lru_cache(maxsize=4)  # bias, dark and flat of one chip
def build(recipe: Recipe) -> Master:
    """Read, check and combine the files of one kind.

    Raises
    ------
    UserError
        If a file is in a unit that does not fit, has no exposure time that can be used, or has too few valid pixels.
    """
    bias = build(recipe.bias) if recipe.bias else None
    part = recipe.section.slices if recipe.section else (slice(None), slice(None))
    texts: list[str] = []
    images = [_prepared(choice, recipe, bias, part, texts) for choice in recipe.images]
    exposures = [image.exposure_s for image in images if image.exposure_s is not None]
    if bias is None and exposures and max(exposures) > 1.01 * min(exposures):
        raise UserError(
            f"the darks are exposed for {min(exposures):g} to {max(exposures):g} s; configure ingest.sky.bias too, so "
            "that they can be scaled"
        )
    pixels = [image.pixels for image in images]
    if recipe.kind != "flat":
        texts += _odd_levels(pixels, recipe, part)
    master = _finished(recipe, _median(pixels), texts, part)
    return replace(
        master,
        noise=_noise_of_median(pixels, part) if len(images) > 1 else images[0].noise,
        exposure_s=float(np.median(exposures)) if exposures else None,
        subtracted_before=all(image.subtracted_before for image in images),
    )


class _Image(NamedTuple):
    """One file, brought to what its kind stands for; `noise` is one sigma of a pixel, where it is known."""

    pixels: np.ndarray
    noise: float | None
    exposure_s: float | None
    subtracted_before: bool


def _prepared(
    choice: Choice, recipe: Recipe, bias: Master | None, part: tuple[slice, slice], texts: list[str]
) -> _Image:
    pixels, found, noise = _read(choice, recipe, texts)
    _check_valid(pixels[part], recipe.kind, choice.path, texts)
    if bias is not None:
        pixels = _less_bias(pixels, found, bias, recipe.kind, choice.path, part, texts)
    scale, seconds = 1.0, None
    if recipe.kind == "dark":
        seconds = exposure_s(found, f"the dark {choice.path}")
        scale = seconds if bias is not None else 1.0
    if recipe.kind == "flat":
        scale = _light_of(pixels[part], choice.path, texts)
        if noise is None and recipe.gain_e_per_adu is not None and bias is not None and scale > _RAW_FLAT_ADU:
            noise = float(np.sqrt(scale / recipe.gain_e_per_adu))
    elif noise is None:  # an upper limit: its fixed pattern counts, too
        noise = rms_of_neighbours(pixels[part])
    before = subtracted_before(found) is not None
    return _Image(pixels / np.float32(scale), noise and noise / scale, seconds, before)


def _odd_levels(images: Sequence[np.ndarray], recipe: Recipe, part: tuple[slice, slice]) -> list[str]:
    """Warnings: a file that is not like the others of its kind."""
    levels = np.array([np.nanmedian(sample(image[part])) for image in images])
    middle, noise = float(np.median(levels)), rms_of_neighbours(images[0][part])
    odd = np.abs(levels - middle) > max(_BELOW_SIGMA * noise, _SAME_LEVEL * abs(middle))
    return [
        f"the {recipe.kind} {Path(choice.path).name} has a level of {level:.4g}, the others {middle:.4g}: is it a "
        f"{recipe.kind} of this camera?"
        for choice, level in zip(itertools.compress(recipe.images, odd), levels[odd], strict=True)
    ]


def _finished(recipe: Recipe, pixels: np.ndarray, texts: list[str], part: tuple[slice, slice]) -> Master:
    """The combined pixels, with those that are not known filled and marked."""
    unknown = ~np.isfinite(pixels)
    level = 1.0
    if recipe.kind == "flat":
        unknown |= (pixels < MIN_RESPONSE) | (pixels > 1 / MIN_RESPONSE)
        share = 1 - np.count_nonzero(unknown[part]) / unknown[part].size
        if share < _MIN_VALID:
            raise UserError(
                f"the flat {recipe.images[0].path} has light in {share:.0%} of the exposed pixels; it must have some "
                f"in {_MIN_VALID:.0%}: give another in ingest.sky.flat"
            )
        if share < _FEW_VALID:
            texts.append(f"the flat has no light in {1 - share:.0%} of the exposed pixels, which are not corrected")
    else:
        level = float(np.nanmedian(sample(pixels[part])))
    exposed = np.zeros(pixels.shape, bool)
    exposed[part] = True
    return Master(
        pixels=np.where(unknown, np.float32(level), pixels),
        bad=unknown & exposed,
        level=level,
        n_files=len(recipe.images),
        warnings=tuple(dict.fromkeys(texts)),
    )


def _read(
    choice: Choice, recipe: Recipe, texts: list[str]
) -> "tuple[np.ndarray, tuple[fits.Header, ...], float | None]":
    """Pixels in ADU (a flat without a bias: in its own unit), headers, and the noise that the file gives.

    Pixels without a value, or that the file's mask excludes, are NaN.
    """
    with open_fits(choice.path, **AS_STORED) as hdus:
        pixels = np.asarray(pixels_of(hdus[choice.hdu])[0])
        found = headers_of(hdus, choice.hdu)
        masked = _masked(hdus, choice, texts)
        noise = _given_noise(hdus, choice)
    pixels = np.where(masked, np.float32(np.nan), pixels)
    unit = headers.unit_of(headers.Cards(*found))
    if unit == "electron" and (recipe.kind != "flat" or recipe.bias):
        if recipe.gain_e_per_adu is None:
            raise UserError(
                f"the {recipe.kind} {choice.path} is in electrons, the frame in ADU, and the gain is not known; set "
                "ingest.sky.gain_e_per_adu"
            )
        gain = np.float32(recipe.gain_e_per_adu)
        return pixels / gain, found, noise and noise / float(gain)
    if unit not in ("adu", "electron") and recipe.kind != "flat":
        raise UserError(
            f"the {recipe.kind} {choice.path} is in {unit}; ingest.sky.{recipe.kind} needs ADU or electrons"
        )
    return pixels, found, noise


def _masked(hdus: "fits.HDUList", choice: Choice, texts: list[str]) -> np.ndarray:
    """What the masks of a file exclude: lightpool's bits, and whatever another one does not call 0."""
    shape = image_shape(hdus[choice.hdu])
    excluded = np.zeros(shape, bool)
    for number in companions(hdus, choice.hdu, SkyIngestConfig(), Path(choice.path), ("mask",)):
        if image_shape(hdus[number]) != shape:
            continue
        bits = np.asarray(bits_of(hdus[number]))
        own = has(bits.astype(np.uint16), UNTRUSTED | LOST) if is_ours(hdus[number]) else bits != 0
        if not is_ours(hdus[number]) and np.count_nonzero(own) > (1 - _MIN_VALID) * own.size:
            texts.append(
                f"the mask {name_of(hdus[number])} of {Path(choice.path).name} is not used: it excludes most pixels"
            )
            continue
        excluded |= own
    return excluded


def _given_noise(hdus: "fits.HDUList", choice: Choice) -> float | None:
    """Median of the uncertainty that comes with an image, in its unit."""
    for number in companions(hdus, choice.hdu, SkyIngestConfig(), Path(choice.path), ("sigma", "variance")):
        values = sample(np.asarray(pixels_of(hdus[number])[0]))
        values = values[np.isfinite(values) & (values > 0)]
        if values.size:
            middle = float(np.median(values))
            return middle if kind_of(hdus[number]) == "sigma" else float(np.sqrt(middle))
    return None


def _check_valid(exposed: np.ndarray, kind: Kind, path: str, texts: list[str]) -> None:
    values = sample(exposed)
    share = np.count_nonzero(np.isfinite(values)) / values.size
    if share < _MIN_VALID:
        raise UserError(
            f"the {kind} {path} has a value in {share:.0%} of the exposed pixels; it must have one in "
            f"{_MIN_VALID:.0%}: give another in ingest.sky.{kind}"
        )
    if share < _FEW_VALID:
        texts.append(
            f"the {kind} {Path(path).name} has no value in {1 - share:.0%} of the pixels, which are not corrected"
        )


def _less_bias(
    image: np.ndarray,
    found: "Sequence[fits.Header]",
    bias: Master,
    kind: Kind,
    path: str,
    part: tuple[slice, slice],
    texts: list[str],
) -> np.ndarray:
    """The image without its bias, which is subtracted unless that was done before.

    A card says so, or the level: what was read out with a bias is not below it.
    """
    name = Path(path).name
    level, noise = float(np.nanmedian(sample(image[part]))), rms_of_neighbours(image[part])
    done = subtracted_before(found)
    # A bias of which the same is said is in the same state; one of level zero is what remains after an overscan.
    if done is not None and not bias.subtracted_before and abs(bias.level) > max(noise, 1.0):
        texts.append(f"the bias is not subtracted from the {kind} {name}: its card {done} says that this was done")
        return image
    if level - bias.level > -max(noise / 2, _BIAS_DRIFT * abs(bias.level)):
        return image - bias.pixels
    if kind == "dark" and level > max(_BELOW_SIGMA * noise, abs(bias.level) / 2):
        raise UserError(
            f"the dark {path} has a level of {level:.4g} ADU, less than the bias ({bias.level:.4g} ADU); they are not "
            "of one camera and read-out: correct ingest.sky.dark or ingest.sky.bias"
        )
    texts.append(
        f"the bias is not subtracted from the {kind} {name}: with a level of {level:.4g} it lies below the bias "
        f"({bias.level:.4g} ADU), so that it was subtracted before"
    )
    return image


def subtracted_before(found: "Sequence[fits.Header]") -> str | None:
    """The card that says that an image has lost its bias, if any."""
    if found[0].get(cards.ZERO_KNOWN.keyword) is True:
        return cards.ZERO_KNOWN.keyword
    return headers.bias_subtracted(headers.Cards(*found), Remarks())


def _light_of(exposed: np.ndarray, path: str, texts: list[str]) -> float:
    """Level of a flat: the median of the exposed pixels that have light."""
    values = sample(exposed)
    values = values[np.isfinite(values)]
    lit = values[values > max(MIN_RESPONSE * np.quantile(values, _BRIGHT), 0)]
    level = float(np.median(lit)) if lit.size else float(np.median(values))
    noise = rms_of_neighbours(exposed)
    if not level > 0 or noise > _MAX_FLAT_NOISE * level:
        raise UserError(
            f"the flat {path} holds no light: its median is {level:.4g} (bias subtracted, if there is one), its pixel "
            f"noise {noise:.3g}; give another in ingest.sky.flat"
        )
    for value, limit in ((level, 0.5), (float(values.max()), _FULL_SHARE)):
        share = np.count_nonzero(values == value) / values.size
        if share > limit:
            texts.append(
                f"the flat {Path(path).name} has the value {value:.5g} in {share:.0%} of its pixels, where dividing by "
                "it corrects nothing: it is saturated, or stands in for a flat"
            )
            break
    return level


def exposure_s(found: "Sequence[fits.Header]", what: str, kind: type[UserError] = UserError) -> float:
    """Exposure time [s] from the image's header or the primary one.

    Raises
    ------
    UserError
        (or `kind`) if there is none, or it is not positive and finite.
    """
    searched = headers.Cards(*found)
    exposure = headers.find_exposure(searched, Remarks())
    if exposure is not None and exposure.value > 0:
        return exposure.value
    for entry in searched.of_camera(*headers.EXPOSURE_CARDS):
        raise kind(
            f"{what} has an exposure time of {entry.value} ({entry.name}); a dark can be scaled by a positive one"
        )
    raise kind(f"{what} has no exposure time ({', '.join(headers.EXPOSURE_CARDS)}), which is needed to scale a dark")


# ---- statistics ------------------------------------------------------------------------------------------------------
def sample(pixels: np.ndarray, n_pixels: int = _SAMPLE) -> np.ndarray:
    """At most about `n_pixels` of the pixels, on a grid of odd step, which meets all phases of a mosaic."""
    step = max(1, int(np.ceil(np.sqrt(pixels.size / n_pixels))))
    step += step > 1 and step % 2 == 0
    return pixels[::step, ::step]


def rms_of_neighbours(pixels: np.ndarray) -> float:
    """Robust rms of a pixel from the differences of neighbours: a gradient does not count."""
    rows = pixels[:: max(1, int(np.ceil(pixels.size / _SAMPLE)))]
    difference = np.diff(rows, axis=1)
    difference = difference[np.isfinite(difference)]
    if not difference.size:
        return 0.0
    return float(1.4826 * np.median(np.abs(difference - np.median(difference))) / np.sqrt(2))


def _median(images: Sequence[np.ndarray]) -> np.ndarray:
    """Median over the files, of the valid values of each pixel; NaN where there is none."""
    if len(images) == 1:
        return images[0]
    result = np.empty(images[0].shape, np.float32)
    rows = max(1, _STRIP // (len(images) * result.shape[1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # "All-NaN slice encountered"
        for start in range(0, len(result), rows):
            part = slice(start, start + rows)
            stack = np.stack([image[part] for image in images])
            result[part] = np.nanmedian(stack, axis=0) if np.isnan(stack).any() else np.median(stack, axis=0)
    return result


def _noise_of_median(images: Sequence[np.ndarray], part: tuple[slice, slice]) -> float:
    """One sigma of a pixel of the median, from the differences of successive files, which share all but the noise.

    The variance of the median of many normal values is pi / 2 that of their mean; of two files the median is the mean.
    """
    n = len(images)
    parts = [sample(image[part]) for image in images]
    difference = np.concatenate([np.ravel(a - b) for a, b in itertools.pairwise(parts)])
    difference = difference[np.isfinite(difference)]
    if not difference.size:
        return 0.0
    single = 1.4826 * float(np.median(np.abs(difference - np.median(difference)))) / np.sqrt(2)
    return single * np.sqrt((np.pi / 2 if n > 2 else 1.0) / n)
