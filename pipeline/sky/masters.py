"""Master frames: which image of a bias, dark or flat file belongs to a frame, their combination, and its checks.

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
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from pipeline.config import SkyIngestConfig
from pipeline.errors import UserError
from pipeline.sky import cards, headers
from pipeline.sky.dq import LOST, UNTRUSTED, has
from pipeline.sky.frames import open_fits, science_hdus
from pipeline.sky.frames.hdus import bits_of, pixels_of
from pipeline.sky.remarks import Remarks

if TYPE_CHECKING:
    from astropy.io import fits

Kind = Literal["bias", "dark", "flat"]

# Extensions that describe another image and are no image of their own.
_COMPANIONS = frozenset(
    (
        "ERR", "ERROR", "SIGMA", "VAR", "VARIANCE", "IVAR", "UNCERT", "WHT", "WEIGHT", "WMAP", "CONFIDENCE",
        "DQ", "MASK", "FLAGS", "LPDQ",
    )
)  # fmt: skip
_CHIP_CARDS = ("CCDNAME", "CHIPID", "CCDCHIP", "CCDNUM", "CCDID", "ESO DET CHIP1 ID", "ESO DET CHIP ID")
# Cards that must agree between a frame and its masters, with what they describe.
_READOUT_CARDS = {
    "CCDSUM": "binning",
    "XBINNING": "binning",
    "YBINNING": "binning",
    "ESO DET WIN1 BINX": "binning",
    "ESO DET WIN1 BINY": "binning",
    "DETSEC": "window",
    "CCDSEC": "window",
}
_FILTER_CARDS = ("FILTER", "FILTER1", "FILTER2", "FILTNAM", "INSFLNAM", "ESO INS FILT1 NAME")
# Largest difference of two gains that is rounding.
_SAME_GAIN = 0.02

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
# Pixels of all files of a kind that are combined at a time.
_STRIP = 20_000_000


class Choice(NamedTuple):
    """One image of a file."""

    path: str
    hdu: int


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
        One sigma of a pixel of the master, in the unit of `pixels`, from the scatter of its files; None for one file.
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


# ---- which image of a file -------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Target:
    """The frame that masters are chosen for.

    Attributes
    ----------
    headers : tuple of Header
        Its own, then the primary one.
    position, n_images : int
        Its place among the science images of its file, and their number.
    """

    path: Path
    shape: tuple[int, int]
    headers: "tuple[fits.Header, ...]"
    position: int
    n_images: int
    section: headers.Section | None
    gain_e_per_adu: float | None

    @classmethod
    def of(
        cls,
        path: Path,
        hdu: int,
        shape: tuple[int, int],
        section: headers.Section | None,
        gain_e_per_adu: float | None,
        cfg: SkyIngestConfig,
    ) -> "Target":
        """From the headers of the frame's file."""
        with open_fits(path) as hdus:
            numbers = science_hdus(hdus, cfg, path)
            own = _headers(hdus, hdu)
        position = numbers.index(hdu) if hdu in numbers else 0
        return cls(path, shape, own, position, len(numbers), section, gain_e_per_adu)

    @property
    def name(self) -> str:
        """The image, for messages."""
        named = _extension(self.headers[0])
        return f"{self.path.name}[{named[0]},{named[1]}]" if named else self.path.name


def choose(kind: Kind, paths: Sequence[str], target: Target) -> tuple[tuple[Choice, ...], list[str]]:
    """The image of each file that belongs to the frame, and warnings.

    In a file of several images: that of the same chip (CCDNAME, CHIPID ...), else of the same EXTNAME and EXTVER, else
    the one in the same place where both files have equally many.

    Raises
    ------
    UserError
        If a file is missing, no image or no single one belongs to the frame, or its shape, binning or window differ.
    """
    choices, texts = [], []
    for path in paths:
        if not Path(path).is_file():
            raise UserError(f"the calibration frame {path} does not exist; correct ingest.sky.{kind}")
        with open_fits(path) as hdus:
            number = _matching(hdus, path, kind, target)
            found = _headers(hdus, number)
            _check_readout(kind, path, hdus[number].shape, found, target)
            texts += _differences(kind, path, found, target)
        choices.append(Choice(str(path), number))
    return tuple(choices), texts


def _headers(hdus: "fits.HDUList", number: int) -> "tuple[fits.Header, ...]":
    own = hdus[number].header.copy()
    return (own,) if number == 0 else (own, hdus[0].header.copy())


