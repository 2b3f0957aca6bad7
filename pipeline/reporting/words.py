"""Numbers and names as text for readers."""

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

from pipeline.tasks import get_spec, specs_of, task_names
from pipeline.tasks.spec import MetricText

#: Methods that judges of several tasks compare with; a task names its own baselines.
_METHODS = {
    "network": "network",
    "forest": "forest on Hillas parameters",
    "combined": "mean of network and forest",
    "hillas": "crossing of the image axes",
    "mono": "network for single telescopes",
}


@cache
def _metrics() -> dict[str, MetricText]:
    return {name: text for spec in specs_of() for name, text in spec.metrics.items()}


@cache
def _methods() -> dict[str, str]:
    return _METHODS | {name: label for spec in specs_of() for name, label in spec.methods.items()}


def metric_text(name: str) -> MetricText:
    """Label of a metric; its own name if it is unknown."""
    return _metrics().get(name, MetricText(name.replace("_", " "), ""))


def method_label(name: str) -> str:
    """Label of a method."""
    return _methods().get(name, name.replace("_", " "))


def task_title(name: str) -> str:
    """Heading of a task; its name if this installation does not have it."""
    return get_spec(name).title if name in task_names() else name


def headline_of(task: str, metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """Metrics of the summary for a task; all of them if this installation does not have the task."""
    return get_spec(task).headline if task in task_names() else tuple(metrics)


def value_text(entry: Mapping[str, Any] | None, *, percent: bool = False, signed: bool = False) -> str:
    """A value with the digits that its interval justifies: "0.872 [0.861, 0.883]"; "—" where undefined."""
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
    rounded = round(value, decimals) + 0.0  # adding zero turns -0.0 into 0.0
    return f"{rounded:{'+' if signed else ''}.{decimals}f}".replace("-", "−")


def verdict(difference: Mapping[str, Any] | None, better: str) -> str:
    """Whether the interval of network minus baseline excludes zero: "better", "worse", "same" or ""."""
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
