"""The bits of a frame's data-quality mask: their numbers, texts, and the sets of them that the code uses.

It imports nothing of lightpool, so that every layer may read it. Bits 1 to 128 are in users' files: they keep
their numbers.
"""

from enum import IntFlag

import numpy as np

#: Every array of bits: frames in memory, FITS extensions, masks of tiles.
DQ_DTYPE = np.uint16


class DQ(IntFlag):
    """Why a pixel is not to be trusted; 0 is a good pixel."""

    BAD = 1
    HOT = 2
    SATURATED = 4
    COSMIC_RAY = 8
    TRAIL = 16
    MISSING = 32
    RESTORED = 64
    LOW_CONFIDENCE = 128
    BLEED = 256
    GHOST = 512


#: In the masks of tiles in memory, never in a file: the pixel belongs to no source of its frame.
NO_SOURCE = DQ_DTYPE(1 << 15)

#: Readable texts, as they are written into FITS headers and tables.
DESCRIPTIONS = {
    DQ.BAD: "bad or dead pixel",
    DQ.HOT: "hot pixel",
    DQ.SATURATED: "saturated",
    DQ.COSMIC_RAY: "cosmic ray",
    DQ.TRAIL: "satellite or aircraft trail",
    DQ.MISSING: "missing data",
    DQ.RESTORED: "restored by the model",
    DQ.LOW_CONFIDENCE: "low confidence",
    DQ.BLEED: "charge bled from a saturated pixel",
    DQ.GHOST: "ghost or persistence",
}

#: What belongs to the detector and is the same in every frame.
DETECTOR = DQ.BAD | DQ.HOT | DQ.MISSING
#: The pixel's light is not in the frame: no method can be judged there.
LOST = DQ.MISSING | DQ.SATURATED
#: Where a restored frame is not judged: trails stay in it, they are told from sources by their length alone.
UNJUDGED = LOST | DQ.TRAIL
#: Charge that is not the sky's: what a defect output learns.
DEFECTS = DQ.BAD | DQ.HOT | DQ.COSMIC_RAY | DQ.TRAIL | DQ.BLEED | DQ.GHOST
#: Painted over where it is known before the model looks.
UNTRUSTED = DEFECTS | DQ.MISSING
#: No target for training.
UNUSABLE = DEFECTS | LOST


def has(dq: np.ndarray, bits: DQ) -> np.ndarray:
    """Pixels with any of `bits`: bool, of the shape of `dq`."""
    # An IntFlag alone would widen the array to int64.
    return (dq & DQ_DTYPE(bits)) != 0


def flag(dq: np.ndarray, where: np.ndarray, bits: DQ) -> None:
    """Set `bits` in `dq` (changed in place) wherever `where` is true."""
    dq[where] |= DQ_DTYPE(bits)
