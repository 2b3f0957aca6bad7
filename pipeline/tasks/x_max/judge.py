"""Depth of the maximum of gammas: resolution and bias, per energy and offset."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline import statistics
from pipeline.camera.baselines import Estimand
from pipeline.config import Config
from pipeline.evaluation.comparison import Metric
from pipeline.evaluation.gammas import Gammas
from pipeline.evaluation.images import image_sample
from pipeline.evaluation.result import CaptionedFigure, Predicts, Result, bins_table, series_of
from pipeline.figures import comparison
from pipeline.tasks.x_max.decode import DECODER
from pipeline.tasks.x_max.spec import SPEC

_X_MAX = "x_max_g_cm2"
ESTIMANDS = {_X_MAX: Estimand(lambda events: events["true_x_max_g_cm2"], columns=("true_x_max_g_cm2",))}
METRICS = (
    Metric("x_max_resolution_g_cm2", "lower", lambda error, weights: statistics.containment(error, weights, 0.68)),
    Metric("x_max_bias_g_cm2", "lower", lambda error, weights: statistics.median(error, weights), absolute=True),
)


def judge(predictor: Predicts, manifests: Sequence[Any], cfg: Config) -> Result:
    """Compare network and forest on the gammas of the test split.

    Raises
    ------
    UserError
        If the tiles carry no truth, or a split has too few images.
    """
    images = image_sample(SPEC, ESTIMANDS, predictor, manifests, cfg)
    gammas, truth = Gammas.of(images.events), images.events["true_x_max_g_cm2"]
    reco = images.methods(_X_MAX, images.predicted["reco_x_max_g_cm2"])
    errors = {method: values - truth for method, values in reco.items()}
    compared = gammas.compare(METRICS, errors, cfg.evaluate, seed=cfg.seed)
    pulls = DECODER.pulls(images.predicted, images.events)
    figure = comparison.in_energy_bins(
        [
            ("bias: median error [g/cm²]", series_of(compared.by_energy, "x_max_bias_g_cm2")),
            ("resolution: 68 % containment [g/cm²]", series_of(compared.by_energy, "x_max_resolution_g_cm2")),
        ],
        reference={0: 0.0},
    )
    result = Result(
        content=compared.overall.to_json() | {"calibration": gammas.calibration(pulls, cfg.evaluate)},
        bins=compared.bins,
        tables={"bins": bins_table(compared.bins)},
        figures=[
            CaptionedFigure(
                "x_max_performance.png",
                "Depth of the maximum against true energy",
                "Left: median of reconstructed minus true depth (0 is best). Right: the error that 68 % of the images "
                "stay within, bias included. 95 % intervals over showers. Below: network minus forest on the same "
                "images, resampled in pairs.",
                figure,
            )
        ],
    )
    columns = {f"reco_x_max_g_cm2_{method}": np.asarray(values) for method, values in reco.items()}
    columns["true_x_max_g_cm2"] = truth
    return images.complete(result, columns, units=dict.fromkeys(columns, "g / cm2"))
