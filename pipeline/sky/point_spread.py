"""The point-spread function of a simulated frame: what a star looks like.

Seeing, shear, guiding, the aberrations of the optics, and diffraction spikes.
"""

from collections.abc import Sequence
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
# Places at which an unsteady telescope stopped, and how far they scatter along their longer direction (rms), in units
# of the FWHM. Steps with the tails of Student's t of 1.5 degrees of freedom: it mostly creeps, and jumps at times.
_STOPS, _STEP_FREEDOM = 12, 1.5
_PATH_FWHM = (0.2, 0.6)
# Rms of the aberrations [wave, rms over the pupil] in the order of Noll (1976): defocus, astigmatism, coma. The size of
# the diffraction disc in units of the FWHM, and the part of the pupil's diameter that the second mirror hides.
_ABERRATIONS = (0.15, 0.08, 0.08, 0.06, 0.06)
_DIFFRACTION_FWHM = (0.15, 0.4)
_OBSCURATION = (0.0, 0.45)
_STEPS_PER_FWHM = 8  # to measure a width
_FWHM_PER_SIGMA = 2.3548


@dataclass(frozen=True)
class Optics:
    """A telescope that is out of focus or out of line.

    Attributes
    ----------
    diffraction_px : float
        Wavelength over aperture.
    aberrations : tuple of float
        Coefficients 4 to 8 of Noll (1976): defocus, astigmatism, coma [wave].
    obscuration : float
        Diameter of the second mirror in units of the aperture.
    """

    diffraction_px: float
    aberrations: tuple[float, ...]
    obscuration: float

    @classmethod
    def draw(cls, fwhm_px: float, rng: np.random.Generator) -> "Optics":
        """For a seeing of `fwhm_px`."""
        aberrations = tuple(rng.normal(0, _ABERRATIONS).tolist())
        return cls(fwhm_px * float(rng.uniform(*_DIFFRACTION_FWHM)), aberrations, float(rng.uniform(*_OBSCURATION)))

    def profile(self, params: "galsim.GSParams") -> "galsim.GSObject":
        """GalSim object of flux 1 whose centroid is in the middle."""
        import galsim

        defocus, *rest = self.aberrations
        profile = galsim.OpticalPSF(
            lam_over_diam=self.diffraction_px,
            aberrations=[0, 0, 0, 0, defocus, *rest],
            obscuration=self.obscuration,
            gsparams=params,
        )
        return profile.shift(-profile.centroid)

    def diffracted(self, radii_px: np.ndarray) -> np.ndarray:
        """Brightness far from a star of flux 1, the rings averaged out; falls as the third power of the distance.

        From the energy outside a circle, 2 (lambda / D) / (pi^2 (1 - obscuration) r) of an Airy pattern.
        """
        return self.diffraction_px / (np.pi**3 * (1 - self.obscuration) * radii_px**3)


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
    path : tuple of (float, float)
        Where an unsteady telescope pointed for equal parts of the exposure, x and y [px]; their mean is 0.
    optics : Optics, optional
        Aberrations; None where the seeing hides them.
    """

    fwhm_px: float
    beta: float | None
    shear: tuple[float, float]
    trail_px: float = 0.0
    trail_rad: float = 0.0
    spike_share: float = 0.0
    spike_rad: float = 0.0
    path: tuple[tuple[float, float], ...] = ()
    optics: Optics | None = None

    @classmethod
    def draw(cls, cfg: SkySimulationConfig, rng: np.random.Generator) -> "PointSpread":
        """Two of three frames have a Moffat profile (index 2.5 to 4.5), others pure turbulence; sheared."""
        if cfg.fwhm_distribution == "uniform":
            fwhm = float(rng.uniform(*cfg.fwhm_px))
        else:
            fwhm = float(np.exp(rng.uniform(*np.log(cfg.fwhm_px))))
        beta = float(rng.uniform(2.5, 4.5)) if rng.random() < 2 / 3 else None
        size, angle = min(abs(rng.normal(0, cfg.shear_rms)), _LARGEST_SHEAR), rng.uniform(0, 2 * np.pi)
        shear = float(size * np.cos(angle)), float(size * np.sin(angle))
        trail, spikes = (0.0, 0.0), (0.0, 0.0)
        if cfg.trailed_fraction and rng.random() < cfg.trailed_fraction:
            trail = float(fwhm * rng.uniform(*_TRAIL_FWHM)), float(rng.uniform(0, np.pi))
        if cfg.spiked_fraction and rng.random() < cfg.spiked_fraction:
            spikes = float(rng.uniform(*_SPIKE_SHARE)), float(rng.uniform(0, np.pi / 2))
        path, optics = (), None
        if cfg.unsteady_fraction and rng.random() < cfg.unsteady_fraction:
            path = _draw_path(fwhm, rng)
        if cfg.aberrated_fraction and rng.random() < cfg.aberrated_fraction:
            optics = Optics.draw(fwhm, rng)
        return cls(fwhm, beta, shear, *trail, *spikes, path, optics)

    @property
    def width_px(self) -> float:
        """FWHM of a Gaussian with the half-light radius of an unsteady or aberrated star; of others, of the seeing.

        Before the pixels are integrated over.
        """
        if not self.path and self.optics is None:
            return self.fwhm_px
        step = self.fwhm_px / _STEPS_PER_FWHM
        return 2 * float(self.profile().drawImage(scale=step, method="no_pixel").calculateHLR())

    @property
    def name(self) -> str:
        """Name of the profile."""
        return "kolmogorov" if self.beta is None else "moffat"

    def profile(self) -> "galsim.GSObject":
        """GalSim object of flux 1, without spikes."""
        import galsim

        params = galsim.GSParams(maximum_fft_size=8192)
        parts = [self._tracked(params)]
        if self.path:
            stop = galsim.DeltaFunction(flux=1 / len(self.path), gsparams=params)
            parts.append(galsim.Sum([stop.shift(x, y) for x, y in self.path]))
        if self.optics is not None:
            parts.append(self.optics.profile(params))
        return parts[0] if len(parts) == 1 else galsim.Convolve(parts)

    def _tracked(self, params: "galsim.GSParams") -> "galsim.GSObject":
        """Seeing, sheared and trailed."""
        import galsim

        if self.beta is None:
            psf = galsim.Kolmogorov(fwhm=self.fwhm_px, gsparams=params)
        else:
            psf = galsim.Moffat(beta=self.beta, fwhm=self.fwhm_px, gsparams=params)
        psf = psf.shear(g1=self.shear[0], g2=self.shear[1])
        if not self.trail_px:
            return psf
        trail = galsim.Box(self.trail_px, 0.05, gsparams=params).rotate(self.trail_rad * galsim.radians)
        return galsim.Convolve(psf, trail)

    def surface_brightness(self, radii_px: Sequence[float]) -> np.ndarray:
        """Brightness of a star of flux 1 far from its centre, per pixel; without spikes."""
        import galsim

        # A path is shorter than what is far: from its end, the light is that of the seeing.
        reach = max((np.hypot(x, y) for x, y in self.path), default=0.0)
        profile = self._tracked(galsim.GSParams())
        brightness = np.array([abs(profile.xValue(max(radius - reach, 0.0), 0.0)) for radius in radii_px])
        return brightness if self.optics is None else brightness + self.optics.diffracted(np.asarray(radii_px))

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


def _draw_path(fwhm_px: float, rng: np.random.Generator) -> tuple[tuple[float, float], ...]:
    """Places where an unsteady telescope pointed [px]."""
    path = np.cumsum(rng.standard_t(_STEP_FREEDOM, size=(_STOPS, 2)), axis=0)
    path -= path.mean(axis=0)
    longest = float(np.sqrt(np.linalg.eigvalsh(path.T @ path / _STOPS)[-1]))
    path *= fwhm_px * rng.uniform(*_PATH_FWHM) / longest
    return tuple((float(x), float(y)) for x, y in path)
