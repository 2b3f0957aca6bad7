"""Core of gammas: its distance from the true axis and the error of the impact distance, per energy and offset."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline import statistics
from pipeline.camera.baselines import Estimand
from pipeline.config import Config
from pipeline.evaluation.comparison import NETWORK, Metric
from pipeline.evaluation.gammas import Gammas
from pipeline.evaluation.images import FOREST, image_sample
from pipeline.evaluation.result import CaptionedFigure, Predicts, Result, bins_table, series_of
from pipeline.figures import comparison
from pipeline.tasks.core.decode import DECODER
from pipeline.tasks.core.spec import SPEC
from pipeline.tasks.core.targets import core_vector_m
from pipeline.tasks.direction import baseline as disp

_IMPACT = "impact_m"
_COLUMNS = (
    "true_core_x_m", "true_core_y_m", "tel_x_m", "tel_y_m", "tel_z_m", "pointing_alt_deg", "pointing_az_deg",
)  # fmt: skip
METRICS = (
    Metric("core_resolution_m", "lower", lambda error, weights: _within(error["distance_m"], weights)),
    Metric("impact_resolution_m", "lower", lambda error, weights: _within(error["impact_m"], weights)),
)


def _within(error_m: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return statistics.containment(error_m, weights, 0.68)


def _impact_m(events: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.linalg.norm(core_vector_m(events), axis=1)


#: The forest knows the distance from the image; the axis leads away from the source, whose end is that of the disp
#: method.
ESTIMANDS = {
    _IMPACT: Estimand(_impact_m, columns=_COLUMNS),
    disp.SIGN: disp.ESTIMANDS[disp.SIGN],
}


def judge(predictor: Predicts, manifests: Sequence[Any], cfg: Config) -> Result:
    """Compare network and forest on the gammas of the test split.

    Raises
    ------
    UserError
        If the tiles carry no truth, or a split has too few images.
    """
    images = image_sample(SPEC, ESTIMANDS, predictor, manifests, cfg)
    events, gammas = images.events, Gammas.of(images.events)
    truth = core_vector_m(events)
    impact = images.baseline[_IMPACT]
    away = -np.where(images.baseline[disp.SIGN] >= 0.5, 1.0, -1.0)[:, None] * np.nan_to_num(disp.outward(events))
    vectors = {NETWORK: network_vector_m(images.predicted, events), FOREST: impact[:, None] * away}
    impacts = {NETWORK: images.predicted["reco_impact_m"], FOREST: impact}
    errors = {
        method: {
            "distance_m": np.linalg.norm(vectors[method] - truth, axis=1),
            "impact_m": np.abs(impacts[method] - np.linalg.norm(truth, axis=1)),
        }
        for method in vectors
    }
    compared = gammas.compare(METRICS, errors, cfg.evaluate, seed=cfg.seed)
    pulls = DECODER.pulls(images.predicted, events)
    figure = comparison.in_energy_bins(
        [
            ("68 % containment of the core [m]", series_of(compared.by_energy, "core_resolution_m")),
            ("68 % of the errors of the impact [m]", series_of(compared.by_energy, "impact_resolution_m")),
        ]
    )
    result = Result(
        content=compared.overall.to_json() | {"calibration": gammas.calibration(pulls, cfg.evaluate)},
        bins=compared.bins,
        tables={"bins": bins_table(compared.bins)},
        figures=[
            CaptionedFigure(
                "core_performance.png",
                "Resolution of the core against true energy",
                "Left: distance from the true axis, in the plane perpendicular to the pointing, that 68 % of the "
                "images stay within. Right: the same for the distance of the axis from the telescope. 95 % intervals "
                "over showers. Below: network minus forest on the same images, resampled in pairs.",
                figure,
            )
        ],
    )
    columns = {f"reco_impact_m_{method}": values for method, values in impacts.items()}
    columns["true_impact_m"] = np.linalg.norm(truth, axis=1)
    return images.complete(result, columns, units=dict.fromkeys(columns, "m"))


def network_vector_m(predicted: Mapping[str, np.ndarray], events: Mapping[str, np.ndarray]) -> np.ndarray:
    """The predicted core minus the telescope in the plane perpendicular to the pointing, shape (n, 2)."""
    places = {"true_core_x_m": predicted["reco_core_x_m"], "true_core_y_m": predicted["reco_core_y_m"]}
    return core_vector_m({**events, **places})
