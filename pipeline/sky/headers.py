"""What cameras write into their headers, under the many names they use.

Nothing is guessed silently: every look-up records the card that it used, and a value that is implausible or cannot be
read is ignored and reported.
"""

import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipeline.sky.remarks import Remarks

if TYPE_CHECKING:
    from astropy.io import fits
    from astropy.units import UnitBase

# In order of trust: EGAIN and CONAD are electrons per ADU by definition; GAIN is the commonest, and on CMOS cameras
# a dimensionless setting.
_GAIN_CARDS = ("EGAIN", "ESO DET OUT1 CONAD", "ATODGAIN", "GAIN", "CCDGAIN", "GAINEFF", "DETGAIN")
_GAIN_AMPLIFIERS = r"(?:GAIN|ATODGN)(?:[A-D]|\d{1,2})"
_GAIN_LIMITS = (0.01, 50.0)
# The amplifiers of DECam and ACS differ by up to 6 %, about as much as gains in headers are wrong; with more, the mean
# is wrong by 5 % and more for some pixels.
_SAME_GAIN = 1.1

# Where GAIN is a setting: cameras of these makers, and cards that stand beside such a GAIN.
_CAMERA_CARDS = ("INSTRUME", "CAMERA", "DETECTOR", "CAMMODEL", "CAMNAME")
_CMOS_CAMERAS = re.compile(
    r"\b(?:ZWO|ASI ?\d+|QHY|Player ?One|Poseidon|Touptek|Altair|SVBony|Omegon|RisingCam|Canon|Nikon|Sony)",
    re.IGNORECASE,
)
_SETTING_CARDS = ("EGAIN", "GAINRAW", "BLKLEVEL", "BLACKLEV", "ISO", "ISOSPEED", "USBLIMIT", "CAMGAIN")

_READ_NOISE_CARDS = ("RDNOISE", "READNOIS", "READNOISE", "ESO DET OUT1 RON", "RON", "READNSE", "ENOISE", "DETRON")
_READ_NOISE_AMPLIFIERS = r"(?:RDNOISE?|READNSE|RON)(?:[A-D]|\d{1,2})"
_READ_NOISE_LIMITS = (0.05, 1000.0)

EXPOSURE_CARDS = ("EXPTIME", "EXPOSURE", "EXP_TIME", "TEXPTIME", "XPOSURE")
_EXPOSURE_LIMITS = (0.0, 1e8)

_SATURATION_CARDS = ("SATURATE", "SATLEVEL", "SATURAT", "ESO DET OUT1 SATURATE")
_POSITIVE = (math.ulp(0.0), 1e30)

_BIAS_LEVEL_CARDS = ("BIASLVL", "BIASLEVL")
_ANY_NUMBER = (-1e30, 1e30)
_SOFTWARE_CARDS = ("SWCREATE", "PROGRAM", "CREATOR", "SOFTWARE")

# Cards whose value can say that a bias or an overscan has already been subtracted.
_BIAS_DONE_CARDS = ("OVERSCAN", "ZEROCOR", "BIASCOR", "BIASCORR", "BLEVCORR", "SUBTRACT_BIAS", "SUBBIAS", "DESBIAS")
_NOT_DONE = re.compile(
    r"\b(?:f|false|no|n|not|none|omit|omitted|perform|skip|skipped|pending|todo|off|raw|unknown)\b|\bn/a\b|^0$"
)
# A word, a line of a log (IRAF: "Apr 13 23:06 Zero is ..."), or ccdproc's list of arguments.
_DONE = re.compile(
    r"\b(?:t|true|yes|y|done|complete|completed|performed|applied|subtracted|corrected|ok|subbias)\b|^1$"
    r"|\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]* +\d|\b\d{4}-\d\d-\d\d|\bccd=<"
)

_ELECTRONS = {"electron", "electrons", "e-", "e", "elec", "photoelectron", "photoelectrons"}
_ADU = {"", "adu", "adus", "count", "counts", "ct", "dn", "data number", "unitless"}

