"""Cherenkov light: how much a track gives, and which part of it meets a telescope.

A track step of length L radiates photo-electrons, counted as the telescope would detect them, in number

    N = K(h) L sin^2(theta_c),    K(h) = 2 pi alpha  integral dlambda / lambda^2  T(lambda, h) D(lambda),

with cos(theta_c) = 1 / (n beta), atmospheric transmission T and detection efficiency D. They leave on a cone. Seen
from the step, a telescope is a sphere of angular radius a at angle psi from the track; the cone meets it along an arc
of azimuth with half-width dphi,

    cos(dphi) = (cos a - cos(theta_c) cos(psi)) / (sin(theta_c) sin(psi)),

so that N dphi / pi of them are expected there. Only these are drawn.
"""

import math
from typing import NamedTuple

import numpy as np

from pipeline.camera.showers.atmosphere import depth_at, mean_refractivity, refractivity_at_depth
from pipeline.camera.showers.compilation import inner
from pipeline.camera.showers.particles import SPEED_OF_LIGHT_M_PER_NS, rotated

FINE_STRUCTURE = 1 / 137.035999
YIELD_TOP_M = 60e3  # less than 1e-4 of the light comes from above
N_YIELD_HEIGHTS = 300
START_HEIGHT_M = 80e3  # 0.01 g/cm2: one gamma in 10,000 interacts above

# One detected photon on its way: index of the telescope, direction of flight, time of arrival at the plane through the
# mirror centre. Single precision: directions to 1e-7 rad, times (0 = shower front at the core) to 1e-4 ns.
RAY = np.dtype([("telescope", "i4"), ("kx", "f4"), ("ky", "f4"), ("kz", "f4"), ("t", "f4")])

PROFILE_STEP_G_CM2 = 20.0
N_PROFILE_STEPS = 60


class World(NamedTuple):
    """What is the same for all particles of a shower.

    Attributes
    ----------
    observation_height_m, observation_depth_g_cm2 : float
        Ground level. Particles end there.
    field_t : tuple of 3 floats
        Geomagnetic field (north, west, up) [T].
    pointing : tuple of 3 floats
        Unit vector from the telescopes to where they look.
    yield_per_m : ndarray, shape (n_kinds, N_YIELD_HEIGHTS)
        K(h) [photo-electrons/m] of each kind of telescope at heights `observation_height_m` + i `yield_step_m`.
    yield_step_m : float
        Step of that table.
    sphere_radius_m : ndarray, shape (n_kinds,)
        Radius of the sphere with the mirror's area as its cross section.
    cos_field_of_view : ndarray, shape (n_kinds,)
        Rays farther from `pointing` cannot reach the camera and are dropped.
    start_height_m : float
        Where primaries begin, above sea level.
    telescopes_m : ndarray, shape (3, n_telescopes)
        Mirror centres relative to the shower core, z above sea level; see `place_telescopes`.
    kind : ndarray, shape (n_telescopes,), int64
        Which kind of telescope each is.
    largest_radius_m : float
        Of the placed telescopes' spheres.
    """

    observation_height_m: float
    observation_depth_g_cm2: float
    field_t: tuple[float, float, float]
    pointing: tuple[float, float, float]
    yield_per_m: np.ndarray
    yield_step_m: float
    sphere_radius_m: np.ndarray
    cos_field_of_view: np.ndarray
    start_height_m: float = START_HEIGHT_M
    telescopes_m: np.ndarray = np.zeros((3, 0))
    kind: np.ndarray = np.zeros(0, np.int64)
    largest_radius_m: float = 0.0


def place_telescopes(world: World, telescopes_m: np.ndarray, kind: np.ndarray | None = None) -> World:
    """The same world with other telescopes.

    Parameters
    ----------
    telescopes_m : ndarray, shape (..., 3)
        Mirror centres relative to the shower core, z above sea level; rays are numbered in the order in which they
        are in memory, as (use, telescope) for an array at several places.
    kind : ndarray, shape (...), int, optional
        Row of `World.sphere_radius_m` (and of the other properties of a kind) for each of them; 0 by default.
    """
    telescopes = np.asarray(telescopes_m, np.float64).reshape(-1, 3)
    kind = np.zeros(len(telescopes), np.int64) if kind is None else np.asarray(kind, np.int64).ravel()
    return world._replace(
        telescopes_m=np.ascontiguousarray(telescopes.T),
        kind=kind,
        largest_radius_m=float(world.sphere_radius_m[kind].max(initial=0.0)),
    )


class Record(NamedTuple):
    """What a shower leaves behind.

    Attributes
    ----------
    rays : structured ndarray of `RAY`
        Detected photons. Those beyond its length are counted and lost: run again with a longer one.
    n_rays : ndarray, shape (1,), int64
        Number of rays, lost ones included.
    profile : ndarray, shape (2, N_PROFILE_STEPS)
        Per step of vertical depth: light radiated (photo-electrons of the first kind of telescope, in all
        directions), and number of electrons and muons above the cut (mean over the step).
    first_interaction_m : ndarray, shape (1,)
        Height of the first interaction; negative as long as there was none.
    """

    rays: np.ndarray
    n_rays: np.ndarray
    profile: np.ndarray
    first_interaction_m: np.ndarray


