"""Noise of photons, amplifier, dark current and converter."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ShotNoise:
    """Photon (and dark) statistics: independent Poisson counts."""

    def sample(self, rng: np.random.Generator, expected_e: np.ndarray) -> np.ndarray:
        """Counts around `expected_e`, float64 of the same shape."""
        return rng.poisson(expected_e).astype(float)

    def mean(self, expected_e: np.ndarray) -> np.ndarray:
        """The expectation itself."""
        return np.asarray(expected_e, dtype=float)

    def variance(self, expected_e: np.ndarray) -> np.ndarray:
        """Equal to the mean."""
        return np.asarray(expected_e, dtype=float)


@dataclass(frozen=True)
class ReadNoise:
    """Gaussian noise of the amplifier, independent of the signal."""

    read_noise_e: float

    def sample(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        """Noise to add."""
        return rng.normal(0.0, self.read_noise_e, shape)

    def mean(self) -> float:
        """Zero."""
        return 0.0

    def variance(self) -> float:
        """Square of the read noise."""
        return self.read_noise_e**2


@dataclass(frozen=True)
class DarkCurrent:
    """Thermal electrons of the good pixels."""

    rate_e_per_s: float
    exposure_s: float

    def sample(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        """Dark electrons to add."""
        return rng.poisson(self.mean(), shape).astype(float)

    def mean(self) -> float:
        """Rate times exposure."""
        return self.rate_e_per_s * self.exposure_s

    def variance(self) -> float:
        """Equal to the mean."""
        return self.mean()


@dataclass(frozen=True)
class Digitisation:
    """Gain, bias level and rounding of the converter; `sample` gives ADU, the moments are those of the rounding [e]."""

    gain_e_per_adu: float
    bias_adu: float
    adc_max_adu: int = 65_535

    def sample(self, charge_e: np.ndarray) -> np.ndarray:
        """Whole ADU, clipped to the converter's range."""
        return np.clip(np.rint(charge_e / self.gain_e_per_adu + self.bias_adu), 0, self.adc_max_adu)

    def mean(self) -> float:
        """Rounding is unbiased while the noise spans a few ADU."""
        return 0.0

    def variance(self) -> float:
        """Uniform within one step."""
        return self.gain_e_per_adu**2 / 12
