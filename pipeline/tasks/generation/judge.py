"""Generated camera images: can they be told from simulated ones, do their parameters agree, are they copies?"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline import statistics
from pipeline.camera.baselines import FEATURES
from pipeline.camera.generated import Recorded
from pipeline.camera.shower_image import ShowerImage
from pipeline.config import Config
from pipeline.errors import TooFewEventsError
from pipeline.evaluation.comparison import NETWORK, Comparison, Metric, compare
from pipeline.evaluation.generation import AGAIN, NEAREST, GeneratedSample, generated_sample
from pipeline.evaluation.result import CaptionedFigure, Predicts, Result, bins_table, compare_in_bins, series_of
from pipeline.figures import comparison, generation
from pipeline.figures.cameras import camera_gallery
from pipeline.inputs.shower_frame import CONDITIONS
from pipeline.tasks.generation.spec import SPEC

#: Image parameters whose distributions are compared, among those that forests see, and their labels.
COMPARED = {
    "log10_hillas_intensity": "log10(size / p.e.)",
    "hillas_width": "width [deg]",
    "hillas_length": "length [deg]",
    "hillas_r": "distance [deg]",
    "hillas_skewness_outward": "skewness",
    "timing_slope_outward": "time slope [ns/deg]",
}
_CONDITION_LABELS = (
    "log10(energy / TeV)", "impact distance [m]", "centre towards the core [deg]", "centre beside [deg]",
    "log10(p.e. in the camera)",
)  # fmt: skip
_N_SHOWN = 6
_FOLDS = 2
_FEWEST_PASSED = 50


def judge(predictor: Predicts, manifests: Sequence[Any], cfg: Config) -> Result:
    """Compare generated with simulated images of the test split.

    Raises
    ------
    UserError
        If the tiles carry no truth, a split has too few images, hardly any generated image passes the cuts, or the
        telescope is not the configured one.
    """
    sample = generated_sample(SPEC, predictor, manifests, cfg, _N_SHOWN)
    groups = sample.events["group"]
    columns = [FEATURES.index(name) for name in COMPARED]
    predictions = {
        method: {
            "simulated": sample.simulated[:, columns],
            "generated": features[:, columns],
            "scores": _scores(sample.simulated, features, groups, cfg),
        }
        for method, features in sample.generated.items()
    }

    def compared(keep: np.ndarray) -> Comparison | None:
        chosen = {method: {name: part[keep] for name, part in p.items()} for method, p in predictions.items()}
        if any(np.isfinite(own["generated"][:, 0]).sum() < _FEWEST_PASSED for own in chosen.values()):
            return None
        return compare(
            METRICS, chosen, groups[keep], np.ones(keep.sum()), n_resamples=cfg.evaluate.bootstrap, seed=cfg.seed
        )

    energy = sample.events["true_energy_tev"]
    bins = compare_in_bins("true_energy_tev", statistics.bins_of(energy, cfg.evaluate.energy_edges_tev), compared)
    overall = compared(np.ones(len(energy), bool))
    if overall is None:
        raise _too_few(sample)
    distances = sample.neighbour_distances
    return Result(
        content=overall.to_json()
        | {
            "data": {"n": len(energy), "n_groups": sample.n_groups},
            "ks": {method: _ks_by_parameter(own) for method, own in predictions.items()},
            "median_distance_to_training_images": {name: float(np.median(d[0])) for name, d in distances.items()},
            "nearer_to_training_images": {name: float(np.mean(d[0] < d[1])) for name, d in distances.items()},
        },
        bins=bins,
        tables={"bins": bins_table(bins)},
        figures=_figures(sample, predictions, bins, cfg),
        baseline_settings={NEAREST: {"n_training_images": sample.n_training}},
    )


def _too_few(sample: GeneratedSample) -> TooFewEventsError:
    n = min(int(np.isfinite(own[:, 0]).sum()) for own in sample.generated.values())
    return TooFewEventsError(
        f"{n} of {len(sample.conditions)} generated images trigger and pass the cuts; at least {_FEWEST_PASSED} are "
        "needed to compare them: train longer, or add images"
    )


# ---- figures of merit ------------------------------------------------------------------------------------------------
def _mean_ks(prediction: Mapping[str, np.ndarray], weights: np.ndarray) -> np.ndarray:
    pairs = zip(prediction["simulated"].T, prediction["generated"].T, strict=True)
    return np.mean([statistics.kolmogorov_smirnov(a, b, weights) for a, b in pairs], axis=0)


def _two_sample_auc(prediction: Mapping[str, np.ndarray], weights: np.ndarray) -> np.ndarray:
    scores = prediction["scores"].T.ravel()
    labels = np.repeat([False, True], len(prediction["scores"]))
    known = np.isfinite(scores)
    both = np.concatenate([weights, weights], axis=-1)
    return statistics.auc(scores[known], labels[known], both[..., known])


def _rejected(prediction: Mapping[str, np.ndarray], weights: np.ndarray) -> np.ndarray:
    return statistics.mean(~np.isfinite(prediction["generated"][:, 0]), weights)


METRICS = (
    Metric("two_sample_auc", "lower", _two_sample_auc),
    Metric("ks_mean", "lower", _mean_ks),
    Metric("rejected_fraction", "lower", _rejected),
)


def _scores(simulated: np.ndarray, generated: np.ndarray, groups: np.ndarray, cfg: Config) -> np.ndarray:
    """How generated a forest thinks that images look, (N, 2): simulated and generated ones; NaN for rejected ones.

    Each half of the showers is judged by a forest that has seen the other half only.
    """
    from sklearn.ensemble import RandomForestClassifier

    fold = np.unique(groups, return_inverse=True)[1] % _FOLDS
    scores = np.full((len(simulated), 2), np.nan)
    passed = np.isfinite(generated[:, 0])
    both = (np.nan_to_num(simulated), np.where(passed[:, None], np.nan_to_num(generated), np.nan))
    for number in range(_FOLDS):
        rows = [np.flatnonzero((fold != number) & np.isfinite(part[:, 0])) for part in both]
        if min(map(len, rows)) < _FEWEST_PASSED // _FOLDS:
            continue
        forest = RandomForestClassifier(
            cfg.evaluate.forest_trees, min_samples_leaf=10, max_features="sqrt", n_jobs=cfg.threads,
            random_state=cfg.seed, class_weight="balanced",
        )  # fmt: skip
        forest.fit(np.concatenate([part[own] for part, own in zip(both, rows, strict=True)]), _labels(rows))
        for column, part in enumerate(both):
            asked = np.flatnonzero((fold == number) & np.isfinite(part[:, 0]))
            if len(asked):
                scores[asked, column] = forest.predict_proba(part[asked])[:, 1]
    return scores


def _labels(rows: Sequence[np.ndarray]) -> np.ndarray:
    return np.repeat([0, 1], [len(own) for own in rows])


def _ks_by_parameter(prediction: Mapping[str, np.ndarray]) -> dict[str, float]:
    ones = np.ones(len(prediction["simulated"]))
    pairs = zip(COMPARED, prediction["simulated"].T, prediction["generated"].T, strict=True)
    return {name: float(statistics.kolmogorov_smirnov(a, b, ones)) for name, a, b in pairs}


# ---- figures ---------------------------------------------------------------------------------------------------------
def _figures(
    sample: GeneratedSample, predictions: Mapping[str, Mapping[str, np.ndarray]], bins: Sequence[Any], cfg: Config
) -> list[CaptionedFigure]:
    energy = sample.events["true_energy_tev"]
    thirds = np.quantile(energy, [1 / 3, 2 / 3])
    selections = {
        f"below {thirds[0]:.2g} TeV": energy < thirds[0],
        f"{thirds[0]:.2g} to {thirds[1]:.2g} TeV": (energy >= thirds[0]) & (energy < thirds[1]),
        f"above {thirds[1]:.2g} TeV": energy >= thirds[1],
    }

    def parts(values: np.ndarray) -> dict[str, list[np.ndarray]]:
        return {name: [column[keep & np.isfinite(column)] for column in values.T] for name, keep in selections.items()}

    wanted = sample.conditions
    return [
        CaptionedFigure(
            "generation_parameters.png",
            "Image parameters of generated and simulated images",
            "Each generated image has the conditions of a simulated one of the test split, and went through the same "
            "electronics, cleaning and cuts. The nearest training image, turned and recorded anew, is the baseline. "
            "What a perfect generator of these tiles would give: the simulated photo-electrons, recorded once more.",
            generation.distributions(
                list(COMPARED.values()),
                parts(next(iter(predictions.values()))["simulated"]),
                {method: parts(own["generated"]) for method, own in predictions.items()},
            ),
        ),
        CaptionedFigure(
            "generation_by_energy.png",
            "Distance from simulated images against energy",
            "Left: how well a forest on image parameters tells generated from simulated images (0.5 is best). Right: "
            "Kolmogorov-Smirnov distance, mean over the parameters above (0 is best; samples of this size differ by "
            "chance, too). 95 % intervals over showers.",
            comparison.in_energy_bins(
                [
                    ("two-sample AUC", series_of(bins, "two_sample_auc")),
                    ("mean KS distance", series_of(bins, "ks_mean")),
                ],
                reference={0: 0.5, 1: 0.0},
            ),
        ),
        CaptionedFigure(
            "generation_images.png",
            "Generated beside simulated images",
            "Columns have the same conditions. All are shown as the camera records them, with night sky and "
            "electronics; one that does not trigger is empty. The star is the source.",
            camera_gallery(sample.telescope.camera, _gallery(sample)),
        ),
        CaptionedFigure(
            "generation_conditions.png",
            "Conditions that are drawn",
            "What `lightpool simulate images` asks for, beside the conditions of the simulated test images.",
            generation.distributions(
                _CONDITION_LABELS, {"all": list(wanted.T)}, {NETWORK: {"all": list(sample.drawn.T)}}
            ),
        ),
        CaptionedFigure(
            "generation_memory.png",
            "Is it more than a memory of the training images?",
            "Distance of images to the most alike of the training images, photo-electrons in blocks of cells, and how "
            "often it is smaller than that to the most alike of the test images (of other showers). A generator that "
            "learns is as often nearer to the training images as simulated images are; one that remembers, more often.",
            generation.neighbours(sample.neighbour_distances),
        ),
    ]


def _gallery(sample: GeneratedSample) -> dict[str, list[ShowerImage]]:
    rows = {}
    for method, name in ((AGAIN, "simulated"), (NETWORK, "generated"), (NEAREST, "nearest copy")):
        recorded: Recorded = sample.images[method]
        shown = dict(zip(recorded.kept.tolist(), recorded.image, strict=True))
        empty = np.zeros(sample.telescope.camera.n_pixels)
        rows[name] = [_shown(sample, k, shown.get(k, empty)) for k in range(len(sample.shown))]
    return rows


def _shown(sample: GeneratedSample, place: int, image: np.ndarray) -> ShowerImage:
    events, row = sample.events, sample.shown[place]
    return ShowerImage(
        charge_pe=np.asarray(image),
        size_pe=float(10 ** sample.conditions[row, CONDITIONS.index("log10_true_size_pe")]),
        energy_tev=float(events["true_energy_tev"][row]),
        impact_m=float(events["true_impact_m"][row]),
        source_deg=(float(events["true_fov_lon_deg"][row]), float(events["true_fov_lat_deg"][row])),
    )
