"""Direction of gammas: angular resolution and the right end of images, overall and per energy and offset."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline import statistics
from pipeline.config import Config, EvaluateConfig
from pipeline.directions import offset_deg
from pipeline.errors import TooFewEventsError
from pipeline.evaluation.comparison import NETWORK, Comparison, Metric, compare
from pipeline.evaluation.images import FOREST, image_sample
from pipeline.evaluation.result import (
    Bin,
    CaptionedFigure,
    Predicts,
    Result,
    bins_table,
    compare_in_bins,
    series_of,
)
from pipeline.figures import comparison, direction
from pipeline.tasks.direction import baseline
from pipeline.tasks.direction.decode import RADIUS_68
from pipeline.tasks.direction.spec import SPEC

FEWEST_IMAGES = 25


@dataclass(frozen=True)
class DirectionSample:
    """The gammas of the test split as the methods see them; places are those in the field of view.

    Attributes
    ----------
    true_deg : ndarray, shape (n, 2)
        Source: along fov_lon, along fov_lat.
    cog_deg : ndarray, shape (n, 2)
        Centre of gravity of the image.
    reco_deg : mapping
        Method -> reconstructed source, shape (n, 2).
    uncert_deg : ndarray, shape (n,)
        1 sigma along each axis that the network states; NaN where it states none.
    true_energy_tev, true_offset_deg, weights, groups : ndarray, shape (n,)
    """

    true_deg: np.ndarray
    cog_deg: np.ndarray
    reco_deg: Mapping[str, np.ndarray]
    uncert_deg: np.ndarray
    true_energy_tev: np.ndarray
    true_offset_deg: np.ndarray
    weights: np.ndarray
    groups: np.ndarray

    def errors(self, method: str) -> "DirectionErrors":
        """How far a method is off."""
        reco = self.reco_deg[method]
        return DirectionErrors(
            separation_deg=_separation_deg(reco, self.true_deg),
            # The other end is the same distance from the centre of gravity, on the other side.
            at_right_end_deg=np.minimum(
                _separation_deg(reco, self.true_deg), _separation_deg(2 * self.cog_deg - reco, self.true_deg)
            ),
            is_right=((reco - self.cog_deg) * (self.true_deg - self.cog_deg)).sum(axis=1) > 0,
        )


@dataclass(frozen=True)
class DirectionErrors:
    """Errors of one method, shape (n,) each."""

    separation_deg: np.ndarray
    at_right_end_deg: np.ndarray
    is_right: np.ndarray

    def select(self, keep: np.ndarray) -> "DirectionErrors":
        """Those where `keep` is true."""
        return DirectionErrors(self.separation_deg[keep], self.at_right_end_deg[keep], self.is_right[keep])


METRICS = (
    Metric("angular_resolution_deg", "lower", lambda errors, weights: _within(errors.separation_deg, weights)),
    Metric("sign_accuracy", "higher", lambda errors, weights: statistics.mean(errors.is_right, weights)),
    Metric("axis_resolution_deg", "lower", lambda errors, weights: _within(errors.at_right_end_deg, weights)),
)


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
    uncert_deg = images.predicted["reco_ang_distance_uncert_deg"] / RADIUS_68
    sample = DirectionSample(
        true_deg=np.stack([events["true_fov_lon_deg"], events["true_fov_lat_deg"]], axis=1),
        cog_deg=np.stack([events["hillas_fov_lon"], events["hillas_fov_lat"]], axis=1),
        reco_deg=reco_deg,
        uncert_deg=uncert_deg,
        true_energy_tev=events["true_energy_tev"],
        true_offset_deg=events["true_offset_deg"],
        weights=events["weights"],
        groups=events["group"],
    )
    columns = {f"true_fov_{axis}_deg": events[f"true_fov_{axis}_deg"] for axis in ("lon", "lat")}
    for method, places in reco_deg.items():
        columns |= {f"reco_fov_{axis}_deg_{method}": places[:, i] for i, axis in enumerate(("lon", "lat"))}
    columns["uncert_deg_network"] = uncert_deg
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
    n_counted = int(np.count_nonzero(sample.weights))
    if n_counted < FEWEST_IMAGES:
        raise TooFewEventsError(
            f"the test split has {n_counted} gammas with weight; at least {FEWEST_IMAGES} are needed: simulate more "
            "runs or loosen tiles.camera.cuts"
        )
    errors = {method: sample.errors(method) for method in sample.reco_deg}

    def compare_selected(keep: np.ndarray) -> Comparison | None:
        if np.count_nonzero(sample.weights[keep]) < FEWEST_IMAGES:
            return None
        return compare(
            METRICS,
            {method: error.select(keep) for method, error in errors.items()},
            sample.groups[keep],
            sample.weights[keep],
            n_resamples=cfg.bootstrap,
            seed=seed,
        )

    overall = compare_selected(np.ones(len(sample.weights), bool))
    assert overall is not None
    by_energy, by_offset = (
        compare_in_bins(name, statistics.bins_of(values, edges), compare_selected)
        for name, values, edges in (
            ("true_energy_tev", sample.true_energy_tev, cfg.energy_edges_tev),
            ("true_offset_deg", sample.true_offset_deg, cfg.offset_edges_deg),
        )
    )
    bins = [*by_energy, *by_offset]
    return Result(
        content=overall.to_json() | {"calibration": _calibration(sample, cfg)},
        bins=bins,
        tables={"bins": bins_table(bins)},
        figures=_figures(sample, errors, by_energy, by_offset),
    )


def _calibration(sample: DirectionSample, cfg: EvaluateConfig) -> dict[str, Any]:
    """Whether the stated uncertainty is right: at the right end, the pulls along both axes have the width 1."""
    stated = np.isfinite(sample.uncert_deg) & (sample.uncert_deg > 0) & (sample.weights > 0)
    if not stated.any():
        return {}
    width = _pull_width(sample)
    by_energy = [
        {"low": low, "high": high, "pull_width": width(keep & stated)}
        for low, high, keep in statistics.bins_of(sample.true_energy_tev, cfg.energy_edges_tev)
    ]
    return {"pull_width": width(stated), "by_true_energy_tev": by_energy}


def _pull_width(sample: DirectionSample) -> Callable[[np.ndarray], float | None]:
    """Half the width that holds 68 % of the pulls of a selection; None for fewer than 25 images."""
    reco, cog = sample.reco_deg[NETWORK], sample.cog_deg
    other = 2 * cog - reco
    is_right = _separation_deg(reco, sample.true_deg) <= _separation_deg(other, sample.true_deg)
    nearest = np.where(is_right[:, None], reco, other)
    pulls = (nearest - sample.true_deg) / sample.uncert_deg[:, None]

    def width(keep: np.ndarray) -> float | None:
        if np.count_nonzero(keep) < FEWEST_IMAGES:
            return None
        weights = np.repeat(sample.weights[keep], 2)
        low, high = (float(statistics.quantile(pulls[keep].ravel(), q, weights)) for q in (0.158655, 0.841345))
        return (high - low) / 2

    return width


def _figures(
    sample: DirectionSample, errors: Mapping[str, DirectionErrors], by_energy: Sequence[Bin], by_offset: Sequence[Bin]
) -> list[CaptionedFigure]:
    quantities = [
        ("angular resolution: 68 % containment [deg]", "angular_resolution_deg"),
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
            comparison.in_energy_bins([(text, series_of(by_energy, name)) for text, name in quantities]),
        ),
        CaptionedFigure(
            "direction_by_offset.png",
            "Angular resolution against the offset of the source from the pointing",
            f"As above, for all energies together. {below}",
            comparison.in_bins(
                [(text, series_of(by_offset, name)) for text, name in quantities],
                "true offset from the pointing [deg]",
            ),
        ),
        CaptionedFigure(
            "direction_errors.png",
            "Distribution of the angle to the true direction",
            "Share of the test gammas within an angle of the true direction: the further left the better. Full lines: "
            "all images; dashed: if the end was known. The crossing with the horizontal line is the resolution.",
            direction.containment_curves(
                {m: (e.separation_deg, e.at_right_end_deg) for m, e in errors.items()}, sample.weights
            ),
        ),
    ]
