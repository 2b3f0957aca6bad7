"""Densely connected networks: each layer reads the maps of all layers before it in its block.

=====================  ==========  ======================================================
entry                  parameters  source of the count
=====================  ==========  ======================================================
`densenet40_k12`        1,019,722  computed, 10 classes; 1.0 M in [1], Table 2
`densenet_bc100_k12`      769,162  computed, 10 classes; 0.8 M there
`densenet_bc250_k24`   15,324,406  computed, 10 classes; 15.3 M there
`densenet_bc190_k40`   25,624,430  computed, 10 classes; 25.6 M there
`densenet121`           7,978,856  torchvision 0.29.1, measured
`densenet169`          14,149,480  torchvision 0.29.1, measured
`densenet201`          20,013,928  torchvision 0.29.1, measured
`densenet161`          28,681,000  torchvision 0.29.1, measured
=====================  ==========  ======================================================

A layer is BN ReLU conv 3x3 with k outputs (k: growth rate); with bottleneck (B), BN ReLU conv 1x1 with 4 k outputs
comes before. Between the blocks, BN ReLU conv 1x1 and 2x2 average pooling; with compression (C), that convolution
halves the channels. The memory of a block in training grows with the square of its number of layers, by the
concatenations.

Departures from the paper: the head pools whatever map arrives, so that any tile of `min_size` or more is accepted;
`stem="stride2"` is for small tiles.

References
----------
.. [1] Huang, Liu, van der Maaten, Weinberger (2017), "Densely connected convolutional networks", arXiv:1608.06993,
   section 3 and Table 1.
.. [2] https://github.com/liuzhuang13/DenseNet, models.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from models.heads import Head
from models.layers import DropChannels, init_he_normal
from models.registry import register_model
from models.tile_model import FeatureInfo, TileModel

STEMS = ("imagenet", "stride2", "cifar")
BOTTLENECK_FACTOR = 4  # [1], section 3: each 1x1 convolution makes 4 k maps


class DenseLayer(nn.Sequential):
    """What a layer adds to the maps that it reads.

    Parameters
    ----------
    in_chans
        Channels of all maps before it.
    growth_rate
        Channels of its output.
    bottleneck
        Whether a 1x1 convolution reads them first.
    drop_rate
        Dropout behind each convolution.
    drop_channels
        Whether it drops whole maps instead of single elements.
    """

    def __init__(
        self, in_chans: int, growth_rate: int, bottleneck: bool, drop_rate: float, drop_channels: bool = False
    ) -> None:
        layers: list[nn.Module] = []
        if bottleneck:
            inner = BOTTLENECK_FACTOR * growth_rate
            layers += [*_bn_relu(in_chans), nn.Conv2d(in_chans, inner, 1, bias=False)]
            layers += _dropout(drop_rate, drop_channels)
            in_chans = inner
        layers += [*_bn_relu(in_chans), nn.Conv2d(in_chans, growth_rate, 3, padding=1, bias=False)]
        super().__init__(*layers, *_dropout(drop_rate, drop_channels))


class DenseBlock(nn.ModuleList):
    """Layers of which each appends its maps to those that it reads ([1], Eq. 2)."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = torch.cat([x, layer(x)], dim=1)
        return x


class DenseNet(TileModel):
    """DenseNet and DenseNet-BC, for ImageNet and for CIFAR ([1], section 3).

    Parameters
    ----------
    in_chans, num_outputs
        Channels of the tiles, length of the output vector.
    growth_rate
        Maps that a layer adds; it sets the width of the network.
    depths
        Number of layers per block.
    bottleneck
        Whether layers have a 1x1 convolution before the 3x3.
    compression
        Factor on the number of maps between two blocks, in (0, 1].
    init_chans
        Channels of the stem; twice the growth rate if not given.
    stem
        ``imagenet``: 7x7 stride 2 and 3x3 max pooling of stride 2; ``stride2``: 3x3 stride 2 with normalisation;
        ``cifar``: 3x3 stride 1, bare.
    conv_drop_rate
        Dropout behind each convolution of the layers and between blocks (0.2 in [1] where data are not augmented).
    drop_channels
        Whether that drops whole maps instead of single elements.
    drop_rate
        Dropout before the last layer.
    n_scalars
        Scalars per tile joined to the pooled features.
    scalars_hidden
        Width of the scalars' own layers and of the one after that join.
    """

    def __init__(
        self,
        in_chans: int = 1,
        num_outputs: int = 1,
        *,
        growth_rate: int = 32,
        depths: Sequence[int] = (6, 12, 24, 16),
        bottleneck: bool = True,
        compression: float = 0.5,
        init_chans: int | None = None,
        stem: Literal["imagenet", "stride2", "cifar"] = "imagenet",
        conv_drop_rate: float = 0.0,
        drop_channels: bool = False,
        drop_rate: float = 0.0,
        n_scalars: int = 0,
        scalars_hidden: int = 64,
    ) -> None:
        super().__init__()
        if stem not in STEMS:
            raise ValueError(f"stem of a DenseNet must be one of {', '.join(STEMS)}, got {stem!r}")
        if not depths or min(depths) < 1:
            raise ValueError(f"depths of a DenseNet are the numbers of layers per block, each at least 1, got {depths}")
        for argument, value in (("growth_rate", growth_rate), ("init_chans", init_chans)):
            if value is not None and value < 1:
                raise ValueError(f"{argument} of a DenseNet must be at least 1, got {value}")
        if not 0 < compression <= 1:
            raise ValueError(f"compression of a DenseNet must be in (0, 1], got {compression}")
        self.in_chans = in_chans
        chans = init_chans or 2 * growth_rate
        self.stem, reduction = _stem(stem, in_chans, chans)
        self.feature_info = []
        stages = []
        for index, depth in enumerate(depths):
            if index:
                compressed = max(int(chans * compression), 1)
                stages.append(_transition(chans, compressed, conv_drop_rate, drop_channels))
                chans = compressed
                reduction *= 2
            layers = [
                DenseLayer(chans + position * growth_rate, growth_rate, bottleneck, conv_drop_rate, drop_channels)
                for position in range(depth)
            ]
            chans += depth * growth_rate
            self.feature_info.append(FeatureInfo(f"stages.{len(stages)}", chans, reduction))
            stages.append(DenseBlock(layers))
        self.stages = nn.Sequential(*stages)
        self.last = nn.Sequential(*_bn_relu(chans))
        self.feature_info[-1] = FeatureInfo("last", chans, reduction)
        self.min_size = reduction
        init_he_normal(self)
        self.head = Head(chans, num_outputs, n_scalars, scalars_hidden, drop_rate)

    def forward_features(self, x: Tensor) -> Tensor:
        self.check_tile(x)
        return self.last(self.stages(self.stem(x)))


