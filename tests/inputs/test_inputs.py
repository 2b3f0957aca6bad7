"""Raw tile to network input."""

import json

import numpy as np
import pytest
from synthetic_tiles import camera_batch, sky_batch, write_tiles

from pipeline.config import HILLAS_SCALARS, CameraTilesConfig, SplitsConfig
from pipeline.errors import UserError
from pipeline.inputs import get_input, input_kinds, restore_input
from pipeline.inputs.frame import FrameInput, SkyPixels
from pipeline.inputs.image import AXIS_COLUMNS, ImageInput, ImageRecipe, axis_maps, scalar_columns, scalar_value
from pipeline.tiles import TileBatch, TileReader

SCALARS = ("log10_hillas_intensity", "timing_slope_abs", "hillas_width")


@pytest.fixture
def image_input(tmp_path) -> ImageInput:
    manifest = write_tiles(tmp_path, camera_batch(200))
    return ImageInput.fit(TileReader([manifest], "train"), SCALARS)


@pytest.fixture
def frame_input(tmp_path) -> FrameInput:
    return FrameInput.fit(TileReader([write_tiles(tmp_path, sky_batch(20), "field")], "train"))


def scalars_of(image_input: ImageInput, events: dict[str, np.ndarray]) -> np.ndarray:
    """Standardised scalars of images that do not matter."""
    n = len(next(iter(events.values())))
    tiles = TileBatch(images=np.zeros((n, 3, 4, 4), np.float16), events=dict(events), group=np.arange(n))
    return image_input.arrays(tiles)["scalars"]


def test_the_population_is_that_of_the_frames_that_are_trained_on(tmp_path):
    """Their ranges, and the limit also from the validation split; a frame without a value does not count for it."""
    widths = [2.0, 2.5, 3.0, 3.5, 4.0, 9.0, 9.0, 9.0, None]
    manifests = []
    for number, fwhm_px in enumerate(widths):
        train = 0.0 if fwhm_px == 9.0 else 1.0
        shares = SplitsConfig(train=train, validation=1.0 - train, test=0.0)
        statistics = {"fwhm_px": fwhm_px, "source_density": float(number), "ellipticity": None}
        manifests.append(
            write_tiles(tmp_path, sky_batch(4), f"f{number}", shares=shares, frame={"statistics": statistics})
        )
    train, validation = (TileReader(manifests, split) for split in ("train", "validation"))
    fitted = FrameInput.fit(train, validation=validation)
    population = fitted.population
    assert [trained.name for trained in population.ranges] == ["fwhm_px", "source_density"]
    fwhm, density = population.ranges
    assert (fwhm.mean, fwhm.low, fwhm.high) == (3.0, pytest.approx(2.02), pytest.approx(3.98))
    assert str(fwhm) == "FWHM of the stars: 2.02 to 3.98 px"
    assert (density.mean, population.n_frames) == (pytest.approx(18 / 6, rel=1e-4), 6)
    assert restore_input(json.loads(fitted.model_dump_json())) == fitted
    # The validation frames are far away, and score 1.
    assert population.compare({"fwhm_px": 9.0, "source_density": 6.0}).score == pytest.approx(1, abs=0.02)
    assert FrameInput.fit(train).population.limit == pytest.approx(3 + np.sqrt(3), rel=1e-3)
    assert FrameInput.fit(TileReader(manifests[:4], "train")).population is None  # too few to tell


