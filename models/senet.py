"""Networks with squeeze and excitation: channels are scaled by what all of them see on average.

====================  ===========  ==========================================================
entry                 parameters   source of the count
====================  ===========  ==========================================================
`se_resnet18`          11,778,592  timm 1.0.31, measured
`se_resnet34`          21,958,868  timm 1.0.31, measured
`se_resnet50`          28,088,024  timm 1.0.31, measured
`se_resnet101`         49,326,872  timm 1.0.31, measured
`se_resnet152`         66,821,848  timm 1.0.31, measured
`senet154`            115,088,984  timm 1.0.31, measured
====================  ===========  ==========================================================

The block sits at the end of the residual branch, before the addition ([1], Fig. 3), with reduction 16; its two layers
are 1x1 convolutions with bias, as in the authors' definitions [2].

Departures from the paper: the head pools whatever map arrives, so that any tile of `min_size` or more is accepted;
narrow networks keep a least number of hidden units (`models.layers.SqueezeExcite`).

References
----------
.. [1] Hu, Shen, Albanie, Sun, Wu (2018), "Squeeze-and-excitation networks", arXiv:1709.01507.
.. [2] https://github.com/hujie-frank/SENet, models.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from models.layers import FeatureInfo, Head, SqueezeExcite, TileModel, conv_bn, init_he_normal
from models.registry import register_model
from models.residual import ResidualBlock
from models.resnet import IMAGENET_REF, ResNet, build_resnet

REDUCTION = 16  # [1], section 3.2: of all reported networks
SENET_EXPANSION = 4


class SENet(TileModel):
    """SENet-154: a deep ResNeXt of 64 groups with squeeze and excitation ([1], appendix).

    It differs from a ResNeXt in that the first 1x1 convolution of a bottleneck has half as many channels as the 3x3,
    the stem is three 3x3 convolutions, and projections with stride have a 3x3 kernel.

    Parameters
    ----------
    in_chans, num_outputs
        Channels of the tiles, length of the output vector.
    depths
        Number of blocks per stage; every stage after the first halves the size and doubles the channels.
    width
        Channels of the stem's first convolutions, and number of groups of the 3x3 convolutions. A block's 3x3 has 4 x
        `width` channels in the first stage, 4 per group.
    reduction
        Of squeeze and excitation.
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
        depths: Sequence[int] = (3, 8, 36, 3),
        width: int = 64,
        reduction: int = REDUCTION,
        drop_rate: float = 0.2,
        n_scalars: int = 0,
        scalars_hidden: int = 64,
    ) -> None:
        super().__init__()
        if not depths or min(depths) < 1:
            raise ValueError(f"depths of a SENet are the numbers of blocks per stage, each at least 1, got {depths}")
        for argument, value in (("width", width), ("reduction", reduction)):
            if value < 1:
                raise ValueError(f"{argument} of a SENet must be at least 1, got {value}")
        self.in_chans = in_chans
        chans = 2 * width
        self.stem = nn.Sequential(
            *conv_bn(in_chans, width, 3, 2), nn.ReLU(inplace=True),
            *conv_bn(width, width, 3), nn.ReLU(inplace=True),
            *conv_bn(width, chans, 3), nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )  # fmt: skip
        size_ratio = 4
        self.feature_info = []
        stages = []
        for index, depth in enumerate(depths):
            inner = width * SENET_EXPANSION * 2**index
            blocks = []
            for position in range(depth):
                stride = 2 if index and not position else 1
                blocks.append(_senet_block(chans, inner, stride, groups=width, reduction=reduction))
                chans = inner
                size_ratio *= stride
            stages.append(nn.Sequential(*blocks))
            self.feature_info.append(FeatureInfo(f"stages.{index}", chans, size_ratio))
        self.stages = nn.Sequential(*stages)
        self.min_size = size_ratio  # below it, the last map would be made of padding for the greater part
        init_he_normal(self)
        self.head = Head(chans, num_outputs, n_scalars, scalars_hidden, drop_rate)

    def forward_features(self, x: Tensor) -> Tensor:
        self.check_tile(x)
        return self.stages(self.stem(x))


def _senet_block(in_chans: int, chans: int, stride: int, groups: int, reduction: int) -> ResidualBlock:
    grouped = nn.Conv2d(chans // 2, chans, 3, stride, padding=1, groups=groups, bias=False)
    residual = nn.Sequential(
        *conv_bn(in_chans, chans // 2, 1), nn.ReLU(inplace=True),
        grouped, nn.BatchNorm2d(chans), nn.ReLU(inplace=True),
        *conv_bn(chans, chans, 1),
        SqueezeExcite(chans, reduction),
    )  # fmt: skip
    shortcut = nn.Identity()
    if stride != 1 or in_chans != chans:
        shortcut = nn.Sequential(*conv_bn(in_chans, chans, 1 if stride == 1 else 3, stride))
    return ResidualBlock(residual, shortcut, nn.ReLU(inplace=True))


def _se_resnet(in_chans: int, num_outputs: int, kwargs: dict[str, Any], **entry: Any) -> ResNet:
    return build_resnet(in_chans, num_outputs, kwargs, se_reduction=REDUCTION, **entry)


_IMAGENET = {"paper": "arXiv:1709.01507", "ref": IMAGENET_REF}


@register_model(**_IMAGENET, num_params=11_778_592)
def se_resnet18(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ResNet:
    """SE-ResNet-18."""
    return _se_resnet(in_chans, num_outputs, kwargs, depths=(2, 2, 2, 2))


@register_model(**_IMAGENET, num_params=21_958_868)
def se_resnet34(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ResNet:
    """SE-ResNet-34."""
    return _se_resnet(in_chans, num_outputs, kwargs, depths=(3, 4, 6, 3))


@register_model(**_IMAGENET, num_params=28_088_024)
def se_resnet50(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ResNet:
    """SE-ResNet-50 (Table 1), bottleneck blocks."""
    return _se_resnet(in_chans, num_outputs, kwargs, block="bottleneck", depths=(3, 4, 6, 3))


@register_model(**_IMAGENET, num_params=49_326_872)
def se_resnet101(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ResNet:
    """SE-ResNet-101 (Table 2), bottleneck blocks."""
    return _se_resnet(in_chans, num_outputs, kwargs, block="bottleneck", depths=(3, 4, 23, 3))


@register_model(**_IMAGENET, num_params=66_821_848)
def se_resnet152(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> ResNet:
    """SE-ResNet-152 (Table 2), bottleneck blocks."""
    return _se_resnet(in_chans, num_outputs, kwargs, block="bottleneck", depths=(3, 8, 36, 3))


@register_model(**_IMAGENET, num_params=115_088_984)
def senet154(in_chans: int = 1, num_outputs: int = 1, **kwargs: Any) -> SENet:
    """SENet-154 (appendix): 3 + 3 x 50 + 1 weighted layers."""
    return SENet(in_chans, num_outputs, **kwargs)
