"""`lightpool simulate sky`: one raw long-exposure frame as a camera writes it, and its truth."""

import datetime
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import provenance
from pipeline.config import Config, SkySimulationConfig, sections_of
from pipeline.errors import UserError
from pipeline.files import atomic_output, check_free
from pipeline.logs import get_logger
from pipeline.sky import cards, defects, scenes
from pipeline.sky.dq import DESCRIPTIONS, DQ, DQ_DTYPE, flag
from pipeline.sky.reduction import Reduction
from pipeline.sky.truth import truth_path

if TYPE_CHECKING:
    from astropy.io import fits

log = get_logger(__name__)

# Kept free for missing pixels (FITS BLANK): the stored integer -32768 is 0 ADU under BZERO 32768.
_BLANK_ADU = 0
_BZERO = 32_768
# Step of a coarse converter in units of the noise of the sky.
_COARSE_STEP_SIGMA = (0.3, 1.0)
_LARGEST_GAIN_E = 50.0  # what `ingest` takes for a gain
_MJD_EPOCH = datetime.datetime(1858, 11, 17)
_FIRST_NIGHT = datetime.datetime(2020, 1, 1, 2, 0, 0)

#: Sections of the configuration that decide a frame.
READS = ("sky", "seed")


@dataclass(frozen=True)
class Camera:
    """The detector of one frame."""

    gain_e_per_adu: float
    read_noise_e: float
    thickness_um: float
    diffusion_um: float
    track_charge: float


@dataclass(frozen=True)
class Exposure:
    """One simulated frame.

    Attributes
    ----------
    adu : ndarray, shape (H, W), uint16
        As read out; 0 marks missing pixels.
    reduced_e : tuple of ndarray, shape (H, W), float32, optional
        Pixels and stated uncertainty [electron] of a frame that comes reduced, NaN where missing.
    clean_e : ndarray, shape (H, W), float32
        Scene, sky and mean dark current [electron]: what a perfect restoration of the calibrated frame gives.
    dq : ndarray, shape (H, W), uint16
        What is wrong with each pixel, from `FLAG_SIGMA` on.
    defect_snr : ndarray, shape (H, W), float32
        Charge of all defects of a pixel over its noise; negative where charge is lost (dead pixels).
    defect_bits : ndarray, shape (H, W), uint16
        Which defects these are, each from `FAINT_SIGMA` on.
    """

    adu: np.ndarray
    clean_e: np.ndarray
    dq: np.ndarray
    defect_snr: np.ndarray
    defect_bits: np.ndarray
    scene: scenes.Scene
    camera: Camera
    saturation_adu: float
    reduction: Reduction | None = None
    reduced_e: tuple[np.ndarray, np.ndarray] | None = None


def simulate_sky(cfg: Config, run: int, out: str | Path, seed: int | None = None, force: bool = False) -> Path:
    """Simulate frame number `run` and write `out` and its truth (``NAME.truth.fits`` in the same folder).

    Parameters
    ----------
    cfg : Config
        Section `sky` describes a frame.
    run : int
        1-based number of the frame; each run has its own field, PSF, sky and camera.
    out : path
        The raw frame: unsigned 16-bit ADU with bias level, WCS and the header of a camera.
    seed : int, optional
        Replaces ``cfg.seed``.
    force : bool
        Replace existing files.

    Returns
    -------
    path
        `out`.

    Raises
    ------
    UserError
        If `run` is below 1, an output exists and `force` is false, or `sky.defects` has an entry that cannot be made.
    """
    if run < 1:
        raise UserError(f"--run {run} is not a run number; runs are counted from 1")
    cfg = cfg if seed is None else cfg.model_copy(update={"seed": seed})
    out = check_free(out, force=force)
    truth = check_free(truth_path(out), force=force)
    stamped = provenance.stamp("simulate sky", config=sections_of(cfg, READS), run=run)
    with atomic_output(out, force=force) as temporary:
        exposure = expose(cfg.sky, cfg.seed, run)
        _truth_hdus(exposure, cfg.sky, run, stamped).writeto(truth_path(temporary))
        _frame_hdus(exposure, cfg.sky, run, cfg.seed, truth.name).writeto(temporary)
        for product in (truth_path(temporary), temporary):
            provenance.write_sidecar(product, stamped)
    log.info("simulated %s: %d stars, %s", out, exposure.scene.stars["x"].size, exposure.scene.psf)
    return out


