"""Thresholds for a rate of false alarms."""

import numpy as np
import pytest
from tiny_bundles import head_section

from pipeline.bundle.false_alarms import RATES, SCORES, FalseAlarms
from pipeline.bundle.rates import thresholds_of
from pipeline.errors import UserError


def counted(scores):
    return np.histogram(scores, SCORES)[0]


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(2)
    return FalseAlarms.fit(
        {
            "sky": counted(rng.normal(-6, 2, 1_000_000)),
            "source": counted(rng.normal(-3, 2, 100_000)),
            "core": counted(rng.normal(-3, 2, 6_000)),
        }
    )


def test_thresholds_flag_the_share_that_they_promise(table):
    from scipy.stats import norm

    sky = table.strata["sky"]
    assert sky.n_good == 1_000_000
    for rate, threshold in zip(RATES, sky.thresholds, strict=False):
        above = norm.sf(threshold, -6, 2)
        assert above == pytest.approx(rate, rel=4 / np.sqrt(rate * 1e6))
    # Between two rates by the logarithm.
    assert sky.thresholds[3] < sky.threshold(7e-4) < sky.thresholds[4]
    assert sky.threshold(RATES[3]) == sky.thresholds[3]


def test_a_rate_needs_enough_good_pixels(table):
    lowest = {name: stratum.lowest for name, stratum in table.strata.items()}
    assert lowest == pytest.approx({"sky": 5e-6, "source": 5e-5, "core": 5e-4})  # three false alarms expected
    few = FalseAlarms.fit({"sky": counted(np.zeros(299))}).strata["sky"]
    assert (few.thresholds, few.lowest) == ((), np.inf)


def head_with(table):
    return head_section("defects").model_copy(update={"false_alarms": table})


def test_the_default_falls_back_with_a_warning_and_a_wish_is_refused(table):
    found, (warning,) = thresholds_of("net", [head_with(table)])
    assert found["defects"]["sky"] == table.strata["sky"].threshold(5e-4)
    assert found["defects"]["core"] == table.strata["core"].thresholds[-1]
    assert warning == (
        "a false-alarm rate of 0.0001 on good pixels of the kind core cannot be promised: net was validated on 6,000 "
        "of these, and the rate there may be higher"
    )
    found, warnings = thresholds_of("net", [head_with(table)], 5e-3)
    assert warnings == ()
    assert found["defects"]["core"] == table.strata["core"].threshold(1e-3)
    for rate, message in (
        (1e-3, r"rate of 0\.0002 on good pixels of the kind core .* on 6,000 of these, enough for 0\.0005 to 0\.01"),
        (0.1, r"a false-alarm rate of 0\.1 on good pixels of the kind sky cannot be promised: .* to 0\.01; give anot"),
    ):
        with pytest.raises(UserError, match=message):
            thresholds_of("net", [head_with(table)], rate)


def test_what_no_source_can_be_is_judged_as_sky_at_a_lower_rate(table):
    head = head_section("denoise").model_copy(update={"false_alarms": table})
    found, warnings = thresholds_of("net", [head])
    assert warnings == ()
    assert found["denoise"]["sky"] == table.strata["sky"].threshold(1e-4)
    assert found["denoise"]["no_source"] == pytest.approx(table.strata["sky"].threshold(1e-5))
    assert found["denoise"]["sky"] < found["denoise"]["no_source"] < found["denoise"]["core"]


def test_a_card_without_a_table_says_so():
    found, (warning,) = thresholds_of("net", [head_section("defects")])
    assert found == {}
    assert "no table of false-alarm rates" in warning
    with pytest.raises(UserError, match="the card of net has no table of false-alarm rates; leave the rate out"):
        thresholds_of("net", [head_section("defects")], 1e-3)
    with pytest.raises(UserError, match="for models with a head defects, and net has denoise; leave it out"):
        thresholds_of("net", [head_section("denoise")], 1e-3)
    assert thresholds_of("net", [head_section("denoise")]) == ({}, ())


def test_a_stratum_without_enough_pixels_takes_the_strictest_threshold(table):
    strata = {name: table.strata[name] for name in ("sky", "source")}
    found, untold = FalseAlarms(strata=strata).thresholds({"sky": 5e-4, "source": 5e-4, "core": 1e-4})
    assert untold == {"core": np.inf}
    assert found["core"] == found["source"] > found["sky"]


def test_thresholds_that_fall_are_refused():
    content = {"strata": {"sky": {"n_good": 5, "thresholds": [1.0, 0.5]}}}
    with pytest.raises(ValueError, match="thresholds of falling rates do not rise"):
        FalseAlarms.model_validate(content)
