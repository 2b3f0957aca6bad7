"""Network outputs to physical values."""

from dataclasses import replace

import numpy as np
import pytest
from synthetic_tiles import camera_batch, sky_batch

from pipeline.camera.dl1.coordinates import impact_distance_m
from pipeline.directions import altaz_of_fov
from pipeline.inputs.frame import FrameInput, SkyPixels
from pipeline.sky.dq import DQ, NO_SOURCE
from pipeline.tasks import get_decoder, get_spec, task_names
from pipeline.tasks.core.targets import core_vector_m
from pipeline.tasks.denoise import decode as denoise


def test_energy_and_its_uncertainty():
    outputs = np.array([[-1.0, 2 * np.log(0.1)], [0.5, 2 * np.log(0.2)]], np.float32)
    found = get_decoder("energy").decode(outputs, camera_batch(2))
    np.testing.assert_allclose(found["reco_energy_tev"], [0.1, 10**0.5], rtol=1e-6)
    # sigma_E = E ln(10) sigma(log10 E)
    np.testing.assert_allclose(
        found["reco_energy_uncert_tev"], [0.1 * 2.302585 * 0.1, 10**0.5 * 2.302585 * 0.2], rtol=1e-6
    )


def test_energy_without_uncertainty():
    found = get_decoder("energy").decode(np.zeros((3, 1), np.float32), camera_batch(3))
    assert np.isnan(found["reco_energy_uncert_tev"]).all()


def test_gammaness_stays_between_0_and_1():
    found = get_decoder("gammaness").decode(np.array([[-1e4], [0], [1e4]], np.float32), camera_batch(3))
    np.testing.assert_allclose(found["gammaness"], [0, 0.5, 1], atol=1e-12)


@pytest.mark.parametrize("name", task_names())
def test_every_decoder_gives_its_columns(name):
    spec = get_spec(name)
    batch = camera_batch(2) if spec.wing == "camera" else sky_batch(2)
    maps = batch.images.shape[2:] if spec.gives == "map" else ()
    found = get_decoder(name).decode(np.zeros((2, len(spec.outputs), *maps), np.float32), batch)
    names = [column.name for column in spec.columns]
    assert list(found)[: len(names)] == names  # what else there may be is for `alarms`
    assert all(len(values) == 2 for values in found.values())


def outputs_of(batch, correction=0.0, replacement=0.0, log_variance=0.0, defect=-30.0, log_tau2=-30.0):
    planes = np.empty((len(batch), 5, 32, 32), np.float32)
    for index, value in enumerate((correction, replacement, log_variance, defect, log_tau2)):
        planes[:, index] = value
    return planes


def test_denoise_of_zero_outputs_is_the_identity():
    batch = sky_batch(2)
    found = get_decoder("denoise").decode(outputs_of(batch), batch)
    known = np.isfinite(batch.images[:, 0])
    np.testing.assert_allclose(found["restored"][known], batch.images[:, 0][known], rtol=1e-6)
    np.testing.assert_allclose(found["restored_err"][known], batch.images[:, 1][known], rtol=1e-6)


def test_denoise_paints_over_any_number():
    """In float32, -1e12 and what is added to it leave nothing of the replacement."""
    batch = sky_batch(2)
    batch.images[:, 0, 4:9, 3] = -1e12
    found = get_decoder("denoise").decode(outputs_of(batch, replacement=1.0, defect=30), batch)
    level, noise = batch.events["level"][0], batch.events["noise"][0]
    np.testing.assert_allclose(found["restored"][:, 4:9, 3], level + noise * np.sinh(1.0), rtol=1e-5)


def test_denoise_replaces_missing_pixels_and_keeps_saturated_ones():
    batch = sky_batch(2)
    found = get_decoder("denoise").decode(outputs_of(batch, correction=3, replacement=1.0), batch)
    level, noise = batch.events["level"][0], batch.events["noise"][0]
    missing = ~np.isfinite(batch.images[:, 0])
    np.testing.assert_allclose(found["restored"][missing], level + noise * np.sinh(1.0), rtol=1e-5)
    saturated = batch.masks == 4
    assert saturated.any()
    np.testing.assert_array_equal(found["restored"][saturated], batch.images[:, 0][saturated])
    found = get_decoder("denoise").decode(outputs_of(batch, replacement=1.0, defect=30), batch)
    np.testing.assert_allclose(found["restored"][saturated], level + noise * np.sinh(1.0), rtol=1e-5)


