"""Restored sky frame: what the five output planes mean.

Two ways lead to a restored pixel:

- kept: the measured value plus a correction in units of its own uncertainty sigma, weighted by how much better it is
  known than the pixel itself, sigma^2 / (sigma^2 + tau^2) [1]_: in the core of a star, where nothing but the pixel says
  how bright it is, it stays as measured. It is no larger than noise is. What is taken from a pixel is given to those
  beside it (`pipeline.tasks.denoise.sharing`): light that is spread over more than a few pixels keeps its sum, whatever
  the network does.
- replaced (a defect, or missing): a value predicted from the surroundings alone, in asinh of the background noise.
  A missing or dead pixel comes back no brighter than its surroundings. Cosmic rays, hot pixels and trails add charge:
  unless a pixel is missing or dark as a dead one, the replacement is not above what was measured, but for noise.

The defect output chooses between them by the rate of false alarms of the place: a source has a lower one than the sky,
and the core of a star one in 100,000. All are lower than those of a mask alone: what is only flagged is still there. On
sources, a pixel must also stand out of its replacement by `SURE_SIGMA` times the uncertainty of both together. Where
that is in doubt, the pixel stays as measured, with low confidence.

A track is bright, and would be taken for a source by its brightness alone. Where a whole frame is restored, the shape
of its stars is known: what is too sharp for a source of that frame has the rate of `stand_ins`, and need not stand out.

`pipeline.tasks.denoise.objective` computes the same with torch; a test holds the two together.

References
----------
.. [1] Laine et al. (2019), "High-quality self-supervised deep image denoising", arXiv:1901.10277, Eq. 4.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from pipeline.inputs.frame import SkyPixels
from pipeline.sky.dq import DQ, DQ_DTYPE, UNTRUSTED, flag, has
from pipeline.tasks.defects.decode import STRATA, largest_of_nine, middle_of_nine
from pipeline.tasks.denoise.confidence import KINDS, errors_of, traits_of
from pipeline.tasks.denoise.sharing import given, share_of_sources
from pipeline.tasks.interfaces import Decoder, PixelTraits
from pipeline.tiles.shards import TileBatch

NOISE_REACH = 4.0  # sigma: noise alone is further out in 6 of 100,000 pixels
SURE_SIGMA = 5.0  # a pixel of a source is painted over if it is that far from what its surroundings say
DEFECT_PRIOR = -3.0  # added to the defect output: an untrained network leaves 95 % of the pixels alone
GATE_SHARPNESS = 3.0  # of the logit above its threshold: 1 above is replaced to 95 %, 2 above to 99.8 %
REPLACED_RANGE = (-4.0, 12.0)  # asinh of the background noise: -27 to 8e4 times the noise
DEAD_SNR = -3.0  # a pixel this far below the background may be dead, and its replacement above it
NEIGHBOURHOOD_PX = 3  # a missing or dead pixel comes back no brighter than what is known within this distance
LOG_VARIANCE_RANGE = (-8.0, 12.0)
#: Defect probability from which a pixel counts as restored, where no rates are known.
DEFECT_THRESHOLD = 0.5
_LARGEST_LOGIT = 30.0
_NO_SOURCE = "no_source"


def sigmoid(logit: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-logit)), without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * logit))


def brightest_around(planes: np.ndarray) -> np.ndarray:
    """Largest value within `NEIGHBOURHOOD_PX` rows and columns of each pixel; planes of shape (N, H, W)."""
    reach = NEIGHBOURHOOD_PX
    for axis in (1, 2):
        width = [(reach, reach) if a == axis else (0, 0) for a in range(3)]
        planes = np.pad(planes, width, constant_values=-np.inf)
        seen, length = 1, 2 * reach + 1
        while seen < length:  # of 1, 2, 4 ... pixels
            step = min(seen, length - seen)
            n = planes.shape[axis] - step
            lower, upper = (planes[(slice(None),) * axis + (slice(k, k + n),)] for k in (0, step))
            planes, seen = np.maximum(lower, upper), seen + step
    return planes


class DenoiseDecoder(Decoder):
    """Outputs: correction, replacement, log variance of the result, logit of being a defect less its prior, log tau^2.

    tau^2 is the variance of what the correction aims at, and both variances are in units of the pixel's own.
    """

    uncertainties: ClassVar[tuple[str, ...]] = ("restored_err",)
    strata: ClassVar[Mapping[str, int]] = KINDS
    rates: ClassVar[dict[str, float]] = {"sky": 1e-4, "source": 3e-5, "core": 1e-5}
    decodes_by_rate: ClassVar[bool] = True
    stand_ins: ClassVar[dict[str, tuple[str, float]]] = {_NO_SOURCE: ("sky", 1e-5)}

    def decode(
        self, outputs: np.ndarray, batch: TileBatch, thresholds: Mapping[str, float] | None = None
    ) -> dict[str, np.ndarray]:
        """Planes of shape (N, H, W), float32, in the unit of the tile's `sci`; besides the columns, `place`.

        The place, a number among `STRATA`, is for `alarms`: planes of whole frames need none.

        Missing pixels are always replaced. Saturated ones come back as they are, with their uncertainty (what a full
        well has lost is not in the frame), unless they are defects: a hot pixel or a cosmic ray.
        """
        pixels = SkyPixels.of_batch(batch)
        correction, replacement, log_variance, defect, log_tau2 = (outputs[:, i].astype(np.float32) for i in range(5))
        logit = defect + np.float32(DEFECT_PRIOR)
        snr = (pixels.sci - pixels.level) / pixels.err
        place = _place_of(snr)
        limits = [0.0 if thresholds is None else thresholds[name] for name in (*STRATA, _NO_SOURCE)]
        no_source = pixels.no_source & (place > 0)
        limit = np.asarray(limits, np.float32)[np.where(no_source, len(STRATA), place)]
        replaced = _replaced(pixels, replacement)
        restored_err = pixels.err * np.exp(0.5 * np.clip(log_variance, *LOG_VARIANCE_RANGE))
        sure = np.abs(pixels.sci - replaced) > SURE_SIGMA * np.hypot(pixels.err, restored_err)
        above = logit - limit
        gate = sigmoid(GATE_SHARPNESS * above)
        gate[(place > 0) & ~((sure | no_source) & (above >= 0))] = 0.0  # no mean of both on a source
        gate[pixels.missing] = 1.0
        taken = pixels.err * sigmoid(-log_tau2) * NOISE_REACH * np.tanh(correction / NOISE_REACH) * (1 - gate)
        taken[pixels.saturated] = 0.0
        back = given(taken, share_of_sources(snr))
        back[pixels.saturated] = 0.0
        kept = pixels.sci + taken - back
        restored = (1 - gate) * kept + gate * replaced  # not of a difference, which -1e12 leaves nothing of
        painted = gate >= 0.5
        return {
            "restored": restored.astype(np.float32),
            "restored_err": np.where(pixels.saturated & ~painted, pixels.err, restored_err).astype(np.float32),
            "defect_probability": sigmoid(logit),
            "painted": painted.astype(np.float32),
            "place": place.astype(np.float32),
        }

    def alarms(self, values: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """The logit, and the number of each pixel's place among `STRATA`."""
        probability = values["defect_probability"].astype(float)
        with np.errstate(divide="ignore"):
            logit = np.log(probability) - np.log1p(-probability)
        return np.clip(logit, -_LARGEST_LOGIT, _LARGEST_LOGIT), values["place"].astype(int)

    def traits(self, values: Mapping[str, np.ndarray], batch: TileBatch) -> PixelTraits:
        """See `pipeline.tasks.denoise.confidence`."""
        return traits_of(values["restored"], values["restored_err"], *_not_measured(values, batch), batch)

    def errors(self, values: Mapping[str, np.ndarray], batch: TileBatch) -> tuple[np.ndarray, np.ndarray]:
        """Restored less true; pixels with a defect that was not painted are not judged."""
        return errors_of(values["restored"], *_not_measured(values, batch), batch)

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
        """`RESTORED` where a defect or hole was replaced; `LOW_CONFIDENCE` where the result is less certain than the
        background noise although it was replaced, where the pixel is saturated, or where it keeps its value although
        it may be a defect.
        """
        saturated, untrusted = has(dq, DQ.SATURATED), has(dq, UNTRUSTED)
        defect = planes["painted"] >= 0.5  # where tiles overlap, it is a mean of both
        spared = np.zeros(dq.shape, bool) if kept is None else defect & kept
        doubtful = (planes["defect_probability"] >= DEFECT_THRESHOLD) & ~defect
        replaced = (untrusted | (defect & ~spared)) & ~(saturated & ~untrusted)
        uncertain = saturated | spared | doubtful | (replaced & (planes["restored_err"] > noise))
        bits = np.zeros(dq.shape, DQ_DTYPE)
        flag(bits, replaced, DQ.RESTORED)
        flag(bits, uncertain, DQ.LOW_CONFIDENCE)
        return bits


