"""Direction of gammas: angular resolution and the right end of images, overall and per energy and offset."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline import statistics
from pipeline.camera.baselines import FOREST
from pipeline.config import Config, EvaluateConfig
from pipeline.directions import RADIUS_68, fov_of_altaz, offset_deg
from pipeline.evaluation.comparison import NETWORK, Metric
from pipeline.evaluation.gammas import Compared, Gammas
from pipeline.evaluation.images import ImageSample, image_sample
from pipeline.evaluation.result import CaptionedFigure, Predicts, Result, bins_table, series_of
from pipeline.evaluation.showers import HILLAS, MONO, EventSample, event_sample, takes_events
from pipeline.evaluation.wording import by_multiplicity, minus_baselines, source_of
from pipeline.figures import comparison, direction
from pipeline.figures.published import published_curve
from pipeline.tasks.direction import baseline
from pipeline.tasks.direction.decode import DECODER, nearer_end
from pipeline.tasks.direction.spec import SPEC

METRICS = (
    Metric("angular_resolution_deg", "lower", lambda error, weights: _within(error["separation_deg"], weights)),
    Metric("sign_accuracy", "higher", lambda error, weights: statistics.mean(error["is_right"], weights)),
    Metric("axis_resolution_deg", "lower", lambda error, weights: _within(error["at_right_end_deg"], weights)),
)


# What a direction of an event may be judged by: it does not lie at one of two ends.
_OF_EVENTS = METRICS[:1]
_AXES = ("lon", "lat")
_LABELS = {
    "angular_resolution_deg": "68 % containment [deg]",
    "sign_accuracy": "share with the right end",
    "axis_resolution_deg": "68 % containment, right end [deg]",
}


@dataclass(frozen=True)
class DirectionSample:
    """The gammas of the test split as the methods see them; places are those in the field of view.

    Attributes
    ----------
    gammas : Gammas
    true_deg : ndarray, shape (n, 2)
        Source: along fov_lon, along fov_lat.
    cog_deg : ndarray, shape (n, 2), optional
        Centre of gravity of the image; None for events of several telescopes.
    reco_deg : mapping
        Method -> reconstructed source, shape (n, 2); NaN where there is none: its error is infinite.
    pulls : ndarray, shape (n, 2)
        Error of the network over its stated uncertainty along both axes; NaN where it states none.
    """

    gammas: Gammas
    true_deg: np.ndarray
    cog_deg: np.ndarray | None
    reco_deg: Mapping[str, np.ndarray]
    pulls: np.ndarray

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What the directions are judged by."""
        return _OF_EVENTS if self.cog_deg is None else METRICS

    def errors(self, method: str) -> dict[str, np.ndarray]:
        """Angle to the true direction; of images also that at the nearer end, and whether that was chosen."""
        reco = self.reco_deg[method]
        separation = _separation_deg(reco, self.true_deg)
        if self.cog_deg is None:
            return {"separation_deg": np.where(np.isfinite(separation), separation, np.inf)}
        return {
            "separation_deg": separation,
            "at_right_end_deg": _separation_deg(nearer_end(reco, self.cog_deg, self.true_deg), self.true_deg),
            "is_right": ((reco - self.cog_deg) * (self.true_deg - self.cog_deg)).sum(axis=1) > 0,
        }


