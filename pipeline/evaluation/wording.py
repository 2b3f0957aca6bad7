"""What captions and figures of several judges share."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.evaluation.result import Bin, CaptionedFigure, series_of
from pipeline.figures import comparison


def minus_baselines(items: str) -> str:
    """What differences are: beginning of a sentence."""
    baseline = "forest" if items == "images" else "each baseline"
    return f"network minus {baseline} on the same {items}, resampled in pairs"


def source_of(curve: Mapping[str, Any] | None) -> str:
    """A sentence about the published curve of a figure; empty for none."""
    return "" if curve is None else f" Grey: {curve['name']}, as published ({curve['source']})."


def by_multiplicity(
    file: str, what: str, bins: Sequence[Bin], quantities: Sequence[tuple[str, str]]
) -> list[CaptionedFigure]:
    """The figure of a judge by the number of telescopes of an event; none if there are no such bins.

    Parameters
    ----------
    file : str
        Its name is ``FILE_by_multiplicity.png``.
    what : str
        Beginning of the title.
    bins : sequence of Bin
    quantities : sequence of (str, str)
        Axis label and metric.
    """
    if not bins:
        return []
    return [
        CaptionedFigure(
            f"{file}_by_multiplicity.png",
            f"{what} by the number of telescopes",
            "As above, for events whose images of so many telescopes passed the cuts. Events of many telescopes have "
            "higher energies.",
            comparison.in_multiplicity_bins([(text, series_of(bins, name)) for text, name in quantities]),
        )
    ]