def test_scalars_are_standardised_by_the_training_split(tmp_path):
    manifest = write_tiles(tmp_path, camera_batch(400))
    train, validation = TileReader([manifest], "train"), TileReader([manifest], "validation")
    fitted = ImageInput.fit(train, SCALARS[:2])
    inside = scalars_of(fitted, named(train))
    np.testing.assert_allclose(inside.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(inside.std(0), 1, atol=1e-2)
    assert np.abs(scalars_of(fitted, named(validation)).mean(0)).max() > 1e-4


def named(reader: TileReader) -> dict[str, np.ndarray]:
    """The event columns that the scalars need."""
    events = reader.events()
    return {name: events[name] for scalar in SCALARS for name in scalar_columns(scalar)}


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


def test_scalars_that_could_not_be_computed_count_as_the_mean(image_input):
    events = camera_batch(4).events | {"hillas_intensity": np.array([np.nan, 0, 1e30, 300.0])}
    scalars = scalars_of(image_input, events)
    assert scalars[0, 0] == scalars[1, 0] == 0
    assert scalars[2, 0] == 6  # cut off, not infinite
    np.testing.assert_array_equal(scalars[:, 2], 0)  # a column of NaN


def test_the_card_gives_the_same_input_back(image_input, frame_input):
    for fitted, batch in ((image_input, camera_batch(5, seed=9)), (frame_input, sky_batch(2, seed=9))):
        again = restore_input(json.loads(fitted.model_dump_json()))
        assert again == fitted
        expected = fitted.arrays(batch)
        found = again.arrays(batch)
        assert list(found) == list(expected)
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name])


def test_camera_input_is_finite_and_reads_channels_by_name(image_input):
    batch = camera_batch(3)
    batch.images[0, 0, 0, 0] = np.nan
    batch.images[1, 1, 2, 2] = np.inf
    prepared = image_input.arrays(batch)["images"]
    assert prepared.shape == batch.images.shape
    assert prepared.dtype == np.float32
    assert np.isfinite(prepared).all()
    batch.images = batch.images[:, ::-1]
    turned = image_input.arrays(batch, channels=("mask", "peak_time", "charge"))["images"]
    np.testing.assert_array_equal(turned, prepared)


def test_shapes_are_those_of_the_arrays(image_input, frame_input):
    for fitted, batch in ((image_input, camera_batch(3)), (frame_input, sky_batch(3))):
        arrays = fitted.arrays(batch)
        assert {name: array.shape for name, array in arrays.items()} == fitted.shapes(3, batch.images.shape[2:])
        assert arrays["images"].shape[1] == fitted.n_channels
    assert image_input.scalar_names == SCALARS
    assert image_input.columns == ("hillas_intensity", "hillas_width", "timing_slope")
    assert frame_input.columns == ("level", "noise")


def axis_of(lon: float, lat: float, psi_deg: float, phi_deg: float) -> dict[str, np.ndarray]:
    return {name: np.array([value]) for name, value in zip(AXIS_COLUMNS, (lon, lat, psi_deg, phi_deg), strict=True)}


def test_maps_tell_how_far_pixels_are_along_the_image_and_beside_it():
    along, off = axis_maps(axis_of(0.3, -0.2, 0.0, 0.0), (16, 20), 0.1)[0]
    lon, lat = 0.1 * (np.arange(20) - 9.5), 0.1 * (np.arange(16) - 7.5)
    np.testing.assert_allclose(along, np.broadcast_to(lon - 0.3, (16, 20)), atol=1e-6)
    np.testing.assert_allclose(off, np.broadcast_to(np.abs(lat + 0.2)[:, None], (16, 20)), atol=1e-6)
    # The other end of the axis is outward where the image is on the other side of the camera.
    inward = axis_maps(axis_of(0.3, -0.2, 0.0, 180.0), (16, 20), 0.1)[0]
    np.testing.assert_allclose(inward, [-along, off], atol=1e-6)
    slanted = axis_maps(axis_of(0.0, 0.0, 30.0, 30.0), (3, 3), 1.0)[0]
    assert slanted[:, 2, 1] == pytest.approx([0.5, np.sqrt(3) / 2])  # 1 deg above the centre, the axis at 30 deg


