"""What cameras write into their headers, under the many names they use.

Nothing is guessed silently: every look-up records the card that it used, and an implausible value
is ignored and reported.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from astropy.io import fits

# In order of trust: EGAIN and CONAD are electrons per ADU by definition; GAIN is the commonest, and on CMOS cameras
# a dimensionless setting, which the limit below catches.
_GAIN_CARDS = ("EGAIN", "ESO DET OUT1 CONAD", "ATODGAIN", "GAIN", "CCDGAIN", "GAINEFF", "DETGAIN")
_GAIN_AMPLIFIERS = r"(?:GAIN|ATODGN)(?:[A-D]|\d{1,2})"
_GAIN_LIMITS = (0.01, 50.0)

_READ_NOISE_CARDS = ("RDNOISE", "READNOIS", "READNOISE", "ESO DET OUT1 RON", "RON", "READNSE", "ENOISE", "DETRON")
_READ_NOISE_AMPLIFIERS = r"(?:RDNOISE?|READNSE|RON)(?:[A-D]|\d{1,2})"
_READ_NOISE_LIMITS = (0.05, 1000.0)

_SATURATION_CARDS = ("SATURATE", "SATLEVEL", "SATURAT", "ESO DET OUT1 SATURATE")

_BIAS_LEVEL_CARDS = ("BIASLVL", "BIASLEVL")
# Any of these means that a bias or an overscan has already been subtracted.
_BIAS_DONE_CARDS = ("OVERSCAN", "ZEROCOR", "BIASCOR", "SUBTRACT_BIAS", "SUBBIAS", "DESBIAS")

_ELECTRONS = {"electron", "electrons", "e-", "e", "elec", "photoelectron", "photoelectrons"}
_ADU = {"", "adu", "adus", "count", "counts", "ct", "dn", "data number", "unitless"}


@dataclass(frozen=True)
class Found:
    """A value and the card it was taken from."""

    value: float
    card: str


@dataclass(frozen=True)
class Section:
    """A rectangle of pixels, as `array[section.slices]`."""

    rows: tuple[int, int]
    columns: tuple[int, int]

    def __str__(self) -> str:
        """As FITS writes it: ``[x1:x2,y1:y2]``, 1-based and inclusive."""
        return f"[{self.columns[0] + 1}:{self.columns[1]},{self.rows[0] + 1}:{self.rows[1]}]"

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the rectangle."""
        return slice(*self.rows), slice(*self.columns)


def find_gain(headers: Sequence["fits.Header"], notes: list[str]) -> Found | None:
    """Gain [electron/adu] from the first of `headers` (science HDU, then primary) that has a credible one."""
    return _find(headers, _GAIN_CARDS, _GAIN_AMPLIFIERS, _GAIN_LIMITS, "gain", notes)


def find_read_noise(headers: Sequence["fits.Header"], notes: list[str]) -> Found | None:
    """Read noise [electron]."""
    return _find(headers, _READ_NOISE_CARDS, _READ_NOISE_AMPLIFIERS, _READ_NOISE_LIMITS, "read noise", notes)


def find_saturation(headers: Sequence["fits.Header"]) -> Found | None:
    """Saturation level, in the unit of the stored pixels."""
    for header in headers:
        for card in _SATURATION_CARDS:
            value = _number(header.get(card))
            if value is not None and value > 0:
                return Found(value, card)
    return None


def find_bias_level(headers: Sequence["fits.Header"]) -> Found | None:
    """Bias level [adu] that the pixels still contain, if a card gives it.

    MaxIm DL's PEDESTAL is what must be added to get zero-based values: the negative of a level.
    """
    for header in headers:
        for card in _BIAS_LEVEL_CARDS:
            value = _number(header.get(card))
            if value is not None:
                return Found(value, card)
        value = _number(header.get("PEDESTAL"))
        if value:
            return Found(-value, "PEDESTAL")
    return None


def bias_subtracted(header: Mapping[str, Any]) -> str | None:
    """The card that marks the bias as already subtracted, if any."""
    return next((card for card in _BIAS_DONE_CARDS if card in header), None)


def find_section(header: "fits.Header", cards: Sequence[str], shape: tuple[int, int]) -> Section | None:
    """The first of `cards` (``[x1:x2,y1:y2]``, 1-based, inclusive) that lies inside a frame of `shape`.

    A section beyond the frame belongs to the untrimmed frame that this one was cut from: it does not apply here.
    """
    for card in cards:
        match = re.fullmatch(r"\[(\d+):(\d+),(\d+):(\d+)\]", re.sub(r"\s", "", str(header.get(card, ""))))
        if match is None:
            continue
        x1, x2, y1, y2 = (int(text) for text in match.groups())
        if 1 <= x1 < x2 <= shape[1] and 1 <= y1 < y2 <= shape[0]:
            return Section((y1 - 1, y2), (x1 - 1, x2))
    return None


def unit_of(header: "fits.Header") -> str:
    """``electron``, ``adu`` or the file's own unit as it is written."""
    unit = str(header.get("BUNIT", "")).strip()
    if unit.lower() in _ELECTRONS:
        return "electron"
    return "adu" if unit.lower() in _ADU else unit


def _find(
    headers: Sequence["fits.Header"],
    cards: Sequence[str],
    amplifiers: str,
    limits: tuple[float, float],
    what: str,
    notes: list[str],
) -> Found | None:
    for header in headers:
        for card in cards:
            value = _number(header.get(card))
            if value is None:
                continue
            if limits[0] <= value <= limits[1]:
                return Found(value, card)
            notes.append(f"{card} = {value:g} is not taken as the {what} (accepted: {limits[0]:g} to {limits[1]:g})")
        mean = _mean_of_amplifiers(header, amplifiers, limits, what, notes)
        if mean is not None:
            return mean
    return None


def _mean_of_amplifiers(
    header: "fits.Header", pattern: str, limits: tuple[float, float], what: str, notes: list[str]
) -> Found | None:
    """Frames read through several amplifiers have one card for each: the frame takes their mean."""
    names = sorted({card for card in header if re.fullmatch(pattern, card)})
    numbers = {name: _number(header[name]) for name in names}
    values = [value for value in numbers.values() if value is not None and limits[0] <= value <= limits[1]]
    if not values:
        return None
    mean = sum(values) / len(values)
    notes.append(f"{what} is the mean of {len(values)} amplifiers, {min(values):.4g} to {max(values):.4g}")
    return Found(mean, "/".join(names))


def _number(value: Any) -> float | None:
    """Numbers are also written as strings."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
