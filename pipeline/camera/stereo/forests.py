"""The classical baseline for events of several telescopes: a forest per kind of camera, and a mean over the telescopes.

Each telescope's forest sees its image's parameters, the impact distance and the height of the maximum that the axes of
all images give, as in MAGIC [1]_ and magic-cta-pipe [2]_. A telescope's answer counts by the charge and the shape of
its image, and by what the camera's edge cuts off [3]_.

References
----------
.. [1] Aleksic, J. et al. (2016), Astropart. Phys. 72, 76 (arXiv:1409.5594), sect. 3.2 to 3.4.
.. [2] https://github.com/cta-observatory/magic-cta-pipe: 11 features, 150 trees.
.. [3] https://github.com/cta-observatory/ctapipe/pull/3062
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.camera import baselines
from pipeline.camera.baselines import Forest, Sample, train_forest
from pipeline.camera.stereo import hillas
from pipeline.camera.stereo.hillas import StereoGeometry, reconstruct
from pipeline.errors import TooFewEventsError

_IMPACT, _H_MAX = "stereo_impact_m", "stereo_h_max_m"
FEATURES = (*baselines.FEATURES, _IMPACT, _H_MAX)

#: Columns of images that the forests and the mean over telescopes read.
COLUMNS = tuple(dict.fromkeys((*baselines.FOREST_COLUMNS, *hillas.COLUMNS)))

# A telescope counts at least so much of its charge, so that an event of round images has a mean, too.
_LEAST_SHARE = 1e-3


@dataclass(frozen=True)
class StereoImages:
    """Images of events that several telescopes saw; see `stereo_images`.

    Attributes
    ----------
    columns : mapping
        Event columns, shape (n_images,).
    event : ndarray of int, shape (n_images,)
        Number of each image's event.
    n_events : int
    camera : ndarray of str, shape (n_images,)
        Identity of each image's camera.
    geometry : StereoGeometry
        The showers' axes from those of the images.
    """

    columns: Mapping[str, np.ndarray]
    event: np.ndarray
    n_events: int
    camera: np.ndarray
    geometry: StereoGeometry

    @property
    def containment_weights(self) -> np.ndarray:
        """How much each telescope counts, shape (n_images,): (I (1 - w/l))^2 (1 - leakage)^4."""
        columns = {name: np.asarray(column, np.float64) for name, column in self.columns.items() if name in COLUMNS}
        with np.errstate(divide="ignore", invalid="ignore"):
            elongation = 1 - columns["hillas_width"] / columns["hillas_length"]
        shares = (elongation, 1 - columns["leakage_intensity_width_2"])
        elongation, inside = (np.clip(np.nan_to_num(share), _LEAST_SHARE, 1) for share in shares)
        return (columns["hillas_intensity"] * elongation) ** 2 * inside**4

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Weighted mean over the telescopes of each event, shape (n_events,)."""
        weights = self.containment_weights
        total = np.bincount(self.event, weights, self.n_events)
        return np.bincount(self.event, weights * values, self.n_events) / np.where(total > 0, total, np.nan)


def stereo_images(
    columns: Mapping[str, np.ndarray], event: np.ndarray, n_events: int, camera: np.ndarray, radius_deg: np.ndarray
) -> StereoImages:
    """Reconstruct the axes of events and give each image its distance from the axis and the height of the maximum.

    Parameters
    ----------
    columns : mapping
        `COLUMNS` and others, shape (n_images,).
    event : ndarray of int, shape (n_images,)
    n_events : int
    camera : ndarray of str, shape (n_images,)
    radius_deg : ndarray, shape (n_images,)
        Radius of each image's camera.

    Raises
    ------
    UserError
        If the columns lack pointings or positions of telescopes.
    """
    geometry = reconstruct(columns, event, n_events, camera_radius_deg=radius_deg)
    own = {_IMPACT: geometry.impact_m(columns, event), _H_MAX: geometry.h_max_m[event]}
    return StereoImages({**columns, **own}, event, n_events, camera, geometry)


@dataclass(frozen=True)
class StereoForest:
    """A trained forest for each kind of camera."""

    forests: Mapping[str, Forest]

    @property
    def settings(self) -> dict[str, Any]:
        """How each was chosen, by the camera's identity; of one camera, its settings alone."""
        settings = {camera: forest.settings for camera, forest in self.forests.items()}
        return settings if len(settings) > 1 else next(iter(settings.values()))

    def predict(self, images: StereoImages) -> np.ndarray:
        """Answer for each image, shape (n_images,); NaN for a camera that the training split does not have."""
        answers = np.full(len(images.event), np.nan)
        for camera, forest in self.forests.items():
            if len(rows := np.flatnonzero(images.camera == camera)):
                answers[rows] = forest.predict(_rows(images.columns, rows))
        return answers


def train_stereo_forest(
    train: tuple[StereoImages, np.ndarray, np.ndarray],
    validation: tuple[StereoImages, np.ndarray, np.ndarray],
    *,
    classes: Mapping[int, str] | None = None,
    n_trees: int = 200,
    seed: int = 0,
    threads: int = 1,
) -> StereoForest:
    """Train a forest for each kind of camera; settings are chosen as those of a single telescope's forest.

    Parameters
    ----------
    train, validation : (StereoImages, ndarray, ndarray)
        Images, what is to be estimated of each, and weights, shape (n_images,).
    classes, n_trees, seed, threads
        See `pipeline.camera.baselines.train_forest`.

    Raises
    ------
    TooFewEventsError
        If a camera has fewer than 20 images (of each class) in a split.
    """
    forests = {}
    for camera in np.unique(train[0].camera):
        samples = []
        for images, target, weights in (train, validation):
            rows = np.flatnonzero(images.camera == camera)
            samples.append(Sample(_rows(images.columns, rows), target[rows], weights[rows]))
        try:
            forests[str(camera)] = train_forest(
                *samples, classes=classes, features=FEATURES, n_trees=n_trees, seed=seed, threads=threads
            )
        except TooFewEventsError as error:
            raise TooFewEventsError(f"camera {camera}: {error}") from error
    return StereoForest(forests)


def _rows(columns: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: column[rows] for name, column in columns.items()}
