"""What the telescope would see without noise: stars, galaxies and sky through one point-spread function.

Rendered with GalSim [1]_. A scene is in electrons of the whole exposure; positions are 0-based pixel coordinates with
integers at pixel centres.

References
----------
.. [1] Rowe et al. 2015, Astronomy and Computing 10, 121.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.config import SkySimulationConfig

if TYPE_CHECKING:
    import galsim

#: Magnitude of a source of one electron per second.
ZERO_POINT_MAG = 25.0

# GalSim keeps the transforms of a profile by its index: a free index per galaxy costs 20 ms each, these four none.
_SERSIC_INDICES = (1.0, 1.5, 2.5, 4.0)
# The index-4 profile is drawn with its far wings cut, which otherwise need transforms of 4096 pixels a side.
_SERSIC_TRUNCATION_RADII = 6.0
_STAMP_SIZES_PX = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
# Wings of a star are followed until they are this small a part of the sky's own noise.
_WING_LIMIT_SIGMA = 0.02


@dataclass(frozen=True)
class PointSpread:
    """The point-spread function of one frame; `beta` is None for a Kolmogorov profile."""

    fwhm_px: float
    beta: float | None
    shear: tuple[float, float]

    @classmethod
    def draw(cls, rng: np.random.Generator, fwhm_px: tuple[float, float]) -> "PointSpread":
        """Two of three frames have a Moffat profile (index 2.5 to 4.5), others pure turbulence; slightly sheared."""
        fwhm = float(rng.uniform(*fwhm_px))
        beta = float(rng.uniform(2.5, 4.5)) if rng.random() < 2 / 3 else None
        size, angle = abs(rng.normal(0, 0.02)), rng.uniform(0, 2 * np.pi)
        return cls(fwhm, beta, (float(size * np.cos(angle)), float(size * np.sin(angle))))

    @property
    def name(self) -> str:
        """Name of the profile."""
        return "kolmogorov" if self.beta is None else "moffat"

    def profile(self) -> "galsim.GSObject":
        """GalSim object of flux 1."""
        import galsim

        params = galsim.GSParams(maximum_fft_size=8192)
        if self.beta is None:
            psf = galsim.Kolmogorov(fwhm=self.fwhm_px, gsparams=params)
        else:
            psf = galsim.Moffat(beta=self.beta, fwhm=self.fwhm_px, gsparams=params)
        return psf.shear(g1=self.shear[0], g2=self.shear[1])


@dataclass(frozen=True)
class Scene:
    """A noiseless frame and what it was made of.

    Attributes
    ----------
    sources_e, sky_e : ndarray, shape (H, W)
        Expected electrons of stars and galaxies, and of the sky.
    stars : dict of ndarray
        x, y [px], flux_e [electron], mag.
    """

    sources_e: np.ndarray
    sky_e: np.ndarray
    stars: dict[str, np.ndarray]
    psf: PointSpread

    @property
    def expected_e(self) -> np.ndarray:
        """Sources and sky together."""
        return self.sources_e + self.sky_e


def power_law(rng: np.random.Generator, limits: tuple[float, float], slope: float, size: int) -> np.ndarray:
    """Draw from ``dN/dF ~ F^slope`` between two limits."""
    u = rng.random(size)
    low, high = limits
    index = slope + 1
    if abs(index) < 1e-9:
        return low * (high / low) ** u
    return (low**index + u * (high**index - low**index)) ** (1 / index)


def draw_scene(cfg: SkySimulationConfig, rng: np.random.Generator) -> Scene:
    """Draw a star field with galaxies, its PSF and its sky.

    Parameters
    ----------
    cfg : SkySimulationConfig
        Shape, exposure, counts and flux ranges.
    rng : Generator
        All randomness of the scene.
    """
    psf = PointSpread.draw(rng, cfg.fwhm_px)
    sky_e = _draw_sky(cfg, rng)
    limit_e = _WING_LIMIT_SIGMA * float(np.sqrt(sky_e.mean() + np.mean(cfg.read_noise_e) ** 2))
    stars = _draw_stars(cfg, rng)
    canvas = _Canvas(cfg.shape)
    _render_stars(canvas, stars, psf, limit_e)
    _render_galaxies(canvas, cfg, rng, psf, limit_e)
    return Scene(canvas.pixels(), sky_e, stars, psf)


def _draw_sky(cfg: SkySimulationConfig, rng: np.random.Generator) -> np.ndarray:
    """Night sky: a plane plus the bowl that a moon far outside the frame leaves; its mean is the drawn level."""
    low, high = np.log(cfg.sky_e_per_s)
    level_e = float(np.exp(rng.uniform(low, high))) * cfg.exposure_s
    height, width = cfg.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    toward = (x * np.cos(angle) + y * np.sin(angle)) / np.sqrt(2)
    bowl = rng.uniform(0, 0.5) * (toward**2 - np.mean(toward**2))
    return level_e * (1 + cfg.sky_gradient / 2 * (toward + bowl))


def _draw_stars(cfg: SkySimulationConfig, rng: np.random.Generator) -> dict[str, np.ndarray]:
    height, width = cfg.shape
    count = rng.poisson(cfg.stars_per_frame)
    flux = power_law(rng, cfg.star_flux_e, cfg.star_flux_slope, count)
    order = np.argsort(-flux)  # brightest first, as catalogues are read
    return {
        "x": rng.uniform(-0.5, width - 0.5, count),
        "y": rng.uniform(-0.5, height - 0.5, count),
        "flux_e": flux[order],
        "mag": ZERO_POINT_MAG - 2.5 * np.log10(flux[order] / cfg.exposure_s),
    }


class _Canvas:
    """A GalSim image that stamps are added to, cut at its edges."""

    def __init__(self, shape: tuple[int, int]) -> None:
        import galsim

        self._image = galsim.ImageD(shape[1], shape[0], xmin=0, ymin=0)

    def add(self, profile: "galsim.GSObject", x: float, y: float, size_px: int) -> None:
        import galsim

        stamp = profile.drawImage(nx=size_px, ny=size_px, center=galsim.PositionD(x, y), scale=1.0, dtype=np.float64)
        overlap = stamp.bounds & self._image.bounds
        if overlap.isDefined():
            self._image[overlap] += stamp[overlap]

    def pixels(self) -> np.ndarray:
        # Transforms ring below zero by a few parts in a million of a bright star's peak; light is never negative.
        return np.maximum(self._image.array, 0.0)


def _stamp_px(peak_at: "np.ndarray", flux_e: float, limit_e: float) -> int:
    """Smallest stamp at whose edge a source of `flux_e` has fallen below `limit_e` per pixel."""
    beyond = np.flatnonzero(flux_e * peak_at < limit_e)
    return _STAMP_SIZES_PX[int(beyond[0])] if beyond.size else _STAMP_SIZES_PX[-1]


def _surface_brightness(profile: "galsim.GSObject") -> np.ndarray:
    """Brightness of a source of flux 1 at the edge of each stamp size, per pixel."""
    return np.array([abs(profile.xValue(size / 2, 0.0)) for size in _STAMP_SIZES_PX])


def _render_stars(canvas: _Canvas, stars: dict[str, np.ndarray], psf: PointSpread, limit_e: float) -> None:
    profile = psf.profile()
    at_edge = _surface_brightness(profile)
    for x, y, flux in zip(stars["x"], stars["y"], stars["flux_e"], strict=True):
        canvas.add(profile.withFlux(flux), x, y, _stamp_px(at_edge, flux, limit_e))


def _render_galaxies(
    canvas: _Canvas, cfg: SkySimulationConfig, rng: np.random.Generator, psf: PointSpread, limit_e: float
) -> None:
    """Sersic profiles: half-light radii of 1.5 to 10 px, axis ratios of 0.25 to 1, indices mostly disc-like."""
    import galsim

    point = psf.profile()
    at_edge = _surface_brightness(point)
    height, width = cfg.shape
    count = rng.poisson(cfg.galaxies_per_frame)
    flux = power_law(rng, (3 * cfg.star_flux_e[0], cfg.star_flux_e[1] / 5), cfg.star_flux_slope, count)
    for flux_e in flux:
        index = float(rng.choice(_SERSIC_INDICES, p=(0.5, 0.2, 0.2, 0.1)))
        radius = 1.5 * (10 / 1.5) ** rng.random()
        disc = galsim.Sersic(index, half_light_radius=1.0, trunc=_SERSIC_TRUNCATION_RADII, gsparams=point.gsparams)
        shape = disc.dilate(radius).shear(q=rng.uniform(0.25, 1), beta=rng.uniform(0, np.pi) * galsim.radians)
        size = max(_stamp_px(at_edge, flux_e, limit_e), int(2.5 * _SERSIC_TRUNCATION_RADII * radius))
        image = galsim.Convolve(shape, point).withFlux(flux_e)
        canvas.add(image, rng.uniform(-0.5, width - 0.5), rng.uniform(-0.5, height - 0.5), min(size, 256))
