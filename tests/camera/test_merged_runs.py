"""Which simulation an image is of, when several share a run number."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.camera.merged_runs import split_runs
from pipeline.errors import InputFileError


def runs_of(obs_id, event_id, tel_id, energy, azimuth_deg=0.0):
    """Rows of each run, and its number."""
    ids = dict(zip(("obs_id", "event_id", "tel_id"), np.broadcast_arrays(obs_id, event_id, tel_id), strict=True))
    azimuth = np.radians(np.broadcast_to(azimuth_deg, ids["event_id"].shape))
    direction = np.column_stack([np.cos(azimuth), np.sin(azimuth), np.zeros_like(azimuth)])
    truth = None if energy is None else np.asarray(energy, float)[:, None]
    return {run.obs_id: run.rows.tolist() for run in split_runs(ids, Path("file.h5"), "images", truth, direction)}


def test_one_run_in_any_order():
    assert runs_of(7, [3, 1, 2, 1], [1, 2, 1, 1], [30, 10, 20, 10]) == {7: [3, 1, 2, 0]}


def test_events_of_both_seen_by_other_telescopes():
    """No image is there twice, but event 1 is of two showers."""
    assert runs_of(7, [1, 2, 1, 2], [1, 1, 2, 2], [10, 20, 11, 21]) == {7: [0, 1], 8: [2, 3]}
    with pytest.raises(InputFileError, match="the images of run 7, event 2 are of different showers"):
        runs_of(7, [1, 2, 2, 3], [1, 1, 2, 1], [10, 20, 21, 31])


def test_new_numbers_are_free():
    found = runs_of([7, 7, 9, 9], [1, 1, 1, 1], 1, [10, 11, 12, 13])
    assert found == {7: [0], 9: [2], 10: [1], 11: [3]}


def test_unknown_truths_are_equal():
    assert runs_of(7, [1, 1], [1, 2], [np.nan, np.nan]) == {7: [0, 1]}


def test_pointings():
    # Rows without a pointing stay with the first direction; a jitter across north is none.
    assert runs_of(7, [1, 2, 3, 4], 1, [1, 2, 3, 4], [359.999, 20.0, np.nan, 0.001]) == {7: [0, 2, 3], 8: [1]}
    with pytest.raises(InputFileError, match="more than 100 pointings of one simulated run"):
        runs_of(7, np.arange(300), 1, np.arange(300), np.arange(300))


def test_observations_are_never_split():
    assert runs_of(7, [2, 1], 1, None, [0.0, 90.0]) == {7: [1, 0]}
    with pytest.raises(InputFileError, match="run 7, event 1, telescope 1 stands more than once in images"):
        runs_of(7, [1, 1], 1, None)


def test_rows_in_no_order():
    event_id = np.random.default_rng(0).permutation(np.repeat(np.arange(500), 2))
    with pytest.raises(InputFileError, match="run 7 has images with equal numbers, and its rows are in no order"):
        runs_of(7, event_id, 1, np.arange(1000))
