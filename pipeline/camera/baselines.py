"""The classical baseline: a random forest on Hillas parameters, as the analyses of today use it.

It gets what a network gets: the same training images with the same weights, and settings chosen on the same
validation split. lstchain [1]_ and ctapipe train forests on such parameters.

References
----------
.. [1] Abe, K. et al. (2023), ApJ 956, 80 (arXiv:2309.11315), sect. 3.4 and table 2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np

from pipeline import statistics
from pipeline.errors import TooFewEventsError

#: Event columns of a camera shard that `forest_features` reads.
FOREST_COLUMNS = (
    "hillas_intensity", "hillas_length", "hillas_width", "hillas_r", "hillas_psi", "hillas_phi", "hillas_skewness",
    "hillas_kurtosis", "timing_slope", "concentration_cog", "concentration_core", "concentration_pixel",
    "leakage_intensity_width_2", "n_islands", "n_pixels",
)  # fmt: skip

#: Tried on the validation split; the best one is trained again with all trees.
GRID = {"min_samples_leaf": (2, 5, 10, 20), "max_features": ("sqrt", 0.6)}
_TREES_WHILE_TUNING = 50
_FEWEST_IMAGES = 20


def forest_features(events: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Hillas parameters as the forest sees them.

    Parameters
    ----------
    events : mapping
        Arrays of shape (N,) under the names of `FOREST_COLUMNS`; angles in degrees.

    Returns
    -------
    dict of ndarray, shape (N,), float32
        Signs that depend on which end of the image axis is called its head are made relative to the camera's centre:
        positive skewness and time slope point away from it.
    """
    delta_rad = np.deg2rad(events["hillas_psi"].astype(float) - events["hillas_phi"])
    outward = np.where(np.cos(delta_rad) >= 0, 1.0, -1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        features = {
            "log10_size": np.log10(events["hillas_intensity"]),
            "length_deg": events["hillas_length"],
            "width_deg": events["hillas_width"],
            "width_over_length": events["hillas_width"] / events["hillas_length"],
            "log10_density": np.log10(events["hillas_intensity"] / (events["hillas_length"] * events["hillas_width"])),
            "r_deg": events["hillas_r"],
            "miss_deg": events["hillas_r"] * np.abs(np.sin(delta_rad)),
            "skewness_outward": events["hillas_skewness"] * outward,
            "kurtosis": events["hillas_kurtosis"],
            "time_slope_outward": events["timing_slope"] * outward,
            "concentration_cog": events["concentration_cog"],
            "concentration_core": events["concentration_core"],
            "concentration_pixel": events["concentration_pixel"],
            "leakage": events["leakage_intensity_width_2"],
            "n_islands": events["n_islands"],
            "n_pixels": events["n_pixels"],
        }
    # scikit-learn's trees take NaN (an undefined parameter) but not infinity.
    return {name: np.where(np.isfinite(value), value, np.nan).astype(np.float32) for name, value in features.items()}


@dataclass(frozen=True)
class Sample:
    """Images of one split: Hillas parameters, what is to be estimated, and weights.

    Attributes
    ----------
    events : mapping of ndarray, shape (N,)
        See `FOREST_COLUMNS`.
    target : ndarray, shape (N,)
        log10(energy / TeV), or 1 for gamma and 0 for hadron.
    weights : ndarray, shape (N,)
    """

    events: Mapping[str, np.ndarray]
    target: np.ndarray
    weights: np.ndarray

    def matrix(self) -> np.ndarray:
        """Features, shape (N, n_features)."""
        return np.column_stack(list(forest_features(self.events).values()))

    def check(self, split: str, kind: str) -> None:
        """Refuse a split with too few images (of each class) with weight."""
        target = self.target[self.weights > 0]
        classes = {1: "gammas", 0: "hadrons"} if kind == "gammaness" else {None: "images"}
        for value, name in classes.items():
            n = len(target) if value is None else int((target == value).sum())
            if n < _FEWEST_IMAGES:
                raise TooFewEventsError(
                    f"the {split} split has {n} {name} with weight; the forest needs at least {_FEWEST_IMAGES}: "
                    "simulate more runs or loosen tiles.camera.cuts"
                )


@dataclass(frozen=True)
class Forest:
    """A trained forest and how it was chosen."""

    kind: Literal["energy", "gammaness"]
    estimator: Any
    settings: dict[str, Any]

    def predict(self, events: Mapping[str, np.ndarray]) -> np.ndarray:
        """log10(energy / TeV) or gammaness, shape (N,)."""
        matrix = np.column_stack(list(forest_features(events).values()))
        if self.kind == "energy":
            return self.estimator.predict(matrix)
        return self.estimator.predict_proba(matrix)[:, 1]


def train_forest(
    kind: Literal["energy", "gammaness"],
    train: Sample,
    validation: Sample,
    *,
    n_trees: int = 200,
    seed: int = 0,
    threads: int = 1,
) -> Forest:
    """Choose a forest's settings on the validation split and train it.

    Parameters
    ----------
    kind : {"energy", "gammaness"}
        Regression of log10 energy, judged by its rms; or classification, judged by its AUC.
    train, validation : Sample
    n_trees, seed, threads : int

    Returns
    -------
    Forest
        Its `settings` hold the chosen values, every trial and the importance of each feature.

    Raises
    ------
    TooFewEventsError
        If a split has fewer than 20 images (of each class).
    """
    train.check("training", kind)
    validation.check("validation", kind)
    features, held_out = train.matrix(), validation.matrix()
    trials = []
    for values in product(*GRID.values()):
        chosen = dict(zip(GRID, values, strict=True))
        estimator = _estimator(kind, min(n_trees, _TREES_WHILE_TUNING), seed, threads, chosen)
        _fit(estimator, features, train)
        trials.append((_score(kind, estimator, held_out, validation), chosen))
    best_score, best = max(trials, key=lambda trial: trial[0])
    estimator = _estimator(kind, n_trees, seed, threads, best)
    _fit(estimator, features, train)
    score_name = "auc" if kind == "gammaness" else "minus_log10_energy_rms"
    names = list(forest_features(train.events))
    settings = {
        "estimator": type(estimator).__name__,
        "n_trees": n_trees,
        **best,
        "n_train": len(train.target),
        "n_validation": len(validation.target),
        f"validation_{score_name}": float(best_score),
        "tried": [{**chosen, score_name: float(score)} for score, chosen in trials],
        "feature_importance": {
            name: round(float(value), 4) for name, value in zip(names, estimator.feature_importances_, strict=True)
        },
    }
    return Forest(kind, estimator, settings)


def _estimator(kind: str, n_trees: int, seed: int, threads: int, chosen: Mapping[str, Any]) -> Any:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    family = RandomForestRegressor if kind == "energy" else RandomForestClassifier
    return family(n_trees, random_state=seed, n_jobs=threads, **chosen)


def _fit(estimator: Any, features: np.ndarray, sample: Sample) -> None:
    estimator.fit(features, sample.target, sample_weight=sample.weights)
    # Threads add up the trees' answers in whatever order they finish: equal runs would differ in the last bits.
    estimator.set_params(n_jobs=1)


def _score(kind: str, estimator: Any, matrix: np.ndarray, sample: Sample) -> float:
    """The higher, the better."""
    if kind == "energy":
        return -float(statistics.rms(estimator.predict(matrix) - sample.target, sample.weights))
    gammaness = estimator.predict_proba(matrix)[:, 1]
    return float(statistics.auc(gammaness, sample.target == 1, sample.weights))