def _place_of(snr: np.ndarray) -> np.ndarray:
    """Number among `STRATA`, by the signal-to-noise ratio of the middle one of 3 x 3 pixels, and of those beside.

    The edge of a star belongs to it: one pixel more than for a mask alone, for here it would be painted over.
    """
    inner = [low for low in STRATA.values() if np.isfinite(low)]
    return np.searchsorted(inner, largest_of_nine(middle_of_nine(snr)), side="right")


def _replaced(pixels: SkyPixels, replacement: np.ndarray) -> np.ndarray:
    """What takes the place of a defect: bounded by what was measured there, or around it."""
    replaced = pixels.level + pixels.noise * np.sinh(np.clip(replacement, *REPLACED_RANGE))
    added = ~pixels.missing & (pixels.sci - pixels.level > DEAD_SNR * pixels.err)
    replaced = np.where(added, np.minimum(replaced, pixels.sci + NOISE_REACH * pixels.err), replaced)
    brightest = brightest_around(np.where(pixels.missing, -np.inf, pixels.sci))
    bounded = ~added & np.isfinite(brightest)  # in the midst of a gap nothing is known
    return np.where(bounded, np.minimum(replaced, brightest + NOISE_REACH * pixels.noise), replaced)


def _not_measured(values: Mapping[str, np.ndarray], batch: TileBatch) -> tuple[np.ndarray, np.ndarray]:
    """Pixels that were painted over, and those that were missing, shape (N, H, W)."""
    return values["painted"] >= 0.5, SkyPixels.of_batch(batch).missing


DECODER = DenoiseDecoder()