def _bn_relu(chans: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(chans), nn.ReLU(inplace=True)]


def _dropout(rate: float, channels: bool) -> list[nn.Module]:
    if not rate:
        return []
    return [DropChannels(rate) if channels else nn.Dropout(rate)]


def _transition(in_chans: int, out_chans: int, drop_rate: float, drop_channels: bool) -> nn.Sequential:
    """What halves the size between two blocks."""
    convolution = nn.Conv2d(in_chans, out_chans, 1, bias=False)
    return nn.Sequential(*_bn_relu(in_chans), convolution, *_dropout(drop_rate, drop_channels), nn.AvgPool2d(2))


def _stem(kind: str, in_chans: int, chans: int) -> tuple[nn.Sequential, int]:
    """The first layers and their total stride."""
    if kind == "imagenet":
        first = nn.Conv2d(in_chans, chans, 7, 2, padding=3, bias=False)
        return nn.Sequential(first, *_bn_relu(chans), nn.MaxPool2d(3, stride=2, padding=1)), 4
    if kind == "stride2":
        return nn.Sequential(nn.Conv2d(in_chans, chans, 3, 2, padding=1, bias=False), *_bn_relu(chans)), 2
    # bare: the first layer of the first block begins with a normalisation
    return nn.Sequential(nn.Conv2d(in_chans, chans, 3, padding=1, bias=False)), 1


def _densenet(in_chans: int, num_outputs: int, kwargs: dict[str, Any], **entry: Any) -> DenseNet:
    """An entry is a set of defaults: every one of them may be named otherwise."""
    return DenseNet(in_chans, num_outputs, **(entry | kwargs))


def _cifar_bc(layers: int, growth_rate: int, in_chans: int, num_outputs: int, kwargs: dict[str, Any]) -> DenseNet:
    """Three blocks of (L - 4) / 6 layers of two convolutions each."""
    entry = {"depths": ((layers - 4) // 6,) * 3, "growth_rate": growth_rate, "stem": "cifar"}
    return _densenet(in_chans, num_outputs, kwargs, **entry)


_PAPER = "arXiv:1608.06993"
_CIFAR = {"paper": _PAPER, "ref": {"in_chans": 3, "num_outputs": 10}}
_IMAGENET = {"paper": _PAPER, "ref": {"in_chans": 3, "num_outputs": 1000}}


@register_model(**_CIFAR, num_params=1_019_722)
def densenet40_k12(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> DenseNet:
    """DenseNet of 40 layers for CIFAR, k = 12, without bottleneck and compression."""
    entry = {"growth_rate": 12, "depths": (12, 12, 12), "bottleneck": False, "compression": 1.0}
    # [1], section 3: 16 maps before the first block, or twice the growth rate for DenseNet-BC
    return _densenet(in_chans, num_outputs, kwargs, init_chans=16, stem="cifar", **entry)


@register_model(**_CIFAR, num_params=769_162)
def densenet_bc100_k12(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> DenseNet:
    """DenseNet-BC of 100 layers for CIFAR, k = 12."""
    return _cifar_bc(100, 12, in_chans, num_outputs, kwargs)


@register_model(**_CIFAR, num_params=15_324_406)
def densenet_bc250_k24(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> DenseNet:
    """DenseNet-BC of 250 layers for CIFAR, k = 24."""
    return _cifar_bc(250, 24, in_chans, num_outputs, kwargs)


@register_model(**_CIFAR, num_params=25_624_430)
def densenet_bc190_k40(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> DenseNet:
    """DenseNet-BC of 190 layers for CIFAR, k = 40."""
    return _cifar_bc(190, 40, in_chans, num_outputs, kwargs)


@register_model(**_IMAGENET, num_params=7_978_856)
def densenet121(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> DenseNet:
    """DenseNet-BC of 121 layers (Table 1), k = 32."""
    return _densenet(in_chans, num_outputs, kwargs, depths=(6, 12, 24, 16))


@register_model(**_IMAGENET, num_params=14_149_480)
def densenet169(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> DenseNet:
    """DenseNet-BC of 169 layers (Table 1), k = 32."""
    return _densenet(in_chans, num_outputs, kwargs, depths=(6, 12, 32, 32))


@register_model(**_IMAGENET, num_params=20_013_928)
def densenet201(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> DenseNet:
    """DenseNet-BC of 201 layers (Table 1), k = 32."""
    return _densenet(in_chans, num_outputs, kwargs, depths=(6, 12, 48, 32))


@register_model(**_IMAGENET, num_params=28_681_000)
def densenet161(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> DenseNet:
    """DenseNet-BC of 161 layers, k = 48 ([2])."""
    return _densenet(in_chans, num_outputs, kwargs, growth_rate=48, depths=(6, 12, 36, 24))
