"""The point-spread function of a simulated frame: what a star looks like, spikes and trailing included."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.config import SkySimulationConfig

if TYPE_CHECKING:
    import galsim

# Share of a star's light in its spikes, and the distance at which they have fallen to a half, in units of the FWHM.
_SPIKE_SHARE = (0.01, 0.06)
_SPIKE_CORE_FWHM = 4.0
# Length of the trail of a badly guided star, in units of the FWHM.
_TRAIL_FWHM = (0.3, 1.5)
_LARGEST_SHEAR = 0.3
_FWHM_PER_SIGMA = 2.3548


@dataclass(frozen=True)
class PointSpread:
    """The point-spread function of one frame; `beta` is None for a Kolmogorov profile.

    Attributes
    ----------
    fwhm_px : float
        Before the pixels are integrated over, and without trailing.
    beta : float, optional
        Index of a Moffat profile.
    shear : tuple of float
        Reduced shear.
    trail_px : float
        Length by which stars moved during the exposure.
    trail_rad, spike_rad : float
        Direction of the trail, and of one of the four spikes.
    spike_share : float
        Share of the light that is in the spikes; 0 for none.
    """

    fwhm_px: float
    beta: float | None
    shear: tuple[float, float]
    trail_px: float = 0.0
    trail_rad: float = 0.0
    spike_share: float = 0.0
    spike_rad: float = 0.0

    @classmethod
    def draw(cls, cfg: SkySimulationConfig, rng: np.random.Generator) -> "PointSpread":
        """Two of three frames have a Moffat profile (index 2.5 to 4.5), others pure turbulence; sheared."""
        if cfg.fwhm_distribution == "uniform":
            fwhm = float(rng.uniform(*cfg.fwhm_px))
        else:
            fwhm = float(np.exp(rng.uniform(*np.log(cfg.fwhm_px))))
        beta = float(rng.uniform(2.5, 4.5)) if rng.random() < 2 / 3 else None
        size, angle = min(abs(rng.normal(0, cfg.shear_rms)), _LARGEST_SHEAR), rng.uniform(0, 2 * np.pi)
        psf = cls(fwhm, beta, (float(size * np.cos(angle)), float(size * np.sin(angle))))
        trail, spikes = (0.0, 0.0), (0.0, 0.0)
        if cfg.trailed_fraction and rng.random() < cfg.trailed_fraction:
            trail = float(fwhm * rng.uniform(*_TRAIL_FWHM)), float(rng.uniform(0, np.pi))
        if cfg.spiked_fraction and rng.random() < cfg.spiked_fraction:
            spikes = float(rng.uniform(*_SPIKE_SHARE)), float(rng.uniform(0, np.pi / 2))
        return cls(psf.fwhm_px, psf.beta, psf.shear, *trail, *spikes)

    @property
    def name(self) -> str:
        """Name of the profile."""
        return "kolmogorov" if self.beta is None else "moffat"

    def profile(self) -> "galsim.GSObject":
        """GalSim object of flux 1, without spikes."""
        import galsim

        params = galsim.GSParams(maximum_fft_size=8192)
        if self.beta is None:
            psf = galsim.Kolmogorov(fwhm=self.fwhm_px, gsparams=params)
        else:
            psf = galsim.Moffat(beta=self.beta, fwhm=self.fwhm_px, gsparams=params)
        psf = psf.shear(g1=self.shear[0], g2=self.shear[1])
        if not self.trail_px:
            return psf
        trail = galsim.Box(self.trail_px, 0.05, gsparams=params).rotate(self.trail_rad * galsim.radians)
        return galsim.Convolve(psf, trail)

    def spikes(self, flux_e: float, x: float, y: float, limit_e: float) -> tuple[np.ndarray, int, int]:
        """Four spikes of a star, as wide as its image, and fading as the square of the distance.

        Parameters
        ----------
        flux_e : float
            Of the whole star.
        x, y : float
            Its place [px].
        limit_e : float
            Spikes end where they are fainter than this per pixel.

        Returns
        -------
        light : ndarray, shape (n, n)
            Electrons; n is 0 where no spike is brighter than the limit.
        column, row : int
            Of its first pixel.
        """
        core = _SPIKE_CORE_FWHM * self.fwhm_px
        sigma = self.fwhm_px / _FWHM_PER_SIGMA
        # Along a line of a spike pair, core^2 / (r^2 + core^2) integrates to pi core.
        peak = flux_e * self.spike_share / (2 * np.pi * core) / (np.sqrt(2 * np.pi) * sigma)
        reach = int(core * np.sqrt(max(peak / limit_e - 1, 0)))
        if reach == 0:
            return np.zeros((0, 0)), 0, 0
        column, row = round(x) - reach, round(y) - reach
        steps = np.arange(2 * reach + 1)
        dx, dy = (steps + column - x)[None, :], (steps + row - y)[:, None]
        light = np.zeros((steps.size, steps.size))
        for angle in (self.spike_rad, self.spike_rad + np.pi / 2):
            along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
            light += peak / (1 + (along / core) ** 2) * np.exp(-0.5 * (across / sigma) ** 2)
        return light, column, row
