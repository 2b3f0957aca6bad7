"""Conditional variational autoencoder of camera images: from a few numbers about a shower to its photo-electrons.

An encoder sees an image and gives the Gaussian of a latent vector z. A decoder makes of such a vector, and of the
conditions c (energy, impact ...), the share of the photo-electrons in each cell of the image, and when they arrive.
What is compared is what a camera measures: shares are added up over the cells of a pixel, p, because a decoder that
were asked for the cells themselves would learn an image that the pixels have blurred once more.

The number N of photo-electrons is one of the conditions. No decoder has all the fine structure of an image: the light
of a pixel follows a gamma distribution with the mean N p and the shape a p, where the decoder states the concentration
a, too. Its photo-electrons n then follow a negative binomial law [6]_, those of all pixels given that they are N. Where
a is the same everywhere, this is the Dirichlet-multinomial law [5]_; but the core of a shower scatters otherwise than
its outskirts. Nor has a decoder all that moves arrival times: a pixel's measured time is normal about the stated one,
with the variance s^2 + u^2 / n + v^2 / n^2, where the decoder states s and u, and v, one number for all images, is what
the noise of the electronics does to a pulse. The loss is a bound of the likelihood [1]_ in nats:

    -log P(n | N, p, a)  +  sum of time terms  +  log q(z | x, c) - log p(z | c)

`conv_vae` takes independent normal numbers for p(z | c). What the encoder leaves of the images is never quite that,
and vectors that no image had are decoded to images that no shower has: `conv_flow` therefore learns p(z | c), as normal
numbers that affine couplings [2]_ bend [3]_. One vector does not hold the sub-showers of an image: between its levels,
the decoder also takes a map of normal numbers (`Details`). A forward pass gives the terms of the loss; `generator` is
what remains of the network after training.

References
----------
.. [1] Kingma & Welling (2014), "Auto-encoding variational Bayes", arXiv:1312.6114; with conditions: Sohn et al. (2015).
.. [2] Dinh, Sohl-Dickstein & Bengio (2017), "Density estimation using Real NVP", arXiv:1605.08803, Eq. 7-8.
.. [3] Chen et al. (2017), "Variational lossy autoencoder", arXiv:1611.02731, section 3.2: a learnt prior.
.. [4] Perez et al. (2018), "FiLM", arXiv:1709.07871: conditions as scale and shift of every feature map.
.. [5] Mosimann (1962), Biometrika 49, 65.
.. [6] Greenwood & Yule (1920), J. R. Stat. Soc. 83, 255: Poisson numbers whose means follow a gamma distribution.
.. [7] Sonderby et al. (2016), "Ladder variational autoencoders", arXiv:1602.02282.
"""

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.registry import register_model

#: Channels of an image: photo-electrons per cell, a pixel's equally shared among its cells; arrival time of the pixel
#: [ns], where it is known; where that is; and the pixel, counted from 1, as multiples of `PIXEL_BASE` and the rest
#: (half precision holds no large integers), 0 outside the camera. There nothing is known, so nothing is learnt.
IMAGE_CHANNELS = 5
PIXEL_BASE = 256
#: What a forward pass gives per image [nats]: of the photo-electrons, of their times, of the latent vector, and of the
#: latent map.
LOSS_TERMS = 4

_SEEN = 4  # channels that the encoder reads: which pixel it is says nothing
_TIME_SCALE_NS = 10.0
_NOWHERE = -1e4  # logit of a cell outside the camera
_LOG_STD = (-6.0, 3.0)  # of latent numbers
_FIRST_LOG_STD = -2.0
_FIRST_LOG_STD_OF_DETAILS = -0.1
_LOG_CONCENTRATION = (0.0, 12.0)
_FIRST_LOG_CONCENTRATION = 5.0
_LOG_TIME_STD = (-3.0, 4.0)  # of arrival times, of log(ns)
_FIRST_LOG_TIME_STD = 1.0
_SMALLEST_SHARE = 1e-12
_DETAIL_CELLS = 4  # along each side, for each latent number of the map
_LEVELS = 4  # halvings from the cells to the coarsest maps