def expose(cfg: SkySimulationConfig, seed: int, run: int) -> Exposure:
    """Draw one exposure: scene, detector, particles and trails, then the read-out.

    Each part has its own random stream, keyed by seed, run and the part's name: adding a defect to the
    simulation leaves the scene unchanged.
    """

    def stream(purpose: str) -> np.random.Generator:
        return np.random.default_rng([seed, run, zlib.crc32(purpose.encode())])

    further = _FurtherDefects(cfg)
    scene = scenes.draw_scene(cfg, stream("scene"))
    camera = _draw_camera(cfg, stream("camera"), float(scene.sky_e.mean()))
    dark = defects.DarkCurrent(cfg.dark_e_per_s, cfg.exposure_s)
    clean_e = scene.expected_e + dark.mean()

    beta = scene.psf.beta or 11 / 6  # the wings of a Kolmogorov profile fall as r^(-11/3)
    trails_e = defects.Trails(cfg.trails_per_frame, scene.psf.fwhm_px, beta).sample(stream("trails"), cfg.shape)
    hot_e = defects.HotPixels(cfg.hot_pixel_fraction, cfg.exposure_s).sample(stream("hot pixels"), cfg.shape)
    rays_e = _particles(cfg, camera, stream("particles"), *_on_stars(cfg, scene))
    response = defects.DeadPixels(cfg.dead_pixel_fraction, cfg.bad_columns).sample(stream("dead pixels"), cfg.shape)
    missing = defects.DetectorGap(cfg.gap_fraction).sample(stream("gap"), cfg.shape)

    light_e = defects.ShotNoise().sample(stream("shot noise"), response * (scene.expected_e + trails_e))
    charge_e = light_e + dark.sample(stream("dark"), cfg.shape) + hot_e + np.rint(response * rays_e)
    further_e = further.sample(stream)
    charge_e = sum((np.rint(part_e) for part_e, _ in further_e), charge_e)
    collected_e, charge_e = charge_e, defects.bloom(charge_e, cfg.full_well_e)
    read_e = charge_e + defects.ReadNoise(camera.read_noise_e).sample(stream("read noise"), cfg.shape)
    converter = defects.Digitisation(camera.gain_e_per_adu, cfg.bias_adu, cfg.adc_max_adu)
    adu = np.maximum(converter.sample(read_e), _BLANK_ADU + 1)
    adu[missing] = _BLANK_ADU

    saturation_adu = min(cfg.full_well_e / camera.gain_e_per_adu + cfg.bias_adu, cfg.adc_max_adu)
    recorded = _Recorded(
        adu=adu,
        clean_e=clean_e,
        sky_e=scene.sky_e + dark.mean(),
        added_e=((hot_e, DQ.HOT), (rays_e, DQ.COSMIC_RAY), (trails_e, DQ.TRAIL), *further_e),
        lost_e=(response - 1) * (scene.expected_e + trails_e + rays_e),
        bled_e=np.maximum(charge_e - collected_e, 0),
        dead=response < 1,
        saturated=charge_e / camera.gain_e_per_adu + cfg.bias_adu >= saturation_adu,
        missing=missing,
    )
    return _exposure(recorded, scene, camera, saturation_adu, cfg.bias_adu, Reduction.draw(cfg, stream("reduction")))


@dataclass(frozen=True)
class _Recorded:
    """What was read out, and the planes that its truth is made of, shape (H, W); charges in electrons."""

    adu: np.ndarray
    clean_e: np.ndarray
    sky_e: np.ndarray
    added_e: tuple[tuple[np.ndarray, DQ], ...]
    lost_e: np.ndarray
    bled_e: np.ndarray
    dead: np.ndarray
    saturated: np.ndarray
    missing: np.ndarray


