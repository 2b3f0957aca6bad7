"""What the stored numbers of an image mean: its exposed part, bias level, gain, read noise and saturation.

The configuration comes first, then the header, as far as the pixels do not contradict it.
"""

import numpy as np

from pipeline.config import SkyIngestConfig
from pipeline.sky import headers
from pipeline.sky.background import BoxNoise
from pipeline.sky.headers import Cards, Section
from pipeline.sky.remarks import Remarks
from pipeline.sky.strips import Image, distinct, median, part_of

# Photon statistics and read noise are not believed where the measured noise differs by more than this.
MODEL_FACTOR = 1.5
# A level this many times the noise above zero: the sky has not been subtracted.
LEVEL_SIGMA = 3.0
# A gain is not believed if the noise is more than this times that of all the light that the pixels can hold, with
# pixels of which the sensitivity varies by this share ...
_MAX_EXCESS = 1.4
_SENSITIVITY_RMS = 0.01
# ... or, for pixels that are no raw counts, less than that of the level by this: averages of nine frames, rates.
_MAX_DEFICIT = 3.0
# Level of the sky below which pixels hold no bias [adu].
_LEAST_BIAS_ADU = 50.0
# Largest read noise of a camera whose header does not give it, and smallest noise of any [electron].
_UNKNOWN_READ_NOISE_E = 30.0
LEAST_NOISE_E = 0.1

# Saturation: at least so many pixels share a value; it lies so far above the background [sigma]; there are so many
# times more of them than in the range below, of this share of the way down to the background; and few pixels above.
_MIN_CLIPPED_PIXELS = 3
_CLIPPED_SIGMA = 20.0
_CLIPPED_EXCESS = 3.0
_RANGE_BELOW = 0.02
_ABOVE_CLIPPED = 0.1


def exposed_section(cards: Cards, shape: tuple[int, int], integer: bool, remarks: Remarks) -> Section | None:
    """The part of a raw frame that was exposed to light, if it has another."""
    if not integer:  # a calibrated frame: its sections refer to the raw frame
        return None
    names = ("TRIMSEC", "DATASEC")
    section = headers.find_section(cards, names, shape, remarks)
    if next(cards.of_image(*names), None) is None:
        section = _beside_the_overscan(cards, shape)
    if section is None or section == Section((0, shape[0]), (0, shape[1])):
        return None
    remarks.note(f"only the section {section} is exposed; the rest of the frame is left as it is")
    return section


def _beside_the_overscan(cards: Cards, shape: tuple[int, int]) -> Section | None:
    """What an overscan along one whole edge of the frame leaves of it; of another, nothing is known."""
    overscan = headers.find_section(cards, ("BIASSEC",), shape, Remarks())
    if overscan is None:
        return None
    everything = Section((0, shape[0]), (0, shape[1]))
    if overscan.rows == everything.rows and (columns := _rest(overscan.columns, shape[1])):
        return Section(everything.rows, columns)
    if overscan.columns == everything.columns and (rows := _rest(overscan.rows, shape[0])):
        return Section(rows, everything.columns)
    return None


def _rest(part: tuple[int, int], length: int) -> tuple[int, int] | None:
    """What is left of an axis without a part at one of its ends."""
    start, stop = part
    if (start == 0) == (stop == length):  # all of it, or the part lies within
        return None
    return (stop, length) if start == 0 else (0, start)


def bias_level(
    cards: Cards,
    cfg: SkyIngestConfig,
    pixels: Image,
    section: Section | None,
    integer: bool,
    measured: BoxNoise,
    remarks: Remarks,
) -> tuple[float, bool]:
    """Bias level in pixels in ADU, and whether the zero point is known."""
    if cfg.bias_level_adu is not None:
        remarks.note(f"bias level {cfg.bias_level_adu:g} ADU from the configuration")
        return cfg.bias_level_adu, True
    done = headers.bias_subtracted(cards, remarks)
    if done is not None:
        remarks.note(f"{done} says that the bias is subtracted")
        return 0.0, True
    bias = headers.find_bias_level(cards, remarks)
    if bias is not None and _fits_the_pixels(bias, measured, remarks):
        remarks.note(f"bias level {bias.value:g} ADU from {bias.card}")
        return bias.value, True
    overscan = headers.find_section(cards, ("BIASSEC",), pixels.shape, remarks) if integer else None
    level = float("nan") if overscan is None else float(median(part_of(pixels, overscan.slices)))
    if np.isfinite(level):
        if section is None or not section.overlaps(overscan):
            remarks.note(f"bias level {level:g} ADU is the median of the overscan (BIASSEC)")
            return level, True
        remarks.note(f"the overscan {overscan} (BIASSEC) overlaps the exposed section {section}, and is not used")
    remarks.note("bias level unknown: nothing is subtracted")
    return 0.0, False


