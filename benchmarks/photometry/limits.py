"""What a bundle has to reach before it ships, beside what it does reach."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Limit:
    """One demand.

    Attributes
    ----------
    text : str
    value : float
        As measured, NaN where it could not be.
    limit : float
    at_most : bool
        Whether smaller is better.
    where : str
        The frame, bin or stratum of the value, where the worst of several is meant.
    style : str
        Of both numbers.
    """

    text: str
    value: float
    limit: float
    at_most: bool
    where: str = ""
    style: str = "{:.3g}"

    @property
    def met(self) -> bool | None:
        """None where nothing was measured."""
        if not np.isfinite(self.value):
            return None
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def cells(self) -> list[str]:
        """A row: demand, limit, value, where, verdict."""
        sign = "≤" if self.at_most else "≥"
        verdict = {True: "met", False: "**missed**", None: "not measured"}[self.met]
        value = "–" if self.met is None else self.style.format(self.value)
        return [self.text, f"{sign} {self.style.format(self.limit)}", value, self.where, verdict]


def ratio(value: float | None, other: float | None) -> float:
    """NaN where either is not known."""
    return float("nan") if value is None or other is None or other == 0 else value / other


def worst(values: dict[str, float], *, largest: bool = True) -> tuple[float, str]:
    """The worst of several values and its name; (NaN, "") without any."""
    known = {name: value for name, value in values.items() if value is not None and np.isfinite(value)}
    if not known:
        return float("nan"), ""
    name = (max if largest else min)(known, key=known.__getitem__)
    return known[name], name
