"""How far a frame is from those of training, and what is said of it."""

import numpy as np
import pytest
from populations import population
from pydantic import ValidationError

from pipeline.inputs.population import QUANTITIES, Population, TrainedRange

FWHM = population(n_frames=60, fwhm_px=(2.4, 4.9))


def test_a_frame_within_the_range_is_like_training():
    for fwhm_px in (2.32, 3.0, 4.9, 5.1):  # also within the errors of measurement
        found = FWHM.compare({"fwhm_px": fwhm_px})
        assert found.score <= 1
        assert found[1:] == ((), "", "")


@pytest.mark.parametrize(
    ("fwhm_px", "text", "short"),
    [
        (1.6, "FWHM of the stars 1.6 px (2.4 to 4.9)", "FWHM 1.6, trained > 2.4"),
        (7.0, "FWHM of the stars 7 px (2.4 to 4.9)", "FWHM 7, trained < 4.9"),
    ],
)
def test_a_frame_outside_is_named(fwhm_px, text, short):
    found = FWHM.compare({"fwhm_px": fwhm_px})
    assert found.score > 1
    assert found[1:] == (("fwhm_px",), text, short)


def test_a_margin_beyond_the_range_is_three_standard_deviations():
    margin = 2.5 / 59 + 0.05 * 4.9
    unit = np.hypot(2.5 / np.sqrt(12), margin / 3)
    expected = ((4.9 - 3.65) / unit + 3 * (6.0 - 4.9) / margin) / (3 + np.sqrt(3))
    assert FWHM.compare({"fwhm_px": 6.0}).score == pytest.approx(expected, rel=1e-3)


def test_what_does_no_harm_or_is_unknown_does_not_count():
    round_stars = population(ellipticity=(0.3, 0.4))
    assert round_stars.compare({"ellipticity": 0.0}).score == 0
    assert round_stars.compare({"ellipticity": 0.9}).score > 1
    assert FWHM.compare({"fwhm_px": None}).score == 0
    assert FWHM.compare({"gradient": 1e9}).score == 0


def test_few_frames_leave_a_wide_margin():
    few, many = (population(n_frames=n, fwhm_px=(2.4, 4.9)).compare({"fwhm_px": 1.9}).score for n in (5, 50))
    assert few < 1 < many


def test_several_reasons_fit_a_card():
    ranges = {quantity.name: (0.1, 0.2) for quantity in QUANTITIES}
    found = population(**ranges).compare(dict.fromkeys(ranges, 1e5))
    assert len(found.outside) == len(QUANTITIES)
    assert len(found.short) <= 68
    assert "; " in found.short
    assert found.text.count("(0.1 to 0.2)") == len(QUANTITIES)


def test_a_combination_that_training_never_had(rng):
    """Both noise correlations went together; each alone is as usual."""
    common = rng.uniform(0.0, 1.0, 200)
    frames = [{"noise_correlation_x": x, "noise_correlation_y": x} for x in common]
    fitted = Population.fit(frames[:150], frames[150:])
    assert all(fitted.compare(frame).score <= 1 for frame in frames)
    found = fitted.compare({"noise_correlation_x": 0.9, "noise_correlation_y": 0.1})
    assert found.score > 1
    assert found.outside == ()
    assert found.text.endswith("together")
    assert "lag-1 x 0.9" in found.short
    assert " with " in found.short


def test_scores_of_validation_frames(rng):
    """One in two hundred is beyond the limit, if they are like those of training; 16 quantities, heavy tails."""
    names = [quantity.name for quantity in QUANTITIES]
    draw = [dict(zip(names, row, strict=True)) for row in rng.standard_t(4, (3000, len(names))) + 8]
    fitted = Population.fit(draw[:500], draw[500:1500])
    beyond = np.mean([fitted.compare(frame).score > 1 for frame in draw[1500:]])
    assert beyond < 0.012


def test_a_few_odd_frames_do_not_hide_what_is_unlike(rng):
    """The limit was theirs: frames whose noise is ten times the stated one; stars far too sharp were then alike."""
    draw = rng.uniform((2, 0.9), (5, 1.1), (400, 2))
    frames = [dict(zip(("fwhm_px", "noise_over_err"), row, strict=True)) for row in draw.tolist()]
    for frame, ratio in zip(frames[::80], (5.0, 6.0, 8.0, 9.0, 12.0), strict=True):
        frame["noise_over_err"] = ratio
    fitted = Population.fit(frames[:300], frames[300:])
    assert fitted.limit < 10
    assert fitted.compare({"fwhm_px": 1.2, "noise_over_err": 1.0}).outside == ("fwhm_px",)
    assert fitted.compare({"fwhm_px": 3.0, "noise_over_err": 8.0}).score < 1


def test_fewer_frames_than_numbers_have_no_correlations(rng):
    names = [quantity.name for quantity in QUANTITIES]
    fitted = Population.fit([dict(zip(names, row, strict=True)) for row in rng.normal(8, 1, (12, len(names)))])
    off_diagonal = np.array(fitted.covariance)[~np.eye(len(names), dtype=bool)]
    assert not off_diagonal.any()
    assert Population.fit([]) is None


def test_cards_that_contradict_themselves():
    content = FWHM.model_dump()
    for wrong in ({"covariance": ((1.0, 0.0), (0.0, 1.0))}, {"n_frames": 3}, {"limit": 0.0}):
        with pytest.raises(ValidationError, match="are no population"):
            Population.model_validate(content | wrong)
    with pytest.raises(ValidationError, match="unknown quantity: colour"):
        TrainedRange(name="colour", mean=0, low=0, high=1)
