"""Telescopes on the ground: positions, how each of them records a shower's rays, and when the array triggers.

Telescopes of one type share optics and electronics. Only the rays on its mirror and the
imperfections of its pixels belong to a single telescope.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from pipeline.camera.dl1 import Subarray
from pipeline.camera.showers.atmosphere import depth_at
from pipeline.camera.showers.cherenkov import START_HEIGHT_M, World, yield_table
from pipeline.camera.showers.compilation import compiled
from pipeline.camera.showers.conditions import make_conditions
from pipeline.camera.showers.electronics import make_electronics, read_out
from pipeline.camera.showers.optics import horizontal_basis, make_optics, trace
from pipeline.camera.showers.primaries import Purpose, pointing, random_key
from pipeline.camera.telescopes import Telescope, get_telescope
from pipeline.config import ShowersConfig

MARGIN_RAD = math.radians(0.15)  # rays this far outside the camera may still be scattered into it


class Exposure(NamedTuple):
    """A triggered telescope's view of a shower.

    Attributes
    ----------
    telescope : int
        Its index in the array.
    n_trigger_pixels : int
    arrival_ns : float
        Median arrival of the light at the telescope; 0 is the shower front at the core.
    charge, peak_time : ndarray, shape (n_pixels,), float32
        [p.e.], [ns in the readout window].
    true_image : ndarray, shape (n_pixels,), int32
        Photo-electrons of the shower alone.
    waveforms : ndarray, shape (n_pixels, n_samples), float32, or None
        Calibrated, in photo-electrons per sample.
    """

    telescope: int
    n_trigger_pixels: int
    arrival_ns: float
    charge: np.ndarray
    peak_time: np.ndarray
    true_image: np.ndarray
    waveforms: np.ndarray | None


class TelescopeArray:
    """The telescopes of a configuration, pointed and ready to take data.

    Parameters
    ----------
    cfg : ShowersConfig
    run, seed : int
        Noise and imperfections of the cameras depend on them, and are the same for all showers of the run.

    Attributes
    ----------
    kinds : tuple of Telescope
        The types of telescopes in it.
    kind : ndarray, shape (n_telescopes,), int64
        Which of them each telescope is.
    mirrors_m : ndarray, shape (n_telescopes, 3)
        Mirror centres: north, west, and above the site's altitude.
    centre_m : ndarray, shape (3,)
        Their mean.

    Raises
    ------
    UserError
        If a type of telescope is not known.
    """

    def __init__(self, cfg: ShowersConfig, run: int, seed: int) -> None:
        self.kinds, self.kind, self.mirrors_m = lay_out(cfg)
        self.centre_m = self.mirrors_m.mean(axis=0)
        self._min_telescopes, self._min_true_pe = cfg.min_telescopes, cfg.min_true_pe
        self._keep_waveforms = cfg.waveforms
        self._optics = [make_optics(telescope, *pointing(cfg)) for telescope in self.kinds]

        def word(purpose: Purpose, item: int) -> int:
            return int(random_key(seed, run, purpose, item).generate_state(1)[0])

        self._electronics = [
            make_electronics(telescope, word(Purpose.NOISE, index), cfg.camera)
            for index, telescope in enumerate(self.kinds)
        ]
        self._pixels = [
            make_conditions(self.kinds[kind], cfg.camera, word(Purpose.PIXELS, index))
            for index, kind in enumerate(self.kind.tolist())
        ]
        # Room for waveforms, and for their sums over neighbours
        shapes = [(telescope.camera.n_pixels, telescope.n_samples) for telescope in self.kinds]
        self._rooms = [(np.zeros(shape, np.float32), np.zeros(shape, np.float32)) for shape in shapes]

    def __len__(self) -> int:
        return len(self.kind)

    def expose(self, rays: Sequence[np.ndarray], seeds: np.ndarray) -> list[Exposure]:
        """Images of the telescopes that trigger; none if they are too few.

        Parameters
        ----------
        rays : sequence of structured ndarray of `RAY`
            Rays on each mirror, telescope by telescope.
        seeds : ndarray, shape (n_telescopes, 2), uint32
            For optics and electronics of each telescope.
        """
        lit = []
        for index, on_mirror in enumerate(rays):
            if len(on_mirror) >= self._min_true_pe:
                pixel, time = trace(on_mirror, self._optics[self.kind[index]], int(seeds[index, 0]))
                hit = pixel >= 0
                if np.count_nonzero(hit) >= self._min_true_pe:
                    lit.append((index, pixel, time, hit))
        if len(lit) < self._min_telescopes:
            return []
        exposures = [self._read_out(*light, int(seeds[light[0], 1])) for light in lit]
        triggered = [exposure for exposure in exposures if exposure is not None]
        return triggered if len(triggered) >= self._min_telescopes else []

    def _read_out(
        self, index: int, pixel: np.ndarray, time_ns: np.ndarray, hit: np.ndarray, seed: int
    ) -> Exposure | None:
        kind = self.kind[index]
        telescope, electronics, (waveforms, sums) = self.kinds[kind], self._electronics[kind], self._rooms[kind]
        arrival_ns = float(np.median(time_ns[hit]))
        # The readout window follows the light; its phase against the clock is random.
        time_ns += electronics.arrival_ns + seed / 2**32 * telescope.sample_ns - arrival_ns
        charge, peak_time = np.zeros((2, telescope.camera.n_pixels), np.float32)
        n_trigger = read_out(pixel, time_ns, electronics, self._pixels[index], seed, waveforms, sums, charge, peak_time)
        if n_trigger == 0:
            return None
        true_image = np.bincount(pixel[hit], minlength=telescope.camera.n_pixels).astype(np.int32)
        # Per sample, not per ns: what ctapipe's extractors add up
        kept = waveforms * np.float32(telescope.sample_ns) if self._keep_waveforms else None
        return Exposure(index, n_trigger, arrival_ns, charge, peak_time, true_image, kept)

    def is_broken(self, index: int) -> np.ndarray:
        """Dead pixels of a telescope: bool, shape (n_pixels,)."""
        return self._pixels[index].gain == 0


def lay_out(cfg: ShowersConfig) -> tuple[tuple[Telescope, ...], np.ndarray, np.ndarray]:
    """Types of telescopes, the type of each telescope, and mirror centres (n_telescopes, 3); see `TelescopeArray`."""
    names = list(dict.fromkeys(place.type for place in cfg.places))
    kinds = tuple(get_telescope(name, cfg.geometry_files.get(name)) for name in names)
    kind = np.array([names.index(place.type) for place in cfg.places])
    mirrors = [
        (place.x_m, place.y_m, place.z_m + kinds[index].mirror_height_m)
        for place, index in zip(cfg.places, kind.tolist(), strict=True)
    ]
    return kinds, kind, np.array(mirrors)


def subarray(cfg: ShowersConfig) -> Subarray:
    """The telescopes for the file, numbered from 1; its reference is the array's origin."""
    kinds, kind, mirrors = lay_out(cfg)
    numbers = range(1, len(kind) + 1)
    return Subarray(
        name="+".join(telescope.name for telescope in kinds) + "-simulated",
        telescopes={number: kinds[index].camera for number, index in zip(numbers, kind.tolist(), strict=True)},
        positions_m=dict(zip(numbers, map(tuple, mirrors.tolist()), strict=True)),
        altitude_m=cfg.site_altitude_m,
    )


