"""Trails of satellites and aircraft."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Trails:
    """Satellites and aircraft: straight lines as wide as the PSF, some of them blinking (on for half of the time).

    Parameters
    ----------
    per_frame : float
        Mean number of trails (Poisson).
    fwhm_px, beta : float
        The PSF as a Moffat profile; across a line it integrates to a power law of index ``beta - 1/2``.
    median_e_per_px, log_sigma : float
        Lognormal charge per pixel of length.
    """

    per_frame: float
    fwhm_px: float = 3.0
    beta: float = 3.5
    median_e_per_px: float = 400.0
    log_sigma: float = 1.0
    blink_fraction: float = 0.3

    def sample(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        """Expected charge of the trails; it is light, so the shot noise is drawn on it with the scene's."""
        light = np.zeros(shape)
        for _ in range(rng.poisson(self.per_frame)):
            light += self._one(rng, shape)
        return light

    def mean(self, shape: tuple[int, int]) -> float:
        """Charge per pixel at the frame's centre, far from the lines' ends.

        Lines are thrown with isotropic direction and a uniform offset within the half-diagonal R of the centre, so a
        point in the frame is hit with the density 1 / 2R per pixel of offset.
        """
        return self.per_frame * self._first / (2 * self._radius(shape))

    def variance(self, shape: tuple[int, int]) -> float:
        """Campbell's theorem with the squared cross-section of a line."""
        offsets = np.linspace(-30, 30, 6001) * self.fwhm_px
        squared = np.sum(self._profile(offsets) ** 2) * (offsets[1] - offsets[0])
        return self.per_frame * self._second * squared / (2 * self._radius(shape))

    @property
    def _duty(self) -> float:
        return 1 - self.blink_fraction / 2

    @property
    def _first(self) -> float:
        return self._duty * self.median_e_per_px * float(np.exp(self.log_sigma**2 / 2))

    @property
    def _second(self) -> float:
        return self._duty * self.median_e_per_px**2 * float(np.exp(2 * self.log_sigma**2))

    @staticmethod
    def _radius(shape: tuple[int, int]) -> float:
        return float(np.hypot(*shape)) / 2

    def _profile(self, offset_px: np.ndarray) -> np.ndarray:
        """Line-spread function of a Moffat PSF, integral 1 [1/px]."""
        from scipy.special import gammaln

        alpha = self.fwhm_px / (2 * np.sqrt(2 ** (1 / self.beta) - 1))
        norm = np.exp(gammaln(self.beta - 0.5) - gammaln(self.beta - 1)) / (np.sqrt(np.pi) * alpha)
        return norm * (1 + (offset_px / alpha) ** 2) ** (0.5 - self.beta)

    def _one(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        radius = self._radius(shape)
        angle, offset = rng.uniform(0, np.pi), rng.uniform(-radius, radius)
        charge = self.median_e_per_px * np.exp(rng.normal(0, self.log_sigma))
        y, x = np.ogrid[: shape[0], : shape[1]]
        x, y = x - (shape[1] - 1) / 2, y - (shape[0] - 1) / 2
        across = x * np.sin(angle) - y * np.cos(angle) - offset
        light = charge * self._profile(across)
        blinks, period, phase = rng.random() < self.blink_fraction, rng.uniform(20, 80), rng.random()
        if blinks:
            along = x * np.cos(angle) + y * np.sin(angle)
            light = light * (np.mod(along / period + phase, 1) < 0.5)
        return light