def star_on_sky(flux=1e5, sigma=1.5):
    """A tile with level 200 and one star in the middle, without noise; its peak is 300 sigma above the sky."""
    batch = sky_batch(1)
    y, x = np.mgrid[:32, :32] - 16
    light = flux * np.exp(-0.5 * (x**2 + y**2) / sigma**2) / (2 * np.pi * sigma**2)
    batch.images[:, 0], batch.images[:, 1] = 200 + light, np.sqrt(225 + light)
    batch.masks[:] = 0
    return batch


def test_a_correction_counts_as_much_as_it_is_known_better_than_the_pixel():
    """sigma^2 / (sigma^2 + tau^2) of it, beside what the neighbours give."""
    batch = star_on_sky(flux=0.0)
    outputs = outputs_of(batch)
    outputs[0, 0, 16, 16] = 1.0
    moved = 15 * denoise.NOISE_REACH * np.tanh(1 / denoise.NOISE_REACH)
    for log_tau2, share in ((-30.0, 1.0), (0.0, 0.5), (np.log(3.0), 0.25), (30.0, 0.0)):
        outputs[:, 4] = log_tau2
        change = get_decoder("denoise").decode(outputs, batch)["restored"][0] - batch.images[0, 0]
        # Means over 3 and over 5 px give back 3 of 15 times as much along either axis in the middle.
        assert change[16, 16] == pytest.approx(share * moved * (1 - (3 / 15) ** 2), rel=1e-4, abs=1e-3)
        assert abs(change.sum()) < 2e-3


@pytest.mark.parametrize("correction", [1e6, -1e6, "random"])
def test_denoise_cannot_change_the_flux_of_a_star(correction, rng):
    """Whatever the network gives: light is moved by a few pixels at most."""
    batch = star_on_sky()
    outputs = outputs_of(batch)
    outputs[:, 0, 4:-4, 4:-4] = rng.normal(0, 1e3, (24, 24)) if correction == "random" else correction
    change = get_decoder("denoise").decode(outputs, batch)["restored"][0] - batch.images[0, 0]
    assert abs(change.sum()) < 1e-5 * 1e5
    outputs[:, 4] = 30.0  # and not at all where nothing but the pixel is known
    assert np.abs(get_decoder("denoise").decode(outputs, batch)["restored"][0] - batch.images[0, 0]).max() < 1e-2


def test_star_cores_are_painted_over_under_a_strict_condition_only():
    batch = star_on_sky()
    hit = batch.images.copy()
    hit[0, 0, 16, 17] += 4000.0  # 50 sigma
    hit[0, 1, 16, 17] = np.sqrt(hit[0, 0, 16, 17] + 25)
    decoder = get_decoder("denoise")
    thresholds = {"sky": 2.0, "source": 4.0, "core": 8.0, "no_source": 3.0}
    truth = np.arcsinh((batch.images[0, 0] - 200) / 15)

    def painted(logit, image, wrong=0.0):
        batch.images[:] = image
        outputs = outputs_of(batch, replacement=truth + wrong, defect=logit - denoise.DEFECT_PRIOR)
        planes = {name: plane[0] for name, plane in decoder.decode(outputs, batch, thresholds).items()}
        return planes, decoder.flags(planes, batch.masks[0], noise=15.0, thresholds=thresholds)

    clean = batch.images.copy()
    planes, bits = painted(12.0, hit)
    assert planes["restored"][16, 17] == pytest.approx(clean[0, 0, 16, 17], rel=1e-3)
    assert bits[16, 17] & DQ.RESTORED
    # Below the threshold of cores, or hardly above its surroundings: the pixel stays, and is in doubt.
    for logit, image in ((7.0, hit), (12.0, clean)):
        planes, bits = painted(logit, image)
        assert planes["restored"][16, 17] == image[0, 0, 16, 17]
        assert bits[16, 17] == DQ.LOW_CONFIDENCE
    # The threshold of the sky is its own.
    assert painted(3.0, clean)[0]["painted"][0, 0] == 1
    assert painted(1.0, clean)[0]["painted"][0, 0] == 0
    # Where the frame's PSF rules out a source, its own threshold is enough, on the sky that of the sky stays.
    batch.masks |= NO_SOURCE
    assert painted(3.1, hit)[0]["painted"][16, 17] == 1
    assert painted(2.9, hit)[0]["painted"][16, 17] == 0
    assert painted(2.1, hit)[0]["painted"][0, 0] == 1


