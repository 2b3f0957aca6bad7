"""Frames with a known truth, drawn without lightpool's own simulation: no code and no distribution is shared with it.

Two are those of a published comparison of cosmic-ray finders, random number for random number. Ten more have a FWHM of
1.6 to 7 px. All numbers are electrons.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve

SIGMA_TO_FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))
# The two frames were drawn with this rounded value.
_BENCH_SIGMA_TO_FWHM = 2.355
_BENCH_SIDE_PX = 2048
_BENCH_SEED = 11
# The brightest star of a drawn frame has this peak: below any full well.
_HIGHEST_PEAK_E = 45_000.0
# The faintest star is this many times the noise of a matched filter.
_FAINTEST_SNR = 1.5


@dataclass(frozen=True)
class Scene:
    """A frame and all that is known of it.

    Attributes
    ----------
    name : str
    clean : ndarray, shape (H, W)
        Expectation without noise and defects [e-].
    undefected : ndarray, shape (H, W)
        With noise, without defects.
    charge : mapping
        Class of defect -> what it adds to each pixel [e-]; negative for dead pixels.
    noise : ndarray, shape (H, W)
        True one sigma of each pixel.
    star_light, galaxy_light : ndarray, shape (H, W)
        Parts of `clean`.
    stars, galaxies : mapping
        x, y [px], flux [e-]; shape (n,).
    fwhm_px, read_noise_e : float
    gain_e_per_adu : float, optional
        Where the frame is written in ADU, as 16-bit integers.
    """

    name: str
    clean: np.ndarray
    undefected: np.ndarray
    charge: Mapping[str, np.ndarray]
    noise: np.ndarray
    star_light: np.ndarray
    galaxy_light: np.ndarray
    stars: Mapping[str, np.ndarray]
    galaxies: Mapping[str, np.ndarray]
    fwhm_px: float
    read_noise_e: float
    gain_e_per_adu: float | None = None

    @property
    def file_stem(self) -> str:
        """Its name as that of a file."""
        return self.name.replace(" ", "_")

    @property
    def recorded(self) -> np.ndarray:
        """The frame as it is written [e-], shape (H, W)."""
        total = self.undefected + sum(self.charge.values())
        gain = self.gain_e_per_adu
        return total if gain is None else np.clip(np.rint(total / gain), -32768, 32767) * gain

    @property
    def excess(self) -> np.ndarray:
        """Charge of all defects, either sign, in units of the noise."""
        return sum(np.abs(plane) for plane in self.charge.values()) / self.noise

    def write(self, path: Path) -> Path:
        """As FITS, with the header of a reduced frame."""
        from astropy.io import fits

        if self.gain_e_per_adu is None:
            pixels, header = self.recorded.astype(np.float32), {"BUNIT": "electron"}
        else:
            pixels = np.rint(self.recorded / self.gain_e_per_adu).astype(np.int16)
            header = {"BUNIT": "adu", "GAIN": self.gain_e_per_adu}
        header |= {"RDNOISE": self.read_noise_e, "OBJECT": self.name}
        fits.PrimaryHDU(pixels, fits.Header(header)).writeto(path)
        return path


# ---- the two frames of the comparison --------------------------------------------------------------------------------
def bench_scene(kind: str) -> Scene:
    """`hst` (FWHM 2 px, 4,500 cosmic rays) or `ground` (4 px, 800), 2048 x 2048 px.

    The order of the draws is that of the comparison: every number is the same.
    """
    r = np.random.default_rng(_BENCH_SEED)
    hst, n = kind == "hst", _BENCH_SIDE_PX
    fwhm, sky, read_noise, n_tracks = (2.0, 60.0, 5.0, 4500) if hst else (4.0, 300.0, 9.0, 800)
    sigma = fwhm / _BENCH_SIGMA_TO_FWHM
    light = np.zeros((n, n))
    flux = 10 ** r.uniform(2.3, 5.5, 1500) * (1 if hst else 3)
    stars = {"x": r.uniform(0, n, 1500), "y": r.uniform(0, n, 1500), "flux": flux}
    for x, y, f in zip(*stars.values(), strict=True):
        _bench_source(light, x, y, f, (sigma, sigma), 0.0, int(8 * sigma) + 3, exponential=False)
    star_light = light.copy()
    places = []
    for _ in range(400):
        radius, axis_ratio, f = r.uniform(2, 9), r.uniform(0.3, 1), 10 ** r.uniform(3, 5)
        axes = np.hypot(radius, sigma), np.hypot(radius * axis_ratio, sigma)
        x, y, angle = r.uniform(0, n), r.uniform(0, n), r.uniform(0, np.pi)
        _bench_source(light, x, y, f, axes, angle, int(7 * axes[0]), exponential=True)
        places.append((x, y, f))
    clean = light + sky
    undefected = r.poisson(clean).astype(float) + r.normal(0, read_noise, clean.shape)
    tracks = np.zeros((n, n))
    for _ in range(n_tracks):
        (x, y), angle = r.uniform(0, n, 2), r.uniform(0, 2 * np.pi)
        length = min(r.exponential(8) + 1, 120)
        per_px = r.lognormal(np.log(180 if hst else 250), 0.9)
        steps = max(2, int(length * 8))
        along = np.linspace(0, length, steps)
        xs = x + along * np.cos(angle) + r.normal(0, 0.12, steps)
        ys = y + along * np.sin(angle) + r.normal(0, 0.12, steps)
        _deposit(tracks, xs, ys, per_px * (length / steps) * r.gamma(3, 1 / 3, steps))
    return Scene(
        name=f"bench {fwhm:g} px",
        clean=clean,
        undefected=undefected,
        charge={"cosmic ray": gaussian_filter(tracks, 0.35)},
        noise=np.sqrt(clean + read_noise**2),
        star_light=star_light,
        galaxy_light=light - star_light,
        stars=stars,
        galaxies=dict(zip(("x", "y", "flux"), np.array(places).T, strict=True)),
        fwhm_px=fwhm,
        read_noise_e=read_noise,
    )


def _bench_source(
    light: np.ndarray, x: float, y: float, flux: float, axes: tuple[float, float], angle: float, reach: int,
    *, exponential: bool,
) -> None:  # fmt: skip
    """Add an elliptical Gaussian or exponential, sampled at the centres of the pixels."""
    rows, columns = (
        slice(max(0, int(p) - reach), min(side, int(p) + reach + 1))
        for p, side in zip((y, x), light.shape, strict=True)
    )
    grid_y, grid_x = np.mgrid[rows, columns]
    dx, dy = grid_x - x, grid_y - y
    u = (dx * np.cos(angle) + dy * np.sin(angle)) / axes[0]
    v = (-dx * np.sin(angle) + dy * np.cos(angle)) / axes[1]
    squared = u * u + v * v
    profile = np.exp(-np.sqrt(squared)) if exponential else np.exp(-squared / 2)
    light[rows, columns] += flux * profile / (2 * np.pi * axes[0] * axes[1])


def _deposit(plane: np.ndarray, x: np.ndarray, y: np.ndarray, charge: np.ndarray) -> None:
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)
    inside = (column >= 0) & (column < plane.shape[1]) & (row >= 0) & (row < plane.shape[0])
    np.add.at(plane, (row[inside], column[inside]), charge[inside])


# ---- ten more --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Recipe:
    """How a frame is drawn.

    Attributes
    ----------
    fwhm_px : float
        Geometric mean of the two axes.
    beta : float, optional
        Of a Moffat profile; None for a Gaussian.
    axis_ratio : float
        Minor over major axis of the stars.
    sky_e, sky_gradient : float
        Level, and its relative change across the frame.
    n_stars, n_galaxies, n_tracks : int
    track_px : float
        Mean length of the tracks.
    diffusion_px : sequence of float
        Gaussian widths of the tracks, which are shared out among them.
    hot, dead : float
        Share of the pixels.
    trails : int
        Lines across the frame, as wide as a star.
    """

    name: str
    seed: int
    fwhm_px: float
    beta: float | None = None
    axis_ratio: float = 1.0
    sky_e: float = 200.0
    sky_gradient: float = 0.0
    read_noise_e: float = 6.0
    n_stars: int = 400
    n_galaxies: int = 40
    n_tracks: int = 170
    track_px: float = 8.0
    diffusion_px: Sequence[float] = (0.3, 0.6)
    hot: float = 3e-4
    dead: float = 1e-4
    trails: int = 0
    gain_e_per_adu: float | None = None
    side_px: int = 768


RECIPES = (
    Recipe("sharp 1.6 px", 101, 1.6, sky_e=80, read_noise_e=5),
    Recipe("elongated 1.8 px", 102, 1.8, beta=3.5, axis_ratio=0.75, sky_e=120, track_px=20),
    Recipe("crowded 2.2 px", 103, 2.2, beta=3.5, n_stars=2300, n_galaxies=6),
    Recipe("galaxies 2.5 px", 104, 2.5, beta=3.0, n_galaxies=220, trails=1),
    Recipe("elongated 3 px", 105, 3.0, axis_ratio=0.65, n_tracks=100, diffusion_px=(0.6, 1.0)),
    Recipe("16-bit ADU 3.5 px", 106, 3.5, beta=3.5, sky_e=800, read_noise_e=9, gain_e_per_adu=1.7, trails=1),
    Recipe("bright sky 4.5 px", 107, 4.5, beta=4.5, sky_e=3000, sky_gradient=0.2, read_noise_e=8, track_px=30),
    Recipe("crowded 5 px", 108, 5.0, beta=3.0, n_stars=1200, n_galaxies=6, sky_e=400),
    Recipe("wide 6 px", 109, 6.0, beta=3.5, sky_e=300, diffusion_px=(0.3, 1.0), trails=1),
    Recipe("wide 7 px", 110, 7.0, sky_e=100, read_noise_e=12, track_px=15, diffusion_px=(0.4, 1.2)),
)
#: For a quick run.
TINY = Recipe("tiny 3 px", 1, 3.0, n_stars=40, n_galaxies=3, n_tracks=15, hot=1e-3, dead=1e-3, trails=1, side_px=192)


def scenes(recipes: Sequence[Recipe] = RECIPES, bench: Sequence[str] = ("hst", "ground")) -> Iterator[Scene]:
    """One after the other: a frame of 2048 px takes 400 MB."""
    yield from (bench_scene(kind) for kind in bench)
    yield from map(draw, recipes)


def draw(recipe: Recipe) -> Scene:
    """A frame of a recipe."""
    rng = np.random.default_rng(recipe.seed)
    shape = (recipe.side_px, recipe.side_px)
    psf = _Psf.of(recipe)
    y, x = np.mgrid[: shape[0], : shape[1]] / max(shape)
    sky = recipe.sky_e * (1 + recipe.sky_gradient * (0.7 * x + 0.3 * y - 0.5))
    stars = _drawn_stars(recipe, psf, rng)
    star_light = psf.draw(stars, shape, recipe)
    galaxies, galaxy_light = _drawn_galaxies(recipe, psf, rng)
    clean = sky + star_light + galaxy_light
    undefected = rng.poisson(clean) + rng.normal(0, recipe.read_noise_e, shape)
    noise = np.sqrt(clean + recipe.read_noise_e**2)
    charge = {"cosmic ray": _drawn_tracks(recipe, rng)}
    charge["hot"] = np.where(rng.random(shape) < recipe.hot, rng.lognormal(np.log(300), 1.2, shape), 0.0)
    dead = (rng.random(shape) < recipe.dead) & (charge["hot"] == 0)
    charge["dead"] = np.where(dead, -clean, 0.0)
    if recipe.trails:
        charge["trail"] = _drawn_trails(recipe, rng)
    gain = recipe.gain_e_per_adu
    return Scene(
        name=recipe.name, clean=clean, undefected=undefected, charge=charge,
        noise=noise if gain is None else np.hypot(noise, gain / np.sqrt(12)),
        star_light=star_light, galaxy_light=galaxy_light, stars=stars, galaxies=galaxies,
        fwhm_px=recipe.fwhm_px, read_noise_e=recipe.read_noise_e, gain_e_per_adu=gain,
    )  # fmt: skip


@dataclass(frozen=True)
class _Psf:
    """An elliptical Moffat or Gaussian profile of unit sum, averaged over each pixel."""

    radius_px: float  # where the squared elliptical radius is 1: sigma, or the core of the Moffat profile
    beta: float | None
    axis_ratio: float
    angle: float

    @classmethod
    def of(cls, recipe: Recipe) -> "_Psf":
        beta = recipe.beta
        per_radius = SIGMA_TO_FWHM if beta is None else 2 * np.sqrt(2 ** (1 / beta) - 1)
        return cls(recipe.fwhm_px / per_radius, beta, recipe.axis_ratio, 0.4)

    def at(self, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
        """Light per square pixel of a source of unit flux."""
        c, s, root = np.cos(self.angle), np.sin(self.angle), np.sqrt(self.axis_ratio)
        u, v = (dx * c + dy * s) * root / self.radius_px, (dy * c - dx * s) / root / self.radius_px
        squared = u * u + v * v
        if self.beta is None:
            return np.exp(-squared / 2) / (2 * np.pi * self.radius_px**2)
        return (self.beta - 1) / (np.pi * self.radius_px**2) * (1 + squared) ** -self.beta

    def stamp(self, reach: int, shift_x: float = 0.0, shift_y: float = 0.0) -> np.ndarray:
        """Pixels around a source that lies (shift_x, shift_y) from the centre of the middle one."""
        n = 5 if self.radius_px < 1.5 else 3
        steps = (np.arange(n) + 0.5) / n - 0.5
        grid = (np.arange(-reach, reach + 1)[:, None] + steps).ravel()
        side = 2 * reach + 1
        fine = self.at(grid[None, :] - shift_x, grid[:, None] - shift_y)
        return fine.reshape(side, n, side, n).mean(axis=(1, 3))

    def draw(self, sources: Mapping[str, np.ndarray], shape: tuple[int, int], recipe: Recipe) -> np.ndarray:
        """All sources; each as far out as it is above a hundredth of the noise."""
        light = np.zeros(shape)
        faintest = 0.01 * np.sqrt(recipe.sky_e + recipe.read_noise_e**2)
        radii = np.arange(1, 12 * recipe.fwhm_px)
        profile = self.at(radii, np.zeros_like(radii))
        for x, y, flux in zip(sources["x"], sources["y"], sources["flux"], strict=True):
            reach = int(3 + np.count_nonzero(flux * profile > faintest))
            column, row = round(x), round(y)
            paste(light, flux * self.stamp(reach, x - column, y - row), row, column)
        return light


def paste(plane: np.ndarray, stamp: np.ndarray, row: int, column: int) -> None:
    """Add a square stamp of odd side around a pixel; what is outside the plane is cut."""
    reach = stamp.shape[0] // 2
    top, left = row - reach, column - reach
    inside = [
        slice(max(-first, 0), max(min(side - first, 2 * reach + 1), 0))
        for first, side in zip((top, left), plane.shape, strict=True)
    ]
    target = tuple(
        slice(first + part.start, first + part.stop) for first, part in zip((top, left), inside, strict=True)
    )
    plane[target] += stamp[tuple(inside)]


def psf_stamp(fwhm_px: float, reach: int, x: float, y: float, beta: float | None = None) -> np.ndarray:
    """A round star of unit flux at (x, y) from the middle pixel, shape (2 reach + 1, 2 reach + 1)."""
    return _Psf.of(Recipe("", 0, fwhm_px, beta=beta)).stamp(reach, x, y)


def _drawn_stars(recipe: Recipe, psf: _Psf, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Flat in magnitude, from the limit of a matched filter to just below a full well."""
    stamp = psf.stamp(int(4 * recipe.fwhm_px))
    sky_noise = np.sqrt(recipe.sky_e + recipe.read_noise_e**2)
    faintest = _FAINTEST_SNR * sky_noise / np.sqrt(np.square(stamp).sum())
    brightest = _HIGHEST_PEAK_E / stamp.max()
    n, side = recipe.n_stars, recipe.side_px
    flux = 10 ** rng.uniform(np.log10(faintest), np.log10(brightest), n)
    return {"x": rng.uniform(0, side - 1, n), "y": rng.uniform(0, side - 1, n), "flux": flux}


