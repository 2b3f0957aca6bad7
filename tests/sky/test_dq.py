"""The bits of a mask: their numbers stand in users' files."""

import numpy as np

from pipeline.sky import dq
from pipeline.sky.dq import DESCRIPTIONS, DQ, DQ_DTYPE, flag, has
from pipeline.tiles.shards import MASK_DTYPE


def test_numbers_and_texts_of_the_bits():
    numbers = {
        "BAD": 1, "HOT": 2, "SATURATED": 4, "COSMIC_RAY": 8, "TRAIL": 16, "MISSING": 32, "RESTORED": 64,
        "LOW_CONFIDENCE": 128, "BLEED": 256, "GHOST": 512,
    }  # fmt: skip
    assert {bit.name: int(bit) for bit in DQ} == numbers
    assert list(DESCRIPTIONS) == list(DQ)
    assert int(~DQ(0)) <= np.iinfo(DQ_DTYPE).max
    assert DQ_DTYPE == MASK_DTYPE


def test_what_prediction_adds_is_in_no_set():
    for bits in (dq.DETECTOR, dq.LOST, dq.DEFECTS, dq.UNTRUSTED, dq.UNUSABLE):
        assert not bits & (DQ.RESTORED | DQ.LOW_CONFIDENCE)
    assert DQ.SATURATED not in dq.UNTRUSTED  # a saturated star is not painted over


def test_flag_and_has_keep_the_type():
    mask = np.zeros((2, 3), DQ_DTYPE)
    flag(mask, np.array([[True, False, False], [False, False, True]]), DQ.GHOST | DQ.BAD)
    flag(mask, mask > 0, DQ.MISSING)
    assert mask.dtype == DQ_DTYPE
    assert mask.tolist() == [[545, 0, 0], [0, 0, 545]]
    np.testing.assert_array_equal(has(mask, DQ.GHOST | DQ.HOT), mask > 0)
    assert not has(mask, ~(DQ.GHOST | DQ.BAD | DQ.MISSING)).any()
