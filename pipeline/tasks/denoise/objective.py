"""Denoising of sky frames: against truth (simulated frames), or against another exposure (Noise2Noise).

Everything is in units of the frame's background noise, above its background level: u = (value - level) / noise.
The loss counts errors in units of the noise that a pixel really has, sigma^2 = 1 + k u_true, k being the photon noise's
slope: so a star's core weighs as much as empty sky. Its terms:

- every pixel's error (Huber: early on a cosmic ray is wrong by hundreds of sigma);
- the same for sums over small windows, each in units of the noise of the sum. A small bias common to the pixels of a
  star is invisible pixel by pixel and is what photometry sees;
- the mean error of sources of like brightness, over the batch. What minimises squared errors shrinks faint sources
  towards the sky, for that is where most of what looks like them came from; this term makes the estimate unbiased at a
  given true brightness [2]_, at a small price in variance;
- the likelihood of the error under the predicted variance, which the restored image does not feel;
- the defect map, where it is known. Bright pixels weigh more: to paint over a star's core does more harm than to miss
  a cosmic ray that hardly stands out.

The expectation of a noisy partner is the truth [1]_, so Noise2Noise has the same terms; defects are what the two
exposures do not share. There sigma is taken from the restored pixel: weights that depend on the partner's own noise
would bias the result towards its low values. It includes what changes between exposures beside noise: a star's shape.

References
----------
.. [1] Lehtinen et al. (2018), "Noise2Noise", arXiv:1803.04189, sect. 2.
.. [2] Diskin, Eldar & Wiesel (2021), "Learning to estimate without bias", arXiv:2110.12403, Eq. 9.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import maximum_filter
from torch import Tensor

from pipeline.errors import UserError
from pipeline.preparation import SkyPixels
from pipeline.sky.dq import DEFECTS, has
from pipeline.tasks.decode.denoise import (
    DEAD_SNR,
    DEFECT_PRIOR,
    GATE_SHARPNESS,
    LOG_VARIANCE_RANGE,
    MAX_CORRECTION,
    NEIGHBOURHOOD_PX,
    REPLACED_RANGE,
    TAPER_SNR,
)
from pipeline.tasks.training import Monitor, Objective, check_target
from pipeline.tiles.reader import TileReader
from pipeline.tiles.shards import TileBatch

HUBER_DELTA = 1.0  # sigma: what is left of the noise stays well below it, only failures are above
PARTNER_HUBER_DELTA = 6.0  # a partner's own noise must stay in the quadratic part, or its skewness becomes a bias
FLUX_WINDOWS_PX = (4, 8, 16)  # from the core of a sharp star to the whole of a blurred one
FLUX_WEIGHT = 0.3
BIAS_WINDOWS_PX = (8, 16)
BIAS_SNR_EDGES = (10.0, 30.0, 100.0, 1e9)  # classes of like brightness: signal-to-noise ratio of a window's source
BIAS_TOLERANCE = 0.01  # relative bias that counts as one unit of the loss
BIAS_WEIGHT = 0.01
LIKELIHOOD_WEIGHT = 0.1
DEFECT_WEIGHT = 4.0
SOURCE_THRESHOLD = 5.0  # u above which a pixel counts as source
SCATTER_PIXELS = 30  # fewer source pixels tell no scatter
PARTNER_OUTLIER = 8.0  # sigma of the difference between two exposures: far beyond noise, so that no noise is selected


class DenoiseObjective(Objective):
    """Restored image, its variance and the defect probability."""

    task = "denoise"
    kind = "sky"
    monitor = Monitor("loss", "lower")
    spatial: ClassVar[tuple[str, ...]] = (
        "images", "signal", "uncertainty", "missing", "saturated", "usable", "clean", "clean_variance", "defect",
    )  # fmt: skip

    @property
    def num_outputs(self) -> int:
        """Correction, replacement, log variance, defect logit."""
        return 4

    def check(self, train: TileReader, validation: TileReader) -> None:
        """Besides the common checks: the tiles have a target, and no scalars are asked for."""
        super().check(train, validation)
        if self.config.scalars:
            raise UserError(
                f"train.denoise.scalars must be empty, got {', '.join(self.config.scalars)}: a frame has no parameters"
            )
        for reader in (train, validation):
            check_target(reader, "clean", self.task)

    def target_arrays(self, batch: TileBatch) -> dict[str, np.ndarray]:
        """Planes (N, H, W) in units of the background noise, and the photon noise's slope (N,).

        `clean_variance` and `scatter` (N,) are there for a noisy partner, `defect` where it can be known.
        """
        pixels = SkyPixels.of_batch(batch)
        clean = batch.targets["clean"][:, 0].astype(np.float32)
        usable = np.isfinite(clean)
        signal, uncertainty = (pixels.sci - pixels.level) / pixels.noise, pixels.err / pixels.noise
        found = {
            "signal": signal,
            "uncertainty": uncertainty,
            "missing": pixels.missing,
            "saturated": pixels.saturated,
            "photon_slope": _photon_slope(signal, uncertainty, pixels.missing | pixels.saturated),
        }
        if "clean_err" in batch.targets:
            clean_err = batch.targets["clean_err"][:, 0].astype(np.float32) / pixels.noise
            usable &= np.isfinite(clean_err)
            found["clean_variance"] = np.where(usable, clean_err**2, 1).astype(np.float32)
            partner = np.where(usable, (clean - pixels.level) / pixels.noise, np.nan)
            found["scatter"] = _relative_scatter(signal, partner, pixels.missing | pixels.saturated)
            difference = np.where(usable, signal - partner, 0)
            # What stands out of one exposure only, on dark sky: on a star and beside it, changes of its shape do that.
            outlier = difference > PARTNER_OUTLIER * np.sqrt(uncertainty**2 + found["clean_variance"])
            brightest_around = maximum_filter(signal - difference, size=(1, 5, 5))
            found["defect"] = outlier & (brightest_around < SOURCE_THRESHOLD) & ~pixels.missing
        elif batch.masks is not None:
            found["defect"] = has(batch.masks, DEFECTS) & ~pixels.missing
        # A saturated star cannot be restored, a saturated cosmic ray can.
        usable &= ~pixels.saturated | found.get("defect", False)
        found["clean"] = np.where(usable, (clean - pixels.level) / pixels.noise, 0).astype(np.float32)
        found["usable"] = usable
        return found

    def loss(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Sum of the terms described above."""
        restored = restore(outputs, batch)
        usable = batch["usable"].float() * batch["weights"][:, None, None]
        residual = (restored - batch["clean"]) * batch["usable"]
        # By the noisy partner's own value, its low fluctuations would weigh more.
        sigma2 = _true_variance(restored.detach() if "clean_variance" in batch else batch["clean"], batch)
        delta = PARTNER_HUBER_DELTA if "clean_variance" in batch else HUBER_DELTA
        total = _mean(_huber(residual * sigma2.rsqrt(), delta), usable)
        # A defect's error belongs to the pixel term; in a window it would drown what a star's pixels share.
        sound = batch["usable"] & ~batch["missing"] & ~batch.get("defect", torch.zeros_like(batch["usable"]))
        total = total + FLUX_WEIGHT * _window_loss(residual * sound, sigma2 * sound, batch["weights"], delta)
        # Without truth the brightness is the restored one: a noisy partner's would prefer its own fluctuations.
        brightness = restored.detach() if "clean_variance" in batch else batch["clean"]
        total = total + BIAS_WEIGHT * _bias_loss(residual, brightness, sigma2.detach(), sound)
        total = total + LIKELIHOOD_WEIGHT * _mean(_likelihood(outputs, restored, residual, batch), usable)
        if "defect" in batch:
            entropy = F.binary_cross_entropy_with_logits(
                outputs[:, 3] + DEFECT_PRIOR, batch["defect"].float(), reduction="none"
            )
            judged = (~batch["missing"]) * (1 + torch.asinh(batch["signal"].abs())) * batch["weights"][:, None, None]
            total = total + DEFECT_WEIGHT * _mean(entropy, judged)
        return total

    def metrics(self) -> "DenoiseMetrics":
        """Gain over the noisy frame, flux bias, error on defects."""
        return DenoiseMetrics()


