"""Direction of gammas: angular resolution and the right end of images, overall and per energy and offset."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline import statistics
from pipeline.config import Config, EvaluateConfig
from pipeline.directions import RADIUS_68, offset_deg
from pipeline.evaluation.comparison import NETWORK, Metric
from pipeline.evaluation.gammas import Compared, Gammas
from pipeline.evaluation.images import FOREST, image_sample
from pipeline.evaluation.result import CaptionedFigure, Predicts, Result, bins_table, series_of
from pipeline.figures import comparison, direction
from pipeline.tasks.direction import baseline
from pipeline.tasks.direction.decode import DECODER, nearer_end
from pipeline.tasks.direction.spec import SPEC

METRICS = (
    Metric("angular_resolution_deg", "lower", lambda error, weights: _within(error["separation_deg"], weights)),
    Metric("sign_accuracy", "higher", lambda error, weights: statistics.mean(error["is_right"], weights)),
    Metric("axis_resolution_deg", "lower", lambda error, weights: _within(error["at_right_end_deg"], weights)),
)


@dataclass(frozen=True)
class DirectionSample:
    """The gammas of the test split as the methods see them; places are those in the field of view.

    Attributes
    ----------
    gammas : Gammas
    true_deg : ndarray, shape (n, 2)
        Source: along fov_lon, along fov_lat.
    cog_deg : ndarray, shape (n, 2)
        Centre of gravity of the image.
    reco_deg : mapping
        Method -> reconstructed source, shape (n, 2).
    pulls : ndarray, shape (n, 2)
        Error of the network over its stated uncertainty along both axes; NaN where it states none.
    """

    gammas: Gammas
    true_deg: np.ndarray
    cog_deg: np.ndarray
    reco_deg: Mapping[str, np.ndarray]
    pulls: np.ndarray

    def errors(self, method: str) -> dict[str, np.ndarray]:
        """Angle to the true direction, the same at the end that is nearer to it, and whether that was chosen."""
        reco = self.reco_deg[method]
        return {
            "separation_deg": _separation_deg(reco, self.true_deg),
            "at_right_end_deg": _separation_deg(nearer_end(reco, self.cog_deg, self.true_deg), self.true_deg),
            "is_right": ((reco - self.cog_deg) * (self.true_deg - self.cog_deg)).sum(axis=1) > 0,
        }


def _within(separation_deg: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return statistics.containment(separation_deg, weights, 0.68)


def _separation_deg(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Angle between two places in the field of view, whose coordinates are spherical."""
    return offset_deg(first[:, 1], first[:, 0], second[:, 1], second[:, 0])


def judge(predictor: Predicts, manifests: Sequence[Any], cfg: Config) -> Result:
    """Compare the network and the forests of the disp method on the gammas of the test split.

    Raises
    ------
    UserError
        If the tiles carry no truth, or a split has too few images.
    """
    images = image_sample(SPEC, baseline.ESTIMANDS, predictor, manifests, cfg)
    events = images.events
    reco_deg = {
        NETWORK: np.stack([images.predicted[f"reco_fov_{axis}_deg"] for axis in ("lon", "lat")], axis=1),
        FOREST: baseline.source_deg(events, images.baseline),
    }
    sample = DirectionSample(
        gammas=Gammas.of(events),
        true_deg=np.stack([events["true_fov_lon_deg"], events["true_fov_lat_deg"]], axis=1),
        cog_deg=np.stack([events["hillas_fov_lon"], events["hillas_fov_lat"]], axis=1),
        reco_deg=reco_deg,
        pulls=DECODER.pulls(images.predicted, events),
    )
    columns = {f"true_fov_{axis}_deg": events[f"true_fov_{axis}_deg"] for axis in ("lon", "lat")}
    for method, places in reco_deg.items():
        columns |= {f"reco_fov_{axis}_deg_{method}": places[:, i] for i, axis in enumerate(("lon", "lat"))}
    columns["uncert_deg_network"] = images.predicted["reco_ang_distance_uncert_deg"] / RADIUS_68
    return images.complete(
        evaluate_direction(sample, cfg.evaluate, seed=cfg.seed), columns, units=dict.fromkeys(columns, "deg")
    )


def evaluate_direction(sample: DirectionSample, cfg: EvaluateConfig, *, seed: int) -> Result:
    """Compare the methods on the test split.

    Raises
    ------
    TooFewEventsError
        If the test split has fewer than 25 gammas with weight.
    """
    errors = {method: sample.errors(method) for method in sample.reco_deg}
    compared = sample.gammas.compare(METRICS, errors, cfg, seed=seed)
    return Result(
        content=compared.overall.to_json() | {"calibration": sample.gammas.calibration(sample.pulls, cfg)},
        bins=compared.bins,
        tables={"bins": bins_table(compared.bins)},
        figures=_figures(sample.gammas.weights, errors, compared),
    )


def _figures(
    weights: np.ndarray, errors: Mapping[str, Mapping[str, np.ndarray]], compared: Compared
) -> list[CaptionedFigure]:
    quantities = [
        ("68 % containment [deg]", "angular_resolution_deg"),
        ("share with the right end", "sign_accuracy"),
        ("68 % containment, right end [deg]", "axis_resolution_deg"),
    ]
    below = (
        "Below: network minus forest on the same images, resampled in pairs; an interval that leaves out zero is a "
        "real difference."
    )
    return [
        CaptionedFigure(
            "direction_performance.png",
            "Angular resolution against true energy",
            "Left: angle to the true direction that 68 % of the images stay within (lower is better). Middle: share of "
            "images whose direction is put to the right side of their centre of gravity. Right: the resolution if "
            f"the side was known. 95 % intervals over showers. {below}",
            comparison.in_energy_bins([(text, series_of(compared.by_energy, name)) for text, name in quantities]),
        ),
        CaptionedFigure(
            "direction_by_offset.png",
            "Angular resolution against the offset of the source from the pointing",
            f"As above, for all energies together. {below}",
            comparison.in_offset_bins([(text, series_of(compared.by_offset, name)) for text, name in quantities]),
        ),
        CaptionedFigure(
            "direction_errors.png",
            "Distribution of the angle to the true direction",
            "Share of the test gammas within an angle of the true direction: the further left the better. Full lines: "
            "all images; dashed: if the end was known. The crossing with the horizontal line is the resolution.",
            direction.containment_curves(
                {m: (e["separation_deg"], e["at_right_end_deg"]) for m, e in errors.items()}, weights
            ),
        ),
    ]
