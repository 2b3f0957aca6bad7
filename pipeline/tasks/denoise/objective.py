"""Denoising of sky frames: against truth (simulated frames), or against another exposure (Noise2Noise).

Everything is in units of the frame's background noise, above its background level: u = (value - level) / noise.
The loss counts errors in units of the noise that a pixel really has, sigma^2 = 1 + k u_true, k being the photon noise's
slope: so a star's core weighs as much as empty sky. Its terms:

- every pixel's error (Huber: early on a cosmic ray is wrong by hundreds of sigma);
- the same for sums over small windows, each in units of the noise of the sum. A small bias common to the pixels of a
  star is invisible pixel by pixel and is what photometry sees;
- the fluxes of stars, where their places are known: by how much the sum in an aperture changes from what was measured,
  in units of its noise, and the mean relative change of stars of like signal-to-noise ratio. What was measured has no
  bias and the least scatter there is; the truth would only add its noise to the gradient;
- without stars, the mean error of sources of like brightness, over the batch. What minimises squared errors shrinks
  faint sources towards the sky, for that is where most of what looks like them came from; this term makes the estimate
  unbiased at a given true brightness [2]_, at a small price in variance. The weight of the bias grows tenfold in the
  last third of a training;
- the likelihood of the error under the predicted variance, which the restored image does not feel; and that of the
  correction under its own;
- the defect map, where it is known. Bright pixels weigh more: to paint over a star's core does more harm than to miss
  a cosmic ray that hardly stands out. Of simulated frames, it is told as for the task `defects`.

The expectation of a noisy partner is the truth [1]_, so Noise2Noise has the same terms; defects are what the two
exposures do not share. There sigma is taken from the restored pixel: weights that depend on the partner's own noise
would bias the result towards its low values. It includes what changes between exposures beside noise: a star's shape.

References
----------
.. [1] Lehtinen et al. (2018), "Noise2Noise", arXiv:1803.04189, sect. 2.
.. [2] Diskin, Eldar & Wiesel (2021), "Learning to estimate without bias", arXiv:2110.12403, Eq. 9.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from pipeline.tasks.defects.objective import EDGE_SNR, EDGE_WEIGHT, HARD_FROM, HARD_WEIGHT, hardest
from pipeline.tasks.defects.targets import FOUND_SNR
from pipeline.tasks.denoise.decode import (
    DEAD_SNR,
    DEFECT_PRIOR,
    GATE_SHARPNESS,
    LOG_VARIANCE_RANGE,
    NEIGHBOURHOOD_PX,
    NOISE_REACH,
    REPLACED_RANGE,
)
from pipeline.tasks.denoise.sharing import SKY_PX, SOURCE_PX
from pipeline.tasks.denoise.spec import SPEC
from pipeline.tasks.denoise.targets import SOURCE_THRESHOLD, TARGETS
from pipeline.tasks.interfaces import Targets
from pipeline.tasks.spec import TaskSpec
from pipeline.training.objective import Objective

HUBER_DELTA = 1.0  # sigma: what is left of the noise stays well below it, only failures are above
PARTNER_HUBER_DELTA = 6.0  # a partner's own noise must stay in the quadratic part, or its skewness becomes a bias
PIXEL_WEIGHT = 4.0  # beside the defect map's: of the noise, a network learns slowly
FLUX_WINDOWS_PX = (4, 8, 16)  # from the core of a sharp star to the whole of a blurred one
FLUX_WEIGHT = 0.3
BIAS_WINDOWS_PX = (8, 16)
BIAS_SNR_EDGES = (10.0, 30.0, 100.0, 1e9)  # classes of like brightness: signal-to-noise ratio of a window's source
BIAS_TOLERANCE = 0.01  # relative bias that counts as one unit of the loss
BIAS_WEIGHT = 0.01
LATE_BIAS_WEIGHT = 0.1
LATE_FROM = 2 / 3  # of the epochs
STAR_APERTURES_PX = (3, 5, 7, 11, 15)  # squares; the one next to twice the FWHM is taken
STAR_LEAST_SNR = 5.0
STAR_SNR_EDGES = (5.0, 10.0, 20.0, 30.0, 50.0, 80.0, 130.0, 200.0, 350.0, 700.0, 1e9)
STAR_WEIGHT = 0.3
LIKELIHOOD_WEIGHT = 0.1
DEFECT_WEIGHT = 4.0


class DenoiseObjective(Objective):
    """Restored image, its variance and the defect probability."""

    spec: ClassVar[TaskSpec] = SPEC
    targets: ClassVar[Targets] = TARGETS

    def loss(self, outputs: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        """Sum of the terms described above."""
        restored = restore(outputs, target)
        usable = target["usable"].float() * target["weights"][:, None, None]
        residual = (restored - target["clean"]) * target["usable"]
        # By the noisy partner's own value, its low fluctuations would weigh more.
        sigma2 = _true_variance(restored.detach() if "clean_variance" in target else target["clean"], target)
        delta = PARTNER_HUBER_DELTA if "clean_variance" in target else HUBER_DELTA
        total = PIXEL_WEIGHT * _mean(_huber(residual * sigma2.rsqrt(), delta), usable)
        # A defect's error belongs to the pixel term; in a window it would drown what a star's pixels share.
        sound = target["usable"] & ~target["missing"] & ~target.get("defect", torch.zeros_like(target["usable"]))
        total = total + FLUX_WEIGHT * _window_loss(residual * sound, sigma2 * sound, target["weights"], delta)
        bias_weight = LATE_BIAS_WEIGHT if self.progress >= LATE_FROM else BIAS_WEIGHT
        if "star_flux" in target:
            change, bias = _star_loss(restored - target["signal"], sigma2, sound, target)
            total = total + STAR_WEIGHT * change + bias_weight * bias
        else:
            # Without truth the brightness is the restored one: a noisy partner's would prefer its own fluctuations.
            brightness = restored.detach() if "clean_variance" in target else target["clean"]
            total = total + bias_weight * _bias_loss(residual, brightness, sigma2.detach(), sound)
        total = total + LIKELIHOOD_WEIGHT * _mean(_likelihood(outputs, restored, residual, target), usable)
        total = total + LIKELIHOOD_WEIGHT * _mean(_correction_likelihood(outputs, target), usable * sound)
        if "defect" in target:
            total = total + DEFECT_WEIGHT * self._entropy(outputs[:, 3] + DEFECT_PRIOR, target)
        return total

    def _entropy(self, logit: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        """Of the defect map; of simulated frames with the weights and the ignored band of the task `defects`."""
        entropy = F.binary_cross_entropy_with_logits(logit, target["defect"].float(), reduction="none")
        weight = (~target["missing"]) * (1 + torch.asinh(target["signal"].abs())) * target["weights"][:, None, None]
        if "faint" not in target:
            return _mean(entropy, weight)
        edge = target["defect"] & (target["charge"] >= FOUND_SNR) & (target["charge"] < EDGE_SNR)
        weight = weight * torch.where(edge, EDGE_WEIGHT, 1.0)
        if self.progress >= HARD_FROM:
            hard = hardest(logit.detach(), target["good"], target["core"])
            weight = weight * torch.where(hard, HARD_WEIGHT, 1.0)
        return _mean(entropy.masked_fill(target["faint"], 0.0), weight)

    def metrics(self) -> Metric:
        """Gain over the noisy frame, flux bias, error on defects."""
        return DenoiseMetrics()


def restore(outputs: Tensor, target: Mapping[str, Tensor]) -> Tensor:
    """Restored pixels in units of the background noise, as `pipeline.tasks.denoise.decode` explains them.

    Parameters
    ----------
    outputs : Tensor, shape (N, 5, H, W)
    target : mapping of Tensor, shape (N, H, W)
        `signal` and `uncertainty`, above the background level in units of the background noise; `missing` and
        `saturated`, bool; `source_share`, see `pipeline.tasks.denoise.sharing`.

    Notes
    -----
    A pixel is replaced if it is more likely a defect than not: the thresholds of a trained network are not known yet.
    """
    signal, uncertainty = target["signal"], target["uncertainty"]
    replaced = torch.sinh(outputs[:, 1].clamp(*REPLACED_RANGE))
    added = ~target["missing"] & (signal > DEAD_SNR * uncertainty)
    replaced = torch.where(added, torch.minimum(replaced, signal + NOISE_REACH * uncertainty), replaced)
    known = signal.masked_fill(target["missing"], -torch.inf)
    brightest = _largest_around(known)
    bounded = ~added & torch.isfinite(brightest)
    replaced = torch.where(bounded, torch.minimum(replaced, brightest + NOISE_REACH), replaced)
    gate = torch.sigmoid(GATE_SHARPNESS * (outputs[:, 3] + DEFECT_PRIOR)).masked_fill(target["missing"], 1.0)
    taken = uncertainty * torch.sigmoid(-outputs[:, 4]) * _aimed(outputs) * (1 - gate)
    taken = taken.masked_fill(target["saturated"], 0.0)
    kept = signal + taken - _given(taken, target["source_share"]).masked_fill(target["saturated"], 0.0)
    return kept + gate * (replaced - kept)


def _aimed(outputs: Tensor) -> Tensor:
    """The correction before it is weighted, in units of the pixel's uncertainty."""
    return NOISE_REACH * torch.tanh(outputs[:, 0] / NOISE_REACH)