def new_record(n_rays: int) -> Record:
    """An empty record with room for `n_rays` rays."""
    return Record(np.empty(n_rays, RAY), np.zeros(1, np.int64), np.zeros((2, N_PROFILE_STEPS)), np.full(1, -1.0))


def transmission(wavelength_nm: np.ndarray, height_m: float, observation_height_m: float) -> np.ndarray:
    """Vertical transmission of the clear atmosphere from `height_m` down to the observation level.

    Rayleigh scattering with 2970 g/cm2 at 400 nm, an aerosol layer of 1.2 km scale height with optical depth 0.1 above
    sea level plus 0.02 in the free troposphere, and ozone, which closes the window below 330 nm.

    References
    ----------
    .. [1] Bernlöhr (2000), Astropart. Phys. 12, 255, section 3 and figure 3.
    """
    ratio = 400.0 / wavelength_nm
    rayleigh = (depth_at(observation_height_m) - depth_at(height_m)) / 2970.0 * ratio**4
    scale_m = 1200.0
    aerosol = 0.10 * (math.exp(-observation_height_m / scale_m) - math.exp(-height_m / scale_m)) * ratio
    aerosol += 0.02 * (height_m > observation_height_m + 3000.0)
    above_5_km = min(max((height_m - 5e3) / 1.5e4, 0.0), 1.0)
    ozone = np.where(wavelength_nm < 330.0, 0.35 * 10 ** (-(wavelength_nm - 300.0) / 15.0) * above_5_km, 0.0)
    return np.exp(-(rayleigh + aerosol + ozone))


def yield_table(
    observation_height_m: float,
    zenith_rad: float,
    wavelength_nm: np.ndarray,
    efficiency: np.ndarray,
    *,
    absorption: bool = True,
) -> tuple[np.ndarray, float]:
    """K(h) of a telescope [photo-electrons per metre and sin^2(theta_c)], and its step in height [m].

    Parameters
    ----------
    wavelength_nm, efficiency : ndarray
        Detection efficiency D, mirror to photo-electron; zero outside.
    absorption : bool
        False for light as it is radiated (comparison with photons from other programs).
    """
    band_nm = 5.0
    wavelength = np.arange(wavelength_nm[0], wavelength_nm[-1], band_nm) + band_nm / 2
    detected = np.interp(wavelength, wavelength_nm, efficiency)
    heights = np.linspace(observation_height_m, YIELD_TOP_M, N_YIELD_HEIGHTS)
    table = np.empty(N_YIELD_HEIGHTS)
    for i, height in enumerate(heights):
        weight = detected.copy()
        if absorption:
            weight *= transmission(wavelength, height, observation_height_m) ** (1 / math.cos(zenith_rad))
        # 1e9: the integrand is per nm, lengths are in m
        table[i] = 2 * math.pi * FINE_STRUCTURE * np.sum(weight * band_nm / wavelength**2) * 1e9
    return table, float(heights[1] - heights[0])


@inner
def yield_at(kind, height_m, world):
    """K(h) of a kind of telescope, linear between the entries of the table and constant beyond."""
    x = (height_m - world.observation_height_m) / world.yield_step_m
    x = min(max(x, 0.0), N_YIELD_HEIGHTS - 1.000001)
    i = int(x)
    lower, upper = world.yield_per_m[kind, i], world.yield_per_m[kind, i + 1]
    return lower + (x - i) * (upper - lower)


@inner
def arc_half_width(cos_cone, sin_cone, cos_psi, sin_psi, cos_radius):
    """Half-width [rad] in azimuth of the arc of a cone within a disc on the sky; 0 where they miss each other.

    Parameters
    ----------
    cos_cone, sin_cone
        Opening angle of the cone, between its axis and its surface.
    cos_psi, sin_psi
        Angle between the axis and the centre of the disc.
    cos_radius
        Angular radius of the disc.
    """
    denominator = sin_cone * sin_psi
    if denominator < 1e-12:  # the track aims at the centre: all of the cone or nothing
        return math.pi if cos_radius <= cos_cone else 0.0
    cos_dphi = (cos_radius - cos_cone * cos_psi) / denominator
    if cos_dphi >= 1.0:
        return 0.0
    if cos_dphi <= -1.0:
        return math.pi
    return math.acos(cos_dphi)


