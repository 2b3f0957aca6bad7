"""Errors of sums of restored pixels: exact cases, and frames whose sums are known to vary."""

import numpy as np
import pytest
from astropy.io import fits
from photometry import scenes
from scipy.ndimage import maximum_filter, uniform_filter
from tiny_bundles import sky_bundle

import lightpool
from pipeline.bundle.variance import FrameVariance
from pipeline.errors import UserError
from pipeline.sky.aperture_errors import aperture_errors, correlation_of
from pipeline.sky.cards import correlation
from pipeline.sky.dq import DQ, DQ_DTYPE
from pipeline.training.frame_variance import window_sums

MEASURED = {3: 1.5, 5: 2.0, 9: 2.5, 17: 3.0}


def header_of(noise: float, correlations: dict[int, float]) -> dict[str, float]:
    cards = [correlation(side, value) for side, value in correlations.items()]
    return {"LPRMS": noise} | {keyword: value for keyword, value, _ in cards}


def error_of(err, dq=None, noise=10.0, correlations=MEASURED, radius=4.0, x=20.0):
    dq = np.zeros(err.shape, DQ_DTYPE) if dq is None else dq
    (found,) = aperture_errors(err, dq, header_of(noise, correlations), [x], [20.0], radius)
    return found


# ---- factors ---------------------------------------------------------------------------------------------------------
def test_factors_between_and_beyond_the_windows():
    assert correlation_of(1, MEASURED) == 1
    for side, value in MEASURED.items():
        assert correlation_of(side**2, MEASURED) == pytest.approx(value)
    assert correlation_of(15, MEASURED) == pytest.approx(3**0.5)  # halfway between 9 and 25 in the logarithm
    assert correlation_of(34**2, MEASURED) == pytest.approx(3 * 2 ** (np.log(3 / 2.5) / np.log(17 / 9)))
    assert correlation_of(34**2, {3: 0.96, 5: 0.95}) == pytest.approx(0.95)
    assert correlation_of(9, {}) == np.inf


# ---- exact cases -----------------------------------------------------------------------------------------------------
def shares(radius: float) -> np.ndarray:
    """Of the pixels in a circle about the middle of one, by counting 200 x 200 points in each."""
    reach = int(radius) + 1
    edge = (np.arange((2 * reach + 1) * 200) + 0.5) / 200 - reach - 0.5
    inside = np.hypot(edge[:, None], edge) < radius
    return inside.reshape(2 * reach + 1, 200, 2 * reach + 1, 200).mean(axis=(1, 3))


SHARES = shares(4.0)
SQUARED = np.square(SHARES).sum()


def test_sky_has_the_measured_factor():
    expected = correlation_of(SHARES.sum() ** 2 / SQUARED, MEASURED) * 2 * np.sqrt(SQUARED)
    assert error_of(np.full((41, 41), 2.0)) == pytest.approx(expected, rel=1e-3)


def test_no_sum_is_less_certain_than_before():
    """An uncertainty of 8 was 10 before: K is at most 1.25; and with none measured, K is as large as that."""
    bounded = error_of(np.full((41, 41), 8.0))
    assert bounded == pytest.approx(10 * np.sqrt(SQUARED), rel=1e-3)
    assert error_of(np.full((41, 41), 2.0), correlations={}) == pytest.approx(10 * np.sqrt(SQUARED), rel=1e-3)


def test_pixels_as_measured_are_independent():
    assert error_of(np.full((41, 41), 30.0)) == pytest.approx(30 * np.sqrt(SQUARED), rel=1e-3)


def test_a_hole_counts_as_one():
    err, dq = np.full((41, 41), 30.0), np.zeros((41, 41), DQ_DTYPE)
    hole = np.s_[19:21, 19:22]  # six pixels
    dq[hole], err[hole] = DQ.RESTORED, 7.0
    dq[21, 22] = DQ.RESTORED  # touches it by a corner
    dq[18, 23] = DQ.RESTORED  # another
    dq[0, 0] = DQ.RESTORED  # outside
    expected = (6 * 7 + 30) ** 2 + 30**2 + (SQUARED - 8) * 30**2
    assert error_of(err, dq) == pytest.approx(np.sqrt(expected), rel=1e-3)


def test_edges_and_pixels_outside():
    err = np.full((41, 41), 30.0)
    assert error_of(err, x=0.0) < error_of(err)
    assert np.isnan(error_of(err, x=-20.0))
    err[0, 0] = np.nan
    assert np.isfinite(error_of(err))
    err[20, 20] = np.nan
    assert np.isnan(error_of(err))
    assert aperture_errors(err, np.zeros((41, 41), DQ_DTYPE), {"LPRMS": 1.0}, [], [], 3.0).shape == (0,)


@pytest.mark.parametrize(
    ("header", "shape", "radius", "message"),
    [
        ({}, (9, 9), 3.0, "the header has no card LPRMS: .* give the header of its SCI extension"),
        ({"LPRMS": 1.0}, (9, 8), 3.0, r"ERR of shape \(9, 9\) and DQ of shape \(9, 8\) are not of one image"),
        ({"LPRMS": 1.0}, (9, 9), 0.0, "the radius of an aperture is a positive number of pixels, got 0.0"),
    ],
)
def test_what_is_refused(header, shape, radius, message):
    with pytest.raises(UserError, match=message):
        aperture_errors(np.ones((9, 9)), np.zeros(shape, DQ_DTYPE), header, [4], [4], radius)


