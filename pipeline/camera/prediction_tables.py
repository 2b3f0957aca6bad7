"""Predictions for camera images and events as a person reads them: values with their uncertainties, in few columns."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from pipeline.camera.dl1 import DL1File
from pipeline.camera.event_predictions import EventPredictions
from pipeline.camera.event_types import SHOWER, type_name
from pipeline.camera.prediction_records import column_names
from pipeline.camera.predictions import CameraModel, ImagePredictions

NO_VALUE = "-"
#: (prefix of a head, column) -> value of one image or event; NaN where it has none.
Values = Mapping[tuple[str, str], float]


@dataclass(frozen=True)
class Quantity:
    """Columns of a task that are shown as one.

    Attributes
    ----------
    heading : str
        With the unit.
    columns : tuple of str
        As the task names them; the first decides whether there is something to show.
    text : callable
        Takes their values.
    """

    heading: str
    columns: tuple[str, ...]
    text: Callable[..., str]


def with_uncertainty(value: float, uncertainty: float = np.nan) -> str:
    """A value as far as its uncertainty, which has two digits, lets it be known; three digits without one.

    Examples
    --------
    >>> with_uncertainty(1.2345, 0.178), with_uncertainty(1.2345), with_uncertainty(843.2, 95.1)
    ('1.23 ± 0.18', '1.23', '843 ± 95')
    """
    if not np.isfinite(value):
        return NO_VALUE
    if not (np.isfinite(uncertainty) and uncertainty > 0):
        return _digits(value, 3)
    decimals = max(1 - int(np.floor(np.log10(uncertainty))), 0)
    return f"{value:.{decimals}f} ± {uncertainty:.{decimals}f}"


def _digits(value: float, n: int) -> str:
    """A number with `n` digits, never with an exponent."""
    if not np.isfinite(value):
        return NO_VALUE
    decimals = n - 1 - int(np.floor(np.log10(abs(value)))) if value else n - 1
    return f"{value:.{max(decimals, 0)}f}"


def _fixed(decimals: int) -> Callable[..., str]:
    return lambda *values: ", ".join(f"{value:.{decimals}f}" for value in values)


def _place(alt_deg: float, az_deg: float, radius_deg: float = np.nan) -> str:
    place = f"{alt_deg:.2f}, {az_deg:.2f}"
    return f"{place} ± {radius_deg:.2f}" if np.isfinite(radius_deg) else place


_ALT_AZ, _RA_DEC = "alt, az [deg]", "RA, Dec [deg]"
_PLACE = Quantity(_RA_DEC, (), _fixed(2))

#: What is shown of each task, in this order; other columns are shown by their names.
QUANTITIES = (
    Quantity("energy [TeV]", ("reco_energy_tev", "reco_energy_uncert_tev"), with_uncertainty),
    Quantity("gammaness", ("gammaness",), _fixed(3)),
    Quantity("offset lon, lat [deg]", ("reco_fov_lon_deg", "reco_fov_lat_deg"), _fixed(2)),
    Quantity(_ALT_AZ, ("reco_alt_deg", "reco_az_deg", "reco_ang_distance_uncert_deg"), _place),
    Quantity("impact [m]", ("reco_impact_m", "reco_impact_uncert_m"), with_uncertainty),
    Quantity("core north, west [m]", ("reco_core_x_m", "reco_core_y_m"), _fixed(0)),
    Quantity("X_max [g/cm2]", ("reco_x_max_g_cm2", "reco_x_max_uncert_g_cm2"), with_uncertainty),
)
# Parts of a quantity, or of little use to a reader; --json has them.
_NOT_SHOWN = frozenset(
    (
        *("reco_alt_uncert_deg", "reco_az_uncert_deg", "reco_disp_deg", "reco_sign_score"),
        *("reco_core_uncert_x_m", "reco_core_uncert_y_m"),
    )
)
_PARAMETERS = (
    Quantity("size [p.e.]", ("hillas_intensity",), _fixed(0)),
    Quantity("length, width [deg]", ("hillas_length", "hillas_width"), _fixed(3)),
    Quantity("leakage", ("leakage_intensity_width_1",), _fixed(2)),
)


def rows_of(
    predictions: ImagePredictions | EventPredictions, models: Sequence[CameraModel], file: DL1File | None = None
) -> Iterator[dict[str, str]]:
    """One row per image, or per event for models of whole events: heading -> text.

    Rows of images have the parameters of the cleaned image, too. Where a value is missing, ``reason`` says why. With
    the file of an observation that says where and when it was, directions are also in right ascension and declination.
    """
    of_events = isinstance(predictions, EventPredictions)
    own = [model for model in models if model.of_events == of_events]
    names = column_names(own)
    shown = _arranged(names)
    equatorial = {} if file is None else _equatorial(predictions, shown, file)
    for place, reason in enumerate(predictions.joined_reasons() if own else ()):
        row: dict[str, str] = {
            "run": str(int(predictions.obs_id[place])),
            "event": str(int(predictions.event_id[place])),
        }
        if of_events:
            used = np.any([mask[place] for mask in predictions.used.values()], axis=0)
            tel_ids = [str(tel_id) for tel_id, is_used in zip(predictions.tel_ids, used, strict=True) if is_used]
            row["telescopes"] = "+".join(tel_ids) or NO_VALUE
        else:
            row["telescope"] = f"{predictions.tel_id} {predictions.camera}"
        if (kind := int(predictions.event_type[place])) != SHOWER:
            reason = reason or f"event type {type_name(kind)}"
        for heading, quantity, keys in shown:
            row[heading] = _text(quantity, [predictions.values[prefix][column][place] for prefix, column in keys])
            if heading in equatorial:
                row[heading.replace(_ALT_AZ, _RA_DEC)] = _text(_PLACE, [axis[place] for axis in equatorial[heading]])
        if not of_events:
            for quantity in _PARAMETERS:
                row[quantity.heading] = _text(quantity, [predictions.parameters[c][place] for c in quantity.columns])
        if reason:
            row["reason"] = reason
        yield row


def _equatorial(
    predictions: ImagePredictions | EventPredictions, shown: "list[_Shown]", file: DL1File
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Heading of a direction -> its right ascension and declination [deg]."""
    found = {}
    for heading, _, keys in shown:
        if heading.endswith(_ALT_AZ):
            alt, az = (predictions.values[prefix][column] for prefix, column in keys[:2])
            radec = file.radec_of(predictions.obs_id, predictions.event_id, alt, az)
            if radec is not None:
                found[heading] = radec
    return found


def _text(quantity: Quantity, values: Sequence[float]) -> str:
    return quantity.text(*values) if np.isfinite(values[0]) else NO_VALUE


_Shown: TypeAlias = tuple[str, Quantity, list[tuple[str, str]]]


def _arranged(names: Mapping[tuple[str, str], str]) -> list[_Shown]:
    """Heading, quantity and columns with the prefixes of their heads, for all heads that have them."""
    of_prefix: dict[str, list[str]] = {}
    for prefix, column in names:
        of_prefix.setdefault(prefix, []).append(column)
    known = {column for quantity in QUANTITIES for column in quantity.columns} | _NOT_SHOWN
    arranged = []
    for quantity in QUANTITIES:
        for prefix, columns in of_prefix.items():
            here = [column for column in quantity.columns if column in columns]
            if here[:1] == list(quantity.columns[:1]):
                repeated = names[prefix, here[0]] != here[0]
                heading = f"{prefix} {quantity.heading}" if repeated else quantity.heading
                arranged.append((heading, quantity, [(prefix, column) for column in here]))
    for (prefix, column), name in names.items():
        if column not in known:
            arranged.append((name, Quantity(name, (column,), with_uncertainty), [(prefix, column)]))
    return arranged
