"""Section `tiles`: from events and frames to training tiles."""

from typing import Literal

from pydantic import Field, model_validator

from pipeline.config.base import Section


class SplitsConfig(Section):
    """Shares of the groups (showers or fields); chosen by hash, so that a group never changes sides."""

    train: float = Field(0.6, ge=0, le=1)
    validation: float = Field(0.15, ge=0, le=1)
    test: float = Field(0.25, ge=0, le=1)

    @model_validator(mode="after")
    def _whole(self) -> "SplitsConfig":
        if abs(self.train + self.validation + self.test - 1) > 1e-6:
            raise ValueError(f"train + validation + test is {self.train + self.validation + self.test:g}; it must be 1")
        return self


class CleaningConfig(Section):
    """Two-level tail-cut cleaning [p.e.]."""

    picture_pe: float = 6.0
    boundary_pe: float = 3.0
    min_picture_neighbors: int = Field(1, ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> "CleaningConfig":
        if self.boundary_pe > self.picture_pe:
            raise ValueError(f"boundary_pe {self.boundary_pe} is above picture_pe {self.picture_pe}")
        return self


class CutsConfig(Section):
    """Quality cuts on the cleaned image; an image that fails is left out and counted."""

    size_min_pe: float = 50.0
    n_pixels_min: int = 5
    leakage_max: float = Field(0.2, description="largest share of the charge in the outermost pixel ring")


class CameraTilesConfig(Section):
    """Camera images to square tiles."""

    camera: str | None = Field(
        None,
        description="which camera of a file with several: its name, telescope type or identity; None: the commonest",
    )
    size: int = Field(56, ge=16)
    cleaning: CleaningConfig = CleaningConfig()
    cuts: CutsConfig = CutsConfig()


class SkyTilesConfig(Section):
    """Sky frames to tiles. `target`: truth (simulated frames), or pairs of one drifting field (Noise2Noise)."""

    size: int = Field(64, ge=32)
    stride: int = Field(64, ge=8)
    target: Literal["truth", "noise2noise"] = "truth"
    pair_max_residual_shift_px: float = Field(0.15, gt=0, description="pairs whose drift is this near to whole pixels")
    pairs_per_frame: int = Field(4, ge=1)


class WeightingConfig(Section):
    """Bins in which energy, offset and size are made alike between the classes."""

    energy_bins: int = Field(12, ge=1)
    offset_bins: int = Field(5, ge=1)
    size_bins: int = Field(12, ge=1)
    max_weight: float = Field(10.0, gt=1)


class TilesConfig(Section):
    """`lightpool tiles` and `lightpool manifest`."""

    splits: SplitsConfig = SplitsConfig()
    camera: CameraTilesConfig = CameraTilesConfig()
    sky: SkyTilesConfig = SkyTilesConfig()
    weighting: WeightingConfig = WeightingConfig()