def _drawn_galaxies(recipe: Recipe, psf: _Psf, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Exponential discs, every fourth edge-on, and every third a cusp (Sersic index 4); blurred with the PSF."""
    n, side = recipe.n_galaxies, recipe.side_px
    light = np.zeros((side, side))
    places = {
        "x": rng.uniform(0, side - 1, n),
        "y": rng.uniform(0, side - 1, n),
        "flux": 10 ** rng.uniform(3.3, 5.3, n),
    }
    for number, (x, y, flux) in enumerate(zip(*places.values(), strict=True)):
        cusp, axis_ratio = number % 3 == 0, 0.15 if number % 4 == 1 else rng.uniform(0.35, 1)
        scale, angle = rng.uniform(1.0, 3.0) * max(recipe.fwhm_px, 2.0) / 2, rng.uniform(0, np.pi)
        reach = int(min(14 * scale, 60))
        column, row = round(x), round(y)
        steps = (np.arange(5) + 0.5) / 5 - 0.5
        grid = (np.arange(-reach, reach + 1)[:, None] + steps).ravel()
        dx, dy = grid[None, :] - (x - column), grid[:, None] - (y - row)
        u = (dx * np.cos(angle) + dy * np.sin(angle)) / scale
        v = (dy * np.cos(angle) - dx * np.sin(angle)) / scale / axis_ratio
        radius = np.sqrt(u * u + v * v)
        profile = np.exp(-7.67 * (np.maximum(radius, 0.02) / 1.7) ** 0.25) if cusp else np.exp(-radius)
        stamp = profile.reshape(2 * reach + 1, 5, 2 * reach + 1, 5).mean(axis=(1, 3))
        paste(light, flux * stamp / stamp.sum(), row, column)
    kernel = psf.stamp(int(5 * recipe.fwhm_px))
    return places, np.maximum(fftconvolve(light, kernel / kernel.sum(), mode="same"), 0)


def _drawn_tracks(recipe: Recipe, rng: np.random.Generator) -> np.ndarray:
    """Straight muons, every fifth a wandering electron, every tenth long."""
    side = recipe.side_px
    planes = [np.zeros((side, side)) for _ in recipe.diffusion_px]
    for number in range(recipe.n_tracks):
        length = 1 + rng.exponential(recipe.track_px * (6 if number % 10 == 0 else 1))
        x, y, angle = rng.uniform(0, side), rng.uniform(0, side), rng.uniform(0, 2 * np.pi)
        per_px = rng.lognormal(np.log(220), 0.9)
        xs, ys, charge = track(rng, x, y, angle, min(length, 250), per_px, bends=number % 5 == 1)
        _deposit(planes[number % len(planes)], xs, ys, charge)
    return sum(gaussian_filter(plane, width) for plane, width in zip(planes, recipe.diffusion_px, strict=True))


def track(
    rng: np.random.Generator, x: float, y: float, angle: float, length_px: float, per_px: float, *, bends: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points along a track from (x, y), and the charge at each: `per_px` per pixel of length on average."""
    steps = max(2, int(8 * length_px))
    step = length_px / steps
    direction = angle + (np.cumsum(rng.normal(0, 0.25, steps)) if bends else np.zeros(steps))
    return (
        x + np.cumsum(np.cos(direction)) * step,
        y + np.cumsum(np.sin(direction)) * step,
        per_px * step * rng.gamma(3, 1 / 3, steps),
    )


def _drawn_trails(recipe: Recipe, rng: np.random.Generator) -> np.ndarray:
    """Lines across the whole frame, as wide as a star."""
    side, sigma = recipe.side_px, recipe.fwhm_px / SIGMA_TO_FWHM
    y, x = np.mgrid[:side, :side]
    plane = np.zeros((side, side))
    for _ in range(recipe.trails):
        angle, where = rng.uniform(0, np.pi), rng.uniform(0.3, 0.7, 2) * side
        distance = (x - where[0]) * np.sin(angle) - (y - where[1]) * np.cos(angle)
        peak = rng.uniform(4, 15) * np.sqrt(recipe.sky_e + recipe.read_noise_e**2)
        plane += peak * np.exp(-0.5 * (distance / sigma) ** 2)
    return plane
