"""A few images of one telescope type, to look at: is this what such a camera sees?"""

import math

import numpy as np

from pipeline.camera.cleaning import tailcuts
from pipeline.camera.geometry import Camera
from pipeline.camera.hillas import image_parameters
from pipeline.camera.shower_image import ShowerImage
from pipeline.camera.showers.generate import ShowerSimulator
from pipeline.camera.showers.particles import PRIMARIES
from pipeline.camera.telescopes import get_telescope
from pipeline.config import CleaningConfig, ShowerClass, ShowersConfig
from pipeline.errors import UserError

# The product of threshold energy and mirror area is about the same for all types: light per area, and a trigger that
# requires some 20 photo-electrons in a pixel and its neighbours.
_ENERGY_TIMES_AREA_TEV_M2 = 20.0
_ENERGY_DECADE = 10.0
_PROTON_TO_GAMMA_LIGHT = 0.5
_SCATTER_RADIUS_M = 180.0
_USES = 3
_MIN_SIZE_PE, _MAX_LEAKAGE = 100.0, 0.15
_MAX_SHOWERS = 1000


def typical_class(telescope: str, particle: str, showers_per_run: int = _MAX_SHOWERS) -> ShowerClass:
    """Showers from about the threshold of a telescope type to ten times that, as `particle` and cheap to simulate."""
    telescope_type = get_telescope(telescope)
    energy_tev = _ENERGY_TIMES_AREA_TEV_M2 / telescope_type.mirror_area_m2
    if particle not in ("gamma", "electron"):
        energy_tev /= _PROTON_TO_GAMMA_LIGHT
    return ShowerClass(
        particle=particle,
        runs=1,
        showers_per_run=showers_per_run,
        energy_min_tev=energy_tev,
        energy_max_tev=_ENERGY_DECADE * energy_tev,
        scatter_radius_m=_SCATTER_RADIUS_M,
        viewcone_deg=0.4 * math.degrees(telescope_type.field_of_view_rad),
    )


def gallery_images(telescope: str, particle: str, n: int = 6, seed: int = 1) -> tuple[Camera, list[ShowerImage]]:
    """Simulate `n` images, each of another shower, that are bright enough and not cut off by the camera's edge.

    Parameters
    ----------
    telescope : str
        Name of a telescope type.
    particle : str
        As in the configuration of a shower class.
    n : int
    seed : int

    Returns
    -------
    camera : Camera
    images : list of ShowerImage
        In the order of their energies.

    Raises
    ------
    UserError
        If the type of telescope is not known, or a thousand showers do not give `n` such images.
    """
    # Equally many per logarithm of energy: faint and bright images. Each kind of particle is thrown in another run.
    run = 1 + list(PRIMARIES).index(particle)
    thrown = typical_class(telescope, particle).model_copy(update={"runs": run, "spectral_index": -1.0})
    cfg = ShowersConfig(telescope=telescope, positions_per_shower=_USES, classes=(thrown,))
    simulator, cleaning = ShowerSimulator(cfg, run, seed), CleaningConfig()
    camera = simulator.array.kinds[0].camera
    images: list[ShowerImage] = []
    for number in range(1, _MAX_SHOWERS + 1):
        (chunk,) = simulator.shower(number)
        mask = tailcuts(chunk.image, camera, cleaning.picture_pe, cleaning.boundary_pe, cleaning.min_picture_neighbors)
        parameters = image_parameters(chunk.image, chunk.peak_time, mask, camera)
        size_pe, leakage = parameters["hillas_intensity"], parameters["leakage_intensity_width_1"]
        good = np.flatnonzero((size_pe > _MIN_SIZE_PE) & (leakage < _MAX_LEAKAGE))
        if len(good) == 0:
            continue
        row, primary = good[0], simulator.primary(number)
        images.append(
            ShowerImage(
                chunk.image[row],
                float(size_pe[row]),
                chunk.truth["true_energy_tev"][row],
                chunk.truth["true_impact_m"][row],
                _from_the_pointing(primary.alt_rad, primary.az_rad, cfg),
            )
        )
        if len(images) == n:
            return camera, sorted(images, key=lambda image: image.energy_tev)
    raise UserError(
        f"{_MAX_SHOWERS} {particle} showers gave {len(images)} images of {telescope} above {_MIN_SIZE_PE:g} p.e.; "
        f"{n} were requested"
    )


def _from_the_pointing(alt_rad: float, az_rad: float, cfg: ShowersConfig) -> tuple[float, float]:
    """A direction in the telescope frame [deg]: gnomonic projection around the pointing."""
    alt0, turn = math.pi / 2 - math.radians(cfg.zenith_deg), az_rad - math.radians(cfg.azimuth_deg)
    along = math.sin(alt0) * math.sin(alt_rad) + math.cos(alt0) * math.cos(alt_rad) * math.cos(turn)
    lon = math.cos(alt_rad) * math.sin(turn) / along
    lat = (math.cos(alt0) * math.sin(alt_rad) - math.sin(alt0) * math.cos(alt_rad) * math.cos(turn)) / along
    return math.degrees(math.atan(lon)), math.degrees(math.atan(lat))