@inner
def shine(position, direction, length_sin2_m, cos_cone, sin_cone, refractivity, world, record):
    """Draw the rays that reach the telescopes from one point on a track.

    Parameters
    ----------
    position : (x, y, z, t)
        Point of emission [m, ns].
    direction : (ux, uy, uz)
        Axis of the cone.
    length_sin2_m : float
        Length of the step times sin^2(theta_c): with K(h) of a telescope, the photo-electrons on the whole cone.
    cos_cone, sin_cone : float
        Cherenkov angle.
    refractivity : float
        Mean n - 1 between here and the ground, for the time of flight.
    """
    x, y, z, t = position
    ux, uy, uz = direction
    tan_cone = sin_cone / cos_cone
    margin = 1.02 * world.largest_radius_m
    # One after the other: skipping a whole array by a sphere around it saves 4 to 10 % of a shower's time where
    # it has 40 to 90 telescopes, and costs 4 to 8 % where arrays are single telescopes (measured).
    for i in range(world.telescopes_m.shape[1]):
        wx, wy, wz = world.telescopes_m[0, i] - x, world.telescopes_m[1, i] - y, world.telescopes_m[2, i] - z
        along = wx * ux + wy * uy + wz * uz
        square = wx * wx + wy * wy + wz * wz
        across2 = square - along * along
        # Cheap test first: the cone passes the centre at a distance |across - along tan(theta_c)| in the plane across
        # the track, a little more than its distance from the sphere's surface.
        middle = along * tan_cone
        outer, inner = middle + margin, middle - margin
        if along <= 0.0 or across2 > outer * outer or (inner > 0.0 and across2 < inner * inner):
            continue
        kind = world.kind[i]
        distance = math.sqrt(square)
        sin_radius = world.sphere_radius_m[kind] / distance
        if sin_radius >= 1.0:  # emitted within the sphere
            continue
        across = math.sqrt(max(across2, 0.0))
        half_width = arc_half_width(
            cos_cone, sin_cone, along / distance, across / distance, math.sqrt(1.0 - sin_radius * sin_radius)
        )
        if half_width == 0.0:
            continue
        n_detected = np.random.poisson(yield_at(kind, z, world) * length_sin2_m * half_width / math.pi)
        if n_detected == 0:
            continue
        # Basis across the track; the azimuth counts from the direction to the telescope.
        if across > 1e-4:
            ax, ay, az = (wx - along * ux) / across, (wy - along * uy) / across, (wz - along * uz) / across
        else:
            ax, ay, az = rotated(direction, math.pi / 2, 0.0)
        bx, by, bz = uy * az - uz * ay, uz * ax - ux * az, ux * ay - uy * ax
        for _ in range(n_detected):
            azimuth = half_width * (2.0 * np.random.random() - 1.0)
            a, b = sin_cone * math.cos(azimuth), sin_cone * math.sin(azimuth)
            kx = cos_cone * ux + a * ax + b * bx
            ky = cos_cone * uy + a * ay + b * by
            kz = cos_cone * uz + a * az + b * bz
            cos_offset = -(kx * world.pointing[0] + ky * world.pointing[1] + kz * world.pointing[2])
            if cos_offset < world.cos_field_of_view[kind]:
                continue
            if record.n_rays[0] < record.rays.shape[0]:
                ray = record.rays[record.n_rays[0]]
                ray.telescope = i
                ray.kx, ray.ky, ray.kz = kx, ky, kz
                path = kx * wx + ky * wy + kz * wz
                ray.t = t + path / SPEED_OF_LIGHT_M_PER_NS * (1.0 + refractivity)
            record.n_rays[0] += 1


@inner
def radiate(position, direction, depth, end_depth, length_m, beta2, scatter_rad, world, record):
    """Cherenkov light of one straight step, emitted at a point uniform along it.

    Parameters
    ----------
    position, direction
        Where the step begins [m, ns], and whereto.
    depth, end_depth : float
        Overburden at both ends [g/cm2].
    length_m : float
        Length of the step.
    beta2 : float
        Square of the speed in the middle of the step.
    scatter_rad : float
        Rms multiple scattering angle per plane over the whole step; the part up to the point of emission turns the
        cone.
    """
    x, y, z, t = position
    ux, uy, uz = direction
    part = np.random.random()
    height = z + part * uz * length_m
    at_depth = depth + part * (end_depth - depth)
    n = 1.0 + refractivity_at_depth(at_depth)
    # sin^2 = 1 - 1 / (n beta)^2
    sin2 = 1.0 - 1.0 / (n * n * beta2)
    if sin2 <= 0.0:
        return
    length_sin2 = length_m * sin2
    step = int(at_depth / PROFILE_STEP_G_CM2)
    if step < N_PROFILE_STEPS:
        record.profile[0, step] += yield_at(0, height, world) * length_sin2
    if scatter_rad > 0.0:
        polar = scatter_rad * math.sqrt(part) * math.sqrt(-2.0 * math.log(1.0 - np.random.random()))
        direction = rotated(direction, polar, 2.0 * math.pi * np.random.random())
    path = part * length_m
    point = (x + path * ux, y + path * uy, height, t + path / (SPEED_OF_LIGHT_M_PER_NS * math.sqrt(beta2)))
    refractivity = mean_refractivity(at_depth, height, world.observation_depth_g_cm2, world.observation_height_m)
    shine(point, direction, length_sin2, math.sqrt(1.0 - sin2), math.sqrt(sin2), refractivity, world, record)
