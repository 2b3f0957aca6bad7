"""Numbers of responses whose right values are known."""

import math

import numpy as np
import pytest

from pipeline.camera.irf.events import Events
from pipeline.camera.irf.inputs import Prefixes, Thrown, quality_criteria
from pipeline.camera.irf.responses import joined
from pipeline.camera.irf.settings import bins_of
from pipeline.camera.irf.summary import _interval, quantity, relative_error
from pipeline.config import IrfConfig
from pipeline.errors import UserError

GAMMAS = Thrown("gamma", 0.02, 10.0, -2.0, 350.0, 2.5, 0.0)


def events(showers, weight):
    n = len(showers)
    mask = np.ones(n, bool)
    numbers = [np.arange(n, dtype=float) for _ in range(5)]
    return Events(*numbers, np.full(n, weight), np.array(showers), 10 * n, mask, mask)


def test_errors_are_those_of_showers():
    one, three = np.ones(4), np.array([3.0, 1.0, 1.0, 1.0])
    assert relative_error(one, np.arange(4)) == pytest.approx(1 / math.sqrt(4))
    assert relative_error(one, np.array([7, 7, 2, 2])) == pytest.approx(1 / math.sqrt(2))
    assert relative_error(three, np.array([0, 1, 1, 2])) == pytest.approx(math.sqrt(9 + 4 + 1) / 6)
    assert math.isnan(relative_error(np.empty(0), np.empty(0, int)))


def test_particles_have_no_shower_in_common():
    both = joined([events([0, 0, 1], 2.0), events([0, 1], 5.0)])
    assert both.shower.tolist() == [0, 0, 1, 2, 3]
    assert both.weight.tolist() == [2, 2, 2, 5, 5]
    assert both.n_thrown == 50


def test_what_is_not_finite_is_none():
    assert quantity(1 / 3, 0.0, math.inf, 4) == {"value": 0.333333, "low": 0.0, "high": None, "n": 4}


def test_the_interval_of_a_sensitivity():
    pytest.importorskip("pyirf")
    # Far from few events: proportional to sqrt(background) / signal, or to the background where 5 % of it decide.
    value = _interval(1000.0, 1000.0, 0.0, 0.0)
    assert value[0] == value[1]
    low, high = _interval(1000.0, 1000.0, 0.1, 0.0)
    assert (low / value[0], high / value[0]) == pytest.approx((1 / 1.196, 1 / 0.804), rel=1e-3)
    low, high = _interval(1000.0, 1000.0, 0.0, 0.1)
    assert (low / value[0], high / value[0]) == pytest.approx((math.sqrt(0.804), math.sqrt(1.196)), rel=0.03)
    low, high = _interval(1000.0, 1e7, 0.0, 0.1)
    assert (low, high) == pytest.approx((100 * 0.804, 100 * 1.196), rel=1e-3)
    assert all(math.isnan(limit) for limit in _interval(1000.0, 0.0, 0.1, math.nan))


def test_bins_stay_within_what_was_thrown():
    bins = bins_of(IrfConfig(offset_bins=5), GAMMAS, [])
    assert (bins.true_edges_tev[0], bins.true_edges_tev[-1]) == pytest.approx((0.02, 10.0))
    assert bins.offset_edges_deg.tolist() == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    with pytest.raises(
        UserError, match=r"energy bins from 0\.02 to 20 TeV, but gammas were thrown from 0\.02 to 10 TeV"
    ):
        bins_of(IrfConfig(energy_max_tev=20.0), GAMMAS, [])
    narrow = Thrown("proton", 0.06, 30.0, -2.0, 450.0, 2.0, 0.0)
    with pytest.raises(UserError, match=r"protons were thrown within 2 deg of the pointing, .* end at 2\.5 deg"):
        bins_of(IrfConfig(), GAMMAS, [narrow])
    on_axis = bins_of(IrfConfig(), Thrown("gamma", 0.02, 10.0, -2.0, 350.0, 0.0, 0.0), [])
    assert on_axis.offset_edges_deg.tolist() == [0.0, 1.0]


def test_columns_of_other_prefixes_are_no_criteria():
    columns = ["lp_is_valid", "lp_2_is_valid", "lp_tels_used", "lp_is_valid_uncert", "tels_with_trigger"]
    criteria = quality_criteria(columns, Prefixes("lp", "lp", "lp"), 3)
    assert [expression for _, expression in criteria] == [
        "np.isfinite(lp_energy)", "np.isfinite(lp_prediction)", "np.isfinite(lp_alt)",
        "lp_is_valid", "np.count_nonzero(lp_tels_used, axis=1) >= 3",
    ]  # fmt: skip
