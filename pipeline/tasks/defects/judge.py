"""Defect masks of whole test frames against the truth, beside astroscrappy's.

Two counts are made. "bench": pixels with more than 3 sigma of a defect's charge are to be found, those with less than
0.3 sigma are good, and what lies between counts neither way. "own": what the frame's own mask flags, from 2 sigma on,
and all dead pixels; the rest is good.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.evaluation.comparison import NETWORK, Metric, compare
from pipeline.evaluation.frames import fields_of_test_split
from pipeline.evaluation.result import CaptionedFigure, Predicts, Result
from pipeline.figures.defects import roc
from pipeline.sky.baselines import Settings, astroscrappy_median
from pipeline.sky.defects import FLAG_SIGMA
from pipeline.sky.dq import DEFECTS, DQ, DQ_DTYPE, LOST, has
from pipeline.sky.tiled_frames import predicted_planes, tiles_of_frames
from pipeline.sky.tiling import untile
from pipeline.tasks.defects.decode import BITS
from pipeline.tasks.defects.spec import SPEC
from pipeline.tasks.defects.targets import CORE_SNR, FOUND_SNR
from pipeline.tiles.reader import TileReader

BASELINE = "astroscrappy"
RATES = (1e-4, 5e-4, 1e-3)
RATE = 5e-4
RECALL = 0.95
#: Laplacian thresholds of astroscrappy, one step of its ROC curve each.
SIGCLIPS = (3.0, 4.5, 6.0, 10.0, 20.0)
_BINS = 2048
_RANGE = (-30.0, 30.0)
Counts = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class _Scored:
    """Pixels of one frame by the score that a method gives them, by kind of pixel and method."""

    name: str
    counts: Mapping[str, Counts]


def judge(predictor: Predicts, manifests: Sequence[Any], cfg: Config) -> Result:
    """Judge a defect mask on whole frames of the test split, one frame in memory at a time.

    Raises
    ------
    UserError
        If the tiles are not of the sky, or have no truth.
    TooFewEventsError
        If the test split has fewer than two fields.
    """
    reader = fields_of_test_split(manifests, SPEC.name)
    if "defect_snr" not in reader.targets:
        raise UserError(
            "the tiles have no truth to judge defects on: no target 'defect_snr'; use simulated files, and "
            "tiles.sky.target: truth"
        )
    scored = []
    for name, batch, _ in tiles_of_frames(reader):
        frame = untile(batch) | {"level": float(batch.events["level"][0]), "noise": float(batch.events["noise"][0])}
        kinds = kinds_of_pixels(frame)
        scores = _scores(frame, predictor, cfg)
        scored.append(
            _Scored(name, {m: {kind: _histogram(s[where]) for kind, where in kinds.items()} for m, s in scores.items()})
        )
    return _result(scored, reader, cfg)


def kinds_of_pixels(frame: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Masks (H, W) of the pixels that are counted.

    `bench` and `good`, `own` and `sound` are the defects and the others of either count, `core` the good pixels of star
    cores, and the classes what of `own` is theirs; bleeding is told by its charge.

    Parameters
    ----------
    frame : mapping
        Of `untile`, with `level`.
    """
    judged = np.isfinite(frame["clean"]) & np.isfinite(frame["sci"]) & ~has(frame["dq"], LOST)
    named = has(frame["defect_bits"], DEFECTS)
    own = has(frame["dq"], DEFECTS)
    good = judged & ~named & ~own
    with np.errstate(invalid="ignore", divide="ignore"):
        core = good & ((frame["clean"] - frame["level"]) / frame["err"] > CORE_SNR)
    kinds = {
        "bench": judged & named & (np.abs(frame["defect_snr"]) >= FOUND_SNR),
        "good": good,
        "core": core,
        "own": judged & own,
        "sound": judged & ~own,
    }
    kinds |= {name: judged & has(frame["dq"], bit) for name, bit in zip(SPEC.outputs, BITS, strict=True)}
    # What charge bleeds into is full: the frame's own mask has it as saturated, and nothing else.
    bled = has(frame["defect_bits"], DQ.BLEED) & (frame["defect_snr"] >= FLAG_SIGMA)
    return kinds | {"bleed": bled & ~has(frame["dq"], DQ.MISSING)}


