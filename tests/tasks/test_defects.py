"""The task `defects`: what counts, what is found, and what is flagged."""

from contextlib import closing

import numpy as np
import pytest
import torch
from scipy.ndimage import median_filter
from synthetic_tiles import sky_batch, write_tiles

from pipeline.errors import UserError
from pipeline.sky.dq import DQ, DQ_DTYPE, flag, has
from pipeline.tasks import get_decoder, get_objective, get_spec, get_targets
from pipeline.tasks.defects.decode import DEFECT_PRIOR, LIFT, middle_of_nine, score_of
from pipeline.tasks.defects.objective import DefectMetrics, hardest
from pipeline.tasks.defects.objective import score_of as score_of_torch
from pipeline.tasks.spec import HeadOptions
from pipeline.tiles.reader import TileReader
from pipeline.training.data import as_tensors


@pytest.fixture
def objective():
    return get_objective("defects")(HeadOptions())


def target_of(tiles):
    arrays = get_targets("defects").arrays(tiles)
    return as_tensors(arrays | {"weights": np.ones(len(tiles), np.float32)})


# ---- targets ---------------------------------------------------------------------------------------------------------
def test_pixels_are_found_faint_or_good():
    tiles = sky_batch(1)
    tiles.targets["defect_snr"][:], tiles.targets["defect_bits"][:] = 0, 0
    tiles.masks[:, 10:] = 0
    snr, bits = tiles.targets["defect_snr"][0, 0], tiles.targets["defect_bits"][0, 0]
    snr[20, :4], bits[20, :4] = [2.9, 3.0, 8.0, -5.0], [DQ.COSMIC_RAY, DQ.COSMIC_RAY, DQ.HOT | DQ.TRAIL, DQ.BAD]
    snr[21, 0], bits[21, 0] = 100.0, DQ.GHOST
    tiles.masks[0, 22, 0] = DQ.BAD  # flagged, although it lost next to nothing
    found = get_targets("defects").arrays(tiles)
    assert found["positive"][0, :, 20, :4].T.tolist() == [
        [False] * 5,
        [True, False, False, False, False],
        [False, True, False, True, False],
        [False, False, True, False, False],
    ]
    assert found["faint"][0, :, 20, :4].T.tolist() == [[True, False, False, False, False], *[[False] * 5] * 3]
    assert found["faint"][0, :, 21, 0].all()
    assert not found["good"][0, 20, :4].any()
    assert not found["good"][0, 21:23, 0].any()
    assert found["good"][0, 25].all()
    assert found["own"][0, 22, 0]
    np.testing.assert_allclose(found["charge"][0, 20, :4], [2.9, 3.0, 8.0, 5.0], rtol=1e-3)


def test_star_cores_are_good_pixels_of_bright_stars():
    tiles = sky_batch(4)
    found = get_targets("defects").arrays(tiles)
    clean, noise = tiles.targets["clean"][:, 0] - 200.0, tiles.images[:, 1]
    assert found["core"].any()
    assert np.all((clean / noise)[found["core"]] > 20)
    assert not np.any(found["core"] & ~found["good"])


def test_planes_move_with_the_image():
    targets = get_targets("defects")
    found = targets.arrays(sky_batch(2))
    assert found.keys() == targets.motions.keys()
    assert set(targets.motions.values()) == {"map"}


def test_pairs_of_exposures_are_refused(objective, tmp_path):
    manifest = write_tiles(tmp_path, sky_batch(8, noise2noise=True))
    message = r"no truth to train defects on: no target 'defect_snr' \(they have clean, clean_err\)"
    with closing(TileReader([manifest], "all")) as reader, pytest.raises(UserError, match=message):
        objective.check(reader)


# ---- loss ------------------------------------------------------------------------------------------------------------
def test_the_loss_is_least_for_the_truth_and_blind_to_faint_defects(objective):
    tiles = sky_batch(2)
    target = target_of(tiles)
    right = 20.0 * (target["positive"].float() - 0.5) - DEFECT_PRIOR
    assert objective.loss(right, target) < 0.01
    assert objective.loss(-right, target) > 10
    tiles.targets["defect_snr"] = np.where(tiles.targets["defect_bits"] > 0, 1.0, 0.0).astype(np.float16)
    faint = target_of(tiles)
    assert faint["faint"].any()
    there = torch.where(faint["faint"], 10.0, -10.0)
    assert objective.loss(there, faint) == objective.loss(torch.full_like(there, -10.0), faint)