def _fits_the_pixels(bias: headers.Found, measured: BoxNoise, remarks: Remarks) -> bool:
    """Whether pixels can hold this bias level: their level is not far below it, and no bias is negative."""
    if not len(measured):
        return True
    level, noise = np.median(measured.level), np.median(measured.spread)
    negative = bias.value < 0 and bias.card != "PEDESTAL"
    if not negative and bias.value <= level + LEVEL_SIGMA * noise:
        return True
    remarks.warn(
        f"the bias level {bias.value:g} of {bias.card} is not believed: the pixels have the level {level:.4g}; nothing "
        "is subtracted: configure ingest.sky.bias_level_adu"
    )
    return False


def gain_e_per_adu(
    cards: Cards,
    cfg: SkyIngestConfig,
    bias_adu: float,
    zero_known: bool,
    measured: BoxNoise,
    remarks: Remarks,
) -> tuple[float | None, bool]:
    """Gain of pixels in ADU, None where unknown; and whether a header has one that the pixels contradict."""
    if cfg.gain_e_per_adu is not None:
        remarks.note(f"gain {cfg.gain_e_per_adu:g} electron/adu from the configuration")
        contradiction = _contradicts_gain(cfg.gain_e_per_adu, cards, cfg, bias_adu, zero_known, measured)
        if contradiction is not None:
            remarks.warn(f"the gain {cfg.gain_e_per_adu:g} of the configuration is doubtful, because {contradiction}")
        return cfg.gain_e_per_adu, False
    found = Remarks()
    gain = headers.find_gain(cards, found)
    for text in found.notes:
        remarks.note(text)
    if gain is None:
        for text in found.warnings:
            remarks.warn(f"{text}; the frame stays in ADU: configure ingest.sky.gain_e_per_adu for electrons")
        remarks.note("gain unknown: the frame stays in ADU; configure ingest.sky.gain_e_per_adu for electrons")
        return None, bool(found.warnings)
    contradiction = _contradicts_gain(gain.value, cards, cfg, bias_adu, zero_known, measured)
    if contradiction is not None:
        remarks.warn(
            f"the gain {gain.value:.4g} of {gain.card} is not believed, because {contradiction}; the frame stays in "
            "its unit: configure ingest.sky.gain_e_per_adu if the gain is that of these pixels"
        )
        return None, True
    for text in found.warnings:  # of amplifiers that differ
        remarks.warn(text)
    remarks.note(f"gain {gain.value:.4g} electron/adu from {gain.card}")
    return gain.value, False


def _contradicts_gain(
    gain: float, cards: Cards, cfg: SkyIngestConfig, bias_adu: float, zero_known: bool, measured: BoxNoise
) -> str | None:
    """Why the noise of the pixels cannot be that of electrons, if so.

    Without a known zero point, all of the level counts as light. That is the most noise which is possible; the least
    only in pixels that are no whole numbers (raw ones hold a bias, whatever the header says) and lie below the bias
    level of any camera, if the zero point is unknown.
    """
    if not len(measured):
        return None
    boxes = measured.scaled(bias_adu, gain)
    level, noise = float(np.median(boxes.level)), float(np.median(boxes.spread))
    if noise < LEAST_NOISE_E:
        return f"it would make the noise {noise:.2g} electron, less than that of any camera"
    read_noise = read_noise_e(cards, cfg, Remarks())
    light = np.maximum(boxes.level, 0)
    read_noise_most = _UNKNOWN_READ_NOISE_E if read_noise is None else read_noise
    most = np.sqrt(light + read_noise_most**2 + (_SENSITIVITY_RMS * light) ** 2)
    # A quarter of the boxes must be free of crowding, nebulae and fringes.
    if level > LEVEL_SIGMA * noise and np.quantile(boxes.pixel / most, 0.25) > _MAX_EXCESS:
        return f"it would make the noise {noise:.3g} electron, where photons and read noise give {np.median(most):.3g}"
    may_hold_bias = np.median(measured.level) > _LEAST_BIAS_ADU or cfg.bias or cfg.dark
    if not measured.whole_numbers and (zero_known or not may_hold_bias):
        least = np.sqrt(light + (read_noise or 0.0) ** 2)
        if np.median(boxes.spread) * _MAX_DEFICIT < np.median(least):
            return (
                f"it would make the noise {noise:.3g} electron, where photons and read noise give "
                f"{np.median(least):.3g}: the pixels are averages, rates or scaled, or hold a bias"
            )
    return None


