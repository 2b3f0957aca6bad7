"""What a reduction does to a simulated frame before anyone restores it: sky subtraction, resampling, stated errors."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.config import SkySimulationConfig

# Shifts below a tenth of a pixel leave hardly any correlation.
_SHIFT_PX = (0.1, 0.5)
_LANCZOS_ORDER = 3


@dataclass(frozen=True)
class Reduction:
    """One frame's reduction.

    Attributes
    ----------
    subtracts_sky : bool
    kernels : tuple of ndarray, optional
        Weights of an interpolation by a part of a pixel, along the rows and along the columns; None: not resampled.
    error_factor : float
        Stated uncertainty over the right one.
    """

    subtracts_sky: bool
    kernels: tuple[np.ndarray, np.ndarray] | None
    error_factor: float

    @classmethod
    def draw(cls, cfg: SkySimulationConfig, rng: np.random.Generator) -> "Reduction | None":
        """None for a raw frame."""
        subtracts, resamples = rng.random(2) < (cfg.sky_subtracted_fraction, cfg.resampled_fraction)
        if not (subtracts or resamples):
            return None
        kernels = None
        if resamples:
            method = ("bilinear", "lanczos")[int(rng.integers(2))]
            first, second = rng.uniform(*_SHIFT_PX, 2)
            kernels = interpolation_kernel(float(first), method), interpolation_kernel(float(second), method)
        return cls(bool(subtracts), kernels, float(1 + rng.uniform(-cfg.stated_error, cfg.stated_error)))

    def resample(self, plane: np.ndarray) -> np.ndarray:
        """Light or charge after the interpolation, shape (H, W)."""
        return plane if self.kernels is None else _separable(plane, self.kernels)

    def resample_variance(self, variance: np.ndarray) -> np.ndarray:
        """Variance of each pixel after the interpolation, shape (H, W)."""
        if self.kernels is None:
            return variance
        rows, columns = self.kernels
        return _separable(variance, (rows**2, columns**2))

    def spread(self, mask: np.ndarray) -> np.ndarray:
        """Pixels that an interpolation from pixels of the mask reaches, shape (H, W), bool."""
        if self.kernels is None:
            return mask
        rows, columns = self.kernels
        return _separable(mask.astype(float), (np.abs(rows), np.abs(columns))) > 1e-9


def interpolation_kernel(shift_px: float, method: Literal["bilinear", "lanczos"]) -> np.ndarray:
    """Weights, of unit sum and odd length, that move an image by a part of a pixel."""
    if method == "bilinear":
        return np.array([shift_px, 1 - shift_px, 0.0])
    offset = np.arange(-_LANCZOS_ORDER, _LANCZOS_ORDER + 1) + shift_px
    weights = np.where(np.abs(offset) < _LANCZOS_ORDER, np.sinc(offset) * np.sinc(offset / _LANCZOS_ORDER), 0.0)
    return weights / weights.sum()


def _separable(plane: np.ndarray, kernels: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    from scipy.ndimage import convolve1d

    for axis, kernel in enumerate(kernels):
        plane = convolve1d(plane, kernel, axis=axis, mode="nearest")
    return plane
