"""Gamma ray or hadron: what is predicted, from what, and how it is called."""

from pydantic import Field

from pipeline.tasks.spec import Column, DL2Place, HeadOptions, MetricText, Monitor, TaskSpec


class GammanessOptions(HeadOptions):
    """Options of a head for gammaness."""

    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Labels 0 and 1 are moved by this fraction of the way to 0.5."
    )


SPEC = TaskSpec(
    name="gammaness",
    wing="camera",
    title="Gamma ray or hadron",
    input="image",
    outputs=("logit",),
    transform="The network gives the logit of gammaness, for classes of equal weight.",
    quantity="the logit of gammaness",
    columns=(
        # The group is not called particle_type as ctapipe's own constant says: HDF5EventSource of ctapipe 0.28 drops a
        # group of that name.
        Column(
            "gammaness",
            "",
            "score in [0, 1], 1 = gamma",
            dl2=DL2Place("classification", "prediction", average="mean"),
        ),
    ),
    monitor=Monitor("auc", "higher"),
    headline=("auc", "background_at_80"),
    metrics={
        "auc": MetricText("area under the ROC curve", "chance that a gamma is ranked above a hadron; 0.5 is guessing"),
        "background_at_80": MetricText(
            "hadrons kept at 80 % of the gammas",
            "share of the background that is left by the cut that keeps 80 % of the gammas",
            percent=True,
        ),
    },
    equalise=True,
    needs=("true_energy_tev", "true_primary_id"),
    targets=("gammaness",),
    options=GammanessOptions,
    order=10,
)
