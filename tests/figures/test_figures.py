import itertools

import numpy as np
import pytest

from pipeline import statistics
from pipeline.figures import classification, comparison, denoise, energy, style
from pipeline.statistics import Estimate

EDGES_TEV = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 10.0)
UNDEFINED = Estimate(np.nan, np.nan, np.nan)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def series(rng, edges, level, better=0.05):
    pairs = list(itertools.pairwise(edges))

    def estimates(values, width):
        return [Estimate(v, v - width, v + width) for v in values]

    network = level + 0.02 * rng.normal(size=len(pairs))
    methods = {"network": estimates(network, 0.02), "forest": estimates(network - better, 0.02)}
    methods["forest"][-1] = UNDEFINED
    return comparison.Series(pairs, methods, {"forest": estimates(np.full(len(pairs), better), 0.01)})


def roc_panel(rng, n=2000):
    labels = rng.random(n) < 0.5
    curves = {}
    for method, strength in (("network", 1.6), ("forest", 1.3)):
        scores = rng.normal(labels * strength, 1.0)
        background, signal = statistics.roc_curve(scores, labels, np.ones(n))
        auc = float(statistics.auc(scores, labels, np.ones(n)))
        grid = np.linspace(0, 1, 100)
        middle = np.interp(grid, background, signal)
        area = Estimate(auc, auc - 0.01, auc + 0.01)
        curves[method] = classification.RocCurve(grid, middle, area, middle - 0.015, middle + 0.015)
    return curves


def samples(rng, n=1500):
    ones = np.ones(n)
    return {
        "network": classification.GammanessSample(rng.beta(4, 1.5, n), ones, rng.beta(1.5, 4, n), ones),
        "forest": classification.GammanessSample(rng.beta(3, 1.5, n), ones, rng.beta(1.5, 3, n), ones),
    }


def cutout(rng, truth=True):
    y, x = np.mgrid[:48, :48]
    sky = 200 + 4000 * np.exp(-((x - 20) ** 2 + (y - 25) ** 2) / 8)
    before = sky + rng.normal(0, 12, sky.shape)
    before[30, 5:40] += 800
    before[:6, :6] = np.nan
    return denoise.Cutout("field 3", before, sky + rng.normal(0, 3, sky.shape), sky if truth else None, 200, 12)


def roc_single(rng):
    return classification.roc([("all images", roc_panel(rng))])


def roc_bands(rng):
    panels = [(f"{low:g} to {high:g} TeV", roc_panel(rng)) for low, high in itertools.pairwise(EDGES_TEV)]
    panels[-1] = (panels[-1][0], {})
    return classification.roc(panels)


def distributions(rng):
    return classification.gammaness_distributions(
        [("all images", samples(rng)), ("size > 200 p.e.", samples(rng)), ("empty", {})]
    )


def distribution_single(rng):
    return classification.gammaness_distributions([("all images", samples(rng))])


def energy_bins(rng):
    return comparison.in_energy_bins(
        [
            ("bias: median of E$_{reco}$/E$_{true}$ − 1", series(rng, EDGES_TEV, 0.0)),
            ("resolution: 68 % containment", series(rng, EDGES_TEV, 0.35)),
        ],
        reference={0: 0.0},
    )


def thresholds(rng):
    pairs = [(50.0, np.inf), (100.0, np.inf), (200.0, np.inf), (500.0, np.inf)]
    base = series(rng, (1, 2, 3, 4, 5), 0.9)
    return comparison.by_threshold("AUC", "image size [p.e.]", comparison.Series(pairs, base.methods, base.differences))


def multiplicities(rng):
    base = series(rng, (2, 3, 4, 5), 0.2)
    counted = comparison.Series([(2, 2), (3, 3), (4, np.inf)], base.methods, base.differences, ["2", "3", "4 or more"])
    return comparison.in_multiplicity_bins([("68 % containment [deg]", counted), ("AUC", counted)])


def migration(rng):
    true = 10 ** rng.uniform(-1.3, 1, 4000)
    matrices = {}
    for method, spread in (("network", 0.12), ("forest", 0.16)):
        reco = true * 10 ** rng.normal(0, spread, 4000)
        matrices[method], _ = statistics.migration_matrix(true, reco, np.ones(4000), EDGES_TEV)
    matrices["forest"][-1] = np.nan
    return energy.migration(matrices, EDGES_TEV)


