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


def found_in(logits, step=37, light=None):
    binned = BinnedLogits(logits.shape)
    for start in range(0, len(logits), step):
        rows = slice(start, start + step)
        binned.add(start, logits[rows], np.zeros_like(logits[rows]) if light is None else light[rows])
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


def _near(distance):
    return plane() + np.where(np.abs(distance) < 2.5, 11.0, 0.0).astype(np.float32)


def test_waves_rings_and_jets_are_no_lines():
    """Nebulae have filaments that are straight for a while: a band from edge to edge would be flagged."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    for amplitude in (12, 20, 30):
        assert found_in(_near(x - 300 - amplitude * np.sin(y / 20))) == []
    for radius in (50, 100, 200):
        assert found_in(_near(np.hypot(x - 300, y - 250) - radius)) == []
    angle = np.arctan2(y - 250, x - 300)
    assert found_in(_near((np.hypot(x - 300, y - 250) - 20 - 12 * angle) % 75 - 37)) == []
    assert found_in(_near(np.where(np.abs(y - 250) < 100, x - 300, 99))) == []


def test_an_edge_of_the_sky_is_no_line():
    """The step between two amplifiers; a trail across a gradient, with a hole in the frame, is one."""
    rng = np.random.default_rng(2)
    x = np.arange(SHAPE[1], dtype=float) * np.ones((SHAPE[0], 1))
    logits = _near(x - 300)
    step = np.where(x < 300, 40.0, 0.0) + rng.normal(0, 10, SHAPE)
    assert found_in(logits, light=step) == []
    gradient = 0.1 * x + np.where(np.abs(x - 300) < 2.5, 20.0, 0.0) + rng.normal(0, 10, SHAPE)
    gradient[:, 100:120] = np.nan
    assert len(found_in(logits, light=gradient)) == 1


def test_bins_of_strips_are_those_of_the_plane():
    logits = plane(Line(0.5, 400.0, 6.0))
    binned, strips = BinnedLogits(SHAPE), BinnedLogits(SHAPE)
    binned.add(0, logits, np.zeros_like(logits))
    for start in range(0, SHAPE[0], 51):
        strips.add(start, logits[start : start + 51], np.zeros_like(logits[start : start + 51]))
    np.testing.assert_allclose(strips.mean, binned.mean, rtol=1e-5)
    np.testing.assert_array_equal(strips.largest, binned.largest)
    probability = 1 / (1 + np.exp(-logits.astype(float)))
    np.testing.assert_allclose(binned.mean[2, 3], probability[16:24, 24:32].mean(), rtol=1e-4)
    np.testing.assert_allclose(binned.mean[-1, -1], probability[496:, 616:].mean(), rtol=1e-4)
    assert binned.mean.shape == (-(-SHAPE[0] // BIN_PX), -(-SHAPE[1] // BIN_PX))
