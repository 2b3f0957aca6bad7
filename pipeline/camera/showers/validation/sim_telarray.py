"""True photo-electrons in single telescopes, and muon rings, against sim_telarray's files.

Every gamma of the files is simulated again: same energy, direction and place, and only showers whose maximum is at the
depth of theirs are taken, as the light at a given distance depends on it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.camera.showers.array import make_world, split_rays
from pipeline.camera.showers.atmosphere import height_at
from pipeline.camera.showers.cherenkov import World, new_record, place_telescopes
from pipeline.camera.showers.generate import depth_of_maximum
from pipeline.camera.showers.optics import Optics, horizontal_basis, make_optics, trace
from pipeline.camera.showers.particles import MU_MINUS, PHOTON
from pipeline.camera.showers.primaries import pointing
from pipeline.camera.showers.tracks import Steps
from pipeline.camera.showers.validation.light import Conditions, follow
from pipeline.camera.showers.validation.rows import Reference, Row, compared, mean_and_error
from pipeline.camera.simtel import open_simtel, whole_events
from pipeline.camera.telescopes import Telescope, get_telescope
from pipeline.config import ShowersConfig
from pipeline.errors import InputFileError

if TYPE_CHECKING:
    from ctapipe.containers import ArrayEventContainer
    from ctapipe.io import SimTelEventSource

GAMMA_FILES = (
    "camera/simtel/st_v036b_gamma_run7_za40_South_lsts_700.simtel.zst",
    "camera/simtel/pe_camsettings_v6.simtel.zst",
    "camera/simtel/pe_history_meta_75.simtel.zst",
)
MUON_FILE = "camera/simtel/cx_lst_muons.simtel.zst"
MAX_DEPTH_DIFFERENCE_G_CM2 = 30.0
LIMIT = (0.8, 1.2)  # of the ratio, after one constant for each type of telescope
MUON_MIN_GEV = 20.0
RING_RADIUS_DEG = (1.0, 1.25)
RING_LIGHT_PE = (1500, 4000)
_ROOM_RAYS = 1 << 18


@dataclass(frozen=True)
class Image:
    """True photo-electrons of one telescope of an event.

    Attributes
    ----------
    kind : str
        Our telescope type of that camera.
    position_m : ndarray, shape (3,)
        Centre of the mirror: north, west, up, relative to the array's centre.
    pe : ndarray, shape (n_pixels,)
    x_deg, y_deg : ndarray, shape (n_pixels,)
        Pixel centres.
    """

    kind: str
    position_m: np.ndarray
    pe: np.ndarray
    x_deg: np.ndarray
    y_deg: np.ndarray


@dataclass(frozen=True)
class Event:
    """A simulated event of a file.

    Attributes
    ----------
    energy_gev, alt_rad, az_rad : float
        Of the primary.
    core_m : ndarray, shape (2,)
        Where its axis meets the ground, north and west of the array's centre.
    maximum_g_cm2 : float
        Vertical depth of the shower maximum.
    start_g_cm2 : float
        Vertical depth where the primary began; 0 at the top of the atmosphere.
    site : ShowersConfig
        Altitude, magnetic field and pointing.
    images : tuple of Image
    """

    energy_gev: float
    alt_rad: float
    az_rad: float
    core_m: np.ndarray
    maximum_g_cm2: float
    start_g_cm2: float
    site: ShowersConfig
    images: tuple[Image, ...]

    @property
    def direction(self) -> tuple[float, float, float]:
        """Of flight."""
        axis, _, _ = horizontal_basis(self.alt_rad, self.az_rad)
        return tuple((-np.array(axis)).tolist())

    def places_m(self) -> np.ndarray:
        """Mirror centres relative to the core, shape (n_images, 3)."""
        return np.array([image.position_m for image in self.images]) - np.append(self.core_m, 0.0)

    def impact_m(self) -> np.ndarray:
        """Their distances from the shower axis, shape (n_images,)."""
        return np.linalg.norm(np.cross(self.places_m(), self.direction), axis=1)


def _kind_of(camera: object, mirror_area_m2: float) -> str | None:
    """Our type for a camera of CTAO's productions."""
    pixels = len(camera.geometry.pix_x)
    if pixels == 1855:
        return "LST" if mirror_area_m2 > 200 else "MST-NectarCam"
    return {1764: "MST-FlashCam", 2048: "SST-CHEC"}.get(pixels)


def _events(source: "SimTelEventSource", path: Path) -> Iterator["ArrayEventContainer"]:
    """All events; unlike in an ingest, one that cannot be read is an error."""
    damage: list[str] = []
    yield from whole_events(source, path, damage)
    if damage:
        raise InputFileError(f"{path} {damage[0]}")


