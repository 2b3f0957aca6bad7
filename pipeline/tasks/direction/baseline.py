"""Directions as current analyses reconstruct them with one telescope or several: the "disp" method.

The source lies on the long axis of the image; one forest gives its distance from the centre of gravity, another the end
[1]_. Signs are relative to the axis that points away from the camera's centre, as those of the forest's features are.
With several telescopes the ends are those that agree best, and need no forest.

References
----------
.. [1] Abe, K. et al. (2023), ApJ 956, 80 (arXiv:2309.11315), sect. 3.4.
"""

from collections.abc import Mapping

import numpy as np

from pipeline.camera.baselines import Estimand
from pipeline.camera.dl2.directions import DirectionMean
from pipeline.camera.stereo.forests import StereoImages
from pipeline.directions import altaz_of_fov, outward
from pipeline.tasks.direction.targets import displacement_deg

_TRUTH = ("true_fov_lon_deg", "true_fov_lat_deg", "hillas_fov_lon", "hillas_fov_lat")
NORM, SIGN = "disp_norm_deg", "disp_sign"


def _disp_deg(events: Mapping[str, np.ndarray]) -> np.ndarray:
    """Displacement of the true source along `outward`, shape (n,); 0 where the image has no axis."""
    disp = (displacement_deg(events) * outward(events)).sum(axis=1)
    return np.where(np.isfinite(disp), disp, 0.0)


ESTIMANDS = {
    NORM: Estimand(lambda events: np.abs(_disp_deg(events)), columns=_TRUTH),
    SIGN: Estimand(
        lambda events: (_disp_deg(events) > 0).astype(float),
        columns=_TRUTH,
        classes={1: "images with the source outwards", 0: "images with the source inwards"},
    ),
}


def source_deg(events: Mapping[str, np.ndarray], answers: Mapping[str, np.ndarray]) -> np.ndarray:
    """Reconstructed source in the field of view, shape (n, 2): along fov_lon, along fov_lat.

    Parameters
    ----------
    events : mapping
        Image parameters. An image without an axis (a round one) gives its centre of gravity.
    answers : mapping
        Of the forests for `ESTIMANDS`.
    """
    disp = answers[NORM] * np.where(answers[SIGN] >= 0.5, 1.0, -1.0)
    center = np.stack([events["hillas_fov_lon"], events["hillas_fov_lat"]], axis=1).astype(np.float64)
    return center + np.nan_to_num(disp[:, None] * outward(events))


def event_altaz_deg(images: StereoImages, norm_deg: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Altitude and azimuth of the source of each event, shape (n_events,).

    The weighted mean of the telescopes' directions, with the ends of their images that scatter least about it.

    Parameters
    ----------
    images : StereoImages
    norm_deg : ndarray, shape (n_images,)
        What the forests for `NORM` answer.
    """
    columns, n = images.columns, len(images.event)
    center = np.stack([columns["hillas_fov_lon"], columns["hillas_fov_lat"]], axis=1).astype(np.float64)
    step = np.nan_to_num(norm_deg[:, None] * outward(columns))
    values = {"alt_uncert": np.full(n, np.nan), "end_log_odds": np.zeros(n)}
    for name, place in (("", center + step), ("_other_end", center - step)):
        pointing = columns["pointing_alt_deg"], columns["pointing_az_deg"]
        values[f"alt{name}"], values[f"az{name}"] = altaz_of_fov(place[:, 0], place[:, 1], *pointing)
    mean = DirectionMean(images.n_events)
    mean.add(images.event, values, images.containment_weights)
    found = mean.result()
    return found["alt"], found["az"]