def _scores(frame: Mapping[str, Any], predictor: Predicts, cfg: Config) -> dict[str, np.ndarray]:
    """Method -> score of each pixel; they see which pixels are lost, never the true defects."""
    known = frame["dq"] & DQ_DTYPE(LOST)
    how = cfg.predict.tile_px, cfg.predict.overlap_px
    planes = predicted_planes(frame["sci"], frame["err"], known, frame["level"], frame["noise"], predictor, *how)
    passed = np.zeros(known.shape)
    for sigclip in SIGCLIPS:
        settings = Settings(sigclip=sigclip, median_px=1)
        passed += astroscrappy_median(frame["sci"], frame["err"], known, settings)[1]
    return {NETWORK: planes["defect_score"], BASELINE: passed}


def _histogram(scores: np.ndarray) -> np.ndarray:
    low, high = _RANGE
    return np.histogram(np.clip(scores, low, high), _BINS, _RANGE)[0].astype(float)


def _shares(counts: Counts, kind: str, weights: np.ndarray) -> np.ndarray:
    """Share of the pixels of a kind above the lower edge of each bin, from the highest bin down; shape (k, bins)."""
    above = np.cumsum((weights @ counts[kind])[:, ::-1], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return above / above[:, -1:]


def _at_rate(kind: str, good: str, rate: float) -> Any:
    """Share of a kind of pixels that is flagged while `rate` of the good ones are."""

    def statistic(counts: Counts, weights: np.ndarray) -> np.ndarray:
        parts = zip(_shares(counts, good, weights), _shares(counts, kind, weights), strict=True)
        return np.array([np.interp(rate, false, found, left=0.0) for false, found in parts])

    return statistic


def _precision(counts: Counts, weights: np.ndarray) -> np.ndarray:
    """Share of defects among the flagged pixels where `RECALL` of the defects are found (bench)."""
    found, alarms = (np.cumsum((weights @ counts[kind])[:, ::-1], axis=1) for kind in ("bench", "good"))
    with np.errstate(invalid="ignore", divide="ignore"):
        place = np.argmax(found >= RECALL * found[:, -1:], axis=1)
        rows = np.arange(len(place))
        return found[rows, place] / (found[rows, place] + alarms[rows, place])


def _metrics() -> list[Metric]:
    metrics = [
        Metric(f"{kind}_tpr_at_fpr_{rate:g}", "higher", _at_rate(kind, good, rate))
        for kind, good in (("bench", "good"), ("own", "sound"))
        for rate in RATES
    ]
    metrics += [Metric(f"{name}_tpr_at_fpr_{RATE:g}", "higher", _at_rate(name, "sound", RATE)) for name in SPEC.outputs]
    metrics.append(Metric(f"bench_precision_at_tpr_{RECALL:g}", "higher", _precision))
    metrics.append(Metric("bench_core_fpr", "lower", _at_rate("core", "good", RATE)))
    return metrics


def _result(scored: Sequence[_Scored], reader: TileReader, cfg: Config) -> Result:
    from astropy.table import Table

    methods = list(scored[0].counts)
    kinds = list(scored[0].counts[NETWORK])
    stacked = {m: {kind: np.stack([s.counts[m][kind] for s in scored]) for kind in kinds} for m in methods}
    n = len(scored)
    compared = compare(_metrics(), stacked, np.arange(n), np.ones(n), n_resamples=cfg.evaluate.bootstrap, seed=cfg.seed)
    pixels = {kind: int(counts.sum()) for kind, counts in stacked[NETWORK].items()}
    classes = Table(
        rows=[
            (kind, method, pixels[kind], compared.estimate(method, f"{kind}_tpr_at_fpr_{RATE:g}").value)
            for kind in ("bench", "own", *SPEC.outputs)
            for method in methods
        ],
        names=("pixels", "method", "n", f"tpr_at_fpr_{RATE:g}"),
    )
    facts = {"n": reader.n_tiles, "n_groups": reader.n_groups, "pixels": pixels}
    return Result(
        content=compared.to_json() | {"data": facts},
        bins=[],
        tables={"classes": classes},
        figures=[_figure(stacked)],
        baseline_settings={BASELINE: {"sigclip": list(SIGCLIPS), "objlim": Settings().objlim}},
    )


def _figure(stacked: Mapping[str, Counts]) -> CaptionedFigure:
    curves = {}
    for method, counts in stacked.items():
        one = np.ones((1, len(counts["good"])))
        curves[method] = _shares(counts, "good", one)[0], _shares(counts, "bench", one)[0]
    return CaptionedFigure(
        "roc.png",
        "Defects found and false alarms",
        "Share of the pixels with more than 3 sigma of a defect's charge that are flagged, against the share of good "
        "pixels (less than 0.3 sigma) that are. The dotted line is at 0.05 %.",
        roc(curves, marked=RATE),
    )