def test_edges_of_tracks_count_three_times(objective):
    target = target_of(sky_batch(1))
    outputs = torch.full((1, 5, 32, 32), -DEFECT_PRIOR)
    target["signal"] = torch.zeros_like(target["signal"])
    for name in ("positive", "faint", "missing"):
        target[name] = torch.zeros_like(target[name])
    target["positive"][0, 0, 5, 5] = True
    outputs[0, 0, 5, 5] -= 4.0
    entropies = []
    for charge in (5.0, 50.0):
        target["charge"] = torch.full_like(target["charge"], charge)
        entropies.append(float(objective.loss(outputs, target)))
    n, usual, missed = 32 * 32, 5 * np.log(2), 4 * np.log(2) + np.log1p(np.exp(4.0))
    expected = [4 * ((n - 1) * usual + weight * missed) / (n - 1 + weight) for weight in (3, 1)]
    np.testing.assert_allclose(entropies, expected, rtol=1e-5)


def test_the_hardest_good_pixels_are_chosen_half_of_them_in_cores():
    good, core = torch.ones(1, 20, 50, dtype=torch.bool), torch.zeros(1, 20, 50, dtype=torch.bool)
    good[0, 0, 0] = False
    core[0, 10, :3] = True
    core[0, 11, :20] = True
    logits = torch.zeros(1, 20, 50)
    logits[0, 0, :5] = torch.tensor([9.0, 8.0, 7.0, 6.0, 5.0])
    logits[0, 10, :2] = torch.tensor([-1.0, -2.0])
    logits[0, 10, 2] = logits[0, 11, 0] = -0.5
    logits[0, 11, 1:20] = -5.0
    chosen = hardest(logits, good, core)  # 1 % of 999 pixels: 9, and 4 of these in cores
    assert chosen[0, 0, :5].tolist() == [False, True, True, True, True]
    assert chosen[core].nonzero()[:, 0].tolist() == [0, 1, 2, 3]
    assert int(chosen.sum()) == 9
    assert int(hardest(logits, good, torch.zeros_like(core)).sum()) == 9
    assert int(hardest(logits, torch.zeros_like(good), torch.zeros_like(core)).sum()) == 0


def test_hard_pixels_count_after_the_first_third_only(objective):
    target = target_of(sky_batch(2))
    outputs = torch.full((2, 5, 32, 32), -5.0)
    outputs[:, 0, 16, 16] = 6.0
    before = objective.loss(outputs, target)
    objective.progress = 0.3
    assert objective.loss(outputs, target) == before
    objective.progress = 0.4
    assert objective.loss(outputs, target) != before


def test_metrics_count_at_a_fixed_rate_of_false_alarms():
    n = 200  # 0.05 % are 20 pixels
    score = torch.full((1, 1, n, n), -15.0)
    target = {name: torch.zeros(1, n, n, dtype=torch.bool) for name in ("missing", "saturated", "own", "core")}
    target["positive"] = torch.zeros(1, 5, n, n, dtype=torch.bool)
    score[0, 0, 10, 10:130:4] = torch.linspace(1.0, 4.0, 30)  # alarms, the 20 highest from 2 on
    score[0, 0, 20, 10:50:4], score[0, 0, 30, 10:50:4] = 3.0, 1.5
    for row in (20, 30):
        target["positive"][0, 0, row, 10:50:4] = True
    target["good"] = ~target["positive"][:, 0]
    target["own"][0, 20, 10:50:4] = True
    target["core"][0, 10, [126, 122, 10, 11]] = True
    metrics = DefectMetrics()
    metrics.update(torch.cat([score, torch.full((1, 4, n, n), -40.0)], dim=1) - DEFECT_PRIOR, target)
    found = metrics.compute()
    assert found == {"tpr_bench": 0.5, "tpr_own": 1.0, "core_fpr": 0.5}
    target["positive"][:] = False
    metrics = DefectMetrics()
    metrics.update(torch.full((1, 5, n, n), -9.0), target)
    assert np.isnan(metrics.compute()["tpr_bench"])