def test_maps_turn_and_are_mirrored_with_the_image():
    maps = axis_maps(axis_of(0.4, 0.1, 25.0, 14.0), (24, 24), 0.1)[0]
    turned = axis_maps(axis_of(-0.1, 0.4, 115.0, 104.0), (24, 24), 0.1)[0]
    np.testing.assert_allclose(turned, np.rot90(maps, -1, axes=(1, 2)), atol=1e-6)  # rows go upwards
    mirrored = axis_maps(axis_of(-0.4, 0.1, 155.0, 166.0), (24, 24), 0.1)[0]
    np.testing.assert_allclose(mirrored, maps[:, :, ::-1], atol=1e-6)


def test_maps_end_at_two_degrees_and_are_empty_without_an_axis():
    maps = axis_maps(axis_of(0.0, 0.0, 0.0, 0.0), (80, 80), 0.1)[0]
    assert (maps[0].min(), maps.max()) == (-2, 2)
    for unknown in (axis_of(0.3, 0.2, np.nan, 10.0), axis_of(np.nan, 0.2, 30.0, 10.0)):
        assert np.isfinite(axis_maps(unknown, (16, 16), 0.1)).all()
    assert not axis_maps(axis_of(0.3, 0.2, np.nan, 10.0), (16, 16), 0.1).any()


def test_maps_are_made_with_the_pixels_of_the_training_tiles(tmp_path):
    manifest = write_tiles(tmp_path, camera_batch(40))
    reader = TileReader([manifest], "train")
    fitted = ImageInput.fit(reader, SCALARS, axis_maps=True)
    assert fitted.axis_pixel_deg == reader.shard_cameras()[0][0].tile_pixel_deg
    assert fitted.channel_names == ("charge", "peak_time", "mask", "along_axis", "off_axis")
    assert set(fitted.columns) == {*AXIS_COLUMNS, "hillas_intensity", "hillas_width", "timing_slope"}
    batch = camera_batch(3)
    images = fitted.arrays(batch)["images"]
    assert images.shape == fitted.shapes(3, batch.images.shape[2:])["images"]
    np.testing.assert_array_equal(images[:, 3:], axis_maps(batch.events, images.shape[2:], fitted.axis_pixel_deg))
    assert restore_input(json.loads(fitted.model_dump_json())) == fitted
    del batch.events["hillas_phi"]
    with pytest.raises(UserError, match="reads the image parameters hillas_phi, which the images do not have"):
        fitted.arrays(batch)


@pytest.mark.parametrize("name", ["true_energy_tev", "log10_true_energy_tev", "true_primary_id", "event_id"])
def test_truth_and_numbers_of_images_are_no_scalars(tmp_path, name):
    reader = TileReader([write_tiles(tmp_path, camera_batch(20))], "train")
    with pytest.raises(
        UserError, match=rf"unknown scalar '{name}': \w+ were not measured; accepted, .*hillas_width"
    ) as refused:
        ImageInput.fit(reader, [name])
    assert "true_" not in str(refused.value).partition("accepted")[2]


def test_tiles_that_do_not_tell_where_images_lie(tmp_path):
    batch = camera_batch(20)
    del batch.events["hillas_phi"]
    reader = TileReader([write_tiles(tmp_path, batch)], "train")
    with pytest.raises(UserError, match=r"no event column hillas_phi, .* set networks\.NAME\.axis_maps: false"):
        ImageInput.fit(reader, axis_maps=True)


def test_sky_input_is_in_units_of_the_noise(frame_input):
    batch = sky_batch(2)
    prepared = frame_input.arrays(batch)["images"]
    assert prepared.shape == (2, 3, 32, 32)
    assert np.isfinite(prepared).all()
    batch.images = batch.images * 7
    batch.events = {name: column * 7 for name, column in batch.events.items()}
    scaled = frame_input.arrays(batch)["images"]
    np.testing.assert_allclose(scaled, prepared, rtol=1e-4, atol=1e-5)


