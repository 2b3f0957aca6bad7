"""What a shower begins with: energy, direction, and where it falls around the array.

Everything is drawn from (seed, run, number of the shower) alone, whatever was simulated before.
"""

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from pipeline.camera.showers.optics import horizontal_basis
from pipeline.config import ShowerClass, ShowersConfig

GEV_PER_TEV = 1e3
MAX_NUCLEONS = 4  # of a nucleus that is followed as so many independent nucleons


class Purpose(IntEnum):
    """What randomness is for: part of its key, so that no two purposes share numbers."""

    SHOWER = 0
    NOISE = 1
    IMAGE = 2
    PIXELS = 3


def random_key(seed: int, run: int, purpose: Purpose, *item: int) -> np.random.SeedSequence:
    """Where the random numbers of one item (a shower, a telescope) for one purpose come from."""
    return np.random.SeedSequence(seed, spawn_key=(int(purpose), run, *item))


@dataclass(frozen=True)
class Primary:
    """One shower, before it is followed.

    Attributes
    ----------
    energy_gev : float
        Total energy of the particle, or of the nucleus.
    alt_rad, az_rad : float
        Where it comes from.
    direction : tuple of 3 floats
        Direction of flight (north, west, up).
    cores_m : ndarray, shape (n_uses, 2)
        Where its axis meets the ground (z = 0 of the array), to the north and to the west, for each use.
    core_distance_m : ndarray, shape (n_uses,)
        Distance of the axis from the middle of the array.
    seeds : ndarray, shape (MAX_NUCLEONS,), uint32
        For following it, one for each nucleon of a nucleus.
    """

    energy_gev: float
    alt_rad: float
    az_rad: float
    direction: tuple[float, float, float]
    cores_m: np.ndarray
    core_distance_m: np.ndarray
    seeds: np.ndarray

    def impact_m(self, positions_m: np.ndarray) -> np.ndarray:
        """Distances of points at `positions_m` (n, 3), relative to the array's origin, from the axis: (n_uses, n)."""
        cores = np.column_stack([self.cores_m, np.zeros(len(self.cores_m))])
        return np.linalg.norm(np.cross(positions_m - cores[:, None], self.direction), axis=2)


def power_law(u: float, low: float, high: float, index: float) -> float:
    """The value with cumulative probability `u` of dN/dE ~ E^index between `low` and `high`."""
    k = index + 1
    if abs(k) < 1e-9:
        return low * (high / low) ** u
    return (low**k + u * (high**k - low**k)) ** (1 / k)


def around(alt_rad: float, az_rad: float, offset_rad: float, position_angle_rad: float) -> tuple[float, float]:
    """The direction (alt, az) at an angle from another one [rad].

    The position angle counts from larger altitude to larger azimuth; past the zenith, the azimuth turns to the other
    side. The azimuth is in [0, 2 pi).
    """
    axis, up, east = (np.array(vector) for vector in horizontal_basis(alt_rad, az_rad))
    across = math.cos(position_angle_rad) * up + math.sin(position_angle_rad) * east
    x, y, z = (math.cos(offset_rad) * axis + math.sin(offset_rad) * across).tolist()
    return math.atan2(z, math.hypot(x, y)), math.atan2(-y, x) % (2 * math.pi)


def pointing(cfg: ShowersConfig) -> tuple[float, float]:
    """Altitude and azimuth that all telescopes look at [rad]."""
    return math.pi / 2 - math.radians(cfg.zenith_deg), math.radians(cfg.azimuth_deg)


def view_centre(cfg: ShowersConfig, shower_class: ShowerClass) -> tuple[float, float]:
    """Altitude and azimuth of the middle of the view cone, or of the point source [rad]."""
    return around(*pointing(cfg), math.radians(shower_class.offset_deg), 0.0)


def throw(cfg: ShowersConfig, shower_class: ShowerClass, centre_m: np.ndarray, key: np.random.SeedSequence) -> Primary:
    """Draw energy, direction and cores of a shower.

    The energy follows the class's power law. Directions are uniform in the solid angle of the view cone. Cores are
    uniform in a disc across the shower axis, so that their number per area of a front is the same at all zenith
    angles, and the distance of the axis from the middle of the array is at most the scatter radius.

    Parameters
    ----------
    centre_m : ndarray, shape (3,)
        Middle of the array, relative to its origin.
    key
        See `random_key`.
    """
    rng = np.random.default_rng(key)
    energy_tev = power_law(
        rng.random(), shower_class.energy_min_tev, shower_class.energy_max_tev, shower_class.spectral_index
    )
    # Haversine form, exact for small cones: sin^2(offset / 2) is uniform
    sin_half = math.sqrt(rng.random()) * math.sin(math.radians(shower_class.viewcone_deg) / 2)
    alt, az = around(*view_centre(cfg, shower_class), 2 * math.asin(sin_half), 2 * math.pi * rng.random())
    n = cfg.positions_per_shower
    distance = shower_class.scatter_radius_m * np.sqrt(rng.random(n))
    angle = 2 * math.pi * rng.random(n)
    axis, up, east = (np.array(vector) for vector in horizontal_basis(alt, az))
    cores = centre_m + distance[:, None] * (np.cos(angle)[:, None] * up + np.sin(angle)[:, None] * east)
    cores -= (cores[:, 2] / axis[2])[:, None] * axis  # along the axis to the ground
    seeds = rng.integers(0, 2**32, MAX_NUCLEONS, dtype=np.uint32)
    return Primary(
        energy_tev * GEV_PER_TEV, alt, az, tuple((-axis).tolist()), np.ascontiguousarray(cores[:, :2]), distance, seeds
    )
