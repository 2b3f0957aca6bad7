"""The classical baseline: a random forest on Hillas parameters, as in current analyses.

It gets what a network gets: the same training images with the same weights, and settings chosen on the same
validation split. lstchain [1]_ and ctapipe train forests on such parameters.

References
----------
.. [1] Abe, K. et al. (2023), ApJ 956, 80 (arXiv:2309.11315), sect. 3.4 and table 2.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from pipeline import statistics
from pipeline.errors import TooFewEventsError
from pipeline.inputs.image import scalar_columns, scalar_value

#: Name of the method, in figures and products.
FOREST = "forest"

#: Scalars of an image that the forest sees: signs are relative to the camera's centre, positive skewness and time slope
#: point away from it.
FEATURES = (
    "log10_hillas_intensity", "hillas_length", "hillas_width", "hillas_width_over_length", "log10_hillas_density",
    "hillas_r", "hillas_miss", "hillas_skewness_outward", "hillas_kurtosis", "timing_slope_outward",
    "concentration_cog", "concentration_core", "concentration_pixel", "leakage_intensity_width_2", "n_islands",
    "n_pixels",
)  # fmt: skip

#: Event columns of a camera shard that `forest_features` reads.
FOREST_COLUMNS = tuple(dict.fromkeys(column for name in FEATURES for column in scalar_columns(name)))

#: Tried on the validation split; the best one is trained again with all trees.
GRID = {"min_samples_leaf": (2, 5, 10, 20), "max_features": ("sqrt", 0.6)}
_TREES_WHILE_TUNING = 50
_FEWEST_IMAGES = 20


def forest_features(events: Mapping[str, np.ndarray], features: Sequence[str] = FEATURES) -> np.ndarray:
    """Image parameters as the forest sees them, shape (N, n_features), float32; NaN where undefined.

    Parameters
    ----------
    events : mapping
        Arrays of shape (N,) under the names of `FOREST_COLUMNS`; angles in degrees.
    features : sequence of str
    """
    return np.column_stack([scalar_value(name, events) for name in features]).astype(np.float32)


@dataclass(frozen=True)
class Estimand:
    """What a forest estimates.

    Attributes
    ----------
    target : callable
        Event columns -> what is to be estimated, shape (N,).
    columns : tuple of str
        Event columns with the truth that `target` reads.
    classes : mapping, optional
        Value of the target -> name of the class, for a classification, judged by its AUC (the score is the share of
        class 1); without, a regression, judged by its rms.
    weights : callable, optional
        Event columns -> factors of the images' weights in the fit, shape (N,).
    """

    target: Callable[[Mapping[str, np.ndarray]], np.ndarray]
    columns: tuple[str, ...]
    classes: Mapping[int, str] | None = None
    weights: Callable[[Mapping[str, np.ndarray]], np.ndarray] | None = None

    def weights_of(self, events: Mapping[str, np.ndarray]) -> np.ndarray:
        """Weights of the images in the fit, shape (N,)."""
        return events["weights"] if self.weights is None else events["weights"] * self.weights(events)


@dataclass(frozen=True)
class Sample:
    """Images of one split: their parameters, what is to be estimated, and weights.

    Attributes
    ----------
    events : mapping of ndarray, shape (N,)
        See `FOREST_COLUMNS`.
    target : ndarray, shape (N,)
    weights : ndarray, shape (N,)
    """

    events: Mapping[str, np.ndarray]
    target: np.ndarray
    weights: np.ndarray

    def check(self, split: str, classes: Mapping[int, str] | None) -> None:
        """Refuse a split with too few images (of each class) with weight."""
        target = self.target[self.weights > 0]
        counts = {"images": len(target)}
        if classes is not None:
            counts = {name: int((target == value).sum()) for value, name in classes.items()}
        for name, n in counts.items():
            if n < _FEWEST_IMAGES:
                raise TooFewEventsError(
                    f"the {split} split has {n} {name} with weight; the forest needs at least {_FEWEST_IMAGES}: "
                    "simulate more runs or loosen tiles.camera.cuts"
                )


@dataclass(frozen=True)
class Forest:
    """A trained forest and how it was chosen."""

    estimator: Any
    settings: dict[str, Any]
    features: Sequence[str] = FEATURES

    def predict(self, events: Mapping[str, np.ndarray]) -> np.ndarray:
        """The estimated target, or the score of class 1; shape (N,)."""
        return _answers(self.estimator, forest_features(events, self.features))


def train_forest(
    train: Sample,
    validation: Sample,
    *,
    classes: Mapping[int, str] | None = None,
    features: Sequence[str] = FEATURES,
    n_trees: int = 200,
    seed: int = 0,
    threads: int = 1,
) -> Forest:
    """Choose a forest's settings on the validation split and train it.

    Parameters
    ----------
    train, validation : Sample
    classes : mapping, optional
        As `Estimand` has them: a classification; without, a regression.
    features : sequence of str
        Scalars of an image.
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
    train.check("training", classes)
    validation.check("validation", classes)
    seen, held_out = (forest_features(sample.events, features) for sample in (train, validation))
    trials = []
    for values in product(*GRID.values()):
        chosen = dict(zip(GRID, values, strict=True))
        estimator = _estimator(classes, min(n_trees, _TREES_WHILE_TUNING), seed, threads, chosen)
        _fit(estimator, seen, train)
        trials.append((_score(_answers(estimator, held_out), validation, classes), chosen))
    best_score, best = max(trials, key=lambda trial: trial[0])
    estimator = _estimator(classes, n_trees, seed, threads, best)
    _fit(estimator, seen, train)
    score_name = "minus_rms" if classes is None else "auc"
    settings = {
        "estimator": type(estimator).__name__,
        "n_trees": n_trees,
        **best,
        "n_train": len(train.target),
        "n_validation": len(validation.target),
        f"validation_{score_name}": float(best_score),
        "tried": [{**chosen, score_name: float(score)} for score, chosen in trials],
        "feature_importance": {
            name: round(float(value), 4) for name, value in zip(features, estimator.feature_importances_, strict=True)
        },
    }
    return Forest(estimator, settings, features)


def _estimator(
    classes: Mapping[int, str] | None, n_trees: int, seed: int, threads: int, chosen: Mapping[str, Any]
) -> Any:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    family = RandomForestRegressor if classes is None else RandomForestClassifier
    return family(n_trees, random_state=seed, n_jobs=threads, **chosen)


def _fit(estimator: Any, features: np.ndarray, sample: Sample) -> None:
    estimator.fit(features, sample.target, sample_weight=sample.weights)
    # Threads add up the trees' answers in whatever order they finish: equal runs would differ in the last bits.
    estimator.set_params(n_jobs=1)


def _answers(estimator: Any, features: np.ndarray) -> np.ndarray:
    if hasattr(estimator, "predict_proba"):
        return estimator.predict_proba(features)[:, 1]
    return estimator.predict(features)


def _score(answers: np.ndarray, sample: Sample, classes: Mapping[int, str] | None) -> float:
    """The higher, the better."""
    if classes is None:
        return -float(statistics.rms(answers - sample.target, sample.weights))
    return float(statistics.auc(answers, sample.target == 1, sample.weights))