def residuals(rng):
    true = 10 ** rng.uniform(-1.3, 1, 4000)
    reco = {"network": true * 10 ** rng.normal(0, 0.15, 4000), "forest": true * 10 ** rng.normal(0.05, 0.2, 4000)}
    return energy.energy_residuals(true, reco, np.ones(4000))


def restored(rng):
    return denoise.cutouts([cutout(rng), cutout(rng)])


def restored_without_truth(rng):
    return denoise.cutouts([cutout(rng, truth=False)])


def taken_away(rng):
    return denoise.before_and_after([cutout(rng), cutout(rng)])


def flux(rng):
    magnitude = rng.uniform(-16, -8, 400)
    scatter = 10 ** (0.2 * (magnitude + 8)) * 0.03
    errors = {
        m: rng.normal(b, scatter * k)
        for m, b, k in (("network", 0.001, 1), ("noisy", 0, 1.5), ("astroscrappy_median", -0.05, 1.5))
    }
    edges = np.arange(-16.0, -7.0)
    pairs = list(itertools.pairwise(edges))
    methods = {
        m: [Estimate(float(np.median(e[(magnitude >= a) & (magnitude < b)])), -0.01, 0.01) for a, b in pairs]
        for m, e in errors.items()
    }
    return denoise.flux_bias(
        magnitude, errors, comparison.Series(pairs, methods), magnitude_label="instrumental magnitude"
    )


def pulls(rng):
    return denoise.pull(rng.normal(0.1, 1.2, 50_000), width=1.2, median=0.1)


FIGURES = {f.__name__: f for f in (
    roc_single, roc_bands, distributions, distribution_single, energy_bins, thresholds, multiplicities, migration,
    residuals, restored, restored_without_truth, taken_away, flux, pulls,
)}  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_drawn_with_labels(name, rng, tmp_path):
    figure = FIGURES[name](rng)
    path = style.save_figure(figure, tmp_path / f"{name}.png")
    assert path.stat().st_size > 10_000
    image_panels = {"restored", "restored_without_truth", "taken_away"}
    labelled = [axes for axes in figure.axes if axes.get_visible() and (axes.get_xlabel() or axes.get_ylabel())]
    assert labelled or name in image_panels


def test_equal_figures_give_equal_bytes(tmp_path):
    paths = [style.save_figure(migration(np.random.default_rng(1)), tmp_path / f"{i}.png") for i in (1, 2)]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_the_users_own_settings_do_not_leak_in(rng):
    import matplotlib as mpl

    with mpl.rc_context({"font.size": 40, "axes.facecolor": "black"}):
        figure = roc_single(rng)
        assert mpl.rcParams["font.size"] == 40
    assert figure.axes[0].get_facecolor() == (1, 1, 1, 1)


def test_a_method_keeps_its_colour():
    assert len({style.color("network"), style.color("forest"), style.color("noisy")}) == 3
    assert style.color("something new") == "0.4"
    assert style.label("something_new") == "something new"


def test_a_published_curve_ends_with_the_bins(rng):
    curve = {"name": "published", "points": [[0.01, 9.0], [EDGES_TEV[0], 0.3], [0.5, 0.2], [500.0, 9.0]]}
    one = curve | {"points": [[0.01, 9.0], [0.5, 0.2]]}
    bins = series(rng, EDGES_TEV, 0.25)
    figure = comparison.in_energy_bins([("a", bins), ("b", bins), ("c", bins)], published={0: curve, 1: one, 2: None})
    drawn = [
        [line for line in axes.lines if line.get_label() == "published"] for axes in figure.axes[::2]
    ]  # every second one holds differences
    (line,), (point,), nothing = drawn
    np.testing.assert_allclose(line.get_xydata(), [[EDGES_TEV[0], 0.3], [0.5, 0.2]])
    assert point.get_marker() == "x"
    assert not nothing
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["network", "forest on Hillas parameters", "published"]  # once, though two panels have it


def test_multiplicities_have_names(rng):
    axes = FIGURES["multiplicities"](rng).axes
    assert [text.get_text() for text in axes[-1].get_xticklabels()] == ["2", "3", "4 or more"]
    assert axes[-1].get_xlim() == (-0.5, 2.5)