def read_events(path: Path) -> Iterator[Event]:
    """Events of a simtel file with the true images of its telescopes.

    Raises
    ------
    InputFileError
        If it cannot be read.
    """
    import astropy.units as u

    with open_simtel(path) as source:
        site = next(iter(source.simulation_config.values()))
        field = site.prod_site_B_total.to_value("uT")
        inclination = float(u.Quantity(site.prod_site_B_inclination, u.rad).value)
        for event in _events(source, path):
            shower, at = event.simulation.shower, event.monitoring.pointing
            if shower is None:
                continue
            altitude = float(u.Quantity(at.array_altitude, u.rad).to_value("deg"))
            azimuth = float(u.Quantity(at.array_azimuth, u.rad).to_value("deg"))
            yield Event(
                energy_gev=float(shower.energy.to_value("GeV")),
                alt_rad=float(shower.alt.to_value("rad")),
                az_rad=float(shower.az.to_value("rad")),
                core_m=np.array([shower.core_x.to_value("m"), shower.core_y.to_value("m")], float),
                maximum_g_cm2=float(shower.x_max.to_value("g/cm2")),
                start_g_cm2=float(shower.starting_grammage.to_value("g/cm2")),
                site=ShowersConfig(
                    zenith_deg=90 - altitude,
                    azimuth_deg=azimuth,
                    site_altitude_m=float(site.prod_site_alt.to_value("m")),
                    magnetic_field_ut=(field * math.cos(inclination), field * math.sin(inclination)),
                ),
                images=tuple(_images(event, source.subarray)),
            )


def _images(event: object, subarray: object) -> Iterator[Image]:
    for number, camera in event.simulation.tel.items():
        telescope = subarray.tel[number]
        kind = _kind_of(telescope.camera, telescope.optics.mirror_area.to_value("m2"))
        if kind is None or camera.true_image is None or np.sum(camera.true_image) < 30:
            continue
        scale = math.degrees(1 / telescope.optics.equivalent_focal_length.to_value("m"))
        geometry = telescope.camera.geometry
        yield Image(
            kind=kind,
            position_m=subarray.positions[number].to_value("m").astype(float),
            pe=np.asarray(camera.true_image),
            x_deg=scale * geometry.pix_x.to_value("m"),
            y_deg=scale * geometry.pix_y.to_value("m"),
        )


def dark_pixel_rms(path: Path, kind: str) -> list[float]:
    """Noise of every image of one of our telescope types in a simtel file [p.e.], with the charges extracted as ours.

    It is the standard deviation over the pixels that no Cherenkov light reaches, nor their neighbours.

    Raises
    ------
    InputFileError
        If it cannot be read.
    """
    from ctapipe.calib import CameraCalibrator
    from traitlets.config import Config

    telescope = get_telescope(kind)
    window = {"window_width": telescope.window_samples, "window_shift": telescope.window_before_peak}
    rms_pe = []
    with open_simtel(path) as source:
        calibrate = CameraCalibrator(
            source.subarray,
            image_extractor_type="NeighborPeakWindowSum",
            config=Config({"NeighborPeakWindowSum": window}),
        )
        for event in _events(source, path):
            calibrate(event)
            for number, camera in event.dl1.tel.items():
                description, true_image = source.subarray.tel[number], event.simulation.tel[number].true_image
                area_m2 = description.optics.mirror_area.to_value("m2")
                if true_image is not None and _kind_of(description.camera, area_m2) == kind:
                    lit = true_image > 0
                    dark = ~lit & ~(description.camera.geometry.neighbor_matrix @ lit)
                    rms_pe.append(float(camera.image[dark].std()))
    return rms_pe


@dataclass(frozen=True)
class _Setup:
    """An event's telescopes, ready for showers."""

    kinds: tuple[Telescope, ...]
    optics: tuple[Optics, ...]
    kind: np.ndarray
    world: World
    conditions: Conditions


def _set_up(event: Event, primary: int) -> _Setup:
    names = list(dict.fromkeys(image.kind for image in event.images))
    kinds = tuple(get_telescope(name) for name in names)
    kind = np.array([names.index(image.kind) for image in event.images])
    world = make_world(kinds, event.site)
    if event.start_g_cm2 > 0:
        world = world._replace(start_height_m=float(height_at(event.start_g_cm2)))
    places = event.places_m() + np.array([0.0, 0.0, event.site.site_altitude_m])
    return _Setup(
        kinds=kinds,
        optics=tuple(make_optics(telescope, *pointing(event.site)) for telescope in kinds),
        kind=kind,
        world=place_telescopes(world, places, kind),
        conditions=Conditions(
            primary, event.energy_gev, event.direction, world.field_t, event.site.site_altitude_m, (0.0, 0.0)
        ),
    )


