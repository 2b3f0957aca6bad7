"""Direction of the primary gamma ray: from network outputs to the sky.

An image has a long axis, and the source lies on it, at one of its two ends. Which end is hard to tell for faint images
(in a forest, 71 % are right below 60 GeV). A network that gives the vector itself then answers in between, near the
centre of gravity, where the source never is; and no continuous function of an image gives a vector along its axis, for
the image comes back to itself after half a turn and the vector to its opposite. So line and end are two answers: the
line as |d| (cos 2a, sin 2a), which half a turn leaves unchanged, and a vector h that points to the end with certainty
|h|. The end at angle a has the probability 1 / (1 + exp(-h·u)), u = (cos a, sin a).

The image parameters give the long axis well, and tell which of its ends is nearer to the camera's centre. So each of
the two answers is a sum: what the network gives freely, and a multiple of what the axis that points away from the
centre would give. These multiples do not depend on how the image is turned: a network learns them as fast as an energy.

Several telescopes of an event tell the end, and their network gives the vector alone, from near
the point where the axes of the images meet.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np

from pipeline.directions import RADIUS_68, altaz_of_fov, offset_deg, outward
from pipeline.tasks.direction.targets import origin_deg
from pipeline.tasks.interfaces import Decoder
from pipeline.tiles.shards import TileBatch

#: Range of the predicted log variance of the direction [deg2]: from 0.002 to 5 deg.
LOG_VARIANCE_RANGE = (-12.0, 3.2)

_FEWEST_WITH_ENDS = 6  # line, end, and a multiple of the axis for each


class Displacement(NamedTuple):
    """The source relative to the centre of gravity.

    Attributes
    ----------
    vector_deg : ndarray, shape (N, 2)
        Along fov_lon and fov_lat.
    end_log_odds : ndarray, shape (N,)
        Logarithm of the odds of this end, at least 0; infinite where there is no other.
    """

    vector_deg: np.ndarray
    end_log_odds: np.ndarray


def has_ends(outputs: np.ndarray) -> bool:
    """Whether `outputs` (N, K) are line and end, and not the vector."""
    return outputs.shape[1] >= _FEWEST_WITH_ENDS


def has_variance(outputs: np.ndarray) -> bool:
    """Whether the last of `outputs` (N, K) is the log variance."""
    return outputs.shape[1] in (3, 7)


def line_and_end(outputs: Any, outward: Any) -> tuple[Any, Any, Any, Any]:
    """|d| cos 2a, |d| sin 2a and h of `outputs` (N, 6 or 7), shape (N,) each: free parts and multiples of the axis.

    Parameters
    ----------
    outputs, outward : ndarray or Tensor
        `outward` (N, 2): unit vectors along the images' axes, see `pipeline.directions.outward`.
    """
    cosine, sine = outward[:, 0], outward[:, 1]
    line, end = outputs[:, 4], outputs[:, 5]
    return (
        outputs[:, 0] + line * (cosine * cosine - sine * sine),
        outputs[:, 1] + line * (2 * cosine * sine),
        outputs[:, 2] + end * cosine,
        outputs[:, 3] + end * sine,
    )


def displacement(outputs: np.ndarray, outward: np.ndarray | None = None) -> Displacement:
    """The vector, or line and end joined, of `outputs` (N, K); line and end need the axes of the images."""
    if not has_ends(outputs):
        return Displacement(outputs[:, :2].astype(np.float64), np.full(len(outputs), np.inf))
    axis_cos, axis_sin, head_lon, head_lat = line_and_end(outputs.astype(np.float64), outward)
    angle = np.arctan2(axis_sin, axis_cos) / 2
    along = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    logit = head_lon * along[:, 0] + head_lat * along[:, 1]
    distance = np.hypot(axis_cos, axis_sin) * np.where(logit < 0, -1.0, 1.0)
    return Displacement(distance[:, None] * along, np.abs(logit))


class DirectionDecoder(Decoder):
    """Outputs: the displacement (line and end, or a vector), and the log variance if the network gives it."""

    columns: ClassVar[tuple[str, ...]] = (
        "hillas_fov_lon", "hillas_fov_lat", "pointing_alt_deg", "pointing_az_deg",
    )  # fmt: skip
    uncertainties: ClassVar[tuple[str, ...]] = (
        "reco_alt_uncert_deg", "reco_az_uncert_deg", "reco_ang_distance_uncert_deg",
    )  # fmt: skip

    def columns_of(self, n_outputs: int) -> tuple[str, ...]:
        """With line and end, the axis of the image, too: an event of several telescopes has none."""
        return self.columns + (("hillas_psi", "hillas_phi") if n_outputs >= _FEWEST_WITH_ENDS else ())

    def decode(self, outputs: np.ndarray, batch: TileBatch) -> dict[str, np.ndarray]:
        """Direction in the field of view and in the sky, shape (N,) each; alt and az are NaN without a pointing."""
        events = batch.events
        found = displacement(outputs, outward(events) if has_ends(outputs) else None)
        lon, lat = origin_deg(events).astype(np.float64).T
        pointing = events["pointing_alt_deg"], events["pointing_az_deg"]
        away = np.where(np.isfinite(found.end_log_odds), 1.0, np.nan)
        other = altaz_of_fov(lon - away * found.vector_deg[:, 0], lat - away * found.vector_deg[:, 1], *pointing)
        lon, lat = lon + found.vector_deg[:, 0], lat + found.vector_deg[:, 1]
        alt, az = altaz_of_fov(lon, lat, *pointing)
        sigma = np.full(len(outputs), np.nan)
        if has_variance(outputs):
            sigma = np.exp(0.5 * np.clip(outputs[:, -1].astype(np.float64), *LOG_VARIANCE_RANGE))
        # An event has no axis of its own.
        psi = np.radians(np.asarray(events.get("hillas_psi", np.full(len(outputs), np.nan)), np.float64))
        along_psi = found.vector_deg[:, 0] * np.cos(psi) + found.vector_deg[:, 1] * np.sin(psi)
        return {
            "reco_fov_lon_deg": lon,
            "reco_fov_lat_deg": lat,
            "reco_alt_deg": alt,
            "reco_az_deg": az,
            "reco_alt_uncert_deg": sigma,
            "reco_az_uncert_deg": sigma / np.cos(np.radians(alt)),
            "reco_ang_distance_uncert_deg": RADIUS_68 * sigma,
            "reco_alt_other_end_deg": other[0],
            "reco_az_other_end_deg": other[1],
            "reco_end_log_odds": found.end_log_odds,
            "reco_disp_deg": along_psi,
            "reco_sign_score": np.where(np.isfinite(found.end_log_odds), np.tanh(found.end_log_odds / 2), np.nan),
        }

    def pulls(self, values: Mapping[str, np.ndarray], events: Mapping[str, np.ndarray]) -> np.ndarray:
        """Along fov_lon and fov_lat, at that end of the image which is nearer to the truth, where there are two.

        The uncertainty is that of the right end: whether it is right is in `reco_sign_score`.
        """
        truth = np.stack([events["true_fov_lon_deg"], events["true_fov_lat_deg"]], axis=1)
        reco = np.stack([values["reco_fov_lon_deg"], values["reco_fov_lat_deg"]], axis=1)
        sigma = values["reco_ang_distance_uncert_deg"] / RADIUS_68
        has_other = np.isfinite(values["reco_alt_other_end_deg"])[:, None]
        reco = np.where(has_other, nearer_end(reco, origin_deg(events), truth), reco)
        return (reco - truth) / np.where(sigma > 0, sigma, np.nan)[:, None]


def nearer_end(reco_deg: np.ndarray, cog_deg: np.ndarray, true_deg: np.ndarray) -> np.ndarray:
    """The reconstructed source, or its mirror image at the other end of the image if that is nearer to the truth.

    Places in the field of view, shape (n, 2). The other end is as far from the centre of gravity, on the other side.
    """
    other = 2 * cog_deg - reco_deg
    is_nearer = offset_deg(*other.T[::-1], *true_deg.T[::-1]) < offset_deg(*reco_deg.T[::-1], *true_deg.T[::-1])
    return np.where(is_nearer[:, None], other, reco_deg)


DECODER = DirectionDecoder()
