"""Whether an installation works, on one screen: `lightpool doctor`."""

import os
import sys
from pathlib import Path

from pipeline import __version__
from pipeline.errors import UserError
from pipeline.numba_cache import ensure_cache
from pipeline.stages.system import Row, describe_system
from pipeline.text_tables import format_table

_PACKAGE = Path(__file__).parent.parent
_VARIABLE = "NUMBA_CACHE_DIR"


def examine() -> tuple[list[str], list[str]]:
    """Lines to show, and what is wrong, with what to do.

    Each model that ships is opened, which compares its digest with that of its card.
    """
    models, problems = _models()
    installation: list[Row] = [
        ("lightpool", f"{__version__}, in {_PACKAGE.parent}"),
        ("Python", f"{'.'.join(map(str, sys.version_info[:3]))}, in {sys.prefix}"),
        ("compiled code", f"kept in {_cache()}"),
    ]
    lines = []
    for title, rows in (("Installation", installation), ("Models that ship", models or [("none", "")])):
        lines += [f"{title}:", *format_table(rows, "<<", indent="  "), ""]
    lines += describe_system()
    if problems:
        lines += ["", "Wrong:", *(f"  {text}" for text in problems)]
    return lines, problems


def _cache() -> str:
    """Where numba keeps what it compiled."""
    ensure_cache()
    folder = os.environ.get(_VARIABLE)
    if folder:
        return folder
    beside = _PACKAGE / "camera" / "__pycache__"
    return str(beside) if os.access(_PACKAGE, os.W_OK) else "the user's cache folder"


def _models() -> tuple[list[Row], list[str]]:
    from pipeline.bundle.card import list_bundles
    from pipeline.bundle.runtime import Predictor

    rows, problems = [], []
    for name in list_bundles():
        try:
            card = Predictor.load(name, threads=1).card
            rows.append((name, f"whole: {', '.join(card.tasks)} for {card.made_for}"))
        except UserError as error:
            rows.append((name, "damaged"))
            problems.append(f"{name}: {error}; install lightpool again")
    return rows, problems
