"""Core of gammas: its distance from the true axis and the error of the impact distance, per energy and offset."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline import statistics
from pipeline.camera.baselines import FOREST, Estimand
from pipeline.config import Config
from pipeline.directions import outward
from pipeline.evaluation.comparison import NETWORK, Metric
from pipeline.evaluation.gammas import Gammas
from pipeline.evaluation.images import ImageSample, image_sample
from pipeline.evaluation.result import CaptionedFigure, Predicts, Result, bins_table, series_of
from pipeline.evaluation.showers import HILLAS, MONO, EventSample, event_sample, takes_events
from pipeline.evaluation.wording import by_multiplicity, minus_baselines
from pipeline.figures import comparison
from pipeline.tasks.core.decode import DECODER
from pipeline.tasks.core.spec import SPEC
from pipeline.tasks.core.targets import core_vector_m
from pipeline.tasks.direction import baseline as disp

_IMPACT = "impact_m"
_COLUMNS = (
    "true_core_x_m", "true_core_y_m", "tel_x_m", "tel_y_m", "tel_z_m", "pointing_alt_deg", "pointing_az_deg",
)  # fmt: skip
_CORE_XY = ("core_x_m", "core_y_m")
METRICS = (
    Metric("core_resolution_m", "lower", lambda error, weights: _within(error["distance_m"], weights)),
    Metric("impact_resolution_m", "lower", lambda error, weights: _within(error["impact_m"], weights)),
)
# The distance from the telescope is one of images.
_OF_EVENTS = METRICS[:1]
_LABELS = {
    "core_resolution_m": "68 % containment of the core [m]",
    "impact_resolution_m": "68 % of the errors of the impact [m]",
}


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
    """Compare network and baselines on the gammas of the test split.

    Of images: the forest. Of events: the crossing of the images' axes, and the network for single telescopes.

    Raises
    ------
    UserError
        If the tiles carry no truth, or a split has too few images or events.
    """
    if takes_events(predictor):
        items = event_sample(SPEC, {}, predictor, manifests, cfg)
        errors, columns = _of_events(items)
        metrics = _OF_EVENTS
    else:
        items = image_sample(SPEC, ESTIMANDS, predictor, manifests, cfg)
        errors, columns = _of_images(items)
        metrics = METRICS
    gammas = Gammas.of(items.events)
    compared = gammas.compare(metrics, errors, cfg.evaluate, seed=cfg.seed)
    quantities = [(_LABELS[metric.name], metric.name) for metric in metrics]
    distance = (
        "distance from the true axis, in the plane perpendicular to the pointing, that 68 % of the "
        f"{gammas.items} stay within"
    )
    shown = f"Left: {distance}. Right: the same for the distance of the axis from the telescope."
    result = Result(
        content=compared.overall.to_json()
        | {"calibration": gammas.calibration(DECODER.pulls(items.predicted, items.events), cfg.evaluate)},
        bins=compared.bins,
        tables={"bins": bins_table(compared.bins)},
        figures=[
            CaptionedFigure(
                "core_performance.png",
                "Resolution of the core against true energy",
                f"{shown if metrics is METRICS else f'Above: {distance}; events without a core count as outside.'} "
                f"95 % intervals over showers. Below: {minus_baselines(gammas.items)}.",
                comparison.in_energy_bins([(text, series_of(compared.by_energy, name)) for text, name in quantities]),
            ),
            *by_multiplicity("core", "Resolution of the core", compared.by_multiplicity, quantities),
        ],
    )
    return items.complete(result, columns, units=dict.fromkeys(columns, "m"))


def _of_images(items: ImageSample) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """Errors by method, and columns of the table."""
    events = items.events
    truth = core_vector_m(events)
    impact = items.baseline[_IMPACT]
    away = -np.where(items.baseline[disp.SIGN] >= 0.5, 1.0, -1.0)[:, None] * np.nan_to_num(outward(events))
    vectors = {NETWORK: network_vector_m(items.predicted, events), FOREST: impact[:, None] * away}
    impacts = {NETWORK: items.predicted["reco_impact_m"], FOREST: impact}
    errors = {
        method: {
            "distance_m": np.linalg.norm(vectors[method] - truth, axis=1),
            "impact_m": np.abs(impacts[method] - np.linalg.norm(truth, axis=1)),
        }
        for method in vectors
    }
    columns = {f"reco_impact_m_{method}": values for method, values in impacts.items()}
    columns["true_impact_m"] = np.linalg.norm(truth, axis=1)
    return errors, columns


def _of_events(items: EventSample) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """Errors by method, and columns of the table."""
    events, geometry = items.events, items.images.geometry
    cores = {
        NETWORK: {name: items.predicted[f"reco_{name}"] for name in _CORE_XY},
        HILLAS: {name: getattr(geometry, name) for name in _CORE_XY},
    }
    if items.mono:
        cores[MONO] = {name: items.mono[f"reco_{name}"] for name in _CORE_XY}
    errors, columns = {}, {f"true_{name}": events[f"true_{name}"] for name in _CORE_XY}
    for method, core in cores.items():
        found = {f"reco_{name}": values for name, values in core.items()}
        distance = np.linalg.norm(network_vector_m(found, events) - core_vector_m(events), axis=1)
        errors[method] = {"distance_m": np.where(np.isfinite(distance), distance, np.inf)}
        columns |= {f"{name}_{method}": values for name, values in found.items()}
    return errors, columns


def network_vector_m(predicted: Mapping[str, np.ndarray], events: Mapping[str, np.ndarray]) -> np.ndarray:
    """A predicted core minus the telescope in the plane perpendicular to the pointing, shape (n, 2)."""
    places = {"true_core_x_m": predicted["reco_core_x_m"], "true_core_y_m": predicted["reco_core_y_m"]}
    return core_vector_m({**events, **places})