def _within(separation_deg: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return statistics.containment(separation_deg, weights, 0.68)


def _separation_deg(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Angle between two places in the field of view, whose coordinates are spherical."""
    return offset_deg(first[:, 1], first[:, 0], second[:, 1], second[:, 0])


def judge(predictor: Predicts, manifests: Sequence[Any], cfg: Config) -> Result:
    """Compare the network and its baselines on the gammas of the test split.

    Of images: the forests of the disp method. Of events: these with all telescopes, the crossing of the images' axes,
    and the network for single telescopes.

    Raises
    ------
    UserError
        If the tiles carry no truth, or a split has too few images or events.
    """
    if takes_events(predictor):
        items = event_sample(SPEC, {baseline.NORM: baseline.ESTIMANDS[baseline.NORM]}, predictor, manifests, cfg)
        sample = _of_events(items)
    else:
        items = image_sample(SPEC, baseline.ESTIMANDS, predictor, manifests, cfg)
        sample = _of_images(items)
    columns = {f"true_fov_{axis}_deg": items.events[f"true_fov_{axis}_deg"] for axis in _AXES}
    for method, places in sample.reco_deg.items():
        columns |= {f"reco_fov_{axis}_deg_{method}": places[:, i] for i, axis in enumerate(_AXES)}
    columns["uncert_deg_network"] = items.predicted["reco_ang_distance_uncert_deg"] / RADIUS_68
    return items.complete(
        evaluate_direction(sample, cfg.evaluate, seed=cfg.seed), columns, units=dict.fromkeys(columns, "deg")
    )


def _places(columns: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    return np.stack([columns[name.format(axis)] for axis in _AXES], axis=1)


def _of_images(items: ImageSample) -> DirectionSample:
    events = items.events
    return DirectionSample(
        gammas=Gammas.of(events),
        true_deg=_places(events, "true_fov_{}_deg"),
        cog_deg=_places(events, "hillas_fov_{}"),
        reco_deg={
            NETWORK: _places(items.predicted, "reco_fov_{}_deg"),
            FOREST: baseline.source_deg(events, items.baseline),
        },
        pulls=DECODER.pulls(items.predicted, events),
    )


def _of_events(items: EventSample) -> DirectionSample:
    events, geometry = items.events, items.images.geometry
    pointing = events["pointing_alt_deg"], events["pointing_az_deg"]
    altaz_deg = {
        FOREST: baseline.event_altaz_deg(items.images, items.answers[baseline.NORM]),
        HILLAS: (geometry.alt_deg, geometry.az_deg),
    }
    if items.mono:
        altaz_deg[MONO] = (items.mono["reco_alt_deg"], items.mono["reco_az_deg"])
    return DirectionSample(
        gammas=Gammas.of(events),
        true_deg=_places(events, "true_fov_{}_deg"),
        cog_deg=None,
        reco_deg={
            NETWORK: _places(items.predicted, "reco_fov_{}_deg"),
            **{method: np.stack(fov_of_altaz(*altaz, *pointing), axis=1) for method, altaz in altaz_deg.items()},
        },
        pulls=DECODER.pulls(items.predicted, events),
    )


def evaluate_direction(sample: DirectionSample, cfg: EvaluateConfig, *, seed: int) -> Result:
    """Compare the methods on the test split.

    Raises
    ------
    TooFewEventsError
        If the test split has fewer than 25 gammas with weight.
    """
    errors = {method: sample.errors(method) for method in sample.reco_deg}
    compared = sample.gammas.compare(sample.metrics, errors, cfg, seed=seed)
    return Result(
        content=compared.overall.to_json() | {"calibration": sample.gammas.calibration(sample.pulls, cfg)},
        bins=compared.bins,
        tables={"bins": bins_table(compared.bins)},
        figures=_figures(sample, errors, compared, cfg),
    )


def _figures(
    sample: DirectionSample, errors: Mapping[str, Mapping[str, np.ndarray]], compared: Compared, cfg: EvaluateConfig
) -> list[CaptionedFigure]:
    items = sample.gammas.items
    quantities = [(_LABELS[metric.name], metric.name) for metric in sample.metrics]
    published = published_curve(cfg.reference, "angular_resolution")
    below = f"Below: {minus_baselines(items)}; an interval that leaves out zero is a real difference."
    resolution = f"angle to the true direction that 68 % of the {items} stay within (lower is better)"
    shown = f"Above: {resolution}; events without a direction count as outside."
    curves = "The crossing with the horizontal line is the resolution."
    if sample.cog_deg is not None:
        shown = (
            f"Left: {resolution}. Middle: share of images whose direction is put to the right side of their centre of "
            "gravity. Right: the resolution if the side was known."
        )
        curves = f"Full lines: all images; dashed: if the end was known. {curves}"
    angles = ("separation_deg", "at_right_end_deg")
    return [
        CaptionedFigure(
            "direction_performance.png",
            "Angular resolution against true energy",
            f"{shown} 95 % intervals over showers. {below}{source_of(published)}",
            comparison.in_energy_bins(
                [(text, series_of(compared.by_energy, name)) for text, name in quantities], published={0: published}
            ),
        ),
        CaptionedFigure(
            "direction_by_offset.png",
            "Angular resolution against the offset of the source from the pointing",
            f"As above, for all energies together. {below}",
            comparison.in_offset_bins([(text, series_of(compared.by_offset, name)) for text, name in quantities]),
        ),
        *by_multiplicity("direction", "Angular resolution", compared.by_multiplicity, quantities),
        CaptionedFigure(
            "direction_errors.png",
            "Distribution of the angle to the true direction",
            "Share of the test gammas within an angle of the true direction: the further left the better. " + curves,
            direction.containment_curves(
                {method: [own[name] for name in angles if name in own] for method, own in errors.items()},
                sample.gammas.weights,
                items=items,
            ),
        ),
    ]
