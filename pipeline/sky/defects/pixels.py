"""Pixels of the detector that are hot, dead or missing."""

from dataclasses import dataclass

import numpy as np

from pipeline.sky.defects.registry import register_defect


@register_defect("hot_pixels")
@dataclass(frozen=True)
class HotPixels:
    """Pixels whose dark current has a lognormal tail; some are telegraph pixels that are on for a part of the time.

    Parameters
    ----------
    fraction : float
        Share of hot pixels.
    exposure_s : float
        Exposure.
    median_e_per_s, log_sigma : float
        Lognormal distribution of the excess rate (natural logarithm).
    telegraph_fraction : float
        Share of the hot pixels that are on for a uniform part of the exposure.
    """

    fraction: float
    exposure_s: float
    median_e_per_s: float = 0.6
    log_sigma: float = 1.4
    telegraph_fraction: float = 0.15

    def sample(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        """Excess charge to add."""
        charge = np.zeros(shape)
        hot = np.flatnonzero(rng.random(shape) < self.fraction)
        rate = self.median_e_per_s * np.exp(rng.normal(0.0, self.log_sigma, hot.size))
        on = np.where(rng.random(hot.size) < self.telegraph_fraction, rng.random(hot.size), 1.0)
        charge.flat[hot] = rng.poisson(rate * on * self.exposure_s)
        return charge

    def mean(self) -> float:
        """Expectation over hot and good pixels."""
        return self.fraction * self._first

    def variance(self) -> float:
        """Poisson of a mixed rate, mixed with the good pixels."""
        second = self._first + self._second
        return self.fraction * second - self.mean() ** 2

    @property
    def _first(self) -> float:
        on = 1 - self.telegraph_fraction / 2
        return on * self.exposure_s * self.median_e_per_s * float(np.exp(self.log_sigma**2 / 2))

    @property
    def _second(self) -> float:
        on = 1 - self.telegraph_fraction * 2 / 3  # the mean of u^2 is 1/3
        return on * (self.exposure_s * self.median_e_per_s) ** 2 * float(np.exp(2 * self.log_sigma**2))


@dataclass(frozen=True)
class DeadPixels:
    """Pixels and columns that collect only a part of their light; `sample` is the response to multiply with.

    A column is bad from a uniform row up to the last one, as a trap on its way to the amplifier makes it.
    """

    fraction: float
    bad_columns: int = 0
    response_max: float = 0.3

    def sample(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        """Response, 1 for a good pixel."""
        response = np.ones(shape)
        dead = rng.random(shape) < self.fraction
        response[dead] = rng.uniform(0, self.response_max, int(dead.sum()))
        columns = rng.integers(0, shape[1], self.bad_columns)
        starts = rng.integers(0, shape[0], self.bad_columns)
        for column, start in zip(columns, starts, strict=True):
            response[start:, column] *= rng.uniform(0, self.response_max)
        return response

    def mean(self, shape: tuple[int, int]) -> np.ndarray:
        """Expected response, shape (H, 1): with bad columns it falls towards the last row."""
        return self._moment(shape, 1 - self.fraction * (1 - self.response_max / 2), self.response_max / 2)

    def variance(self, shape: tuple[int, int]) -> np.ndarray:
        """Variance of the response, shape (H, 1)."""
        square = self.response_max**2 / 3
        return self._moment(shape, 1 - self.fraction * (1 - square), square) - self.mean(shape) ** 2

    def _moment(self, shape: tuple[int, int], of_pixel: float, of_column: float) -> np.ndarray:
        # Each bad column passes through this pixel's column with 1 / W and begins at or before row y with (y + 1) / H.
        hit = (np.arange(shape[0])[:, None] + 1) / shape[0] / shape[1]
        return of_pixel * (1 - hit * (1 - of_column)) ** self.bad_columns


@dataclass(frozen=True)
class DetectorGap:
    """A band without detector, of a width that makes up `fraction` of the frame; `sample` is True there."""

    fraction: float

    def sample(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        """Mask of the missing pixels."""
        missing = np.zeros(shape, dtype=bool)
        axis = int(rng.integers(2))
        # The width is dithered between whole pixels, so that its mean is exact; the band wraps around the frame's edge.
        width = int(self.fraction * shape[axis] + rng.random())
        lines = (rng.integers(shape[axis]) + np.arange(width)) % shape[axis]
        missing[(lines, slice(None)) if axis == 0 else (slice(None), lines)] = True
        return missing

    def mean(self) -> float:
        """Share of missing pixels."""
        return self.fraction

    def variance(self) -> float:
        """Bernoulli."""
        return self.fraction * (1 - self.fraction)