def zero_is_contradicted(
    gain: float, bias_adu: float, read_noise: float | None, measured: BoxNoise, remarks: Remarks
) -> bool:
    """Whether raw counts have less noise than the photons of their level: they hold a bias, or more of it."""
    if not (len(measured) and measured.whole_numbers):
        return False
    boxes = measured.scaled(bias_adu, gain)
    expected = float(np.median(np.sqrt(np.maximum(boxes.level, 0) + (read_noise or 0.0) ** 2)))
    noise = float(np.median(boxes.spread))
    if noise * MODEL_FACTOR >= expected:
        return False
    remarks.warn(
        f"the zero point is not believed: the noise is {noise:.3g} electron, where photons and read noise give "
        f"{expected:.3g}, so that the pixels hold a bias still, or are averages: configure ingest.sky.bias_level_adu"
    )
    return True


def read_noise_e(cards: Cards, cfg: SkyIngestConfig, remarks: Remarks) -> float | None:
    """Read noise [electron]; None where unknown."""
    if cfg.read_noise_e is not None:
        remarks.note(f"read noise {cfg.read_noise_e:g} electron from the configuration")
        return cfg.read_noise_e
    read_noise = headers.find_read_noise(cards, remarks, cfg.gain_e_per_adu)
    if read_noise is None:
        return None
    remarks.note(f"read noise {read_noise.value:.4g} electron from {read_noise.card}")
    return read_noise.value


def saturation_level(
    cards: Cards | None,
    cfg: SkyIngestConfig,
    pixels: Image,
    gain: float | None,
    measured: BoxNoise,
    remarks: Remarks,
) -> float | None:
    """Level from which a stored pixel counts as saturated: the configured one, else the header's, else the pixels'.

    Where many pixels share the largest value, that value is the level, even if the header gives a higher one: full
    scales of converters are not always 2^n - 1 (bits shifted, scaled, clipped at the full well).
    """
    if cfg.saturation_adu is not None:
        return cfg.saturation_adu
    if not len(measured):
        return None
    level, noise = float(np.median(measured.level)), float(np.median(measured.spread))
    clipped = _clipped_at(pixels, level, noise)
    sky_top = level + LEVEL_SIGMA * noise
    written = None if cards is None else _written_saturation(cards, gain, sky_top, remarks)
    if written is not None and clipped is not None and clipped < written:
        remarks.note(f"pixels are clipped at {clipped:g}, below the saturation level {written:g} of the header")
        return clipped
    return clipped if written is None else written


def _written_saturation(cards: Cards, gain: float | None, sky_top: float, remarks: Remarks) -> float | None:
    """The header's, in stored units; None where it lies in the sky."""
    found = headers.find_saturation(cards, remarks)
    if found is None:
        return None
    value = found.value
    if gain is not None and headers.in_electrons(found.comment):
        value /= gain
        remarks.note(f"{found.card} = {found.value:g} is in electrons: {value:.5g} adu")
    if value > sky_top:
        return value
    remarks.warn(
        f"{found.card} = {found.value:g} is not believed: it lies within the sky (up to {sky_top:.5g}); only pixels "
        "that are clipped at one value count as saturated: configure ingest.sky.saturation_adu"
    )
    return None


def _clipped_at(pixels: Image, level: float, noise: float) -> float | None:
    """The value that far more bright pixels share than have values just below: the top of a star has no such step."""
    top = -np.inf

    def limit() -> float:
        """In the upper half of the range only: hot pixels and cosmic rays may lie above the full well."""
        return max(level + 0.5 * (top - level), level + _CLIPPED_SIGMA * noise)

    def bright(strip: np.ndarray) -> np.ndarray:
        nonlocal top
        top = max(top, float(np.fmax.reduce(strip, axis=None, initial=-np.inf)))
        return strip[strip > limit()]

    values, counts = distinct(pixels, bright)
    counts, values = counts[values > limit()], values[values > limit()]
    if counts.sum() < _MIN_CLIPPED_PIXELS:
        return None
    place = int(np.argmax(counts))
    value, count = float(values[place]), int(counts[place])
    step = float(np.diff(values).min()) if values.size > 1 else 0.0
    below = counts[(values < value) & (values >= value - max(_RANGE_BELOW * (value - level), 2 * step))].sum()
    above = counts[values > value].sum()
    is_clipped = count >= max(_MIN_CLIPPED_PIXELS, _CLIPPED_EXCESS * below) and above <= _ABOVE_CLIPPED * count
    return value if is_clipped else None
