"""Trails found in binned logits."""

import numpy as np
import pytest

from pipeline.sky.dq import DQ, DQ_DTYPE
from pipeline.sky.lines import BIN_PX, BinnedLogits, Line, flag_lines

SHAPE = (500, 620)


def plane(*lines, depth=3.0, sky=-8.0, seed=1):
    """Logits of a frame with lines, of which a part is lost in noise."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(sky, 1.0, SHAPE)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    for line in lines:
        inside = line.distance(y, x) <= line.width_px / 2
        logits[inside] = rng.normal(depth, 1.0, np.count_nonzero(inside))
    return logits.astype(np.float32)


def found_in(logits, step=37):
    binned = BinnedLogits(logits.shape)
    for start in range(0, len(logits), step):
        binned.add(start, logits[start : start + step])
    return binned.lines()


@pytest.mark.parametrize("true", [Line(0.5, 400.0, 6.0), Line(-1.2, -200.0, 3.0), Line(0.0, 100.0, 5.0)])
def test_a_line_is_found_with_its_width(true):
    (line,) = found_in(plane(true))
    sign = 1 if np.cos(line.angle_rad - true.angle_rad) > 0 else -1  # a line has two normals
    assert sign * np.exp(1j * line.angle_rad) == pytest.approx(np.exp(1j * true.angle_rad), abs=0.005)
    assert sign * line.offset_px == pytest.approx(true.offset_px, abs=1.5)
    assert line.width_px == pytest.approx(true.width_px, abs=1.2)


def test_a_faint_or_interrupted_line_goes_on_across_the_frame():
    true = Line(0.5, 400.0, 5.0)
    logits = plane(true, depth=-0.8)
    x = np.arange(SHAPE[1])
    logits[:, (x // 40) % 2 == 0] = -8.0
    lines = found_in(logits)
    assert len(lines) == 1
    dq = np.zeros(SHAPE, DQ_DTYPE)
    dq[:, :50] = DQ.MISSING
    flag_lines(dq, lines, DQ.TRAIL)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    middle = true.distance(y, x) < 1
    assert ((dq & DQ.TRAIL) != 0)[middle & (x >= 50)].mean() > 0.95
    assert np.all(dq[:, :50] == DQ.MISSING)
    assert not dq[(true.distance(y, x) > 8) & (x >= 50)].any()


def test_two_lines_that_cross_are_two():
    lines = found_in(plane(Line(0.5, 400.0, 5.0), Line(-1.0, -100.0, 5.0)))
    assert len(lines) == 2


def test_tracks_noise_and_clouds_are_no_lines():
    assert found_in(plane()) == []
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    logits = plane()
    logits[(Line(0.5, 400.0, 4.0).distance(y, x) < 2) & (x > 300) & (x < 360)] = 5.0  # 70 px of a muon
    assert found_in(logits) == []
    cloud = np.hypot(y - 250, x - 300) < 120
    logits[cloud] = 0.0
    assert found_in(logits) == []


def test_bins_of_strips_are_those_of_the_plane():
    logits = plane(Line(0.5, 400.0, 6.0))
    binned, strips = BinnedLogits(SHAPE), BinnedLogits(SHAPE)
    binned.add(0, logits)
    for start in range(0, SHAPE[0], 51):
        strips.add(start, logits[start : start + 51])
    np.testing.assert_allclose(strips.mean, binned.mean, rtol=1e-5)
    np.testing.assert_array_equal(strips.largest, binned.largest)
    probability = 1 / (1 + np.exp(-logits.astype(float)))
    np.testing.assert_allclose(binned.mean[2, 3], probability[16:24, 24:32].mean(), rtol=1e-4)
    np.testing.assert_allclose(binned.mean[-1, -1], probability[496:, 616:].mean(), rtol=1e-4)
    assert binned.mean.shape == (-(-SHAPE[0] // BIN_PX), -(-SHAPE[1] // BIN_PX))
