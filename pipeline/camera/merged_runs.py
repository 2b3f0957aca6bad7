"""Which rows of a merged lstchain file belong to which run.

lstchain joins files by appending their tables. Simulations of one production often have the same run numbers, so that
two showers share one run number and event id: every shower then needs a run of its own, or truths change their images.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.camera.keys import KeyIndex, unique_index
from pipeline.errors import InputFileError

_MAX_DIRECTIONS = 100  # of one run number; simulations of a whole production have tens
_MAX_SEGMENTS = 200  # of one run number: as many files may have been appended
_SAME_DIRECTION_RAD = 5e-3  # 0.3 deg


class Run(NamedTuple):
    """Rows of one run.

    Attributes
    ----------
    obs_id : int
        Its number in the product.
    file_obs_id, place : int
        Its number in the file, and which of the runs with that number it is, from 0.
    rows : ndarray of int, shape (n,)
        By event and telescope: images of one event are adjacent.
    """

    obs_id: int
    file_obs_id: int
    place: int
    rows: np.ndarray


def split_runs(
    ids: Mapping[str, np.ndarray], path: Path, table: str, truth: np.ndarray | None, direction: np.ndarray
) -> list[Run]:
    """Rows of each run; a run number that several simulations share is given out again to all but the first.

    Parameters
    ----------
    ids : mapping of ndarray, shape (n,)
        obs_id, event_id, tel_id in the order of the file.
    path : path
    table : str
        For messages.
    truth : ndarray, shape (n, k), or None
        The shower of each image in numbers; None for observations, whose run numbers are unique.
    direction : ndarray, shape (n, 3)
        Unit vector of each image's pointing, NaN where it is not known: a simulated run has one.

    Raises
    ------
    InputFileError
        If an image is in the file twice, or an event has two truths.
    """
    runs: list[Run] = []
    next_free = int(ids["obs_id"].max()) + 1
    for obs_id in np.unique(ids["obs_id"]).tolist():
        rows = np.flatnonzero(ids["obs_id"] == obs_id)
        shares = [rows] if truth is None else _shares(rows, ids, path, truth, direction)
        for place, share in enumerate(shares):
            number = obs_id
            if place:
                number, next_free = next_free, next_free + 1
            if truth is not None and len(torn := _torn(share, ids, truth)):
                raise InputFileError(
                    f"{path}: the images of run {obs_id}, event {torn[0]} are of different showers; convert the files "
                    "of lstchain before they are merged"
                )
            order = share[np.lexsort((ids["tel_id"][share], ids["event_id"][share]))]
            unique_index({"obs_id": np.full(len(order), obs_id)} | {k: ids[k][order] for k in ("event_id", "tel_id")},
                         path, table)  # fmt: skip
            runs.append(Run(number, obs_id, place, order))
    return sorted(runs, key=lambda run: run.obs_id)


def _shares(
    rows: np.ndarray, ids: Mapping[str, np.ndarray], path: Path, truth: np.ndarray, direction: np.ndarray
) -> list[np.ndarray]:
    """The rows of one run number, by simulation."""
    shares: list[np.ndarray] = []
    for part in _by_direction(rows, path, direction):
        here: list[np.ndarray] = []
        segments = _rising(part, ids, truth)
        if len(segments) > _MAX_SEGMENTS:
            raise InputFileError(
                f"{path}: run {ids['obs_id'][part[0]]} has images with equal numbers, and its rows are in no order "
                "that tells its simulations apart; convert the files of lstchain before they are merged"
            )
        for segment in segments:
            # Only the latest: files are appended one after the other.
            if here and _fits(here[-1], segment, ids, truth):
                here[-1] = np.concatenate([here[-1], segment])
            else:
                here.append(segment)
        shares += here
    return shares


def _by_direction(rows: np.ndarray, path: Path, direction: np.ndarray) -> list[np.ndarray]:
    """Rows with one pointing each; those without any stay with the first."""
    parts, left = [], rows[np.isfinite(direction[rows]).all(axis=1)]
    while len(left):
        if len(parts) == _MAX_DIRECTIONS:
            raise InputFileError(
                f"{path}: more than {_MAX_DIRECTIONS} pointings of one simulated run; convert the files of lstchain "
                "before they are merged"
            )
        near = np.linalg.norm(direction[left] - direction[left[0]], axis=1) < _SAME_DIRECTION_RAD
        parts.append(left[near])
        left = left[~near]
    unknown = rows[~np.isfinite(direction[rows]).all(axis=1)]
    if not parts:
        return [rows]
    return [np.sort(np.concatenate([parts[0], unknown])), *parts[1:]]


def _rising(rows: np.ndarray, ids: Mapping[str, np.ndarray], truth: np.ndarray) -> list[np.ndarray]:
    """Stretches in which (event, telescope) rises, as it does within one file of lstchain's."""
    event_id, tel_id = ids["event_id"][rows], ids["tel_id"][rows]
    is_repeated = len(KeyIndex(event_id, tel_id).duplicated_rows) > 0
    if not is_repeated and not len(_torn(rows, ids, truth)):
        return [rows]  # nothing to separate, whatever the order
    falls = (event_id[1:] < event_id[:-1]) | ((event_id[1:] == event_id[:-1]) & (tel_id[1:] <= tel_id[:-1]))
    return np.split(rows, np.flatnonzero(falls) + 1)


def _fits(share: np.ndarray, segment: np.ndarray, ids: Mapping[str, np.ndarray], truth: np.ndarray) -> bool:
    """Whether two stretches can be of one simulation: common events have one truth."""
    place, is_known = KeyIndex(ids["event_id"][share]).find(ids["event_id"][segment])
    return not _differ(truth[share[place[is_known]]], truth[segment[is_known]]).any()


def _torn(rows: np.ndarray, ids: Mapping[str, np.ndarray], truth: np.ndarray) -> np.ndarray:
    """Events whose images have different truths."""
    order = rows[np.argsort(ids["event_id"][rows], kind="stable")]
    event_id = ids["event_id"][order]
    return event_id[1:][(event_id[1:] == event_id[:-1]) & _differ(truth[order[1:]], truth[order[:-1]])]


def _differ(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return ~((one == other) | (np.isnan(one) & np.isnan(other))).all(axis=1)
