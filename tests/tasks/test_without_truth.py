"""Restored frames judged without a truth: the figures of frames whose truth is known after all."""

import numpy as np
import pytest

from pipeline.config import EvaluateConfig
from pipeline.sky.dq import DQ_DTYPE
from pipeline.tasks.denoise.scores import JudgedFrame, Pair
from pipeline.tasks.denoise.unaided import evaluate_unaided
from pipeline.tasks.denoise.without_truth import check, scatter_over_exposures

SIZE, LEVEL, NOISE = 160, 100.0, 10.0
KEPT = 0.98  # of the light above the background


def field(rng, n_stars=25):
    y, x = np.mgrid[:SIZE, :SIZE]
    clean = np.full((SIZE, SIZE), LEVEL)
    for x0, y0 in rng.uniform(10, SIZE - 10, (n_stars, 2)):
        clean += rng.uniform(3e3, 3e4) / (2 * np.pi * 1.5**2) * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / 2 / 1.5**2)
    return clean


def exposure(clean, rng):
    return (clean + rng.normal(0, NOISE, clean.shape)).astype(np.float32)


def judged(clean, rng, restored, n_partners=3, name="one", registration=None):
    """A frame whose network gives `restored(sci)`."""
    sci = exposure(clean, rng)
    pairs = [Pair(0, 0, exposure(clean, rng)) for _ in range(n_partners)]
    planes = {"network": restored(sci), "noisy": sci}
    return JudgedFrame(
        name=name,
        sci=sci,
        err=np.full(sci.shape, NOISE, np.float32),
        dq=np.zeros(sci.shape, DQ_DTYPE),
        level=LEVEL,
        noise=NOISE,
        unit="electron",
        clean=np.full(sci.shape, np.nan),
        pairs=pairs,
        restored=planes,
        restored_err=np.full(sci.shape, NOISE / 3),
        painted=np.zeros(sci.shape, bool),
        registration=registration or {},
    )


def checked(frame, restored):
    return check(frame, lambda sci, err: {"network": restored(sci), "noisy": sci}, seed=1)


@pytest.fixture
def perfect(rng):
    """What gives a frame its truth back, and what is added to it in full."""
    clean = field(rng)
    seen = []

    def restored(sci):
        seen.append(sci)
        return (clean + (sci - seen[0])).astype(np.float32)

    return clean, restored


def test_the_error_without_a_truth_is_the_error(perfect, rng):
    clean, restored = perfect
    frame = judged(clean, rng, restored)
    numbers = checked(frame, restored).per_method
    error = {method: numbers[method]["sky_error"] / numbers[method]["n_sky_error"] for method in numbers}
    assert error["noisy"] == pytest.approx(1, abs=0.03)
    assert error["network"] == pytest.approx(0, abs=0.03)
    halfway = judged(clean, rng, lambda sci: (0.5 * (clean + sci)).astype(np.float32))
    half = checked(halfway, lambda sci: sci).per_method["network"]
    assert half["error"] / half["n_error"] == pytest.approx(0.25, abs=0.03)


def test_two_exposures_give_no_error(perfect, rng):
    clean, restored = perfect
    numbers = checked(judged(clean, rng, restored, n_partners=2), restored).per_method
    assert numbers["noisy"]["n_error"] == 0


def test_what_was_taken_away_is_noise_or_is_not(perfect, rng):
    clean, restored = perfect
    good = checked(judged(clean, rng, restored), restored).per_method["network"]
    assert good["residual_width"] == pytest.approx(1, abs=0.03)
    assert max(abs(good[f"residual_correlation_{lag}"]) for lag in (1, 2, 3)) < 0.02
    assert abs(good["residual_on_sources"]) < 0.15

    def eats(sci):
        return LEVEL + 0.8 * (clean - LEVEL)

    bad = checked(judged(clean, rng, eats), eats).per_method["network"]
    assert bad["residual_on_sources"] > 1
    untouched = checked(judged(clean, rng, restored), restored).per_method["noisy"]
    assert np.isnan(untouched["residual_width"])


def test_added_stars_show_the_light_that_is_lost(rng):
    clean = field(rng, 5)

    def dims(sci):
        return (LEVEL + KEPT * (sci - LEVEL)).astype(np.float32)

    responses = checked(judged(clean, rng, dims), dims).injected
    assert len(responses["network"]) > 10
    assert set(responses) == {"snr", "network"}
    assert np.allclose(responses["network"], KEPT - 1, atol=1e-3)


def test_scatter_over_exposures_is_that_of_the_stars(rng):
    clean = field(rng, 40)
    frames = []
    for number in range(8):
        registration = {"placed": True, "matrix": np.eye(2), "offset_px": [0.0, 0.0]}
        scale = 1 + 0.05 * number  # a cloud that all stars share
        sky = LEVEL + scale * (clean - LEVEL)
        frame = judged(
            sky, rng, lambda sci, sky=sky: sky.astype(np.float32), name=str(number), registration=registration
        )
        frames.append(checked(frame, lambda sci: sci))
    scatter = scatter_over_exposures(frames)
    assert len(scatter["snr"]) > 10
    photon = 1.0857 / scatter["snr"]
    assert np.median(scatter["noisy"] / photon) == pytest.approx(1, abs=0.25)
    assert np.median(scatter["network"]) < 0.3 * np.median(scatter["noisy"])
    assert scatter_over_exposures(frames[:3]) == {}


def test_figures_of_merit_have_intervals(rng):
    clean = field(rng)
    truth = clean.astype(np.float32)
    frames = [checked(judged(clean, rng, lambda _: truth, name=str(n)), lambda sci: sci) for n in range(3)]
    result = evaluate_unaided(frames, EvaluateConfig(bootstrap=50), seed=0)
    metrics = result.content["metrics"]
    assert set(metrics) == {
        "umse_sigma2", "umse_sky_sigma2", "residual_width", "residual_correlation_1", "residual_correlation_2",
        "residual_correlation_3", "residual_on_sources", "injected_bias",
    }  # fmt: skip
    assert result.content["differences"]["noisy"]["umse_sky_sigma2"]["high"] < 0
    assert {bin_.by for bin_ in result.bins} == {"injected_snr"}
    assert [figure.file for figure in result.figures] == ["injected_stars.png"]
    assert len(result.tables["without_truth"]) == 6
