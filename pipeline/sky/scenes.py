"""What the telescope would see without noise: stars, galaxies, nebulae and sky through one point-spread function.

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
from pipeline.sky.point_spread import PointSpread

if TYPE_CHECKING:
    import galsim

#: Magnitude of a source of one electron per second.
ZERO_POINT_MAG = 25.0

# GalSim keeps the transforms of a profile by its index: a free index per galaxy costs 20 ms each, these four none.
_SERSIC_INDICES = (1.0, 1.5, 2.5, 4.0)
# The index-4 profile is drawn with its far wings cut, which otherwise need transforms of 4096 pixels a side.
_SERSIC_TRUNCATION_RADII = 6.0
_STAMP_SIZES_PX = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_STAMP_RADII_PX = tuple(size / 2 for size in _STAMP_SIZES_PX)
# Wings of a star are followed until they are this small a part of the sky's own noise.
_WING_LIMIT_SIGMA = 0.02
# Spikes of the brightest stars end where they are this faint.
_SPIKE_LIMIT_SIGMA = 0.1
_CROWDING = (4.0, 16.0)
# Brightness of a nebula's brightest pixels, in units of the sky's own noise.
_NEBULA_SIGMA = (2.0, 60.0)
_FWHM_PER_SIGMA = 2.3548
_NEBULA_SLOPE = -3.2  # of its power spectrum, as of interstellar clouds


@dataclass(frozen=True)
class Scene:
    """A noiseless frame and what it was made of.

    Attributes
    ----------
    sources_e, sky_e : ndarray, shape (H, W)
        Expected electrons of stars, galaxies and nebulae, and of the sky.
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
    psf = PointSpread.draw(cfg, rng)
    sky_e = _draw_sky(cfg, rng)
    noise_e = float(np.sqrt(sky_e.mean() + np.mean(cfg.read_noise_e) ** 2))
    stars = _draw_stars(cfg, rng)
    canvas = _Canvas(cfg.shape)
    _render_stars(canvas, stars, psf, noise_e)
    _render_galaxies(canvas, cfg, rng, psf, _WING_LIMIT_SIGMA * noise_e)
    sources_e = canvas.pixels()
    if cfg.nebula_fraction and rng.random() < cfg.nebula_fraction:
        sources_e = sources_e + _draw_nebula(cfg.shape, rng, psf, noise_e)
    return Scene(sources_e, sky_e, stars, psf)


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
    mean_count = float(cfg.stars_per_frame)
    if cfg.crowded_fraction and rng.random() < cfg.crowded_fraction:
        mean_count *= float(np.exp(rng.uniform(*np.log(_CROWDING))))
    count = rng.poisson(mean_count)
    flux = power_law(rng, cfg.star_flux_e, cfg.star_flux_slope, count)
    if cfg.flat_magnitude_fraction:
        flat = rng.random(count) < cfg.flat_magnitude_fraction
        flux = np.where(flat, power_law(rng, cfg.star_flux_e, -1.0, count), flux)
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

    def add_pixels(self, light: np.ndarray, column: int, row: int) -> None:
        """Add pixels whose first one is at (column, row)."""
        if light.size:
            import galsim

            stamp = galsim.ImageD(light, xmin=column, ymin=row)
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


def _render_stars(canvas: _Canvas, stars: dict[str, np.ndarray], psf: PointSpread, noise_e: float) -> None:
    profile = psf.profile()
    at_edge = psf.surface_brightness(_STAMP_RADII_PX)
    limit_e = _WING_LIMIT_SIGMA * noise_e
    for x, y, flux in zip(stars["x"], stars["y"], stars["flux_e"], strict=True):
        image = profile.withFlux(flux * (1 - psf.spike_share))
        canvas.add(image, x, y, _stamp_px(at_edge, flux, limit_e))
        if psf.spike_share:
            canvas.add_pixels(*psf.spikes(flux, x, y, _SPIKE_LIMIT_SIGMA * noise_e))


def _render_galaxies(
    canvas: _Canvas, cfg: SkySimulationConfig, rng: np.random.Generator, psf: PointSpread, limit_e: float
) -> None:
    """Sersic profiles: half-light radii of 1.5 to 10 px, axis ratios of 0.25 to 1, indices mostly disc-like."""
    import galsim

    point = psf.profile()
    at_edge = psf.surface_brightness(_STAMP_RADII_PX)
    height, width = cfg.shape
    count = rng.poisson(cfg.galaxies_per_frame)
    flux = power_law(rng, (3 * cfg.star_flux_e[0], cfg.star_flux_e[1] / 5), cfg.star_flux_slope, count)
    for flux_e in flux:
        index, radius, axis_ratio = _draw_galaxy(cfg, rng)
        disc = galsim.Sersic(index, half_light_radius=1.0, trunc=_SERSIC_TRUNCATION_RADII, gsparams=point.gsparams)
        shape = disc.dilate(radius).shear(q=axis_ratio, beta=rng.uniform(0, np.pi) * galsim.radians)
        size = max(_stamp_px(at_edge, flux_e, limit_e), int(2.5 * _SERSIC_TRUNCATION_RADII * radius))
        image = galsim.Convolve(shape, point).withFlux(flux_e)
        canvas.add(image, rng.uniform(-0.5, width - 0.5), rng.uniform(-0.5, height - 0.5), min(size, 256))


def _draw_galaxy(cfg: SkySimulationConfig, rng: np.random.Generator) -> tuple[float, float, float]:
    """Sersic index, half-light radius [px] and axis ratio of one galaxy."""
    index = float(rng.choice(_SERSIC_INDICES, p=(0.5, 0.2, 0.2, 0.1)))
    radius = 1.5 * (10 / 1.5) ** rng.random()
    axis_ratio = rng.uniform(0.25, 1)
    if cfg.edge_on_fraction and rng.random() < cfg.edge_on_fraction:
        index, axis_ratio = 1.0, rng.uniform(0.06, 0.25)
    elif cfg.cuspy_fraction and rng.random() < cfg.cuspy_fraction:
        index, radius = _SERSIC_INDICES[-1], 4.0 ** rng.random()
    return index, float(radius), float(axis_ratio)


def _draw_nebula(shape: tuple[int, int], rng: np.random.Generator, psf: PointSpread, noise_e: float) -> np.ndarray:
    """Clouds, and filaments where a second field goes through zero: both scale-free, and as sharp as a star."""
    from scipy.ndimage import gaussian_filter

    clouds, ridges = (_scale_free(shape, rng) for _ in range(2))
    clouds = np.exp(1.2 * clouds)
    filaments = rng.random() / (1 + (ridges / 0.05) ** 2)
    light = gaussian_filter(clouds * (0.5 + filaments), psf.fwhm_px / _FWHM_PER_SIGMA, mode="nearest")
    low, high = np.log(_NEBULA_SIGMA)
    return light * (noise_e * np.exp(rng.uniform(low, high)) / np.quantile(light, 0.999))


def _scale_free(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A Gaussian random field with a power-law spectrum, of unit variance."""
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.normal(size=shape)) * frequency ** (_NEBULA_SLOPE / 2)
    field = np.fft.irfft2(spectrum, s=shape)
    return field / field.std()