def test_what_whole_frames_tell_is_no_defect_and_no_input():
    """The mark of tiles is seen by nothing else: not by the network, and by no other task."""
    batch = star_on_sky()
    marked = replace(batch, masks=batch.masks | NO_SOURCE)
    known, told = SkyPixels.of_batch(batch), SkyPixels.of_batch(marked)
    assert told.no_source.all()
    assert not known.no_source.any()
    np.testing.assert_array_equal(known.missing | known.saturated, told.missing | told.saturated)
    arrays = (FrameInput().arrays(one)["images"] for one in (batch, marked))
    np.testing.assert_array_equal(*arrays)
    assert not int(NO_SOURCE) & sum(DQ)


def test_torch_restores_as_numpy_does(rng, monkeypatch):
    import torch

    from pipeline.tasks.denoise.objective import restore

    batch = sky_batch(2)
    outputs = rng.normal(0, 3, (2, 5, 32, 32)).astype(np.float32)
    # On sources, only numpy asks whether a pixel stands out of its replacement: there, nothing shall be replaced.
    pixels = SkyPixels.of_batch(batch)
    places = get_decoder("denoise").decode(outputs, batch)["place"]
    outputs[:, 3][(places > 0) & ~pixels.missing] = -30.0
    arrays = {
        "signal": (pixels.sci - pixels.level) / pixels.noise,
        "uncertainty": pixels.err / pixels.noise,
        "missing": pixels.missing,
        "saturated": pixels.saturated,
        "source_share": rng.random((2, 32, 32)).astype(np.float32),
    }
    monkeypatch.setattr(denoise, "share_of_sources", lambda snr: arrays["source_share"])
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    restored = restore(torch.from_numpy(outputs), tensors).numpy() * pixels.noise + pixels.level
    decoded = get_decoder("denoise").decode(outputs, batch)["restored"]
    np.testing.assert_allclose(decoded, restored, rtol=1e-4, atol=1e-2)


def test_alarms_are_counted_by_logit_and_place():
    values = {"defect_probability": np.array([[0.5, 0.0, 1.0]], np.float32), "place": np.array([[0.0, 1.0, 2.0]])}
    score, place = get_decoder("denoise").alarms(values)
    np.testing.assert_allclose(score, [[0, -30, 30]], atol=1e-6)
    assert place.tolist() == [[0, 1, 2]]


def test_gate_is_sharp():
    """What the comments beside the constants say."""
    assert denoise.sigmoid(np.array(denoise.GATE_SHARPNESS)) > 0.95
    assert denoise.sigmoid(np.array(2 * denoise.GATE_SHARPNESS)) > 0.997
    assert denoise.sigmoid(np.array(denoise.DEFECT_PRIOR)) < 0.05


def test_flags_say_what_was_restored_and_what_is_uncertain():
    """Of a sound pixel, a defect that was replaced and one that was not, one that was known before, two saturated."""
    dq = np.array([[0, 0, 0, DQ.COSMIC_RAY, DQ.SATURATED, DQ.SATURATED | DQ.HOT]], np.uint16)
    planes = {
        "defect_probability": np.array([[0.49, 0.5, 0.5, 0.0, 0.9, 0.0]]),
        "painted": np.array([[0, 1, 0, 0, 1, 0]]),
        "restored_err": np.array([[2.0, 0.5, 0.5, 1.5, 0.5, 0.5]]),
    }
    uncertain = DQ.RESTORED | DQ.LOW_CONFIDENCE
    found = get_decoder("denoise").flags(planes, dq, noise=1.0)
    assert found.tolist() == [[0, DQ.RESTORED, DQ.LOW_CONFIDENCE, uncertain, DQ.LOW_CONFIDENCE, uncertain]]
    assert found.dtype == np.uint16


