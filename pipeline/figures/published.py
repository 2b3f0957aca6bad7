"""Published performance, as lines in figures: numbers and sources are in `pipeline/data/published_performance.json`."""

import json
from importlib import resources
from typing import Any

FILE = "data/published_performance.json"


def published_curves(key: str | None = None) -> list[dict[str, Any]]:
    """Curves: ``key``, ``name``, ``quantity``, ``unit``, ``source`` and ``points`` ([energy in TeV, value]).

    Parameters
    ----------
    key : str, optional
        Only those of this key, one for each quantity; all without.
    """
    text = resources.files("pipeline").joinpath(FILE).read_text(encoding="utf-8")
    return [curve for curve in json.loads(text)["curves"] if key in (None, curve["key"])]


def published_curve(key: str, quantity: str) -> dict[str, Any] | None:
    """The curve of a quantity; None if `key` is empty or has none."""
    return next((curve for curve in published_curves(key) if curve["quantity"] == quantity), None) if key else None
