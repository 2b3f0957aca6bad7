"""Raw frames of colour cameras: a mosaic of four kinds of pixels, 2 x 2, each behind a filter of its own."""

from collections.abc import Iterator
from dataclasses import replace

from pipeline.sky.background import robust_background
from pipeline.sky.dq import DQ, has
from pipeline.sky.frames import Frame
from pipeline.sky.strips import computed, part_of


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
            phase = replace(frame, sci=sci, err=err, dq=dq, level=level, noise=noise, section=None, header=None)
            yield place, replace(phase, warnings=())