def _largest_around(planes: Tensor) -> Tensor:
    """Largest value within `NEIGHBOURHOOD_PX` rows and columns, along one axis after the other."""
    reach, side = NEIGHBOURHOOD_PX, 2 * NEIGHBOURHOOD_PX + 1
    rows = F.max_pool2d(planes[:, None], (side, 1), stride=1, padding=(reach, 0))
    return F.max_pool2d(rows, (1, side), stride=1, padding=(0, reach))[:, 0]


def _given(taken: Tensor, source_share: Tensor) -> Tensor:
    """`pipeline.tasks.denoise.sharing.given`; a test holds the two together."""
    near = taken * source_share
    return _mean_of(near, SOURCE_PX) + _mean_of(taken - near, SKY_PX)


def _mean_of(planes: Tensor, sizes: Sequence[int]) -> Tensor:
    for size in sizes:
        planes = F.avg_pool2d(planes[:, None], size, stride=1, padding=size // 2)[:, 0]
    return planes


def _true_variance(expectation: Tensor, target: Mapping[str, Tensor]) -> Tensor:
    """What a pixel of this expectation varies by, in units of the background's variance."""
    variance = 1 + target["photon_slope"][:, None, None] * expectation.clamp(min=0)
    if "scatter" in target:
        variance = variance + (target["scatter"][:, None, None] * expectation).square()
    return variance


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


def _star_loss(change: Tensor, sigma2: Tensor, sound: Tensor, target: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What is done to the fluxes of stars whose aperture has no defect: in units of their noise, and their bias."""
    change, known = change * sound, torch.stack([sigma2.detach(), 1.0 - sound.float()], dim=1)
    sizes = torch.tensor(STAR_APERTURES_PX, dtype=change.dtype, device=change.device)
    # Light of neighbours is flux to this loss, as it is to a photometrist.
    nearest = (2 * target["star_fwhm_px"][..., None] - sizes).abs().argmin(dim=-1)
    is_star = target["star_flux"] > 0
    errors, fluxes, noises = [], [], []
    for number, size in enumerate(STAR_APERTURES_PX):
        chosen = is_star & (nearest == number)
        if not chosen.any():
            continue
        error = _sums(change[:, None], size)[:, 0][chosen]
        variance, n_unsound = _sums(known, size).permute(0, 2, 3, 1)[chosen].unbind(1)
        noise = variance.clamp(min=1).sqrt()
        flux = target["star_flux"][chosen]
        keep = (n_unsound < 0.5) & (flux > STAR_LEAST_SNR * noise)
        errors.append(error[keep])
        fluxes.append(flux[keep])
        noises.append(noise[keep])
    if not errors or not sum(len(part) for part in errors):
        return change.sum() * 0.0, change.sum() * 0.0
    error, flux, noise = (torch.cat(parts) for parts in (errors, fluxes, noises))
    harm = _huber(error / noise, HUBER_DELTA).mean()
    snr, bias = flux / noise, change.new_zeros(())
    for low, high in pairwise(STAR_SNR_EDGES):
        member = (snr >= low) & (snr < high)
        relative = (error * member).sum() / (flux * member).sum().clamp(min=1)
        bias = bias + _huber(relative / BIAS_TOLERANCE, delta=1.0)
    return harm, bias / (len(STAR_SNR_EDGES) - 1)


def _sums(planes: Tensor, size: int) -> Tensor:
    """Sums over squares around each pixel, along one axis after the other: 2 n steps instead of n^2."""
    rows = F.avg_pool2d(planes, (size, 1), stride=1, padding=(size // 2, 0))
    return F.avg_pool2d(rows, (1, size), stride=1, padding=(0, size // 2)) * size**2


def _correction_likelihood(outputs: Tensor, target: Mapping[str, Tensor]) -> Tensor:
    """Gaussian negative log likelihood of what a correction aims at under tau^2, which alone feels it."""
    log_tau2 = outputs[:, 4].clamp(*LOG_VARIANCE_RANGE)
    error2 = (target["signal"] + target["uncertainty"] * _aimed(outputs).detach() - target["clean"]).square()
    # What is further off than noise can be is a failure, which no variance describes.
    variance = (error2 / target["uncertainty"].square()).clamp(max=NOISE_REACH**2)
    if "clean_variance" in target:
        variance = (variance - target["clean_variance"] / target["uncertainty"].square()).clamp(min=0)
    return 0.5 * (log_tau2 + variance * torch.exp(-log_tau2))


def _likelihood(outputs: Tensor, restored: Tensor, residual: Tensor, target: Mapping[str, Tensor]) -> Tensor:
    """Gaussian negative log likelihood of the error; what a partner varies by adds to the predicted variance."""
    scale = target["uncertainty"].square()
    variance = torch.exp(outputs[:, 2].clamp(*LOG_VARIANCE_RANGE)) * scale
    if "clean_variance" in target:
        change = target["scatter"][:, None, None] * restored.detach()
        variance = variance + target["clean_variance"] + change.square()
    # In units of the measured uncertainty, so that the term does not depend on the frame's brightness.
    return 0.5 * (torch.log(variance / scale) + residual.detach().square() / variance)


_TERMS = ("n_sound", "restored", "noisy", "excess", "flux", "n_defect", "defect")


class DenoiseMetrics(Metric):
    """Sums over sound pixels of the validation tiles."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(len(_TERMS), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, target: Mapping[str, Tensor]) -> None:
        """Take in one batch."""
        restored = restore(outputs, target)
        clean, usable = target["clean"], target["usable"]
        defect = target.get("defect", torch.zeros_like(usable)) & usable
        sound = usable & ~target["missing"] & ~defect
        sigma2 = _true_variance(clean, target)
        # Chosen by what is not noisy: by a noisy partner's value, its upward fluctuations would be preferred.
        source = sound & ((restored if "clean_variance" in target else clean) > SOURCE_THRESHOLD)
        error2 = (restored - clean).square()
        terms = {
            "n_sound": sound.double().sum(),
            "restored": (error2 / sigma2)[sound].double().sum(),
            "noisy": ((target["signal"] - clean).square() / sigma2)[sound].double().sum(),
            "excess": (restored - clean)[source].double().sum(),
            "flux": clean[source].double().sum(),
            "n_defect": defect.double().sum(),
            "defect": error2[defect].double().sum(),
        }
        self.sums += torch.stack([terms[name] for name in _TERMS])

    def compute(self) -> dict[str, float]:
        """`gain_db`: how far the error of sound pixels fell below the noisy frame's, both in units of the noise.
        `flux_bias`: relative excess of restored flux on source pixels. `defect_rmse`: in units of the background
        noise; NaN where no defect is known.
        """
        sums = dict(zip(_TERMS, self.sums.tolist(), strict=True))
        ratio = sums["restored"] / max(sums["noisy"], 1e-30)
        return {
            "gain_db": -10 * float(np.log10(max(ratio, 1e-30))),
            "flux_bias": sums["excess"] / sums["flux"] if sums["flux"] else float("nan"),
            "defect_rmse": float(np.sqrt(sums["defect"] / sums["n_defect"])) if sums["n_defect"] else float("nan"),
        }


OBJECTIVE = DenoiseObjective