# ---- from the model's card to the product and the API ----------------------------------------------------------------
def test_products_say_what_their_sums_vary_by(rng, write_fits, tmp_path):
    model = lightpool.load(sky_bundle(tmp_path / "bundle", variance=FrameVariance(factors={}, correlations=MEASURED)))
    path = write_fits(pixels=rng.normal(300, 10, (50, 60)).astype(np.float32), GAIN=1.5, RDNOISE=5.0)
    result = model.predict(path)
    errors = result.aperture_error([20.0, 30.0], 25.0, radius_px=4)
    with fits.open(result.write(tmp_path / "out.fits")) as hdus:
        header = hdus[0].header
        assert {key: header[key] for key in header if key.startswith("LPCOR")} == {
            "LPCOR3": 1.5, "LPCOR5": 2.0, "LPCOR9": 2.5, "LPCOR17": 3.0,
        }  # fmt: skip
        assert header.comments["LPCOR17"] == "std(sum of 17x17 px)/sqrt(sum ERR^2), sky"
        planes = {"err": hdus["ERR"].data, "dq": hdus["DQ"].data, "header": header}
        found = lightpool.aperture_error([20, 30], 25, 4, **planes)
    assert found == pytest.approx(np.asarray(errors), rel=1e-6)
    assert errors.unit == result.data.unit
    # The model halves the uncertainty of every pixel: no sum is more uncertain than as it came.
    noise = result.uncertainty.value.mean() * 2
    assert np.asarray(errors) == pytest.approx(noise * np.sqrt(SQUARED), rel=0.15)


def test_sums_of_a_mosaic_were_not_measured(rng, write_fits, tmp_path):
    model = lightpool.load(sky_bundle(tmp_path / "bundle", variance=FrameVariance(factors={}, correlations=MEASURED)))
    path = write_fits(pixels=rng.normal(300, 10, (50, 60)).astype(np.float32), GAIN=1.5, BAYERPAT="RGGB")
    with fits.open(model.predict(path).write(tmp_path / "out.fits")) as hdus:
        assert not [key for key in hdus[0].header if key.startswith("LPCOR")]


# ---- frames drawn apart from our own simulation ----------------------------------------------------------------------
SIDE_PX = 5
RECIPE = scenes.Recipe("drawn", 31, 3.0, sky_e=300, n_stars=60, n_galaxies=0, n_tracks=0, side_px=320)


class Averaged:
    """A restoration whose errors are known: means over 5 x 5 px of what is not a star, and stars as they came."""

    def __init__(self, recipe):
        self.scene = scenes.draw(recipe)
        light = self.scene.star_light + self.scene.galaxy_light
        noise = self.scene.noise
        self.star = maximum_filter(light, 5) > 3 * np.median(noise)
        self.empty = maximum_filter(light, 11) < 0.02 * np.median(noise)
        self.noise = float(np.median(noise[self.empty]))
        share = uniform_filter(np.where(self.star, 0.0, 1.0), SIDE_PX)
        self.err = np.where(self.star, noise, noise / SIDE_PX / np.sqrt(np.maximum(share, 0.2)))
        self.share = np.maximum(share, 1 / SIDE_PX**2)

    def errors(self, rng, noise=None):
        """Restored less true, for one exposure."""
        clean, read_noise = self.scene.clean, self.scene.read_noise_e
        drawn = rng.poisson(clean) + rng.normal(0, read_noise, clean.shape) - clean
        mean = uniform_filter(np.where(self.star, 0.0, drawn), SIDE_PX) / self.share
        return np.where(self.star, drawn, mean)

    def factors(self, rng):
        found = {}
        for side in MEASURED:
            sums = np.concatenate([window_sums(self.errors(rng), self.err, self.empty, side) for _ in range(6)])
            found[side] = float(np.std(sums))
        return found


def test_sums_vary_as_stated(rng):
    """Factors of one frame hold in another one: on empty sky, and for stars, whose pixels were left as they were."""
    other = Averaged(scenes.Recipe("factors", 32, 3.0, sky_e=300, n_stars=20, n_galaxies=0, n_tracks=0, side_px=320))
    factors = other.factors(rng)
    assert factors[17] == pytest.approx(SIDE_PX, rel=0.2)
    frame = Averaged(RECIPE)
    dq = np.zeros(frame.err.shape, DQ_DTYPE)
    header = header_of(frame.noise, factors)
    y, x = (places.ravel() for places in np.mgrid[12:308:16, 12:308:16])
    empty = frame.empty[y, x]
    stars = frame.scene.stars
    bright = (stars["flux"] > 150 * frame.noise) & (np.abs([stars["x"], stars["y"]] - np.float64(159.5)) < 147).all(
        axis=0
    )
    assert bright.sum() > 8
    exposures = [frame.errors(rng) for _ in range(40)]
    for radius in (2.0, 4.5, 8.0):
        for name, places in {"sky": (x[empty], y[empty]), "stars": (stars["x"][bright], stars["y"][bright])}.items():
            stated = aperture_errors(frame.err, dq, header, *places, radius)
            sums = _sums(exposures, *places, radius)
            # Pixels beside a star share their errors with fewer others than those of empty sky do.
            assert (0.93 if name == "sky" else 0.88) < np.std(sums / stated) < 1.07
            if name == "sky":
                as_if_independent = aperture_errors(frame.err, dq, header_of(0.0, {}), *places, radius)
                assert np.std(sums / as_if_independent) > 2.5


def _sums(images, x, y, radius):
    from photutils.aperture import CircularAperture

    circles = CircularAperture(np.column_stack([x, y]), r=radius)
    return np.stack([circles.do_photometry(image)[0] for image in images])