class ConvVAE(nn.Module):
    """Encoder, prior and decoder of images in a square of cells.

    Parameters
    ----------
    in_chans : int
        `IMAGE_CHANNELS`.
    num_outputs : int
        `LOSS_TERMS`.
    n_scalars : int
        Conditions of an image.
    size : int
        Rows and columns of an image, a multiple of 16.
    width : int
        Channels of the finest maps; coarser ones have up to three times as many.
    latent : int
        Length of the latent vector.
    couplings : int
        Affine couplings of the prior; 0: normal numbers.
    details : int
        Channels of the latent map, a quarter of the image's rows and columns; 0: none.
    max_pixels : int
        No camera has more of them.
    """

    def __init__(
        self,
        in_chans: int = IMAGE_CHANNELS,
        num_outputs: int = LOSS_TERMS,
        *,
        n_scalars: int = 0,
        size: int = 64,
        width: int = 32,
        latent: int = 24,
        couplings: int = 0,
        details: int = 2,
        max_pixels: int = 4096,
    ) -> None:
        super().__init__()
        if (in_chans, num_outputs) != (IMAGE_CHANNELS, LOSS_TERMS):
            raise ValueError(
                f"a generative network reads {IMAGE_CHANNELS} channels and gives {LOSS_TERMS} terms of its loss, "
                f"got in_chans {in_chans} and num_outputs {num_outputs}"
            )
        for argument, value, least in (
            ("width", width, 8),
            ("latent", latent, 2),
            ("couplings", couplings, 0),
            ("details", details, 0),
        ):
            if value < least:
                raise ValueError(f"{argument} of a generative network must be at least {least}, got {value}")
        if size % 2**_LEVELS or size < 2**_LEVELS:
            raise ValueError(f"size of a generative network must be a multiple of {2**_LEVELS}, got {size}")
        self.in_chans, self.n_scalars = in_chans, n_scalars
        self.vector, self.details = latent, details
        self.size = self.min_size = size
        self.max_pixels = max_pixels
        chans = [width, 3 * width // 2, 2 * width, 3 * width]
        self.encoder = Encoder(chans, size, latent, n_scalars)
        self.prior = nn.ModuleList(Coupling(latent, n_scalars, flip=bool(n % 2)) for n in range(couplings))
        self.decoder = Decoder(chans, size, latent, n_scalars, details)
        self.log_time_noise = nn.Parameter(torch.tensor(0.0))  # log(ns), of one photo-electron
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d) and layer.weight.any():  # not those that start at zero
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
        nn.init.normal_(self.decoder.out[0].weight, std=0.01)

    def forward(self, x: Tensor, scalars: Tensor | None = None) -> Tensor:
        """Images (N, 5, H, W) and conditions (N, n_scalars) to the terms of the loss, (N, 4) [nats].

        In evaluation the latent vector is the same draw for the same place in a batch, so that losses compare.
        """
        self.check_tile(x)
        scalars = x.new_zeros(len(x), 0) if scalars is None else scalars
        mean, log_std, seen = self.encoder(x, scalars)
        generator = None if self.training else torch.Generator(x.device).manual_seed(0)
        noise = torch.randn(len(x), self.latent, generator=generator, device=x.device)
        of_vector, of_details = noise.split([self.vector, self.latent - self.vector], dim=1)
        z = mean + log_std.exp() * of_vector
        divergence = -(log_std + 0.5 * of_vector.square()).sum(1) - self._log_prior(z, scalars)
        *maps, of_map = self.decoder(z, scalars, of_details, seen)
        return torch.stack([*self._terms(x, *maps), divergence, of_map.expand_as(divergence)], dim=1)

    @property
    def latent(self) -> int:
        """Normal numbers that an image is made of."""
        return self.vector + self.details * (self.size // _DETAIL_CELLS) ** 2

    def _terms(
        self, x: Tensor, logits: Tensor, time: Tensor, log_concentration: Tensor, log_time_stds: Tensor
    ) -> tuple[Tensor, Tensor]:
        light, measured, timed, multiples, rest = x.float().flatten(2).unbind(1)
        pixel = (PIXEL_BASE * multiples + rest).round().long()

        def in_pixels(values: Tensor) -> Tensor:
            """Sums over the cells of each pixel, (N, max_pixels); those outside the camera are left out."""
            sums = values.new_zeros(len(values), self.max_pixels + 1)
            return sums.scatter_add(1, pixel, values)[:, 1:]

        share = logits.flatten(1).masked_fill(pixel == 0, _NOWHERE).softmax(1)
        n, p = in_pixels(light), in_pixels(share).clamp(min=_SMALLEST_SHARE)
        size = n.sum(1)
        concentration = (in_pixels(share * log_concentration.flatten(1)) / p).exp()
        log_likelihood = _log_negative_binomial(n, size[:, None] * p, concentration * p).sum(1)
        log_likelihood -= _log_negative_binomial(size, size, (concentration * p).sum(1))
        cells = in_pixels(timed)
        is_timed = cells > 0
        difference = in_pixels(measured * timed) / cells.clamp(min=1) - in_pixels(share * time.flatten(1)) / p
        of_all, per_electron = (2 * log_time_stds).exp().unbind(1)
        of_noise = (2 * self.log_time_noise.float()).exp()
        variance = of_all[:, None] + (per_electron[:, None] + of_noise / n.clamp(min=1)) / n.clamp(min=1)
        times = torch.where(is_timed, 0.5 * (difference.square() / variance + (variance / _TIME_SCALE_NS**2).log()), 0)
        return -log_likelihood, times.sum(1)

    def _log_prior(self, z: Tensor, scalars: Tensor) -> Tensor:
        """Log p(z | c), without the constant that it shares with the posterior's."""
        log_det = z.new_zeros(len(z))
        with torch.autocast(z.device.type, enabled=False):  # an inverse must be one
            for coupling in self.prior:
                z, change = coupling(z.float(), scalars.float())
                log_det = log_det + change
        return log_det - 0.5 * z.square().sum(1)

    def generator(self) -> "Generator":
        """What makes images: normal numbers and conditions in, shares and times out."""
        return Generator(self)

    def reset_head(self, num_outputs: int) -> None:
        """Refused: the network has no last layer for another task."""
        raise ValueError(f"{type(self).__name__} generates images and has no head for {num_outputs} other outputs")

    def check_tile(self, x: Tensor) -> None:
        """Refuse images that the network cannot take.

        Raises
        ------
        ValueError
            For another number of channels or another size.
        """
        if torch.compiler.is_compiling():  # in an exported graph a test of the shape would freeze it
            return
        if x.ndim != 4 or x.shape[1:] != (self.in_chans, self.size, self.size):
            raise ValueError(
                f"{type(self).__name__} was built for images (N, {self.in_chans}, {self.size}, {self.size}), "
                f"got {tuple(x.shape)}"
            )


class Generator(nn.Module):
    """The generating part of a `ConvVAE`.

    Parameters
    ----------
    network : ConvVAE
        Its parts are used, not copied.
    """

    def __init__(self, network: ConvVAE) -> None:
        super().__init__()
        self.prior, self.decoder = network.prior, network.decoder
        self.vector = network.vector

    def forward(self, noise: Tensor, scalars: Tensor) -> Tensor:
        """Normal numbers (N, latent) and conditions (N, n_scalars) to (N, 5, H, W).

        The maps are the share of the photo-electrons in each cell, their mean arrival time [ns], the concentration of
        their distribution, and, the same everywhere, the standard deviations s and u of the mean times of pixels [ns].
        """
        z = noise[:, : self.vector]
        for coupling in reversed(self.prior):
            z = coupling.inverse(z, scalars)
        logits, time, log_concentration, log_time_stds, _ = self.decoder(z, scalars, noise[:, self.vector :])
        share = logits.flatten(1).softmax(1).view_as(logits)
        everywhere = log_time_stds.exp()[:, :, None, None].expand(-1, -1, *share.shape[1:])
        return torch.cat([torch.stack([share, time, log_concentration.exp()], dim=1), everywhere], dim=1)


def _log_negative_binomial(n: Tensor, mean: Tensor, shape: Tensor) -> Tensor:
    """Log P(n) of Poisson numbers whose means follow a gamma distribution [6]_."""
    both = (mean + shape).log()
    law = torch.lgamma(n + shape) - torch.lgamma(shape) - torch.lgamma(n + 1)
    # All the light of a few images is beside their tile: of nothing, nothing is expected.
    return law + shape * (shape.log() - both) + n * (mean.clamp(min=_SMALLEST_SHARE).log() - both)


class Encoder(nn.Module):
    """Image and conditions to mean and log standard deviation of the latent vector, and what it saw of the details."""

    def __init__(self, chans: list[int], size: int, latent: int, n_scalars: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * _SEEN, chans[0], 3, padding=1), nn.SiLU())
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Conv2d(fine, coarse, 3, 2, padding=1), nn.SiLU(), nn.Conv2d(coarse, coarse, 3, padding=1))
            for fine, coarse in pairwise(chans)
        )
        cells = (size // 2**_LEVELS) ** 2
        hidden = 4 * chans[0]
        # Normalised, so that the latent vector says something of the image from the first step on: a decoder that finds
        # noise alone learns to do without.
        self.mix = nn.Sequential(nn.Linear(chans[-1] * cells + n_scalars, hidden), nn.SiLU(), nn.LayerNorm(hidden))
        self.out = nn.Linear(hidden, 2 * latent)
        nn.init.normal_(self.out.weight, std=hidden**-0.5)
        with torch.no_grad():
            self.out.weight[latent:] *= 0.1
            self.out.bias[latent:] = _FIRST_LOG_STD

    def forward(self, x: Tensor, scalars: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        light, time, timed, multiples, rest = x.split(1, dim=1)
        inside = (multiples + rest > 0).to(x.dtype)
        x = self.stem(torch.cat([torch.asinh(light), timed * time / _TIME_SCALE_NS, timed, inside], dim=1))
        seen = x = F.silu(self.levels[0](x))
        for level in self.levels[1:]:
            x = F.silu(level(x))
        mean, log_std = self.out(self.mix(torch.cat([x.flatten(1), scalars], dim=1))).float().chunk(2, dim=1)
        return mean, log_std.clamp(*_LOG_STD), seen


class Decoder(nn.Module):
    """Latent vector and conditions to maps: logits of the shares, times [ns] and logarithm of the concentration; and to
    the logarithms of two standard deviations of times [ns], (N, 2).
    """

    def __init__(self, chans: list[int], size: int, latent: int, n_scalars: int, details: int) -> None:
        super().__init__()
        self.side = size // 2**_LEVELS
        hidden = 4 * chans[0]
        self.details = Details(chans[1], details) if details else None
        self.embed = nn.Sequential(
            nn.Linear(latent + n_scalars, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()
        )
        self.start = nn.Linear(hidden, chans[-1] * self.side**2)
        coarse_to_fine = list(reversed(chans))
        self.levels = nn.ModuleList(DecoderLevel(a, b, hidden) for a, b in pairwise(coarse_to_fine))
        self.out = nn.Sequential(nn.Conv2d(chans[0], 12, 3, padding=1), nn.PixelShuffle(2))
        self.spreads = nn.Linear(hidden, 3)
        with torch.no_grad():
            self.spreads.bias.copy_(torch.tensor([_FIRST_LOG_CONCENTRATION, *2 * [_FIRST_LOG_TIME_STD]]))

    def forward(
        self, z: Tensor, scalars: Tensor, noise: Tensor, seen: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        embedded = self.embed(torch.cat([z, scalars], dim=1))
        x = self.start(embedded).unflatten(1, (-1, self.side, self.side))
        divergence = z.new_zeros(())
        for level in self.levels:
            x = level(x, embedded)
            if self.details is not None and level is self.levels[-2]:
                x, divergence = self.details(x, noise, seen)
        logits, time, about_mean = self.out(x).float().unbind(1)
        spreads = self.spreads(embedded).float()
        log_concentration = (spreads[:, :1, None] + about_mean).clamp(*_LOG_CONCENTRATION)
        return logits, _TIME_SCALE_NS * time, log_concentration, spreads[:, 1:].clamp(*_LOG_TIME_STD), divergence


class Details(nn.Module):
    """A map of latent numbers among the maps of the decoder [7]_: the structure that one vector cannot hold.

    In training, their Gaussians follow from the decoder's maps `x` and what the encoder saw, both (N, chans, H, W);
    without it, they are normal numbers: `noise`, (N, details * H * W). It gives the maps with them, and the divergence
    from the prior (N,) [nats].
    """

    def __init__(self, chans: int, details: int) -> None:
        super().__init__()
        self.posterior = nn.Sequential(
            nn.Conv2d(2 * chans, chans, 3, padding=1), nn.SiLU(), nn.Conv2d(chans, 2 * details, 1)
        )
        self.into = nn.Sequential(
            nn.Conv2d(chans + details, chans, 3, padding=1), nn.SiLU(), nn.Conv2d(chans, chans, 3, padding=1)
        )
        self.details = details

    def forward(self, x: Tensor, noise: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:
        z = noise.unflatten(1, (self.details, *x.shape[2:]))
        divergence = z.new_zeros(())
        if seen is not None:
            mean, log_std = self.posterior(torch.cat([x, seen], dim=1)).float().chunk(2, dim=1)
            log_std = (log_std + _FIRST_LOG_STD_OF_DETAILS).clamp(*_LOG_STD)
            z = mean + log_std.exp() * z
            divergence = (0.5 * ((2 * log_std).exp() + mean.square() - 1) - log_std).sum((1, 2, 3))
        return x + self.into(torch.cat([x, z.to(x.dtype)], dim=1)), divergence


class DecoderLevel(nn.Module):
    """Twice the size: a transposed convolution whose kernel is its stride, FiLM, and two convolutions, one of them past
    a shortcut.
    """

    def __init__(self, coarse: int, fine: int, n_embedded: int) -> None:
        super().__init__()
        self.expand = nn.ConvTranspose2d(coarse, fine, 2, stride=2)
        self.film = nn.Linear(n_embedded, 2 * fine)
        self.first = nn.Conv2d(fine, fine, 3, padding=1)
        self.second = nn.Conv2d(fine, fine, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        x = self.expand(x)
        scale, shift = self.film(embedded)[:, :, None, None].chunk(2, dim=1)
        x = F.silu(x * (1 + scale) + shift)
        return x + self.second(F.silu(self.first(x)))


class Coupling(nn.Module):
    """One half of the numbers scales and shifts the other [2]_; it starts as the identity."""

    def __init__(self, latent: int, n_scalars: int, *, flip: bool, hidden: int = 64) -> None:
        super().__init__()
        self.flip, self.kept = flip, latent // 2
        moved = latent - self.kept
        self.net = nn.Sequential(
            nn.Linear(self.kept + n_scalars, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(),
            nn.Linear(hidden, 2 * moved),
        )  # fmt: skip
        nn.init.zeros_(self.net[-1].weight)
        nn.init.zeros_(self.net[-1].bias)

    def _affine(self, kept: Tensor, scalars: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift = self.net(torch.cat([kept, scalars], dim=1)).chunk(2, dim=1)
        return 2 * torch.tanh(log_scale / 2), shift

    def _split(self, z: Tensor) -> tuple[Tensor, Tensor]:
        z = z.flip(1) if self.flip else z
        return z[:, : self.kept], z[:, self.kept :]

    def _joined(self, kept: Tensor, moved: Tensor) -> Tensor:
        z = torch.cat([kept, moved], dim=1)
        return z.flip(1) if self.flip else z

    def forward(self, z: Tensor, scalars: Tensor) -> tuple[Tensor, Tensor]:
        """From latent vectors towards normal numbers, and log |det| of that."""
        kept, moved = self._split(z)
        log_scale, shift = self._affine(kept, scalars)
        return self._joined(kept, moved * log_scale.exp() + shift), log_scale.sum(1)

    def inverse(self, z: Tensor, scalars: Tensor) -> Tensor:
        """From normal numbers towards latent vectors."""
        kept, moved = self._split(z)
        log_scale, shift = self._affine(kept, scalars)
        return self._joined(kept, (moved - shift) * (-log_scale).exp())


_REF = {"in_chans": IMAGE_CHANNELS, "num_outputs": LOSS_TERMS, "n_scalars": 4}


@register_model(paper="arXiv:1312.6114", ref=_REF, num_params=966_660, takes="image", gives="image")
def conv_vae(in_chans: int = IMAGE_CHANNELS, num_outputs: int = LOSS_TERMS, **kwargs: Any) -> ConvVAE:
    """Conditional variational autoencoder that makes camera images, with a normal prior."""
    return ConvVAE(in_chans, num_outputs, **kwargs)


@register_model(paper="arXiv:1611.02731", ref=_REF, num_params=1_007_508, takes="image", gives="image")
def conv_flow(in_chans: int = IMAGE_CHANNELS, num_outputs: int = LOSS_TERMS, **kwargs: Any) -> ConvVAE:
    """The same with a prior of affine couplings that is learnt."""
    return ConvVAE(in_chans, num_outputs, **({"couplings": 6} | kwargs))
