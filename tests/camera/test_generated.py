"""From maps to recorded images: the light scatters as the maps say, and the camera adds its own noise and no more."""

import numpy as np
import pytest

from pipeline.camera.generated import CameraReadout, drawn_orientation, light_of_maps
from pipeline.camera.shower_frame import shower_frame
from pipeline.camera.telescopes import get_telescope
from pipeline.config import CameraConditions, CleaningConfig
from pipeline.inputs.shower_frame import Maps, Spreads

SIZE = 64
N = 40


@pytest.fixture(scope="module")
def telescope():
    return get_telescope("LST")


@pytest.fixture(scope="module")
def orientation():
    conditions = np.tile([0.0, 120.0, 0.8, 0.2, 3.5], (N, 1))
    return drawn_orientation(conditions, np.random.default_rng(3))


def blob(pixel_ns: float, electron_ns: float) -> Maps:
    """Light in the middle of the tile that comes at 3 ns."""
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    share = np.exp(-(x**2 + y**2) / 80)
    maps = np.broadcast_to(share / share.sum(), (N, SIZE, SIZE))
    spreads = Spreads(np.full((N, SIZE, SIZE), 1e6), np.full(N, pixel_ns), np.full(N, electron_ns))
    return Maps(maps, np.full((N, SIZE, SIZE), 3.0), spreads)


@pytest.mark.parametrize(("pixel_ns", "electron_ns"), [(0.0, 0.0), (1.5, 0.0), (0.0, 4.0), (1.0, 2.0)])
def test_times_of_pixels_scatter_as_stated(telescope, orientation, pixel_ns, electron_ns):
    maps = blob(pixel_ns, electron_ns)
    light = light_of_maps(telescope.camera, maps, orientation, np.full(N, 3000.0), np.random.default_rng(1))
    assert (light.n_pe.sum(axis=1) == 3000).all()
    for n_pe in (4, 25):
        own = (light.n_pe > 0.8 * n_pe) & (light.n_pe < 1.2 * n_pe)
        expected = np.sqrt(pixel_ns**2 + electron_ns**2 / light.n_pe[own])
        assert own.sum() > 300
        about = light.time_ns[own] - 3.0
        assert np.mean(about**2) == pytest.approx(np.mean(expected**2), rel=0.2)


def test_maps_of_measured_images_scatter_no_more(telescope, orientation):
    measured = blob(0, 0)._replace(spreads=None)
    light = light_of_maps(telescope.camera, measured, orientation, np.full(N, 3000.0), np.random.default_rng(1))
    np.testing.assert_allclose(light.time_ns[light.n_pe > 0], 3.0, atol=1e-4)


def recorded_times(telescope, orientation, maps: Maps) -> tuple[np.ndarray, np.ndarray]:
    """Times given and recorded, about the mean of their image, of pixels with 40 photo-electrons or more."""
    rng = np.random.default_rng(2)
    light = light_of_maps(telescope.camera, maps, orientation, np.full(N, 6000.0), rng)
    recorded = CameraReadout(telescope, CameraConditions(), 1, 1, CleaningConfig()).record(light, rng)
    assert len(recorded.kept) == N
    times = [np.where(light.n_pe >= 40, own, np.nan) for own in (light.time_ns, recorded.peak_time)]
    given, found = (own - np.nanmean(own, axis=1, keepdims=True) for own in times)
    return given[np.isfinite(given)], found[np.isfinite(given)]


def test_a_time_that_is_given_scatters_no_more(telescope, orientation):
    """Photo-electrons scatter about the mean of their pixel, which stays: else they moved it by 0.15 ns and more."""
    given, found = recorded_times(telescope, orientation, blob(0.5, 0.0))
    slope = (given * found).sum() / (given**2).sum()
    assert 0.7 < slope < 0.9  # the window of the readout is that of the neighbours' pulse
    assert (found - slope * given).std() < 0.12


def test_a_gradient_is_recorded_as_it_is(telescope, orientation):
    maps = blob(0.0, 0.0)
    gradient = np.broadcast_to((np.arange(SIZE) - SIZE / 2) * 0.3, (N, SIZE, SIZE))
    given, found = recorded_times(telescope, orientation, maps._replace(time_ns=gradient))
    assert given.std() > 1
    assert (given * found).sum() / (given**2).sum() == pytest.approx(1, abs=0.05)


def test_light_scatters_by_its_concentration(telescope, orientation):
    """The variance of a pixel is its mean times 1 + N / a: large on one side of the image, nearly 1 on the other."""
    a = np.where(np.arange(SIZE) < SIZE / 2, 150.0, 1e6)
    maps = blob(0.0, 0.0)
    maps = maps._replace(spreads=maps.spreads._replace(concentration=np.broadcast_to(a, maps.share.shape)))
    frame = shower_frame(telescope.camera, SIZE)
    pixels = frame.pixels(orientation)
    mean = 3000 * frame.gather(maps.share, pixels)
    centre = frame.gather(maps.share * np.arange(SIZE), pixels) / np.maximum(frame.gather(maps.share, pixels), 1e-30)
    rng = np.random.default_rng(4)
    for own, low, high in ((centre < SIZE / 2 - 3, 15, 25), (centre > SIZE / 2 + 3, 0.9, 3)):
        own = own & (mean > 3)
        n_pe = light_of_maps(telescope.camera, maps, orientation, np.full(N, 3000.0), rng).n_pe
        assert low < np.mean((n_pe[own] - mean[own]) ** 2 / mean[own]) < high
