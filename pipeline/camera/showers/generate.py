"""Runs of showers: throw primaries and telescope positions, follow the showers, expose the cameras, write DL1.

A shower depends on (seed, run, number of the shower) and the configuration alone, whatever was simulated before it.
Each telescope position is an event of its own, with number 100 times that of the shower plus that of the position, as
CORSIKA and sim_telarray number the uses of a shower.
"""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.camera.cleaning import tailcuts
from pipeline.camera.dl1 import DL1Writer, EventChunk, SimulationRun, Subarray
from pipeline.camera.hillas import image_parameters
from pipeline.camera.showers.atmosphere import depth_at
from pipeline.camera.showers.cherenkov import (
    PROFILE_STEP_G_CM2,
    Record,
    World,
    new_record,
    yield_table,
)
from pipeline.camera.showers.conditions import make_conditions
from pipeline.camera.showers.electronics import make_electronics, read_out
from pipeline.camera.showers.interactions import load_library
from pipeline.camera.showers.optics import horizontal_basis, make_optics, trace
from pipeline.camera.showers.particles import PRIMARIES
from pipeline.camera.showers.tracks import Steps
from pipeline.camera.showers.transport import follow_shower
from pipeline.camera.telescopes import Telescope, get_telescope
from pipeline.config import CleaningConfig, ShowerClass, ShowersConfig

log = logging.getLogger(__name__)

EVENTS_PER_SHOWER = 100
TEL_ID = 1
CHUNK_IMAGES = 256
MARGIN_RAD = math.radians(0.15)  # rays this far outside the camera may still be scattered into it
GEV_PER_TEV = 1e3
_INITIAL_RAYS = 1 << 18
# What randomness is for: part of its key, so that no two purposes share numbers.
_SHOWER, _NOISE = 0, 1


@dataclass(frozen=True)
class Primary:
    """What one shower begins with, and where the telescopes stand.

    Attributes
    ----------
    energy_gev : float
    alt_rad, az_rad : float
        Where the primary comes from.
    direction : tuple of 3 floats
        Direction of flight (north, west, up).
    telescopes_m : ndarray, shape (n, 3)
        Mirror centres relative to the core at ground level.
    impact_m : ndarray, shape (n,)
        Their distances from the shower axis.
    seeds : ndarray, shape (1 + 2 n,), int64
        For the shower, and for optics and electronics of each position.
    """

    energy_gev: float
    alt_rad: float
    az_rad: float
    direction: tuple[float, float, float]
    telescopes_m: np.ndarray
    impact_m: np.ndarray
    seeds: np.ndarray


def power_law(u: float, low: float, high: float, index: float) -> float:
    """The value with cumulative probability `u` of dN/dE ~ E^index between `low` and `high`."""
    k = index + 1
    if abs(k) < 1e-9:
        return low * (high / low) ** u
    return (low**k + u * (high**k - low**k)) ** (1 / k)