def true_images(event: Event, primary: int, seeds: range) -> Iterator[tuple[float, list[np.ndarray]]]:
    """Simulate the event's shower; depth of its maximum [g/cm2, vertical] and the true images of all its telescopes."""
    setup, record = _set_up(event, primary), new_record(_ROOM_RAYS)
    for seed in seeds:
        record = follow(setup.conditions, setup.world, seed, Steps(), record)
        images = []
        for index, rays in enumerate(split_rays(record.rays[: record.n_rays[0]], len(setup.kind))):
            kind = setup.kind[index]
            pixel, _ = trace(rays, setup.optics[kind], seed)
            n_pixels = setup.kinds[kind].camera.n_pixels
            images.append(np.bincount(pixel[pixel >= 0], minlength=n_pixels))
        yield depth_of_maximum(record.profile[1]), images


def check_telescopes(n_showers: int, data: Path | None) -> tuple[list[Row], dict]:
    """Photo-electrons of gammas in telescopes of sim_telarray's files, after one constant for each type."""
    if data is None:
        return [], {}
    pairs: list[dict] = []
    for name in GAMMA_FILES:
        for event in read_events(data / name):
            showers = list(true_images(event, PHOTON, range(n_showers)))
            depth = np.array([maximum for maximum, _ in showers])
            light = np.array([[image.sum() for image in images] for _, images in showers], float)
            # The nearest in depth, at least a tenth of all
            order = np.argsort(np.abs(depth - event.maximum_g_cm2))
            n = max(int(np.sum(np.abs(depth - event.maximum_g_cm2) < MAX_DEPTH_DIFFERENCE_G_CM2)), n_showers // 10, 3)
            like = light[order[:n]]
            impact = event.impact_m()
            for i, image in enumerate(event.images):
                pairs.append(
                    {
                        "kind": image.kind, "energy_gev": event.energy_gev, "impact_m": impact[i],
                        "reference": float(image.pe.sum()), "ours": like[:, i].mean(), "spread": like[:, i].std(ddof=1),
                    }
                )  # fmt: skip
    rows, constants = [], {}
    for kind in dict.fromkeys(entry["kind"] for entry in pairs):
        of_kind = [entry for entry in pairs if entry["kind"] == kind]
        energies = sorted({entry["energy_gev"] for entry in of_kind})
        groups = {energy: [entry for entry in of_kind if entry["energy_gev"] == energy] for energy in energies}
        ratios = {energy: _ratio(group) for energy, group in groups.items()}
        constants[kind] = float(np.exp(np.mean([math.log(ratio) for ratio, _ in ratios.values()])))
        for energy, (ratio, error) in ratios.items():
            impacts = [entry["impact_m"] for entry in groups[energy]]
            rows.append(
                Row(
                    f"telescopes_{kind}_{energy:.0f}",
                    f"{kind}, gamma {energy / 1e3:.2g} TeV, {len(impacts)} images at {min(impacts):.0f}-"
                    f"{max(impacts):.0f} m: p.e. of sim_telarray over ours x {constants[kind]:.2f}",
                    "", ratio / constants[kind], error / constants[kind], "sim_telarray, same energy, place and depth",
                    low=LIMIT[0], high=LIMIT[1],
                )
            )  # fmt: skip
    return rows, {"telescopes": {"images": pairs, "constants": constants}}


def _ratio(group: list[dict]) -> tuple[float, float]:
    """Their light over ours; the error is the spread from shower to shower, shared by all telescopes of one."""
    ratio = sum(entry["reference"] for entry in group) / sum(entry["ours"] for entry in group)
    spread = np.mean([entry["spread"] / entry["ours"] for entry in group])
    return ratio, ratio * float(spread)


# ---- muons -----------------------------------------------------------------------------------------------------------
def ring_radius_deg(pe: np.ndarray, x_deg: np.ndarray, y_deg: np.ndarray) -> float:
    """Radius of the circle through an image, fitted to photo-electrons (Kasa 1976), refined on those near it."""
    weight = pe.astype(float)
    radius = math.nan
    for _ in range(3):
        root = np.sqrt(weight)
        design = np.column_stack([x_deg, y_deg, np.ones_like(x_deg)])
        (a, b, c), *_ = np.linalg.lstsq(design * root[:, None], (x_deg**2 + y_deg**2) * root, rcond=None)
        radius = math.sqrt(max(c + (a * a + b * b) / 4, 0.0))
        distance = np.hypot(x_deg - a / 2, y_deg - b / 2)
        weight = np.where(np.abs(distance - radius) < 0.2, pe, 0).astype(float)
    return radius


def example_muons() -> list[Event]:
    """Vertical muons of 10 to 450 GeV that hit the mirror of an LST, from 580 g/cm2."""
    lst = get_telescope("LST")
    blank = Image(
        "LST", np.array([0.0, 0.0, lst.mirror_height_m]), np.zeros(0), lst.camera.pix_x_deg, lst.camera.pix_y_deg
    )
    energies = np.geomspace(10, 450, 15)
    return [
        Event(
            float(energy), math.pi / 2, 0.0, np.array([0.6 * i, 0.0]), math.nan, 580.0, ShowersConfig(zenith_deg=0.0),
            (blank,),
        )
        for i, energy in enumerate(energies)
    ]  # fmt: skip


def check_muons(n_repeats: int, data: Path | None) -> tuple[list[Row], dict]:
    """Radius and light of muon rings in an LST."""
    events = example_muons() if data is None else list(read_events(data / MUON_FILE))
    lst = get_telescope("LST")
    # Degrees on the sky: images are those of the effective focal length, pixels are given at the equivalent one.
    sky = lst.camera.focal_length_m / lst.camera.effective_focal_length_m
    entries: list[dict] = []
    for number, event in enumerate(events):
        if not event.images:
            continue
        seeds = range(number * n_repeats, (number + 1) * n_repeats)
        images = [image for _, (image,) in true_images(event, MU_MINUS, seeds)]
        x_deg, y_deg = sky * lst.camera.pix_x_deg, sky * lst.camera.pix_y_deg
        rings = [ring_radius_deg(image, x_deg, y_deg) for image in images if image.any()]
        if not rings:
            continue
        entry = {
            "energy_gev": event.energy_gev, "impact_m": float(event.impact_m()[0]),
            # Slow muons may scatter off the mirror and leave a short arc, that no circle fits
            "ours_deg": float(np.median(rings)), "ours_pe": float(np.mean([image.sum() for image in images])),
        }  # fmt: skip
        if data is not None:
            (image,) = event.images
            entry |= {
                "reference_deg": ring_radius_deg(image.pe, sky * image.x_deg, sky * image.y_deg),
                "reference_pe": float(image.pe.sum()),
            }
        entries.append(entry)
    curves = {key: np.array([entry[key] for entry in entries]) for key in entries[0]}
    hits = curves["impact_m"] < lst.sphere_radius_m
    # Slower ones scatter out of their path, and their angle depends on where they shine.
    bright = hits & (curves["energy_gev"] > MUON_MIN_GEV)
    rows = [
        Row(
            "muon_radius", "muon rings above 20 GeV, LST, impact on the mirror: mean radius", "deg",
            *mean_and_error(curves["ours_deg"][bright]), "Cherenkov angle at 2.2 km", low=RING_RADIUS_DEG[0],
            high=RING_RADIUS_DEG[1],
        ),
        Row(
            "muon_light", "muon rings above 20 GeV, LST, impact on the mirror: mean light", "p.e.",
            *mean_and_error(curves["ours_pe"][bright]), "LST", low=RING_LIGHT_PE[0], high=RING_LIGHT_PE[1],
        ),
    ]  # fmt: skip
    if data is not None:
        source = f"sim_telarray, {int(bright.sum())} muons of {Path(MUON_FILE).name}"
        difference = curves["ours_deg"][bright] - curves["reference_deg"][bright]
        mean = float(curves["reference_deg"][bright].mean())
        rows[0] = compared(
            "muon_radius", "muon rings above 20 GeV, LST, same muons: mean radius", "deg", Reference(mean, 0.0, source),
            (mean + float(difference.mean()), mean_and_error(difference)[1]),
        )  # fmt: skip
        ratio = np.log(curves["ours_pe"][bright] / curves["reference_pe"][bright])
        rows.append(
            Row(
                "muon_light_spread", "muon rings above 20 GeV, LST, same muons: rms of our light over theirs", "",
                float(ratio.std(ddof=1)), float(ratio.std(ddof=1) / math.sqrt(2 * len(ratio))), source, high=0.1,
            )
        )  # fmt: skip
        curves["constant"] = float(np.exp(ratio.mean()))
    return rows, {"muons": curves}
