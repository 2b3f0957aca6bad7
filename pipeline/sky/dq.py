"""The bits of a frame's data-quality mask."""

from enum import IntFlag


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


#: Readable names, as they are written into FITS headers and tables.
DESCRIPTIONS = {
    DQ.BAD: "bad or dead pixel",
    DQ.HOT: "hot pixel",
    DQ.SATURATED: "saturated",
    DQ.COSMIC_RAY: "cosmic ray",
    DQ.TRAIL: "satellite or aircraft trail",
    DQ.MISSING: "missing data",
    DQ.RESTORED: "restored by the model",
    DQ.LOW_CONFIDENCE: "low confidence",
}
