import numpy as np
import pytest

from pipeline.sky.baselines import GRID, Settings, astroscrappy_median, psnr_db, tune
from pipeline.sky.dq import DQ
from pipeline.sky.frames import read_frame
from pipeline.sky.photometry import aperture_photometry, detect_stars, isolated, measure_fwhm
from pipeline.sky.truth import read_truth, truth_path

SIGMA_PX = 1.5
FWHM_PX = 2.3548 * SIGMA_PX


@pytest.fixture
def stars(rng):
    """Image, positions and fluxes of Gaussian stars on a sky with a gradient."""
    y, x = np.mgrid[:200, :240]
    x0, y0 = (grid.ravel() + rng.uniform(-3, 3, grid.size) for grid in np.meshgrid([40, 90, 140, 190], [40, 100, 160]))
    flux = np.geomspace(2e3, 2e5, x0.size)
    image = 100 + 0.05 * x
    for fx, fy, f in zip(x0, y0, flux, strict=True):
        image = image + f * np.exp(-((x - fx) ** 2 + (y - fy) ** 2) / 2 / SIGMA_PX**2) / (2 * np.pi * SIGMA_PX**2)
    return image, x0, y0, flux


def test_aperture_fluxes(stars):
    image, x, y, flux = stars
    found = aperture_photometry(image, x, y, FWHM_PX)
    inside = 1 - np.exp(-((1.5 * FWHM_PX) ** 2) / 2 / SIGMA_PX**2)
    assert np.allclose(found.flux, flux * inside, rtol=2e-3)
    assert np.allclose(found.background, 100 + 0.05 * x, atol=0.3)
    assert found.clear.all()


def test_aperture_errors_are_those_of_repeated_frames(stars, rng):
    image, x, y, _ = stars
    err = np.sqrt(image)
    fluxes = [aperture_photometry(rng.poisson(image), x, y, FWHM_PX, err=err) for _ in range(50)]
    scatter = np.std([entry.flux for entry in fluxes], axis=0)
    assert np.allclose(scatter, fluxes[0].flux_err, rtol=5 / np.sqrt(2 * 50))


def test_excluded_pixels_and_edges_are_unclear(stars):
    image, x, y, _ = stars
    image = image.copy()
    image[round(y[3]), round(x[3])] = np.nan
    found = aperture_photometry(image, np.append(x, 1.0), np.append(y, 50.0), FWHM_PX)
    assert np.flatnonzero(~found.clear).tolist() == [3, x.size]
    empty = aperture_photometry(image, np.empty(0), np.empty(0), FWHM_PX)
    assert empty.flux.size == 0


def test_detection_finds_them_brightest_first(stars, rng):
    image, x, y, flux = stars
    found = detect_stars(image + rng.normal(0, 10, image.shape), 106, 10.5, FWHM_PX)
    order = np.argsort(-flux)
    assert found["x"].size == flux.size
    assert np.allclose(found["x"], x[order], atol=0.3)
    assert np.allclose(found["y"], y[order], atol=0.3)
    assert detect_stars(np.full((50, 50), 5.0), 5.0, 1.0)["x"].size == 0


def test_fwhm_is_measured(stars):
    image, x, y, _ = stars
    assert measure_fwhm(image, x, y, 106) == pytest.approx(FWHM_PX, rel=0.05)
    assert measure_fwhm(image, x[:1], y[:1], 106, default_px=4.5) == pytest.approx(4.5)


def test_isolation():
    x, y = np.array([0.0, 3.0, 50.0]), np.zeros(3)
    assert isolated(x, y, np.array([100.0, 1.0, 100.0]), 10.0).tolist() == [True, False, True]
    assert isolated(x[:1], y[:1], np.ones(1), 10.0).tolist() == [True]


# ---- baseline --------------------------------------------------------------------------------------------------------
def test_baseline_removes_cosmic_rays_and_fills_holes(ingested):
    frame, truth = read_frame(ingested), read_truth(truth_path(ingested))
    restored, defects = astroscrappy_median(frame.sci, frame.err, frame.dq, Settings(median_px=1))
    rays = (truth.dq & DQ.COSMIC_RAY) != 0
    missing = (truth.dq & DQ.MISSING) != 0
    assert np.isfinite(restored).all()
    assert defects[rays & ~missing].mean() > 0.5
    assert defects[truth.dq == 0].mean() < 0.01
    raw_error = np.abs(frame.sci - truth.clean_e)[rays & ~missing].mean()
    assert np.abs(restored - truth.clean_e)[rays & ~missing].mean() < 0.5 * raw_error
    assert np.abs(restored - truth.clean_e)[missing].mean() < 10 * frame.noise


def test_tuning_takes_the_best(ingested):
    frame, truth = read_frame(ingested), read_truth(truth_path(ingested))
    item = (frame.sci, frame.err, frame.dq)
    grid = (Settings(), Settings(median_px=1), Settings(sigclip=1000.0, median_px=5))
    best, score = tune([item], [truth.clean_e], grid)
    assert best in grid
    assert score == pytest.approx(max(psnr_db(astroscrappy_median(*item, s)[0], truth.clean_e) for s in grid))
    assert set(GRID[0].as_dict()) == {"sigclip", "objlim", "median_px"}
    with pytest.raises(ValueError, match="at least one frame"):
        tune([], [])


def test_psnr():
    truth = np.array([[0.0, 10.0], [5.0, np.nan]])
    assert psnr_db(truth + 1, truth) == pytest.approx(20)
    assert psnr_db(truth, truth) == np.inf
    assert psnr_db(truth + np.array([[0, 3], [0, 0]]), truth, keep=np.array([[True, False], [True, True]])) == np.inf