# Units in comments, in small letters and with "/" for "per". What is part of a longer unit, as in "1/(adu/e-)" and
# "(adu/e-)**-1", says something else, and "e" is a word too.
_BEFORE, _AFTER = r"(?<![\w/^*-])(?<!/[(\[])", r"(?![\w-]|[)\]]?(?:[/^*]|-\d))"
_E_WORD = r"(?:photo-?)?(?:electrons?|elec|e-?)"
_ADU_WORD = r"(?:adus?|dn|counts?|cts?)"
_ALONE = r"(?:^|[(\[]|\bin)\s*{}\s*(?:$|[)\]])"
_RATIOS = {
    "electron/adu": re.compile(f"{_BEFORE}{_E_WORD}/{_ADU_WORD}{_AFTER}"),
    "adu/electron": re.compile(f"{_BEFORE}{_ADU_WORD}/{_E_WORD}{_AFTER}"),
}
_PLAIN_UNITS = {
    "electron": re.compile(rf"{_BEFORE}(?:(?:photo-?)?electrons?|e-){_AFTER}|{_ALONE.format(_E_WORD)}"),
    "adu": re.compile(rf"{_BEFORE}(?:adus?|dn){_AFTER}|{_ALONE.format(_ADU_WORD)}"),
}


# ---- look-ups --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Entry:
    """One card that has a value.

    Attributes
    ----------
    name, comment : str
    value : bool, number or str
        The text as it is written where the card does not follow the standard (text without quotes, ``1,95``).
    """

    name: str
    value: Any
    comment: str = ""

    def __str__(self) -> str:
        return f"{self.name} = {self.value}"

    @property
    def text(self) -> str:
        """The value as text, without blanks around it."""
        return str(self.value).strip()

    @property
    def number(self) -> float | None:
        """The value as a finite number, also where it is written as text; None for anything else."""
        if isinstance(self.value, bool | complex):
            return None
        try:
            value = float(self.value)
        except (TypeError, ValueError):
            return None
        return value if math.isfinite(value) else None


class Cards:
    """Look-ups in the header of an image and in the primary header of its file. No card makes them fail.

    The image's own header comes first. What describes the camera and the exposure (gain, read noise, exposure time)
    is then looked up in the primary header, whatever INHERIT says: raw frames of HST say ``INHERIT = F`` and have
    their gain there alone. What describes the pixels (unit, sections, bias, saturation) is taken from the primary
    header unless ``INHERIT = F``, or the primary HDU has an image of its own and ``INHERIT = T`` is missing.

    Parameters
    ----------
    header : Header
        Of the image.
    primary : Header, optional
        Of the primary HDU, where that is another.
    """

    def __init__(self, header: "fits.Header", primary: "fits.Header | None" = None) -> None:
        self.header = header
        self._camera = (header,) if primary is None else (header, primary)
        self._image = self._camera if primary is None or _inherits(header, primary) else (header,)

    @classmethod
    def of(cls, hdus: "fits.HDUList", number: int) -> "Cards":
        """Those of HDU `number`."""
        header = hdus[number].header.copy()
        return cls(header) if number == 0 else cls(header, hdus[0].header.copy())

    def of_camera(self, *names: str) -> Iterator[Entry]:
        """Cards of these names that have a value: the image's in the order of `names`, then the primary's."""
        return _entries(self._camera, names)

    def of_image(self, *names: str) -> Iterator[Entry]:
        """The same for cards that describe the pixels."""
        return _entries(self._image, names)

    def text(self, name: str) -> str:
        """What a card says about the pixels, as text; empty where it is missing."""
        return next((entry.text for entry in self.of_image(name)), "")

    def each(self) -> "Iterator[Cards]":
        """Every header that `of_camera` searches, on its own."""
        return map(Cards, self._camera)

    def matching(self, pattern: str) -> list[Entry]:
        """Cards of the image's own header whose whole name matches `pattern`, sorted by name."""
        return list(self.of_image(*sorted({card for card in self.header if re.fullmatch(pattern, card)})))


def _inherits(header: "fits.Header", primary: "fits.Header") -> bool:
    said = next(_entries((header,), ("INHERIT",)), None)
    if said is None:
        return not primary.get("NAXIS", 0) or 0 in primary.get("NAXIS*", {}).values()
    return said.text.upper() in ("T", "TRUE")


