"""Section `tiles`: from events and frames to training tiles."""

from typing import Literal

from pydantic import Field, model_validator

from pipeline.config.base import Section


class SplitsConfig(Section):
    """Shares of the groups (showers or fields); chosen by hash, so that a group never changes its split."""

    train: float = Field(0.6, ge=0, le=1, description="Share that networks are trained on.")
    validation: float = Field(0.15, ge=0, le=1, description="Share that chooses the best epoch.")
    test: float = Field(0.25, ge=0, le=1, description="Share that trained networks are tested on.")

    @model_validator(mode="after")
    def _whole(self) -> "SplitsConfig":
        if abs(self.train + self.validation + self.test - 1) > 1e-6:
            raise ValueError(f"train + validation + test is {self.train + self.validation + self.test:g}; it must be 1")
        return self


class CleaningConfig(Section):
    """Two-level tail-cut cleaning [p.e.]."""

    picture_pe: float = Field(6.0, description="Lowest charge of a picture pixel [p.e.].")
    boundary_pe: float = Field(3.0, description="Lowest charge of a boundary pixel, next to a picture pixel [p.e.].")
    min_picture_neighbors: int = Field(
        1, ge=0, description="Number of neighbours above picture_pe that a picture pixel needs."
    )

    @model_validator(mode="after")
    def _ordered(self) -> "CleaningConfig":
        if self.boundary_pe > self.picture_pe:
            raise ValueError(f"boundary_pe {self.boundary_pe} is above picture_pe {self.picture_pe}")
        return self


class CutsConfig(Section):
    """Quality cuts on the cleaned image; an image that fails is rejected and counted."""

    size_min_pe: float = Field(50.0, description="Lowest charge of the image [p.e.].")
    n_pixels_min: int = Field(5, description="Lowest number of pixels of the image.")
    leakage_max: float = Field(0.2, description="Largest share of the charge in the outermost ring of pixels.")


class NoiseConfig(Section):
    """Noise of real cameras for simulated images; its strength is drawn for each image, from 0 to these limits."""

    splits: tuple[Literal["train", "validation", "test"], ...] = Field(
        ("train", "validation"),
        min_length=1,
        description="Splits whose images get noise. Test images are those of the files, as in predictions, so that "
        "results with and without noise compare.",
    )
    night_sky_max_pe: float = Field(
        2.0,
        ge=0,
        le=1000,
        description="Largest mean of additional night-sky light [p.e. per pixel and integration window]; a dark sky "
        "fluctuates like 1.7 in an LST.",
    )
    gain_spread_max: float = Field(0.1, ge=0, le=0.5, description="Largest rms of the pixels' gains, relative.")
    dead_fraction_max: float = Field(
        0.02, ge=0, le=0.5, description="Largest share of dead pixels; they get the mean of their neighbours."
    )


#: Value of `tiles.camera.camera` that stands for all cameras of a file.
ALL_CAMERAS = "all"


class CameraTilesConfig(Section):
    """Camera images to square tiles."""

    camera: str | None = Field(
        None,
        description="Which camera to take from a file with several: its name, telescope type (LST, MST, SST) or "
        "identity; all: every one, so that events are whole. null: the one with the most images.",
    )
    frame: Literal["camera", "shower"] = Field(
        "camera",
        description="How an image lies on its tile: camera: as in the camera. shower: true photo-electrons, turned "
        "about the source so that the shower's core is to the right, in cells of half a pixel; for the task "
        "generation, from simulated files alone.",
    )
    size: int = Field(56, ge=16, le=8192, description="Side of a tile [px].")
    cleaning: CleaningConfig = Field(CleaningConfig(), description="Two-level tail-cut cleaning.")
    cuts: CutsConfig = Field(
        CutsConfig(), description="Quality cuts on the cleaned image; images that fail are rejected and counted."
    )
    noise: NoiseConfig | None = Field(
        None,
        description="Noise that is added to images before the cleaning, so that networks learn to meet real cameras. "
        "null: none.",
    )


class SkyTilesConfig(Section):
    """Sky frames to tiles. `target`: truth (simulated frames), pairs of one drifting field (Noise2Noise), or itself."""

    size: int = Field(64, ge=32, description="Side of a tile [px].")
    stride: int = Field(64, ge=8, description="Step from tile to tile [px]; tiles overlap if it is less than size.")
    target: Literal["truth", "noise2noise", "noise2void"] = Field(
        "truth",
        description="What a network learns from: truth (of simulated frames), noise2noise (pairs of exposures of one "
        "field), or noise2void (pixels of single frames that the network is not shown).",
    )
    pair_max_residual_shift_px: float = Field(
        0.15, gt=0, description="noise2noise: largest distance of a pair's drift from whole pixels [px]."
    )
    pairs_per_frame: int = Field(
        4, ge=1, description="noise2noise: number of partners of a tile, on average over a frame, at most."
    )


class WeightingConfig(Section):
    """Weights that equalise energy, offset and size between the classes; they are computed in bins."""

    energy_bins: int = Field(12, ge=1, description="Number of bins in true energy.")
    offset_bins: int = Field(5, ge=1, description="Number of bins in the offset from the pointing.")
    size_bins: int = Field(12, ge=1, description="Number of bins in the charge of the image.")
    max_weight: float = Field(10.0, gt=1, description="Largest weight of a tile, in units of the mean.")


class TilesConfig(Section):
    """`lightpool tiles` and `lightpool manifest`."""

    splits: SplitsConfig = Field(
        SplitsConfig(), description="Shares of the showers or fields in each split, chosen by hash; their sum is 1."
    )
    camera: CameraTilesConfig = Field(CameraTilesConfig(), description="Tiles of camera images.")
    sky: SkyTilesConfig = Field(SkyTilesConfig(), description="Tiles of sky frames.")
    weighting: WeightingConfig = Field(
        WeightingConfig(),
        description="Weights that equalise energy, offset and size between the classes; they are computed in bins.",
    )
