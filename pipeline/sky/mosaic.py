"""Raw frames of colour cameras: a mosaic of four kinds of pixels, 2 x 2, each behind a filter of its own.

Which frame is one is said by its header, or by the user; the offsets XBAYROFF and YBAYROFF say where in the pattern the
first pixel is (a window of the detector was read).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pipeline.errors import InputFileError
from pipeline.sky.background import robust_background
from pipeline.sky.dq import DQ, has
from pipeline.sky.frames import Frame
from pipeline.sky.headers import Cards
from pipeline.sky.strips import computed, part_of

# Cards that name a pattern, or say that there is one; and the values with which they say that there is none.
_CARDS = ("BAYERPAT", "COLORTYP", "CFAPAT", "CFA-PAT", "BAYER")
_NO_MOSAIC = ("", "NONE", "MONO", "NO", "F", "FALSE")
_UNNAMED = ("T", "TRUE", "YES", "RAW")
_PATTERN = re.compile(r"[RGBCMYW]{4}")
#: Values of `predict.bayer` besides a pattern: as the header says, or no mosaic whatever it says.
AUTO, NO_MOSAIC = "auto", "none"


@dataclass(frozen=True)
class Mosaic:
    """A pattern of 2 x 2 filters.

    Attributes
    ----------
    pattern : str
        Letters of the first pixel of the frame, its right neighbour, and the two of the next row; empty if unknown.
    source : str
        Who says so: a card as it is written, or the user.
    """

    pattern: str
    source: str

    def colour(self, row: int, column: int) -> str:
        """Filter of a pixel; its place in the 2 x 2 pattern where the letters are not known."""
        place = 2 * (row % 2) + column % 2
        return self.pattern[place] if self.pattern else f"kind {place + 1}"


def mosaic_of(frame: Frame, bayer: str = AUTO) -> Mosaic | None:
    """What is said of the colours of a frame's pixels; None for a frame of one colour.

    Parameters
    ----------
    frame : Frame
    bayer : str
        ``auto``, ``none``, or four letters, which count from the first pixel of the frame.

    Raises
    ------
    InputFileError
        If the header names a pattern that is not of 2 x 2 pixels, or an offset that is no whole number.
    """
    if bayer == NO_MOSAIC:
        return None
    if bayer != AUTO:
        return Mosaic(bayer, f"given as {bayer}")
    searched = frame.searched or Cards({} if frame.header is None else frame.header)
    for keyword, text in ((entry.name, entry.text) for entry in searched.of_camera(*_CARDS)):
        value = text.strip("'\"[]").upper()
        if value in _NO_MOSAIC:
            continue
        if value in _UNNAMED:
            return Mosaic("", f"{keyword} = {value}")
        if not _PATTERN.fullmatch(value):
            raise InputFileError(
                f"{frame.path}: {keyword} is {value[:40]!r}, and only patterns of 2 x 2 pixels are known, such as "
                "RGGB; say the pattern with --bayer, or --bayer none if the pixels are of one colour"
            )
        dx, dy = (_offset(frame, searched, name) for name in ("XBAYROFF", "YBAYROFF"))
        shifted = "".join(value[2 * ((row + dy) % 2) + (column + dx) % 2] for row in (0, 1) for column in (0, 1))
        offset = f", offset {dx}, {dy}" if dx or dy else ""
        return Mosaic(shifted, f"{keyword} = {value}{offset}")
    return None


def _offset(frame: Frame, searched: Cards, keyword: str) -> int:
    entry = next(searched.of_camera(keyword), None)
    if entry is None:
        return 0
    if entry.number is None or entry.number != int(entry.number):
        raise InputFileError(
            f"{frame.path}: {keyword} is {entry.value!r}, not a whole number of pixels; say the pattern with --bayer"
        )
    return int(entry.number)


def phases_of(frame: Frame) -> Iterator[tuple[tuple[slice, slice], Frame]]:
    """Take a mosaic apart.

    Parameters
    ----------
    frame : Frame
        Of at least 2 x 2 exposed pixels.

    Yields
    ------
    place : tuple of slice
        Index of the pixels in the frame: every second row and column of the exposed part.
    phase : Frame
        Those pixels, with level and noise of their own; it has no header, whose cards are of the whole mosaic.
    """
    rows, columns = frame.exposed
    for row in (0, 1):
        for column in (0, 1):
            place = (
                slice((rows.start or 0) + row, rows.stop, 2),
                slice((columns.start or 0) + column, columns.stop, 2),
            )
            sci, err, dq = (part_of(image, place) for image in (frame.sci, frame.err, frame.dq))
            level, noise = robust_background(sci, computed(lambda bits: has(bits, ~DQ(0)), dq, dtype=bool))
            if not noise > 0:  # nothing of this colour was measured
                level, noise = frame.level, frame.noise
            phase = replace(frame, sci=sci, err=err, dq=dq, level=level, noise=noise, section=None, warnings=())
            yield place, replace(phase, header=None, searched=None)
