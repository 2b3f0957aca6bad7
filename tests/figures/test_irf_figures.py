"""Figures of instrument response functions: every bin is drawn, and those of few events can be told."""

from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest

from pipeline.figures import irf, style
from pipeline.figures.published import published_curves

OFFSETS = {"point_source": [(0.0, 1.0)], "diffuse": [(0.0, 1.25), (1.25, 2.5)]}
QUANTITIES = {
    "true_energy_tev": ("effective_area_m2", "energy_bias", "energy_resolution", "angular_resolution_deg"),
    "reco_energy_tev": ("background_rate_per_s_deg2",),
    "sensitivity": ("sensitivity_erg_per_cm2_s",),
}
EDGES = np.logspace(-1.5, 1, 11)


@pytest.fixture
def entries():
    made = {}
    for kind, offsets in OFFSETS.items():
        made[kind] = []
        for by, names in QUANTITIES.items():
            for near, far in offsets:
                for i, (low, high) in enumerate(pairwise(EDGES)):
                    value = None if i == 9 else 0.1 / (i + 1)
                    cell = {"by": by, "low": low, "high": high, "offset_low_deg": near, "offset_high_deg": far}
                    for name in names:
                        cell[name] = {"value": value, "low": value and 0.8 * value, "high": value and 1.3 * value}
                    made[kind].append(cell | {"n_background": 20 - 2 * i})
    return {"network": made}


@pytest.mark.parametrize(
    ("draw", "quantity", "rows"),
    [
        (irf.effective_area, "effective_area", 1),
        (irf.energy, "energy_resolution", 2),
        (irf.angular_resolution, "angular_resolution", 1),
        (irf.background, "background_rate", 1),
        (irf.sensitivity, "sensitivity", 1),
    ],
)
def test_every_bin_is_drawn_beside_the_published_values(entries, draw, quantity, rows):
    references = published_curves()
    figure = draw(entries, references)
    assert len(figure.axes) == 2 * rows
    for axes, labels in zip(figure.axes[-2:], (["at 0.5°"], ["0 to 1.25°", "1.25 to 2.5°"]), strict=True):
        assert [len(bars[0].get_xdata()) for bars in axes.containers] == [10] * len(labels)
        assert [text.get_text() for text in axes.get_legend().get_texts()] == labels
        assert "energy [TeV]" in axes.get_xlabel()
    assert "[" in figure.axes[-2].get_ylabel()
    published = [text.get_text() for text in figure.legends[0].get_texts()]
    assert published == [curve["name"] for curve in references if curve["quantity"] == quantity]
    figure.draw_without_rendering()


def test_the_values_are_where_they_belong(entries):
    axes = irf.sensitivity(entries, []).axes[0]
    (point_source,) = axes.containers
    np.testing.assert_allclose(point_source[0].get_ydata()[:6], 0.1 / np.arange(1, 7))
    np.testing.assert_allclose(point_source[0].get_xdata(), np.sqrt(EDGES[:-1] * EDGES[1:]))
    bar = point_source[2][0].get_segments()[0]
    np.testing.assert_allclose(bar[:, 1], [0.08, 0.13])
    (is_open,) = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
    assert np.isnan(point_source[0].get_ydata()[6:]).all()
    np.testing.assert_allclose(is_open.get_ydata()[:3], 0.1 / np.arange(7, 10))  # with 8, 6, 4 background events
    assert is_open.get_markeredgecolor() == point_source[0].get_color()


def test_a_baseline_is_drawn_in_its_colour_at_the_innermost_offset(entries):
    both = entries | {"forest": entries["network"]}
    figure = irf.sensitivity(both, [])
    for axes, n_offsets, label in zip(figure.axes, (1, 2), ("at 0.5°", "0 to 1.25°"), strict=True):
        *_, forest = axes.containers
        assert len(axes.containers) == n_offsets + 1
        assert (forest.get_label(), forest[0].get_color()) == (f"forest, {label}", style.COLORS["forest"])
        texts = [text.get_text() for text in axes.get_legend().get_texts()]
        assert (texts[0], texts[-1]) == (f"network, {label}", f"forest, {label}")
        others = {mpl.colors.to_hex(bars[0].get_color()) for bars in axes.containers[:-1]}
        assert len(others | {style.COLORS["forest"].lower()}) == n_offsets + 1
    without = irf.sensitivity(entries | {"forest": {"diffuse": entries["network"]["diffuse"]}}, [])
    assert [len(axes.containers) for axes in without.axes] == [1, 3]


def test_one_kind_of_gammas_has_one_column(entries):
    assert len(irf.energy({"network": {"diffuse": entries["network"]["diffuse"]}}, []).axes) == 2


def test_references_say_number_unit_and_source():
    for curve in published_curves():
        assert curve.keys() == {"key", "name", "quantity", "unit", "source", "points"}
        assert "arXiv" in curve["source"] or "http" in curve["source"] or "www" in curve["source"]
        energy = [point[0] for point in curve["points"]]
        assert energy == sorted(energy)
    required = {(c["name"], c["quantity"]): dict(c["points"]) for c in published_curves()}
    name = "CTAO requirement, four LSTs"
    assert required[name, "angular_resolution"][0.1] == 0.129
    assert required[name, "energy_resolution"][0.1] == 0.2158
    assert required[name, "sensitivity"][0.1] == 2.345e-12
