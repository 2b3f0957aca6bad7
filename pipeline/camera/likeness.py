"""Whether camera images are like those that a model was trained on: a score per image, and a warning per file."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from pipeline.camera.tiling import CHANNELS, CameraTiles
from pipeline.inputs.image_features import image_features
from pipeline.inputs.population import Population, TrainedRange

# A file with a larger share of images unlike training gets a warning: of those like it, 0.5 % count as unlike.
_MAX_SHARE = 0.05
# Quantities outside in fewer of these images are not named.
_MIN_NAMED_SHARE = 0.2
_TOGETHER = "their properties together"


@dataclass(frozen=True)
class Likeness:
    """Images compared with those of training, in their order.

    Attributes
    ----------
    score : ndarray, shape (n,)
        Above 1, an image is unlike them; NaN where it makes no tile.
    outside : dict
        Name of a quantity -> ndarray of bool, shape (n,): beyond the limit by itself.
    values : dict
        Name of a quantity -> ndarray, shape (n,).
    ranges : dict
        Name of a quantity -> its range in training.
    """

    score: np.ndarray
    outside: dict[str, np.ndarray]
    values: dict[str, np.ndarray]
    ranges: dict[str, TrainedRange]

    @property
    def unlike(self) -> np.ndarray:
        """Images with a score above 1, shape (n,)."""
        return np.nan_to_num(self.score) > 1

    def names(self) -> np.ndarray:
        """For each image unlike training, what is outside, in words; None for the others, shape (n,)."""
        texts = np.full(len(self.score), None, object)
        for place in np.flatnonzero(self.unlike):
            words = [self.ranges[name].quantity.words for name, outside in self.outside.items() if outside[place]]
            texts[place] = f"unlike the images of training: {', '.join(words) or _TOGETHER}"
        return texts


def compare_images(tiles: CameraTiles, populations: Iterable[Population]) -> Likeness | None:
    """Compare images with those of all `populations`, each quantity with the one it is further from; None of none.

    Parameters
    ----------
    tiles : CameraTiles
        Made of the images.
    populations : iterable of Population
    """
    distinct: list[Population] = []
    for population in populations:
        if population not in distinct:
            distinct.append(population)
    if not distinct:
        return None
    kept = tiles.reason == ""
    n = len(kept)
    planes = {channel.name: tiles.batch.images[:, number] for number, channel in enumerate(CHANNELS)}
    features = image_features(planes, tiles.batch.events)
    result = Likeness(np.full(n, np.nan), {}, {name: _spread(values, kept) for name, values in features.items()}, {})
    for population in distinct:
        found = population.compare_images(features)
        np.fmax(result.score, _spread(found.score, kept), out=result.score)
        for trained, outside in zip(population.ranges, found.outside.T, strict=True):
            result.ranges.setdefault(trained.name, trained)
            known = result.outside.setdefault(trained.name, np.zeros(n, bool))
            known[kept] |= outside
    return result


def _spread(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    full = np.full(len(kept), np.nan)
    full[kept] = values
    return full


@dataclass
class FileLikeness:
    """The images of a file, added up; what is kept are the numbers of those that are unlike training."""

    n_images: int = 0
    n_unlike: int = 0
    _outside: dict[str, int] = field(default_factory=dict)
    _values: dict[str, list[np.ndarray]] = field(default_factory=dict)
    _ranges: dict[str, TrainedRange] = field(default_factory=dict)

    def add(self, likeness: Likeness | None) -> None:
        """Take the images of a chunk."""
        if likeness is None:
            return
        unlike = likeness.unlike
        self.n_images += int(np.isfinite(likeness.score).sum())
        self.n_unlike += int(unlike.sum())
        for name, outside in likeness.outside.items():
            own = outside & unlike
            self._ranges.setdefault(name, likeness.ranges[name])
            self._outside[name] = self._outside.get(name, 0) + int(own.sum())
            self._values.setdefault(name, []).append(likeness.values[name][own])

    def warnings(self) -> list[str]:
        """One sentence, if there are many."""
        if self.n_unlike <= _MAX_SHARE * self.n_images:
            return []
        named = [name for name, n in self._outside.items() if n >= max(_MIN_NAMED_SHARE * self.n_unlike, 1)]
        what = "; ".join(self._in_words(name) for name in sorted(named, key=lambda name: -self._outside[name]))
        return [
            f"{self.n_unlike} of {self.n_images} images are unlike those of training, and their values may be wrong: "
            f"{what or _TOGETHER}"
        ]

    def _in_words(self, name: str) -> str:
        trained = self._ranges[name]
        median = float(np.median(np.concatenate(self._values[name])))
        unit = f" {trained.quantity.unit}" if trained.quantity.unit else ""
        return f"{trained.quantity.words} {median:.3g}{unit} ({trained.low:.3g} to {trained.high:.3g})"
