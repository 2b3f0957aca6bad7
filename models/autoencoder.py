"""Convolutional autoencoder for whole frames: maps in, maps of the same size out, with or without skip connections.

The network predicts corrections of photometric images, which decides its form:

- no normalisation layers: statistics of a tile or batch would tie a star's flux to what else is in the tile, and a
  frame cut into tiles would show seams ([3] removed them for super-resolution);
- the first output map starts at exactly zero, so that "input + correction" starts as the identity;
- a pixel-unshuffle stem moves each 2x2 pixels into channels and the head moves them back: nothing is lost, every
  layer runs on a quarter of the pixels;
- size is reduced by strided convolutions and recovered by transposed convolutions whose kernel is the stride, so that
  each output pixel gets the same number of contributions (no checkerboard [4]);
- convolutions pad with zeros, and a frame's height and width are multiples of `size_multiple`: the caller pads
  the frame.

Parameters, with c input channels, n output maps, width w, depth d, m convolutions per level, r = unshuffle,
w_i = 2^i w and s = 2 with skips, 1 without:

    stem                (9 c r^2 + 1) w
    level i = 0..d-1    m (9 w_i + 1) w_i                   before each reduction
    reduction           (9 w_i + 1) w_{i+1}
    deepest level       m (9 w_d + 1) w_d
    expansion           (4 w_{i+1} + 1) w_i
    decoder level i     (9 s w_i + 1) w_i + (m - 1) (9 w_i + 1) w_i
    head                (9 w + 1) n r^2

References
----------
.. [1] Mao, Shen, Yang (2016), "Image restoration using very deep convolutional encoder-decoder networks with symmetric
   skip connections", arXiv:1603.09056.
.. [2] Ronneberger, Fischer, Brox (2015), "U-Net", arXiv:1505.04597: skip connections by concatenation.
.. [3] Lim, Son, Kim, Nah, Lee (2017), "Enhanced deep residual networks for single image super-resolution",
   arXiv:1707.02921, section 3.1: batch normalisation removed.
.. [4] Odena, Dumoulin, Olah (2016), "Deconvolution and checkerboard artifacts", doi:10.23915/distill.00003.
.. [5] Lehtinen et al. (2018), "Noise2Noise", arXiv:1803.04189, appendix: leaky ReLU of slope 0.1 in a denoiser.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from models.registry import register_model
from models.tile_model import FeatureInfo

NEGATIVE_SLOPE = 0.1  # [5]


class ConvAutoencoder(nn.Module):
    """Encoder of strided convolutions, decoder of transposed ones.

    Parameters
    ----------
    in_chans, num_outputs
        Number of input maps and of output maps.
    width
        Channels of the first level; each reduction doubles them.
    depth
        Number of reductions by two, besides the stem's.
    convs
        3x3 convolutions per level.
    skips
        Hand each level's features past the deeper ones, by concatenation (U-Net).
    unshuffle
        Side of the pixel block that the stem moves into channels; 1 for none.
    zero_init
        Start the first output map at zero.

    Attributes
    ----------
    size_multiple : int
        Height and width of a frame must be multiples of it; it is the smallest frame, too (`min_size`).
    """

    def __init__(
        self,
        in_chans: int = 1,
        num_outputs: int = 1,
        *,
        width: int = 24,
        depth: int = 2,
        convs: int = 1,
        skips: bool = False,
        unshuffle: int = 2,
        zero_init: bool = True,
    ) -> None:
        super().__init__()
        for argument, value, least in (("width", width, 1), ("depth", depth, 0), ("convs", convs, 1)):
            if value < least:
                raise ValueError(f"{argument} of an autoencoder must be at least {least}, got {value}")
        if unshuffle not in (1, 2, 4):
            raise ValueError(f"unshuffle of an autoencoder must be 1, 2 or 4, got {unshuffle}")
        self.in_chans = in_chans
        self.skips = skips
        self.unshuffle = unshuffle
        self.zero_init = zero_init
        self.size_multiple = self.min_size = unshuffle * 2**depth

        chans = [width * 2**level for level in range(depth + 1)]
        self.stem = nn.Sequential(nn.PixelUnshuffle(unshuffle), *_conv_act(in_chans * unshuffle**2, width))
        self.encoder = nn.ModuleList(_level(count, count, convs) for count in chans)
        self.reduce = nn.ModuleList(
            nn.Sequential(*_conv_act(fine, coarse, stride=2)) for fine, coarse in pairwise(chans)
        )
        self.expand = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(coarse, fine, 2, stride=2), nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True))
            for fine, coarse in pairwise(chans)
        )
        self.decoder = nn.ModuleList(_level(fine * (1 + skips), fine, convs) for fine in chans[:-1])
        self.feature_info = [
            FeatureInfo(f"encoder.{level}", count, unshuffle * 2**level) for level, count in enumerate(chans)
        ]
        self._init_weights()
        self.reset_head(num_outputs)

    def _init_weights(self) -> None:
        """He et al.'s normal initialisation (arXiv:1502.01852, Eq. 14) with the slope of the leaky ReLU."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(layer.weight, a=NEGATIVE_SLOPE)
                nn.init.zeros_(layer.bias)
            if isinstance(layer, nn.ConvTranspose2d):
                # kernel = stride: each output pixel has one contribution per input channel, which torch cannot know
                with torch.no_grad():
                    layer.weight *= (layer.weight[0].numel() / layer.in_channels) ** 0.5

    def reset_head(self, num_outputs: int) -> None:
        """Draw a new last convolution with `num_outputs` maps; everything before it keeps its weights."""
        width = self.encoder[0][-2].out_channels
        like = self.stem[1].weight
        last = nn.Conv2d(width, num_outputs * self.unshuffle**2, 3, padding=1, device=like.device, dtype=like.dtype)
        nn.init.kaiming_normal_(last.weight, nonlinearity="linear")
        nn.init.zeros_(last.bias)
        if self.zero_init:
            with torch.no_grad():
                last.weight[: self.unshuffle**2] = 0
        self.head = nn.Sequential(last, nn.PixelShuffle(self.unshuffle))

    def forward_features(self, x: Tensor) -> Tensor:
        """Frames (N, C, H, W) to the decoder's last features (N, width, H / unshuffle, W / unshuffle)."""
        self.check_frame(x)
        x = self.encoder[0](self.stem(x))
        passed = []
        for reduce, level in zip(self.reduce, self.encoder[1:], strict=True):
            passed.append(x)
            x = level(reduce(x))
        for expand, level in zip(reversed(self.expand), reversed(self.decoder), strict=True):
            x = expand(x)
            fine = passed.pop()
            x = level(torch.cat([x, fine], dim=1) if self.skips else x)
        return x

    def forward_head(self, features: Tensor, scalars: None = None) -> Tensor:
        """The decoder's features to maps (N, num_outputs, H, W)."""
        if scalars is not None:
            raise ValueError(f"{type(self).__name__} gives maps and takes no scalars")
        return self.head(features)

    def forward(self, x: Tensor, scalars: None = None) -> Tensor:
        return self.forward_head(self.forward_features(x), scalars)

    def check_frame(self, x: Tensor) -> None:
        """Refuse frames that the network cannot take.

        Raises
        ------
        ValueError
            For another number of channels, or a height or width that is no multiple of `size_multiple`.
        """
        if torch.compiler.is_compiling():  # in an exported graph a test of the shape would freeze it
            return
        name = type(self).__name__
        if x.ndim != 4 or x.shape[1] != self.in_chans:
            raise ValueError(f"{name} was built for frames (N, {self.in_chans}, H, W), got {tuple(x.shape)}")
        height, width = x.shape[2:]
        multiple = self.size_multiple
        if height < multiple or width < multiple or height % multiple or width % multiple:
            raise ValueError(
                f"a frame of {height} x {width} px does not fit {name}; height and width must be multiples of "
                f"{multiple} px: pad the frame"
            )


def _conv_act(in_chans: int, out_chans: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(in_chans, out_chans, 3, stride, padding=1), nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True)]


def _level(in_chans: int, out_chans: int, convs: int) -> nn.Sequential:
    layers = _conv_act(in_chans, out_chans)
    for _ in range(convs - 1):
        layers += _conv_act(out_chans, out_chans)
    return nn.Sequential(*layers)


# Counts of the reference configurations by the formula above: c = 2, n = 3, w = 24, d = 2, m = 1, r = 2.
_REF = {"in_chans": 2, "num_outputs": 3}


@register_model(paper="arXiv:1603.09056", ref=_REF, num_params=214_476, takes="frame", gives="map")
def conv_autoencoder(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ConvAutoencoder:
    """Convolutional autoencoder for frames of any size."""
    return ConvAutoencoder(in_chans, num_outputs, **kwargs)


@register_model(paper="arXiv:1505.04597", ref=_REF, num_params=240_396, takes="frame", gives="map")
def unet(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ConvAutoencoder:
    """The autoencoder with skip connections (U-Net)."""
    return ConvAutoencoder(in_chans, num_outputs, **({"skips": True} | kwargs))
