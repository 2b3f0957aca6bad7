"""Events among the rows of tiles: where each begins, and what its values are."""

from collections.abc import Mapping, Sequence

import numpy as np

#: Event columns that say which event a tile belongs to.
EVENT_KEYS = ("obs_id", "event_id")
#: An event of several telescopes has images of so many of them or more.
MIN_TELESCOPES = 2

#: Columns whose value of an event is the sum over its images.
_SUMMED = ("hillas_intensity",)


def event_starts(events: Mapping[str, np.ndarray]) -> np.ndarray:
    """Number of the first tile of each event; tiles of an event are adjacent.

    Parameters
    ----------
    events : mapping
        `obs_id`, `event_id` and `group`, shape (N,) each. A shower that is used several times makes several events of
        one group.
    """
    is_first = np.ones(len(events["group"]), bool)
    if len(is_first):
        is_first[1:] = np.any([np.diff(events[name]) != 0 for name in (*EVENT_KEYS, "group")], axis=0)
    return np.flatnonzero(is_first)


def event_values(events: Mapping[str, np.ndarray], names: Sequence[str], starts: np.ndarray) -> dict[str, np.ndarray]:
    """Columns with one row per event: charges are added, of the others the value of the first image is taken.

    Parameters
    ----------
    events : mapping
        Columns of the tiles, shape (N,).
    names : sequence of str
    starts : ndarray, shape (n,)
        See `event_starts`.
    """
    return {
        name: np.add.reduceat(np.asarray(events[name], np.float64), starts)
        if name in _SUMMED and len(starts)
        else events[name][starts]
        for name in names
    }
