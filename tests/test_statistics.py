import time

import numpy as np
import pytest
from scipy.stats import ks_2samp
from sklearn.metrics import roc_auc_score

from pipeline import statistics


@pytest.fixture
def scored():
    rng = np.random.default_rng(0)
    labels = rng.random(600) < 0.4
    scores = np.round(rng.normal(labels * 0.8, 1.0), 1)  # rounded: ties on purpose
    return scores, labels, rng.uniform(0.1, 3.0, 600)


def test_auc_equals_sklearn_with_ties_and_weights(scored):
    scores, labels, weights = scored
    expected = roc_auc_score(labels, scores, sample_weight=weights)
    assert statistics.auc(scores, labels, weights) == pytest.approx(expected, rel=1e-12)


def test_auc_of_a_block_of_weights_equals_one_by_one(scored):
    scores, labels, weights = scored
    block = np.stack([weights, weights[::-1], np.ones_like(weights)])
    single = [statistics.auc(scores, labels, row) for row in block]
    np.testing.assert_allclose(statistics.auc(scores, labels, block), single, rtol=1e-12)


def test_auc_needs_both_classes():
    assert np.isnan(statistics.auc(np.arange(3.0), np.ones(3, bool), np.ones(3)))


def test_perfect_and_blind_scores():
    labels = np.repeat([True, False], 50)
    assert statistics.auc(labels.astype(float), labels, np.ones(100)) == 1.0
    assert statistics.auc(np.zeros(100), labels, np.ones(100)) == 0.5
    assert statistics.background_at_efficiency(np.zeros(100), labels, np.ones(100), 0.8) == pytest.approx(0.8)
    assert statistics.background_at_efficiency(labels.astype(float), labels, np.ones(100), 0.8) == 0.0


def test_roc_runs_from_corner_to_corner(scored):
    scores, labels, weights = scored
    background, signal = statistics.roc_curve(scores, labels, weights)
    assert (background[0], signal[0]) == (0, 0)
    np.testing.assert_allclose([background[-1], signal[-1]], 1)
    assert np.trapezoid(signal, background) == pytest.approx(statistics.auc(scores, labels, weights), rel=1e-12)


def test_background_at_efficiency_by_hand():
    # Four gammas at .9 .8 .7 .6, two hadrons at .75 and .1: half of the gammas lie above the first hadron.
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.75, 0.1])
    labels = np.array([1, 1, 1, 1, 0, 0], bool)
    kept = [statistics.background_at_efficiency(scores, labels, np.ones(6), e) for e in (0.5, 0.75, 1.0)]
    np.testing.assert_allclose(kept, [0.0, 0.5, 0.5])


def test_gaussian_scores_have_the_known_background():
    rng = np.random.default_rng(1)
    n = 200_000
    labels = np.arange(n) % 2 == 0
    scores = rng.normal(labels * 2.0, 1.0)
    from scipy.stats import norm

    expected = norm.sf(norm.isf(0.8) + 2.0)
    sigma = np.sqrt(expected * (1 - expected) / (n / 2))
    found = statistics.background_at_efficiency(scores, labels, np.ones(n), 0.8)
    assert abs(found - expected) < 8 * sigma  # the threshold fluctuates as well


@pytest.mark.parametrize("fraction", [0.0, 0.16, 0.5, 0.68, 1.0])
def test_quantile_equals_numpy(fraction):
    rng = np.random.default_rng(2)
    values, weights = rng.normal(size=301), rng.integers(0, 4, 301)
    expected = np.quantile(values, fraction, weights=weights, method="inverted_cdf")
    assert statistics.quantile(values, fraction, weights) == expected


def test_containment_of_a_gaussian_is_its_sigma():
    rng = np.random.default_rng(3)
    residuals = rng.normal(0, 0.25, 100_000)
    assert statistics.containment(residuals, np.ones(100_000), 0.6827) == pytest.approx(0.25, rel=0.02)


def test_rms_and_mean_are_weighted():
    assert statistics.mean(np.array([1.0, 3.0]), np.array([3.0, 1.0])) == 1.5
    assert statistics.rms(np.array([1.0, -3.0]), np.array([3.0, 1.0])) == pytest.approx(np.sqrt(3.0))
    assert np.isnan(statistics.mean(np.array([1.0]), np.array([0.0])))
    assert np.isnan(statistics.quantile(np.array([]), 0.5, np.array([])))


