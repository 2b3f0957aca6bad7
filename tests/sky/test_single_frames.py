"""Tiles of single frames (Noise2Void): what is refused, masked, and laid over them."""

import numpy as np
import pytest
from astropy.io import fits
from scipy.ndimage import gaussian_filter

from pipeline.config import parse_config
from pipeline.errors import InputFileError
from pipeline.sky.dq import DQ, has
from pipeline.sky.frames import read_frame
from pipeline.sky.single_frames import Role, noise_correlation, roles, tile_single_frame
from pipeline.stages.tiles import make_tiles
from pipeline.tasks.denoise.noise2void import hide
from pipeline.tasks.denoise.targets import TARGETS
from pipeline.tiles.shards import Shard

NOISE = 10.0
CONFIG = parse_config({"tiles": {"sky": {"size": 64, "stride": 64, "target": "noise2void"}}})


def stars(rng, shape, n=60):
    y, x = np.mgrid[: shape[0], : shape[1]]
    light = np.zeros(shape)
    for _ in range(n):
        x0, y0 = rng.uniform(4, shape[1] - 4), rng.uniform(4, shape[0] - 4)
        light += rng.uniform(2e3, 4e4) / (2 * np.pi * 1.3**2) * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / 2 / 1.3**2)
    return light


@pytest.fixture
def write(tmp_path):
    def write(pixels, name="frame.fits"):
        hdu = fits.PrimaryHDU(pixels.astype(np.float32))
        hdu.header.update(BUNIT="electron", RDNOISE=NOISE)
        hdu.writeto(tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def frame(write, rng):
    light = stars(rng, (256, 320))
    image = rng.poisson(light + 200.0) + rng.normal(0, NOISE, light.shape)
    image[100, 200:212] += 5_000  # a track
    return write(image)


def tiles_of(path):
    with Shard(path) as shard:
        return shard.tiles(0, shard.n_tiles), shard.attributes


def test_independent_noise_is_told_from_correlated(write, rng):
    light = stars(rng, (300, 300)) + 100 + np.arange(300) * 0.3
    independent = light + rng.normal(0, NOISE, light.shape)
    offsets = rng.normal(0, NOISE, (300, 1))  # of rows: no noise that neighbours share
    smooth = gaussian_filter(independent, 0.6)
    plain, banded, resampled = (
        noise_correlation(read_frame(write(image, name)))
        for image, name in ((independent, "a.fits"), (independent + offsets, "b.fits"), (smooth, "c.fits"))
    )
    assert plain.largest < 0.03
    assert banded.largest < 0.04
    assert resampled.x > 0.3
    assert resampled.y > 0.3


def test_correlated_noise_is_refused(write, rng, tmp_path):
    path = write(gaussian_filter(100 + rng.normal(0, 30, (200, 200)), 0.7))
    match = r"the noise of neighbouring pixels is correlated \(0\.\d+ along x, .*at most 0.05 is accepted.*noise2noise"
    with pytest.raises(InputFileError, match=match):
        tile_single_frame(path, tmp_path / "a.tiles.h5", CONFIG)
    small = write(100 + rng.normal(0, NOISE, (30, 40)), "small.fits")
    with pytest.raises(InputFileError, match=r"pixels of empty sky, too few to tell"):
        tile_single_frame(small, tmp_path / "b.tiles.h5", CONFIG)
    assert not list(tmp_path.glob("*.h5"))


def test_defects_are_masked_and_stars_are_not(frame):
    read = read_frame(frame)
    role, n_masked = roles(read)
    assert (role[100, 200:212] == Role.MASKED).all()
    assert n_masked >= 12
    bright = read.sci > read.level + 30 * read.noise
    bright[98:103, 198:214] = False
    assert (role[bright] == Role.LEARNED).mean() > 0.9


def test_tiles_know_what_is_below_the_tracks(frame, tmp_path):
    result = make_tiles([frame], CONFIG, tmp_path / "tiles")[0]
    tiles, attributes = tiles_of(tmp_path / "tiles" / "frame.tiles.h5")
    assert result["n_tiles"] == len(tiles) == 20
    assert attributes["target"] == "noise2void"
    assert abs(attributes["noise_correlation"][0]) < 0.05
    learned = tiles.targets["role"][:, 0] == Role.LEARNED
    clean = tiles.targets["clean"][:, 0]
    assert np.array_equal(np.isfinite(clean), learned)
    struck = has(tiles.masks, DQ.COSMIC_RAY)
    assert struck.any()
    charge = tiles.images[:, 0] - clean
    assert (charge[struck & learned] > 0).all()
    untouched = learned & ~struck
    assert np.median(charge[untouched]) == 0
    assert (tiles.images[:, 1][learned] >= tiles.targets["clean_err"][:, 0][learned]).all()
    assert len(set(tiles.split.tolist())) > 1  # one frame is enough for training and validation


def test_what_is_shown_and_what_is_compared_are_independent(frame, tmp_path):
    tile_single_frame(frame, tmp_path / "a.tiles.h5", CONFIG)
    tiles, _ = tiles_of(tmp_path / "a.tiles.h5")
    kept = tiles.images.copy()
    shown = hide(tiles, np.random.default_rng(3))
    assert np.array_equal(tiles.images, kept, equal_nan=True)
    arrays = TARGETS.arrays(shown)
    assert np.array_equal(arrays["missing"], ~np.isfinite(shown.images[:, 0]))
    told = arrays["missing"] & arrays["usable"]
    assert told.mean() == pytest.approx(0.01, rel=0.2)
    sound = arrays["usable"] & ~arrays["missing"] & ~arrays["defect"]
    pull = (arrays["signal"] - arrays["clean"]) / np.sqrt(arrays["uncertainty"] ** 2 + arrays["clean_variance"])
    assert pull[sound].mean() == pytest.approx(0, abs=0.02)
    assert pull[sound].std() == pytest.approx(1, abs=0.03)
    sky = sound & (arrays["signal"] < 3)
    shared = np.corrcoef(arrays["signal"][sky], arrays["clean"][sky])[0, 1]
    assert abs(shared) < 0.1  # faint wings of stars, no noise
    # In units of the noise that is shown, the background has a width of 1 again.
    assert arrays["signal"][sky].std() == pytest.approx(1, abs=0.1)
    again = hide(tiles, np.random.default_rng(3))
    assert again.images.tobytes() == shown.images.tobytes()


def test_tiles_without_roles_are_shown_as_they_are(rng):
    from synthetic_tiles import sky_batch

    tiles = sky_batch(4)
    assert hide(tiles, rng) is tiles
