"""Factors of the uncertainties of pixels, fitted to pulls whose sizes are known."""

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.bundle.variance import (
    PULLS,
    FrameVariance,
    Sample,
    StratumFactor,
    counted,
    fit_factors,
    quantiles_of,
    summaries,
)
from pipeline.tasks.interfaces import PixelTraits

STRATA = {"sky": 1, "core": 2}


def sample_of(pull, place, *traits, truth=None, weight=None) -> Sample:
    place = np.broadcast_to(place, pull.shape)
    weight = np.ones(pull.shape) if weight is None else weight
    return Sample(pull, place, traits, place if truth is None else truth, weight)


def after(factors, sample) -> dict[str, np.ndarray]:
    """Pulls with the factors."""
    variance = FrameVariance(factors=factors)
    err = variance.scaled(np.ones(sample.pull.shape, np.float32), STRATA, PixelTraits(sample.place, sample.traits))
    return {name: sample.pull[sample.place == n] / err[sample.place == n] for n, name in enumerate(STRATA)}


def test_the_size_of_errors_follows_the_traits(rng):
    """Errors that are 0.2 to 5 times what was stated, by two traits, come back as one."""
    one, two = rng.uniform(-1, 3, (2, 40_000)).astype(np.float32)
    size = np.exp(0.4 * one - 0.3 * two + 0.2 * one * two)
    sample = sample_of(rng.standard_normal(40_000) * size, 1, one, two)
    factors = fit_factors(sample, STRATA)
    assert set(factors) == {"core"}
    np.testing.assert_allclose(factors["core"].of(sample.traits) / size, 1 / 0.96, rtol=0.06)
    found = quantiles_of(after(factors, sample)["core"])
    assert found.width == pytest.approx(0.96, abs=0.01)
    assert found.beyond_3 < 0.004


def test_a_hidden_minority_is_taken_by_the_quantile(rng):
    """2 % of the errors are three times larger, and nothing tells them: the factor grows until few are beyond 3."""
    n = 60_000
    pull = rng.standard_normal(n) * np.where(rng.random(n) < 0.02, 3.0, 1.0)
    trait = rng.uniform(0, 1, n).astype(np.float32)
    sample = sample_of(pull, 0, trait)
    width = quantiles_of(pull).width
    assert np.mean(np.abs(pull / width) > 3) > 0.008
    found = quantiles_of(after(fit_factors(sample, STRATA), sample)["sky"])
    assert 0.92 <= found.width < 0.96
    assert found.beyond_3 <= 0.009


def test_no_width_falls_below_the_least(rng):
    """With tails that no factor can take, the width stays."""
    pull = rng.standard_t(1.5, 50_000)
    trait = rng.uniform(0, 1, 50_000).astype(np.float32)
    sample = sample_of(pull, 0, trait)
    found = quantiles_of(after(fit_factors(sample, STRATA), sample)["sky"])
    assert found.width == pytest.approx(0.92, abs=0.02)
    assert found.beyond_3 > 0.01


def test_the_stratum_of_the_truth_counts(rng):
    """Faint light that was taken for empty sky makes the tails of "core" here: the factors of the sky must grow."""
    n = 100_000
    trait = rng.uniform(0, 1, n).astype(np.float32)
    truth = (rng.random(n) < 0.01).astype(int)
    pull = rng.standard_normal(n) * np.where(truth, 1.2, 1) - 1.2 * truth
    sample = sample_of(pull, 0, trait, truth=truth)
    alone = fit_factors(sample._replace(truth=np.zeros(n, int)), STRATA)["sky"]
    assert fit_factors(sample, STRATA)["sky"].of([trait]).mean() > 1.01 * alone.of([trait]).mean()


def test_weights_stand_for_pixels(rng):
    pull = np.concatenate([rng.standard_normal(5000), 4 * rng.standard_normal(5000)])
    weight = np.repeat([1e-3, 1.0], 5000)
    assert quantiles_of(pull, weight).width == pytest.approx(4, rel=0.05)
    assert quantiles_of(pull, weight).n == 5005


def test_few_pixels_have_no_factor(rng):
    pull = rng.standard_normal(400)
    assert fit_factors(sample_of(pull, 0, pull.astype(np.float32)), STRATA) == {}


def test_beyond_the_range_of_the_fit_a_factor_stays():
    factor = StratumFactor(ranges=((0.0, 2.0),), coefficients=(0.1, 0.5, -0.2))
    values = np.array([-9.0, 0.0, 1.0, 2.0, 50.0], np.float32)
    low, middle, high = np.exp([0.1 - 0.5 - 0.2, 0.1, 0.1 + 0.5 - 0.2])
    np.testing.assert_allclose(factor.of([values]), [low, low, middle, high, high], rtol=1e-5)


def test_the_quadratic_of_two_traits():
    factor = StratumFactor(ranges=((-1.0, 1.0), (-1.0, 1.0)), coefficients=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6))
    x, y = 0.5, -0.25
    expected = np.exp(0.1 + 0.2 * x + 0.3 * y + 0.4 * x**2 + 0.5 * x * y + 0.6 * y**2)
    assert factor.of([np.float32([x]), np.float32([y])])[0] == pytest.approx(expected, rel=1e-5)


def test_pixels_of_no_stratum_stay():
    variance = FrameVariance(factors={"core": StratumFactor(ranges=((0.0, 1.0),), coefficients=(np.log(2), 0, 0))})
    traits = PixelTraits(np.array([[-1, 0, 1]], np.int8), (np.zeros((1, 3), np.float32),))
    assert variance.scaled(np.ones((1, 3), np.float32), STRATA, traits).tolist() == [[1, 1, pytest.approx(2)]]


def test_pulls_of_frames_can_be_added(rng):
    pulls, place = rng.standard_normal((2, 50_000)) * 2, rng.integers(-1, 2, (2, 50_000))
    pulls[0, :100] = 1e9
    counts = sum(counted(one, where, 2) for one, where in zip(pulls, place, strict=True))
    assert counts.shape == (2, len(PULLS) - 1)
    for number, (name, found) in enumerate(summaries(counts, STRATA).items()):
        expected = quantiles_of(pulls[place == number])
        assert (name, found.n) == (list(STRATA)[number], expected.n)
        assert found.width == pytest.approx(expected.width, abs=0.01)
        assert found.median == pytest.approx(expected.median, abs=0.01)
        assert found.beyond_3 == pytest.approx(expected.beyond_3, abs=0.001)
    assert summaries(counts * 0, STRATA) == {}


@pytest.mark.parametrize("wrong", [{"coefficients": (0.0, 0.0)}, {"ranges": ((1.0, 0.0),)}])
def test_a_factor_whose_parts_do_not_agree(wrong):
    content = {"ranges": ((0.0, 1.0),), "coefficients": (0.0, 0.0, 0.0)}
    with pytest.raises(ValidationError, match="1 traits with rising ranges need 3 coefficients"):
        StratumFactor.model_validate(content | wrong)