def test_bootstrap_interval_of_a_mean_has_the_known_width():
    rng = np.random.default_rng(4)
    values = rng.normal(5.0, 1.0, 2000)
    [estimate] = statistics.bootstrap(
        lambda w: statistics.mean(values, w)[:, None],
        np.arange(2000),
        np.ones(2000),
        n_resamples=1000,
        seed=1,
    )
    assert estimate.value == pytest.approx(values.mean())
    assert (estimate.high - estimate.low) / 2 == pytest.approx(1.96 / np.sqrt(2000), rel=0.1)
    assert estimate.low > 0


def test_bootstrap_over_groups_is_wider_when_items_repeat():
    rng = np.random.default_rng(5)
    values, groups = np.repeat(rng.normal(size=200), 9), np.repeat(np.arange(200), 9)

    def width(labels):
        [e] = statistics.bootstrap(lambda w: statistics.mean(values, w)[:, None], labels, np.ones(1800), seed=2)
        return e.high - e.low

    assert width(groups) / width(np.arange(1800)) == pytest.approx(3.0, rel=0.15)


def test_paired_difference_is_narrower_than_its_parts(scored):
    scores, labels, weights = scored
    better = scores + 0.2 * labels

    def statistic(w):
        network, baseline = statistics.auc(better, labels, w), statistics.auc(scores, labels, w)
        return np.stack([network, baseline, network - baseline], axis=-1)

    network, baseline, difference = statistics.bootstrap(statistic, np.arange(600), weights, seed=3)
    assert difference.value == pytest.approx(network.value - baseline.value)
    assert difference.low > 0
    assert difference.high - difference.low < 0.5 * (baseline.high - baseline.low)


def test_bootstrap_is_repeatable_whatever_the_block_size(scored, monkeypatch):
    scores, labels, weights = scored

    def run():
        return statistics.bootstrap(lambda w: statistics.auc(scores, labels, w)[:, None], np.arange(600) // 3, weights)

    expected = run()
    monkeypatch.setattr(statistics, "_BLOCK_ELEMENTS", 5000)
    [other] = run()
    assert other.value == expected[0].value
    assert (other.low, other.high) == pytest.approx((expected[0].low, expected[0].high), rel=1e-12)


def test_bootstrap_of_a_data_set_takes_seconds():
    rng = np.random.default_rng(6)
    labels = rng.random(8000) < 0.5
    scores = rng.normal(labels, 1.0)
    start = time.process_time()
    statistics.bootstrap(
        lambda w: np.stack(
            [statistics.auc(scores, labels, w), statistics.background_at_efficiency(scores, labels, w)],
            axis=-1,
        ),
        rng.integers(0, 1500, 8000),
        np.ones(8000),
    )
    assert time.process_time() - start < 10


def test_undefined_statistic_has_no_interval():
    [estimate] = statistics.bootstrap(lambda w: np.full((len(w), 1), np.nan), np.arange(5), np.ones(5), n_resamples=50)
    assert np.isnan([estimate.value, estimate.low, estimate.high]).all()


def test_bins_cover_every_value_once():
    values = np.array([0.0, 0.5, 1.0, 1.5, 2.0])
    masks = [keep for _, _, keep in statistics.bins_of(values, (0, 1, 2))]
    np.testing.assert_array_equal(np.sum(masks, axis=0), 1)
    np.testing.assert_array_equal(masks[1], [False, False, True, True, True])


def test_migration_rows_are_shares():
    true = np.array([1.0, 1.0, 5.0])
    matrix, inside = statistics.migration_matrix(
        true, np.array([1.0, 5.0, 50.0]), np.array([1.0, 3.0, 1.0]), (0, 2, 10, 20)
    )
    np.testing.assert_allclose(matrix[0], [0.25, 0.75, 0.0])
    np.testing.assert_allclose(inside[:2], [1.0, 0.0])
    assert np.isnan(matrix[2]).all()


def test_kolmogorov_smirnov_is_scipys(rng):
    first, second = rng.normal(size=300).round(1), rng.normal(0.3, 1.2, 300).round(1)
    second[:40] = np.nan
    weights = np.stack([np.ones(300), rng.integers(0, 3, 300).astype(float)])
    plain, resampled = statistics.kolmogorov_smirnov(first, second, weights)
    assert plain == pytest.approx(ks_2samp(first, second[40:]).statistic)
    times = weights[1].astype(int)
    repeated = np.repeat(first, times), np.repeat(second[40:], times[40:])
    assert resampled == pytest.approx(ks_2samp(*repeated).statistic)
