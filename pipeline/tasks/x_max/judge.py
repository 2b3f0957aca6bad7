"""Depth of the maximum of gammas: resolution and bias, per energy and offset."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline import statistics
from pipeline.camera.baselines import Estimand
from pipeline.config import Config
from pipeline.evaluation.comparison import Metric
from pipeline.evaluation.gammas import Gammas
from pipeline.evaluation.result import CaptionedFigure, Predicts, Result, bins_table, series_of
from pipeline.evaluation.showers import camera_sample
from pipeline.evaluation.wording import by_multiplicity, minus_baselines
from pipeline.figures import comparison
from pipeline.tasks.x_max.decode import DECODER
from pipeline.tasks.x_max.spec import SPEC

_X_MAX = "x_max_g_cm2"
ESTIMANDS = {_X_MAX: Estimand(lambda events: events["true_x_max_g_cm2"], columns=("true_x_max_g_cm2",))}
METRICS = (
    Metric("x_max_resolution_g_cm2", "lower", lambda error, weights: statistics.containment(error, weights, 0.68)),
    Metric("x_max_bias_g_cm2", "lower", lambda error, weights: statistics.median(error, weights), absolute=True),
)
_QUANTITIES = (
    ("bias: median error [g/cm²]", "x_max_bias_g_cm2"),
    ("resolution: 68 % containment [g/cm²]", "x_max_resolution_g_cm2"),
)


def judge(predictor: Predicts, manifests: Sequence[Any], cfg: Config) -> Result:
    """Compare network and baselines on the gammas of the test split.

    Raises
    ------
    UserError
        If the tiles carry no truth, or a split has too few images or events.
    """
    items = camera_sample(SPEC, ESTIMANDS, predictor, manifests, cfg)
    gammas, truth = Gammas.of(items.events), items.events["true_x_max_g_cm2"]
    reco = items.methods(_X_MAX, lambda columns: columns["reco_x_max_g_cm2"])
    errors = {method: values - truth for method, values in reco.items()}
    compared = gammas.compare(METRICS, errors, cfg.evaluate, seed=cfg.seed)
    pulls = DECODER.pulls(items.predicted, items.events)
    figure = comparison.in_energy_bins(
        [(text, series_of(compared.by_energy, name)) for text, name in _QUANTITIES], reference={0: 0.0}
    )
    result = Result(
        content=compared.overall.to_json() | {"calibration": gammas.calibration(pulls, cfg.evaluate)},
        bins=compared.bins,
        tables={"bins": bins_table(compared.bins)},
        figures=[
            CaptionedFigure(
                "x_max_performance.png",
                "Depth of the maximum against true energy",
                f"Left: median of reconstructed minus true depth (0 is best). Right: the error that 68 % of the "
                f"{gammas.items} stay within, bias included. 95 % intervals over showers. Below: "
                f"{minus_baselines(gammas.items)}.",
                figure,
            ),
            *by_multiplicity("x_max", "Depth of the maximum", compared.by_multiplicity, _QUANTITIES),
        ],
    )
    columns = {f"reco_x_max_g_cm2_{method}": np.asarray(values) for method, values in reco.items()}
    columns["true_x_max_g_cm2"] = truth
    return items.complete(result, columns, units=dict.fromkeys(columns, "g / cm2"))
