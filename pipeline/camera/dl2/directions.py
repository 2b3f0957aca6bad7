"""One direction per event from those of its telescopes, each of which leaves open at which end of its image it is."""

from collections.abc import Iterator, Mapping
from itertools import product

import numpy as np

from pipeline.directions import RADIUS_68, altaz_of_vectors, unit_vectors

# All choices of ends are tried for so many telescopes of an event, those with the largest weights; with their result,
# each further one takes the end that fits better.
_MOST_TRIED = 6
_BLOCK_BYTES = 64 << 20


class DirectionMean:
    """Mean of the telescopes' directions, with that choice of ends of their images that fits best.

    Each telescope gives two directions, one for each end of its image, with odds. For each choice of ends the mean is
    taken, and of all choices the most likely one: the least sum of squared distances from the mean, in units of the
    stated uncertainties, less twice the logarithm of the odds. A mean of directions at wrong ends would be none. MAGIC
    chooses by the least scatter alone [1]_.

    Where the telescopes state uncertainties, weights are inverse variances, and the uncertainty is that of such a mean;
    else weights are those given (image sizes), and the least scatter alone decides. Unit vectors are averaged, so that
    north is no edge.

    Parameters
    ----------
    n_events : int
        Number of events.

    References
    ----------
    .. [1] Aleksic, J. et al. (2016), Astropart. Phys. 72, 76, sect. 3.4 (arXiv:1409.5594).
    """

    def __init__(self, n_events: int) -> None:
        self.n_events = n_events
        self._parts: list[dict[str, np.ndarray]] = []

    def add(self, event: np.ndarray, values: Mapping[str, np.ndarray], weight: np.ndarray) -> np.ndarray:
        """Add one telescope's images; see `Combiner`.

        Reads `alt`, `az`, `alt_uncert` [deg]; `alt_other_end`, `az_other_end` [deg] and `end_log_odds`, the logarithm
        of the odds of the end that the telescope itself chose.
        """
        columns = {name: np.asarray(column, np.float64) for name, column in values.items()}
        weight = np.asarray(weight, np.float64)
        valid = np.isfinite(columns["alt"]) & np.isfinite(columns["az"]) & (weight > 0)
        ends = [
            unit_vectors(columns[f"alt{end}"][valid], columns[f"az{end}"][valid]) for end in ("", "_other_end")
        ]  # fmt: skip
        sigma = np.radians(columns["alt_uncert"][valid])
        part = {"event": event[valid], "vectors": np.stack(ends, axis=1), "sigma": sigma, "weight": weight[valid]}
        self._parts.append(part | {"log_odds": columns["end_log_odds"][valid]})
        return valid

    def result(self) -> dict[str, np.ndarray]:
        """`alt`, `az`, `alt_uncert`, `az_uncert` and `ang_distance_uncert` [deg]; see `Combiner`."""
        vectors, sigma = np.full((self.n_events, 3), np.nan), np.full(self.n_events, np.nan)
        if self._parts:
            images = {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}
            order = np.lexsort((-images["weight"], images["event"]))
            images = {name: column[order] for name, column in images.items()}
            events, first, counts = np.unique(images["event"], return_index=True, return_counts=True)
            for n in np.unique(counts):
                for rows, here in _blocks(first[counts == n], events[counts == n], n):
                    part = {name: column[rows] for name, column in images.items()}
                    vectors[here], sigma[here] = _most_likely(part)
        alt, az = altaz_of_vectors(vectors)
        sigma = np.degrees(sigma)
        return {
            "alt": alt,
            "az": az,
            "alt_uncert": sigma,
            "az_uncert": sigma / np.cos(np.radians(alt)),
            "ang_distance_uncert": RADIUS_68 * sigma,
        }


def _blocks(first: np.ndarray, events: np.ndarray, n: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows (m, n) of the images of events with n telescopes, and these events, in blocks of bounded size."""
    size = max(_BLOCK_BYTES // (8 * 3 * n * 2 ** min(n, _MOST_TRIED)), 1)
    for start in range(0, len(first), size):
        here = slice(start, start + size)
        yield first[here, None] + np.arange(n), events[here]


def _most_likely(part: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean vectors (m, 3) and their uncertainty [rad] (m,) of m events of n telescopes."""
    vectors, sigma, log_odds = part["vectors"], part["sigma"], part["log_odds"]
    is_stated = (np.isfinite(sigma) & (sigma > 0)).all(axis=1)
    weight = np.where(is_stated[:, None], 1 / np.where(is_stated[:, None], sigma, 1.0) ** 2, part["weight"])
    log_odds = np.where(is_stated[:, None], log_odds, 0.0)
    n_tried = min(vectors.shape[1], _MOST_TRIED)
    # One telescope has nothing to choose by but its own odds.
    choices = np.array(list(product((0, 1), repeat=n_tried))) if n_tried > 1 else np.zeros((1, 1), int)
    tried = np.stack(
        [vectors[:, telescope, choices[:, telescope]] for telescope in range(n_tried)], axis=2
    )  # (m, choices, n_tried, 3)
    own = weight[:, None, :n_tried, None]
    mean = (own * tried).sum(axis=2) / own.sum(axis=2)
    cost = (own * (tried - mean[:, :, None]) ** 2).sum(axis=(2, 3))
    cost = cost + 2 * (choices * log_odds[:, None, :n_tried]).sum(axis=2)
    best = np.argmin(cost, axis=1)
    rows = np.arange(len(best))
    chosen = [tried[rows, best, telescope] for telescope in range(n_tried)]
    for telescope in range(n_tried, vectors.shape[1]):
        off = weight[:, telescope, None] * ((vectors[:, telescope] - mean[rows, best][:, None]) ** 2).sum(axis=2)
        off[:, 1] += 2 * log_odds[:, telescope]
        chosen.append(vectors[rows, telescope, np.argmin(off, axis=1)])
    mean = (weight[:, :, None] * np.stack(chosen, axis=1)).sum(axis=1)
    uncertainty = np.where(is_stated, 1 / np.sqrt(weight.sum(axis=1)), np.nan)
    return mean, uncertainty