def test_missing_pixels_are_filled_with_background_and_flagged(frame_input):
    batch = sky_batch(1)
    batch.images[0, 0, 5, 5] = np.nan  # not in the mask
    batch.images[0, 1, 6, 6] = np.nan  # no uncertainty
    batch.masks[0, 7, 7] = 32  # flagged, with a number in it
    prepared = frame_input.arrays(batch)["images"][0]
    assert prepared[:, 5, 5].tolist() == [0, 0, 1]
    assert prepared[1, 6, 6] == 0
    assert prepared[:, 7, 7].tolist() == [0, 0, 1]


def test_defect_bits_are_not_shown_to_the_network(frame_input):
    batch = sky_batch(2)
    known = np.where(batch.masks & (4 | 32), batch.masks, 0)
    expected = frame_input.arrays(batch)["images"]
    batch.masks = known
    np.testing.assert_array_equal(frame_input.arrays(batch)["images"], expected)


def test_unknown_scalar(tmp_path):
    reader = TileReader([write_tiles(tmp_path, camera_batch(20))], "train")
    with pytest.raises(UserError, match=r"unknown scalar 'log10_size'.*hillas_intensity"):
        ImageInput.fit(reader, ["log10_size"])


def test_missing_channel(tmp_path, monkeypatch):
    reader = TileReader([write_tiles(tmp_path, camera_batch(20))], "train")
    monkeypatch.setattr(TileReader, "channels", property(lambda _: []))
    with pytest.raises(UserError, match="no channel charge, peak_time, mask"):
        ImageInput.fit(reader)


def test_missing_event_column(image_input):
    with pytest.raises(UserError, match="reads the image parameters timing_slope"):
        scalars_of(image_input, {"hillas_intensity": np.ones(2), "hillas_width": np.ones(2)})


def test_frames_have_no_scalars(tmp_path):
    reader = TileReader([write_tiles(tmp_path, sky_batch(20))], "train")
    with pytest.raises(UserError, match="scalars must be empty, got hillas_width: a frame has no parameters"):
        FrameInput.fit(reader, ("hillas_width",))


@pytest.mark.parametrize("noise", [0.0, np.nan, -1.0])
def test_frame_without_noise(noise):
    batch = sky_batch(1)
    with pytest.raises(UserError, match="noise of a frame is not a positive number"):
        SkyPixels.of_batch(batch_with(batch, noise))


def batch_with(batch, noise):
    batch.events["noise"] = np.full(len(batch), noise)
    return batch


# ---- kinds and recipes -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", input_kinds())
def test_every_kind_is_found_by_its_name(kind):
    assert get_input(kind).model_fields["kind"].default == kind


def test_unknown_kind():
    with pytest.raises(UserError, match=r"unknown kind of input 'frames'; accepted: frame, image"):
        get_input("frames")


def test_input_without_a_kind():
    with pytest.raises(ValueError, match="Input should be a mapping with the key kind"):
        restore_input({"charge_scale_pe": 3.0})


def test_recipe_says_what_the_configuration_asks_for():
    tiles = CameraTilesConfig(
        size=48,
        cleaning={"picture_pe": 8.0, "boundary_pe": 4.0, "min_picture_neighbors": 2},
        cuts={"size_min_pe": 70.0, "n_pixels_min": 4, "leakage_max": 0.3},
    )
    assert ImageRecipe.of(tiles).model_dump() == {
        "version": 1, "size_px": 48, "picture_pe": 8.0, "boundary_pe": 4.0, "min_picture_neighbors": 2,
        "size_min_pe": 70.0, "n_pixels_min": 4, "leakage_max": 0.3,
    }  # fmt: skip


@pytest.mark.parametrize("name", ImageRecipe.model_fields)
def test_recipe_has_no_defaults(name):
    content = ImageRecipe.of(CameraTilesConfig()).model_dump()
    del content[name]
    with pytest.raises(ValueError, match=f"{name}\n  Field required"):
        ImageRecipe.model_validate(content)
