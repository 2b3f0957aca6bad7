"""What became of a frame, on one screen for a person."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pipeline.sky.dq import DEFECTS, DESCRIPTIONS, DQ
from pipeline.sky.frame_statistics import measure
from pipeline.sky.restore import Restoration
from pipeline.sky.summary import Summary

_LABEL = 20  # characters
_WIDEST = 120
_SHORT = {
    DQ.BAD: "bad or dead",
    DQ.HOT: "hot",
    DQ.TRAIL: "trail",
    DQ.MISSING: "missing",
    DQ.RESTORED: "replaced",
    DQ.BLEED: "bled charge",
    DQ.GHOST: "ghost",
}


def summary_lines(restoration: Restoration, summary: Summary, width: float) -> Iterator[str]:
    """Sky, noise, sharpness, defects by kind, what was replaced, and warnings.

    Parameters
    ----------
    restoration : Restoration
    summary : Summary
        All strips have passed it.
    width : float
        Characters of a line, where that is less than 120.
    """
    frame = restoration.frame
    height_px, width_px = frame.shape
    numbers = summary.numbers()
    lines = [
        ("", f"HDU {frame.science_hdu}, {width_px} x {height_px} px, in {frame.unit}, by "
             f"{restoration.predictor.card.name}"),
        ("sky", _change(numbers["level_before"], numbers["level_after"], frame.unit)),
        ("noise of the sky", _change(numbers["noise_before"], numbers["noise_after"], frame.unit)),
        ("stated error", _change(numbers["median_err_before"], numbers["median_err_after"], f"{frame.unit} (median)")),
        ("stars", _stars(restoration)),
        *((_SHORT.get(bit, DESCRIPTIONS[bit]), _pixels(summary, bit, frame.shape))
          for bit in _bits(summary, restoration.only_flags)),
        *(("", f"{len(found)} straight line{'s' * (len(found) != 1)} flagged as {DESCRIPTIONS[DQ(bit)]}")
          for bit, found in restoration.lines if found),
        *_likeness(restoration, numbers),
        *(("warning", text) for text in restoration.warnings),
    ]  # fmt: skip
    wide = int(min(width, _WIDEST))
    for label, text in lines:
        yield from _wrapped(label, text, wide)


def _wrapped(label: str, text: str, width: int) -> list[str]:
    """A label and its text; in a narrow terminal the text goes below."""
    if width < 2 * _LABEL + 20:
        return textwrap.wrap(f"{label}: {text}" if label else text, max(width, _LABEL), subsequent_indent="  ")
    first = f"  {label:<{_LABEL - 2}}  " if label else "  "
    indent = " " * (_LABEL + 2) if label else "  "
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=indent)


def _change(before: float, after: float, unit: str) -> str:
    texts = [f"{value:.4g}" for value in (before, after)]
    return f"{texts[0]} {unit}, unchanged" if texts[0] == texts[1] else f"{texts[0]} -> {texts[1]} {unit}"


def _stars(restoration: Restoration) -> str:
    if restoration.phases:
        return "not measured in a mosaic of colours"
    statistics = restoration.statistics or measure(restoration.frame)
    if statistics.fwhm_px is None:
        return "none to measure the FWHM of"
    return f"FWHM {statistics.fwhm_px:.2f} px, ellipticity {statistics.ellipticity or 0.0:.2f}"


def _bits(summary: Summary, only_flags: bool) -> list[DQ]:
    """Those to tell of: kinds of defects that occur, what is lost, and, if anything can be, what was replaced."""
    occurring = [bit for bit in DQ if summary.n_before[bit] or summary.n_added[bit]]
    kinds = [bit for bit in occurring if bit & DEFECTS]
    others = [bit for bit in occurring if not bit & (DEFECTS | DQ.RESTORED)]
    return [*kinds, *others, *([] if only_flags else [DQ.RESTORED])]


def _pixels(summary: Summary, bit: DQ, shape: tuple[int, int]) -> str:
    before, added = summary.n_before[bit], summary.n_added[bit]
    share = f"{100 * (before + added) / np.prod(shape):.2g} %"
    if not before + added:
        return "0 px"
    if not before or not added:
        return f"{before + added:,} px ({share})" + (", in the mask of the file" if before else "")
    return f"{before + added:,} px ({share}): {before:,} in the mask of the file, {added:,} found"


def _likeness(restoration: Restoration, numbers: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    score, why = restoration.unlikeness
    if score is not None:
        yield "unlike training", f"{score:.2g} (above 1 it is unlike the frames of training)" + (f": {why}" * bool(why))
    if numbers["n_kept"]:
        yield "kept", f"{numbers['n_kept']:,} px that look like sources keep their values"
