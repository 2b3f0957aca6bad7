"""The frames or camera images that a network was trained on, and how far another one is from them.

Each quantity of a frame or image has a deviation: in units of its standard deviation within the range of training (1st
to 99th percentile), and beyond it in thirds of a margin, which holds the errors of measurement and differences that do
no harm. A range has sharp ends, because frames of training are drawn between limits: of stars just sharper than all of
training, a network makes cosmic rays. The distance of a frame is the Mahalanobis distance of its deviations, so that it
also counts combinations that training never had; its score is that distance over the one of which 0.5 % of the
frames, or validation images, are further away.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

# Fewer training frames do not show a range.
_MIN_FRAMES, _MIN_IMAGES = 5, 200
_PERCENTILES = (1, 99)
# A margin counts as so many standard deviations.
_PER_MARGIN = 3.0
# Share of the validation that is further away than the limit.
_BEYOND_LIMIT = 0.005
# The farthest of a few validation frames can be any odd one: a limit of 94 was that of a frame whose stated uncertainty
# was a tenth of its noise, and nothing was unlike training any more.
_SPARED = 1.5
# Deviation of a value that is a margin beyond a range in which training is evenly spread.
_LEAST_LIMIT = _PER_MARGIN + 3**0.5


class Quantity(NamedTuple):
    """A number that describes a frame or an image: `pipeline.sky.frame_statistics.FrameStatistics`, `image_features`.

    Attributes
    ----------
    name, short, words, unit : str
        `short` is for a FITS card, `words` for a sentence.
    absolute, relative : float
        Margin about the range of training.
    below : bool
        Whether values below the mean of training matter.
    """

    name: str
    short: str
    words: str
    unit: str = ""
    absolute: float = 0.0
    relative: float = 0.0
    below: bool = False


_X, _Y, _DIAGONAL = "neighbours along x", "neighbours along y", "diagonal neighbours"
QUANTITIES = (
    Quantity("fwhm_px", "FWHM", "FWHM of the stars", "px", relative=0.05, below=True),
    Quantity("ellipticity", "ellipticity", "ellipticity of the stars", absolute=0.1),
    Quantity("noise_correlation_x", "lag-1 x", f"noise correlation of {_X}", absolute=0.1, below=True),
    Quantity("noise_correlation_y", "lag-1 y", f"noise correlation of {_Y}", absolute=0.1, below=True),
    Quantity("noise_correlation_diagonal", "lag-1 xy", f"noise correlation of {_DIAGONAL}", absolute=0.1, below=True),
    Quantity("colour_pattern", "2x2 pattern", "differences of the background within 2 x 2 pixels", "sigma", 0.2),
    Quantity("source_density", "sources/kpx", "sources per 1,000 pixels", absolute=1.0, relative=1.0),
    Quantity("hit_density", "hits/kpx", "peaks of single pixels per 1,000 pixels", absolute=1.0, relative=1.0),
    Quantity("dynamic_range", "log peak/noise", "log10 of the brightest pixels over the noise", absolute=0.5),
    Quantity("noise_over_err", "noise/ERR", "noise over the stated uncertainty", absolute=0.15, below=True),
    Quantity("share_above", "u>5/kpx", "pixels above 5 sigma per 1,000", absolute=5.0, relative=1.0),
    Quantity("share_below", "u<-5/kpx", "pixels below -5 sigma per 1,000", absolute=1.0, relative=1.0),
    Quantity("adu_step", "step/noise", "step of the digital values", "sigma", absolute=0.05, relative=0.5),
    Quantity("gradient", "gradient", "range of the background across the frame", "sigma", 1.0, 1.0),
    Quantity("row_noise", "row noise", "scatter of the rows' means over that of their noise", "", 0.15, 0.1),
    Quantity("column_noise", "column noise", "scatter of the columns' means over that of their noise", "", 0.15, 0.1),
)
#: Of camera images. What belongs to the telescope and the sky hardly varies in a simulation, so that a change of it
#: shows; showers differ by themselves, and count where they are far beyond all of training.
IMAGE_QUANTITIES = (
    Quantity("pointing_alt_deg", "altitude", "altitude of the pointing", "deg", absolute=3.0, below=True),
    Quantity("dark_level_pe", "dark level", "level of dark tile pixels", "p.e.", absolute=0.25, below=True),
    Quantity("dark_noise_pe", "dark noise", "noise of dark tile pixels", "p.e.", relative=0.1, below=True),
    Quantity("no_charge_share", "no charge", "share of tile pixels without charge", absolute=0.03, below=True),
    Quantity("log10_size", "log size", "log10 of the image size in p.e.", absolute=0.5, below=True),
    Quantity("n_islands", "islands", "islands", absolute=2.0, relative=0.5),
    Quantity("log10_width", "log width", "log10 of the width in deg", absolute=0.3, below=True),
    Quantity("log10_length", "log length", "log10 of the length in deg", absolute=0.3, below=True),
    Quantity("time_spread_ns", "time spread", "spread of the pulse times", "ns", absolute=3.0, relative=0.5),
    Quantity("leakage", "leakage", "share of the charge at the camera's edge", absolute=0.2),
)
_BY_NAME = {quantity.name: quantity for quantity in (*QUANTITIES, *IMAGE_QUANTITIES)}


class TrainedRange(BaseModel):
    """A quantity among the frames or images of training.

    Attributes
    ----------
    mean, low, high : float
        `low` and `high` are its 1st and its 99th percentile.
    least, most : float, optional
        Second value from either end, where few frames are known: what lies out there is not unlike training, and one
        frame that was measured wrongly does not count.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    mean: float
    low: float
    high: float
    least: float | None = None
    most: float | None = None

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        if self.name not in _BY_NAME:
            raise ValueError(f"unknown quantity: {self.name}")
        return self

    @property
    def quantity(self) -> Quantity:
        """What it is."""
        return _BY_NAME[self.name]

    def margin(self, edge: float, n_frames: int) -> float:
        """By how much a value beyond an edge of the range counts as three standard deviations.

        The fewer frames there were, the wider: the range of n values is expected to be wider than they are by
        1 / (n - 1) at either end.
        """
        unseen = (self.high - self.low) / (n_frames - 1)
        return max(unseen + self.quantity.absolute + self.quantity.relative * abs(edge), 1e-6)

    def reaches(self, n_frames: int) -> tuple[float, float]:
        """Values that count as three standard deviations, below and above the range."""
        below, above = self.margin(self.low, n_frames), self.margin(self.high, n_frames)
        if self.least is not None and self.most is not None:
            below, above = max(below, self.low - self.least), max(above, self.most - self.high)
        return below, above

    def __str__(self) -> str:
        """For readers."""
        return f"{self.quantity.words}: {self.low:.3g} to {self.high:.3g} {self.quantity.unit}".rstrip()


