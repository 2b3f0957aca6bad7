"""What a network makes of a frame, in the frame's unit, on its way into the unit of its file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.sky import cards
from pipeline.sky.frame_statistics import FrameStatistics
from pipeline.sky.frames import Frame, FrameProduct, Strip


@dataclass(frozen=True)
class FrameResult:
    """A network's result for a frame, in the frame's unit.

    Attributes
    ----------
    sci, err : ndarray of float32, shape (H, W)
        As they were where the network has no plane for them.
    dq : ndarray of uint16, shape (H, W)
        The frame's bits, and those that the network's tasks add.
    planes : mapping
        Extension name -> further planes, shape (H, W), float32, NaN outside the exposed part; with their unit.
    statistics : FrameStatistics, optional
        What was compared with the frames of training, where the model knows these.
    n_kept : int
        Pixels that look like sources and keep their value, because the frame is unlike those of training.
    warnings : tuple of str
        The frame's, how it differs from those of training, and the predictor's.
    only_flags : bool
        Whether the network has no plane at all to write: `sci` and `err` are as they came.
    cards : sequence of (keyword, value, comment)
        What the header says of the result.
    """

    sci: np.ndarray
    err: np.ndarray
    dq: np.ndarray
    planes: Mapping[str, tuple[np.ndarray, str]]
    statistics: FrameStatistics | None = None
    n_kept: int = 0
    warnings: tuple[str, ...] = ()
    only_flags: bool = False
    cards: Sequence[tuple[str, bool | float | str, str]] = ()


def cards_of(frame: Frame) -> list[tuple[str, bool | float | str, str]]:
    """What is recorded of a frame as it came, in the unit of its file."""
    return [
        cards.LEVEL_BEFORE.with_value(frame.level / frame.factor + frame.bias_level),
        cards.NOISE_BEFORE.with_value(frame.noise / frame.factor),
    ]


def as_stored(frame: Frame, strip: Strip, units: Mapping[str, str]) -> Strip:
    """From the frame's unit to the unit and zero point of its file."""
    factor = np.float32(frame.factor)
    planes = {name: plane / factor if units[name] == "sci" else plane for name, plane in strip.planes.items()}
    return Strip(strip.top, frame.to_stored(strip.sci), strip.err / factor, strip.dq, planes)


def product_of(frame: Frame, result: FrameResult) -> FrameProduct:
    """The result of `restore_frame`, in the unit and with the zero point of its file."""
    units = {name: unit for name, (_, unit) in result.planes.items()}
    whole = Strip(0, result.sci, result.err, result.dq, {name: plane for name, (plane, _) in result.planes.items()})
    stored = as_stored(frame, whole, units)
    planes = {
        name: (plane, frame.stored_unit if units[name] == "sci" else units[name])
        for name, plane in stored.planes.items()
    }
    return FrameProduct(
        frame.science_hdu,
        stored.sci,
        stored.err,
        stored.dq,
        [*cards_of(frame), *result.cards],
        planes,
        warnings=result.warnings,
        only_flags=result.only_flags,
    )
