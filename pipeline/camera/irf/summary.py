"""Responses in numbers: what each bin of energy and offset says, with 95 % intervals.

Uses of a shower are not independent, so all errors are those of showers: for numbers of events the variance is the sum
over showers of the square of what each gives (a compound Poisson process), and quantiles are resampled by showers.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import statistics
from pipeline.camera.irf.events import Events
from pipeline.camera.irf.settings import Bins

_SIGMA_95 = 1.959964
_MIN_EVENTS = 10
_ALPHA = 0.2  # on-source over off-source region: ctapipe's default
_SR_PER_DEG2 = (np.pi / 180) ** 2
_MEV_PER_TEV = 1e6
#: Background events in a bin below which its sensitivity is a matter of luck.
MIN_BACKGROUND = 10

Entry = dict[str, Any]


def summarise(
    folder: Path, gammas: Events, background: Events | None, bins: Bins, *, n_resamples: int, seed: int
) -> list[Entry]:
    """Entries of all bins.

    Parameters
    ----------
    folder : path
        With irf.fits and benchmarks.fits.
    gammas : Events
        With cuts.
    background : Events, optional
        Protons and electrons, with cuts.
    bins : Bins
    n_resamples, seed : int
        Of the bootstrap.

    Returns
    -------
    list of dict
        ``by`` (true_energy_tev, reco_energy_tev or sensitivity), ``low`` and ``high`` [TeV], ``offset_low_deg`` and
        ``offset_high_deg``, and for each quantity ``value``, ``low``, ``high``, ``n``; None where it is not defined.
    """
    entries = list(_of_true_energy(folder / "irf.fits", gammas, bins, n_resamples, seed))
    if background is not None:
        entries += _background_rate(folder / "irf.fits", background)
        entries += _sensitivity(folder / "benchmarks.fits", gammas, background)
    for entry in entries:  # the edges are needed exactly until here
        entry |= {name: _six_digits(value) for name, value in entry.items() if isinstance(value, float)}
    return entries


def _six_digits(number: float) -> float:
    return float(f"{number:.6g}")


def _table(path: Path, name: str) -> dict[str, np.ndarray]:
    """The one row of a table of responses: column -> array, bins of offset before those of energy."""
    from astropy.io import fits

    with fits.open(path) as hdus:
        row = hdus[name].data
        return {column: np.array(row[column][0], np.float64) for column in row.columns.names}


def _cells(table: dict[str, np.ndarray]) -> Iterator[tuple[int, int, Entry]]:
    for i, (near, far) in enumerate(zip(table["THETA_LO"], table["THETA_HI"], strict=True)):
        for j, (low, high) in enumerate(zip(table["ENERG_LO"], table["ENERG_HI"], strict=True)):
            edges = {"low": low, "high": high, "offset_low_deg": near, "offset_high_deg": far}
            yield i, j, {name: float(edge) for name, edge in edges.items()}


def _inside(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return (values >= low) & (values < high)


def quantity(value: float, low: float, high: float, n: int) -> Entry:
    """A value with its interval; None for what is not finite, which JSON cannot hold."""
    numbers = {"value": value, "low": low, "high": high}
    values: Entry = {key: _six_digits(number) if np.isfinite(number) else None for key, number in numbers.items()}
    return values | {"n": int(n)}


def relative_error(weight: np.ndarray, shower: np.ndarray) -> float:
    """Relative standard deviation of the sum of the weights of events whose showers are independent."""
    if not len(weight):
        return np.nan
    per_shower = np.bincount(np.unique(shower, return_inverse=True)[1], weights=weight)
    return float(np.sqrt(np.sum(per_shower**2)) / np.sum(per_shower))


def _with_relative_error(value: float, weight: np.ndarray, shower: np.ndarray) -> Entry:
    error = _SIGMA_95 * relative_error(weight, shower)
    return quantity(value, max(0.0, value * (1 - error)), value * (1 + error), len(weight))


# ---- gammas ----------------------------------------------------------------------------------------------------------
def _of_true_energy(path: Path, gammas: Events, bins: Bins, n_resamples: int, seed: int) -> Iterator[Entry]:
    table = _table(path, "EFFECTIVE AREA")
    for i, j, cell in _cells(table):
        here = _inside(gammas.true_energy_tev, cell["low"], cell["high"])
        here &= _inside(gammas.true_offset_deg, cell["offset_low_deg"], cell["offset_high_deg"])
        like_gammas = here & gammas.passes_gammaness
        area = _with_relative_error(
            table["EFFAREA"][i, j], np.ones(np.count_nonzero(like_gammas)), gammas.shower[like_gammas]
        )
        selected = like_gammas & gammas.passes_direction
        error = gammas.reco_energy_tev[selected] / gammas.true_energy_tev[selected] - 1
        theta = gammas.theta_deg[like_gammas]
        yield (
            {"by": "true_energy_tev"}
            | cell
            | {
                "effective_area_m2": area,
                "energy_bias": _resampled(statistics.median, error, gammas.shower[selected], n_resamples, seed),
                "energy_resolution": _resampled(
                    statistics.containment, error, gammas.shower[selected], n_resamples, seed
                ),
                "angular_resolution_deg": _resampled(
                    statistics.containment, theta, gammas.shower[like_gammas], n_resamples, seed
                ),
            }
        )


def _resampled(statistic: Any, values: np.ndarray, shower: np.ndarray, n_resamples: int, seed: int) -> Entry:
    """A statistic of at least ten events."""
    n = len(values)
    if n < _MIN_EVENTS:
        return quantity(np.nan, np.nan, np.nan, n)
    (estimate,) = statistics.bootstrap(
        lambda weights: statistic(values, weights)[:, None], shower, np.ones(n), n_resamples=n_resamples, seed=seed
    )
    return quantity(estimate.value, estimate.low, estimate.high, n)


# ---- background and sensitivity --------------------------------------------------------------------------------------
def _background_rate(path: Path, background: Events) -> Iterator[Entry]:
    table = _table(path, "BACKGROUND")
    for i, j, cell in _cells(table):
        here = background.passes_gammaness & _inside(background.reco_energy_tev, cell["low"], cell["high"])
        here &= _inside(background.reco_offset_deg, cell["offset_low_deg"], cell["offset_high_deg"])
        rate = table["BKG"][i, j] * (cell["high"] - cell["low"]) * _MEV_PER_TEV * _SR_PER_DEG2
        yield (
            {"by": "reco_energy_tev"}
            | cell
            | {
                "background_rate_per_s_deg2": _with_relative_error(
                    rate, background.weight[here], background.shower[here]
                )
            }
        )


def _sensitivity(path: Path, gammas: Events, background: Events) -> Iterator[Entry]:
    table = _table(path, "SENSITIVITY")
    selected = gammas.passes_gammaness & gammas.passes_direction
    for i, j, cell in _cells(table):
        edges = cell["offset_low_deg"], cell["offset_high_deg"]
        signal = selected & _inside(gammas.reco_energy_tev, cell["low"], cell["high"])
        signal &= _inside(gammas.true_offset_deg, *edges)
        noise = background.passes_gammaness & _inside(background.reco_energy_tev, cell["low"], cell["high"])
        noise &= _inside(background.reco_offset_deg, *edges)
        value, crab = table["ENERGY_FLUX_SENSITIVITY"][i, j], table["RELATIVE_SENSITIVITY"][i, j]
        low, high = _interval(
            float(gammas.weight[signal].sum()),
            float(table["N_BACKGROUND_WEIGHTED"][i, j]),
            relative_error(gammas.weight[signal], gammas.shower[signal]),
            relative_error(background.weight[noise], background.shower[noise]),
        )
        flux = value / crab if 0 < crab < np.inf else np.nan
        n = np.count_nonzero(noise)
        yield (
            {"by": "sensitivity"}
            | cell
            | {
                "sensitivity_erg_per_cm2_s": quantity(value, low * flux, high * flux, n),
                "sensitivity_crab": quantity(crab, low, high, n),
                "n_gammas": int(np.count_nonzero(signal)),
                "n_background": int(n),
            }
        )


def _interval(n_signal: float, n_off: float, signal_error: float, off_error: float) -> tuple[float, float]:
    """Limits of the sensitivity, in units of the source's flux: 1.96 standard deviations of both numbers of events.

    Each is moved by itself, and the two changes are added in quadrature.
    """
    from pyirf.sensitivity import relative_sensitivity

    alpha = 0.2
    signal, off = n_signal * _factors(signal_error), n_off * _factors(off_error)
    pairs = np.array(
        [(signal[1], off[1]), (signal[2], off[1]), (signal[1], off[0]), (signal[0], off[1]), (signal[1], off[2])]
    )
    if not np.all(np.isfinite(pairs)):
        return np.nan, np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = relative_sensitivity(n_on=pairs[:, 0] + alpha * pairs[:, 1], n_off=pairs[:, 1], alpha=alpha)
    value, more_signal, less_off, less_signal, more_off = np.asarray(found, float)
    low = value - np.hypot(value - more_signal, value - less_off)
    return max(0.0, low), value + np.hypot(less_signal - value, more_off - value)


def _factors(error: float) -> np.ndarray:
    return np.array([max(0.0, 1 - _SIGMA_95 * error), 1.0, 1 + _SIGMA_95 * error])
