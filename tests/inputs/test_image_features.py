"""What an image is compared with those of training by."""

import numpy as np
import pytest
from populations import population

from pipeline.inputs.image_features import COLUMNS, image_features
from pipeline.inputs.population import IMAGE_QUANTITIES, Population


def planes(n=1, side=40):
    """Dark images: every fourth pixel in turn has -1, 0.5 and 2 p.e., none are missing."""
    charge = np.resize(np.repeat([-1.0, 0.5, 2.0], 4), (n, side, side)).astype(np.float16)
    return {"charge": charge, "peak_time": np.zeros_like(charge), "mask": np.zeros_like(charge)}


def test_features_of_a_tile():
    given = planes()
    given["charge"][0, :4, :] = 0  # a tenth of the tile
    given["charge"][0, 20, :10], given["mask"][0, 20, :10] = 200, 1
    given["peak_time"][0, 20, :10] = [-3, 3] * 5
    events = {"hillas_intensity": [1000.0], "hillas_width": [0.1], "hillas_length": [0.0], "pointing_alt_deg": [70.0]}
    found = {name: float(values[0]) for name, values in image_features(given, events).items()}
    expected = {
        "pointing_alt_deg": 70, "dark_level_pe": 0.5, "dark_noise_pe": 1.5, "no_charge_share": 0.1, "log10_size": 3,
        "log10_width": -1, "log10_length": np.nan, "time_spread_ns": 3, "n_islands": np.nan, "leakage": np.nan,
    }  # fmt: skip
    assert found == pytest.approx(expected, nan_ok=True)
    assert list(found) == [quantity.name for quantity in IMAGE_QUANTITIES]


def test_an_image_that_fills_the_camera_has_no_dark_pixels():
    given = planes()
    given["mask"][:] = 1
    found = image_features(given, {name: [1.0] for name in COLUMNS})
    assert np.isnan(found["dark_level_pe"]).all()
    assert np.isnan(found["dark_noise_pe"]).all()


def test_no_image_has_no_features():
    planes = {name: np.zeros((0, 4, 4), np.float32) for name in ("charge", "peak_time", "mask")}
    assert {values.shape for values in image_features(planes, {name: [] for name in COLUMNS}).values()} == {(0,)}


def test_many_images_are_compared_as_one_is(rng):
    known = population(n_frames=300, dark_noise_pe=(0.6, 0.8), log10_size=(1.7, 4.0), leakage=(0.0, 0.2))
    values = {name: rng.uniform(0, 5, 40) for name in ("dark_noise_pe", "log10_size", "leakage")}
    found = known.compare_images(values)
    for place in range(40):
        one = known.compare({name: float(column[place]) for name, column in values.items()})
        assert found.score[place] == pytest.approx(one.score, rel=1e-4)
        names = [trained.name for trained, is_out in zip(known.ranges, found.outside[place], strict=True) if is_out]
        assert set(names) == set(one.outside)
    assert (found.score > 1).sum() > 10


def test_half_a_percent_of_the_validation_is_unlike(rng):
    training, validation = ({q.name: rng.normal(size=n) for q in IMAGE_QUANTITIES} for n in (1000, 2000))
    known = Population.fit_images(training, validation)
    assert (known.compare_images(validation).score > 1).mean() == pytest.approx(0.005)
    unmeasured = dict.fromkeys(training, np.full(3, np.nan))
    assert known.compare_images(unmeasured).score.tolist() == [0, 0, 0]


def test_few_images_and_what_was_not_measured_tell_no_range(rng):
    few = {q.name: rng.normal(size=199) for q in IMAGE_QUANTITIES}
    assert Population.fit_images(few, few) is None
    assert Population.fit_images({}, {}) is None
    many = {q.name: rng.normal(size=300) for q in IMAGE_QUANTITIES}
    many["n_islands"][101:] = np.nan
    known = Population.fit_images(many, many)
    assert "n_islands" not in [trained.name for trained in known.ranges]
    assert len(known.ranges) == len(IMAGE_QUANTITIES) - 1