def _exposure(
    of: _Recorded,
    scene: scenes.Scene,
    camera: Camera,
    saturation_adu: float,
    bias_adu: float,
    reduction: Reduction | None,
) -> Exposure:
    """A raw frame and its truth, or what a reduction makes of both."""
    variance_e2 = of.clean_e + camera.read_noise_e**2
    clean_e, added_e, lost_e, bled_e, reduced_e = of.clean_e, of.added_e, of.lost_e, of.bled_e, None
    dead, saturated, missing = of.dead, of.saturated, of.missing
    if reduction is not None:
        resample = reduction.resample
        pixels_e = (of.adu - bias_adu) * camera.gain_e_per_adu
        stated_e = np.sqrt(reduction.resample_variance(np.maximum(pixels_e, 0) + camera.read_noise_e**2))
        zero_e = of.sky_e if reduction.subtracts_sky else np.zeros_like(of.sky_e)
        missing, saturated, dead = (reduction.spread(mask) for mask in (missing, saturated, dead))
        reduced_e = tuple(
            np.where(missing, np.nan, plane).astype(np.float32)
            for plane in (resample(pixels_e - zero_e), reduction.error_factor * stated_e)
        )
        variance_e2 = reduction.resample_variance(variance_e2)
        clean_e, lost_e, bled_e = resample(clean_e - zero_e), resample(lost_e), resample(bled_e)
        added_e = tuple((resample(part_e), bit) for part_e, bit in added_e)
        dead = dead & (np.abs(lost_e) > defects.FLAG_SIGMA * np.sqrt(variance_e2))
    noise_e = np.sqrt(variance_e2)
    dq = np.zeros(of.adu.shape, DQ_DTYPE)
    for where, bit in (
        (dead, DQ.BAD),
        (saturated, DQ.SATURATED),
        (missing, DQ.MISSING),
        *((np.abs(part_e) > defects.FLAG_SIGMA * noise_e, bit) for part_e, bit in added_e),
    ):
        flag(dq, where, bit)
    snr, bits = _defect_planes((*added_e, (lost_e, DQ.BAD), (bled_e, DQ.BLEED)), noise_e)
    return Exposure(
        adu=of.adu.astype(np.uint16),
        clean_e=clean_e.astype(np.float32),
        dq=dq,
        defect_snr=snr,
        defect_bits=bits,
        scene=scene,
        camera=camera,
        saturation_adu=saturation_adu,
        reduction=reduction,
        reduced_e=reduced_e,
    )


