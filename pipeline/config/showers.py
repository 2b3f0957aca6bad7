"""Section `showers`: which air showers are simulated, and which telescopes see them."""

from typing import Literal

from pydantic import Field, model_validator

from pipeline.config.base import Section
from pipeline.errors import UserError


class ShowerClass(Section):
    """One kind of primary particle and the runs simulated of it."""

    particle: Literal["gamma", "electron", "muon", "proton", "helium"]
    runs: int = Field(8, ge=0)
    showers_per_run: int = Field(150, ge=1)
    energy_min_tev: float = Field(0.05, gt=0)
    energy_max_tev: float = Field(10.0, gt=0, le=300)
    spectral_index: float = -2.0
    scatter_radius_m: float = Field(300.0, gt=0)
    viewcone_deg: float = Field(2.0, ge=0, le=30, description="0: a point source")
    offset_deg: float = Field(0.0, ge=0, le=30, description="centre of the view cone, above the pointing")
    start_height_m: float | None = Field(None, gt=0, le=80e3, description="where it begins, above the site")

    @model_validator(mode="after")
    def _ordered(self) -> "ShowerClass":
        if self.energy_min_tev >= self.energy_max_tev:
            raise ValueError(f"energy_min_tev {self.energy_min_tev} is not below energy_max_tev {self.energy_max_tev}")
        return self


class TelescopePlace(Section):
    """One telescope of an array: its type and where its foot stands [m]."""

    type: str
    x_m: float = 0.0  # to the north
    y_m: float = 0.0  # to the west
    z_m: float = 0.0  # above the site's altitude


class Star(Section):
    """A star in the field of view: brighter night sky in the pixels that it lights."""

    fov_lon_deg: float  # towards larger azimuth
    fov_lat_deg: float  # towards larger altitude
    magnitude: float  # in B, where photomultipliers are sensitive


class CameraConditions(Section):
    """What is not perfect about the cameras, alike for all telescopes."""

    night_sky_factor: float = Field(1.0, ge=0, description="times the dark sky's rate of the telescope type")
    dead_pixel_fraction: float = Field(0.0, ge=0, lt=1)
    flat_field_rms: float = Field(0.0, ge=0, lt=1, description="spread of the gains that calibration has left")
    saturation: bool = True
    stars: tuple[Star, ...] = ()


class ShowersConfig(Section):
    """`lightpool simulate showers`: runs are numbered from 1 through `classes` in their order."""

    telescope: str = "LST"  # one of this type, unless there is an array
    array: tuple[TelescopePlace, ...] = ()
    min_telescopes: int = Field(1, ge=1, description="triggered telescopes that make an event (2: stereo)")
    # telescope type: simtel or DL1 file with the camera to use for it
    geometry_files: dict[str, str] = Field(default_factory=dict)
    camera: CameraConditions = CameraConditions()
    waveforms: bool = False  # write the calibrated waveforms of triggered telescopes, too (R1)
    positions_per_shower: int = Field(
        12, ge=1, le=100, description="places of the array thrown for each shower (shower reuse)"
    )
    zenith_deg: float = Field(20.0, ge=0, le=60)
    azimuth_deg: float = 180.0
    site_altitude_m: float = Field(2158.0, ge=0, le=10_000)
    magnetic_field_ut: tuple[float, float] = (30.6, 23.6)  # horizontal (north), vertical (down): La Palma
    min_true_pe: int = Field(
        30, ge=1, description="fewer photo-electrons in the camera are not worth a trigger decision"
    )
    classes: tuple[ShowerClass, ...] = ()

    @model_validator(mode="after")
    def _fits_the_array(self) -> "ShowersConfig":
        if self.min_telescopes > len(self.places):
            raise ValueError(f"min_telescopes is {self.min_telescopes}, the array has {len(self.places)}")
        types = {place.type for place in self.places}
        if unused := sorted(set(self.geometry_files) - types):
            raise ValueError(f"geometry_files names {unused[0]}; the array has {', '.join(sorted(types))}")
        return self

    @property
    def places(self) -> tuple[TelescopePlace, ...]:
        """The telescopes; number 1 is the first."""
        return self.array or (TelescopePlace(type=self.telescope),)

    @property
    def n_runs(self) -> int:
        """Total number of runs over all classes."""
        return sum(entry.runs for entry in self.classes)

    def class_of_run(self, run: int) -> ShowerClass:
        """The class that run number `run` (1-based) belongs to."""
        left = run
        for entry in self.classes:
            if 1 <= left <= entry.runs:
                return entry
            left -= entry.runs
        raise UserError(f"there is no shower run {run}; the configuration defines runs 1 to {self.n_runs}")