class Unlikeness(NamedTuple):
    """How far a frame is from those of training.

    Attributes
    ----------
    score : float
        Above 1, it is unlike them.
    outside : tuple of str
        Names of the quantities that are beyond the limit by themselves.
    text : str
        What is unlike training, for a sentence; empty for a score up to 1.
    short : str
        The same for a FITS card, 68 characters at most.
    """

    score: float
    outside: tuple[str, ...] = ()
    text: str = ""
    short: str = ""


class UnlikeImages(NamedTuple):
    """How far camera images are from those of training.

    Attributes
    ----------
    score : ndarray, shape (N,)
        Above 1, an image is unlike them.
    outside : ndarray of bool, shape (N, n)
        Quantities, in the order of `Population.ranges`, that are beyond the limit by themselves.
    """

    score: np.ndarray
    outside: np.ndarray


class Population(BaseModel):
    """The frames or images of training.

    Attributes
    ----------
    ranges : tuple of TrainedRange, length n
        Quantities that at least five frames have.
    covariance : tuple of tuple of float, shape (n, n)
        Of the quantities.
    n_frames : int
        How many frames, or images.
    limit : float
        Distance that scores 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    ranges: tuple[TrainedRange, ...]
    covariance: tuple[tuple[float, ...], ...]
    n_frames: int
    limit: float

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        n = len(self.ranges)
        if np.shape(self.covariance) != (n, n) or n == 0 or self.n_frames < _MIN_FRAMES or self.limit <= 0:
            raise ValueError(f"a covariance of shape {np.shape(self.covariance)} and {n} ranges are no population")
        return self

    @classmethod
    def fit(
        cls, training: Sequence[Mapping[str, float | None]], validation: Sequence[Mapping[str, float | None]] = ()
    ) -> Self | None:
        """From the quantities of frames; None of fewer than five.

        Parameters
        ----------
        training : sequence of mapping
            Name -> value, None or absent where it could not be measured.
        validation : sequence of mapping
            Likewise, of other frames. Few frames do not show 0.5 %: the limit is at least the distance of one with one
            quantity a margin beyond the range of training.
        """
        known = [q.name for q in QUANTITIES if sum(f.get(q.name) is not None for f in training) >= _MIN_FRAMES]
        if not known:
            return None
        table = np.array([[np.nan if f.get(name) is None else f[name] for name in known] for f in training], float)
        fitted = cls._of_table(known, table)._with_tails(table)
        # Frames are few, and those of training, far more than quantities, are hardly nearer than others.
        return fitted._with_limit(
            np.array([fitted._distance(fitted._deviations(frame)) for frame in (*training, *validation)])
        )

    @classmethod
    def fit_images(cls, training: Mapping[str, np.ndarray], validation: Mapping[str, np.ndarray]) -> Self | None:
        """From the quantities of camera images (`pipeline.inputs.image_features`); None of fewer than 200.

        Parameters
        ----------
        training, validation : mapping
            Name -> values of N images, NaN where one could not be measured.
        """
        counts = {q.name: np.isfinite(training[q.name]).sum() for q in IMAGE_QUANTITIES if q.name in training}
        known = [name for name, count in counts.items() if count >= _MIN_IMAGES]
        if not known:
            return None
        fitted = cls._of_table(known, np.array([training[name] for name in known], float).T)
        return fitted._with_limit(fitted._distances(fitted._deviations_of(validation)))

    @classmethod
    def _of_table(cls, known: Sequence[str], table: np.ndarray) -> Self:
        """From values of shape (N, n); the limit is not yet that of the validation."""
        mean = np.nanmean(table, axis=0)
        ranges = []
        for name, centre, values in zip(known, mean, table.T, strict=True):
            low, high = np.nanpercentile(values, _PERCENTILES)
            ranges.append(TrainedRange(name=name, mean=_rounded(centre), low=_rounded(low), high=_rounded(high)))
        # What was not measured is taken for the mean.
        covariance = np.cov(np.nan_to_num(table - mean), rowvar=False).reshape(len(known), len(known))
        if len(table) <= 2 * len(known):  # more numbers than these frames can tell
            covariance = np.diag(np.diag(covariance))
        return cls(
            ranges=tuple(ranges),
            covariance=tuple(tuple(_rounded(value) for value in row) for row in covariance),
            n_frames=len(table),
            limit=1.0,
        )

    def _with_tails(self, table: np.ndarray) -> Self:
        """With the second values from either end: some quantities have long tails, in which training has been."""
        ends = [np.sort(values[np.isfinite(values)])[[1, -2]] for values in table.T]
        tails = [
            trained.model_copy(update={"least": _rounded(least), "most": _rounded(most)})
            for trained, (least, most) in zip(self.ranges, ends, strict=True)
        ]
        return self.model_copy(update={"ranges": tuple(tails)})

    def _with_limit(self, distances: np.ndarray) -> Self:
        """With the limit that these distances of the validation leave below it: all but one of a few hundred."""
        beyond = max(_BEYOND_LIMIT, _SPARED / max(len(distances), 1))
        farthest = float(np.quantile(distances, max(1 - beyond, 0.0))) if len(distances) else 0.0
        return self.model_copy(update={"limit": _rounded(max(_LEAST_LIMIT, farthest))})

    def compare(self, values: Mapping[str, float | None]) -> Unlikeness:
        """Score of a frame, and what makes it; what could not be measured does not count."""
        deviations = self._deviations(values)
        score = _rounded(self._distance(deviations) / self.limit)
        if score <= 1:
            return Unlikeness(score)
        ranges = {trained.name: trained for trained in self.ranges}
        order = sorted(deviations, key=lambda name: -self._part(deviations, name))
        outside = tuple(name for name in order if abs(deviations[name]) > self.limit)
        if not outside:
            named = [ranges[name] for name in order[:3]]
            text = ", ".join(f"{r.quantity.words} {values[r.name]:.3g} {r.quantity.unit}".rstrip() for r in named)
            short = " with ".join(f"{r.quantity.short} {values[r.name]:.2g}" for r in named[:2])
            return Unlikeness(score, (), f"{text} together", short)
        text = ", ".join(_sentence(ranges[name], values[name]) for name in outside)
        found = [_card(ranges[name], values[name]) for name in outside]
        short = found[0]
        for more in found[1:]:
            if len(short) + len(more) + 2 <= 68:
                short = f"{short}; {more}"
        return Unlikeness(score, outside, text, short)

    def compare_images(self, values: Mapping[str, np.ndarray]) -> "UnlikeImages":
        """Scores of N images, and the quantities that are beyond the limit by themselves.

        What could not be measured counts as the mean of training.
        """
        deviations = self._deviations_of(values)
        scores = self._distances(deviations) / self.limit
        return UnlikeImages(scores, np.abs(deviations) > self.limit)

    def _deviations_of(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """The same as `_deviations` for N images, shape (N, n)."""
        found = []
        for trained, unit in zip(self.ranges, self._units, strict=True):
            own = np.asarray(values[trained.name], float)
            inside = np.clip(own, trained.low, trained.high)
            margin = np.where(own < trained.low, *trained.reaches(self.n_frames))
            deviation = (inside - trained.mean) / unit + _PER_MARGIN * (own - inside) / margin
            matters = np.isfinite(own) & (trained.quantity.below | (own >= trained.mean))
            found.append(np.where(matters, deviation, 0.0))
        return np.stack(found, axis=1)

    def _distances(self, deviations: np.ndarray) -> np.ndarray:
        """Mahalanobis distances, shape (N,)."""
        inverse = np.linalg.inv(self._correlation([trained.name for trained in self.ranges]))
        return np.sqrt(np.einsum("ni,ij,nj->n", deviations, inverse, deviations, optimize=True))

    def _deviations(self, values: Mapping[str, float | None]) -> dict[str, float]:
        """In standard deviations, of the quantities that were measured and that matter."""
        found = {}
        for trained, unit in zip(self.ranges, self._units, strict=True):
            value = values.get(trained.name)
            if value is None or (value < trained.mean and not trained.quantity.below):
                continue
            inside = float(np.clip(value, trained.low, trained.high))
            margin = trained.reaches(self.n_frames)[int(value > trained.low)]
            found[trained.name] = (inside - trained.mean) / unit + _PER_MARGIN * (value - inside) / margin
        return found

    @property
    def _errors(self) -> np.ndarray:
        """Errors of measurement, as standard deviations, shape (n,)."""
        edges = [max(abs(trained.low), abs(trained.high)) for trained in self.ranges]
        margins = [trained.margin(edge, self.n_frames) for trained, edge in zip(self.ranges, edges, strict=True)]
        return np.array(margins) / _PER_MARGIN

    @property
    def _units(self) -> np.ndarray:
        return np.sqrt(np.diag(self.covariance) + self._errors**2)

    def _correlation(self, names: Sequence[str]) -> np.ndarray:
        places = [number for number, trained in enumerate(self.ranges) if trained.name in names]
        total = np.array(self.covariance) + np.diag(self._errors**2)
        return (total / np.outer(self._units, self._units))[np.ix_(places, places)]

    def _distance(self, deviations: Mapping[str, float]) -> float:
        """Mahalanobis distance."""
        if not deviations:
            return 0.0
        z = np.array(list(deviations.values()))
        return float(np.sqrt(z @ np.linalg.solve(self._correlation(list(deviations)), z)))

    def _part(self, deviations: Mapping[str, float], name: str) -> float:
        """By how much the distance is larger with a quantity than without it."""
        others = {other: value for other, value in deviations.items() if other != name}
        return self._distance(deviations) - self._distance(others)


def _sentence(trained: TrainedRange, value: float) -> str:
    unit = f" {trained.quantity.unit}" if trained.quantity.unit else ""
    return f"{trained.quantity.words} {value:.3g}{unit} ({trained.low:.3g} to {trained.high:.3g})"


def _card(trained: TrainedRange, value: float) -> str:
    edge = f"< {trained.high:.2g}" if value > trained.high else f"> {trained.low:.2g}"
    return f"{trained.quantity.short} {value:.2g}, trained {edge}"


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")
