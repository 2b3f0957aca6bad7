"""Network outputs to physical values."""

import numpy as np
import pytest
from synthetic_tiles import camera_batch, sky_batch

from pipeline.errors import UserError
from pipeline.preparation import SkyPixels
from pipeline.tasks import TASK_KINDS, get_decoder, get_training
from pipeline.tasks.decode import denoise


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


@pytest.mark.parametrize("name", TASK_KINDS)
def test_every_decoder_gives_its_columns(name):
    decoder = get_decoder(name)
    batch = camera_batch(2) if TASK_KINDS[name] == "camera" else sky_batch(2)
    maps = () if TASK_KINDS[name] == "camera" else (32, 32)
    found = decoder.decode(np.zeros((2, len(decoder.outputs), *maps), np.float32), batch)
    assert list(found) == [column.name for column in decoder.columns]
    assert all(len(values) == 2 for values in found.values())


def outputs_of(batch, correction=0.0, replacement=0.0, log_variance=0.0, defect=-30.0):
    planes = np.empty((len(batch), 4, 32, 32), np.float32)
    for index, value in enumerate((correction, replacement, log_variance, defect)):
        planes[:, index] = value
    return planes


def test_denoise_of_zero_outputs_is_the_identity():
    batch = sky_batch(2)
    found = get_decoder("denoise").decode(outputs_of(batch), batch)
    known = np.isfinite(batch.images[:, 0])
    np.testing.assert_allclose(found["restored"][known], batch.images[:, 0][known], rtol=1e-6)
    np.testing.assert_allclose(found["restored_err"][known], batch.images[:, 1][known], rtol=1e-6)


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


def test_denoise_cannot_bend_a_bright_star():
    batch = sky_batch(1)
    batch.images[0, 0, 10, 10], batch.images[0, 1, 10, 10] = 40_200, 200  # 200 sigma above the sky
    batch.masks[0, 10, 10] = 0
    found = get_decoder("denoise").decode(outputs_of(batch, correction=1e6), batch)
    assert abs(found["restored"][0, 10, 10] / 40_200 - 1) < 1e-3


def test_torch_restores_as_numpy_does(rng):
    import torch

    from pipeline.tasks.training.denoise import restore

    batch = sky_batch(2)
    outputs = rng.normal(0, 3, (2, 4, 32, 32)).astype(np.float32)
    pixels = SkyPixels.of_batch(batch)
    signal, uncertainty = (pixels.sci - pixels.level) / pixels.noise, pixels.err / pixels.noise
    arrays = {
        "signal": signal,
        "uncertainty": uncertainty,
        "missing": pixels.missing,
        "saturated": pixels.saturated,
    }
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    restored = restore(torch.from_numpy(outputs), tensors).numpy() * pixels.noise + pixels.level
    decoded = get_decoder("denoise").decode(outputs, batch)["restored"]
    np.testing.assert_allclose(decoded, restored, rtol=1e-4, atol=1e-2)


def test_gate_is_sharp():
    """What the comments beside the constants say."""
    logit = np.log(0.9 / 0.1)
    assert denoise.sigmoid(np.array(denoise.GATE_SHARPNESS * logit)) > 0.998
    assert denoise.sigmoid(np.array(denoise.DEFECT_PRIOR)) < 0.05


@pytest.mark.parametrize("get", [get_decoder, get_training])
def test_unknown_task(get):
    with pytest.raises(UserError, match=r"unknown task 'gamma'; did you mean 'gammaness'\? accepted: energy"):
        get("gamma")
