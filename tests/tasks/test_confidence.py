"""Strata and traits of restored pixels."""

import numpy as np
import pytest

from pipeline.sky.dq import DQ, DQ_DTYPE
from pipeline.tasks import get_decoder
from pipeline.tasks.denoise.confidence import KINDS, strata_of_truth
from pipeline.tiles.shards import TileBatch

LEVEL, NOISE = 100.0, 10.0
SKY, FAINT, CORE, PAINTED, MISSING = range(len(KINDS))


def batch_of(sci, masks=None, clean=None) -> TileBatch:
    sci = np.asarray(sci, np.float32)[None]
    return TileBatch(
        images=np.stack([sci, np.full_like(sci, NOISE)], axis=1),
        events={"level": np.full(1, LEVEL), "noise": np.full(1, NOISE)},
        group=np.zeros(1, np.int64),
        targets={} if clean is None else {"clean": np.asarray(clean, np.float32)[None, None]},
        masks=None if masks is None else np.asarray(masks, DQ_DTYPE)[None],
    )


def values_of(restored, err, probability) -> dict[str, np.ndarray]:
    return {
        "restored": np.asarray(restored, np.float32)[None],
        "restored_err": np.asarray(err, np.float32)[None],
        "painted": np.asarray(probability, np.float32)[None] >= 0.5,
    }


def test_strata_by_what_was_predicted():
    restored = [[LEVEL, LEVEL + 5, LEVEL + 199, LEVEL + 200, LEVEL, LEVEL, LEVEL, LEVEL]]
    probability = [[0, 0, 0, 0, 0.6, 0.6, 0, 0]]
    masks = [[0, 0, 0, 0, 0, DQ.SATURATED, DQ.SATURATED, DQ.MISSING]]
    batch = batch_of(restored, masks)
    traits = get_decoder("denoise").traits(values_of(restored, np.full((1, 8), 5.0), probability), batch)
    assert traits.place[0, 0].tolist() == [SKY, FAINT, FAINT, CORE, PAINTED, PAINTED, -1, MISSING]


def test_traits_are_the_uncertainty_the_light_beside_and_the_own_one():
    restored = np.full((6, 7), LEVEL)
    restored[2, 3] = LEVEL + 50 * NOISE
    err = np.full((6, 7), NOISE)
    err[0, 0] = 0.0
    traits = get_decoder("denoise").traits(values_of(restored, err, np.zeros((6, 7))), batch_of(restored))
    stated, beside, own = (values[0] for values in traits.values)
    assert stated[0, 0] == pytest.approx(np.log(1e-3))
    assert stated[1, 1] == 0
    assert own[2, 3] == pytest.approx(np.arcsinh(50))
    near = np.zeros((6, 7), bool)
    near[0:5, 1:6] = True
    np.testing.assert_allclose(beside, np.where(near, np.arcsinh(50), 0), rtol=1e-6)


def test_strata_by_the_truth():
    light = np.array([0.4, 0.5, 19.9, 20.0, 3.0, 3.0, 3.0, 3.0, np.nan])
    dq = np.array([0, 0, 0, 0, DQ.COSMIC_RAY, DQ.COSMIC_RAY, DQ.SATURATED, DQ.MISSING, 0], DQ_DTYPE)
    painted = np.array([0, 0, 0, 0, 0, 1, 1, 0, 1], bool)
    found = strata_of_truth(light, painted, np.array(dq == DQ.MISSING), dq)
    assert found.tolist() == [SKY, FAINT, FAINT, CORE, -1, PAINTED, -1, MISSING, -1]


def test_errors_are_restored_less_true():
    restored, clean = [[LEVEL + 7, LEVEL + 1]], [[LEVEL, LEVEL + 30]]
    error, place = get_decoder("denoise").errors(
        values_of(restored, [[1, 1]], [[0, 0.9]]), batch_of(restored, [[0, 0]], clean)
    )
    assert error[0].tolist() == [[7, -29]]
    assert place[0].tolist() == [[SKY, PAINTED]]
