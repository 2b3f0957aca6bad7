"""Restoring sky frames: what is predicted, from what, and how it is called."""

from pipeline.tasks.spec import Column, MetricText, Monitor, TaskSpec

SPEC = TaskSpec(
    name="denoise",
    wing="sky",
    title="Restoring sky frames",
    input="frame",
    gives="map",
    outputs=("correction", "replacement", "log_variance", "defect", "log_tau2"),
    transform="The network gives, per pixel, a correction in units of the pixel's uncertainty, a replacement in asinh "
    "of the background noise, the log variance of the result, the logit of being a defect less a prior of -3, and the "
    "log variance of the correction; variances are in units of the pixel's own.",
    quantity="correction in units of the uncertainty",
    columns=(
        Column("restored", "sci", "restored image", hdu="SCI"),
        Column("restored_err", "sci", "its uncertainty (1 sigma)", hdu="ERR"),
        Column("defect_probability", "", "probability that the pixel was a defect"),
        Column("painted", "", "1 where the pixel was replaced", internal=True),
    ),
    monitor=Monitor("loss", "lower"),
    headline=(
        "psnr_db",
        "psnr_clean_pixels_db",
        "flux_bias",
        "n2n_rms_e",
        "n2n_rms_adu",
        "umse_sigma2",
        "injected_bias",
    ),
    metrics={
        "psnr_db": MetricText("PSNR [dB]", "peak signal to noise over all pixels with data, defects included"),
        "psnr_clean_pixels_db": MetricText("PSNR of clean pixels [dB]", "the same over pixels without a defect"),
        "ssim": MetricText("SSIM", "structural similarity of the arcsinh-stretched frames; 1 is equal"),
        "flux_bias": MetricText("flux bias of stars", "median relative error of the aperture flux", percent=True),
        "flux_scatter": MetricText(
            "flux scatter of stars", "68 % of the stars have a relative flux error below this", percent=True
        ),
        "defect_rmse_e": MetricText(
            "error on defect pixels [e−]", "rms error on cosmic rays, hot and dead pixels, trails"
        ),
        "defect_rmse_adu": MetricText(
            "error on defect pixels [ADU]", "rms error on cosmic rays, hot and dead pixels, trails"
        ),
        "sky_rms_sigma": MetricText("error on empty sky [σ]", "rms error in units of the frame's background noise"),
        "tpr_at_fpr_0.0005": MetricText(
            "defect pixels found", "at a false-alarm rate of 0.05 % of the good pixels", percent=True
        ),
        "n2n_rms_e": MetricText("rms against the other exposure [e−]", "rms of (this frame − the raw partner frame)"),
        "n2n_rms_adu": MetricText(
            "rms against the other exposure [ADU]", "rms of (this frame − the raw partner frame)"
        ),
        "n2n_sky_rms_e": MetricText(
            "rms against the other exposure, empty sky [e−]", "where the partner is within 5 σ of the background"
        ),
        "n2n_sky_rms_adu": MetricText(
            "rms against the other exposure, empty sky [ADU]", "where the partner is within 5 σ of the background"
        ),
        "umse_sigma2": MetricText(
            "error without a truth [σ²]",
            "mean squared error from three other exposures, in units of the background's variance",
        ),
        "umse_sky_sigma2": MetricText("error without a truth, empty sky [σ²]", "the same where there is no source"),
        "residual_width": MetricText(
            "width of what was taken away [σ]",
            "recorded less restored over the stated uncertainty; noise has 1 at most",
        ),
        **{
            f"residual_correlation_{lag}": MetricText(
                f"correlation of what was taken away, {lag} px",
                f"between pixels {lag} px apart on the empty sky; 0 for noise of the detector",
            )
            for lag in (1, 2, 3)
        },
        "residual_on_sources": MetricText(
            "what was taken from sources [σ]", "mean of recorded less restored where the restored pixel is at 3 to 20 σ"
        ),
        "injected_bias": MetricText(
            "response to added stars, less 1", "median of what became of stars that were added", percent=True
        ),
        "star_scatter_mag": MetricText(
            "scatter of stars over exposures [mag]", "median over the stars with a signal-to-noise ratio above 50"
        ),
    },
    methods={"noisy": "as recorded", "astroscrappy_median": "astroscrappy + median"},
    equalise=True,
    targets=("clean",),
    order=30,
)
