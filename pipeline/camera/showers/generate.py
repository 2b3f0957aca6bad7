"""Runs of showers: throw primaries, follow them, expose the array, and write what triggers as DL1.

A shower depends on (seed, run, number of the shower) and the configuration alone, whatever was simulated before it and
in how many processes. Each use of a shower, that is each place of the array around it, is an event of its own, with
number 100 times that of the shower plus that of the use, as CORSIKA and sim_telarray number them.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.camera.cleaning import tailcuts
from pipeline.camera.dl1 import DL1Writer, EventChunk, ShowerDistribution, SimulationRun
from pipeline.camera.hillas import image_parameters
from pipeline.camera.showers.array import Exposure, TelescopeArray, lay_out, make_world, split_rays
from pipeline.camera.showers.atmosphere import depth_at
from pipeline.camera.showers.cherenkov import PROFILE_STEP_G_CM2, Record, World, new_record, place_telescopes
from pipeline.camera.showers.interactions import load_library
from pipeline.camera.showers.particles import PRIMARIES
from pipeline.camera.showers.primaries import (
    GEV_PER_TEV,
    Primary,
    Purpose,
    random_key,
    throw,
    view_centre,
)
from pipeline.camera.showers.tracks import Steps
from pipeline.camera.showers.transport import follow_shower
from pipeline.config import CleaningConfig, ShowerClass, ShowersConfig
from pipeline.logs import get_logger
from pipeline.workers import in_order

log = get_logger(__name__)

EVENTS_PER_SHOWER = 100
BLOCK_IMAGES = 256
NANOSECOND_S = 1e-9
N_ENERGY_BINS, N_DISTANCE_BINS = 40, 20  # of the distribution of thrown showers
_INITIAL_RAYS = 1 << 18


class Block(NamedTuple):
    """What came of some showers, one after the other.

    Attributes
    ----------
    chunks : tuple of EventChunk
        Triggered images, one chunk for each kind of camera in the array.
    energy_tev : ndarray, shape (n_showers,)
        All showers, whether they triggered or not.
    core_distance_m : ndarray, shape (n_showers, n_uses)
    """

    chunks: tuple[EventChunk, ...]
    energy_tev: np.ndarray
    core_distance_m: np.ndarray


class ShowerSimulator:
    """Simulates the showers of one run.

    Parameters
    ----------
    cfg : ShowersConfig
    run : int
        Selects the class to simulate.
    seed : int

    Raises
    ------
    UserError
        If the run does not exist, or a type of telescope is not known.
    """

    def __init__(self, cfg: ShowersConfig, run: int, seed: int) -> None:
        self.cfg, self.run, self.seed = cfg, run, seed
        self.shower_class: ShowerClass = cfg.class_of_run(run)
        self.array = TelescopeArray(cfg, run, seed)
        self._library = load_library()
        self._world = make_world(self.array.kinds, cfg, self.shower_class.start_height_m)
        self._record = new_record(_INITIAL_RAYS)

    def primary(self, number: int) -> Primary:
        """Draw energy, direction and cores of shower `number`."""
        key = random_key(self.seed, self.run, Purpose.SHOWER, number)
        return throw(self.cfg, self.shower_class, self.array.centre_m, key)

    def world_of(self, primary: Primary) -> World:
        """Site and telescopes as the shower of `primary` meets them, for all its uses."""
        mirrors = np.repeat(self.array.mirrors_m[None], len(primary.cores_m), axis=0)
        mirrors[..., :2] -= primary.cores_m[:, None]
        mirrors[..., 2] += self.cfg.site_altitude_m
        return place_telescopes(self._world, mirrors, np.tile(self.array.kind, len(mirrors)))

    def follow(self, primary: Primary) -> Record:
        """Follow the shower of `primary`; the record is valid until the next call.

        A nucleus is followed as independent nucleons that share its energy equally (superposition).
        """
        world = self.world_of(primary)
        nucleons, _ = PRIMARIES[self.shower_class.particle]
        energy_gev = primary.energy_gev / len(nucleons)
        while True:
            record = self._record
            record.n_rays[0] = 0
            record.profile[:] = 0
            highest_m = -1.0
            for code, seed in zip(nucleons, primary.seeds.tolist(), strict=False):
                record.first_interaction_m[0] = -1.0
                follow_shower(code, energy_gev, primary.direction, world, self._library, Steps(), seed, record)
                highest_m = max(highest_m, record.first_interaction_m[0])
            record.first_interaction_m[0] = highest_m
            if record.n_rays[0] <= len(record.rays):
                return record
            # Rare, bright showers: once more with room for all, which gives the same shower.
            self._record = new_record(int(1.5 * record.n_rays[0]))

    def shower(self, number: int) -> tuple[EventChunk, ...]:
        """Simulate shower `number`: the images of its events, a chunk for each kind of camera."""
        return self.showers(range(number, number + 1)).chunks

    def showers(self, numbers: Iterable[int]) -> Block:
        """Simulate several showers."""
        chunks, energies, distances = [], [], []
        for number in numbers:
            primary = self.primary(number)
            chunks.append(self._events(number, primary, self.follow(primary)))
            energies.append(primary.energy_gev / GEV_PER_TEV)
            distances.append(primary.core_distance_m)
        return Block(join(chunks), np.array(energies), np.array(distances))

    def _events(self, number: int, primary: Primary, record: Record) -> tuple[EventChunk, ...]:
        n, n_uses = len(self.array), self.cfg.positions_per_shower
        rays = split_rays(record.rays[: record.n_rays[0]], n * n_uses)
        key = random_key(self.seed, self.run, Purpose.IMAGE, number)
        seeds = key.generate_state(2 * n * n_uses).reshape(n_uses, n, 2)
        images: list[list[tuple[int, Exposure]]] = [[] for _ in self.array.kinds]
        for use in range(n_uses):
            for exposure in self.array.expose(rays[use * n : (use + 1) * n], seeds[use]):
                images[self.array.kind[exposure.telescope]].append((use, exposure))
        truth = self._truth(number, primary, record)
        impact_m = primary.impact_m(self.array.mirrors_m)
        return tuple(
            self._chunk(number, kind, of_kind, truth, primary.cores_m, impact_m) for kind, of_kind in enumerate(images)
        )

    def _chunk(
        self,
        number: int,
        kind: int,
        images: list[tuple[int, Exposure]],
        truth: dict[str, float],
        cores_m: np.ndarray,
        impact_m: np.ndarray,
    ) -> EventChunk:
        """The images (use, exposure) of one kind of camera."""
        n, n_pixels = len(images), self.array.kinds[kind].camera.n_pixels
        use = np.array([use for use, _ in images], np.int64)
        exposures = [exposure for _, exposure in images]
        telescope, n_trigger, arrival_ns = (
            np.array([getattr(exposure, name) for exposure in exposures], dtype)
            for name, dtype in (("telescope", np.int64), ("n_trigger_pixels", np.int64), ("arrival_ns", np.float64))
        )

        def stacked(name: str, dtype: type, *shape: int) -> np.ndarray:
            return np.array([getattr(exposure, name) for exposure in exposures], dtype).reshape(n, *shape)

        waveforms = is_broken = None
        if self.cfg.waveforms:
            waveforms = stacked("waveforms", np.float32, n_pixels, self.array.kinds[kind].n_samples)
            is_broken = np.array([self.array.is_broken(index) for index in telescope]).reshape(n, n_pixels)
        return EventChunk(
            event_id=EVENTS_PER_SHOWER * number + use,
            tel_id=telescope + 1,
            # Since 1970: a second per shower, its uses in order within it, and nanoseconds between the telescopes
            time_s=number + use / EVENTS_PER_SHOWER + NANOSECOND_S * arrival_ns,
            image=stacked("charge", np.float32, n_pixels),
            peak_time=stacked("peak_time", np.float32, n_pixels),
            true_image=stacked("true_image", np.int32, n_pixels),
            waveforms=waveforms,
            is_broken=is_broken,
            n_trigger_pixels=n_trigger,
            truth={name: np.full(n, value) for name, value in truth.items()}
            | {
                "true_core_x_m": cores_m[use, 0],
                "true_core_y_m": cores_m[use, 1],
                "true_impact_m": impact_m[use, telescope],
            },
        )

    def _truth(self, number: int, primary: Primary, record: Record) -> dict[str, float]:
        """What all events of a shower have in common."""
        particle = self.shower_class.particle
        first_m, maximum = float(record.first_interaction_m[0]), depth_of_maximum(record.profile[1])
        if first_m < 0:
            first_m = math.nan
        if particle == "muon":
            # A track, not a shower: what is recorded is some electron that it knocked out.
            first_m = maximum = math.nan
        return {
            "shower_id": number,
            "true_energy_tev": primary.energy_gev / GEV_PER_TEV,
            "true_alt_deg": math.degrees(primary.alt_rad),
            "true_az_deg": math.degrees(primary.az_rad),
            "true_h_first_int_m": first_m,
            "true_x_max_g_cm2": maximum,  # vertical, as sim_telarray counts it
            "true_starting_grammage_g_cm2": float(depth_at(self._world.start_height_m)),
            "true_primary_id": PRIMARIES[particle][1],
        }


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


def join(chunks: Sequence[tuple[EventChunk, ...]]) -> tuple[EventChunk, ...]:
    """One chunk for each kind of camera of several, in order."""

    def joined(parts: tuple[EventChunk, ...]) -> EventChunk:
        columns = {}
        for name, value in vars(parts[0]).items():
            if isinstance(value, dict):
                columns[name] = {key: np.concatenate([getattr(part, name)[key] for part in parts]) for key in value}
            elif value is not None:
                columns[name] = np.concatenate([getattr(part, name) for part in parts])
        return EventChunk(**columns)

    return tuple(joined(parts) for parts in zip(*chunks, strict=True))


class BlockMaker:
    """Makes blocks of cleaned images with their parameters from numbers of showers; one for each process.

    Parameters
    ----------
    cfg, run, seed
        See `ShowerSimulator`.
    cleaning : CleaningConfig
    """

    def __init__(self, cfg: ShowersConfig, run: int, seed: int, cleaning: CleaningConfig) -> None:
        self._simulator = ShowerSimulator(cfg, run, seed)
        self._cleaning = cleaning

    def __call__(self, numbers: Iterable[int]) -> Block:
        """Simulate showers `numbers`."""
        block, levels = self._simulator.showers(numbers), self._cleaning
        for chunk, telescope in zip(block.chunks, self._simulator.array.kinds, strict=True):
            camera = telescope.camera
            chunk.image_mask = tailcuts(
                chunk.image, camera, levels.picture_pe, levels.boundary_pe, levels.min_picture_neighbors
            )
            chunk.parameters = image_parameters(chunk.image, chunk.peak_time, chunk.image_mask, camera)
        return block


def simulation_run(cfg: ShowersConfig, run: int) -> SimulationRun:
    """How the showers of `run` are thrown, for the file."""
    shower_class = cfg.class_of_run(run)
    alt, az = view_centre(cfg, shower_class)
    north_ut, down_ut = cfg.magnetic_field_ut
    kinds, _, _ = lay_out(cfg)
    return SimulationRun(
        energy_range_min_tev=shower_class.energy_min_tev,
        energy_range_max_tev=shower_class.energy_max_tev,
        spectral_index=shower_class.spectral_index,
        n_showers=shower_class.showers_per_run,
        shower_reuse=cfg.positions_per_shower,
        max_scatter_range_m=shower_class.scatter_radius_m,
        max_viewcone_radius_deg=shower_class.viewcone_deg,
        max_alt_rad=alt,
        min_alt_rad=alt,
        max_az_rad=az,
        min_az_rad=az,
        prod_site_alt_m=cfg.site_altitude_m,
        prod_site_b_total_ut=math.hypot(north_ut, down_ut),
        prod_site_b_declination_rad=0.0,
        prod_site_b_inclination_rad=math.atan2(down_ut, north_ut),
        corsika_wlen_min_nm=float(min(kind.wavelength_nm[0] for kind in kinds)),
        corsika_wlen_max_nm=float(max(kind.wavelength_nm[-1] for kind in kinds)),
    )


def showers_per_block(cfg: ShowersConfig) -> int:
    """So many that a block holds about `BLOCK_IMAGES` images at most: memory, and the same blocks for any `jobs`."""
    return max(1, BLOCK_IMAGES // (cfg.positions_per_shower * len(cfg.places)))


def run_showers(
    cfg: ShowersConfig,
    run: int,
    seed: int,
    writer: DL1Writer,
    cleaning: CleaningConfig | None = None,
    jobs: int = 1,
) -> None:
    """Simulate run `run` and append its images, with cleaning mask and image parameters, to `writer`.

    Memory is bounded by a few blocks of images for each of `jobs` processes. Their number changes nothing in what is
    written.
    """
    shower_class = cfg.class_of_run(run)
    n = shower_class.showers_per_run
    step = showers_per_block(cfg)
    items = (range(first, min(first + step, n + 1)) for first in range(1, n + 1, step))
    thrown = _Thrown(shower_class)
    tenth = 0
    for block in in_order(BlockMaker, (cfg, run, seed, cleaning or CleaningConfig()), items, jobs):
        writer.append(*block.chunks)
        thrown.add(block)
        if 10 * thrown.n_showers // n > tenth:
            tenth = 10 * thrown.n_showers // n
            log.info("run %d: %d of %d showers, %d images", run, thrown.n_showers, n, writer.n_images)
    writer.write_shower_distribution(thrown.distribution())


class _Thrown:
    """Counts showers by energy and core distance."""

    def __init__(self, shower_class: ShowerClass) -> None:
        self._energy_edges_tev = np.geomspace(
            shower_class.energy_min_tev, shower_class.energy_max_tev, N_ENERGY_BINS + 1
        )
        self._distance_edges_m = np.linspace(0, shower_class.scatter_radius_m, N_DISTANCE_BINS + 1)
        self._histogram = np.zeros((N_ENERGY_BINS, N_DISTANCE_BINS))
        self.n_showers = self._n_entries = 0

    def add(self, block: Block) -> None:
        distance = block.core_distance_m
        energy = np.repeat(block.energy_tev, distance.shape[1])
        # Rounding may put one just outside.
        energy = np.clip(energy, self._energy_edges_tev[0], self._energy_edges_tev[-1])
        edges = (self._energy_edges_tev, self._distance_edges_m)
        self._histogram += np.histogram2d(energy, distance.ravel(), bins=edges)[0]
        self.n_showers += len(distance)
        self._n_entries += distance.size

    def distribution(self) -> ShowerDistribution:
        return ShowerDistribution(self._n_entries, self._energy_edges_tev, self._distance_edges_m, self._histogram)
