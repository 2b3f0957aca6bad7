"""Numbers and names as a reader wants them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class MetricText:
    """How a metric is called, and what it means in one sentence."""

    label: str
    meaning: str
    percent: bool = False


METRICS = {
    "auc": MetricText("area under the ROC curve", "chance that a gamma is ranked above a hadron; 0.5 is guessing"),
    "background_at_80": MetricText(
        "hadrons kept at 80 % of the gammas",
        "share of the background that is left by the cut that keeps 80 % of the gammas",
        percent=True,
    ),
    "energy_resolution": MetricText(
        "energy resolution", "68 % of the gammas have |E_reco/E_true − 1| below this", percent=True
    ),
    "energy_bias": MetricText("energy bias", "median of E_reco/E_true − 1", percent=True),
    "log10_energy_rms": MetricText("rms of log10 energy", "root mean square of log10(E_reco/E_true)"),
    "angular_resolution_deg": MetricText("angular resolution [deg]", "68 % of the gammas lie within this angle"),
    "psnr_db": MetricText("PSNR [dB]", "peak signal to noise over all pixels with data, defects included"),
    "psnr_clean_pixels_db": MetricText("PSNR of clean pixels [dB]", "the same over pixels without a defect"),
    "ssim": MetricText("SSIM", "structural similarity of the arcsinh-stretched frames; 1 is equal"),
    "flux_bias": MetricText("flux bias of stars", "median relative error of the aperture flux", percent=True),
    "flux_scatter": MetricText(
        "flux scatter of stars", "68 % of the stars have a relative flux error below this", percent=True
    ),
    "defect_rmse_e": MetricText("error on defect pixels [e−]", "rms error on cosmic rays, hot and dead pixels, trails"),
    "defect_rmse_adu": MetricText(
        "error on defect pixels [ADU]", "rms error on cosmic rays, hot and dead pixels, trails"
    ),
    "sky_rms_sigma": MetricText("error on empty sky [σ]", "rms error in units of the frame's background noise"),
    "tpr_at_fpr_0.0005": MetricText(
        "defect pixels found", "at a false-alarm rate of 0.05 % of the good pixels", percent=True
    ),
    "n2n_rms_e": MetricText("rms against the other exposure [e−]", "rms of (this frame − the raw partner frame)"),
    "n2n_rms_adu": MetricText("rms against the other exposure [ADU]", "rms of (this frame − the raw partner frame)"),
    "n2n_sky_rms_e": MetricText(
        "rms against the other exposure, empty sky [e−]", "where the partner is within 5 σ of the background"
    ),
    "n2n_sky_rms_adu": MetricText(
        "rms against the other exposure, empty sky [ADU]", "where the partner is within 5 σ of the background"
    ),
}  # fmt: skip

METHODS = {
    "network": "network",
    "forest": "forest on Hillas parameters",
    "combined": "mean of network and forest",
    "noisy": "as recorded",
    "astroscrappy_median": "astroscrappy + median",
}

TASKS = {
    "energy": "Energy of gamma rays",
    "gammaness": "Gamma ray or hadron",
    "direction": "Direction of gamma rays",
    "denoise": "Restoring sky frames",
    "defects": "Finding defects",
}


def metric_text(name: str) -> MetricText:
    """What to call a metric; its own name where it is not known."""
    return METRICS.get(name, MetricText(name.replace("_", " "), ""))


def method_label(name: str) -> str:
    """What to call a method."""
    return METHODS.get(name, name.replace("_", " "))


def task_title(name: str) -> str:
    """Heading of a task."""
    return TASKS.get(name, name)


def value_text(entry: Mapping[str, Any] | None, *, percent: bool = False, signed: bool = False) -> str:
    """A value with as many digits as its interval deserves: "0.872 [0.861, 0.883]"; "—" where undefined."""
    if not entry or entry.get("value") is None:
        return "—"
    scale, sign = (100.0, " %") if percent else (1.0, "")
    value, low, high = (None if entry.get(key) is None else scale * entry[key] for key in ("value", "low", "high"))
    if low is None or high is None:
        return _number(value, 1 if percent else 3, signed) + sign
    decimals = _decimals(high - low)
    limits = f"[{_number(low, decimals, signed)}, {_number(high, decimals, signed)}]"
    return f"{_number(value, decimals, signed)}{sign} {limits}"


def _decimals(width: float) -> int:
    """So that the width of the interval has two digits."""
    return 3 if width <= 0 else max(0, min(6, 1 - math.floor(math.log10(width))))


def _number(value: float, decimals: int, signed: bool) -> str:
    text = f"{value:{'+' if signed else ''}.{decimals}f}"
    return text.replace("-", "−")


def verdict(difference: Mapping[str, Any] | None, better: str) -> str:
    """Whether the interval of network minus baseline leaves out zero: "better", "worse", "same" or ""."""
    if not difference or difference.get("low") is None or difference.get("high") is None:
        return ""
    lower_is_better = better == "lower" or bool(difference.get("absolute"))
    low, high = difference["low"], difference["high"]
    if lower_is_better:
        low, high = -high, -low
    if low > 0:
        return "better"
    return "worse" if high < 0 else "same"


def duration_text(seconds: float | None) -> str:
    """Seconds as "12 s", "3 min 20 s" or "1 h 05 min"."""
    if seconds is None:
        return "—"
    if seconds < 10:
        return f"{seconds:.1f} s"
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60:02d} s"
    return f"{total // 3600} h {total % 3600 // 60:02d} min"


def count_text(number: int | None) -> str:
    """A count with thin spaces between thousands."""
    return "—" if number is None else f"{number:,}".replace(",", "\u202f")