def make_world(kinds: Sequence[Telescope], cfg: ShowersConfig, start_height_m: float | None = None) -> World:
    """Site and light yields for kinds of telescopes that look at the configured zenith angle; none placed yet.

    Parameters
    ----------
    start_height_m : float, optional
        Where primaries begin, above the site; at the top of the atmosphere by default.
    """
    north_ut, down_ut = cfg.magnetic_field_ut
    axis, _, _ = horizontal_basis(*pointing(cfg))
    of_kind = partial(yield_table, cfg.site_altitude_m, math.radians(cfg.zenith_deg))
    tables = [of_kind(kind.wavelength_nm, kind.efficiency * kind.throughput) for kind in kinds]
    return World(
        observation_height_m=cfg.site_altitude_m,
        observation_depth_g_cm2=float(depth_at(cfg.site_altitude_m)),
        field_t=(1e-6 * north_ut, 0.0, -1e-6 * down_ut),
        pointing=axis,
        yield_per_m=np.array([table for table, _ in tables]),
        yield_step_m=tables[0][1],
        sphere_radius_m=np.array([kind.sphere_radius_m for kind in kinds]),
        cos_field_of_view=np.array([math.cos(kind.field_of_view_rad + MARGIN_RAD) for kind in kinds]),
        start_height_m=START_HEIGHT_M if start_height_m is None else cfg.site_altitude_m + start_height_m,
    )


@compiled
def _sorted_by_telescope(rays, n_telescopes):
    """The rays in the order of their telescopes, and where each telescope's begin (n_telescopes + 1)."""
    starts = np.zeros(n_telescopes + 1, np.int64)
    for i in range(len(rays)):
        starts[rays[i].telescope + 1] += 1
    for telescope in range(n_telescopes):
        starts[telescope + 1] += starts[telescope]
    place = starts[:-1].copy()
    out = np.empty_like(rays)
    for i in range(len(rays)):
        telescope = rays[i].telescope
        out[place[telescope]] = rays[i]
        place[telescope] += 1
    return out, starts


def split_rays(rays: np.ndarray, n_telescopes: int) -> list[np.ndarray]:
    """The rays of one telescope after the other, in the order in which they came."""
    ordered, starts = _sorted_by_telescope(rays, n_telescopes)
    return [ordered[start:end] for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)]
