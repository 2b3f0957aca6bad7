"""One compared quantity: what it should be, what it is, and whether that will do."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

LIMIT_PERCENT, LIMIT_SIGMA = 5.0, 2.0


@dataclass(frozen=True)
class Reference:
    """A number to compare with: its value, its error (standard deviation) and where it comes from."""

    value: float
    error: float
    source: str


@dataclass(frozen=True)
class Row:
    """A quantity of the simulation compared with its reference, or within the range that it should be in.

    Attributes
    ----------
    name : str
        Short and unique.
    quantity : str
        What it is, in words.
    unit : str
    value, error : float
        Of this simulation; the error is statistical.
    source : str
        Of the reference or range.
    reference, reference_error : float or None
        The row agrees with it within `limit_percent`, or within `LIMIT_SIGMA` standard deviations of the difference.
    limit_percent : float
    low, high : float or None
        The range, for a row without reference: the value is in it, or not farther from it than `LIMIT_SIGMA` of its
        error.
    explanation : str
        For a difference that is understood and bounded: why, and how large it may be.
    bound_percent : float or None
        That largest size.
    """

    name: str
    quantity: str
    unit: str
    value: float
    error: float
    source: str
    reference: float | None = None
    reference_error: float | None = None
    limit_percent: float = LIMIT_PERCENT
    low: float | None = None
    high: float | None = None
    explanation: str = ""
    bound_percent: float | None = None

    @property
    def difference_percent(self) -> float | None:
        """Value against reference."""
        return None if self.reference is None else 100 * (self.value / self.reference - 1)

    @property
    def difference_sigma(self) -> float | None:
        """The same in standard deviations of both; None without errors."""
        if self.reference is None:
            return None
        sigma = math.hypot(self.error, self.reference_error or 0.0)
        return (self.value - self.reference) / sigma if sigma > 0 else None

    @property
    def verdict(self) -> str:
        """``agrees``, ``bounded`` (it does not, within the explained bound) or ``differs``."""
        if not math.isfinite(self.value):
            return "differs"
        if self.reference is None:
            leeway = LIMIT_SIGMA * self.error if math.isfinite(self.error) else 0.0
            low = -math.inf if self.low is None else self.low - leeway
            high = math.inf if self.high is None else self.high + leeway
            return "agrees" if low <= self.value <= high else "differs"
        percent, sigma = abs(self.difference_percent), self.difference_sigma
        if percent <= self.limit_percent or (sigma is not None and abs(sigma) <= LIMIT_SIGMA):
            return "agrees"
        return "bounded" if self.bound_percent is not None and percent <= self.bound_percent else "differs"

    @property
    def passed(self) -> bool:
        """Whether it agrees, or differs within the bound that is explained."""
        return self.verdict != "differs"

    @property
    def limit(self) -> str:
        """The condition in words."""
        if self.reference is not None:
            return f"{self.limit_percent:g} % or {LIMIT_SIGMA:g} sigma"
        if self.low is None:
            return f"at most {self.high:g}"
        return f"at least {self.low:g}" if self.high is None else f"{self.low:g} to {self.high:g}"

    def to_json(self) -> dict[str, Any]:
        """All fields, and what follows from them."""
        derived = ("difference_percent", "difference_sigma", "limit", "verdict", "passed")
        return asdict(self) | {name: getattr(self, name) for name in derived}


def compared(
    name: str, quantity: str, unit: str, reference: Reference, values: np.ndarray | tuple[float, float], **more: Any
) -> Row:
    """A row with a reference.

    Parameters
    ----------
    values : ndarray, or (value, error)
        Values of single showers, of which mean and error of the mean are taken; or both.
    """
    value, error = values if isinstance(values, tuple) else mean_and_error(values)
    return Row(
        name, quantity, unit, value, error, reference.source,
        reference=reference.value, reference_error=reference.error, **more,
    )  # fmt: skip


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Mean of independent values and its standard deviation; NaN with fewer than two."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return (float(values[0]) if len(values) else math.nan), math.nan
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))


def table(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Rows (as `Row.to_json` has them) for readers: quantity, reference, simulation, difference, verdict."""
    lines = []
    for row in rows:
        if row["reference"] is None:
            reference, difference = row["limit"], ""
        else:
            reference = with_error(row["reference"], row["reference_error"])
            sigma = row["difference_sigma"]
            difference = f"{row['difference_percent']:+.1f} %" + ("" if sigma is None else f", {sigma:+.1f} sigma")
        unit = f" [{row['unit']}]" if row["unit"] else ""
        lines.append(
            (row["quantity"] + unit, reference, with_error(row["value"], row["error"]), difference, row["verdict"])
        )
    return lines


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The same as a table in Markdown, with sources."""
    head = ("quantity", "reference or range", "simulation", "difference", "verdict", "source")
    lines = [head, tuple("---" for _ in head)]
    lines += [(*cells, row["source"]) for cells, row in zip(table(rows), rows, strict=True)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def with_error(value: float, error: float | None) -> str:
    """A number and its error, to two digits of the error."""
    if not error or not math.isfinite(error) or not math.isfinite(value):
        return f"{value:.4g}"
    largest = max(abs(value), error)
    power = math.floor(math.log10(largest))
    scale = 10.0**power if not -3 <= power < 6 else 1.0
    digits = max(0, 1 - math.floor(math.log10(error / scale)))
    text = f"{value / scale:.{digits}f} ± {error / scale:.{digits}f}"
    return text if scale == 1.0 else f"({text})e{power}"
