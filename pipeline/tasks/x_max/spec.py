"""Depth of the shower's maximum: what is predicted, from what, and how it is called."""

from pipeline.tasks.spec import Column, MetricText, Monitor, TaskSpec, UncertaintyOptions

SPEC = TaskSpec(
    name="x_max",
    wing="camera",
    title="Depth of the shower maximum of gamma rays",
    input="image",
    outputs=("x_max_100g_cm2", "log_variance"),
    transform="The network gives the depth of the maximum, less 300 g/cm2, in units of 100 g/cm2, and the logarithm of "
    "the variance of that.",
    quantity="(X_max - 300 g/cm2) / 100 g/cm2",
    # ctapipe's DL2 has no column for it.
    columns=(
        Column("reco_x_max_g_cm2", "g / cm2", "vertical depth of the shower maximum"),
        Column("reco_x_max_uncert_g_cm2", "g / cm2", "its uncertainty (1 sigma); NaN where the model gives none"),
    ),
    monitor=Monitor("x_max_resolution_g_cm2", "lower"),
    headline=("x_max_resolution_g_cm2", "x_max_bias_g_cm2"),
    metrics={
        "x_max_resolution_g_cm2": MetricText(
            "resolution of X_max [g/cm2]", "68 % of the gammas have an error of the depth below this"
        ),
        "x_max_bias_g_cm2": MetricText("bias of X_max [g/cm2]", "median of reconstructed minus true depth"),
    },
    where={"true_primary_id": 0},
    needs=("true_x_max_g_cm2", "true_primary_id"),
    targets=("x_max",),
    options=UncertaintyOptions,
    order=27,
)
