"""What became of a frame, in numbers, counted while its strips pass by."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from pipeline.records import number
from pipeline.sky.background import Background
from pipeline.sky.dq import DQ, has
from pipeline.sky.frames import Strip
from pipeline.sky.restore import Restoration
from pipeline.sky.strips import SAMPLE_PX, part_of, sample_of, sampled

_COUNTED = {"n_restored": DQ.RESTORED, "n_saturated": DQ.SATURATED, "n_missing": DQ.MISSING}


class Summary:
    """Level and noise after a restoration, medians of its planes, and numbers of pixels.

    Medians are those of every n-th pixel: of all pixels in an image of fewer than two millions.

    Attributes
    ----------
    frame : Frame
    n_before, n_added : dict
        DQ bit -> number of pixels that had it before, and of those that got it.
    """

    def __init__(self, restoration: Restoration) -> None:
        self.frame = frame = restoration.frame
        self._restoration = restoration
        self._exposed = part_of(frame.sci, frame.exposed).shape
        self._background = Background(self._exposed)
        self._counts = dict.fromkeys(_COUNTED, 0)
        self.n_before, self.n_added = dict.fromkeys(DQ, 0), dict.fromkeys(DQ, 0)
        self._samples: dict[str, list[np.ndarray]] = {"err": [], **{name: [] for name in restoration.units}}

    def watched(self) -> Iterator[Strip]:
        """The strips of the restoration, each counted."""
        for strip in self._restoration.strips():
            self._add(strip)
            yield strip

    def _add(self, strip: Strip) -> None:
        for name, bit in _COUNTED.items():
            self._counts[name] += int(np.count_nonzero(has(strip.dq, bit)))
        before = np.asarray(self._restoration.frame.dq[strip.top : strip.top + len(strip.dq)])
        for counts, bits in ((self.n_before, before), (self.n_added, strip.dq & ~before)):
            if bits.any():
                for bit in DQ:
                    counts[bit] += int(np.count_nonzero(has(bits, bit)))
        self._sample("err", strip.err, strip.top, self._restoration.frame.shape)
        rows, columns = self._restoration.frame.exposed
        first = rows.start or 0
        part = slice(max(first - strip.top, 0), max(first + self._exposed[0] - strip.top, 0)), columns
        sci = strip.sci[part]
        if not len(sci):
            return
        self._background.add(sci, has(strip.dq[part], ~DQ.RESTORED))
        for name, plane in strip.planes.items():
            self._sample(name, plane[part], max(strip.top - first, 0), self._exposed)

    def _sample(self, name: str, rows: np.ndarray, top: int, shape: tuple[int, int]) -> None:
        step = max(1, shape[0] * shape[1] // SAMPLE_PX)
        self._samples[name].append(sampled(rows, top * shape[1], step))

    def numbers(self) -> dict[str, Any]:
        """All of them, once the strips have passed."""
        restoration, frame = self._restoration, self._restoration.frame
        level, noise = self._background.result()
        medians = {name: np.nanmedian(np.concatenate(parts)) for name, parts in self._samples.items()}
        return {
            "level_before": frame.level,
            "level_after": level,
            "noise_before": frame.noise,
            "noise_after": noise,
            "median_err_before": np.nanmedian(sample_of(frame.err)),
            "median_err_after": medians.pop("err"),
            **{f"median_{name.lower()}": value for name, value in medians.items()},
            **self._counts,
            "n_kept": restoration.n_kept,
            "unlikeness": restoration.unlikeness[0],
            **(asdict(restoration.statistics) if restoration.statistics else {}),
        }


def record_of(file: str, restoration: Restoration, summary: Summary) -> dict[str, Any]:
    """What happened to a frame, in numbers, for programs."""
    frame = restoration.frame
    height, width = frame.shape
    return {
        "file": file,
        "hdu": frame.science_hdu,
        "model": restoration.predictor.card.name,
        "valid": True,
        "height_px": height,
        "width_px": width,
        "unit": frame.unit,
        **{name: _as_number(value) for name, value in summary.numbers().items()},
        "warnings": list(restoration.warnings),
    }


def _as_number(value: Any) -> Any:
    return number(value) if isinstance(value, float | np.floating) else value
