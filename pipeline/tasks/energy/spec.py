"""Energy of the primary gamma ray: what is predicted, from what, and how it is called."""

from pipeline.tasks.spec import Column, DL2Place, MetricText, Monitor, TaskSpec, UncertaintyOptions

SPEC = TaskSpec(
    name="energy",
    wing="camera",
    title="Energy of gamma rays",
    input="image",
    outputs=("log10_energy_tev", "log_variance"),
    transform="The network gives log10 of the energy in TeV, and the logarithm of the variance of that.",
    quantity="log10(E / TeV)",
    columns=(
        Column(
            "reco_energy_tev",
            "TeV",
            "energy of the primary",
            dl2=DL2Place("energy", "energy", average="log_mean"),
        ),
        Column(
            "reco_energy_uncert_tev",
            "TeV",
            "its uncertainty (1 sigma); NaN where the model gives none",
            dl2=DL2Place("energy", "energy_uncert"),
        ),
    ),
    monitor=Monitor("log10_energy_rms", "lower"),
    headline=("energy_resolution", "log10_energy_rms"),
    metrics={
        "energy_resolution": MetricText(
            "energy resolution", "68 % of the gammas have |E_reco/E_true − 1| below this", percent=True
        ),
        "energy_bias": MetricText("energy bias", "median of E_reco/E_true − 1", percent=True),
        "log10_energy_rms": MetricText("rms of log10 energy", "root mean square of log10(E_reco/E_true)"),
    },
    # An energy estimate is for what passed as a gamma, and class weights would bend the spectrum towards the hadrons'.
    where={"true_primary_id": 0},
    equalise=False,
    needs=("true_energy_tev", "true_primary_id"),
    targets=("energy",),
    options=UncertaintyOptions,
    order=20,
)
