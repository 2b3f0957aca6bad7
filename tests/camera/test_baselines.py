from dataclasses import replace

import numpy as np
import pytest

from pipeline.camera.baselines import FEATURES, FOREST_COLUMNS, Estimand, Sample, forest_features, train_forest
from pipeline.errors import TooFewEventsError

CLASSES = {1: "gammas", 0: "hadrons"}


def hillas_events(n, seed):
    """Hillas parameters of made-up images: size follows energy, width tells gammas from hadrons."""
    rng = np.random.default_rng(seed)
    gamma = rng.random(n) < 0.5
    log10_energy = rng.uniform(-1, 1, n)
    events = {name: rng.normal(size=n).astype(np.float32) for name in FOREST_COLUMNS}
    events["hillas_intensity"] = 10 ** (2.5 + log10_energy + rng.normal(0, 0.1, n))
    events["hillas_length"] = rng.uniform(0.2, 0.4, n)
    events["hillas_width"] = np.where(gamma, 0.08, 0.12) * rng.lognormal(0, 0.2, n)
    events["hillas_psi"], events["hillas_phi"] = rng.uniform(-90, 90, n), rng.uniform(-180, 180, n)
    return events, gamma.astype(float), log10_energy


def samples(kind, sizes=(800, 300), weights=None):
    made = []
    for seed, n in enumerate(sizes):
        events, gamma, log10_energy = hillas_events(n, seed)
        made.append(Sample(events, gamma if kind == "gammaness" else log10_energy, np.ones(n)))
    return made


def test_classifier_separates_by_width():
    forest = train_forest(*samples("gammaness"), classes=CLASSES, n_trees=30)
    events, gamma, _ = hillas_events(400, 7)
    gammaness = forest.predict(events)
    assert gammaness.min() >= 0
    assert gammaness.max() <= 1
    assert gammaness[gamma == 1].mean() > gammaness[gamma == 0].mean() + 0.3
    assert forest.settings["estimator"] == "RandomForestClassifier"
    assert len(forest.settings["tried"]) == 8
    assert forest.settings["validation_auc"] == max(trial["auc"] for trial in forest.settings["tried"])


def test_regressor_follows_size():
    forest = train_forest(*samples("energy"), n_trees=30)
    events, _, log10_energy = hillas_events(400, 7)
    residual = forest.predict(events) - log10_energy
    assert np.sqrt(np.mean(residual**2)) < 0.2  # 0.58 is the spread of the energies
    importance = forest.settings["feature_importance"]
    assert max(importance, key=importance.get) == "log10_hillas_intensity"


def test_weights_reach_the_forest():
    train, validation = samples("energy")
    heavy = Sample(train.events, train.target + 1.0 * (np.arange(800) < 400), np.where(np.arange(800) < 400, 1e-6, 1.0))
    events, _, log10_energy = hillas_events(300, 7)
    residual = train_forest(heavy, validation, n_trees=20).predict(events) - log10_energy
    assert abs(residual.mean()) < 0.1  # the images with a shifted target have no weight


def test_same_seed_gives_the_same_forest():
    first, second = (train_forest(*samples("gammaness"), classes=CLASSES, n_trees=10, seed=3) for _ in range(2))
    events, _, _ = hillas_events(50, 9)
    np.testing.assert_array_equal(first.predict(events), second.predict(events))


def test_features_do_not_depend_on_the_sign_of_the_axis():
    events, _, _ = hillas_events(50, 1)
    turned = events | {
        "hillas_psi": events["hillas_psi"] + 180.0,
        "hillas_skewness": -events["hillas_skewness"],
        "timing_slope": -events["timing_slope"],
    }
    before, after = forest_features(events), forest_features(turned)
    for name, value, same in zip(FEATURES, before.T, after.T, strict=True):
        np.testing.assert_allclose(same, value, atol=1e-5, err_msg=name)


def test_features_are_finite_or_nan():
    events, _, _ = hillas_events(10, 1)
    events["hillas_width"][0] = 0.0
    events["timing_slope"][1] = np.nan
    features = dict(zip(FEATURES, forest_features(events).T, strict=True))
    assert np.isnan(features["log10_hillas_density"][0])
    assert np.isnan(features["timing_slope_outward"][1])
    assert not any(np.isinf(value).any() for value in features.values())


def test_too_few_images_are_refused():
    train, validation = samples("gammaness", sizes=(100, 30))
    with pytest.raises(TooFewEventsError, match=r"validation split has \d+ \w+ with weight; the forest needs"):
        train_forest(train, validation, classes=CLASSES)
    with pytest.raises(TooFewEventsError, match="training split has 10 images"):
        train_forest(*samples("energy", sizes=(10, 30)))


def test_an_estimand_may_weight_the_images():
    events = {"true_energy_tev": np.array([0.1, 2.0]), "weights": np.array([1.0, 3.0])}
    plain = Estimand(lambda columns: np.log10(columns["true_energy_tev"]), columns=("true_energy_tev",))
    np.testing.assert_array_equal(plain.weights_of(events), [1.0, 3.0])
    weighted = replace(plain, weights=lambda columns: columns["true_energy_tev"])
    np.testing.assert_allclose(weighted.weights_of(events), [0.1, 6.0], rtol=1e-12)