# ---- decoding --------------------------------------------------------------------------------------------------------
def test_training_and_prediction_have_the_same_score():
    logits = np.random.default_rng(1).normal(-5, 4, (2, 5, 12, 15)).astype(np.float32)
    np.testing.assert_allclose(score_of(logits), score_of_torch(torch.from_numpy(logits)).numpy(), rtol=1e-5, atol=1e-5)


def test_a_doubtful_pixel_is_lifted_beside_a_sure_one_only():
    logits = np.full((1, 5, 7, 7), -30.0, np.float32)
    logits[0, 0, 3, 2:5] = [-1.0, 6.0, -3.0]
    logits[0, 0, 0, 0] = -1.0
    score = score_of(logits)
    np.testing.assert_allclose(score[0, 3, 2:5], [-1 + LIFT, 6.0, -3 + LIFT])
    assert score[0, 0, 0] == -1.0


def test_the_middle_of_nine_is_the_median():
    planes = np.random.default_rng(3).normal(size=(2, 9, 13)).astype(np.float32)
    np.testing.assert_array_equal(middle_of_nine(planes), median_filter(planes, size=(1, 3, 3)))


def test_places_are_told_by_the_middle_of_nine_pixels():
    decoder = get_decoder("defects")
    tiles = sky_batch(1)
    tiles.masks[:] = 0
    tiles.images[:, 0], tiles.images[:, 1] = 200.0, 15.0
    tiles.images[0, 0, 5, :] += 1000.0  # a track is narrow
    tiles.images[0, 0, 15:18, 15:18] += 100.0
    tiles.images[0, 0, 25:28, 25:28] += 1000.0
    planes = decoder.decode(np.zeros((1, 5, 32, 32), np.float32), tiles)
    assert set(planes) == {column.name for column in get_spec("defects").columns}
    score, place = decoder.alarms(planes)
    assert (place[0, 5] == 0).all()
    assert (place[0, 16, 16], place[0, 26, 26]) == (1, 2)
    np.testing.assert_allclose(score, DEFECT_PRIOR)


def test_flags_are_of_the_likely_defects_above_the_threshold_of_their_place():
    decoder = get_decoder("defects")
    planes = {f"{name}_logit": np.full((1, 6), -9.0) for name in get_spec("defects").outputs}
    planes["cosmic_ray_logit"][0] = [-2.0, -0.5, 3.0, 3.0, 3.0, -0.5]
    planes["hot_logit"][0, 2] = 1.0
    planes["dead_logit"][0, 5] = -0.4
    planes["defect_score"] = np.array([[-2.0, -0.5, 3.1, 3.0, 3.0, 0.2]])
    planes["surroundings_snr"] = np.array([[0.0, 0.0, 6.0, 50.0, 0.0, 0.0]])
    dq = np.zeros((1, 6), DQ_DTYPE)
    flag(dq, np.array([[False] * 4 + [True, False]]), DQ.MISSING)
    thresholds = {"sky": -1.0, "source": 2.0, "core": 3.5}
    found = decoder.flags(planes, dq, 1.0, None, thresholds)
    assert found.tolist() == [[0, DQ.COSMIC_RAY, DQ.COSMIC_RAY | DQ.HOT, 0, 0, DQ.BAD]]
    assert found.dtype == DQ_DTYPE
    assert decoder.flags(planes, dq, 1.0).tolist() == [
        [0, 0, DQ.COSMIC_RAY | DQ.HOT, DQ.COSMIC_RAY, 0, DQ.BAD]  # without a table: more likely than not
    ]
    kept = np.array([[False, True, False, False, False, False]])
    spared = decoder.flags(planes, dq, 1.0, kept, thresholds)
    assert spared[0, 1] == DQ.LOW_CONFIDENCE
    assert not has(spared, DQ.LOW_CONFIDENCE)[~kept].any()