def restore(outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """Restored pixels in units of the background noise, as `pipeline.tasks.decode.denoise` explains them.

    Parameters
    ----------
    outputs : Tensor, shape (N, 4, H, W)
    batch : mapping of Tensor, shape (N, H, W)
        `signal` and `uncertainty`, above the background level in units of the background noise; `missing` and
        `saturated`, bool.
    """
    signal, uncertainty = batch["signal"], batch["uncertainty"]
    taper = 1 / (1 + (signal.clamp(min=0) / uncertainty / TAPER_SNR).square())
    taper = taper.masked_fill(batch["saturated"], 0.0)
    kept = signal + uncertainty * taper * MAX_CORRECTION * torch.tanh(outputs[:, 0] / MAX_CORRECTION)
    replaced = torch.sinh(outputs[:, 1].clamp(*REPLACED_RANGE))
    added = ~batch["missing"] & (signal > DEAD_SNR * uncertainty)
    replaced = torch.where(added, torch.minimum(replaced, signal + MAX_CORRECTION * uncertainty), replaced)
    known = signal.masked_fill(batch["missing"], -torch.inf)
    brightest = F.max_pool2d(known[:, None], 2 * NEIGHBOURHOOD_PX + 1, stride=1, padding=NEIGHBOURHOOD_PX)[:, 0]
    bounded = ~added & torch.isfinite(brightest)
    replaced = torch.where(bounded, torch.minimum(replaced, brightest + MAX_CORRECTION), replaced)
    gate = torch.sigmoid(GATE_SHARPNESS * (outputs[:, 3] + DEFECT_PRIOR)).masked_fill(batch["missing"], 1.0)
    return kept + gate * (replaced - kept)


def _true_variance(expectation: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """What a pixel of this expectation varies by, in units of the background's variance."""
    variance = 1 + batch["photon_slope"][:, None, None] * expectation.clamp(min=0)
    if "scatter" in batch:
        variance = variance + (batch["scatter"][:, None, None] * expectation).square()
    return variance


def _photon_slope(signal: np.ndarray, uncertainty: np.ndarray, untrusted: np.ndarray) -> np.ndarray:
    """Slope k of sigma^2 = 1 + k u, per tile, from the frame's own uncertainties; 0 without bright pixels."""
    bright = (signal > 3) & ~untrusted
    excess = np.where(bright, uncertainty**2 - 1, 0).sum((1, 2), dtype=np.float64)
    flux = np.where(bright, signal, 0).sum((1, 2), dtype=np.float64)
    return (np.maximum(excess, 0) / np.maximum(flux, 1)).astype(np.float32)


def _relative_scatter(signal: np.ndarray, partner: np.ndarray, untrusted: np.ndarray) -> np.ndarray:
    """By what part of their brightness sources differ between two exposures, shape (N,).

    Seeing, guiding and the place of a star on its pixels change from one exposure to the next, in proportion to the
    flux: in an undersampled field that is a hundred times the noise. Tiles with too few source pixels take the median
    of the others.
    """
    mean = 0.5 * (signal + partner)
    source = (mean > SOURCE_THRESHOLD) & ~untrusted
    change = np.divide(np.abs(signal - partner), mean, out=np.full_like(mean, np.nan), where=source)
    found = np.full(len(signal), np.nan)
    for tile in np.flatnonzero(source.sum((1, 2)) >= SCATTER_PIXELS):
        found[tile] = 1.4826 * np.nanmedian(change[tile])  # standard deviation of a Gaussian from its median deviation
    typical = np.median(found[np.isfinite(found)]) if np.isfinite(found).any() else 0.0
    return np.where(np.isfinite(found), found, typical).astype(np.float32)


def _huber(deviation: Tensor, delta: float) -> Tensor:
    return F.huber_loss(deviation, torch.zeros_like(deviation), reduction="none", delta=delta)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp(min=1)


def _window_loss(residual: Tensor, variance: Tensor, weights: Tensor, delta: float) -> Tensor:
    """Mean over window sizes of the error of the windows' sums, in units of the noise of the sums."""
    planes = torch.stack([residual, variance], dim=1)
    total = residual.new_zeros(())
    for size in FLUX_WINDOWS_PX:
        sums = F.avg_pool2d(planes, size, stride=size // 2) * size**2
        # Windows without a sound pixel have a sum of zero; the floor only keeps the division defined.
        deviation = sums[:, 0] * sums[:, 1].clamp(min=1).rsqrt()
        total = total + (_huber(deviation, delta) * weights[:, None, None]).mean()
    return total / len(FLUX_WINDOWS_PX)


def _bias_loss(residual: Tensor, brightness: Tensor, sigma2: Tensor, sound: Tensor) -> Tensor:
    """Squared relative bias of the flux in windows, by classes of brightness, in units of the tolerance."""
    total = residual.new_zeros(())
    for size in BIAS_WINDOWS_PX:
        # The sky under a source is the faintest pixel of its window: a gradient is no source.
        sky = -F.max_pool2d(-brightness[:, None], size, stride=size // 2)[:, 0]
        planes = torch.stack([residual * sound, brightness * sound, sigma2 * sound, sound.float()], dim=1)
        error, flux, variance, n_pixels = (F.avg_pool2d(planes, size, stride=size // 2) * size**2).unbind(1)
        flux = flux - sky * n_pixels
        snr = flux * variance.clamp(min=1).rsqrt()
        for low, high in pairwise(BIAS_SNR_EDGES):
            member = (snr >= low) & (snr < high)
            bias = (error * member).sum() / (flux * member).sum().clamp(min=1)
            total = total + _huber(bias / BIAS_TOLERANCE, delta=1.0)
    return total / (len(BIAS_WINDOWS_PX) * (len(BIAS_SNR_EDGES) - 1))


def _likelihood(outputs: Tensor, restored: Tensor, residual: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """Gaussian negative log likelihood of the error; what a partner varies by adds to the predicted variance."""
    scale = batch["uncertainty"].square()
    variance = torch.exp(outputs[:, 2].clamp(*LOG_VARIANCE_RANGE)) * scale
    if "clean_variance" in batch:
        change = batch["scatter"][:, None, None] * restored.detach()
        variance = variance + batch["clean_variance"] + change.square()
    # In units of the measured uncertainty, so that the term does not depend on the frame's brightness.
    return 0.5 * (torch.log(variance / scale) + residual.detach().square() / variance)


class DenoiseMetrics:
    """Sums over sound pixels of the validation tiles."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}

    def add(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Take in one batch."""
        restored = restore(outputs, batch)
        clean, usable = batch["clean"], batch["usable"]
        defect = batch.get("defect", torch.zeros_like(usable)) & usable
        sound = usable & ~batch["missing"] & ~defect
        sigma2 = _true_variance(clean, batch)
        # Chosen by what is not noisy: by a noisy partner's value, its upward fluctuations would be preferred.
        source = sound & ((restored if "clean_variance" in batch else clean) > SOURCE_THRESHOLD)
        error2 = (restored - clean).square()
        terms = {
            "n_sound": sound.double().sum(),
            "restored": (error2 / sigma2)[sound].double().sum(),
            "noisy": ((batch["signal"] - clean).square() / sigma2)[sound].double().sum(),
            "excess": (restored - clean)[source].double().sum(),
            "flux": clean[source].double().sum(),
            "n_defect": defect.double().sum(),
            "defect": error2[defect].double().sum(),
        }
        for name, term in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(term)

    def compute(self) -> dict[str, float]:
        """`gain_db`: how far the error of sound pixels fell below the noisy frame's, both in units of the noise.
        `flux_bias`: relative excess of restored flux on source pixels. `defect_rmse`: in units of the background
        noise; NaN where no defect is known.
        """
        sums = self.sums
        ratio = sums["restored"] / max(sums["noisy"], 1e-30)
        return {
            "gain_db": -10 * float(np.log10(max(ratio, 1e-30))),
            "flux_bias": sums["excess"] / sums["flux"] if sums["flux"] else float("nan"),
            "defect_rmse": float(np.sqrt(sums["defect"] / sums["n_defect"])) if sums["n_defect"] else float("nan"),
        }


OBJECTIVE = DenoiseObjective