def test_a_pixel_that_keeps_its_value_is_uncertain_and_not_restored():
    """Of a defect that the network found, one that was known before, and a sound pixel, all to be kept."""
    dq = np.array([[0, DQ.COSMIC_RAY, 0]], np.uint16)
    planes = {
        "defect_probability": np.array([[0.9, 0.9, 0.1]]),
        "painted": np.array([[1, 1, 0]]),
        "restored_err": np.full((1, 3), 0.5),
    }
    kept = np.array([[True, False, True]])
    assert get_decoder("denoise").flags(planes, dq, 1.0, kept).tolist() == [[DQ.LOW_CONFIDENCE, DQ.RESTORED, 0]]


def test_most_tasks_flag_nothing():
    dq = np.array([[0, DQ.MISSING]], np.uint16)
    assert get_decoder("energy").flags({}, dq, noise=1.0).tolist() == [[0, 0]]


# ---- direction -------------------------------------------------------------------------------------------------------
def direction_outputs(vector, logit, log_variance=0.0):
    """Outputs of the head for a displacement [deg] with a given logit of its end."""
    lon, lat = vector
    angle = np.arctan2(lat, lon)
    line = np.hypot(lon, lat) * np.array([np.cos(2 * angle), np.sin(2 * angle)])
    head = logit * np.array([np.cos(angle), np.sin(angle)])
    return np.array([[*line, *head, 0.0, 0.0, log_variance]], np.float32)


@pytest.mark.parametrize("angle_deg", [0.0, 30.0, 90.0, 135.0, 180.0, 250.0, 359.0])
def test_direction_is_line_and_end_joined(angle_deg):
    batch = camera_batch(1)
    vector = 0.7 * np.array([np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))])
    found = get_decoder("direction").decode(direction_outputs(vector, 2.0, 2 * np.log(0.1)), batch)
    np.testing.assert_allclose(found["reco_fov_lon_deg"], 0.3 + vector[0], atol=1e-6)
    np.testing.assert_allclose(found["reco_fov_lat_deg"], -0.2 + vector[1], atol=1e-6)
    np.testing.assert_allclose(found["reco_sign_score"], 2 / (1 + np.exp(-2.0)) - 1, rtol=1e-6)
    alt, az = altaz_of_fov(found["reco_fov_lon_deg"], found["reco_fov_lat_deg"], 70.0, 180.0)
    np.testing.assert_array_equal(found["reco_alt_deg"], alt)
    np.testing.assert_array_equal(found["reco_az_deg"], az)
    np.testing.assert_allclose(found["reco_alt_uncert_deg"], 0.1, rtol=1e-6)
    np.testing.assert_allclose(found["reco_az_uncert_deg"], 0.1 / np.cos(np.radians(alt)), rtol=1e-6)
    np.testing.assert_allclose(found["reco_ang_distance_uncert_deg"], 0.15096, rtol=1e-4)
    psi = np.radians(batch.events["hillas_psi"])
    np.testing.assert_allclose(found["reco_disp_deg"], vector @ [np.cos(psi[0]), np.sin(psi[0])], atol=1e-6)
    other = get_decoder("direction").decode(direction_outputs(vector, -2.0), batch)
    np.testing.assert_allclose(other["reco_fov_lon_deg"], 0.3 - vector[0], atol=1e-6)


