"""Section `sky`: simulated long-exposure frames."""

from typing import Any, Literal

from pydantic import Field

from pipeline.config.base import Section


class SkyDefect(Section):
    """A further defect of simulated frames: a class that `pipeline.sky.defects` knows by its name."""

    name: str
    bit: Literal["bad", "hot", "cosmic_ray", "trail", "bleed", "ghost"]  # of the truth mask
    kwargs: dict[str, Any] = Field(default_factory=dict)


class SkySimulationConfig(Section):
    """`lightpool simulate sky`: one long-exposure frame per run, with its truth beside it."""

    runs: int = Field(0, ge=0)
    shape: tuple[int, int] = (384, 384)  # (rows, columns)
    exposure_s: float = Field(600.0, gt=0)
    pixel_scale_arcsec: float = Field(0.4, gt=0)
    fwhm_px: tuple[float, float] = (2.0, 4.5)  # drawn uniformly per frame
    sky_e_per_s: tuple[float, float] = (0.1, 2.0)  # per pixel, log-uniform per frame
    sky_gradient: float = Field(0.1, ge=0, description="relative change of the sky across the frame")
    gain_e_per_adu: tuple[float, float] = (1.0, 3.0)
    read_noise_e: tuple[float, float] = (3.0, 10.0)
    dark_e_per_s: float = Field(0.01, ge=0)
    bias_adu: float = 1000.0
    full_well_e: float = Field(120_000.0, gt=0)
    adc_max_adu: int = 65_535
    stars_per_frame: int = Field(150, ge=0)
    galaxies_per_frame: int = Field(40, ge=0)
    star_flux_e: tuple[float, float] = (300.0, 1.5e6)
    star_flux_slope: float = -1.6  # dN/dF ~ F^slope
    hot_pixel_fraction: float = Field(5e-4, ge=0, le=1)
    dead_pixel_fraction: float = Field(1e-4, ge=0, le=1)
    bad_columns: int = Field(1, ge=0)
    pixel_um: float = Field(15.0, gt=0)
    silicon_um: tuple[float, float] = (
        15.0,
        250.0,
    )  # detector thickness, log-uniform per frame: long tracks in thick ones
    cosmic_rays_per_mpix: float = Field(1500.0, ge=0, description="tracks per million pixels of the whole exposure")
    trails_per_frame: float = Field(0.3, ge=0)
    gap_fraction: float = Field(0.01, ge=0, lt=1)
    defects: tuple[SkyDefect, ...] = ()