def _extension(header: "fits.Header") -> tuple[str, int] | None:
    name = str(header.get("EXTNAME", "")).strip().upper()
    return (name, int(header.get("EXTVER", 1))) if name else None


def _value(found: "Sequence[fits.Header]", card: str) -> str | None:
    """A card as text, from the image's header or the primary one."""
    for header in found:
        if str(header.get(card, "")).strip():
            return str(header[card]).strip()
    return None


def _matching(hdus: "fits.HDUList", path: str, kind: Kind, target: Target) -> int:
    images = [
        n
        for n, hdu in enumerate(hdus)
        if hdu.is_image and len(hdu.shape) == 2 and hdu.name.upper() not in _COMPANIONS and min(hdu.shape) > 0
    ]
    if not images:
        raise UserError(f"the {kind} {path} has no image with two axes; correct ingest.sky.{kind}")
    chip = next(((card, value) for card in _CHIP_CARDS if (value := _value(target.headers, card))), None)
    chips = {n: _value(_headers(hdus, n), chip[0]) for n in images} if chip else {}
    if chip and all(chips.values()):
        same = [n for n in images if chips[n] == chip[1]]
        if not same:
            have = ", ".join(dict.fromkeys(map(str, chips.values())))
            raise UserError(
                f"the {kind} {path} is of another chip: {chip[0]} is {have}, and {chip[1]} in {target.name}; "
                f"correct ingest.sky.{kind}"
            )
        if len(same) == 1 and (len(images) > 1 or target.n_images == 1):
            return same[0]
        images = same
    wanted = _extension(target.headers[0])
    named = [n for n in images if wanted is not None and _extension(hdus[n].header) == wanted]
    if len(named) == 1:
        return named[0]
    if len(images) == 1 == target.n_images:
        return images[0]
    if len(images) == target.n_images:
        return images[target.position]
    raise UserError(
        f"the {kind} {path} holds {len(images)} image{'s' * (len(images) > 1)}, and none of them is marked as that of "
        f"{target.name}, one of {target.n_images}; ingest.sky.{kind} needs files with one image per chip, of the same "
        "EXTNAME and EXTVER"
    )


def _check_readout(
    kind: Kind, path: str, shape: tuple[int, ...], found: "Sequence[fits.Header]", target: Target
) -> None:
    """Refuse a master of another shape, binning or window."""
    if shape != target.shape:
        advice = ""
        exposed = target.section and tuple(s.stop - s.start for s in target.section.slices)
        if exposed == shape:
            advice = " (it is trimmed, and the frame still has its overscan)"
        raise UserError(
            f"the {kind} {path} has the shape {shape}, the frame {target.shape}{advice}; ingest.sky.{kind} needs the "
            "same camera, binning and window"
        )
    for card, what in _READOUT_CARDS.items():
        ours, theirs = _value(target.headers, card), _value(found, card)
        if ours and theirs and "".join(ours.split()) != "".join(theirs.split()) and _number(ours) != _number(theirs):
            raise UserError(
                f"the {kind} {path} was read out with another {what}: {card} is {theirs}, and {ours} in {target.name}; "
                f"correct ingest.sky.{kind}"
            )


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _differences(kind: Kind, path: str, found: "Sequence[fits.Header]", target: Target) -> list[str]:
    """Warnings: another filter, another gain."""
    name, texts = Path(path).name, []
    for card in _FILTER_CARDS if kind == "flat" else ():
        ours, theirs = _value(target.headers, card), _value(found, card)
        if ours and theirs and ours.lower() != theirs.lower():
            texts.append(f"the flat {name} was taken through another filter: {card} is {theirs}, the frame's {ours}")
    ours, theirs = (headers.find_gain(headers.Cards(*own), Remarks()) for own in (target.headers, found))
    if kind != "flat" and ours and theirs and abs(ours.value / theirs.value - 1) > _SAME_GAIN:
        texts.append(
            f"the {kind} {name} has a gain of {theirs.value:g} electron/adu ({theirs.card}), the frame one of "
            f"{ours.value:g}: its level does not fit the frame"
        )
    return texts


