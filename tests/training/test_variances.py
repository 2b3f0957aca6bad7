"""Uncertainties of restored pixels, measured with a network whose errors are known."""

import numpy as np
import pytest
import torch
from synthetic_tiles import write_tiles
from tiny_bundles import sky_bundle

from pipeline.bundle.card import load_bundle_card
from pipeline.bundle.variance import quantiles_of
from pipeline.config import SplitsConfig
from pipeline.sky.dq import DQ, DQ_DTYPE
from pipeline.tiles.reader import TileReader
from pipeline.tiles.shards import TileBatch
from pipeline.training.frame_variance import window_sums, with_variances

LEVEL, NOISE, SIDE = 200.0, 10.0, 64
ERROR = 1.0  # of a pixel: far below the noise of the background, as after a restoration


class AsItCame(torch.nn.Module):
    """Every pixel keeps its value, and half of its uncertainty is stated."""

    def forward(self, images):
        outputs = torch.zeros(len(images), 5, *images.shape[2:])
        outputs[:, 2], outputs[:, 3] = 2 * np.log(0.5), -9.0
        return outputs


def tiles_of_a_frame(rng, side=SIDE, n_side=4, correlated=False) -> TileBatch:
    """Sky with errors of a known size, cores of stars whose errors are three times larger, and a gap."""
    shape = (side * n_side, side * n_side)
    clean = np.full(shape, LEVEL, np.float32)
    clean[:, 20:40] += NOISE * rng.uniform(50, 150, (shape[0], 20)).astype(np.float32)
    err = np.full(shape, ERROR, np.float32)
    noise = rng.standard_normal((shape[0] + 1, shape[1])).astype(np.float32)
    noise = (noise[1:] + noise[:-1]) / np.sqrt(2) if correlated else noise[1:]
    sci = clean + ERROR * noise * np.where(clean > LEVEL, 3, 1)
    masks = np.zeros(shape, DQ_DTYPE)
    sci[:, 100:103], masks[:, 100:103] = np.nan, DQ.MISSING
    corners = [(y, x) for y in range(0, shape[0], side) for x in range(0, shape[1], side)]

    def cut(plane):
        return np.stack([plane[y : y + side, x : x + side] for y, x in corners])

    n = len(corners)
    return TileBatch(
        images=np.stack([cut(sci), cut(err)], axis=1),
        events={
            "field": np.zeros(n, np.int64),
            "frame": np.zeros(n, np.int64),
            "x0": np.array([x for _, x in corners], np.int32),
            "y0": np.array([y for y, _ in corners], np.int32),
            "level": np.full(n, LEVEL),
            "noise": np.full(n, NOISE),
        },
        group=np.zeros(n, np.int64),
        targets={"clean": cut(clean)[:, None]},
        masks=cut(masks),
    )


def variance_of(tmp_path, tiles):
    shares = SplitsConfig(train=0.0, validation=1.0, test=0.0)
    manifest = write_tiles(tmp_path, tiles, "field", shares=shares)
    card = load_bundle_card(sky_bundle(tmp_path / "bundle"))
    found = with_variances(card, AsItCame(), TileReader([manifest], "validation"), "cpu")
    return found.heads[0].variance


def test_each_stratum_has_its_own_factor(tmp_path, rng):
    """Half of the uncertainty was stated: the sky needs 2, the cores 6."""
    variance = variance_of(tmp_path, tiles_of_a_frame(rng))
    assert set(variance.pulls) == {"sky", "core", "missing"}
    assert set(variance.factors) == {"sky", "core", "missing"}
    stated, typical = np.log(0.5 * ERROR / NOISE), {"sky": (2.0, 0.2, 0.0), "core": (6.0, 140.0, 100.0)}
    for name, (expected, beside, own) in typical.items():
        pulls = variance.pulls[name]
        assert pulls.width == pytest.approx(0.96, abs=0.05)
        assert pulls.beyond_3 < 0.01
        traits = [np.float32([stated]), np.arcsinh(np.float32([beside])), np.arcsinh(np.float32([own]))]
        factor = variance.factors[name]
        assert factor.of(traits[: len(factor.ranges)])[0] == pytest.approx(expected / 0.96, rel=0.15)


def test_independent_errors_have_no_correlation(tmp_path, rng):
    variance = variance_of(tmp_path, tiles_of_a_frame(rng))
    assert set(variance.correlations) >= {3, 5, 9}
    for value in variance.correlations.values():
        assert value == pytest.approx(0.96, abs=0.12)


def test_correlated_errors(tmp_path, rng):
    """Means of two neighbours: a sum over n rows varies by 2 - 1 / n."""
    variance = variance_of(tmp_path, tiles_of_a_frame(rng, correlated=True))
    for size, value in variance.correlations.items():
        assert value / 0.96 == pytest.approx(np.sqrt(2 - 1 / size), rel=0.12)


def test_tiles_without_a_truth_tell_nothing(tmp_path, rng):
    tiles = tiles_of_a_frame(rng)
    tiles.targets["clean_err"] = np.full_like(tiles.targets["clean"], NOISE)  # of a partner
    assert variance_of(tmp_path, tiles) is None


def test_tiles_of_no_frame_tell_nothing(tmp_path, rng):
    tiles = tiles_of_a_frame(rng)
    del tiles.events["frame"]
    assert variance_of(tmp_path, tiles) is None


def test_sums_of_windows(rng):
    error, err = rng.standard_normal((90, 100)), np.ones((90, 100))
    usable = np.ones((90, 100), bool)
    usable[0, 0] = usable[50, 50] = False
    sums = window_sums(error, err, usable, 5)
    assert sums.size == 18 * 20 - 2
    assert sums[0] == pytest.approx(error[:5, 5:10].sum() / 5)
    assert quantiles_of(sums).width == pytest.approx(1, abs=0.12)
