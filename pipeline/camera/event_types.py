"""Types of events: showers, and what cameras record besides (flat fields, pedestals, muon candidates).

One rule for all formats, told in docs/formats.md. Numbers are ctapipe's ``EventType`` (the event model of CTAO).
"""

from collections.abc import Collection

import numpy as np

from pipeline.config.ingest import EventTypeName

#: ctapipe's numbers; its names are the same without the underscore of ``flat_field``.
NUMBERS: dict[EventTypeName, int] = {
    "flat_field": 0,
    "single_pe": 1,
    "pedestal": 2,
    "dark_pedestal": 3,
    "electronic_pedestal": 4,
    "sky_pedestal": 5,
    "other_calibration": 15,
    "muon": 16,
    "hardware_stereo": 17,
    "random_mono": 18,
    "daq": 24,
    "subarray": 32,
    "long_event": 33,
    "unknown": 255,
}
UNKNOWN, SHOWER = NUMBERS["unknown"], NUMBERS["subarray"]
_CALIBRATION = range(0, 16)  # light of the camera's own lamps, or none


def type_name(number: int) -> str:
    """Name of a type, as in the configuration and in records; ``type_99`` for a number that is not in the list."""
    return _NAMES.get(number, f"type_{number}")


_NAMES: dict[int, str] = {number: name for name, number in NUMBERS.items()} | {-1: "unknown"}


def type_names(types: np.ndarray) -> np.ndarray:
    """Names of types, shape (n,)."""
    values, place = np.unique(types, return_inverse=True)
    return np.array([type_name(value) for value in values.tolist()], object)[place]


def combined_types(array_type: np.ndarray, telescope_type: np.ndarray) -> np.ndarray:
    """Type of each image from those of its two triggers, shape (n,).

    The trigger of the array decides. Where it does not know, the telescope's does; and a telescope that says
    calibration is believed: its lamp or its shutter is its own.
    """
    array_type, telescope_type = np.asarray(array_type, np.int64), np.asarray(telescope_type, np.int64)
    says_calibration = (telescope_type >= _CALIBRATION.start) & (telescope_type < _CALIBRATION.stop)
    is_unknown = (array_type == UNKNOWN) | (array_type == -1)
    return np.where(is_unknown | says_calibration, telescope_type, array_type)


def reasons_of_types(types: np.ndarray, wanted: Collection[str]) -> np.ndarray:
    """Why an image is left out for the type of its event, shape (n,); empty for the types `wanted`."""
    values, place = np.unique(types, return_inverse=True)
    names = [type_name(value) for value in values.tolist()]
    texts = ["" if name in wanted else f"event type {name.removeprefix('type_').replace('_', ' ')}" for name in names]
    return np.array(texts, object)[place]
