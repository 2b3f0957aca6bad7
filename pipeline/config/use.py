"""Sections `evaluate`, `predict` and `report`: what is done with trained networks."""

from typing import Literal

from pydantic import Field, model_validator

from pipeline.config.base import Section


class EvaluateConfig(Section):
    """`lightpool evaluate`."""

    bootstrap: int = Field(500, ge=50)
    energy_edges_tev: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 10.0)
    size_cuts_pe: tuple[float, ...] = (50.0, 100.0, 200.0, 500.0)  # gammaness is also judged above each of them
    forest_trees: int = Field(200, ge=10)
    max_baseline_images: int = Field(100_000, ge=100)


class PredictConfig(Section):
    """`lightpool predict` (in a workflow; on the command line the options speak)."""

    batch_size: int = Field(256, ge=1)
    tile_px: int = Field(512, ge=64)
    overlap_px: int = Field(96, ge=0)
    # Bundles that the workflow applies to the files of each wing: a task of this experiment, a path, or a name.
    uses: dict[Literal["camera", "sky"], tuple[str, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _overlap_fits(self) -> "PredictConfig":
        if self.overlap_px >= self.tile_px:
            raise ValueError(f"overlap_px {self.overlap_px} is not below tile_px {self.tile_px}")
        return self


class ReportConfig(Section):
    """`lightpool report`."""

    title: str = "lightpool report"
    validate_showers: bool = Field(False, description="compare the shower simulation with its references, too")