def _defect_planes(charges_e: Iterable[tuple[np.ndarray, DQ]], noise_e: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Charge of all defects over the noise, and which defects have more than `FAINT_SIGMA` of their own."""
    snr = np.zeros(noise_e.shape)
    bits = np.zeros(noise_e.shape, DQ_DTYPE)
    for charge_e, bit in charges_e:
        own = charge_e / noise_e
        snr += own
        flag(bits, np.abs(own) > defects.FAINT_SIGMA, bit)
    return snr.astype(np.float32), bits


class _FurtherDefects:
    """The entries of `sky.defects`, made before anything is drawn, so that a wrong one fails at once."""

    def __init__(self, cfg: SkySimulationConfig) -> None:
        self._shape = cfg.shape
        self._defects = [(entry, defects.create_defect(entry.name, entry.kwargs)) for entry in cfg.defects]

    def sample(self, stream: Callable[[str], np.random.Generator]) -> list[tuple[np.ndarray, DQ]]:
        """Charge [electron] and truth bit of each entry; the stream's key is the name, and the count of a repeated one.

        Raises
        ------
        UserError
            If a defect does not give one finite charge per pixel.
        """
        seen: Counter[str] = Counter()
        drawn = []
        for entry, defect in self._defects:
            seen[entry.name] += 1
            repeat = f" {seen[entry.name]}" if seen[entry.name] > 1 else ""
            charge_e = np.asarray(defect.sample(stream(f"defect {entry.name}{repeat}"), self._shape), dtype=float)
            if charge_e.shape != self._shape or not np.isfinite(charge_e).all():
                raise UserError(
                    f"the defect {entry.name!r} gave an array of shape {charge_e.shape} with "
                    f"{np.count_nonzero(~np.isfinite(charge_e))} values that are not finite; its sample must return "
                    f"one finite charge for each pixel of {self._shape}"
                )
            drawn.append((charge_e, DQ[entry.bit.upper()]))
        return drawn


def _draw_camera(cfg: SkySimulationConfig, rng: np.random.Generator, sky_e: float) -> Camera:
    gain, read_noise_e = rng.uniform(*cfg.gain_e_per_adu), round(float(rng.uniform(*cfg.read_noise_e)), 2)
    thickness_um, diffusion_um = (
        round(float(np.exp(rng.uniform(*np.log(limits)))), 1) for limits in (cfg.silicon_um, cfg.diffusion_um)
    )
    if cfg.coarse_adu_fraction and rng.random() < cfg.coarse_adu_fraction:
        step_e = rng.uniform(*_COARSE_STEP_SIGMA) * np.sqrt(sky_e + read_noise_e**2)
        gain = min(step_e, _LARGEST_GAIN_E)
    track_charge = round(float(np.exp(rng.uniform(*np.log(cfg.track_charge)))), 3)
    return Camera(round(float(gain), 3), read_noise_e, thickness_um, diffusion_um, track_charge)


def _particles(cfg: SkySimulationConfig, camera: Camera, rng: np.random.Generator, *on_stars: Any) -> np.ndarray:
    """Muons and Compton electrons in equal numbers, as in detectors at sea level without shielding."""
    half = cfg.cosmic_rays_per_mpix / 2
    detector = {
        "thickness_um": camera.thickness_um, "diffusion_um": camera.diffusion_um, "pixel_um": cfg.pixel_um
    }  # fmt: skip
    return camera.track_charge * sum(
        kind(half, **detector).sample(rng, cfg.shape, *on_stars) for kind in (defects.Muons, defects.Worms)
    )


def _on_stars(cfg: SkySimulationConfig, scene: scenes.Scene) -> tuple[np.ndarray, float] | tuple[()]:
    """Places of stars and the share of the tracks that begin there, if any does."""
    if not cfg.tracks_on_stars:
        return ()
    return np.column_stack([scene.stars["x"], scene.stars["y"]]), cfg.tracks_on_stars


# ---- files -----------------------------------------------------------------------------------------------------------
def _frame_hdus(exposure: Exposure, cfg: SkySimulationConfig, run: int, seed: int, truth_name: str) -> "fits.HDUList":
    """A raw frame as a camera writes it, or a reduced one with its uncertainty."""
    from astropy.io import fits

    if exposure.reduced_e is None:
        primary = fits.PrimaryHDU((exposure.adu.astype(np.int32) - _BZERO).astype(np.int16))
        primary.header["BSCALE"] = 1
        primary.header["BZERO"] = (_BZERO, "unsigned 16-bit integers")
        primary.header["BLANK"] = (_BLANK_ADU - _BZERO, "stored value of missing pixels")
        own = _detector_cards(exposure, cfg)
        hdus = fits.HDUList([primary])
    else:
        sci, err = exposure.reduced_e
        primary = fits.PrimaryHDU(sci)
        own = [("BUNIT", "electron", "unit of the pixel values"),
               ("RDNOISE", exposure.camera.read_noise_e, "[electron] read noise")]  # fmt: skip
        hdus = fits.HDUList([primary, fits.ImageHDU(err, name="ERR")])
        hdus["ERR"].header["BUNIT"] = ("electron", "stated uncertainty (1 sigma)")
    for key, value, comment in own + _camera_cards(cfg, run, seed) + _wcs_cards(cfg, run, seed):
        primary.header[key] = (value, comment)
    primary.header[cards.TRUTH.keyword] = (truth_name, cards.TRUTH.comment)
    return hdus


def _detector_cards(exposure: Exposure, cfg: SkySimulationConfig) -> list[tuple]:
    return [
        ("BUNIT", "adu", "unit of the pixel values"),
        ("GAIN", exposure.camera.gain_e_per_adu, "[electron/adu] conversion"),
        ("RDNOISE", exposure.camera.read_noise_e, "[electron] read noise"),
        ("BIASLVL", cfg.bias_adu, "[adu] bias level"),
        ("SATURATE", exposure.saturation_adu, "[adu] full well or converter limit"),
    ]


def _camera_cards(cfg: SkySimulationConfig, run: int, seed: int) -> list[tuple]:
    rng = np.random.default_rng([seed, run, zlib.crc32(b"night")])
    start = _FIRST_NIGHT + datetime.timedelta(days=int(rng.integers(0, 1500)), seconds=int(rng.integers(0, 28_800)))
    return [
        ("OBJECT", f"FIELD {run:04d}", "simulated field"),
        ("RUN", run, "number of the frame"),
        ("TELESCOP", "lightpool", "simulated"),
        ("INSTRUME", "LPSIM", "simulated camera"),
        ("FILTER", "R", ""),
        ("IMAGETYP", "object", ""),
        ("DATE-OBS", start.isoformat(timespec="milliseconds"), "[UTC] start of the exposure"),
        ("TIMESYS", "UTC", ""),
        ("MJD-OBS", round((start - _MJD_EPOCH) / datetime.timedelta(days=1), 8), "[d] start of the exposure"),
        ("EXPTIME", cfg.exposure_s, "[s] exposure time"),
        ("PIXSCALE", cfg.pixel_scale_arcsec, "[arcsec/pixel]"),
    ]


def _wcs_cards(cfg: SkySimulationConfig, run: int, seed: int) -> list[tuple]:
    """Gnomonic projection, east to the left, the camera turned by a degree or so; pointings uniform on the sky."""
    rng = np.random.default_rng([seed, run, zlib.crc32(b"pointing")])
    height, width = cfg.shape
    turn, scale_deg = rng.normal(0, 0.02), cfg.pixel_scale_arcsec / 3600
    ra_deg, dec_deg = rng.uniform(0, 360), np.degrees(np.arcsin(rng.uniform(-0.5, 1)))
    return [
        ("CTYPE1", "RA---TAN", "gnomonic projection"),
        ("CTYPE2", "DEC--TAN", "gnomonic projection"),
        ("CUNIT1", "deg", ""),
        ("CUNIT2", "deg", ""),
        ("CRVAL1", round(float(ra_deg), 6), "[deg] reference point"),
        ("CRVAL2", round(float(dec_deg), 6), "[deg] reference point"),
        ("CRPIX1", (width + 1) / 2, "[pixel] reference point"),
        ("CRPIX2", (height + 1) / 2, "[pixel] reference point"),
        ("CD1_1", -scale_deg * float(np.cos(turn)), "[deg/pixel]"),
        ("CD1_2", scale_deg * float(np.sin(turn)), "[deg/pixel]"),
        ("CD2_1", scale_deg * float(np.sin(turn)), "[deg/pixel]"),
        ("CD2_2", scale_deg * float(np.cos(turn)), "[deg/pixel]"),
        ("RADESYS", "ICRS", ""),
    ]


def _truth_hdus(exposure: Exposure, cfg: SkySimulationConfig, run: int, stamped: dict) -> "fits.HDUList":
    import json

    from astropy.io import fits

    primary = fits.PrimaryHDU()
    psf, reduction = exposure.scene.psf, exposure.reduction
    for key, value, comment in (
        ("RUN", run, "number of the frame"),
        ("EXPTIME", cfg.exposure_s, "[s]"),
        ("PSF", psf.name, "profile of the point-spread function"),
        ("PSFFWHM", psf.width_px, "[pixel]"),
        ("PSFBETA", psf.beta, "Moffat index"),
        ("PSFG1", psf.shear[0], "reduced shear"),
        ("PSFG2", psf.shear[1], "reduced shear"),
        ("PSFTRAIL", psf.trail_px, "[pixel] length by which stars are trailed"),
        ("PSFPATH", len(psf.path), "places where an unsteady telescope stopped"),
        ("PSFFOCUS", psf.optics is not None, "aberrated: defocus, astigmatism, coma"),
        ("PSFSPIKE", psf.spike_share, "share of the light in diffraction spikes"),
        ("SKYLEVEL", float(exposure.scene.sky_e.mean()), "[electron] mean sky"),
        ("DARKMEAN", cfg.dark_e_per_s * cfg.exposure_s, "[electron] mean dark current, part of CLEAN"),
        ("GAIN", exposure.camera.gain_e_per_adu, "[electron/adu]"),
        ("RDNOISE", exposure.camera.read_noise_e, "[electron]"),
        ("SILICON", exposure.camera.thickness_um, "[um] detector thickness"),
        ("TRACKCHG", exposure.camera.track_charge, "factor on the charge of tracks"),
        ("DIFFUS", exposure.camera.diffusion_um, "[um] diffusion of charge"),
        ("SKYSUB", reduction is not None and reduction.subtracts_sky, "sky and dark subtracted, from CLEAN too"),
        ("RESAMPLD", reduction is not None and reduction.kernels is not None, "resampled, CLEAN too"),
        ("ERRFACT", 1.0 if reduction is None else reduction.error_factor, "stated over true uncertainty"),
        ("MAGZERO", scenes.ZERO_POINT_MAG, "[mag] of one electron per second"),
        ("FLAGSIG", defects.FLAG_SIGMA, "[sigma] charge from which a pixel is flagged"),
    ):
        if value is not None:
            primary.header[key] = (value, comment)
    primary.header["PROVENAN"] = json.dumps(stamped, sort_keys=True)
    clean = fits.ImageHDU(exposure.clean_e, name="CLEAN")
    clean.header["BUNIT"] = ("electron", "scene + sky + mean dark current")
    dq = fits.ImageHDU(exposure.dq, name="DQ")
    snr = fits.ImageHDU(exposure.defect_snr, name="DEFECT_SNR")
    snr.header["COMMENT"] = "charge of the defects over the noise of the pixel; negative: charge is lost"
    bits = fits.ImageHDU(exposure.defect_bits, name="DEFECT_DQ")
    bits.header["FLAGSIG"] = (defects.FAINT_SIGMA, "[sigma] a defect is named from here on")
    for plane in (dq, bits):
        for bit, text in DESCRIPTIONS.items():
            plane.header[f"DQ{int(bit)}"] = text
    units = {"x": "pixel", "y": "pixel", "flux_e": "electron", "mag": "mag"}
    columns = [fits.Column(name, "D", unit=units[name], array=values) for name, values in exposure.scene.stars.items()]
    return fits.HDUList([primary, clean, dq, snr, bits, fits.BinTableHDU.from_columns(columns, name="STARS")])
