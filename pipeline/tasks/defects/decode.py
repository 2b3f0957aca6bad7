"""Defects of sky frames: from logits to flags.

One score decides whether a pixel is flagged, so that the rate of false alarms is that of the whole mask: the largest
logit of all kinds of defects (their summed odds find no more). What is doubtful beside a pixel that is beyond doubt is
the edge of a track more often than not: there the score is lifted, by `LIFT` at most and not above the neighbour's. For
one threshold, that is what image processing calls hysteresis with a second threshold `LIFT` below it.

Which threshold a rate needs depends on where the pixel lies: on empty sky, on a source, or in the core of a star. That
is told by the middle one of 3 x 3 pixels, for a track is narrower. By their mean, three quarters of the defects of
simulated frames would lie in cores, by the middle one a twentieth.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from pipeline.inputs.frame import SkyPixels
from pipeline.sky.dq import DQ, DQ_DTYPE, flag, has
from pipeline.tasks.defects.spec import FLAGS, SPEC
from pipeline.tasks.interfaces import Decoder
from pipeline.tiles.shards import TileBatch

#: DQ bits of the outputs, in their order.
BITS = tuple(DQ[FLAGS[name]] for name in SPEC.outputs)
DEFECT_PRIOR = -3.0  # added to the outputs: an untrained network takes 95 % of the pixels for good
# Of the logit. On a small network's masks, 1 finds 0.7 % more defects at a rate of 1e-4 than none, and 0.1 % fewer at
# 5e-4; 2 finds 1.2 % more and 0.5 % fewer.
LIFT = 1.0
#: Of the logit above its threshold: where stars are elongated, what looks like a source is flagged from there on. In a
#: real frame, 3 flags 0.6 % of the elongated stars and finds 0.65 of the pixels of added tracks, 4 none and 0.58, and
#: no flags at all on sources leave 0.41.
SURE = 4.0
#: Kinds of places with thresholds of their own, and the signal-to-noise ratio from which each begins.
STRATA = {"sky": -np.inf, "source": 5.0, "core": 20.0}
_LOGITS = tuple(f"{name}_logit" for name in SPEC.outputs)
_UNCALIBRATED = 0.0  # a threshold where no rates are known: more likely spoiled than not


def score_of(logits: np.ndarray) -> np.ndarray:
    """Largest logit of all defects, lifted beside surer pixels; (N, K, H, W) to (N, H, W)."""
    score = logits.max(axis=1)
    return np.maximum(score, np.minimum(score + LIFT, largest_of_nine(score)))


def largest_of_nine(planes: np.ndarray) -> np.ndarray:
    """Largest of 3 x 3 pixels, the middle one among them; planes (N, H, W)."""
    for axis in (1, 2):
        lower, upper = ((slice(None),) * axis + (part,) for part in (slice(None, -1), slice(1, None)))
        widest = planes.copy()
        np.maximum(widest[lower], planes[upper], out=widest[lower])
        np.maximum(widest[upper], planes[lower], out=widest[upper])
        planes = widest
    return planes


def middle_of_nine(planes: np.ndarray) -> np.ndarray:
    """Median of 3 x 3 pixels, those of the edge repeated beyond it; planes (N, H, W).

    From sorted columns, in an eighth of the time of scipy's: the median of the largest of the three lowest, the middle
    one of the middle ones, and the lowest of the highest [1]_.

    References
    ----------
    .. [1] Smith (1996), "Implementing median filters in XC4000E FPGAs", XCELL 23, 16.
    """
    padded = np.pad(planes, ((0, 0), (1, 1), (1, 1)), mode="edge")
    above, here, below = padded[:, :-2], padded[:, 1:-1], padded[:, 2:]
    low, high = np.minimum(above, here), np.maximum(above, here)
    lowest, highest = np.minimum(low, below), np.maximum(high, below)
    middle = np.maximum(low, np.minimum(high, below))
    lows, middles, highs = ((p[..., :-2], p[..., 1:-1], p[..., 2:]) for p in (lowest, middle, highest))
    return _middle_of_three(
        np.maximum(np.maximum(lows[0], lows[1]), lows[2]),
        _middle_of_three(*middles),
        np.minimum(np.minimum(highs[0], highs[1]), highs[2]),
    )


def _middle_of_three(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))


class DefectDecoder(Decoder):
    """Outputs: a logit per kind of defect, less the prior."""

    rates: ClassVar[dict[str, float]] = {"sky": 5e-4, "source": 5e-4, "core": 1e-4}
    lines: ClassVar[dict[str, int]] = {"trail_logit": DQ.TRAIL}

    def decode(self, outputs: np.ndarray, batch: TileBatch) -> dict[str, np.ndarray]:
        """Planes of shape (N, H, W), float32."""
        pixels = SkyPixels.of_batch(batch)
        logits = outputs.astype(np.float32) + np.float32(DEFECT_PRIOR)
        snr = (pixels.sci - pixels.level) / pixels.err
        return {
            "defect_score": score_of(logits),
            **{name: logits[:, number] for number, name in enumerate(_LOGITS)},
            "surroundings_snr": middle_of_nine(snr),
        }

    def alarms(self, values: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """The score, and the number of each pixel's place among `STRATA`."""
        inner = [low for low in STRATA.values() if np.isfinite(low)]
        return values["defect_score"], np.searchsorted(inner, values["surroundings_snr"], side="right")

    def flags(
        self,
        planes: Mapping[str, np.ndarray],
        dq: np.ndarray,
        noise: float,
        kept: np.ndarray | None = None,
        thresholds: Mapping[str, float] | None = None,
        *,
        unless_sure: bool = False,
    ) -> np.ndarray:
        """Bits of the defects found: the most likely one of each pixel, and all that are more likely than not.

        Missing pixels get none. What must keep its value, for it looks like a source in a frame unlike those of
        training, is of low confidence instead; with `unless_sure`, only what is not `SURE` above its threshold.
        """
        score, place = self.alarms(planes)
        limits = np.asarray([_UNCALIBRATED if thresholds is None else thresholds[name] for name in STRATA], np.float32)
        above = score - limits[place]
        flagged = (above > 0) & ~has(dq, DQ.MISSING)
        bits = np.zeros(dq.shape, DQ_DTYPE)
        if kept is not None:
            kept = kept & (above <= SURE) if unless_sure else kept
            flag(bits, flagged & kept, DQ.LOW_CONFIDENCE)
            flagged &= ~kept
        where = np.nonzero(flagged)
        logits = np.stack([planes[name][where] for name in _LOGITS])
        chosen = (logits > 0) | (logits == logits.max(axis=0))
        bits[where] = np.bitwise_or.reduce(np.where(chosen, np.array(BITS, DQ_DTYPE)[:, None], 0).astype(DQ_DTYPE))
        return bits


DECODER = DefectDecoder()