# ---- combination -----------------------------------------------------------------------------------------------------
@lru_cache(maxsize=8)
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
    images, exposures, before = [], [], []
    for choice in recipe.images:
        image, found = _read(choice, recipe)
        before.append(subtracted_before(found) is not None)
        _check_valid(image[part], recipe.kind, choice.path, texts)
        if bias is not None:
            image = _less_bias(image, found, bias, recipe.kind, choice.path, part, texts)
        if recipe.kind == "dark":
            exposures.append(exposure_s(found, f"the dark {choice.path}"))
            image = image / np.float32(exposures[-1]) if bias is not None else image
        if recipe.kind == "flat":
            image = _relative(image, choice.path, part, texts)
        images.append(image)
    if recipe.kind == "dark" and bias is None and max(exposures) > 1.01 * min(exposures):
        raise UserError(
            f"the darks are exposed for {min(exposures):g} to {max(exposures):g} s; configure ingest.sky.bias too, so "
            "that they can be scaled"
        )
    if recipe.kind != "flat":
        texts += _odd_levels(images, recipe, part)
    master = _finished(recipe, _median(images), texts, part)
    return replace(
        master,
        noise=_noise_of_median(images, part),
        exposure_s=float(np.median(exposures)) if exposures else None,
        subtracted_before=all(before),
    )


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


def _read(choice: Choice, recipe: Recipe) -> "tuple[np.ndarray, tuple[fits.Header, ...]]":
    """Pixels in ADU (a flat: in its own unit), NaN where they have no value or the file's mask excludes them."""
    with open_fits(choice.path, do_not_scale_image_data=True, memmap=True) as hdus:
        hdu = hdus[choice.hdu]
        pixels, _ = pixels_of(hdu)
        found = _headers(hdus, choice.hdu)
        pixels[_masked(hdus, choice.hdu)] = np.nan
    unit = headers.unit_of(headers.Cards(*found))
    if unit == "electron" and (recipe.kind != "flat" or recipe.bias):
        if recipe.gain_e_per_adu is None:
            raise UserError(
                f"the {recipe.kind} {choice.path} is in electrons, the frame in ADU, and the gain is not known; set "
                "ingest.sky.gain_e_per_adu"
            )
        pixels /= np.float32(recipe.gain_e_per_adu)
    elif unit not in ("adu", "electron") and recipe.kind != "flat":
        raise UserError(
            f"the {recipe.kind} {choice.path} is in {unit}; ingest.sky.{recipe.kind} needs ADU or electrons"
        )
    return pixels, found


def _masked(hdus: "fits.HDUList", number: int) -> np.ndarray:
    """What lightpool's own DQ extension of a master excludes."""
    image = hdus[number]
    for hdu in hdus:
        ours = hdu.is_image and cards.OUR_BITS.keyword in hdu.header
        if ours and hdu.ver == image.ver and hdu.shape == image.shape:
            return has(bits_of(hdu).astype(np.uint16), UNTRUSTED | LOST)
    return np.zeros(image.shape, bool)


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


def _relative(image: np.ndarray, path: str, part: tuple[slice, slice], texts: list[str]) -> np.ndarray:
    """A flat divided by its median over the exposed pixels that have light."""
    values = sample(image[part])
    values = values[np.isfinite(values)]
    lit = values[values > max(MIN_RESPONSE * np.quantile(values, _BRIGHT), 0)]
    level = float(np.median(lit)) if lit.size else float(np.median(values))
    noise = rms_of_neighbours(image[part])
    if not level > 0 or noise > _MAX_FLAT_NOISE * level:
        raise UserError(
            f"the flat {path} holds no light: its median is {level:.4g} (bias subtracted, if there is one), its pixel "
            f"noise {noise:.3g}; give another in ingest.sky.flat"
        )
    top = float(values.max())
    for value, limit in ((level, 0.5), (top, _FULL_SHARE)):
        share = np.count_nonzero(values == value) / values.size
        if share > limit:
            texts.append(
                f"the flat {Path(path).name} has the value {value:.5g} in {share:.0%} of its pixels, where dividing by "
                "it corrects nothing: it is saturated, or stands in for a flat"
            )
            break
    return image / np.float32(level)


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


def _noise_of_median(images: Sequence[np.ndarray], part: tuple[slice, slice]) -> float | None:
    """One sigma of a pixel of the median, from the differences of successive files, which share all but the noise.

    The variance of the median of many normal values is pi / 2 that of their mean; of two files the median is the mean.
    """
    n = len(images)
    if n == 1:
        return None
    parts = [sample(image[part]) for image in images]
    difference = np.concatenate([np.ravel(a - b) for a, b in itertools.pairwise(parts)])
    difference = difference[np.isfinite(difference)]
    if not difference.size:
        return 0.0
    single = 1.4826 * float(np.median(np.abs(difference - np.median(difference)))) / np.sqrt(2)
    return single * np.sqrt((np.pi / 2 if n > 2 else 1.0) / n)
