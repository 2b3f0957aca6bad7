"""Which image of a bias, dark or flat file belongs to a frame, and whether it was read out like it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from pipeline.config import SkyIngestConfig
from pipeline.errors import UserError
from pipeline.sky import headers
from pipeline.sky.frames import open_fits, science_hdus
from pipeline.sky.frames.planes import image_shape, is_marked_science, may_be_picture
from pipeline.sky.remarks import Remarks

if TYPE_CHECKING:
    from astropy.io import fits

Kind = Literal["bias", "dark", "flat"]

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
_TYPE_CARDS = ("IMAGETYP", "OBSTYPE", "IMAGETYPE", "FRAME", "ESO DPR TYPE")
_TYPE_WORDS = {
    "bias": ("bias", "zero"),
    "dark": ("dark",),
    "flat": ("flat",),
    "science": ("object", "light frame", "science"),
}
_FILTER_CARDS = ("FILTER", "FILTER1", "FILTER2", "FILTNAM", "INSFLNAM", "ESO INS FILT1 NAME")
# Largest difference of two gains that is rounding.
_SAME_GAIN = 0.02


class Choice(NamedTuple):
    """One image of a file, and the time [ns] at which the file was last changed."""

    path: str
    hdu: int
    changed_ns: int


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
            own = headers_of(hdus, hdu)
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
            found = headers_of(hdus, number)
            _check_readout(kind, path, image_shape(hdus[number]), found, target)
            texts += _differences(kind, path, found, target)
        choices.append(Choice(str(path), number, Path(path).stat().st_mtime_ns))
    return tuple(choices), texts


def headers_of(hdus: "fits.HDUList", number: int) -> "tuple[fits.Header, ...]":
    """Header of an image, and the primary one where that is another."""
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
    images = [n for n, hdu in enumerate(hdus) if hdu.is_image and len(image_shape(hdu)) == 2 and may_be_picture(hdu)]
    images = [n for n in images if is_marked_science(hdus[n])] or images
    if not images:
        raise UserError(f"the {kind} {path} has no image with two axes; correct ingest.sky.{kind}")
    chip = next(((card, value) for card in _CHIP_CARDS if (value := _value(target.headers, card))), None)
    chips = {n: _value(headers_of(hdus, n), chip[0]) for n in images} if chip else {}
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
    """Warnings: another kind of frame, another filter, another gain."""
    name, texts = Path(path).name, []
    for card in _TYPE_CARDS:
        said = _value(found, card)
        kinds = {what for what, words in _TYPE_WORDS.items() if said and any(word in said.lower() for word in words)}
        if kinds and kind not in kinds:
            texts.append(f"the {kind} {name} calls itself {said} ({card}): is it in the right list?")
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