def _entries(headers: Sequence["fits.Header"], names: Sequence[str]) -> Iterator[Entry]:
    for header in headers:
        for name in names:
            entry = _entry(header, name) if name in header else None
            if entry is not None and entry.text:
                yield entry


def _entry(header: "fits.Header", name: str) -> Entry | None:
    from astropy.io import fits

    card = header.cards[name]
    try:
        value, comment = card.value, card.comment
    except (fits.VerifyError, ValueError):
        card = fits.Card.fromstring(str(card).encode("latin-1", "replace"))
        try:
            card.verify("silentfix")  # takes what follows "=" as text
            value, comment = card.value, card.comment
        except (fits.VerifyError, ValueError):
            return Entry(name, str(card).partition("=")[2])
    return None if value is None or isinstance(value, fits.card.Undefined) else Entry(name, value, comment)


# ---- numbers ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Found:
    """A value and the card it was taken from."""

    value: float
    card: str
    comment: str = ""


def find_gain(cards: Cards, remarks: Remarks) -> Found | None:
    """Gain [electron/adu]: the first credible one, or the mean over the amplifiers.

    With a warning where there is no credible one, or amplifiers differ.
    """
    rejected: list[str] = []
    found = None
    for own in cards.each():
        entries = (entry for entry in own.of_camera(*_GAIN_CARDS) if not _is_setting(entry, cards, rejected))
        found = _first((_per_adu(entry, remarks) for entry in entries), _GAIN_LIMITS, "gain", rejected.append)
        if found is None:
            amplifiers = _values((_per_adu(entry, remarks) for entry in own.matching(_GAIN_AMPLIFIERS)), _GAIN_LIMITS)
            found = _mean_of_amplifiers(amplifiers, "gain", remarks)
            _warn_of_unlike_gains(amplifiers, remarks)
        if found is not None:
            break
    for text in rejected:
        (remarks.warn if found is None else remarks.note)(text)
    return found


def find_read_noise(cards: Cards, remarks: Remarks, gain: float | None = None) -> Found | None:
    """Read noise [electron]; where it is in ADU, with `gain`, or that of the header without one."""
    for own in cards.each():
        entries = _noises_in_electrons(own.of_camera(*_READ_NOISE_CARDS), cards, gain, remarks)
        found = _first(entries, _READ_NOISE_LIMITS, "read noise", remarks.note)
        if found is None:
            amplifiers = _noises_in_electrons(own.matching(_READ_NOISE_AMPLIFIERS), cards, gain, remarks)
            found = _mean_of_amplifiers(_values(amplifiers, _READ_NOISE_LIMITS), "read noise", remarks)
        if found is not None:
            return found
    return None


def find_exposure(cards: Cards, remarks: Remarks) -> Found | None:
    """Exposure time [s], 0 or more; None, with a warning if a card was there, where none can be read."""
    return _first(cards.of_camera(*EXPOSURE_CARDS), _EXPOSURE_LIMITS, "exposure time", remarks.warn)


def find_saturation(cards: Cards, remarks: Remarks) -> Found | None:
    """Saturation level as it is written: in the unit of the stored pixels, or in electrons (see the comment)."""
    return _first(cards.of_image(*_SATURATION_CARDS), _POSITIVE, "saturation level", remarks.note)


def find_bias_level(cards: Cards, remarks: Remarks) -> Found | None:
    """Bias level [adu] that the pixels still contain, if a card gives it.

    MaxIm DL's PEDESTAL is what must be added to get zero-based values. All others state what was added to the pixels,
    some with the sign of MaxIm DL.
    """
    level = _first(cards.of_image(*_BIAS_LEVEL_CARDS), _ANY_NUMBER, "bias level", remarks.warn)
    if level is not None and level.value != 0:  # 0: not filled in
        return level
    pedestal = _first(cards.of_image("PEDESTAL"), _ANY_NUMBER, "pedestal", remarks.warn)
    if pedestal is None or pedestal.value == 0:
        return None
    by_maxim = any("maxim" in entry.text.lower() for entry in cards.of_image(*_SOFTWARE_CARDS))
    return Found(-pedestal.value if by_maxim else abs(pedestal.value), pedestal.card)


