"""Section `images`: which camera images a network generates."""

from typing import Literal

from pydantic import Field, model_validator

from pipeline.config.base import Section


class ImagesConfig(Section):
    """`lightpool simulate images`: telescope, night sky and pointing are those of the section `showers`."""

    n_images: int = Field(10_000, ge=1, description="Number of images in a run.")
    particle: Literal["gamma", "electron", "proton", "helium"] | None = Field(
        None, description="Primary particle. null: the one that the bundle was trained on, if it is only one."
    )
    energy_min_tev: float | None = Field(
        None, gt=0, description="Lowest energy [TeV]. null: that of the images that the bundle was trained on."
    )
    energy_max_tev: float | None = Field(
        None, gt=0, description="Highest energy [TeV]. null: that of the images that the bundle was trained on."
    )

    @model_validator(mode="after")
    def _ordered(self) -> "ImagesConfig":
        low, high = self.energy_min_tev, self.energy_max_tev
        if low is not None and high is not None and low >= high:
            raise ValueError(f"energy_min_tev {low} is not below energy_max_tev {high}")
        return self
