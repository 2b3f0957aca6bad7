"""Raw tile to network input."""

import json

import numpy as np
import pytest
from synthetic_tiles import camera_batch, sky_batch, write_tiles

from pipeline.config import HILLAS_SCALARS
from pipeline.errors import UserError
from pipeline.preparation import Preparation, SkyPixels, scalar_columns, scalar_value
from pipeline.tiles import TileReader

SCALARS = ("log10_hillas_intensity", "timing_slope_abs", "hillas_width")


@pytest.fixture
def camera_preparation(tmp_path) -> Preparation:
    manifest = write_tiles(tmp_path, camera_batch(200))
    return Preparation.fit(TileReader([manifest], "train"), SCALARS)


@pytest.fixture
def sky_preparation(tmp_path) -> Preparation:
    return Preparation.fit(TileReader([write_tiles(tmp_path, sky_batch(20))], "train"))


def test_scalars_are_standardised_by_the_training_split(tmp_path):
    manifest = write_tiles(tmp_path, camera_batch(400))
    train, validation = TileReader([manifest], "train"), TileReader([manifest], "validation")
    preparation = Preparation.fit(train, SCALARS[:2])
    inside = preparation.scalars(train.events())
    np.testing.assert_allclose(inside.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(inside.std(0), 1, atol=1e-2)
    assert np.abs(preparation.scalars(validation.events()).mean(0)).max() > 1e-4


def test_derived_scalars():
    events = {"hillas_intensity": np.array([100.0, 0.0, np.nan]), "timing_slope": np.array([-2.0, 3.0, np.inf])}
    np.testing.assert_allclose(scalar_value("log10_hillas_intensity", events), [2, np.nan, np.nan])
    np.testing.assert_allclose(scalar_value("timing_slope_abs", events), [2, 3, np.nan])
    events = {
        "hillas_r": np.array([2.0, 2.0]),
        "hillas_psi": np.array([40.0, 0.0]),
        "hillas_phi": np.array([10.0, 180.0]),
        "timing_slope": np.array([5.0, 5.0]),
    }
    np.testing.assert_allclose(scalar_value("hillas_miss", events), [1, 0], atol=1e-12)  # 2 sin(30 deg)
    np.testing.assert_allclose(scalar_value("timing_slope_outward", events), [5, -5])


def turned(events, angle_deg, mirror):
    """Columns of the images turned by an angle, or mirrored in x: the axis (mod 180 deg) and all that hangs on it."""
    sign, offset_deg = (-1, 180 + angle_deg) if mirror else (1, angle_deg)
    psi = sign * events["hillas_psi"] + offset_deg
    flipped = np.floor((psi + 90) / 180) % 2 == 1  # the axis is named by the half circle around 0
    along = np.where(flipped, -1, 1)
    return events | {
        "hillas_psi": (psi + 90) % 180 - 90,
        "hillas_phi": sign * events["hillas_phi"] + offset_deg,
        "hillas_skewness": events["hillas_skewness"] * along,
        "timing_slope": events["timing_slope"] * along,
    }


@pytest.mark.parametrize(("angle_deg", "mirror"), [(90, False), (200, False), (0, True), (37, True)])
def test_default_scalars_do_not_turn_with_the_image(angle_deg, mirror, rng):
    n = 100
    events = {name: rng.uniform(0.1, 3, n) for scalar in HILLAS_SCALARS for name in scalar_columns(scalar)}
    events |= {"hillas_psi": rng.uniform(-90, 90, n), "hillas_phi": rng.uniform(-180, 180, n)}
    for name in HILLAS_SCALARS:
        other = scalar_value(name, turned(events, angle_deg, mirror))
        np.testing.assert_allclose(other, scalar_value(name, events), rtol=1e-9, atol=1e-9, err_msg=name)


def test_scalars_that_could_not_be_computed_count_as_the_mean(camera_preparation):
    events = camera_batch(4).events | {"hillas_intensity": np.array([np.nan, 0, 1e30, 300.0])}
    scalars = camera_preparation.scalars(events)
    assert scalars[0, 0] == scalars[1, 0] == 0
    assert scalars[2, 0] == 6  # cut off, not infinite
    np.testing.assert_array_equal(scalars[:, 2], 0)  # a column of NaN


def test_the_card_gives_the_same_preparation_back(camera_preparation):
    batch = camera_batch(5, seed=9)
    again = Preparation.from_card(json.loads(json.dumps(camera_preparation.to_card())))
    assert again == camera_preparation
    np.testing.assert_array_equal(
        again.images(batch.images, batch.events), camera_preparation.images(batch.images, batch.events)
    )
    np.testing.assert_array_equal(again.scalars(batch.events), camera_preparation.scalars(batch.events))


def test_camera_input_is_finite_and_reads_channels_by_name(camera_preparation):
    batch = camera_batch(3)
    batch.images[0, 0, 0, 0] = np.nan
    batch.images[1, 1, 2, 2] = np.inf
    prepared = camera_preparation.images(batch.images, batch.events)
    assert prepared.shape == batch.images.shape
    assert prepared.dtype == np.float32
    assert np.isfinite(prepared).all()
    turned = camera_preparation.images(batch.images[:, ::-1], batch.events, channels=("mask", "peak_time", "charge"))
    np.testing.assert_array_equal(turned, prepared)


def test_sky_input_is_in_units_of_the_noise(sky_preparation):
    batch = sky_batch(2)
    prepared = sky_preparation.images(batch.images, batch.events, batch.masks)
    assert prepared.shape == (2, 3, 32, 32)
    assert np.isfinite(prepared).all()
    scaled = sky_preparation.images(
        batch.images * 7, {name: column * 7 for name, column in batch.events.items()}, batch.masks
    )
    np.testing.assert_allclose(scaled, prepared, rtol=1e-4, atol=1e-5)


def test_missing_pixels_are_filled_with_background_and_flagged(sky_preparation):
    batch = sky_batch(1)
    batch.images[0, 0, 5, 5] = np.nan  # not in the mask
    batch.images[0, 1, 6, 6] = np.nan  # no uncertainty
    batch.masks[0, 7, 7] = 32  # flagged, with a number in it
    prepared = sky_preparation.images(batch.images, batch.events, batch.masks)[0]
    assert prepared[:, 5, 5].tolist() == [0, 0, 1]
    assert prepared[1, 6, 6] == 0
    assert prepared[:, 7, 7].tolist() == [0, 0, 1]


def test_defect_bits_are_not_shown_to_the_network(sky_preparation):
    batch = sky_batch(2)
    known = np.where(batch.masks & (4 | 32), batch.masks, 0)
    np.testing.assert_array_equal(
        sky_preparation.images(batch.images, batch.events, batch.masks),
        sky_preparation.images(batch.images, batch.events, known),
    )


def test_unknown_scalar(tmp_path):
    reader = TileReader([write_tiles(tmp_path, camera_batch(20))], "train")
    with pytest.raises(UserError, match=r"unknown scalar 'log10_size'.*hillas_intensity"):
        Preparation.fit(reader, ["log10_size"])


def test_missing_channel(tmp_path, monkeypatch):
    reader = TileReader([write_tiles(tmp_path, camera_batch(20))], "train")
    monkeypatch.setattr(TileReader, "channels", property(lambda _: []))
    with pytest.raises(UserError, match="no channel charge, peak_time, mask"):
        Preparation.fit(reader)


def test_missing_event_column(camera_preparation):
    with pytest.raises(UserError, match="reads the image parameters timing_slope"):
        camera_preparation.scalars({"hillas_intensity": np.ones(2), "hillas_width": np.ones(2)})


@pytest.mark.parametrize("noise", [0.0, np.nan, -1.0])
def test_frame_without_noise(noise):
    batch = sky_batch(1)
    with pytest.raises(UserError, match="noise of a frame is not a positive number"):
        SkyPixels.of_batch(batch_with(batch, noise))


def batch_with(batch, noise):
    batch.events["noise"] = np.full(len(batch), noise)
    return batch
