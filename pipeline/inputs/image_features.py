"""Numbers that describe a camera image as a whole: what an image and those of a network's training are compared by.

They are computed from tiles, so that they are the same in training and at prediction.
"""

from collections.abc import Mapping

import numpy as np

# Of the pixels of a tile, this part is enough to know the noise of dark ones: to 4 % in a tile of 56 x 56.
_EVERY = 4
_MIN_DARK = 20
_Z68 = (0.16, 0.5, 0.84)

#: Event columns that are read.
COLUMNS = (
    "pointing_alt_deg",
    "hillas_intensity",
    "hillas_width",
    "hillas_length",
    "n_islands",
    "leakage_intensity_width_2",
)


def image_features(planes: Mapping[str, np.ndarray], events: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The quantities of N images, shape (N,) each, float64; NaN where one cannot be told.

    Parameters
    ----------
    planes : mapping
        `charge`, `peak_time` and `mask`, shape (N, H, W) each.
    events : mapping
        The `COLUMNS`, shape (N,) each; one that is missing is not told.
    """
    n = len(planes["charge"])
    column = {name: np.asarray(events.get(name, np.full(n, np.nan)), np.float64) for name in COLUMNS}
    level, noise = _dark_pixels(planes)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {
            "pointing_alt_deg": column["pointing_alt_deg"],
            "dark_level_pe": level,
            "dark_noise_pe": noise,
            "no_charge_share": np.mean(planes["charge"] == 0, axis=(1, 2)),
            "log10_size": np.log10(column["hillas_intensity"]),
            "n_islands": column["n_islands"],
            "log10_width": np.log10(column["hillas_width"]),
            "log10_length": np.log10(column["hillas_length"]),
            "time_spread_ns": _time_spread(planes),
            "leakage": column["leakage_intensity_width_2"],
        }
    return {name: np.where(np.isfinite(values), values, np.nan) for name, values in found.items()}


def _dark_pixels(planes: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Median and half of the central 68 % of the pixels without light of the shower."""
    n, height, width = planes["charge"].shape
    flat = n, height * width  # not -1: there may be no image
    charge = planes["charge"].reshape(flat)[:, ::_EVERY].astype(np.float32)
    dark = (planes["mask"].reshape(flat)[:, ::_EVERY] == 0) & (charge != 0)
    charge[~dark] = np.inf
    charge.sort(axis=1)
    n_dark = dark.sum(axis=1)
    rows = np.arange(n)
    low, middle, high = (charge[rows, (share * np.maximum(n_dark - 1, 0)).astype(int)] for share in _Z68)
    few = n_dark < _MIN_DARK
    with np.errstate(invalid="ignore"):
        return np.where(few, np.nan, middle), np.where(few, np.nan, (high - low) / 2)


def _time_spread(planes: Mapping[str, np.ndarray]) -> np.ndarray:
    """Standard deviation of the times of the pixels with light."""
    time = planes["peak_time"].astype(np.float32)
    lit = (planes["mask"] > 0.5) & np.isfinite(time)
    time = np.where(lit, time, 0)
    number = lit.sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = time.sum(axis=(1, 2)) / number
        return np.sqrt(np.maximum((time**2).sum(axis=(1, 2)) / number - mean**2, 0))
