import numpy as np
import pytest
from scipy.ndimage import uniform_filter

from pipeline.tasks.denoise import sharing
from pipeline.tasks.denoise.sharing import given, share_of_sources


def star(fwhm_px, snr, size=129):
    """A Gaussian star in units of the noise, whose total light has this signal-to-noise ratio within its FWHM."""
    y, x = np.mgrid[:size, :size] - size // 2
    light = np.exp(-4 * np.log(2) * (x**2 + y**2) / fwhm_px**2)
    area = np.pi * fwhm_px**2
    return (light * snr * np.sqrt(area) / light.sum())[None].astype(np.float32)


@pytest.mark.parametrize("factors", [(3,), (3, 3), (3, 3, 5)])
def test_means_are_those_of_scipy(rng, factors):
    planes = rng.normal(size=(2, 70, 61)).astype(np.float32)
    side = int(np.prod(factors))
    expected = [uniform_filter(plane.astype(float), side, mode="constant") for plane in planes]
    np.testing.assert_allclose(sharing._mean(planes, factors), expected, atol=1e-6)


def test_a_mean_does_not_depend_on_the_place(rng):
    planes = rng.normal(size=(1, 150, 150)).astype(np.float32)
    part = share_of_sources(10 * planes[:, 17:, 23:])[:, 30:-30, 30:-30]
    assert part.max() > 0.5
    assert part.tobytes() == share_of_sources(10 * planes)[:, 47:-30, 53:-30].tobytes()


def test_what_is_taken_is_given_whatever_the_shares(rng):
    taken = np.zeros((1, 60, 60), np.float32)
    taken[:, 10:-10, 10:-10] = rng.normal(size=(1, 40, 40))
    back = given(taken, rng.random(taken.shape).astype(np.float32))
    assert back.sum(dtype=float) == pytest.approx(taken.sum(dtype=float), abs=1e-3)


@pytest.mark.parametrize(("share", "stays"), [(0.0, 0.16), (1.0, 1 / 3)])
def test_noise_that_stays_is_what_the_comment_says(rng, share, stays):
    noise = rng.normal(size=(1, 400, 400)).astype(np.float32)
    left = noise - noise + given(noise, np.full_like(noise, share))  # all noise was taken
    assert left.std() == pytest.approx(stays, abs=0.02)


def test_what_is_taken_from_a_source_stays_in_its_aperture():
    light = star(6.0, 20.0)
    y, x = np.mgrid[:129, :129] - 64
    within = np.hypot(x, y) <= 6
    share = share_of_sources(light)
    lost = [float((given(light, s) - light)[0][within].sum() / light[0][within].sum()) for s in (0 * share, share)]
    assert lost[0] < 2 * lost[1] < 0  # 8 and 3 % of it


@pytest.mark.parametrize("fwhm_px", [2.0, 4.0, 7.0])
def test_a_star_is_a_source_and_noise_is_not(rng, fwhm_px):
    light = star(fwhm_px, 30.0)
    noise = rng.normal(size=light.shape).astype(np.float32)
    share = share_of_sources(light + noise)[0]
    assert share[64, 64] > 0.5
    assert (share[:40, :40] > 0.1).mean() < 0.002


def test_one_pixel_is_no_source():
    snr = np.zeros((1, 99, 99), np.float32)
    snr[0, 50, 50] = 1e6
    assert share_of_sources(snr).max() == 0
    snr[0, 20, 20] = np.nan
    assert np.isfinite(share_of_sources(snr)).all()


def test_bright_sky_is_no_source():
    assert share_of_sources(np.full((1, 200, 200), 2.0, np.float32))[:, 50:-50, 50:-50].max() == 0
