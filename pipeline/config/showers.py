"""Section `showers`: which air showers are simulated, and which telescopes see them."""

from itertools import accumulate
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.config.base import Section
from pipeline.errors import UserError


class ShowerClass(Section):
    """One kind of primary particle and the runs simulated of it."""

    particle: Literal["gamma", "electron", "muon", "proton", "helium"] = Field(
        description="Primary particle: gamma, electron, muon, proton or helium (as four independent nucleons)."
    )
    runs: int = Field(8, ge=0, description="Number of runs; each makes one file.")
    showers_per_run: int = Field(150, ge=1, description="Number of showers in a run.")
    energy_min_tev: float = Field(0.05, gt=0, description="Lowest energy of the spectrum [TeV].")
    energy_max_tev: float = Field(10.0, gt=0, le=300, description="Highest energy of the spectrum [TeV].")
    spectral_index: float = Field(-2.0, description="Index of the power law dN/dE ~ E^index.")
    scatter_radius_m: float = Field(
        300.0, gt=0, description="Radius around the centre of the array in which shower cores fall [m]."
    )
    viewcone_deg: float = Field(
        2.0, ge=0, le=30, description="Radius of the cone of arrival directions [deg]. 0: a point source."
    )
    offset_deg: float = Field(
        0.0, ge=0, le=30, description="Centre of that cone above the pointing, towards larger altitude [deg]."
    )
    start_height_m: float | None = Field(
        None,
        gt=0,
        le=80e3,
        description="Height above the site where the particle starts [m]; 1000 for muon rings. null: at the top of "
        "the atmosphere.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> "ShowerClass":
        if self.energy_min_tev >= self.energy_max_tev:
            raise ValueError(f"energy_min_tev {self.energy_min_tev} is not below energy_max_tev {self.energy_max_tev}")
        return self


class TelescopePlace(Section):
    """One telescope of an array: its type and position."""

    type: str = Field(description="Telescope type: a name in pipeline/camera/telescopes.", examples=["LST"])
    x_m: float = Field(0.0, description="Position of its base, to the north [m].")
    y_m: float = Field(0.0, description="Position of its base, to the west [m].")
    z_m: float = Field(0.0, description="Height of its base above the site [m].")


class Star(Section):
    """A star in the field of view: it makes the night sky brighter in the pixels that it lights."""

    fov_lon_deg: float = Field(description="Distance from the pointing, towards larger azimuth [deg].", examples=[0.5])
    fov_lat_deg: float = Field(description="Distance from the pointing, towards larger altitude [deg].", examples=[0.0])
    # B is the band where photomultipliers are sensitive.
    magnitude: float = Field(description="Magnitude in the B band.", examples=[3.0])


class CameraConditions(Section):
    """Imperfections of the cameras and brightness of the sky, the same for all telescopes."""

    night_sky_factor: float = Field(
        1.0,
        ge=0,
        le=1000,
        description="Rate of night-sky photons, in units of the dark-sky rate of the telescope type.",
    )
    dead_pixel_fraction: float = Field(0.0, ge=0, lt=1, description="Fraction of the pixels that are dead.")
    flat_field_rms: float = Field(
        0.0, ge=0, lt=1, description="Relative rms of the pixel gains that remains after calibration."
    )
    saturation: bool = Field(True, description="Whether the readout saturates.")
    stars: tuple[Star, ...] = Field((), description="Stars in the field of view.")


class ShowersConfig(Section):
    """`lightpool simulate showers`: runs are numbered from 1, through all `classes` in their order, `scale` times."""

    first_run: ClassVar[int] = 1

    telescope: str = Field(
        "LST",
        description="Type of the single telescope, if no array is given: a name in pipeline/camera/telescopes.",
    )
    array: tuple[TelescopePlace, ...] = Field((), description="Several telescopes instead, numbered from 1.")
    min_telescopes: int = Field(
        1, ge=1, description="Number of triggered telescopes that make an event. 2: stereo events."
    )
    geometry_files: dict[str, str] = Field(
        default_factory=dict,
        description="Camera geometry from a file, as {telescope type: simtel or DL1 file}; other types keep their own.",
    )
    camera: CameraConditions = Field(
        CameraConditions(), description="Imperfections of the cameras and brightness of the sky."
    )
    waveforms: bool = Field(
        False,
        description="Also write the calibrated waveforms (R1) of triggered telescopes; files are 40 times larger.",
    )
    positions_per_shower: int = Field(
        12, ge=1, le=100, description="Number of random array positions for each shower (shower reuse)."
    )
    zenith_deg: float = Field(20.0, ge=0, le=60, description="Zenith angle of the pointing [deg].")
    azimuth_deg: float = Field(180.0, description="Azimuth of the pointing, from north through east [deg].")
    site_altitude_m: float = Field(2158.0, ge=0, le=10_000, description="Altitude of the site above sea level [m].")
    # The default is the field at La Palma.
    magnetic_field_ut: tuple[float, float] = Field(
        (30.6, 23.6), description="Magnetic field: horizontal (north) and vertical (down) component [microtesla]."
    )
    min_true_pe: int = Field(
        30, ge=1, description="A camera with fewer photo-electrons than this is not tested for a trigger [p.e.]."
    )
    classes: tuple[ShowerClass, ...] = Field(
        (),
        description="Kinds of showers; runs are numbered from 1 through the list. Empty: no showers are simulated.",
    )
    scale: int = Field(
        1,
        ge=1,
        description="How many times the list of classes is simulated; runs of a smaller scale keep their numbers.",
    )

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
        return self.scale * self._runs_of_one_pass

    @property
    def _runs_of_one_pass(self) -> int:
        return sum(entry.runs for entry in self.classes)

    def class_of_run(self, run: int) -> ShowerClass:
        """The class of run number `run`, counted from `first_run`: the list of classes is passed `scale` times.

        Raises
        ------
        UserError
            If the run does not exist.
        """
        number = run - self.first_run
        if not 0 <= number < self.n_runs:
            last = self.first_run + self.n_runs - 1
            raise UserError(f"unknown shower run {run}; the configuration defines runs {self.first_run} to {last}")
        ends = accumulate(entry.runs for entry in self.classes)
        place = number % self._runs_of_one_pass
        return next(entry for entry, end in zip(self.classes, ends, strict=True) if place < end)