def _is_setting(entry: Entry, cards: Cards, rejected: list[str]) -> bool:
    """Whether GAIN is the number that was set at a CMOS camera: a whole number, and such a camera or its cards."""
    value = entry.number
    if entry.name != "GAIN" or value is None or not value.is_integer():
        return False
    by_maker = any(_CMOS_CAMERAS.search(card.text) for card in cards.of_camera(*_CAMERA_CARDS))
    if not by_maker and next(cards.of_camera(*_SETTING_CARDS), None) is None:
        return False
    rejected.append(f"{entry} is a setting of the camera, not a gain")
    return True


def _per_adu(entry: Entry, remarks: Remarks) -> Entry:
    """A gain in electrons per ADU: the inverse, where the comment of its card says ADU per electron."""
    value = entry.number
    if not value or unit_in(entry.comment) != "adu/electron":
        return entry
    remarks.note(f"{entry} is in adu/electron: {1 / value:.4g} electron/adu")
    return replace(entry, name=f"{entry.name} (inverse)", value=1 / value)


def _noises_in_electrons(
    entries: Iterable[Entry], cards: Cards, gain: float | None, remarks: Remarks
) -> Iterator[Entry]:
    """Read noises in electrons: those whose comment says ADU times the gain, or left out if there is none."""
    for entry in entries:
        value = entry.number
        if value is None or unit_in(entry.comment) != "adu":
            yield entry
            continue
        if gain is None:
            found = find_gain(cards, Remarks())
            gain = None if found is None else found.value
        if gain is None:
            remarks.note(f"{entry} is in adu, and is not used without a gain")
            continue
        remarks.note(f"{entry} is in adu: {gain * value:.4g} electron")
        yield replace(entry, name=f"{entry.name} (times the gain)", value=gain * value)


def _first(
    entries: Iterator[Entry], limits: tuple[float, float], what: str, report: Callable[[str], None]
) -> Found | None:
    """The first entry within `limits`; those before it are reported."""
    for entry in entries:
        value = entry.number
        if value is None:
            report(f"{entry} is not a number, and is not taken as the {what}")
        elif limits[0] <= value <= limits[1]:
            return Found(value, entry.name, entry.comment)
        else:
            accepted = "above 0" if limits == _POSITIVE else f"{limits[0]:g} to {limits[1]:g}"
            report(f"{entry.name} = {value:g} is not taken as the {what} (accepted: {accepted})")
    return None


def _values(entries: Iterable[Entry], limits: tuple[float, float]) -> dict[str, float]:
    """Those within `limits`, by the names of their cards."""
    numbers = {entry.name: entry.number for entry in entries}
    return {name: n for name, n in numbers.items() if n is not None and limits[0] <= n <= limits[1]}


def _mean_of_amplifiers(values: Mapping[str, float], what: str, remarks: Remarks) -> Found | None:
    """Frames read through several amplifiers have one card for each: the frame takes their mean."""
    if not values:
        return None
    low, high = min(values.values()), max(values.values())
    remarks.note(f"{what} is the mean of {len(values)} amplifiers, {low:.4g} to {high:.4g}")
    return Found(sum(values.values()) / len(values), "/".join(values))


def _warn_of_unlike_gains(values: Mapping[str, float], remarks: Remarks) -> None:
    if not values or max(values.values()) <= _SAME_GAIN * min(values.values()):
        return
    each = ", ".join(f"{name} = {value:.4g}" for name, value in values.items())
    remarks.warn(
        f"the amplifiers have different gains ({each}), and every pixel takes the mean, which is wrong for each of "
        "them: split the file into one frame per amplifier, each with its own gain (GAIN, or "
        "ingest.sky.gain_e_per_adu)"
    )


# ---- texts -----------------------------------------------------------------------------------------------------------
def bias_subtracted(cards: Cards, remarks: Remarks) -> str | None:
    """The card whose value says that the bias is already subtracted, if any.

    OVERSCAN is also the place of the overscan, its width, or whether the frame has one: only a text that says that it
    was used counts.
    """
    for entry in cards.of_image(*_BIAS_DONE_CARDS):
        text = re.sub(r"\[[^\]]*\]", "", entry.text).strip().lower()
        flag = text in ("t", "true", "1", "y", "yes")
        if _DONE.search(text) and not _NOT_DONE.search(text) and not (flag and entry.name == "OVERSCAN"):
            return entry.name
        remarks.note(f"{entry} does not say that the bias is subtracted")
    return None


