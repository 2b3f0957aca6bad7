"""Toy task of the sky: which pixels belong to a source."""

from pipeline.tasks.spec import Column, MetricText, Monitor, TaskSpec

SPEC = TaskSpec(
    name="starmap",
    wing="sky",
    title="Which pixels belong to a source",
    input="frame",
    gives="map",
    outputs=("source_logit",),
    transform="The network gives the logit of belonging to a source.",
    quantity="the logit of belonging to a source",
    columns=(Column("source_probability", "", "probability that the pixel belongs to a source", hdu="STARS"),),
    monitor=Monitor("source_loss", "lower"),
    headline=("wrong_pixels",),
    metrics={"wrong_pixels": MetricText("pixels told wrongly", "share of the pixels with data", percent=True)},
    methods={"threshold": "3 sigma above the background"},
    targets=("source",),
)
