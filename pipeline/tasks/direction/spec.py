"""Direction of the primary gamma ray: what is predicted, from what, and how it is called."""

from typing import Any

from pydantic import Field

from pipeline.tasks.spec import Column, DL2Place, MetricText, Monitor, TaskSpec, UncertaintyOptions

#: Outputs of a head that does not leave the end open.
VECTOR_OUTPUTS = ("lon", "lat", "log_variance")


class DirectionOptions(UncertaintyOptions):
    """Options of the direction head."""

    ends: bool = Field(
        True,
        description="Whether the line on which the source lies and the end of the image are two answers, as one "
        "telescope needs; else one vector is predicted. false for the input shower.",
    )

    energy_power: float = Field(
        0.0,
        ge=0,
        le=2,
        description="Gammas count in the loss by this power of their true energy: with a steep spectrum, most are near "
        "the threshold.",
    )

    def outputs(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Line and end, or the vector."""
        return super().outputs(names if self.ends else VECTOR_OUTPUTS)

    @property
    def vectors(self) -> tuple[int, ...]:
        """Without ends, the first two."""
        return () if self.ends else (0,)

    @classmethod
    def defaults(cls, kind: str) -> dict[str, Any]:
        """Several telescopes tell the end."""
        return {"ends": kind != "shower"}


SPEC = TaskSpec(
    name="direction",
    wing="camera",
    title="Direction of gamma rays",
    input="image",
    outputs=("axis_cos", "axis_sin", "head_lon", "head_lat", "axis_along", "head_along", "log_variance"),
    transform="The network gives the vector d [deg] from the image's centre of gravity to the source in two parts: the "
    "line on which it lies as |d| (cos 2a, sin 2a), a the angle of d from fov_lon to fov_lat; and a vector whose "
    "projection on that line is the logit of the end that the source is at. To each it adds a multiple of the same for "
    "the unit vector along the image's long axis, away from the camera's centre (the outputs *_along). Without ends, "
    "it gives d itself. With them, the logarithm of the variance [deg2] along each axis.",
    quantity="|d| cos 2a, d from the centre of gravity to the source",
    columns=(
        Column("reco_fov_lon_deg", "deg", "source in the field of view, along azimuth"),
        Column("reco_fov_lat_deg", "deg", "source in the field of view, along altitude"),
        Column(
            "reco_alt_deg",
            "deg",
            "altitude of the source; NaN where the pointing is unknown",
            dl2=DL2Place("geometry", "alt", average="direction"),
        ),
        Column("reco_az_deg", "deg", "azimuth of the source", dl2=DL2Place("geometry", "az")),
        Column(
            "reco_alt_uncert_deg",
            "deg",
            "uncertainty along altitude (1 sigma, at the right end of the image); NaN where the model gives none",
            dl2=DL2Place("geometry", "alt_uncert"),
        ),
        Column(
            "reco_az_uncert_deg", "deg", "uncertainty of the azimuth (1 sigma)", dl2=DL2Place("geometry", "az_uncert")
        ),
        Column(
            "reco_ang_distance_uncert_deg",
            "deg",
            "radius about the direction that holds the source with 68 %, at the right end of the image",
            dl2=DL2Place("geometry", "ang_distance_uncert"),
        ),
        Column(
            "reco_alt_other_end_deg",
            "deg",
            "altitude of the source if it is at the other end of the image",
            dl2=DL2Place("geometry", "alt_other_end"),
            internal=True,
        ),
        Column(
            "reco_az_other_end_deg",
            "deg",
            "azimuth of the source if it is at the other end of the image",
            dl2=DL2Place("geometry", "az_other_end"),
            internal=True,
        ),
        Column(
            "reco_end_log_odds",
            "",
            "logarithm of the odds of the end that was chosen",
            dl2=DL2Place("geometry", "end_log_odds"),
            internal=True,
        ),
        Column(
            "reco_disp_deg",
            "deg",
            "distance of the source from the centre of gravity, along the image's long axis as psi has it",
            dl2=DL2Place("disp", "parameter"),
        ),
        Column(
            "reco_sign_score",
            "",
            "how certain the end of the image is: 0 is guessing, 1 certain",
            dl2=DL2Place("disp", "sign_score"),
        ),
    ),
    monitor=Monitor("angular_resolution_deg", "lower"),
    headline=("angular_resolution_deg", "sign_accuracy"),
    metrics={
        "angular_resolution_deg": MetricText(
            "angular resolution [deg]", "68 % of the gammas are reconstructed within this angle of the true direction"
        ),
        "sign_accuracy": MetricText(
            "right end of the image",
            "share of the gammas whose direction is put to the right side of the image's centre of gravity",
            percent=True,
        ),
        "axis_resolution_deg": MetricText(
            "resolution with the right end [deg]",
            "68 % of the gammas are within this angle, if the end of the image was known",
        ),
    },
    where={"true_primary_id": 0},
    needs=("true_fov_lon_deg", "true_fov_lat_deg", "true_primary_id"),
    targets=("direction",),
    options=DirectionOptions,
    order=25,
)