def unit_of(cards: Cards) -> str:
    """``electron``, ``adu`` or the file's own unit as it is written."""
    return unit_named(cards.text("BUNIT"))


def unit_named(unit: str) -> str:
    """The same for a text: none is ``adu``."""
    if unit.lower() in _ELECTRONS:
        return "electron"
    return "adu" if unit.lower() in _ADU else unit


def parsed_unit(unit: str) -> "UnitBase | None":
    """What astropy makes of a text, with electrons and counts under all the names that `unit_named` knows.

    Other than astropy, it reads a bracket with a power, and one that 1 is divided by. None where it cannot be read.
    """
    from astropy import units

    match = re.fullmatch(r"(1 ?/)? ?\(([^()]+)\) ?(?:(?:\*\*|\^)? ?\(?([+-]?\d+)\)?)?", unit.strip())
    reciprocal, inner, power = match.groups() if match else (None, unit.strip(), None)
    named = re.sub(r"(?<![\w.])(?:e-(?![\d(])|[A-Za-z]+)", lambda word: unit_named(word[0]), inner)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # spellings that the FITS standard deprecates
        try:
            parsed = units.Unit(named)
        except (ValueError, TypeError):
            return None
    if not named or not isinstance(parsed, units.UnitBase):  # magnitudes have no powers
        return None
    return parsed ** (int(power or 1) * (-1 if reciprocal else 1))


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

    def overlaps(self, other: "Section") -> bool:
        """Whether they share pixels."""
        return all(a[0] < b[1] and b[0] < a[1] for a, b in ((self.rows, other.rows), (self.columns, other.columns)))


def find_section(cards: Cards, names: Sequence[str], shape: tuple[int, int], remarks: Remarks) -> Section | None:
    """The first of `names` (``[x1:x2,y1:y2]``, 1-based, inclusive) that lies inside a frame of `shape`.

    A section beyond the frame belongs to the untrimmed frame that this one was cut from: it does not apply here. IRAF
    writes ``[x2:x1,...]`` for an axis that is to be flipped: the pixels are the same.
    """
    for entry in cards.of_image(*names):
        match = re.fullmatch(r"\[(\d+):(\d+),(\d+):(\d+)\]", re.sub(r"\s", "", entry.text))
        if match is not None:
            a, b, c, d = (int(text) for text in match.groups())
            (x1, x2), (y1, y2) = sorted((a, b)), sorted((c, d))
            if 1 <= x1 < x2 <= shape[1] and 1 <= y1 < y2 <= shape[0]:
                return Section((y1 - 1, y2), (x1 - 1, x2))
        remarks.note(f"{entry} is no section of this frame of {shape[1]} x {shape[0]} px, and is not used")
    return None


def unit_in(comment: str) -> str:
    """The unit that the comment of a card gives: ``electron``, ``adu``, ``electron/adu`` or ``adu/electron``.

    Empty where it gives none of these, or several. FITS has the unit in brackets at the start, which then comes before
    the rest.
    """
    text = re.sub(r"\s*(?:/|\bper\b)\s*", "/", comment.lower())
    text = re.sub(r"/(?:pixels?|pix|px)\b", "", text)
    text = re.sub(rf"[ .*]+({_E_WORD}|{_ADU_WORD})(?:\^|\*\*)?\(?-1\b\)?", r"/\1", text)
    at_the_start = re.match(r"\s*\[[^\]]*\](?![\^*]|-\d)", text)
    for part in (at_the_start[0], text) if at_the_start else (text,):
        for patterns in (_RATIOS, _PLAIN_UNITS):
            units = [unit for unit, pattern in patterns.items() if pattern.search(part)]
            if units:
                return units[0] if len(units) == 1 else ""
    return ""


def in_electrons(comment: str) -> bool:
    """Whether the comment of a card gives electrons as its unit."""
    return unit_in(comment) == "electron"
