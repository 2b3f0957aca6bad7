"""Core of the shower: what is predicted, from what, and how it is called."""

from pipeline.tasks.spec import Column, DL2Place, MetricText, Monitor, TaskSpec, UncertaintyOptions


class CoreOptions(UncertaintyOptions):
    """Options of the core head."""

    @property
    def vectors(self) -> tuple[int, ...]:
        """The first two outputs."""
        return (0,)


SPEC = TaskSpec(
    name="core",
    wing="camera",
    title="Shower core of gamma rays",
    input="image",
    outputs=("core_lon_100m", "core_lat_100m", "log_variance"),
    transform="The network gives the vector from the telescope to the shower's axis in the plane perpendicular to the "
    "pointing, along fov_lon and fov_lat, in units of 100 m, and the logarithm of the variance along each axis.",
    quantity="core - telescope along fov_lon [100 m]",
    columns=(
        Column(
            "reco_impact_m",
            "m",
            "distance of the telescope from the shower's axis",
            dl2=DL2Place("impact", "impact_distance"),
        ),
        Column(
            "reco_impact_uncert_m",
            "m",
            "its uncertainty (1 sigma); NaN where the model gives none",
            dl2=DL2Place("impact", "impact_distance_uncert"),
        ),
        Column(
            "reco_core_x_m",
            "m",
            "core on the ground, to the north; NaN where pointing or telescope position are unknown",
            dl2=DL2Place("geometry", "core_x", average="position"),
        ),
        Column("reco_core_y_m", "m", "core on the ground, to the west", dl2=DL2Place("geometry", "core_y")),
        Column("reco_core_uncert_x_m", "m", "uncertainty of x (1 sigma)", dl2=DL2Place("geometry", "core_uncert_x")),
        Column("reco_core_uncert_y_m", "m", "uncertainty of y (1 sigma)", dl2=DL2Place("geometry", "core_uncert_y")),
    ),
    monitor=Monitor("core_resolution_m", "lower"),
    headline=("core_resolution_m", "impact_resolution_m"),
    metrics={
        "core_resolution_m": MetricText(
            "resolution of the core [m]", "68 % of the gammas are reconstructed within this distance of the true axis"
        ),
        "impact_resolution_m": MetricText(
            "resolution of the impact distance [m]",
            "68 % of the gammas have an error of the distance to the telescope below this",
        ),
    },
    where={"true_primary_id": 0},
    needs=("true_core_x_m", "true_core_y_m", "true_primary_id"),
    targets=("core",),
    options=CoreOptions,
    order=26,
)
