"""Generation of camera images: what is learnt, from what, and how it is called."""

from pipeline.tasks.spec import MetricText, Monitor, TaskSpec

SPEC = TaskSpec(
    name="generation",
    wing="camera",
    title="Generated camera images",
    input="shower_frame",
    gives="image",
    outputs=("light_nats", "time_nats", "latent_nats", "detail_nats"),
    transform="From conditions and normal numbers, the network gives the share of the image's photo-electrons in each "
    "cell of the shower's frame, and their mean arrival time [ns]. In training it gives the terms of its loss.",
    quantity="loss [nats]",
    columns=(),  # of images that are there, nothing is predicted
    monitor=Monitor("nats", "lower"),
    headline=("two_sample_auc", "ks_mean"),
    metrics={
        "two_sample_auc": MetricText(
            "two-sample AUC",
            "how well a forest tells these images from simulated ones by their image parameters; 0.5 is best",
        ),
        "ks_mean": MetricText(
            "mean Kolmogorov-Smirnov distance",
            "between the distributions of image parameters and those of simulated images; 0 is best",
        ),
        "rejected_fraction": MetricText(
            "rejected images", "share that does not trigger or fails the cuts that simulated ones passed", percent=True
        ),
    },
    methods={
        "nearest": "the training image with the nearest conditions",
        "again": "the simulated photo-electrons, recorded once more",
    },
    needs=("true_primary_id", "true_energy_tev"),
    order=90,
)