class ShowerSimulator:
    """Simulates the showers of one run.

    Parameters
    ----------
    cfg : ShowersConfig
    run : int
        1-based; says which of the configuration's classes is simulated.
    seed : int
    """

    def __init__(self, cfg: ShowersConfig, run: int, seed: int) -> None:
        self.cfg, self.run, self.seed = cfg, run, seed
        self.shower_class: ShowerClass = cfg.class_of_run(run)
        self.telescope: Telescope = get_telescope(cfg.telescope)
        self.alt_rad = math.pi / 2 - math.radians(cfg.zenith_deg)
        self.az_rad = math.radians(cfg.azimuth_deg)
        self._library = load_library()
        self._world = make_world(self.telescope, cfg)
        self._optics = make_optics(self.telescope, self.alt_rad, self.az_rad)
        noise_seed, pixel_seed = (int(word) for word in self._sequence(_NOISE).generate_state(2))
        self._electronics = make_electronics(self.telescope, noise_seed, cfg.camera)
        self._pixels = make_conditions(self.telescope, cfg.camera, pixel_seed)
        shape = (self.telescope.camera.n_pixels, self.telescope.n_samples)
        self._waveforms, self._sums = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self._record = new_record(_INITIAL_RAYS)

    def _sequence(self, purpose: int, *item: int) -> np.random.SeedSequence:
        return np.random.SeedSequence(self.seed, spawn_key=(purpose, self.run, *item))

    def primary(self, number: int) -> Primary:
        """Draw energy, direction and positions of shower `number`."""
        kind, n = self.shower_class, self.cfg.positions_per_shower
        rng = np.random.default_rng(self._sequence(_SHOWER, number))
        energy_tev = power_law(rng.random(), kind.energy_min_tev, kind.energy_max_tev, kind.spectral_index)
        # Uniform in the solid angle of the view cone
        cos_offset = 1 - rng.random() * (1 - math.cos(math.radians(kind.viewcone_deg)))
        source = _around(self.alt_rad, self.az_rad, cos_offset, 2 * math.pi * rng.random())
        alt, az = math.asin(source[2]), math.atan2(-source[1], source[0]) % (2 * math.pi)
        # Uniform in a disc across the shower axis, then along the axis to the height of the mirrors
        impact = kind.scatter_radius_m * np.sqrt(rng.random(n))
        angle = 2 * math.pi * rng.random(n)
        axis, up, east = (np.array(vector) for vector in horizontal_basis(alt, az))
        telescopes = impact[:, None] * (np.cos(angle)[:, None] * up + np.sin(angle)[:, None] * east)
        telescopes += ((self.telescope.mirror_height_m - telescopes[:, 2]) / axis[2])[:, None] * axis
        seeds = rng.integers(0, 2**32, 1 + 2 * n)
        return Primary(energy_tev * GEV_PER_TEV, alt, az, tuple((-axis).tolist()), telescopes, impact, seeds)

    def follow(self, primary: Primary) -> Record:
        """Follow the shower of `primary`; the record is valid until the next call."""
        telescopes = primary.telescopes_m.T.copy()
        telescopes[2] += self.cfg.site_altitude_m
        world = self._world._replace(telescopes_m=telescopes)
        code, _ = PRIMARIES[self.shower_class.particle]
        while True:
            record = self._record
            record.n_rays[0], record.first_interaction_m[0] = 0, -1.0
            record.profile[:] = 0
            follow_shower(
                code,
                primary.energy_gev,
                primary.direction,
                world,
                self._library,
                Steps(),
                int(primary.seeds[0]),
                record,
            )
            if record.n_rays[0] <= len(record.rays):
                return record
            # Rare, bright showers: once more with room for all, which gives the same shower.
            self._record = new_record(int(1.5 * record.n_rays[0]))

    def shower(self, number: int) -> EventChunk | None:
        """Simulate shower `number`; None if no telescope triggers."""
        primary = self.primary(number)
        record = self.follow(primary)
        n = len(primary.telescopes_m)
        n_pixels = self.telescope.camera.n_pixels
        charge, peak_time = np.zeros((2, n, n_pixels), np.float32)
        true_image = np.zeros((n, n_pixels), np.int32)
        n_trigger = np.zeros(n, np.int64)
        for i, rays in enumerate(_by_telescope(record, n)):
            if len(rays) < self.cfg.min_true_pe:
                continue
            optics_seed, readout_seed = (int(seed) for seed in primary.seeds[1 + 2 * i : 3 + 2 * i])
            pixel, time = trace(rays, self._optics, optics_seed)
            hit = pixel >= 0
            if np.count_nonzero(hit) < self.cfg.min_true_pe:
                continue
            true_image[i] = np.bincount(pixel[hit], minlength=n_pixels)
            # The readout window follows the light; its phase against the clock is random.
            phase = readout_seed / 2**32 * self.telescope.sample_ns
            time += self._electronics.arrival_ns + phase - np.median(time[hit])
            n_trigger[i] = read_out(
                pixel,
                time,
                self._electronics,
                self._pixels,
                readout_seed,
                self._waveforms,
                self._sums,
                charge[i],
                peak_time[i],
            )
        kept = np.flatnonzero(n_trigger)
        if len(kept) == 0:
            return None
        return EventChunk(
            event_id=EVENTS_PER_SHOWER * number + kept,
            tel_id=np.full(len(kept), TEL_ID),
            # Seconds since 1970: one second per shower, positions in order within it
            time_s=number + kept / EVENTS_PER_SHOWER,
            image=charge[kept],
            peak_time=peak_time[kept],
            true_image=true_image[kept],
            n_trigger_pixels=n_trigger[kept],
            truth=self._truth(number, primary, record, kept),
        )

    def _truth(self, number: int, primary: Primary, record: Record, kept: np.ndarray) -> dict[str, np.ndarray]:
        first = record.first_interaction_m[0]
        shower = {
            "shower_id": number,
            "true_energy_tev": primary.energy_gev / GEV_PER_TEV,
            "true_alt_deg": math.degrees(primary.alt_rad),
            "true_az_deg": math.degrees(primary.az_rad),
            "true_h_first_int_m": first if first > 0 else math.nan,
            "true_x_max_g_cm2": depth_of_maximum(record.profile[1]) / -primary.direction[2],
            "true_primary_id": PRIMARIES[self.shower_class.particle][1],
        }
        return {name: np.full(len(kept), value) for name, value in shower.items()} | {
            # The telescope stands at the origin, so the core lies opposite.
            "true_core_x_m": -primary.telescopes_m[kept, 0],
            "true_core_y_m": -primary.telescopes_m[kept, 1],
            "true_impact_m": primary.impact_m[kept],
        }

    def showers(self) -> Iterator[EventChunk]:
        """All showers of the run that triggered, in order."""
        n = self.shower_class.showers_per_run
        for number in range(1, n + 1):
            chunk = self.shower(number)
            if chunk is not None:
                yield chunk
            if number % max(n // 10, 1) == 0:
                log.info("run %d: %d of %d showers", self.run, number, n)


def make_world(telescope: Telescope, cfg: ShowersConfig) -> World:
    """Site and light yield for a telescope that looks at the configured zenith angle; no telescope placed yet."""
    north_ut, down_ut = cfg.magnetic_field_ut
    zenith = math.radians(cfg.zenith_deg)
    axis, _, _ = horizontal_basis(math.pi / 2 - zenith, math.radians(cfg.azimuth_deg))
    efficiency = telescope.efficiency * telescope.throughput
    table, step = yield_table(cfg.site_altitude_m, zenith, telescope.wavelength_nm, efficiency)
    return World(
        observation_height_m=cfg.site_altitude_m,
        observation_depth_g_cm2=float(depth_at(cfg.site_altitude_m)),
        field_t=(1e-6 * north_ut, 0.0, -1e-6 * down_ut),
        yield_per_m=table,
        yield_step_m=step,
        telescopes_m=np.zeros((3, 0)),
        sphere_radius_m=telescope.sphere_radius_m,
        pointing=axis,
        cos_field_of_view=math.cos(telescope.field_of_view_rad + MARGIN_RAD),
    )


def _around(alt_rad: float, az_rad: float, cos_offset: float, position_angle: float) -> tuple[float, ...]:
    """Unit vector at an angle from (alt, az), at `position_angle` counted from larger altitude to larger azimuth."""
    axis, up, east = (np.array(vector) for vector in horizontal_basis(alt_rad, az_rad))
    sin_offset = math.sqrt(max(1 - cos_offset**2, 0.0))
    across = math.cos(position_angle) * up + math.sin(position_angle) * east
    return tuple((cos_offset * axis + sin_offset * across).tolist())


def _by_telescope(record: Record, n_telescopes: int) -> Iterator[np.ndarray]:
    """The rays of one telescope after the other."""
    rays = record.rays[: record.n_rays[0]]
    order = np.argsort(rays["telescope"], kind="stable")
    ends = np.cumsum(np.bincount(rays["telescope"], minlength=n_telescopes))
    for start, end in zip(np.concatenate([[0], ends[:-1]]), ends, strict=True):
        yield rays[order[start:end]]


def depth_of_maximum(profile: np.ndarray) -> float:
    """Vertical depth [g/cm2] where a profile in steps of `PROFILE_STEP_G_CM2` is highest; NaN for an empty one.

    From a parabola through the highest step and its neighbours.
    """
    i = int(np.argmax(profile))
    if profile[i] <= 0:
        return math.nan
    if 0 < i < len(profile) - 1:
        left, middle, right = profile[i - 1 : i + 2]
        curvature = left - 2 * middle + right
        shift = 0.5 * (left - right) / curvature if curvature < 0 else 0.0
    else:
        shift = 0.0
    return (i + 0.5 + shift) * PROFILE_STEP_G_CM2


def join(chunks: list[EventChunk]) -> EventChunk:
    """One chunk of several, in order."""
    fields = ("event_id", "tel_id", "time_s", "image", "peak_time", "true_image", "n_trigger_pixels")
    return EventChunk(
        **{name: np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in fields},
        truth={name: np.concatenate([chunk.truth[name] for chunk in chunks]) for name in chunks[0].truth},
    )


def blocks(chunks: Iterator[EventChunk], n_images: int = CHUNK_IMAGES) -> Iterator[EventChunk]:
    """The same images in chunks of about `n_images`."""
    waiting: list[EventChunk] = []
    for chunk in chunks:
        waiting.append(chunk)
        if sum(map(len, waiting)) >= n_images:
            yield join(waiting)
            waiting = []
    if waiting:
        yield join(waiting)


def subarray(cfg: ShowersConfig) -> Subarray:
    """The array of one telescope that the events belong to; showers fall around it."""
    telescope = get_telescope(cfg.telescope)
    return Subarray(
        name=f"{telescope.name}-simulated",
        telescopes={TEL_ID: telescope.camera},
        positions_m={TEL_ID: (0.0, 0.0, telescope.mirror_height_m)},
        altitude_m=cfg.site_altitude_m,
    )


def simulation_run(cfg: ShowersConfig, run: int) -> SimulationRun:
    """How the showers of `run` are thrown, for the file."""
    kind = cfg.class_of_run(run)
    alt, az = math.pi / 2 - math.radians(cfg.zenith_deg), math.radians(cfg.azimuth_deg)
    north_ut, down_ut = cfg.magnetic_field_ut
    telescope = get_telescope(cfg.telescope)
    return SimulationRun(
        energy_range_min_tev=kind.energy_min_tev,
        energy_range_max_tev=kind.energy_max_tev,
        spectral_index=kind.spectral_index,
        n_showers=kind.showers_per_run,
        shower_reuse=cfg.positions_per_shower,
        max_scatter_range_m=kind.scatter_radius_m,
        max_viewcone_radius_deg=kind.viewcone_deg,
        max_alt_rad=alt,
        min_alt_rad=alt,
        max_az_rad=az,
        min_az_rad=az,
        prod_site_alt_m=cfg.site_altitude_m,
        prod_site_b_total_ut=math.hypot(north_ut, down_ut),
        prod_site_b_declination_rad=0.0,
        prod_site_b_inclination_rad=math.atan2(down_ut, north_ut),
        corsika_wlen_min_nm=float(telescope.wavelength_nm[0]),
        corsika_wlen_max_nm=float(telescope.wavelength_nm[-1]),
    )


def run_showers(
    cfg: ShowersConfig, run: int, seed: int, writer: DL1Writer, cleaning: CleaningConfig | None = None
) -> None:
    """Simulate run `run` and append its images, with cleaning mask and image parameters, to `writer`.

    Memory is bounded by one chunk of images and one shower.
    """
    cleaning = cleaning or CleaningConfig()
    simulator = ShowerSimulator(cfg, run, seed)
    camera = simulator.telescope.camera
    for block in blocks(simulator.showers()):
        block.image_mask = tailcuts(
            block.image, camera, cleaning.picture_pe, cleaning.boundary_pe, cleaning.min_picture_neighbors
        )
        block.parameters = image_parameters(block.image, block.peak_time, block.image_mask, camera)
        writer.append(block)