def test_direction_adds_multiples_of_the_image_axis():
    """The axis points away from the camera's centre, whichever way psi is counted; the source is inwards here."""
    batch = camera_batch(2)
    batch.events |= {"hillas_psi": np.full(2, 20.0), "hillas_phi": np.array([30.0, 190.0])}
    outputs = np.tile(np.array([0, 0, 0, 0, 0.6, -3.0, 0], np.float32), (2, 1))
    found = get_decoder("direction").decode(outputs, batch)
    axis = np.array([np.cos(np.radians(20)), np.sin(np.radians(20))])
    vectors = np.stack([found["reco_fov_lon_deg"] - 0.3, found["reco_fov_lat_deg"] + 0.2], axis=1)
    np.testing.assert_allclose(vectors, [-0.6 * axis, 0.6 * axis], atol=1e-6)
    np.testing.assert_allclose(found["reco_end_log_odds"], 3.0, rtol=1e-6)

    along_20 = direction_outputs(0.2 * axis, 0.0)
    for with_free_part in (outputs + along_20, 2 * along_20 + outputs * (1 / 3, 1 / 3, 1 / 3, 1 / 3, 2 / 3, 1, 1)):
        found = get_decoder("direction").decode(with_free_part, batch)
        np.testing.assert_allclose(found["reco_disp_deg"], [-0.8, 0.8], rtol=1e-6)


def test_a_round_image_has_no_axis_to_lean_on():
    batch = camera_batch(1)
    batch.events["hillas_psi"][:] = np.nan
    found = get_decoder("direction").decode(np.array([[0, 0, 0, 0, 0.6, -3.0, 0]], np.float32), batch)
    np.testing.assert_allclose([found["reco_fov_lon_deg"], found["reco_fov_lat_deg"]], [[0.3], [-0.2]], atol=1e-6)


def test_without_a_pointing_the_place_in_the_field_of_view_is_known():
    batch = camera_batch(1)
    batch.events["pointing_alt_deg"][:] = np.nan
    found = get_decoder("direction").decode(direction_outputs((0.5, 0.1), 1.0)[:, :6], batch)
    assert np.isfinite(found["reco_fov_lon_deg"]).all()
    assert np.isnan([found["reco_alt_deg"], found["reco_az_deg"], found["reco_alt_uncert_deg"]]).all()


# ---- core ------------------------------------------------------------------------------------------------------------
def test_the_core_is_where_the_axis_through_the_vector_meets_the_ground():
    batch = camera_batch(4)
    for name in ("true_core_x_m", "true_core_y_m"):
        batch.events[name] = np.array([-120.0, 0.0, 45.0, 300.0])
    truth = core_vector_m(batch.events)
    outputs = np.concatenate([truth / 100, np.full((4, 1), 2 * np.log(0.5))], axis=1).astype(np.float32)
    found = get_decoder("core").decode(outputs, batch)
    np.testing.assert_allclose(found["reco_core_x_m"], batch.events["true_core_x_m"], atol=1e-3)
    np.testing.assert_allclose(found["reco_core_y_m"], batch.events["true_core_y_m"], atol=1e-3)
    np.testing.assert_allclose(found["reco_impact_m"], np.linalg.norm(truth, axis=1), rtol=1e-5)
    np.testing.assert_allclose(found["reco_impact_uncert_m"], 50.0, rtol=1e-5)
    # 20 deg from the zenith towards the south: the ground is stretched that way, and not across.
    np.testing.assert_allclose(found["reco_core_uncert_x_m"], 50.0 / np.sin(np.radians(70)), rtol=1e-5)
    np.testing.assert_allclose(found["reco_core_uncert_y_m"], 50.0, rtol=1e-5)


def test_the_impact_distance_is_that_of_the_axis():
    """For a shower parallel to the pointing, the length of the core's vector is the distance of axis and telescope."""
    events = camera_batch(3).events
    truth = {"true_alt_deg": events["pointing_alt_deg"], "true_az_deg": events["pointing_az_deg"]}
    truth |= {name: events[name] for name in ("true_core_x_m", "true_core_y_m")}
    np.testing.assert_allclose(
        np.linalg.norm(core_vector_m(events), axis=1), impact_distance_m(truth, (30.0, -20.0, 5.0)), rtol=1e-9
    )


def test_depth_of_the_maximum():
    found = get_decoder("x_max").decode(np.array([[0.5, 2 * np.log(0.2)]], np.float32), camera_batch(1))
    np.testing.assert_allclose(found["reco_x_max_g_cm2"], 350.0, rtol=1e-6)
    np.testing.assert_allclose(found["reco_x_max_uncert_g_cm2"], 20.0, rtol=1e-6)
