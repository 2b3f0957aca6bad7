"""Section `sky`: simulated long-exposure frames."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from pipeline.config.base import Range, Section

# Transforms of sharper stars take minutes and gigabytes.
_FwhmPx = Annotated[float, Field(ge=0.3)]
_SidePx = Annotated[int, Field(ge=16, le=20_000)]
# Least values that the simulation does not round to zero.
_GainEPerAdu = Annotated[float, Field(ge=0.001)]
_ThicknessUm = Annotated[float, Field(ge=0.1)]


class SkyDefect(Section):
    """An additional defect of simulated frames: a class of `pipeline.sky.defects`, by its registered name."""

    name: str = Field(description="hot_pixels, muons, worms or a defect of your own.", examples=["hot_pixels"])
    bit: Literal["bad", "hot", "cosmic_ray", "trail", "bleed", "ghost"] = Field(
        description="Bit of the truth mask: bad, hot, cosmic_ray, trail, bleed or ghost.", examples=["hot"]
    )
    kwargs: dict[str, Any] = Field(default_factory=dict, description="Arguments of the defect's class.")


class SkySimulationConfig(Section):
    """`lightpool simulate sky`: one long-exposure frame per run, with its truth."""

    runs: int = Field(0, ge=0, description="Number of frames to make.")
    shape: tuple[_SidePx, _SidePx] = Field((384, 384), description="Size of a frame: rows, columns [px].")
    exposure_s: float = Field(600.0, gt=0, description="Exposure time [s].")
    pixel_scale_arcsec: float = Field(0.4, gt=0, description="Angular size of a pixel [arcsec].")
    fwhm_px: Range[_FwhmPx] = Field(
        (2.0, 4.5), description="Range of the full width at half maximum of a star's image [px]."
    )
    fwhm_distribution: Literal["uniform", "log-uniform"] = Field(
        "uniform", description="How the FWHM is distributed within its range: uniform or log-uniform."
    )
    shear_rms: float = Field(
        0.02, ge=0, description="Rms of the shear of stars' images; 0.1 makes an axis ratio of 0.82."
    )
    trailed_fraction: float = Field(
        0.0, ge=0, le=1, description="Fraction of the frames with trailed stars, by 0.3 to 1.5 times the FWHM."
    )
    unsteady_fraction: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Fraction of the frames that were guided badly: stars are drawn along a path with stops and jumps.",
    )
    aberrated_fraction: float = Field(
        0.0, ge=0, le=1, description="Fraction of the frames that are out of focus, with coma and astigmatism."
    )
    spiked_fraction: float = Field(
        0.0, ge=0, le=1, description="Fraction of the frames whose stars have four diffraction spikes."
    )
    sky_e_per_s: Range[PositiveFloat] = Field(
        (0.1, 2.0), description="Range of the sky brightness per pixel [electrons per s]; log-uniform."
    )
    # From 2 on, the sky would be negative in a corner.
    sky_gradient: float = Field(0.1, ge=0, lt=2, description="Relative change of the sky brightness across the frame.")
    gain_e_per_adu: Range[_GainEPerAdu] = Field((1.0, 3.0), description="Range of the gain [electrons per ADU].")
    read_noise_e: Range[NonNegativeFloat] = Field((3.0, 10.0), description="Range of the read noise [electrons].")
    dark_e_per_s: float = Field(0.01, ge=0, description="Mean dark current per pixel [electrons per s].")
    bias_adu: float = Field(1000.0, description="Bias level of the readout [ADU].")
    full_well_e: float = Field(120_000.0, gt=0, description="Full-well capacity of a pixel [electrons].")
    coarse_adu_fraction: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Fraction of the frames with a coarse converter: a step is 0.3 to 1 times the noise of the sky.",
    )
    adc_max_adu: int = Field(65_535, description="Largest number of the analogue-to-digital converter [ADU].")
    stars_per_frame: int = Field(150, ge=0, description="Mean number of stars.")
    galaxies_per_frame: int = Field(40, ge=0, description="Mean number of galaxies.")
    star_flux_e: Range[PositiveFloat] = Field(
        (300.0, 1.5e6), description="Flux of the faintest and the brightest star in the whole exposure [electrons]."
    )
    star_flux_slope: float = Field(-1.6, description="Slope of the star counts, dN/dF ~ F^slope.")
    flat_magnitude_fraction: float = Field(
        0.0, ge=0, le=1, description="Fraction of the stars that are flat in magnitude instead, in the same range."
    )
    crowded_fraction: float = Field(
        0.0, ge=0, le=1, description="Fraction of the frames that are crowded: 4 to 16 times as many stars."
    )
    edge_on_fraction: float = Field(
        0.0, ge=0, le=1, description="Fraction of the galaxies that are seen edge-on: axis ratios of 0.06 to 0.25."
    )
    cuspy_fraction: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Fraction of the galaxies with a cusp: Sersic index 4, half-light radius 1 to 4 px.",
    )
    nebula_fraction: float = Field(
        0.0, ge=0, le=1, description="Fraction of the frames with a nebula: clouds and filaments of all sizes."
    )
    hot_pixel_fraction: float = Field(5e-4, ge=0, le=1, description="Fraction of the pixels that are hot.")
    dead_pixel_fraction: float = Field(1e-4, ge=0, le=1, description="Fraction of the pixels that are dead.")
    bad_columns: int = Field(1, ge=0, description="Number of bad columns.")
    pixel_um: float = Field(
        15.0, gt=0, description="Physical size of a pixel [um]; it sets the length of particle tracks in pixels."
    )
    # Long tracks need thick detectors.
    silicon_um: Range[_ThicknessUm] = Field(
        (15.0, 250.0), description="Range of the thickness of the sensitive silicon [um]; log-uniform."
    )
    diffusion_um: Range[PositiveFloat] = Field(
        (5.0, 5.0), description="Range of the diffusion of charge from the far side of the silicon [um]; log-uniform."
    )
    cosmic_rays_per_mpix: float = Field(
        1500.0, ge=0, le=100_000, description="Mean number of particle tracks per million pixels in the whole exposure."
    )
    track_charge: Range[PositiveFloat] = Field(
        (1.0, 1.0),
        description="Range of a factor on the charge of tracks, one per frame; log-uniform. Below 1 for frames that "
        "are means of several exposures, and for small pixels.",
    )
    tracks_on_stars: float = Field(
        0.0, ge=0, le=1, description="Fraction of the tracks within the frame that begin on a star."
    )
    trails_per_frame: float = Field(0.3, ge=0, description="Mean number of satellite and aircraft trails.")
    gap_fraction: float = Field(0.01, ge=0, lt=1, description="Fraction of the frame without data (detector gap).")
    sky_subtracted_fraction: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Fraction of the frames that come reduced, in electrons and with an uncertainty, without sky.",
    )
    resampled_fraction: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Fraction of the frames that come reduced: shifted by a part of a pixel, so that the noise of "
        "neighbours is correlated.",
    )
    stated_error: float = Field(
        0.0,
        ge=0,
        lt=0.5,
        description="Largest relative error of the uncertainty that comes with reduced frames; one factor per frame.",
    )
    defects: tuple[SkyDefect, ...] = Field((), description="Additional defects.")
