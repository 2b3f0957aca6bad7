"""Defects of sky frames: which pixels are spoiled, and by what."""

from pipeline.tasks.spec import Column, MetricText, Monitor, TaskSpec

_CLASSES = {
    "cosmic_ray": "a cosmic ray",
    "hot": "a hot pixel",
    "dead": "a dead pixel",
    "trail": "the trail of a satellite or aircraft",
    "bleed": "charge that bled from a saturated pixel",
}

#: Output -> name of its DQ bit.
FLAGS = {"cosmic_ray": "COSMIC_RAY", "hot": "HOT", "dead": "BAD", "trail": "TRAIL", "bleed": "BLEED"}

SPEC = TaskSpec(
    name="defects",
    wing="sky",
    title="Defects of sky frames",
    input="frame",
    gives="map",
    outputs=tuple(_CLASSES),
    transform="The network gives, per pixel and kind of defect, the logit of being spoiled by it, less a prior of -3; "
    "a pixel may have several defects.",
    quantity="logit of a cosmic ray",
    columns=(
        Column("defect_score", "", "largest of the logits, lifted beside surely spoiled pixels"),
        *(Column(f"{name}_logit", "", f"logit of being spoiled by {text}") for name, text in _CLASSES.items()),
        Column("surroundings_snr", "", "signal-to-noise ratio of the middle one of 3 x 3 pixels", internal=True),
    ),
    monitor=Monitor("tpr_bench", "higher"),
    headline=("bench_tpr_at_fpr_0.0005", "own_tpr_at_fpr_0.0005", "bench_precision_at_tpr_0.95", "bench_core_fpr"),
    metrics={
        **{
            f"{count}_tpr_at_fpr_{rate}": MetricText(
                f"defect pixels found, {count}",
                f"at a false-alarm rate of {percent} % of the good pixels",
                percent=True,
            )
            for count in ("bench", "own")
            for rate, percent in (("0.0001", "0.01"), ("0.0005", "0.05"), ("0.001", "0.1"))
        },
        **{
            f"{name}_tpr_at_fpr_0.0005": MetricText(
                f"pixels of {text} found", "at a false-alarm rate of 0.05 % of the good pixels", percent=True
            )
            for name, text in _CLASSES.items()
        },
        "bench_precision_at_tpr_0.95": MetricText(
            "precision", "share of defects among the flagged pixels where 95 % of the defects are found", percent=True
        ),
        "bench_core_fpr": MetricText(
            "false alarms in star cores",
            "share of the good pixels with S/N > 20 that are flagged, at a rate of 0.05 % of all good pixels",
            percent=True,
        ),
    },
    methods={"astroscrappy": "astroscrappy"},
    equalise=True,
    targets=("clean", "defect_snr", "defect_bits"),
    order=31,
)
