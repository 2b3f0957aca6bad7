"""Sections `evaluate`, `predict` and `report`: what is done with trained networks."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from pipeline.config.base import Edges, Section, Thresholds


class EvaluateConfig(Section):
    """`lightpool evaluate`."""

    bootstrap: int = Field(
        500, ge=50, description="Number of bootstrap samples of showers or fields, for the 95 % limits."
    )
    energy_edges_tev: Edges[PositiveFloat] = Field(
        (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 10.0), description="Edges of the bins in true energy [TeV]."
    )
    offset_edges_deg: Edges[NonNegativeFloat] = Field(
        (0.0, 0.5, 1.0, 1.5, 2.0, 2.5),
        description="Edges of the bins in true offset from the pointing [deg].",
    )
    size_cuts_pe: Thresholds[NonNegativeFloat] = Field(
        (50.0, 100.0, 200.0, 500.0), description="Gammaness is tested for images above each of these charges [p.e.]."
    )
    forest_trees: int = Field(200, ge=10, description="Number of trees of the random forest, the camera baseline.")
    max_baseline_images: int = Field(
        100_000, ge=100, description="Largest number of images that the random forest is fitted to."
    )
    reference: Literal["", "lst1_mono", "cta_4lst", "cta_north_prod3b", "magic", "two_sst1m"] = Field(
        "",
        description="Published performance that the figures of direction and energy show as a line: of LST-1 alone, "
        "CTAO's requirement for four LSTs, CTAO North (prod3b), MAGIC, or two SST-1M. Empty: none.",
    )


class PredictConfig(Section):
    """`lightpool predict` in a workflow; on the command line, its options are used instead."""

    batch_size: int = Field(256, ge=1, description="Number of camera images that are processed at a time.")
    tile_px: int = Field(
        1024, ge=64, description="Side of the tiles in which a sky frame passes through the network, about [px]."
    )
    overlap_px: int = Field(
        176,
        ge=0,
        description="Overlap of these tiles, blended [px]. 1.4 receptive fields of the model leave no seam; where it "
        "is less, there is a warning.",
    )
    outside_range: Literal["keep_sources", "apply", "refuse"] = Field(
        "keep_sources",
        description="What is done with a sky frame unlike those of the model's training (sharper stars, correlated "
        "noise ...), besides a warning. keep_sources: pixels that look like sources keep their values, and a mosaic "
        "of colours is restored colour by colour; in other frames with elongated stars, sources are not painted over, "
        "and flagged only beyond doubt. apply: the result is taken as it is. refuse: the frame is refused.",
    )
    bayer: str = Field(
        "auto",
        pattern="^(auto|none|[RGBCMYW]{4})$",
        description="Colours of the pixels of a sky frame: auto, as the cards BAYERPAT, XBAYROFF and YBAYROFF say; "
        "four letters from the first pixel on, such as RGGB; or none, all pixels are of one colour. Each of the four "
        "kinds of pixels is restored as a frame of its own.",
    )
    only: str = Field(
        "",
        description="Task of the only head of a sky model that is applied. defects: pixels and their uncertainty stay "
        "as they are, bit for bit, and only the mask is written. Empty: all heads.",
    )
    fpr: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Share of the good pixels of a sky frame that a head defects may flag; in star cores a fifth of "
        "it. null: 5e-4, as far as the model's card can promise it.",
    )
    uses: dict[Literal["camera", "sky"], tuple[str, ...]] = Field(
        default_factory=dict,
        description="Bundles to apply to all files of a wing, as {camera: [...], sky: [...]}: a network of this "
        "experiment, a path such as results/demo/bundles/mono, or the name of a bundle that ships.",
    )

    @model_validator(mode="after")
    def _overlap_fits(self) -> "PredictConfig":
        if self.overlap_px >= self.tile_px:
            raise ValueError(f"overlap_px {self.overlap_px} is not below tile_px {self.tile_px}")
        return self


class ReportConfig(Section):
    """`lightpool report`."""

    title: str = Field("lightpool report", description="Title of the report.")
    validate_showers: bool = Field(
        False,
        description="Also compare the shower simulation with published CORSIKA numbers (minutes), and with simulated "
        "files of CORSIKA if DATA has some.",
    )
