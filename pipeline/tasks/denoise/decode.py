"""Restored sky frame: what the four output planes mean.

Two ways lead to a restored pixel, and the defect output chooses between them:

- kept: the measured value plus a correction in units of its own uncertainty, at most `MAX_CORRECTION` of them and
  fading as the signal-to-noise ratio of the pixel grows. A bright star cannot be bent, however wrong the network is.
- replaced (a defect, or missing): a value predicted from the surroundings alone, in asinh of the background noise.
  A missing or dead pixel comes back no brighter than its surroundings.
  Cosmic rays, hot pixels and trails add charge: unless a pixel is missing or dark as a dead one, the replacement is
  at most `MAX_CORRECTION` above what was measured.

`pipeline.tasks.denoise.objective` computes the same with torch; a test holds the two together.
"""

from collections.abc import Mapping
from functools import reduce
from typing import ClassVar

import numpy as np

from pipeline.inputs.frame import SkyPixels
from pipeline.sky.dq import DQ, DQ_DTYPE, UNTRUSTED, flag, has
from pipeline.tasks.denoise.confidence import KINDS, errors_of, traits_of
from pipeline.tasks.interfaces import Decoder, PixelTraits
from pipeline.tiles.shards import TileBatch

MAX_CORRECTION = 4.0  # sigma: noise alone is further out in 6 of 100,000 pixels
TAPER_SNR = 20.0  # signal-to-noise ratio of a pixel at which the correction is halved
DEFECT_PRIOR = -3.0  # added to the defect output: an untrained network leaves 95 % of the pixels alone
GATE_SHARPNESS = 3.0  # a defect of probability 0.9 is replaced to 99.9 %, one of 0.1 kept to 99.9 %
REPLACED_RANGE = (-4.0, 12.0)  # asinh of the background noise: -27 to 8e4 times the noise
DEAD_SNR = -3.0  # a pixel this far below the background may be dead, and its replacement above it
NEIGHBOURHOOD_PX = 3  # a missing or dead pixel comes back no brighter than what is known within this distance
LOG_VARIANCE_RANGE = (-8.0, 12.0)
#: Defect probability from which a pixel counts as restored.
DEFECT_THRESHOLD = 0.5


def sigmoid(logit: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-logit)), without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * logit))


def brightest_around(planes: np.ndarray) -> np.ndarray:
    """Largest value within `NEIGHBOURHOOD_PX` rows and columns of each pixel; planes of shape (N, H, W)."""
    reach = NEIGHBOURHOOD_PX
    for axis in (1, 2):
        width = [(reach, reach) if a == axis else (0, 0) for a in range(3)]
        padded = np.pad(planes, width, constant_values=-np.inf)
        n = planes.shape[axis]
        shifted = (padded.take(range(k, k + n), axis=axis) for k in range(2 * reach + 1))
        planes = reduce(np.maximum, shifted)
    return planes


class DenoiseDecoder(Decoder):
    """Outputs: correction, replacement, log variance of the result, logit of being a defect less its prior."""

    uncertainties: ClassVar[tuple[str, ...]] = ("restored_err",)
    strata: ClassVar[Mapping[str, int]] = KINDS

    def decode(self, outputs: np.ndarray, batch: TileBatch) -> dict[str, np.ndarray]:
        """Planes of shape (N, H, W), float32, in the unit of the tile's `sci`.

        Missing pixels are always replaced. Saturated ones come back as they are, with their uncertainty (what a full
        well has lost is not in the frame), unless they are defects: a hot pixel or a cosmic ray.
        """
        pixels = SkyPixels.of_batch(batch)
        correction, replacement, log_variance, defect = (outputs[:, i].astype(np.float32) for i in range(4))
        logit = defect + DEFECT_PRIOR
        snr = np.maximum(pixels.sci - pixels.level, 0) / pixels.err
        taper = 1.0 / (1.0 + np.square(snr / TAPER_SNR))
        taper[pixels.saturated] = 0.0
        kept = pixels.sci + pixels.err * taper * MAX_CORRECTION * np.tanh(correction / MAX_CORRECTION)
        replaced = pixels.level + pixels.noise * np.sinh(np.clip(replacement, *REPLACED_RANGE))
        added = ~pixels.missing & (pixels.sci - pixels.level > DEAD_SNR * pixels.err)
        replaced = np.where(added, np.minimum(replaced, pixels.sci + MAX_CORRECTION * pixels.err), replaced)
        brightest = brightest_around(np.where(pixels.missing, -np.inf, pixels.sci))
        bounded = ~added & np.isfinite(brightest)  # in the midst of a gap nothing is known
        replaced = np.where(bounded, np.minimum(replaced, brightest + MAX_CORRECTION * pixels.noise), replaced)
        gate = np.where(pixels.missing, 1.0, sigmoid(GATE_SHARPNESS * logit))
        restored = kept + gate * (replaced - kept)
        restored_err = pixels.err * np.exp(0.5 * np.clip(log_variance, *LOG_VARIANCE_RANGE))
        return {
            "restored": restored.astype(np.float32),
            "restored_err": np.where(pixels.saturated & (logit < 0), pixels.err, restored_err).astype(np.float32),
            "defect_probability": sigmoid(logit),
        }

    def traits(self, values: Mapping[str, np.ndarray], batch: TileBatch) -> PixelTraits:
        """See `pipeline.tasks.denoise.confidence`."""
        return traits_of(values["restored"], values["restored_err"], *_not_measured(values, batch), batch)

    def errors(self, values: Mapping[str, np.ndarray], batch: TileBatch) -> tuple[np.ndarray, np.ndarray]:
        """Restored less true; pixels with a defect that was not painted are not judged."""
        return errors_of(values["restored"], *_not_measured(values, batch), batch)

    def flags(
        self, planes: Mapping[str, np.ndarray], dq: np.ndarray, noise: float, kept: np.ndarray | None = None
    ) -> np.ndarray:
        """`RESTORED` where a defect or hole was replaced; `LOW_CONFIDENCE` where the result is less certain than the
        background noise although it was replaced, where the pixel is saturated, or where it keeps its value although
        it was taken for a defect.
        """
        saturated, untrusted = has(dq, DQ.SATURATED), has(dq, UNTRUSTED)
        defect = planes["defect_probability"] >= DEFECT_THRESHOLD
        spared = np.zeros(dq.shape, bool) if kept is None else defect & kept
        replaced = (untrusted | (defect & ~spared)) & ~(saturated & ~untrusted)
        uncertain = saturated | spared | (replaced & (planes["restored_err"] > noise))
        bits = np.zeros(dq.shape, DQ_DTYPE)
        flag(bits, replaced, DQ.RESTORED)
        flag(bits, uncertain, DQ.LOW_CONFIDENCE)
        return bits


def _not_measured(values: Mapping[str, np.ndarray], batch: TileBatch) -> tuple[np.ndarray, np.ndarray]:
    """Pixels that were painted over, and those that were missing, shape (N, H, W)."""
    return values["defect_probability"] >= DEFECT_THRESHOLD, SkyPixels.of_batch(batch).missing


DECODER = DenoiseDecoder()
