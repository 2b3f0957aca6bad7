"""Forests for events of several telescopes: their parameters, weights and means."""

import numpy as np
import pytest
from stereo_tiles import CAMERA_IDENTITY, TELESCOPES_M, images_of_axis, stereo_batch

from pipeline.camera.stereo.forests import FEATURES, stereo_images, train_stereo_forest
from pipeline.directions import altaz_of_fov, offset_deg
from pipeline.errors import TooFewEventsError, UserError
from pipeline.tasks.direction.baseline import event_altaz_deg
from pipeline.tiles.event_rows import event_starts

ONE_CAMERA = np.array([CAMERA_IDENTITY])


def images_of(columns, counts, camera=ONE_CAMERA, **changed):
    """`StereoImages` of events with so many images each."""
    event = np.repeat(np.arange(len(counts)), counts)
    camera = np.broadcast_to(camera, len(event))
    return stereo_images(columns | changed, event, len(counts), camera, np.ones(len(event)))


def two_events(**changed):
    parts = [
        images_of_axis(70.6, 0.9, (35.0, -80.0), TELESCOPES_M[:n], leakage_intensity_width_2=np.zeros(n))
        for n in (2, 3)
    ]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return images_of(columns, (2, 3), **changed)


def test_telescopes_count_by_charge_shape_and_leakage():
    images = two_events(
        hillas_intensity=np.array([100.0, 200.0, 100.0, 200.0, 300.0]),
        hillas_width=np.array([0.15, 0.03, 0.3, np.nan, 0.15]),  # of a length of 0.3
        leakage_intensity_width_2=np.array([0.0, 0.5, 0.0, 0.0, 1.0]),
    )
    expected = [50.0**2, 180.0**2 / 16, 0.1**2, 0.2**2, 150.0**2 * 1e-12]  # round, without an axis, all at the edge
    np.testing.assert_allclose(images.containment_weights, expected)
    values = np.array([1.0, 4.0, 1.0, 1.0, np.pi])
    mean = images.mean(values)
    assert mean[0] == pytest.approx((2500 * 1 + 2025 * 4) / 4525)
    assert mean[1] == pytest.approx(1.0, abs=1e-4)


def test_the_axis_of_the_shower_is_a_parameter_of_each_image():
    images = two_events()
    np.testing.assert_allclose(images.columns["stereo_h_max_m"], 9000, rtol=1e-6)
    # The events share two telescopes.
    np.testing.assert_allclose(images.columns["stereo_impact_m"][:2], images.columns["stereo_impact_m"][2:4], atol=0.5)


@pytest.mark.parametrize("wrong", [[], [0], [1, 4]])
def test_ends_are_those_that_agree(wrong):
    """The forest gives the distance alone; which end, the telescopes find out together."""
    images = two_events()
    columns = images.columns
    cog = altaz_of_fov(
        columns["hillas_fov_lon"], columns["hillas_fov_lat"], columns["pointing_alt_deg"], columns["pointing_az_deg"]
    )
    norm = offset_deg(*cog, np.full(5, 70.6), np.full(5, 0.9))
    columns["hillas_phi"] = np.where(np.isin(np.arange(5), wrong), columns["hillas_psi"] + 180, columns["hillas_psi"])
    alt, az = event_altaz_deg(images, norm)
    assert np.max(offset_deg(alt, az, 70.6, 0.9)) < 1e-3


def training_images(n_showers, seed, camera=ONE_CAMERA):
    events = stereo_batch(n_showers, np.random.default_rng(seed)).events
    starts = event_starts(events | {"group": events["shower_id"]})
    return images_of(events, np.diff(starts, append=len(events["obs_id"])), camera), np.log10(events["true_energy_tev"])


def test_a_forest_per_camera():
    train, target = training_images(60, 0)
    camera = np.where(np.arange(len(target)) % 2, "first", "second")
    train = images_of(train.columns, np.bincount(train.event), camera)
    weights = np.ones(len(target))
    forest = train_stereo_forest((train, target, weights), (train, target, weights), n_trees=10)
    assert set(forest.settings) == {"first", "second"}
    assert set(forest.settings["first"]["feature_importance"]) == set(FEATURES)
    answers = forest.predict(train)
    assert np.std(answers - target) < 0.3  # of 0.58
    assert np.std(train.mean(answers) - train.mean(target)) < np.std(answers - target)
    unknown = images_of(train.columns, np.bincount(train.event), np.array(["third"]))
    assert np.isnan(forest.predict(unknown)).all()


def test_too_few_images_of_a_camera_are_named():
    train, target = training_images(30, 0)
    camera = np.where(np.arange(len(target)) < 12, "rare", "common")
    train = images_of(train.columns, np.bincount(train.event), camera)
    sample = (train, target, np.ones(len(target)))
    with pytest.raises(
        TooFewEventsError, match="camera rare: the training split has 12 images with weight; the forest"
    ):
        train_stereo_forest(sample, sample, n_trees=10)


def test_images_without_positions_are_refused():
    columns = images_of_axis(70.6, 0.9, (35.0, -80.0), TELESCOPES_M[:2])
    del columns["tel_z_m"]
    with pytest.raises(UserError, match="also reads tel_z_m, which the tiles do not have"):
        images_of(columns, (2,))
